//! coroot's rule: a least-squares line through the resident size; its growth in an hour against the limit.

use grey_core::detect::Point;

use super::{Buckets, level, limit, line};
use crate::judge::Judge;

const MIB: f64 = 1024.0 * 1024.0;

/// Over the last hour, by the minute: the line's growth an hour is at least 5 % of the limit, or 50 MiB without one; the
/// slope of the last quarter is at least 0.3 of the whole; growth is over 10 % an hour; all this for 15 minutes.
#[derive(Debug)]
pub struct Coroot {
    buckets: Buckets,
    since: Option<i64>,
    on: bool,
}

impl Default for Coroot {
    fn default() -> Self {
        Coroot {
            buckets: Buckets::new(60, 60, false),
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
        if !self.buckets.add(point.at_us, value) {
            return self.on;
        }
        let done = &self.buckets.done;
        let grows = || {
            let whole = line(done.iter().copied())?;
            let tail = line(done.iter().skip(done.len() * 3 / 4).copied())?;
            let (now, _) = *done.back()?;
            let hourly = whole.slope * 3600.0;
            let before = whole.intercept + whole.slope * (now - 3600.0);
            let enough = hourly >= limit(point).map_or(50.0 * MIB, |limit| 0.05 * limit);
            let share = before <= 0.0 || hourly > 0.10 * before;
            Some(enough && share && tail.slope >= 0.3 * whole.slope)
        };
        // Ten minutes of data make a line; fewer are left out to the rule's advantage.
        if done.len() >= 10 && grows().unwrap_or(false) {
            let since = *self.since.get_or_insert(point.at_us);
            self.on = point.at_us - since >= 15 * 60 * 1_000_000;
        } else {
            self.since = None;
            self.on = false;
        }
        self.on
    }
}
