//! What makes events, as processes of their own that look at the clock around each touch of a page.

use std::fs;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use super::listen::wall;

const PAGE: usize = 4096;
/// A touch that took longer was held up.
const SLOW: i64 = 100_000;
/// After one that was, so that their events are apart.
const APART: Duration = Duration::from_millis(5);
/// Between two kills.
const BETWEEN: Duration = Duration::from_millis(150);

/// The wall clock before and after a touch, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub before: i64,
    pub after: i64,
}

impl Span {
    /// Of lines `BEFORE AFTER`.
    pub fn read(lines: &[String]) -> Result<Vec<Span>> {
        lines
            .iter()
            .map(|line| {
                let (before, after) = line.split_once(' ').context("two stamps")?;
                Ok(Span {
                    before: before.parse()?,
                    after: after.parse()?,
                })
            })
            .collect()
    }
}

fn tell(spans: &[Span]) {
    let lines: String = spans
        .iter()
        .map(|span| format!("{} {}\n", span.before, span.after))
        .collect();
    print!("{lines}");
}

/// Pages of our own; they stay until the process ends.
fn pages(count: usize, flags: MapFlags) -> Result<NonNull<u8>> {
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
    let start = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            count * PAGE,
            ProtFlags::READ | ProtFlags::WRITE,
            flags,
        )
    }?;
    NonNull::new(start.cast()).context("a mapping at 0")
}

/// Touches a page of `start`, which has it.
fn touch(start: NonNull<u8>, page: usize) -> Span {
    let before = wall();
    // SAFETY: callers stay inside of the mapping, which is writable, ours alone, and never unmapped.
    unsafe { start.as_ptr().wrapping_add(page * PAGE).write_volatile(1) };
    Span {
        before,
        after: wall(),
    }
}

/// `load grow PAGES PAUSE_US`: a page at a time.
///
/// # Errors
/// Arguments, or what the kernel refuses.
pub fn grow(words: &[String]) -> Result<()> {
    let [count, pause] = words else {
        bail!("load grow PAGES PAUSE_US");
    };
    let count: usize = count.parse().context("PAGES")?;
    let pause = Duration::from_micros(pause.parse().context("PAUSE_US")?);
    let start = pages(count, MapFlags::PRIVATE)?;
    let mut spans = Vec::with_capacity(count);
    for page in 0..count {
        spans.push(touch(start, page));
        std::thread::sleep(pause);
    }
    tell(&spans);
    Ok(())
}

/// `load squeeze PROCS PAGES`: enters the cgroup and touches more than its limit holds; tells of the touches that took long.
///
/// # Errors
/// Arguments, or what the kernel refuses.
pub fn squeeze(words: &[String]) -> Result<()> {
    let [procs, count] = words else {
        bail!("load squeeze PROCS PAGES");
    };
    let count: usize = count.parse().context("PAGES")?;
    fs::write(procs, "0").with_context(|| procs.clone())?;
    let start = pages(count, MapFlags::PRIVATE)?;
    let mut spans = Vec::with_capacity(count);
    for page in 0..count {
        let span = touch(start, page);
        if span.after - span.before > SLOW {
            spans.push(span);
            std::thread::sleep(APART);
        }
    }
    tell(&spans);
    Ok(())
}

/// `load eat PROCS COUNT`: so many children, one after the other, that enter the cgroup and touch pages until they are
/// killed; prints their pids and when each touched last.
///
/// # Errors
/// Arguments, or a child that ended otherwise.
pub fn eat(words: &[String]) -> Result<()> {
    let [procs, count] = words else {
        bail!("load eat PROCS COUNT");
    };
    let count: usize = count.parse().context("COUNT")?;
    let procs = fs::File::options()
        .write(true)
        .open(procs)
        .with_context(|| procs.clone())?;
    // What the child wrote last is still there when it is gone.
    let shared = pages(1, MapFlags::SHARED)?.cast::<AtomicI64>();
    // SAFETY: a page of ours that is never unmapped; zero is a number, and all who use it do so atomically.
    let last = unsafe { shared.as_ref() };
    for _ in 0..count {
        last.store(0, Ordering::Relaxed);
        // SAFETY: this process has one thread, so its child may do anything.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let _ = touch_until_killed(&procs, last);
            std::process::exit(1);
        }
        ensure!(pid > 0, "fork: {}", std::io::Error::last_os_error());
        let mut status = 0;
        // SAFETY: our own child, and a place for its status.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        ensure!(
            waited == pid && libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL,
            "the child was not killed: status {status:#x}"
        );
        println!("{pid} {}", last.load(Ordering::Relaxed));
        std::thread::sleep(BETWEEN);
    }
    Ok(())
}

/// Only returns where it cannot begin, or where nobody kills it in a GiB.
fn touch_until_killed(mut procs: &fs::File, last: &AtomicI64) -> Result<()> {
    const MOST: usize = 1 << 18;
    std::io::Write::write_all(&mut procs, b"0")?;
    let start = pages(MOST, MapFlags::PRIVATE | MapFlags::NORESERVE)?;
    for page in 0..MOST {
        last.store(wall(), Ordering::Relaxed);
        touch(start, page);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_they_are_told() {
        let lines = ["10 20".to_owned(), "30 31".to_owned()];
        let spans = Span::read(&lines).unwrap();
        assert_eq!((spans[0].after, spans[1].before), (20, 30));
        assert!(Span::read(&["10".to_owned()]).is_err());
    }
}
