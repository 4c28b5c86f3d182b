//! Commands and their arguments, and the exit codes.

use std::ffi::OsString;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use grey_core::units::{self, Size};

use crate::alert::AlertArgs;
use crate::config;
use crate::config::check::{self, CheckArgs};
use crate::diagnose::{self, DiagnoseArgs};
use crate::record::{self, RecordArgs};
use crate::replay::{self, ReplayArgs};
use crate::rollback::{self, RollbackArgs};
use crate::run::{self, RunArgs};
use crate::source::Budget;
use crate::{daemon, doctor, enforce, profile, snapshot, watch};

mod man;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// Bad usage or configuration.
    Usage = 2,
    /// This kernel or these privileges cannot do it.
    Unsupported = 3,
    /// Refused by a safety rule, or rolled back.
    Refused = 4,
}

/// An error with the exit code it ends the program with. The message names the thing, the cause and the remedy.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// One line.
    pub message: String,
}

impl Failure {
    /// Bad usage or configuration.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::Usage,
            message: message.into(),
        }
    }

    /// The work itself failed.
    pub fn failed(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::Failed,
            message: message.into(),
        }
    }

    /// The kernel or the privileges are not enough.
    pub fn unsupported(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::Unsupported,
            message: message.into(),
        }
    }
}

/// Sees which cgroup's memory grows, stalls and dies, from inside the kernel, at next to no cost.
#[derive(Debug, Parser)]
#[command(name = "grey-ebpf", version, propagate_version = true, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  sudo grey-ebpf watch                          live table of this machine's cgroups
  sudo grey-ebpf watch --json | jq .type        the same as NDJSON
  sudo grey-ebpf watch --cgroup nginx.service   one unit
  sudo grey-ebpf record leak.ndjson.gz          keep what happens for later
  grey-ebpf replay leak.ndjson.gz               what leaks in a recording
  sudo grey-ebpf diagnose                       where memory is, what is wrong, what to do
  sudo grey-ebpf snapshot save before.json      figures to compare with those after a change
  grey-ebpf run --release -- python3 app.py     start a program that gives freed memory back when asked
  sudo grey-ebpf profile --pid 4711             whose stacks grow: the functions that keep memory
  sudo grey-ebpf doctor                         what works here, and what is lost

Begin with `watch`; it only observes. `grey-ebpf COMMAND --help` has examples of each command.

Exit codes: 0 done, 1 failed, 2 bad usage, 3 this kernel or these privileges cannot do it, 4 refused by a safety rule.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Live view of every cgroup's memory, with alerts as they come
    #[command(after_help = WATCH_EXAMPLES)]
    Watch(WatchCommand),
    /// The events of `watch` into a file
    #[command(after_help = record::EXAMPLES)]
    Record(RecordArgs),
    /// What the detector says of recordings, as fast as they can be read
    #[command(after_help = replay::EXAMPLES)]
    Replay(ReplayArgs),
    /// One report: where memory is, what is wrong, what to do; with --detect-leaks, who leaks
    #[command(after_help = diagnose::EXAMPLES)]
    Diagnose(DiagnoseArgs),
    /// One bounded action: journalled first, under a watchdog, and undone if anything goes wrong
    #[command(after_help = enforce::EXAMPLES)]
    Enforce(enforce::EnforceArgs),
    /// Observe, decide, act and learn, as the configuration says; without one only observe
    #[command(after_help = daemon::EXAMPLES)]
    Daemon(daemon::DaemonArgs),
    /// What a running daemon sees, does and holds back
    #[command(after_help = daemon::STATUS_EXAMPLES)]
    Status(daemon::StatusArgs),
    /// Tell a running daemon that something was bad, or to let go
    #[command(after_help = daemon::FEEDBACK_EXAMPLES)]
    Feedback(daemon::FeedbackArgs),
    /// Start a command in a cgroup of its own, with limits, the release agent, page merging
    #[command(after_help = run::EXAMPLES)]
    Run(RunArgs),
    /// Take actions back from the journal: after a crash too, without daemon or guard
    #[command(after_help = rollback::EXAMPLES)]
    Rollback(RollbackArgs),
    /// Whose stacks grow: page-fault stacks of one process or cgroup, with what each of them kept
    #[command(after_help = profile::EXAMPLES)]
    Profile(Box<profile::ProfileArgs>),
    /// What works on this machine, how each probe is attached, and what is lost
    #[command(after_help = "Exits with 0 if `watch` can work here, with 3 if not.")]
    Doctor {
        /// The report as one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Memory before and after: keep the figures in a file, compare two of them
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Everything that is wrong with the configuration, or what holds
    #[command(after_help = check::EXAMPLES)]
    CheckConfig(CheckArgs),
    /// Completions for a shell, on stdout
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// The manual page of the program or of a command, on stdout
    #[command(after_help = MAN_EXAMPLES)]
    Man {
        /// The command, such as `watch` or `snapshot compare`
        #[arg(value_name = "COMMAND")]
        command: Vec<String>,
    },
}

const MAN_EXAMPLES: &str = "Examples:
  grey-ebpf man | man -l -
  grey-ebpf man snapshot compare > grey-ebpf-snapshot-compare.8";

const WATCH_EXAMPLES: &str = "Examples:
  grey-ebpf watch                                         table on a terminal, plain lines in a pipe
  grey-ebpf watch --once                                  one table and out
  grey-ebpf watch --json --duration 30s > events.ndjson   half a minute of events
  grey-ebpf watch --cgroup '/kubepods.slice/**'           all pods
  grey-ebpf watch --growth 64M --stall 50ms               only large growth and long stalls
  grey-ebpf watch --record leak.ndjson.gz                 keep the stream while watching
  grey-ebpf watch --on-alert logger -t leak               the event of each alert to a command's stdin";

/// Arguments of `watch`: what to look at, and what to do beside it.
#[derive(Clone, Debug, clap::Args)]
pub struct WatchCommand {
    /// What to look at, and how.
    #[command(flatten)]
    pub watch: WatchArgs,
    /// Keep what the detector knows in this file and go on from there at the next start
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Whom to tell.
    #[command(flatten)]
    pub alert: AlertArgs,
}

/// What `watch` looks at, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct WatchArgs {
    /// NDJSON events on stdout instead of a picture
    #[arg(long)]
    pub json: bool,
    /// Time between two looks at the counters; events come at once anyway
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// Only these cgroups: path, glob, unit or container name (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub cgroup: Vec<String>,
    /// Start even if no cgroup matches yet
    #[arg(long)]
    pub allow_missing: bool,
    /// A `process` event for each process of the cgroups that are read
    #[arg(long)]
    pub processes: bool,
    /// One look at everything, then out
    #[arg(long, conflicts_with = "duration")]
    pub once: bool,
    /// Stop after this time
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Keep the events in this file too (gzip'd if it ends in .gz)
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Growth of a process or cgroup that makes an event; 0 for none
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = size)]
    pub growth: u64,
    /// Reclaim that holds a task up for at least this long makes an event
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = duration)]
    pub stall: Duration,
    /// Rows of a plain table
    #[arg(long, value_name = "N", default_value_t = crate::ui::plain::TOP)]
    pub top: usize,
    /// Plain lines even on a terminal
    #[arg(long, conflicts_with = "json")]
    pub plain: bool,
    /// Whether syscall tracepoints may count mmap and its like where nothing cheaper works; every system call pays for them
    #[arg(long, value_enum, default_value_t = Switch::Off, value_name = "on|off")]
    pub syscall_tracepoints: Switch,
    /// Ticks after which a cgroup that did nothing is looked at again
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub slow_ticks: u64,
    /// Whether a cgroup that is suspected of a leak is profiled for 10 seconds, so that a confirmed verdict has its stacks
    #[arg(long, value_enum, default_value_t = Switch::On, value_name = "on|off")]
    pub stacks: Switch,
    /// Bytes of each event ring
    #[arg(long, value_name = "SIZE", default_value = "256K", value_parser = ring_size, hide_short_help = true)]
    pub ring: u32,
    /// What it may cost.
    #[command(flatten)]
    pub budget: BudgetArgs,
    /// Whether CPU time is read, for `daemon`.
    #[arg(skip)]
    pub cpu: bool,
}

/// What watching may cost; without any of these as much as it takes.
#[derive(Clone, Debug, clap::Args)]
pub struct BudgetArgs {
    /// CPU time it may take, percent of one core, its programs in the kernel included: above it, it does less; docs/daemon.md
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub budget_cpu: Option<f64>,
    /// Resident memory it may take: above it, it does less
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub budget_memory: Option<u64>,
    /// How long is measured before it does less or more
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = window, hide_short_help = true)]
    pub budget_window: Duration,
}

impl BudgetArgs {
    pub(crate) fn budget(&self) -> Budget {
        Budget {
            cpu_pct: self.budget_cpu.unwrap_or(0.0),
            memory: self.budget_memory.unwrap_or(0),
            window: self.budget_window,
        }
    }
}

/// A switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Allowed.
    On,
    /// Not allowed.
    Off,
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    units::parse_duration(text).map_err(|error| error.to_string())
}

pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < Duration::from_millis(10) || interval > Duration::from_secs(3600) {
        return Err("an interval is between 10ms and 1h".to_owned());
    }
    Ok(interval)
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse();
    number
        .ok()
        .filter(|number| (0.0..=100.0).contains(number))
        .ok_or_else(|| "a percentage of one core is wanted here, 0 (no limit) to 100".to_owned())
}

fn window(text: &str) -> Result<Duration, String> {
    let window = duration(text)?;
    if config::WINDOW.contains(&window) {
        Ok(window)
    } else {
        Err("a window is between 500ms and 10m".to_owned())
    }
}

pub(crate) fn size(text: &str) -> Result<u64, String> {
    match units::parse_size(text).map_err(|error| error.to_string())? {
        Size::Bytes(bytes) => Ok(bytes),
        Size::Percent(_) => Err("a size in bytes is wanted here, such as 16M".to_owned()),
    }
}

pub(crate) fn ring_size(text: &str) -> Result<u32, String> {
    let bytes = size(text)?;
    let page = rustix::param::page_size() as u64;
    if bytes.is_power_of_two() && bytes >= page && bytes <= 64 << 20 {
        Ok(bytes as u32)
    } else {
        Err(format!(
            "a ring is a power of two between {page} and 64M bytes"
        ))
    }
}

/// Runs the command of these arguments and returns the exit code; errors go to stderr as one line.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error)
            if error.use_stderr()
                && error.kind()
                    != clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand =>
        {
            tell(&one_line(&error.to_string()));
            return ExitCode::from(Exit::Usage as u8);
        }
        Err(error) if error.use_stderr() => {
            // No command at all: the whole help.
            let _ = error.print();
            return ExitCode::from(Exit::Usage as u8);
        }
        // Help and version, in colour on a terminal.
        Err(error) => return end(written(error.print())),
    };
    init_logs();
    let result = match cli.command {
        Command::Watch(args) => watch::run(&args),
        Command::Record(args) => record::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Diagnose(args) => diagnose::run(&args),
        Command::Enforce(args) => enforce::run(&args),
        Command::Daemon(args) => daemon::run(&args),
        Command::Status(args) => daemon::status(&args),
        Command::Feedback(args) => daemon::feedback(&args),
        // Its exit code is the command's, not ours.
        Command::Run(args) => return run::run(&args),
        Command::Rollback(args) => rollback::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Doctor { json } => doctor::run(json),
        Command::Snapshot(command) => snapshot::run(&command),
        Command::CheckConfig(args) => check::run(&args),
        Command::Completions { shell } => {
            // By way of memory: the generator panics where its output cannot be written.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "grey-ebpf", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Command::Man { command } => man::page(Cli::command(), &command)
            .and_then(|page| print(&String::from_utf8_lossy(&page))),
    };
    end(result)
}

fn end(result: Result<Exit, Failure>) -> ExitCode {
    match result {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(failure) => {
            tell(&failure.message);
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// Writes a whole text to stdout. A reader that went away is a normal end.
pub(crate) fn print(text: &str) -> Result<Exit, Failure> {
    let mut out = std::io::stdout();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

fn written(result: std::io::Result<()>) -> Result<Exit, Failure> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(stdout_failed(&error)),
        _ => Ok(Exit::Done),
    }
}

pub(crate) fn stdout_failed(error: &std::io::Error) -> Failure {
    Failure::failed(format!(
        "stdout: {error}; make room there or write somewhere else"
    ))
}

/// One line on stderr. Unlike `eprintln!` it does not panic where nobody can be told.
pub(crate) fn tell(line: &str) {
    let _ = std::io::stderr().write_all(format!("grey-ebpf: {line}\n").as_bytes());
}

/// clap's message without its label, usage block and line breaks.
fn one_line(message: &str) -> String {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let mut parts: Vec<&str> = Vec::new();
    for line in message.lines().map(str::trim) {
        if line.starts_with("Usage:") || line.starts_with("For more information") {
            break;
        }
        if !line.is_empty() {
            parts.push(line.trim_end_matches(':'));
        }
    }
    format!("{} (see --help)", parts.join("; "))
}

/// Logs go to stderr, so that stdout stays NDJSON; GREY_EBPF_LOG sets what is logged.
fn init_logs() {
    use std::io::IsTerminal as _;
    use tracing_subscriber::EnvFilter;
    let filter =
        EnvFilter::try_from_env("GREY_EBPF_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    // Fails only when a subscriber is set already, as in a test.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would tell of an unwritable stderr on stderr, and panic.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_usage_error_is_one_line_with_the_way_to_help() {
        let error = Cli::try_parse_from(["grey-ebpf", "watch", "--bogus"]).unwrap_err();
        let line = one_line(&error.to_string());
        assert!(
            line.contains("--bogus") && line.ends_with("(see --help)") && !line.contains('\n'),
            "{line}"
        );
    }

    #[test]
    fn an_interval_of_nothing_is_refused() {
        for bad in ["0s", "0", "-1s", "1", "2h", "abc"] {
            assert!(
                Cli::try_parse_from(["grey-ebpf", "watch", &format!("--interval={bad}")]).is_err(),
                "{bad}"
            );
        }
    }
}
