//! Precog (Jindal et al. 2021, arXiv:2101.09799): the trend since the last change point, extrapolated to the limit.

use grey_core::detect::Point;

use super::{Buckets, level, limit, line};
use crate::judge::Judge;

/// Five-minute medians; a change point where the step's modified z-score (Iglewicz and Hoaglin) exceeds 3.5; from the
/// last change point on a trend of at least 6 h with R² ≥ 0.8 that reaches the limit within 7 days. Without a limit
/// any rising trend counts.
#[derive(Debug)]
pub struct Precog {
    buckets: Buckets,
    on: bool,
}

impl Default for Precog {
    fn default() -> Self {
        Precog::new(48)
    }
}

impl Precog {
    /// Over a history of this many hours.
    #[must_use]
    pub fn new(hours: usize) -> Self {
        Precog {
            buckets: Buckets::new(300, 12 * hours, true),
            on: false,
        }
    }
}

const SHORTEST_S: f64 = 6.0 * 3600.0;
const CRITICAL_S: f64 = 7.0 * 86_400.0;

impl Judge for Precog {
    fn name(&self) -> &'static str {
        "precog"
    }

    fn sample(&mut self, point: &Point) -> bool {
        let Some(value) = level(point) else {
            return self.on;
        };
        if self.buckets.add(point.at_us, value) {
            self.on = self.trend(limit(point)).unwrap_or(false);
        }
        self.on
    }
}

impl Precog {
    fn trend(&self, limit: Option<f64>) -> Option<bool> {
        let done = &self.buckets.done;
        let steps: Vec<f64> = done
            .iter()
            .zip(done.iter().skip(1))
            .map(|(a, b)| b.1 - a.1)
            .collect();
        if done.len() < 72 {
            return None;
        }
        let middle = median(&steps);
        let away: Vec<f64> = steps.iter().map(|step| (step - middle).abs()).collect();
        let mad = median(&away);
        let changes = |step: f64| mad > 0.0 && 0.6745 * (step - middle).abs() / mad > 3.5;
        let from = steps
            .iter()
            .rposition(|&step| changes(step))
            .map_or(0, |index| index + 1);
        let (begin, end) = (done.get(from)?.0, done.back()?.0);
        if end - begin < SHORTEST_S {
            return Some(false);
        }
        let fit = line(done.iter().skip(from).copied())?;
        let now = fit.intercept + fit.slope * end;
        let reaches = limit.is_none_or(|limit| (limit - now) / fit.slope <= CRITICAL_S);
        Some(fit.slope > 0.0 && fit.r2 >= 0.8 && reaches)
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    let middle = sorted.len() / 2;
    let (_, value, _) = sorted.select_nth_unstable_by(middle, f64::total_cmp);
    *value
}
