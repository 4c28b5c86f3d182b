//! Steps for memory that is in use and memory that is not.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::io::{Errno, Result};

use super::Line;
use super::memory::{Mapping, Mappings, PAGE};
use super::steps::{in_child, number, pages};

/// Does one step of this module; [`Errno::NOSYS`] if it is none.
pub(super) fn perform(state: &mut Mappings, step: &str, out: &mut Line) -> Result<()> {
    let mut words = step.split_whitespace();
    let name = words.next().unwrap_or("");
    let mut word = || words.next().ok_or(Errno::INVAL);
    match name {
        // `apart PAGES`: touched, and a mapping of its own: the kernel makes one of equal neighbours. Tells its addresses.
        "apart" => {
            let mapping = Mapping::fenced(pages(word()?)?)?;
            mapping.touch();
            state.push(mapping)?;
            let (start, length) = mapping.bounds();
            let start = start as usize;
            write!(out, "{start:x}-{:x}", start + length).map_err(|_| Errno::NOBUFS)
        }
        // A file's pages, which `read-last` reads.
        "map-file" => state.push(Mapping::file(word()?)?),
        // `keep-hot FIRST PAGES`: a thread that reads and writes these pages of the last mapping again and again.
        "keep-hot" => {
            let (start, length) = state.last()?.bounds();
            let first = pages(word()?)?;
            let hot = pages(word()?)?;
            if first.checked_add(hot).is_none_or(|end| end > length) {
                return Err(Errno::INVAL);
            }
            keep_hot(start as usize + first, hot);
            Ok(())
        }
        // `serve PAGES BURST FILE`: a thread that passes over these pages of the last mapping and over the file again and
        // again, with a burst of memory every few seconds; `passes` tells how often it got through.
        "serve" => {
            let (start, length) = state.last()?.bounds();
            let hot = pages(word()?)?;
            let burst = pages(word()?)?;
            if hot > length {
                return Err(Errno::INVAL);
            }
            let file = rustix::fs::open(
                word()?,
                rustix::fs::OFlags::RDONLY,
                rustix::fs::Mode::empty(),
            )?;
            serve(start as usize, hot, burst, file);
            Ok(())
        }
        "passes" => write!(out, "{}", PASSES.load(Ordering::Relaxed)).map_err(|_| Errno::NOBUFS),
        "lock-last" => {
            let (start, length) = state.last()?.bounds();
            // SAFETY: the mapping is ours; its content stays as it is.
            unsafe { rustix::mm::mlock(start, length) }
        }
        // A child that shares all memory with us until it is killed: its pid.
        "fork-share" => {
            // SAFETY: the process may have threads, and the child makes two system calls only.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                // SAFETY: plain system calls; the child ends by a signal, at the latest with us.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    loop {
                        libc::pause();
                    }
                }
            }
            if pid < 0 {
                return Err(Errno::AGAIN);
            }
            write!(out, "{pid}").map_err(|_| Errno::NOBUFS)
        }
        // The pid of a child that has ended and was waited for: nobody has it now.
        "gone" => in_child(out, || true),
        // `work N`: some work, told when it is done.
        "work" => {
            let rounds = number(word()?)?;
            let sum = (0..rounds).fold(0_usize, |sum, at| std::hint::black_box(sum ^ at));
            write!(out, "{sum}").map_err(|_| Errno::NOBUFS)
        }
        _ => Err(Errno::NOSYS),
    }
}

static PASSES: AtomicU64 = AtomicU64::new(0);
/// Between two bursts, and how long one stays.
const BURSTS: Duration = Duration::from_secs(8);
const STAYS: Duration = Duration::from_secs(2);

fn serve(start: usize, length: usize, burst: usize, file: OwnedFd) {
    std::thread::spawn(move || {
        let mut buffer = [0_u8; 64 << 10];
        let mut since = Instant::now();
        let mut held: Option<Mapping> = None;
        loop {
            for at in (0..length).step_by(PAGE) {
                let page = std::ptr::with_exposed_provenance_mut::<u8>(start + at);
                // SAFETY: inside a mapping that is never unmapped after this step; nobody else relies on its content.
                unsafe { page.write_volatile(1) };
            }
            let mut offset = 0;
            while let Ok(read @ 1..) = rustix::io::pread(&file, &mut buffer, offset) {
                offset += read as u64;
            }
            PASSES.fetch_add(1, Ordering::Relaxed);
            if since.elapsed() >= BURSTS && held.is_none() {
                held = Mapping::new(burst).ok();
                if let Some(mapping) = &held {
                    mapping.touch();
                }
                since = Instant::now();
            } else if since.elapsed() >= STAYS
                && let Some(mapping) = held.take()
            {
                let _ = mapping.unmap();
                since = Instant::now();
            }
        }
    });
}

fn keep_hot(start: usize, length: usize) {
    std::thread::spawn(move || {
        loop {
            for at in (0..length).step_by(PAGE) {
                let page = std::ptr::with_exposed_provenance_mut::<u8>(start + at);
                // SAFETY: inside a mapping that is never unmapped after this step; nobody else relies on its content.
                unsafe {
                    if at % (2 * PAGE) == 0 {
                        page.write_volatile(2);
                    } else {
                        page.read_volatile();
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}
