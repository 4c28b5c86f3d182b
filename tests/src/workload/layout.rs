//! Steps about what is in pages and where they lie: equal ones, unlike ones, and holes between them.

use rustix::io::{Errno, Result};
use rustix::mm::Advice;

use super::Line;
use super::memory::{Mapping, Mappings, PAGE};
use super::steps::pages;

/// `prctl` that offers all memory of a process to KSM (6.4).
const PR_SET_MEMORY_MERGE: libc::c_int = 67;

/// Does one step of this file or the next.
pub(super) fn perform(state: &mut Mappings, step: &str, out: &mut Line) -> Result<()> {
    let mut words = step.split_whitespace();
    let name = words.next().unwrap_or("");
    let mut word = || words.next().ok_or(Errno::INVAL);
    match name {
        // `equal PAGES`: no two of them alike, but each like the page of that number in every other process.
        "equal" => filled(state, pages(word()?)?, 0),
        // `unlike PAGES`: no two of them alike, here or in any other process.
        "unlike" => filled(state, pages(word()?)?, u64::from(std::process::id())),
        // Offers the last mapping to KSM.
        "offer" => state.last()?.advise(Advice::LinuxMergeable),
        // Offers all that this process has and will have.
        "offer-all" => {
            // SAFETY: the call sets a flag of this process and takes no pointers.
            match unsafe { libc::prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) } {
                0 => Ok(()),
                _ => Err(Errno::INVAL),
            }
        }
        // Gives two of three pages of the last mapping back.
        "punch" => punch(state.last()?),
        _ => super::hot::perform(state, step, out),
    }
}

fn filled(state: &mut Mappings, length: usize, seed: u64) -> Result<()> {
    let mapping = Mapping::new(length)?;
    let start = mapping.bounds().0.cast::<u64>();
    for page in 0..length / PAGE {
        let at = start.wrapping_byte_add(page * PAGE);
        // SAFETY: the first 16 bytes of a page inside this mapping, which is writable and which only we know of.
        unsafe {
            at.write_volatile(page as u64 + 1);
            at.add(1).write_volatile(seed);
        }
    }
    state.push(mapping)
}

fn punch(mapping: &Mapping) -> Result<()> {
    let (start, length) = mapping.bounds();
    // Not every other page: the kernel looks for free pages in steps of powers of two and would only meet used ones
    // (isolate_freepages, mm/compaction.c).
    for number in (0..length / PAGE).filter(|number| number % 3 != 0) {
        let page = start.wrapping_byte_add(number * PAGE);
        // SAFETY: one page inside the mapping; nobody relies on what is in it.
        unsafe { rustix::mm::madvise(page, PAGE, Advice::LinuxDontNeed) }?;
    }
    Ok(())
}
