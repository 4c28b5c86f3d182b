//! Keeps a part of the machine available, and each cgroup under its ceiling.

use super::{LEAST, intent, ladder};
use crate::govern::{Dynamic, Intent, Rung, View};
use crate::units::format_bytes;

pub(super) fn decide(settings: &Dynamic, view: &View) -> Vec<Intent> {
    let mut view = view.clone();
    let mut intents = Vec::new();
    for group in &mut view.groups {
        let above = group.above_ceiling();
        if above < LEAST || group.busy {
            continue;
        }
        let rung = if group.cache_gap() >= above {
            Rung::File
        } else {
            Rung::Anon
        };
        let ceiling = group.ceiling.map(format_bytes).unwrap_or_default();
        let reason = format!("{} above its ceiling of {ceiling}", format_bytes(above));
        intents.push(intent(&group.path, rung, above, reason));
        // It gives enough for this turn.
        group.busy = true;
    }
    let (Some(missing), Some(pct)) = (
        view.machine.missing_to(settings.available_pct),
        view.machine.available_pct(),
    ) else {
        return intents;
    };
    let given: u64 = intents.iter().map(|intent| intent.bytes).sum();
    let missing = missing.saturating_sub(given);
    if missing > 0 {
        let reason = format!(
            "{pct:.1} % available, {} missing to {} %",
            format_bytes(missing),
            settings.available_pct
        );
        intents.extend(ladder::take(&view, missing, &reason));
    }
    intents
}
