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
    /// Of those, the ones that count: one that comes within an hour of the end of the one before belongs to it.
    pub counted: Vec<i64>,
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

/// An alarm that flaps is one alarm to who gets it.
const SAME_US: i64 = 3600 * 1_000_000;

/// Follows one cgroup's alarm.
#[derive(Clone, Copy, Debug, Default)]
struct Bell {
    on: bool,
    ended: Option<i64>,
}

impl Bell {
    fn ring(&mut self, on: bool, at: i64, said: &mut Said) {
        if on && !self.on {
            said.alarms.push(at);
            if self.ended.is_none_or(|ended| at - ended > SAME_US) {
                said.counted.push(at);
            }
        } else if self.on && !on {
            self.ended = Some(at);
        }
        self.on = on;
    }
}

/// Runs grey-ebpf's detector over a trace: all its cgroups, as in a live run.
#[must_use]
pub fn ours(trace: &Trace) -> Said {
    let mut detector = Detector::new();
    let mut said = Said::default();
    let mut found: Vec<Finding> = Vec::new();
    let judged = &trace.cgroups[0].path;
    let mut bells = vec![Bell::default(); trace.cgroups.len()];
    let mut cgroups = trace.cgroups.clone();
    for (index, point) in &trace.points {
        let cgroup = &mut cgroups[usize::from(*index)];
        // It may have been made anew.
        cgroup.id = point.id;
        detector.sample(cgroup, point, &mut found);
        for finding in found.drain(..) {
            let verdict = finding.verdict;
            let own = finding.cgroup.path == *judged;
            let at = finding.ts.0;
            let place = cgroups
                .iter()
                .position(|cgroup| cgroup.path == finding.cgroup.path);
            if let Some(place) = place.filter(|_| own || !trace.truth.leak) {
                let before = said.alarms.len();
                let leak = verdict.state == State::Confirmed && verdict.cause == Cause::Leak;
                bells[place].ring(leak, at, &mut said);
                said.elsewhere += if own {
                    0
                } else {
                    (said.alarms.len() - before) as u64
                };
            }
            if own {
                let highest = said.cause.map_or(0, |(state, _)| rank(state));
                if rank(verdict.state) > 0 && rank(verdict.state) >= highest {
                    said.cause = Some((verdict.state, verdict.cause));
                }
                said.verdicts.push((at, verdict));
            }
        }
    }
    said
}

/// Runs another judge over the judged cgroup of a trace.
#[must_use]
pub fn other(judge: &mut dyn Judge, trace: &Trace) -> Said {
    let mut said = Said::default();
    let mut bell = Bell::default();
    for (_, point) in trace.points.iter().filter(|(index, _)| *index == 0) {
        bell.ring(judge.sample(point), point.at_us, &mut said);
    }
    said
}
