//! Which cgroups a table shows, in what order, and how near each is to its limit.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Duration;

use super::Model;
use super::entry::Entry;
use super::rates::Rates;
use super::verdicts::Judged;
use crate::event::Limit;

/// What a table is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortKey {
    /// memory.current.
    #[default]
    Memory,
    /// anon.
    Anon,
    /// Growth of anon + swap.
    Growth,
    /// Page faults/s.
    Faults,
    /// Bytes/s mapped.
    Mapped,
    /// Reclaim stall.
    Stall,
    /// Memory pressure.
    Psi,
    /// Share of the limit used.
    Limit,
    /// What the detector says: the gravest first, of the like the one that meets its limit first.
    Verdict,
    /// Path.
    Name,
}

impl SortKey {
    /// All keys, in the order in which a user goes through them.
    pub const ALL: [SortKey; 10] = [
        SortKey::Memory,
        SortKey::Anon,
        SortKey::Growth,
        SortKey::Faults,
        SortKey::Mapped,
        SortKey::Stall,
        SortKey::Psi,
        SortKey::Limit,
        SortKey::Verdict,
        SortKey::Name,
    ];

    /// The key after this one, round and round.
    #[must_use]
    pub fn next(self) -> SortKey {
        let at = SortKey::ALL
            .iter()
            .position(|key| *key == self)
            .unwrap_or(0);
        SortKey::ALL[(at + 1) % SortKey::ALL.len()]
    }

    /// Whether large figures come first unless the user says otherwise.
    #[must_use]
    pub fn descends(self) -> bool {
        self != SortKey::Name
    }

    /// A word for it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            SortKey::Memory => "memory",
            SortKey::Anon => "anon",
            SortKey::Growth => "growth",
            SortKey::Faults => "faults",
            SortKey::Mapped => "mapped",
            SortKey::Stall => "stall",
            SortKey::Psi => "psi",
            SortKey::Limit => "limit",
            SortKey::Verdict => "verdict",
            SortKey::Name => "name",
        }
    }
}

/// Which rows, in what order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// What to sort by. Unknown figures come last either way.
    pub sort: SortKey,
    /// Large figures first (for the name: Z first).
    pub descending: bool,
    /// Words that must all be part of the path, the name or the kind; case does not matter. Empty: every cgroup.
    pub filter: String,
    /// Children below their parents; with a filter the ancestors of what matches stay.
    pub tree: bool,
}

impl Default for Query {
    fn default() -> Self {
        Query {
            sort: SortKey::default(),
            descending: true,
            filter: String::new(),
            tree: false,
        }
    }
}

/// One line of a table.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The cgroup.
    pub entry: &'a Entry,
    /// Its rates now ([`Model::rates`]).
    pub rates: &'a Rates,
    /// Time since its last sample.
    pub age: Duration,
    /// Whether its rates are too old to be shown.
    pub stale: bool,
    /// The path; in a tree only the part below the parent row.
    pub label: &'a str,
    /// Depth in the tree, 0 for its roots and in a flat table.
    pub depth: usize,
    /// False for an ancestor that is there only for what matches below it.
    pub matched: bool,
    /// The gravest of what the detector says of it.
    pub verdict: Option<&'a Judged>,
    /// Seconds left until the limit it names ([`Model::time_left`]).
    pub time_left: Option<f64>,
}

/// Which file holds a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// memory.max: beyond it processes are killed.
    Max,
    /// memory.high: beyond it they are slowed down.
    High,
}

/// How near a cgroup is to the limit that it will hit first.
#[derive(Clone, Copy, Debug)]
pub struct LimitUse<'a> {
    /// The cgroup that has the limit: the one asked about or an ancestor.
    pub owner: &'a Entry,
    /// Which limit.
    pub kind: LimitKind,
    /// The limit, bytes.
    pub bytes: u64,
    /// memory.current of the owner, bytes.
    pub used: u64,
    /// `used / bytes`; may be a little over 1.
    pub ratio: f64,
}

impl Model {
    /// The rows of a table. 10,000 cgroups take a few milliseconds; draw no more of them than are seen.
    #[must_use]
    pub fn rows(&self, query: &Query) -> Vec<Row<'_>> {
        let words: Vec<String> = query
            .filter
            .split_whitespace()
            .map(str::to_lowercase)
            .collect();
        if query.tree {
            return self.tree_rows(query, &words);
        }
        // Who is in trouble comes first, so that nobody has to look for it, except where the user asks for an order of
        // the verdicts themselves.
        let grave = |entry: &Entry| match query.sort {
            SortKey::Verdict => 0,
            _ => self.gravity(entry.path()),
        };
        let mut keyed: Vec<(u8, (Key<'_>, &Entry))> = self
            .entries()
            .filter(|entry| matches(entry, &words))
            .map(|entry| (grave(entry), (self.key(entry, query.sort), entry)))
            .collect();
        keyed.sort_unstable_by(|a, b| {
            b.0.cmp(&a.0)
                .then_with(|| order(&a.1, &b.1, query.descending))
        });
        keyed
            .into_iter()
            .map(|(_, (_, entry))| self.row(entry, entry.path(), 0, true))
            .collect()
    }

    /// Over 0 for a cgroup with an open verdict, the more the graver.
    fn gravity(&self, path: &str) -> u8 {
        match self.verdicts(path).first() {
            Some(gravest) if gravest.is_open() => gravest.rank(),
            _ => 0,
        }
    }

    /// The limit that this cgroup will hit first, of its own and its ancestors': memory.max where there is one, else
    /// memory.high. `None` when there is no limit or the use is unknown.
    #[must_use]
    pub fn limit<'a>(&'a self, entry: &'a Entry) -> Option<LimitUse<'a>> {
        let lines = || std::iter::once(entry).chain(self.ancestors(entry.path()));
        let nearest = |kind: LimitKind| {
            let mut best: Option<LimitUse<'a>> = None;
            for owner in lines() {
                let mem = &owner.sample().mem;
                let limit = match kind {
                    LimitKind::Max => mem.max,
                    LimitKind::High => mem.high,
                };
                let (Limit::Bytes(bytes), Some(used)) = (limit, mem.current) else {
                    continue;
                };
                let ratio = if bytes == 0 {
                    1.0
                } else {
                    used as f64 / bytes as f64
                };
                if best.is_none_or(|best| ratio > best.ratio) {
                    best = Some(LimitUse {
                        owner,
                        kind,
                        bytes,
                        used,
                        ratio,
                    });
                }
            }
            best
        };
        nearest(LimitKind::Max).or_else(|| nearest(LimitKind::High))
    }

    /// Ancestors that are known, the parent first.
    fn ancestors<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a Entry> {
        let mut rest = Some(path);
        std::iter::from_fn(move || {
            loop {
                let parent = parent(rest?);
                rest = parent;
                if let Some(entry) = self.get(parent?) {
                    return Some(entry);
                }
            }
        })
    }

    fn row<'a>(&'a self, entry: &'a Entry, label: &'a str, depth: usize, matched: bool) -> Row<'a> {
        let verdict = self.verdicts(entry.path()).first();
        Row {
            entry,
            rates: self.rates(entry),
            age: self.age(entry),
            stale: self.is_stale(entry),
            label,
            depth,
            matched,
            verdict,
            time_left: verdict.and_then(|judged| self.time_left(judged)),
        }
    }

    fn tree_rows(&self, query: &Query, words: &[String]) -> Vec<Row<'_>> {
        // Path to whether it matches itself; ancestors come in through what is below them.
        let mut shown: HashMap<&str, bool> = HashMap::new();
        for entry in self.entries() {
            if !matches(entry, words) {
                continue;
            }
            shown.insert(entry.path(), true);
            for ancestor in self.ancestors(entry.path()) {
                // Those above one that is there already are there too.
                if shown.contains_key(ancestor.path()) {
                    break;
                }
                shown.insert(ancestor.path(), false);
            }
        }
        // In a tree a branch comes first for the sake of what is in trouble somewhere on it.
        let mut grave: HashMap<&str, u8> = HashMap::new();
        if query.sort != SortKey::Verdict {
            for path in shown.keys() {
                let gravity = self.gravity(path);
                let above = self.ancestors(path).map(Entry::path);
                for on in std::iter::once(*path).chain(above).filter(|_| gravity > 0) {
                    let most = grave.entry(on).or_default();
                    *most = gravity.max(*most);
                }
            }
        }
        let grave = |entry: &Entry| grave.get(entry.path()).copied().unwrap_or(0);
        type Keyed<'a> = (Key<'a>, &'a Entry);
        let mut children: HashMap<Option<&str>, Vec<Keyed<'_>>> = HashMap::new();
        for path in shown.keys() {
            let Some(entry) = self.get(path) else {
                continue;
            };
            let above = self.ancestors(entry.path()).next().map(Entry::path);
            let key = self.key(entry, query.sort);
            children.entry(above).or_default().push((key, entry));
        }
        // Last first, because they are taken from the end.
        for siblings in children.values_mut() {
            siblings.sort_unstable_by(|a, b| {
                grave(a.1)
                    .cmp(&grave(b.1))
                    .then_with(|| order(b, a, query.descending))
            });
        }
        let mut rows = Vec::with_capacity(shown.len());
        let mut open: Vec<(Option<&str>, Vec<Keyed<'_>>)> = children
            .remove(&None)
            .map(|roots| (None, roots))
            .into_iter()
            .collect();
        while let Some((above, siblings)) = open.last_mut() {
            let Some((_, entry)) = siblings.pop() else {
                open.pop();
                continue;
            };
            let label = match *above {
                Some("/") | None => entry.path(),
                Some(above) => entry.path().get(above.len()..).unwrap_or(entry.path()),
            };
            let label = match label.strip_prefix('/') {
                Some(name) if !name.is_empty() => name,
                _ => label,
            };
            let matched = shown.get(entry.path()).copied().unwrap_or(true);
            let depth = open.len() - 1;
            rows.push(self.row(entry, label, depth, matched));
            if let Some(below) = children.remove(&Some(entry.path())) {
                open.push((Some(entry.path()), below));
            }
        }
        rows
    }

    fn key<'a>(&self, entry: &'a Entry, sort: SortKey) -> Key<'a> {
        let mem = &entry.sample().mem;
        let bytes = |figure: Option<u64>| Key::Figure(figure.map(|bytes| bytes as f64));
        match sort {
            SortKey::Memory => bytes(mem.current),
            SortKey::Anon => bytes(mem.anon),
            SortKey::Growth => Key::Figure(self.rates(entry).growth),
            SortKey::Faults => Key::Figure(self.rates(entry).faults),
            SortKey::Mapped => Key::Figure(self.rates(entry).mapped),
            SortKey::Stall => Key::Figure(self.rates(entry).stall),
            SortKey::Psi => Key::Figure(self.rates(entry).psi_some),
            SortKey::Limit => Key::Figure(self.limit(entry).map(|limit| limit.ratio)),
            SortKey::Verdict => Key::Figure(self.verdicts(entry.path()).first().map(Judged::score)),
            SortKey::Name => Key::Path(entry.path()),
        }
    }
}

enum Key<'a> {
    Figure(Option<f64>),
    Path(&'a str),
}

/// Unknown last whatever the direction, equal ones by path, so that rows do not jump about.
fn order(a: &(Key<'_>, &Entry), b: &(Key<'_>, &Entry), descending: bool) -> Ordering {
    let directed = |ordering: Ordering| {
        if descending {
            ordering.reverse()
        } else {
            ordering
        }
    };
    match (&a.0, &b.0) {
        (Key::Figure(Some(x)), Key::Figure(Some(y))) => directed(x.total_cmp(y)),
        (Key::Figure(Some(_)), _) => Ordering::Less,
        (_, Key::Figure(Some(_))) => Ordering::Greater,
        (Key::Path(x), Key::Path(y)) => directed(x.cmp(y)),
        _ => Ordering::Equal,
    }
    .then_with(|| a.1.path().cmp(b.1.path()))
}

fn matches(entry: &Entry, words: &[String]) -> bool {
    words.iter().all(|word| {
        contains(entry.path(), word) || contains(entry.name(), word) || contains(entry.kind(), word)
    })
}

/// Whether `text` holds the lower-case `word`, without allocating in the usual case.
fn contains(text: &str, word: &str) -> bool {
    if text.is_ascii() && word.is_ascii() {
        let (text, word) = (text.as_bytes(), word.as_bytes());
        return word.is_empty()
            || text
                .windows(word.len())
                .any(|part| part.eq_ignore_ascii_case(word));
    }
    text.to_lowercase().contains(word)
}

fn parent(path: &str) -> Option<&str> {
    match path.rfind('/') {
        Some(0) if path.len() > 1 => Some("/"),
        Some(0) | None => None,
        Some(at) => Some(&path[..at]),
    }
}
