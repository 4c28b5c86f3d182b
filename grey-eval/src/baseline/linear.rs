//! Plain linear regression, as Precog's authors give it for comparison (linear backward regression, arXiv:2106.08938).

use grey_core::detect::Point;

use super::{Buckets, level, limit, line};
use crate::judge::Judge;

/// Over the last three hours, by the minute (at least 20): R² ≥ 0.8, rising, and at the limit within 7 days where there is one.
#[derive(Debug)]
pub struct Linear {
    buckets: Buckets,
    on: bool,
}

impl Default for Linear {
    fn default() -> Self {
        Linear::new(60, 180)
    }
}

impl Linear {
    /// Over this many buckets of this many seconds.
    #[must_use]
    pub fn new(width_s: i64, buckets: usize) -> Self {
        Linear {
            buckets: Buckets::new(width_s, buckets, false),
            on: false,
        }
    }
}

impl Judge for Linear {
    fn name(&self) -> &'static str {
        "ols"
    }

    fn sample(&mut self, point: &Point) -> bool {
        let Some(value) = level(point) else {
            return self.on;
        };
        if self.buckets.add(point.at_us, value) && self.buckets.done.len() >= 20 {
            self.on = line(self.buckets.done.iter().copied()).is_some_and(|fit| {
                let reaches =
                    limit(point).is_none_or(|limit| (limit - value) / fit.slope <= 7.0 * 86_400.0);
                fit.slope > 0.0 && fit.r2 >= 0.8 && reaches
            });
        }
        self.on
    }
}
