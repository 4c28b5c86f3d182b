//! The order of things: journal, guard, write, and back again. Generic over the [`World`], so that a model can end it
//! between any two of its calls.

mod rejoin;
mod undo;

use super::knob::{Knob, Value};
use super::ledger::{Ledger, Phase};
use super::record::{Close, Harm, Record};

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
    /// The file no longer holds what it was expected to hold: somebody else wrote to it.
    #[error("somebody else writes to it")]
    Changed,
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
    /// Writes to a knob that holds `expected`, within bounded time. It is looked at once more right before the write, so
    /// that what others write is not lost.
    ///
    /// # Errors
    /// [`Fault::Changed`]: nothing was written. After others the file may hold the new value all the same.
    fn write(&mut self, knob: &Knob, expected: &Value, value: &Value) -> Result<(), Fault>;
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
    pub leaves: Option<&'a Value>,
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
    /// An action that is under way, or one that began later and was kept, holds this knob.
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
        self.set_before(id, knob, new, None)
    }

    /// As [`Engine::set`], for a file that the kernel itself changes along with the action's next step, and `leaves` with
    /// this value when that one is undone. It is noted even if it already holds `new`. Not for a next step that changes
    /// nothing.
    ///
    /// # Errors
    /// See [`ActError`].
    pub fn set_before(
        &mut self,
        id: u64,
        knob: &Knob,
        new: &Value,
        leaves: Option<&Value>,
    ) -> Result<Set, ActError> {
        let mut tries = 1;
        loop {
            match self.set_once(id, knob, new, leaves) {
                // Somebody wrote between our look and our write: theirs is what we would have to put back.
                Err(ActError::Write {
                    fault: Fault::Changed,
                    ..
                }) if tries < TRIES => tries += 1,
                done => return done,
            }
        }
    }

    fn set_once(
        &mut self,
        id: u64,
        knob: &Knob,
        new: &Value,
        leaves: Option<&Value>,
    ) -> Result<Set, ActError> {
        let failed = |fault| ActError::Read {
            knob: knob.clone(),
            fault,
        };
        let old = self.world.read(knob).map_err(failed)?;
        // A file that the kernel is about to change has to be put back even if we leave it as it is.
        if old == *new && leaves.is_none() {
            return Ok(Set::Unchanged);
        }
        if let Some(holder) = self.holder(knob)
            && holder != id
        {
            return Err(ActError::Held {
                knob: knob.clone(),
                id: holder,
            });
        }
        self.close_lost(knob, &old);
        // Changes of one knob lie over each other in the order of their actions, and are taken back in the other one.
        if let Some((later, _)) = self.ledger.top(knob)
            && later > id
        {
            return Err(ActError::Held {
                knob: knob.clone(),
                id: later,
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
            leaves: leaves.cloned(),
        };
        self.append(record).map_err(ActError::Journal)?;
        let change = Change {
            knob,
            old: &old,
            new,
            leaves,
        };
        if let Err(fault) = self.world.arm(id, step, &change) {
            self.close(id, step, Close::Never, &mut Undone::default());
            return Err(ActError::Guard(fault));
        }
        let written = self.write(Some((id, step)), knob, &old, new);
        if written == Err(Fault::Changed) {
            self.close(id, step, Close::Never, &mut Undone::default());
            return Err(ActError::Write {
                knob: knob.clone(),
                fault: Fault::Changed,
            });
        }
        match self.verify(knob, new, written) {
            None => Ok(Set::Changed { old }),
            Some(error) => {
                self.undo_step(id, step, false, &mut Undone::default());
                Err(error)
            }
        }
    }

    /// Whether the file that follows this step's still holds what was noted of it.
    fn led(&mut self, id: u64, step: u32) -> Result<(), Fault> {
        let follower = self.ledger.get(id).and_then(|action| {
            let mut steps = action.steps.iter();
            steps.find(|before| {
                before.step + 1 == step && before.leaves.is_some() && before.closed.is_none()
            })
        });
        let Some(follower) = follower else {
            return Ok(());
        };
        let (knob, noted) = (follower.knob.clone(), follower.new.clone());
        if self.world.read(&knob)? == noted {
            Ok(())
        } else {
            Err(Fault::Other(format!("somebody else writes to {knob}")))
        }
    }

    /// Closes changes of a knob that were put back without a record: what is made now does not lie over them.
    fn close_lost(&mut self, knob: &Knob, current: &Value) {
        while let Some((id, top)) = self.ledger.top(knob)
            && top.old == *current
            && top.new != *current
        {
            let step = top.step;
            self.close(id, step, Close::Back, &mut Undone::default());
        }
    }

    /// The action under way that holds a knob.
    fn holder(&self, knob: &Knob) -> Option<u64> {
        let (id, _) = self.ledger.top(knob)?;
        let running = self.ledger.get(id)?.phase == Phase::Running;
        running.then_some(id)
    }

    /// What is wrong after a write, if anything.
    fn verify(&mut self, knob: &Knob, new: &Value, written: Result<(), Fault>) -> Option<ActError> {
        if let Err(fault) = written {
            return Some(ActError::Write {
                knob: knob.clone(),
                fault,
            });
        }
        // The guard may have taken over while the write was held up: then nobody would take it back but us.
        if let Err(fault) = self.world.check() {
            return Some(ActError::Guard(fault));
        }
        match self.world.read(knob) {
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
        }
    }

    /// Writes to a knob; `step` is the change of ours that it makes, if it makes one.
    fn write(
        &mut self,
        step: Option<(u64, u32)>,
        knob: &Knob,
        expected: &Value,
        value: &Value,
    ) -> Result<(), Fault> {
        let mut tries = 1;
        loop {
            // What the kernel is about to change along with this file must still be as it was noted.
            if let Some((id, step)) = step {
                self.led(id, step)?;
            }
            let result = self.world.write(knob, expected, value);
            if !matches!(result, Err(Fault::Busy | Fault::Interrupted)) || tries == TRIES {
                return result;
            }
            tries += 1;
            // A write that was cut short may have set the value all the same.
            if self.world.read(knob).is_ok_and(|now| now == *value) {
                return Ok(());
            }
        }
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

    /// Notes that something bad followed this action.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn harmed(&mut self, harm: Harm) -> Result<(), ActError> {
        self.append(Record::Harm(harm)).map_err(ActError::Journal)
    }
}
