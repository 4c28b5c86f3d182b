//! Page faults by cgroup. The hottest hook of all: the common fault is of the same task as the last one on this CPU, calls
//! nothing and touches one cache line of ours; one in `growth::EVERY` looks at the size of the process.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{btf_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, TracePointContext};
use grey_common::Streak;

use crate::growth;
use crate::kernel::{current_cgroup_by_loads, streak_of, streak_of_task};
use crate::maps::record_fault_error;

// arch/x86/include/asm/trap_pf.h
const X86_PF_WRITE: u64 = 1 << 1;
const X86_PF_INSTR: u64 = 1 << 4;

/// Rows of `Streak::faults`.
const READ: usize = 0;
const WRITE: usize = 1;
const EXEC: usize = 2;
const KERNEL: usize = 3;

/// A process is looked at for growth at the start of a huge page in any case (x86-64, 2 MiB).
const HUGE_MASK: u64 = (2 << 20) - 1;

#[btf_tracepoint(function = "page_fault_user")]
pub fn fault_user(ctx: BtfTracePointContext) -> i32 {
    // Registers of user mode are kept at the top of the task's kernel stack.
    let streak = streak_of_task(ctx.arg::<u64>(1));
    count(streak, row(ctx.arg::<u64>(2)), ctx.arg::<u64>(0));
    0
}

#[btf_tracepoint(function = "page_fault_kernel")]
pub fn fault_kernel(ctx: BtfTracePointContext) -> i32 {
    let streak = streak_of(current_cgroup_by_loads());
    count(streak, KERNEL, ctx.arg::<u64>(0));
    0
}

// The records' place of the address is not looked up: they are the slower way in any case, and look for growth each time.

#[tracepoint]
pub fn fault_user_record(ctx: TracePointContext) -> u32 {
    // SAFETY: the offset comes from this event's format file and the read is checked.
    if let Ok(error) = unsafe { ctx.read_at::<u64>(record_fault_error() as usize) } {
        count(streak_of(current_cgroup_by_loads()), row(error), 0);
    }
    0
}

#[tracepoint]
pub fn fault_kernel_record(ctx: TracePointContext) -> u32 {
    let _ = ctx.as_ptr();
    count(streak_of(current_cgroup_by_loads()), KERNEL, 0);
    0
}

#[inline(always)]
fn row(error: u64) -> usize {
    if error & X86_PF_WRITE != 0 {
        WRITE
    } else if error & X86_PF_INSTR != 0 {
        EXEC
    } else {
        READ
    }
}

#[inline(always)]
fn count(streak: Option<*mut Streak>, row: usize, address: u64) {
    let Some(streak) = streak else {
        return;
    };
    // SAFETY: this CPU's entry; tracepoints run with preemption off, so plain adds do not race.
    unsafe {
        // Each row by itself: verifiers want to know where a write goes.
        match row {
            READ => (*streak).faults[READ] += 1,
            WRITE => (*streak).faults[WRITE] += 1,
            EXEC => (*streak).faults[EXEC] += 1,
            _ => (*streak).faults[KERNEL] += 1,
        }
        let left = (*streak).left;
        if left != 0 && address & HUGE_MASK != 0 {
            (*streak).left = left - 1;
            return;
        }
    }
    growth::on_fault(streak);
}
