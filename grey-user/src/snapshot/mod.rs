//! `snapshot`: memory of the machine, its cgroups and processes at one time, in a file; and what changed between two.

mod compare;
mod document;
mod file;
mod render;
mod take;

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Subcommand;
use grey_core::glob::{self, CgroupFilter};
use grey_core::units::{format_bytes, format_duration_us};

use crate::cli::{self, Exit, Failure};
use crate::doctor;
use crate::host::{CgroupFs, Host};

pub use compare::{Comparison, compare};
pub use document::{Choice, SCHEMA, Snapshot};

/// Rows of each list in a text.
const TOP: usize = 15;

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Keeps the memory figures of the machine, its cgroups and processes in a file
    #[command(after_help = SAVE_EXAMPLES)]
    Save(SaveArgs),
    /// Shows what changed between two snapshots, the largest change first
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(CompareArgs),
}

const SAVE_EXAMPLES: &str = "Examples:
  sudo grey-ebpf snapshot save before.json
  sudo grey-ebpf snapshot save --cgroup nginx.service after.json.gz
  sudo grey-ebpf snapshot save - | gzip | ssh other 'cat > before.json.gz'";

const COMPARE_EXAMPLES: &str = "Examples:
  grey-ebpf snapshot compare before.json after.json
  grey-ebpf snapshot compare --json before.json after.json | jq .machine.in_use.reduction_bytes
  sudo grey-ebpf snapshot save - | grey-ebpf snapshot compare before.json -

What went down is a reduction: \u{25bc} and green on a terminal, a minus in a pipe, a positive
`reduction_bytes` in JSON.";

/// Arguments of `snapshot save`.
#[derive(Clone, Debug, clap::Args)]
pub struct SaveArgs {
    /// The file to make, gzip'd if it ends in .gz; - for stdout
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Only these cgroups and the processes in them: path, glob, unit or container name (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub cgroup: Vec<String>,
    /// Of how many processes, the largest first, to keep PSS and USS too; the kernel walks their page tables for it
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub processes: u32,
    /// Replace a file that is there already
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `snapshot compare`.
#[derive(Clone, Debug, clap::Args)]
pub struct CompareArgs {
    /// The first snapshot; - for stdin
    #[arg(value_name = "BEFORE")]
    pub before: PathBuf,
    /// The second snapshot; - for stdin
    #[arg(value_name = "AFTER")]
    pub after: PathBuf,
    /// What changed as one JSON document
    #[arg(long)]
    pub json: bool,
    /// Cgroups and processes to show [default: 15, with --json all]
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
}

/// Runs it.
pub fn run(command: &SnapshotCommand) -> Result<Exit, Failure> {
    match command {
        SnapshotCommand::Save(args) => save(args),
        SnapshotCommand::Compare(args) => comparison(args),
    }
}

fn save(args: &SaveArgs) -> Result<Exit, Failure> {
    file::check_target(&args.file, args.force)?;
    let host = Host::live();
    let fs = CgroupFs::discover(&host);
    let choice = choice(&args.cgroup, &fs)?;
    let wanted = take::Wanted {
        chosen: &args.cgroup,
        choice: &choice,
        detailed: args.processes as usize,
        own_pid: std::process::id(),
    };
    let snapshot = take::take(&host, &fs, &wanted).map_err(|error| {
        Failure::unsupported(format!("{error}; is /proc mounted and readable?"))
    })?;
    file::write(&args.file, &snapshot, args.force)?;
    if !file::is_stdio(&args.file) {
        cli::print(&saved(args, &snapshot))?;
    }
    Ok(Exit::Done)
}

/// One line on what is in the file.
fn saved(args: &SaveArgs, snapshot: &Snapshot) -> String {
    let memory = &snapshot.machine.memory;
    let in_use = match (memory.total, memory.available) {
        (Some(total), Some(available)) => format!(
            ", {} of {} in use",
            format_bytes(total.saturating_sub(available)),
            format_bytes(total)
        ),
        _ => String::new(),
    };
    let denied = match snapshot.processes.denied {
        0 => String::new(),
        1 => "; PSS and USS of 1 process could not be read, save as root for it".to_owned(),
        some => {
            format!("; PSS and USS of {some} processes could not be read, save as root for them")
        }
    };
    format!(
        "{}: {}, {}{in_use}, in {}{denied}\n",
        args.file.display(),
        counted(snapshot.cgroups.len(), "cgroup", "cgroups"),
        counted(snapshot.processes.list.len(), "process", "processes"),
        format_duration_us(snapshot.took_us),
    )
}

fn counted(count: usize, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

/// The filter; a cgroup that was named must exist, and a glob must match something.
fn choice(patterns: &[String], fs: &CgroupFs) -> Result<Choice, Failure> {
    let mount = fs
        .mount()
        .map(|mount| mount.display().to_string())
        .unwrap_or_default();
    let filter = |patterns: &[String]| {
        CgroupFilter::new(patterns, &mount)
            .map(Choice::new)
            .map_err(|error| Failure::usage(format!("--cgroup: {error}")))
    };
    let paths = take::cgroups(fs);
    for pattern in patterns {
        let one = filter(std::slice::from_ref(pattern))?;
        if !paths.keys().any(|path| one.cgroup(path)) {
            let what = match glob::is_literal(pattern) {
                true => "no cgroup",
                false => "no cgroup matches",
            };
            let below = match mount.is_empty() {
                true => "any cgroup v2 mount",
                false => &mount,
            };
            return Err(Failure::usage(format!(
                "--cgroup: {what} '{pattern}' below {below}; see `grey-ebpf watch --once` for those there are"
            )));
        }
    }
    filter(patterns)
}

fn comparison(args: &CompareArgs) -> Result<Exit, Failure> {
    if file::is_stdio(&args.before) && file::is_stdio(&args.after) {
        return Err(Failure::usage(
            "stdin holds one snapshot only; give - once and a file for the other",
        ));
    }
    let mut comparison = compare(&file::read(&args.before)?, &file::read(&args.after)?);
    if args.json {
        comparison.keep(args.top.unwrap_or(usize::MAX));
        let line = serde_json::to_string(&comparison)
            .map_err(|error| Failure::failed(format!("comparison: {error}")))?;
        return cli::print(&format!("{line}\n"));
    }
    let look = render::Look {
        terminal: std::io::stdout().is_terminal(),
        color: doctor::use_color(),
    };
    cli::print(&render::text(&comparison, args.top.unwrap_or(TOP), look))
}
