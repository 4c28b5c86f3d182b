//! `grey-ebpf` under a test's control: run to its end, or live with its NDJSON read as it comes.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::wait_until;

/// The binary under test: `GREY_EBPF_BIN`, else the one beside this executable, else the VM's.
pub(crate) fn grey_ebpf() -> PathBuf {
    if let Some(path) = std::env::var_os("GREY_EBPF_BIN") {
        return path.into();
    }
    std::env::current_exe()
        .ok()
        .map(|exe| exe.with_file_name("grey-ebpf"))
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("/bin/grey-ebpf"))
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(grey_ebpf());
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: between fork and exec the closure makes one system call and does not allocate.
    unsafe {
        command.pre_exec(|| {
            Ok(rustix::process::set_parent_process_death_signal(Some(
                Signal::KILL,
            ))?)
        });
    }
    command
}

/// What a finished run left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// The exit code, or `None` after a signal.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

/// Runs `grey-ebpf ARGS` to its end.
pub(crate) fn run(args: &[&str], within: Duration) -> Result<Finished> {
    Observer::start(args)?.finish(within)
}

/// One line of its output and when it came.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) at: Instant,
    pub(crate) text: String,
}

impl Line {
    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("not JSON: {}", self.text))
    }
}

/// A running `grey-ebpf`. It is killed on drop and dies with the test.
pub(crate) struct Observer {
    child: Child,
    incoming: Receiver<Line>,
    seen: Vec<Line>,
    /// How many of `seen` an earlier [`Observer::wait_event`] has passed.
    cursor: usize,
    stderr: Option<JoinHandle<String>>,
}

impl Observer {
    pub(crate) fn start(args: &[&str]) -> Result<Self> {
        Self::start_with(args, &[])
    }

    /// Starts it with variables set in its environment.
    pub(crate) fn start_with(args: &[&str], variables: &[(&str, &str)]) -> Result<Self> {
        let mut child = command(args)
            .envs(variables.iter().copied())
            .spawn()
            .with_context(|| format!("start {} {}", grey_ebpf().display(), args.join(" ")))?;
        let stdout = child.stdout.take().context("grey-ebpf has no stdout")?;
        let mut stderr = child.stderr.take().context("grey-ebpf has no stderr")?;
        let (sender, incoming) = channel();
        std::thread::spawn(move || {
            for text in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender
                    .send(Line {
                        at: Instant::now(),
                        text,
                    })
                    .is_err()
                {
                    break;
                }
            }
        });
        let stderr = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stderr.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Ok(Self {
            child,
            incoming,
            seen: Vec::new(),
            cursor: 0,
            stderr: Some(stderr),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next event that satisfies `wanted`, after the one found last. Lines in between are kept in
    /// [`Observer::events`]. Fails after `within`, when the process ends, or at a line that is not JSON.
    pub(crate) fn wait_event(
        &mut self,
        what: &str,
        within: Duration,
        mut wanted: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        let end = Instant::now() + within;
        loop {
            while let Some(line) = self.seen.get(self.cursor) {
                self.cursor += 1;
                let event = line.json()?;
                if wanted(&event) {
                    return Ok(event);
                }
            }
            match self
                .incoming
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout) => bail!(
                    "{what}: no such event within {within:?} among {} lines; the last: {}",
                    self.seen.len(),
                    self.seen.last().map_or("none", |line| &line.text)
                ),
                Err(RecvTimeoutError::Disconnected) => {
                    let stderr = self
                        .stderr
                        .take()
                        .and_then(|thread| thread.join().ok())
                        .unwrap_or_default();
                    bail!(
                        "{what}: grey-ebpf ended first; its stderr: {}",
                        stderr.trim_end()
                    )
                }
            }
        }
    }

    /// When the event that [`Observer::wait_event`] returned last had come.
    pub(crate) fn found_at(&self) -> Option<Instant> {
        self.seen
            .get(self.cursor.checked_sub(1)?)
            .map(|line| line.at)
    }

    /// All events that have come so far.
    pub(crate) fn events(&mut self) -> Result<Vec<Value>> {
        self.seen.extend(self.incoming.try_iter());
        self.seen.iter().map(Line::json).collect()
    }

    /// All lines that have come so far, as they are.
    pub(crate) fn lines(&mut self) -> &[Line] {
        self.seen.extend(self.incoming.try_iter());
        &self.seen
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("send {signal:?} to grey-ebpf"))
    }

    /// Sends `signal` and awaits the end.
    pub(crate) fn stop(self, signal: Signal, within: Duration) -> Result<Finished> {
        self.signal(signal)?;
        self.finish(within)
    }

    /// Awaits its end without touching it.
    pub(crate) fn finish(mut self, within: Duration) -> Result<Finished> {
        let child = &mut self.child;
        let status = wait_until("the end of grey-ebpf", within, || {
            child.try_wait().context("wait for grey-ebpf")
        })?;
        self.seen.extend(self.incoming.iter());
        let stdout = self
            .seen
            .iter()
            .flat_map(|line| [line.text.as_str(), "\n"])
            .collect();
        let stderr = self
            .stderr
            .take()
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default();
        Ok(Finished {
            status,
            stdout,
            stderr,
        })
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
