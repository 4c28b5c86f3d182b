//! A little all the time, as long as nobody feels it. With G the bytes of a cgroup over its floor that can be taken, the
//! step is
//!
//! ```text
//! min( G · s · max(0, 1 − p/P),  r,  step )
//! ```
//!
//! p is the part of the time since the last step in which tasks stalled (from PSI's total, so that a loop of seconds sees
//! them; Senpai and TMO, Weiner et al., ASPLOS '22, look at averages), P the part at which nothing more is taken, s the
//! part of G taken in a step, which doubles with every eight steps in a row that came to no harm, up to `PACE` times.
//! r is what refaults allow, as katalyst has it: as soon as more of the last step comes back than is tolerated, the next
//! is as much smaller, and at three times that there is none for a while. Page cache goes first.

use super::{LEAST, intent};
use crate::govern::{Group, Intent, Proactive, Rung, View};
use crate::units::format_bytes;

/// How much larger than configured a share grows while nothing comes back.
const PACE: f64 = 4.0;
/// Steps without harm after which it doubles.
const DOUBLES: f64 = 8.0;
/// A step that came back for the most part is not repeated for so many intervals.
const REST: u64 = 10;

pub(super) fn decide(settings: &Proactive, view: &View) -> Vec<Intent> {
    let groups = view.groups.iter().filter(|group| !group.busy);
    groups.filter_map(|group| step(settings, group)).collect()
}

fn step(settings: &Proactive, group: &Group) -> Option<Intent> {
    // Without a figure of what it does to the cgroup nothing is taken.
    let stalled = group.since.psi_some();
    if stalled.is_none() && group.since.refaults.is_none() {
        return None;
    }
    let file = group.cache_gap() >= LEAST;
    if !file && !settings.anon {
        return None;
    }
    let gap = if file { group.cache_gap() } else { group.gap() };
    let limit = settings.psi_some_pct / 100.0;
    let calm = stalled.map_or(1.0, |share| (1.0 - share / limit).max(0.0));
    let bytes = share(settings, group) * gap as f64 * calm;
    let bytes = refaults(settings, group, bytes)?;
    let bytes = (bytes as u64).min(settings.step).min(gap);
    if bytes < LEAST {
        return None;
    }
    let reason = format!(
        "{} of {} {}, stalled {:.3} % of the time",
        format_bytes(bytes),
        format_bytes(gap),
        if file { "page cache" } else { "memory" },
        stalled.unwrap_or(0.0) * 100.0
    );
    let rung = if file { Rung::File } else { Rung::Anon };
    Some(intent(&group.path, rung, bytes, reason))
}

/// The part of the gap that is taken in a step.
fn share(settings: &Proactive, group: &Group) -> f64 {
    let good = group.last.map_or(0, |last| last.good);
    let pace = (f64::from(good) / DOUBLES).exp2().min(PACE);
    settings.step_pct / 100.0 * pace
}

/// What refaults leave of a step; `None` while it rests.
fn refaults(settings: &Proactive, group: &Group, bytes: f64) -> Option<f64> {
    let Some(last) = group.last else {
        return Some(bytes);
    };
    let tolerated = settings.refault_pct / 100.0;
    let returned = last.returned();
    if returned <= tolerated {
        return Some(bytes);
    }
    let rest = REST * u64::try_from(settings.interval_us).unwrap_or(0);
    if returned > 3.0 * tolerated && last.ago_us < rest {
        return None;
    }
    Some(bytes.min(last.asked as f64) * (1.0 - returned).max(0.0))
}
