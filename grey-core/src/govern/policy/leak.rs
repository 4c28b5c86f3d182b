//! A leak that was confirmed and runs away is held by memory.high for a time: reclaim only buys time, and says how much.
//! An idle container whose operator said so stands still.

use super::intent;
use crate::govern::{Group, Intent, Rung, Settings, View};
use crate::units::{format_bytes, format_duration_us};

/// Closer to its limit than this, seconds, or in the next moment the machine's.
const SOON_S: f64 = 300.0;
/// Over this a second it runs away.
const FAST_BPS: f64 = 1_048_576.0;

/// memory.high for what runs away.
#[must_use]
pub fn contain(settings: &Settings, view: &View) -> Vec<Intent> {
    if !settings.contain_leaks {
        return Vec::new();
    }
    let runs = |group: &&Group| {
        !group.busy
            && group.leak.is_some_and(|leak| {
                leak.rate_bps >= FAST_BPS && leak.ttl_s.is_none_or(|ttl| ttl < SOON_S)
            })
    };
    let holds = |group: &Group| {
        let leak = group.leak?;
        // Never below what is in use; the kernel then reclaims as fast as it grows.
        let high = group.current.max(group.floor);
        let bought = group.gap() as f64 / leak.rate_bps * 1e6;
        let reason = format!(
            "leaks {}/s{}; what can be reclaimed from it ({}) buys {}",
            format_bytes(leak.rate_bps as u64),
            leak.ttl_s
                .map(|ttl| format!(", {ttl:.0} s to its limit"))
                .unwrap_or_default(),
            format_bytes(group.gap()),
            format_duration_us(bought as u64)
        );
        Some(intent(&group.path, Rung::High, high, reason))
    };
    view.groups.iter().filter(runs).filter_map(holds).collect()
}

/// Idle containers that may stand still.
#[must_use]
pub fn stand_still(settings: &Settings, view: &View) -> Vec<Intent> {
    let idle = view.groups.iter().filter(|group| {
        group.may_freeze && !group.frozen && !group.busy && group.is_idle(settings)
    });
    idle.map(|group| {
        let reason = format!("idle for {}", format_duration_us(group.idle_us));
        intent(&group.path, Rung::Freeze, 0, reason)
    })
    .collect()
}
