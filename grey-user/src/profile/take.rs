//! Takes a profile: attaches, holds the cost within its budget while it runs, and makes stacks with names of what the
//! tables hold at the end.

use std::collections::HashMap;
use std::fs::File;
use std::time::{Duration, Instant};

use grey_common::stack::{PageKey, StackKey, StackState, is_followed};
use grey_core::time::Timestamp;

use super::blame::blamed;
use super::document::{Cost, Frame, Lost, Profile, SCHEMA, Stack};
use super::moves::Moves;
use super::names::{Known, Names};
use super::resident::{Left, Resident};
use crate::host::{CgroupFs, Host};
use crate::probe::{Facts, LoadError, Settings, StackProbe, StackRoom, StackTables, StackTarget};
use crate::source::Clock;

/// Between two looks at the cost.
pub(crate) const TICK: Duration = Duration::from_millis(20);
/// Between two looks at which processes there are.
const PROCESSES: Duration = Duration::from_millis(500);
/// The budget is one of at least this long: a start in a hurry is no reason to follow fewer pages for good.
const WINDOW: Duration = Duration::from_secs(1);
/// One page in a million is as few as makes sense.
const MOST_SHIFT: u64 = 20;
/// Processes whose mappings are kept for their end.
const MOST_PROCESSES: usize = 4096;
/// Below this share, nobody need be told that stacks are broken.
const BROKEN_PCT: u64 = 20;

/// Whom to profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// By its thread group id.
    Process(u32),
    /// By its path below the v2 mount.
    Cgroup(String),
}

/// How to profile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Time spent taking stacks, as a share of one CPU.
    pub budget: f64,
    /// Tables of the kernel side.
    pub room: StackRoom,
    /// Names by symbols alone: no debug information, so no source lines and no inlined functions.
    pub symbols_only: bool,
}

/// A profile being taken. Dropping it detaches all.
pub(crate) struct Taking {
    host: Host,
    fs: CgroupFs,
    target: Target,
    options: Options,
    probe: StackProbe,
    began: Timestamp,
    start: Instant,
    shift: u64,
    last: (Instant, StackState),
    /// Samples when the table of pages was last looked through, and the entries it had then.
    pruned: (u64, usize),
    looked: Option<Instant>,
    processes: HashMap<u32, Known>,
    moves: Moves,
}

impl Taking {
    /// Attaches.
    ///
    /// # Errors
    /// The kernel side cannot be loaded, or the target is gone.
    pub(crate) fn start(
        host: Host,
        fs: CgroupFs,
        target: Target,
        options: Options,
        settings: &Settings,
    ) -> Result<Taking, LoadError> {
        let of = match &target {
            Target::Process(pid) => StackTarget::Process(*pid),
            Target::Cgroup(path) => {
                let directory = File::open(fs.reach(path))
                    .map_err(|error| LoadError::Object(format!("cgroup {path}: {error}")))?;
                StackTarget::Cgroup(directory)
            }
        };
        let facts = Facts::read(std::path::Path::new("/"));
        let probe = StackProbe::load(&facts, of, options.room, settings)?;
        let now = Instant::now();
        let mut taking = Taking {
            host,
            fs,
            target,
            options,
            probe,
            began: Clock::wall(),
            start: now,
            shift: 0,
            last: (now, StackState::default()),
            pruned: (0, 0),
            looked: None,
            processes: HashMap::new(),
            moves: Moves::new(),
        };
        taking.look();
        Ok(taking)
    }

    /// Since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Faults so far, and of how many pages one is followed.
    pub(crate) fn figures(&self) -> (u64, u64) {
        (self.last.1.seen, 1 << self.shift)
    }

    /// Each [`TICK`]: follows fewer pages where the cost or the tables ask for it.
    pub(crate) fn tick(&mut self) {
        let Ok(state) = self.probe.state() else {
            return;
        };
        self.moves.follow(&mut self.probe, self.shift);
        let now = Instant::now();
        let (before, last) = self.last;
        self.last = (now, state);
        let share = |ns: u64, time: Duration| ns as f64 / time.as_nanos().max(1) as f64;
        let all = share(state.ns, self.elapsed().max(WINDOW));
        let recent = share(state.ns.saturating_sub(last.ns), now - before);
        let mut shift = self.shift;
        if all > self.options.budget && recent > self.options.budget {
            // Each step halves the cost.
            shift += (recent / self.options.budget).log2().ceil().max(1.0) as u64;
        }
        let room = self.options.room.pages as usize;
        let (sampled, entries) = self.pruned;
        let most = entries + (state.sampled.saturating_sub(sampled)) as usize;
        if most > room / 4 * 3 {
            let mut left = self.probe.prune(|page| is_followed(page, shift));
            while left > room / 2 && shift < MOST_SHIFT {
                shift += 1;
                left = self.probe.prune(|page| is_followed(page, shift));
            }
            self.pruned = (state.sampled, left);
        }
        shift = shift.min(MOST_SHIFT);
        if shift > self.shift && self.probe.set_shift(shift).is_ok() {
            self.shift = shift;
        }
        if self.looked.is_none_or(|at| at.elapsed() >= PROCESSES) {
            self.look();
        }
    }

    /// Whether the target is still there.
    pub(crate) fn lives(&self) -> bool {
        match &self.target {
            Target::Process(pid) => self.host.has(format!("/proc/{pid}/pagemap")),
            Target::Cgroup(path) => self.fs.id_of(path).is_some(),
        }
    }

    /// Keeps what must be known of new processes.
    fn look(&mut self) {
        self.looked = Some(Instant::now());
        for pid in self.pids() {
            if self.processes.len() >= MOST_PROCESSES {
                break;
            }
            if !self.processes.contains_key(&pid)
                && let Some(known) = Known::of(&self.host, pid)
            {
                self.processes.insert(pid, known);
            }
        }
    }

    fn pids(&self) -> Vec<u32> {
        let path = match &self.target {
            Target::Process(pid) => return vec![*pid],
            Target::Cgroup(path) => path,
        };
        let Ok(walk) = self.fs.walk_from(path) else {
            return Vec::new();
        };
        walk.cgroups
            .iter()
            .filter_map(|entry| self.fs.pids(&entry.path).ok())
            .flatten()
            .collect()
    }

    /// Detaches, looks what is left, and gives names to all.
    pub(crate) fn finish(mut self) -> Profile {
        let state = self.probe.state().unwrap_or_default();
        let sees_huge = self.probe.sees_huge();
        self.probe.detach();
        self.moves.follow(&mut self.probe, self.shift);
        let elapsed = self.elapsed();
        let mut tables = self.probe.tables();
        self.moves.settle(&mut tables, self.shift);
        // Before anything else: the target goes on meanwhile.
        let left = self.left(&tables.pages, sees_huge);
        for (key, _) in &tables.counts {
            // Its mappings may have changed since it was first seen.
            if let Some(known) = Known::of(&self.host, key.tgid) {
                self.processes.insert(key.tgid, known);
            }
        }
        let stacks = self.stacks(&tables, &left);
        let mut profile = Profile {
            schema: SCHEMA.to_owned(),
            ts: self.began,
            host: self
                .host
                .text("/proc/sys/kernel/hostname")
                .map(|name| name.trim().to_owned())
                .unwrap_or_default(),
            duration_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            one_in: 1 << self.shift,
            faults: state.seen,
            faulted_bytes: stacks.iter().map(|stack| stack.faulted_bytes).sum(),
            kept_bytes: stacks.iter().map(|stack| stack.kept_bytes).sum(),
            file_bytes: stacks.iter().map(|stack| stack.file_bytes).sum(),
            huge_pages_counted: sees_huge,
            lost: Lost {
                stacks: state.lost_stacks,
                counts: state.lost_counts,
                pages: state.lost_pages,
                moves: state.lost_moves + self.moves.lost,
            },
            cost: Cost {
                samples: state.sampled,
                us: state.ns / 1000,
                cpu_pct: state.ns as f64 / elapsed.as_nanos().max(1) as f64 * 100.0,
            },
            stacks,
            ..Profile::default()
        };
        match self.target {
            Target::Process(pid) => profile.pid = Some(pid),
            Target::Cgroup(path) => profile.cgroup = Some(path),
        }
        profile.notes = notes(&profile);
        profile
    }

    /// What is left of what each stack got.
    fn left(&self, pages: &[(PageKey, StackKey)], sees_huge: bool) -> HashMap<StackKey, Left> {
        let page = rustix::param::page_size() as u64;
        let mut pages: Vec<&(PageKey, StackKey)> = pages.iter().collect();
        // By process and address, so that each block of entries is read once.
        pages.sort_unstable_by_key(|(key, _)| (key.tgid, key.address));
        let mut left: HashMap<StackKey, Left> = HashMap::new();
        let mut resident: Option<(u32, Option<Resident>)> = None;
        for (key, stack) in pages {
            if resident.as_ref().is_none_or(|(tgid, _)| *tgid != key.tgid) {
                resident = Some((key.tgid, Resident::open(&self.host, key.tgid).ok()));
            }
            let Some((_, Some(resident))) = &mut resident else {
                continue;
            };
            let sum = left.entry(*stack).or_default();
            if key.huge == 1 {
                // Its first page is followed, or not, as any other.
                let all = resident.huge(key.address);
                sum.kept += all.kept.saturating_sub(page);
                sum.file += all.file.saturating_sub(page);
            } else {
                let one = resident.page(key.address, !sees_huge);
                sum.kept += one.kept << self.shift;
                sum.file += one.file << self.shift;
            }
        }
        left
    }

    /// Stacks with names, those that are the same by name together, by what they kept.
    fn stacks(&self, tables: &StackTables, left: &HashMap<StackKey, Left>) -> Vec<Stack> {
        let names = Names::find(
            &self.host,
            &self.processes,
            tables,
            self.options.symbols_only,
        );
        let mut sums: HashMap<(u32, Vec<Frame>), Stack> = HashMap::new();
        for (key, count) in &tables.counts {
            let frames = names.frames(key);
            let sum = sums
                .entry((key.tgid, frames))
                .or_insert_with_key(|(pid, frames)| Stack {
                    pid: *pid,
                    comm: self
                        .processes
                        .get(pid)
                        .map_or_else(|| format!("pid {pid}"), |known| known.comm.clone()),
                    function: blamed(frames),
                    frames: frames.clone(),
                    ..Stack::default()
                });
            let left = left.get(key).copied().unwrap_or_default();
            sum.kept_bytes += left.kept;
            sum.file_bytes += left.file;
            sum.faults += count.faults;
            // What is left has come in, also where a huge page came in as one fault or the estimates differ.
            sum.faulted_bytes += count.bytes.max(left.kept + left.file);
            sum.broken |= names.is_broken(key);
        }
        let mut stacks: Vec<Stack> = sums.into_values().collect();
        stacks.sort_by(|a, b| {
            (b.kept_bytes, b.faulted_bytes)
                .cmp(&(a.kept_bytes, a.faulted_bytes))
                .then_with(|| (a.pid, &a.frames).cmp(&(b.pid, &b.frames)))
        });
        stacks
    }
}

fn notes(profile: &Profile) -> Vec<String> {
    let mut notes = Vec::new();
    let broken = profile.stacks.iter().filter(|stack| stack.broken);
    let broken: u64 = broken.map(|stack| stack.faulted_bytes).sum();
    let share = broken.saturating_mul(100) / profile.faulted_bytes.max(1);
    if share >= BROKEN_PCT {
        notes.push(format!(
            "of {share}% of the memory only the innermost function is known: code without frame pointers; build with \
             -fno-omit-frame-pointer (C, C++) or -C force-frame-pointers=yes (Rust), or run python3 -X perf, of a Python \
             built with frame pointers"
        ));
    }
    let Lost {
        stacks,
        counts,
        pages,
        moves,
    } = profile.lost;
    if stacks + counts + pages + moves > 0 {
        notes.push(format!(
            "tables were full: the stacks of {stacks} samples are not known; {counts} samples, {pages} pages and {moves} \
             moves by mremap are missing in the figures"
        ));
    }
    notes
}
