//! The steps a workload knows. Sizes are in pages where the step says pages, else in bytes.

use std::fmt::Write as _;
use std::os::unix::process::CommandExt as _;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, Result};
use rustix::mm::Advice;

use super::Line;
use super::memory::{Mapping, Mappings, PAGE};

/// Does one step and writes what there is to tell about it into `out`.
pub(crate) fn perform(state: &mut Mappings, step: &str, out: &mut Line) -> Result<()> {
    let mut words = step.split_whitespace();
    let name = words.next().unwrap_or("");
    let mut word = || words.next().ok_or(Errno::INVAL);
    match name {
        // Mapping and touching.
        "touch" => {
            let mapping = Mapping::new(pages(word()?)?)?;
            mapping.touch();
            state.push(mapping)
        }
        "map" => state.push(Mapping::new(number(word()?)?)?),
        "touch-last" => state.last().map(|mapping| mapping.touch()),
        "read-last" => state.last().map(|mapping| mapping.read()),
        // The kernel writes them: `read-into PAGES`, and the last mapping again.
        "read-into" => {
            let mapping = Mapping::new(pages(word()?)?)?;
            mapping.fill_by_kernel()?;
            state.push(mapping)
        }
        "read-into-last" => state.last()?.fill_by_kernel(),
        "unmap" => state.pop()?.unmap(),
        "remap" => state.last()?.resize(number(word()?)?),
        "dontneed" => state.last()?.advise(Advice::LinuxDontNeed),
        "free" => state.last()?.advise(Advice::LinuxFree),
        "brk" => brk(word()?),
        // More map, unmap pairs than one could send steps for: `churn COUNT BYTES`.
        "churn" => {
            let count = number(word()?)?;
            let length = number(word()?)?;
            (0..count).try_for_each(|_| Mapping::new(length)?.unmap())
        }
        // Grows by a page a time until BYTES, or for ever: ends by OOM kill or at the limit of the machine.
        "eat" => eat(words.next().map(number).transpose()?),
        // Computes for so many milliseconds, without a fault.
        "spin" => {
            let end = std::time::Duration::from_millis(number(word()?)? as u64);
            let begun = std::time::Instant::now();
            while begun.elapsed() < end {
                std::hint::spin_loop();
            }
            Ok(())
        }
        // Children.
        "fork-touch" => {
            let length = pages(word()?)?;
            in_child(out, || {
                Mapping::new(length).is_ok_and(|mapping| {
                    mapping.touch();
                    true
                })
            })
        }
        "fork-eat" => {
            let limit = words.next().map(number).transpose()?;
            in_child(out, || eat(limit).is_ok())
        }
        "fork-storm" => {
            let count = number(word()?)?;
            (0..count).try_for_each(|_| in_child(&mut Line::new(), || true))
        }
        "thread-touch" => {
            // A thread has a stack of its own: some more bytes mapped and pages touched than asked for.
            let length = pages(word()?)?;
            let thread = std::thread::spawn(move || {
                let mapping = Mapping::new(length)?;
                mapping.touch();
                mapping.unmap()
            });
            thread.join().unwrap_or(Err(Errno::FAULT))
        }
        // Begins anew in the same process; its answer is `ready`.
        "exec" => {
            let error = std::process::Command::new("/proc/self/exe")
                .arg("workload")
                .exec();
            Err(Errno::from_io_error(&error).unwrap_or(Errno::NOEXEC))
        }
        // Files.
        "read" => read_file(word()?, out),
        "write" => {
            let path = word()?;
            write_file(path, number(word()?)?)
        }
        // Itself.
        "oom-score" => {
            let file = open("/proc/self/oom_score_adj", OFlags::WRONLY, Mode::empty())?;
            rustix::io::write(file, word()?.as_bytes()).map(drop)
        }
        "pid" => write!(out, "{}", std::process::id()).map_err(|_| Errno::NOBUFS),
        "exit" => std::process::exit(word()?.parse().unwrap_or(0)),
        _ => match super::calls::perform(state, step, out) {
            Err(Errno::NOSYS) => super::events::perform(state, step, out),
            result => result,
        },
    }
}

pub(super) fn number(word: &str) -> Result<usize> {
    word.parse().map_err(|_| Errno::INVAL)
}

pub(super) fn pages(word: &str) -> Result<usize> {
    number(word)?.checked_mul(PAGE).ok_or(Errno::INVAL)
}

/// Moves the program break by a number of bytes, down with a minus.
fn brk(word: &str) -> Result<()> {
    let change: isize = word.parse().map_err(|_| Errno::INVAL)?;
    // SAFETY: with 0 the kernel only reports the break.
    let now = unsafe { libc::syscall(libc::SYS_brk, 0) };
    let wanted = now as isize + change;
    // SAFETY: the caller lowers the break by no more than it raised it, and nothing lives between.
    let new = unsafe { libc::syscall(libc::SYS_brk, wanted) };
    if new as isize == wanted {
        Ok(())
    } else {
        Err(Errno::NOMEM)
    }
}

fn eat(limit: Option<usize>) -> Result<()> {
    // Pieces of 1 MiB, so that the mapping itself is never what is refused.
    const PIECE: usize = 1 << 20;
    let mut eaten = 0;
    while limit.is_none_or(|limit| eaten < limit) {
        let length = limit.map_or(PIECE, |limit| PIECE.min(limit - eaten));
        Mapping::new(length)?.touch();
        eaten += length;
    }
    Ok(())
}

/// Runs `job` in a forked child and tells its pid and how it ended: `PID exit CODE` or `PID signal NUMBER`.
pub(super) fn in_child(out: &mut Line, job: impl FnOnce() -> bool) -> Result<()> {
    // SAFETY: the process has one thread, so the child may do whatever we may; it leaves through _exit.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(Errno::AGAIN);
    }
    if pid == 0 {
        // A child must not outlive the test.
        let _ =
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        let code = i32::from(!job());
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result of our own child.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid {}
    let told = if libc::WIFSIGNALED(status) {
        write!(out, "{pid} signal {}", libc::WTERMSIG(status))
    } else {
        write!(out, "{pid} exit {}", libc::WEXITSTATUS(status))
    };
    told.map_err(|_| Errno::NOBUFS)
}

/// Reads a file to its end, which fills the page cache, and tells its length.
fn read_file(path: &str, out: &mut Line) -> Result<()> {
    let file = open(path, OFlags::RDONLY, Mode::empty())?;
    let mut buffer = [0; PAGE];
    let mut total = 0;
    loop {
        match rustix::io::read(&file, &mut buffer)? {
            0 => break,
            length => total += length,
        }
    }
    write!(out, "{total}").map_err(|_| Errno::NOBUFS)
}

fn write_file(path: &str, length: usize) -> Result<()> {
    let file = open(
        path,
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC,
        Mode::RUSR | Mode::WUSR,
    )?;
    let buffer = [0x5a; PAGE];
    let mut left = length;
    while left > 0 {
        left -= rustix::io::write(&file, &buffer[..left.min(PAGE)])?;
    }
    Ok(())
}
