//! What came of an action.

use std::time::Instant;

use grey_core::event::{ActionOutcome, ActionState};
use grey_core::govern::Outcome;

use crate::enforce::freed;

/// What is known of an action at the end of its observation.
pub(super) fn settle(result: &mut ActionOutcome, settled: &ActionState) {
    result.kept_bytes = freed(result.before.as_ref(), settled);
    let before = result.before.as_ref();
    let since = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?));
    result.refaults = since(before.and_then(|it| it.refaults), settled.refaults);
    result.psi_delta_us = since(before.and_then(|it| it.psi_some_us), settled.psi_some_us);
}

/// The same for the governor.
pub(super) fn lesson(
    result: &ActionOutcome,
    settled: Option<&ActionState>,
    begun: Instant,
    cpus: Option<f64>,
) -> Outcome {
    let before = result.before.as_ref();
    let settled = settled.or(result.after.as_ref());
    let since = |figure: fn(&ActionState) -> Option<u64>| {
        let from = before.and_then(figure)?;
        Some(settled.and_then(figure)?.saturating_sub(from))
    };
    let elapsed_us = begun.elapsed().as_micros() as u64;
    let cpu = since(|state| state.cpu_us).filter(|_| elapsed_us > 0);
    Outcome {
        freed: result.freed_bytes.unwrap_or(0),
        kept: result.kept_bytes.unwrap_or(0),
        psi_some_us: since(|state| state.psi_some_us).unwrap_or(0),
        psi_full_us: since(|state| state.psi_full_us).unwrap_or(0),
        refaults: since(|state| state.refaults).unwrap_or(0),
        majors: since(|state| state.major_faults).unwrap_or(0),
        elapsed_us,
        cpu: cpu
            .zip(cpus)
            .map(|(us, before)| (us as f64 / elapsed_us as f64, before)),
        reverted: false,
        wanted: false,
    }
}
