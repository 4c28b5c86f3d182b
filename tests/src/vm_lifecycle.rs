//! Cgroups that come and go: nothing stays behind in the kernel's tables or in `watch`, and no id has another's path.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::attribution::scene::{Figures, time_ms, wall_ms};
use crate::harness::{Observer, Outcome, TempCgroup, Trial, Workload, wait_until};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_two_thousand_cgroups_leave_nothing_behind",
            two_thousand_cgroups_leave_nothing_behind,
        )
        .with_deadline(Duration::from_secs(150))
        .shown_on(&["6.12"]),
        Trial::new(
            "vm_lost_lifecycle_records_are_made_up_by_the_walk",
            lost_lifecycle_records_are_made_up_by_the_walk,
        )
        .shown_on(&["5.10", "6.12"]),
        Trial::new(
            "vm_path_made_again_is_another_cgroup",
            path_made_again_is_another_cgroup,
        ),
        Trial::new(
            "vm_renamed_cgroup_has_its_new_path",
            renamed_cgroup_has_its_new_path,
        ),
    ]
}

/// Cgroups that exist at the same time, so that some live through a tick.
const ALIVE: usize = 40;
/// Paths they take turns on.
const PATHS: usize = 100;
/// How long after its end a cgroup may still be told of, and how long before its making the tick may have begun that
/// tells of it: ticks come each tenth of a second, and emulation is slow.
const LATE_MS: i64 = 1000;

/// What a test knows of the cgroups it made.
#[derive(Default)]
struct Made(HashMap<u64, Life>);

struct Life {
    path: String,
    made: i64,
    gone: Option<i64>,
}

impl Made {
    fn make(&mut self, parent: &TempCgroup, label: &str) -> Result<TempCgroup> {
        let made = wall_ms()?;
        let cgroup = parent.child(label)?;
        let life = Life {
            path: cgroup.path().to_owned(),
            made,
            gone: None,
        };
        let before = self.0.insert(cgroup.id()?, life);
        ensure!(before.is_none(), "the kernel gave an id twice");
        Ok(cgroup)
    }

    fn remove(&mut self, cgroup: TempCgroup) -> Result<()> {
        let id = cgroup.id()?;
        drop(cgroup);
        self.0.get_mut(&id).context("an unknown cgroup")?.gone = Some(wall_ms()?);
        Ok(())
    }

    /// Each event about a cgroup below `parent` has the path that the id had, and comes while it lived. Returns how
    /// many of the cgroups were told of.
    fn judge(&self, events: &[Value], parent: &TempCgroup) -> Result<usize> {
        let below = format!("{}/", parent.path());
        let mut told = HashSet::new();
        for event in events {
            let cgroup = &event["cgroup"];
            let (id, path) = (cgroup["id"].as_u64(), cgroup["path"].as_str());
            let known = id.and_then(|id| self.0.get(&id));
            let ours = path.is_some_and(|path| path.starts_with(&below));
            let Some(life) = known else {
                ensure!(!ours, "a path of ours with a foreign id: {event}");
                continue;
            };
            ensure!(
                path == Some(life.path.as_str()),
                "not {}: {event}",
                life.path
            );
            let at = time_ms(event).context("no time stamp")?;
            let end = life.gone.unwrap_or(i64::MAX - LATE_MS) + LATE_MS;
            ensure!(
                (life.made - LATE_MS..=end).contains(&at),
                "lived from {} to {:?}, told of at {at}: {event}",
                life.made,
                life.gone
            );
            told.extend(id);
        }
        Ok(told.len())
    }
}

/// The `health` figures that must come back to what they were.
#[derive(Debug)]
struct Held {
    cgroups: u64,
    slots: u64,
    processes: u64,
    descriptors: u64,
    resident: u64,
}

impl Held {
    fn of(event: &Value) -> Result<Self> {
        let health = Figures(event.clone());
        Ok(Self {
            cgroups: health.get("health.cgroups")?,
            slots: health.get("health.map_entries.cgroup_slots")?,
            processes: health.get("health.map_entries.processes")?,
            descriptors: health.get("health.fds")?,
            resident: health.get("health.rss")?,
        })
    }

    /// Whether nothing is held that `before` was not, give or take what else runs in the VM.
    fn is_back_at(&self, before: &Self) -> bool {
        self.cgroups == before.cgroups
            && self.slots <= before.slots + 1
            && self.processes <= before.processes + 5
            && self.descriptors <= before.descriptors + 2
            && self.resident <= before.resident + (2 << 20)
    }
}

fn is_health(event: &Value) -> bool {
    event["type"] == "health"
}

fn health(watch: &mut Observer) -> Result<Value> {
    // What has come already is of before.
    watch.events()?;
    let now = wall_ms()?;
    watch.wait_event("health", Duration::from_secs(20), |event| {
        is_health(event) && time_ms(event) > Some(now)
    })
}

/// Waits for a `health` that holds no more than `before`.
fn back_at(watch: &mut Observer, before: &Held) -> Result<Value> {
    let mut last = None;
    let found = watch.wait_event("all given back", Duration::from_secs(25), |event| {
        if !is_health(event) {
            return false;
        }
        last = Held::of(event).ok();
        last.as_ref().is_some_and(|held| held.is_back_at(before))
    });
    found.with_context(|| format!("before: {before:?}, last: {last:?}"))
}

fn parent_of_many(label: &str) -> Result<TempCgroup> {
    let parent = TempCgroup::new(label)?;
    // Where the tree has the controller, its share of a removed cgroup must go too.
    if parent
        .read("cgroup.controllers")?
        .split_whitespace()
        .any(|name| name == "memory")
    {
        parent.delegate("+memory")?;
    }
    Ok(parent)
}

/// A short process in `cgroup` that touches a few pages.
fn short_process(cgroup: &TempCgroup, from: &mut Workload, pages: u64) -> Result<()> {
    let procs = cgroup.directory().join("cgroup.procs");
    let told = from.step(&format!("fork-into {} {pages}", procs.display()))?;
    ensure!(told.ends_with("exit 0"), "the short process: {told}");
    Ok(())
}

fn two_thousand_cgroups_leave_nothing_behind() -> Result<Outcome> {
    two_thousand_cgroups("100ms")
}

/// `interval` is short enough that most of them live through a tick on the machine at hand.
pub(crate) fn two_thousand_cgroups(interval: &str) -> Result<Outcome> {
    const ALL: usize = 2000;
    const TOUCHED: u64 = 50;
    let parent = parent_of_many("many")?;
    let home = TempCgroup::new("home")?;
    let mut from = Workload::start(&home)?;
    let mut watch = Observer::start(&["watch", "--json", "--interval", interval])?;
    watch.wait_event("the first health", Duration::from_secs(20), is_health)?;
    let mut made = Made::default();
    let mut alive = std::collections::VecDeque::new();
    let mut before = None;
    let mut processes = 0;
    for n in 0..ALL {
        // The first hundred bring tables and buffers to their size.
        if n == PATHS {
            for cgroup in alive.drain(..) {
                made.remove(cgroup)?;
            }
            before = Some(Held::of(&health(&mut watch)?)?);
        }
        let cgroup = made.make(&parent, &format!("c{}", n % PATHS))?;
        if n % 10 == 0 {
            short_process(&cgroup, &mut from, TOUCHED)?;
            processes += 1;
        }
        alive.push_back(cgroup);
        if alive.len() > ALIVE {
            made.remove(alive.pop_front().context("none alive")?)?;
        }
    }
    for cgroup in alive {
        made.remove(cgroup)?;
    }
    let before = before.context("no figures from before")?;
    back_at(&mut watch, &before)?;
    let finished = watch.stop(Signal::INT, Duration::from_secs(10))?;
    let events: Vec<Value> = finished
        .stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let told = made.judge(&events, &parent)?;
    ensure!(told >= ALL / 4, "only {told} of {ALL} were ever told of");
    let last = events.iter().rev().find(|event| is_health(event));
    let last = Figures(last.context("no health")?.clone());
    for kind in ["cgroup_made", "cgroup_removed"] {
        let emitted = last.get(&format!("health.emitted.{kind}"))?;
        let read = last.get(&format!("health.read.{kind}"))?;
        let dropped = last.get(&format!("health.dropped.{kind}"))?;
        ensure!(emitted >= ALL as u64, "{kind}: {emitted} emitted");
        ensure!(
            read + dropped == emitted,
            "{kind}: {read} + {dropped} of {emitted}"
        );
        ensure!(dropped == 0, "{kind}: {dropped} dropped");
    }
    // What they counted is not gone with them.
    let total = events
        .iter()
        .rev()
        .find(|event| event["type"] == "sample" && event["cgroup"]["path"] == parent.path());
    let total = Figures(total.context("no sample of the parent")?.clone());
    let total = total.get("faults.user_write_total")?;
    let least = processes * TOUCHED;
    ensure!(
        (least..least * 2).contains(&total),
        "{processes} processes touched {TOUCHED} pages each, the parent has {total} faults"
    );
    Ok(Outcome::Passed)
}

/// The reader is stopped and its ring has room for a dozen records: the rest is found by looking, at once and not at
/// the slow pace, which is far off.
fn lost_lifecycle_records_are_made_up_by_the_walk() -> Result<Outcome> {
    let parent = parent_of_many("lost")?;
    let home = TempCgroup::new("home")?;
    let mut from = Workload::start(&home)?;
    let mut watch = Observer::start(&[
        "watch",
        "--json",
        "--interval",
        "50ms",
        "--slow-ticks",
        "1000",
        "--ring",
        "4096",
    ])?;
    watch.wait_event("the first health", Duration::from_secs(20), is_health)?;
    let before = Held::of(&health(&mut watch)?)?;
    let mut made = Made::default();
    watch.signal(Signal::STOP)?;
    wait_until("the stop of watch", Duration::from_secs(5), || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", watch.pid()))?;
        Ok(stat.contains(") T ").then_some(()))
    })?;
    let mut stay = Vec::new();
    for n in 0..60 {
        let cgroup = made.make(&parent, &format!("c{n}"))?;
        short_process(&cgroup, &mut from, 10)?;
        if n % 6 == 0 {
            stay.push(cgroup);
        } else {
            made.remove(cgroup)?;
        }
    }
    watch.signal(Signal::CONT)?;
    let all = before.cgroups + stay.len() as u64;
    let found = watch.wait_event("those that stay", Duration::from_secs(20), |event| {
        is_health(event)
            && event["health"]["cgroups"] == all
            && event["health"]["map_entries"]["cgroup_slots"].as_u64()
                <= Some(before.slots + stay.len() as u64 + 1)
    })?;
    let dropped = Figures(found).get("health.dropped.cgroup_made")?;
    ensure!(dropped > 0, "nothing was lost, so nothing is shown");
    let staying = stay[0].path().to_owned();
    let sampled = |event: &Value| event["type"] == "sample" && event["cgroup"]["path"] == *staying;
    ensure!(
        watch.events()?.iter().any(sampled),
        "no sample of {staying}"
    );
    for cgroup in stay {
        made.remove(cgroup)?;
    }
    back_at(&mut watch, &before)?;
    made.judge(&watch.events()?, &parent)?;
    Ok(Outcome::Passed)
}

pub(crate) fn path_made_again_is_another_cgroup() -> Result<Outcome> {
    let parent = parent_of_many("again")?;
    let mut watch = Observer::start(&[
        "watch",
        "--json",
        "--interval",
        "100ms",
        "--slow-ticks",
        "1",
    ])?;
    watch.wait_event("the first health", Duration::from_secs(20), is_health)?;
    let mut made = Made::default();
    let mut ids = HashSet::new();
    for (pages, more) in [(3000, 6000), (500, 1500), (100, 500)] {
        let cgroup = made.make(&parent, "same")?;
        let id = cgroup.id()?;
        ensure!(ids.insert(id), "the same id again");
        let mut workload = Workload::start(&cgroup)?;
        workload.step(&format!("touch {pages}"))?;
        let sample = watch.wait_event("its sample", Duration::from_secs(10), |event| {
            event["type"] == "sample"
                && event["cgroup"]["id"] == id
                && event["faults"]["user_write_total"].as_u64() >= Some(pages)
        })?;
        let figures = Figures(sample.clone());
        ensure!(
            sample["cgroup"]["path"] == cgroup.path(),
            "another path: {sample}"
        );
        // Nothing of the one before: the counts are of this cgroup, and so are its files.
        let faults = figures.get("faults.user_write_total")?;
        ensure!(faults < more, "{faults} faults for {pages} pages");
        let anon = figures.get("mem.anon")?;
        ensure!(anon < more * 4096, "{anon} bytes for {pages} pages");
        drop(workload);
        made.remove(cgroup)?;
    }
    watch.wait_event("the end of the last", Duration::from_secs(10), |event| {
        event["type"] == "sample" && event["cgroup"]["path"] == parent.path()
    })?;
    made.judge(&watch.events()?, &parent)?;
    Ok(Outcome::Passed)
}

fn renamed_cgroup_has_its_new_path() -> Result<Outcome> {
    let parent = parent_of_many("renamed")?;
    let cgroup = parent.child("before")?;
    let target = parent.directory().join("after");
    let mut watch = Observer::start(&[
        "watch",
        "--json",
        "--interval",
        "100ms",
        "--slow-ticks",
        "1",
    ])?;
    watch.wait_event("the first health", Duration::from_secs(20), is_health)?;
    if let Err(error) = std::fs::rename(cgroup.directory(), &target) {
        return Outcome::skipped(format!("this kernel renames no v2 cgroup: {error}"));
    }
    let id = cgroup.id();
    let renamed = watch.wait_event(
        "a sample at the new path",
        Duration::from_secs(10),
        |event| {
            event["cgroup"]["path"]
                .as_str()
                .is_some_and(|path| path.ends_with("/after"))
        },
    );
    std::fs::rename(&target, cgroup.directory())?;
    ensure!(
        renamed?["cgroup"]["id"] == cgroup.id()?,
        "another id than {id:?}"
    );
    Ok(Outcome::Passed)
}
