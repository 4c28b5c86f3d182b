//! The kernel's own statistics of what a program takes: a cross-check of what a load finds.

use std::collections::HashMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};

use crate::beside::Around;
use crate::compare::{Bench, Loaded, Variant, shown, to_be_had};
use crate::load::Load;
use crate::pairs::{Spread, order};

/// Runs below this are not of the load.
const RUNS: u64 = 10_000;

/// Nanoseconds and runs of each loaded program by its id, with its name.
fn programs() -> HashMap<u32, (String, u64, u64)> {
    loaded_programs()
        .filter_map(Result::ok)
        .map(|info| {
            let name = info.name_as_str().unwrap_or("?").to_owned();
            let nanoseconds = info.run_time().as_nanos() as u64;
            (info.id(), (name, nanoseconds, info.run_count()))
        })
        .collect()
}

impl Bench {
    /// The time that each variant's programs take in a run, with the kernel's reading of its clock.
    ///
    /// # Errors
    /// The kernel keeps no statistics (5.8), or the load does not run.
    pub fn run_times(&self, load: Load, variants: &[Variant]) -> Result<String> {
        let _statistics = enable_stats(Stats::RunTime).context("BPF_ENABLE_STATS")?;
        let around = Around::new(&self.grey_ebpf)?;
        let (variants, left_out) = to_be_had(&around, variants);
        let mut times: Vec<Vec<(String, Vec<f64>)>> = vec![Vec::new(); variants.len()];
        for round in 0..self.rounds {
            for at in order(round, variants.len()) {
                let _running = variants[at].beside.start(&around)?;
                let before = programs();
                Loaded::start(&around, load, 1, load.count())?.measure()?;
                for (id, (name, time, runs)) in programs() {
                    let (_, time_before, runs_before) =
                        before.get(&id).cloned().unwrap_or_default();
                    let runs = runs.saturating_sub(runs_before);
                    if runs < RUNS {
                        continue;
                    }
                    let one = time.saturating_sub(time_before) as f64 / runs as f64;
                    let known = &mut times[at];
                    match known.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, figures)) => figures.push(one),
                        None => known.push((name, vec![one])),
                    }
                }
            }
        }
        let mut out = String::from("| beside | program | ns a run |\n|---|---|---|\n");
        for (variant, programs) in variants.iter().zip(times) {
            for (program, figures) in programs {
                let spread = Spread::of(figures).context("no rounds")?;
                let _ = writeln!(
                    out,
                    "| {} | {program} | {} |",
                    variant.name,
                    shown(spread, 0)
                );
            }
        }
        for variant in left_out {
            let _ = write!(out, "{variant}");
        }
        Ok(out)
    }
}
