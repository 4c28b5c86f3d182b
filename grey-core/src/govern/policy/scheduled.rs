//! At its times, takes a part of what each cgroup can give. The governor knows when the time has come.

use super::{LEAST, intent};
use crate::govern::{Intent, Rung, Scheduled, View};
use crate::units::format_bytes;

/// Where none is given.
const TAKE_PCT: f64 = 50.0;

pub(super) fn decide(settings: &Scheduled, view: &View) -> Vec<Intent> {
    let pct = if settings.take_pct > 0.0 {
        settings.take_pct
    } else {
        TAKE_PCT
    };
    let mut intents = Vec::new();
    for group in view.groups.iter().filter(|group| !group.busy) {
        let room = if settings.file_only {
            group.cache_gap()
        } else {
            group.gap()
        };
        let bytes = (room as f64 * pct / 100.0) as u64;
        if bytes < LEAST {
            continue;
        }
        let rung = if bytes <= group.cache_gap() {
            Rung::File
        } else {
            Rung::Anon
        };
        let reason = format!("scheduled: {pct} % of {}", format_bytes(room));
        intents.push(intent(&group.path, rung, bytes, reason));
    }
    if settings.compact && !intents.is_empty() {
        intents.push(intent("/", Rung::Compact, 0, "scheduled".to_owned()));
    }
    intents
}
