//! Page faults by cgroup. The hottest hook of all: the common fault does two array look-ups and no hash.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{btf_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, TracePointContext};
use grey_common::CgroupCounters;

use crate::growth;
use crate::kernel::{counters, current_cgroup, current_slot, last};
use crate::maps::{growth_on_fault, record_fault_error};

// arch/x86/include/asm/trap_pf.h
const X86_PF_WRITE: u64 = 1 << 1;
const X86_PF_INSTR: u64 = 1 << 4;

#[btf_tracepoint(function = "page_fault_user")]
pub fn fault_user(ctx: BtfTracePointContext) -> i32 {
    count_user(ctx.arg::<u64>(2));
    0
}

#[btf_tracepoint(function = "page_fault_kernel")]
pub fn fault_kernel(_: BtfTracePointContext) -> i32 {
    count_kernel();
    0
}

#[tracepoint]
pub fn fault_user_record(ctx: TracePointContext) -> u32 {
    // SAFETY: the offset comes from this event's format file and the read is checked.
    if let Ok(error) = unsafe { ctx.read_at::<u64>(record_fault_error() as usize) } {
        count_user(error);
    }
    0
}

#[tracepoint]
pub fn fault_kernel_record(ctx: TracePointContext) -> u32 {
    let _ = ctx.as_ptr();
    count_kernel();
    0
}

#[inline(always)]
fn count_user(error: u64) {
    count(|counters| {
        // SAFETY: this CPU's entry; tracepoints run with preemption off, so plain adds do not race.
        unsafe {
            if error & X86_PF_WRITE != 0 {
                (*counters).fault_user_write += 1;
            } else if error & X86_PF_INSTR != 0 {
                (*counters).fault_user_exec += 1;
            } else {
                (*counters).fault_user_read += 1;
            }
        }
    });
}

#[inline(always)]
fn count_kernel() {
    // SAFETY: as above.
    count(|counters| unsafe { (*counters).fault_kernel += 1 });
}

#[inline(always)]
fn count(bump: impl FnOnce(*mut CgroupCounters)) {
    let Some(last) = last() else { return };
    let cgroup = current_cgroup();
    let slot = current_slot(last, cgroup);
    let Some(counters) = counters(slot) else {
        return;
    };
    bump(counters);
    if growth_on_fault() != 0 {
        growth::on_fault(last, cgroup, slot);
    }
}
