//! "Can huge pages be had?"

use grey_core::units::format_bytes;

use super::{Answer, Severity, answer, reason};
use crate::diagnose::facts::Facts;

/// Order of a huge page of x86-64: 2 MiB of 4 KiB pages.
pub(crate) const HUGE_ORDER: usize = 9;
/// Share of free memory that is too fragmented, above which huge pages need compaction first.
const MUCH: f64 = 0.8;
/// With less free memory than this, fragmentation is the smaller trouble.
const ENOUGH: u64 = 256 << 20;

pub(super) fn huge_pages(facts: &Facts) -> Answer {
    let mut found = answer(
        "fragmentation",
        "Is free memory too fragmented for huge pages?",
    );
    let free: u64 = facts.zones.iter().map(|zone| zone.free).sum();
    if free == 0 {
        found.answer = "Not known: /proc/buddyinfo tells nothing.".to_owned();
        return found;
    }
    let unusable: f64 = facts
        .zones
        .iter()
        .filter_map(|zone| Some(zone.free as f64 * zone.unusable.get(HUGE_ORDER)?))
        .sum();
    let part = unusable / free as f64;
    found.reasons.push(
        reason(
            "unusable",
            format!(
                "{:.0} % of {} free memory is in blocks smaller than a huge page",
                part * 100.0,
                format_bytes(free)
            ),
        )
        .percent(
            "unusable_at_order_9",
            part * 100.0,
            "/proc/buddyinfo: 1 - pages in blocks of order 9 and more / free pages",
        )
        .bytes("free", free, "/proc/buddyinfo"),
    );
    let wanted = facts.thp.as_deref().is_some_and(|thp| thp != "never");
    if part < MUCH {
        found.answer = "No: most of it is in large blocks.".to_owned();
        return found;
    }
    found.applies = wanted && free >= ENOUGH;
    found.severity = Severity::Note;
    found.answer = if wanted {
        "Yes: a program that wants a huge page gets small ones, or waits for compaction. Only the speed of large programs suffers; no memory is lost.".to_owned()
    } else {
        "Yes, but transparent huge pages are off, so nobody minds.".to_owned()
    };
    found.next = vec![
        "echo 1 > /proc/sys/vm/compact_memory    moves used pages together, once (root)".to_owned(),
    ];
    found
}
