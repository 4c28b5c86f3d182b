//! The helper's own side: requests on stdin, answers on stdout.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, RawFd};
use std::process::ExitCode;

use rustix::io::Errno;

use super::{Advice, Answer, MAX_RANGES, MODE, process_madvise};

/// The helper's own side; `None` where these arguments are not for it.
pub(in super::super) fn main(mut args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
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
pub(super) fn serve(
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
pub(super) fn all(
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
