//! Maps and load-time settings, and the one way to count a record that found no room.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, CgroupArray, HashMap, PerCpuArray, RingBuf, Stack, StackTrace};
use grey_common::stack::{PageKey, StackCount, StackKey, StackState};
use grey_common::{
    CgroupCounters, CgroupGrowth, CgroupLevel, LAYOUT_VERSION, LossCount, Offsets, ProcessGrowth,
    RecordKind, Slot, Streak, loss,
};

const BPF_F_MMAPABLE: u32 = 1 << 10;

// Sizes here are floors: the loader sets those of the machine before it creates the maps.

/// v2 cgroup id to slot.
#[map]
pub static CGROUP_SLOT: HashMap<u64, u32> = HashMap::with_max_entries(1024, 0);
/// Slots nobody uses; filled by the user side.
#[map]
pub static FREE_SLOTS: Stack<u32> = Stack::with_max_entries(1024, 0);
/// Slot to cgroup and dirty mark, mapped by the user side.
#[map]
pub static SLOTS: Array<Slot> = Array::with_max_entries(1024, BPF_F_MMAPABLE);
/// Slot to counters.
#[map]
pub static COUNTERS: PerCpuArray<CgroupCounters> = PerCpuArray::with_max_entries(1024, 0);
/// Slot to growth account.
#[map]
pub static CGROUP_GROWTH: Array<CgroupGrowth> = Array::with_max_entries(1024, 0);
/// tgid to growth bookkeeping.
#[map]
pub static PROCESS_GROWTH: HashMap<u32, ProcessGrowth> = HashMap::with_max_entries(4096, 0);
/// CPU to the faults that it has not moved to its counters yet, mapped by the user side. Not a per-CPU map: the address of
/// an element is known without a load.
#[map]
pub static STREAKS: Array<Streak> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Not 0 while every end of a task and every change of its cgroup is counted; set by the user side.
#[map]
pub static FOLLOWED: Array<u32> = Array::with_max_entries(1, 0);
/// Between which sizes the process that this CPU looked at last need not be looked up.
#[map]
pub static MARKS: PerCpuArray<Marks> = PerCpuArray::with_max_entries(1, 0);
/// What a walk over all cgroups found, behind the number of them, mapped by the user side.
#[map]
pub static LEVELS: Array<CgroupLevel> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Thread to what it entered and has not left.
#[map]
pub static PENDING_VM: HashMap<u64, PendingVm> = HashMap::with_max_entries(1024, 0);
/// Thread to the reclaim run it is in.
#[map]
pub static PENDING_RECLAIM: HashMap<u64, PendingReclaim> = HashMap::with_max_entries(1024, 0);
/// Thread to the OOM it is in.
#[map]
pub static PENDING_OOM: HashMap<u64, PendingOom> = HashMap::with_max_entries(512, 0);
/// Thread groups whose reclaim is our own.
#[map]
pub static OWN_TGIDS: HashMap<u32, u32> = HashMap::with_max_entries(16, 0);
/// OOM, stalls, lifecycle.
#[map]
pub static RARE: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);
/// Growth.
#[map]
pub static GROWTH: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);
/// Emitted and dropped by record kind, then full maps.
#[map]
pub static LOSS: PerCpuArray<LossCount> = PerCpuArray::with_max_entries(loss::ROWS, 0);

// Of `profile`; `watch` makes them as small as can be.

/// The cgroup to profile, with all below it.
#[map]
pub static STACK_CGROUPS: CgroupArray = CgroupArray::with_max_entries(1, 0);
/// Stack id to addresses.
#[map]
pub static STACKS: StackTrace = StackTrace::with_max_entries(1, 0);
/// What came in by each stack.
#[map]
pub static STACK_COUNTS: HashMap<StackKey, StackCount> = HashMap::with_max_entries(1, 0);
/// Followed page to the stack that faulted it in last.
#[map]
pub static STACK_PAGES: HashMap<PageKey, StackKey> = HashMap::with_max_entries(1, 0);
/// One page in two to the power of this is followed. Only ever raised while programs run.
#[map]
pub static STACK_SHIFT: Array<u64> = Array::with_max_entries(1, 0);
/// Ranges that mremap moved.
#[map]
pub static STACK_MOVES: RingBuf = RingBuf::with_byte_size(4096, 0);
/// Faults seen, sampled, lost, and the time that took.
#[map]
pub static STACK_STATE: PerCpuArray<StackState> = PerCpuArray::with_max_entries(1, 0);

/// What one CPU knows of the process that it looked at last.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Marks {
    /// Resident pages at which the process must be looked up again.
    pub high: u64,
    /// Resident pages under which the process must be looked up again.
    pub low: u64,
    /// Resident pages then.
    pub seen: u64,
    pub tgid: u32,
    pub slot: u32,
}

/// Arguments of a call that is under way.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PendingVm {
    pub args: [u64; 4],
    pub op: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct PendingReclaim {
    pub start_ns: u64,
    /// Cgroup reclaimed from; 0 when unknown.
    pub target: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct PendingOom {
    /// `struct oom_control *`, 0 when unknown.
    pub control: u64,
    /// `struct task_struct *` about to be killed, 0 when unknown.
    pub victim: u64,
}

/// Tasks that ended or changed their cgroup so far. Not in a map of its own, because its address is then a constant.
static TURN: Turn = Turn(core::cell::UnsafeCell::new(0));

struct Turn(core::cell::UnsafeCell<u64>);

// SAFETY: a word that is read and added to, each in one instruction.
unsafe impl Sync for Turn {}

/// Changes when a task may no longer be in the cgroup that it was in.
#[inline(always)]
pub fn turn() -> u32 {
    // SAFETY: as of the type; volatile because other CPUs add to it.
    unsafe { core::ptr::read_volatile(TURN.0.get()) as u32 }
}

#[inline(always)]
pub fn next_turn() {
    // SAFETY: as of the type.
    unsafe { add(TURN.0.get(), 1) };
}

/// Refused by the loader when it differs from its own.
#[unsafe(no_mangle)]
#[used]
static LAYOUT: u32 = LAYOUT_VERSION;
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::NONE;
/// Growth that makes an event, in pages; 0 turns growth off.
#[unsafe(no_mangle)]
static GROWTH_PAGES: u64 = 4096;
/// Growth after which a process is looked at again, in pages.
#[unsafe(no_mangle)]
static GROWTH_STEP: u64 = 256;
/// A reclaim run at least this long makes an event, in nanoseconds.
#[unsafe(no_mangle)]
static STALL_NS: u64 = 10_000_000;
/// log2 of the page size.
#[unsafe(no_mangle)]
static PAGE_SHIFT: u64 = 12;
/// 1 where bpf_get_current_task_btf exists (5.11), which makes reads of the task plain loads.
#[unsafe(no_mangle)]
static TASK_BTF: u32 = 0;
/// 1 where the fault programs look for growth themselves.
#[unsafe(no_mangle)]
static GROWTH_ON_FAULT: u32 = 1;
/// Offset of `error_code` in the classic page fault record.
#[unsafe(no_mangle)]
static RECORD_FAULT_ERROR: u32 = 0;
/// Offset of `pid` in the classic mark_victim record.
#[unsafe(no_mangle)]
static RECORD_VICTIM_PID: u32 = 0;
/// Offset of `nr_reclaimed` in the classic reclaim end records.
#[unsafe(no_mangle)]
static RECORD_RECLAIMED: u32 = 0;
/// The process to profile; 0 for the cgroup in `STACK_CGROUPS`.
#[unsafe(no_mangle)]
static STACK_TGID: u32 = 0;

macro_rules! setting {
    ($name:ident, $static:ident, $ty:ty) => {
        #[inline(always)]
        pub fn $name() -> $ty {
            // SAFETY: a static of this object; volatile because the loader writes it before load.
            unsafe { core::ptr::read_volatile(&raw const $static) }
        }
    };
}
setting!(growth_pages, GROWTH_PAGES, u64);
setting!(growth_step, GROWTH_STEP, u64);
setting!(stall_ns, STALL_NS, u64);
setting!(page_shift, PAGE_SHIFT, u64);
setting!(task_btf, TASK_BTF, u32);
setting!(growth_on_fault, GROWTH_ON_FAULT, u32);
setting!(record_fault_error, RECORD_FAULT_ERROR, u32);
setting!(record_victim_pid, RECORD_VICTIM_PID, u32);
setting!(record_reclaimed, RECORD_RECLAIMED, u32);
setting!(stack_tgid, STACK_TGID, u32);

/// One offset of the running kernel: `offset!(task_mm)`.
macro_rules! offset {
    ($field:ident) => {
        $crate::maps::offset_at(core::mem::offset_of!(grey_common::Offsets, $field))
    };
}
pub(crate) use offset;

#[inline(always)]
pub fn offset_at(at: usize) -> u32 {
    // SAFETY: `at` is a field offset of Offsets; volatile because the loader writes it before load.
    unsafe { core::ptr::read_volatile((&raw const OFFSETS).cast::<u8>().add(at).cast::<u32>()) }
}

/// Counts one record of `kind`, and whether it was dropped.
#[inline(always)]
pub fn count_record(kind: RecordKind, dropped: bool) {
    count_loss(kind as u32, dropped);
}

/// Counts one attempt in a row of the loss table.
#[inline(always)]
pub fn count_loss(row: u32, dropped: bool) {
    if let Some(count) = LOSS.get_ptr_mut(row) {
        // SAFETY: a live entry of a per-CPU array; atomic because a sleeping hook on this CPU may be interrupted.
        unsafe {
            add(&raw mut (*count).emitted, 1);
            if dropped {
                add(&raw mut (*count).dropped, 1);
            }
        }
    }
}

/// Adds to a counter that a preempted program of the same CPU may be adding to as well.
///
/// # Safety
/// `counter` points into a map value.
#[inline(always)]
pub unsafe fn add(counter: *mut u64, value: u64) {
    // The target has no compare-and-swap, so core offers no AtomicU64::fetch_add on it. Relaxed with the result
    // unused is the plain `lock xadd` that kernels before 5.12 have.
    // SAFETY: the caller's promise; u64 map values are 8-byte aligned.
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(
            counter, value,
        )
    };
}
