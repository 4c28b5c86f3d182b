//! A workload under a test's control: this binary again, which does one step for each line it is sent.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::{TempCgroup, wait_until};

/// How long a step may take unless the caller says otherwise.
const STEP: Duration = Duration::from_secs(30);

/// A process that waits for steps; see `workload.rs` for those it knows. It dies with the test.
pub(crate) struct Workload {
    child: Child,
    stdin: Option<ChildStdin>,
    replies: Receiver<String>,
}

impl Workload {
    /// Starts it inside `cgroup` (it enters before its first instruction), ready for the first step.
    pub(crate) fn start(cgroup: &TempCgroup) -> Result<Self> {
        let procs = cgroup.directory().join("cgroup.procs");
        let procs = OpenOptions::new()
            .write(true)
            .open(&procs)
            .with_context(|| format!("open {}", procs.display()))?;
        Self::spawn(Some(procs.into()))
    }

    /// Starts it in the test's own cgroup.
    pub(crate) fn start_here() -> Result<Self> {
        Self::spawn(None)
    }

    fn spawn(procs: Option<OwnedFd>) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("workload")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let enter = move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            if let Some(procs) = &procs {
                rustix::io::write(procs, b"0")?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes two system calls and does not allocate.
        unsafe { command.pre_exec(enter) };
        let mut child = command.spawn().context("start a workload")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the workload has no stdout")?;
        let (sender, replies) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let workload = Self {
            child,
            stdin,
            replies,
        };
        let hello = workload.reply(STEP)?;
        if hello != "ready" {
            bail!("the workload began with {hello:?} instead of ready");
        }
        Ok(workload)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Makes it do one step, as in `step("touch 1000")`, and returns what it answered.
    pub(crate) fn step(&mut self, step: &str) -> Result<String> {
        self.send(step)?;
        let reply = self
            .reply(STEP)
            .with_context(|| format!("workload step `{step}`"))?;
        match reply.split_once(' ').unwrap_or((&reply, "")) {
            ("done", detail) => Ok(detail.to_owned()),
            _ => bail!("workload step `{step}`: {reply}"),
        }
    }

    /// Sends a step without awaiting its end, for steps that do not return (`eat`) or that run beside others.
    pub(crate) fn send(&mut self, step: &str) -> Result<()> {
        let stdin = self
            .stdin
            .as_mut()
            .context("the workload's stdin is closed")?;
        writeln!(stdin, "{step}").with_context(|| format!("send the step `{step}`"))
    }

    /// Awaits the answer to a step that was sent.
    pub(crate) fn reply(&self, within: Duration) -> Result<String> {
        match self.replies.recv_timeout(within) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => {
                bail!("the workload gave no answer within {within:?}")
            }
            Err(RecvTimeoutError::Disconnected) => bail!("the workload ended without an answer"),
        }
    }

    /// Awaits its end, as after an OOM kill or `exit 0`.
    pub(crate) fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let child = &mut self.child;
        wait_until("the end of the workload", within, || {
            child.try_wait().context("wait for the workload")
        })
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
