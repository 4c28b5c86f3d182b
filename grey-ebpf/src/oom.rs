//! OOM kills. mark_victim runs in the task that ran out: the victim comes from its argument, what ran out from the
//! oom_control that the entry of out_of_memory left for this thread.

use aya_ebpf::macros::{btf_tracepoint, fentry, fexit, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, FExitContext, TracePointContext};
use grey_common::{COMM_LEN, Header, OomRecord, RecordKind, UNKNOWN, constraint, rss};

use crate::kernel::{
    current_cgroup, current_comm, current_tgid, current_thread, memcg_id, now_ns, read, rss_bytes, task_cgroup_id,
};
use crate::maps::{PENDING_OOM, PendingOom, RARE, count_record, offset, page_shift, record_victim_pid};

#[fentry(function = "out_of_memory")]
pub fn oom_control_enter(ctx: FEntryContext) -> i32 {
    let pending = PendingOom { control: ctx.arg::<u64>(0), victim: 0 };
    let _ = PENDING_OOM.insert(&current_thread(), &pending, 0);
    0
}

#[fexit(function = "out_of_memory")]
pub fn oom_control_leave(_: FExitContext) -> i32 {
    let _ = PENDING_OOM.remove(&current_thread());
    0
}

/// Remembers whom the kernel is about to kill, for kernels whose mark_victim gives a pid only.
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

#[btf_tracepoint(function = "mark_victim")]
pub fn oom_mark_victim(ctx: BtfTracePointContext) -> i32 {
    let task: u64 = ctx.arg(0);
    report(task, read::<u32>(task, offset!(task_tgid)).unwrap_or(0));
    0
}

#[btf_tracepoint(function = "mark_victim")]
pub fn oom_mark_victim_pid(ctx: BtfTracePointContext) -> i32 {
    by_pid(ctx.arg::<i32>(0) as u32);
    0
}

#[tracepoint]
pub fn oom_mark_victim_record(ctx: TracePointContext) -> u32 {
    // SAFETY: the offset comes from this event's format file and the read is checked.
    if let Ok(pid) = unsafe { ctx.read_at::<u32>(record_victim_pid() as usize) } {
        by_pid(pid);
    }
    0
}

#[inline(always)]
fn by_pid(pid: u32) {
    let victim = match PENDING_OOM.get_ptr(&current_thread()) {
        // SAFETY: a live map value that only this thread writes.
        Some(pending) => unsafe { (*pending).victim },
        None => 0,
    };
    // The kernel may mark another thread of the victim than the one it chose; the thread group is the same.
    let tgid = read::<u32>(victim, offset!(task_tgid)).unwrap_or(pid);
    report(victim, tgid);
}

#[inline(always)]
fn report(task: u64, tgid: u32) {
    let control = match PENDING_OOM.get_ptr(&current_thread()) {
        // SAFETY: a live map value that only this thread writes.
        Some(pending) => unsafe { (*pending).control },
        None => 0,
    };
    let memcg = read::<u64>(control, offset!(oc_memcg));
    // A task that is dying anyway is marked, without a choice, so that it may finish: nobody is killed.
    if control != 0 && read::<u64>(control, offset!(oc_chosen)) == Some(0) {
        return;
    }
    let constraint = match memcg {
        Some(memcg) if memcg != 0 => constraint::MEMCG,
        _ => read::<u32>(control, offset!(oc_constraint)).unwrap_or(constraint::UNKNOWN),
    };
    let room = RARE.reserve::<OomRecord>(0);
    count_record(RecordKind::Oom, room.is_none());
    let Some(mut room) = room else { return };
    let mm = read::<u64>(task, offset!(task_mm)).unwrap_or(0);
    let shift = page_shift();
    let signal = read::<u64>(task, offset!(task_signal)).unwrap_or(0);
    room.write(OomRecord {
        header: Header {
            kind: RecordKind::Oom as u32,
            size: size_of::<OomRecord>() as u32,
            ktime_ns: now_ns(),
            cgroup: task_cgroup_id(task),
        },
        limit_cgroup: memcg_id(memcg.unwrap_or(0)),
        trigger_cgroup: current_cgroup(),
        anon: rss_bytes(mm, rss::ANON, shift),
        file: rss_bytes(mm, rss::FILE, shift),
        shmem: rss_bytes(mm, rss::SHMEM, shift),
        pgtables: read::<u64>(mm, offset!(mm_pgtables)).unwrap_or(UNKNOWN),
        total_vm: match read::<u64>(mm, offset!(mm_total_vm)) {
            Some(pages) => pages << shift,
            None => UNKNOWN,
        },
        pid: tgid,
        trigger_pid: current_tgid(),
        constraint,
        oom_score_adj: match read::<i16>(signal, offset!(signal_oom_score_adj)) {
            Some(adj) => i32::from(adj),
            None => i32::MIN,
        },
        comm: read::<[u8; COMM_LEN]>(task, offset!(task_comm)).unwrap_or([0; COMM_LEN]),
        trigger_comm: current_comm(),
    });
    room.submit(0);
}
