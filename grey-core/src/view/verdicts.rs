//! The verdicts that stand: the last one about each cgroup, process and kind of memory.

use std::collections::HashMap;
use std::sync::Arc;

use crate::event::{Event, State, Verdict};
use crate::time::Timestamp;

/// A recovery is shown for this long.
const RECOVERED_US: u64 = 600_000_000;
/// Cgroups with verdicts kept at most; beyond it the least grave go.
const MOST: usize = 4096;

/// A verdict and when it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// When.
    pub ts: Timestamp,
    /// What was said.
    pub verdict: Verdict,
    at_us: u64,
}

/// How many cgroups are in trouble.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// With a verdict that is suspect, and none that is confirmed.
    pub suspect: usize,
    /// With a confirmed one.
    pub confirmed: usize,
}

impl Judged {
    /// How grave it is: recovered, growing, suspect, confirmed.
    #[must_use]
    pub fn rank(&self) -> u8 {
        match self.verdict.state {
            State::Normal => 0,
            State::Recovered => 1,
            State::Growing => 2,
            State::Suspect => 3,
            State::Confirmed => 4,
        }
    }

    /// Whether somebody should look: suspect or confirmed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.verdict.state, State::Suspect | State::Confirmed)
    }

    /// The graver the higher, of the like the one that meets its limit first.
    pub(super) fn score(&self) -> f64 {
        // A hundred years or more are no time to a limit.
        const LONG_S: f64 = 3e9;
        let ttl = self.verdict.ttl_s.filter(|ttl| ttl.is_finite());
        f64::from(self.rank())
            + (LONG_S - ttl.unwrap_or(LONG_S).clamp(0.0, LONG_S)) / (2.0 * LONG_S)
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Verdicts {
    /// Of each cgroup the gravest first.
    by_path: HashMap<Arc<str>, Vec<Judged>>,
}

impl Verdicts {
    pub(super) fn take(&mut self, event: &Event, verdict: &Verdict, elapsed_us: u64) {
        let Some(cgroup) = &event.cgroup else { return };
        let path = cgroup.path.as_str();
        let standing = match self.by_path.get_mut(path) {
            Some(standing) => standing,
            None if verdict.state == State::Normal => return,
            None => {
                self.make_room();
                self.by_path.entry(path.into()).or_default()
            }
        };
        let pid = |verdict: &Verdict| verdict.process.as_ref().map(|process| process.pid);
        standing.retain(|known| {
            known.verdict.memory != verdict.memory || pid(&known.verdict) != pid(verdict)
        });
        if verdict.state != State::Normal {
            standing.push(Judged {
                ts: event.ts,
                verdict: verdict.clone(),
                at_us: elapsed_us,
            });
        }
        if standing.is_empty() {
            self.by_path.remove(path);
        } else {
            standing.sort_by(|a, b| b.score().total_cmp(&a.score()));
        }
    }

    pub(super) fn of(&self, path: &str) -> &[Judged] {
        self.by_path.get(path).map_or(&[], Vec::as_slice)
    }

    pub(super) fn forget(&mut self, path: &str) {
        self.by_path.remove(path);
    }

    pub(super) fn trouble(&self) -> Trouble {
        let mut trouble = Trouble::default();
        for gravest in self
            .by_path
            .values()
            .filter_map(|standing| standing.first())
        {
            match gravest.verdict.state {
                State::Confirmed => trouble.confirmed += 1,
                State::Suspect => trouble.suspect += 1,
                State::Normal | State::Growing | State::Recovered => {}
            }
        }
        trouble
    }

    pub(super) fn sweep(&mut self, elapsed_us: u64) {
        self.by_path.retain(|_, standing| {
            standing.retain(|judged| {
                judged.verdict.state != State::Recovered
                    || elapsed_us.saturating_sub(judged.at_us) < RECOVERED_US
            });
            !standing.is_empty()
        });
    }

    fn make_room(&mut self) {
        if self.by_path.len() < MOST {
            return;
        }
        let least = self
            .by_path
            .iter()
            .min_by_key(|(_, standing)| {
                standing.first().map(|judged| (judged.rank(), judged.at_us))
            })
            .map(|(path, _)| Arc::clone(path));
        if let Some(path) = least {
            self.by_path.remove(&path);
        }
    }
}
