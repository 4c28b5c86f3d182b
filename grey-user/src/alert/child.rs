//! One run of the command: a child in a process group of its own, ended when its time is over. It gets none of our
//! descriptors but an input of its own and our stderr.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::{Job, Stop};

/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Failed(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done => f.write_str("done"),
            Outcome::Failed(why) => f.write_str(why),
        }
    }
}

/// The command.
#[derive(Debug)]
pub(super) struct Program {
    words: Vec<OsString>,
    timeout: Duration,
}

enum Waited {
    Ended,
    TimedOut,
    Stopped,
}

impl Program {
    pub(super) fn new(words: Vec<OsString>, timeout: Duration) -> Self {
        Program { words, timeout }
    }

    /// Runs it to its end, or to the end of its time.
    pub(super) fn run(&self, job: &Job, stop: &Stop) -> Outcome {
        let mut child = match self.spawn(job, stop) {
            Ok(child) => child,
            Err(error) => {
                let hint = match error.raw_os_error() {
                    Some(libc::ENOEXEC) => "; a script needs a first line such as #!/bin/sh",
                    _ => "",
                };
                return Outcome::Failed(format!("cannot be started: {error}{hint}"));
            }
        };
        let group = Pid::from_child(&child);
        let pidfd = match pidfd_open(group, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Outcome::Failed(format!("cannot be waited for: {error}"));
            }
        };
        let waited = wait(&pidfd, Instant::now() + self.timeout, Some(stop));
        if matches!(waited, Waited::Ended) {
            return match child.wait() {
                Ok(status) => of_status(status),
                Err(error) => Outcome::Failed(format!("cannot be waited for: {error}")),
            };
        }
        let ended = end(&mut child, group, &pidfd);
        let why = match waited {
            Waited::Stopped => "was still running when the watch ended".to_owned(),
            _ => format!("took longer than {:?}", self.timeout),
        };
        Outcome::Failed(match ended {
            true => format!("{why}, and was ended"),
            false => format!("{why}, and does not even end by SIGKILL"),
        })
    }

    fn spawn(&self, job: &Job, stop: &Stop) -> io::Result<Child> {
        let (program, arguments) = self
            .words
            .split_first()
            .ok_or_else(|| io::Error::other("no command"))?;
        let path = super::program(program).map_err(io::Error::other)?;
        let output = || -> io::Result<Stdio> {
            if !stop.output.load(Ordering::Relaxed) {
                return Ok(Stdio::null());
            }
            Ok(io::stderr().as_fd().try_clone_to_owned()?.into())
        };
        let mut command = Command::new(path);
        command
            .arg0(program)
            .args(arguments)
            .stdin(Stdio::from(input(&job.line)?))
            // Our stdout is NDJSON.
            .stdout(output()?)
            .stderr(output()?)
            .process_group(0);
        for (name, value) in &job.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        // SAFETY: between fork and exec the closure makes one system call and does not allocate.
        unsafe { command.pre_exec(close_the_rest) };
        command.spawn()
    }
}

/// All our descriptors close at exec by themselves; this makes sure for those a library may open one day.
fn close_the_rest() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: the call takes numbers only. It sets a flag and closes nothing yet, so that the standard library can
    // still tell its parent of a failed exec. Linux 5.10 does not know the flag and refuses, which does no harm.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    Ok(())
}

/// The event as a file in memory: unlike a pipe it takes a line of any length at once, whether it is read or not.
fn input(line: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"alert", MemfdFlags::CLOEXEC)?);
    file.write_all(line)?;
    file.rewind()?;
    Ok(file)
}

fn of_status(status: ExitStatus) -> Outcome {
    match (status.code(), status.signal()) {
        (Some(0), _) => Outcome::Done,
        (Some(code), _) => Outcome::Failed(format!("exit code {code}")),
        (None, Some(signal)) => Outcome::Failed(format!("ended by signal {signal}")),
        (None, None) => Outcome::Failed("ended in an unknown way".to_owned()),
    }
}

/// Waits for the child's end, which leaves it a zombie, so that its pid stays its own until it is reaped.
fn wait(pidfd: &OwnedFd, until: Instant, stop: Option<&Stop>) -> Waited {
    loop {
        let stopped = stop.and_then(Stop::until);
        let end = stopped.map_or(until, |stopped| stopped.min(until));
        let left = end.saturating_duration_since(Instant::now());
        let mut fds = vec![PollFd::new(pidfd, PollFlags::IN)];
        // Woken once: then the time is known, and the descriptor stays readable.
        if let Some(stop) = stop
            && stopped.is_none()
        {
            fds.push(PollFd::new(&stop.wake, PollFlags::IN));
        }
        let left_spec = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        if let Err(error) = poll(&mut fds, Some(&left_spec))
            && error != rustix::io::Errno::INTR
        {
            return Waited::TimedOut;
        }
        if !fds[0].revents().is_empty() {
            return Waited::Ended;
        }
        if Instant::now() >= end {
            return match stopped.is_some_and(|stopped| stopped <= until) {
                true => Waited::Stopped,
                false => Waited::TimedOut,
            };
        }
    }
}

/// SIGTERM to the child and what it started in its group, then SIGKILL. False if even that did not end it.
fn end(child: &mut Child, group: Pid, pidfd: &OwnedFd) -> bool {
    let _ = kill_process_group(group, Signal::TERM);
    wait(pidfd, Instant::now() + GRACE, None);
    // Not reaped yet, so the group is still ours, even if the child itself is gone and others in it are not.
    let _ = kill_process_group(group, Signal::KILL);
    match wait(pidfd, Instant::now() + GRACE, None) {
        Waited::Ended => child.wait().is_ok(),
        Waited::TimedOut | Waited::Stopped => false,
    }
}
