//! A real program in a cgroup: started there, its lines read as they come, killed on drop.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::harness::TempCgroup;

/// Our C program and our Python program; see grey-eval/record/programs.
pub(crate) const HEAP: &str = "/programs/heap";
pub(crate) const TRAFFIC: &str = "/programs/traffic.py";

/// Why a test cannot run where one of `programs` is not there, in the words of the host that made the guest.
pub(crate) fn lacks(programs: &[&str]) -> Option<String> {
    let missing = programs
        .iter()
        .find(|program| !Path::new(program).exists())?;
    let told = std::fs::read_to_string("/grey/missing").unwrap_or_default();
    Some(format!(
        "the guest has no {missing}: {}",
        told.trim_end().replace('\n', "; ")
    ))
}

/// A running program.
pub(crate) struct Program {
    child: Child,
    incoming: Receiver<String>,
    seen: Vec<String>,
}

impl Program {
    /// Starts it inside `cgroup`, which it enters before its first instruction.
    pub(crate) fn start(
        cgroup: &TempCgroup,
        command: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        let procs = cgroup.directory().join("cgroup.procs");
        let procs = OpenOptions::new()
            .write(true)
            .open(&procs)
            .with_context(|| format!("open {}", procs.display()))?;
        let (name, args) = command.split_first().context("no program")?;
        let mut command = Command::new(name);
        command
            .args(args)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let enter = move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            rustix::io::write(&procs, b"0")?;
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes two system calls and does not allocate.
        unsafe { command.pre_exec(enter) };
        let mut child = command.spawn().with_context(|| format!("start {name}"))?;
        let stdout = child.stdout.take().context("the program has no stdout")?;
        let (sender, incoming) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            incoming,
            seen: Vec::new(),
        })
    }

    /// The rest of the first line that begins with `word`.
    pub(crate) fn said(&mut self, word: &str, within: Duration) -> Result<String> {
        let end = Instant::now() + within;
        loop {
            let found = self
                .seen
                .iter()
                .find_map(|line| line.strip_prefix(word).map(|rest| rest.trim().to_owned()));
            if let Some(rest) = found {
                return Ok(rest);
            }
            let left = end.saturating_duration_since(Instant::now());
            let line = self
                .incoming
                .recv_timeout(left)
                .with_context(|| format!("no line `{word}…` within {within:?}: {:?}", self.seen))?;
            self.seen.push(line);
        }
    }

    /// When it says that its leak began, µs of the wall clock.
    pub(crate) fn onset(&mut self, within: Duration) -> Result<i64> {
        let seconds: f64 = self.said("onset", within)?.parse()?;
        Ok((seconds * 1e6) as i64)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
