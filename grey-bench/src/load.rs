//! What is measured: loops of one thing, in a process of their own, by their processor time. `grey-bench load NAME …`
//! does a number of them and prints the nanoseconds of one.

use std::ptr::{NonNull, null_mut};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use rustix::time::{ClockId, clock_gettime};

use crate::{actions, controller, events};

const PAGE: usize = 4096;
const HUGE: usize = 2 << 20;
/// Touched at once and given back: larger than the second-level cache, small beside any machine.
const PIECE: usize = 32 << 20;
/// Measurements of one run.
const BURSTS: usize = 5;

/// A loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// A page fault by the first write to a page, 4 KiB pages.
    Fault,
    /// The same by 2 MiB pages.
    HugeFault,
    /// mmap and munmap of a page that is not touched.
    Map,
    /// The program break up by a page and down again.
    Break,
    /// A system call that has nothing to do with memory.
    Getppid,
}

impl Load {
    /// All of them.
    pub const ALL: [Load; 5] = [
        Load::Fault,
        Load::HugeFault,
        Load::Map,
        Load::Break,
        Load::Getppid,
    ];

    /// On the command line and in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Load::Fault => "fault",
            Load::HugeFault => "huge-fault",
            Load::Map => "mmap+munmap",
            Load::Break => "brk",
            Load::Getppid => "getppid",
        }
    }

    fn of(name: &str) -> Option<Load> {
        Load::ALL.into_iter().find(|load| load.name() == name)
    }

    /// Done that often in a measurement of about a third of a second.
    #[must_use]
    pub fn count(self) -> usize {
        match self {
            Load::Fault => 200_000,
            Load::HugeFault => 2_000,
            Load::Map => 100_000,
            Load::Break => 100_000,
            Load::Getppid => 2_000_000,
        }
    }
}

/// Touches so many pages and gives them back.
///
/// # Errors
/// The kernel gives no memory.
pub fn touch(pages: usize) -> Result<()> {
    let mapping = Mapping::new(pages * PAGE)?;
    let start = mapping.start.as_ptr().cast::<u8>();
    for page in 0..pages {
        // SAFETY: a page inside of the mapping, which is writable and ours alone.
        unsafe { start.wrapping_add(page * PAGE).write_volatile(1) };
    }
    Ok(())
}

/// `load NAME THREADS COUNT`: for each line of stdin one with the nanoseconds of processor time that one of it takes.
///
/// # Errors
/// Arguments, or what the kernel refuses.
pub fn main(words: &[String]) -> Result<()> {
    match words {
        [name, rest @ ..] if name == "go-round" => return controller::go_round(rest),
        [name, rest @ ..] if name == "read-all" => return controller::read_all(rest),
        [name, rest @ ..] if name == "hold" => return actions::hold(rest),
        [name, rest @ ..] if name == "grow" => return events::grow(rest),
        [name, rest @ ..] if name == "squeeze" => return events::squeeze(rest),
        [name, rest @ ..] if name == "eat" => return events::eat(rest),
        _ => {}
    }
    let [name, threads, count] = words else {
        bail!("load NAME THREADS COUNT");
    };
    let load = Load::of(name).with_context(|| format!("no load {name}"))?;
    let threads: usize = threads.parse().context("THREADS")?;
    ensure!((1..=256).contains(&threads), "1 to 256 threads");
    let count: usize = count.parse().context("COUNT")?;
    for line in std::io::stdin().lines() {
        line?;
        println!("{:.3}", mean_of(load, threads, count)?);
    }
    Ok(())
}

/// Measured by so many threads at once.
fn mean_of(load: Load, threads: usize, count: usize) -> Result<f64> {
    let each: Result<Vec<f64>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| scope.spawn(move || measure(load, count)))
            .collect();
        running
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(measured) => measured,
                Err(_) => bail!("a thread of the load panicked"),
            })
            .collect()
    });
    let each = each?;
    Ok(each.iter().sum::<f64>() / each.len() as f64)
}

/// The middle one of some bursts: somebody else's work hits one or two of them.
fn measure(load: Load, count: usize) -> Result<f64> {
    // Once to warm up: page tables, caches, the kernel's free lists.
    perform(load, count / 10)?;
    let mut bursts = [0.0; BURSTS];
    for burst in &mut bursts {
        let before = used();
        perform(load, count)?;
        *burst = (used() - before) * 1e9 / count as f64;
    }
    bursts.sort_by(f64::total_cmp);
    Ok(bursts[BURSTS / 2])
}

/// Seconds of processor time of this thread.
#[must_use]
pub fn used() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

fn perform(load: Load, count: usize) -> Result<()> {
    match load {
        Load::Fault => faults(count, PAGE, Advice::LinuxNoHugepage),
        Load::HugeFault => faults(count, HUGE, Advice::LinuxHugepage),
        Load::Map => (0..count).try_for_each(|_| {
            let page = Mapping::new(PAGE)?;
            drop(page);
            Ok(())
        }),
        Load::Break => {
            // SAFETY: 0 asks for the break; the page above it is ours as soon as it is given, and nobody uses it. No
            // allocation comes between, and malloc copes with a break that is where it left it.
            let start = unsafe { libc::syscall(libc::SYS_brk, 0) };
            for _ in 0..count {
                // SAFETY: as above.
                let up = unsafe { libc::syscall(libc::SYS_brk, start + PAGE as libc::c_long) };
                // SAFETY: as above.
                let down = unsafe { libc::syscall(libc::SYS_brk, start) };
                ensure!(up != down && down == start, "brk was refused");
            }
            Ok(())
        }
        Load::Getppid => {
            for _ in 0..count {
                // SAFETY: no arguments and no effect.
                std::hint::black_box(unsafe { libc::syscall(libc::SYS_getppid) });
            }
            Ok(())
        }
    }
}

/// Touches pages of a size, a piece at a time, which is given back as a whole.
fn faults(count: usize, size: usize, advice: Advice) -> Result<()> {
    let mapping = Mapping::new(PIECE + HUGE)?;
    let start = mapping.start.as_ptr().cast::<u8>();
    let start = start.wrapping_add(start.align_offset(HUGE));
    // SAFETY: the part of the mapping behind a huge page's border, which only we use.
    unsafe { madvise(start.cast(), PIECE, advice) }?;
    let mut left = count;
    while left > 0 {
        let now = left.min(PIECE / size);
        for page in 0..now {
            // SAFETY: a page inside of the mapping, which is writable and ours alone.
            unsafe { start.wrapping_add(page * size).write_volatile(1) };
        }
        left -= now;
        // SAFETY: as above; nothing that was written is wanted.
        unsafe { madvise(start.cast(), PIECE, Advice::LinuxDontNeed) }?;
    }
    Ok(())
}

struct Mapping {
    start: NonNull<std::ffi::c_void>,
    length: usize,
}

impl Mapping {
    fn new(length: usize) -> Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe {
            mmap_anonymous(
                null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        Ok(Mapping {
            start: NonNull::new(start).context("a mapping at 0")?,
            length,
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the whole of a mapping that only we know of.
        let _ = unsafe { munmap(self.start.as_ptr(), self.length) };
    }
}
