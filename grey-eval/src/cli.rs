//! The command line: which traces, what to print.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use grey_core::event::Verdict;

use crate::criteria;
use crate::generate::{CLASSES, Class, Seeds, generate};
use crate::judge::{self, Said};
use crate::report::{self, Results};
use crate::score::{Outcome, score};
use crate::trace::Trace;
use crate::{baseline, trace};

#[derive(Parser)]
#[command(
    name = "eval",
    about = "Score leak detection on the benchmark",
    version
)]
struct Args {
    /// Which seeds: `tune` to try something out, `test` for the scores that count
    #[arg(long, value_enum, default_value = "test")]
    seeds: Set,
    /// Only classes whose name contains this
    #[arg(long)]
    class: Option<String>,
    /// Score the baselines too
    #[arg(long, value_enum, default_value = "on")]
    baselines: Switch,
    /// One JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// List each wrong trace: what was said, and when
    #[arg(long)]
    verbose: bool,
    /// Print the verdicts of one trace, named as in --verbose (class/seed)
    #[arg(long, value_name = "NAME")]
    trace: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Set {
    Tune,
    Test,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Runs the command line; 1 when a criterion fails.
///
/// # Errors
/// Unknown class or trace, or a file that cannot be read or written.
pub fn run() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(name) = &args.trace {
        return one(name);
    }
    let seeds = match args.seeds {
        Set::Tune => Seeds::Tune,
        Set::Test => Seeds::Test,
    };
    let chosen: Vec<&Class> = CLASSES
        .iter()
        .filter(|class| {
            args.class
                .as_ref()
                .is_none_or(|part| class.name.contains(part.as_str()))
        })
        .collect();
    if chosen.is_empty() {
        let part = args.class.unwrap_or_default();
        let names: Vec<_> = CLASSES.iter().map(|class| class.name).collect();
        bail!(
            "no class has `{part}` in its name; there are: {}",
            names.join(", ")
        );
    }
    let begun = Instant::now();
    let baselines = args.baselines == Switch::On;
    let mut results = Results::new(seeds, baselines);
    for class in &chosen {
        for seed in seeds.of(class.count) {
            let trace = generate(class, seed);
            results.samples += trace.points.len() as u64;
            let said = judge::ours(&trace);
            let outcome = score(&trace, &said, true);
            if args.verbose && wrong(&outcome) {
                report::wrong(&trace, &outcome, &said);
            }
            results.ours.push(outcome);
            if baselines {
                for (index, mut judge) in baseline::all().into_iter().enumerate() {
                    let said = judge::other(&mut *judge, &trace);
                    results.others[index].push(score(&trace, &said, false));
                }
            }
        }
    }
    results.took_s = begun.elapsed().as_secs_f64();
    let criteria = criteria::check(&results);
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&report::json(&results, &criteria))?
        );
    } else {
        report::print(&results, &criteria);
    }
    // A part of the classes proves nothing about the whole.
    let failed = args.class.is_none() && criteria.iter().any(|criterion| !criterion.pass);
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn wrong(outcome: &Outcome) -> bool {
    let missed = matches!(outcome.kind, trace::Kind::Leak | trace::Kind::Other) && !outcome.hit;
    missed || outcome.false_alarms > 0 || outcome.cause_right == Some(false)
}

/// The trace of this name.
fn named(name: &str) -> Result<Trace> {
    let parsed = name.split_once('/').and_then(|(class, seed)| {
        let class = CLASSES.iter().find(|known| known.name == class)?;
        Some((class, seed.parse().ok()?))
    });
    let Some((class, seed)) = parsed else {
        bail!("no trace `{name}`: give class/seed as --verbose prints it, like vector/1003");
    };
    Ok(generate(class, seed))
}

fn one(name: &str) -> Result<ExitCode> {
    let trace = named(name)?;
    let said: Said = judge::ours(&trace);
    report::truth(&trace);
    for (at, verdict) in &said.verdicts {
        let verdict: &Verdict = verdict;
        println!("{}", report::verdict(&trace, *at, verdict));
    }
    if said.verdicts.is_empty() {
        println!("nothing was said");
    }
    Ok(ExitCode::SUCCESS)
}
