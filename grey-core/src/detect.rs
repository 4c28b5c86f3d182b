//! Tells leaks from everything else. Pure and incremental: (time, figures) in, verdicts out; no clock, no I/O.
//! docs/detection.md explains the rules.

mod assess;
mod episode;
mod levels;
mod node;
mod paths;
mod saved;
mod season;
mod series;
mod stats;
#[cfg(test)]
mod tests;
mod trend;
mod words;

use foldhash::HashMap;

pub use node::Point;
pub use saved::Saved;

use node::{Kind, Node};
use paths::Paths;
use series::Bench;

use crate::event::{Body, Cgroup, Event, Growth, Memory, Process, State, Subject, Verdict};
use crate::time::Timestamp;

/// Series kept at most; beyond it those not heard of for the longest time go.
const MOST: usize = 65_536;
/// A process not heard of for this long, by the time of the samples, has ended; it is looked for every minute.
const ENDED_US: i64 = 300_000_000;
const SWEEP_US: i64 = 60_000_000;
/// A step back by more than this is a clock that was set.
const BACK_US: i64 = 10_000_000;
/// A jump forward by more than this is a clock that was set.
const FORWARD_US: i64 = 7 * 86_400_000_000;
/// Times further than this from 1970 are not believed: some 36 000 years.
const FAR_US: i64 = 1 << 60;

/// A verdict to tell: about which cgroup, and when it was reached by the time of the samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Time of the sample that made it.
    pub ts: Timestamp,
    /// The cgroup.
    pub cgroup: Cgroup,
    /// What is said of it.
    pub verdict: Verdict,
}

/// The detector of one machine: every cgroup and process it is told of.
///
/// Memory: at most 8 KiB a series that moves, some 400 bytes for a cgroup that does not.
#[derive(Debug, Default)]
pub struct Detector {
    nodes: Vec<Option<Box<Node>>>,
    free: Vec<usize>,
    paths: Paths,
    processes: HashMap<(usize, u32), usize>,
    bench: Option<Box<Bench>>,
    /// Time of the samples at the last look for ended processes, µs.
    swept: i64,
    saved: HashMap<String, saved::SavedNode>,
}

impl Detector {
    /// A detector that knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Detector::default()
    }

    /// Takes in an event; `sample`, `process` and `growth` matter. Verdicts it leads to are added to `out`.
    pub fn observe(&mut self, event: &Event, out: &mut Vec<Finding>) {
        let Some(cgroup) = &event.cgroup else { return };
        match &event.body {
            Body::Sample(sample) => {
                self.sample(cgroup, &Point::of_sample(event.ts, cgroup, sample), out);
            }
            Body::Process { process } => self.process(cgroup, process, event.ts, out),
            Body::Growth { growth } => self.growth(cgroup, growth, event.ts),
            _ => {}
        }
    }

    /// Takes in one sample of a cgroup.
    pub fn sample(&mut self, cgroup: &Cgroup, point: &Point, out: &mut Vec<Finding>) {
        let mut nowhere = usize::MAX;
        self.sample_near(&mut nowhere, cgroup, point, out);
    }

    /// [`Detector::sample`] for who knows where the cgroup was the last time: `near` is that place, or anything, and is
    /// set. It saves the look-up by path.
    pub fn sample_near(
        &mut self,
        near: &mut usize,
        cgroup: &Cgroup,
        point: &Point,
        out: &mut Vec<Finding>,
    ) {
        let still = |node: &Node| node.kind == Kind::Cgroup && node.cgroup.path() == cgroup.path;
        if !matches!(self.nodes.get(*near), Some(Some(node)) if still(node)) {
            let found = self.paths.get(&self.nodes, &cgroup.path);
            match found.or_else(|| self.enter(cgroup, point)) {
                Some(at) => *near = at,
                None => return,
            }
        }
        let at = *near;
        let Some(node) = self.nodes[at].as_deref_mut() else {
            return;
        };
        let now = node.time(point.at_us);
        if let (Some(old), Some(new)) = (node.cgroup.id, point.id)
            && old != new
        {
            // Another cgroup under the same path: nothing that was said holds for it.
            let closed = node.close(
                point.at_us,
                "the cgroup was removed and another one made under its path",
            );
            node.renew(cgroup, now);
            out.extend(closed);
        }
        if node.push(now, point) {
            self.judge(at, point.at_us, out);
        }
    }

    /// Takes in one sample of a process.
    pub fn process(
        &mut self,
        cgroup: &Cgroup,
        process: &Process,
        at: Timestamp,
        out: &mut Vec<Finding>,
    ) {
        let point = Point {
            at_us: at.0,
            anon: process.anon,
            swap: process.swap,
            virt: process.r#virtual,
            ..Point::default()
        };
        let Some(parent) = self.paths.get(&self.nodes, &cgroup.path).or_else(|| {
            self.enter(
                cgroup,
                &Point {
                    at_us: at.0,
                    ..Point::default()
                },
            )
        }) else {
            return;
        };
        let key = (parent, process.pid);
        let index = match self.processes.get(&key) {
            Some(index) => *index,
            None => {
                let subject = Subject {
                    pid: process.pid,
                    comm: process.comm.clone(),
                };
                let node = Node::process(cgroup, subject, parent, at.0);
                let index = self.insert(node);
                self.processes.insert(key, index);
                index
            }
        };
        if at.0.saturating_sub(self.swept).saturating_abs() >= SWEEP_US {
            self.swept = at.0;
            self.sweep(at, out);
        }
        let Some(node) = self.nodes[index].as_deref_mut() else {
            return;
        };
        let now = node.time(at.0);
        // The same number with another name: exec, or another process.
        if node.renamed(&process.comm) {
            out.extend(node.close(at.0, "the process became another program"));
            node.renew(cgroup, now);
        }
        if node.push(now, &point) {
            self.judge(index, at.0, out);
        }
    }

    /// Drops the processes that are not told of any more. Their cgroup may be idle, so it takes a while.
    fn sweep(&mut self, now: Timestamp, out: &mut Vec<Finding>) {
        let nodes = &self.nodes;
        let ended: Vec<(usize, u32)> = self
            .processes
            .iter()
            .filter(|(_, index)| {
                nodes[**index]
                    .as_ref()
                    .is_none_or(|node| now.0.saturating_sub(node.heard) > ENDED_US)
            })
            .map(|(key, _)| *key)
            .collect();
        for key in ended {
            if let Some(index) = self.processes.remove(&key) {
                self.drop_node(index, now, "the process has ended", out);
            }
        }
    }

    fn growth(&mut self, cgroup: &Cgroup, growth: &Growth, at: Timestamp) {
        if let Some(index) = self.paths.get(&self.nodes, &cgroup.path)
            && let Some(node) = self.nodes[index].as_deref_mut()
        {
            node.grown(growth, at.0);
        }
    }

    /// The cgroup at this path is gone: closes what was open about it and forgets it.
    pub fn gone(&mut self, path: &str, at: Timestamp, out: &mut Vec<Finding>) {
        let Some(index) = self.paths.remove(&self.nodes, path) else {
            return;
        };
        let inside: Vec<(usize, u32)> = self
            .processes
            .keys()
            .copied()
            .filter(|(parent, _)| *parent == index)
            .collect();
        for key in inside {
            if let Some(process) = self.processes.remove(&key) {
                self.drop_node(process, at, "the cgroup was removed", out);
            }
        }
        self.drop_node(index, at, "the cgroup was removed", out);
    }

    fn drop_node(&mut self, index: usize, at: Timestamp, why: &str, out: &mut Vec<Finding>) {
        let Some(mut node) = self.nodes[index].take() else {
            return;
        };
        out.extend(node.close(at.0, why));
        self.free.push(index);
        if let Some(parent) = node.parent()
            && let Some(parent) = self.nodes[parent].as_deref_mut()
        {
            parent.take_children(|child| child == index);
        }
        for child in node.children() {
            if let Some(child) = self.nodes[*child].as_deref_mut() {
                child.set_parent(None);
            }
        }
    }

    /// Number of cgroups and processes tracked.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// Whether nothing is tracked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of series tracked: a cgroup has one for each kind of memory it holds a fair amount of.
    #[must_use]
    pub fn series(&self) -> usize {
        self.nodes.iter().flatten().map(|node| node.series()).sum()
    }

    /// Verdicts that are open now: the state and cause of every series that is not `normal`.
    pub fn open(&self) -> impl Iterator<Item = (Cgroup, Option<&Subject>, Memory, State)> {
        self.nodes.iter().flatten().flat_map(|node| {
            node.states()
                .filter(|(_, state)| *state != State::Normal)
                .map(move |(memory, state)| (node.cgroup.cgroup(), node.subject(), memory, state))
        })
    }

    /// What to keep across a restart.
    #[must_use]
    pub fn save(&self) -> Saved {
        Saved::of(self.nodes.iter().flatten().map(Box::as_ref))
    }

    /// A detector that goes on where `saved` was. A cgroup takes up its series again when its first sample comes, if it
    /// is the same one.
    #[must_use]
    pub fn restore(saved: Saved) -> Self {
        Detector {
            saved: saved.by_key(),
            ..Detector::default()
        }
    }

    /// A cgroup that was not known.
    fn enter(&mut self, cgroup: &Cgroup, point: &Point) -> Option<usize> {
        if self.len() >= MOST {
            return None;
        }
        let mut node = Node::cgroup(cgroup, point.at_us);
        if let Some(saved) = self.saved.remove(cgroup.path.as_str()) {
            node.resume(saved, point);
        }
        let index = self.insert(node);
        self.paths.insert(&self.nodes, index);
        self.link(index, &cgroup.path);
        Some(index)
    }

    fn insert(&mut self, node: Node) -> usize {
        let node = Some(Box::new(node));
        match self.free.pop() {
            Some(index) => {
                self.nodes[index] = node;
                index
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        }
    }

    /// Ties a new cgroup to the nearest known one above it, and what is below it to itself.
    fn link(&mut self, index: usize, path: &str) {
        let parent = self.nearest_above(path);
        if let Some(node) = self.nodes[index].as_deref_mut() {
            node.set_parent(parent);
        }
        let prefix = if path == "/" {
            "/".to_owned()
        } else {
            format!("{path}/")
        };
        let siblings: Vec<usize> = match parent {
            Some(parent) => self.nodes[parent]
                .as_ref()
                .map_or_else(Vec::new, |parent| parent.children().to_vec()),
            None => self.paths.places().collect(),
        };
        let mut below = Vec::new();
        for other in siblings {
            if other == index {
                continue;
            }
            if let Some(node) = self.nodes[other].as_deref_mut()
                && node.parent() == parent
                && matches!(node.kind, Kind::Cgroup)
                && node.cgroup.path().starts_with(&prefix)
            {
                node.set_parent(Some(index));
                below.push(other);
            }
        }
        if let Some(parent) = parent
            && let Some(parent) = self.nodes[parent].as_deref_mut()
        {
            parent.take_children(|child| below.contains(&child));
            parent.add_children([index]);
        }
        if let Some(node) = self.nodes[index].as_deref_mut() {
            node.add_children(below);
        }
    }

    fn nearest_above(&self, path: &str) -> Option<usize> {
        let mut rest = path;
        while let Some(slash) = rest.rfind('/') {
            rest = &rest[..slash];
            let above = if rest.is_empty() { "/" } else { rest };
            if above == path {
                return None;
            }
            if let Some(index) = self.paths.get(&self.nodes, above) {
                return Some(index);
            }
        }
        None
    }

    /// Judges what the last sample of a node made worth it.
    fn judge(&mut self, index: usize, ts: i64, out: &mut Vec<Finding>) {
        // Taken out, so that the others can be looked at meanwhile.
        let Some(mut node) = self.nodes[index].take() else {
            return;
        };
        let limit = self.limit(&node);
        let mut bench = self.bench.take().unwrap_or_default();
        let changes = {
            let Node {
                anon, others, rare, ..
            } = &mut *node;
            let children = rare.as_deref().map_or(&[][..], |rare| &rare.children);
            let children = |since: i64, growth: f64| self.children(children, since, growth);
            let mut changes = Vec::new();
            let parts = std::iter::once(anon).chain(others.iter_mut());
            for series in parts {
                let mask = std::mem::take(&mut series.due);
                if mask == 0 {
                    continue;
                }
                let context = series::Context {
                    room: limit.map(|(limit, _)| limit.room),
                    children: if series.memory == Memory::Anon {
                        &children
                    } else {
                        &|_, _| 0.0
                    },
                };
                if let Some(change) = series.judge(mask, &context, &mut bench) {
                    changes.push((series.memory, series.last, change));
                }
            }
            changes
        };
        self.bench = Some(bench);
        for (memory, level, change) in changes {
            let whose = limit.as_ref().map(|(room, whose)| {
                let other = whose.and_then(|index| self.nodes[index].as_deref());
                (room, other.unwrap_or(&node).cgroup.path())
            });
            out.push(Finding {
                ts: Timestamp(ts),
                cgroup: node.cgroup.cgroup(),
                verdict: node.verdict(memory, level, &change, whose),
            });
        }
        out.extend(node.reservation(ts));
        self.nodes[index] = Some(node);
    }

    /// The limit a node runs into first: its own (`None`), or that of a cgroup above it. The topmost one's is the machine's
    /// memory.
    fn limit(&self, node: &Node) -> Option<(node::Room, Option<usize>)> {
        let mut nearest: Option<(node::Room, Option<usize>)> = None;
        let mut consider = |of: &Node, index: Option<usize>| {
            if let Some(room) = of.room()
                && nearest.is_none_or(|(nearest, _)| room.room < nearest.room)
            {
                nearest = Some((room, index));
            }
        };
        if let Kind::Cgroup = node.kind {
            consider(node, None);
        }
        let mut above = node.parent();
        while let Some(index) = above {
            let Some(parent) = self.nodes[index].as_deref() else {
                break;
            };
            consider(parent, Some(index));
            above = parent.parent();
        }
        nearest
    }

    /// Share of `growth` since `since` that the children account for.
    fn children(&self, children: &[usize], since: i64, growth: f64) -> f64 {
        let mut sum = 0.0;
        for child in children {
            if let Some(child) = self.nodes[*child].as_deref() {
                sum += (child.anon.last - child.anon.level_at(since)).max(0.0);
            }
        }
        if growth > 0.0 { sum / growth } else { 0.0 }
    }
}
