//! What came of decisions: told back at the end of their observation, or seen later. Harm within five minutes is put down
//! to them, and only then is the lesson learned.

use std::collections::{BTreeMap, BTreeSet};

use super::learn::{self, Bad, Features};
use super::{Decision, Governor, Outcome, Rung, view::Last};
use crate::time::Timestamp;

/// Harm within this time is put down to the action.
const BLAME_US: i64 = 300_000_000;

/// An action that was not bad so far.
#[derive(Clone, Debug)]
pub(super) struct Lesson {
    at: Timestamp,
    path: String,
    rung: Rung,
    features: Features,
    freed: u64,
    /// Pages that had come back to its cgroup before it, and how many did a second.
    refaults: Option<u64>,
    steady: f64,
}

impl Governor {
    /// The operator says that what was done of late was bad (or, on one cgroup, what was done to it): the lesson. The
    /// number of actions it is put down to.
    pub fn feedback_bad(&mut self, now: Timestamp, path: Option<&str>) -> usize {
        self.blame(now, path, Bad::Feedback)
    }

    /// Harm after the fact: what was done on this path, above or below it within the last minutes was bad.
    pub(super) fn blame(&mut self, now: Timestamp, path: Option<&str>, bad: Bad) -> usize {
        self.blame_those(now, bad, |done, _| {
            path.is_none_or(|path| {
                done == path
                    || path == "/"
                    || done == "/"
                    || inside(path, done)
                    || inside(done, path)
            })
        })
    }

    fn blame_those(
        &mut self,
        now: Timestamp,
        bad: Bad,
        related: impl Fn(&str, Timestamp) -> bool,
    ) -> usize {
        let mut lessons = Vec::new();
        self.recent.retain(|lesson| {
            let hit = lesson.at.0 + BLAME_US > now.0 && related(&lesson.path, lesson.at);
            if hit {
                lessons.push(lesson.features);
            }
            // Each is blamed once.
            !hit
        });
        for features in &lessons {
            self.model.learn(features, true);
        }
        let mut harmed = BTreeSet::new();
        for settled in &mut self.history {
            let decision = &settled.decision;
            if decision.at.0 + BLAME_US > now.0
                && settled.bad.is_none()
                && settled.outcome.is_some()
                && related(&decision.path, decision.at)
            {
                settled.bad = Some(bad);
                harmed.insert((decision.path.clone(), decision.rung));
            }
        }
        // However many steps led to it, it is one harm.
        for (path, rung) in harmed {
            self.bounds.harmed(&path, rung, now);
            self.figures.harmed(&path);
        }
        lessons.len()
    }

    /// Pages that came back since an action, beyond those that do anyway.
    fn back(&self, lesson: &Lesson, now: Timestamp) -> Option<u64> {
        let back = self
            .figures
            .refaults(&lesson.path)?
            .checked_sub(lesson.refaults?)?;
        Some(beyond(back, lesson.steady, now.0 - lesson.at.0))
    }

    /// Storms of refaults that came after the observation ended; and lessons that nothing speaks against any more.
    pub(super) fn look_back(&mut self, now: Timestamp) {
        self.bounds
            .keep_accounts(now, |path| self.figures.refaults(path));
        let mut freed: BTreeMap<&str, u64> = BTreeMap::new();
        // By path, since when: the fewest of the last steps that account for it.
        let mut storms: BTreeMap<String, Timestamp> = BTreeMap::new();
        for lesson in self.recent.iter().rev() {
            let freed = freed.entry(&lesson.path).or_default();
            *freed += lesson.freed;
            let back = self.back(lesson, now);
            if back.is_some_and(|back| learn::storm(back, *freed)) {
                storms.entry(lesson.path.clone()).or_insert(lesson.at);
            }
        }
        for (path, since) in storms {
            self.blame_those(now, Bad::Refaults, |done, at| done == path && at >= since);
        }
        while let Some(lesson) = self.recent.pop_front_if(|it| it.at.0 + BLAME_US <= now.0) {
            let harm = learn::harm(self.back(&lesson, now).unwrap_or(0), lesson.freed);
            self.model.learn_harm(&lesson.features, harm);
            self.bounds.went_well(&lesson.path, lesson.rung);
        }
    }

    /// Nothing was done of it: shadow, or an actuator that could not. Its budget is spent all the same.
    pub fn not_done(&mut self, number: u64) {
        let mut history = self.history.iter().rev();
        let Some(settled) = history.find(|it| it.decision.number == number) else {
            return;
        };
        let decision = &settled.decision;
        if decision.rung == Rung::Freeze {
            self.figures.goes_on(&decision.path, decision.at);
        }
        if Self::ends(&mut self.busy, decision) && decision.rung.reclaims() {
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
        let steady = settled.steady;
        let lasted = i64::try_from(outcome.elapsed_us).unwrap_or(i64::MAX);
        let judged = Outcome {
            refaults: beyond(outcome.refaults, steady, lasted),
            ..outcome
        };
        let bad = learn::judge(&judged)
            .filter(|bad| !(decision.urgent && matches!(bad, Bad::Stalls | Bad::Slower)));
        settled.outcome = Some(outcome);
        settled.bad = bad;
        let newest = Self::ends(&mut self.busy, &decision);
        match decision.rung {
            Rung::Compact => self.scattered = 0,
            // It is told of at its end.
            Rung::Freeze => self.figures.goes_on(&decision.path, now),
            _ => {}
        }
        if bad.is_some() {
            self.bounds.harmed(&decision.path, decision.rung, now);
        } else if outcome.wanted {
            self.bounds.wanted(&decision.path, decision.rung, now);
        }
        if !decision.rung.takes() {
            if bad.is_none() && !outcome.wanted {
                self.bounds.went_well(&decision.path, decision.rung);
            }
            return;
        }
        self.scattered += outcome.freed;
        self.bounds.gave(&decision.path, outcome.freed);
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
        if newest && decision.rung.reclaims() {
            self.figures.settled(&decision.path, last);
        }
        if bad.is_some() {
            self.model.learn(&decision.features, true);
            return;
        }
        let refaults = self.figures.refaults(&decision.path);
        self.recent.push_back(Lesson {
            at: decision.at,
            path: decision.path,
            rung: decision.rung,
            features: decision.features,
            freed: outcome.freed,
            refaults: refaults.map(|pages| pages.saturating_sub(outcome.refaults)),
            steady,
        });
    }
}

/// Of pages that came back, those beyond what comes steadily.
fn beyond(pages: u64, steady: f64, us: i64) -> u64 {
    pages.saturating_sub((steady * us.max(0) as f64 / 1e6) as u64)
}

fn inside(path: &str, above: &str) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.starts_with('/'))
}
