//! A journal that others write to as well: what they noted is taken over, and what was left to somebody else's write can
//! be claimed again.

use super::super::record::{Close, Record};
use super::{Engine, Fault, Ledger, World};

impl<W: World> Engine<W> {
    /// Goes on from the journal as it is now, after another process has written to it.
    pub fn rejoin(&mut self, ledger: Ledger) {
        self.ledger = ledger;
    }

    /// Opens those changes of an action again that were left to somebody else's write, so that a forced undo overwrites
    /// it. Whatever the files hold now counts as ours from here on.
    ///
    /// # Errors
    /// The journal cannot be written, or a file cannot be read.
    pub fn reopen(&mut self, id: u64) -> Result<(), Fault> {
        let Some(action) = self.ledger.get(id) else {
            return Ok(());
        };
        let foreign = action
            .steps
            .iter()
            .filter(|step| step.closed == Some(Close::Foreign))
            .cloned();
        for step in foreign.collect::<Vec<_>>() {
            let now = match self.world.read(&step.knob) {
                Ok(now) => now,
                Err(Fault::Gone) => continue,
                Err(fault) => return Err(fault),
            };
            self.append(Record::Intent {
                id,
                step: step.step,
                knob: step.knob,
                old: step.old,
                new: now,
                leaves: step.leaves,
            })?;
        }
        Ok(())
    }
}
