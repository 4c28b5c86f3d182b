//! What the agent costs a program while it sleeps, by pairs of runs with and without it. A measurement, and no test of a
//! machine that others use as well: with GREY_ALL=1 alone.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::harness::{Outcome, Trial};

use super::guest::{Bench, absent, library};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        Trial::new("native_release_asleep_it_costs_no_percent", asleep)
            .on_request()
            .with_deadline(Duration::from_secs(900)),
    ]
}

/// Runs of each.
const PAIRS: usize = 31;
const PYTHON: &str = "import time
begin = time.process_time_ns()
for turn in range(12):
    held = [bytes([turn]) * (600 + at % 1900) for at in range(60000)]
    kept = held[::500]
    table = {str(at): [at] for at in range(60000)}
print(time.process_time_ns() - begin)";

/// CPU nanoseconds that the program says it took.
fn run(program: &[&str], preload: Option<&Path>) -> Result<f64> {
    let (name, args) = program.split_first().context("no program")?;
    let mut command = Command::new(name);
    command.args(args);
    if let Some(library) = preload {
        command.env("LD_PRELOAD", library);
    }
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.trim()
        .parse()
        .with_context(|| format!("{program:?} said {text:?}"))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn asleep() -> Result<Outcome> {
    let bench = Bench::new("release-speed")?;
    if bench.c("lives", &[])?.is_none() {
        return absent("cc");
    }
    let lives = bench.scratch.argument("lives")?;
    let library = library()?;
    let programs: [&[&str]; 3] = [
        &[&lives, "allocate"],
        &[&lives, "print"],
        &["/usr/bin/python3", "-c", PYTHON],
    ];
    for program in programs {
        let mut ratios = Vec::new();
        for turn in 0..PAIRS {
            let plain_first = turn % 2 == 0;
            let first = run(program, (!plain_first).then_some(library.as_path()))?;
            let second = run(program, plain_first.then_some(library.as_path()))?;
            ratios.push(if plain_first {
                second / first
            } else {
                first / second
            });
        }
        let more = (median(ratios) - 1.0) * 100.0;
        println!("{} {}: {more:+.2} %", program[0], program[1]);
        ensure!(more < 1.0, "{program:?}: {more:.2} % slower");
    }
    Ok(Outcome::Passed)
}
