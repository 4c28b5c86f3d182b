//! `--detect-leaks`: the observer and the detector for a while, and what stands at the end.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use grey_core::detect::Detector;
use grey_core::event::{Body, Cgroup, State, Verdict};
use grey_core::glob::CgroupFilter;
use grey_core::units::format_duration_us;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use crate::cli::Failure;
use crate::host::{self, CgroupFs, Host};
use crate::source::{Clock, Notice, Observer, Options};
use crate::watch::machine;

/// A handful of descriptors for each of some thousands of cgroups.
const DESCRIPTORS: u64 = 65_536;
/// Between two looks at everything.
const TICK: Duration = Duration::from_secs(1);

/// What was seen.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Leaks {
    /// Seconds watched.
    pub watched_s: f64,
    /// Whether somebody ended it early.
    pub interrupted: bool,
    /// Cgroups watched at the end.
    pub cgroups: u64,
    /// What grows at the end, the surest and fastest first.
    pub standing: Vec<Standing>,
    /// What was suspect or confirmed meanwhile and has stopped.
    pub recovered: Vec<Standing>,
    /// Why kernel events are missing, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_probes: Option<String>,
}

/// One verdict.
#[derive(Clone, Debug, Serialize)]
pub struct Standing {
    /// About which cgroup.
    pub cgroup: Cgroup,
    /// The verdict.
    pub verdict: Verdict,
}

/// Watches for `time`, or until somebody interrupts it.
pub(super) fn watch(
    host: Host,
    fs: CgroupFs,
    filter: CgroupFilter,
    time: Duration,
) -> Result<Leaks, Failure> {
    if let Err(error) = host::raise_nofile(DESCRIPTORS) {
        tracing::debug!("{error}");
    }
    let (kernel, probes, without) = machine::kernel_side(&machine::settings(&fs, &host));
    let options = Options {
        filter,
        processes: true,
        // Every cgroup at each look: a minute is short.
        slow_ticks: 1,
    };
    let mut observer = Observer::new(host, fs, kernel, probes, options);
    observer.detect(Detector::new());
    let failed = |error: std::io::Error| Failure::failed(format!("cannot wait: {error}"));
    let mut leaks = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?
        .block_on(run(&mut observer, time))
        .map_err(failed)?;
    leaks.without_probes = without;
    Ok(leaks)
}

async fn run(observer: &mut Observer, time: Duration) -> std::io::Result<Leaks> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let begun = Instant::now();
    let end = tokio::time::sleep(time);
    tokio::pin!(end);
    let mut ticker = tokio::time::interval(TICK);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut progress = Progress::new(time);
    let mut out = Vec::new();
    let mut leaks = Leaks::default();
    loop {
        tokio::select! {
            _ = ticker.tick() => {}
            () = &mut end => break,
            _ = interrupt.recv() => { leaks.interrupted = true; break }
            _ = terminate.recv() => { leaks.interrupted = true; break }
        }
        observer.tick(Clock::wall(), &mut out);
        take(&mut out, &mut leaks);
        progress.show(observer, begun.elapsed());
    }
    observer.tick(Clock::wall(), &mut out);
    take(&mut out, &mut leaks);
    progress.clear();
    leaks.watched_s = begun.elapsed().as_secs_f64();
    leaks.cgroups = observer.wanted().count() as u64;
    leaks.standing = observer
        .standing()
        .filter_map(|event| match (&event.body, &event.cgroup) {
            (Body::Verdict { verdict }, Some(cgroup)) => Some(Standing {
                cgroup: cgroup.clone(),
                verdict: verdict.as_ref().clone(),
            }),
            _ => None,
        })
        .collect();
    leaks.standing.sort_by(|one, other| {
        let key = |standing: &Standing| (standing.verdict.state, standing.verdict.rate_bps);
        key(other)
            .partial_cmp(&key(one))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    Ok(leaks)
}

fn take(out: &mut Vec<Notice>, leaks: &mut Leaks) {
    for notice in out.drain(..) {
        let Notice::Event(event) = notice else {
            continue;
        };
        if let (Body::Verdict { verdict }, Some(cgroup)) = (event.body, event.cgroup)
            && verdict.state == State::Recovered
        {
            leaks.recovered.push(Standing {
                cgroup,
                verdict: *verdict,
            });
        }
    }
}

/// A line on stderr that renews itself, where somebody looks at it.
struct Progress {
    time: Duration,
    shown: bool,
}

impl Progress {
    fn new(time: Duration) -> Self {
        Progress {
            time,
            shown: std::io::stderr().is_terminal(),
        }
    }

    fn show(&mut self, observer: &Observer, elapsed: Duration) {
        const WIDTH: usize = 24;
        if !self.shown {
            return;
        }
        let done = (elapsed.as_secs_f64() / self.time.as_secs_f64()).clamp(0.0, 1.0);
        let full = (done * WIDTH as f64).round() as usize;
        let left = self.time.saturating_sub(elapsed);
        let growing = observer.standing().count();
        let line = format!(
            "\r\x1b[Kwatching {}{} {} left, {} cgroups, {growing} growing (Ctrl-C: report now)",
            "█".repeat(full),
            "░".repeat(WIDTH - full),
            format_duration_us(left.as_secs() * 1_000_000),
            observer.wanted().count(),
        );
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn clear(&self) {
        if self.shown {
            let _ = std::io::stderr().write_all(b"\r\x1b[K");
        }
    }
}
