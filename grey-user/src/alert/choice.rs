//! Which events are alerts: OOM kills, verdicts from a state on, and the recovery from what was an alert.

use std::collections::HashSet;

use grey_core::event::{Body, Event, Memory, State};

use super::AlertOn;

/// Recoveries that are waited for at most.
const MOST: usize = 32_768;

#[derive(Debug)]
pub(super) struct Choice {
    from: State,
    /// Cgroup, memory, process of the alerts that have not recovered.
    open: HashSet<(String, Memory, Option<u32>)>,
}

impl Choice {
    pub(super) fn new(on: AlertOn) -> Self {
        Choice {
            from: on.state(),
            open: HashSet::new(),
        }
    }

    pub(super) fn is_alert(&mut self, event: &Event) -> bool {
        let verdict = match &event.body {
            Body::Oom { .. } => return true,
            Body::Verdict { verdict } => verdict,
            _ => return false,
        };
        let path = event.cgroup.as_ref().map(|cgroup| cgroup.path.clone());
        let subject = (
            path.unwrap_or_default(),
            verdict.memory,
            verdict.process.as_ref().map(|process| process.pid),
        );
        match verdict.state {
            State::Normal | State::Recovered => self.open.remove(&subject),
            // Less sure than before, but not over.
            State::Growing => false,
            State::Suspect | State::Confirmed if verdict.state < self.from => false,
            State::Suspect | State::Confirmed => {
                if self.open.len() < MOST {
                    self.open.insert(subject);
                }
                true
            }
        }
    }
}
