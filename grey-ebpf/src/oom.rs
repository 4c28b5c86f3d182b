//! OOM kills. mark_victim runs in the task that ran out: the victim comes from its argument, what ran out from the
//! oom_control that the entry of out_of_memory left for this thread.

use aya_ebpf::macros::{btf_tracepoint, fentry, fexit, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, FExitContext, TracePointContext};
use grey_common::{Header, NO_OFFSET, OomRecord, RecordKind, UNKNOWN, constraint, rss};

use crate::kernel::{
    current_cgroup, current_comm, current_tgid, current_thread, memcg_id, now_ns, read, rss_pages,
    task_cgroup_id,
};
use crate::maps::{
    PENDING_OOM, PendingOom, RARE, count_record, offset, page_shift, record_victim_pid,
};

#[fentry(function = "out_of_memory")]
pub fn oom_control_enter(ctx: FEntryContext) -> i32 {
    let pending = PendingOom {
        control: ctx.arg::<u64>(0),
        victim: 0,
    };
    let _ = PENDING_OOM.insert(&current_thread(), &pending, 0);
    0
}

#[fexit(function = "out_of_memory")]
pub fn oom_control_leave(_: FExitContext) -> i32 {
    let _ = PENDING_OOM.remove(&current_thread());
    0
}

/// Remembers whom the kernel is about to kill: mark_victim also fires for a task that is dying anyway and is only
/// let use the reserves, and on some kernels it gives a pid only.
#[fentry(function = "__oom_kill_process")]
pub fn oom_victim_enter(ctx: FEntryContext) -> i32 {
    let victim: u64 = ctx.arg(0);
    if let Some(pending) = PENDING_OOM.get_ptr_mut(&current_thread()) {
        // SAFETY: a live map value that only this thread writes.
        unsafe { (*pending).victim = victim };
    } else {
        let _ = PENDING_OOM.insert(&current_thread(), &PendingOom { control: 0, victim }, 0);
    }
    0
}

/// With [`oom_victim_enter`]: tells kills only.
#[btf_tracepoint(function = "mark_victim")]
pub fn oom_mark_victim_killed(ctx: BtfTracePointContext) -> i32 {
    if take_victim() != 0 {
        let task: u64 = ctx.arg(0);
        report(task, read(task, offset!(task_tgid)));
    }
    0
}

#[btf_tracepoint(function = "mark_victim")]
pub fn oom_mark_victim(ctx: BtfTracePointContext) -> i32 {
    let task: u64 = ctx.arg(0);
    report(task, read(task, offset!(task_tgid)));
    0
}

/// With [`oom_victim_enter`], which has the task.
#[btf_tracepoint(function = "mark_victim")]
pub fn oom_mark_victim_pid_killed(ctx: BtfTracePointContext) -> i32 {
    let victim = take_victim();
    if victim != 0 {
        // The kernel may mark another thread of the victim than the one it chose; the thread group is the same.
        let tgid: u32 = read(victim, offset!(task_tgid));
        report(
            victim,
            if tgid == 0 {
                ctx.arg::<i32>(0) as u32
            } else {
                tgid
            },
        );
    }
    0
}

#[btf_tracepoint(function = "mark_victim")]
pub fn oom_mark_victim_pid(ctx: BtfTracePointContext) -> i32 {
    report(0, ctx.arg::<i32>(0) as u32);
    0
}

#[tracepoint]
pub fn oom_mark_victim_record(ctx: TracePointContext) -> u32 {
    // SAFETY: the offset comes from this event's format file and the read is checked.
    if let Ok(pid) = unsafe { ctx.read_at::<u32>(record_victim_pid() as usize) } {
        report(0, pid);
    }
    0
}

/// Whom this thread is about to kill, 0 for nobody. Good for one mark.
#[inline(always)]
fn take_victim() -> u64 {
    let thread = current_thread();
    let Some(pending) = PENDING_OOM.get_ptr_mut(&thread) else {
        return 0;
    };
    // SAFETY: a live map value that only this thread writes.
    let (victim, control) = unsafe {
        let victim = (*pending).victim;
        (*pending).victim = 0;
        (victim, (*pending).control)
    };
    if control == 0 {
        // Nobody else takes it out.
        let _ = PENDING_OOM.remove(&thread);
    }
    victim
}

#[inline(always)]
fn report(task: u64, tgid: u32) {
    let control = match PENDING_OOM.get_ptr(&current_thread()) {
        // SAFETY: a live map value that only this thread writes.
        Some(pending) => unsafe { (*pending).control },
        None => 0,
    };
    // A task that is dying anyway is marked, without a choice, so that it may finish: nobody is killed.
    if control != 0
        && offset!(oc_chosen) != NO_OFFSET
        && read::<u64>(control, offset!(oc_chosen)) == 0
    {
        return;
    }
    let memcg: u64 = read(control, offset!(oc_memcg));
    let constraint = if memcg != 0 {
        constraint::MEMCG
    } else if control == 0 || offset!(oc_constraint) == NO_OFFSET || offset!(oc_memcg) == NO_OFFSET
    {
        constraint::UNKNOWN
    } else {
        read(control, offset!(oc_constraint))
    };
    let room = RARE.reserve::<OomRecord>(0);
    count_record(RecordKind::Oom, room.is_none());
    let Some(mut room) = room else { return };
    let mm: u64 = read(task, offset!(task_mm));
    let shift = page_shift();
    // ORed onto a figure, this makes it UNKNOWN.
    let unknown = if mm == 0 { UNKNOWN } else { 0 };
    let unknown_rss = if offset!(mm_rss) == NO_OFFSET {
        UNKNOWN
    } else {
        unknown
    };
    let signal: u64 = read(task, offset!(task_signal));
    room.write(OomRecord {
        header: Header {
            kind: RecordKind::Oom as u32,
            size: size_of::<OomRecord>() as u32,
            ktime_ns: now_ns(),
            cgroup: task_cgroup_id(task),
        },
        limit_cgroup: memcg_id(memcg),
        trigger_cgroup: current_cgroup(),
        anon: rss_pages(mm, rss::ANON) << shift | unknown_rss,
        file: rss_pages(mm, rss::FILE) << shift | unknown_rss,
        shmem: rss_pages(mm, rss::SHMEM) << shift | unknown_rss,
        pgtables: read::<u64>(mm, offset!(mm_pgtables))
            | if offset!(mm_pgtables) == NO_OFFSET {
                UNKNOWN
            } else {
                unknown
            },
        total_vm: read::<u64>(mm, offset!(mm_total_vm)) << shift
            | if offset!(mm_total_vm) == NO_OFFSET {
                UNKNOWN
            } else {
                unknown
            },
        pid: tgid,
        trigger_pid: current_tgid(),
        constraint,
        oom_score_adj: if signal == 0 || offset!(signal_oom_score_adj) == NO_OFFSET {
            i32::MIN
        } else {
            i32::from(read::<i16>(signal, offset!(signal_oom_score_adj)))
        },
        comm: read(task, offset!(task_comm)),
        trigger_comm: current_comm(),
    });
    room.submit(0);
}
