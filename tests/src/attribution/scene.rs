//! A parent cgroup with two children under watch, and their figures at a given moment.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use grey_core::time::Timestamp;
use serde_json::Value;

use crate::harness::{Observer, TempCgroup};

/// How long a sample may take: many ticks even under emulation.
const SAMPLE: Duration = Duration::from_secs(20);

/// `a` and `b` below one parent, and a `watch` of the three. The children go before the parent.
pub(crate) struct Scene {
    pub(crate) watch: Observer,
    pub(crate) a: TempCgroup,
    pub(crate) b: TempCgroup,
    pub(crate) parent: TempCgroup,
}

impl Scene {
    /// Samples of all three at each tick.
    pub(crate) fn new() -> Result<Self> {
        Self::with(&["--slow-ticks", "1"])
    }

    /// `watch` with other arguments.
    pub(crate) fn with(more: &[&str]) -> Result<Self> {
        Self::with_variables(more, &[])
    }

    /// And with these variables in its environment.
    pub(crate) fn with_variables(more: &[&str], variables: &[(&str, &str)]) -> Result<Self> {
        let parent = TempCgroup::new("scene")?;
        if parent.has("memory.stat") {
            parent.delegate("+memory")?;
        }
        let (a, b) = (parent.child("a")?, parent.child("b")?);
        // mmap and its like are counted on every machine, by the dear way where there is no other.
        let mut args = vec!["watch", "--json", "--interval", "100ms"];
        args.extend(["--syscall-tracepoints", "on"]);
        for cgroup in [&parent, &a, &b] {
            args.extend(["--cgroup", cgroup.path()]);
        }
        args.extend(more);
        let mut watch = Observer::start_with(&args, variables)?;
        watch.wait_event("the first health line", SAMPLE, |event| {
            event["type"] == "health"
        })?;
        Ok(Self {
            watch,
            a,
            b,
            parent,
        })
    }

    /// What the first look after this moment shows.
    pub(crate) fn look(&mut self) -> Result<Look> {
        let now = wall_ms()?;
        let paths = [self.parent.path(), self.a.path(), self.b.path()];
        let mut found: HashMap<String, Value> = HashMap::new();
        self.watch
            .wait_event("a sample of each cgroup", SAMPLE, |event| {
                // Time stamps are cut to milliseconds: a later one is a look that began after `now`.
                if event["type"] == "sample" && time_ms(event).is_some_and(|at| at > now) {
                    let path = event["cgroup"]["path"].as_str().unwrap_or_default();
                    if paths.contains(&path) {
                        found
                            .entry(path.to_owned())
                            .or_insert_with(|| event.clone());
                    }
                }
                found.len() == paths.len()
            })?;
        let mut take = |path: &str| found.remove(path).map(Figures).context("no sample");
        Ok(Look {
            parent: take(paths[0])?,
            a: take(paths[1])?,
            b: take(paths[2])?,
        })
    }
}

/// Milliseconds since the epoch.
pub(crate) fn wall_ms() -> Result<i64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(i64::try_from(now.as_millis())?)
}

/// When an event says it was, in milliseconds since the epoch.
pub(crate) fn time_ms(event: &Value) -> Option<i64> {
    let at: Timestamp = event["ts"].as_str()?.parse().ok()?;
    Some(at.0 / 1000)
}

/// The figures of the three cgroups of a scene.
pub(crate) struct Look {
    pub(crate) parent: Figures,
    pub(crate) a: Figures,
    pub(crate) b: Figures,
}

/// One `sample`.
#[derive(Debug, Clone)]
pub(crate) struct Figures(pub(crate) Value);

impl Figures {
    /// A figure by its place, as in `get("faults.minor_total")`. An absent one is an error.
    pub(crate) fn get(&self, place: &str) -> Result<u64> {
        let pointer = format!("/{}", place.replace('.', "/"));
        match self.0.pointer(&pointer).and_then(Value::as_u64) {
            Some(figure) => Ok(figure),
            None => bail!("no {place} in {}", self.0),
        }
    }

    /// By how much a counter rose since `before`.
    pub(crate) fn rise(&self, before: &Self, place: &str) -> Result<u64> {
        let (now, then) = (self.get(place)?, before.get(place)?);
        now.checked_sub(then)
            .with_context(|| format!("{place} fell from {then} to {now}"))
    }

    /// Fails unless none of these counters moved since `before`.
    pub(crate) fn unmoved(&self, before: &Self, what: &str, places: &[&str]) -> Result<()> {
        for place in places {
            let rise = self.rise(before, place)?;
            ensure!(rise == 0, "{what}: {place} rose by {rise}");
        }
        Ok(())
    }
}

/// Fails with the figure's name unless it rose by exactly `expected`.
pub(crate) fn rose_by(now: &Figures, before: &Figures, place: &str, expected: u64) -> Result<()> {
    let rise = now.rise(before, place)?;
    ensure!(
        rise == expected,
        "{place} rose by {rise}, not by {expected}"
    );
    Ok(())
}

/// The virtual size of a process in bytes, which `/proc/PID/statm` has in pages.
pub(crate) fn virtual_size(pid: u32) -> Result<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    Ok(statm.split(' ').next().unwrap_or_default().parse::<u64>()? * 4096)
}
