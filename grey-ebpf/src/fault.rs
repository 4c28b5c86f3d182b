//! Page faults by cgroup. The hottest hook of all: the common fault is of the same task as the last one on this CPU, calls
//! nothing and writes to one cache line of ours; one in `growth::EVERY` looks at the size of the process.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{btf_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, TracePointContext};
use grey_common::Streak;

use crate::growth;
use crate::kernel::{ask, current_cgroup_by_loads, last_streak, streak_of};
use crate::maps::{record_fault_error, turn};

// arch/x86/include/asm/trap_pf.h
const X86_PF_WRITE: u64 = 1 << 1;
const X86_PF_INSTR: u64 = 1 << 4;

/// A row of `Streak::faults` is told by its place in bytes. That of a fault in user mode is made of the bits of its error code
/// without a branch: reads 0, writes 8, instruction fetches, which are no writes, 16.
const KERNEL: u64 = 24;
const ROWS: u64 = 24;

/// A process is looked at for growth at the start of a huge page in any case (x86-64, 2 MiB).
const HUGE_MASK: u64 = (2 << 20) - 1;

#[btf_tracepoint(function = "page_fault_user")]
pub fn fault_user(ctx: BtfTracePointContext) -> i32 {
    let Some(streak) = last_streak() else {
        return 0;
    };
    let turn = turn();
    // Registers of user mode are kept at the top of the task's kernel stack.
    let stack = ctx.arg::<u64>(1);
    // SAFETY: this CPU's entry; tracepoints run with preemption off.
    let known = unsafe { (*streak).stack == stack && (*streak).turn == turn };
    let row = row(ctx.arg(2));
    let address = ctx.arg(0);
    if !known {
        return of_another(streak, stack, turn, row, address);
    }
    if count(streak, row, address) {
        growth::on_fault(streak);
    }
    0
}

/// A fault of another task than the last one of this CPU, or of one that has just been looked at.
#[inline(never)]
fn of_another(streak: *mut Streak, stack: u64, turn: u32, row: u64, address: u64) -> i32 {
    ask(streak, stack, turn);
    count_or_look(Some(streak), row, address);
    0
}

#[btf_tracepoint(function = "page_fault_kernel")]
pub fn fault_kernel(ctx: BtfTracePointContext) -> i32 {
    let streak = streak_of(current_cgroup_by_loads());
    count_or_look(streak, KERNEL, ctx.arg::<u64>(0));
    0
}

// The records' place of the address is not looked up: they are the slower way in any case, and look for growth each time.

#[tracepoint]
pub fn fault_user_record(ctx: TracePointContext) -> u32 {
    // SAFETY: the offset comes from this event's format file and the read is checked.
    if let Ok(error) = unsafe { ctx.read_at::<u64>(record_fault_error() as usize) } {
        count_or_look(streak_of(current_cgroup_by_loads()), row(error), 0);
    }
    0
}

#[tracepoint]
pub fn fault_kernel_record(ctx: TracePointContext) -> u32 {
    let _ = ctx.as_ptr();
    count_or_look(streak_of(current_cgroup_by_loads()), KERNEL, 0);
    0
}

#[inline(always)]
fn row(error: u64) -> u64 {
    ((error & X86_PF_WRITE) << 2) | (error & X86_PF_INSTR)
}

/// Counts it; true where the process is to be looked at.
#[inline(always)]
fn count(streak: *mut Streak, row: u64, address: u64) -> bool {
    // SAFETY: this CPU's entry, and the mask keeps within its rows; tracepoints run with preemption off, so plain adds do
    // not race.
    let faults = unsafe {
        let faults = (&raw mut (*streak).faults).cast::<u8>();
        let faults = faults.add((row & ROWS) as usize).cast::<u64>();
        *faults += 1;
        *faults
    };
    faults & (growth::EVERY - 1) == 0 || address & HUGE_MASK == 0
}

#[inline(always)]
fn count_or_look(streak: Option<*mut Streak>, row: u64, address: u64) {
    let Some(streak) = streak else {
        return;
    };
    let due = count(streak, row, address);
    // SAFETY: as above.
    if due || unsafe { (*streak).look } != 0 {
        growth::on_fault(streak);
    }
}
