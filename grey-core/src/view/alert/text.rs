//! What each kind of alert says.

use std::fmt::Write as _;

use crate::event::{
    ActionOutcome, ActionPlan, Cause, Constraint, Growth, GrowthScope, Memory, Oom, OutcomeVerdict,
    Pressure, PressureLevel, Rollback, Stall, StallKind, State, Verdict,
};
use crate::units::{format_bytes, format_duration_us, format_rate};

/// `text` without control characters: names of processes and cgroups are chosen by others, and an escape sequence in
/// one must not reach the terminal.
#[must_use]
pub fn printable(text: &str) -> std::borrow::Cow<'_, str> {
    if text.chars().any(char::is_control) {
        text.chars()
            .map(|c| {
                if c.is_control() {
                    char::REPLACEMENT_CHARACTER
                } else {
                    c
                }
            })
            .collect::<String>()
            .into()
    } else {
        text.into()
    }
}

pub(super) fn victim_name(oom: &Oom) -> String {
    oom.victim
        .as_ref()
        .map_or(String::new(), |victim| victim.comm.clone())
}

pub(super) fn oom_text(oom: &Oom) -> String {
    let mut text = match &oom.victim {
        Some(victim) if victim.comm.is_empty() => format!("killed {}", victim.pid),
        Some(victim) => format!("killed {} {}", victim.pid, printable(&victim.comm)),
        None if oom.kills == 1 => "killed a process".to_owned(),
        None => format!("killed {} processes", oom.kills),
    };
    if let Some(victim) = &oom.victim {
        let figures: Vec<String> = [
            ("anon", victim.anon),
            ("file", victim.file),
            ("shmem", victim.shmem),
            ("page tables", victim.pgtables),
        ]
        .iter()
        .filter_map(|(name, bytes)| {
            bytes
                .filter(|b| *b > 0)
                .map(|b| format!("{name} {}", format_bytes(b)))
        })
        .collect();
        if !figures.is_empty() {
            let _ = write!(text, " ({})", figures.join(", "));
        }
    }
    match (oom.constraint, &oom.limit_cgroup) {
        (Some(Constraint::Memcg), Some(path)) => {
            let _ = write!(text, ", limit of {}", printable(path));
        }
        (Some(Constraint::Memcg), None) => text.push_str(", cgroup limit"),
        (Some(Constraint::Global), _) => text.push_str(", machine out of memory"),
        (Some(Constraint::Cpuset), _) => text.push_str(", cpuset out of memory"),
        (Some(Constraint::Mempolicy), _) => text.push_str(", memory policy's nodes out of memory"),
        (None, _) => {}
    }
    if let Some(trigger) = &oom.trigger
        && oom.victim.as_ref().map(|victim| victim.pid) != Some(trigger.pid)
    {
        let _ = write!(
            text,
            ", hit by {} {}",
            trigger.pid,
            printable(&trigger.comm)
        );
    }
    text
}

pub(super) fn stall_text(stall: &Stall) -> String {
    let who = who(stall.pid, stall.comm.as_deref());
    let took = format_duration_us(stall.us);
    let pages = stall.pages;
    let plural = if pages == 1 { "" } else { "s" };
    let mut text = match stall.kind {
        StallKind::Kswapd => format!("kswapd awake for {took}, {pages} page{plural} freed"),
        StallKind::Direct => {
            format!("{who} waited {took} in direct reclaim, {pages} page{plural} freed")
        }
        StallKind::Memcg => {
            format!("{who} waited {took} in cgroup reclaim, {pages} page{plural} freed")
        }
    };
    if let Some(target) = &stall.target {
        let _ = write!(text, " from {}", printable(target));
    }
    if stall.own {
        text.push_str(" (our own)");
    }
    text
}

pub(super) fn pressure_text(pressure: &Pressure) -> String {
    let level = match pressure.level {
        PressureLevel::Some => "some tasks",
        PressureLevel::Full => "all tasks",
    };
    let mut text = format!(
        "{level} stalled over {} in {}",
        format_duration_us(pressure.threshold_us),
        format_duration_us(pressure.window_us)
    );
    if let Some(avg10) = pressure.avg10 {
        let _ = write!(text, ", {avg10:.1}% over 10s");
    }
    text
}

pub(super) fn growth_text(growth: &Growth) -> String {
    let who = who(Some(growth.pid), Some(&growth.comm));
    let bytes = format_bytes(growth.bytes);
    let took = format_duration_us(growth.since_ms.saturating_mul(1000));
    let mut text = match growth.scope {
        GrowthScope::Process => format!("{who} grew {bytes} in {took}"),
        GrowthScope::Cgroup => format!("grew {bytes} in {took}, last by {who}"),
    };
    if let Some(rss) = growth.rss {
        let _ = write!(text, ", now {} resident", format_bytes(rss));
    }
    text
}

fn who(pid: Option<u32>, comm: Option<&str>) -> String {
    match (pid, comm) {
        (Some(pid), Some(comm)) if !comm.is_empty() => format!("{pid} {}", printable(comm)),
        (Some(pid), _) => pid.to_string(),
        (None, Some(comm)) if !comm.is_empty() => printable(comm).into_owned(),
        (None, _) => "a task".to_owned(),
    }
}

/// Sure ones as they are, others with a question mark.
pub(super) fn verdict_label(state: State, cause: Cause) -> &'static str {
    let sure = match state {
        State::Normal | State::Recovered => return "OK",
        State::Growing => return "GROWS",
        State::Suspect => false,
        State::Confirmed => true,
    };
    match (cause, sure) {
        (Cause::Leak, true) => "LEAK",
        (Cause::Leak, false) => "LEAK?",
        // What its allocator keeps.
        (Cause::Retention, true) => "KEEPS",
        (Cause::Retention, false) => "KEEPS?",
        (Cause::Cache, true) => "CACHE",
        (Cause::Cache, false) => "CACHE?",
        // Reserved address space.
        (Cause::Reservation, true) => "RESRV",
        (Cause::Reservation, false) => "RESRV?",
        (Cause::Warmup, true) => "START",
        (Cause::Warmup, false) => "START?",
        (Cause::Load, true) => "LOAD",
        (Cause::Load, false) => "LOAD?",
        (Cause::Unknown, true) => "GROWTH",
        (Cause::Unknown, false) => "SUSP",
    }
}

/// State, cause, which memory, which process: `confirmed leak of slab`.
#[must_use]
pub fn headline(verdict: &Verdict) -> String {
    let mut text = match (verdict.state, verdict.cause) {
        (State::Normal, _) => "normal".to_owned(),
        (state, Cause::Unknown) => state.to_string(),
        (state, cause) => format!("{state} {cause}"),
    };
    if verdict.memory != Memory::Anon {
        text = match (verdict.state, verdict.cause) {
            (State::Normal | State::Growing, _) | (_, Cause::Unknown) => {
                format!("{} {text}", verdict.memory)
            }
            _ => format!("{text} of {}", verdict.memory),
        };
    }
    if let Some(process) = &verdict.process {
        let _ = write!(text, " in {} {}", process.pid, printable(&process.comm));
    }
    text
}

/// What, who, how fast, until when, why, and what next.
pub(super) fn verdict_text(verdict: &Verdict) -> String {
    let mut text = headline(verdict);
    if !matches!(verdict.state, State::Normal | State::Recovered) {
        if let Some(rate) = verdict.rate_bps {
            let _ = write!(text, ", {}", format_rate(rate));
        }
        if let (Some(ttl), Some(limit)) = (verdict.ttl_s, verdict.limit_bytes) {
            let _ = write!(text, ", {} in {}", format_bytes(limit), seconds(ttl));
        }
        if let Some(grower) = &verdict.evidence.grower {
            let comm = printable(&grower.comm);
            let _ = write!(
                text,
                ", most by {} {comm} ({})",
                grower.pid,
                format_bytes(grower.bytes)
            );
        }
    }
    for sentence in [&verdict.evidence.reason, &verdict.advice] {
        let sentence = sentence.trim_end_matches('.');
        if !sentence.is_empty() {
            let mark = if text.contains(": ") { ". " } else { ": " };
            let _ = write!(text, "{mark}{}", printable(sentence));
        }
    }
    text
}

/// Seconds as a time that a person can take in.
#[must_use]
pub fn seconds(seconds: f64) -> String {
    // `as` saturates.
    let text = format_duration_us((seconds.max(0.0).round() * 1e6) as u64);
    match text.strip_suffix(".0s") {
        Some(whole) => format!("{whole}s"),
        None => text,
    }
}

pub(super) fn action_text(action: &ActionPlan) -> String {
    let mut text = format!(
        "{}{}",
        if action.dry_run { "would " } else { "" },
        printable(&action.kind)
    );
    if let Some(bytes) = action.planned_bytes {
        let _ = write!(text, " {}", format_bytes(bytes));
    }
    for write in &action.writes {
        let _ = write!(
            text,
            ", {}: {} to {}",
            printable(&write.file),
            printable(write.old.as_deref().unwrap_or("?")),
            printable(&write.new)
        );
    }
    let _ = write!(text, " ({})", printable(&action.reason));
    text
}

pub(super) fn outcome_text(outcome: &ActionOutcome) -> String {
    let mut text = format!("{} ", printable(&outcome.kind));
    text.push_str(match outcome.verdict {
        OutcomeVerdict::Commit => "done",
        OutcomeVerdict::Revert => "taken back",
    });
    if let Some(freed) = outcome.freed_bytes {
        let _ = write!(text, ", freed {}", format_bytes(freed));
    }
    if let Some(us) = outcome.psi_delta_us {
        let _ = write!(text, ", stalled {}", format_duration_us(us));
    }
    if let Some(pages) = outcome.refaults {
        let _ = write!(text, ", {pages} refaults");
    }
    text
}

pub(super) fn rollback_text(rollback: &Rollback) -> String {
    let mut text = printable(&rollback.cause).into_owned();
    for file in &rollback.restored {
        let _ = write!(
            text,
            ", {}: {} back to {}",
            printable(&file.file),
            printable(&file.from),
            printable(&file.to)
        );
    }
    for file in &rollback.skipped {
        let _ = write!(text, ", {} {}", printable(&file.file), printable(&file.why));
    }
    text
}
