//! What was learned from outcomes: the probability that an action does harm, by logistic regression over a dozen figures
//! that a person can read, one outcome after the other (AdaGrad: Duchi, Hazan and Singer, 2011). It makes steps smaller
//! or puts them off, never larger, and is nothing but its weights: [`Model::default`] is the fixed behaviour.

use serde::{Deserialize, Serialize};

use super::{Group, Machine, Outcome, Rung, view::PAGE};
use crate::time::Timestamp;

/// The figures, in this order.
pub const NAMES: [&str; 12] = [
    "always",
    "hour_sin",
    "hour_cos",
    "pressure",
    "anonymous",
    "step_share",
    "activity",
    "refault_history",
    "hot_share",
    "machine_short",
    "containers",
    "after_harm",
];

/// What the model looks at, each about −1 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Features(pub [f64; NAMES.len()]);

const DAY_US: i64 = 86_400_000_000;
/// Idle for so long counts as half as active.
const HALF_IDLE_US: f64 = 60_000_000.0;

impl Features {
    /// Of an action of `bytes` on a group.
    #[must_use]
    pub fn of(
        group: &Group,
        machine: &Machine,
        containers: usize,
        rung: Rung,
        bytes: u64,
        local: Timestamp,
    ) -> Features {
        let share = |part: u64, whole: u64| {
            if whole == 0 {
                0.0
            } else {
                (part as f64 / whole as f64).min(1.0)
            }
        };
        let angle = local.0.rem_euclid(DAY_US) as f64 / DAY_US as f64 * std::f64::consts::TAU;
        let last = group.last.as_ref();
        Features([
            1.0,
            angle.sin(),
            angle.cos(),
            // A tenth of the time is as bad as it gets.
            (group.since.psi_some().unwrap_or(0.0) * 10.0).min(1.0),
            f64::from(u8::from(rung.needs_swap())),
            share(bytes, group.gap()),
            1.0 / (1.0 + group.idle_us as f64 / HALF_IDLE_US),
            // Of the last step, or of those of the last hours.
            last.map_or(0.0, |last| last.returned())
                .max(2.0 * group.returned)
                .min(1.0),
            // How much of what is taken from has been used lately.
            match rung {
                Rung::File => 1.0 - share(group.cold_cache, group.cache),
                _ => 1.0,
            },
            machine
                .available_pct()
                .map_or(0.0, |pct| (1.0 - pct / 20.0).clamp(0.0, 1.0)),
            ((containers as f64 + 1.0).log2() / 8.0).min(1.0),
            f64::from(u8::from(last.is_some_and(|last| last.good == 0))),
        ])
    }
}

/// Why an outcome was bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// It had to be taken back.
    Reverted,
    /// A tenth of what was freed came back.
    Refaults,
    /// Tasks of the target stalled for a twentieth of the time.
    Stalls,
    /// It got a fifth less done.
    Slower,
    /// The OOM killer came within five minutes.
    Oom,
    /// The operator said so.
    Feedback,
}

impl Bad {
    /// In words.
    #[must_use]
    pub const fn told(self) -> &'static str {
        match self {
            Bad::Reverted => "it was taken back",
            Bad::Refaults => "what was freed came back",
            Bad::Stalls => "its tasks stalled",
            Bad::Slower => "it became slower",
            Bad::Oom => "the OOM killer came",
            Bad::Feedback => "the operator said so",
        }
    }
}

/// A refault storm: this part of what was freed, and more than `FEW` bytes.
const REFAULTS: f64 = 0.1;
const FEW: u64 = 1 << 20;
const STALLS: f64 = 0.05;
const SLOWER: f64 = 0.8;

/// Whether so many pages that came back are a storm, beside so many bytes freed.
#[must_use]
pub fn storm(refaults: u64, freed: u64) -> bool {
    let back = refaults.saturating_mul(PAGE);
    back > FEW && back as f64 > freed as f64 * REFAULTS
}

/// How near that is to a storm: 0 where nothing came back, 0.5 where a storm begins.
#[must_use]
pub fn harm(refaults: u64, freed: u64) -> f64 {
    let back = refaults.saturating_mul(PAGE).saturating_sub(FEW);
    (back as f64 / (2.0 * REFAULTS * freed as f64 + 1.0)).min(1.0)
}

/// Whether an outcome was bad, and why.
#[must_use]
pub fn judge(outcome: &Outcome) -> Option<Bad> {
    let back = outcome.refaults.saturating_mul(PAGE);
    if outcome.reverted {
        return Some(Bad::Reverted);
    }
    if storm(outcome.refaults, outcome.freed) {
        return Some(Bad::Refaults);
    }
    if outcome.elapsed_us > 0 && outcome.psi_some_us as f64 > outcome.elapsed_us as f64 * STALLS {
        return Some(Bad::Stalls);
    }
    // A program that waits for its disk has less CPU time than before; one that had none has nothing to lose.
    match outcome.cpu {
        Some((then, before)) if before > 0.05 && then < before * SLOWER && back > FEW => {
            Some(Bad::Slower)
        }
        _ => None,
    }
}

/// The weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    weights: [f64; NAMES.len()],
    squares: [f64; NAMES.len()],
    /// Outcomes it has seen.
    pub outcomes: u64,
    /// Bad ones among them.
    pub bad: u64,
}

/// Before anything is known, one in fifty.
const PRIOR: f64 = -3.9;
/// Length of the first step.
const RATE: f64 = 0.7;
/// What is not confirmed fades.
const DECAY: f64 = 1e-4;
/// Up to this probability nothing changes …
const TOLERATED: f64 = 0.1;
/// … and from this one on it is put off.
const TOO_MUCH: f64 = 0.3;
/// Outcomes before it has a say, which grows …
const LEAST: u64 = 10;
/// … until it has seen so many.
const FULL: f64 = 100.0;

impl Default for Model {
    fn default() -> Self {
        let mut weights = [0.0; NAMES.len()];
        weights[0] = PRIOR;
        Model {
            weights,
            squares: [1e-2; NAMES.len()],
            outcomes: 0,
            bad: 0,
        }
    }
}

impl Model {
    /// Probability of harm.
    #[must_use]
    pub fn harm(&self, features: &Features) -> f64 {
        let sum: f64 = self
            .weights
            .iter()
            .zip(&features.0)
            .map(|(weight, figure)| weight * figure)
            .sum();
        1.0 / (1.0 + (-sum).exp())
    }

    /// Part of a step that is left, 1 to 0.
    #[must_use]
    pub fn scale(&self, features: &Features) -> f64 {
        if self.outcomes < LEAST {
            return 1.0;
        }
        let say = (self.outcomes as f64 / FULL).min(1.0);
        let over = (self.harm(features) - TOLERATED) / (TOO_MUCH - TOLERATED);
        1.0 - say * over.clamp(0.0, 1.0)
    }

    /// Takes in what came of an action: 1 for harm, 0 for none, between them what [`harm`] says of it.
    pub fn learn_harm(&mut self, features: &Features, harm: f64) {
        let error = self.harm(features) - harm;
        for (at, figure) in features.0.iter().enumerate() {
            let gradient = error * figure + DECAY * (self.weights[at] - prior(at));
            self.squares[at] += gradient * gradient;
            self.weights[at] -= RATE * gradient / self.squares[at].sqrt();
        }
        self.outcomes += 1;
        self.bad += u64::from(harm > 0.5);
    }

    /// Takes in whether an action did harm.
    pub fn learn(&mut self, features: &Features, bad: bool) {
        self.learn_harm(features, f64::from(u8::from(bad)));
    }

    /// The weights by name: over 0 means more harm.
    pub fn weights(&self) -> impl Iterator<Item = (&'static str, f64)> {
        NAMES.into_iter().zip(self.weights)
    }

    /// Whether all figures are ones that learning can lead to: what a file holds may have been written by anybody.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.weights.iter().all(|weight| weight.abs() < 1e3)
            && self
                .squares
                .iter()
                .all(|square| *square > 0.0 && *square < 1e12)
            && self.bad <= self.outcomes
    }
}

fn prior(at: usize) -> f64 {
    if at == 0 { PRIOR } else { 0.0 }
}

#[cfg(test)]
mod tests;
