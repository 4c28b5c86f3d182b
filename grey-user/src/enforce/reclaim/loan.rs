//! Knobs that are changed for the time of a reclaim only: in the journal an action of their own, which ends with it.

use std::time::Duration;

use grey_core::act::{Fault, Knob, KnobFile, Value};

use crate::act::{Scene, Target};
use crate::cli::Failure;
use crate::host::MemInfo;

use super::super::{Act, still_open};

/// What is changed, and how long at most.
#[derive(Debug)]
pub(super) struct Loan {
    id: u64,
    lease: Duration,
}

impl Loan {
    /// Begins it, under the watchdog's eyes like any action.
    pub(super) fn begin(act: &mut Act<'_>, target: &Target, why: &str) -> Result<Loan, Failure> {
        act.session.poll()?;
        let id = act
            .session
            .begin("reclaim", &target.path, why, Some(target))?;
        // Longer than any step: should we stop between two of them, the guard puts all back.
        let lease = act.session.scene.safety.write_timeout * 3;
        Ok(Loan { id, lease })
    }

    /// Changes a knob.
    pub(super) fn set(&self, act: &mut Act<'_>, knob: &Knob, value: &Value) -> Result<(), Failure> {
        let timeout = act.session.scene.safety.write_timeout;
        let set = act.session.set_within(self.id, knob, value, timeout);
        // A trip or a request to end breaks the write off: that is the better reason.
        act.session.poll()?;
        set?;
        self.renew(act)
    }

    /// Another while.
    pub(super) fn renew(&self, act: &mut Act<'_>) -> Result<(), Failure> {
        act.session.lease(self.id, self.lease)
    }

    /// Puts all back, whatever `done` is; what could not be put back is the graver failure.
    pub(super) fn end<T>(
        loan: Option<Loan>,
        act: &mut Act<'_>,
        done: Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Some(loan) = loan else { return done };
        let undone = act.session.undo(loan.id, false);
        act.session.watch(act.target);
        if !undone.skipped.is_empty() || !undone.failed.is_empty() {
            act.tell
                .undone(Some(act.id), "lease: the reclaim is over", &undone)?;
        }
        still_open(&undone).map_or(done, Err)
    }
}

/// What keeps anonymous memory where it is on a kernel that cannot be told to leave it alone.
pub(super) enum Shut {
    /// memory.swap.max has to be closed.
    Swap(Knob),
    /// There is no swap: it cannot go anywhere.
    NoSwap,
}

/// How anonymous memory of this cgroup is kept.
///
/// # Errors
/// It cannot be (exit 3).
pub(super) fn shut(scene: &Scene, act: &mut Act<'_>, target: &Target) -> Result<Shut, Failure> {
    let info = MemInfo::read(&scene.host).unwrap_or_default();
    if info.swap_total == Some(0) {
        return Ok(Shut::NoSwap);
    }
    let knob = super::knob(target, KnobFile::SwapMax);
    match act.session.get(&knob) {
        Err(Fault::Gone) => Err(Failure::unsupported(format!(
            "{}: page cache alone cannot be taken: this kernel's memory.reclaim takes no swappiness, and there is no memory.swap.max",
            target.path
        ))),
        _ => Ok(Shut::Swap(knob)),
    }
}

impl Shut {
    /// Closes swap for the cgroup. memory.swap.max of 0 lets back in what is swapped out and lets nothing out.
    pub(super) fn close(&self, act: &mut Act<'_>, loan: &Loan) -> Result<Option<String>, Failure> {
        match self {
            Shut::NoSwap => Ok(None),
            Shut::Swap(knob) => {
                loan.set(act, knob, &Value::number(0))?;
                Ok(Some(
                    "memory.swap.max was 0 meanwhile, for this kernel cannot be told to take page cache alone"
                        .to_owned(),
                ))
            }
        }
    }
}
