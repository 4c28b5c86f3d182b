//! `cargo xtask bench`: what grey-ebpf costs, side by side with what else one would use, as Markdown on stdout.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};

mod actions;
mod apps;
mod beside;
mod bpf;
mod cgroup;
mod child;
mod compare;
mod controller;
mod detector;
mod empty;
mod events;
mod load;
mod machine;
mod pairs;
mod probes;
mod scratch;
mod start;
mod stats;
mod swap;
mod turns;

use compare::Bench;

const EXAMPLES: &str = "Examples:
  cargo xtask bench > bench.md                      all tables, those of the guest as well
  cargo xtask bench --no-vm                         this machine alone
  cargo xtask bench --only faults,calls --rounds 5  two tables, quickly
  cargo xtask bench --only actions                  what the guest alone measures

Progress goes to stderr. What cannot be had on a machine (a program, a guest) is a line `Not measured` with the reason.";

#[derive(Parser)]
#[command(name = "cargo xtask bench", about, version, after_help = EXAMPLES)]
struct Args {
    /// Only these tables
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Table>,
    /// How often each variant is measured
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// No guest: leave out what acts on memory and what needs memory.* files
    #[arg(long)]
    no_vm: bool,
    /// The guest's tables alone
    #[arg(long, conflicts_with = "no_vm")]
    vm_only: bool,
    /// Use all programs as they were built before
    #[arg(long)]
    no_build: bool,
    /// The program under test; the one beside this by default
    #[arg(long, value_name = "FILE")]
    grey_ebpf: Option<PathBuf>,
    /// Which tables are meant: those of this machine or those of the guest.
    #[arg(long = "where", value_enum, default_value_t = Place::Machine, hide = true)]
    place: Place,
    /// Only prints what the guest has to be asked for: arguments, or nothing where nothing is its.
    #[arg(long, hide = true)]
    guest_words: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(clap::Subcommand)]
enum Part {
    /// One load by itself: nanoseconds of one
    #[command(hide = true)]
    Load { words: Vec<String> },
}

/// Where a table is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Place {
    /// Here, observing only.
    Machine,
    /// In a guest that nobody else uses, with the memory controller in its v2 tree.
    Guest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Table {
    /// Page faults
    Faults,
    /// The page fault's programs by themselves, attached in turn
    Turns,
    /// Page faults by the kernel's own statistics
    Times,
    /// System calls
    Calls,
    /// Start, size, and what it takes at rest
    Start,
    /// CPU and memory by number of cgroups; in the guest with memory.stat
    Controller,
    /// Redis, PostgreSQL, a compiler and others, with and without the daemon
    Apps,
    /// From the kernel to the line: growth and rates here, OOM kills and stalls in the guest
    Events,
    /// Time and CPU of what frees memory, by GiB, and of a rollback; in the guest
    Actions,
    /// Samples a second and bytes a series of the leak detector
    Detector,
}

type Measure = fn(&Bench) -> Result<String>;

impl Table {
    /// In the order of the report.
    const ALL: [Table; 10] = [
        Table::Faults,
        Table::Turns,
        Table::Times,
        Table::Calls,
        Table::Start,
        Table::Controller,
        Table::Apps,
        Table::Events,
        Table::Actions,
        Table::Detector,
    ];

    /// What measures it there; `None` where it is not measured.
    fn measure(self, place: Place) -> Option<Measure> {
        match (self, place) {
            (Table::Faults, Place::Machine) => Some(probes::faults),
            (Table::Turns, Place::Machine) => Some(turns::table),
            (Table::Times, Place::Machine) => Some(probes::times),
            (Table::Calls, Place::Machine) => Some(probes::calls),
            (Table::Start, Place::Machine) => Some(start::table),
            (Table::Controller, Place::Machine) => Some(controller::table),
            (Table::Controller, Place::Guest) => Some(controller::in_guest),
            (Table::Apps, Place::Machine) => Some(apps::table),
            (Table::Events, Place::Machine) => Some(events::on_machine),
            (Table::Events, Place::Guest) => Some(events::in_guest),
            (Table::Actions, Place::Machine) => None,
            (Table::Detector, Place::Machine) => Some(detector::table),
            (Table::Actions, Place::Guest) => Some(actions::table),
            (
                Table::Faults
                | Table::Turns
                | Table::Times
                | Table::Calls
                | Table::Start
                | Table::Apps
                | Table::Detector,
                Place::Guest,
            ) => None,
        }
    }

    /// On the command line and in headings.
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl Args {
    /// The tables that are asked for there.
    fn tables(&self, place: Place) -> impl Iterator<Item = (Table, Measure)> {
        Table::ALL
            .into_iter()
            .filter(move |_| place == Place::Guest || !self.vm_only)
            .filter(|table| self.only.is_empty() || self.only.contains(table))
            .filter_map(move |table| Some((table, table.measure(place)?)))
    }

    /// How the guest's program is called for the same; empty where it has nothing to do.
    fn guest_words(&self) -> String {
        let names: Vec<String> = self
            .tables(Place::Guest)
            .map(|(table, _)| table.name())
            .collect();
        if self.no_vm || names.is_empty() {
            return String::new();
        }
        format!(
            "--where guest --rounds {} --only {}",
            self.rounds,
            names.join(",")
        )
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(Part::Load { words }) = &args.part {
        return load::main(words).map(|()| ExitCode::SUCCESS);
    }
    if args.guest_words {
        println!("{}", args.guest_words());
        return Ok(ExitCode::SUCCESS);
    }
    let beside = || -> Result<PathBuf> {
        let own = std::env::current_exe()?;
        Ok(own.with_file_name("grey-ebpf"))
    };
    let bench = Bench {
        grey_ebpf: args.grey_ebpf.clone().map_or_else(beside, Ok)?,
        rounds: args.rounds.into(),
    };
    let mut tables = args.tables(args.place).peekable();
    if tables.peek().is_some() {
        println!(
            "{}Measured on {}; {} rounds where variants are compared, each once in a round, in changing order. \
             Figures are medians with their 95 % interval; ratios and differences are within a round.{}\n",
            match args.place {
                Place::Machine => "",
                Place::Guest => "# In the guest\n\n",
            },
            machine::described(),
            bench.rounds,
            machine::caution()
        );
    }
    let mut code = ExitCode::SUCCESS;
    for (table, measure) in tables {
        let name = table.name();
        eprintln!("{name}");
        match measure(&bench) {
            Ok(text) => println!("{text}"),
            Err(error) => {
                eprintln!("bench: {name}: {error:#}");
                println!("## {name}\n\nNot measured: {error:#}.\n");
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> String {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        Args::try_parse_from(words).unwrap().guest_words()
    }

    #[test]
    fn the_guest_is_asked_for_its_own_tables_only() {
        assert_eq!(words("--only faults,calls"), "");
        assert_eq!(
            words("--only faults,controller --rounds 3"),
            "--where guest --rounds 3 --only controller"
        );
        assert_eq!(words("--no-vm"), "");
        let line = "--vm-only --only controller";
        assert_eq!(words(line), words("--only controller"));
        assert!(words("").contains("controller"));
    }

    #[test]
    fn what_the_guest_is_asked_for_is_understood_there() {
        let line = words("--rounds 4");
        let asked = std::iter::once("bench").chain(line.split_whitespace());
        let args = Args::try_parse_from(asked).unwrap();
        assert_eq!((args.place, args.rounds), (Place::Guest, 4));
        assert!(args.tables(args.place).next().is_some());
    }

    #[test]
    fn every_table_is_measured_somewhere() {
        for table in Table::value_variants() {
            assert!(Table::ALL.contains(table), "{table:?}");
            let places = [Place::Machine, Place::Guest];
            assert!(places.iter().any(|place| table.measure(*place).is_some()));
        }
    }
}
