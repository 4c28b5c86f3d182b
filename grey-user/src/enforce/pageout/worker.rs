//! process_madvise by a helper process: the call may wait for swap or for the target's memory map, and can be ended
//! only by ending who made it.
//!
//! The helper is this program again. It is given a pidfd, so that it can reach that one process and no other, and
//! takes requests on stdin: advice, number of ranges, ranges; it answers on stdout.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::cli::Failure;

use super::maps::{Range, Tick};

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

/// The helper's own side; `None` where these arguments are not for it.
pub(super) fn main(mut args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if args.nth(1)? != MODE {
        return None;
    }
    let pidfd = args
        .next()
        .and_then(|number| number.to_str()?.parse::<RawFd>().ok())
        .filter(|number| *number > 2);
    let Some(pidfd) = pidfd else {
        return Some(ExitCode::from(2));
    };
    // SAFETY: if it is not open every call through it fails with EBADF; nobody closes it while we run.
    let pidfd = unsafe { BorrowedFd::borrow_raw(pidfd) };
    let served = serve(pidfd, io::stdin().lock(), io::stdout().lock());
    Some(ExitCode::from(u8::from(served.is_err())))
}

/// Requests until there are none.
fn serve(
    pidfd: BorrowedFd<'_>,
    mut requests: impl Read,
    mut answers: impl Write,
) -> io::Result<()> {
    loop {
        let mut head = [0_u8; 8];
        match requests.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            result => result?,
        }
        let number = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_le_bytes);
        let advice = match number(&head[..4]) as libc::c_int {
            libc::MADV_COLD => Advice::Cold,
            libc::MADV_PAGEOUT => Advice::Pageout,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        let count = number(&head[4..]) as usize;
        if count > MAX_RANGES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = vec![0_u8; count * 16];
        requests.read_exact(&mut body)?;
        let ranges: Vec<libc::iovec> = body
            .chunks_exact(16)
            .map(|range| {
                let part = |at: usize| range[at..at + 8].try_into().map_or(0, usize::from_le_bytes);
                libc::iovec {
                    iov_base: std::ptr::without_provenance_mut(part(0)),
                    iov_len: part(8),
                }
            })
            .collect();
        let answer = all(&ranges, |ranges| process_madvise(pidfd, ranges, advice));
        for part in [answer.advised, answer.refused, answer.error] {
            answers.write_all(&part.to_le_bytes())?;
        }
        answers.flush()?;
    }
}

/// One call after the other until each range was taken or refused.
fn all(
    mut ranges: &[libc::iovec],
    mut call: impl FnMut(&[libc::iovec]) -> Result<u64, Errno>,
) -> Answer {
    let mut answer = Answer::default();
    while let Some(first) = ranges.first() {
        match call(ranges) {
            Ok(mut done) => {
                answer.advised += done;
                let whole = ranges
                    .iter()
                    .take_while(|range| {
                        let fits = range.iov_len as u64 <= done;
                        done = done.saturating_sub(range.iov_len as u64);
                        fits
                    })
                    .count();
                // A range that was taken in part is refused for the rest; no progress at all would be for ever.
                ranges = match whole {
                    0 => {
                        answer.refused += 1;
                        &ranges[1..]
                    }
                    whole => &ranges[whole..],
                };
            }
            Err(Errno::INTR | Errno::AGAIN) if first.iov_len == 0 => ranges = &ranges[1..],
            Err(Errno::INTR) => {}
            Err(error @ (Errno::SRCH | Errno::PERM | Errno::NOSYS | Errno::BADF)) => {
                answer.error = error.raw_os_error() as u64;
                return answer;
            }
            Err(_) => {
                answer.refused += 1;
                ranges = &ranges[1..];
            }
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    fn ranges(lengths: &[usize]) -> Vec<libc::iovec> {
        lengths
            .iter()
            .map(|length| libc::iovec {
                iov_base: std::ptr::null_mut(),
                iov_len: *length,
            })
            .collect()
    }

    #[test]
    fn a_refused_range_costs_itself_and_no_other() {
        // The kernel stops at the range of 7 and tells of what it did before.
        let answer = all(&ranges(&[4, 4, 7, 4]), |left| {
            let good: u64 = left
                .iter()
                .take_while(|range| range.iov_len != 7)
                .map(|range| range.iov_len as u64)
                .sum();
            if good == 0 {
                Err(Errno::NOMEM)
            } else {
                Ok(good)
            }
        });
        assert_eq!(
            answer,
            Answer {
                advised: 12,
                refused: 1,
                error: 0
            }
        );
    }

    #[test]
    fn a_process_that_is_gone_ends_it_and_no_answer_is_for_ever() {
        let gone = all(&ranges(&[4, 4]), |_| Err(Errno::SRCH));
        assert_eq!(gone.error, libc::ESRCH as u64);
        let nothing = all(&ranges(&[4, 4]), |_| Ok(0));
        assert_eq!((nothing.advised, nothing.refused), (0, 2));
    }

    #[test]
    fn only_its_own_arguments_make_a_helper_and_nonsense_ends_it() {
        let args = |list: &[&str]| {
            main(
                list.iter()
                    .map(OsString::from)
                    .collect::<Vec<_>>()
                    .into_iter(),
            )
        };
        assert!(args(&["grey-ebpf"]).is_none());
        assert!(args(&["grey-ebpf", "watch", MODE]).is_none());
        for bad in ["", "x", "-1", "0", "2"] {
            assert!(args(&["grey-ebpf", MODE, bad]).is_some(), "{bad:?}");
        }
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(serve(null.as_fd(), &[0_u8; 8][..], Vec::new()).is_err());
        let mut long = 21_u32.to_le_bytes().to_vec();
        long.extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(serve(null.as_fd(), &long[..], Vec::new()).is_err());
        assert!(serve(null.as_fd(), &[][..], Vec::new()).is_ok());
    }

    #[test]
    fn a_helper_that_does_not_answer_is_ended_and_the_caller_has_its_turn() {
        let worker = || {
            let mut child = Command::new("sleep")
                .arg("60")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let (requests, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            Worker {
                child,
                requests,
                answers,
            }
        };
        let ranges = [4096..8192];
        let mut late = worker();
        let mut turns = 0;
        let failure = late
            .advise(
                Advice::Pageout,
                &ranges,
                Duration::from_millis(200),
                &mut || {
                    turns += 1;
                    Ok(())
                },
            )
            .unwrap_err();
        assert!(
            failure.message.contains("no end within"),
            "{}",
            failure.message
        );
        assert!(turns >= 2, "{turns} turns");
        assert!(late.child.try_wait().unwrap().is_some(), "it still runs");
        let mut stopped = worker();
        let start = Instant::now();
        let failure = stopped
            .advise(
                Advice::Pageout,
                &ranges,
                Duration::from_secs(60),
                &mut || Err(Failure::failed("enough")),
            )
            .unwrap_err();
        assert_eq!(failure.message, "enough");
        assert!(start.elapsed() < Duration::from_secs(10));
        assert!(stopped.child.try_wait().unwrap().is_some(), "it still runs");
    }
}
