//! What a journal comes to: the actions, which of their changes are in force, and what followed earlier ones.

use std::collections::BTreeMap;

use super::knob::{Knob, Value};
use super::record::{Close, Harm, Record};

/// Ended actions that are kept for the history when a journal is compacted.
const HISTORY: usize = 100;

/// The state of a journal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    actions: BTreeMap<u64, Action>,
    lookback: BTreeMap<(String, String), Lookback>,
    next: u64,
}

/// What is known of earlier actions of one kind on one target.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lookback {
    /// When the last one began, wall-clock milliseconds.
    pub last: Option<u64>,
    /// Harm that followed.
    pub harm: Option<Harm>,
}

/// One action.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// Its id.
    pub id: u64,
    /// Wall-clock milliseconds of its beginning; 0 where that record is lost.
    pub at: u64,
    /// Boot id of its machine.
    pub boot: String,
    /// Who acted.
    pub pid: u32,
    /// `reclaim`, `limit` …
    pub kind: String,
    /// Cgroup path, `pid 123`, `machine`.
    pub target: String,
    /// Why.
    pub reason: String,
    /// How far it is.
    pub phase: Phase,
    /// Its changes in the order they were made.
    pub steps: Vec<Step>,
}

/// How far an action is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Under way, or broken off.
    Running,
    /// Complete; its changes stay until somebody asks for their undoing.
    Kept,
    /// Over: nothing of it is in force.
    Ended,
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Counts from 0.
    pub step: u32,
    /// The file.
    pub knob: Knob,
    /// What to put back.
    pub old: Value,
    /// What we wrote.
    pub new: Value,
    /// See [`Record::Intent`].
    pub leaves: Option<Value>,
    /// Why it is no longer open; `None` while it is.
    pub closed: Option<Close>,
}

impl Action {
    /// Whether a change of it is in force.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.steps.iter().any(|step| step.closed.is_none())
    }
}

impl Ledger {
    /// The state after these records.
    #[must_use]
    pub fn of(records: impl IntoIterator<Item = Record>) -> Ledger {
        let mut ledger = Ledger {
            next: 1,
            ..Ledger::default()
        };
        for record in records {
            ledger.apply(&record);
        }
        ledger
    }

    /// Takes one more record.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Begin {
                id,
                at,
                boot,
                pid,
                kind,
                target,
                reason,
            } => {
                self.last(kind, target, *at);
                let action = self.action(*id);
                action.at = *at;
                boot.clone_into(&mut action.boot);
                action.pid = *pid;
                kind.clone_into(&mut action.kind);
                target.clone_into(&mut action.target);
                reason.clone_into(&mut action.reason);
            }
            Record::Intent {
                id,
                step,
                knob,
                old,
                new,
                leaves,
            } => {
                let action = self.action(*id);
                // Somebody ended the action while it was under way, and it goes on.
                if action.phase == Phase::Ended {
                    action.phase = Phase::Running;
                }
                // A step that was tried again replaces its first form.
                action.steps.retain(|earlier| earlier.step != *step);
                action.steps.push(Step {
                    step: *step,
                    knob: knob.clone(),
                    old: old.clone(),
                    new: new.clone(),
                    leaves: leaves.clone(),
                    closed: None,
                });
                action.steps.sort_by_key(|step| step.step);
            }
            Record::Kept { id } => self.action(*id).phase = Phase::Kept,
            Record::Ended { id } => {
                let action = self.action(*id);
                action.phase = Phase::Ended;
                // A record of theirs that is lost.
                for step in &mut action.steps {
                    step.closed.get_or_insert(Close::Back);
                }
            }
            Record::Closed { id, step, how } => self.close(*id, *step, *how),
            Record::Harm(harm) => {
                self.lookback_mut(&harm.kind, &harm.target).harm = Some(harm.clone());
            }
            Record::Last { kind, target, at } => self.last(kind, target, *at),
            Record::Next { id } => self.next = self.next.max(*id),
        }
    }

    fn action(&mut self, id: u64) -> &mut Action {
        self.next = self.next.max(id.saturating_add(1));
        self.actions.entry(id).or_insert_with(|| Action {
            id,
            at: 0,
            boot: String::new(),
            pid: 0,
            kind: String::new(),
            target: String::new(),
            reason: String::new(),
            phase: Phase::Running,
            steps: Vec::new(),
        })
    }

    fn close(&mut self, id: u64, step: u32, how: Close) {
        let Some(closing) = self.actions.get_mut(&id).and_then(|action| {
            action
                .steps
                .iter_mut()
                .find(|candidate| candidate.step == step && candidate.closed.is_none())
        }) else {
            return;
        };
        closing.closed = Some(how);
        if how == Close::Covered {
            let (knob, old) = (closing.knob.clone(), closing.old.clone());
            if let Some(upper) = self.above_mut(id, step, &knob) {
                upper.old = old;
            }
        }
    }

    fn above_mut(&mut self, id: u64, step: u32, knob: &Knob) -> Option<&mut Step> {
        let (upper, at) = self.above(id, step, knob)?;
        self.actions
            .get_mut(&upper)?
            .steps
            .iter_mut()
            .find(|candidate| candidate.step == at)
    }

    /// The next later open change of the same knob, if there is one.
    fn above(&self, id: u64, step: u32, knob: &Knob) -> Option<(u64, u32)> {
        self.actions
            .range(id..)
            .flat_map(|(upper, action)| action.steps.iter().map(move |step| (*upper, step)))
            .find(|(upper, candidate)| {
                (*upper, candidate.step) > (id, step)
                    && candidate.closed.is_none()
                    && candidate.knob == *knob
            })
            .map(|(upper, step)| (upper, step.step))
    }

    /// The later action whose open change of the same knob was made right over this one, nobody else having written in
    /// between: that one restores what this one would have.
    #[must_use]
    pub fn covering(&self, id: u64, step: &Step) -> Option<&Action> {
        let (upper, at) = self.above(id, step.step, &step.knob)?;
        let action = self.actions.get(&upper)?;
        let over = action.steps.iter().find(|over| over.step == at)?;
        (over.old == step.new).then_some(action)
    }

    /// The newest open change of a knob.
    #[must_use]
    pub fn top(&self, knob: &Knob) -> Option<(u64, &Step)> {
        self.actions.iter().rev().find_map(|(id, action)| {
            action
                .steps
                .iter()
                .rev()
                .find(|step| step.closed.is_none() && step.knob == *knob)
                .map(|step| (*id, step))
        })
    }

    fn lookback_mut(&mut self, kind: &str, target: &str) -> &mut Lookback {
        self.lookback
            .entry((kind.to_owned(), target.to_owned()))
            .or_default()
    }

    fn last(&mut self, kind: &str, target: &str, at: u64) {
        let lookback = self.lookback_mut(kind, target);
        lookback.last = lookback.last.max(Some(at));
    }

    /// The next id.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.next.max(1)
    }

    /// One action.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&Action> {
        self.actions.get(&id)
    }

    /// All actions, oldest first.
    pub fn actions(&self) -> impl DoubleEndedIterator<Item = &Action> {
        self.actions.values()
    }

    /// What is known of earlier actions of this kind on this target.
    #[must_use]
    pub fn lookback(&self, kind: &str, target: &str) -> Option<&Lookback> {
        self.lookback.get(&(kind.to_owned(), target.to_owned()))
    }

    /// All that is known of earlier actions.
    pub fn lookbacks(&self) -> impl Iterator<Item = (&str, &str, &Lookback)> {
        self.lookback
            .iter()
            .map(|((kind, target), lookback)| (kind.as_str(), target.as_str(), lookback))
    }

    /// The fewest records that come to the same open changes and ids, with the last ended actions for the history.
    #[must_use]
    pub fn compacted(&self) -> Vec<Record> {
        let mut records = vec![Record::Next { id: self.next_id() }];
        for (kind, target, lookback) in self.lookbacks() {
            if let Some(at) = lookback.last {
                records.push(Record::Last {
                    kind: kind.to_owned(),
                    target: target.to_owned(),
                    at,
                });
            }
            records.extend(lookback.harm.clone().map(Record::Harm));
        }
        let ended = self
            .actions
            .values()
            .filter(|action| !action.is_open())
            .count();
        let mut drop = ended.saturating_sub(HISTORY);
        for action in self.actions.values() {
            if !action.is_open() && drop > 0 {
                drop -= 1;
                continue;
            }
            records.extend(action.records());
        }
        records
    }
}

impl Action {
    fn records(&self) -> Vec<Record> {
        let id = self.id;
        let mut records = vec![Record::Begin {
            id,
            at: self.at,
            boot: self.boot.clone(),
            pid: self.pid,
            kind: self.kind.clone(),
            target: self.target.clone(),
            reason: self.reason.clone(),
        }];
        for step in &self.steps {
            records.push(Record::Intent {
                id,
                step: step.step,
                knob: step.knob.clone(),
                old: step.old.clone(),
                new: step.new.clone(),
                leaves: step.leaves.clone(),
            });
            if let Some(how) = step.closed {
                // What lay over it has its old value already.
                let how = if how == Close::Covered {
                    Close::Back
                } else {
                    how
                };
                records.push(Record::Closed {
                    id,
                    step: step.step,
                    how,
                });
            }
        }
        match self.phase {
            Phase::Running => {}
            Phase::Kept => records.push(Record::Kept { id }),
            Phase::Ended => records.push(Record::Ended { id }),
        }
        records
    }
}
