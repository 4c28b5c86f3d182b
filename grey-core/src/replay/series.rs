//! Whose line it is: a detector for each host, each cgroup object of the lines kept once, repeats told from news.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use serde::Deserialize;

use crate::detect::{Detector, Finding, Point};
use crate::event::{Body, Cgroup, Event, Process, SCHEMA};
use crate::identity;
use crate::time::Timestamp;

use super::Stats;
use super::json::Text;
use super::line::{Kind, Line, Why};

/// A line on its way to the detector.
#[derive(Debug)]
pub(super) struct Item {
    host: u32,
    /// Into the host's boot ids.
    boot: u32,
    /// Into the host's cgroups.
    cgroup: u32,
    pub(super) seq: u64,
    what: What,
}

#[derive(Debug, PartialEq)]
pub(super) enum What {
    Sample(Slot),
    Process(Box<Process>),
    Rare(Box<Body>),
}

/// A place among the [`Points`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slot(u32);

/// The figures of the samples that wait for their turn. They stay where they are while their items are put in order: five
/// copies of each would cost a tenth of the time.
#[derive(Debug, Default)]
pub(super) struct Points {
    slots: Vec<Point>,
    free: Vec<u32>,
}

impl Points {
    /// Where the next figures go, to be filled in; they are kept by [`Points::keep`].
    pub(super) fn next(&mut self) -> &mut Point {
        if self.free.is_empty() {
            // A place beyond what 32 bits count is never kept.
            self.free.push(self.slots.len() as u32);
            self.slots.push(Point::default());
        }
        let slot = self.free[self.free.len() - 1];
        &mut self.slots[slot as usize]
    }

    /// Keeps those that were filled in last.
    fn keep(&mut self, id: Option<u64>) -> Result<Slot, Why> {
        self.next().id = id;
        if u32::try_from(self.slots.len()).is_err() {
            return Err("more lines wait than can".to_owned());
        }
        let slot = self.free.pop().ok_or("no figures")?;
        Ok(Slot(slot))
    }

    fn at(&self, slot: &Slot) -> &Point {
        &self.slots[slot.0 as usize]
    }

    /// An item is not needed any more.
    pub(super) fn done(&mut self, item: Item) {
        if let What::Sample(slot) = item.what {
            self.free.push(slot.0);
        }
    }

    /// Whether an item says what another one of the same instant says.
    pub(super) fn repeats(&self, one: &Item, other: &Item) -> bool {
        (one.host, one.cgroup, one.seq) == (other.host, other.cgroup, other.seq)
            && match (&one.what, &other.what) {
                (What::Sample(one), What::Sample(other)) => self.at(one) == self.at(other),
                (one, other) => one == other,
            }
    }
}

/// Everything that is known of the hosts of a replay.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    hosts: Vec<Host>,
    /// The line before this one was of this host.
    last: usize,
    /// What the detectors were given, in words.
    #[cfg(test)]
    pub(super) given: Vec<String>,
}

#[derive(Debug)]
struct Host {
    name: String,
    boots: Vec<Option<String>>,
    /// The boot that the line before this one was of.
    boot: usize,
    cgroups: Vec<Known>,
    /// By the text of the object: reading it again for each line would cost more than all else.
    by_text: HashMap<Arc<str>, u32, RandomState>,
    paths: HashSet<Box<str>, RandomState>,
    /// The cgroup of the line before this one.
    last: u32,
    detector: Detector,
}

#[derive(Debug)]
struct Known {
    cgroup: Cgroup,
    /// Its object as it stood.
    text: Arc<str>,
    /// The one that came after it the last time, and most likely will again.
    next: u32,
    /// Where the detector has it.
    near: usize,
    turn: u64,
}

impl Hosts {
    /// The cgroup object that the next line will most likely have, as it stood before.
    pub(super) fn guess(&self) -> Option<&str> {
        let host = self.hosts.get(self.last)?;
        let last = host.cgroups.get(host.last as usize)?;
        Some(&host.cgroups[last.next as usize].text)
    }

    /// What a line is for the detector; the figures of a sample are the next of the points.
    #[inline]
    pub(super) fn item(&mut self, line: &Line<'_>, points: &mut Points) -> Result<Item, Why> {
        let host = self.host(line.host)?;
        let known = &mut self.hosts[host];
        let boot = known.boot(line.boot_id)?;
        let cgroup = known.cgroup(line.cgroup)?;
        let what = match line.kind {
            Kind::Sample => {
                let id = known.cgroups[cgroup as usize].cgroup.id;
                What::Sample(points.keep(id)?)
            }
            Kind::Process => What::Process(Box::new(read("process", line.body)?)),
            Kind::Growth => {
                let growth = read("growth", line.body)?;
                What::Rare(Box::new(Body::Growth { growth }))
            }
            Kind::Oom | Kind::Other => {
                let oom = read("oom", line.body)?;
                What::Rare(Box::new(Body::Oom { oom }))
            }
        };
        Ok(Item {
            host: host as u32,
            boot,
            cgroup,
            seq: line.seq,
            what,
        })
    }

    fn host(&mut self, name: Option<Text<'_>>) -> Result<usize, Why> {
        let raw = name.map_or("", |name| name.raw);
        // Lengths first: to compare nothing with an empty string, which points nowhere, takes some processors with masked
        // loads a hundred times as long as a name.
        if self.hosts.get(self.last).is_some_and(|host| {
            host.name.len() == raw.len() && (raw.is_empty() || host.name == raw)
        }) {
            return Ok(self.last);
        }
        let name = match name {
            Some(name) => name.decoded().ok_or("`host` is no text")?,
            None => "".into(),
        };
        self.last = match self.hosts.iter().position(|host| host.name == name) {
            Some(index) => index,
            None => {
                self.hosts.push(Host::new(name.into_owned()));
                self.hosts.len() - 1
            }
        };
        Ok(self.last)
    }

    /// Where an item stands among those of its instant.
    pub(super) fn turn(&self, item: &Item) -> u64 {
        self.hosts[item.host as usize].cgroups[item.cgroup as usize].turn
    }

    /// Gives an item to its host's detector.
    pub(super) fn take(
        &mut self,
        at: i64,
        item: &Item,
        points: &Points,
        findings: &mut Vec<Finding>,
        stats: &mut Stats,
    ) {
        let host = &mut self.hosts[item.host as usize];
        let Known { cgroup, near, .. } = &mut host.cgroups[item.cgroup as usize];
        let ts = Timestamp(at);
        #[cfg(test)]
        self.given.push(match &item.what {
            What::Sample(slot) => {
                let point = points.at(slot);
                format!("{ts} {} {} {point:?}", host.name, cgroup.path)
            }
            what => format!("{ts} {} {} {what:?}", host.name, cgroup.path),
        });
        match &item.what {
            What::Sample(slot) => {
                let point = points.at(slot);
                stats.samples += 1;
                host.detector.sample_near(near, cgroup, point, findings);
            }
            What::Process(process) => {
                stats.processes += 1;
                host.detector.process(cgroup, process, ts, findings);
            }
            What::Rare(body) => {
                stats.events += 1;
                let event = Event {
                    schema: SCHEMA.to_owned(),
                    ts,
                    seq: item.seq,
                    host: host.name.clone(),
                    boot_id: host.boots[item.boot as usize].clone(),
                    cgroup: Some(cgroup.clone()),
                    lossy: false,
                    body: (**body).clone(),
                };
                host.detector.observe(&event, findings);
            }
        }
    }

    /// The event that tells of a finding which this item led to.
    pub(super) fn verdict(&self, item: &Item, finding: Finding, seq: u64) -> Event {
        let host = &self.hosts[item.host as usize];
        Event {
            schema: SCHEMA.to_owned(),
            ts: finding.ts,
            seq,
            host: host.name.clone(),
            boot_id: host.boots[item.boot as usize].clone(),
            cgroup: Some(finding.cgroup),
            lossy: false,
            body: Body::Verdict {
                verdict: Box::new(finding.verdict),
            },
        }
    }

    pub(super) fn cgroups(&self) -> usize {
        self.hosts.iter().map(|host| host.paths.len()).sum()
    }

    pub(super) fn identities(&self) -> impl Iterator<Item = &Cgroup> {
        self.hosts
            .iter()
            .flat_map(|host| host.cgroups.iter().map(|known| &known.cgroup))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(|host| host.name.as_str())
    }
}

impl Host {
    fn new(name: String) -> Self {
        Host {
            name,
            boots: vec![None],
            boot: 0,
            cgroups: Vec::new(),
            by_text: HashMap::default(),
            paths: HashSet::default(),
            last: 0,
            detector: Detector::new(),
        }
    }

    fn boot(&mut self, id: Option<Text<'_>>) -> Result<u32, Why> {
        let Some(id) = id else { return Ok(0) };
        if self.boots[self.boot].as_deref() != Some(id.raw) {
            let id = id.decoded().ok_or("`boot_id` is no text")?;
            let known = |boot: &Option<String>| boot.as_deref() == Some(&*id);
            self.boot = match self.boots.iter().position(known) {
                Some(index) => index,
                None => {
                    self.boots.push(Some(id.into_owned()));
                    self.boots.len() - 1
                }
            };
        }
        Ok(self.boot as u32)
    }

    fn cgroup(&mut self, text: &str) -> Result<u32, Why> {
        let last = self.last as usize;
        if let Some(known) = self.cgroups.get(last)
            && *self.cgroups[known.next as usize].text == *text
        {
            self.last = known.next;
            return Ok(self.last);
        }
        let index = match self.by_text.get(text) {
            Some(index) => *index,
            None => self.enter(text)?,
        };
        if let Some(known) = self.cgroups.get_mut(last) {
            known.next = index;
        }
        self.last = index;
        Ok(index)
    }

    /// A cgroup object that was not known.
    fn enter(&mut self, text: &str) -> Result<u32, Why> {
        let cgroup = cgroup(text)?;
        let index =
            u32::try_from(self.cgroups.len()).map_err(|_| "more cgroups than there can be")?;
        let text: Arc<str> = text.into();
        self.paths.insert(cgroup.path.as_str().into());
        self.by_text.insert(Arc::clone(&text), index);
        self.cgroups.push(Known {
            turn: turn(&self.name, &cgroup.path),
            text,
            next: index,
            near: usize::MAX,
            cgroup,
        });
        Ok(index)
    }
}

/// Parents before their children, else by a hash of host and path: the same on every machine.
fn turn(host: &str, path: &str) -> u64 {
    // FNV-1a.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in host.bytes().chain([0]).chain(path.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let depth = path.split('/').filter(|part| !part.is_empty()).count();
    (depth.min(255) as u64) << 56 | hash >> 8
}

/// Reads a cgroup object: its path is needed, the rest is what it can be.
fn cgroup(text: &str) -> Result<Cgroup, Why> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("`cgroup`: {error}"))?;
    let word = |key: &str| value.get(key).and_then(serde_json::Value::as_str);
    let path = match word("path") {
        None => return Err("no `cgroup.path` string".to_owned()),
        Some("") => return Err("`cgroup.path` is empty".to_owned()),
        Some(path) => path,
    };
    let identity = identity::identify(path);
    Ok(Cgroup {
        id: value.get("id").and_then(serde_json::Value::as_u64),
        path: path.to_owned(),
        kind: word("kind").unwrap_or(identity.kind.as_str()).to_owned(),
        name: word("name").map_or(identity.name, str::to_owned),
    })
}

fn read<'a, T: Deserialize<'a>>(name: &str, body: &'a str) -> Result<T, Why> {
    serde_json::from_str(body).map_err(|error| format!("`{name}`: {error}"))
}
