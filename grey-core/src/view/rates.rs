//! Rates between two samples of one cgroup.

use crate::event::{Mem, Sample};

/// Figures per second over the window between the last two samples. `None` where a figure was unknown at either end
/// or its counter went backwards. Never NaN; negative only for the two gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Length of the window, microseconds; 0 when there is none yet.
    pub window_us: u64,
    /// anon + swap, bytes/s; negative while it shrinks.
    pub growth: Option<f64>,
    /// memory.current, bytes/s; negative while it shrinks.
    pub memory: Option<f64>,
    /// Page faults/s, minor and, where known, major.
    pub faults: Option<f64>,
    /// Major page faults/s.
    pub major: Option<f64>,
    /// Bytes/s mapped.
    pub mapped: Option<f64>,
    /// Bytes/s unmapped.
    pub unmapped: Option<f64>,
    /// Bytes/s given back with madvise.
    pub released: Option<f64>,
    /// Time tasks were held up in reclaim, ms/s; over 1000 when several wait at once.
    pub stall: Option<f64>,
    /// Pages/s reclaimed.
    pub reclaimed: Option<f64>,
    /// Pages/s refaulted.
    pub refaults: Option<f64>,
    /// Share of time at least one task stalled on memory, percent.
    pub psi_some: Option<f64>,
    /// Share of time all tasks stalled on memory, percent.
    pub psi_full: Option<f64>,
}

/// Rates of which nothing is known.
pub(super) static UNKNOWN: Rates = Rates {
    window_us: 0,
    growth: None,
    memory: None,
    faults: None,
    major: None,
    mapped: None,
    unmapped: None,
    released: None,
    stall: None,
    reclaimed: None,
    refaults: None,
    psi_some: None,
    psi_full: None,
};

impl Rates {
    /// Rates from `before` to `after`, `window_us` apart (not 0).
    pub(super) fn between(before: &Sample, after: &Sample, window_us: u64) -> Rates {
        let seconds = window_us as f64 / 1e6;
        // A counter that went backwards began anew (reattach, counter reset): its window is unknown.
        let rate = |of: &dyn Fn(&Sample) -> Option<u64>| {
            let delta = of(after)?.checked_sub(of(before)?)?;
            Some(delta as f64 / seconds)
        };
        let minor = rate(&|s| s.faults.as_ref()?.minor_total);
        let major = rate(&|s| s.faults.as_ref()?.major_total);
        let percent = |us_per_s: f64| (us_per_s / 1e4).min(100.0);
        Rates {
            window_us,
            growth: held_change(&before.mem, &after.mem).map(|bytes| bytes / seconds),
            memory: after
                .mem
                .current
                .zip(before.mem.current)
                .map(|(now, then)| difference(now, then) / seconds),
            // Major faults alone (memory.stat without the probe) are no measure of all faults.
            faults: minor.map(|minor| minor + major.unwrap_or(0.0)),
            major,
            mapped: rate(&|s| s.vm.as_ref()?.mapped_total),
            unmapped: rate(&|s| s.vm.as_ref()?.unmapped_total),
            released: rate(&|s| s.vm.as_ref()?.released_total),
            stall: rate(&|s| s.reclaim.as_ref()?.stall_us_total).map(|us| us / 1e3),
            reclaimed: rate(&|s| s.reclaim.as_ref()?.pages_total),
            refaults: rate(&|s| s.reclaim.as_ref()?.refault_total),
            psi_some: rate(&|s| Some(s.psi.as_ref()?.some_us_total)).map(percent),
            psi_full: rate(&|s| s.psi.as_ref()?.full_us_total).map(percent),
        }
    }

    /// Whether anything happened in the window.
    #[must_use]
    pub fn any_activity(&self) -> bool {
        let Rates {
            window_us: _,
            growth,
            memory,
            faults,
            major,
            mapped,
            unmapped,
            released,
            stall,
            reclaimed,
            refaults,
            psi_some,
            psi_full,
        } = *self;
        [
            growth, memory, faults, major, mapped, unmapped, released, stall, reclaimed, refaults,
            psi_some, psi_full,
        ]
        .iter()
        .flatten()
        .any(|rate| *rate != 0.0)
    }
}

/// Change of anon + swap. Swap counts only where both ends know it, else its appearance would look like growth.
fn held_change(before: &Mem, after: &Mem) -> Option<f64> {
    let anon = difference(after.anon?, before.anon?);
    let swap = after.swap.zip(before.swap);
    Some(anon + swap.map_or(0.0, |(now, then)| difference(now, then)))
}

fn difference(now: u64, then: u64) -> f64 {
    if now >= then {
        (now - then) as f64
    } else {
        -((then - now) as f64)
    }
}
