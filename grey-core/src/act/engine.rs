//! The order of things: journal, guard, write, and back again. Generic over the [`World`], so that a model can end it
//! between any two of its calls.

use super::knob::{Knob, Value};
use super::ledger::{Ledger, Phase};
use super::record::{Close, Harm, Record};
use super::table::{Verdict, undo};

/// Tries of a write that is interrupted or finds the file busy.
const TRIES: u32 = 5;
/// Changes one action may make.
pub const MAX_STEPS: u32 = 64;

/// Why a call to the world failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The cgroup or file is not there (any more), or another cgroup has its path.
    #[error("it is gone")]
    Gone,
    /// No permission.
    #[error("permission denied")]
    Denied,
    /// A read-only file system.
    #[error("the file system is read-only")]
    ReadOnly,
    /// No room.
    #[error("no space left on the device")]
    Full,
    /// Busy; may work later.
    #[error("it is busy")]
    Busy,
    /// Interrupted; may work at once.
    #[error("interrupted")]
    Interrupted,
    /// The kernel does not take this value or does not have this file.
    #[error("the kernel does not take it: {0}")]
    Invalid(String),
    /// The helper that writes was ended after its time; `stuck` if even that did not end it.
    #[error("the write took too long{}", if *stuck { " and cannot be ended" } else { "" })]
    TimedOut {
        /// Whether the helper hangs in the kernel.
        stuck: bool,
    },
    /// The guard does not answer or has died.
    #[error("the guard is lost")]
    GuardLost,
    /// The guard took this process for hung and has undone its changes.
    #[error("the guard has taken over, because this process was held up for too long")]
    Revoked,
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

/// Files, journal and guard.
pub trait World {
    /// What a knob holds.
    ///
    /// # Errors
    /// [`Fault::Gone`] also where another cgroup has its path now.
    fn read(&mut self, knob: &Knob) -> Result<Value, Fault>;
    /// Writes to a knob, within bounded time.
    ///
    /// # Errors
    /// The file may hold the new value all the same.
    fn write(&mut self, knob: &Knob, value: &Value) -> Result<(), Fault>;
    /// Appends to the journal and waits until it is on disk.
    ///
    /// # Errors
    /// The record may be torn or whole on disk.
    fn append(&mut self, record: &Record) -> Result<(), Fault>;
    /// Has the guard remember a change that is about to be made.
    ///
    /// # Errors
    /// The change must not be made then.
    fn arm(&mut self, id: u64, step: u32, change: &Change<'_>) -> Result<(), Fault>;
    /// Has the guard forget an action's changes, one or all.
    ///
    /// # Errors
    /// The guard is lost.
    fn release(&mut self, id: u64, step: Option<u32>) -> Result<(), Fault>;
    /// Whether the guard lives and has not taken over.
    ///
    /// # Errors
    /// [`Fault::GuardLost`], [`Fault::Revoked`].
    fn check(&mut self) -> Result<(), Fault>;
}

/// A change of a knob.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The file.
    pub knob: &'a Knob,
    /// What it holds.
    pub old: &'a Value,
    /// What it will hold.
    pub new: &'a Value,
    /// See [`Record::Intent`].
    pub follows: bool,
}

/// Why a change was not made. Nothing of it is in force then, unless [`Engine::undo`] says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActError {
    /// The old value cannot be read.
    #[error("{knob}: {fault}")]
    Read {
        /// The file.
        knob: Knob,
        /// Why.
        fault: Fault,
    },
    /// No journal entry, no action.
    #[error("journal: {0}")]
    Journal(Fault),
    /// No guard, no action.
    #[error("guard: {0}")]
    Guard(Fault),
    /// The write failed.
    #[error("{knob}: {fault}")]
    Write {
        /// The file.
        knob: Knob,
        /// Why.
        fault: Fault,
    },
    /// The file holds something else right after our write.
    #[error(
        "{knob}: holds {seen} right after {wrote} was written: somebody else writes to it, theirs stays"
    )]
    Overwritten {
        /// The file.
        knob: Knob,
        /// What we wrote.
        wrote: Value,
        /// What it holds.
        seen: Value,
    },
    /// An action that is under way holds this knob.
    #[error("{knob}: action {id} holds it; wait for its end or `grey-ebpf rollback --id {id}`")]
    Held {
        /// The file.
        knob: Knob,
        /// The action.
        id: u64,
    },
    /// One action changes too much.
    #[error("an action changes at most {MAX_STEPS} files")]
    TooMany,
}

/// What became of a change that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Set {
    /// The file holds the new value now.
    Changed {
        /// What it held.
        old: Value,
    },
    /// It held that value already: nothing was written and there is nothing to undo.
    Unchanged,
}

/// What undoing came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Undone {
    /// Put back: which file, from what, to what.
    pub restored: Vec<(Knob, Value, Value)>,
    /// Not put back, and why that is right. Files that held the old value anyway are not told.
    pub skipped: Vec<(Knob, Close)>,
    /// Not put back although it should be: still open.
    pub failed: Vec<(Knob, Fault)>,
    /// The journal could not be told.
    pub journal: Option<Fault>,
}

impl Undone {
    /// Adds what else was undone.
    pub fn extend(&mut self, other: Undone) {
        self.restored.extend(other.restored);
        self.skipped.extend(other.skipped);
        self.failed.extend(other.failed);
        self.journal = self.journal.take().or(other.journal);
    }
}

/// Who acts, for the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Boot id of this machine.
    pub boot: String,
    /// This process.
    pub pid: u32,
}

/// Acts, and takes back.
#[derive(Debug)]
pub struct Engine<W> {
    /// Files, journal and guard.
    pub world: W,
    ledger: Ledger,
    actor: Actor,
}

impl<W: World> Engine<W> {
    /// Goes on from a journal.
    pub fn new(world: W, ledger: Ledger, actor: Actor) -> Engine<W> {
        Engine {
            world,
            ledger,
            actor,
        }
    }

    /// The journal's state.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn append(&mut self, record: Record) -> Result<(), Fault> {
        self.world.append(&record)?;
        self.ledger.apply(&record);
        Ok(())
    }

    /// Begins an action; returns its id.
    ///
    /// # Errors
    /// The journal cannot be written: then nothing may be done.
    pub fn begin(
        &mut self,
        at: u64,
        kind: &str,
        target: &str,
        reason: &str,
    ) -> Result<u64, ActError> {
        let id = self.ledger.next_id();
        self.append(Record::Begin {
            id,
            at,
            boot: self.actor.boot.clone(),
            pid: self.actor.pid,
            kind: kind.to_owned(),
            target: target.to_owned(),
            reason: reason.to_owned(),
        })
        .map_err(ActError::Journal)?;
        Ok(id)
    }

    /// Changes a knob as a part of action `id`. On an error the change is taken back if it was made; the action's
    /// earlier changes are the caller's to undo.
    ///
    /// # Errors
    /// See [`ActError`].
    pub fn set(&mut self, id: u64, knob: &Knob, new: &Value) -> Result<Set, ActError> {
        self.set_before(id, knob, new, false)
    }

    /// As [`Engine::set`]; `follows` says that the kernel itself changes this file once the next step is in force.
    ///
    /// # Errors
    /// See [`ActError`].
    pub fn set_before(
        &mut self,
        id: u64,
        knob: &Knob,
        new: &Value,
        follows: bool,
    ) -> Result<Set, ActError> {
        let old = self.world.read(knob).map_err(|fault| ActError::Read {
            knob: knob.clone(),
            fault,
        })?;
        // A file that the kernel is about to change has to be put back even if we leave it as it is.
        if old == *new && !follows {
            return Ok(Set::Unchanged);
        }
        if let Some((holder, _)) = self.ledger.top(knob)
            && holder != id
            && self
                .ledger
                .get(holder)
                .is_some_and(|action| action.phase == Phase::Running)
        {
            return Err(ActError::Held {
                knob: knob.clone(),
                id: holder,
            });
        }
        let step = self
            .ledger
            .get(id)
            .map_or(0, |action| action.steps.len() as u32);
        if step >= MAX_STEPS {
            return Err(ActError::TooMany);
        }
        let record = Record::Intent {
            id,
            step,
            knob: knob.clone(),
            old: old.clone(),
            new: new.clone(),
            follows,
        };
        self.append(record).map_err(ActError::Journal)?;
        let change = Change {
            knob,
            old: &old,
            new,
            follows,
        };
        if let Err(fault) = self.world.arm(id, step, &change) {
            self.close(id, step, Close::Never, &mut Undone::default());
            return Err(ActError::Guard(fault));
        }
        let written = self.write(knob, new);
        // The guard may have taken over while the write was held up: then nobody would take it back but us.
        let trouble = match (written, self.world.check()) {
            (Err(fault), _) => Some(ActError::Write {
                knob: knob.clone(),
                fault,
            }),
            (Ok(()), Err(fault)) => Some(ActError::Guard(fault)),
            (Ok(()), Ok(())) => match self.world.read(knob) {
                Ok(seen) if seen == *new => None,
                Ok(seen) => Some(ActError::Overwritten {
                    knob: knob.clone(),
                    wrote: new.clone(),
                    seen,
                }),
                Err(fault) => Some(ActError::Read {
                    knob: knob.clone(),
                    fault,
                }),
            },
        };
        match trouble {
            None => Ok(Set::Changed { old }),
            Some(error) => {
                self.undo_step(id, step, false, false, &mut Undone::default());
                Err(error)
            }
        }
    }

    fn write(&mut self, knob: &Knob, value: &Value) -> Result<(), Fault> {
        let mut result = self.world.write(knob, value);
        for _ in 1..TRIES {
            if !matches!(result, Err(Fault::Busy | Fault::Interrupted)) {
                break;
            }
            result = self.world.write(knob, value);
        }
        result
    }

    /// The action is complete, and its changes stay until somebody asks for their undoing.
    ///
    /// # Errors
    /// The journal cannot be written; the guard still holds the changes.
    pub fn keep(&mut self, id: u64) -> Result<(), ActError> {
        let open = self.ledger.get(id).is_some_and(|action| action.is_open());
        let record = if open {
            Record::Kept { id }
        } else {
            Record::Ended { id }
        };
        self.append(record).map_err(ActError::Journal)?;
        self.world.release(id, None).map_err(ActError::Guard)
    }

    /// Takes an action's changes back, the latest first. Where changes of the file by later actions lie over one, those
    /// take over what it would restore. With `force` also what somebody else wrote since is overwritten.
    pub fn undo(&mut self, id: u64, force: bool) -> Undone {
        let mut undone = Undone::default();
        let steps: Vec<u32> = self
            .ledger
            .get(id)
            .map(|action| action.steps.iter().map(|step| step.step).collect())
            .unwrap_or_default();
        // Whether the step after the one at hand was ours and is put back.
        let mut after = false;
        for step in steps.into_iter().rev() {
            after = self.undo_step(id, step, after, force, &mut undone);
        }
        let over = self
            .ledger
            .get(id)
            .is_some_and(|action| !action.is_open() && action.phase != Phase::Ended);
        if over && let Err(fault) = self.append(Record::Ended { id }) {
            undone.journal.get_or_insert(fault);
        }
        undone
    }

    /// Takes everything back that is in force, the latest first: also what was meant to stay, if `kept`.
    pub fn undo_all(&mut self, kept: bool, force: bool) -> Undone {
        let open: Vec<u64> = self
            .ledger
            .actions()
            .filter(|action| action.phase == Phase::Running || (kept && action.is_open()))
            .map(|action| action.id)
            .collect();
        let mut undone = Undone::default();
        for id in open.into_iter().rev() {
            undone.extend(self.undo(id, force));
        }
        undone
    }

    /// Closes what is from before the last boot: those knobs are as the kernel made them.
    pub fn close_other_boots(&mut self) -> Undone {
        let stale: Vec<(u64, Vec<u32>)> = self
            .ledger
            .actions()
            .filter(|action| !action.boot.is_empty() && action.boot != self.actor.boot)
            .filter(|action| action.is_open() || action.phase == Phase::Running)
            .map(|action| {
                let open = action.steps.iter().filter(|step| step.closed.is_none());
                (action.id, open.map(|step| step.step).collect())
            })
            .collect();
        let mut undone = Undone::default();
        for (id, steps) in stale {
            for step in steps {
                self.close(id, step, Close::OtherBoot, &mut undone);
            }
            if let Err(fault) = self.append(Record::Ended { id }) {
                undone.journal.get_or_insert(fault);
            }
        }
        undone
    }

    /// Notes that something bad followed this action.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn harmed(&mut self, harm: Harm) -> Result<(), ActError> {
        self.append(Record::Harm(harm)).map_err(ActError::Journal)
    }

    /// Whether the step is put back now, or held its old value already.
    fn undo_step(
        &mut self,
        id: u64,
        step: u32,
        after: bool,
        force: bool,
        undone: &mut Undone,
    ) -> bool {
        let Some(open) = self.ledger.get(id).and_then(|action| {
            action
                .steps
                .iter()
                .find(|candidate| candidate.step == step && candidate.closed.is_none())
        }) else {
            // What was put back by an earlier try counts for the file that follows it.
            return self.ledger.get(id).is_some_and(|action| {
                action.steps.iter().any(|candidate| {
                    candidate.step == step
                        && matches!(candidate.closed, Some(Close::Restored | Close::Back))
                })
            });
        };
        let (knob, old, new) = (open.knob.clone(), open.old.clone(), open.new.clone());
        let loose = open.follows && after;
        let current = match self.world.read(&knob) {
            Ok(current) => current,
            Err(Fault::Gone) => {
                self.close(id, step, Close::Gone, undone);
                return false;
            }
            Err(fault) => {
                undone.failed.push((knob, fault));
                return false;
            }
        };
        let covered = self.ledger.above(id, step, &knob).is_some();
        let verdict = undo(
            current.as_str().as_bytes(),
            old.as_str().as_bytes(),
            new.as_str().as_bytes(),
            loose,
        );
        match verdict {
            // The later change is what the file holds; it restores what this one would have.
            _ if covered => {
                self.close(id, step, Close::Covered, undone);
                true
            }
            Verdict::Back => {
                self.close(id, step, Close::Back, undone);
                true
            }
            Verdict::Foreign if !force => {
                self.close(id, step, Close::Foreign, undone);
                false
            }
            Verdict::Restore | Verdict::Foreign => {
                let written = self.write(&knob, &old);
                // A write that was cut short may have set the value all the same.
                match self.world.read(&knob) {
                    Ok(now) if now == old => {
                        undone.restored.push((knob, current, old));
                        self.close(id, step, Close::Restored, undone);
                        true
                    }
                    Err(Fault::Gone) => {
                        self.close(id, step, Close::Gone, undone);
                        false
                    }
                    Ok(now) if now != new && now != current => {
                        self.close(id, step, Close::Foreign, undone);
                        false
                    }
                    _ => {
                        let fault = written
                            .err()
                            .unwrap_or_else(|| Fault::Other("the write had no effect".to_owned()));
                        undone.failed.push((knob, fault));
                        false
                    }
                }
            }
        }
    }

    fn close(&mut self, id: u64, step: u32, how: Close, undone: &mut Undone) {
        if matches!(
            how,
            Close::Foreign | Close::Covered | Close::Gone | Close::OtherBoot
        ) && let Some(knob) = self.ledger.get(id).and_then(|action| {
            let mut steps = action.steps.iter();
            steps.find(|candidate| candidate.step == step)
        }) {
            undone.skipped.push((knob.knob.clone(), how));
        }
        let record = Record::Closed { id, step, how };
        if let Err(fault) = self.world.append(&record) {
            undone.journal.get_or_insert(fault);
        }
        // In memory in any case: the file is as it should be.
        self.ledger.apply(&record);
        // A guard that is lost holds nothing, and one that took over has forgotten it.
        let _ = self.world.release(id, Some(step));
    }
}
