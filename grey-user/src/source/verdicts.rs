//! The detector at the end of the sources: every line goes through it, and what it finds becomes a `verdict` line right
//! after the one that led to it.

use std::collections::HashMap;

use grey_core::detect::{Detector, Finding, Point, Saved};
use grey_core::event::{
    Body, Cause, Cgroup, Event, Evidence, Grower, Memory, Sample, State, Subject, Verdict,
};
use grey_core::time::Timestamp;
use grey_core::units::format_bytes;
use grey_core::view::printable;
use serde::{Deserialize, Serialize};

use crate::act::agent::expect::held;

use super::{Clock, Notice, Observer};

/// Processes looked at to find the one that grows. Where there are more, nobody is named: a part of them would name
/// the wrong one.
const MOST_PROCESSES: usize = 512;
/// Cgroups of which a first look at the processes is kept.
const MOST_LOOKS: usize = 64;

/// What outlives the process, so that a restart goes on where it was.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Kept {
    /// The detector.
    pub detector: Saved,
    /// Paths of the cgroups there were: what is gone at the restart is closed then.
    pub cgroups: Vec<String>,
    /// The `verdict` lines that stand.
    pub standing: Vec<Event>,
}

/// Detector and what belongs to it.
#[derive(Default)]
pub(super) struct Judge {
    detector: Detector,
    findings: Vec<Finding>,
    standing: HashMap<Key, Event>,
    looks: HashMap<String, Look>,
    /// Verdicts told so far.
    told: u64,
    /// Cgroups of the run before; looked for once.
    before: Vec<String>,
}

/// Cgroup path, kind of memory, process.
type Key = (String, Memory, Option<u32>);

/// anon + swap of each process of a cgroup at one moment, bytes.
type Look = HashMap<u32, (String, u64)>;

impl Judge {
    /// Whether anything is said of the cgroup at this path that may have to be taken back.
    pub(super) fn stands(&self, path: &str) -> bool {
        self.standing.keys().any(|(at, ..)| at == path)
    }

    /// The paths of all such cgroups.
    pub(super) fn standing(&self) -> impl Iterator<Item = &str> {
        self.standing.keys().map(|(at, ..)| at.as_str())
    }

    pub(super) fn observe(&mut self, event: &Event) {
        self.detector.observe(event, &mut self.findings);
    }

    /// A sample that is no line of the stream: of a cgroup that was not asked for, but whose limit or memory holds for
    /// one that was.
    pub(super) fn sample(&mut self, cgroup: &Cgroup, sample: &Sample, now: Timestamp) {
        let point = Point::of_sample(now, cgroup, sample);
        self.detector.sample(cgroup, &point, &mut self.findings);
    }
}

impl Observer {
    /// Judges all that is observed from now on; verdicts come among the notices. Before the first tick.
    pub fn detect(&mut self, detector: Detector) {
        self.judge = Some(Judge {
            detector,
            ..Judge::default()
        });
    }

    /// Like [`Observer::detect`], going on where an earlier run on this boot of this machine was.
    pub fn resume(&mut self, kept: Kept) {
        let standing = kept
            .standing
            .into_iter()
            .filter(|event| self.is_wanted(event.cgroup.as_ref()))
            .filter_map(|event| Some((key_of(&event)?, event)))
            .collect();
        self.judge = Some(Judge {
            detector: Detector::restore(kept.detector),
            standing,
            before: kept.cgroups,
            ..Judge::default()
        });
    }

    /// What to keep for [`Observer::resume`]; `None` where nothing is judged.
    #[must_use]
    pub fn keep(&self) -> Option<Kept> {
        let judge = self.judge.as_ref()?;
        Some(Kept {
            detector: judge.detector.save(),
            cgroups: self
                .known
                .values()
                .map(|known| known.cgroup.path().to_owned())
                .collect(),
            standing: judge.standing.values().cloned().collect(),
        })
    }

    /// The `verdict` lines that stand: the last one about each cgroup, process and kind of memory that says more than
    /// normal.
    pub fn standing(&self) -> impl Iterator<Item = &Event> {
        self.judge.iter().flat_map(|judge| judge.standing.values())
    }

    /// Verdicts told so far.
    #[must_use]
    pub fn verdicts(&self) -> u64 {
        self.judge.as_ref().map_or(0, |judge| judge.told)
    }

    /// Turns what the detector found into lines.
    pub(super) fn tell_findings(&mut self, out: &mut Vec<Notice>) {
        let Some(judge) = &mut self.judge else { return };
        if judge.findings.is_empty() {
            return;
        }
        for finding in std::mem::take(&mut judge.findings) {
            if self.is_wanted(Some(&finding.cgroup)) {
                self.tell_finding(finding, out);
            }
        }
    }

    fn tell_finding(&mut self, mut finding: Finding, out: &mut Vec<Notice>) {
        self.name_grower(&finding.cgroup, &mut finding.verdict);
        if let Some(finding) = self.suspect(finding, out) {
            self.tell_with_stacks(finding, out);
        }
    }

    pub(super) fn tell_with_stacks(&mut self, finding: Finding, out: &mut Vec<Notice>) {
        let stacks = self.stacks_of(&finding);
        let Finding {
            ts,
            cgroup,
            mut verdict,
        } = finding;
        self.ask_agents(&cgroup, &mut verdict);
        verdict.stacks = stacks;
        let state = verdict.state;
        let verdict = Box::new(verdict);
        let event = self.line(Body::Verdict { verdict }, ts, Some(cgroup));
        if let (Some(judge), Some(key)) = (&mut self.judge, key_of(&event)) {
            judge.told += 1;
            match state {
                State::Normal | State::Recovered => judge.standing.remove(&key),
                State::Growing | State::Suspect | State::Confirmed => {
                    judge.standing.insert(key, event.clone())
                }
            };
        }
        out.push(Notice::Event(Box::new(event)));
    }

    /// The cgroup at this path is gone: what stood about it is closed.
    pub(super) fn close(&mut self, path: &str, out: &mut Vec<Notice>) {
        let Some(judge) = &mut self.judge else { return };
        judge
            .detector
            .gone(path, Clock::wall(), &mut judge.findings);
        self.tell_findings(out);
        if let Some(judge) = &mut self.judge {
            judge.looks.remove(path);
            judge.standing.retain(|(at, _, _), _| at != path);
        }
    }

    /// Closes what went while nobody watched. After the first walk.
    pub(super) fn close_missed(&mut self, out: &mut Vec<Notice>) {
        let Some(judge) = &mut self.judge else { return };
        for path in std::mem::take(&mut judge.before) {
            if self.tree.id_of(&path).is_none() {
                self.close(&path, out);
            }
        }
        // What the detector has not met again it cannot close.
        let gone: Vec<(Cgroup, Verdict)> = self
            .standing()
            .filter_map(|event| match (&event.cgroup, &event.body) {
                (Some(cgroup), Body::Verdict { verdict }) => {
                    Some((cgroup.clone(), verdict.as_ref().clone()))
                }
                _ => None,
            })
            .collect();
        for (cgroup, verdict) in gone {
            let id = self.tree.id_of(&cgroup.path);
            let same = id.is_some() && (cgroup.id.is_none() || id == cgroup.id);
            let what = match &verdict.process {
                _ if !same => "the cgroup was removed",
                Some(process) if !self.is_running(process) => "the process ended",
                _ => continue,
            };
            let verdict = over(verdict, what);
            self.tell_finding(
                Finding {
                    ts: Clock::wall(),
                    cgroup,
                    verdict,
                },
                out,
            );
        }
    }

    fn is_running(&mut self, process: &Subject) -> bool {
        let comm = self.procs.as_mut().map(|procs| procs.comm(process.pid));
        matches!(comm, Some(Ok(Some(comm))) if comm == process.comm)
    }

    /// Names the process that grew most since the growth began, where no event of the kernel side told: the
    /// processes are looked at when a cgroup begins to grow and again when more is said of it.
    fn name_grower(&mut self, cgroup: &Cgroup, verdict: &mut Verdict) {
        let Some(judge) = &self.judge else { return };
        if verdict.process.is_some() || verdict.memory != Memory::Anon {
            return;
        }
        let known = judge.looks.contains_key(&cgroup.path);
        match verdict.state {
            State::Normal | State::Recovered => {
                if let Some(judge) = &mut self.judge {
                    judge.looks.remove(&cgroup.path);
                }
            }
            State::Growing | State::Suspect | State::Confirmed if !known => {
                if judge.looks.len() < MOST_LOOKS
                    && let Some(look) = self.look(cgroup)
                    && let Some(judge) = &mut self.judge
                {
                    judge.looks.insert(cgroup.path.clone(), look);
                }
            }
            State::Growing => {}
            State::Suspect | State::Confirmed => {
                if verdict.evidence.grower.is_none()
                    && let Some(now) = self.look(cgroup)
                    && let Some(judge) = &self.judge
                    && let Some(before) = judge.looks.get(&cgroup.path)
                {
                    verdict.evidence.grower = grower(before, now);
                }
            }
        }
    }

    /// Of memory that an allocator keeps: what the release agents in there would give back.
    fn ask_agents(&mut self, cgroup: &Cgroup, verdict: &mut Verdict) {
        let keeps = verdict.cause == Cause::Retention && verdict.state == State::Suspect;
        if !keeps || verdict.memory != Memory::Anon {
            return;
        }
        let evidence = &verdict.evidence;
        let kept = evidence.level_bytes.zip(evidence.base_bytes);
        let kept = kept.map_or(0, |(level, base)| level.saturating_sub(base));
        let (who, pids) = match &verdict.process {
            Some(process) => (process.pid.to_string(), vec![process.pid]),
            None => {
                let look = self.look(cgroup).unwrap_or_default();
                (
                    printable(&cgroup.path).into_owned(),
                    look.into_keys().collect(),
                )
            }
        };
        verdict.trim_bytes = held(&self.host, pids, kept);
        if let Some(bytes) = verdict.trim_bytes {
            verdict.advice = format!(
                "no leak: an allocator keeps freed memory; `grey-ebpf enforce trim {who}` gives back up to {}",
                format_bytes(bytes)
            );
        }
    }

    /// The processes of a cgroup and of those below it; `None` where there are too many or they cannot be listed.
    fn look(&mut self, cgroup: &Cgroup) -> Option<Look> {
        let procs = self.procs.as_mut()?;
        self.fs.mount()?;
        let mut below = vec![self.tree.id_of(&cgroup.path)?];
        let mut look = Look::new();
        while let Some(id) = below.pop() {
            below.extend(self.tree.children(id));
            let pids = self.fs.pids(self.tree.path(id)?).ok()?;
            if look.len() + pids.len() > MOST_PROCESSES {
                return None;
            }
            for pid in pids {
                if let Ok(Some(memory)) = procs.memory(pid)
                    && let Some(anon) = memory.anon
                {
                    look.insert(pid, (memory.comm, anon + memory.swap.unwrap_or(0)));
                }
            }
        }
        Some(look)
    }
}

/// The end of what stood.
fn over(verdict: Verdict, what: &str) -> Verdict {
    Verdict {
        state: State::Recovered,
        rate_bps: None,
        rate_ci95: None,
        ttl_s: None,
        ttl_ci95_s: None,
        evidence: Evidence {
            reason: format!("{what} while nobody watched"),
            ..Evidence::default()
        },
        stacks: Vec::new(),
        advice: String::new(),
        ..verdict
    }
}

/// The process that grew most between two looks; one that is new has grown by all it has.
fn grower(before: &Look, now: Look) -> Option<Grower> {
    now.into_iter()
        .map(|(pid, (comm, bytes))| {
            let was = before
                .get(&pid)
                .filter(|(name, _)| *name == comm)
                .map_or(0, |(_, bytes)| *bytes);
            Grower {
                pid,
                comm,
                bytes: bytes.saturating_sub(was),
            }
        })
        .filter(|grower| grower.bytes > 0)
        .max_by_key(|grower| (grower.bytes, std::cmp::Reverse(grower.pid)))
}

fn key_of(event: &Event) -> Option<Key> {
    let Body::Verdict { verdict } = &event.body else {
        return None;
    };
    Some((
        event.cgroup.as_ref()?.path.clone(),
        verdict.memory,
        verdict.process.as_ref().map(|process| process.pid),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(processes: &[(u32, &str, u64)]) -> Look {
        processes
            .iter()
            .map(|(pid, comm, bytes)| (*pid, ((*comm).to_owned(), *bytes)))
            .collect()
    }

    #[test]
    fn the_grower_is_who_grew_most_not_who_holds_most() {
        let before = look(&[(1, "holder", 900), (2, "leaker", 10), (3, "old", 50)]);
        let now = look(&[(1, "holder", 905), (2, "leaker", 40), (3, "new", 20)]);
        let most = grower(&before, now).unwrap();
        assert_eq!((most.pid, most.bytes), (2, 30));
        let reused = look(&[(3, "new", 20)]);
        assert_eq!(
            grower(&before, reused).unwrap().bytes,
            20,
            "a pid used again"
        );
        assert_eq!(grower(&before, before.clone()), None, "nobody grew");
    }
}
