//! The guard: a tiny process that takes changes back when their controller is gone, hung, or their lease is over.
//!
//! It is this binary again, in a session of its own. Each change comes to it with its open file, so that a cgroup that
//! was removed or made again is never taken for another. Controller and guard watch each other: a guard that is lost
//! is an end to acting.

mod held;
mod home;
mod note;
mod process;
mod put_back;
mod serve;
#[cfg(test)]
mod tests;
mod wire;

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use grey_core::act::{Change, Fault, Text};
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType,
};
use rustix::process::{PidfdFlags, Signal};

use super::fork;
use super::writer;
use crate::host::{CgroupFs, Host};
use wire::{Arm, Ask, Name, Reply};

pub use home::CGROUP;

/// How often it hears from us.
pub const BEAT: Duration = Duration::from_millis(200);
/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How long it may take to start: a program is loaded, perhaps from a slow disk.
const START: Duration = Duration::from_secs(10);
/// How long it may take to end.
const END: Duration = Duration::from_secs(1);
/// What the guard gives us beyond a lease, so that undoing is told by whoever asked for it.
const HEAD_START: Duration = Duration::from_millis(300);

/// Whether `main` of this program knows how to be a guard.
static ABLE: AtomicBool = AtomicBool::new(false);

/// To be called by `main` before anything else: the exit code, if this process was started as a guard and has done
/// its work.
#[must_use]
pub fn run_if_called() -> Option<ExitCode> {
    if process::is_called() {
        return Some(process::main());
    }
    ABLE.store(true, Ordering::Relaxed);
    None
}

/// What the guard is started with.
#[derive(Debug)]
pub struct Config<'a> {
    /// Where it notes what it undid.
    pub journal: &'a Path,
    /// See [`super::safety::Safety::hang`].
    pub hang: Duration,
    /// The right to act, which it holds on to until it has undone everything.
    pub lock: Option<BorrowedFd<'a>>,
}

/// The controller's end.
#[derive(Debug)]
pub struct Guard {
    /// `None` once it was told good-bye.
    socket: Option<OwnedFd>,
    process: Option<Child>,
    seq: u32,
    lost: bool,
    revoked: bool,
    sent: Instant,
    /// Since when it owes an answer.
    waiting: Option<Instant>,
    /// It looks after files that we have closed.
    lingering: bool,
}

impl Guard {
    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started: then nothing may be done.
    pub fn start(config: &Config<'_>) -> Result<Guard, Fault> {
        if !ABLE.load(Ordering::Relaxed) {
            return Err(Fault::Other("this program has no guard in it".to_owned()));
        }
        Guard::start_as(config, Path::new("/proc/self/exe"))
    }

    /// As [`Guard::start`], with the program that can be one.
    ///
    /// # Errors
    /// As there.
    pub fn start_as(config: &Config<'_>, program: &Path) -> Result<Guard, Fault> {
        let broken = |what: &str, error: Errno| {
            Fault::Other(format!("{what}: {}", std::io::Error::from(error)))
        };
        let (Some(dir), Some(name)) = (config.journal.parent(), config.journal.file_name()) else {
            return Err(Fault::Other("the journal has no name".to_owned()));
        };
        let dir = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(dir, flags, Mode::empty())
            .map_err(|error| broken("the journal's folder", error))?;
        let journal = Name::new(name.as_bytes())
            .ok_or_else(|| Fault::Other("the journal's name is too long".to_owned()))?;
        let us = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
            .map_err(|error| broken("pidfd_open", error))?;
        let cgroups = CgroupFs::discover(&Host::live());
        let root = cgroups.dir().ok();
        let home = root.and_then(home::make);
        let (socket, process) = spawn(program, home.as_ref(), config.lock)?;
        let mut guard = Guard::over(socket, Some(process));
        let hello = Ask::Hello {
            hang_ms: u64::try_from(config.hang.as_millis()).unwrap_or(u64::MAX / 2),
            journal,
        };
        let mut files = vec![us.as_fd(), dir.as_fd()];
        files.extend(root.filter(|_| home.is_some()));
        if guard.request(&hello, &files, START).is_err() {
            return Err(Fault::Other(format!(
                "{} did not answer as one",
                program.display()
            )));
        }
        Ok(guard)
    }

    fn over(socket: OwnedFd, process: Option<Child>) -> Guard {
        writer::leash(socket.as_raw_fd());
        Guard {
            socket: Some(socket),
            process,
            seq: 0,
            lost: false,
            revoked: false,
            sent: Instant::now(),
            waiting: None,
            lingering: false,
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Has it remember a change; `file` is open for reading and writing.
    ///
    /// # Errors
    /// Then the change must not be made.
    pub fn arm(
        &mut self,
        id: u64,
        step: u32,
        change: &Change<'_>,
        file: OwnedFd,
    ) -> Result<(), Fault> {
        let text = |value: &grey_core::act::Value| {
            Text::new(value.as_str().as_bytes())
                .ok_or_else(|| Fault::Other("the value is too long for the guard".to_owned()))
        };
        let arm = Arm {
            id,
            step,
            file: change.knob.file,
            old: text(change.old)?,
            new: text(change.new)?,
            leaves: change.leaves.map(text).transpose()?,
        };
        match self.request(&Ask::Arm(arm), &[file.as_fd()], ANSWER)? {
            Reply::Done => Ok(()),
            _ => Err(Fault::Other(
                "the guard has no room for more changes".to_owned(),
            )),
        }
    }

    /// Has it undo an action's changes by itself after `lease` from now, with a little time for us to do it first;
    /// `None` for never.
    ///
    /// # Errors
    /// It is lost.
    pub fn lease(&mut self, id: u64, lease: Option<Duration>) -> Result<(), Fault> {
        let ms = lease
            .map(|lease| lease.saturating_add(HEAD_START).as_millis())
            .map(|ms| u64::try_from(ms).unwrap_or(u64::MAX));
        self.request(&Ask::Lease { id, ms }, &[], ANSWER)
            .and_then(in_force)
    }

    /// Has it forget.
    ///
    /// # Errors
    /// It is lost, or has undone the changes already.
    pub fn release(&mut self, id: u64, step: Option<u32>) -> Result<(), Fault> {
        // A helper that hangs may still write what we have just taken back.
        let linger = writer::stuck();
        self.lingering |= linger;
        self.request(&Ask::Release { id, step, linger }, &[], ANSWER)
            .and_then(in_force)
    }

    /// A heartbeat (sent when it is due), and whether it lives and has not taken over.
    ///
    /// # Errors
    /// [`Fault::GuardLost`], [`Fault::Revoked`].
    pub fn beat(&mut self) -> Result<(), Fault> {
        self.hear(None);
        self.state()?;
        if self.sent.elapsed() >= BEAT {
            if self.lingering && !writer::stuck() && self.send(&Ask::Settle, &[]).is_ok() {
                self.lingering = false;
            }
            self.send(&Ask::Beat, &[])?;
        }
        if self.waiting.is_some_and(|since| since.elapsed() > ANSWER) {
            self.lost = true;
        }
        self.state()
    }

    fn state(&self) -> Result<(), Fault> {
        match (self.lost, self.revoked) {
            (true, _) => Err(Fault::GuardLost),
            (_, true) => Err(Fault::Revoked),
            _ => Ok(()),
        }
    }

    /// Sends one packet; returns its number. A full socket is no error: what is not answered in time is.
    fn send(&mut self, ask: &Ask, files: &[BorrowedFd<'_>]) -> Result<u32, Fault> {
        let Some(socket) = self.socket.as_ref().filter(|_| !self.lost) else {
            return Err(Fault::GuardLost);
        };
        self.seq = self.seq.wrapping_add(1);
        let (packet, len) = ask.encode(self.seq);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(Fault::Other("too many descriptors".to_owned()));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let packet = [IoSlice::new(&packet[..len])];
        let sent = loop {
            match rustix::net::sendmsg(socket, &packet, &mut control, flags) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if !fork::await_flags(socket, PollFlags::OUT, ANSWER) => {
                    break Err(Errno::AGAIN);
                }
                Err(Errno::AGAIN) => {}
                done => break done,
            }
        };
        self.sent = Instant::now();
        self.waiting.get_or_insert(self.sent);
        if sent.is_err() {
            self.lost = true;
            return Err(Fault::GuardLost);
        }
        Ok(self.seq)
    }

    /// Sends one packet and waits for its answer.
    fn request(
        &mut self,
        ask: &Ask,
        files: &[BorrowedFd<'_>],
        within: Duration,
    ) -> Result<Reply, Fault> {
        let seq = self.send(ask, files)?;
        let end = Instant::now() + within;
        loop {
            if let Some(reply) = self.hear(Some(seq)) {
                // It took over: whatever it did with this packet, the action is at its end.
                self.state()?;
                return Ok(reply);
            }
            let left = end.saturating_duration_since(Instant::now());
            let socket = self
                .socket
                .as_ref()
                .filter(|_| !self.lost && !left.is_zero());
            let Some(socket) = socket else {
                self.lost = true;
                return Err(Fault::GuardLost);
            };
            fork::readable(socket, left);
        }
    }

    /// Takes in what it says; returns the answer to the packet of this number if it comes.
    fn hear(&mut self, seq: Option<u32>) -> Option<Reply> {
        loop {
            let socket = self.socket.as_ref()?;
            let mut packet = [0_u8; 64];
            match rustix::net::recv(socket, &mut packet, RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                Ok((0, _)) | Err(_) => {
                    self.lost = true;
                    return None;
                }
                Ok((len, _)) => {
                    let (answered, reply) = Reply::decode(packet.get(..len)?)?;
                    self.revoked |= reply == Reply::Revoked;
                    if answered == self.seq {
                        self.waiting = None;
                    }
                    if seq == Some(answered) {
                        return Some(reply);
                    }
                }
            }
        }
    }
}

/// What the guard has undone is no longer in force.
fn in_force(reply: Reply) -> Result<(), Fault> {
    match reply {
        Reply::Done => Ok(()),
        Reply::Expired => Err(Fault::Other("the lease is over".to_owned())),
        Reply::Refused | Reply::Revoked => Err(Fault::Revoked),
    }
}

/// Two ends, each of which sees the other's end.
fn packets() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// Starts it in a session and a cgroup of its own.
fn spawn(
    program: &Path,
    home: Option<&OwnedFd>,
    lock: Option<BorrowedFd<'_>>,
) -> Result<(OwnedFd, Child), Fault> {
    let fail = |error: std::io::Error| Fault::Other(format!("{}: {error}", program.display()));
    // It says nothing on its stdout: what is held there is held as long as it lives.
    let stdout = match lock {
        Some(lock) => Stdio::from(lock.try_clone_to_owned().map_err(fail)?),
        None => Stdio::null(),
    };
    let (ours, its) = packets().map_err(|error| fail(error.into()))?;
    let home = home.map(|procs| procs.as_raw_fd());
    let mut command = Command::new(program);
    command
        .arg0(process::NAME)
        .arg("of")
        .arg(std::process::id().to_string())
        .env_clear()
        .stdin(Stdio::from(its))
        .stdout(stdout)
        .stderr(Stdio::null());
    let detach = move || {
        rustix::process::setsid()?;
        if let Some(procs) = home {
            // Best effort. Before the program is loaded, so that its memory is its cgroup's.
            // SAFETY: the caller keeps the descriptor open until the child runs its program.
            let procs = unsafe { BorrowedFd::borrow_raw(procs) };
            let _ = rustix::io::write(procs, b"0");
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls and does not allocate.
    unsafe { command.pre_exec(detach) };
    let child = command.spawn().map_err(fail)?;
    // With it goes our copy of its end.
    drop(command);
    Ok((ours, child))
}

impl Drop for Guard {
    fn drop(&mut self) {
        writer::leash(-1);
        let _ = self.send(&Ask::Bye, &[]);
        let lost = self.lost;
        self.socket = None;
        let Some(mut process) = self.process.take() else {
            return;
        };
        let pid = rustix::process::Pid::from_child(&process);
        let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
            return;
        };
        if lost {
            // It does not answer. If it came to later, it would undo what others may have set by then.
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
        }
        if fork::readable(&pidfd, END) {
            let _ = process.wait();
            if let Ok(root) = CgroupFs::discover(&Host::live()).dir() {
                home::remove(root);
            }
        }
    }
}
