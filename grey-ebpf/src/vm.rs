//! mmap, munmap, mremap, brk, madvise: calls and bytes that succeeded. Three ways in: fexit on the system call's own
//! function, kprobe and kretprobe on it, or the system call tracepoints (which tax every system call).

use aya_ebpf::macros::{fentry, fexit, kprobe, kretprobe, tracepoint};
use aya_ebpf::programs::{
    FEntryContext, FExitContext, ProbeContext, RetProbeContext, TracePointContext,
};
use grey_common::{NO_INDEX, loss};

use crate::growth;
use crate::kernel::{counters, current_cgroup, current_task, current_thread, read, slot_of};
use crate::maps::{PENDING_VM, PendingVm, add, count_loss, offset, page_shift};

const MMAP: u64 = 1;
const MUNMAP: u64 = 2;
pub(crate) const MREMAP: u64 = 3;
const BRK: u64 = 4;
const MADVISE: u64 = 5;

pub(crate) const MAX_ERRNO: u64 = 4095;
const MAP_LOCKED: u64 = 0x2000;
const MAP_POPULATE: u64 = 0x8000;
const MREMAP_DONTUNMAP: u64 = 4;
const MADV_DONTNEED: u64 = 4;
const MADV_FREE: u64 = 8;
const MADV_DONTNEED_LOCKED: u64 = 24;

/// `struct pt_regs` of x86-64 (arch/x86/include/asm/ptrace.h, an ABI of ptrace and so fixed).
#[repr(C)]
struct Regs {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    bp: u64,
    bx: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    ax: u64,
    cx: u64,
    dx: u64,
    si: u64,
    di: u64,
    orig_ax: u64,
}

/// The first four arguments of a system call; of mmap the last two are length's neighbours prot and flags.
#[inline(always)]
pub(crate) fn args_of(regs: u64) -> [u64; 4] {
    let at = |offset: usize| read::<u64>(regs, offset as u32);
    [
        at(core::mem::offset_of!(Regs, di)),
        at(core::mem::offset_of!(Regs, si)),
        at(core::mem::offset_of!(Regs, dx)),
        at(core::mem::offset_of!(Regs, r10)),
    ]
}

macro_rules! calls {
    ($($op:ident: $exit:ident $kenter:ident $kexit:ident $tenter:ident $texit:ident;)*) => {$(
        #[fexit]
        pub fn $exit(ctx: FExitContext) -> i32 {
            let args = args_of(ctx.arg::<u64>(0));
            leave($op, &args, ctx.arg::<u64>(1));
            0
        }
        #[kprobe]
        pub fn $kenter(ctx: ProbeContext) -> u32 {
            enter($op, args_of(ctx.arg::<u64>(0).unwrap_or(0)));
            0
        }
        #[kretprobe]
        pub fn $kexit(ctx: RetProbeContext) -> u32 {
            leave_pending($op, ctx.ret::<u64>());
            0
        }
        #[tracepoint]
        pub fn $tenter(ctx: TracePointContext) -> u32 {
            enter($op, record_args(&ctx));
            0
        }
        #[tracepoint]
        pub fn $texit(ctx: TracePointContext) -> u32 {
            leave_pending($op, record_u64(&ctx, SYS_EXIT_RET));
            0
        }
    )*};
}
calls! {
    MMAP: vm_mmap vm_mmap_kprobe vm_mmap_kretprobe vm_mmap_enter vm_mmap_exit;
    MUNMAP: vm_munmap vm_munmap_kprobe vm_munmap_kretprobe vm_munmap_enter vm_munmap_exit;
    MREMAP: vm_mremap vm_mremap_kprobe vm_mremap_kretprobe vm_mremap_enter vm_mremap_exit;
    MADVISE: vm_madvise vm_madvise_kprobe vm_madvise_kretprobe vm_madvise_enter vm_madvise_exit;
}

// brk returns the new break and not the old one, so every way in needs both ends.
#[fentry]
pub fn vm_brk_fentry(_: FEntryContext) -> i32 {
    enter(BRK, [0; 4]);
    0
}
#[fexit]
pub fn vm_brk(ctx: FExitContext) -> i32 {
    leave_pending(BRK, ctx.arg::<u64>(1));
    0
}
#[kprobe]
pub fn vm_brk_kprobe(_: ProbeContext) -> u32 {
    enter(BRK, [0; 4]);
    0
}
#[kretprobe]
pub fn vm_brk_kretprobe(ctx: RetProbeContext) -> u32 {
    leave_pending(BRK, ctx.ret::<u64>());
    0
}
#[tracepoint]
pub fn vm_brk_enter(_: TracePointContext) -> u32 {
    enter(BRK, [0; 4]);
    0
}
#[tracepoint]
pub fn vm_brk_exit(ctx: TracePointContext) -> u32 {
    leave_pending(BRK, record_u64(&ctx, SYS_EXIT_RET));
    0
}

/// `args[0]` of a sys_enter record and `ret` of a sys_exit record; the loader checks the format files for them.
const SYS_ENTER_ARGS: usize = grey_common::SYS_ENTER_ARGS_OFFSET;
pub(crate) const SYS_EXIT_RET: usize = grey_common::SYS_EXIT_RET_OFFSET;

#[inline(always)]
pub(crate) fn record_u64(ctx: &TracePointContext, offset: usize) -> u64 {
    // SAFETY: the loader compared the offset with this event's format file, and the read is checked.
    unsafe { ctx.read_at::<u64>(offset) }.unwrap_or(u64::MAX)
}

#[inline(always)]
pub(crate) fn record_args(ctx: &TracePointContext) -> [u64; 4] {
    let at = |n: usize| record_u64(ctx, SYS_ENTER_ARGS + 8 * n);
    [at(0), at(1), at(2), at(3)]
}

#[inline(always)]
fn enter(op: u64, mut args: [u64; 4]) {
    if op == MADVISE && !gives_back(args[2]) {
        return;
    }
    if op == BRK {
        args[0] = read(read(current_task(), offset!(task_mm)), offset!(mm_brk));
        if args[0] == 0 {
            return;
        }
    }
    let pending = PendingVm { args, op };
    if PENDING_VM.insert(&current_thread(), &pending, 0).is_err() {
        count_loss(loss::PAIRING, true);
    }
}

#[inline(always)]
fn leave_pending(op: u64, ret: u64) {
    let thread = current_thread();
    let Some(pending) = PENDING_VM.get_ptr(&thread) else {
        return;
    };
    // SAFETY: a live map value that only this thread writes.
    let pending = unsafe { *pending };
    let _ = PENDING_VM.remove(&thread);
    if pending.op == op {
        leave(op, &pending.args, ret);
    }
}

#[inline(always)]
fn gives_back(advice: u64) -> bool {
    advice == MADV_DONTNEED || advice == MADV_FREE || advice == MADV_DONTNEED_LOCKED
}

#[inline(always)]
fn page_align(bytes: u64) -> u64 {
    let mask = (1 << page_shift()) - 1;
    bytes.wrapping_add(mask) & !mask
}

#[inline(always)]
fn leave(op: u64, args: &[u64; 4], ret: u64) {
    // IS_ERR_VALUE, include/linux/err.h
    if ret >= MAX_ERRNO.wrapping_neg() || (op == MADVISE && !gives_back(args[2])) {
        return;
    }
    let (old, new) = match op {
        BRK => (page_align(args[0]), page_align(ret)),
        // A length of 0 makes a second mapping and DONTUNMAP keeps the first: nothing is taken away.
        MREMAP if args[3] & MREMAP_DONTUNMAP != 0 => (0, page_align(args[2])),
        MREMAP => (page_align(args[1]), page_align(args[2])),
        _ => (0, page_align(args[1])),
    };
    if op == BRK && old == new {
        return;
    }
    let cgroup = current_cgroup();
    let slot = slot_of(cgroup);
    let Some(counters) = counters(slot) else {
        return;
    };
    // SAFETY: this CPU's entry of a per-CPU array; atomic, for these hooks may be preempted.
    unsafe {
        match op {
            MMAP => {
                add(&raw mut (*counters).mmap_calls, 1);
                add(&raw mut (*counters).mmap_bytes, new);
            }
            MUNMAP => {
                add(&raw mut (*counters).munmap_calls, 1);
                add(&raw mut (*counters).munmap_bytes, new);
            }
            MREMAP => {
                add(&raw mut (*counters).mremap_calls, 1);
                if new > old {
                    add(&raw mut (*counters).mremap_grown_bytes, new - old);
                } else {
                    add(&raw mut (*counters).mremap_shrunk_bytes, old - new);
                }
            }
            BRK => {
                add(&raw mut (*counters).brk_calls, 1);
                if new > old {
                    add(&raw mut (*counters).brk_grown_bytes, new - old);
                } else {
                    add(&raw mut (*counters).brk_shrunk_bytes, old - new);
                }
            }
            _ => {
                add(&raw mut (*counters).madvise_calls, 1);
                add(&raw mut (*counters).madvise_bytes, new);
            }
        }
    }
    if op == MMAP && args[3] & (MAP_POPULATE | MAP_LOCKED) != 0 && slot != NO_INDEX {
        growth::after_populate(cgroup, slot);
    }
}
