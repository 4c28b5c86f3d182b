//! Acts at critical pressure alone: next to nothing available, or the machine's tasks stall.

use super::ladder;
use crate::govern::{Conservative, Intent, View};

pub(super) fn decide(settings: &Conservative, view: &View) -> Vec<Intent> {
    let machine = &view.machine;
    let short = machine
        .available_pct()
        .filter(|pct| *pct < settings.available_pct)
        .map(|pct| format!("{pct:.1} % available, under {} %", settings.available_pct));
    let stalls = machine
        .since
        .psi_some()
        .map(|share| share * 100.0)
        .filter(|pct| *pct >= settings.psi_some_pct)
        .map(|pct| {
            format!(
                "tasks stall {pct:.0} % of the time, over {} %",
                settings.psi_some_pct
            )
        });
    match short.or(stalls) {
        Some(reason) => ladder::take(view, settings.bytes, &reason),
        None => Vec::new(),
    }
}
