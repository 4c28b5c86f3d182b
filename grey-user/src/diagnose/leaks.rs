//! `--detect-leaks`: the observer and the detector for a while, and what stands at the end.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use grey_core::detect::Detector;
use grey_core::event::{Body, Cgroup, Memory, State, Verdict};
use grey_core::glob::CgroupFilter;
use grey_core::time::Timestamp;
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
/// Growth that is told although it has no verdict.
const NOTABLE: u64 = 8 << 20;
/// How many of those are told.
const MOST_UNJUDGED: usize = 5;
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
    /// What grew without a verdict, most first: too little or too short to be told from a start or a burst of work.
    pub unjudged: Vec<Grown>,
    /// Why kernel events are missing, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_probes: Option<String>,
}

/// Growth as it was seen, whatever it is.
#[derive(Clone, Debug, Serialize)]
pub struct Grown {
    /// Of which cgroup.
    pub cgroup: Cgroup,
    /// anon + swap at the first look, bytes.
    pub from_bytes: u64,
    /// anon + swap at the last look, bytes.
    pub to_bytes: u64,
    /// Bytes a second between the two.
    pub rate_bps: f64,
}

/// One verdict.
#[derive(Clone, Debug, Serialize)]
pub struct Standing {
    /// About which cgroup.
    pub cgroup: Cgroup,
    /// When it was reached: its figures are those of that moment.
    pub ts: Timestamp,
    /// anon + swap of the cgroup at the last look, bytes; absent for a process or another kind of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level_bytes: Option<u64>,
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
        cpu: false,
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
    let mut sights = Sights::new();
    loop {
        tokio::select! {
            _ = ticker.tick() => {}
            () = &mut end => break,
            _ = interrupt.recv() => { leaks.interrupted = true; break }
            _ = terminate.recv() => { leaks.interrupted = true; break }
        }
        observer.tick(Clock::wall(), &mut out);
        take(&mut out, &mut leaks, &mut sights);
        while observer.more(&mut out) {
            take(&mut out, &mut leaks, &mut sights);
        }
        progress.show(observer, begun.elapsed());
    }
    observer.tick(Clock::wall(), &mut out);
    while observer.more(&mut out) {}
    take(&mut out, &mut leaks, &mut sights);
    progress.clear();
    leaks.watched_s = begun.elapsed().as_secs_f64();
    leaks.cgroups = observer.wanted().count() as u64;
    leaks.standing = observer
        .standing()
        .filter_map(|event| match (&event.body, &event.cgroup) {
            (Body::Verdict { verdict }, Some(cgroup)) => Some(Standing {
                ts: event.ts,
                level_bytes: sights
                    .get(&cgroup.path)
                    .filter(|_| verdict.process.is_none() && verdict.memory == Memory::Anon)
                    .map(|(_, [_, (_, level)])| *level),
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
    leaks.unjudged = unjudged(sights, &leaks.standing);
    Ok(leaks)
}

/// First and last sight of each cgroup: when, and its anon + swap.
type Sights = HashMap<String, (Cgroup, [(Timestamp, u64); 2])>;

fn take(out: &mut Vec<Notice>, leaks: &mut Leaks, sights: &mut Sights) {
    for notice in out.drain(..) {
        let event = match notice {
            Notice::Event(event) => event,
            Notice::Gone(path) => {
                sights.remove(&path);
                continue;
            }
        };
        if let (Body::Sample(sample), Some(cgroup)) = (&event.body, &event.cgroup)
            && let Some(anon) = sample.mem.anon
        {
            let now = (event.ts, anon.saturating_add(sample.mem.swap.unwrap_or(0)));
            sights
                .entry(cgroup.path.clone())
                .and_modify(|(_, sights)| sights[1] = now)
                .or_insert_with(|| (cgroup.clone(), [now; 2]));
        }
        if let (Body::Verdict { verdict }, Some(cgroup)) = (event.body, event.cgroup)
            && verdict.state == State::Recovered
        {
            leaks.recovered.push(Standing {
                ts: event.ts,
                level_bytes: None,
                cgroup,
                verdict: *verdict,
            });
        }
    }
}

/// The largest growths of cgroups about which nothing is said.
fn unjudged(sights: Sights, standing: &[Standing]) -> Vec<Grown> {
    let mut grown: Vec<Grown> = sights
        .into_values()
        .filter(|(cgroup, _)| !standing.iter().any(|one| one.cgroup.path == cgroup.path))
        .filter_map(|(cgroup, [(begun, from), (ended, to)])| {
            let bytes = to.checked_sub(from).filter(|bytes| *bytes >= NOTABLE)?;
            let seconds = (ended.0 - begun.0) as f64 / 1e6;
            (seconds > 0.0).then_some(Grown {
                cgroup,
                from_bytes: from,
                to_bytes: to,
                rate_bps: bytes as f64 / seconds,
            })
        })
        .collect();
    grown.sort_by(|one, other| other.rate_bps.total_cmp(&one.rate_bps));
    grown.truncate(MOST_UNJUDGED);
    grown
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
