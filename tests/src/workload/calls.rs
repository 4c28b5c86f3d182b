//! Steps for attribution: faults of every kind, calls that must fail, children and threads with work of their own.

use std::ffi::c_void;
use std::fmt::Write as _;
use std::ptr::null_mut;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, Result};

use super::Line;
use super::memory::{Mapping, Mappings, PAGE};
use super::steps::{in_child, number, pages};

/// A fault on a file mapping brings in the pages around it that are cached: `fault_around_bytes` of mm/memory.c.
const FAULT_AROUND: usize = 64 << 10;

/// Does one step of this file; [`Errno::NOSYS`] if it is none.
pub(super) fn perform(state: &mut Mappings, step: &str, out: &mut Line) -> Result<()> {
    let mut words = step.split_whitespace();
    let name = words.next().unwrap_or("");
    let mut word = || words.next().ok_or(Errno::INVAL);
    match name {
        // Faults in kernel mode: the kernel fills untouched pages from /dev/zero.
        "kernel-touch" => {
            let mapping = Mapping::new(pages(word()?)?)?;
            kernel_touch(&mapping)?;
            state.push(mapping)
        }
        // So many faults on the fetch of an instruction.
        "run-pages" => run_pages(number(word()?)?),
        // A call that has to fail; tells how it did.
        "fail" => fail(state, word()?, out),
        // The soft limit of the address space, in bytes, or `max`.
        "limit-as" => limit_address_space(word()?),
        "willneed" => state.last()?.advise(rustix::mm::Advice::WillNeed),
        // `threads COUNT PAGES`: each maps and touches so many pages, at the same time.
        "threads" => {
            let count = number(word()?)?;
            let length = pages(word()?)?;
            threads(count, length)
        }
        // The child writes to every page of the last mapping, which it shares with us until then.
        "fork-write" => {
            let mapping = *state.last()?;
            in_child(out, || {
                mapping.touch();
                true
            })
        }
        // `fork-into PROCS PAGES`: the child enters another cgroup and touches so many pages there.
        "fork-into" => {
            let procs = word()?;
            let length = pages(word()?)?;
            in_child(out, || {
                enter(procs)
                    .and_then(|()| Mapping::new(length))
                    .is_ok_and(|mapping| {
                        mapping.touch();
                        true
                    })
            })
        }
        // `hop PROCS PROCS ROUNDS PAGES PAGES`: enters the one cgroup and touches so many pages, then the other, again and
        // again, with nothing in between that could fault.
        "hop" => {
            let procs = [word()?, word()?];
            let rounds = number(word()?)?;
            hop(procs, rounds, [number(word()?)?, number(word()?)?])
        }
        // `pin CPU`: this process runs on no other.
        "pin" => pin(number(word()?)?),
        // `lend PAGES`: a child touches so many pages in our memory, on a stack that is the last mapping, all of it touched:
        // we do not fault ourselves before its end.
        "lend" => lend(*state.last()?, pages(word()?)?),
        // `put FILE TEXT`: one write, as to a cgroup file.
        "put" => {
            let file = open(word()?, OFlags::WRONLY, Mode::empty())?;
            rustix::io::write(file, word()?.as_bytes()).map(drop)
        }
        _ => Err(Errno::NOSYS),
    }
}

fn enter(procs: &str) -> Result<()> {
    let procs = open(procs, OFlags::WRONLY, Mode::empty())?;
    rustix::io::write(procs, b"0").map(drop)
}

fn hop(procs: [&str; 2], rounds: usize, pages: [usize; 2]) -> Result<()> {
    let procs = [
        open(procs[0], OFlags::WRONLY, Mode::empty())?,
        open(procs[1], OFlags::WRONLY, Mode::empty())?,
    ];
    let mapping = Mapping::new(rounds * (pages[0] + pages[1]) * PAGE)?;
    let mut next = mapping.bounds().0.cast::<u8>();
    for _ in 0..rounds {
        for (procs, pages) in procs.iter().zip(pages) {
            rustix::io::write(procs, b"0")?;
            for _ in 0..pages {
                // SAFETY: a page inside the mapping, which is writable and which only we know of.
                unsafe { next.write_volatile(1) };
                next = next.wrapping_add(PAGE);
            }
        }
    }
    mapping.unmap()
}

fn pin(cpu: usize) -> Result<()> {
    let mut cpus = rustix::thread::CpuSet::new();
    cpus.set(cpu);
    rustix::thread::sched_setaffinity(None, &cpus)
}

fn lend(stack: Mapping, length: usize) -> Result<()> {
    extern "C" fn touch(mapping: *mut c_void) -> libc::c_int {
        // SAFETY: the lender's mapping, which waits for our end.
        unsafe { mapping.cast::<Mapping>().as_ref() }.map_or(1, |mapping| {
            mapping.touch();
            0
        })
    }
    let (start, size) = stack.bounds();
    let mut mapping = Mapping::new(length)?;
    // SAFETY: a stack of the child's own; we go on when it has ended.
    let pid = unsafe {
        libc::clone(
            touch,
            start.wrapping_byte_add(size),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            (&raw mut mapping).cast(),
        )
    };
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result of our own child.
    if pid < 0 || unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid || status != 0 {
        return Err(Errno::AGAIN);
    }
    mapping.unmap()
}

fn kernel_touch(mapping: &Mapping) -> Result<()> {
    let zero = open("/dev/zero", OFlags::RDONLY, Mode::empty())?;
    let (start, length) = mapping.bounds();
    let mut filled = 0;
    while filled < length {
        // SAFETY: the range lies inside the mapping, which is writable and which only we know of.
        let rest = unsafe {
            std::slice::from_raw_parts_mut(start.cast::<u8>().wrapping_add(filled), length - filled)
        };
        match rustix::io::read(&zero, rest)? {
            0 => return Err(Errno::IO),
            more => filled += more,
        }
    }
    Ok(())
}

/// Calls one `ret` in each of `count` blocks of a memory file, far enough apart for a fault each.
fn run_pages(count: usize) -> Result<()> {
    const RET: [u8; 1] = [0xc3];
    let length = count * FAULT_AROUND;
    let file = rustix::fs::memfd_create(c"code", rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&file, length as u64)?;
    for block in 0..count {
        rustix::io::pwrite(&file, &RET, (block * FAULT_AROUND) as u64)?;
    }
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
    let start = unsafe {
        mmap(
            null_mut(),
            length,
            ProtFlags::READ | ProtFlags::EXEC,
            MapFlags::PRIVATE,
            &file,
            0,
        )
    }?;
    for block in 0..count {
        let code = start.cast::<u8>().wrapping_add(block * FAULT_AROUND);
        // SAFETY: the file has a `ret` at this place, which is a function that does nothing.
        let run = unsafe { std::mem::transmute::<*mut u8, extern "C" fn()>(code) };
        run();
    }
    // SAFETY: nobody else knows of this mapping.
    unsafe { munmap(start, length) }
}

/// Makes a call with arguments that the kernel refuses.
fn fail(state: &mut Mappings, what: &str, out: &mut Line) -> Result<()> {
    let (start, length) = state.last()?.bounds();
    let huge = 1usize << 60;
    let unaligned = start.wrapping_byte_add(1);
    // Above what user space can map.
    let nowhere = (1usize << 47) as *mut c_void;
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: every call here is refused before it changes anything; the caller checks that it was.
    let refused = unsafe {
        match what {
            "mmap-nothing" => libc::mmap(null_mut(), 0, rw, anonymous, -1, 0) == libc::MAP_FAILED,
            "mmap-huge" => libc::mmap(null_mut(), huge, rw, anonymous, -1, 0) == libc::MAP_FAILED,
            "mmap-no-file" => {
                libc::mmap(null_mut(), PAGE, rw, libc::MAP_PRIVATE, -1, 0) == libc::MAP_FAILED
            }
            "munmap-unaligned" => libc::munmap(unaligned, length) == -1,
            "munmap-nothing" => libc::munmap(start, 0) == -1,
            "mremap-nowhere" => {
                libc::mremap(nowhere, PAGE, 2 * PAGE, libc::MREMAP_MAYMOVE) == libc::MAP_FAILED
            }
            "mremap-unaligned" => {
                libc::mremap(unaligned, PAGE, 2 * PAGE, libc::MREMAP_MAYMOVE) == libc::MAP_FAILED
            }
            "madvise-unaligned" => libc::madvise(unaligned, PAGE, libc::MADV_DONTNEED) == -1,
            "madvise-nowhere" => libc::madvise(nowhere, PAGE, libc::MADV_DONTNEED) == -1,
            // Tells of failure by the break as it was.
            "brk-low" => libc::syscall(libc::SYS_brk, PAGE) != PAGE as i64,
            _ => return Err(Errno::NOSYS),
        }
    };
    if !refused {
        return Err(Errno::PROTO);
    }
    write!(
        out,
        "{}",
        std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
    )
    .map_err(|_| Errno::NOBUFS)
}

fn limit_address_space(limit: &str) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let current = match limit {
        "max" => None,
        bytes => Some(number(bytes)? as u64),
    };
    let maximum = getrlimit(Resource::As).maximum;
    setrlimit(Resource::As, Rlimit { current, maximum })
}

fn threads(count: usize, length: usize) -> Result<()> {
    let job = move || {
        let mapping = Mapping::new(length)?;
        mapping.touch();
        mapping.unmap()
    };
    let started: Vec<_> = (0..count).map(|_| std::thread::spawn(job)).collect();
    started
        .into_iter()
        .try_for_each(|thread| thread.join().unwrap_or(Err(Errno::FAULT)))
}
