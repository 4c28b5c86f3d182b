//! Alerts: what an event says to a person, in one line, repeats folded into one.

mod text;

use std::collections::VecDeque;
use std::fmt::Write as _;

use crate::event::{Body, Cause, Event, GrowthScope, Health, State};
use crate::time::Timestamp;

use text::{
    action_text, growth_text, oom_text, outcome_text, pressure_text, rollback_text, stall_text,
    verdict_label, verdict_text, victim_name,
};
pub use text::{headline, printable, seconds};

/// Alerts kept.
const MAX_ALERTS: usize = 200;
/// A repeat within this time of the last one is folded into it.
const FOLD_US: u64 = 60_000_000;

/// What an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertKind {
    /// An OOM kill.
    Oom,
    /// A long reclaim run.
    Stall,
    /// A PSI trigger fired.
    Pressure,
    /// A process or cgroup grew by the threshold.
    Growth,
    /// The detector's verdict changed.
    Verdict(State, Cause),
    /// An action of ours, or what came of it.
    Action,
    /// Changes of ours were taken back.
    Rollback,
    /// Records were lost.
    Lost,
    /// About the watch itself.
    Note,
}

impl AlertKind {
    /// A short word for it, six characters at most.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            AlertKind::Oom => "OOM",
            AlertKind::Stall => "STALL",
            AlertKind::Pressure => "PSI",
            AlertKind::Growth => "GROWTH",
            AlertKind::Verdict(state, cause) => verdict_label(state, cause),
            AlertKind::Action => "ACT",
            AlertKind::Rollback => "UNDO",
            AlertKind::Lost => "LOST",
            AlertKind::Note => "NOTE",
        }
    }
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody waited, or the figures have a gap.
    Warning,
    /// Something was killed.
    Critical,
}

/// One line of the alerts.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// What it is about.
    pub kind: AlertKind,
    /// How much it matters.
    pub severity: Severity,
    /// When it was first seen.
    pub first: Timestamp,
    /// When it was last seen.
    pub last: Timestamp,
    /// How often in between.
    pub count: u64,
    /// Path of the cgroup; `None` when it is about the machine or unknown.
    pub cgroup: Option<String>,
    /// What happened (the last time). Holds no control characters.
    pub text: String,
    /// Tells repeats of one thing from different things of one kind.
    topic: String,
}

impl Alert {
    pub(super) fn note(text: &str, at: Timestamp) -> Alert {
        Alert {
            kind: AlertKind::Note,
            severity: Severity::Warning,
            first: at,
            last: at,
            count: 1,
            cgroup: None,
            text: printable(text).into_owned(),
            topic: text.to_owned(),
        }
    }

    /// The alert an event stands for; `None` for samples, and for `health`, which needs the one before.
    #[must_use]
    pub fn of(event: &Event) -> Option<Alert> {
        let (kind, severity, topic, text) = match &event.body {
            Body::Sample(_) | Body::Process { .. } | Body::Health { .. } => return None,
            Body::Oom { oom } => (
                AlertKind::Oom,
                Severity::Critical,
                victim_name(oom),
                oom_text(oom),
            ),
            Body::Stall { stall } => {
                let severity = if stall.own {
                    Severity::Info
                } else {
                    Severity::Warning
                };
                let topic = format!(
                    "{:?} {} {}",
                    stall.kind,
                    stall.own,
                    stall.comm.as_deref().unwrap_or("")
                );
                (AlertKind::Stall, severity, topic, stall_text(stall))
            }
            Body::Pressure { pressure } => (
                AlertKind::Pressure,
                Severity::Warning,
                format!("{:?} {}", pressure.level, pressure.threshold_us),
                pressure_text(pressure),
            ),
            Body::Growth { growth } => (
                AlertKind::Growth,
                Severity::Info,
                match growth.scope {
                    GrowthScope::Process => format!("process {}", growth.comm),
                    // Who crossed the line is another one each time.
                    GrowthScope::Cgroup => "cgroup".to_owned(),
                },
                growth_text(growth),
            ),
            Body::Action { action } => (
                AlertKind::Action,
                Severity::Info,
                format!("{} {}", action.kind, action.target),
                action_text(action),
            ),
            Body::Outcome { outcome } => (
                AlertKind::Action,
                Severity::Info,
                format!("{} {} done", outcome.kind, outcome.target),
                outcome_text(outcome),
            ),
            Body::Rollback { rollback } => (
                AlertKind::Rollback,
                Severity::Warning,
                rollback.cause.clone(),
                rollback_text(rollback),
            ),
            Body::Verdict { verdict } => (
                AlertKind::Verdict(verdict.state, verdict.cause),
                match verdict.state {
                    State::Confirmed => Severity::Critical,
                    State::Suspect => Severity::Warning,
                    State::Normal | State::Growing | State::Recovered => Severity::Info,
                },
                format!("{} {:?}", verdict.memory, verdict.process),
                verdict_text(verdict),
            ),
        };
        Some(Alert {
            kind,
            severity,
            first: event.ts,
            last: event.ts,
            count: match &event.body {
                Body::Oom { oom } => oom.kills.max(1),
                _ => 1,
            },
            cgroup: event.cgroup.as_ref().map(|cgroup| cgroup.path.clone()),
            text,
            topic,
        })
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Alerts {
    /// Oldest first.
    ring: VecDeque<(u64, Alert)>,
}

impl Alerts {
    /// Adds an alert, or counts it with the one it repeats, which becomes the newest.
    pub(super) fn push(&mut self, alert: Option<Alert>, elapsed_us: u64) {
        let Some(mut alert) = alert else { return };
        let repeated = self
            .ring
            .iter()
            .rposition(|(at, known)| {
                elapsed_us.saturating_sub(*at) <= FOLD_US
                    && known.kind == alert.kind
                    && known.cgroup == alert.cgroup
                    && known.topic == alert.topic
            })
            .and_then(|index| self.ring.remove(index));
        if let Some((_, known)) = repeated {
            alert.first = known.first;
            alert.count = alert.count.saturating_add(known.count);
        } else if self.ring.len() >= MAX_ALERTS {
            // A storm of growth must not wash an OOM kill out of sight.
            let least = self.ring.iter().map(|(_, known)| known.severity).min();
            let index = self
                .ring
                .iter()
                .position(|(_, known)| Some(known.severity) == least);
            self.ring.remove(index.unwrap_or(0));
        }
        self.ring.push_back((elapsed_us, alert));
    }

    pub(super) fn newest_first(
        &self,
    ) -> impl DoubleEndedIterator<Item = &Alert> + ExactSizeIterator {
        self.ring.iter().rev().map(|(_, alert)| alert)
    }
}

/// The alert that a `health` event stands for when more was lost since the one before.
pub(super) fn lost_records(
    event: &Event,
    health: &Health,
    before: Option<&Health>,
) -> Option<Alert> {
    let mut total = 0_u64;
    let mut kinds = String::new();
    for (kind, lost) in &health.dropped {
        let known = before
            .and_then(|before| before.dropped.get(kind))
            .copied()
            .unwrap_or(0);
        let new = lost.saturating_sub(known);
        if new > 0 {
            total = total.saturating_add(new);
            let comma = if kinds.is_empty() { "" } else { ", " };
            let _ = write!(kinds, "{comma}{} {new}", printable(kind));
        }
    }
    (total > 0).then(|| Alert {
        kind: AlertKind::Lost,
        severity: Severity::Warning,
        first: event.ts,
        last: event.ts,
        count: 1,
        cgroup: None,
        text: format!("{total} records lost ({kinds}); figures of this window are too low"),
        topic: String::new(),
    })
}
