//! `daemon`: observes, detects, decides, acts, measures what came of it, and tells. One loop that never waits for an
//! action: those are another thread's, and what is known of the machine goes on growing meanwhile.

mod actor;
mod ask;
mod demand;
mod host_side;
mod incident;
mod learned;
mod lines;
mod means;
mod notify;
mod run;
mod status;

use std::path::PathBuf;
use std::time::Duration;

use crate::cli;
use crate::enforce::Place;

pub(crate) use ask::{FEEDBACK_EXAMPLES, STATUS_EXAMPLES};
pub use ask::{FeedbackArgs, StatusArgs, feedback, status};
pub use run::run;

pub(crate) const EXAMPLES: &str = "Examples:
  grey-ebpf daemon --shadow                          decide and tell, write nothing
  grey-ebpf daemon                                   as /etc/grey-ebpf/config.toml says; without one it only observes
  grey-ebpf daemon --config test.toml --duration 10m
  grey-ebpf status                                   what it sees, does and holds back
  grey-ebpf feedback bad web.service                 what it did there of late was bad

NDJSON events on stdout: verdicts, actions and their outcomes, OOM kills; with --samples all of `watch --json`.
SIGHUP reads the configuration again, and keeps the old one if the new one is wrong.";

/// Arguments of `daemon`.
#[derive(Clone, Debug, clap::Args)]
pub struct DaemonArgs {
    /// Decide and tell, but write nothing
    #[arg(long)]
    pub shadow: bool,
    /// Time between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = cli::interval)]
    pub interval: Duration,
    /// Samples too, as `watch --json` has them
    #[arg(long)]
    pub samples: bool,
    /// Stop after this time
    #[arg(long, value_name = "TIME", value_parser = cli::duration)]
    pub duration: Option<Duration>,
    /// Keep all events in this file too (gzip'd if it ends in .gz)
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Where journal and configuration are.
    #[command(flatten)]
    pub place: Place,
}
