//! Whose line it is: a detector for each host, each cgroup object of the lines kept once, repeats told from news.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};

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

#[derive(Debug)]
pub(super) enum What {
    Sample(Point),
    /// With a fingerprint of its line.
    Process(Box<Process>, Print),
    Rare(Box<Body>, Print),
}

/// Tells one line from another.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Print(u64);

impl fmt::Debug for Print {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Another one in each run.
        f.write_str("_")
    }
}

/// Everything that is known of the hosts of a replay.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    hosts: Vec<Host>,
    /// The line before this one was of this host.
    last: usize,
    state: RandomState,
    /// Lines other than samples of the instant that is being taken.
    seen: HashSet<Print, RandomState>,
    seen_at: i64,
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
    by_text: HashMap<Box<str>, u32, RandomState>,
    paths: HashSet<Box<str>, RandomState>,
    detector: Detector,
}

#[derive(Debug)]
struct Known {
    cgroup: Cgroup,
    turn: u64,
    last: Option<Point>,
}

impl Hosts {
    /// What a line is for the detector.
    pub(super) fn item(&mut self, line: &Line<'_>, text: &str) -> Result<Item, Why> {
        let host = self.host(line.host)?;
        let known = &mut self.hosts[host];
        let boot = known.boot(line.boot_id)?;
        let cgroup = known.cgroup(line.cgroup)?;
        let what = match line.kind {
            Kind::Sample => What::Sample(Point {
                id: known.cgroups[cgroup as usize].cgroup.id,
                ..line.point
            }),
            Kind::Process => What::Process(
                Box::new(read("process", line.body)?),
                self.fingerprint(text),
            ),
            Kind::Growth => {
                let growth = read("growth", line.body)?;
                What::Rare(Box::new(Body::Growth { growth }), self.fingerprint(text))
            }
            Kind::Oom | Kind::Other => {
                let oom = read("oom", line.body)?;
                What::Rare(Box::new(Body::Oom { oom }), self.fingerprint(text))
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

    fn fingerprint(&self, text: &str) -> Print {
        let mut hasher = self.state.build_hasher();
        hasher.write(text.trim_ascii().as_bytes());
        Print(hasher.finish())
    }

    fn host(&mut self, name: Option<Text<'_>>) -> Result<usize, Why> {
        let raw = name.map_or("", |name| name.raw);
        if self
            .hosts
            .get(self.last)
            .is_some_and(|host| host.name == raw)
        {
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

    /// Gives an item to its host's detector, unless it says again what was said.
    pub(super) fn take(
        &mut self,
        at: i64,
        item: &mut Item,
        findings: &mut Vec<Finding>,
        stats: &mut Stats,
    ) {
        let Hosts {
            hosts,
            seen,
            seen_at,
            ..
        } = self;
        if *seen_at != at {
            seen.clear();
            *seen_at = at;
        }
        let host = &mut hosts[item.host as usize];
        let known = &mut host.cgroups[item.cgroup as usize];
        let ts = Timestamp(at);
        #[cfg(test)]
        let taken = (
            stats.repeated,
            format!("{ts} {} {} {:?}", host.name, known.cgroup.path, item.what),
        );
        match &mut item.what {
            What::Sample(point) => {
                if known.last == Some(*point) {
                    stats.repeated += 1;
                    return;
                }
                known.last = Some(*point);
                stats.samples += 1;
                host.detector.sample(&known.cgroup, point, findings);
            }
            What::Process(_, print) | What::Rare(_, print) if !seen.insert(*print) => {
                stats.repeated += 1;
            }
            What::Process(process, _) => {
                stats.processes += 1;
                host.detector.process(&known.cgroup, process, ts, findings);
            }
            What::Rare(body, _) => {
                stats.events += 1;
                // Any body will do in its place: an item is taken once.
                let body = std::mem::replace(
                    body.as_mut(),
                    Body::Process {
                        process: Process::default(),
                    },
                );
                let event = Event {
                    schema: SCHEMA.to_owned(),
                    ts,
                    seq: item.seq,
                    host: host.name.clone(),
                    boot_id: host.boots[item.boot as usize].clone(),
                    cgroup: Some(known.cgroup.clone()),
                    lossy: false,
                    body,
                };
                host.detector.observe(&event, findings);
            }
        }
        #[cfg(test)]
        if taken.0 == stats.repeated {
            self.given.push(taken.1);
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
        if let Some(index) = self.by_text.get(text) {
            return Ok(*index);
        }
        let cgroup = cgroup(text)?;
        let index =
            u32::try_from(self.cgroups.len()).map_err(|_| "more cgroups than there can be")?;
        self.paths.insert(cgroup.path.as_str().into());
        self.cgroups.push(Known {
            turn: turn(&self.name, &cgroup.path),
            cgroup,
            last: None,
        });
        self.by_text.insert(text.into(), index);
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
