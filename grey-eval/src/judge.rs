//! What is scored: a judge takes the samples of a trace and says when it raises an alarm. grey-ebpf's detector is one.

use grey_core::detect::{Detector, Finding, Point};
use grey_core::event::{Cause, State, Verdict};

use crate::trace::Trace;

/// A leak detector of any make.
pub trait Judge {
    /// Its name in the tables.
    fn name(&self) -> &'static str;

    /// Takes in one sample of the judged cgroup and says whether it now calls it a leak.
    fn sample(&mut self, point: &Point) -> bool;
}

/// What was said of a trace.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// When each alarm began, µs.
    pub alarms: Vec<i64>,
    /// Of those, how many concern a cgroup of the trace other than the judged one.
    pub elsewhere: u64,
    /// Cause of the highest state reached by the judged cgroup, the latest among equals; `None` when nothing was said.
    pub cause: Option<(State, Cause)>,
    /// All verdicts about the judged cgroup, where the judge gives any.
    pub verdicts: Vec<(i64, Verdict)>,
}

/// How much a state says. `recovered` says that something is over and explains nothing anew.
fn rank(state: State) -> u8 {
    match state {
        State::Normal | State::Recovered => 0,
        State::Growing => 1,
        State::Suspect => 2,
        State::Confirmed => 3,
    }
}

/// Runs grey-ebpf's detector over a trace: all its cgroups, as in a live run.
#[must_use]
pub fn ours(trace: &Trace) -> Said {
    let mut detector = Detector::new();
    let mut said = Said::default();
    let mut found: Vec<Finding> = Vec::new();
    let judged = &trace.cgroups[0].path;
    for (index, point) in &trace.points {
        detector.sample(&trace.cgroups[usize::from(*index)], point, &mut found);
        for finding in found.drain(..) {
            let verdict = finding.verdict;
            let own = finding.cgroup.path == *judged;
            if verdict.state == State::Confirmed && verdict.cause == Cause::Leak {
                if own {
                    said.alarms.push(finding.ts.0);
                } else if !trace.truth.leak {
                    said.alarms.push(finding.ts.0);
                    said.elsewhere += 1;
                }
            }
            if own {
                let highest = said.cause.map_or(0, |(state, _)| rank(state));
                if rank(verdict.state) > 0 && rank(verdict.state) >= highest {
                    said.cause = Some((verdict.state, verdict.cause));
                }
                said.verdicts.push((finding.ts.0, verdict));
            }
        }
    }
    said
}

/// Runs another judge over the judged cgroup of a trace.
#[must_use]
pub fn other(judge: &mut dyn Judge, trace: &Trace) -> Said {
    let mut said = Said::default();
    let mut on = false;
    for (_, point) in trace.points.iter().filter(|(index, _)| *index == 0) {
        let now = judge.sample(point);
        if now && !on {
            said.alarms.push(point.at_us);
        }
        on = now;
    }
    said
}
