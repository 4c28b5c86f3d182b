//! A process's mappings and which of their pages are resident, from /proc/PID/smaps and /proc/PID/pagemap.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::act::session::refused;
use crate::cli::Failure;
use crate::host::{Host, figure};

#[cfg(test)]
mod tests;

/// Addresses, from the first to behind the last.
pub(crate) type Range = std::ops::Range<u64>;
/// What the caller has to do while something is waited for.
pub(crate) type Tick<'a> = &'a mut dyn FnMut() -> Result<(), Failure>;

/// How often a wait looks up.
const TICK: Duration = Duration::from_millis(50);
/// Pagemap entries of one read.
const ENTRIES: usize = 8192;
/// Threads whose stacks are looked for.
const MAX_STACKS: usize = 4096;
/// More than the used part of nearly every stack.
const STACK: u64 = 1 << 20;

/// A private anonymous mapping whose pages may be taken. Figures in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub range: Range,
    pub anon: u64,
    /// Touched since the marks were last cleared.
    pub referenced: u64,
}

/// Runs a job that reads files of another process, which waits for as long as something else holds that process's
/// memory map. `tick` has its turn meanwhile.
///
/// # Errors
/// What `tick` says, or it took too long (exit 1).
pub(crate) fn patiently<T: Send + 'static>(
    what: &str,
    timeout: Duration,
    tick: Tick<'_>,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let (sender, receiver) = channel();
    // A thread that waits for a memory map can be killed, so that it never holds up our own end.
    std::thread::spawn(move || sender.send(job()));
    let end = Instant::now() + timeout;
    loop {
        match receiver.recv_timeout(TICK) {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Timeout) if Instant::now() < end => tick()?,
            Err(RecvTimeoutError::Timeout) => {
                return Err(Failure::failed(format!(
                    "{what}: gave no answer within {}s: something holds the process's memory map",
                    timeout.as_secs()
                )));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(refused(format!("{what}: reading it broke off")));
            }
        }
    }
}

/// The mappings of a process that may be taken from: private, anonymous, neither locked nor a stack nor huge pages of
/// their own kind.
///
/// # Errors
/// `ESRCH` for a process that is gone.
pub(crate) fn read(host: &Host, pid: u32) -> io::Result<Vec<Mapping>> {
    let mut text = Vec::new();
    File::open(host.path(format!("/proc/{pid}/smaps")))?.read_to_end(&mut text)?;
    Ok(parse(&text))
}

fn parse(text: &[u8]) -> Vec<Mapping> {
    let mut mappings = Vec::new();
    let mut open: Option<(Mapping, bool)> = None;
    for line in text.split(|byte| *byte == b'\n') {
        if let Some((mapping, fits)) = head(line) {
            mappings.extend(open.take().and_then(taken));
            open = Some((mapping, fits));
            continue;
        }
        let (Some((mapping, fits)), Some(colon)) =
            (&mut open, line.iter().position(|byte| *byte == b':'))
        else {
            continue;
        };
        let value = line[colon + 1..].trim_ascii();
        let bytes = || {
            value
                .strip_suffix(b" kB")
                .and_then(figure)
                .and_then(|kib| kib.checked_mul(1024))
                .unwrap_or(0)
        };
        match &line[..colon] {
            b"Anonymous" => mapping.anon = bytes(),
            b"Referenced" => mapping.referenced = bytes(),
            // Documentation/filesystems/proc.rst: locked, hugetlb, raw pages, I/O, stack-like.
            b"VmFlags" => {
                *fits &= !value
                    .split(|byte| *byte == b' ')
                    .any(|flag| matches!(flag, b"lo" | b"ht" | b"pf" | b"io" | b"gd" | b"sh"));
            }
            _ => {}
        }
    }
    mappings.extend(open.and_then(taken));
    mappings
}

fn taken((mapping, fits): (Mapping, bool)) -> Option<Mapping> {
    (fits && mapping.anon > 0).then_some(mapping)
}

/// `START-END PERMS OFFSET DEVICE INODE NAME`.
fn head(line: &[u8]) -> Option<(Mapping, bool)> {
    let line = std::str::from_utf8(line).ok();
    let mut words = line?.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
    let perms = words.next()?;
    let (_offset, _device, inode) = (words.next()?, words.next()?, words.next()?);
    let name = words.next().unwrap_or("").trim();
    let plain = name.is_empty() || name == "[heap]" || name.starts_with("[anon:");
    let fits = perms.ends_with('p') && inode == "0" && plain && range.start < range.end;
    Some((
        Mapping {
            range,
            anon: 0,
            referenced: 0,
        },
        fits,
    ))
}

/// What the stacks of a process's threads use, as far as it can be told: only the first thread's stack is marked in maps.
/// /proc/PID/task/TID/syscall ends in the stack pointer of a thread that waits; one that runs is left out.
pub(crate) fn stacks(host: &Host, pid: u32) -> Vec<Range> {
    let Ok(tasks) = std::fs::read_dir(host.path(format!("/proc/{pid}/task"))) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .take(MAX_STACKS)
        .filter_map(|task| {
            let text = std::fs::read_to_string(task.path().join("syscall")).ok()?;
            let pointer = text.split_whitespace().rev().nth(1)?.strip_prefix("0x")?;
            let pointer = u64::from_str_radix(pointer, 16).ok()?;
            // Stacks grow down; below the pointer is at most what a signal handler would use.
            Some(pointer.saturating_sub(64 << 10)..pointer.saturating_add(STACK))
        })
        .collect()
}

/// `ranges` without what lies in one of `spared`.
pub(crate) fn without(mut ranges: Vec<Range>, spared: &[Range], page: u64) -> Vec<Range> {
    for spared in spared {
        let (from, to) = (
            spared.start / page * page,
            spared.end.div_ceil(page).saturating_mul(page),
        );
        if !ranges
            .iter()
            .any(|range| range.start < to && from < range.end)
        {
            continue;
        }
        ranges = ranges
            .into_iter()
            .flat_map(|range| {
                [
                    range.start..range.end.min(from),
                    range.start.max(to)..range.end,
                ]
            })
            .filter(|range| range.start < range.end)
            .collect();
    }
    ranges
}

/// The resident anonymous pages of `window` that no other process maps, as ranges.
///
/// # Errors
/// `ESRCH` for a process that is gone; a short read where it has no such addresses (any more) ends the list.
pub(crate) fn resident(pagemap: &File, window: &Range, page: u64) -> io::Result<Vec<Range>> {
    let mut ranges: Vec<Range> = Vec::new();
    let mut buffer = vec![0_u8; ENTRIES * 8];
    let mut at = window.start;
    while at < window.end {
        let wanted = (((window.end - at) / page) as usize).min(ENTRIES) * 8;
        let read = pagemap.read_at(&mut buffer[..wanted], at / page * 8)?;
        if read < 8 {
            break;
        }
        for entry in buffer[..read].chunks_exact(8) {
            let entry = entry.try_into().map_or(0, u64::from_le_bytes);
            if takeable(entry) {
                match ranges.last_mut() {
                    Some(last) if last.end == at => last.end += page,
                    _ => ranges.push(at..at + page),
                }
            }
            at += page;
        }
    }
    Ok(ranges)
}

/// Reads a byte of each page of `range` from /proc/PID/mem and throws it away; returns the bytes of the pages that were
/// there.
pub(crate) fn mark(memory: &File, range: &Range, page: u64) -> u64 {
    let mut byte = [0];
    let there = range
        .clone()
        .step_by(page as usize)
        .filter(|at| matches!(memory.read_at(&mut byte, *at), Ok(1)))
        .count();
    there as u64 * page
}

/// Documentation/admin-guide/mm/pagemap.rst: present, not swapped, no file or shared memory, mapped here alone. The
/// kernel skips pages that somebody else maps too, and the zero page is never mapped alone.
fn takeable(entry: u64) -> bool {
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const FILE: u64 = 1 << 61;
    const ALONE: u64 = 1 << 56;
    entry & (PRESENT | SWAPPED | FILE | ALONE) == PRESENT | ALONE
}
