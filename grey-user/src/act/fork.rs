//! Forked processes that make a few raw system calls and can be ended: they share nothing with their parent but the
//! descriptors they are given, and die with it.

use std::os::fd::{OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

/// A forked process. Dropping it neither ends nor awaits it.
#[derive(Debug)]
pub(super) struct Forked {
    pidfd: OwnedFd,
}

/// Forks; the child has only the descriptors of `keep` (which is sorted), blocks all signals, does `work` and ends.
/// Does not allocate.
///
/// # Safety
/// `work` runs in the forked child of a process that may have threads: it must make system calls only, and neither
/// allocate, nor lock, nor panic.
///
/// # Errors
/// There is no room for another process.
pub(super) unsafe fn fork(keep: &mut [RawFd], work: impl FnOnce()) -> Result<Forked, Errno> {
    keep.sort_unstable();
    // SAFETY: plain system calls on masks that live on the stack; the child makes system calls only, by the caller's
    // word. Its signals stay blocked: what asks the parent to end must not cut a write of the child short.
    let pid = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let parent = libc::getpid();
        let pid = libc::fork();
        if pid == 0 {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
            // It may have died before the call above.
            if libc::getppid() == parent {
                close_others(keep);
                work();
            }
            libc::_exit(0);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        pid
    };
    if pid < 0 {
        return Err(last_error());
    }
    let pid = Pid::from_raw(pid).ok_or(Errno::CHILD)?;
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Forked { pidfd }),
        Err(error) => {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            Err(error)
        }
    }
}

/// The error of the libc call that was made last.
pub(super) fn last_error() -> Errno {
    // Does not allocate: the number only.
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Closes all descriptors but the sorted ones given. One that is left open would keep locks and probes alive for as
/// long as a stuck child lives.
fn close_others(keep: &[RawFd]) {
    let mut from = 0;
    for fd in keep.iter().filter(|fd| **fd >= 0) {
        close_from_to(from, i64::from(*fd) - 1);
        from = i64::from(*fd) + 1;
    }
    close_from_to(from, i64::from(u32::MAX));
}

/// Closes all descriptors of a range.
pub(super) fn close_from_to(from: i64, to: i64) {
    if from <= to {
        // SAFETY: closes descriptors that nobody uses: the callers are processes that begin, or a child that knows what
        // it keeps.
        unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
    }
}

impl Forked {
    /// Ends it; what hangs in the kernel ends later.
    pub(super) fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Whether it ends within this time; it is reaped then.
    pub(super) fn ends_within(&self, time: Duration) -> bool {
        if !readable(&self.pidfd, time) {
            return false;
        }
        use std::os::fd::AsFd as _;
        // Somebody who ignores SIGCHLD has no zombies, and gets ECHILD.
        let _ = rustix::process::waitid(
            WaitId::PidFd(self.pidfd.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        );
        true
    }
}

/// Waits until a descriptor can be read from, or is at its end.
pub(in crate::act) fn readable(file: &OwnedFd, time: Duration) -> bool {
    await_flags(file, PollFlags::IN, time)
}

/// Waits until a descriptor is ready, or broken.
pub(super) fn await_flags(file: &OwnedFd, flags: PollFlags, time: Duration) -> bool {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(file, flags)];
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(ready) => return ready > 0,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Sleeps, with a system call and nothing else.
pub(super) fn pause(time: Duration) {
    let _ = poll(&mut [], Some(&timespec(time)));
}

/// For poll(2), to the nanosecond.
pub(super) fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

#[cfg(test)]
pub(super) mod tests;
