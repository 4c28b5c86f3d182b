//! Brings it together: whose turn it is, what is under way, what came of it.

use std::collections::{BTreeMap, VecDeque};

use super::bounds::{Bounds, Court, Held};
use super::figures::Figures;
use super::learn::{self, Bad, Features, Model};
use super::policy::{contain, decide, emergency, interval_us, stand_still};
use super::{Decision, Intent, Outcome, PolicyKind, Rung, Settings, View, view::Last};
use crate::event::{Body, Event};
use crate::time::Timestamp;

/// Harm within this time is put down to the action.
const BLAME_US: i64 = 300_000_000;
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
}

/// The governor of one machine.
#[derive(Clone, Debug, Default)]
pub struct Governor {
    settings: Settings,
    figures: Figures,
    bounds: Bounds,
    model: Model,
    /// Last turn of each policy.
    turns: BTreeMap<&'static str, Timestamp>,
    /// Under way, by path: its number, and since when.
    busy: BTreeMap<String, (u64, Timestamp)>,
    history: VecDeque<Settled>,
    /// Held back at the last turns, newest last.
    held: VecDeque<(Timestamp, Held)>,
    /// Lessons that harm may still be put down to.
    recent: VecDeque<(Timestamp, String, Features)>,
    scattered: u64,
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

    /// The operator says that what was done of late was bad (or, on one cgroup, what was done to it): the lesson. The
    /// number of actions it is put down to.
    pub fn feedback_bad(&mut self, now: Timestamp, path: Option<&str>) -> usize {
        self.blame(now, path, Bad::Feedback)
    }

    /// Harm after the fact: what was done on this path, above or below it within the last minutes was bad.
    fn blame(&mut self, now: Timestamp, path: Option<&str>, bad: Bad) -> usize {
        let related = |done: &str| {
            path.is_none_or(|path| {
                done == path
                    || path == "/"
                    || done == "/"
                    || inside(path, done)
                    || inside(done, path)
            })
        };
        let mut lessons = Vec::new();
        self.recent.retain(|(at, done, features)| {
            let hit = at.0 + BLAME_US > now.0 && related(done);
            if hit {
                lessons.push(*features);
            }
            // Each is blamed once.
            !hit
        });
        for features in &lessons {
            self.model.learn(features, true);
        }
        for settled in &mut self.history {
            let decision = &settled.decision;
            if decision.at.0 + BLAME_US > now.0
                && settled.bad.is_none()
                && settled.outcome.is_some()
                && related(&decision.path)
            {
                settled.bad = Some(bad);
                self.bounds.harmed(&decision.path, decision.rung, now);
            }
        }
        lessons.len()
    }

    /// What is to be done now. To be called once a second or so; `protected` says why a path must not be touched.
    pub fn decide(
        &mut self,
        now: Timestamp,
        protected: &dyn Fn(&str) -> Option<String>,
    ) -> Vec<Decision> {
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
        if conservative {
            // It alone looks at what the machine's tasks stalled since its last turn.
            self.figures.mark("/", now);
        }
        for path in marked {
            self.figures.mark(&path, now);
        }
        for decision in &decisions {
            self.begin(decision, now);
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
        if decision.rung.takes() {
            let last = Last {
                asked: decision.bytes,
                good: self.figures.good(&decision.path),
                file_only: decision.rung == Rung::File,
                ..Last::default()
            };
            self.figures.reclaimed(&decision.path, last);
        }
        self.history.push_back(Settled {
            decision: decision.clone(),
            outcome: None,
            bad: None,
        });
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }

    /// Nothing was done of it: shadow, or an actuator that could not. Its budget is spent all the same.
    pub fn not_done(&mut self, number: u64) {
        let mut history = self.history.iter().rev();
        let Some(settled) = history.find(|it| it.decision.number == number) else {
            return;
        };
        let decision = &settled.decision;
        if Self::ends(&mut self.busy, decision) && decision.rung.takes() {
            self.figures.not_reclaimed(&decision.path);
        }
    }

    /// It is not under way any more; whether no later one took its place.
    fn ends(busy: &mut BTreeMap<String, (u64, Timestamp)>, decision: &Decision) -> bool {
        let newest = busy
            .get(&decision.path)
            .is_some_and(|(number, _)| *number == decision.number);
        if newest {
            busy.remove(&decision.path);
        }
        newest
    }

    /// What came of a decision.
    pub fn outcome(&mut self, number: u64, outcome: Outcome, now: Timestamp) {
        let found = self
            .history
            .iter_mut()
            .find(|it| it.decision.number == number);
        let Some(settled) = found else { return };
        let decision = settled.decision.clone();
        // In an emergency tasks stalled before.
        let bad = learn::judge(&outcome)
            .filter(|bad| !(decision.urgent && matches!(bad, Bad::Stalls | Bad::Slower)));
        settled.outcome = Some(outcome);
        settled.bad = bad;
        let newest = Self::ends(&mut self.busy, &decision);
        match decision.rung {
            Rung::Compact => self.scattered = 0,
            Rung::Freeze => self.figures.froze(&decision.path, !outcome.reverted),
            _ => {}
        }
        if bad.is_some() {
            self.bounds.harmed(&decision.path, decision.rung, now);
        } else {
            self.bounds.went_well(&decision.path, decision.rung);
        }
        if !decision.rung.takes() {
            return;
        }
        self.scattered += outcome.freed;
        let good = match bad {
            None => self.figures.good(&decision.path).saturating_add(1),
            Some(_) => 0,
        };
        let last = Last {
            asked: decision.bytes,
            freed: outcome.freed,
            good,
            file_only: decision.rung == Rung::File,
            ..Last::default()
        };
        if newest {
            self.figures.settled(&decision.path, last);
        }
        self.model.learn(&decision.features, bad.is_some());
        if bad.is_none() {
            self.recent
                .push_back((now, decision.path, decision.features));
            while self
                .recent
                .front()
                .is_some_and(|(at, ..)| at.0 + BLAME_US <= now.0)
            {
                self.recent.pop_front();
            }
        }
    }
}

fn inside(path: &str, above: &str) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.starts_with('/'))
}
