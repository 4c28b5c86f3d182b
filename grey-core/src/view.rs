//! What the screen shows: rates, history, limits, growing processes and alerts, made from events alone, so that the
//! live view, replay and tests share it. Layout and colours are elsewhere.

mod alert;
mod entry;
mod history;
mod process;
mod rates;
mod rows;
#[cfg(test)]
mod tests;
mod verdicts;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

pub use alert::{Alert, AlertKind, Severity, headline, printable, seconds};
pub use entry::Entry;
pub use history::{Basis, HISTORY};
pub use process::GrowingProcess;
pub use rates::Rates;
pub use rows::{LimitKind, LimitUse, Query, Row, SortKey};
pub use verdicts::{Judged, Trouble};

use alert::Alerts;
use process::Processes;
use verdicts::Verdicts;

use crate::event::{Body, Event, Health};
use crate::time::Timestamp;

/// A cgroup not heard of for this long is dropped, if nobody told of its removal.
pub const FORGET_AFTER: Duration = Duration::from_secs(600);

/// Cgroups kept at most; beyond it those not heard of for the longest time go.
pub const MAX_CGROUPS: usize = 32_768;

/// A jump of the events' time by more than this counts as this much: the wall clock was set, or a recording has a
/// gap, and neither says that every cgroup fell silent.
const MAX_STEP_US: i64 = 60_000_000;

/// Events of one stream may be out of order by this much; an earlier one means that the clock was set back.
const REORDER_US: i64 = 10_000_000;

const SWEEP_US: u64 = 30_000_000;

/// Everything the views show. Fed by [`Model::apply`] only.
///
/// Memory: about 1.5 KiB per cgroup (last sample, rates, a history of 61 points) plus its path, so some 15 MiB with
/// 10,000 cgroups; processes and alerts are bounded by number.
#[derive(Clone, Debug)]
pub struct Model {
    /// Boxed: a table of large values would hold up to twice as many as there are.
    cgroups: HashMap<Arc<str>, Box<Entry>>,
    processes: Processes,
    alerts: Alerts,
    verdicts: Verdicts,
    health: Option<Health>,
    lost_lately: u64,
    host: String,
    tick_us: u64,
    now: Option<Timestamp>,
    elapsed_us: u64,
    swept_us: u64,
    generation: u64,
}

impl Model {
    /// An empty model. `tick` is the interval at which active cgroups are sampled; it is the width of one point of
    /// the histories.
    #[must_use]
    pub fn new(tick: Duration) -> Self {
        let tick_us = u64::try_from(tick.as_micros()).unwrap_or(u64::MAX);
        Model {
            cgroups: HashMap::new(),
            processes: Processes::default(),
            alerts: Alerts::default(),
            verdicts: Verdicts::default(),
            health: None,
            lost_lately: 0,
            host: String::new(),
            tick_us: tick_us.max(1_000),
            now: None,
            elapsed_us: 0,
            swept_us: 0,
            generation: 0,
        }
    }

    /// Takes in one event.
    pub fn apply(&mut self, event: &Event) {
        self.generation += 1;
        self.advance(event.ts);
        if self.host != event.host {
            self.host.clone_from(&event.host);
        }
        match &event.body {
            Body::Sample(sample) => {
                let Some(cgroup) = &event.cgroup else { return };
                if let Some(entry) = self.cgroups.get_mut(cgroup.path.as_str()) {
                    if entry.is_another(cgroup) {
                        self.verdicts.forget(&cgroup.path);
                    }
                    entry.update(
                        cgroup,
                        event,
                        sample,
                        self.tick_us,
                        self.elapsed_us,
                        self.generation,
                    );
                } else {
                    let entry = Entry::new(cgroup, event, sample, self.elapsed_us, self.generation);
                    self.cgroups.insert(entry.key(), Box::new(entry));
                    self.make_room();
                }
            }
            Body::Process { process } => {
                let path = event.cgroup.as_ref().map(|cgroup| cgroup.path.as_str());
                self.processes
                    .sample(process, path, event.ts, self.elapsed_us);
            }
            Body::Growth { growth } => {
                let path = event.cgroup.as_ref().map(|cgroup| cgroup.path.as_str());
                self.processes
                    .growth(growth, path, self.elapsed_us, self.tick_us);
                self.alerts.push(Alert::of(event), self.elapsed_us);
            }
            Body::Oom { oom } => {
                if let Some(victim) = &oom.victim {
                    self.processes.forget(victim.pid);
                }
                self.alerts.push(Alert::of(event), self.elapsed_us);
            }
            Body::Verdict { verdict } => {
                self.verdicts.take(event, verdict, self.elapsed_us);
                self.alerts.push(Alert::of(event), self.elapsed_us);
            }
            Body::Stall { .. }
            | Body::Pressure { .. }
            | Body::Action { .. }
            | Body::Outcome { .. }
            | Body::Rollback { .. } => {
                self.alerts.push(Alert::of(event), self.elapsed_us);
            }
            Body::Health { health } => self.take_health(event, health),
        }
        if self.elapsed_us - self.swept_us >= SWEEP_US {
            self.sweep();
        }
    }

    /// Takes in a verdict that stood before the stream began: it is shown, but is no news.
    pub fn recall(&mut self, event: &Event) {
        if let Body::Verdict { verdict } = &event.body {
            self.verdicts.take(event, verdict, self.elapsed_us);
        }
    }

    /// Adds a line about the watch itself to the alerts.
    pub fn note(&mut self, text: &str, at: Timestamp) {
        self.generation += 1;
        self.alerts
            .push(Some(Alert::note(text, at)), self.elapsed_us);
    }

    /// Forgets a cgroup that was removed, its processes and what was said of it.
    pub fn remove(&mut self, path: &str) {
        self.generation += 1;
        self.cgroups.remove(path);
        self.verdicts.forget(path);
        self.processes.forget_cgroup(path);
    }

    /// One cgroup by its path.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.cgroups.get(path).map(Box::as_ref)
    }

    /// All cgroups, in no order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.cgroups.values().map(Box::as_ref)
    }

    /// Number of cgroups known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cgroups.len()
    }

    /// Whether no cgroup is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cgroups.is_empty()
    }

    /// Whether any cgroup below the root has a figure of the memory controller; the root's come from elsewhere.
    #[must_use]
    pub fn has_memory(&self) -> bool {
        self.entries().any(|entry| {
            let mem = &entry.sample().mem;
            entry.path() != "/" && (mem.current.is_some() || mem.anon.is_some())
        })
    }

    /// How long ago the cgroup's last sample was taken, by the events' own time.
    #[must_use]
    pub fn age(&self, entry: &Entry) -> Duration {
        Duration::from_micros(self.elapsed_us.saturating_sub(entry.heard_us()))
    }

    /// The rates of a cgroup while they still say something: a figure over a window that ended long ago (in windows
    /// and in ticks) is unknown now, so all are `None` then.
    #[must_use]
    pub fn rates<'a>(&self, entry: &'a Entry) -> &'a Rates {
        if self.is_stale(entry) {
            &rates::UNKNOWN
        } else {
            entry.rates()
        }
    }

    /// Whether the last sample is too old for its rates to hold now.
    #[must_use]
    pub fn is_stale(&self, entry: &Entry) -> bool {
        let age = self.elapsed_us.saturating_sub(entry.heard_us());
        age > (3 * self.tick_us).max(entry.rates().window_us.saturating_mul(3) / 2)
    }

    /// The last `n` points of a cgroup's history as rates, oldest first: growth in bytes/s, or faults/s, by
    /// [`Entry::basis`]. Ticks since its last sample are `None`, as are those with unknown figures.
    #[must_use]
    pub fn sparkline(&self, entry: &Entry, n: usize) -> Vec<Option<f64>> {
        entry
            .history()
            .rates(n, self.ticks_since(entry), self.tick_us)
    }

    /// The last `n` points of the cgroup's memory (anon + swap, or memory.current) in bytes, oldest first; faults/s
    /// where the memory is unknown.
    #[must_use]
    pub fn levels(&self, entry: &Entry, n: usize) -> Vec<Option<f64>> {
        entry.history().levels(n, self.ticks_since(entry))
    }

    /// The processes that grow most, fastest first.
    #[must_use]
    pub fn growing(&self, n: usize) -> Vec<GrowingProcess<'_>> {
        self.processes.top(n, self.elapsed_us, self.tick_us)
    }

    /// What stands about a cgroup, the gravest first; empty when there is nothing to tell.
    #[must_use]
    pub fn verdicts(&self, path: &str) -> &[Judged] {
        self.verdicts.of(path)
    }

    /// Seconds left of the time to the limit that a verdict gave when it came; `None` when it gave none or that time is
    /// over.
    #[must_use]
    pub fn time_left(&self, judged: &Judged) -> Option<f64> {
        let since = self.now?.0.saturating_sub(judged.ts.0).max(0) as f64 / 1e6;
        judged
            .verdict
            .ttl_s
            .map(|ttl| ttl - since)
            .filter(|left| *left > 0.0)
    }

    /// How many cgroups have a verdict that is suspect or confirmed.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        self.verdicts.trouble()
    }

    /// Alerts, newest first.
    pub fn alerts(&self) -> impl DoubleEndedIterator<Item = &Alert> + ExactSizeIterator {
        self.alerts.newest_first()
    }

    /// The last `health` event.
    #[must_use]
    pub fn health(&self) -> Option<&Health> {
        self.health.as_ref()
    }

    /// Records lost since attach, all kinds together; `None` before the first `health` event.
    #[must_use]
    pub fn lost(&self) -> Option<u64> {
        self.health.as_ref().map(lost)
    }

    /// Records lost between the last two `health` events.
    #[must_use]
    pub fn lost_lately(&self) -> u64 {
        self.lost_lately
    }

    /// Node name told by the events; empty before the first.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Time of the newest event.
    #[must_use]
    pub fn now(&self) -> Option<Timestamp> {
        self.now
    }

    /// Interval between samples of active cgroups.
    #[must_use]
    pub fn tick(&self) -> Duration {
        Duration::from_micros(self.tick_us)
    }

    /// Grows with every change, so that a view can tell what is new (see [`Entry::changed`]).
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn ticks_since(&self, entry: &Entry) -> usize {
        // A cgroup that is sampled each tick is up to one tick old just before the next sample.
        let age = self.elapsed_us.saturating_sub(entry.heard_us());
        usize::try_from((age + self.tick_us / 2) / self.tick_us)
            .map_or(HISTORY, |ticks| ticks.saturating_sub(1))
    }

    /// Moves the model's own time on, which never runs backwards.
    fn advance(&mut self, ts: Timestamp) {
        let Some(now) = self.now else {
            self.now = Some(ts);
            return;
        };
        let step = ts.0.saturating_sub(now.0);
        if step >= 0 {
            self.elapsed_us += step.min(MAX_STEP_US).unsigned_abs();
            self.now = Some(ts);
        } else if step < -REORDER_US {
            self.now = Some(ts);
        }
    }

    fn take_health(&mut self, event: &Event, health: &Health) {
        let before = self.health.as_ref().map_or(0, lost);
        self.lost_lately = lost(health).saturating_sub(before);
        if self.lost_lately > 0 {
            let alert = alert::lost_records(event, health, self.health.as_ref());
            self.alerts.push(alert, self.elapsed_us);
        }
        self.health = Some(health.clone());
    }

    fn sweep(&mut self) {
        self.swept_us = self.elapsed_us;
        let forget = FORGET_AFTER.as_micros();
        let elapsed = self.elapsed_us;
        self.cgroups
            .retain(|_, entry| u128::from(elapsed.saturating_sub(entry.heard_us())) < forget);
        self.processes.sweep(elapsed);
        self.verdicts.sweep(elapsed);
    }

    fn make_room(&mut self) {
        if self.cgroups.len() <= MAX_CGROUPS {
            return;
        }
        // An eighth at once, so that the scan is rare.
        let mut heard: Vec<u64> = self
            .cgroups
            .values()
            .map(|entry| entry.last_generation())
            .collect();
        let (_, &mut oldest_kept, _) = heard.select_nth_unstable(MAX_CGROUPS / 8);
        self.cgroups
            .retain(|_, entry| entry.last_generation() >= oldest_kept);
    }
}

fn lost(health: &Health) -> u64 {
    health
        .dropped
        .values()
        .fold(0, |sum, n| sum.saturating_add(*n))
}
