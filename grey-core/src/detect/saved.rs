//! What a restart must not lose: the floors and the state of every series that has moved.

use foldhash::HashMap;

use serde::{Deserialize, Serialize};

use super::FAR_US;
use super::levels::{Bucket, LEVELS};
use super::node::{Kind, Node};
use super::series::{Held, Series, SeriesParts};
use crate::event::{Cause, Memory, State};

/// What is kept of a detector across a restart. Sizes in KiB, since pages are no finer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    nodes: Vec<SavedNode>,
}

/// One cgroup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedNode {
    path: String,
    #[serde(default)]
    pub(super) id: Option<u64>,
    /// What the samples' clock was off by, µs.
    #[serde(default)]
    pub(super) shift: i64,
    series: Vec<SavedSeries>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SavedSeries {
    memory: Memory,
    first: i64,
    last_at: i64,
    last: f64,
    state: State,
    cause: Cause,
    entered: i64,
    #[serde(default)]
    held: Option<Held>,
    /// By level: index of the first bucket, then each bucket's floor and peak in KiB, faults a second and
    /// virtual size in KiB; what is unknown is −1.
    levels: Vec<(i64, Vec<[i64; 4]>)>,
}

impl Saved {
    pub(super) fn of<'a>(nodes: impl Iterator<Item = &'a Node>) -> Saved {
        Saved {
            nodes: nodes
                .filter(|node| matches!(node.kind, Kind::Cgroup))
                .filter_map(SavedNode::of)
                .collect(),
        }
    }

    /// Number of cgroups.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(super) fn by_key(self) -> HashMap<String, SavedNode> {
        self.nodes
            .into_iter()
            .map(|node| (node.path.clone(), node))
            .collect()
    }
}

impl SavedNode {
    fn of(node: &Node) -> Option<SavedNode> {
        let series: Vec<SavedSeries> = std::iter::once(&node.anon)
            .chain(&node.others)
            .filter_map(SavedSeries::of)
            .collect();
        // A series that never moved begins anew as well as it goes on.
        let moved = series.iter().any(|series| series.memory == Memory::Anon);
        moved.then(|| SavedNode {
            path: node.cgroup.path().to_owned(),
            id: node.cgroup.id,
            shift: node.shift,
            series,
        })
    }

    /// The series as they were; what does not make sense is left out.
    pub(super) fn series(self) -> Vec<Series> {
        self.series
            .into_iter()
            .filter_map(SavedSeries::series)
            .collect()
    }
}

impl SavedSeries {
    fn of(series: &Series) -> Option<SavedSeries> {
        let parts = series.parts()?;
        let mut levels: Vec<(i64, Vec<[i64; 4]>)> = vec![(0, Vec::new()); LEVELS.len()];
        for (level, index, bucket) in parts.levels.entries() {
            let (first, row) = &mut levels[level];
            if row.is_empty() {
                *first = index;
            }
            while (row.len() as i64) < index - *first {
                row.push([-1; 4]);
            }
            let kib = |bytes: f32| (f64::from(bytes) / 1024.0).round() as i64;
            let rate = if bucket.activity().is_finite() {
                f64::from(bucket.activity()).round() as i64
            } else {
                -1
            };
            let virt = if bucket.virt.is_finite() {
                kib(bucket.virt)
            } else {
                -1
            };
            row.push([kib(bucket.floor), kib(bucket.peak), rate, virt]);
        }
        Some(SavedSeries {
            memory: series.memory,
            first: series.first,
            last_at: series.last_at,
            last: series.last,
            state: parts.state,
            cause: parts.cause,
            entered: parts.entered,
            held: parts.held,
            levels,
        })
    }

    fn series(self) -> Option<Series> {
        let past = |at: i64| (-FAR_US..=self.last_at).contains(&at);
        let sane = self.last.is_finite()
            && self.last >= 0.0
            && self.last_at <= FAR_US
            && past(self.first)
            && past(self.entered)
            && self
                .held
                .is_none_or(|held| past(held.onset) && past(held.high_at))
            && self.levels.len() == LEVELS.len()
            && self.held.is_none_or(|held| held.is_sane());
        if !sane {
            return None;
        }
        let mut levels = super::levels::Levels::new();
        for (level, (first, row)) in self.levels.iter().enumerate() {
            // Closed buckets lie before the last sample's.
            let (width, length) = LEVELS[level];
            let end = self.last_at.div_euclid(width);
            let begins = -FAR_US / width..=end - row.len() as i64;
            if row.len() > length || !(row.is_empty() || begins.contains(first)) {
                return None;
            }
            for (offset, [floor, peak, rate, virt]) in row.iter().enumerate() {
                if *floor < 0 || *peak < *floor || *peak > 1 << 50 {
                    continue;
                }
                levels.put(
                    level,
                    first + offset as i64,
                    Bucket::new(
                        *floor as f32 * 1024.0,
                        *peak as f32 * 1024.0,
                        if *virt < 0 {
                            f32::NAN
                        } else {
                            *virt as f32 * 1024.0
                        },
                        if *rate < 0 { f32::NAN } else { *rate as f32 },
                        f32::NAN,
                    ),
                );
            }
        }
        Some(Series::from_parts(
            self.memory,
            (self.first, self.last_at, self.last),
            SeriesParts {
                levels: &levels,
                state: self.state,
                cause: self.cause,
                entered: self.entered,
                held: self.held,
            },
        ))
    }
}
