//! From the floors of one level to a trend: where the growth begins, how steep, how sure, of what shape.

use super::levels::{LEVELS, Levels};
use super::stats::{self, MOST, Scratch, Slope};

/// A segment shorter than this many floors says nothing.
const LEAST_FLOORS: usize = 8;
/// The smallest noise believed, bytes.
const LEAST_NOISE: f64 = 65_536.0;
/// Growth whose second half is less than this part of its first half slows down.
pub(super) const STEADY: f64 = 0.8;

/// What the floors of one level say.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Trend {
    /// Index into [`LEVELS`].
    pub(super) level: usize,
    /// Middle of the bucket in which the growth begins, and of the last one, µs.
    pub(super) onset: i64,
    pub(super) end: i64,
    /// Floors there, bytes.
    pub(super) from: f64,
    pub(super) to: f64,
    /// Floors judged.
    pub(super) floors: usize,
    /// Bytes a second.
    pub(super) slope: Slope,
    /// Buckets that these floors come from.
    pub(super) buckets: usize,
    /// Growth of the second half over that of the first.
    pub(super) second_half: f64,
    /// How it goes from begin to end.
    pub(super) course: Course,
    /// Share of the growth in the largest single step between floors.
    pub(super) largest_step: f64,
    /// What the level goes up and down within each bucket, where that is far more than it grows: the floors see through
    /// teeth of this size. Else 0.
    pub(super) teeth: f64,
    /// Steps that the growth is spread over: (Σd)²/Σd².
    pub(super) spread: f64,
    /// Growth before this segment was faster: it has been cut off.
    pub(super) slowing: bool,
    /// How much of the growth follows the page-fault rate, where that is known; and whether that rate is steady.
    pub(super) load: Option<f64>,
    pub(super) steady_load: bool,
    /// How much of the growth follows the number of processes.
    pub(super) by_processes: f64,
    /// Processes at the begin and the end.
    pub(super) processes: Option<[u64; 2]>,
}

/// The quarters of a climb.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Course {
    /// How much further the level lies above the straight line from begin to end after three quarters of the time than
    /// after one, as a share of the growth. What begins and ends gently, as the rise of a day does, has some 0.1.
    pub(super) sway: f64,
    /// Slope of the slowest quarter over that of the whole.
    pub(super) slowest: f64,
}

impl Course {
    pub(super) const STRAIGHT: Course = Course {
        sway: 0.0,
        slowest: 1.0,
    };
}

impl Trend {
    pub(super) fn growth(&self) -> f64 {
        self.to - self.from
    }

    pub(super) fn seconds(&self) -> f64 {
        (self.end - self.onset) as f64 / 1e6
    }
}

/// The floors of one level, side by side.
#[derive(Debug, Default)]
pub(super) struct Floors {
    at: Vec<i64>,
    floor: Vec<f64>,
    peak: Vec<f64>,
    activity: Vec<f64>,
    processes: Vec<f64>,
    // Thinned, for the quadratic part.
    t: Vec<f64>,
    y: Vec<f64>,
}

impl Floors {
    fn load(&mut self, levels: &Levels, level: usize) {
        let Floors {
            at,
            floor,
            peak,
            activity,
            processes,
            t,
            y,
        } = self;
        at.clear();
        floor.clear();
        peak.clear();
        activity.clear();
        processes.clear();
        t.clear();
        y.clear();
        for (middle, bucket) in levels.closed(level) {
            at.push(middle);
            floor.push(f64::from(bucket.floor));
            peak.push(f64::from(bucket.peak));
            activity.push(f64::from(bucket.activity()));
            processes.push(f64::from(bucket.processes()));
        }
    }

    /// Fills `t` and `y` with at most [`MOST`] floors from `from` on: of neighbours the lowest.
    fn thin(&mut self, from: usize) {
        self.t.clear();
        self.y.clear();
        let n = self.at.len() - from;
        let group = n.div_ceil(MOST);
        let origin = self.at[from];
        for start in (from..self.at.len()).step_by(group) {
            let end = (start + group).min(self.at.len());
            let lowest = (start..end)
                .min_by(|a, b| self.floor[*a].total_cmp(&self.floor[*b]))
                .unwrap_or(start);
            self.t.push((self.at[lowest] - origin) as f64 / 1e6);
            self.y.push(self.floor[lowest]);
        }
    }
}

impl Floors {
    /// Gives the trend that was made of these floors last the confidence interval of its slope.
    pub(super) fn interval(&self, trend: &mut Trend, scratch: &mut Scratch) {
        stats::interval(&mut trend.slope, &self.t, &self.y, scratch);
    }
}

/// The trend of a level; `None` if it has grown by less than `least` bytes or shows no drift.
pub(super) fn analyse(
    levels: &Levels,
    level: usize,
    least: f64,
    floors: &mut Floors,
    scratch: &mut Scratch,
) -> Option<Trend> {
    floors.load(levels, level);
    let n = floors.at.len();
    if n < LEAST_FLOORS {
        return None;
    }
    let noise = stats::noise(&floors.floor, scratch);
    let lowest = floors.floor.iter().copied().fold(f64::INFINITY, f64::min);
    // A last floor that happens to lie high is no growth.
    let end = if 4.0 * noise > floors.floor[n - 1] - lowest {
        floors.floor[n - 1].min(floors.floor[n - 2])
    } else {
        floors.floor[n - 1]
    };
    let growth = end - lowest;
    if growth < least || !stats::cusum(&floors.floor, noise.max(LEAST_NOISE), &mut scratch.keys) {
        return None;
    }
    // The growth begins where the floors were at their lowest for the last time, give or take the noise.
    let near = lowest + (0.04 * growth).max((2.0 * noise).min(0.2 * growth));
    let onset = floors.floor.iter().rposition(|floor| *floor <= near)?;
    let mut from = onset;
    let mut slowing = false;
    loop {
        if n - from < LEAST_FLOORS {
            return None;
        }
        let trend = segment(floors, level, from, slowing, scratch)?;
        // What slows down may be a start followed by a steady climb: its later half is judged by itself.
        if trend.second_half < STEADY && n - from >= 2 * LEAST_FLOORS {
            from += (n - from) / 2;
            slowing = true;
            continue;
        }
        return Some(trend);
    }
}

fn segment(
    floors: &mut Floors,
    level: usize,
    from: usize,
    slowing: bool,
    scratch: &mut Scratch,
) -> Option<Trend> {
    floors.thin(from);
    let slope = stats::slope(&floors.t, &floors.y, scratch)?;
    let (at, y) = (&floors.at[from..], &floors.floor[from..]);
    let n = at.len();
    let growth = y[n - 1] - y[0];
    if growth <= 0.0 {
        return None;
    }
    let width = LEVELS[level].0 as f64 / 1e6;
    scratch.spare.clear();
    scratch.spare.extend(
        floors.peak[from..]
            .iter()
            .zip(y)
            .map(|(peak, floor)| peak - floor),
    );
    let swings = &scratch.spare;
    let swing = stats::median(swings, &mut scratch.keys).unwrap_or(0.0);
    let deep = swings.iter().filter(|each| **each >= swing / 2.0).count();
    let resolved = swing >= 3.0 * slope.median.max(0.0) * width
        && swing >= 0.02 * y[n - 1]
        && deep * 10 >= n * 8;
    let (load, steady_load) = load(&floors.activity[from..], y, growth);
    let processes = &floors.processes[from..];
    let by_processes = follows(processes, y, growth, 0.9);
    let count = |value: &f64| value.is_finite().then_some(*value as u64);
    Some(Trend {
        level,
        onset: at[0],
        end: at[n - 1],
        from: y[0],
        to: y[n - 1],
        floors: floors.t.len(),
        buckets: n,
        course: course(&floors.t, &floors.y, scratch),
        second_half: second_half(&floors.t, &floors.y, scratch),
        slope,
        largest_step: y
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .fold(0.0, f64::max)
            / growth,
        teeth: if resolved { swing } else { 0.0 },
        spread: spread(y),
        slowing,
        load,
        steady_load,
        by_processes,
        processes: processes
            .iter()
            .find_map(count)
            .zip(processes.iter().rev().find_map(count))
            .map(|(begin, end)| [begin, end]),
    })
}

/// Slope of the second half over that of the first, by the medians of their beginnings and ends.
fn second_half(t: &[f64], y: &[f64], scratch: &mut Scratch) -> f64 {
    let n = t.len();
    let part = (n / 6).max(1);
    let mut middle_of = |from: usize| {
        let to = (from + part).min(n);
        let mut at = 0.0;
        for t in &t[from..to] {
            at += t / (to - from) as f64;
        }
        let median = stats::median(&y[from..to], &mut scratch.keys);
        (at, median.unwrap_or(y[from]))
    };
    let (t0, y0) = middle_of(0);
    let (t1, y1) = middle_of((n - part) / 2);
    let (t2, y2) = middle_of(n - part);
    let first = (y1 - y0) / (t1 - t0).max(1e-9);
    let second = (y2 - y1) / (t2 - t1).max(1e-9);
    if first <= 0.0 {
        return if second > 0.0 { 10.0 } else { 0.0 };
    }
    (second / first).clamp(0.0, 10.0)
}

/// The quarters of a climb, by the medians of the floors around their ends.
fn course(t: &[f64], y: &[f64], scratch: &mut Scratch) -> Course {
    let n = t.len();
    let part = (n / 6).max(1);
    let ends = [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| {
        let from = ((n - part) as f64 * share).round() as usize;
        let to = from + part;
        let at = t[from..to].iter().sum::<f64>() / part as f64;
        let median = stats::median(&y[from..to], &mut scratch.keys);
        (at, median.unwrap_or(y[from]))
    });
    let (seconds, growth) = (ends[4].0 - ends[0].0, ends[4].1 - ends[0].1);
    if growth <= 0.0 || seconds <= 0.0 {
        return Course {
            sway: 0.0,
            slowest: 0.0,
        };
    }
    let above = |(at, level): (f64, f64)| (level - ends[0].1) / growth - (at - ends[0].0) / seconds;
    let slowest = ends
        .windows(2)
        .map(|pair| (pair[1].1 - pair[0].1) / (pair[1].0 - pair[0].0).max(1e-9))
        .fold(f64::INFINITY, f64::min);
    Course {
        sway: above(ends[3]) - above(ends[1]),
        slowest: slowest / (growth / seconds),
    }
}

/// Number of equal steps that would be spread like these: (Σd)²/Σd² over the steps upwards.
fn spread(y: &[f64]) -> f64 {
    let (mut sum, mut squares) = (0.0, 0.0);
    for pair in y.windows(2) {
        let step = (pair[1] - pair[0]).max(0.0);
        sum += step;
        squares += step * step;
    }
    if squares > 0.0 {
        sum * sum / squares
    } else {
        0.0
    }
}

/// How much of the growth goes with the fault rate, and whether that rate is next to nothing.
fn load(activity: &[f64], y: &[f64], growth: f64) -> (Option<f64>, bool) {
    let known = activity.iter().filter(|rate| rate.is_finite());
    let (count, sum) = known.fold((0, 0.0), |(count, sum), rate| (count + 1, sum + rate));
    if count * 2 < activity.len() || count < LEAST_FLOORS {
        return (None, false);
    }
    // Where next to nothing is done, nothing is done for somebody. Any other rate may hide one that matters.
    let idle = sum / (count as f64) < 2.0;
    (Some(follows(activity, y, growth, 0.8)), idle)
}

/// Share of the growth that a figure explains which goes up and down with the level; 0 if it hardly does.
fn follows(figure: &[f64], y: &[f64], growth: f64, least: f64) -> f64 {
    let Some((r, slope)) = stats::correlation(figure, y) else {
        return 0.0;
    };
    if r < least {
        return 0.0;
    }
    let known = || figure.iter().copied().filter(|value| value.is_finite());
    let part = (known().count() / 6).max(1);
    let mean = |values: &mut dyn Iterator<Item = f64>| values.take(part).sum::<f64>() / part as f64;
    let begin = mean(&mut known());
    let end = mean(&mut known().rev());
    (slope * (end - begin) / growth).clamp(0.0, 1.0)
}
