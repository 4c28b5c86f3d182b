//! Two snapshots become what changed between them. Pure: no files, no clock.
//!
//! What went down is a *reduction* and positive; what grew is negative.

use std::collections::HashMap;

use grey_core::event::MemSource;
use grey_core::time::Timestamp;
use serde::Serialize;
use serde::ser::Serializer;

use super::document::{CgroupEntry, ProcessEntry, Snapshot, ancestors};
use notes::Note;

mod machine;
mod notes;
#[cfg(test)]
pub(super) mod tests;

/// The schema of `snapshot compare --json`.
pub const SCHEMA: &str = "grey-ebpf-snapshot-compare/1";

/// What changed.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Always `grey-ebpf-snapshot-compare/1`.
    pub schema: &'static str,
    /// The first snapshot.
    pub before: Head,
    /// The second.
    pub after: Head,
    /// Time between them, seconds; negative where the second is the older one.
    pub elapsed_s: f64,
    /// What to know before believing the figures.
    pub notes: Vec<Note>,
    /// The whole machine: `in_use` is total less available, `held` is total less free (with the page cache).
    pub machine: Figures,
    /// How much of the machine's change the cgroups and processes below explain.
    pub accounted: Accounted,
    /// Cgroups, the largest change first.
    pub cgroups: Vec<CgroupChange>,
    /// Cgroups that `--top` left out.
    #[serde(skip_serializing_if = "is_zero")]
    pub cgroups_left_out: usize,
    /// Processes, the largest change first.
    pub processes: Vec<ProcessChange>,
    /// Processes that `--top` left out.
    #[serde(skip_serializing_if = "is_zero")]
    pub processes_left_out: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Where and when a snapshot was made.
#[derive(Clone, Debug, Serialize)]
pub struct Head {
    /// When.
    pub ts: Timestamp,
    /// Node name.
    pub host: String,
    /// Boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Kernel release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
}

/// A figure before and after. One side is absent where it is unknown, or its cgroup or process did not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Change {
    /// Before, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// After, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// `before` less `after`: positive for what went down. Absent where a side is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reduction_bytes: Option<i64>,
    /// The same in percent of `before`; absent where that is 0 or unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reduction_pct: Option<f64>,
}

impl Change {
    /// Of something that may not have existed: `exists` says on which sides it did. What did not exist held nothing.
    #[must_use]
    pub fn of(before: Option<u64>, after: Option<u64>, exists: (bool, bool)) -> Change {
        let value = |figure: Option<u64>, exists: bool| if exists { figure } else { Some(0) };
        let sides = (value(before, exists.0), value(after, exists.1));
        let (reduction_bytes, reduction_pct) = match sides {
            (Some(before), Some(after)) => (Some(less(before, after)), percent(before, after)),
            _ => (None, None),
        };
        Change {
            before,
            after,
            reduction_bytes,
            reduction_pct,
        }
    }

    /// How much, whichever way.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.reduction_bytes.unwrap_or(0).unsigned_abs()
    }
}

/// `before - after`, as far as 64 bits go.
fn less(before: u64, after: u64) -> i64 {
    let difference = i128::from(before) - i128::from(after);
    i64::try_from(difference).unwrap_or(if difference < 0 { i64::MIN } else { i64::MAX })
}

/// The reduction in percent, one decimal.
fn percent(before: u64, after: u64) -> Option<f64> {
    let share = (before as f64 - after as f64) / before as f64 * 1000.0;
    (before > 0).then(|| share.round() / 10.0)
}

/// Named changes, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures(Vec<(&'static str, Change)>);

impl Figures {
    /// Of pairs of before and after; what is unknown on both sides is left out.
    fn of<const N: usize>(
        pairs: [(&'static str, Option<u64>, Option<u64>); N],
        exists: (bool, bool),
    ) -> Figures {
        let known = |(_, before, after): &(&str, Option<u64>, Option<u64>)| {
            before.is_some() || after.is_some()
        };
        Figures(
            pairs
                .into_iter()
                .filter(known)
                .map(|(name, before, after)| (name, Change::of(before, after, exists)))
                .collect(),
        )
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Change> {
        self.0
            .iter()
            .find(|(other, _)| *other == name)
            .map(|(_, change)| change)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Change)> {
        self.0.iter().map(|(name, change)| (*name, change))
    }

    /// The reduction of one of them.
    #[must_use]
    pub fn reduction(&self, name: &str) -> Option<i64> {
        self.get(name)?.reduction_bytes
    }

    /// The first of `names` whose change is known.
    fn first(&self, names: &[&'static str]) -> Option<(&'static str, Change)> {
        names.iter().find_map(|name| {
            let change = *self.get(name)?;
            change.reduction_bytes.map(|_| (*name, change))
        })
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, change)| (name, change)))
    }
}

/// Whether the two sides are the same thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// In both.
    Same,
    /// A cgroup with the same path and another id: it was removed and made again in between.
    Recreated,
    /// In the second only.
    New,
    /// In the first only.
    Gone,
}

/// What changed of a cgroup.
#[derive(Clone, Debug, Serialize)]
pub struct CgroupChange {
    /// Path below the v2 mount.
    pub path: String,
    /// `service`, `container` …
    pub kind: String,
    /// A name a person knows it by.
    pub name: String,
    /// Whether both sides are the same cgroup.
    pub status: Status,
    /// Which of `figures` the change below is of: `current`, or `anon_swap` where there is no memory.current.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub figure: Option<&'static str>,
    /// The change.
    #[serde(flatten)]
    pub change: Change,
    /// Where its figures come from, if not from its memory.* files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_source: Option<MemSource>,
    /// All that is known of it.
    pub figures: Figures,
    /// What happened in between, by count.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_map")]
    pub happened: Vec<(&'static str, u64)>,
}

fn as_map<S: Serializer>(list: &[(&'static str, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(list.iter().copied())
}

/// What changed of a process.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessChange {
    /// Thread group id.
    pub pid: u32,
    /// Command name, the later one.
    pub comm: String,
    /// The earlier one, where it is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm_before: Option<String>,
    /// Path of its cgroup, the later one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Whether it is in both.
    pub status: Status,
    /// The pid belongs to another process in the other snapshot.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pid_reused: bool,
    /// Which of `figures` the change below is of: `pss`, or `rss` where the PSS of a side is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub figure: Option<&'static str>,
    /// The change.
    #[serde(flatten)]
    pub change: Change,
    /// All that is known of it.
    pub figures: Figures,
}

/// How far the parts explain the whole.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Accounted {
    /// The machine's figure that the cgroups are held against: `held` for memory.current, else `anon_swap`.
    pub figure: &'static str,
    /// The machine's reduction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_bytes: Option<i64>,
    /// Sum of the reductions of the topmost cgroups compared, which include those below them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroups_bytes: Option<i64>,
    /// The same in percent of the machine's; absent where that changed by less than 1 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroups_pct: Option<f64>,
    /// Sum of the reductions of processes: of PSS, which counts shared memory once, where it is known, else of RSS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes_bytes: Option<i64>,
    /// Processes in that sum by RSS.
    #[serde(skip_serializing_if = "is_zero")]
    pub processes_by_rss: usize,
}

/// Compares them.
#[must_use]
pub fn compare(before: &Snapshot, after: &Snapshot) -> Comparison {
    // Pids and cgroup ids mean nothing across a boot.
    let same_boot = match (&before.boot_id, &after.boot_id) {
        (Some(before), Some(after)) => before == after,
        _ => before.host == after.host,
    };
    let choices = (before.chose(), after.chose());
    let machine = machine::figures(before, after);
    let mut cgroups = pairs(
        before
            .cgroups
            .iter()
            .filter(|entry| choices.1.cgroup(&entry.cgroup.path)),
        after
            .cgroups
            .iter()
            .filter(|entry| choices.0.cgroup(&entry.cgroup.path)),
        |entry| entry.cgroup.path.as_str(),
        |before, after| cgroup(before, after, same_boot),
    );
    let mut processes = if same_boot {
        let of = |process: &&ProcessEntry| {
            let path = process.cgroup.as_deref();
            choices.0.processes_of(path) && choices.1.processes_of(path)
        };
        let lists = (&before.processes.list, &after.processes.list);
        let mut changes = pairs(
            lists.0.iter().filter(of),
            lists.1.iter().filter(of),
            |process| (process.pid, process.started),
            process,
        );
        mark_reused(&mut changes);
        changes
    } else {
        Vec::new()
    };
    let accounted = machine::accounted(&machine, &cgroups, &processes);
    let notes = notes::of(before, after, same_boot, &cgroups, &processes);
    cgroups
        .sort_by(|a, b| (b.change.size().cmp(&a.change.size())).then_with(|| a.path.cmp(&b.path)));
    processes.sort_by(|a, b| {
        let order = b.change.size().cmp(&a.change.size());
        order.then_with(|| (a.pid, a.status as u8).cmp(&(b.pid, b.status as u8)))
    });
    Comparison {
        schema: SCHEMA,
        before: head(before),
        after: head(after),
        elapsed_s: (after.ts.0.saturating_sub(before.ts.0)) as f64 / 1e6,
        notes,
        machine,
        accounted,
        cgroups,
        cgroups_left_out: 0,
        processes,
        processes_left_out: 0,
    }
}

impl Comparison {
    /// Keeps the `top` largest changes of each list.
    pub fn keep(&mut self, top: usize) {
        self.cgroups_left_out += self.cgroups.len().saturating_sub(top);
        self.processes_left_out += self.processes.len().saturating_sub(top);
        self.cgroups.truncate(top);
        self.processes.truncate(top);
    }
}

fn head(snapshot: &Snapshot) -> Head {
    Head {
        ts: snapshot.ts,
        host: snapshot.host.clone(),
        boot_id: snapshot.boot_id.clone(),
        kernel: snapshot.kernel.clone(),
    }
}

/// Puts what has the same key together.
fn pairs<'a, T: 'a, K: std::hash::Hash + Eq, R>(
    before: impl Iterator<Item = &'a T>,
    after: impl Iterator<Item = &'a T>,
    key: impl Fn(&'a T) -> K,
    change: impl Fn(Option<&'a T>, Option<&'a T>) -> R,
) -> Vec<R> {
    let mut earlier: HashMap<K, &T> = HashMap::new();
    let mut order = Vec::new();
    for entry in before {
        // The first of two with one key, which no snapshot of ours has.
        if earlier.insert(key(entry), entry).is_none() {
            order.push(entry);
        }
    }
    let mut changes = Vec::new();
    for entry in after {
        changes.push(change(earlier.remove(&key(entry)), Some(entry)));
    }
    for entry in order {
        if earlier.remove(&key(entry)).is_some() {
            changes.push(change(Some(entry), None));
        }
    }
    changes
}

fn cgroup(
    before: Option<&CgroupEntry>,
    after: Option<&CgroupEntry>,
    same_boot: bool,
) -> CgroupChange {
    let exists = (before.is_some(), after.is_some());
    let id = |entry: Option<&CgroupEntry>| entry?.cgroup.id;
    let status = match exists {
        (true, true) if same_boot && differ(id(before), id(after)) => Status::Recreated,
        (true, true) => Status::Same,
        (false, _) => Status::New,
        (true, false) => Status::Gone,
    };
    let pair = |name, figure: fn(&CgroupEntry) -> Option<u64>| {
        (name, before.and_then(figure), after.and_then(figure))
    };
    let figures = Figures::of(
        [
            pair("current", |entry| entry.mem.current),
            pair("anon_swap", |entry| {
                // Without a swap file the machine counts none per cgroup.
                Some(entry.mem.anon?.saturating_add(entry.mem.swap.unwrap_or(0)))
            }),
            pair("anon", |entry| entry.mem.anon),
            pair("swap", |entry| entry.mem.swap),
            pair("file", |entry| entry.mem.file),
            pair("shmem", |entry| entry.mem.shmem),
            pair("kernel", |entry| entry.mem.kernel),
            pair("slab", |entry| entry.mem.slab),
            pair("reclaimable", |entry| entry.reclaimable),
            pair("pss", |entry| entry.pss),
            pair("uss", |entry| entry.uss),
        ],
        exists,
    );
    let headline = figures.first(&["current", "anon_swap"]);
    let entry = after.or(before);
    let identity = entry.map(|entry| &entry.cgroup);
    CgroupChange {
        path: identity.map_or_else(String::new, |cgroup| cgroup.path.clone()),
        kind: identity.map_or_else(String::new, |cgroup| cgroup.kind.clone()),
        name: identity.map_or_else(String::new, |cgroup| cgroup.name.clone()),
        status,
        figure: headline.map(|(name, _)| name),
        change: headline.map_or_else(Change::default, |(_, change)| change),
        mem_source: entry
            .and_then(|entry| entry.mem_source)
            .filter(|source| *source != MemSource::Files),
        figures,
        happened: match (before, after, status) {
            (Some(before), Some(after), Status::Same) if same_boot => happened(before, after),
            _ => Vec::new(),
        },
    }
}

fn differ(before: Option<u64>, after: Option<u64>) -> bool {
    matches!((before, after), (Some(before), Some(after)) if before != after)
}

/// Counters that rose.
fn happened(before: &CgroupEntry, after: &CgroupEntry) -> Vec<(&'static str, u64)> {
    let events = (
        before.events.clone().unwrap_or_default(),
        after.events.clone().unwrap_or_default(),
    );
    let counters = (&before.counters, &after.counters);
    [
        ("oom_kills", events.0.oom_kill, events.1.oom_kill),
        ("high_breaches", events.0.high, events.1.high),
        ("max_breaches", events.0.max, events.1.max),
        (
            "pages_reclaimed",
            counters.0.reclaimed,
            counters.1.reclaimed,
        ),
        ("pages_refaulted", counters.0.refaults, counters.1.refaults),
        (
            "pages_swapped_out",
            counters.0.swapped_out,
            counters.1.swapped_out,
        ),
        (
            "major_faults",
            counters.0.major_faults,
            counters.1.major_faults,
        ),
    ]
    .into_iter()
    .filter_map(|(name, before, after)| {
        let rose = after?.checked_sub(before?)?;
        (rose > 0).then_some((name, rose))
    })
    .collect()
}

fn process(before: Option<&ProcessEntry>, after: Option<&ProcessEntry>) -> ProcessChange {
    let exists = (before.is_some(), after.is_some());
    let status = match exists {
        (true, true) => Status::Same,
        (false, _) => Status::New,
        (true, false) => Status::Gone,
    };
    let pair = |name, figure: fn(&ProcessEntry) -> Option<u64>| {
        (name, before.and_then(figure), after.and_then(figure))
    };
    let figures = Figures::of(
        [
            pair("pss", |process| process.pss),
            pair("uss", |process| process.uss),
            pair("rss", |process| process.rss),
            pair("anon", |process| process.anon),
            pair("swap", |process| process.swap),
            pair("swap_pss", |process| process.swap_pss),
            pair("huge", |process| process.huge),
            pair("ksm", |process| process.ksm),
            pair("virtual", |process| process.r#virtual),
        ],
        exists,
    );
    let headline = figures.first(&["pss", "rss"]);
    let entry = after.or(before);
    let comm = |entry: Option<&ProcessEntry>| entry.map(|process| process.comm.clone());
    ProcessChange {
        pid: entry.map_or(0, |process| process.pid),
        comm: comm(entry).unwrap_or_default(),
        comm_before: comm(before).filter(|before| Some(before) != comm(after).as_ref() && exists.1),
        cgroup: entry.and_then(|process| process.cgroup.clone()),
        status,
        pid_reused: false,
        figure: headline.map(|(name, _)| name),
        change: headline.map_or_else(Change::default, |(_, change)| change),
        figures,
    }
}

/// A pid that is gone and new at once is two processes.
fn mark_reused(changes: &mut [ProcessChange]) {
    let mut count: HashMap<u32, u32> = HashMap::new();
    for change in changes.iter() {
        *count.entry(change.pid).or_default() += 1;
    }
    for change in changes {
        change.pid_reused = count[&change.pid] > 1;
    }
}

/// The topmost cgroups of a list: none of their ancestors but the root is in it.
fn topmost(cgroups: &[CgroupChange]) -> impl Iterator<Item = &CgroupChange> {
    let paths: std::collections::HashSet<&str> =
        cgroups.iter().map(|change| change.path.as_str()).collect();
    cgroups.iter().filter(move |change| {
        change.path != "/"
            && !ancestors(&change.path)
                .skip(1)
                .any(|path| path != "/" && paths.contains(path))
    })
}
