//! Arguments of `replay`.

use std::path::PathBuf;
use std::time::Duration;

use grey_core::govern::PolicyKind;

use crate::cli::{self, Switch};

pub(crate) const EXAMPLES: &str = "Examples:
  grey-ebpf record leak.ndjson.gz --duration 10m      record first
  grey-ebpf replay leak.ndjson.gz                     what the detector says of it
  grey-ebpf replay monday.ndjson.gz tuesday.ndjson.gz one series from several files
  grey-ebpf replay leak.ndjson.gz --json | jq .verdict.state
  ssh node7 zcat leak.ndjson.gz | grey-ebpf replay -  from stdin
  grey-ebpf replay leak.ndjson.gz --cgroup nginx.service
  grey-ebpf replay monday.ndjson.gz --policy dynamic  what a policy would have decided

A line needs `ts`, `cgroup.path` and `mem.anon`; all else is used where it is there. Lines that
cannot be used are counted, told at the end and skipped. Time is that of the lines: the same files
give the same verdicts.

Exit codes: 0 replayed, 1 a file cannot be read or holds nothing to replay, 2 bad usage.";

/// Arguments of `replay`.
#[derive(Clone, Debug, clap::Args)]
pub struct ReplayArgs {
    /// Recordings, NDJSON or gzip; `-` is stdin
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Verdicts as NDJSON with the times of the recording
    #[arg(long)]
    pub json: bool,
    /// How far lines may be out of order
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = cli::duration)]
    pub reorder: Duration,
    /// Tell only of these cgroups: path, glob, unit or container name (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub cgroup: Vec<String>,
    /// Whether samples of processes are looked at
    #[arg(long, value_enum, default_value_t = Switch::On, value_name = "on|off")]
    pub processes: Switch,
    /// Also what this policy would have decided: observe, conservative, dynamic, aggressive, scheduled, proactive, guest
    #[arg(long, value_name = "NAME")]
    pub policy: Option<PolicyKind>,
    /// Configuration of the policy [default: /etc/grey-ebpf/config.toml, where there is one]
    #[arg(long, value_name = "FILE", requires = "policy")]
    pub config: Option<PathBuf>,
}
