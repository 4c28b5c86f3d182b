//! The per-cgroup counters and the loss table of the kernel side, read without walking what did not change.

use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, PerCpuValues, Stack};
use grey_common::{CgroupCounters, CgroupGrowth, LossCount, ProcessGrowth, Slot, loss};

use super::load::{LoadError, take};
use super::mapped::Mapped;
use super::streaks::Streaks;

/// Readings of a slot of which a part is moved meanwhile, before one is taken as it is.
const READINGS: usize = 8;

/// Counters by cgroup.
pub struct Counters {
    slots: Mapped<Slot>,
    streaks: Streaks,
    slot_of: HashMap<MapData, u64, u32>,
    free: Stack<MapData, u32>,
    values: PerCpuArray<MapData, CgroupCounters>,
    growth: Array<MapData, CgroupGrowth>,
    processes: HashMap<MapData, u32, ProcessGrowth>,
    loss: PerCpuArray<MapData, LossCount>,
    cpus: usize,
    /// Slots that bore a mark at the last look.
    recent: Vec<bool>,
}

impl Counters {
    pub(super) fn new(
        ebpf: &mut Ebpf,
        free: Stack<MapData, u32>,
        count: u32,
        streaks: u32,
    ) -> Result<Self, LoadError> {
        let loss: PerCpuArray<MapData, LossCount> = take(ebpf, "LOSS")?;
        let cpus = aya::util::nr_cpus()
            .map_err(|(file, error)| LoadError::Map("COUNTERS", format!("{file}: {error}")))?;
        Ok(Counters {
            slots: Mapped::take(ebpf, "SLOTS", count)?,
            streaks: Streaks::take(ebpf, streaks)?,
            slot_of: take(ebpf, "CGROUP_SLOT")?,
            free,
            values: take(ebpf, "COUNTERS")?,
            growth: take(ebpf, "CGROUP_GROWTH")?,
            processes: take(ebpf, "PROCESS_GROWTH")?,
            loss,
            cpus,
            recent: vec![false; count as usize],
        })
    }

    /// Cgroups whose counters may have moved since the last call, with their slots. The kernel side marks a slot
    /// before it counts, so one that bore a mark last time is told of once more: the count may have come after.
    pub fn take_active(&mut self, active: &mut Vec<(u64, u32)>) {
        active.clear();
        let recent = &mut self.recent;
        self.streaks.take_active(|_, slot| {
            if let Some(recent) = recent.get_mut(slot as usize) {
                *recent = true;
            }
        });
        for slot in 1..self.slots.count() {
            let (cgroup, dirty) = words(&self.slots, slot);
            let id = cgroup.load(Ordering::Acquire);
            // A slot that was just taken has its mark before its name; it is met again at the next look.
            let marked = id != 0 && dirty.load(Ordering::Relaxed) != 0;
            if marked {
                dirty.store(0, Ordering::SeqCst);
            }
            let again = std::mem::replace(&mut self.recent[slot as usize], marked);
            if id != 0 && (marked || again) {
                active.push((id, slot));
            }
        }
    }

    /// The counters of a slot, summed over CPUs, with what these had not moved to the table at [`Counters::take_active`].
    /// Where that moves while it is read, and no reading comes between, it may be missing until the next one.
    pub fn read(&self, slot: u32) -> Result<CgroupCounters, MapError> {
        let cgroup = words(&self.slots, slot).0.load(Ordering::Acquire);
        if self.streaks.had(cgroup) {
            self.read_all(slot, cgroup)
        } else {
            self.read_table(slot)
        }
    }

    fn read_table(&self, slot: u32) -> Result<CgroupCounters, MapError> {
        let mut sum = CgroupCounters::default();
        for value in self.values.get(&slot, 0)?.iter() {
            sum.add(value);
        }
        Ok(sum)
    }

    fn read_all(&self, slot: u32, cgroup: u64) -> Result<CgroupCounters, MapError> {
        let mut readings = 0;
        loop {
            let (_, before) = self.streaks.of(cgroup);
            let mut sum = self.read_table(slot)?;
            let (held, after) = self.streaks.of(cgroup);
            sum.add(&held);
            readings += 1;
            if before == after || readings == READINGS {
                return Ok(sum);
            }
        }
    }

    /// Takes a removed cgroup out of the tables and returns what it had counted since attach.
    pub fn release(&mut self, cgroup: u64) -> Result<Option<CgroupCounters>, MapError> {
        let slot = match self.slot_of.get(&cgroup, 0) {
            Ok(slot) => slot,
            Err(MapError::KeyNotFound) => return Ok(None),
            Err(error) => return Err(error),
        };
        // The entry goes first: a program that looks the cgroup up from here on makes itself a new slot.
        self.slot_of.remove(&cgroup)?;
        let last = self.read_all(slot, cgroup)?;
        let zero = PerCpuValues::try_from(vec![CgroupCounters::default(); self.cpus])
            .map_err(|error| MapError::IoError(std::io::Error::other(error.to_string())))?;
        self.values.set(slot, zero, 0)?;
        self.growth.set(slot, CgroupGrowth::default(), 0)?;
        let (id, dirty) = words(&self.slots, slot);
        id.store(0, Ordering::SeqCst);
        dirty.store(0, Ordering::SeqCst);
        self.free.push(slot, 0)?;
        Ok(Some(last))
    }

    /// Every cgroup that has a slot.
    pub fn cgroups(&self) -> impl Iterator<Item = u64> + '_ {
        (1..self.slots.count()).filter_map(|slot| {
            let id = words(&self.slots, slot).0.load(Ordering::Relaxed);
            (id != 0).then_some(id)
        })
    }

    /// Slots there are.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.slots.count()
    }

    /// Processes in the growth table.
    pub fn processes(&self) -> impl Iterator<Item = u32> + '_ {
        self.processes.keys().filter_map(Result::ok)
    }

    /// Takes a process out of the growth table.
    pub fn forget_process(&mut self, tgid: u32) {
        // Already gone is what we want.
        let _ = self.processes.remove(&tgid);
    }

    /// The loss table, summed over CPUs.
    pub fn losses(&self) -> Result<Vec<LossCount>, MapError> {
        (0..loss::ROWS)
            .map(|row| {
                let mut sum = LossCount::default();
                for value in self.loss.get(&row, 0)?.iter() {
                    sum.emitted += value.emitted;
                    sum.dropped += value.dropped;
                }
                Ok(sum)
            })
            .collect()
    }
}

/// The words of a slot.
fn words(slots: &Mapped<Slot>, slot: u32) -> (&AtomicU64, &AtomicU64) {
    let entry = slots.at(slot).as_ptr();
    // SAFETY: an element of a mapping that lives as long as `slots`, 8-byte aligned; the kernel side writes whole words.
    unsafe {
        (
            AtomicU64::from_ptr(&raw mut (*entry).cgroup),
            AtomicU64::from_ptr(&raw mut (*entry).dirty),
        )
    }
}
