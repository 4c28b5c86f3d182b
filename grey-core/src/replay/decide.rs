//! A governor over recordings: what a policy would have decided, with no time but that of the lines. Nothing is done, so
//! nothing comes of it: a decision counts as not done at once, but its budget and its interval hold.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Map, Value};

use super::order::{Order, Timed};
use crate::act::protection::{Pattern, Shields};
use crate::event::{ActionPlan, Body, Cgroup, Event, SCHEMA};
use crate::govern::learn::Model;
use crate::govern::{Decision, Governor, Settings};
use crate::time::Timestamp;

/// Between two looks of the governor, as `daemon` has it.
const TURN_US: i64 = 1_000_000;
/// Nothing is decided in a gap that is longer.
const GAP_US: i64 = 120_000_000;
/// A cgroup of which nothing was said for so long does not exist any more.
const GONE_US: i64 = 600_000_000;

/// What must not be touched.
#[derive(Clone, Debug, Default)]
pub struct Protected {
    /// Services that the machine does not do without.
    pub critical: Vec<Pattern>,
    /// What the configuration names.
    pub protect: Vec<Pattern>,
}

/// Decisions over one or several inputs.
pub struct Decide {
    settings: Settings,
    utc_offset_s: i32,
    protected: Protected,
    inputs: Vec<Order<Option<Box<Event>>>>,
    /// Told by the detector, not yet their turn.
    verdicts: VecDeque<Event>,
    nodes: BTreeMap<String, Node>,
    decisions: u64,
}

/// One machine.
struct Node {
    host: String,
    governor: Governor,
    last: Option<i64>,
    cgroups: BTreeMap<String, (Cgroup, i64)>,
    boot_id: Option<String>,
    /// Of the cgroups that are known; `None` when there are others now.
    shields: Option<Shields>,
}

impl Decide {
    /// What these settings would decide; times of the day are `utc_offset_s` ahead of UTC.
    #[must_use]
    pub fn new(settings: Settings, utc_offset_s: i32, protected: Protected) -> Decide {
        Decide {
            settings,
            utc_offset_s,
            protected,
            inputs: Vec::new(),
            verdicts: VecDeque::new(),
            nodes: BTreeMap::new(),
            decisions: 0,
        }
    }

    /// One more input, whose lines may be out of order by `window_us`; all are named before the first line.
    pub fn add_input(&mut self, window_us: i64) {
        self.inputs.push(Order::new(window_us.max(0)));
    }

    /// Takes in one line of an input. One that cannot be used is passed over: the detector counts it.
    ///
    /// # Panics
    /// If there is no such input.
    pub fn line(&mut self, input: usize, line: &[u8]) {
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        let Ok(Value::Object(mut line)) = serde_json::from_slice(line) else {
            return;
        };
        complete(&mut line);
        let kind = line["type"].as_str().unwrap_or_default();
        let (takes, waits) = match kind {
            "sample" | "oom" => (true, true),
            // The detector waits for them.
            "process" | "growth" => (false, true),
            _ => (false, false),
        };
        let at = line.get("ts").and_then(Value::as_str);
        let Some(at) = at.and_then(|ts| ts.parse::<Timestamp>().ok()) else {
            return;
        };
        let event = takes
            .then(|| serde_json::from_value(Value::Object(line)).ok())
            .flatten();
        if waits {
            let _ = self.inputs[input].push(at.0, event);
        }
    }

    /// An input has no more lines.
    ///
    /// # Panics
    /// If there is no such input.
    pub fn end(&mut self, input: usize) {
        self.inputs[input].end();
    }

    /// Decides up to where all inputs have been read. `verdicts` are those reached since the last call; they go out
    /// again in `out`, with the decisions, by time.
    pub fn advance(&mut self, verdicts: &mut Vec<Event>, out: &mut Vec<Event>) {
        self.verdicts.extend(verdicts.drain(..));
        for index in 0..self.inputs.len() {
            while let Some(timed) = self.inputs[index].overdue() {
                self.take(timed, out);
            }
        }
        let frontier = self.inputs.iter().map(Order::frontier).min();
        let until = match frontier {
            Some(i64::MAX) => i64::MAX,
            Some(frontier) => frontier.saturating_sub(1),
            None => return,
        };
        loop {
            let next = (0..self.inputs.len())
                .filter_map(|index| Some((self.inputs[index].first()?, index)))
                .min();
            match next {
                Some((at, index)) if at <= until => {
                    if let Some(timed) = self.inputs[index].pop_waiting(until) {
                        self.take(timed, out);
                    }
                }
                _ => break,
            }
        }
        if until == i64::MAX {
            for node in self.nodes.values_mut() {
                // Of the last instant.
                let at = node.last.map_or(i64::MIN, |last| last + 1);
                let turn = node.newest().filter(|newest| *newest >= at);
                if let Some(at) = turn {
                    self.decisions += node.decide(at, &self.protected, out);
                }
            }
            out.extend(self.verdicts.drain(..));
        }
    }

    /// Decisions so far.
    #[must_use]
    pub fn decisions(&self) -> u64 {
        self.decisions
    }

    /// Whether there were figures of any machine as a whole, without which most policies decide nothing.
    #[must_use]
    pub fn knows_a_machine(&self) -> bool {
        self.nodes
            .values()
            .any(|node| node.cgroups.contains_key("/"))
    }

    fn take(&mut self, timed: Timed<Option<Box<Event>>>, out: &mut Vec<Event>) {
        let Some(event) = timed.item else { return };
        while let Some(verdict) = self.verdicts.pop_front_if(|it| it.ts.0 < event.ts.0) {
            if let Some(node) = self.nodes.get_mut(&verdict.host) {
                node.governor.observe(&verdict);
            }
            out.push(verdict);
        }
        let node = self.nodes.entry(event.host.clone()).or_insert_with(|| {
            let mut governor = Governor::new(self.settings.clone(), Model::default());
            governor.set_utc_offset(self.utc_offset_s);
            Node {
                host: event.host.clone(),
                governor,
                last: None,
                cgroups: BTreeMap::new(),
                boot_id: None,
                shields: None,
            }
        });
        self.decisions += node.up_to(event.ts.0, &self.protected, out);
        if let Some(cgroup) = &event.cgroup {
            let known = (cgroup.clone(), event.ts.0);
            if node.cgroups.insert(cgroup.path.clone(), known).is_none() {
                node.shields = None;
            }
        }
        node.boot_id.clone_from(&event.boot_id);
        node.governor.observe(&event);
    }
}

impl Node {
    fn newest(&self) -> Option<i64> {
        self.cgroups.values().map(|(_, at)| *at).max()
    }

    /// The turns that come before this instant; the number of decisions.
    fn up_to(&mut self, at: i64, protected: &Protected, out: &mut Vec<Event>) -> u64 {
        let Some(last) = self.last else {
            self.last = Some(at);
            return 0;
        };
        // A clock that was set back, or a gap in the recording.
        if at < last || at - last > GAP_US {
            self.last = Some(at);
            return 0;
        }
        let mut count = 0;
        let mut turn = last + TURN_US;
        while turn <= at {
            count += self.decide(turn, protected, out);
            turn += TURN_US;
        }
        count
    }

    fn decide(&mut self, at: i64, protected: &Protected, out: &mut Vec<Event>) -> u64 {
        self.last = Some(at);
        let gone: Vec<String> = self
            .cgroups
            .iter()
            .filter(|(_, (_, seen))| at - seen > GONE_US)
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            self.cgroups.remove(&path);
            self.governor.gone(&path);
            self.shields = None;
        }
        let paths = self.cgroups.keys().map(String::as_str);
        let shields = self.shields.get_or_insert_with(|| {
            Shields::survey(paths, None, &protected.critical, &protected.protect)
        });
        let refuses = |path: &str| match path {
            "/" => None,
            path => shields.refuses(path).map(|refusal| refusal.to_string()),
        };
        let decisions = self.governor.decide(Timestamp(at), &refuses);
        let count = decisions.len() as u64;
        for decision in decisions {
            self.governor.not_done(decision.number);
            out.push(self.told(decision));
        }
        count
    }

    fn told(&self, decision: Decision) -> Event {
        Event {
            schema: SCHEMA.to_owned(),
            ts: decision.at,
            seq: 0,
            host: self.host.clone(),
            boot_id: self.boot_id.clone(),
            cgroup: self.cgroups.get(&decision.path).map(|(it, _)| it.clone()),
            lossy: false,
            body: Body::Action {
                action: Box::new(plan(decision)),
            },
        }
    }
}

fn plan(decision: Decision) -> ActionPlan {
    ActionPlan {
        id: None,
        kind: decision.rung.kind().to_owned(),
        target: match decision.path.as_str() {
            "/" => "machine".to_owned(),
            path => path.to_owned(),
        },
        planned_bytes: decision.rung.takes().then_some(decision.bytes),
        reason: decision.reason,
        dry_run: true,
        writes: Vec::new(),
        effect: None,
        lease_s: None,
        policy: Some(decision.policy.name().to_owned()),
        expected_harm: Some(decision.expected_harm),
    }
}

/// What a line may leave out.
fn complete(line: &mut Map<String, Value>) {
    let mut or = |key: &str, value: Value| {
        line.entry(key).or_insert(value);
    };
    or("schema", SCHEMA.into());
    or("type", "sample".into());
    or("seq", 0.into());
    or("host", "".into());
    if let Some(Value::Object(cgroup)) = line.get_mut("cgroup") {
        let path = cgroup.get("path").cloned().unwrap_or(Value::Null);
        let kind = if path == "/" { "root" } else { "cgroup" };
        cgroup.entry("kind").or_insert(kind.into());
        cgroup.entry("name").or_insert(path);
    }
}
