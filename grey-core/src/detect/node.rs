//! A cgroup or a process: its series, its limit, and how a change of theirs becomes a verdict.

mod tell;

use super::saved::SavedNode;
use super::series::Series;
use super::{BACK_US, FAR_US, FORWARD_US};
use crate::event::{Cgroup, Grower, Growth, GrowthScope, Limit, Memory, Sample, State, Subject};
use crate::identity::Packed;
use crate::time::Timestamp;
use crate::units::Figure;

const MIB: f64 = 1_048_576.0;
const GIB: f64 = 1024.0 * MIB;
/// Other memory than anonymous is followed from this size on.
const WORTH: f64 = 4.0 * MIB;
/// Address space that is worth a word when a cgroup is first seen.
const VAST: f64 = 64.0 * GIB;
/// A reservation is told when it has lain untouched for this long, and taken for settled after the second time.
const UNTOUCHED_US: (i64, i64) = (10_000_000, 60_000_000);
/// A clock that was set goes on by what lay between the last samples, and by no more than this, µs.
const LONGEST_STEP: u32 = 60_000_000;
/// Processes remembered as growers.
const GROWERS: usize = 4;

/// What the detector takes from one sample. An unknown figure is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// When, µs since the Unix epoch.
    pub at_us: i64,
    /// Id of the cgroup, to notice another one under the same path.
    pub id: Option<u64>,
    /// Anonymous bytes, resident.
    pub anon: Option<u64>,
    /// Swapped-out bytes.
    pub swap: Option<u64>,
    /// Page cache, bytes.
    pub file: Option<u64>,
    /// Shared memory and tmpfs, bytes.
    pub shmem: Option<u64>,
    /// Kernel memory, bytes.
    pub kernel: Option<u64>,
    /// Slab, bytes.
    pub slab: Option<u64>,
    /// Page tables, bytes.
    pub pagetables: Option<u64>,
    /// Socket buffers, bytes.
    pub sock: Option<u64>,
    /// Virtual size of the processes, bytes.
    pub virt: Option<u64>,
    /// memory.max.
    pub max: Limit,
    /// Memory the machine has left; root cgroup only.
    pub available: Option<u64>,
    /// Page faults so far.
    pub faults: Option<u64>,
    /// Processes.
    pub processes: Option<u64>,
}

impl Point {
    /// The figures of a `sample` event.
    #[must_use]
    pub fn of_sample(ts: Timestamp, cgroup: &Cgroup, sample: &Sample) -> Point {
        let mem = &sample.mem;
        Point {
            at_us: ts.0,
            id: cgroup.id,
            anon: mem.anon,
            swap: mem.swap,
            file: mem.file,
            shmem: mem.shmem,
            kernel: mem.kernel,
            slab: mem.slab,
            pagetables: mem.pagetables,
            sock: mem.sock,
            virt: sample.vm.as_ref().and_then(|vm| vm.r#virtual),
            max: mem.max,
            available: mem.available,
            faults: sample.faults.as_ref().and_then(|faults| faults.minor_total),
            processes: sample.processes,
        }
    }
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Cgroup,
    // Boxed: most nodes are cgroups.
    Process(Box<Subject>),
}

/// Room below a limit. Whose it is, only a verdict needs to know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Room {
    /// Bytes left.
    pub(super) room: f64,
    /// The limit; for the machine what can be had in all.
    pub(super) limit: u64,
}

/// Address space that was mapped and not touched.
#[derive(Clone, Debug, Default)]
struct Reserved {
    base: f64,
    resident: f64,
}

/// A rise of the address space above what was touched.
#[derive(Clone, Copy, Debug, Default)]
struct Rise {
    since: Option<i64>,
    told: Option<(i64, f64)>,
    due: Option<(State, f64)>,
}

/// What few of thousands of cgroups have.
#[derive(Debug, Default)]
pub(super) struct Rare {
    pub(super) children: Vec<usize>,
    growers: Vec<(Grower, i64)>,
    rise: Rise,
    /// Of the machine.
    available: Figure,
}

impl Rare {
    fn is_due(rare: Option<&Rare>) -> bool {
        rare.is_some_and(|rare| rare.rise.due.is_some())
    }
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) cgroup: Packed,
    pub(super) kind: Kind,
    parent: Option<u32>,
    pub(super) anon: Series,
    pub(super) others: Vec<Series>,
    /// Kinds of memory, as bits, that were too small for a series at first.
    small: u8,
    started: bool,
    /// Whether its address space is known.
    sized: bool,
    /// Between its last samples, µs.
    step: u32,
    max: Limit,
    /// Bytes that count against the limit and that reclaim without swap does not give back.
    held: f64,
    /// Virtual size, bytes.
    virt: Figure,
    reserved: Reserved,
    // Boxed: there are thousands of nodes.
    pub(super) rare: Option<Box<Rare>>,
    /// Added to the samples' time, for clocks that were set.
    pub(super) shift: i64,
    /// Time of the last sample as it was given, µs.
    pub(super) heard: i64,
}

impl Node {
    fn new(cgroup: &Cgroup, kind: Kind, at: i64) -> Node {
        Node {
            cgroup: cgroup.into(),
            kind,
            parent: None,
            anon: Series::new(Memory::Anon, at, 0.0),
            others: Vec::new(),
            small: 0,
            started: false,
            sized: false,
            step: 1_000_000,
            max: Limit::Unknown,
            held: 0.0,
            virt: Figure::default(),
            reserved: Reserved::default(),
            rare: None,
            shift: 0,
            heard: at,
        }
    }

    pub(super) fn cgroup(cgroup: &Cgroup, at: i64) -> Node {
        Node::new(cgroup, Kind::Cgroup, at)
    }

    pub(super) fn process(cgroup: &Cgroup, subject: Subject, parent: usize, at: i64) -> Node {
        let mut node = Node::new(cgroup, Kind::Process(Box::new(subject)), at);
        node.set_parent(Some(parent));
        node
    }

    pub(super) fn subject(&self) -> Option<&Subject> {
        match &self.kind {
            Kind::Cgroup => None,
            Kind::Process(subject) => Some(subject),
        }
    }

    pub(super) fn series(&self) -> usize {
        1 + self.others.len()
    }

    pub(super) fn states(&self) -> impl Iterator<Item = (Memory, State)> {
        std::iter::once(&self.anon)
            .chain(&self.others)
            .map(|series| (series.memory, series.state()))
    }

    /// The samples' time made to go forward: a clock set back, or far ahead, continues where it was.
    pub(super) fn time(&mut self, at: i64) -> i64 {
        // The ends of the number's range, which no clock shows, would leave no room to reckon.
        let at = at.clamp(-FAR_US, FAR_US);
        self.heard = at;
        if !self.started {
            return at;
        }
        let last = self.anon.last_at;
        let shifted = at.saturating_add(self.shift);
        let passed = shifted.saturating_sub(last);
        if !(-BACK_US..=FORWARD_US).contains(&passed) {
            let next = last.saturating_add(self.step.into());
            self.shift = next.saturating_sub(at);
            return next;
        }
        if passed > 0 {
            self.step = u32::try_from(passed).map_or(LONGEST_STEP, |us| us.min(LONGEST_STEP));
        }
        shifted
    }

    /// Starts anew: another cgroup or program is here now.
    pub(super) fn renew(&mut self, cgroup: &Cgroup, now: i64) {
        let (kind, parent) = (self.kind.clone(), self.parent);
        let children = self
            .rare
            .as_deref_mut()
            .map_or_else(Vec::new, |rare| std::mem::take(&mut rare.children));
        let shift = self.shift;
        *self = Node::new(cgroup, kind, now);
        self.parent = parent;
        self.add_children(children);
        self.shift = shift;
    }

    /// The place of the node above.
    pub(super) fn parent(&self) -> Option<usize> {
        self.parent.map(|place| place as usize)
    }

    pub(super) fn set_parent(&mut self, place: Option<usize>) {
        // There are far less nodes than that.
        self.parent = place.and_then(|place| u32::try_from(place).ok());
    }

    pub(super) fn children(&self) -> &[usize] {
        self.rare.as_deref().map_or(&[], |rare| &rare.children)
    }

    pub(super) fn growers(&self) -> &[(Grower, i64)] {
        self.rare.as_deref().map_or(&[], |rare| &rare.growers)
    }

    pub(super) fn add_children(&mut self, children: impl IntoIterator<Item = usize>) {
        let mut children = children.into_iter().peekable();
        if children.peek().is_some() {
            let rare = self.rare.get_or_insert_default();
            rare.children.extend(children);
        }
    }

    /// Takes out those children that are not its own any more.
    pub(super) fn take_children(&mut self, gone: impl Fn(usize) -> bool) {
        if let Some(rare) = &mut self.rare {
            rare.children.retain(|child| !gone(*child));
        }
    }

    /// Whether the process goes by another name now.
    pub(super) fn renamed(&mut self, comm: &str) -> bool {
        match &mut self.kind {
            Kind::Process(subject) if subject.comm != comm => {
                comm.clone_into(&mut subject.comm);
                self.started
            }
            _ => false,
        }
    }

    /// Takes in a sample; whether there is something to judge.
    pub(super) fn push(&mut self, now: i64, point: &Point) -> bool {
        let Some(anon) = point.anon else {
            self.limits(point);
            return false;
        };
        let level = anon as f64 + point.swap.unwrap_or(0) as f64;
        self.limits(point);
        let also = [point.shmem, point.kernel, point.sock];
        self.held = level
            + also
                .iter()
                .flatten()
                .map(|bytes| *bytes as f64)
                .sum::<f64>();
        if !self.started {
            self.started = true;
            self.anon.reset(now, level);
        }
        let virt = point.virt.map(|virt| virt as f64);
        self.anon.due |= self
            .anon
            .push(now, level, point.faults, point.processes, virt);
        let mut due = self.anon.due != 0;
        let slab = point.slab.unwrap_or(0) as f64;
        let tables = point.pagetables.unwrap_or(0) as f64;
        let rest = |bytes: u64| (bytes as f64 - slab - tables).max(0.0);
        for (memory, level) in [
            (Memory::File, point.file.map(|bytes| bytes as f64)),
            (Memory::Shmem, point.shmem.map(|bytes| bytes as f64)),
            (Memory::Kernel, point.kernel.map(rest)),
            (Memory::Slab, point.slab.map(|bytes| bytes as f64)),
            (
                Memory::Pagetables,
                point.pagetables.map(|bytes| bytes as f64),
            ),
            (Memory::Sock, point.sock.map(|bytes| bytes as f64)),
        ] {
            if let Some(level) = level {
                due |= self.other(memory, now, level);
            }
        }
        if let Some(virt) = point.virt {
            due |= self.reserve(now, virt as f64, level + point.shmem.unwrap_or(0) as f64);
        }
        due
    }

    #[inline]
    fn other(&mut self, memory: Memory, now: i64, level: f64) -> bool {
        // A process maps page cache that is not its own; the machine's is everybody's.
        let found = self
            .others
            .iter()
            .position(|series| series.memory == memory);
        let index = match found {
            Some(index) => index,
            None if level >= WORTH => {
                let first = self.anon.first;
                let small = self.small & (1 << memory as u8) != 0;
                self.others.push(if small {
                    Series::risen(memory, first, now, level)
                } else {
                    Series::new(memory, now, level)
                });
                return false;
            }
            None => {
                self.small |= 1 << memory as u8;
                return false;
            }
        };
        let series = &mut self.others[index];
        let mask = series.push(now, level, None, None, None);
        series.due |= mask;
        mask != 0
    }

    fn limits(&mut self, point: &Point) {
        if point.max != Limit::Unknown {
            self.max = point.max;
        }
        if point.available.is_some() {
            self.rare.get_or_insert_default().available = point.available.into();
        }
    }

    fn reserve(&mut self, now: i64, virt: f64, resident: f64) -> bool {
        self.virt = Some(virt as u64).into();
        let (reserved, rare) = (&mut self.reserved, &mut self.rare);
        if !std::mem::replace(&mut self.sized, true) {
            reserved.base = virt;
            reserved.resident = resident;
            if virt >= VAST && virt >= 20.0 * resident.max(MIB) {
                rare.get_or_insert_default().rise.due = Some((State::Normal, virt));
            }
            return Rare::is_due(rare.as_deref());
        }
        if virt < reserved.base {
            reserved.base = virt;
            reserved.resident = reserved.resident.min(resident);
        }
        let height = virt - reserved.base;
        let touched = resident - reserved.resident;
        if let Some(Rare { rise, .. }) = rare.as_deref_mut()
            && let Some((at, bytes)) = rise.told
            && now - at >= UNTOUCHED_US.1
        {
            rise.told = None;
            rise.due = Some((State::Normal, bytes));
        }
        if height < GIB.max(2.0 * resident) || touched > 0.1 * height {
            if let Some(rare) = rare {
                rare.rise.since = None;
            }
            if touched > 0.5 * height {
                // The address space grows with what is in it.
                reserved.base = virt;
                reserved.resident = resident;
            }
            return Rare::is_due(rare.as_deref());
        }
        let rise = &mut rare.get_or_insert_default().rise;
        let since = *rise.since.get_or_insert(now);
        if now - since >= UNTOUCHED_US.0 {
            rise.due = Some((State::Growing, height));
            rise.told = Some((now, height));
            rise.since = None;
            reserved.base = virt;
            reserved.resident = resident;
        }
        rise.due.is_some()
    }

    /// Room below this node's own limit.
    pub(super) fn room(&self) -> Option<Room> {
        if let Limit::Bytes(limit) = self.max
            && self.started
        {
            let room = limit as f64 - self.held;
            return (room > 0.0).then_some(Room { room, limit });
        }
        let available = self.rare.as_deref()?.available.get()?;
        Some(Room {
            room: available as f64,
            limit: (available as f64 + self.held) as u64,
        })
    }

    /// A process of the cgroup grew, says the kernel side.
    pub(super) fn grown(&mut self, growth: &Growth, at: i64) {
        if growth.scope != GrowthScope::Process {
            return;
        }
        let growers = &mut self.rare.get_or_insert_default().growers;
        if let Some((grower, last)) = growers
            .iter_mut()
            .find(|(grower, _)| grower.pid == growth.pid)
        {
            grower.bytes = grower.bytes.saturating_add(growth.bytes);
            *last = at;
            return;
        }
        if growers.len() == GROWERS
            && let Some(oldest) = (0..GROWERS).min_by_key(|index| growers[*index].1)
        {
            growers.swap_remove(oldest);
        }
        let grower = Grower {
            pid: growth.pid,
            comm: growth.comm.clone(),
            bytes: growth.bytes,
        };
        growers.push((grower, at));
    }

    /// Takes up what was saved, if it is about this cgroup and not too old.
    pub(super) fn resume(&mut self, saved: SavedNode, point: &Point) {
        if matches!((saved.id, point.id), (Some(then), Some(now)) if then != now) {
            return;
        }
        let shift = saved.shift;
        if !(-2 * FAR_US..=2 * FAR_US).contains(&shift) {
            return;
        }
        let mut series = saved.series();
        let Some(at) = series
            .iter()
            .position(|series| series.memory == Memory::Anon)
        else {
            return;
        };
        let anon = series.swap_remove(at);
        // A clock that stands before the last sample, or a day after it, makes the series worthless.
        if !(0..=86_400_000_000).contains(
            &point
                .at_us
                .saturating_add(shift)
                .saturating_sub(anon.last_at),
        ) {
            return;
        }
        self.shift = shift;
        self.started = true;
        self.anon = anon;
        self.others = series;
    }
}
