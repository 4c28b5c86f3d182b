//! Applications with and without `grey-ebpf daemon` beside them: the same work again and again, in pairs.

mod postgres;
mod programs;
mod redis;
mod server;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::beside::Process;
use crate::cgroup::Cgroup;
use crate::compare::{Bench, shown};
use crate::pairs::{Rounds, order};
use crate::scratch::Scratch;

/// An application that is ready to work.
trait Application {
    /// A burst of one to three seconds, the same each time: how many operations that was.
    fn burst(&mut self) -> Result<f64>;
}

/// How one is made ready.
type Prepare = fn(&Scene) -> Result<Box<dyn Application>>;

/// An application as the table has it.
struct Entry {
    name: &'static str,
    /// What one of its operations is.
    operation: &'static str,
    /// Programs that it takes, and the Debian package that each is in.
    needs: &'static [(&'static str, &'static str)],
    prepare: Prepare,
}

const REDIS: &[(&str, &str)] = &[
    ("redis-server", "redis-server"),
    ("redis-benchmark", "redis-tools"),
];
const POSTGRES: &[(&str, &str)] = &[("pgbench", "postgresql")];
const STRESS: &[(&str, &str)] = &[("stress-ng", "stress-ng")];

const ENTRIES: [Entry; 8] = [
    Entry {
        name: "redis-benchmark, SET and GET of 64 bytes",
        operation: "request",
        needs: REDIS,
        prepare: redis::prepare,
    },
    Entry {
        name: "pgbench, select",
        operation: "transaction",
        needs: POSTGRES,
        prepare: postgres::kept,
    },
    Entry {
        name: "pgbench, select, a connection each",
        operation: "transaction",
        needs: POSTGRES,
        prepare: postgres::anew,
    },
    Entry {
        name: "cc -O1 of 300 functions",
        operation: "file",
        needs: &[("cc", "gcc")],
        prepare: programs::compile,
    },
    Entry {
        name: "Python: 40,000 dicts and 6 MB of buffers, made and dropped",
        operation: "round",
        needs: &[("python3", "python3")],
        prepare: programs::python,
    },
    Entry {
        name: "stress-ng --vm, 64 MiB",
        operation: "bogo-op",
        needs: STRESS,
        prepare: programs::stress_vm,
    },
    Entry {
        name: "stress-ng --malloc",
        operation: "bogo-op",
        needs: STRESS,
        prepare: programs::stress_malloc,
    },
    Entry {
        name: "stress-ng --mmap, 16 MiB",
        operation: "bogo-op",
        needs: STRESS,
        prepare: programs::stress_mmap,
    },
];

/// Where an application lives: a cgroup, whose CPU time is measured, and a directory.
struct Scene {
    cgroup: Cgroup,
    directory: Scratch,
}

impl Scene {
    fn new() -> Result<Scene> {
        Ok(Scene {
            cgroup: Cgroup::new("app")?,
            directory: Scratch::new("app")?,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A program that will run in the cgroup and in the directory, with nothing to read.
    fn command(&self, program: impl AsRef<Path>) -> Result<Command> {
        let mut command = Command::new(program.as_ref());
        self.cgroup.hold(&mut command)?;
        command
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        Ok(command)
    }
}

/// The output of a program that has to succeed.
fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| program.clone())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let line = errors.lines().chain(text.lines()).last();
        bail!("{program}: {}", line.unwrap_or("no message"));
    }
    // Some tell their figures there.
    Ok(text + &String::from_utf8_lossy(&output.stderr))
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .any(|directory| directory.join(program).is_file())
}

/// The table.
///
/// # Errors
/// No cgroup can be made, or `daemon` does not start.
pub fn table(bench: &Bench) -> Result<String> {
    let state = Scratch::new("state")?;
    let config = state.path().join("config.toml");
    fs::write(&config, "")?;
    let mut out = format!(
        "## Applications\n\n\
         With and without `grey-ebpf daemon` as it comes, which observes; {} pairs, whose order alternates. CPU is user and system time \
         of all processes of the application, client and server, by the cpu.stat of their cgroup. A ratio above 1 is more CPU an operation, \
         and fewer operations a second.\n\n\
         | application | one | CPU without, µs | CPU, ratio | time, ratio |\n|---|---|---|---|---|\n",
        bench.rounds
    );
    let mut left_out = String::new();
    for entry in ENTRIES {
        eprintln!("  {}", entry.name);
        let missing = entry.needs.iter().find(|(program, _)| !on_path(program));
        if let Some((program, package)) = missing {
            let _ = writeln!(
                left_out,
                "\nNot measured: {}: no {program}: apt-get install {package}.",
                entry.name
            );
            continue;
        }
        let measured = pairs(bench, &entry, &config, state.path());
        match measured {
            Ok(row) => out.push_str(&row),
            Err(error) => {
                eprintln!("  {}: {error:#}", entry.name);
                let _ = writeln!(left_out, "\nNot measured: {}: {error:#}.", entry.name);
            }
        }
    }
    Ok(out + &left_out)
}

/// One application's row.
fn pairs(bench: &Bench, entry: &Entry, config: &Path, state: &Path) -> Result<String> {
    let scene = Scene::new()?;
    let mut application = (entry.prepare)(&scene)?;
    application.burst().context("the first burst")?;
    let (mut cpu, mut time) = (Rounds::default(), Rounds::default());
    for round in 0..bench.rounds {
        let (mut cpu_of, mut time_of) = ([0.0; 2], [0.0; 2]);
        for at in order(round, 2) {
            let daemon = (at == 1)
                .then(|| daemon(bench, config, state))
                .transpose()?;
            let (before, begun) = (scene.cgroup.cpu_seconds()?, Instant::now());
            let operations = application.burst()?;
            time_of[at] = begun.elapsed().as_secs_f64() / operations;
            cpu_of[at] = (scene.cgroup.cpu_seconds()? - before) / operations;
            drop(daemon);
        }
        cpu.0.push(cpu_of.to_vec());
        time.0.push(time_of.to_vec());
    }
    drop(application);
    let without = cpu.of(0).context("no rounds")?.scaled(1e6);
    let digits = if without.median < 100.0 { 2 } else { 0 };
    let ratio = |rounds: &Rounds| rounds.ratio(1, 0).context("no rounds");
    Ok(format!(
        "| {} | {} | {} | {} | {} |\n",
        entry.name,
        entry.operation,
        shown(without, digits),
        shown(ratio(&cpu)?, 3),
        shown(ratio(&time)?, 3)
    ))
}

/// Ready with its first line.
fn daemon(bench: &Bench, config: &Path, state: &Path) -> Result<Process> {
    let mut command = Command::new(&bench.grey_ebpf);
    command
        .arg("daemon")
        .arg("--config")
        .arg(config)
        .arg("--state-dir")
        .arg(state);
    Process::start(command, "")
}
