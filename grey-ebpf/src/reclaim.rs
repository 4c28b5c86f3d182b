//! Reclaim: who was held up for how long, what it freed, and whether it was our own doing.

use aya_ebpf::macros::{btf_tracepoint, fentry, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, TracePointContext};
use grey_common::{Header, RecordKind, StallRecord, loss, stall};

use crate::kernel::{
    counters, current_cgroup, current_comm, current_tgid, current_thread, memcg_id, now_ns, slot_of,
};
use crate::maps::{
    OWN_TGIDS, PENDING_RECLAIM, PendingReclaim, RARE, add, count_loss, count_record,
    record_reclaimed, stall_ns,
};

/// Names the cgroup that is reclaimed from; without it the one that waits stands in for it.
#[fentry(function = "try_to_free_mem_cgroup_pages")]
pub fn reclaim_target(ctx: FEntryContext) -> i32 {
    begin(memcg_id(ctx.arg::<u64>(0)));
    0
}

#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_begin")]
pub fn reclaim_memcg_begin(_: BtfTracePointContext) -> i32 {
    begin_unless_pending();
    0
}
#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_end")]
pub fn reclaim_memcg_end(ctx: BtfTracePointContext) -> i32 {
    end(stall::MEMCG, ctx.arg::<u64>(0));
    0
}
#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_begin")]
pub fn reclaim_direct_begin(_: BtfTracePointContext) -> i32 {
    begin(0);
    0
}
#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_end")]
pub fn reclaim_direct_end(ctx: BtfTracePointContext) -> i32 {
    end(stall::DIRECT, ctx.arg::<u64>(0));
    0
}
#[btf_tracepoint(function = "mm_vmscan_kswapd_wake")]
pub fn reclaim_kswapd_wake(_: BtfTracePointContext) -> i32 {
    begin(0);
    0
}
#[btf_tracepoint(function = "mm_vmscan_kswapd_sleep")]
pub fn reclaim_kswapd_sleep(_: BtfTracePointContext) -> i32 {
    end(stall::KSWAPD, 0);
    0
}

#[tracepoint]
pub fn reclaim_memcg_begin_record(_: TracePointContext) -> u32 {
    begin_unless_pending();
    0
}
#[tracepoint]
pub fn reclaim_memcg_end_record(ctx: TracePointContext) -> u32 {
    end(stall::MEMCG, reclaimed(&ctx));
    0
}
#[tracepoint]
pub fn reclaim_direct_begin_record(_: TracePointContext) -> u32 {
    begin(0);
    0
}
#[tracepoint]
pub fn reclaim_direct_end_record(ctx: TracePointContext) -> u32 {
    end(stall::DIRECT, reclaimed(&ctx));
    0
}
#[tracepoint]
pub fn reclaim_kswapd_wake_record(_: TracePointContext) -> u32 {
    begin(0);
    0
}
#[tracepoint]
pub fn reclaim_kswapd_sleep_record(_: TracePointContext) -> u32 {
    end(stall::KSWAPD, 0);
    0
}

#[inline(always)]
fn reclaimed(ctx: &TracePointContext) -> u64 {
    // SAFETY: the offset comes from this event's format file and the read is checked.
    unsafe { ctx.read_at::<u64>(record_reclaimed() as usize) }.unwrap_or(0)
}

#[inline(always)]
fn begin(target: u64) {
    let pending = PendingReclaim {
        start_ns: now_ns(),
        target,
    };
    if PENDING_RECLAIM
        .insert(&current_thread(), &pending, 0)
        .is_err()
    {
        count_loss(loss::PAIRING, true);
    }
}

#[inline(always)]
fn begin_unless_pending() {
    if PENDING_RECLAIM.get_ptr(&current_thread()).is_none() {
        begin(0);
    }
}

#[inline(always)]
fn end(kind: u32, pages: u64) {
    let thread = current_thread();
    let Some(pending) = PENDING_RECLAIM.get_ptr(&thread) else {
        return;
    };
    // SAFETY: a live map value that only this thread writes.
    let PendingReclaim { start_ns, target } = unsafe { *pending };
    let _ = PENDING_RECLAIM.remove(&thread);
    let ns = now_ns() - start_ns;
    let cgroup = current_cgroup();
    let own = OWN_TGIDS.get_ptr(&current_tgid()).is_some();
    let waited = slot_of(cgroup);
    let from = if target == 0 || target == cgroup {
        waited
    } else {
        slot_of(target)
    };
    if let Some(counters) = counters(waited) {
        // SAFETY: this CPU's entry; atomic because the vm hooks may be preempted on this CPU.
        unsafe {
            if kind == stall::KSWAPD {
                // It works for minutes when it must and nobody waits for it: no event.
                add(&raw mut (*counters).kswapd_ns, ns);
            } else if kind == stall::DIRECT && !own {
                add(&raw mut (*counters).direct_runs, 1);
                add(&raw mut (*counters).direct_ns, ns);
                add(&raw mut (*counters).direct_pages, pages);
            } else if kind == stall::MEMCG && !own {
                add(&raw mut (*counters).memcg_runs, 1);
                add(&raw mut (*counters).memcg_ns, ns);
            }
        }
    }
    if kind == stall::KSWAPD {
        return;
    }
    if let Some(counters) = counters(from) {
        // SAFETY: as above.
        unsafe {
            if own {
                add(&raw mut (*counters).own_runs, 1);
                add(&raw mut (*counters).own_ns, ns);
                add(&raw mut (*counters).own_pages, pages);
            } else if kind == stall::MEMCG {
                add(&raw mut (*counters).memcg_pages, pages);
            }
        }
    }
    if ns >= stall_ns() {
        send(kind, cgroup, target, ns, pages, own);
    }
}

#[inline(always)]
fn send(kind: u32, cgroup: u64, target: u64, ns: u64, pages: u64, own: bool) {
    let room = RARE.reserve::<StallRecord>(0);
    count_record(RecordKind::Stall, room.is_none());
    let Some(mut room) = room else { return };
    room.write(StallRecord {
        header: Header {
            kind: RecordKind::Stall as u32,
            size: size_of::<StallRecord>() as u32,
            ktime_ns: now_ns(),
            cgroup,
        },
        target,
        ns,
        pages,
        pid: current_tgid(),
        kind,
        own: u32::from(own),
        reserved: 0,
        comm: current_comm(),
    });
    room.submit(0);
}
