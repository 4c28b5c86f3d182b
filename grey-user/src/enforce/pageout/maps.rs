//! A process's mappings and which of their pages are resident, from /proc/PID/smaps and /proc/PID/pagemap.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::act::session::refused;
use crate::cli::Failure;
use crate::host::{Host, figure};

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

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
7f0000000000-7f0004000000 rw-p 00000000 00:00 0 
Size:              65536 kB
Rss:               65536 kB
Referenced:            8 kB
Anonymous:         65536 kB
Locked:                0 kB
VmFlags: rd wr mr mw me ac sd 
7f0004000000-7f0004001000 rw-p 00000000 00:00 0                          [anon: arena 7-8 x]
Referenced:            0 kB
Anonymous:             4 kB
VmFlags: rd wr mr mw me ac sd 
7f0005000000-7f0005001000 rw-p 00000000 00:00 0 
Anonymous:             4 kB
VmFlags: rd wr mr mw me lo ac sd 
7f0006000000-7f0006001000 rw-p 00000000 00:00 0 
Anonymous:             4 kB
VmFlags: rd wr mr mw me ht sd 
7f0007000000-7f0007001000 rw-s 00000000 00:01 77                         /dev/zero (deleted)
Anonymous:             4 kB
VmFlags: rd wr sh mr mw me ms sd 
7f0008000000-7f0008001000 rw-p 00000000 08:01 77                         /tmp/Anonymous: 9 kB
Anonymous:             4 kB
VmFlags: rd wr mr mw me ac sd 
7f0009000000-7f0009001000 rw-p 00000000 00:00 0 
Anonymous:             0 kB
VmFlags: rd wr mr mw me ac sd 
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
Anonymous:            16 kB
VmFlags: rd wr mr mw me gd ac 
";

    #[test]
    fn only_private_anonymous_unlocked_memory_is_taken() {
        let starts: Vec<(u64, u64, u64)> = parse(SMAPS.as_bytes())
            .iter()
            .map(|mapping| (mapping.range.start, mapping.anon, mapping.referenced))
            .collect();
        assert_eq!(
            starts,
            [
                (0x7f00_0000_0000, 64 << 20, 8 << 10),
                (0x7f00_0400_0000, 4 << 10, 0)
            ]
        );
    }

    #[test]
    fn odd_content_is_no_mapping_and_no_panic() {
        for bad in [
            "",
            "-",
            "x-y rw-p 0 0:0 0",
            "2-1 rw-p 0 0:0 0 \nAnonymous: 4 kB",
            "Anonymous: 4 kB",
        ] {
            assert_eq!(parse(bad.as_bytes()), [], "{bad:?}");
        }
        assert_eq!(parse(&[0xff, b'\n', 0xfe, b':']), []);
    }

    #[test]
    fn stacks_are_cut_out_of_what_is_taken() {
        const P: u64 = 4096;
        let cut = |ranges: &[Range], spared: &[Range]| without(ranges.to_vec(), spared, P);
        assert_eq!(cut(&[0..10 * P], &[]), [0..10 * P]);
        assert_eq!(
            cut(
                &[0..10 * P, 20 * P..30 * P],
                &[3 * P + 5..4 * P + 1, 25 * P..90 * P]
            ),
            [0..3 * P, 5 * P..10 * P, 20 * P..25 * P]
        );
        assert_eq!(cut(&[3 * P..4 * P], &[0..9 * P]), []);
        assert_eq!(
            cut(&[3 * P..4 * P], &[0..3 * P, 4 * P..u64::MAX]),
            [3 * P..4 * P]
        );
    }

    #[test]
    fn the_stack_of_a_waiting_thread_is_found() {
        let (sender, receiver) = channel::<()>();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let here = 0_u8;
            tell.send(&raw const here as u64).unwrap();
            let _ = receiver.recv();
        });
        let here = told.recv().unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while !stacks(&Host::live(), std::process::id())
            .iter()
            .any(|stack| stack.contains(&here))
        {
            assert!(Instant::now() < end, "no stack at {here:x}");
            std::thread::yield_now();
        }
        drop(sender);
        thread.join().unwrap();
    }

    #[test]
    fn pages_that_are_away_shared_or_of_files_are_left() {
        let present = 1 << 63;
        let alone = 1 << 56;
        assert!(takeable(present | alone | 0x1234));
        assert!(takeable(present | alone | 1 << 55), "soft-dirty");
        for not in [
            0,
            alone,
            present,
            1 << 62 | alone,
            present | alone | 1 << 61,
        ] {
            assert!(!takeable(not), "{not:x}");
        }
    }

    /// What tells touched pages from others: reading one through /proc/PID/mem makes smaps count it.
    #[test]
    fn marked_pages_count_as_referenced_and_only_once() {
        const PAGES: usize = 64;
        let page = rustix::param::page_size();
        let bytes = (PAGES * page) as u64;
        // SAFETY: a new mapping overlaps nothing; its first and last page keep it apart from its neighbours.
        let start = unsafe {
            use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};
            let rw = ProtFlags::READ | ProtFlags::WRITE;
            let all = mmap_anonymous(
                std::ptr::null_mut(),
                (PAGES + 2) * page,
                rw,
                MapFlags::PRIVATE,
            )
            .unwrap();
            let end = all.wrapping_byte_add((PAGES + 1) * page);
            mprotect(all, page, MprotectFlags::empty()).unwrap();
            mprotect(end, page, MprotectFlags::empty()).unwrap();
            all.wrapping_byte_add(page)
        };
        for at in 0..PAGES {
            // SAFETY: inside the mapping, which is writable and ours alone.
            unsafe { start.cast::<u8>().add(at * page).write_volatile(1) };
        }
        // SAFETY: the advice changes nothing of the content.
        assert_eq!(
            unsafe { libc::madvise(start, PAGES * page, libc::MADV_COLD) },
            0
        );
        let range = start as u64..start as u64 + bytes;
        let referenced = || {
            read(&Host::live(), std::process::id())
                .unwrap()
                .into_iter()
                .find(|mapping| mapping.range == range)
                .map(|mapping| mapping.referenced)
        };
        assert_eq!(referenced(), Some(0));
        for at in 0..PAGES / 4 {
            // SAFETY: as above.
            unsafe { start.cast::<u8>().add(at * page).read_volatile() };
        }
        assert_eq!(referenced(), Some(bytes / 4));
        let memory = File::open("/proc/self/mem").unwrap();
        assert_eq!(mark(&memory, &range, page as u64), bytes);
        assert_eq!(referenced(), Some(bytes));
        // SAFETY: the mapping is ours and ends here, with the pages around it.
        unsafe {
            let all = start.wrapping_byte_sub(page);
            rustix::mm::munmap(all, (PAGES + 2) * page).unwrap();
        }
        assert_eq!(mark(&memory, &range, page as u64), 0);
    }

    #[test]
    fn the_resident_pages_of_this_process_are_found() {
        const PAGES: usize = 40;
        let page = rustix::param::page_size();
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                PAGES * page,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::PRIVATE,
            )
        }
        .unwrap();
        // SAFETY: the range is ours; small pages make single ones resident.
        unsafe {
            rustix::mm::madvise(start, PAGES * page, rustix::mm::Advice::LinuxNoHugepage).unwrap();
        }
        for touched in [0, 1, 7, 39] {
            // SAFETY: inside the mapping, which is writable and ours alone.
            unsafe { start.cast::<u8>().add(touched * page).write_volatile(1) };
        }
        let at = |page_no: usize| start as u64 + (page_no * page) as u64;
        // SAFETY: as above; a read maps the zero page, which is not to be found.
        unsafe { start.cast::<u8>().add(20 * page).read_volatile() };
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let found = resident(&pagemap, &(at(0)..at(PAGES)), page as u64).unwrap();
        assert_eq!(found, [at(0)..at(2), at(7)..at(8), at(39)..at(40)]);
        let mapping = read(&Host::live(), std::process::id())
            .unwrap()
            .into_iter()
            .find(|mapping| mapping.range.contains(&at(0)));
        assert!(mapping.is_some_and(|mapping| mapping.anon >= 4 * page as u64));
        // SAFETY: the mapping is ours and ends here.
        unsafe { rustix::mm::munmap(start, PAGES * page).unwrap() };
    }
}
