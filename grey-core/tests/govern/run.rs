//! A governor at work in the model: it sees samples, its decisions are carried out, observed, and told back to it.

use std::collections::BTreeMap;

use grey_core::govern::learn::Model;
use grey_core::govern::{Decision, Governor, Outcome, Rung, Settings};
use grey_core::time::Timestamp;

use crate::load::{PAGE, Totals};
use crate::world::{Take, World};

/// A decision that was carried out.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) decision: Decision,
    pub(crate) outcome: Option<Outcome>,
    before: f64,
    freed: f64,
    at: Totals,
    /// CPU time a µs before it.
    cpus: f64,
    ends: u64,
}

pub(crate) struct Run {
    pub(crate) world: World,
    pub(crate) governor: Governor,
    pub(crate) done: Vec<Done>,
    /// Samples go through this first; a sample it empties is not seen.
    pub(crate) spoil: fn(&mut grey_core::event::Event),
    pub(crate) protected: Vec<String>,
    /// Totals of ten seconds, for what was used before an action.
    past: Vec<Vec<Totals>>,
    /// Bytes by which the cgroups are larger than at the start, summed over the seconds.
    pub(crate) byte_seconds: f64,
    /// Seconds between samples.
    pub(crate) every: u64,
}

impl Run {
    pub(crate) fn new(world: World, settings: Settings, model: Model) -> Run {
        Run {
            world,
            governor: Governor::new(settings, model),
            done: Vec::new(),
            spoil: |_| {},
            protected: Vec::new(),
            past: Vec::new(),
            byte_seconds: 0.0,
            every: 1,
        }
    }

    pub(crate) fn seconds(&mut self, seconds: u64) -> &mut Self {
        for _ in 0..seconds {
            self.second();
        }
        self
    }

    /// One second; what was decided in it.
    pub(crate) fn second(&mut self) -> Vec<Decision> {
        self.world.step();
        self.byte_seconds += self.resident();
        if !self.world.second.is_multiple_of(self.every) {
            return Vec::new();
        }
        let now = self.world.now();
        for mut event in self.world.samples() {
            (self.spoil)(&mut event);
            self.governor.observe(&event);
        }
        self.settle(now);
        let protected = &self.protected;
        let decisions = self.governor.decide(now, &|path| {
            protected
                .iter()
                .any(|it| it == path)
                .then(|| "protected".to_owned())
        });
        for decision in &decisions {
            self.carry_out(decision.clone());
        }
        self.past
            .push(self.world.loads.iter().map(|it| it.totals).collect());
        if self.past.len() > 10 {
            self.past.remove(0);
        }
        decisions
    }

    pub(crate) fn resident(&self) -> f64 {
        self.world.loads.iter().map(|load| load.resident()).sum()
    }

    fn carry_out(&mut self, decision: Decision) {
        let take = match decision.rung {
            Rung::File => Take::File,
            Rung::Anon => Take::Both,
            Rung::Pageout => Take::Idle,
            _ => {
                // Nothing that takes memory: it is done, and did no harm.
                let outcome = Outcome::default();
                self.governor
                    .outcome(decision.number, outcome, self.world.now());
                self.done.push(Done {
                    decision,
                    outcome: Some(outcome),
                    before: 0.0,
                    freed: 0.0,
                    at: Totals::default(),
                    cpus: 0.0,
                    ends: 0,
                });
                return;
            }
        };
        let index = self.world.load(&decision.path).unwrap();
        let before = self.world.loads[index].resident();
        let at = self.world.loads[index].totals;
        let freed = self.world.reclaim(index, decision.bytes as f64, take);
        let cpus = self.past.first().map_or(0.0, |then| {
            (at.cpu_us - then[index].cpu_us) / ((self.past.len() as u64 * self.every) as f64 * 1e6)
        });
        let observe = self.governor.settings().observe_us.max(1_000_000) / 1_000_000;
        self.done.push(Done {
            decision,
            outcome: None,
            before,
            freed,
            at,
            cpus,
            ends: self.world.second + observe as u64,
        });
    }

    fn settle(&mut self, now: Timestamp) {
        let second = self.world.second;
        let open = self
            .done
            .iter_mut()
            .rev()
            // Nothing is observed for longer than this.
            .take_while(|it| it.ends == 0 || it.ends + 60 > second)
            .filter(|it| it.outcome.is_none() && it.ends <= second);
        let mut told = Vec::new();
        for done in open {
            let Some(index) = self.world.load(&done.decision.path) else {
                continue;
            };
            let load = &self.world.loads[index];
            let totals = load.totals;
            let elapsed_us = (now.0 - done.decision.at.0) as u64;
            let outcome = Outcome {
                freed: done.freed as u64,
                kept: (done.before - load.resident()).clamp(0.0, done.freed) as u64,
                psi_some_us: (totals.some_us - done.at.some_us) as u64,
                psi_full_us: (totals.full_us - done.at.full_us) as u64,
                refaults: (totals.refaults - done.at.refaults) as u64,
                majors: (totals.majors - done.at.majors) as u64,
                elapsed_us,
                cpu: Some((
                    (totals.cpu_us - done.at.cpu_us) / elapsed_us as f64,
                    done.cpus,
                )),
                reverted: false,
                wanted: false,
            };
            done.outcome = Some(outcome);
            told.push((done.decision.number, outcome));
        }
        told.reverse();
        for (number, outcome) in told {
            self.governor.outcome(number, outcome, now);
        }
    }

    /// Bytes freed by decisions, by cgroup.
    pub(crate) fn freed(&self) -> BTreeMap<&str, f64> {
        let mut freed = BTreeMap::new();
        for done in &self.done {
            *freed.entry(done.decision.path.as_str()).or_insert(0.0) += done.freed;
        }
        freed
    }

    pub(crate) fn freed_bytes(&self) -> f64 {
        self.done.iter().map(|done| done.freed).sum()
    }

    pub(crate) fn refaulted_bytes(&self) -> f64 {
        let pages: f64 = self.world.loads.iter().map(|it| it.totals.refaults).sum();
        pages * PAGE
    }

    pub(crate) fn stalled_us(&self) -> f64 {
        self.world.loads.iter().map(|it| it.totals.some_us).sum()
    }

    pub(crate) fn cpu_us(&self) -> f64 {
        self.world.loads.iter().map(|it| it.totals.cpu_us).sum()
    }
}
