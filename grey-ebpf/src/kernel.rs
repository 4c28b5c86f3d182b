//! Reads of kernel structures through the offsets the loader found, and the slot of a cgroup.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::{bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, generated};
use grey_common::{COMM_LEN, CgroupCounters, NO_INDEX, NO_OFFSET, Streak, loss, rss};

use crate::maps::{
    CGROUP_SLOT, COUNTERS, FOLLOWED, FREE_SLOTS, SLOTS, STREAKS, count_loss, offset, task_btf,
};

/// Reads a field of a kernel structure: 0 when the offset is unknown, the pointer null or the read faults. It does not
/// branch on the outcome: older verifiers walk every combination of outcomes of the reads that follow each other.
#[inline(always)]
pub fn read<T: Copy>(base: u64, offset: u32) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    if offset != NO_OFFSET {
        // SAFETY: the helper checks the address itself and fills `value` with zeros when it faults; every T used
        // here is an integer or a byte array.
        unsafe {
            generated::bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                (base + u64::from(offset)) as *const core::ffi::c_void,
            );
        }
    }
    // SAFETY: zeroed above, and T has no invalid bit patterns.
    unsafe { value.assume_init() }
}

#[inline(always)]
pub fn current_task() -> u64 {
    // SAFETY: no arguments, always valid.
    unsafe { generated::bpf_get_current_task() }
}

/// The thread, as the key of a pending table.
#[inline(always)]
pub fn current_thread() -> u64 {
    bpf_get_current_pid_tgid()
}

#[inline(always)]
pub fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

#[inline(always)]
pub fn current_cgroup() -> u64 {
    // SAFETY: no arguments, always valid.
    unsafe { bpf_get_current_cgroup_id() }
}

/// The same for the hottest hooks: one call with nothing below it in place of three, and plain loads, where the kernel
/// gives a typed task. The call that this avoids costs more than all else that a fault program does.
#[inline(always)]
pub fn current_cgroup_by_loads() -> u64 {
    let path = [
        offset!(task_cgroups),
        offset!(css_set_dfl_cgrp),
        offset!(cgroup_kn),
    ];
    let id = offset!(kn_id);
    if task_btf() == 0
        || path[0] == NO_OFFSET
        || path[1] == NO_OFFSET
        || path[2] == NO_OFFSET
        || id == NO_OFFSET
    {
        return current_cgroup();
    }
    // SAFETY: the verifier knows the types behind this pointer and checks each offset against the kernel's BTF; a load
    // through a bad pointer reads 0. A task keeps its set of cgroups alive, and that its cgroup.
    unsafe {
        let mut at = generated::bpf_get_current_task_btf().cast::<u8>();
        at = at.add(path[0] as usize).cast::<*mut u8>().read_volatile();
        at = at.add(path[1] as usize).cast::<*mut u8>().read_volatile();
        at = at.add(path[2] as usize).cast::<*mut u8>().read_volatile();
        at.add(id as usize).cast::<u64>().read_volatile()
    }
}

#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: no arguments, always valid.
    unsafe { generated::bpf_ktime_get_ns() }
}

#[inline(always)]
pub fn current_comm() -> [u8; COMM_LEN] {
    aya_ebpf::helpers::bpf_get_current_comm().unwrap_or([0; COMM_LEN])
}

/// v2 id of a `struct cgroup`, 0 when unknown.
#[inline(always)]
pub fn cgroup_id(cgroup: u64) -> u64 {
    read(read(cgroup, offset!(cgroup_kn)), offset!(kn_id))
}

/// v2 cgroup id of a task, 0 when unknown.
#[inline(always)]
pub fn task_cgroup_id(task: u64) -> u64 {
    cgroup_id(read(
        read(task, offset!(task_cgroups)),
        offset!(css_set_dfl_cgrp),
    ))
}

/// v2 cgroup id of a `struct mem_cgroup`, 0 when unknown.
#[inline(always)]
pub fn memcg_id(memcg: u64) -> u64 {
    if offset!(memcg_css) == NO_OFFSET {
        return 0;
    }
    cgroup_id(read(
        memcg + u64::from(offset!(memcg_css)),
        offset!(css_cgroup),
    ))
}

/// One rss counter of an mm in pages; per-CPU parts not yet folded in may make it negative, which is 0 here.
#[inline(always)]
pub fn rss_pages(mm: u64, member: u32) -> u64 {
    if offset!(mm_rss) == NO_OFFSET {
        return 0;
    }
    at_least_zero(read(mm, offset!(mm_rss) + member * offset!(mm_rss_stride)))
}

/// `max(value, 0)` without a branch.
#[inline(always)]
pub fn at_least_zero(value: i64) -> u64 {
    (value & !(value >> 63)) as u64
}

/// What a fault needs of the current process.
#[derive(Clone, Copy)]
pub struct Resident {
    /// anon + file + shmem, pages.
    pub pages: u64,
    /// total_vm, pages.
    pub total_vm: u64,
}

/// Resident and virtual size of `mm` by checked reads.
#[inline(always)]
pub fn resident(mm: u64) -> Resident {
    let pages = if offset!(mm_rss_stride) == PLAIN_STRIDE {
        resident_plain(mm)
    } else {
        rss_pages(mm, rss::ANON) + rss_pages(mm, rss::FILE) + rss_pages(mm, rss::SHMEM)
    };
    Resident {
        pages,
        total_vm: read(mm, offset!(mm_total_vm)),
    }
}

/// Distance of the counters where they are plain words (before percpu_counter, 6.2).
pub const PLAIN_STRIDE: u32 = 8;

/// All plain counters in one read.
#[inline(always)]
pub fn resident_plain(mm: u64) -> u64 {
    let counters: [i64; 4] = read(mm, offset!(mm_rss));
    at_least_zero(
        counters[rss::ANON as usize] + counters[rss::FILE as usize] + counters[rss::SHMEM as usize],
    )
}

/// The slot of `cgroup`, made if it has none yet; [`NO_INDEX`] when all are in use (counted).
#[inline(always)]
pub fn slot_of(cgroup: u64) -> u32 {
    if let Some(slot) = CGROUP_SLOT.get_ptr(&cgroup) {
        // SAFETY: a live map value; a slot is a single word.
        return unsafe { *slot };
    }
    new_slot(cgroup)
}

#[inline(never)]
fn new_slot(cgroup: u64) -> u32 {
    let Ok(Some(slot)) = FREE_SLOTS.pop() else {
        count_loss(loss::CGROUP_SLOTS, true);
        return NO_INDEX;
    };
    const BPF_NOEXIST: u64 = 1;
    if CGROUP_SLOT.insert(&cgroup, &slot, BPF_NOEXIST).is_err() {
        // Another CPU was faster, or the table is full: the slot goes back.
        let _ = FREE_SLOTS.push(slot, 0);
        return match CGROUP_SLOT.get_ptr(&cgroup) {
            // SAFETY: a live map value.
            Some(slot) => unsafe { *slot },
            None => {
                count_loss(loss::CGROUP_SLOTS, true);
                NO_INDEX
            }
        };
    }
    if let Some(entry) = SLOTS.get_ptr_mut(slot) {
        // SAFETY: a live array entry; nobody else holds this slot.
        unsafe { (*entry).cgroup = cgroup };
    }
    slot
}

/// This CPU's streak, of whomever it is. Only for hooks that run with preemption off (tracepoints).
#[inline(always)]
pub fn last_streak() -> Option<*mut Streak> {
    // SAFETY: no arguments, always valid.
    let cpu = unsafe { generated::bpf_get_smp_processor_id() };
    STREAKS.get_ptr_mut(cpu)
}

/// The same as one of `cgroup`. Its slot is [`NO_INDEX`] where all are in use.
#[inline(always)]
pub fn streak_of(cgroup: u64) -> Option<*mut Streak> {
    let streak = last_streak()?;
    // SAFETY: this CPU's entry, preemption off.
    if unsafe { (*streak).cgroup } != cgroup {
        begin(streak, cgroup);
    }
    Some(streak)
}

/// Makes it that of the current task, and notes the task if its end and its moves are followed: `stack` is a pointer that
/// no two tasks share at a time. `turn` was read before, so that a move after that makes the note void.
#[inline(always)]
pub fn ask(streak: *mut Streak, stack: u64, turn: u32) {
    let cgroup = current_cgroup_by_loads();
    // SAFETY: this CPU's entry, preemption off.
    unsafe {
        if (*streak).cgroup != cgroup {
            begin(streak, cgroup);
        }
        let followed = match FOLLOWED.get_ptr(0) {
            Some(followed) => core::ptr::read_volatile(followed) != 0,
            None => false,
        };
        // Without a slot the next fault asks for one again.
        let known = followed && (*streak).slot != NO_INDEX;
        (*streak).stack = if known { stack } else { 0 };
        (*streak).turn = turn;
    }
}

/// Ends a streak and begins the next. The user side sees an odd epoch meanwhile.
#[inline(never)]
fn begin(streak: *mut Streak, cgroup: u64) -> u32 {
    // SAFETY: as above; volatile writes are made in this order, which x86 keeps and the user side checks.
    unsafe {
        let epoch = core::ptr::read_volatile(&raw const (*streak).epoch);
        core::ptr::write_volatile(&raw mut (*streak).epoch, epoch.wrapping_add(1));
        settle(streak);
        let slot = slot_of(cgroup);
        core::ptr::write_volatile(&raw mut (*streak).faults, [0; 4]);
        core::ptr::write_volatile(&raw mut (*streak).slot, slot);
        // Without a slot nobody's, so that the next fault asks for one again.
        let owner = if slot == NO_INDEX { 0 } else { cgroup };
        core::ptr::write_volatile(&raw mut (*streak).cgroup, owner);
        core::ptr::write_volatile(&raw mut (*streak).look, 1);
        core::ptr::write_volatile(&raw mut (*streak).stack, 0);
        core::ptr::write_volatile(&raw mut (*streak).epoch, epoch.wrapping_add(2));
    }
    0
}

/// Moves the counts of a streak to the counters of its cgroup.
#[inline(always)]
unsafe fn settle(streak: *mut Streak) {
    // SAFETY: the caller's entry.
    let Streak {
        cgroup,
        faults: [read, write, exec, kernel],
        slot,
        ..
    } = unsafe { *streak };
    let Some(entry) = SLOTS.get_ptr(slot) else {
        return;
    };
    // SAFETY: a live array entry. A slot that has changed hands: its last owner was read with these counts and let go.
    if cgroup == 0 || unsafe { core::ptr::read_volatile(&raw const (*entry).cgroup) } != cgroup {
        return;
    }
    let Some(counters) = counters(slot) else {
        return;
    };
    // SAFETY: this CPU's entry of a per-CPU array; only tracepoints touch these counters, and they run with preemption off.
    unsafe {
        (*counters).fault_user_read += read;
        (*counters).fault_user_write += write;
        (*counters).fault_user_exec += exec;
        (*counters).fault_kernel += kernel;
    }
}

/// The counters of a slot on this CPU, marked as changed.
#[inline(always)]
pub fn counters(slot: u32) -> Option<*mut CgroupCounters> {
    if slot == NO_INDEX {
        return None;
    }
    let entry = SLOTS.get_ptr_mut(slot)?;
    let counters = COUNTERS.get_ptr_mut(slot)?;
    // SAFETY: a live array entry. Written only when clear, so that CPUs share the line while nobody reads it.
    unsafe {
        if core::ptr::read_volatile(&raw const (*entry).dirty) == 0 {
            core::ptr::write_volatile(&raw mut (*entry).dirty, 1);
        }
    }
    Some(counters)
}
