//! The command line of `profile`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Subcommand, ValueEnum};

use super::diff::{self, DiffArgs};
use super::document::Stack;
use crate::cli::{self, Failure};

/// Stacks in a table.
const TOP: usize = 10;

pub(crate) const EXAMPLES: &str = "Examples:
  sudo grey-ebpf profile --pid 4711                                  30 s, then who kept most
  sudo grey-ebpf profile --cgroup web.service --for 1m -o web.svg    a flame graph of what was kept
  sudo grey-ebpf profile --pid 4711 --bytes faulted -o churn.svg     all that came in, freed again or not
  sudo grey-ebpf profile --pid 4711 -o web.pb.gz                     for `go tool pprof`
  sudo grey-ebpf profile --pid 4711 --json | jq '.stacks[0].function'
  grey-ebpf profile diff before.json after.json -o diff.svg

A stack is blamed for the pages it touched first and that are still there at the end: what was reserved and never
touched counts nothing, what was freed counts as faulted and not as kept. Stacks are walked by frame pointers: build with
-fno-omit-frame-pointer (C, C++) or -C force-frame-pointers=yes (Rust), run `python3 -X perf` (3.12 and newer),
`node --perf-basic-prof`, or java with an agent that writes /tmp/perf-PID.map. docs/profile.md has more.";

/// Arguments of `profile`.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct ProfileArgs {
    /// Something else than taking one.
    #[command(subcommand)]
    pub command: Option<ProfileCommand>,
    /// How to take it.
    #[command(flatten)]
    pub take: TakeArgs,
}

/// What else there is.
#[derive(Clone, Debug, Subcommand)]
pub enum ProfileCommand {
    /// What one profile has more than another
    #[command(after_help = diff::EXAMPLES)]
    Diff(DiffArgs),
}

/// How to take a profile.
#[derive(Clone, Debug, clap::Args)]
pub struct TakeArgs {
    /// One cgroup and all below it: path, unit or container name
    #[arg(
        long,
        value_name = "CGROUP",
        conflicts_with = "pid",
        required_unless_present = "pid"
    )]
    pub cgroup: Option<String>,
    /// One process
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub pid: Option<u32>,
    /// How long; Ctrl-C ends it sooner
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = time)]
    pub time: Duration,
    /// Where to; its ending says what: .svg, .folded, .pb.gz (pprof), .json
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What to write, whatever the file's name; without -o on stdout
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// Which bytes a flame graph and folded stacks show
    #[arg(long, value_enum, default_value_t = Value::Kept)]
    pub bytes: Value,
    /// Time that may be spent taking stacks, of one CPU: fewer pages are followed where it would be more
    #[arg(long, value_name = "PERCENT", default_value = "2%", value_parser = budget)]
    pub overhead: f64,
    /// Stacks in the table
    #[arg(long, value_name = "N", default_value_t = TOP)]
    pub top: usize,
}

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// An interactive flame graph
    Svg,
    /// One line a stack, for flame graph tools
    Folded,
    /// For `go tool pprof` and its like
    Pprof,
    /// All that is known
    Json,
}

impl Format {
    /// As asked for, else by the file's ending; `None` where neither says.
    pub(super) fn chosen(
        asked: Option<Format>,
        path: Option<&Path>,
    ) -> Result<Option<Format>, Failure> {
        let (None, Some(path)) = (asked, path) else {
            return Ok(asked);
        };
        let name = path.to_string_lossy();
        let found = [
            (".svg", Format::Svg),
            (".folded", Format::Folded),
            (".pb.gz", Format::Pprof),
            (".pprof", Format::Pprof),
            (".json", Format::Json),
        ]
        .into_iter()
        .find(|(ending, _)| name.ends_with(ending));
        match found {
            Some((_, format)) => Ok(Some(format)),
            None => Err(Failure::usage(format!(
                "-o {}: the ending does not say what to write; end it in .svg, .folded, .pb.gz or .json, or add --format",
                path.display()
            ))),
        }
    }
}

/// Which bytes of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Value {
    /// Still there at the end
    Kept,
    /// All that came in
    Faulted,
}

impl Value {
    pub(super) fn of(self, stack: &Stack) -> u64 {
        match self {
            Value::Kept => stack.kept_bytes,
            Value::Faulted => stack.faulted_bytes,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Value::Kept => "kept",
            Value::Faulted => "faulted",
        }
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let time = cli::duration(text)?;
    if time < Duration::from_millis(100) || time > Duration::from_secs(24 * 3600) {
        return Err("a profile lasts between 100ms and 24h".to_owned());
    }
    Ok(time)
}

fn budget(text: &str) -> Result<f64, String> {
    let percent: f64 = text
        .trim_end_matches('%')
        .trim()
        .parse()
        .map_err(|_| "a share of one CPU, such as 2%".to_owned())?;
    if (0.01..=100.0).contains(&percent) {
        Ok(percent / 100.0)
    } else {
        Err("a share between 0.01% and 100%".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn the_ending_of_a_file_says_what_to_write() {
        for (name, format) in [
            ("a.svg", Format::Svg),
            ("a.folded", Format::Folded),
            ("a.pb.gz", Format::Pprof),
            ("a.json", Format::Json),
        ] {
            assert_eq!(
                Format::chosen(None, Some(Path::new(name))).ok(),
                Some(Some(format))
            );
        }
        let error = Format::chosen(None, Some(Path::new("a.txt"))).unwrap_err();
        assert!(error.message.contains(".svg"), "{}", error.message);
    }

    #[test]
    fn one_target_is_named_and_no_more() {
        let takes = |args: &[&str]| {
            let all = [&["grey-ebpf", "profile"], args].concat();
            Cli::try_parse_from(all).is_ok()
        };
        assert!(takes(&["--pid", "1"]));
        assert!(takes(&[
            "--cgroup",
            "web.service",
            "--for",
            "10s",
            "-o",
            "a.svg"
        ]));
        assert!(takes(&["diff", "a.json", "b.json"]));
        assert!(!takes(&[]));
        assert!(!takes(&["--pid", "1", "--cgroup", "web.service"]));
        assert!(!takes(&["--pid", "0"]));
        assert!(!takes(&["--pid", "1", "--for", "0s"]));
        assert!(!takes(&["--pid", "1", "--overhead", "0"]));
        assert!(!takes(&["--pid", "1", "--overhead", "NaN"]));
    }
}
