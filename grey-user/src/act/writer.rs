//! One write by a helper process that can be ended: a write to a cgroup file may block in the kernel.
//!
//! The helper is a fork without exec: under memory pressure, when it is needed most, it reads nothing from disk. It
//! makes system calls only, and dies with its parent.

use std::cell::Cell;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use grey_core::act::Fault;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::fork::{self, Forked};

/// How often the caller gets its turn.
const SLICE: Duration = Duration::from_millis(50);
/// How long a helper that was ended may take to be gone.
const ENDING: Duration = Duration::from_millis(500);
/// A write that the file system did not even begin.
const NO_REPORT: i64 = i64::MIN;

/// What the caller wants while a write is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Go on waiting.
    On,
    /// End the helper.
    Stop,
}

/// Helpers that could not be ended yet.
static STUCK: Mutex<Vec<Forked>> = Mutex::new(Vec::new());

thread_local! {
    /// Each helper of this thread keeps this descriptor open: the guard's end of it tells that we and they are gone.
    static LEASH: Cell<RawFd> = const { Cell::new(-1) };
}

/// Has each helper that this thread makes from now on keep a descriptor open; -1 for none.
pub(super) fn leash(fd: RawFd) {
    LEASH.set(fd);
}

/// Whether a helper that was given up still hangs in the kernel: its write may take effect at any time.
#[must_use]
pub fn stuck() -> bool {
    let mut stuck = STUCK.lock().unwrap_or_else(PoisonError::into_inner);
    stuck.retain(|helper| !helper.ends_within(Duration::ZERO));
    !stuck.is_empty()
}

/// Writes `bytes` to `file` in one write(2) in a helper process. While it is under way `tick` is called at least every
/// 100 ms. Returns in bounded time, whatever the kernel does with the helper.
///
/// # Errors
/// What write(2) failed with, or [`Fault::TimedOut`] after `timeout` (or when `tick` says so). The kernel sets a limit
/// before it reclaims, so that a write which was ended may have taken effect.
pub fn write(
    file: OwnedFd,
    bytes: &[u8],
    timeout: Duration,
    tick: &mut dyn FnMut() -> Wait,
) -> Result<usize, Fault> {
    let _ = stuck();
    let (answer, report) =
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(no_helper)?;
    let (to, back) = (file.as_raw_fd(), report.as_raw_fd());
    let mut keep = [to, back, LEASH.get()];
    // SAFETY: two writes of memory that the child has a copy of, and reading errno.
    let helper = unsafe {
        fork::fork(&mut keep, || {
            let written = libc::write(to, bytes.as_ptr().cast(), bytes.len());
            let result = if written < 0 {
                -i64::from(fork::last_error().raw_os_error())
            } else {
                written as i64
            };
            let result = result.to_ne_bytes();
            libc::write(back, result.as_ptr().cast(), result.len());
        })
    }
    .map_err(no_helper)?;
    drop((file, report));

    let end = Instant::now() + timeout;
    let mut ended = false;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if fork::readable(&answer, left.min(SLICE)) {
            break;
        }
        if tick() == Wait::Stop || left.is_zero() {
            helper.kill();
            ended = true;
            break;
        }
    }
    let mut gone = ends(&helper, tick);
    if !gone && !ended {
        // It has nothing left to do; somebody may have stopped it.
        helper.kill();
        gone = ends(&helper, tick);
    }
    let result = read_report(&answer);
    if !gone {
        let mut stuck = STUCK.lock().unwrap_or_else(PoisonError::into_inner);
        stuck.push(helper);
    }
    match result {
        NO_REPORT if ended => Err(Fault::TimedOut { stuck: !gone }),
        // Somebody else killed it.
        NO_REPORT => Err(Fault::Interrupted),
        taken if taken >= 0 => Ok(taken as usize),
        error => Err(super::files::fault(Errno::from_raw_os_error(-error as i32))),
    }
}

/// Whether a helper is gone in good time.
fn ends(helper: &Forked, tick: &mut dyn FnMut() -> Wait) -> bool {
    let end = Instant::now() + ENDING;
    loop {
        if helper.ends_within(SLICE) {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        tick();
    }
}

fn read_report(answer: &OwnedFd) -> i64 {
    let mut report = [0_u8; 8];
    match rustix::io::read(answer, &mut report) {
        Ok(8) => i64::from_ne_bytes(report),
        _ => NO_REPORT,
    }
}

/// Worth another try: room for a process comes and goes.
fn no_helper(error: Errno) -> Fault {
    match error {
        Errno::AGAIN => Fault::Busy,
        error => Fault::Other(format!(
            "no helper process to write with: {}",
            std::io::Error::from(error)
        )),
    }
}

#[cfg(test)]
mod tests;
