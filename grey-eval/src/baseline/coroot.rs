//! coroot's rule (as of 2026): a least-squares line through the resident size; its growth in an hour against the limit.

use grey_core::detect::Point;

use super::{Buckets, level, limit, line};
use crate::judge::Judge;

const MIB: f64 = 1024.0 * 1024.0;
const FOR_US: i64 = 15 * 60 * 1_000_000;

/// Over the last hour, by the minute. The series is split where it falls by more than half, and its longest run is
/// judged: at least 10 points; the slope of its last quarter, of 15 minutes at least, is at least 0.3 of the whole; the
/// line grows in an hour by at least 5 % of the limit, or by 50 MiB without one; and that is more than 10 %;
/// and it was so for 15 minutes.
///
/// The original asks for 80 % of the hour; here it may speak as soon as the tail has its 15 minutes.
#[derive(Debug)]
pub struct Coroot {
    buckets: Buckets,
    least: usize,
    since: Option<i64>,
    on: bool,
}

impl Default for Coroot {
    fn default() -> Self {
        Coroot::new(60, 10)
    }
}

impl Coroot {
    /// Over a window of this many minutes, of which this many must be there.
    #[must_use]
    pub fn new(minutes: usize, least: usize) -> Self {
        Coroot {
            buckets: Buckets::new(60, minutes, false),
            least,
            since: None,
            on: false,
        }
    }
}

impl Judge for Coroot {
    fn name(&self) -> &'static str {
        "coroot"
    }

    fn sample(&mut self, point: &Point) -> bool {
        let Some(value) = level(point) else {
            return self.on;
        };
        if self.buckets.add(point.at_us, value) {
            if self.grows(limit(point)).unwrap_or(false) {
                let since = *self.since.get_or_insert(point.at_us);
                self.on = point.at_us - since >= FOR_US;
            } else {
                self.since = None;
                self.on = false;
            }
        }
        self.on
    }
}

impl Coroot {
    fn grows(&self, limit: Option<f64>) -> Option<bool> {
        let all: Vec<(f64, f64)> = self.buckets.done.iter().copied().collect();
        let run = all
            .chunk_by(|before, after| after.1 >= 0.5 * before.1)
            .max_by_key(|run| run.len())?;
        if all.len() < self.least || run.len() < 10 || 3 * run.len() < all.len() {
            return None;
        }
        let (now, _) = *all.last()?;
        let (end, _) = *run.last()?;
        let whole = line(run.iter().copied())?;
        let quarter = run.len() - run.len() / 4;
        let tail = run[..=quarter.min(run.len() - 1)]
            .iter()
            .rposition(|&(at, _)| end - at >= 15.0 * 60.0)?;
        let tail = line(run[tail..].iter().copied())?;
        if whole.slope <= 0.0 || tail.slope < 0.3 * whole.slope {
            return Some(false);
        }
        let growth = whole.slope * 3600.0;
        let after = whole.intercept + whole.slope * now;
        let before = after - growth;
        let enough = growth >= limit.map_or(50.0 * MIB, |limit| 0.05 * limit);
        Some(enough && growth > 0.10 * if before > 0.0 { before } else { after })
    }
}
