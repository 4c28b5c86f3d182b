//! Floors of one series at several bucket sizes, from a second to an hour, in fixed memory.

mod bucket;

pub(super) use self::bucket::{Bucket, MISSING};
use super::trend::Trend;

/// Width of a bucket and buckets kept, by level: 48 seconds, 4 minutes, 24 minutes, 2.4 hours, a day, three days.
pub(super) const LEVELS: [(i64, usize); 6] = [
    (1_000_000, 48),
    (5_000_000, 48),
    (30_000_000, 48),
    (180_000_000, 48),
    (900_000_000, 96),
    (3_600_000_000, 72),
];

/// Buckets of all levels.
const ALL: usize = 360;

/// Where the buckets of each level begin.
const STARTS: [usize; LEVELS.len()] = {
    let mut starts = [0; LEVELS.len()];
    let mut level = 1;
    while level < LEVELS.len() {
        starts[level] = starts[level - 1] + LEVELS[level - 1].1;
        level += 1;
    }
    starts
};

/// Buckets side by side with the times of their middles; `begin` is that of the first.
fn timed(
    begin: i64,
    width: i64,
    buckets: &[Bucket],
) -> impl DoubleEndedIterator<Item = (i64, &Bucket)> {
    buckets
        .iter()
        .enumerate()
        .map(move |(place, bucket)| (begin + place as i64 * width, bucket))
}

/// What one sample brings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// µs.
    pub(super) at: i64,
    /// Bytes.
    pub(super) level: f64,
    /// Page faults a second since the last sample.
    pub(super) activity: Option<f64>,
    /// Processes.
    pub(super) processes: Option<u64>,
    /// Virtual size, bytes.
    pub(super) virt: Option<f64>,
}

/// The bucket being filled.
#[derive(Clone, Copy, Debug)]
struct Open {
    index: i64,
    /// Where it will lie in the ring: `index` modulo the ring's length, without a division for each bucket.
    place: u32,
    floor: f32,
    peak: f32,
    activity: f64,
    activities: u32,
    processes: f32,
    virt: f32,
}

impl Open {
    fn empty(level: usize, index: i64) -> Open {
        Open::at(index, index.rem_euclid(LEVELS[level].1 as i64) as u32)
    }

    /// The empty bucket that begins the time after this one's, or later.
    fn next(&self, level: usize, index: i64) -> Open {
        if index != self.index + 1 {
            return Open::empty(level, index);
        }
        let place = self.place + 1;
        let length = LEVELS[level].1 as u32;
        Open::at(index, if place == length { 0 } else { place })
    }

    fn at(index: i64, place: u32) -> Open {
        Open {
            index,
            place,
            floor: f32::INFINITY,
            peak: f32::NEG_INFINITY,
            activity: 0.0,
            activities: 0,
            processes: f32::NAN,
            virt: f32::NAN,
        }
    }

    fn bucket(&self) -> Bucket {
        if !self.floor.is_finite() {
            return MISSING;
        }
        let activity = if self.activities > 0 {
            (self.activity / f64::from(self.activities)) as f32
        } else {
            f32::NAN
        };
        Bucket::new(self.floor, self.peak, self.virt, activity, self.processes)
    }
}

/// The rings of one series.
#[derive(Clone, Debug)]
pub(super) struct Levels {
    open: [Option<Open>; LEVELS.len()],
    /// Lowest floor of each level, kept as buckets come. Where that bucket has gone it may be too low.
    lows: [f32; LEVELS.len()],
    /// Bits of the levels where it may be.
    gone: u8,
    buckets: Box<[Bucket; ALL]>,
}

impl Levels {
    pub(super) fn new() -> Self {
        Levels {
            open: [None; LEVELS.len()],
            lows: [f32::INFINITY; LEVELS.len()],
            gone: 0,
            buckets: Box::new([MISSING; ALL]),
        }
    }

    /// Rings that say the series stayed between `floor` and `peak` from `from` to `to` (µs).
    pub(super) fn flat(
        from: i64,
        to: i64,
        floor: f64,
        peak: f64,
        processes: Option<u64>,
        virt: Option<f64>,
    ) -> Self {
        let mut levels = Levels::new();
        for (level, (width, length)) in LEVELS.into_iter().enumerate() {
            let last = to.div_euclid(width);
            let first = from.div_euclid(width).max(last - (length as i64 - 1));
            for index in first..last {
                *levels.bucket(level, index) = Bucket::new(
                    floor as f32,
                    peak as f32,
                    virt.map_or(f32::NAN, |virt| virt as f32),
                    f32::NAN,
                    processes.map_or(f32::NAN, |count| count as f32),
                );
            }
            levels.lows[level] = levels.lowest_of(level);
            levels.open[level] = Some(Open {
                floor: floor as f32,
                peak: peak as f32,
                ..Open::empty(level, last)
            });
        }
        levels
    }

    const fn start(level: usize) -> usize {
        STARTS[level]
    }

    fn bucket(&mut self, level: usize, index: i64) -> &mut Bucket {
        let length = LEVELS[level].1;
        let at = index.rem_euclid(length as i64) as usize;
        &mut self.buckets[Self::start(level) + at]
    }

    /// Takes in a reading; the bits of the levels at which a bucket was closed by it. A bucket that closes becomes part
    /// of the one above it, so most readings touch the finest level only.
    #[inline]
    pub(super) fn push(&mut self, reading: &Reading) -> u8 {
        let index = reading.at.div_euclid(LEVELS[0].0);
        if let Some(open) = &mut self.open[0]
            && open.index >= index
        {
            open.floor = open.floor.min(reading.level as f32);
            open.peak = open.peak.max(reading.level as f32);
            if let Some(activity) = reading.activity {
                open.activity += activity;
                open.activities += 1;
            }
            if let Some(processes) = reading.processes {
                open.processes = processes as f32;
            }
            if let Some(virt) = reading.virt {
                open.virt = virt as f32;
            }
            return 0;
        }
        let closed = self.roll(reading.at);
        // Rolled on to the reading's time, if there was one.
        let open = self.open[0].unwrap_or_else(|| Open::empty(0, index));
        self.open[0] = Some(Open {
            index: open.index,
            place: open.place,
            floor: reading.level as f32,
            peak: reading.level as f32,
            activity: reading.activity.unwrap_or(0.0),
            activities: u32::from(reading.activity.is_some()),
            processes: reading
                .processes
                .map_or(f32::NAN, |processes| processes as f32),
            virt: reading.virt.map_or(f32::NAN, |virt| virt as f32),
        });
        closed
    }

    /// Closes every bucket that ends before `at`.
    fn roll(&mut self, at: i64) -> u8 {
        let mut closed = 0;
        let mut below: Option<(i64, Bucket)> = None;
        for (level, (width, _)) in LEVELS.iter().enumerate() {
            if let Some((from, bucket)) = below.take() {
                self.merge(level, from, &bucket);
            }
            let Some(open) = self.open[level] else { break };
            // A division only where a bucket was passed over.
            let end = (open.index + 1) * width;
            if at < end {
                break;
            }
            let next = if at < end + width {
                open.index + 1
            } else {
                at.div_euclid(*width)
            };
            let bucket = open.bucket();
            self.close(level, &open, bucket, next);
            self.open[level] = Some(open.next(level, next));
            closed |= 1 << level;
            if bucket.floor.is_finite() {
                below = Some((open.index * width, bucket));
            }
        }
        closed
    }

    /// Makes a closed bucket that began at `from` (µs) part of the open one of the level above.
    fn merge(&mut self, level: usize, from: i64, bucket: &Bucket) {
        let open = self.open[level]
            .get_or_insert_with(|| Open::empty(level, from.div_euclid(LEVELS[level].0)));
        open.floor = open.floor.min(bucket.floor);
        open.peak = open.peak.max(bucket.peak);
        if bucket.activity().is_finite() {
            open.activity += f64::from(bucket.activity());
            open.activities += 1;
        }
        if bucket.processes().is_finite() {
            open.processes = bucket.processes();
        }
        if bucket.virt.is_finite() {
            open.virt = bucket.virt;
        }
    }

    fn close(&mut self, level: usize, open: &Open, bucket: Bucket, next: i64) {
        let (_, length) = LEVELS[level];
        let start = Self::start(level);
        let index = open.index;
        // Samples that far apart make no floors of this width, and the next level keeps them.
        if next - index > (length / 8) as i64 && level + 1 < LEVELS.len() {
            if self.lows[level] != f32::INFINITY {
                self.buckets[start..start + length].fill(MISSING);
                self.lows[level] = f32::INFINITY;
                self.gone &= !(1 << level);
            }
            return;
        }
        let low = self.lows[level];
        let mut place = open.place as usize;
        let mut lost = false;
        let mut put = |place: usize, bucket: Bucket| {
            let old = std::mem::replace(&mut self.buckets[start + place], bucket);
            lost |= old.floor <= low;
        };
        put(place, bucket);
        // What lies between, and what was there a round ago, had no sample.
        for _ in 0..(next - index).min(length as i64 - 1) {
            place = if place + 1 == length { 0 } else { place + 1 };
            put(place, MISSING);
        }
        // A bucket that was the lowest is gone: who needs to know looks. One that is as low makes up for it.
        if bucket.floor <= low {
            self.lows[level] = bucket.floor;
            self.gone &= !(1 << level);
        } else if lost {
            self.gone |= 1 << level;
        }
    }

    fn lowest_of(&self, level: usize) -> f32 {
        let start = Self::start(level);
        self.buckets[start..start + LEVELS[level].1]
            .iter()
            .map(|bucket| bucket.floor)
            // Not-a-number is below nothing.
            .fold(
                f32::INFINITY,
                |low, floor| if floor < low { floor } else { low },
            )
    }

    /// The closed buckets of a level that hold something, oldest first, with the time of their middle (µs).
    pub(super) fn closed(&self, level: usize) -> impl DoubleEndedIterator<Item = (i64, &Bucket)> {
        let (width, length) = LEVELS[level];
        let start = Self::start(level);
        let ring = &self.buckets[start..start + length];
        let (end, place) = self.open[level].map_or((0, 0), |open| (open.index, open.place));
        // The oldest is the one at the open one's place, which holds nothing of the open one yet.
        let (young, old) = ring.split_at(place as usize);
        let oldest = (end - length as i64) * width + width / 2;
        let next = oldest + old.len() as i64 * width;
        timed(oldest, width, old)
            .chain(timed(next, width, young))
            .filter(|(_, bucket)| bucket.floor.is_finite())
    }

    /// Those of them that end at or after `from` and at or before `until` (µs).
    fn ending(
        &self,
        level: usize,
        from: i64,
        until: i64,
    ) -> impl DoubleEndedIterator<Item = (i64, &Bucket)> {
        let (width, length) = LEVELS[level];
        let start = Self::start(level);
        let ring = &self.buckets[start..start + length];
        let (end, place) = self.open[level].map_or((0, 0), |open| (open.index, open.place));
        let (young, old) = ring.split_at(place as usize);
        let first = end - length as i64;
        // A bucket ends where the next one begins. Divisions are what costs here: where an end is open there is none.
        let skip = if from <= first * width {
            0
        } else {
            (from.div_euclid(width) + i64::from(from.rem_euclid(width) != 0) - 1 - first)
                .clamp(0, length as i64) as usize
        };
        let take = if until >= end * width {
            length
        } else {
            (until.div_euclid(width) - first).clamp(0, length as i64) as usize
        };
        let old_take = take.min(old.len());
        let old = &old[skip.min(old_take)..old_take];
        let young_take = take - old_take;
        let young = &young[skip.saturating_sub(length - young.len()).min(young_take)..young_take];
        let oldest = (first + skip as i64) * width + width / 2;
        let next = oldest + old.len() as i64 * width;
        timed(oldest, width, old)
            .chain(timed(next, width, young))
            .filter(|(_, bucket)| bucket.floor.is_finite())
    }

    /// What the floors of a level have risen by, from the lowest to the last, if that is `least` or more.
    pub(super) fn growth(&mut self, level: usize, least: f64) -> Option<f64> {
        let latest = self.latest(level)?;
        let bit = 1 << level;
        if self.gone & bit != 0 && latest - f64::from(self.lows[level]) >= least {
            self.lows[level] = self.lowest_of(level);
            self.gone &= !bit;
        }
        let growth = latest - f64::from(self.lows[level]);
        (growth >= least).then_some(growth)
    }

    /// Index of the bucket that is open at a level.
    pub(super) fn index(&self, level: usize) -> Option<i64> {
        self.open[level].map(|open| open.index)
    }

    /// Floor of the last closed bucket of a level.
    pub(super) fn latest(&self, level: usize) -> Option<f64> {
        let open = self.open[level].as_ref()?;
        let start = Self::start(level);
        let ring = &self.buckets[start..start + LEVELS[level].1];
        let (young, old) = ring.split_at(open.place as usize);
        // Mostly the very first.
        young
            .iter()
            .rev()
            .chain(old.iter().rev())
            .map(|bucket| bucket.floor)
            .find(|floor| floor.is_finite())
            .map(f64::from)
    }

    /// Highest level before `at` (µs) that any bucket remembers.
    pub(super) fn peak_before(&self, at: i64) -> Option<f64> {
        let mut peak = f32::NEG_INFINITY;
        for level in 0..LEVELS.len() {
            for (_, bucket) in self.ending(level, i64::MIN, at) {
                peak = peak.max(bucket.peak);
            }
        }
        peak.is_finite().then_some(f64::from(peak))
    }

    /// Where a climb that a trend sees a part of really began (µs, bytes), and how long (seconds) the level kept near there
    /// before. A climb may be older than what one level remembers. `teeth` are the ups and downs within each bucket that
    /// the floors see through, 0 if there are none.
    pub(super) fn origin(
        &self,
        onset: i64,
        trend: &Trend,
        teeth: f64,
        first: i64,
    ) -> ((i64, f64), f64) {
        let (from, to) = (trend.from, trend.to);
        let before = |until: i64| {
            (0..LEVELS.len()).flat_map(move |level| {
                let half = LEVELS[level].0 / 2;
                self.ending(level, i64::MIN, until)
                    .map(move |(middle, bucket)| {
                        (
                            middle + half,
                            half,
                            f64::from(bucket.floor),
                            f64::from(bucket.peak),
                        )
                    })
            })
        };
        let lowest = before(onset)
            .map(|(_, _, floor, _)| floor)
            .fold(f64::INFINITY, f64::min);
        let mut origin = (onset, from);
        if lowest < from - 0.1 * (to - from) {
            let near = lowest + 0.06 * (to - lowest);
            let high = lowest + 0.2 * (to - lowest) + 1.5 * teeth;
            let begin = before(onset)
                .filter(|(_, _, floor, _)| *floor <= near)
                // A wide bucket that was left upwards says only that it was low at its begin.
                .map(|(end, half, _, peak)| if peak > high { end - 2 * half } else { end })
                .max();
            if let Some(begin) = begin {
                origin = (begin, lowest);
            }
        }
        let height = to - origin.1;
        // Since when it has been within an eighth of the climb around its origin, with its peaks.
        let moved = before(origin.0)
            .filter(|(_, _, floor, peak)| {
                (floor - origin.1).abs() > 0.125 * height
                    || peak - origin.1 > 0.2 * height + 1.5 * teeth
            })
            .map(|(end, ..)| end)
            .max()
            .unwrap_or_else(|| first.min(origin.0));
        (origin, (origin.0 - moved) as f64 / 1e6)
    }

    /// Whether the coarser rings remember a level above `height` from before the window of `level`.
    pub(super) fn was_above(&self, level: usize, height: f64) -> bool {
        let (width, length) = LEVELS[level];
        let Some(open) = self.open[level] else {
            return 0.0 > height;
        };
        let begin = (open.index - length as i64) * width;
        0.0 > height
            || (level + 1..LEVELS.len()).any(|coarser| {
                self.ending(coarser, i64::MIN, begin)
                    .any(|(_, bucket)| f64::from(bucket.peak) > height)
            })
    }

    /// Peak over floor of the last closed bucket of a level.
    pub(super) fn swing(&self, level: usize) -> f64 {
        let (_, length) = LEVELS[level];
        self.open[level].map_or(0.0, |open| {
            let place = (open.place as usize).checked_sub(1).unwrap_or(length - 1);
            let bucket = &self.buckets[Self::start(level) + place];
            let swing = f64::from(bucket.peak - bucket.floor);
            if swing.is_finite() { swing } else { 0.0 }
        })
    }

    /// Level at or shortly before `at` (µs), as fine as it is remembered.
    pub(super) fn level_at(&self, at: i64) -> Option<f64> {
        for (level, (width, _)) in LEVELS.iter().enumerate() {
            let found = self
                .closed(level)
                .take_while(|(middle, _)| middle - width / 2 <= at)
                .last();
            if let Some((_, bucket)) = found {
                return Some(f64::from(bucket.floor));
            }
        }
        None
    }

    /// The first bucket that ends at or after `at` (µs) for which `known` gives a figure.
    fn first_after(&self, at: i64, known: impl Fn(&Bucket) -> f32) -> Option<f64> {
        (0..LEVELS.len())
            .filter_map(|level| {
                self.ending(level, at, i64::MAX)
                    .find(|(_, bucket)| known(bucket).is_finite())
                    .map(|(middle, bucket)| (middle + LEVELS[level].0 / 2, bucket))
            })
            .min_by_key(|(end, _)| *end)
            .map(|(_, bucket)| f64::from(known(bucket)))
    }

    /// Processes at or after `at` (µs), as early as they are remembered.
    pub(super) fn processes_at(&self, at: i64) -> Option<u64> {
        self.first_after(at, Bucket::processes)
            .map(|count| count as u64)
    }

    /// Virtual size at or after `at` (µs), as early as it is remembered.
    pub(super) fn virt_at(&self, at: i64) -> Option<f64> {
        self.first_after(at, |bucket| bucket.virt)
    }

    /// Closed buckets of every level for the state file: level, index, bucket.
    pub(super) fn entries(&self) -> impl Iterator<Item = (usize, i64, Bucket)> {
        (0..LEVELS.len()).flat_map(move |level| {
            let width = LEVELS[level].0;
            self.closed(level)
                .map(move |(middle, bucket)| (level, middle.div_euclid(width), *bucket))
        })
    }

    /// Puts a saved bucket back; they come oldest first within a level.
    pub(super) fn put(&mut self, level: usize, index: i64, bucket: Bucket) {
        if level >= LEVELS.len() || !bucket.floor.is_finite() {
            return;
        }
        if let Some(open) = self.open[level]
            && index < open.index
        {
            return;
        }
        self.open[level] = Some(Open::empty(level, index + 1));
        *self.bucket(level, index) = bucket;
        self.lows[level] = self.lowest_of(level);
        self.gone &= !(1 << level);
    }
}
