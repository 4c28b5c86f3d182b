//! One question to a command: a child in a process group of its own, without a shell, with bounded time and output.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal,
};

use super::MOST_BYTES;
use crate::alert::program;

/// For a killed child to be gone.
const GRACE: Duration = Duration::from_secs(2);

/// Tells a run to end.
#[derive(Debug)]
pub(super) struct Stop(OwnedFd);

impl Stop {
    pub(super) fn new() -> io::Result<Stop> {
        Ok(Stop(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?))
    }

    pub(super) fn stop(&self) {
        // A counter that is full has told it already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

/// A child that does not outlive this, nor does what it started in its group.
struct Run {
    child: Child,
    pidfd: OwnedFd,
    reaped: bool,
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        // Not reaped yet, so pid and group are still the child's.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let end = Instant::now() + GRACE;
        while Instant::now() < end {
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match poll(&mut fds, Some(&left(end))) {
                Err(Errno::INTR) => {}
                // One that does not even end by SIGKILL is left behind.
                Err(_) | Ok(0) => return,
                Ok(_) => {
                    let _ = self.child.wait();
                    return;
                }
            }
        }
    }
}

/// What the command said, if it ended well and in time.
pub(super) fn run(words: &[OsString], timeout: Duration, stop: &Stop) -> Result<Vec<u8>, String> {
    let end = Instant::now() + timeout;
    let (name, arguments) = words.split_first().ok_or("no command")?;
    let path = program(name)?;
    let mut command = Command::new(path);
    command
        .arg0(name)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0);
    let follow_us = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: between fork and exec the closure makes one system call and does not allocate.
    unsafe { command.pre_exec(follow_us) };
    let mut child = command
        .spawn()
        .map_err(|error| format!("cannot be started: {error}"))?;
    let pidfd = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("cannot be waited for: {error}"));
        }
    };
    let stdout = child.stdout.take();
    let mut run = Run {
        child,
        pidfd,
        reaped: false,
    };
    let mut stdout = stdout.ok_or("has no output")?;
    rustix::io::ioctl_fionbio(&stdout, true).map_err(|error| error.to_string())?;
    let mut said = Said::default();
    loop {
        let mut fds = [
            PollFd::new(&run.pidfd, PollFlags::IN),
            PollFd::new(&stop.0, PollFlags::IN),
            PollFd::new(&stdout, PollFlags::IN),
        ];
        // A pipe whose writers are gone is always ready: from then on only the child's end counts.
        let watched = if said.all { 2 } else { 3 };
        match poll(&mut fds[..watched], Some(&left(end))) {
            Err(Errno::INTR) => continue,
            Err(error) => return Err(format!("cannot be waited for: {error}")),
            Ok(_) => {}
        }
        let ended = !fds[0].revents().is_empty();
        if !fds[1].revents().is_empty() {
            return Err("was still running at the end, and was ended".to_owned());
        }
        take(&mut stdout, &mut said)?;
        if ended {
            let status = run.child.wait();
            run.reaped = true;
            status
                .map_err(|error| format!("cannot be waited for: {error}"))
                .and_then(judge)?;
            // What it started may still hold the pipe: nobody waits for that.
            return Ok(said.bytes);
        }
        if Instant::now() >= end {
            return Err(format!("took longer than {timeout:?}, and was ended"));
        }
    }
}

#[derive(Default)]
struct Said {
    bytes: Vec<u8>,
    /// Nobody can say more.
    all: bool,
}

/// Takes what is there.
fn take(stdout: &mut ChildStdout, said: &mut Said) -> Result<(), String> {
    let mut buffer = [0; 1024];
    while !said.all {
        match stdout.read(&mut buffer) {
            Ok(0) => said.all = true,
            Ok(length) => {
                said.bytes.extend_from_slice(&buffer[..length]);
                if said.bytes.len() > MOST_BYTES {
                    return Err(super::TOO_MUCH.to_owned());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("cannot be read: {error}")),
        }
    }
    Ok(())
}

fn judge(status: ExitStatus) -> Result<(), String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(format!("exit code {code}")),
        (None, Some(signal)) => Err(format!("ended by signal {signal}")),
        (None, None) => Err("ended in an unknown way".to_owned()),
    }
}

fn left(end: Instant) -> Timespec {
    let left = end.saturating_duration_since(Instant::now());
    Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    }
}
