//! "Why was something OOM-killed?"

use grey_core::units::format_bytes as size;

use super::{Answer, Reason, Severity, answer, count, reason, share};
use crate::diagnose::facts::Facts;
use crate::host::oom_log::{OomConstraint, OomRecord};

/// A kill this recent is an alarm.
const RECENT_US: u64 = 3_600_000_000;
/// Kills told one by one.
const MOST: usize = 5;

pub(super) fn why_killed(facts: &Facts) -> Answer {
    let mut found = answer(
        "oom_killed",
        "Was something killed for want of memory, and why?",
    );
    let oom = &facts.oom;
    let in_cgroups: u64 = oom.cgroups.iter().map(|cgroup| cgroup.kills).sum();
    let kills = oom
        .kills_since_boot
        .unwrap_or(0)
        .max(in_cgroups)
        .max(oom.records.len() as u64);
    if kills == 0 {
        found.answer = match oom.kills_since_boot {
            Some(_) => "Nothing was killed since boot.".to_owned(),
            None => "Nothing that can be seen; this kernel or container does not count kills."
                .to_owned(),
        };
        return found;
    }
    found.applies = true;
    let ago = |record: &OomRecord| Some(oom.uptime_us?.saturating_sub(record.boot_us));
    // What is long past is history, not an alarm.
    found.severity = match oom.records.first().and_then(ago) {
        Some(us) if us < RECENT_US => Severity::Critical,
        _ => Severity::Warning,
    };
    for record in oom.records.iter().take(MOST) {
        found.reasons.push(kill(record, ago(record)));
    }
    for cgroup in oom.cgroups.iter().take(MOST) {
        let mut line = reason(
            "cgroup",
            format!(
                "{}: {} of its processes since it began",
                cgroup.path,
                count(cgroup.kills, "kill")
            ),
        )
        .text("cgroup", cgroup.path.clone(), "its path")
        .count("kills", cgroup.kills, "memory.events.local oom_kill");
        if let Some(group) = cgroup.group_kills {
            line = line.count("group_kills", group, "memory.events oom_group_kill");
        }
        if let Some(limit) = &cgroup.limit {
            let bytes = size(limit.bytes);
            line.text.push_str(&match limit.cgroup == cgroup.path {
                true => format!(", under its own limit of {bytes}"),
                false => format!(", under the limit of {bytes} of {}", limit.cgroup),
            });
            line = line.bytes("limit", limit.bytes, "memory.max").text(
                "limit_cgroup",
                limit.cgroup.clone(),
                "its path",
            );
        }
        found.reasons.push(line);
    }
    let times = count(kills, "kill");
    let source = if oom.kills_since_boot.is_some() {
        " since boot"
    } else {
        ""
    };
    found.answer = match oom.records.first() {
        Some(record) => match ago(record) {
            Some(us) => format!(
                "{times}{source}. The last, {} ago: {}.",
                long(us),
                sentence(record)
            ),
            None => format!("{times}{source}. The last: {}.", sentence(record)),
        },
        None if !oom.log_read => format!(
            "{times}{source}. Which limit was hit is in the kernel's log, which we may not read."
        ),
        None => format!("{times}{source}; the kernel's log no longer has them."),
    };
    found.next = advice(facts);
    found
}

fn kill(record: &OomRecord, ago_us: Option<u64>) -> Reason {
    let mut line = reason("kill", sentence(record))
        .count("pid", u64::from(record.pid), "kernel log")
        .text("victim", record.comm.clone(), "kernel log")
        .text(
            "constraint",
            match record.constraint {
                OomConstraint::Memcg => "memcg",
                OomConstraint::Global => "global",
                OomConstraint::Nodes => "nodes",
                OomConstraint::Unknown => "unknown",
            },
            "kernel log",
        );
    if let Some(us) = ago_us {
        line.text = format!("{} ago: {}", long(us), line.text);
        line = line.count("seconds_ago", us / 1_000_000, "kernel log and /proc/uptime");
    }
    let texts = [
        ("victim_cgroup", &record.victim_cgroup),
        ("limit_cgroup", &record.limit_cgroup),
        ("trigger", &record.trigger),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            line = line.text(name, value.clone(), "kernel log");
        }
    }
    let sizes = [
        ("limit", record.limit),
        ("usage", record.usage),
        ("victim_anon", record.anon),
        ("victim_shmem", record.shmem),
        ("cgroup_anon", record.cgroup_anon),
        ("cgroup_file", record.cgroup_file),
    ];
    for (name, value) in sizes {
        if let Some(value) = value {
            line = line.bytes(name, value, "kernel log");
        }
    }
    for task in record.candidates.iter().take(3) {
        line = line.text(
            "was_using",
            format!(
                "{} (pid {}) {}",
                task.comm,
                task.pid,
                size(task.rss + task.swap)
            ),
            "kernel log: Tasks state",
        );
    }
    line
}

/// Who was killed, where, and by which limit.
fn sentence(record: &OomRecord) -> String {
    let mut text = format!("{} (pid {})", record.comm, record.pid);
    if let Some(cgroup) = &record.victim_cgroup {
        text.push_str(&format!(" in {cgroup}"));
    }
    text.push_str(" was killed ");
    text.push_str(&match (record.constraint, &record.limit_cgroup) {
        (OomConstraint::Memcg, Some(limit)) => {
            let of = match &record.victim_cgroup {
                Some(cgroup) if cgroup == limit => "its own limit".to_owned(),
                Some(_) => format!("the limit of {limit} above it"),
                None => format!("the limit of {limit}"),
            };
            match record.limit {
                Some(bytes) => format!("at {of} ({})", size(bytes)),
                None => format!("at {of}"),
            }
        }
        (OomConstraint::Memcg, None) => "at the limit of a cgroup".to_owned(),
        (OomConstraint::Global, _) => "because the whole machine ran out of memory".to_owned(),
        (OomConstraint::Nodes, _) => {
            "because the NUMA nodes it may use ran out of memory".to_owned()
        }
        (OomConstraint::Unknown, _) => "for want of memory".to_owned(),
    });
    if record.group {
        text.push_str(", with all of its group");
    }
    if let Some(anon) = record.anon {
        text.push_str(&format!("; it had {} of program memory", size(anon)));
    }
    text
}

fn advice(facts: &Facts) -> Vec<String> {
    let mut next = Vec::new();
    if let Some(record) = facts.oom.records.first() {
        let used = |part: Option<u64>| share(part.unwrap_or(0), record.usage.unwrap_or(0));
        match record.constraint {
            OomConstraint::Memcg => {
                let limit = record.limit_cgroup.as_deref().unwrap_or("/");
                next.push(format!(
                    "grey-ebpf watch --cgroup '{limit}'    what grows in it now"
                ));
                if used(record.cgroup_anon) > 0.5 {
                    next.push("it was full of program memory: a leak (grey-ebpf diagnose --detect-leaks), or a limit (memory.max, systemd MemoryMax=) below its need".to_owned());
                }
            }
            OomConstraint::Global => {
                next.push("limit the largest programs (systemd MemoryMax=, MemoryHigh=), so that they meet their own limit before the machine's".to_owned());
                if facts.meminfo.swap_total == Some(0) {
                    next.push(
                        "set up zram or a swap file: the machine had nowhere to put idle memory"
                            .to_owned(),
                    );
                }
            }
            OomConstraint::Nodes => next.push(
                "widen the cpuset's or mempolicy's nodes: other nodes may have had memory"
                    .to_owned(),
            ),
            OomConstraint::Unknown => {}
        }
    } else if !facts.oom.log_read {
        next.push("sudo grey-ebpf diagnose    reads the kernel's log as well".to_owned());
    }
    if let Some(cgroup) = facts.oom.cgroups.first()
        && facts.oom.records.is_empty()
    {
        next.push(format!(
            "grey-ebpf watch --cgroup '{}'    what grows in it now",
            cgroup.path
        ));
    }
    next
}

/// `45s`, `12min`, `3h`, `9d`.
fn long(us: u64) -> String {
    match us / 1_000_000 {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7_200 => format!("{}min", s / 60),
        s @ 7_200..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}
