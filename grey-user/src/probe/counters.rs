//! The per-cgroup counters and the loss table of the kernel side, read without walking what did not change.

use std::os::fd::AsFd as _;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, Stack};
use grey_common::{CgroupCounters, CgroupGrowth, LossCount, ProcessGrowth, Slot, loss};
use rustix::mm::{MapFlags, ProtFlags};

use super::load::{LoadError, one_line, take};

/// Counters by cgroup.
pub struct Counters {
    slots: Slots,
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
    ) -> Result<Self, LoadError> {
        let slots = match ebpf.take_map("SLOTS") {
            Some(Map::Array(data)) => data,
            _ => {
                return Err(LoadError::Map(
                    "SLOTS",
                    "missing or not an array".to_owned(),
                ));
            }
        };
        let loss: PerCpuArray<MapData, LossCount> = take(ebpf, "LOSS")?;
        let cpus = aya::util::nr_cpus()
            .map_err(|(file, error)| LoadError::Map("COUNTERS", format!("{file}: {error}")))?;
        Ok(Counters {
            slots: Slots::map(slots, count)?,
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
        for slot in 1..self.slots.count {
            let (cgroup, dirty) = self.slots.at(slot);
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

    /// The counters of a slot, summed over CPUs.
    pub fn read(&self, slot: u32) -> Result<CgroupCounters, MapError> {
        let mut sum = CgroupCounters::default();
        for value in self.values.get(&slot, 0)?.iter() {
            sum.add(value);
        }
        Ok(sum)
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
        let last = self.read(slot)?;
        let zero = PerCpuValues::try_from(vec![CgroupCounters::default(); self.cpus])
            .map_err(|error| MapError::IoError(std::io::Error::other(error.to_string())))?;
        self.values.set(slot, zero, 0)?;
        self.growth.set(slot, CgroupGrowth::default(), 0)?;
        let (id, dirty) = self.slots.at(slot);
        id.store(0, Ordering::SeqCst);
        dirty.store(0, Ordering::SeqCst);
        self.free.push(slot, 0)?;
        Ok(Some(last))
    }

    /// Every cgroup that has a slot.
    pub fn cgroups(&self) -> impl Iterator<Item = u64> + '_ {
        (1..self.slots.count).filter_map(|slot| {
            let id = self.slots.at(slot).0.load(Ordering::Relaxed);
            (id != 0).then_some(id)
        })
    }

    /// Slots there are.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.slots.count
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

/// The `SLOTS` array in our address space.
struct Slots {
    memory: NonNull<Slot>,
    bytes: usize,
    count: u32,
    // Keeps the map open for as long as it is mapped.
    _data: MapData,
}

// SAFETY: the mapping belongs to this value alone and is only accessed through atomics.
unsafe impl Send for Slots {}

impl Slots {
    fn map(data: MapData, count: u32) -> Result<Slots, LoadError> {
        let bytes =
            (count as usize * size_of::<Slot>()).next_multiple_of(rustix::param::page_size());
        let failed = |error: rustix::io::Errno| LoadError::Map("SLOTS", one_line(&error));
        // SAFETY: a fresh shared mapping of a map that was made with BPF_F_MMAPABLE and holds `count` values.
        let memory = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                data.fd().as_fd(),
                0,
            )
        }
        .map_err(failed)?;
        let memory = NonNull::new(memory.cast::<Slot>())
            .ok_or_else(|| LoadError::Map("SLOTS", "mapped at 0".to_owned()))?;
        Ok(Slots {
            memory,
            bytes,
            count,
            _data: data,
        })
    }

    fn at(&self, slot: u32) -> (&AtomicU64, &AtomicU64) {
        assert!(slot < self.count, "slot {slot} of {}", self.count);
        // SAFETY: inside the mapping (checked above), 8-byte aligned, lives as long as self; the kernel side writes
        // whole words.
        unsafe {
            let entry = self.memory.as_ptr().add(slot as usize);
            (
                AtomicU64::from_ptr(&raw mut (*entry).cgroup),
                AtomicU64::from_ptr(&raw mut (*entry).dirty),
            )
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with these bounds and not handed out beyond self.
        let _ = unsafe { rustix::mm::munmap(self.memory.as_ptr().cast(), self.bytes) };
    }
}
