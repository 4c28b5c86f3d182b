//! The flight recorder: the last five minutes of each cgroup's figures are kept in memory, and an OOM kill writes those
//! that have to do with it into one document in the state folder. Number and size of the documents are bounded.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use grey_core::event::{Body, Event, GrowingStack};
use grey_core::time::Timestamp;
use grey_core::units::Figure;
use serde_json::{Value, json};

/// What is looked back on.
const MINUTES_US: i64 = 5 * 60 * 1_000_000;
/// The same while memory is short of what it may take.
const MINUTE_US: i64 = 60 * 1_000_000;
/// Cgroups of which a series is kept: those seen active last.
const MOST_SERIES: usize = 1024;
/// Lines of other events that are kept.
const MOST_EVENTS: usize = 512;
/// Documents; the oldest goes.
const MOST_FILES: usize = 32;
/// Of one document.
const MOST_BYTES: usize = 4 << 20;
/// Between two documents: a storm of kills is one incident.
const APART_US: i64 = 10_000_000;
/// Processes that are named.
const TOP: usize = 10;

/// The figures of one instant; there are hundreds of each cgroup.
#[derive(Clone, Copy)]
struct Point {
    at: Timestamp,
    current: Figure,
    anon: Figure,
    file: Figure,
    swap: Figure,
    available: Figure,
    psi_some_us: Figure,
    psi_full_us: Figure,
    refaults: Figure,
    faults: Figure,
    reclaimed_pages: Figure,
}

const COLUMNS: [&str; 11] = [
    "ts",
    "current",
    "anon",
    "file",
    "swap",
    "available",
    "psi_some_us_total",
    "psi_full_us_total",
    "refault_total",
    "minor_total",
    "pages_total",
];

impl Point {
    fn row(&self) -> Value {
        json!([
            self.at.to_string(),
            self.current.get(),
            self.anon.get(),
            self.file.get(),
            self.swap.get(),
            self.available.get(),
            self.psi_some_us.get(),
            self.psi_full_us.get(),
            self.refaults.get(),
            self.faults.get(),
            self.reclaimed_pages.get(),
        ])
    }
}

/// Drops what was before `since`, but for the last point of it, which tells where the rest began.
fn forget(series: &mut VecDeque<Point>, since: i64) {
    while series.len() > 1 && series[1].at.0 < since {
        series.pop_front();
    }
}

/// What is remembered.
pub(super) struct Recorder {
    dir: PathBuf,
    series: BTreeMap<String, VecDeque<Point>>,
    events: VecDeque<Event>,
    last: Option<Timestamp>,
    back_us: i64,
}

/// A process of the cgroup, for the document.
pub(super) type TopProcesses<'a> = &'a dyn Fn(&str, usize) -> Vec<Value>;

impl Recorder {
    pub(super) fn new(state_dir: &Path) -> Recorder {
        Recorder {
            dir: state_dir.join("incidents"),
            series: BTreeMap::new(),
            events: VecDeque::new(),
            last: None,
            back_us: MINUTES_US,
        }
    }

    /// Whether to look back one minute instead of five.
    pub(super) fn go_back_less(&mut self, less: bool) {
        let back_us = if less { MINUTE_US } else { MINUTES_US };
        if back_us < self.back_us {
            let newest = self.series.values().filter_map(|series| series.back());
            let now = newest.map(|point| point.at.0).max().unwrap_or(0);
            for series in self.series.values_mut() {
                forget(series, now - back_us);
                series.shrink_to_fit();
            }
            self.events.retain(|event| event.ts.0 + back_us >= now);
        }
        self.back_us = back_us;
    }

    /// Takes an event in. An OOM kill gives a document: its path, or why there is none.
    pub(super) fn observe(
        &mut self,
        event: &Event,
        top: TopProcesses<'_>,
    ) -> Option<io::Result<PathBuf>> {
        match &event.body {
            Body::Sample(sample) => {
                let path = event.cgroup.as_ref().map(|cgroup| cgroup.path.as_str());
                self.sample(path.unwrap_or("/"), sample, event.ts);
                return None;
            }
            Body::Process { .. } | Body::Health { .. } => return None,
            _ => {}
        }
        self.events.push_back(event.clone());
        let back_us = self.back_us;
        let old = |at: Timestamp| at.0 + back_us < event.ts.0;
        while self.events.len() > MOST_EVENTS || self.events.front().is_some_and(|it| old(it.ts)) {
            self.events.pop_front();
        }
        let apart = self
            .last
            .is_none_or(|last| (event.ts.0 - last.0).abs() >= APART_US);
        if !matches!(event.body, Body::Oom { .. }) || !apart {
            return None;
        }
        self.last = Some(event.ts);
        Some(self.write(event, top))
    }

    fn sample(&mut self, path: &str, sample: &grey_core::event::Sample, at: Timestamp) {
        if !self.series.contains_key(path) && self.series.len() >= MOST_SERIES {
            // The one that has been still for longest.
            let still = self
                .series
                .iter()
                .min_by_key(|(_, series)| series.back().map(|point| point.at))
                .map(|(path, _)| path.clone());
            if let Some(still) = still {
                self.series.remove(&still);
            }
        }
        let psi = sample.psi.as_ref();
        let reclaim = sample.reclaim.as_ref();
        let series = self.series.entry(path.to_owned()).or_default();
        if series.len() == series.capacity() {
            // Not twice as many each time: a full series would have room for as much again.
            series.reserve_exact(series.len().clamp(4, 32));
        }
        series.push_back(Point {
            at,
            current: sample.mem.current.into(),
            anon: sample.mem.anon.into(),
            file: sample.mem.file.into(),
            swap: sample.mem.swap.into(),
            available: sample.mem.available.into(),
            psi_some_us: psi.map(|psi| psi.some_us_total).into(),
            psi_full_us: psi.and_then(|psi| psi.full_us_total).into(),
            refaults: reclaim.and_then(|it| it.refault_total).into(),
            faults: sample.faults.as_ref().and_then(|it| it.minor_total).into(),
            reclaimed_pages: reclaim.and_then(|it| it.pages_total).into(),
        });
        forget(series, at.0 - self.back_us);
    }

    /// The cgroup is gone; what it did is still of use for a while.
    pub(super) fn gone(&mut self, path: &str, now: Timestamp) {
        let over = self
            .series
            .get(path)
            .and_then(|series| series.back())
            .is_some_and(|point| point.at.0 + self.back_us < now.0);
        if over {
            self.series.remove(path);
        }
    }

    fn write(&self, oom: &Event, top: TopProcesses<'_>) -> io::Result<PathBuf> {
        let victim = oom.cgroup.as_ref().map_or("/", |cgroup| &cgroup.path);
        let mut series = serde_json::Map::new();
        // The victim, what is above it, and what is inside.
        for (path, points) in &self.series {
            if related(path, victim) {
                let rows: Vec<Value> = points.iter().map(Point::row).collect();
                series.insert(path.clone(), Value::Array(rows));
            }
        }
        let events: Vec<&Event> = self.events.iter().collect();
        let mut document = json!({
            "schema": "grey-ebpf-incident/1",
            "ts": oom.ts,
            "host": oom.host,
            "boot_id": oom.boot_id,
            "cgroup": oom.cgroup,
            "oom": oom,
            "columns": COLUMNS,
            "series": series,
            "events": events,
            "processes": top(victim, TOP),
        });
        if let Some(stacks) = self.stacks_of(victim) {
            document["stacks"] = json!(stacks);
        }
        let mut bytes = serde_json::to_vec_pretty(&document)?;
        if bytes.len() > MOST_BYTES {
            // Events of other cgroups first, then the series of what is only above.
            document["events"] = json!(
                events
                    .iter()
                    .filter(|it| it.cgroup.as_ref().is_some_and(|it| it.path == victim))
                    .collect::<Vec<_>>()
            );
            document["shortened"] = true.into();
            bytes = serde_json::to_vec(&document)?;
            if bytes.len() > MOST_BYTES {
                document["series"] = json!({ victim: document["series"][victim].take() });
                bytes = serde_json::to_vec(&document)?;
            }
        }
        fs::create_dir_all(&self.dir)?;
        self.make_room()?;
        let name = format!("{}-oom.json", oom.ts.to_string().replace(':', ""));
        let path = self.dir.join(name);
        let new = path.with_extension("new");
        fs::write(&new, bytes)?;
        fs::rename(&new, &path)?;
        Ok(path)
    }

    /// Whose stacks grew, as the last verdict about the cgroup or one inside has it.
    fn stacks_of(&self, victim: &str) -> Option<&[GrowingStack]> {
        self.events
            .iter()
            .rev()
            .find_map(|event| match &event.body {
                Body::Verdict { verdict }
                    if !verdict.stacks.is_empty()
                        && event
                            .cgroup
                            .as_ref()
                            .is_some_and(|it| related(&it.path, victim)) =>
                {
                    Some(verdict.stacks.as_slice())
                }
                _ => None,
            })
    }

    fn make_room(&self) -> io::Result<()> {
        let mut names: Vec<PathBuf> = fs::read_dir(&self.dir)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().ends_with("-oom.json"))
            })
            .collect();
        names.sort();
        let surplus = (names.len() + 1).saturating_sub(MOST_FILES);
        for path in names.iter().take(surplus) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

fn related(path: &str, victim: &str) -> bool {
    let inside = |inner: &str, outer: &str| {
        outer == "/"
            || inner == outer
            || inner
                .strip_prefix(outer)
                .is_some_and(|rest| rest.starts_with('/'))
    };
    inside(victim, path) || (victim != "/" && inside(path, victim))
}

#[cfg(test)]
mod tests;
