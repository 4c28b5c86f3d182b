//! The command line: which traces, what to print.

use std::collections::HashMap;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use grey_core::time::Timestamp;

use crate::generate::{CLASSES, Class, Seeds, generate};
use crate::judge::Said;
use crate::report::{self, Results};
use crate::score::{Outcome, score};
use crate::trace::{Kind, Trace};
use crate::{baseline, cost, criteria, export, judge, recorded};

#[derive(Parser)]
#[command(
    name = "cargo xtask eval",
    about = "Score leak detection on the benchmark",
    version
)]
struct Args {
    /// Which seeds: `tune` to try something out, `test` for the scores that count
    #[arg(long, value_enum, default_value = "test")]
    seeds: Set,
    /// So many times the traces of each class: for what is rare
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=Seeds::MOST_TIMES))]
    times: u64,
    /// Only classes whose name contains this; `recorded` for the recorded series alone
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
    /// Print the verdicts of one trace, named as in --verbose (class/seed) or in the table of the recorded ones
    #[arg(long, value_name = "NAME")]
    trace: Option<String>,
    /// Write the traces as NDJSON (gzip) with labels.json into this directory instead of scoring
    #[arg(long, value_name = "DIR")]
    export: Option<PathBuf>,
    /// Score another detector too: a JSON object of trace names (class/seed) and lists of the times of its alarms
    #[arg(long, value_name = "FILE")]
    alarms: Vec<PathBuf>,
    /// Directory of the recorded series
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/data"))]
    data: PathBuf,
    /// Measure samples a second and bytes a series instead of scoring
    #[arg(long)]
    cost: bool,
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

/// Runs the command line; 1 when a criterion fails. `held` tells the bytes of heap in use.
///
/// # Errors
/// Unknown class or trace, or a file that cannot be read or written.
pub fn run(held: fn() -> usize) -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(name) = &args.trace {
        return one(name, &args.data);
    }
    if args.cost {
        let cost = cost::measure(held);
        if args.json {
            show(&(serde_json::to_string_pretty(&cost)? + "\n"))?;
            return Ok(ExitCode::SUCCESS);
        }
        let (text, pass) = cost::text(&cost);
        show(&text)?;
        return Ok(if pass {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    let seeds = match args.seeds {
        Set::Tune => Seeds::Tune,
        Set::Test => Seeds::Test,
    };
    let chosen = chosen(args.class.as_deref())?;
    if let Some(directory) = &args.export {
        return write(directory, seeds, &chosen);
    }
    let results = scores(&args, seeds, &chosen)?;
    let criteria = criteria::check(&results);
    if args.json {
        show(&(serde_json::to_string_pretty(&report::object(&results, &criteria))? + "\n"))?;
    } else {
        show(&report::text(&results, &criteria))?;
    }
    // A part of the classes proves nothing about the whole.
    let failed = args.class.is_none() && criteria.iter().any(|criterion| !criterion.pass);
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn chosen(part: Option<&str>) -> Result<Vec<&'static Class>> {
    let Some(part) = part else {
        return Ok(CLASSES.iter().collect());
    };
    let chosen: Vec<_> = CLASSES
        .iter()
        .filter(|class| class.name.contains(part))
        .collect();
    if chosen.is_empty() && part != "recorded" {
        let names: Vec<_> = CLASSES.iter().map(|class| class.name).collect();
        bail!(
            "no class has `{part}` in its name; there are: {}, recorded",
            names.join(", ")
        );
    }
    Ok(chosen)
}

/// Somebody's alarms: trace names and times.
type Alarms = HashMap<String, Vec<Timestamp>>;

fn scores(args: &Args, seeds: Seeds, chosen: &[&Class]) -> Result<Results> {
    let baselines = args.baselines == Switch::On;
    let mut given: Vec<Alarms> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    if baselines {
        names.extend(baseline::all().iter().map(|judge| judge.name().to_owned()));
    }
    for path in &args.alarms {
        let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        given.push(serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} is not an object of trace names and times (RFC 3339)",
                path.display()
            )
        })?);
        names.push(
            path.file_stem()
                .map_or("given".into(), |stem| stem.to_string_lossy().into()),
        );
    }
    let begun = Instant::now();
    let mut results = Results::new(seeds, &names);
    for class in chosen {
        for seed in seeds.of(args.times * class.count) {
            let trace = generate(class, seed);
            results.samples += trace.points.len() as u64;
            let said = judge::ours(&trace);
            let outcome = score(&trace, &said, true);
            if args.verbose && wrong(&outcome) {
                report::wrong(&trace, &outcome, &said);
            }
            results.ours.push(outcome);
            let mut others = Vec::new();
            if baselines {
                others.extend(
                    baseline::all()
                        .into_iter()
                        .map(|mut judge| judge::other(&mut *judge, &trace)),
                );
            }
            others.extend(
                given
                    .iter()
                    .map(|alarms| judge::given(alarms.get(&trace.name).map_or(&[], Vec::as_slice))),
            );
            for ((_, outcomes), said) in results.others.iter_mut().zip(&others) {
                outcomes.push(score(&trace, said, false));
            }
        }
    }
    if args
        .class
        .as_ref()
        .is_none_or(|part| "recorded".contains(part.as_str()))
    {
        results.recorded = recorded::run(&args.data, baselines)?;
    }
    results.took_s = begun.elapsed().as_secs_f64();
    Ok(results)
}

fn wrong(outcome: &Outcome) -> bool {
    let missed = matches!(outcome.kind, Kind::Leak | Kind::Other) && !outcome.hit;
    missed || outcome.false_alarms > 0 || outcome.cause_right == Some(false)
}

fn write(directory: &Path, seeds: Seeds, chosen: &[&Class]) -> Result<ExitCode> {
    std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let mut labels = Vec::new();
    for class in chosen {
        for seed in seeds.of(class.count) {
            labels.push(export::write(directory, &generate(class, seed))?);
        }
    }
    export::write_labels(directory, &labels)?;
    show(&format!(
        "{} traces in {}\n",
        labels.len(),
        directory.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// A synthetic trace by class and seed, or a recorded one by file and cgroup, and what is said of it.
fn named(name: &str, data: &Path) -> Result<(Trace, Said)> {
    let synthetic = name.split_once('/').and_then(|(class, seed)| {
        let class = CLASSES.iter().find(|known| known.name == class)?;
        Some(generate(class, seed.parse().ok()?))
    });
    if let Some(trace) = synthetic {
        let said = judge::ours(&trace);
        return Ok((trace, said));
    }
    let Some(found) = recorded::named(data, name)? else {
        bail!(
            "no trace `{name}`: give class/seed as --verbose prints it, like vector/1003, or file and cgroup of a \
             recorded series, like \"slow /rec/c-leak\""
        );
    };
    Ok(found)
}

fn one(name: &str, data: &Path) -> Result<ExitCode> {
    let (trace, said) = named(name, data)?;
    let mut text = report::truth(&trace) + "\n";
    for (at, verdict) in &said.verdicts {
        text += &report::verdict(&trace, *at, verdict);
        text.push('\n');
    }
    if said.verdicts.is_empty() {
        text += "nothing was said\n";
    }
    show(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes to stdout; who reads it may stop doing so.
fn show(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("write to stdout")
        }
        _ => Ok(()),
    }
}
