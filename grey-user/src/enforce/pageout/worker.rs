//! process_madvise by a helper process: the call may wait for swap or for the target's memory map, and can be ended
//! only by ending who made it.
//!
//! The helper is this program again. It is given a pidfd, so that it can reach that one process and no other, and
//! takes requests on stdin: advice, number of ranges, ranges; it answers on stdout.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::cli::Failure;

use super::maps::{Range, Tick};

mod serve;
#[cfg(test)]
mod tests;

pub(super) use serve::main;

/// First argument of a helper; no command has such a name.
const MODE: &str = "__pageout";
/// Ranges of one request; the kernel takes 1024 (`UIO_MAXIOV`), and a request has to fit into a pipe.
pub(crate) const MAX_RANGES: usize = 512;
/// How often a wait looks up.
const TICK_MS: i64 = 50;
/// A helper that was ended has this long to go: the kernel looks once every 512 pages.
const GRACE: Duration = Duration::from_secs(3);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// `MADV_COLD`: the pages count as not touched.
    Cold,
    /// `MADV_PAGEOUT`.
    Pageout,
}

impl Advice {
    const fn number(self) -> libc::c_int {
        match self {
            Advice::Cold => libc::MADV_COLD,
            Advice::Pageout => libc::MADV_PAGEOUT,
        }
    }
}

/// What came of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Bytes of the ranges that the kernel took.
    pub advised: u64,
    /// Ranges it refused, because they are gone or locked by now.
    pub refused: u64,
    /// An error that ended it: the process is gone, or permission.
    pub error: u64,
}

/// Whether process_madvise works on this process for us; changes nothing.
///
/// # Errors
/// `ENOSYS`, `EPERM`, `ESRCH`.
pub(crate) fn check(pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
    process_madvise(pidfd, &[], Advice::Pageout).map(drop)
}

fn process_madvise(
    pidfd: BorrowedFd<'_>,
    ranges: &[libc::iovec],
    advice: Advice,
) -> Result<u64, Errno> {
    // SAFETY: the kernel reads `ranges.len()` iovecs from an array of that length. What they point to is in the other
    // process and is not accessed through them; neither advice changes the content of memory.
    let done = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            pidfd.as_raw_fd(),
            ranges.as_ptr(),
            ranges.len(),
            advice.number(),
            0,
        )
    };
    u64::try_from(done)
        .map_err(|_| Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

/// A helper for one process.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    requests: ChildStdin,
    answers: ChildStdout,
}

impl Worker {
    /// Starts it.
    ///
    /// # Errors
    /// There is no room for another process.
    pub(crate) fn start(pidfd: BorrowedFd<'_>) -> io::Result<Worker> {
        let pidfd = pidfd.as_raw_fd();
        let mut command = Command::new("/proc/self/exe");
        command
            .args([MODE, &pidfd.to_string()])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C is for us: we end it.
            .process_group(0);
        let before = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // SAFETY: the descriptor is open in the parent, hence here; it is borrowed for this call only.
            let pidfd = unsafe { BorrowedFd::borrow_raw(pidfd) };
            // All others are closed on exec.
            fcntl_setfd(pidfd, FdFlags::empty())?;
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes two system calls and does not allocate.
        unsafe { command.pre_exec(before) };
        let mut child = command.spawn()?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(requests), Some(answers)) => Ok(Worker {
                child,
                requests,
                answers,
            }),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// One request; `tick` has its turn while it is under way. On an error the helper has been ended.
    ///
    /// # Errors
    /// What `tick` says, or it took too long or died (exit 1).
    pub(crate) fn advise(
        &mut self,
        advice: Advice,
        ranges: &[Range],
        timeout: Duration,
        tick: Tick<'_>,
    ) -> Result<Answer, Failure> {
        let answer = self.request(advice, ranges, timeout, &mut *tick);
        answer.map_err(|failure| match self.end(tick) {
            true => failure,
            false => Failure {
                exit: failure.exit,
                message: format!(
                    "{}; helper {} hangs in the kernel and cannot be ended",
                    failure.message,
                    self.child.id()
                ),
            },
        })
    }

    fn request(
        &mut self,
        advice: Advice,
        ranges: &[Range],
        timeout: Duration,
        tick: Tick<'_>,
    ) -> Result<Answer, Failure> {
        let end = Instant::now() + timeout;
        let mut request = Vec::with_capacity(8 + ranges.len() * 16);
        request.extend_from_slice(&(advice.number() as u32).to_le_bytes());
        request.extend_from_slice(&(ranges.len() as u32).to_le_bytes());
        for range in ranges {
            request.extend_from_slice(&range.start.to_le_bytes());
            request.extend_from_slice(&(range.end - range.start).to_le_bytes());
        }
        let died = || {
            Failure::failed(
                "process_madvise: its helper ended early; something else killed it".to_owned(),
            )
        };
        // It fits into the pipe, and the helper has taken all that came before.
        self.requests.write_all(&request).map_err(|_| died())?;
        loop {
            let wait = Timespec {
                tv_sec: 0,
                tv_nsec: TICK_MS * 1_000_000,
            };
            let mut fds = [PollFd::new(&self.answers, PollFlags::IN)];
            match poll(&mut fds, Some(&wait)) {
                Ok(0) | Err(Errno::INTR) => tick()?,
                Ok(_) => {
                    let mut bytes = [0_u8; 24];
                    self.answers.read_exact(&mut bytes).map_err(|_| died())?;
                    let part =
                        |at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
                    return Ok(Answer {
                        advised: part(0),
                        refused: part(8),
                        error: part(16),
                    });
                }
                Err(error) => {
                    return Err(Failure::failed(format!("poll: {}", io::Error::from(error))));
                }
            }
            if Instant::now() >= end {
                return Err(Failure::failed(format!(
                    "process_madvise: no end within {}s, so its helper was ended: swap or the process's memory map is held up",
                    timeout.as_secs()
                )));
            }
        }
    }

    /// Ends it; false where it does not go.
    fn end(&mut self, tick: Tick<'_>) -> bool {
        let _ = self.child.kill();
        let end = Instant::now() + GRACE;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < end => {
                    // The guard has to hear of us; why we end is known already.
                    let _ = tick();
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(None) => return false,
                Ok(Some(_)) | Err(_) => return true,
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end(&mut || Ok(()));
    }
}
