//! Which memory of a process was not touched for a while.
//!
//! `MADV_COLD` clears the accessed bits of its anonymous pages, and after a while smaps tells how much of each mapping
//! was touched since. (/proc/PID/clear_refs does not flush the TLB on x86: pages in steady use stay in it and would
//! count as not touched.) No file of these kernels tells which pages of a mapping were touched; where it is a part, that
//! is found out piece by piece: a byte of each page of one piece is read through /proc/PID/mem and thrown away, which
//! marks the page as referenced (`FOLL_TOUCH` of mm/gup.c). What smaps counts more afterwards was not touched before.

use std::fs::File;
use std::time::{Duration, Instant};

use crate::act::{Scene, Session};
use crate::cli::Failure;

use super::maps::{self, Mapping, Range};
use super::take::{self, WINDOW, ended, reading_failed};
use super::target::Process;
use super::worker::Advice;

/// Untouched bytes of a mapping below which it is not looked at in pieces: each look walks all of the process's pages.
const WORTH: u64 = 4 << 20;
/// Pieces are aligned to this and at least as large, so that no page of any size lies in two: such a one would be
/// skipped.
const PIECE: u64 = 2 << 20;
/// Pieces of one mapping.
const PIECES: u64 = 64;
/// Time for the pieces of one process.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    /// Not touched.
    pub cold: Vec<Range>,
    /// Anonymous bytes touched since.
    pub touched: u64,
    /// Untouched bytes that lie among touched ones.
    pub mixed: u64,
}

/// Has all that could be taken count as not touched.
///
/// # Errors
/// The process is gone, or something held it up (exit 1), or what guard and watchdog say.
pub(super) fn forget(
    session: &mut Session,
    scene: &Scene,
    process: &Process,
) -> Result<(), Failure> {
    let mut worker = take::start(process)?;
    for mapping in read(session, scene, process)? {
        let mut at = mapping.range.start;
        while at < mapping.range.end {
            let window = at..(at / WINDOW + 1)
                .saturating_mul(WINDOW)
                .min(mapping.range.end);
            at = window.end;
            take::advise(
                session,
                scene,
                process,
                &mut worker,
                Advice::Cold,
                &[window],
            )?;
        }
    }
    Ok(())
}

/// What was not touched since.
///
/// # Errors
/// The process is gone, or something held it up (exit 1), or what guard and watchdog say.
pub(super) fn select(
    session: &mut Session,
    scene: &Scene,
    process: &Process,
    wanted: u64,
) -> Result<Selection, Failure> {
    let mut selection = Selection::default();
    let mut found = 0_u64;
    let mut patience = Some(Instant::now() + PATIENCE);
    for mapping in read(session, scene, process)? {
        if mapping.referenced == 0 {
            found += mapping.anon;
            selection.cold.push(mapping.range);
            continue;
        }
        // Referenced counts shared pages too.
        let touched = mapping.referenced.min(mapping.anon);
        let idle = mapping.anon - touched;
        selection.touched += touched;
        let mut cold = 0;
        if idle >= WORTH && found < wanted && patience.is_some_and(|end| Instant::now() < end) {
            let pieces = pieces(session, scene, process, &mapping)?;
            match in_pieces(session, scene, process, &mapping, &pieces, patience)? {
                Some(pieces) => {
                    cold = pieces.iter().map(|piece| piece.resident).sum();
                    selection
                        .cold
                        .extend(pieces.into_iter().map(|piece| piece.range));
                }
                None => patience = None,
            }
        }
        found += cold;
        selection.mixed += idle.saturating_sub(cold);
    }
    Ok(selection)
}

fn read(session: &mut Session, scene: &Scene, process: &Process) -> Result<Vec<Mapping>, Failure> {
    take::mappings(scene, process, &mut || session.poll())
}

/// A part of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    range: Range,
    /// Bytes of it that may be taken.
    resident: u64,
}

/// A mapping's resident memory in at most [`PIECES`] pieces of about the same size.
fn pieces(
    session: &mut Session,
    scene: &Scene,
    process: &Process,
    mapping: &Mapping,
) -> Result<Vec<Piece>, Failure> {
    let least = (mapping.anon / PIECES).max(PIECE);
    let mut pieces: Vec<Piece> = Vec::new();
    let mut at = mapping.range.start;
    while at < mapping.range.end {
        let window = at..(at / WINDOW + 1)
            .saturating_mul(WINDOW)
            .min(mapping.range.end);
        at = window.end;
        let ranges = take::resident(scene, process, window, &mut || session.poll())?;
        gather(&mut pieces, &ranges, &mapping.range, least);
    }
    Ok(pieces)
}

/// Adds resident ranges to the last piece until it has enough, block by block.
fn gather(pieces: &mut Vec<Piece>, ranges: &[Range], mapping: &Range, least: u64) {
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let block = at / PIECE * PIECE;
            let end = range.end.min(block + PIECE);
            let bytes = end - at;
            let inside = block.max(mapping.start)..(block + PIECE).min(mapping.end);
            match pieces.last_mut() {
                Some(last) if last.range.end >= inside.end || last.resident < least => {
                    last.range.end = last.range.end.max(inside.end);
                    last.resident += bytes;
                }
                _ => pieces.push(Piece {
                    range: inside,
                    resident: bytes,
                }),
            }
            at = end;
        }
    }
}

/// The pieces that nobody touched; `None` where the time is over or the mapping changed under us.
fn in_pieces(
    session: &mut Session,
    scene: &Scene,
    process: &Process,
    mapping: &Mapping,
    pieces: &[Piece],
    patience: Option<Instant>,
) -> Result<Option<Vec<Piece>>, Failure> {
    let mut cold = Vec::new();
    let referenced = |session: &mut Session| -> Result<Option<u64>, Failure> {
        Ok(read(session, scene, process)?
            .into_iter()
            .find(|now| now.range == mapping.range)
            .map(|now| now.referenced))
    };
    let Some(mut before) = referenced(session)? else {
        return Ok(None);
    };
    for piece in pieces {
        if patience.is_none_or(|end| Instant::now() >= end) {
            return Ok(None);
        }
        let marked = mark(session, scene, process, &piece.range)?;
        let Some(after) = referenced(session)? else {
            return Ok(None);
        };
        if untouched(before, after, marked) {
            cold.push(piece.clone());
        }
        before = after;
    }
    Ok(Some(cold))
}

/// Whether a piece of so many marked bytes had not been touched: then all of them are counted more. What others touch
/// meanwhile is counted too and could hide as much, so that neither may differ by more than a little.
fn untouched(before: u64, after: u64, marked: u64) -> bool {
    let slack = marked / 64;
    after
        .checked_sub(before)
        .is_some_and(|more| more > 0 && more.abs_diff(marked) <= slack)
}

/// Marks what is resident of a range as referenced; returns how many bytes that were.
fn mark(
    session: &mut Session,
    scene: &Scene,
    process: &Process,
    range: &Range,
) -> Result<u64, Failure> {
    let pagemap = pagemap(scene, process)?;
    let path = format!("/proc/{}/mem", process.pid);
    // Its memory is that of the process which had this number when the file was opened.
    let memory = File::open(scene.host.path(&path))
        .map_err(|error| reading_failed(process, &path, &error))?;
    if !process.lives() {
        return Err(ended(process));
    }
    let page = rustix::param::page_size() as u64;
    let range = range.clone();
    let timeout = scene.safety.write_timeout;
    maps::patiently(&path, timeout, &mut || session.poll(), move || {
        let mut marked = 0;
        for resident in maps::resident(&pagemap, &range, page)? {
            marked += maps::mark(&memory, &resident, page);
        }
        Ok(marked)
    })?
    .map_err(|error| reading_failed(process, &path, &error))
}

/// The file that tells which pages are resident.
pub(super) fn pagemap(scene: &Scene, process: &Process) -> Result<File, Failure> {
    let path = format!("/proc/{}/pagemap", process.pid);
    File::open(scene.host.path(&path)).map_err(|error| reading_failed(process, &path, &error))
}

#[cfg(test)]
#[allow(
    clippy::single_range_in_vec_init,
    reason = "lists of one range are what is meant"
)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;

    fn gathered(ranges: &[Range], mapping: Range, least: u64) -> Vec<Piece> {
        let mut pieces = Vec::new();
        gather(&mut pieces, ranges, &mapping, least);
        pieces
    }

    #[test]
    fn pieces_cover_what_is_resident_at_whole_blocks() {
        let mapping = 3 * M..33 * M;
        let pieces = gathered(
            &[3 * M..11 * M, 20 * M..20 * M + 4096],
            mapping.clone(),
            4 * M,
        );
        let piece = |range, resident| Piece { range, resident };
        assert_eq!(
            pieces,
            [
                piece(3 * M..8 * M, 5 * M),
                piece(8 * M..22 * M, 3 * M + 4096)
            ]
        );
        for pair in pieces.windows(2) {
            assert!(pair[0].range.end <= pair[1].range.start && pair[0].range.end % PIECE == 0);
        }
        let small = gathered(&[3 * M..3 * M + 4096], 3 * M..3 * M + 8192, PIECE);
        assert_eq!(small, [piece(3 * M..3 * M + 8192, 4096)]);
        assert!(gathered(&[], mapping, PIECE).is_empty());
    }

    #[test]
    fn a_piece_is_cold_if_marking_it_raises_the_count_by_all_of_it() {
        assert!(untouched(100 * M, 102 * M, 2 * M));
        assert!(untouched(100 * M, 102 * M - 4096, 2 * M), "one page");
        assert!(untouched(100 * M, 102 * M + 4096, 2 * M), "one elsewhere");
        assert!(!untouched(100 * M, 100 * M, 2 * M), "all of it is hot");
        assert!(!untouched(100 * M, 101 * M, 2 * M), "half of it is");
        assert!(!untouched(100 * M, 103 * M, 2 * M), "too much elsewhere");
        assert!(!untouched(100 * M, 99 * M, 2 * M));
        assert!(!untouched(100 * M, 100 * M, 0), "nothing was marked");
    }
}
