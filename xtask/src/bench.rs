//! `cargo xtask bench`: builds the benchmark of costs and the program optimised, runs it here, and then in a guest for what
//! acts on memory or needs the memory controller.

use std::io::Write as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::vm::{Machines, Payload, Piece, REQUIRED, VmOptions};

/// What is measured there wants room: for a thousand cgroups, and for what is to be freed.
const MEMORY_MIB: u32 = 3072;
/// An emulated guest with all its tables.
const TOTAL: Duration = Duration::from_secs(3600);
/// At the start of the guest's lines of progress, which come by the same way as its tables.
const PROGRESS: &str = "~ ";

pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    let asks = |words: &[&str]| args.iter().any(|arg| words.contains(&arg.as_str()));
    let only_told = asks(&["--help", "-h", "--version", "-V"]);
    ensure!(
        rustix::process::geteuid().is_root() || only_told,
        "the benchmark attaches eBPF programs: run it as root"
    );
    let options = VmOptions {
        no_build: asks(&["--no-build"]),
        ..VmOptions::default()
    };
    if !options.no_build {
        crate::build_release(&["grey-bench", "grey-eval", "grey-user"])?;
    }
    let mut here = bench(args);
    if only_told {
        return crate::become_program(here);
    }
    let status = here.status().context("run the benchmark")?;
    let code = u8::try_from(status.code().unwrap_or(1)).unwrap_or(1);
    // 2 is a usage error, which the guest need not tell again.
    if code == 2 {
        return Ok(ExitCode::from(code));
    }
    let words = guest_words(args)?;
    if words.is_empty() {
        return Ok(ExitCode::from(code));
    }
    match in_guest(&words, &options) {
        Ok(0) => Ok(ExitCode::from(code)),
        Ok(_) => Ok(ExitCode::FAILURE),
        Err(error) => {
            println!("# In the guest\n\nNot measured: {error:#}.");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn bench(args: &[String]) -> Command {
    let mut command = Command::new(crate::target().join("release/grey-bench"));
    command.args(args);
    command
}

/// What the guest has to be asked for; the benchmark itself knows.
fn guest_words(args: &[String]) -> Result<String> {
    let output = bench(args)
        .arg("--guest-words")
        .output()
        .context("run the benchmark")?;
    ensure!(
        output.status.success(),
        "the benchmark does not say what it wants of a guest"
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn in_guest(words: &str, options: &VmOptions) -> Result<i32> {
    let root = crate::workspace();
    let mut machines = Machines::prepare(&root, options)?;
    machines.add_package(&root, "grey-bench")?;
    // For `enforce trim`: the agent, and a service that holds what it has freed.
    machines.add_file(crate::release_agent::build(&root)?);
    machines.add_file(root.join("tests/programs/buffers.py"));
    machines.with_memory(MEMORY_MIB);
    let kernel = machines.kernel(REQUIRED)?;
    let payload = Payload::Command(script(words));
    eprintln!("a guest with Linux {REQUIRED}");
    let mut lines = Lines::default();
    let run = machines.run(REQUIRED, &kernel, &payload, TOTAL, |piece| {
        if let Piece::Raw(bytes) = piece {
            lines.feed(bytes, tell);
        }
    })?;
    run.ended
}

/// Tables on stdout as they are, progress marked as such; the exit code is the benchmark's.
fn script(words: &str) -> String {
    format!(
        "set -o pipefail; exec 3>&1; \
         /programs/grey-bench --grey-ebpf /bin/grey-ebpf {words} 2>&1 >&3 3>&- | sed 's/^/{PROGRESS}/'"
    )
}

/// Progress to stderr, the rest to stdout.
fn tell(line: &str) {
    match line.strip_prefix(PROGRESS) {
        Some(progress) => eprintln!("{progress}"),
        None => {
            // A closed pipe is the reader's wish.
            let _ = writeln!(std::io::stdout(), "{line}");
        }
    }
}

/// Output in whole lines.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8], mut on_line: impl FnMut(&str)) {
        for &byte in bytes {
            if byte == b'\n' {
                on_line(&String::from_utf8_lossy(&self.begun));
                self.begun.clear();
            } else {
                self.begun.push(byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_come() {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for piece in ["| a |\n~ ro", "und 1\n", "| b", " |\n"] {
            lines.feed(piece.as_bytes(), |line| seen.push(line.to_owned()));
        }
        assert_eq!(seen, ["| a |", "~ round 1", "| b |"]);
    }
}
