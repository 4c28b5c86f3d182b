//! When an action is taken back: the rules over readings of its target and the machine. Pure: what is read, and when, is
//! elsewhere.

use std::collections::VecDeque;
use std::time::Duration;

use crate::event::Psi;
use crate::units::format_bytes;

#[cfg(test)]
mod tests;

/// Pressure and refaults are looked at over this time.
const WINDOW_US: u64 = 1_000_000;
/// A storm of refaults has to last: each half of at least this time is over the threshold.
const SUSTAINED_US: u64 = 600_000;

/// When the watchdog takes back what was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds {
    /// Percent of the last second that some task of the target stalled on memory; never with 100.
    pub psi_some_pct: f64,
    /// The same, all tasks.
    pub psi_full_pct: f64,
    /// MemAvailable of the machine, bytes.
    pub min_available: u64,
    /// Pages a second of the target that come back after our reclaim.
    pub refaults_per_s: u64,
    /// How often is looked.
    pub every: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds {
            psi_some_pct: 40.0,
            psi_full_pct: 20.0,
            min_available: 128 << 20,
            refaults_per_s: 8192,
            every: Duration::from_millis(250),
        }
    }
}

/// Harm was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trip {
    /// `oom_kill`, `pressure`, `available`, `refaults`, `critical_service`.
    pub cause: &'static str,
    /// With figures, in words.
    pub text: String,
}

/// Who is watched. The lists of a [`Reading`] are in the order of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The target as it is told: a cgroup's path, or `the machine`.
    pub name: String,
    /// Where kills are counted: the target, and the cgroups above it.
    pub kills: Vec<String>,
    /// Critical services.
    pub services: Vec<String>,
}

/// One look. What could not be read is absent, and its rule rests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Monotonic microseconds.
    pub at_us: u64,
    /// Kills by place.
    pub kills: Vec<Option<Kills>>,
    /// Stall times of the target.
    pub psi: Option<Psi>,
    /// MemAvailable.
    pub available: Option<u64>,
    /// Pages of the target that came back so far.
    pub refaults: Option<u64>,
    /// Critical services.
    pub services: Vec<Option<Service>>,
}

/// Kills of the OOM killer in a cgroup and below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kills {
    /// So far.
    pub total: u64,
    /// How often the limit of this very cgroup was the cause; absent where any kill counts.
    pub at_limit: Option<u64>,
}

/// A critical service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// It has processes.
    Runs,
    /// It has none.
    Empty,
    /// Its cgroup is gone.
    Gone,
}

#[derive(Clone, Debug)]
struct Point {
    at_us: u64,
    psi: Option<Psi>,
    refaults: Option<u64>,
}

/// The rules over one action.
#[derive(Clone, Debug)]
pub struct Watch {
    subject: Subject,
    start: Reading,
    /// The last window of readings, oldest first.
    recent: VecDeque<Point>,
}

impl Watch {
    /// `start` is the reading before the action.
    #[must_use]
    pub fn new(subject: Subject, start: Reading) -> Watch {
        let mut watch = Watch {
            subject,
            start: Reading::default(),
            recent: VecDeque::new(),
        };
        watch.keep(&start);
        watch.start = start;
        watch
    }

    /// Takes the next reading; the gravest harm that it shows.
    pub fn look(&mut self, now: &Reading, thresholds: &Thresholds) -> Option<Trip> {
        self.keep(now);
        self.kills(now)
            .or_else(|| self.services(now))
            .or_else(|| self.available(now, thresholds))
            .or_else(|| self.pressure(now, thresholds))
            .or_else(|| self.refaults(now, thresholds))
    }

    fn keep(&mut self, now: &Reading) {
        self.recent.push_back(Point {
            at_us: now.at_us,
            psi: now.psi.clone(),
            refaults: now.refaults,
        });
        // The one just outside the window stays: it is where the window begins.
        while self
            .recent
            .get(1)
            .is_some_and(|second| second.at_us.saturating_add(WINDOW_US) <= now.at_us)
        {
            self.recent.pop_front();
        }
    }

    fn kills(&self, now: &Reading) -> Option<Trip> {
        let places = self.subject.kills.iter().enumerate();
        places
            .zip(self.start.kills.iter().zip(&now.kills))
            .find_map(|((at, place), (start, now))| {
                let (start, now) = ((*start)?, (*now)?);
                let rose = now.total > start.total;
                let ours = match (start.at_limit, now.at_limit) {
                    (Some(start), Some(now)) => now > start,
                    _ => true,
                };
                (rose && ours).then(|| Trip {
                    cause: "oom_kill",
                    text: format!(
                        "the OOM killer ran in {place} (oom_kill {} -> {}){}",
                        start.total,
                        now.total,
                        if at > 0 && now.at_limit.is_some() {
                            ", which reached its limit"
                        } else {
                            ""
                        }
                    ),
                })
            })
    }

    fn services(&self, now: &Reading) -> Option<Trip> {
        self.subject
            .services
            .iter()
            .zip(self.start.services.iter().zip(&now.services))
            .find_map(|(name, (start, now))| {
                let what = match ((*start)?, (*now)?) {
                    (Service::Runs, Service::Empty) => "has no process any more",
                    (Service::Runs, Service::Gone) => "is gone",
                    _ => return None,
                };
                Some(Trip {
                    cause: "critical_service",
                    text: format!("{name} {what}"),
                })
            })
    }

    fn available(&self, now: &Reading, thresholds: &Thresholds) -> Option<Trip> {
        let least = thresholds.min_available;
        let (start, now) = (self.start.available?, now.available?);
        // A machine that was short before must get worse by more than it breathes.
        let under = if start >= least {
            now < least
        } else {
            now < start.saturating_sub(least / 8)
        };
        under.then(|| Trip {
            cause: "available",
            text: format!(
                "MemAvailable is {}, under {} ({} before)",
                format_bytes(now),
                format_bytes(least),
                format_bytes(start)
            ),
        })
    }

    fn pressure(&self, now: &Reading, thresholds: &Thresholds) -> Option<Trip> {
        let then = self.recent.front()?;
        let (from, to) = (then.psi.as_ref()?, now.psi.as_ref()?);
        let time = now.at_us.saturating_sub(then.at_us).max(WINDOW_US);
        let percent = |from: u64, to: u64| to.saturating_sub(from) as f64 * 100.0 / time as f64;
        let some = percent(from.some_us_total, to.some_us_total);
        let full = from
            .full_us_total
            .zip(to.full_us_total)
            .map(|(from, to)| percent(from, to));
        let over = |threshold: f64, value: f64| threshold < 100.0 && value > threshold;
        let (what, value, threshold) = match full {
            Some(full) if over(thresholds.psi_full_pct, full) => {
                ("all tasks", full, thresholds.psi_full_pct)
            }
            _ if over(thresholds.psi_some_pct, some) => {
                ("some task", some, thresholds.psi_some_pct)
            }
            _ => return None,
        };
        Some(Trip {
            cause: "pressure",
            text: format!(
                "{what} of {} stalled on memory for {value:.0} % of the last second, over {threshold} %",
                self.subject.name
            ),
        })
    }

    fn refaults(&self, now: &Reading, thresholds: &Thresholds) -> Option<Trip> {
        let earlier = |age: u64| {
            let old = |point: &&Point| now.at_us.saturating_sub(point.at_us) >= age;
            self.recent.iter().rev().find(old)
        };
        let (first, middle) = (earlier(SUSTAINED_US)?, earlier(SUSTAINED_US / 2)?);
        let rate = |from: (u64, u64), to: (u64, u64)| {
            let time = to.0.saturating_sub(from.0);
            (time > 0).then(|| to.1.saturating_sub(from.1) as f64 * 1e6 / time as f64)
        };
        let first = (first.at_us, first.refaults?);
        let middle = (middle.at_us, middle.refaults?);
        let last = (now.at_us, now.refaults?);
        let least = thresholds.refaults_per_s as f64;
        let lasting = rate(first, middle)? > least && rate(middle, last)? > least;
        let whole = rate(first, last)?;
        lasting.then(|| Trip {
            cause: "refaults",
            text: format!(
                "{} reads back {whole:.0} pages a second that were reclaimed, over {}",
                self.subject.name, thresholds.refaults_per_s
            ),
        })
    }
}
