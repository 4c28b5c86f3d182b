//! A little all the time, as long as nobody feels it. With R the room of a cgroup for the next means, the step is
//!
//! ```text
//! min( s · w · a · max(0, 1 − p/P) · R,  r,  step )
//! ```
//!
//! The means: page cache that was not used lately (w = 10), unless taking some did harm lately; then, where there is swap, anonymous memory that is not
//! touched for a while (w = 10); then any page cache (w = 1/4), which makes the kernel age its lists. s is the share of a step. p is the part of the time since
//! the last step in which tasks stalled (from PSI's total, so that a loop of seconds sees them; Senpai and TMO, Weiner et
//! al., ASPLOS '22, look at averages), P the part at which nothing more is taken. The pace a is 1 and doubles with every
//! two steps of the same means in a row that came to no harm, up to `PACE`. r is what refaults allow, in katalyst's
//! manner: as soon as more of the last step comes back than is tolerated, the next is as much smaller, and at three times
//! that there is none for a while.

use super::{LEAST, intent};
use crate::govern::view::PAGE;
use crate::govern::{Group, Intent, Proactive, Rung, View};
use crate::units::format_bytes;

/// What was not used lately may go so much faster.
const COLD: f64 = 10.0;
/// What may be in use, so much slower.
const IN_USE: f64 = 0.25;
/// How much larger than configured a share grows while nothing comes back.
const PACE: f64 = 4.0;
/// Steps without harm after which it doubles.
const DOUBLES: f64 = 2.0;
/// A step that came back for the most part is not repeated for so many intervals.
const REST: u64 = 10;

pub(super) fn decide(settings: &Proactive, view: &View) -> Vec<Intent> {
    let swap = view.machine.swap_free.is_some_and(|free| free > 0);
    let groups = view.groups.iter().filter(|group| !group.busy);
    groups
        .filter_map(|group| step(settings, group, swap))
        .collect()
}

fn step(settings: &Proactive, group: &Group, swap: bool) -> Option<Intent> {
    // Without a figure of what it does to the cgroup nothing is taken.
    let stalled = group.since.psi_some();
    if group.since.us == 0 || (stalled.is_none() && group.since.refaults.is_none()) {
        return None;
    }
    let limit = settings.psi_some_pct / 100.0;
    let calm = stalled.map_or(1.0, |share| (1.0 - share / limit).max(0.0));
    let (rung, room, weight) = means(settings, group, swap)?;
    let wanted = settings.step_pct / 100.0 * pace(group, rung) * calm * weight * room as f64;
    let bytes = refaults(settings, group, rung, wanted)?;
    let bytes = (bytes as u64).min(settings.step).min(room);
    if bytes < LEAST {
        return None;
    }
    let what = match rung {
        Rung::File if weight > 1.0 => "page cache not used lately",
        Rung::File => "page cache",
        _ => "anonymous memory",
    };
    let stalled = stalled.map_or_else(String::new, |share| {
        format!(", stalled {:.3} % of the time", share * 100.0)
    });
    let reason = format!(
        "{} of {} {what}{stalled}",
        format_bytes(bytes),
        format_bytes(room)
    );
    Some(intent(&group.path, rung, bytes, reason))
}

/// What is taken next, how much there is of it, and how much faster than configured it may go.
fn means(settings: &Proactive, group: &Group, swap: bool) -> Option<(Rung, u64, f64)> {
    // The kernel fills its inactive list up from the active one as it reclaims: the last part of it says little.
    let floor = (group.cache / 20).max(LEAST);
    let cold = group.cold_gap();
    if cold > floor && !group.cache_cools {
        return Some((Rung::File, cold, COLD));
    }
    let anon = group.gap().min(group.swappable);
    // The last look for memory that is not touched may have found next to none.
    let found = group.anon_futile_us.is_none_or(|ago| ago >= rest(settings));
    if settings.anon && swap && anon >= LEAST && found {
        return Some((Rung::Pageout, anon, COLD));
    }
    // What is in use: as long as nothing comes back, else seldom.
    let cache = group.cache_gap();
    let calm = !group.cache_cools
        && group.last.is_none_or(|last| {
            last.ago_us >= rest(settings).saturating_mul(REST)
                || (last.file_only && last.returned() * 100.0 <= settings.refault_pct)
        });
    (cache >= LEAST && calm).then_some((Rung::File, cache, IN_USE))
}

fn pace(group: &Group, rung: Rung) -> f64 {
    match group.last {
        Some(last) if last.file_only == (rung == Rung::File) => {
            (f64::from(last.good) / DOUBLES).exp2().min(PACE)
        }
        _ => 1.0,
    }
}

/// What refaults leave of a step; `None` while it rests.
fn refaults(settings: &Proactive, group: &Group, rung: Rung, bytes: f64) -> Option<f64> {
    // What came back of the one kind says nothing of the other.
    let last = group
        .last
        .filter(|last| last.file_only == (rung == Rung::File));
    let Some(last) = last else {
        return Some(bytes);
    };
    let tolerated = settings.refault_pct / 100.0;
    let returned = last.returned();
    // A few pages more or less say nothing.
    if returned <= tolerated || last.refaults * PAGE < LEAST {
        return Some(bytes);
    }
    // After a while it is tried again; what does harm again and again cools down for longer each time.
    if last.ago_us >= rest(settings) {
        return Some(bytes);
    }
    (returned <= 3.0 * tolerated).then(|| bytes.min(last.asked as f64) * (1.0 - returned).max(0.0))
}

fn rest(settings: &Proactive) -> u64 {
    REST * u64::try_from(settings.interval_us).unwrap_or(0)
}
