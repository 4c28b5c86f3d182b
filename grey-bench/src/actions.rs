//! What acting costs: time and CPU of each way to free memory, by GiB freed, and how soon a change is taken back.

mod scene;

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::compare::{Bench, shown};
use crate::pairs::Spread;
use crate::scratch::Scratch;
use crate::swap::Swap;
use scene::{Files, Holder};

pub use scene::hold;

/// What a target holds, and how much of it is taken.
const HELD_MIB: usize = 96;
const TAKEN: &str = "64M";
/// Where xtask puts what the guest gets besides.
const AGENT: &str = "/programs/libgrey_release.so";
const SERVICE: &str = "/programs/buffers.py";
const PYTHON: &str = "/debian/usr/bin/python3.11";
/// Times that a way to free memory is measured at most: where processors are emulated, each takes seconds.
const MOST: usize = 10;
/// Rollbacks at least.
const LEAST_ROLLBACKS: usize = 10;
const GIB: f64 = (1_u64 << 30) as f64;

/// `enforce` and `rollback`, in a cgroup of their own, whose CPU time is theirs and their helpers'.
struct Actor<'a> {
    bench: &'a Bench,
    cgroup: Cgroup,
    state: Scratch,
}

/// What a command took.
struct Taken {
    /// From its start to its end.
    seconds: f64,
    cpu: f64,
    /// The last `outcome` it told, if any.
    outcome: Option<Value>,
}

impl<'a> Actor<'a> {
    fn new(bench: &'a Bench) -> Result<Actor<'a>> {
        let state = Scratch::new("actions")?;
        std::fs::write(state.path().join("config.toml"), "")?;
        Ok(Actor {
            bench,
            cgroup: Cgroup::new("actor")?,
            state,
        })
    }

    /// Runs a command about `target`, whose own CPU time counts too: what frees may be in it.
    fn run(&self, target: &Cgroup, words: &[&str]) -> Result<Taken> {
        let mut command = Command::new(&self.bench.grey_ebpf);
        self.cgroup.hold(&mut command)?;
        command
            .args(words)
            .arg("--state-dir")
            .arg(self.state.path())
            .arg("--config")
            .arg(self.state.path().join("config.toml"));
        let used = || Ok::<_, anyhow::Error>(self.cgroup.cpu_seconds()? + target.cpu_seconds()?);
        let (before, begun) = (used()?, Instant::now());
        let output = command.output().context("grey-ebpf")?;
        let seconds = begun.elapsed().as_secs_f64();
        ensure!(
            output.status.success(),
            "{}: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(Taken {
            seconds,
            cpu: used()? - before,
            outcome: outcome(&String::from_utf8_lossy(&output.stdout)),
        })
    }
}

/// The last `outcome` of NDJSON.
fn outcome(lines: &str) -> Option<Value> {
    lines
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|event| event["type"] == "outcome")
        .map(|mut event| event["outcome"].take())
}

/// Figures of one action, time after time.
#[derive(Default)]
struct Freed {
    mib: Vec<f64>,
    seconds_a_gib: Vec<f64>,
    cpu_a_gib: Vec<f64>,
    command: Vec<f64>,
}

impl Freed {
    fn add(&mut self, taken: &Taken) -> Result<()> {
        let outcome = taken.outcome.as_ref().context("no outcome was told")?;
        let freed = outcome["freed_bytes"].as_f64().context("no freed_bytes")?;
        let took = outcome["took_us"].as_f64().context("no took_us")? / 1e6;
        ensure!(freed > 0.0, "nothing was freed: {outcome}");
        self.mib.push(freed / f64::from(1 << 20));
        self.seconds_a_gib.push(took * GIB / freed);
        self.cpu_a_gib.push(taken.cpu * GIB / freed);
        self.command.push(taken.seconds * 1e3);
        Ok(())
    }

    fn row(self, name: &str) -> Result<String> {
        let count = self.mib.len();
        let all = [
            (self.mib, 0),
            (self.seconds_a_gib, 2),
            (self.cpu_a_gib, 2),
            (self.command, 0),
        ];
        let mut row = format!("| {name} | {count} |");
        for (figures, digits) in all {
            let spread = Spread::of(figures).context("no rounds")?;
            row.push_str(&format!(" {} |", shown(spread, digits)));
        }
        Ok(row + "\n")
    }
}

/// A way to free memory, from a target of its own.
type Once = fn(&Actor<'_>) -> Result<Taken>;

/// The table.
///
/// # Errors
/// No memory controller, or no cgroup can be made.
pub fn table(bench: &Bench) -> Result<String> {
    let actor = Actor::new(bench)?;
    let rounds = bench.rounds.clamp(1, MOST);
    let mut out = format!(
        "## Actions\n\n\
         A process holds {HELD_MIB} MiB, half of each page random, and swap is on zram. Seconds and CPU are by GiB freed: seconds of the action itself (`took_us` of its outcome), \
         CPU of the command in all with its helpers and its start, of the kernel on their behalf, and of the target; the last column is the command from start to end.\n\n\
         | action | n | MiB freed | s a GiB | CPU s a GiB | command, ms |\n|---|---|---|---|---|---|\n"
    );
    let mut left_out = String::new();
    let ways: [(&str, Once); 4] = [
        ("`enforce reclaim --file-only`", reclaim_file),
        ("`enforce reclaim`, to zram", reclaim),
        ("`enforce pageout --all`, to zram", pageout),
        ("`enforce trim --no-collector`, of Python on glibc", trim),
    ];
    for (name, once) in ways {
        let mut freed = Freed::default();
        let measured = (0..rounds).try_for_each(|round| {
            eprintln!("  {name}, round {} of {rounds}", round + 1);
            freed.add(&once(&actor)?)
        });
        match measured {
            Ok(()) => out.push_str(&freed.row(name)?),
            Err(error) => left_out.push_str(&format!("\nNot measured: {name}: {error:#}.\n")),
        }
    }
    out.push_str(&left_out);
    match changes(&actor, bench.rounds.max(LEAST_ROLLBACKS)) {
        Ok(changes) => out.push_str(&changes),
        Err(error) => out.push_str(&format!("\nNot measured: rollback: {error:#}.\n")),
    }
    Ok(out)
}

fn reclaim_file(actor: &Actor<'_>) -> Result<Taken> {
    let files = Files::mount()?;
    let target = Cgroup::new("target")?;
    let _holder = Holder::reader(&target, &files.large(), HELD_MIB)?;
    actor.run(
        &target,
        &[
            "enforce",
            "reclaim",
            &target.name(),
            TAKEN,
            "--file-only",
            "--json",
        ],
    )
}

fn reclaim(actor: &Actor<'_>) -> Result<Taken> {
    let _swap = Swap::on(256 << 20)?;
    let target = Cgroup::new("target")?;
    let _holder = Holder::start(&target, HELD_MIB)?;
    actor.run(
        &target,
        &["enforce", "reclaim", &target.name(), TAKEN, "--json"],
    )
}

fn pageout(actor: &Actor<'_>) -> Result<Taken> {
    let _swap = Swap::on(256 << 20)?;
    let target = Cgroup::new("target")?;
    let holder = Holder::start(&target, HELD_MIB)?;
    let pid = holder.pid().to_string();
    actor.run(
        &target,
        &[
            "enforce", "pageout", &pid, "--all", "--max", TAKEN, "--json",
        ],
    )
}

fn trim(actor: &Actor<'_>) -> Result<Taken> {
    for file in [AGENT, SERVICE, PYTHON] {
        ensure!(std::path::Path::new(file).exists(), "no {file} here");
    }
    let target = Cgroup::new("target")?;
    let mut service = Command::new(PYTHON);
    service
        .env("LD_PRELOAD", AGENT)
        .args([SERVICE, "0", &HELD_MIB.to_string()]);
    let holder = Holder::of(&target, service)?;
    let pid = holder.pid().to_string();
    actor.run(
        &target,
        &["enforce", "trim", &pid, "--no-collector", "--json"],
    )
}

/// A limit that is set and kept, and taken back.
fn changes(actor: &Actor<'_>, rounds: usize) -> Result<String> {
    let target = Cgroup::new("target")?;
    let name = target.name();
    let _holder = Holder::start(&target, 1)?;
    let (mut set, mut back, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    let (mut dry, mut dry_cpu) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        eprintln!("  limit and rollback, round {} of {rounds}", round + 1);
        let only_told = ["enforce", "limit", &name, "--high", "512M", "--dry-run"];
        let told = actor.run(&target, &only_told)?;
        dry.push(told.seconds * 1e3);
        dry_cpu.push(told.cpu * 1e3);
        let done = actor.run(
            &target,
            &["enforce", "limit", &name, "--high", "512M", "--json"],
        )?;
        ensure!(
            target.read("memory.high")?.trim() == "536870912",
            "the limit is not there"
        );
        let undone = actor.run(&target, &["rollback"])?;
        ensure!(
            target.read("memory.high")?.trim() == "max",
            "the limit is still there"
        );
        set.push(done.seconds * 1e3);
        back.push(undone.seconds * 1e3);
        cpu.push(undone.cpu * 1e3);
    }
    let shown = |figures: Vec<f64>| -> Result<String> {
        Ok(shown(Spread::of(figures).context("no rounds")?, 0))
    };
    Ok(format!(
        "\n| of {rounds} | ms |\n|---|---|\n\
         | `enforce limit --dry-run`, which changes nothing: what any command takes | {} |\n\
         | CPU of it | {} |\n\
         | `enforce limit --high`, kept: journal, guard, write, look | {} |\n\
         | `rollback`: from its start until the old value is back and it has ended | {} |\n\
         | CPU of `rollback` | {} |\n",
        shown(dry)?,
        shown(dry_cpu)?,
        shown(set)?,
        shown(back)?,
        shown(cpu)?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"{"type":"action","action":{"id":1}}
{"type":"outcome","outcome":{"freed_bytes":67108864,"took_us":250000}}
"#;

    #[test]
    fn figures_are_by_gib_freed() {
        let taken = Taken {
            seconds: 0.5,
            cpu: 0.125,
            outcome: outcome(LINES),
        };
        let mut freed = Freed::default();
        freed.add(&taken).unwrap();
        assert_eq!(
            freed.row("reclaim").unwrap(),
            "| reclaim | 1 | 64 [64, 64] | 4.00 [4.00, 4.00] | 2.00 [2.00, 2.00] | 500 [500, 500] |\n"
        );
    }

    #[test]
    fn what_freed_nothing_has_no_figure_by_gib() {
        let none = outcome(&LINES.replace("67108864", "0"));
        let taken = Taken {
            seconds: 0.5,
            cpu: 0.1,
            outcome: none,
        };
        assert!(Freed::default().add(&taken).is_err());
        assert!(outcome("not JSON\n").is_none());
    }
}
