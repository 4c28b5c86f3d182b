//! Cgroups that come, go and are renamed; processes that end or become another program.

use aya_ebpf::helpers::bpf_probe_read_kernel_str_bytes;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use grey_common::{CgroupRecord, Header, ProcessRecord, RecordKind};

use crate::growth;
use crate::kernel::{
    cgroup_id, current_cgroup, current_comm, current_task, current_tgid, now_ns, read,
};
use crate::maps::{RARE, count_record, next_turn, offset};

#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_made(ctx: BtfTracePointContext) -> i32 {
    cgroup(RecordKind::CgroupMade, ctx.arg(0), ctx.arg(1));
    0
}
#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_removed(ctx: BtfTracePointContext) -> i32 {
    cgroup(RecordKind::CgroupRemoved, ctx.arg(0), ctx.arg(1));
    0
}
#[btf_tracepoint(function = "cgroup_rename")]
pub fn cgroup_renamed(ctx: BtfTracePointContext) -> i32 {
    cgroup(RecordKind::CgroupRenamed, ctx.arg(0), ctx.arg(1));
    0
}

#[inline(always)]
fn cgroup(kind: RecordKind, cgroup: u64, path: u64) {
    // The default (v2) hierarchy has number 0; v1 hierarchies have others.
    if read::<i32>(
        read(cgroup, offset!(cgroup_root)),
        offset!(root_hierarchy_id),
    ) != 0
    {
        return;
    }
    let room = RARE.reserve::<CgroupRecord>(0);
    count_record(kind, room.is_none());
    let Some(mut room) = room else { return };
    let record = room.as_mut_ptr();
    // SAFETY: the record is ours until submitted; every field is written before that.
    unsafe {
        (*record).header = Header {
            kind: kind as u32,
            size: size_of::<CgroupRecord>() as u32,
            ktime_ns: now_ns(),
            cgroup: cgroup_id(cgroup),
        };
        (*record).reserved = 0;
        (*record).path = [0; grey_common::PATH_LEN];
        let length = match bpf_probe_read_kernel_str_bytes(path as *const u8, &mut (*record).path) {
            Ok(read) => read.len() as u32,
            Err(_) => 0,
        };
        (*record).path_len = length;
    }
    room.submit(0);
}

/// After a task was moved to another cgroup of any hierarchy.
#[btf_tracepoint(function = "cgroup_attach_task")]
pub fn task_moved(_: BtfTracePointContext) -> i32 {
    next_turn();
    0
}

/// Of each thread, when it takes no more faults in user mode and before another one may have its kernel stack.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn task_ended(_: BtfTracePointContext) -> i32 {
    next_turn();
    0
}

#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(_: BtfTracePointContext) -> i32 {
    ended(RecordKind::ProcessExec);
    0
}

#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(_: BtfTracePointContext) -> i32 {
    // The count is lowered before this event: 0 means the last thread of the process is going.
    let signal: u64 = read(current_task(), offset!(task_signal));
    if read::<i32>(signal, offset!(signal_live)) == 0 {
        ended(RecordKind::ProcessExit);
    }
    0
}

#[inline(always)]
fn ended(kind: RecordKind) {
    let tgid = current_tgid();
    if !growth::forget(tgid) {
        return;
    }
    let room = RARE.reserve::<ProcessRecord>(0);
    count_record(kind, room.is_none());
    let Some(mut room) = room else { return };
    room.write(ProcessRecord {
        header: Header {
            kind: kind as u32,
            size: size_of::<ProcessRecord>() as u32,
            ktime_ns: now_ns(),
            cgroup: current_cgroup(),
        },
        pid: tgid,
        reserved: 0,
        comm: current_comm(),
    });
    room.submit(0);
}
