//! The flight recorder: the last five minutes of each cgroup's figures are kept in memory, and an OOM kill writes those
//! that have to do with it into one document in the state folder. Number and size of the documents are bounded.

mod series;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use grey_core::event::{Body, Event, GrowingStack};
use grey_core::time::Timestamp;
use serde_json::{Value, json};

use self::series::{COLUMNS, Point, Series};

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

/// What is remembered.
pub(super) struct Recorder {
    dir: PathBuf,
    // Boxed: a map's node has eleven places, and they are not all taken.
    series: BTreeMap<String, Box<Series>>,
    // Boxed: a queue has up to twice as many places as entries.
    events: VecDeque<Box<Event>>,
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
            let newest = self.series.values().map(|series| series.last().at.0);
            let now = newest.max().unwrap_or(0);
            for series in self.series.values_mut() {
                series.forget(now - back_us);
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
        self.events.push_back(Box::new(event.clone()));
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
                .min_by_key(|(_, series)| series.last().at)
                .map(|(path, _)| path.clone());
            if let Some(still) = still {
                self.series.remove(&still);
            }
        }
        let point = Point::of(sample, at);
        match self.series.get_mut(path) {
            Some(series) => {
                series.push(point);
                series.forget(at.0 - self.back_us);
            }
            None => {
                let series = Box::new(Series::new(point));
                self.series.insert(path.to_owned(), series);
            }
        }
    }

    /// The cgroup is gone; what it did is still of use for a while.
    pub(super) fn gone(&mut self, path: &str, now: Timestamp) {
        let over = self
            .series
            .get(path)
            .is_some_and(|series| series.last().at.0 + self.back_us < now.0);
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
                let rows: Vec<Value> = points.points().map(|point| point.row()).collect();
                series.insert(path.clone(), Value::Array(rows));
            }
        }
        let events: Vec<&Event> = self.events.iter().map(Box::as_ref).collect();
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
