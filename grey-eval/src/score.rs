//! Holds what was said against the truth.

use grey_core::event::{Cause, State};
use serde::Serialize;

use crate::judge::Said;
use crate::trace::{Kind, Trace};

/// How one trace went for one judge.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Trace.
    pub name: String,
    /// Class.
    pub class: &'static str,
    /// What the class counts as.
    pub kind: Kind,
    /// A leak that was confirmed after its onset and before the end.
    pub hit: bool,
    /// Alarms on a trace without leak, or before the onset.
    pub false_alarms: u64,
    /// Onset to the first true alarm, seconds.
    pub latency_s: Option<f64>,
    /// Onset to the limit, seconds.
    pub ttl_s: Option<f64>,
    /// Mean growth, MiB a minute.
    pub rate_mib_min: Option<f64>,
    /// Length of the trace, days.
    pub days: f64,
    /// What was said to be the cause, if anything.
    pub said: Option<(State, Cause)>,
    /// Whether that is right; `None` where the judge names no causes.
    pub cause_right: Option<bool>,
    /// First alarm, seconds from the first sample.
    pub first_alarm_s: Option<f64>,
    /// The same a day of observation before the onset, where there is a leak: counted among the quiet time.
    pub quiet_days: f64,
}

/// Scores one judge on one trace.
#[must_use]
pub fn score(trace: &Trace, said: &Said, names_causes: bool) -> Outcome {
    let truth = &trace.truth;
    let begin = trace.points.first().map_or(0, |(_, point)| point.at_us);
    let days = trace.span_s() / 86_400.0;
    let onset = if truth.leak {
        truth.onset_us.unwrap_or(begin)
    } else {
        i64::MAX
    };
    let early = said.counted.iter().filter(|&&at| at < onset).count() as u64;
    let first_true = said
        .alarms
        .iter()
        .copied()
        .find(|&at| truth.leak && at >= onset);
    let seconds = |from: i64, to: i64| (to - from) as f64 / 1e6;
    let silent = |cause: Option<(State, Cause)>| {
        cause.is_none_or(|(state, cause)| state <= State::Growing && cause == Cause::Unknown)
    };
    let right = if silent(said.cause) {
        truth.silence
    } else {
        said.cause
            .is_some_and(|(_, cause)| truth.causes.contains(&cause))
    };
    Outcome {
        name: trace.name.clone(),
        class: trace.class,
        kind: trace.kind,
        hit: first_true.is_some(),
        false_alarms: early,
        latency_s: first_true.map(|at| seconds(onset, at)),
        ttl_s: truth
            .limit_us
            .filter(|_| truth.leak)
            .map(|limit| seconds(onset, limit)),
        rate_mib_min: truth.rate_bps.map(|rate| rate * 60.0 / (1024.0 * 1024.0)),
        days,
        said: said.cause,
        cause_right: names_causes.then_some(right),
        first_alarm_s: said.alarms.first().map(|&at| seconds(begin, at)),
        quiet_days: if truth.leak {
            seconds(begin, onset.max(begin)) / 86_400.0
        } else {
            days
        },
    }
}

/// Sums over outcomes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// Leaks.
    pub leaks: u64,
    /// Leaks found.
    pub hits: u64,
    /// Traces without leak.
    pub quiet: u64,
    /// Of those, with at least one alarm; and leaks with one before their onset.
    pub alarmed: u64,
    /// All false alarms.
    pub false_alarms: u64,
    /// Days without leak.
    pub days: f64,
    /// Latencies of the leaks found, seconds.
    #[serde(skip)]
    pub latency_s: Vec<f64>,
    /// The same as share of the time to the limit.
    #[serde(skip)]
    pub latency_share: Vec<f64>,
    /// Traces whose cause was right.
    pub causes_right: u64,
    /// Traces whose cause was judged.
    pub causes: u64,
}

impl Tally {
    /// Adds one outcome.
    pub fn add(&mut self, outcome: &Outcome) {
        let leak = matches!(outcome.kind, Kind::Leak | Kind::Other);
        if leak {
            self.leaks += 1;
            self.hits += u64::from(outcome.hit);
        } else {
            self.quiet += 1;
        }
        self.alarmed += u64::from(outcome.false_alarms > 0);
        self.false_alarms += outcome.false_alarms;
        self.days += outcome.quiet_days;
        if let Some(latency) = outcome.latency_s {
            self.latency_s.push(latency);
            if let Some(ttl) = outcome.ttl_s.filter(|ttl| *ttl > 0.0) {
                self.latency_share.push(latency / ttl);
            }
        }
        if let Some(right) = outcome.cause_right {
            self.causes += 1;
            self.causes_right += u64::from(right);
        }
    }

    /// Of these.
    pub fn of<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Tally {
        let mut tally = Tally::default();
        for outcome in outcomes {
            tally.add(outcome);
        }
        tally
    }

    /// Share of leaks found.
    #[must_use]
    pub fn recall(&self) -> Option<f64> {
        (self.leaks > 0).then(|| self.hits as f64 / self.leaks as f64)
    }

    /// Share of traces without leak that stayed silent.
    #[must_use]
    pub fn silent(&self) -> Option<f64> {
        (self.quiet > 0).then(|| 1.0 - self.alarmed as f64 / self.quiet as f64)
    }
}

/// Hits over hits and false alarms; `None` without either.
#[must_use]
pub fn precision(hits: u64, alarmed: u64) -> Option<f64> {
    (hits + alarmed > 0).then(|| hits as f64 / (hits + alarmed) as f64)
}

/// Harmonic mean of precision and recall; 0 where either is missing.
#[must_use]
pub fn f1(precision: Option<f64>, recall: Option<f64>) -> f64 {
    match (precision, recall) {
        (Some(p), Some(r)) if p + r > 0.0 => 2.0 * p * r / (p + r),
        _ => 0.0,
    }
}
