//! Where events come from: rings, counters and files become [`Event`]s. No output and no waiting here; the loop in
//! `watch` says when.

mod budget;
mod build;
mod clock;
mod coverage;
mod health;
mod kills;
mod processes;
mod quiet;
mod records;
mod rota;
mod scan;
mod suspects;
mod verdicts;

use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use grey_common::{CgroupCounters, LossCount};
use grey_core::event::{Body, Cgroup, Event, SCHEMA};
use grey_core::glob::CgroupFilter;
use grey_core::identity::Packed;
use grey_core::time::Timestamp;
use grey_core::tree::{Sparse, Tree};
use grey_core::units::Figure;

use crate::doctor::ProbeStatus;
use crate::host::{CgroupFiles, CgroupFs, EventWatches, Host, OwnCost, ProcFs};
use crate::probe::Kernel;
use budget::Keeping;
pub use budget::{Budget, Pace};
pub use clock::Clock;
use coverage::Coverage;
use rota::Rota;
use suspects::Suspects;
pub(crate) use suspects::USUAL as SUSPECT_TIME;
use verdicts::Judge;
pub use verdicts::Kept;

/// What the observer tells.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A line of the stream.
    Event(Box<Event>),
    /// The cgroup at this path is gone.
    Gone(String),
}

/// How to observe.
#[derive(Debug, Default)]
pub struct Options {
    /// Which cgroups to tell of.
    pub filter: CgroupFilter,
    /// Whether to tell of processes too.
    pub processes: bool,
    /// Ticks after which a cgroup nobody saw active is read again.
    pub slow_ticks: u64,
    /// Whether to read CPU time too.
    pub cpu: bool,
}

/// One cgroup as the observer knows it.
struct Known {
    cgroup: Packed,
    wanted: bool,
    /// Not wanted, but above one that is: its limit, or the machine's memory, holds for that one.
    above: bool,
    /// Whether memory.max was a number when last read.
    limited: bool,
    // Boxed: there are none where the tree has no memory controller.
    files: Option<Box<CgroupFiles>>,
    /// Whether it was seen active when it was last due.
    active: bool,
    /// memory.current and CPU time when last read in full.
    level: (Figure, Figure),
    /// Time of the last sample.
    sampled: Timestamp,
    /// Tick of the last reading of its limits.
    limits_at: Figure,
    /// Counters of its slot when last read.
    counted: Sparse,
    /// pgmajfault at the first reading, if the cgroup is older than the probes.
    major_base: Figure,
    /// pgmajfault at the last reading.
    major_seen: Figure,
    /// Something is counted again since its last sample: the next one is still without it, so that nobody takes the time
    /// in between for a quiet one.
    gap: Option<Arc<Coverage>>,
    minor_shown: u64,
    /// oom_kill of memory.events as far as it has been told of.
    oom_kills: Figure,
    /// Figures of its own processes, and the same with its descendants'.
    own: ProcessSums,
    all: ProcessSums,
    processes_known: bool,
}

/// With more cgroups than this the files of those that are not active are closed again: an open file holds a page of the
/// kernel's, and there are limits to how many may be open.
const OPEN_CGROUPS: usize = 500;

/// Sums over processes; signed, since parts arrive one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ProcessSums {
    count: i64,
    virt: i64,
    anon: i64,
    swap: i64,
}

impl ProcessSums {
    fn add(&mut self, other: ProcessSums) {
        let ProcessSums {
            count,
            virt,
            anon,
            swap,
        } = other;
        self.count += count;
        self.virt += virt;
        self.anon += anon;
        self.swap += swap;
    }

    fn less(self, other: ProcessSums) -> ProcessSums {
        ProcessSums {
            count: self.count - other.count,
            virt: self.virt - other.virt,
            anon: self.anon - other.anon,
            swap: self.swap - other.swap,
        }
    }
}

/// A sum as an event shows it.
fn figure(sum: i64) -> u64 {
    u64::try_from(sum).unwrap_or(0)
}

/// Everything known of the machine's cgroups, and the sources it is known from.
pub struct Observer {
    host: Host,
    fs: CgroupFs,
    kernel: Option<Kernel>,
    probes: Vec<ProbeStatus>,
    coverage: Coverage,
    options: Options,
    tree: Tree,
    // Boxed: a table has up to twice as many places as entries.
    known: HashMap<u64, Box<Known>>,
    watches: Option<EventWatches>,
    procs: Option<ProcFs>,
    bare: processes::Bare,
    /// Cgroups to be read at the next tick for another reason than their counters.
    touched: HashSet<u64>,
    /// Who is looked at without having been seen active.
    looks: Rota,
    /// Who is read in full without having changed.
    full: Rota,
    /// Whether walks over all cgroups stand in for looks at their files.
    walks: bool,
    /// Of the last walk: who has changed and was not read yet.
    changed: Vec<u64>,
    /// Victims of late, so that threads of one process do not make several events.
    victims: Vec<(u32, u64)>,
    /// Processes that grew of late, by tick.
    grown: HashMap<u32, u64>,
    /// Kernel time of a process's last growth: two threads may report one crossing.
    last_growth: HashMap<u32, u64>,
    judge: Option<Judge>,
    suspects: Suspects,
    budget: Option<Keeping>,
    tick: u64,
    /// Cgroups still to be told of in this tick, the last first, and its time.
    due: Vec<u64>,
    due_at: Option<Timestamp>,
    seq: u64,
    host_name: String,
    boot_id: Option<String>,
    read: HashMap<&'static str, u64>,
    rejected: u64,
    losses: Vec<LossCount>,
    lost_last_tick: bool,
    /// Records dropped up to the last tick: what comes after it belongs to the next one's window.
    dropped_at_tick: u64,
    /// Lifecycle records lost when the tree was last walked.
    lost_at_walk: u64,
    last_cost: Option<(Timestamp, OwnCost)>,
    active: Vec<(u64, u32)>,
    buf: Vec<u8>,
    /// Errors of single readings since the start; the last one is logged.
    read_errors: u64,
}

impl Observer {
    /// Puts the sources together; nothing is read yet.
    #[must_use]
    pub fn new(
        host: Host,
        fs: CgroupFs,
        kernel: Option<Kernel>,
        probes: Vec<ProbeStatus>,
        options: Options,
    ) -> Self {
        let trim = |path: &str| host.text(path).ok().map(|text| text.trim().to_owned());
        let host_name = trim("/proc/sys/kernel/hostname").unwrap_or_default();
        let boot_id = trim("/proc/sys/kernel/random/boot_id");
        let watches = if fs.has_memory() {
            EventWatches::new()
                .map_err(|error| tracing::warn!("{error}"))
                .ok()
        } else {
            None
        };
        let procs = ProcFs::open(&host)
            .map_err(|error| tracing::warn!("{error}"))
            .ok();
        let walks = fs.has_memory() && kernel.as_ref().is_some_and(Kernel::walks);
        Observer {
            coverage: Coverage::of(kernel.as_ref()),
            host,
            fs,
            kernel,
            probes,
            options,
            tree: Tree::new(),
            known: HashMap::default(),
            watches,
            procs,
            bare: processes::Bare::default(),
            touched: HashSet::default(),
            looks: Rota::default(),
            full: Rota::default(),
            walks,
            changed: Vec::new(),
            victims: Vec::new(),
            grown: HashMap::default(),
            last_growth: HashMap::default(),
            judge: None,
            suspects: Suspects::default(),
            budget: None,
            tick: 0,
            due: Vec::new(),
            due_at: None,
            seq: 0,
            host_name,
            boot_id,
            read: HashMap::default(),
            rejected: 0,
            losses: Vec::new(),
            lost_last_tick: false,
            dropped_at_tick: 0,
            lost_at_walk: 0,
            last_cost: None,
            active: Vec::new(),
            buf: Vec::new(),
            read_errors: 0,
        }
    }

    /// The attached kernel side, to wait on its rings.
    #[must_use]
    pub fn kernel(&self) -> Option<&Kernel> {
        self.kernel.as_ref()
    }

    /// The memory.events notifications, to wait on.
    #[must_use]
    pub fn watches(&self) -> Option<&EventWatches> {
        self.watches.as_ref()
    }

    /// Node name.
    #[must_use]
    pub fn host_name(&self) -> &str {
        &self.host_name
    }

    /// The kernel's boot id, where it can be read.
    #[must_use]
    pub fn boot_id(&self) -> Option<&str> {
        self.boot_id.as_deref()
    }

    /// The v2 tree.
    #[must_use]
    pub fn cgroups(&self) -> &CgroupFs {
        &self.fs
    }

    /// Every cgroup that exists now, wanted or not.
    pub fn identities(&self) -> impl Iterator<Item = &Packed> {
        self.known.values().map(|known| &known.cgroup)
    }

    /// Paths of the wanted cgroups that exist now.
    pub fn wanted(&self) -> impl Iterator<Item = &str> {
        self.known
            .values()
            .filter(|known| known.wanted)
            .map(|known| known.cgroup.path())
    }

    /// One tick: what changed since the last one, as samples. `now` is the wall clock. [`Observer::more`] tells of what is
    /// beyond some hundred cgroups.
    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<Notice>) {
        while self.more(out) {}
        if self.tick == 0 || self.tick.is_multiple_of(self.scan_every()) {
            self.scan(out);
        }
        if self.tick == 0 {
            self.close_missed(out);
        }
        self.drain(out);
        self.profiled(out);
        self.update_losses();
        self.dropped_at_tick = self.dropped();
        // What no record told of because there was no room for it is found by walking, not minutes later.
        if self.lifecycle_losses() > self.lost_at_walk {
            self.scan(out);
        }
        let due = self.due();
        // All counts before the first line: a parent's comes before its children's and sums them up.
        for id in &due {
            self.count_processes(*id, now, out);
        }
        self.due = due;
        self.due.reverse();
        self.due_at = Some(now);
        self.more(out);
    }

    /// Tells of the next cgroups that are due; whether there are more. What thousands of cgroups do is told in parts, so
    /// that it need not be kept all at once.
    pub fn more(&mut self, out: &mut Vec<Notice>) -> bool {
        const PART: usize = 256;
        let Some(now) = self.due_at else { return false };
        for _ in 0..PART {
            let Some(id) = self.due.pop() else { break };
            self.sample(id, now, out);
        }
        if !self.due.is_empty() {
            return true;
        }
        self.due_at = None;
        let tick = self.tick;
        self.grown.retain(|_, at| tick < *at + 30);
        self.last_growth
            .retain(|pid, _| self.grown.contains_key(pid));
        self.tick += 1;
        false
    }

    fn scan_every(&self) -> u64 {
        // With the lifecycle events a walk only makes sure.
        if self.coverage.lifecycle {
            self.options.slow_ticks.max(1) * 10
        } else {
            self.options.slow_ticks.max(1)
        }
    }

    /// Moves the counters of active cgroups into the tree; those cgroups are to be read at the next tick.
    fn collect(&mut self) {
        let mut active = std::mem::take(&mut self.active);
        if let Some(kernel) = &mut self.kernel {
            kernel.counters.take_active(&mut active);
        }
        for (id, slot) in &active {
            if self.count(*id, *slot) {
                // What a cgroup did shows in its ancestors' figures as well.
                self.touched.extend(self.tree.ancestors(*id));
            }
        }
        self.active = active;
    }

    /// Names the cgroups to be read, each once.
    fn due(&mut self) -> Vec<u64> {
        self.collect();
        let mut due: HashSet<u64> = std::mem::take(&mut self.touched);
        for id in &due {
            if let Some(known) = self.known.get_mut(id) {
                known.active = true;
            }
        }
        self.add_quiet(&mut due);
        let mut due: Vec<(&str, u64)> = due
            .into_iter()
            .filter_map(|id| Some((self.known.get(&id)?, id)))
            .filter(|(known, _)| known.wanted || known.above)
            .map(|(known, id)| (known.cgroup.path(), id))
            .collect();
        // Parents before children, and the same order each time.
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).collect()
    }

    /// Adds what the slot counted since the last look to the tree; false when that is nothing.
    fn count(&mut self, id: u64, slot: u32) -> bool {
        let Some(kernel) = &self.kernel else {
            return false;
        };
        let now = match kernel.counters.read(slot) {
            Ok(now) => now,
            Err(error) => {
                self.read_errors += 1;
                tracing::warn!("counters of cgroup {id}: {error}");
                return false;
            }
        };
        if !self.known.contains_key(&id) {
            // Its making was not told (a lost record, a namespace): ask the file system.
            match self.fs.lookup(id) {
                Some(path) => self.learn(id, &path, false),
                None => return false,
            }
        }
        let Some(known) = self.known.get_mut(&id) else {
            return false;
        };
        let delta = grey_core::tree::counter_delta(&now, known.counted.get());
        // Never back: a reading may lack what is told by the next one.
        known.counted.add(&delta);
        self.tree.add(id, &delta);
        delta != CgroupCounters::default()
    }

    /// Makes a line of the stream, and the verdicts it leads to.
    fn emit(&mut self, body: Body, ts: Timestamp, cgroup: Option<Cgroup>, out: &mut Vec<Notice>) {
        let event = self.line(body, ts, cgroup);
        if let Some(judge) = &mut self.judge {
            judge.observe(&event);
        }
        out.push(Notice::Event(Box::new(event)));
        self.tell_findings(out);
    }

    fn line(&mut self, body: Body, ts: Timestamp, cgroup: Option<Cgroup>) -> Event {
        let event = Event {
            schema: SCHEMA.to_owned(),
            ts,
            seq: self.seq,
            host: self.host_name.clone(),
            boot_id: self.boot_id.clone(),
            cgroup,
            lossy: self.lost_last_tick,
            body,
        };
        self.seq += 1;
        event
    }

    /// Identity of a cgroup for an event; one that is not known (any more) has its id alone.
    fn identity(&self, id: Option<u64>) -> Option<Cgroup> {
        let id = id?;
        if let Some(known) = self.known.get(&id) {
            return Some(known.cgroup.cgroup());
        }
        let path = self
            .tree
            .path(id)
            .map(str::to_owned)
            .or_else(|| self.fs.lookup(id))?;
        Some(grey_core::identity::identify(&path).cgroup(id, &path))
    }

    fn is_wanted(&self, cgroup: Option<&Cgroup>) -> bool {
        cgroup.is_none_or(|cgroup| self.options.filter.matches(&cgroup.path, &cgroup.name))
    }
}
