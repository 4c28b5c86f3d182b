//! What is scored: a judge takes the samples of a trace and says when it raises an alarm. grey-ebpf's detector is one.

use std::collections::HashMap;

use grey_core::detect::{Detector, Finding, Point};
use grey_core::event::{Cause, State, Verdict};
use grey_core::time::Timestamp;

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

/// Hears what the detector says and keeps what concerns one cgroup.
#[derive(Debug)]
pub struct Listener<'a> {
    judged: &'a str,
    bell: Bell,
    /// Alarms of the others count where nothing leaks.
    others: Option<HashMap<String, Bell>>,
    said: Said,
}

impl<'a> Listener<'a> {
    /// Listens for the cgroup at this path; `others`: an alarm of any other cgroup counts as a false one.
    #[must_use]
    pub fn new(judged: &'a str, others: bool) -> Listener<'a> {
        Listener {
            judged,
            bell: Bell::default(),
            others: others.then(HashMap::new),
            said: Said::default(),
        }
    }

    /// Takes in a finding.
    pub fn hear(&mut self, finding: Finding) {
        let Finding {
            ts,
            cgroup,
            verdict,
        } = finding;
        let leak = verdict.state == State::Confirmed && verdict.cause == Cause::Leak;
        if cgroup.path != self.judged {
            if let Some(others) = &mut self.others {
                let before = self.said.alarms.len();
                others
                    .entry(cgroup.path)
                    .or_default()
                    .ring(leak, ts.0, &mut self.said);
                self.said.elsewhere += (self.said.alarms.len() - before) as u64;
            }
            return;
        }
        self.bell.ring(leak, ts.0, &mut self.said);
        let highest = self.said.cause.map_or(0, |(state, _)| rank(state));
        if rank(verdict.state) > 0 && rank(verdict.state) >= highest {
            self.said.cause = Some((verdict.state, verdict.cause));
        }
        self.said.verdicts.push((ts.0, verdict));
    }

    /// What was said.
    #[must_use]
    pub fn said(self) -> Said {
        self.said
    }
}

/// Runs grey-ebpf's detector over a trace: all its cgroups, as in a live run.
#[must_use]
pub fn ours(trace: &Trace) -> Said {
    let mut detector = Detector::new();
    let mut found: Vec<Finding> = Vec::new();
    let mut listener = Listener::new(&trace.cgroups[0].path, !trace.truth.leak);
    let mut cgroups = trace.cgroups.clone();
    for (index, point) in &trace.points {
        let cgroup = &mut cgroups[usize::from(*index)];
        // It may have been made anew.
        cgroup.id = point.id;
        detector.sample(cgroup, point, &mut found);
        found.drain(..).for_each(|finding| listener.hear(finding));
    }
    listener.said()
}

/// Alarms that somebody else's detector raised, as begins alone.
#[must_use]
pub fn given(alarms: &[Timestamp]) -> Said {
    let mut alarms: Vec<i64> = alarms.iter().map(|at| at.0).collect();
    alarms.sort_unstable();
    let counted = alarms
        .iter()
        .enumerate()
        .filter(|&(index, &at)| index == 0 || at - alarms[index - 1] > SAME_US)
        .map(|(_, &at)| at)
        .collect();
    Said {
        alarms,
        counted,
        ..Said::default()
    }
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
