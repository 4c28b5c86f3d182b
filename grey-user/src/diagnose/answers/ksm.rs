//! "Why does KSM not merge?"

use grey_core::units::format_bytes as size;

use super::{Answer, Severity, answer, reason, share};
use crate::diagnose::facts::Facts;
use crate::host::Ksm;

/// Seconds for one scan of all offered memory, above which merging lags behind the programs.
const SLOW_S: f64 = 600.0;
/// Pages with an equal, of all that were looked at, below which scanning is for nothing.
const FEW: f64 = 0.05;

pub(super) fn why_not_merging(facts: &Facts) -> Answer {
    let mut found = answer(
        "ksm_not_merging",
        "Does KSM merge equal pages, and if not, why?",
    );
    let Some(ksm) = &facts.ksm else {
        found.answer = "This kernel has no KSM (CONFIG_KSM).".to_owned();
        return found;
    };
    let page = rustix::param::page_size() as u64;
    let pages = |count: Option<u64>| count.unwrap_or(0);
    let sharing = pages(ksm.pages_sharing);
    let seen = [
        ksm.pages_shared,
        ksm.pages_sharing,
        ksm.pages_unshared,
        ksm.pages_volatile,
    ]
    .into_iter()
    .flatten()
    .fold(0, u64::saturating_add);
    let offered = facts.ksm_users.offering.map(|users| users > 0);
    let state = |id, text: String| with_state(reason(id, text), ksm);
    let (severity, line, next): (_, _, Vec<String>) = match ksm.run {
        Some(2) => (
            Severity::Note,
            state("unmerging", "run is 2: everything that was merged is taken apart and nothing new is merged".to_owned()),
            vec!["echo 1 > /sys/kernel/mm/ksm/run    to merge again (root)".to_owned()],
        ),
        Some(0) if sharing > 0 => (
            Severity::Note,
            state("stopped", format!("run is 0: {} stay merged, and nothing new is merged", size(sharing * page))),
            vec!["echo 1 > /sys/kernel/mm/ksm/run    to go on (root)".to_owned()],
        ),
        Some(0) => {
            // Only where a program asked for it is that a trouble.
            let severity = if offered == Some(true) { Severity::Note } else { Severity::Ok };
            (
                severity,
                state("stopped", "run is 0: the KSM thread is stopped, so nothing is merged".to_owned()),
                vec!["echo 1 > /sys/kernel/mm/ksm/run    (root), where virtual machines or many equal processes run".to_owned()],
            )
        }
        Some(_) if seen == 0 && offered != Some(true) => (
            Severity::Note,
            state("nobody_asked", "KSM runs, but no process has offered memory: it merges only what madvise(MADV_MERGEABLE) or prctl(PR_SET_MEMORY_MERGE) names".to_owned()),
            vec!["start the program so that it offers its memory: QEMU -machine mem-merge=on, systemd MemoryKSM=yes".to_owned()],
        ),
        Some(_) if sharing == 0 && pages(ksm.full_scans) < 2 => (
            Severity::Note,
            state("not_yet", "KSM runs and has not yet scanned all offered memory twice, which it takes to merge a page".to_owned()),
            vec!["wait; /sys/kernel/mm/ksm/full_scans has to rise by 2".to_owned()],
        ),
        Some(_) if sharing == 0 || share(sharing, seen) < FEW => (
            Severity::Note,
            state("no_equals", "KSM runs and finds next to no equal pages: scanning costs CPU for nothing".to_owned()),
            vec!["echo 0 > /sys/kernel/mm/ksm/run    unless more equal programs are to come (root)".to_owned()],
        ),
        Some(_) if ksm.general_profit.is_some_and(|profit| profit <= 0) => (
            Severity::Note,
            state("no_profit", "KSM merges, but its own bookkeeping takes more memory than merging saves".to_owned()),
            vec!["echo 2 > /sys/kernel/mm/ksm/run    undoes it, if there is memory for that (root)".to_owned()],
        ),
        Some(_) => {
            let saved = size(sharing * page);
            let mut line = state("merging", format!("KSM saves {saved} by merging"));
            for user in &facts.ksm_users.top {
                line = line.text(
                    "process",
                    format!("{} (pid {}) {} merged", user.comm, user.pid, size(user.merged)),
                    "/proc/PID/ksm_stat",
                );
            }
            match scan_seconds(ksm, seen) {
                Some(seconds) if seconds > SLOW_S => {
                    line.text.push_str(&format!(", but one scan of all offered memory takes {:.0} minutes", seconds / 60.0));
                    (
                        Severity::Note,
                        line.count("pages_to_scan", pages(ksm.pages_to_scan), "/sys/kernel/mm/ksm/pages_to_scan"),
                        vec!["echo scan-time > /sys/kernel/mm/ksm/advisor_mode    (6.8 and newer), or raise pages_to_scan (root)".to_owned()],
                    )
                }
                _ => (Severity::Ok, line, Vec::new()),
            }
        }
        None => {
            found.answer = "Not known: /sys/kernel/mm/ksm/run cannot be read.".to_owned();
            return found;
        }
    };
    found.severity = severity;
    found.applies = severity > Severity::Ok;
    found.answer = match line.id {
        "merging" => format!(
            "Yes: {}.",
            line.text
                .strip_prefix("KSM ")
                .map_or(line.text.clone(), |text| format!("it {text}"))
        ),
        "no_profit" => "It merges, at a loss.".to_owned(),
        _ => format!("No: {}.", line.text),
    };
    found.reasons.push(line);
    found.next = next;
    found
}

/// Seconds for one scan of what is offered, as the knobs pace it. An advisor paces by itself.
fn scan_seconds(ksm: &Ksm, seen: u64) -> Option<f64> {
    if ksm.advisor.as_deref().is_some_and(|mode| mode != "none") {
        return None;
    }
    let batch = ksm.pages_to_scan.filter(|pages| *pages > 0)?;
    let pause = ksm.sleep_millisecs?;
    Some(seen as f64 / batch as f64 * pause as f64 / 1000.0)
}

fn with_state(mut line: super::Reason, ksm: &Ksm) -> super::Reason {
    let figures = [
        ("run", ksm.run, "/sys/kernel/mm/ksm/run"),
        (
            "pages_shared",
            ksm.pages_shared,
            "/sys/kernel/mm/ksm/pages_shared",
        ),
        (
            "pages_sharing",
            ksm.pages_sharing,
            "/sys/kernel/mm/ksm/pages_sharing",
        ),
        (
            "pages_unshared",
            ksm.pages_unshared,
            "/sys/kernel/mm/ksm/pages_unshared",
        ),
        (
            "full_scans",
            ksm.full_scans,
            "/sys/kernel/mm/ksm/full_scans",
        ),
    ];
    for (name, value, source) in figures {
        if let Some(value) = value {
            line = line.count(name, value, source);
        }
    }
    if let Some(profit) = ksm.general_profit {
        line = line.text(
            "profit",
            signed(profit),
            "/sys/kernel/mm/ksm/general_profit",
        );
    }
    line
}

/// Bytes with a sign.
pub(crate) fn signed(bytes: i64) -> String {
    let sign = if bytes < 0 { "-" } else { "" };
    format!("{sign}{}", size(bytes.unsigned_abs()))
}
