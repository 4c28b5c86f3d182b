//! `cargo xtask bench`: what grey-ebpf costs, side by side with what else one would use, as Markdown on stdout.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};

mod beside;
mod compare;
mod controller;
mod empty;
mod load;
mod machine;
mod pairs;
mod probes;
mod start;
mod stats;

use compare::Bench;

#[derive(Parser)]
#[command(name = "cargo xtask bench", about, version)]
struct Args {
    /// Only these tables
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Table>,
    /// How often each variant is measured
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// The program under test; the one beside this by default
    #[arg(long, value_name = "FILE")]
    grey_ebpf: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(clap::Subcommand)]
enum Part {
    /// One load by itself: nanoseconds of one
    #[command(hide = true)]
    Load { words: Vec<String> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Table {
    /// Page faults
    Faults,
    /// Page faults by the kernel's own statistics
    Times,
    /// System calls
    Calls,
    /// Start, size, and what it takes at rest
    Start,
    /// CPU and memory by number of cgroups
    Controller,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args = Args::parse();
    if let Some(Part::Load { words }) = &args.part {
        return load::main(words);
    }
    let beside = || -> Result<PathBuf> {
        let own = std::env::current_exe()?;
        Ok(own.with_file_name("grey-ebpf"))
    };
    let bench = Bench {
        grey_ebpf: args.grey_ebpf.clone().map_or_else(beside, Ok)?,
        rounds: args.rounds.into(),
    };
    println!(
        "Measured on {}; {} rounds, each variant once in a round, in changing order. \
         Figures are medians with their 95 % interval; ratios and differences are within a round.\n",
        machine::described(),
        bench.rounds
    );
    type Measure = fn(&Bench) -> Result<String>;
    let tables: [(Table, Measure); 5] = [
        (Table::Faults, probes::faults),
        (Table::Times, probes::times),
        (Table::Calls, probes::calls),
        (Table::Start, start::table),
        (Table::Controller, controller::table),
    ];
    for (table, measure) in tables {
        if args.only.is_empty() || args.only.contains(&table) {
            eprintln!("{table:?}");
            println!("{}", measure(&bench).with_context(|| format!("{table:?}"))?);
        }
    }
    Ok(())
}
