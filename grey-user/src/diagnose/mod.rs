//! `diagnose`: one report on the memory of this machine. `gather` finds the facts out, `breakdown` and `answers` judge
//! them, `text` prints them; as JSON the report is [`Report`] itself (docs/diagnose.md).

pub mod answers;
pub mod breakdown;
pub mod facts;
mod gather;
mod leaks;
mod report;
#[cfg(test)]
mod tests;
mod text;

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use grey_core::glob::{self, CgroupFilter};
use grey_core::identity::identify;

use crate::cli::{self, Exit, Failure};
use crate::host::{CgroupFs, Host};
use crate::source::Clock;

pub use report::Report;

/// Shown by `diagnose --help`.
pub(crate) const EXAMPLES: &str = "Examples:
  grey-ebpf diagnose                            where memory is; the worst finding first
  sudo grey-ebpf diagnose --detect-leaks        a minute of watching: who grows, and until when
  grey-ebpf diagnose --cgroup nginx.service     one unit and its processes
  grey-ebpf diagnose --verbose                  all answers, with all figures they rest on
  grey-ebpf diagnose --json | jq '.answers[] | select(.applies).answer'";

/// Arguments of `diagnose`.
#[derive(Clone, Debug, clap::Args)]
pub struct DiagnoseArgs {
    /// The report as one JSON document
    #[arg(long)]
    pub json: bool,
    /// Rows of each table; PSS is read for so many processes
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub top: u16,
    /// Only these cgroups and their processes: path, glob, unit or container name (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub cgroup: Vec<String>,
    /// Watch for a while and tell what grows, how fast, and when it hits its limit
    #[arg(long)]
    pub detect_leaks: bool,
    /// How long to watch
    #[arg(long = "for", value_name = "TIME", default_value = "60s", requires = "detect_leaks", value_parser = watch_time)]
    pub watch: Duration,
    /// All answers with all figures they rest on
    #[arg(long, short)]
    pub verbose: bool,
}

fn watch_time(text: &str) -> Result<Duration, String> {
    let time = grey_core::units::parse_duration(text).map_err(|error| error.to_string())?;
    if time < Duration::from_secs(1) || time > Duration::from_secs(86_400) {
        return Err("a time between 1s and 24h is wanted here".to_owned());
    }
    Ok(time)
}

/// Runs `diagnose` to its end.
pub fn run(args: &DiagnoseArgs) -> Result<Exit, Failure> {
    let begun = Instant::now();
    let host = Host::live();
    let fs = CgroupFs::discover(&host);
    let mount = fs
        .mount()
        .map(|mount| mount.display().to_string())
        .unwrap_or_default();
    let filter = CgroupFilter::new(&args.cgroup, &mount)
        .map_err(|error| Failure::usage(error.to_string()))?;
    check(&fs, &args.cgroup, &mount)?;
    let leaks = match args.detect_leaks {
        true => Some(leaks::watch(
            host.clone(),
            CgroupFs::discover(&host),
            filter.clone(),
            args.watch,
        )?),
        false => None,
    };
    let wanted = gather::Wanted {
        top: usize::from(args.top),
        filter: &filter,
    };
    let looked = Instant::now();
    let facts = gather::gather(&host, &fs, &wanted);
    let report = Report::of(&facts, leaks, Clock::wall(), looked.elapsed());
    tracing::debug!("diagnose took {:?}", begun.elapsed());
    if args.json {
        let line = serde_json::to_string(&report)
            .map_err(|error| Failure::failed(format!("report: {error}")))?;
        return cli::print(&format!("{line}\n"));
    }
    let style = text::Style {
        color: crate::doctor::use_color(),
        width: width(),
        verbose: args.verbose,
    };
    cli::print(&text::render(&report, style))
}

/// A cgroup that was named must exist, and a glob must match something.
fn check(fs: &CgroupFs, patterns: &[String], mount: &str) -> Result<(), Failure> {
    if patterns.is_empty() {
        return Ok(());
    }
    let walk = fs.walk().map_err(|error| {
        Failure::unsupported(format!("--cgroup: {error}; see `grey-ebpf doctor`"))
    })?;
    for pattern in patterns {
        let one = CgroupFilter::new(std::slice::from_ref(pattern), mount)
            .map_err(|error| Failure::usage(error.to_string()))?;
        let found = walk.cgroups.iter().any(|cgroup| {
            one.matches(
                &cgroup.path,
                &identify(&cgroup.path).cgroup(None, &cgroup.path).name,
            )
        });
        if !found {
            let what = match glob::is_literal(pattern) {
                true => "no cgroup",
                false => "no cgroup matches",
            };
            return Err(Failure::usage(format!(
                "--cgroup: {what} '{pattern}' below {mount}; see `grey-ebpf watch --once` for those there are"
            )));
        }
    }
    Ok(())
}

/// Columns of the terminal; those of a page where there is none.
fn width() -> usize {
    let columns = std::io::stdout()
        .is_terminal()
        .then(|| rustix::termios::tcgetwinsize(std::io::stdout()).ok())
        .flatten()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0);
    columns.unwrap_or(text::PAGE)
}
