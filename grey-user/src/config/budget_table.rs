//! `[budget]`: what watching may cost.

use std::time::Duration;

use super::document::Table;
use crate::source::Budget;

/// Bounds of `budget.window`.
pub(crate) const WINDOW: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(600);

pub(super) fn read(root: &mut Table<'_>, budget: &mut Budget) {
    let Budget {
        cpu_pct,
        memory,
        window,
    } = budget;
    let mut table = root.table("budget");
    table.number(
        (
            "cpu_pct",
            "CPU time that watching may take, percent of one core, its programs in the kernel included; 0 for no limit.",
        ),
        0.0..=100.0,
        cpu_pct,
    );
    table.size(
        (
            "memory",
            "Resident memory that it may take; 0 for no limit.",
        ),
        0..=1 << 40,
        memory,
    );
    table.duration(
        (
            "window",
            "How long is measured before anything is decided; two windows above make a step down.",
        ),
        WINDOW,
        window,
    );
    table.finish();
}
