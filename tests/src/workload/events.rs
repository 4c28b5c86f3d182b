//! Steps that make events, with wall-clock stamps around the moment it is about.

use std::fmt::Write as _;
use std::ptr::null_mut;

use rustix::io::{Errno, Result};
use rustix::mm::{Advice, MapFlags, ProtFlags, mmap_anonymous};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::time::{ClockId, clock_gettime};

use super::Line;
use super::memory::{Mapping, Mappings, PAGE};

/// Does one step of this module.
pub(crate) fn perform(state: &mut Mappings, step: &str, out: &mut Line) -> Result<()> {
    let mut words = step.split_whitespace();
    let name = words.next().unwrap_or("");
    if name == "rename" {
        return rename(words.next().ok_or(Errno::INVAL)?);
    }
    let mut number = || -> Result<usize> {
        let word = words.next().ok_or(Errno::INVAL)?;
        word.parse().map_err(|_| Errno::INVAL)
    };
    match name {
        // `cross BEFORE AFTER`, pages: touches BEFORE, tells the time, touches AFTER, tells the time again.
        "cross" => {
            let (before, after) = (number()? * PAGE, number()? * PAGE);
            cross(state, before, after, out)
        }
        // `populate BYTES` in one mmap call, told with the time before and after it.
        "populate" => populate(number()?, out),
        // `huge BYTES`: the same by transparent huge pages.
        "huge" => huge(state, number()?, out),
        // `churn-touch COUNT PAGES`: maps, touches and unmaps again and again.
        "churn-touch" => {
            let (count, length) = (number()?, number()? * PAGE);
            (0..count).try_for_each(|_| {
                let mapping = Mapping::new(length)?;
                mapping.touch();
                mapping.unmap()
            })
        }
        // `fork-hold COUNT PAGES`: children that touch so many pages one after the other and then wait for their end.
        "fork-hold" => {
            let (count, length) = (number()?, number()? * PAGE);
            stamped(out, || (0..count).try_for_each(|_| hold(length).map(drop)))
        }
        // `oom-eat ADJ`: a child of that oom_score_adj eats until killed. Told: its pid, how it ended, the time of
        // its last page but a few and the time at which its end was seen.
        "oom-eat" => oom_eat(number()?, out),
        // `oom-storm COUNT`: so many children one after the other, each killed; their pids.
        "oom-storm" => {
            let count = number()?;
            for _ in 0..count {
                let pid = eater(500, null_mut())?;
                if wait_for(pid)? & 0x7f != libc::SIGKILL {
                    return Err(Errno::CHILD);
                }
                write!(out, "{pid} ").map_err(|_| Errno::NOBUFS)?;
            }
            Ok(())
        }
        // `dying PAGES`: a child of that size that has got SIGKILL and is held at the door, its memory still there.
        "dying" => dying(number()? * PAGE, out),
        // `let-go PID`: lets it end.
        "let-go" => {
            let pid = number()? as libc::pid_t;
            ptrace(i64::from(libc::PTRACE_CONT), pid, 0)?;
            wait_for(pid).map(drop)
        }
        _ => super::layout::perform(state, step, out),
    }
}

fn wall_us() -> i64 {
    let time = clock_gettime(ClockId::Realtime);
    time.tv_sec * 1_000_000 + time.tv_nsec / 1000
}

/// Tells the times before and after `job`.
fn stamped(out: &mut Line, job: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = wall_us();
    job()?;
    let after = wall_us();
    write!(out, "{before} {after}").map_err(|_| Errno::NOBUFS)
}

fn cross(state: &mut Mappings, before: usize, after: usize, out: &mut Line) -> Result<()> {
    if before > 0 {
        let mapping = Mapping::new(before)?;
        mapping.touch();
        state.push(mapping)?;
    }
    stamped(out, || {
        let mapping = Mapping::new(after)?;
        mapping.touch();
        state.push(mapping)
    })
}

fn populate(length: usize, out: &mut Line) -> Result<()> {
    stamped(out, || {
        let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing; it lasts to our end.
        unsafe {
            mmap_anonymous(
                null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
            )
        }
        .map(drop)
    })
}

fn huge(state: &mut Mappings, length: usize, out: &mut Line) -> Result<()> {
    // SAFETY: the call sets a flag of this process and takes no pointers.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 0, 0, 0, 0) };
    stamped(out, || {
        let mapping = Mapping::new(length)?;
        mapping.advise(Advice::LinuxHugepage)?;
        mapping.touch();
        state.push(mapping)
    })
}

fn rename(comm: &str) -> Result<()> {
    let mut name = [0u8; 16];
    let length = comm.len().min(15);
    name[..length].copy_from_slice(&comm.as_bytes()[..length]);
    // SAFETY: `name` is a NUL-terminated string of at most 16 bytes, as the call wants it.
    match unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) } {
        0 => Ok(()),
        _ => Err(Errno::INVAL),
    }
}

/// Forks; in the child `job` runs and the child ends. It does not outlive the test.
fn fork(job: impl FnOnce() -> Result<()>) -> Result<libc::pid_t> {
    // SAFETY: the process has one thread, so the child may do whatever we may; it leaves through _exit.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(Errno::AGAIN);
    }
    if pid == 0 {
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        let code = i32::from(job().is_err());
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(code) };
    }
    Ok(pid)
}

/// The wait status of a child's next change.
fn wait_for(pid: libc::pid_t) -> Result<i32> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result of our own child.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid {}
    Ok(status)
}

fn sleep_for_ever() -> Result<()> {
    loop {
        // SAFETY: waits for a signal and takes no arguments.
        unsafe { libc::pause() };
    }
}

/// A child that touches `length` bytes, says so, and stays.
fn hold(length: usize) -> Result<libc::pid_t> {
    let shared = SharedPage::new()?;
    let pid = fork(|| {
        Mapping::new(length)?.touch();
        shared.set(1);
        sleep_for_ever()
    })?;
    while shared.get() == 0 {
        std::thread::yield_now();
    }
    Ok(pid)
}

fn set_oom_score(score: usize) -> Result<()> {
    let mut text = Line::new();
    write!(text, "{score}").map_err(|_| Errno::NOBUFS)?;
    let file = rustix::fs::open(
        "/proc/self/oom_score_adj",
        rustix::fs::OFlags::WRONLY,
        rustix::fs::Mode::empty(),
    )?;
    rustix::io::write(file, text.text().as_bytes()).map(drop)
}

/// A child that eats until it is killed and keeps the time of its last pages in `stamp`. All is mapped beforehand: at
/// its limit a cgroup may refuse a system call instead of killing.
fn eater(score: usize, stamp: *mut i64) -> Result<libc::pid_t> {
    const MOST: usize = 64 << 20;
    fork(|| {
        while let Err(error) = set_oom_score(score) {
            if error != Errno::NOMEM {
                return Err(error);
            }
        }
        let mapping = Mapping::new(MOST)?;
        let (start, length) = mapping.bounds();
        for page in 0..length / PAGE {
            if !stamp.is_null() && page % 16 == 0 {
                // SAFETY: the caller's shared page, which outlives the child.
                unsafe { stamp.write_volatile(wall_us()) };
            }
            // SAFETY: inside the mapping, which is writable and ours alone.
            unsafe { start.cast::<u8>().add(page * PAGE).write_volatile(1) };
        }
        Ok(())
    })
}

fn oom_eat(score: usize, out: &mut Line) -> Result<()> {
    let shared = SharedPage::new()?;
    let pid = eater(score, shared.0)?;
    let status = wait_for(pid)?;
    let seen = wall_us();
    write!(out, "{pid} {} {} {seen}", status & 0x7f, shared.get()).map_err(|_| Errno::NOBUFS)
}

/// The raw call: the C libraries do not agree on the type of a request.
fn ptrace(request: i64, pid: libc::pid_t, data: i64) -> Result<()> {
    let nowhere = null_mut::<libc::c_void>();
    // SAFETY: requests that only set options or resume a child of ours; no memory is passed.
    match unsafe { libc::syscall(libc::SYS_ptrace, request, i64::from(pid), nowhere, data) } {
        0 => Ok(()),
        _ => Err(Errno::PERM),
    }
}

fn dying(length: usize, out: &mut Line) -> Result<()> {
    let pid = fork(|| {
        set_oom_score(900)?;
        ptrace(i64::from(libc::PTRACE_TRACEME), 0, 0)?;
        Mapping::new(length)?.touch();
        // SAFETY: stops ourselves until the parent has set the options.
        unsafe { libc::raise(libc::SIGSTOP) };
        sleep_for_ever()
    })?;
    wait_for(pid)?;
    let options = libc::PTRACE_O_TRACEEXIT | libc::PTRACE_O_EXITKILL;
    ptrace(i64::from(libc::PTRACE_SETOPTIONS), pid, i64::from(options))?;
    // SAFETY: a signal to our own child.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    let status = wait_for(pid)?;
    if status >> 8 != libc::SIGTRAP | (libc::PTRACE_EVENT_EXIT << 8) {
        return Err(Errno::CHILD);
    }
    write!(out, "{pid}").map_err(|_| Errno::NOBUFS)
}

/// One word that a child and we share.
struct SharedPage(*mut i64);

impl SharedPage {
    fn new() -> Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let page = unsafe {
            mmap_anonymous(
                null_mut(),
                PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )
        }?;
        Ok(Self(page.cast()))
    }

    fn get(&self) -> i64 {
        // SAFETY: the page is mapped as long as we live, and a word is read whole.
        unsafe { self.0.read_volatile() }
    }

    fn set(&self, value: i64) {
        // SAFETY: as above.
        unsafe { self.0.write_volatile(value) };
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: we made the mapping, and nobody reads it after us.
        let _ = unsafe { rustix::mm::munmap(self.0.cast(), PAGE) };
    }
}
