//! The policies: from a view to intents. Each is a pure function; what it may not do is cut off afterwards, for all of
//! them in the same place.

mod aggressive;
mod conservative;
mod dynamic;
mod emergency;
mod guest;
mod ladder;
mod leak;
pub mod proactive;
mod scheduled;

#[cfg(test)]
mod tests;

use super::{Intent, PolicyKind, Rung, Settings, View};

pub use emergency::emergency;
pub use leak::{contain, stand_still};

/// What `kind` wants of the groups that it decides for, which are those of the view.
#[must_use]
pub fn decide(kind: PolicyKind, settings: &Settings, view: &View) -> Vec<Intent> {
    match kind {
        PolicyKind::Observe => Vec::new(),
        PolicyKind::Conservative => conservative::decide(&settings.conservative, view),
        PolicyKind::Dynamic => dynamic::decide(&settings.dynamic, view),
        PolicyKind::Aggressive => aggressive::decide(&settings.aggressive, view),
        PolicyKind::Scheduled => scheduled::decide(&settings.scheduled, view),
        PolicyKind::Proactive => proactive::decide(&settings.proactive, view),
        PolicyKind::Guest => guest::decide(&settings.guest, view),
    }
}

/// Time between two turns of a policy, µs; `None` for one that has no turns of its own.
#[must_use]
pub fn interval_us(kind: PolicyKind, settings: &Settings) -> Option<i64> {
    match kind {
        PolicyKind::Observe | PolicyKind::Scheduled => None,
        PolicyKind::Conservative => Some(settings.conservative.interval_us),
        PolicyKind::Dynamic => Some(settings.dynamic.interval_us),
        PolicyKind::Aggressive => Some(settings.aggressive.interval_us),
        PolicyKind::Proactive => Some(settings.proactive.interval_us),
        PolicyKind::Guest => Some(settings.guest.interval_us),
    }
}

/// Less is not worth a write.
const LEAST: u64 = 256 << 10;

fn intent(path: &str, rung: Rung, bytes: u64, reason: String) -> Intent {
    Intent {
        path: path.to_owned(),
        rung,
        bytes,
        reason,
        urgent: false,
    }
}
