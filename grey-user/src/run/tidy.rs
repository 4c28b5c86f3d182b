//! Removes the cgroup of a command once nothing runs in it. The command has taken our place, so that nobody of ours is
//! left to wait: a process of its own does, which is no child of the command, holds nothing of the terminal, and is not in
//! that cgroup. Should it be ended, the cgroup stays, empty, until the next `run` sweeps it.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

/// Of the names of cgroups that `run` makes: the pid follows.
pub(super) const PREFIX: &str = "grey-run-";
/// A look without any news, in case some was missed.
const LOOK: Timespec = Timespec {
    tv_sec: 60,
    tv_nsec: 0,
};
/// A cgroup whose last process has ended is busy until that is torn down.
const TORN_DOWN: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(20);

/// Its pipe: at its end, the command has begun or never will.
pub(super) struct Tidy {
    pipe: File,
}

impl Tidy {
    /// Starts the process. This one must not have other threads.
    pub(super) fn start() -> io::Result<Tidy> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        // SAFETY: this process has one thread (the command's name is known, and nothing was begun), so that the child may do
        // what any process may.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                drop(write);
                between(read)
            }
            child => {
                // The one in between ends at once. Where SIGCHLD is ignored there is nobody to wait for.
                // SAFETY: waits for our own child.
                while unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) } == -1
                    && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
                {
                }
                Ok(Tidy {
                    pipe: File::from(write),
                })
            }
        }
    }

    /// This is what it removes.
    pub(super) fn removes(&self, directory: &Path) -> io::Result<()> {
        (&self.pipe).write_all(directory.as_os_str().as_bytes())
    }
}

/// The process between, which leaves the command without a child that it does not know of.
fn between(read: OwnedFd) -> ! {
    // SAFETY: plain calls of a process with one thread.
    unsafe {
        libc::setsid();
        if libc::fork() == 0 {
            // Who ends a session or a service ends its command too, and this process with it; to end before would leave
            // the cgroup behind.
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGPIPE] {
                libc::signal(signal, libc::SIG_IGN);
            }
            tidy(read);
        }
        libc::_exit(0)
    }
}

fn tidy(read: OwnedFd) {
    let _ = std::env::set_current_dir("/");
    let mut read = alone_with(read);
    let mut path = Vec::new();
    if read.read_to_end(&mut path).is_err() || path.is_empty() {
        return;
    }
    let directory = PathBuf::from(std::ffi::OsString::from_vec(path));
    if await_empty(&directory).is_ok() {
        let end = Instant::now() + TORN_DOWN;
        while !remove(&directory) && Instant::now() < end {
            std::thread::sleep(AGAIN);
            // Somebody may have entered it meanwhile.
            if await_empty(&directory).is_err() {
                return;
            }
        }
    }
}

/// Closes everything but this one, so that no reader of the command's output waits for us.
fn alone_with(read: OwnedFd) -> File {
    const STDIO: i64 = 3;
    let null = File::options().read(true).write(true).open("/dev/null");
    // SAFETY: descriptors of a process with one thread; nothing but `read` is used afterwards.
    unsafe {
        for stdio in 0..3 {
            match &null {
                Ok(null) => libc::dup2(null.as_raw_fd(), stdio),
                Err(_) => libc::close(stdio),
            };
        }
        let kept = libc::fcntl(read.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3);
        let kept = i64::from(kept);
        libc::syscall(libc::SYS_close_range, STDIO, kept - 1, 0);
        libc::syscall(libc::SYS_close_range, kept + 1, i64::from(u32::MAX), 0);
        std::mem::forget((read, null));
        File::from_raw_fd(kept as i32)
    }
}

/// Waits for `populated 0`.
fn await_empty(directory: &Path) -> io::Result<()> {
    let events = File::open(directory.join("cgroup.events"))?;
    loop {
        if is_empty(directory)? {
            return Ok(());
        }
        match poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&LOOK)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_empty(directory: &Path) -> io::Result<bool> {
    let events = fs::read_to_string(directory.join("cgroup.events"))?;
    Ok(events.lines().any(|line| line == "populated 0"))
}

/// Whether it is gone, with the empty ones that the command made inside.
fn remove(directory: &Path) -> bool {
    if let Ok(entries) = fs::read_dir(directory) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&entry.path());
            }
        }
    }
    match fs::remove_dir(directory) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Removes what is left of commands whose tidier was ended.
pub(super) fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let starter = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(".scope"))
            .and_then(|rest| rest.split_once('-')?.0.parse::<u32>().ok());
        // Whoever made it may be about to enter it.
        let stale = starter.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        if stale && is_empty(&entry.path()).unwrap_or(false) {
            remove(&entry.path());
        }
    }
}
