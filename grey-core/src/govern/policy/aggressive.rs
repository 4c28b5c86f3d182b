//! Over a threshold of use, frees up to a size.

use super::ladder;
use crate::govern::{Aggressive, Intent, View};

pub(super) fn decide(settings: &Aggressive, view: &View) -> Vec<Intent> {
    match view.machine.available_pct().map(|pct| 100.0 - pct) {
        Some(used) if used > settings.used_pct => {
            let reason = format!("{used:.1} % in use, over {} %", settings.used_pct);
            ladder::take(view, settings.bytes, &reason)
        }
        _ => Vec::new(),
    }
}
