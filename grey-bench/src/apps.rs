//! Applications with and without `grey-ebpf daemon` beside them: the same work again and again, in pairs; and beside empty
//! programs, which says what of it is eBPF's own.

mod postgres;
mod programs;
mod redis;
mod server;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::beside::{Around, Beside, daemon};
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

/// Tracepoints with programs of the default probe set that an application comes by (docs/kernels.md); sched_process_exit has two.
const HOOKS: [&str; 6] = [
    "page_fault_user",
    "page_fault_kernel",
    "sched_process_exec",
    "sched_process_exit",
    "sched_process_exit",
    "cgroup_attach_task",
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
    let besides = [
        Beside::Nothing,
        Beside::Empty(&HOOKS),
        Beside::Ours(daemon(state.path())?),
    ];
    let around = Around::new(&bench.grey_ebpf)?;
    let mut out = format!(
        "## Applications\n\n\
         With and without `grey-ebpf daemon` as it comes, which observes, and beside empty programs on the tracepoints that an application \
         comes by; {} rounds of the three, whose order changes. CPU is user and system time of all processes of the application, client \
         and server, by the cpu.stat of their cgroup. A ratio above 1 is more CPU an operation, and fewer operations a second.\n\n\
         | application | one | CPU without, µs | CPU, empty programs | CPU, daemon | CPU, daemon to empty programs | time, daemon |\n\
         |---|---|---|---|---|---|---|\n",
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
        let row = measured(bench, &entry, &around, &besides);
        match row {
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
fn measured(
    bench: &Bench,
    entry: &Entry,
    around: &Around<'_>,
    besides: &[Beside; 3],
) -> Result<String> {
    const WITHOUT: usize = 0;
    const EMPTY: usize = 1;
    const DAEMON: usize = 2;
    let scene = Scene::new()?;
    let mut application = (entry.prepare)(&scene)?;
    application.burst().context("the first burst")?;
    let (mut cpu, mut time) = (Rounds::default(), Rounds::default());
    for round in 0..bench.rounds {
        let (mut cpu_of, mut time_of) = (vec![0.0; besides.len()], vec![0.0; besides.len()]);
        for at in order(round, besides.len()) {
            let running = besides[at].settled(around)?;
            let (before, begun) = (scene.cgroup.cpu_seconds()?, Instant::now());
            let operations = application.burst()?;
            time_of[at] = begun.elapsed().as_secs_f64() / operations;
            cpu_of[at] = (scene.cgroup.cpu_seconds()? - before) / operations;
            drop(running);
        }
        cpu.0.push(cpu_of);
        time.0.push(time_of);
    }
    drop(application);
    let without = cpu.of(WITHOUT).context("no rounds")?.scaled(1e6);
    let digits = if without.median < 100.0 { 2 } else { 0 };
    let to = |rounds: &Rounds, of, base| rounds.ratio(of, base).context("no rounds");
    let ratio = |rounds: &Rounds, of| to(rounds, of, WITHOUT);
    Ok(format!(
        "| {} | {} | {} | {} | {} | {} | {} |\n",
        entry.name,
        entry.operation,
        shown(without, digits),
        shown(ratio(&cpu, EMPTY)?, 3),
        shown(ratio(&cpu, DAEMON)?, 3),
        shown(to(&cpu, DAEMON, EMPTY)?, 3),
        shown(ratio(&time, DAEMON)?, 3)
    ))
}
