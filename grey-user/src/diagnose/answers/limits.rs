//! "Who is about to hit its limit?"

use grey_core::units::format_bytes;

use super::{Answer, Severity, answer, count, reason, share};
use crate::diagnose::facts::{CgroupUse, Facts};

/// Share of the limit, taken by what reclaim cannot give back, above which a burst ends in a kill.
const NEAR: f64 = 0.90;
/// Told one by one.
const MOST: usize = 5;

pub(super) fn near_limit(facts: &Facts) -> Answer {
    let mut found = answer("near_limit", "Who is about to hit its limit?");
    let mut near: Vec<(&CgroupUse, u64, f64)> = facts
        .cgroups
        .all()
        .filter_map(|cgroup| {
            let limit = cgroup.max.bytes().filter(|bytes| *bytes > 0)?;
            // Page cache makes room by itself: a cgroup full of it is not near anything.
            let firm = cgroup
                .current?
                .saturating_sub(cgroup.reclaimable.unwrap_or(0));
            let used = share(firm, limit);
            (used >= NEAR).then_some((cgroup, firm, used))
        })
        .collect();
    near.sort_by(|one, other| other.2.total_cmp(&one.2));
    for (cgroup, firm, used) in near.iter().take(MOST) {
        let limit = cgroup.max.bytes().unwrap_or(0);
        let mut line = reason(
            "near",
            format!(
                "{}: {} of its {} are in firm use ({:.0} %)",
                cgroup.path,
                format_bytes(*firm),
                format_bytes(limit),
                used * 100.0
            ),
        )
        .text("cgroup", cgroup.path.clone(), "its path")
        .bytes(
            "firm",
            *firm,
            "memory.current - active_file - inactive_file - slab_reclaimable",
        )
        .bytes("limit", limit, "memory.max");
        if let Some(hit) = cgroup.events.as_ref().and_then(|events| events.max) {
            line = line.count("times_hit", hit, "memory.events max");
        }
        found.reasons.push(line);
    }
    found.applies = !near.is_empty();
    if !found.applies {
        found.answer = match facts
            .cgroups
            .all()
            .any(|cgroup| cgroup.max.bytes().is_some())
        {
            true => {
                "None: every limited cgroup has room, or page cache that makes room.".to_owned()
            }
            false => "None: no cgroup has a limit, as far as can be seen.".to_owned(),
        };
        return found;
    }
    found.severity = Severity::Warning;
    found.answer = format!(
        "{} within {:.0} % of the limit, by memory that reclaim cannot give back without swap; at the limit the OOM killer chooses among its processes.",
        match near.len() {
            1 => "One cgroup is".to_owned(),
            n => format!("{} are", count(n as u64, "cgroup")),
        },
        (1.0 - NEAR) * 100.0
    );
    let path = &near[0].0.path;
    found.next = vec![
        format!("grey-ebpf watch --cgroup '{path}'    what grows in it"),
        "raise memory.max (systemd: MemoryMax=) if it needs that much, or set memory.high below it, so that it is slowed down before it is killed".to_owned(),
    ];
    found
}
