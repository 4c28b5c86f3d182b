//! What a day ago says: growth that shows only from one day to the next, and series without a day's course.

use super::levels::{LEVELS, Levels};
use super::stats::{self, Scratch, Slope};
use super::trend::{Course, Trend};

const HOURS: usize = LEVELS.len() - 1;
const DAY: usize = 24;
const HOUR_US: i64 = 3_600_000_000;
/// Hours of today that must have their counterpart yesterday.
const LEAST_PAIRS: usize = 20;

/// Growth from yesterday's hours to today's. `None` unless at least four fifths of the hours are higher than the day
/// before, evenly so, and by `least` bytes in the median.
pub(super) fn analyse(levels: &Levels, least: f64, scratch: &mut Scratch) -> Option<Trend> {
    let mut hours = [f64::NAN; LEVELS[HOURS].1];
    let mut last = i64::MIN;
    for (middle, bucket) in levels.closed(HOURS) {
        let index = middle.div_euclid(HOUR_US);
        hours[index.rem_euclid(hours.len() as i64) as usize] = f64::from(bucket.floor);
        last = index;
    }
    if last == i64::MIN {
        return None;
    }
    let at = |index: i64| hours[index.rem_euclid(hours.len() as i64) as usize];
    // Not the whole ring: its oldest hour would be compared with the youngest.
    let mut rises = Vec::with_capacity(DAY * 2);
    for index in last - (hours.len() - DAY) as i64 + 2..=last {
        let rise = at(index) - at(index - DAY as i64);
        if rise.is_finite() {
            rises.push((index, rise));
        }
    }
    let n = rises.len();
    if n < LEAST_PAIRS || rises.len() * 10 < ((last - rises[0].0 + 1) as usize) * 8 {
        return None;
    }
    let higher = rises.iter().filter(|(_, rise)| *rise > 0.0).count();
    scratch.spare.clear();
    scratch.spare.extend(rises.iter().map(|(_, rise)| *rise));
    let median = stats::median(&scratch.spare, &mut scratch.keys)?;
    if higher * 10 < n * 8 || median < least {
        return None;
    }
    let mut part = |range: std::ops::Range<usize>| {
        stats::median(&scratch.spare[range], &mut scratch.keys).unwrap_or(0.0)
    };
    let (first, second) = (part(0..n / 2), part(n / 2..n));
    // A single step moves all hours after it at once.
    let step = rises
        .windows(2)
        .map(|pair| (pair[1].1 - pair[0].1).abs())
        .fold(0.0, f64::max)
        / median;
    let spread = stats::sigma(&scratch.spare, &mut scratch.keys);
    let day = (DAY as f64) * 3600.0;
    let error = 1.96 * spread / (n as f64 / 4.0).sqrt();
    // Neighbouring hours tell the same, so a quarter of them counts.
    let z = (2.0 * higher as f64 - n as f64) / (n as f64).sqrt();
    let begin = rises[0].0 - DAY as i64;
    let seconds = (last - begin) as f64 * 3600.0;
    Some(Trend {
        level: HOURS,
        onset: begin * HOUR_US + HOUR_US / 2,
        end: last * HOUR_US + HOUR_US / 2,
        from: at(last) - median / day * seconds,
        to: at(last),
        floors: n,
        buckets: n,
        course: Course::STRAIGHT,
        slope: Slope {
            median: median / day,
            low: (median - error) / day,
            high: (median + error) / day,
            deviation: 0.0,
            z,
            tau: (2.0 * higher as f64 / n as f64) - 1.0,
        },
        second_half: if first > 0.0 {
            (second / first).min(10.0)
        } else {
            10.0
        },
        largest_step: step,
        // Compared hour by hour, the day's peaks are no obstacle.
        teeth: f64::INFINITY,
        spread: n as f64,
        slowing: false,
        load: None,
        // The day's course is taken out already.
        steady_load: true,
        by_processes: 0.0,
        processes: None,
    })
}

/// Whether the day before `onset` (µs) is known and moved by little compared with a growth of `growth` bytes.
pub(super) fn flat_day(levels: &Levels, onset: i64, growth: f64) -> bool {
    let (mut low, mut high, mut hours) = (f64::INFINITY, f64::NEG_INFINITY, 0);
    for (middle, bucket) in levels.closed(HOURS) {
        let age = onset - middle;
        if (0..25 * HOUR_US).contains(&age) {
            low = low.min(f64::from(bucket.floor));
            high = high.max(f64::from(bucket.floor));
            hours += 1;
        }
    }
    hours >= 20 && high - low < 0.3 * growth
}
