//! The emergency threshold, over every policy that acts: no interval is waited for.

use super::ladder;
use crate::govern::{Emergency, Intent, View};

/// What is wanted when next to nothing is available. Cgroups that somebody else's turn keeps busy give as well.
#[must_use]
pub fn emergency(settings: &Emergency, view: &View) -> Vec<Intent> {
    let Some(pct) = view.machine.available_pct() else {
        return Vec::new();
    };
    if pct >= settings.available_pct {
        return Vec::new();
    }
    let mut view = view.clone();
    for group in &mut view.groups {
        group.busy = false;
    }
    let reason = format!(
        "emergency: {pct:.1} % available, under {} %",
        settings.available_pct
    );
    let mut intents = ladder::take_at_once(&view, settings.bytes, &reason);
    for intent in &mut intents {
        intent.urgent = true;
    }
    intents
}
