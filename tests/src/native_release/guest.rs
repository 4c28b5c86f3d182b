//! A program with the agent in it, under a test's control: it says `ready`, and goes on until its input ends.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use grey_user::act::agent::{self, AgentError, Answer, Question};
use grey_user::host::Host;

use crate::harness::{Outcome, wait_until};
use crate::invocation::Scratch;

/// Loading 400 MB takes seconds on a slow machine.
const READY: Duration = Duration::from_secs(50);
const END: Duration = Duration::from_secs(20);
/// How long an agent waits unless a test says otherwise.
pub(super) const WAIT: Duration = Duration::from_secs(2);

const PROGRAMS: [(&str, &str); 6] = [
    ("buffers.py", include_str!("../../programs/buffers.py")),
    ("cycles.py", include_str!("../../programs/cycles.py")),
    ("dicts.py", include_str!("../../programs/dicts.py")),
    ("Churn.java", include_str!("../../programs/Churn.java")),
    ("fragment.c", include_str!("../../programs/fragment.c")),
    ("lives.c", include_str!("../../programs/lives.c")),
];

/// The library, which whoever runs the tests has built.
pub(super) fn library() -> Result<PathBuf> {
    agent::agent_library().context("the release agent")
}

/// Where programs are written and built.
pub(super) struct Bench {
    pub(super) scratch: Scratch,
}

impl Bench {
    pub(super) fn new(label: &str) -> Result<Bench> {
        let scratch = Scratch::new(label)?;
        for (name, text) in PROGRAMS {
            fs::write(scratch.join(name), text)?;
        }
        Ok(Bench { scratch })
    }

    /// A Python program; none where there is no Python.
    pub(super) fn python(&self, name: &str, args: &[&str]) -> Result<Option<Command>> {
        // The system's own before one that a version manager puts in front, which is a shell script.
        let Some(python) = ["/usr/bin/python3", "python3"]
            .into_iter()
            .find(|it| runs(it))
        else {
            return Ok(None);
        };
        let mut command = Command::new(python);
        command.arg(self.scratch.join(name)).args(args);
        Ok(Some(command))
    }

    /// A C program; none where there is no compiler.
    pub(super) fn c(&self, name: &str, args: &[&str]) -> Result<Option<Command>> {
        if !runs("cc") {
            return Ok(None);
        }
        let program = self.scratch.join(name);
        if !program.exists() {
            let source = self.scratch.join(&format!("{name}.c"));
            let built = Command::new("cc")
                .args(["-O2", "-pthread", "-o"])
                .args([&program, &source])
                .output()?;
            if !built.status.success() {
                bail!("{name}.c: {}", String::from_utf8_lossy(&built.stderr));
            }
        }
        let mut command = Command::new(program);
        command.args(args);
        Ok(Some(command))
    }
}

/// Whether there is a program of this name.
pub(super) fn runs(program: &str) -> bool {
    let version = if program == "java" {
        "-version"
    } else {
        "--version"
    };
    Command::new(program)
        .arg(version)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The skip of a test whose program is not there.
pub(super) fn absent(what: &str) -> Result<Outcome> {
    Outcome::skipped(format!("there is no {what} on this machine"))
}

/// A running program. It is killed on drop.
pub(super) struct Guest {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Guest {
    /// Starts it with the agent and waits until it is ready.
    pub(super) fn start(command: Command) -> Result<Guest> {
        let mut guest = Self::begin(command, &[&library()?])?;
        guest.ready()?;
        Ok(guest)
    }

    /// Starts it with these libraries preloaded.
    pub(super) fn begin(mut command: Command, libraries: &[&Path]) -> Result<Guest> {
        let libraries: Vec<&str> = libraries.iter().filter_map(|path| path.to_str()).collect();
        command
            .env("LD_PRELOAD", libraries.join(":"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        // SAFETY: between fork and exec the closure makes one system call and does not allocate.
        unsafe {
            command.pre_exec(|| {
                Ok(rustix::process::set_parent_process_death_signal(Some(
                    rustix::process::Signal::KILL,
                ))?)
            });
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("it has no stdout")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Guest {
            child,
            stdin,
            lines,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line it says.
    pub(super) fn line(&self) -> Result<String> {
        match self.lines.recv_timeout(READY) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => bail!("it said nothing within {READY:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("it ended and said nothing"),
        }
    }

    /// Waits until it can be asked; what it said before.
    pub(super) fn ready(&mut self) -> Result<Vec<String>> {
        let mut said = Vec::new();
        loop {
            match self.line()?.as_str() {
                "ready" => return Ok(said),
                line => said.push(line.to_owned()),
            }
        }
    }

    pub(super) fn ask(&self, question: Question) -> Result<Answer, AgentError> {
        ask(self.pid(), question)
    }

    pub(super) fn trim(&self) -> Result<Answer> {
        let question = Question::Trim {
            collector: true,
            wait: WAIT,
        };
        Ok(self.ask(question)?)
    }

    /// VmRSS, bytes.
    pub(super) fn resident(&self) -> Result<u64> {
        status(self.pid(), "VmRSS:").map(|kib| kib * 1024)
    }

    /// Ends its input and waits for its end; what it still said.
    pub(super) fn finish(mut self) -> Result<(Vec<String>, ExitStatus)> {
        if let Some(mut stdin) = self.stdin.take() {
            let _ = stdin.flush();
        }
        let child = &mut self.child;
        let status = wait_until("the end of the program", END, || Ok(child.try_wait()?))?;
        Ok((self.lines.iter().collect(), status))
    }

    /// As [`Guest::finish`], for a program that has to find its memory whole.
    pub(super) fn finish_whole(self) -> Result<()> {
        let (said, status) = self.finish()?;
        if !status.success() || said.last().map(String::as_str) != Some("whole") {
            bail!("it ended with {status} and said {said:?}");
        }
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks an agent, for as long as it has not yet begun to listen.
pub(super) fn ask(pid: u32, question: Question) -> Result<Answer, AgentError> {
    let mut last = AgentError::Nobody;
    for _ in 0..200 {
        match agent::ask(&Host::live(), pid, question, &mut || true) {
            Err(error @ AgentError::Nobody) => last = error,
            other => return other,
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(last)
}

/// A number of /proc/PID/status.
pub(super) fn status(pid: u32, name: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    text.lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .with_context(|| format!("no {name} of pid {pid}"))
}
