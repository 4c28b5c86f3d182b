//! Four rules of others, for the comparison only. Each sees the same samples of anon + swap as grey-ebpf's detector,
//! made into buckets of a minute, and is asked again at each full bucket.

mod coroot;
mod linear;
mod mann_kendall;
mod precog;
mod regression;

use std::collections::VecDeque;

use grey_core::detect::Point;

use crate::judge::Judge;

pub use coroot::Coroot;
pub use linear::Linear;
pub use mann_kendall::{MannKendall, mann_kendall_z};
pub use precog::Precog;
pub use regression::{Line, line};

/// All of them, new, for one trace.
#[must_use]
pub fn all() -> Vec<Box<dyn Judge>> {
    vec![
        Box::<Coroot>::default(),
        Box::<Precog>::default(),
        Box::<MannKendall>::default(),
        Box::<Linear>::default(),
    ]
}

/// The limit or, where the cgroup has none, nothing: none of these rules looks at the machine.
pub(crate) fn limit(point: &Point) -> Option<f64> {
    point.max.bytes().map(|bytes| bytes as f64)
}

/// anon + swap.
pub(crate) fn level(point: &Point) -> Option<f64> {
    Some((point.anon? + point.swap.unwrap_or(0)) as f64)
}

/// Buckets of equal width over a window of time: the median (or mean) of each.
#[derive(Debug)]
pub(crate) struct Buckets {
    width_us: i64,
    most: usize,
    median: bool,
    current: Option<i64>,
    values: Vec<f64>,
    /// Seconds since the epoch of the first sample, and the bucket's value.
    pub(crate) done: VecDeque<(f64, f64)>,
    first_us: Option<i64>,
}

impl Buckets {
    pub(crate) fn new(width_s: i64, most: usize, median: bool) -> Buckets {
        Buckets {
            width_us: width_s * 1_000_000,
            most,
            median,
            current: None,
            values: Vec::new(),
            done: VecDeque::new(),
            first_us: None,
        }
    }

    /// Adds a sample; true when a bucket became full.
    pub(crate) fn add(&mut self, at_us: i64, value: f64) -> bool {
        let first = *self.first_us.get_or_insert(at_us);
        let bucket = at_us.div_euclid(self.width_us);
        let full = self.current.is_some_and(|current| current != bucket);
        if full {
            let value = if self.median {
                self.values.sort_by(f64::total_cmp);
                self.values[self.values.len() / 2]
            } else {
                self.values.iter().sum::<f64>() / self.values.len() as f64
            };
            let middle = self.current.unwrap_or(bucket) * self.width_us + self.width_us / 2;
            self.done.push_back(((middle - first) as f64 / 1e6, value));
            while self.done.len() > self.most {
                self.done.pop_front();
            }
            self.values.clear();
        }
        self.current = Some(bucket);
        self.values.push(value);
        full
    }
}
