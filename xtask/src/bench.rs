//! `cargo xtask bench`: builds the benchmark of costs and the program optimised, runs it here, and then in a guest for what
//! acts on memory or needs the memory controller.

use std::io::Write as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::vm::{Machines, Payload, Piece, REQUIRED, Record, VmOptions};

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
    let measured = in_guest(&words, &options).unwrap_or_else(|error| {
        println!("# In the guest\n\nNot measured: {error:#}.");
        true
    });
    Ok(if measured {
        ExitCode::from(code)
    } else {
        ExitCode::FAILURE
    })
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

/// Prints the guest's tables; false where it measured not all of them. An error is a guest that cannot be had.
fn in_guest(words: &str, options: &VmOptions) -> Result<bool> {
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
    let (mut lines, mut tables, mut booted) = (Lines::default(), Vec::new(), false);
    let run = machines.run(REQUIRED, &kernel, &payload, TOTAL, |piece| match piece {
        // A guest that is started again measures all of it again.
        Piece::Record(Record::Boot { .. }) => {
            tables.clear();
            booted = true;
        }
        Piece::Raw(bytes) => lines.feed(bytes, |line| match line.strip_prefix(PROGRESS) {
            Some(progress) => eprintln!("{progress}"),
            None => tables.push(line.to_owned()),
        }),
        Piece::Record(_) => {}
    });
    let ended = match run.and_then(|run| run.ended) {
        Err(error) if !booted => return Err(error),
        ended => ended,
    };
    let mut stdout = std::io::stdout().lock();
    for line in tables {
        // A closed pipe is the reader's wish.
        let _ = writeln!(stdout, "{line}");
    }
    if let Err(error) = &ended {
        let _ = writeln!(stdout, "Not measured: what is missing here: {error:#}.");
    }
    Ok(matches!(ended, Ok(0)))
}

/// Tables as they are, progress marked as such; the exit code is the benchmark's.
fn script(words: &str) -> String {
    format!(
        "set -o pipefail; exec 3>&1; \
         /programs/grey-bench --grey-ebpf /bin/grey-ebpf {words} 2>&1 >&3 3>&- | sed 's/^/{PROGRESS}/'"
    )
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
