//! Steps for memory that is in use and memory that is not.

use std::fmt::Write as _;
use std::time::Duration;

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
