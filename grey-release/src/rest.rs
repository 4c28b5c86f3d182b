//! Whether the program's one thread is certain not to be inside the allocator: it waits in a system call that no allocator
//! makes, on its own stack, and no signal handler is under way that could have interrupted one.

use core::fmt::Write as _;
use core::sync::atomic::Ordering;

use linux_raw_sys::general;

use crate::symbols;
use crate::sys;
use crate::text::{Line, hex, number, words};

/// The main thread's stack is looked through up to its end if that is no further away than this; a stack of its own (a
/// coroutine's, `sigaltstack`'s) is further away.
const DEEPEST: usize = 16 << 20;
/// What `mincore` is asked for; the smallest page there is.
const PAGE: usize = 4096;
/// As `AT_SYSINFO_EHDR`, the begin of the vdso, and how much of it there is at most.
const VDSO: usize = 33;
const VDSO_SIZE: usize = 4 * 4096;
/// Signals of Linux.
const SIGNALS: usize = 64;

/// System calls that wait and that no allocator makes: those of glibc's malloc are brk, mmap, munmap, mremap, mprotect,
/// madvise, futex, prctl, getrandom, and open and read for the number of CPUs where there are several threads.
fn waits(number: u32) -> bool {
    #[cfg(target_arch = "x86_64")]
    if matches!(
        number,
        general::__NR_poll
            | general::__NR_select
            | general::__NR_epoll_wait
            | general::__NR_pause
            | general::__NR_accept
    ) {
        return true;
    }
    matches!(
        number,
        general::__NR_read
            | general::__NR_ppoll
            | general::__NR_pselect6
            | general::__NR_epoll_pwait
            | general::__NR_epoll_pwait2
            | general::__NR_nanosleep
            | general::__NR_clock_nanosleep
            | general::__NR_accept4
            | general::__NR_recvfrom
            | general::__NR_recvmsg
            | general::__NR_wait4
            | general::__NR_waitid
            | general::__NR_rt_sigtimedwait
            | general::__NR_rt_sigsuspend
            | general::__NR_io_uring_enter
            | general::__NR_io_getevents
            | general::__NR_msgrcv
            | general::__NR_flock
    )
}

/// The stack pointer out of /proc/PID/task/TID/syscall, where the thread waits in such a call. The kernel says `running`
/// of a thread that does not (fs/proc/base.c: proc_pid_syscall).
fn waiting(line: &[u8]) -> Option<usize> {
    let mut words = words(line);
    let call = u32::try_from(number(words.next()?)?).ok()?;
    let stack = hex(words.nth(6)?)?;
    waits(call).then_some(stack as usize)
}

/// What the kernel tells of the main thread's system call.
fn main_call(buf: &mut [u8]) -> Option<&[u8]> {
    let mut path = Line::<64>::new();
    write!(path, "/proc/self/task/{}/syscall\0", sys::pid()).ok()?;
    sys::read_file(path.bytes(), buf).filter(|text| !text.is_empty())
}

/// Whether it can be told at all: a process that has changed its user may not read its own files in /proc, and there may be
/// no /proc.
pub(crate) fn can_be_told() -> bool {
    symbols::stack_end().is_some() && main_call(&mut [0; 256]).is_some()
}

/// Whether the main thread rests, at this moment.
pub(crate) fn main_rests() -> bool {
    let mut buf = [0; 256];
    main_call(&mut buf)
        .and_then(waiting)
        .is_some_and(no_handler_above)
}

/// Whether the calling thread, which has to be the main one, runs no signal handler.
pub(crate) fn no_handler_here() -> bool {
    let here = 0_usize;
    no_handler_above((&raw const here) as usize)
}

/// Whether no signal handler has its frame above this stack pointer. A handler returns to the restorer that the kernel was
/// told of with it, or to the vdso; a stack without a word of either has no handler on it. What lies there from before can
/// only make this say no.
// Not inlined: what it finds out lies on its own stack, which must not be part of what it looks through.
#[inline(never)]
fn no_handler_above(stack: usize) -> bool {
    let Some(end) = symbols::stack_end().map(|end| end.load(Ordering::Relaxed)) else {
        return false;
    };
    if stack >= end || end - stack > DEEPEST || !stack.is_multiple_of(size_of::<usize>()) {
        return false;
    }
    let Some(restorers) = restorers() else {
        return false;
    };
    let vdso = symbols::getauxval().map_or(0, |getauxval| {
        // SAFETY: takes a number.
        unsafe { getauxval(VDSO) }
    });
    let suspect = |word: usize| {
        word != 0 && (restorers.contains(&word) || vdso != 0 && word.wrapping_sub(vdso) < VDSO_SIZE)
    };
    let mut at = stack;
    while at < end {
        if (at == stack || at.is_multiple_of(PAGE)) && !is_mapped(at / PAGE * PAGE) {
            return false;
        }
        // SAFETY: it is mapped, as the main thread's stack is to its end; the thread may write there meanwhile, so that it
        // is read as it is at this moment.
        let word = unsafe { core::ptr::read_volatile(at as *const usize) };
        if suspect(word) {
            return false;
        }
        at += size_of::<usize>();
    }
    true
}

/// Whether there is anything at this page: a stack pointer below the main stack need not be on it.
fn is_mapped(page: usize) -> bool {
    let mut resident = 0_u8;
    let args = [page, PAGE, (&raw mut resident) as usize, 0, 0, 0];
    // SAFETY: one byte for one page; where pages are larger it fails, or says it of the first.
    unsafe { sys::call(general::__NR_mincore, args) }.is_ok()
}

/// Where handlers return to, as the kernel was told (SA_RESTORER); it keeps this also of a handler that was removed.
fn restorers() -> Option<[usize; 8]> {
    // The kernel's struct sigaction of x86-64: handler, flags, restorer, mask. On aarch64 a program does not give one, and
    // what stands there is none.
    let mut found = [0_usize; 8];
    let mut count = 0;
    for signal in 1..=SIGNALS {
        let mut action = [0_usize; 4];
        let args = [signal, 0, action.as_mut_ptr() as usize, 8, 0, 0];
        // SAFETY: asks only; the struct is as long as the kernel's.
        unsafe { sys::call(general::__NR_rt_sigaction, args) }.ok()?;
        let [_, _, restorer, _] = action;
        if cfg!(target_arch = "x86_64") && restorer != 0 && !found.contains(&restorer) {
            // More than a handful of them means a program that does things of its own with signals.
            *found.get_mut(count)? = restorer;
            count += 1;
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use linux_raw_sys::general;

    use super::waiting;

    #[test]
    fn a_thread_rests_only_in_a_call_that_no_allocator_makes() {
        let line = |call: &str| format!("{call} 0x1 0x2 0x3 0x4 0x5 0x6 0x7ffe10 0x7f0000\n");
        let of = |call: &str| waiting(line(call).as_bytes());
        assert_eq!(of(&general::__NR_ppoll.to_string()), Some(0x007f_fe10));
        for call in [
            general::__NR_futex,
            general::__NR_mmap,
            general::__NR_munmap,
            general::__NR_madvise,
        ] {
            assert_eq!(of(&call.to_string()), None, "{call}");
        }
        for text in [
            "running\n",
            "-1 0x7ffe10 0x7f0000\n",
            "",
            "0\n",
            "0 0x1 0x2\n",
        ] {
            assert_eq!(waiting(text.as_bytes()), None, "{text:?}");
        }
    }
}
