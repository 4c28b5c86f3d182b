//! "Is the machine short of memory?"

use grey_core::units::format_bytes as size;

use super::{Answer, Severity, answer, reason, share};
use crate::diagnose::facts::Facts;

/// Percent of time in which some task waited: felt by people, and the threshold at which systemd-oomd starts to watch.
const FELT: f64 = 10.0;
/// Percent at which it costs throughput.
const SEEN: f64 = 1.0;
/// Share of the machine that is left when it is nearly out.
const SCARCE: f64 = 0.05;
/// The same where there is little of it anyway.
const SCARCE_BYTES: u64 = 128 << 20;

pub(super) fn short_of_memory(facts: &Facts) -> Answer {
    let mut found = answer("memory_pressure", "Is the machine short of memory?");
    let info = &facts.meminfo;
    let mut severity = Severity::Ok;
    if let (Some(total), Some(available)) = (info.total, info.available) {
        let left = share(available, total);
        let line = reason(
            "available",
            format!(
                "{} ({:.0} % of the machine) can still be had without swapping",
                size(available),
                left * 100.0
            ),
        )
        .bytes("available", available, "/proc/meminfo MemAvailable")
        .percent("of_total", left * 100.0, "MemAvailable / MemTotal");
        if available < SCARCE_BYTES || left < SCARCE {
            severity = severity.max(Severity::Critical);
        } else if left < 2.0 * SCARCE {
            severity = severity.max(Severity::Warning);
        }
        found.reasons.push(line);
    }
    if let Some(psi) = &facts.psi {
        let some = psi.some.avg10.max(psi.some.avg60);
        let full = psi.full.map_or(0.0, |full| full.avg10.max(full.avg60));
        if some >= FELT || full >= FELT / 2.0 {
            severity = severity.max(Severity::Critical);
        } else if some >= SEEN {
            severity = severity.max(Severity::Warning);
        }
        let all = psi.full.map_or(String::new(), |full| {
            format!("; all tasks at once {:.1} %", full.avg10)
        });
        let mut line = reason(
            "stalled",
            format!(
                "tasks waited for memory {:.1} % of the last 10 s and {:.1} % of the last minute{all}",
                psi.some.avg10, psi.some.avg60
            ),
        )
            .percent(
                "some_avg10",
                psi.some.avg10,
                "/proc/pressure/memory some avg10",
            )
            .percent(
                "some_avg60",
                psi.some.avg60,
                "/proc/pressure/memory some avg60",
            );
        if let Some(full) = psi.full {
            line = line.percent("full_avg10", full.avg10, "/proc/pressure/memory full avg10");
        }
        found.reasons.push(line);
    }
    if let (Some(total), Some(used)) = (info.swap_total, info.swap_used())
        && total > 0
    {
        let full = share(used, total);
        if full >= 0.95 {
            severity = severity.max(Severity::Warning);
        }
        found.reasons.push(
            reason(
                "swap",
                format!("{} of {} swap in use", size(used), size(total)),
            )
            .bytes("swap_used", used, "/proc/meminfo SwapTotal - SwapFree")
            .percent("of_swap", full * 100.0, "of SwapTotal"),
        );
    }
    found.severity = severity;
    found.applies = severity >= Severity::Warning;
    found.answer = match severity {
        Severity::Critical => {
            "Yes: tasks wait for memory or next to none is left. The OOM killer is near.".to_owned()
        }
        Severity::Warning => {
            "It is getting tight: a burst now waits for reclaim, and may be killed.".to_owned()
        }
        _ if found.reasons.is_empty() => "Not known: /proc/meminfo tells nothing.".to_owned(),
        _ => "No: there is memory to be had and nobody waits for it.".to_owned(),
    };
    if found.applies {
        found.next = vec![
            "grey-ebpf watch                      who grows and who waits, live".to_owned(),
            "grey-ebpf diagnose --detect-leaks    whether the growth is a leak".to_owned(),
        ];
    }
    found
}
