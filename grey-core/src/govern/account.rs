//! What was taken from a cgroup and what came back to it over hours: where that goes round in circles it is left alone,
//! however long the circle.

use super::view::PAGE;
use crate::time::Timestamp;

/// Both sides fade with this time constant.
const FADES_S: f64 = 2.0 * 3600.0;
/// Of what was taken, this part may come back …
const BACK: f64 = 0.2;
/// … and bytes that are not worth a thought.
const REST: f64 = 8.0 * 1_048_576.0;
/// Less than this, and the account is closed.
const CLOSED: f64 = 65_536.0;

/// Of one cgroup.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    taken: f64,
    back: f64,
    at: Timestamp,
    /// Pages that had come back by then.
    refaults: u64,
    /// Pages that come back a second whatever is taken: the least that was seen.
    steady: f64,
    /// Nothing was taken yet.
    fresh: bool,
}

impl Account {
    pub(super) fn new(refaults: u64, steady: f64, at: Timestamp) -> Account {
        Account {
            taken: 0.0,
            back: 0.0,
            at,
            refaults,
            steady,
            fresh: true,
        }
    }

    pub(super) fn steadies(&mut self, steady: f64) {
        self.steady = self.steady.min(steady);
    }

    pub(super) fn gave(&mut self, bytes: u64) {
        self.taken += bytes as f64;
        self.fresh = false;
    }

    /// Too much of what was taken came back.
    pub(super) fn is_over(&self) -> bool {
        self.back > BACK * self.taken + REST
    }

    /// Part of what was taken that came back.
    pub(super) fn returned(&self) -> f64 {
        self.back / (self.taken + self.back).max(REST)
    }

    /// Brings it up to now; whether it is still needed.
    pub(super) fn keep(&mut self, refaults: Option<u64>, now: Timestamp) -> bool {
        let seconds = (now.0 - self.at.0).max(0) as f64 / 1e6;
        self.at = now;
        let fades = (-seconds / FADES_S).exp();
        self.taken *= fades;
        self.back *= fades;
        if let Some(refaults) = refaults {
            // A counter that went back is that of another cgroup.
            let pages = refaults.saturating_sub(self.refaults) as f64;
            self.refaults = refaults;
            self.back += (pages - self.steady * seconds).max(0.0) * PAGE as f64;
        }
        self.fresh || self.taken + self.back > CLOSED
    }
}
