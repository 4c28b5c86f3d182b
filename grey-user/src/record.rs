//! `record`: the events of `watch` into a file, with a line of progress instead of a view.

use std::collections::HashSet;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use grey_core::event::{Body, Event};
use grey_core::units::{format_bytes, format_duration_us};

use crate::cli::{self, Exit, Failure, Switch, WatchArgs};
use crate::ui::figure::total;
use crate::watch;

/// Between two drawings of the line.
const REDRAW: Duration = Duration::from_millis(200);

pub(crate) const EXAMPLES: &str = "Examples:
  grey-ebpf record leak.ndjson.gz --duration 1h                 an hour of this machine, gzip'd
  grey-ebpf record leak.ndjson.gz --cgroup nginx.service --processes
  grey-ebpf record long.ndjson.gz --interval 10s                less often, for days
  grey-ebpf replay leak.ndjson.gz                               what the detector says of it

Ctrl-C or SIGTERM ends the file well. After a SIGKILL or a crash everything up to the last tick can be read.";

/// Arguments of `record`.
#[derive(Clone, Debug, clap::Args)]
pub struct RecordArgs {
    /// Where to: NDJSON, gzip'd if the name ends in .gz. An earlier recording there is overwritten
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Stop after this time; else at Ctrl-C
    #[arg(long, value_name = "TIME", value_parser = cli::duration)]
    pub duration: Option<Duration>,
    /// Time between two looks at the counters; events come at once anyway
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = cli::interval)]
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
    /// Growth of a process or cgroup that makes an event; 0 for none
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = cli::size)]
    pub growth: u64,
    /// Reclaim that holds a task up for at least this long makes an event
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = cli::duration)]
    pub stall: Duration,
    /// Whether syscall tracepoints may count mmap and its like where nothing cheaper works; every system call pays for them
    #[arg(long, value_enum, default_value_t = Switch::Off, value_name = "on|off")]
    pub syscall_tracepoints: Switch,
    /// Ticks after which a cgroup that did nothing is read again
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub slow_ticks: u64,
    /// What it may cost.
    #[command(flatten)]
    pub budget: cli::BudgetArgs,
    /// Bytes of each event ring
    #[arg(long, value_name = "SIZE", default_value = "256K", value_parser = cli::ring_size, hide_short_help = true)]
    pub ring: u32,
}

/// Runs `record` to its end.
pub fn run(args: &RecordArgs) -> Result<Exit, Failure> {
    if args.file == Path::new("-") {
        return Err(Failure::usage(
            "record: FILE is a file to write; `grey-ebpf watch --json` writes events to stdout",
        ));
    }
    let watched = WatchArgs {
        json: false,
        interval: args.interval,
        cgroup: args.cgroup.clone(),
        allow_missing: args.allow_missing,
        processes: args.processes,
        once: false,
        duration: args.duration,
        record: Some(args.file.clone()),
        growth: args.growth,
        stall: args.stall,
        top: 0,
        plain: false,
        syscall_tracepoints: args.syscall_tracepoints,
        slow_ticks: args.slow_ticks,
        budget: args.budget.clone(),
        cpu: false,
        stacks: Switch::On,
        ring: args.ring,
    };
    watch::record(&watched)
}

/// What was recorded so far, as a line that is drawn over on a terminal and told at the end.
pub(crate) struct Progress {
    /// Only a terminal gets to see more than the end.
    terminal: bool,
    duration: Option<Duration>,
    start: Instant,
    drawn: Option<Instant>,
    events: u64,
    verdicts: u64,
    cgroups: HashSet<String>,
}

impl Progress {
    pub(crate) fn new(duration: Option<Duration>) -> Self {
        Progress {
            terminal: io::stderr().is_terminal(),
            duration,
            start: Instant::now(),
            drawn: None,
            events: 0,
            verdicts: 0,
            cgroups: HashSet::new(),
        }
    }

    /// From now on: everything before was getting ready.
    pub(crate) fn begin(&mut self) {
        self.start = Instant::now();
    }

    pub(crate) fn event(&mut self, event: &Event) {
        self.events += 1;
        if let Body::Verdict { .. } = event.body {
            self.verdicts += 1;
        }
        if let Some(cgroup) = &event.cgroup
            && !self.cgroups.contains(&cgroup.path)
        {
            self.cgroups.insert(cgroup.path.clone());
        }
    }

    /// Draws the line where somebody sees it; `size` is that of the file.
    pub(crate) fn draw(&mut self, size: Option<u64>) {
        if !self.terminal || self.drawn.is_some_and(|at| at.elapsed() < REDRAW) {
            return;
        }
        self.drawn = Some(Instant::now());
        let of = self
            .duration
            .map_or(String::new(), |all| format!(" of {}", time(all)));
        let line = format!(
            "\r\x1b[Krecording  {}{of}  {}  Ctrl-C ends it",
            time(self.start.elapsed()),
            self.figures(size)
        );
        // Nobody misses a progress that cannot be written.
        let _ = io::stderr().write_all(line.as_bytes());
    }

    /// Leaves the terminal's line to whatever comes next.
    pub(crate) fn clear(&mut self) {
        if self.drawn.take().is_some() {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }

    /// One line when all is written.
    pub(crate) fn finish(&mut self, path: &Path, size: Option<u64>) {
        self.clear();
        cli::tell(&format!(
            "{}: {} in {}",
            path.display(),
            self.figures(size),
            time(self.start.elapsed())
        ));
    }

    fn figures(&self, size: Option<u64>) -> String {
        let count = |n: u64, what: &str| {
            let plural = if n == 1 { "" } else { "s" };
            format!("{} {what}{plural}", total(Some(n)))
        };
        let mut text = format!(
            "{} of {}",
            count(self.events, "event"),
            count(self.cgroups.len() as u64, "cgroup")
        );
        if self.verdicts > 0 {
            text = format!("{text}, {}", count(self.verdicts, "verdict"));
        }
        if let Some(size) = size {
            text = format!("{text}, {} bytes", format_bytes(size));
        }
        text
    }
}

/// An error is told on a line of its own.
impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn time(time: Duration) -> String {
    format_duration_us(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use grey_core::event::{Cgroup, Process, SCHEMA};
    use grey_core::time::Timestamp;

    #[test]
    fn the_end_tells_events_cgroups_and_bytes() {
        let mut progress = Progress::new(None);
        for path in ["/a", "/b", "/a"] {
            progress.event(&Event {
                schema: SCHEMA.to_owned(),
                ts: Timestamp(0),
                seq: 0,
                host: "n1".to_owned(),
                boot_id: None,
                cgroup: Some(Cgroup {
                    id: None,
                    path: path.to_owned(),
                    kind: "cgroup".to_owned(),
                    name: "a".to_owned(),
                }),
                lossy: false,
                body: Body::Process {
                    process: Process::default(),
                },
            });
        }
        assert_eq!(progress.figures(None), "3 events of 2 cgroups");
        assert_eq!(
            progress.figures(Some(4096)),
            "3 events of 2 cgroups, 4.0K bytes"
        );
    }
}
