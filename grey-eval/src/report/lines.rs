//! One line about a trace, its truth or a verdict.

use std::fmt::Write as _;

use grey_core::event::Verdict;

use super::tables::seconds;
use crate::judge::Said;
use crate::score::Outcome;
use crate::trace::Trace;

/// Prints one wrong trace.
pub fn wrong(trace: &Trace, outcome: &Outcome, said: &Said) {
    let mut what = Vec::new();
    if outcome.false_alarms > 0 {
        let at = seconds(outcome.first_alarm_s);
        what.push(format!(
            "{} false alarm(s), first after {at}",
            outcome.false_alarms
        ));
        if said.elsewhere > 0 {
            what.push(format!("{} of them on another cgroup", said.elsewhere));
        }
    }
    if trace.truth.leak && !outcome.hit {
        what.push("missed".to_owned());
    }
    if outcome.cause_right == Some(false) {
        let said = outcome.said.map_or("nothing".to_owned(), |(state, cause)| {
            format!("{state} {cause}")
        });
        what.push(format!("said {said}, right: {}", right(trace)));
    }
    eprintln!("{:<28} {}", outcome.name, what.join("; "));
}

fn right(trace: &Trace) -> String {
    let mut words: Vec<String> = trace.truth.causes.iter().map(ToString::to_string).collect();
    if trace.truth.silence {
        words.push("nothing".to_owned());
    }
    words.join(" or ")
}

/// What is true of a trace.
#[must_use]
pub fn truth(trace: &Trace) -> String {
    let begin = trace.points.first().map_or(0, |(_, point)| point.at_us);
    let since = |at: Option<i64>| seconds(at.map(|at| (at - begin) as f64 / 1e6));
    let mut out = format!(
        "{}: {} samples every {} s over {}; limit {}; right: {}",
        trace.name,
        trace.points.len(),
        trace.interval_s,
        seconds(Some(trace.span_s())),
        trace
            .points
            .first()
            .and_then(|(_, point)| point.max.bytes())
            .map_or("not its own".to_owned(), |bytes| format!(
                "{:.0} MiB",
                bytes as f64 / 1_048_576.0
            )),
        right(trace),
    );
    if trace.truth.leak {
        let rate = trace.truth.rate_bps.map_or(String::new(), |rate| {
            format!(" at {:.3} MiB/min", rate * 60.0 / 1_048_576.0)
        });
        let _ = write!(
            out,
            "\nleak from {}{rate}, limit hit at {}",
            since(trace.truth.onset_us),
            since(trace.truth.limit_us),
        );
    }
    out
}

/// One line about a verdict.
#[must_use]
pub fn verdict(trace: &Trace, at: i64, verdict: &Verdict) -> String {
    let begin = trace.points.first().map_or(0, |(_, point)| point.at_us);
    let e = &verdict.evidence;
    let show = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
    format!(
        "{:>9.0} s  {:<9} {:<11} {:<10} rate {} MiB/min  confidence {:.2}  ttl {}  z {} tau {} second_half {} step {} | {}",
        (at - begin) as f64 / 1e6,
        verdict.state,
        verdict.cause,
        verdict.memory,
        show(verdict.rate_bps.map(|rate| rate * 60.0 / 1_048_576.0)),
        verdict.confidence,
        seconds(verdict.ttl_s),
        show(e.z),
        show(e.tau),
        show(e.second_half),
        show(e.largest_step),
        e.reason,
    )
}
