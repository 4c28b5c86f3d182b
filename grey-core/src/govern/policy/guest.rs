//! In a virtual machine that lies idle, cache that nobody used lately is dropped, anonymous memory of idle cgroups goes
//! to zram or swap, and free pages are moved together: free-page reporting then gives them back to the host.

use super::{LEAST, intent};
use crate::govern::{Group, Guest, Intent, Rung, View};
use crate::units::{format_bytes, format_duration_us};

/// A cgroup whose memory came back, or that gave next to nothing, is left alone for so long.
const REST_US: u64 = 300_000_000;
/// So much has to be freed before pages are moved together.
const WORTH_MOVING: u64 = 16 << 20;

pub(super) fn decide(settings: &Guest, view: &View) -> Vec<Intent> {
    let quiet = view.machine.quiet_us;
    if quiet < u64::try_from(settings.idle_us).unwrap_or(0) {
        return Vec::new();
    }
    let rests = |group: &Group| {
        group.last.is_some_and(|last| {
            (last.returned() * 100.0 > settings.refault_pct || last.futile())
                && last.ago_us < REST_US
        })
    };
    let mut left = settings.step;
    let mut intents = Vec::new();
    for group in &view.groups {
        if group.busy || rests(group) {
            continue;
        }
        let cold = group.cold_gap();
        // Anonymous memory has no mark of its last use: only what its cgroup has left alone for long enough.
        let still = group.idle_us >= u64::try_from(settings.idle_us).unwrap_or(0);
        let (rung, room) = if cold >= LEAST {
            (Rung::File, cold)
        } else if settings.anon && still && group.gap() > group.cache_gap() {
            (Rung::Pageout, group.gap() - group.cache_gap())
        } else {
            continue;
        };
        let bytes = room.min(left);
        if bytes < LEAST {
            continue;
        }
        left -= bytes;
        let reason = format!(
            "idle for {}: {} of {} cold {}",
            format_duration_us(quiet),
            format_bytes(bytes),
            format_bytes(room),
            if rung == Rung::File {
                "cache"
            } else {
                "anonymous memory"
            }
        );
        intents.push(intent(&group.path, rung, bytes, reason));
    }
    let worth = view.machine.scattered >= WORTH_MOVING;
    if intents.is_empty() && settings.compact && worth {
        let reason = format!(
            "idle for {}, nothing left to take",
            format_duration_us(quiet)
        );
        intents.push(intent("/", Rung::Compact, 0, reason));
    }
    intents
}
