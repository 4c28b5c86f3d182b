//! Page-fault stacks of one process or cgroup, for `profile`. Loaded and attached only while somebody profiles.
//!
//! A page is followed or not by a hash of its address, so that of a followed page every fault is seen: the last stack that
//! faulted it in is who it belongs to, however often it was freed in between.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated;
use aya_ebpf::macros::{btf_tracepoint, fexit, kprobe, kretprobe, tracepoint};
use aya_ebpf::programs::tracing::StackIdContext;
use aya_ebpf::programs::{
    BtfTracePointContext, FExitContext, ProbeContext, RetProbeContext, TracePointContext,
};
use grey_common::NO_OFFSET;
use grey_common::stack::{
    HUGE_BYTES, MoveRecord, NO_STACK, PageKey, StackCount, StackKey, StackState, is_followed,
};

use crate::kernel::{current_task, current_tgid, current_thread, now_ns, read};
use crate::maps::{
    PENDING_VM, PendingVm, STACK_CGROUPS, STACK_COUNTS, STACK_MOVES, STACK_PAGES, STACK_SHIFT,
    STACK_STATE, STACKS, add, offset, page_shift, stack_tgid,
};
use crate::vm::{MAX_ERRNO, MREMAP, SYS_EXIT_RET, args_of, record_args, record_u64};

/// include/uapi/linux/bpf.h
const BPF_F_USER_STACK: u64 = 1 << 8;
/// arch/x86/include/asm/page_64_types.h, without KASAN.
const THREAD_SIZE: u64 = 16 << 10;
/// `struct pt_regs` of x86-64: 21 words, code segment and stack pointer among the last.
const REGS_SIZE: u64 = 21 * 8;
const REGS_CS: u32 = 17 * 8;
const REGS_SP: u32 = 19 * 8;
/// `__USER_CS` (arch/x86/include/asm/segment.h).
const USER_CS: u64 = 0x33;

#[btf_tracepoint(function = "page_fault_user")]
pub fn stack_user(ctx: BtfTracePointContext) -> i32 {
    if let Some(state) = enter() {
        let regs = ctx.arg::<u64>(1);
        sample(&ctx, state, ctx.arg(0), read(regs, REGS_SP), false);
    }
    0
}

#[btf_tracepoint(function = "page_fault_kernel")]
pub fn stack_kernel(ctx: BtfTracePointContext) -> i32 {
    let address: u64 = ctx.arg(0);
    // Kernel addresses are the upper half.
    if address >> 63 == 0
        && let Some(state) = enter()
    {
        sample(&ctx, state, address, entry_stack(), true);
    }
    0
}

/// A huge page was mapped or could not be; 0 is success (VM_FAULT_FALLBACK and errors are bits). Rare and large, so each
/// is followed.
#[fexit]
pub fn stack_huge(ctx: FExitContext) -> i32 {
    if ctx.arg::<u32>(1) != 0 || offset!(vmf_address) == NO_OFFSET {
        return 0;
    }
    if let Some(state) = enter() {
        let address: u64 = read(ctx.arg(0), offset!(vmf_address));
        let start = now_ns();
        begin(state);
        let key = key(&ctx, state, entry_stack(), false);
        // The page fault itself is counted where it is sampled.
        count(state, &key, 0, HUGE_BYTES - (1 << page_shift()));
        follow(state, address & !(HUGE_BYTES - 1), 1, &key);
        end(state, start);
    }
    0
}

// Pages that mremap moves come to their new place without a fault.
#[fexit]
pub fn stack_mremap(ctx: FExitContext) -> i32 {
    moved(&args_of(ctx.arg::<u64>(0)), ctx.arg::<u64>(1));
    0
}
#[kprobe]
pub fn stack_mremap_kprobe(ctx: ProbeContext) -> u32 {
    about_to_move(args_of(ctx.arg::<u64>(0).unwrap_or(0)));
    0
}
#[kretprobe]
pub fn stack_mremap_kretprobe(ctx: RetProbeContext) -> u32 {
    moved_pending(ctx.ret::<u64>());
    0
}
#[tracepoint]
pub fn stack_mremap_enter(ctx: TracePointContext) -> u32 {
    about_to_move(record_args(&ctx));
    0
}
#[tracepoint]
pub fn stack_mremap_exit(ctx: TracePointContext) -> u32 {
    moved_pending(record_u64(&ctx, SYS_EXIT_RET));
    0
}

#[inline(always)]
fn about_to_move(args: [u64; 4]) {
    if enter().is_some() {
        // No room means a move that nobody hears of, which is counted when it ends.
        let _ = PENDING_VM.insert(&current_thread(), &PendingVm { args, op: MREMAP }, 0);
    }
}

#[inline(always)]
fn moved_pending(ret: u64) {
    let thread = current_thread();
    let Some(pending) = PENDING_VM.get_ptr(&thread) else {
        return;
    };
    // SAFETY: a live map value that only this thread writes.
    let args = unsafe { (*pending).args };
    let _ = PENDING_VM.remove(&thread);
    moved(&args, ret);
}

/// mremap(old address, old length, new length, …) came to its end.
#[inline(always)]
fn moved(args: &[u64; 4], ret: u64) {
    let [from, old, new, _] = *args;
    if ret >= MAX_ERRNO.wrapping_neg() || ret == from {
        return;
    }
    let Some(state) = enter() else { return };
    let Some(mut room) = STACK_MOVES.reserve::<MoveRecord>(0) else {
        // SAFETY: this CPU's entry of a per-CPU array.
        unsafe { add(&raw mut (*state).lost_moves, 1) };
        return;
    };
    room.write(MoveRecord {
        from,
        to: ret,
        bytes: if old < new { old } else { new },
        tgid: current_tgid(),
        reserved: 0,
    });
    room.submit(0);
}

/// This CPU's state, if the fault is the target's and not one of our own walk.
#[inline(always)]
fn enter() -> Option<*mut StackState> {
    let tgid = stack_tgid();
    if tgid != 0 {
        if current_tgid() != tgid {
            return None;
        }
    } else if STACK_CGROUPS.current_task_under_cgroup(0) != Ok(true) {
        return None;
    }
    let state = STACK_STATE.get_ptr_mut(0)?;
    // SAFETY: this CPU's entry of a per-CPU array.
    if unsafe { (*state).thread } == current_thread() {
        return None;
    }
    Some(state)
}

#[inline(always)]
fn sample<C: StackIdContext>(
    ctx: &C,
    state: *mut StackState,
    address: u64,
    stack: u64,
    in_kernel: bool,
) {
    // SAFETY: this CPU's entry; atomic, since newer kernels may run this with preemption on.
    unsafe { add(&raw mut (*state).seen, 1) };
    let page = address >> page_shift();
    let Some(shift) = STACK_SHIFT.get(0) else {
        return;
    };
    let shift = *shift & 31;
    if !is_followed(page, shift) {
        return;
    }
    let start = now_ns();
    begin(state);
    let key = key(ctx, state, stack, in_kernel);
    let bytes = 1 << page_shift();
    count(state, &key, 1 << shift, bytes << shift);
    follow(state, page << page_shift(), 0, &key);
    end(state, start);
}

#[inline(always)]
fn begin(state: *mut StackState) {
    // SAFETY: this CPU's entry of a per-CPU array.
    unsafe { core::ptr::write_volatile(&raw mut (*state).thread, current_thread()) };
}

#[inline(always)]
fn end(state: *mut StackState, start: u64) {
    // SAFETY: as above.
    unsafe {
        core::ptr::write_volatile(&raw mut (*state).thread, 0);
        add(&raw mut (*state).sampled, 1);
        add(&raw mut (*state).ns, now_ns() - start);
    }
}

#[inline(always)]
fn key<C: StackIdContext>(
    ctx: &C,
    state: *mut StackState,
    stack: u64,
    in_kernel: bool,
) -> StackKey {
    StackKey {
        tgid: current_tgid(),
        user: stack_id(ctx, state, BPF_F_USER_STACK),
        kernel: if in_kernel {
            stack_id(ctx, state, 0)
        } else {
            NO_STACK
        },
        reserved: 0,
        caller: caller(stack),
    }
}

#[inline(always)]
fn stack_id<C: EbpfContext>(ctx: &C, state: *mut StackState, flags: u64) -> i32 {
    // SAFETY: the map outlives the call; the context is this program's own.
    let id = unsafe {
        generated::bpf_get_stackid(ctx.as_ptr(), (&raw const STACKS).cast_mut().cast(), flags)
    };
    const EEXIST: i64 = -17;
    const ENOMEM: i64 = -12;
    if id == EEXIST || id == ENOMEM {
        // SAFETY: this CPU's entry of a per-CPU array.
        unsafe { add(&raw mut (*state).lost_stacks, 1) };
    }
    id as i32
}

/// The word on top of the user stack where a call instruction ends at what it points to: a function without a frame of its
/// own (memset, a system call's wrapper) has its return address there, and the walk by frame pointers misses its caller.
#[inline(always)]
fn caller(stack: u64) -> u64 {
    if stack == 0 {
        return 0;
    }
    let word: u64 = read_user(stack);
    if word < 1 << 16 || word >> 47 != 0 {
        return 0;
    }
    let code: [u8; 8] = read_user(word - 8);
    // call rel32; call through memory with a displacement of 32 or 8 bits; call through a register or without displacement.
    let is_call = code[3] == 0xe8
        || (code[2] == 0xff && code[3] & 0x38 == 0x10)
        || (code[5] == 0xff && code[6] & 0x38 == 0x10)
        || (code[6] == 0xff && code[7] & 0x38 == 0x10);
    if is_call { word } else { 0 }
}

#[inline(always)]
fn read_user<T: Copy>(address: u64) -> T {
    let mut value = core::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: the helper checks the address itself and writes zeros where it faults; T is an integer or a byte array.
    unsafe {
        generated::bpf_probe_read_user(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            address as *const core::ffi::c_void,
        );
        value.assume_init()
    }
}

/// The user's stack pointer at its last entry into the kernel; 0 when it is not where it is expected.
#[inline(always)]
fn entry_stack() -> u64 {
    if offset!(task_stack) == NO_OFFSET {
        return 0;
    }
    let top = read::<u64>(current_task(), offset!(task_stack)) + THREAD_SIZE;
    // TOP_OF_KERNEL_STACK_PADDING: two words where the kernel is built for FRED.
    let (plain, padded) = (top - REGS_SIZE, top - REGS_SIZE - 16);
    if read::<u64>(plain, REGS_CS) == USER_CS {
        read(plain, REGS_SP)
    } else if read::<u64>(padded, REGS_CS) == USER_CS {
        read(padded, REGS_SP)
    } else {
        0
    }
}

#[inline(always)]
fn count(state: *mut StackState, key: &StackKey, faults: u64, bytes: u64) {
    if let Some(count) = STACK_COUNTS.get_ptr_mut(key) {
        // SAFETY: a live map value.
        unsafe {
            // Adding nothing would be compiled to a load with a fence, which kernels before 5.12 lack.
            if faults != 0 {
                add(&raw mut (*count).faults, faults);
            }
            add(&raw mut (*count).bytes, bytes);
        }
        return;
    }
    // Two CPUs may make the entry at once; the second one's samples are lost, one time a stack.
    if STACK_COUNTS
        .insert(key, &StackCount { faults, bytes }, 0)
        .is_err()
    {
        // SAFETY: this CPU's entry of a per-CPU array.
        unsafe { add(&raw mut (*state).lost_counts, 1) };
    }
}

#[inline(always)]
fn follow(state: *mut StackState, address: u64, huge: u32, key: &StackKey) {
    let page = PageKey {
        address,
        tgid: key.tgid,
        huge,
    };
    if STACK_PAGES.insert(&page, key, 0).is_err() {
        // SAFETY: as above.
        unsafe { add(&raw mut (*state).lost_pages, 1) };
    }
}
