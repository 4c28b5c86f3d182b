//! Brings it together: whose turn it is, what is under way, what came of it.

use std::collections::{BTreeMap, VecDeque};

use super::aftermath::Lesson;
use super::bounds::{Bounds, Court, Held};
use super::figures::Figures;

use super::learn::{Bad, Model};
use super::policy::{contain, decide, emergency, interval_us, stand_still};
use super::{Decision, Intent, Outcome, PolicyKind, Rung, Settings, View, view::Last};
use crate::event::{Body, Event};
use crate::time::Timestamp;

/// Decisions and outcomes that are remembered.
const HISTORY: usize = 256;
/// Between two actions of a kind on what leaks or lies idle.
const SLOW_TURN_US: i64 = 10_000_000;
/// An action of which nothing is heard is not waited for longer.
const LOST_US: i64 = 600_000_000;

/// A decision and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// The decision.
    pub decision: Decision,
    /// What came of it; `None` while it is under way, and for ever where nothing was done.
    pub outcome: Option<Outcome>,
    /// Why it was bad.
    pub bad: Option<Bad>,
    /// Pages that came back to the cgroup a second before it.
    pub steady: f64,
}

/// The governor of one machine.
#[derive(Clone, Debug, Default)]
pub struct Governor {
    pub(super) settings: Settings,
    pub(super) figures: Figures,
    pub(super) bounds: Bounds,
    pub(super) model: Model,
    /// Last turn of each policy.
    turns: BTreeMap<&'static str, Timestamp>,
    /// Under way, by path: its number, and since when.
    pub(super) busy: BTreeMap<String, (u64, Timestamp)>,
    pub(super) history: VecDeque<Settled>,
    /// Held back at the last turns, newest last.
    held: VecDeque<(Timestamp, Held)>,
    /// Actions that harm may still be put down to.
    pub(super) recent: VecDeque<Lesson>,
    pub(super) scattered: u64,
    host_available_pct: Option<f64>,
    utc_offset_s: i32,
}

impl Governor {
    /// A governor of these settings that goes on from what was learned.
    #[must_use]
    pub fn new(settings: Settings, model: Model) -> Self {
        Governor {
            settings,
            model,
            ..Governor::default()
        }
    }

    /// Other settings from now on. What is known, under way and learned stays.
    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Seconds by which local time is ahead of UTC, for times of the day.
    pub fn set_utc_offset(&mut self, seconds: i32) {
        self.utc_offset_s = seconds;
    }

    /// Percent of the host's memory that is available, in a virtual machine whose host tells; `None` where it is not
    /// known any more.
    pub fn set_host_available(&mut self, pct: Option<f64>) {
        self.host_available_pct = pct.filter(|pct| (0.0..=100.0).contains(pct));
    }

    /// What was learned.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Forgets what was learned.
    pub fn forget(&mut self) {
        self.model = Model::default();
    }

    /// Decisions of late and what came of them, oldest first.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &Settled> {
        self.history.iter()
    }

    /// What was held back of late, oldest first.
    pub fn held(&self) -> impl DoubleEndedIterator<Item = &(Timestamp, Held)> {
        self.held.iter()
    }

    /// The bounds: cool-downs.
    #[must_use]
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// What is seen now.
    #[must_use]
    pub fn view(&self, now: Timestamp) -> View {
        let mut view = self
            .figures
            .view(now, &self.settings, |path| self.is_busy(path));
        view.machine.scattered = self.scattered;
        for group in &mut view.groups {
            group.returned = self.bounds.returned(&group.path);
            let cools = self.bounds.cools_down(&group.path, Rung::File, now);
            group.cache_cools = cools.is_some();
        }
        view.machine.host_available_pct = self.host_available_pct;
        view
    }

    fn is_busy(&self, path: &str) -> bool {
        self.busy.contains_key(path)
    }

    /// Takes an event in.
    pub fn observe(&mut self, event: &Event) {
        self.figures.observe(event, &self.settings);
        if let (Body::Oom { .. }, Some(cgroup)) = (&event.body, &event.cgroup) {
            self.blame(event.ts, Some(&cgroup.path), Bad::Oom);
        }
    }

    /// The cgroup does not exist any more.
    pub fn gone(&mut self, path: &str) {
        self.figures.gone(path);
        self.bounds.gone(path);
        self.busy.remove(path);
    }

    /// What is to be done now. To be called once a second or so; `protected` says why a path must not be touched.
    pub fn decide(
        &mut self,
        now: Timestamp,
        protected: &dyn Fn(&str) -> Option<String>,
    ) -> Vec<Decision> {
        self.look_back(now);
        self.busy.retain(|_, (_, since)| since.0 + LOST_US > now.0);
        let view = self.view(now);
        // An emergency goes before what the policies want.
        let mut wanted = self.special(&view, now);
        let mut marked: Vec<String> = Vec::new();
        let mut conservative = false;
        for kind in PolicyKind::ALL {
            if !self.is_turn(kind, now) {
                continue;
            }
            conservative |= kind == PolicyKind::Conservative;
            let mine = View {
                groups: view
                    .groups
                    .iter()
                    .filter(|group| group.policy == kind)
                    .cloned()
                    .collect(),
                ..view.clone()
            };
            if mine.groups.is_empty() {
                continue;
            }
            marked.extend(mine.groups.iter().map(|group| group.path.clone()));
            let intents = decide(kind, &self.settings, &mine);
            wanted.extend(intents.into_iter().map(|intent| (kind, intent)));
        }
        let court = Court {
            settings: &self.settings,
            view: &view,
            lossy: self.figures.lossy(),
            model: &self.model,
            local: Timestamp(now.0 + i64::from(self.utc_offset_s) * 1_000_000),
            protected,
        };
        let mut decisions: Vec<Decision> = Vec::new();
        for (kind, intent) in wanted {
            // One action at a time and cgroup.
            if decisions.iter().any(|other| other.path == intent.path) {
                continue;
            }
            match self.bounds.admit(&court, kind, intent) {
                Ok(decision) => decisions.push(decision),
                Err(held) => {
                    self.held.push_back((now, held));
                    if self.held.len() > HISTORY {
                        self.held.pop_front();
                    }
                }
            }
        }
        // Before the turn is over: what came back since the last one is what comes back anyway.
        for decision in &decisions {
            self.begin(decision, now);
        }
        if conservative {
            // It alone looks at what the machine's tasks stalled since its last turn.
            self.figures.mark("/", now);
        }
        for path in marked {
            self.figures.mark(&path, now);
        }
        decisions
    }

    /// Emergencies, leaks, idle containers: whatever the policies' turns.
    fn special(&mut self, view: &View, now: Timestamp) -> Vec<(PolicyKind, Intent)> {
        let acting = View {
            groups: view
                .groups
                .iter()
                .filter(|group| group.policy != PolicyKind::Observe)
                .cloned()
                .collect(),
            ..view.clone()
        };
        let policy = |path: &str| {
            let group = acting.groups.iter().find(|group| group.path == path);
            group.map_or(PolicyKind::Observe, |group| group.policy)
        };
        let mut wanted = Vec::new();
        if let Some(settings) = self.settings.emergency.clone()
            && self.passed("emergency", settings.interval_us, now)
        {
            wanted.extend(emergency(&settings, &acting));
        }
        if self.passed("slow", SLOW_TURN_US, now) {
            wanted.extend(contain(&self.settings, &acting));
            wanted.extend(stand_still(&self.settings, &acting));
        }
        wanted
            .into_iter()
            .map(|intent| (policy(&intent.path), intent))
            .collect()
    }

    fn is_turn(&mut self, kind: PolicyKind, now: Timestamp) -> bool {
        if kind == PolicyKind::Scheduled {
            let then = self.turns.insert(kind.name(), now);
            let offset = self.utc_offset_s;
            return then.is_some_and(|then| {
                let mut times = self.settings.scheduled.at.iter();
                times.any(|at| at.due(then, now, offset))
            });
        }
        match interval_us(kind, &self.settings) {
            Some(interval) => self.passed(kind.name(), interval, now),
            None => false,
        }
    }

    /// Whether so much time has passed since it last had; it has then. A clock that was set back does not stop it.
    fn passed(&mut self, name: &'static str, interval: i64, now: Timestamp) -> bool {
        let passed = self
            .turns
            .get(name)
            .is_none_or(|then| now.0 >= then.0 + interval || now.0 < then.0);
        if passed {
            self.turns.insert(name, now);
        }
        passed
    }

    fn begin(&mut self, decision: &Decision, now: Timestamp) {
        self.busy
            .insert(decision.path.clone(), (decision.number, now));
        match decision.rung {
            Rung::Freeze => self.figures.stands_still(&decision.path),
            // Once is enough: it is not wanted again before there is more to move.
            Rung::Compact => self.scattered = 0,
            Rung::Trim => self.figures.trimmed(&decision.path),
            _ => {}
        }
        if decision.rung.reclaims() {
            let last = Last {
                asked: decision.bytes,
                good: self.figures.good(&decision.path),
                file_only: decision.rung == Rung::File,
                ..Last::default()
            };
            self.figures.reclaimed(&decision.path, last);
            let steady = self.figures.steady(&decision.path, now);
            if let Some(pages) = self.figures.refaults(&decision.path) {
                self.bounds.opened(&decision.path, pages, steady, now);
            }
        }
        self.history.push_back(Settled {
            decision: decision.clone(),
            outcome: None,
            bad: None,
            steady: self.figures.steady(&decision.path, now),
        });
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }
}
