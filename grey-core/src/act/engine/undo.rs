//! Taking back: what an action changed, unless somebody else wrote there since.

use super::super::knob::{Knob, Value};
use super::super::ledger::Phase;
use super::super::record::{Close, Record};
use super::super::table::{Verdict, undo};
use super::{Engine, Fault, Undone, World};

impl<W: World> Engine<W> {
    /// Takes an action's changes back, the latest first. Where changes of the file by later actions lie over one, those
    /// take over what it would restore. With `force` also what somebody else wrote since is overwritten.
    pub fn undo(&mut self, id: u64, force: bool) -> Undone {
        let mut undone = Undone::default();
        let steps: Vec<u32> = self
            .ledger
            .get(id)
            .map(|action| action.steps.iter().map(|step| step.step).collect())
            .unwrap_or_default();
        for step in steps.into_iter().rev() {
            self.undo_step(id, step, force, &mut undone);
        }
        let over = self
            .ledger
            .get(id)
            .is_some_and(|action| !action.is_open() && action.phase != Phase::Ended);
        // After a record that was lost, how the changes ended has to be found out again.
        if over
            && undone.journal.is_none()
            && let Err(fault) = self.append(Record::Ended { id })
        {
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
            if undone.journal.is_none()
                && let Err(fault) = self.append(Record::Ended { id })
            {
                undone.journal.get_or_insert(fault);
            }
        }
        undone
    }

    pub(super) fn undo_step(&mut self, id: u64, step: u32, force: bool, undone: &mut Undone) {
        let Some(open) = self.ledger.get(id).and_then(|action| {
            action
                .steps
                .iter()
                .find(|candidate| candidate.step == step && candidate.closed.is_none())
        }) else {
            return;
        };
        let (knob, old, new) = (open.knob.clone(), open.old.clone(), open.new.clone());
        let leaves = open.leaves.clone();
        let led = leaves.is_some()
            && self.ledger.get(id).is_some_and(|action| {
                let mut steps = action.steps.iter();
                steps.any(|next| next.step == step + 1 && next.closed.is_none())
            });
        if led {
            let why = "the kernel changes it as long as the action's next change is in force";
            undone.failed.push((knob, Fault::Other(why.to_owned())));
            return;
        }
        // What lies over it directly counts, but for an action under way at the top.
        let covering = self.ledger.covering(id, open).map(|upper| {
            let holder = self.holder(&knob).filter(|holder| *holder != id);
            holder.map_or((upper.id, upper.phase), |holder| (holder, Phase::Running))
        });
        let current = match self.look(&knob) {
            Ok(current) => current,
            Err(Fault::Gone) => {
                self.close(id, step, Close::Gone, undone);
                return;
            }
            Err(fault) => {
                undone.failed.push((knob, fault));
                return;
            }
        };
        // Where the file holds our value, what was made over it is put back already, and only its record is lost.
        let covering = covering.filter(|_| current != new);
        let verdict = undo(
            current.as_str().as_bytes(),
            old.as_str().as_bytes(),
            new.as_str().as_bytes(),
            leaves.as_ref().map(|value| value.as_str().as_bytes()),
        );
        match verdict {
            // The guard of an action under way knows what that one restores, and cannot be told otherwise. A later change
            // of this action that could not be put back has to be tried first again.
            _ if covering.is_some_and(|(upper, phase)| upper == id || phase == Phase::Running) => {
                let upper = covering.map_or(0, |(upper, _)| upper);
                let why = format!("a later change of it, by action {upper}, is still in force");
                undone.failed.push((knob, Fault::Other(why)));
            }
            // The later change is what the file holds; it restores what this one would have.
            _ if covering.is_some() => {
                self.close(id, step, Close::Covered, undone);
            }
            Verdict::Back => {
                self.close(id, step, Close::Back, undone);
            }
            Verdict::Foreign if !force => {
                self.close(id, step, Close::Foreign, undone);
            }
            Verdict::Restore | Verdict::Foreign => {
                let written = self.write(None, &knob, &current, &old);
                // A write that was cut short may have set the value all the same.
                match self.world.read(&knob) {
                    Ok(now) if now == old => {
                        undone.restored.push((knob, current, old));
                        self.close(id, step, Close::Restored, undone);
                    }
                    Err(Fault::Gone) => {
                        self.close(id, step, Close::Gone, undone);
                    }
                    Ok(now) if now != current => {
                        self.close(id, step, Close::Foreign, undone);
                    }
                    _ => {
                        let fault = written
                            .err()
                            .unwrap_or_else(|| Fault::Other("the write had no effect".to_owned()));
                        undone.failed.push((knob, fault));
                    }
                }
            }
        }
    }

    /// What a knob holds. That it is gone is believed only when it is found so twice: it would never be tried again.
    pub(super) fn look(&mut self, knob: &Knob) -> Result<Value, Fault> {
        match self.world.read(knob) {
            Err(Fault::Gone) => self.world.read(knob),
            seen => seen,
        }
    }

    pub(super) fn close(&mut self, id: u64, step: u32, how: Close, undone: &mut Undone) {
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
