//! Growth of processes and cgroups. The fault path compares the resident size with two marks of this CPU; only
//! when one is crossed (every `GROWTH_STEP` pages, more often at first) is the process looked up and its cgroup's
//! account moved.

use aya_ebpf::helpers::generated;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use grey_common::{
    GrowthRecord, Header, NO_INDEX, NO_OFFSET, ProcessGrowth, RecordKind, Streak, loss, rss,
};

use crate::kernel::{
    PLAIN_STRIDE, Resident, at_least_zero, current_cgroup, current_comm, current_task,
    current_tgid, now_ns, read, resident, resident_plain, streak_of,
};
use crate::maps::{
    CGROUP_GROWTH, GROWTH, MARKS, Marks, PROCESS_GROWTH, count_loss, count_record, growth_on_fault,
    growth_pages, growth_step, offset, page_shift, task_btf,
};

/// Faults of a kind between two looks at a process on one CPU; a power of two. The kernel moves its counters by no less (32 pages
/// or more a CPU, percpu_counter_batch; 64 faults of a thread before 6.2), so that looking more often shows little more.
pub const EVERY: u64 = 64;
/// Pages that come between two looks by small pages; the kernel's own counters move by so many at once. More is by huge
/// pages, and each fault is looked at as long as that lasts.
const SMALL: u64 = 128;
/// A process that grows and shrinks all the time is told of so often in the long run, each time with all it has grown by: a
/// report wakes the user side up, which slows down whoever runs on the same core.
const EACH_NS: u64 = 20_000_000;
/// So many may come at once before that.
const AT_ONCE: u64 = 128;

/// Called by the fault programs, preemption off.
#[inline(never)]
pub fn on_fault(streak: *mut Streak) -> u32 {
    // SAFETY: this CPU's entry, preemption off.
    let (cgroup, slot) = unsafe { ((*streak).cgroup, (*streak).slot) };
    let again = growth_on_fault() != 0 && slot != NO_INDEX && look(cgroup, slot);
    // SAFETY: as above.
    unsafe {
        (*streak).look = u32::from(again);
        // The task is asked for its cgroup now and then in any case.
        (*streak).stack = 0;
    }
    0
}

/// Looks at the current process; true where the next fault has to do the same.
#[inline(always)]
fn look(cgroup: u64, slot: u32) -> bool {
    let (Some(marks), Some(resident)) = (MARKS.get_ptr_mut(0), current_resident()) else {
        return false;
    };
    check(marks, cgroup, slot, resident)
}

/// Fallback where no fault program attaches: every change of a resident counter. arg 0 is the mm.
#[btf_tracepoint(function = "rss_stat")]
pub fn growth_rss_stat(ctx: BtfTracePointContext) -> i32 {
    let mm: u64 = ctx.arg(0);
    // Reclaim and remote faults change other processes' counters; those are seen when they run themselves.
    if read::<u64>(current_task(), offset!(task_mm)) != mm {
        return 0;
    }
    let resident = resident(mm);
    let cgroup = current_cgroup();
    let (Some(marks), Some(streak)) = (MARKS.get_ptr_mut(0), streak_of(cgroup)) else {
        return 0;
    };
    // SAFETY: this CPU's entry, preemption off.
    let slot = unsafe { (*streak).slot };
    if slot != NO_INDEX {
        check(marks, cgroup, slot, resident);
    }
    0
}

/// After a call that faults pages in by itself (MAP_POPULATE). May be preempted, so it leaves `MARKS` alone.
#[inline(always)]
pub fn after_populate(cgroup: u64, slot: u32) {
    let mm: u64 = read(current_task(), offset!(task_mm));
    if mm == 0 {
        return;
    }
    let resident = resident(mm);
    account(current_tgid(), cgroup, slot, &resident);
}

/// True where the process has changed by more than small pages since this CPU looked last.
#[inline(always)]
fn check(marks: *mut Marks, cgroup: u64, slot: u32, resident: Resident) -> bool {
    let tgid = current_tgid();
    let pages = resident.pages;
    // SAFETY: this CPU's entry of a per-CPU array, preemption off.
    unsafe {
        let moved = pages.wrapping_sub((*marks).seen).wrapping_add(SMALL) > 2 * SMALL;
        (*marks).seen = pages;
        if (*marks).tgid == tgid
            && (*marks).slot == slot
            && pages < (*marks).high
            && pages >= (*marks).low
        {
            return moved;
        }
        let (low, high) = between(account(tgid, cgroup, slot, &resident), pages);
        (*marks).tgid = tgid;
        (*marks).slot = slot;
        (*marks).low = low;
        (*marks).high = high;
        moved
    }
}

/// Resident size of the current process: plain loads where the kernel gives a typed task, checked reads elsewhere.
#[inline(always)]
fn current_resident() -> Option<Resident> {
    if task_btf() == 0 {
        let mm: u64 = read(current_task(), offset!(task_mm));
        return if mm == 0 { None } else { Some(resident(mm)) };
    }
    if offset!(task_mm) == NO_OFFSET
        || offset!(mm_rss) == NO_OFFSET
        || offset!(mm_total_vm) == NO_OFFSET
    {
        return None;
    }
    // SAFETY: the verifier knows the types behind this pointer and checks each offset against the kernel's BTF;
    // a load through a bad pointer reads 0.
    unsafe {
        let task = generated::bpf_get_current_task_btf().cast::<u8>();
        let mm = task
            .add(offset!(task_mm) as usize)
            .cast::<*const u8>()
            .read_volatile();
        if mm.is_null() {
            return None;
        }
        let pages = if offset!(mm_rss_stride) == PLAIN_STRIDE {
            // Loads of an array of typedefs are refused by verifiers of that time, a checked read is not.
            resident_plain(mm as u64)
        } else {
            let counter = |member: u32| {
                mm.add((offset!(mm_rss) + member * offset!(mm_rss_stride)) as usize)
                    .cast::<i64>()
                    .read_volatile()
            };
            at_least_zero(counter(rss::ANON) + counter(rss::FILE) + counter(rss::SHMEM))
        };
        let total_vm = mm
            .add(offset!(mm_total_vm) as usize)
            .cast::<u64>()
            .read_volatile();
        Some(Resident { pages, total_vm })
    }
}

/// Moves the accounts of a process and its cgroup and sends what crossed the threshold. Returns the pages from which the
/// growth of the process counts.
#[inline(never)]
fn account(tgid: u32, cgroup: u64, slot: u32, resident: &Resident) -> u64 {
    let now = now_ns();
    let (pages, total_vm) = (resident.pages, resident.total_vm);
    let Some(entry) = PROCESS_GROWTH.get_ptr_mut(&tgid) else {
        let entry = ProcessGrowth {
            base_pages: pages,
            seen_pages: pages,
            base_ns: now,
            charged_pages: 0,
            total_vm,
            index: slot,
            reserved: 0,
            due_ns: 0,
        };
        if PROCESS_GROWTH.insert(&tgid, &entry, 0).is_err() {
            count_loss(loss::PROCESS_TABLE, true);
        }
        return pages;
    };
    // SAFETY: a live map value. Two threads of one process may race here; the worst is one report too many, which
    // the user side drops.
    unsafe {
        (*entry).total_vm = total_vm;
        let told_of = (*entry).base_pages;
        if (*entry).index == slot
            && pages >= told_of + growth_pages()
            && (*entry).due_ns > now + (AT_ONCE - 1) * EACH_NS
        {
            // The next report has this in it as well.
            return told_of;
        }
        let mut delta = pages as i64 - (*entry).seen_pages as i64;
        (*entry).seen_pages = pages;
        if (*entry).index != slot {
            // It moved: what it grew before stays with the old cgroup.
            (*entry).index = slot;
            (*entry).charged_pages = 0;
        }
        if pages < (*entry).base_pages {
            (*entry).base_pages = pages;
            (*entry).base_ns = now;
        }
        let grown = pages - (*entry).base_pages;
        if grown >= growth_pages() {
            send(
                RecordKind::ProcessGrowth,
                tgid,
                cgroup,
                grown,
                now,
                (*entry).base_ns,
                resident,
            );
            // Told as the process's growth, so it leaves the cgroup's account.
            delta -= (*entry).charged_pages + delta;
            (*entry).charged_pages = 0;
            (*entry).base_pages = pages;
            (*entry).base_ns = now;
            let due = (*entry).due_ns;
            (*entry).due_ns = if due > now { due } else { now } + EACH_NS;
        } else {
            // Never below nothing: what it frees beyond that is not the account's to get back when it ends.
            (*entry).charged_pages = at_least_zero((*entry).charged_pages + delta) as i64;
        }
        charge(tgid, cgroup, slot, delta, now, resident);
        (*entry).base_pages
    }
}

/// The marks between which a process need not be looked at again. A quarter more than it has grown makes the next look, up
/// to `GROWTH_STEP`: many processes that each stay under the step would otherwise add up to nothing.
#[inline(always)]
fn between(base: u64, pages: u64) -> (u64, u64) {
    const LEAST: u64 = 8;
    let step = growth_step();
    let low = if pages > step { pages - step } else { 0 };
    let quarter = (pages - base) >> 2;
    let next = if quarter > LEAST { quarter } else { LEAST };
    let at_step = pages + if next < step { next } else { step };
    let at_threshold = base + growth_pages();
    (
        low,
        if at_step < at_threshold {
            at_step
        } else {
            at_threshold
        },
    )
}

/// Moves the growth account of a cgroup by `delta` pages.
#[inline(always)]
fn charge(tgid: u32, cgroup: u64, slot: u32, delta: i64, now: u64, resident: &Resident) {
    let Some(account) = CGROUP_GROWTH.get_ptr_mut(slot) else {
        return;
    };
    // SAFETY: a live array entry; the add is atomic, the rest tolerates a lost race as above.
    unsafe {
        if (*account).since_ns == 0 {
            (*account).since_ns = now;
        }
        if delta != 0 {
            crate::maps::add((&raw mut (*account).pages).cast::<u64>(), delta as u64);
        }
        let pages = core::ptr::read_volatile(&raw const (*account).pages);
        if pages < 0 {
            // Below the last low-water mark: that is the new mark.
            (*account).pages = 0;
            (*account).since_ns = now;
        } else if pages as u64 >= growth_pages() {
            send(
                RecordKind::CgroupGrowth,
                tgid,
                cgroup,
                pages as u64,
                now,
                (*account).since_ns,
                resident,
            );
            (*account).pages = 0;
            (*account).since_ns = now;
        }
    }
}

/// Takes a process out of the tables: it ended, or became another program.
#[inline(always)]
pub fn forget(tgid: u32) -> bool {
    let Some(entry) = PROCESS_GROWTH.get_ptr_mut(&tgid) else {
        return false;
    };
    // SAFETY: a live map value and a live array entry.
    let reported = unsafe {
        if let Some(account) = CGROUP_GROWTH.get_ptr_mut((*entry).index) {
            crate::maps::add(
                (&raw mut (*account).pages).cast::<u64>(),
                (-(*entry).charged_pages) as u64,
            );
        }
        (*entry).due_ns != 0
    };
    let _ = PROCESS_GROWTH.remove(&tgid);
    reported
}

#[inline(always)]
fn send(
    kind: RecordKind,
    tgid: u32,
    cgroup: u64,
    pages: u64,
    now: u64,
    since: u64,
    resident: &Resident,
) {
    let room = GROWTH.reserve::<GrowthRecord>(0);
    count_record(kind, room.is_none());
    let Some(mut room) = room else { return };
    let shift = page_shift();
    room.write(GrowthRecord {
        header: Header {
            kind: kind as u32,
            size: size_of::<GrowthRecord>() as u32,
            ktime_ns: now,
            cgroup,
        },
        bytes: pages << shift,
        since_ns: now - since,
        rss: resident.pages << shift,
        total_vm: resident.total_vm << shift,
        pid: tgid,
        reserved: 0,
        comm: current_comm(),
    });
    room.submit(0);
}
