//! One series: its floors, its state and what makes it change.

use super::assess::{self, Around, Assessment};
use super::episode::{Ended, Rises};
use super::levels::{LEVELS, Levels, Reading};
use super::season;
use super::stats::Scratch;
use super::trend::{Floors, Trend, analyse};
use crate::event::{Cause, Memory, State};

use serde::{Deserialize, Serialize};

const MIB: f64 = 1_048_576.0;
/// A series that moves less than this share of its level has nothing worth keeping; within [`BAND`] bytes.
const BAND_SHARE: f64 = 0.002;
const BAND: (f64, f64) = (MIB, 4.0 * MIB);
/// Bit of the mask beyond those of the levels: a rise has ended.
const ENDED: u8 = 0x80;

/// Room for judging, shared by all series.
#[derive(Debug, Default)]
pub(super) struct Bench {
    pub(super) floors: Floors,
    pub(super) scratch: Scratch,
}

/// One series.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) memory: Memory,
    /// First and last sample, µs.
    pub(super) first: i64,
    pub(super) last_at: i64,
    /// Last level, bytes.
    pub(super) last: f64,
    /// Within these it has stayed so far.
    low: f64,
    high: f64,
    faults: Option<u64>,
    pub(super) active: Option<Box<Active>>,
}

/// What is kept of a series that has moved.
#[derive(Clone, Debug)]
pub(super) struct Active {
    pub(super) levels: Levels,
    pub(super) state: State,
    pub(super) cause: Cause,
    best: Option<Judged>,
    held: Option<Held>,
    rises: Rises,
    ended: Option<Ended>,
    least: f64,
    virt: Option<f64>,
    /// By level: judgements in a row that were good for a verdict.
    agreed: [u8; LEVELS.len()],
    /// By level: when it is worth looking again, µs.
    again: [i64; LEVELS.len()],
    /// When the state was entered, µs.
    entered: i64,
}

#[derive(Clone, Debug)]
struct Judged {
    at: i64,
    trend: Trend,
    said: Assessment,
}

/// What a suspicion rests on, to see it end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) level: usize,
    pub(super) onset: i64,
    pub(super) from: f64,
    pub(super) high: f64,
    pub(super) high_at: i64,
    pub(super) rate: f64,
    pub(super) patience: f64,
}

/// What is said when the state changes.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) state: State,
    pub(super) cause: Cause,
    /// The trend it rests on, if it is about growth that goes on.
    pub(super) trend: Option<Trend>,
    pub(super) said: Option<Assessment>,
    /// The rise that ended, if it is about one.
    pub(super) ended: Option<Ended>,
    pub(super) peak_before: Option<f64>,
    /// What was held against it until now, if it has stopped.
    pub(super) held: Option<Held>,
}

/// What a series cannot know by itself.
pub(super) struct Context<'a> {
    pub(super) room: Option<f64>,
    /// Share of a growth since then (µs) that the children account for.
    pub(super) children: &'a dyn Fn(i64, f64) -> f64,
}

impl Series {
    pub(super) fn new(memory: Memory, at: i64, level: f64) -> Self {
        Series {
            memory,
            first: at,
            last_at: at,
            last: level,
            low: level,
            high: level,
            faults: None,
            active: None,
        }
    }

    /// A series that was at most at `level` since `first`.
    pub(super) fn risen(memory: Memory, first: i64, at: i64, level: f64) -> Self {
        let mut series = Series::new(memory, first, level);
        series.last_at = at;
        series
    }

    pub(super) fn state(&self) -> State {
        self.active
            .as_ref()
            .map_or(State::Normal, |active| active.state)
    }

    /// Level at or shortly before `at` (µs); zero before it began.
    pub(super) fn level_at(&self, at: i64) -> f64 {
        if at < self.first {
            return 0.0;
        }
        match &self.active {
            Some(active) => active.levels.level_at(at).unwrap_or(self.low),
            None => self.low,
        }
    }

    /// Takes in a sample; what there is to judge, 0 for nothing.
    pub(super) fn push(
        &mut self,
        at: i64,
        level: f64,
        faults: Option<u64>,
        processes: Option<u64>,
        virt: Option<f64>,
    ) -> u8 {
        if at <= self.last_at && self.last_at != self.first {
            return 0;
        }
        let seconds = (at - self.last_at) as f64 / 1e6;
        let activity = match (self.faults, faults) {
            (Some(before), Some(now)) if now >= before && seconds > 0.0 => {
                let own = (level - self.last).max(0.0) / 4096.0;
                Some(((now - before) as f64 - own).max(0.0) / seconds)
            }
            _ => None,
        };
        self.faults = faults.or(self.faults);
        let before = self.last_at;
        self.last_at = at;
        self.last = level;
        if self.active.is_none() {
            let (low, high) = (self.low.min(level), self.high.max(level));
            if high - low < (BAND_SHARE * high).clamp(BAND.0, BAND.1) {
                (self.low, self.high) = (low, high);
                return 0;
            }
            self.active = Some(Box::new(Active {
                levels: Levels::flat(self.first, before + 1, self.low, self.high, processes, virt),
                state: State::Normal,
                cause: Cause::Unknown,
                best: None,
                held: None,
                rises: Rises::new(before, self.low),
                ended: None,
                least: assess::least_growth(None),
                virt,
                agreed: [0; LEVELS.len()],
                again: [i64::MIN; LEVELS.len()],
                entered: at,
            }));
        }
        let Some(active) = &mut self.active else {
            return 0;
        };
        active.virt = virt.or(active.virt);
        let closed = active.levels.push(&Reading {
            at,
            level,
            activity,
            processes,
            virt,
        });
        let mut mask = active.worth(closed, at, at - before);
        if let Some(ended) = active
            .rises
            .push(at, level, processes, self.first, active.least)
            && (ended.cause != Cause::Load || active.state != State::Normal)
        {
            active.ended = Some(ended);
            mask |= ENDED;
        }
        mask
    }

    /// Judges the levels in `mask`; what has changed, if anything.
    pub(super) fn judge(
        &mut self,
        mask: u8,
        context: &Context<'_>,
        bench: &mut Bench,
    ) -> Option<Change> {
        let (first, now, memory) = (self.first, self.last_at, self.memory);
        let active = self.active.as_deref_mut()?;
        active.least = assess::least_growth(context.room);
        if active.best.as_ref().is_some_and(|best| best.is_stale(now)) {
            active.best = None;
        }
        for level in 0..LEVELS.len() {
            if mask & (1 << level) != 0 {
                active.look(level, first, memory, now, context, bench);
            }
        }
        active.step(now, memory)
    }

    /// What a state file keeps; `None` for a series that has not moved.
    pub(super) fn parts(&self) -> Option<SeriesParts<'_>> {
        let active = self.active.as_deref()?;
        Some(SeriesParts {
            levels: &active.levels,
            state: active.state,
            cause: active.cause,
            entered: active.entered,
            held: active.held,
        })
    }

    /// A series from a state file.
    pub(super) fn from_parts(
        memory: Memory,
        (first, last_at, last): (i64, i64, f64),
        parts: SeriesParts<'_>,
    ) -> Self {
        let mut series = Series::new(memory, first, last);
        series.last_at = last_at;
        // A state that rests on something needs it; without it the series is judged anew.
        let rests = parts.held.is_some() || parts.state == State::Normal;
        series.active = Some(Box::new(Active {
            levels: parts.levels.clone(),
            state: if rests { parts.state } else { State::Normal },
            cause: parts.cause,
            best: None,
            held: parts.held,
            rises: Rises::new(last_at, last),
            ended: None,
            least: assess::least_growth(None),
            virt: None,
            agreed: [0; LEVELS.len()],
            again: [i64::MIN; LEVELS.len()],
            entered: parts.entered,
        }));
        series
    }

    /// Forgets everything but the level: another program runs here now.
    pub(super) fn reset(&mut self, at: i64, level: f64) {
        *self = Series::new(self.memory, at, level);
    }
}

/// The parts of a series that a state file keeps.
pub(super) struct SeriesParts<'a> {
    pub(super) levels: &'a Levels,
    pub(super) state: State,
    pub(super) cause: Cause,
    pub(super) entered: i64,
    pub(super) held: Option<Held>,
}

impl Held {
    pub(super) fn is_sane(&self) -> bool {
        self.level < LEVELS.len()
            && [self.from, self.high, self.rate, self.patience]
                .iter()
                .all(|value| value.is_finite() && *value >= 0.0)
    }
}

impl Judged {
    fn is_stale(&self, now: i64) -> bool {
        let width = LEVELS[self.trend.level].0;
        now - self.at > (6 * width).max(10_000_000)
    }

    fn rank(&self) -> (State, f64) {
        (self.said.state, self.said.confidence)
    }
}

impl Active {
    /// The levels among `closed` at which growth might be seen, cheaply.
    fn worth(&mut self, closed: u8, at: i64, gap: i64) -> u8 {
        if closed == 0 {
            return 0;
        }
        let mut mask = 0;
        for (level, (width, length)) in LEVELS.iter().enumerate() {
            if closed & (1 << level) == 0 {
                break;
            }
            let index = at.div_euclid(*width);
            // A judgement costs as much as some hundred samples; half the resolution of a fine level is enough. Samples
            // far apart make no series of fine buckets.
            if *length == 48 && (index % 2 != 0 || gap * 8 > *width * *length as i64) {
                continue;
            }
            let Some(latest) = self.levels.latest(level) else {
                continue;
            };
            let growth = latest - f64::from(self.levels.lowest(level));
            if growth < self.least / 2.0 || at < self.again[level] {
                continue;
            }
            // A climb that is many windows of this level old is seen better by the next one.
            if level + 1 < LEVELS.len() && self.levels.growth(level + 1) >= 4.5 * growth {
                continue;
            }
            // What has been as high before comes and goes, unless its floors see through that.
            if latest - self.levels.peak_older(level) < self.least / 4.0
                && self.levels.swing(level) < 0.1 * growth
            {
                continue;
            }
            mask |= 1 << level;
        }
        if self.state > State::Normal {
            mask |= 1 << 7;
        }
        mask
    }

    fn look(
        &mut self,
        level: usize,
        first: i64,
        memory: Memory,
        now: i64,
        context: &Context<'_>,
        bench: &mut Bench,
    ) {
        let trend = analyse(
            &self.levels,
            level,
            self.least / 4.0,
            &mut bench.floors,
            &mut bench.scratch,
        );
        let seasonal = (level + 1 == LEVELS.len())
            .then(|| season::analyse(&self.levels, self.least, &mut bench.scratch))
            .flatten();
        for mut trend in trend.into_iter().chain(seasonal) {
            let onset = trend.onset - LEVELS[level].0 / 2;
            if !assess::is_growth(&trend, self.least) {
                self.agreed[level] = self.agreed[level].saturating_sub(1);
                continue;
            }
            let peak_before = self.levels.peak_before(onset);
            // Teeth count as such only where they are what reached the earlier peaks.
            let teeth = match peak_before {
                Some(peak) if trend.teeth >= 0.5 * (peak - trend.from) => trend.teeth,
                _ => 0.0,
            };
            let (origin, still) = self.levels.origin(onset, &trend, teeth, first);
            let around = Around {
                room: context.room,
                first,
                origin,
                still,
                own: memory == Memory::Anon,
                settles: !matches!(memory, Memory::Shmem | Memory::Slab),
                peak_before: if teeth > 0.0 { None } else { peak_before },
                children: (context.children)(onset, trend.growth()),
                flat_day: season::flat_day(&self.levels, trend.onset, trend.growth()),
                virt: self
                    .virt
                    .zip(self.levels.virt_at(origin.0))
                    .map(|(now, then)| now - then),
                processes: self
                    .levels
                    .processes_at(origin.0)
                    .zip(trend.processes.map(|[_, end]| end)),
            };
            let mut said = assess::assess(&trend, &around);
            // Far from any change of state there is no need to look at each bucket: a fifth of the way to it can wait.
            let seconds = (trend.end - origin.0).max(trend.end - trend.onset) as f64 / 1e6;
            let next = if seconds < 0.25 * said.needed {
                0.25
            } else {
                0.85
            };
            let wait = (0.2 * (next * said.needed - seconds)).clamp(0.0, 0.15 * seconds);
            if said.state <= State::Growing {
                self.again[level] = now + (wait * 1e6) as i64;
            }
            if said.state > State::Normal && trend.slope.deviation > 0.0 {
                bench.floors.interval(&mut trend, &mut bench.scratch);
            }
            if said.state == State::Confirmed {
                self.agreed[level] = self.agreed[level].saturating_add(1);
                if self.agreed[level] < said.in_a_row {
                    said.state = State::Suspect;
                }
            } else {
                self.agreed[level] = self.agreed[level].saturating_sub(1);
            }
            let judged = Judged {
                at: now,
                trend,
                said,
            };
            let replace = self
                .best
                .as_ref()
                .is_none_or(|best| best.trend.level == level || judged.rank() >= best.rank());
            if replace {
                self.best = Some(judged);
            }
        }
    }

    /// One step of the state machine.
    fn step(&mut self, now: i64, memory: Memory) -> Option<Change> {
        // A rise that ends within a longer climb, as each tooth of a saw-tooth does, says nothing of the climb.
        let ended = self.ended.take().filter(|ended| {
            self.held.is_none_or(|held| {
                ended.episode.start <= held.onset + LEVELS[held.level].0
                    || ended.cause == Cause::Retention && self.state == State::Normal
            })
        });
        let (mut seen, cause) = self
            .best
            .as_ref()
            .map_or((State::Normal, Cause::Unknown), |best| {
                (best.said.state, best.said.cause)
            });
        let cause = match memory {
            Memory::File => {
                seen = seen.min(State::Growing);
                Cause::Cache
            }
            Memory::Shmem if seen < State::Suspect => Cause::Cache,
            _ => cause,
        };
        match self.state {
            State::Suspect | State::Confirmed => {
                if self.cause == Cause::Leak || self.cause == Cause::Cache {
                    if seen > self.state && cause == Cause::Leak {
                        return self.rise(seen, cause, now);
                    }
                    self.follow(now, seen);
                    let held = self.held?;
                    let latest = self.levels.latest(held.level).unwrap_or(held.high);
                    let fell = latest < held.from + 0.5 * (held.high - held.from);
                    let stopped = (now - held.high_at) as f64 / 1e6 >= held.patience;
                    let rested = ended.is_some_and(|ended| {
                        ended.episode.rest_at - held.onset > 0
                            && (now - ended.episode.rest_at) as f64 / 1e6 >= held.patience / 2.0
                    });
                    if fell || stopped || rested {
                        let cause = match (self.state, ended) {
                            (State::Suspect, Some(ended)) => ended.cause,
                            (State::Suspect, None) if fell => Cause::Load,
                            (State::Suspect, None) => Cause::Unknown,
                            _ => self.cause,
                        };
                        return self.settle(State::Recovered, cause, ended, now);
                    }
                    return None;
                }
                // Retention: it ends when the memory goes back, or turns out to be growth that goes on.
                if seen >= State::Suspect && cause == Cause::Leak && seen >= self.state {
                    return self.rise(seen, cause, now);
                }
                let held = self.held?;
                let latest = self.levels.latest(2).unwrap_or(held.high);
                if latest < held.from + 0.5 * (held.high - held.from) {
                    return self.settle(State::Recovered, self.cause, ended, now);
                }
                None
            }
            State::Normal | State::Growing | State::Recovered => {
                if let Some(ended) = ended {
                    if ended.cause == Cause::Retention && memory == Memory::Anon {
                        self.hold_plateau(&ended, now);
                        return self.change(State::Suspect, Cause::Retention, Some(ended), now);
                    }
                    self.best = None;
                    if self.state == State::Growing {
                        return self.settle(State::Normal, ended.cause, Some(ended), now);
                    }
                }
                if seen > State::Normal && (seen > self.state || self.state == State::Recovered) {
                    if self.state == State::Recovered && seen < State::Suspect {
                        return None;
                    }
                    return self.rise(seen, cause, now);
                }
                if self.state == State::Growing && seen == State::Growing && cause != self.cause {
                    self.cause = cause;
                    return None;
                }
                let quiet = (now - self.entered) as f64 / 1e6;
                let patience = self.held.map_or(60.0, |held| held.patience);
                if self.state == State::Recovered && quiet >= patience {
                    return self.settle(State::Normal, self.cause, None, now);
                }
                if self.state == State::Growing {
                    self.follow(now, seen);
                    let held = self.held?;
                    let latest = self.levels.latest(held.level).unwrap_or(held.high);
                    let fell = latest < held.from + 0.5 * (held.high - held.from);
                    let stopped = (now - held.high_at) as f64 / 1e6 >= held.patience;
                    if fell || stopped {
                        let cause = match self.cause {
                            Cause::Unknown if fell => Cause::Load,
                            cause => cause,
                        };
                        return self.settle(State::Normal, cause, None, now);
                    }
                }
                None
            }
        }
    }

    /// Keeps what is held up to date: how high it got, and when it last rose at a fair part of its rate.
    fn follow(&mut self, now: i64, seen: State) {
        let Some(held) = &mut self.held else { return };
        let Some(latest) = self.levels.latest(held.level) else {
            return;
        };
        let passed = (now - held.high_at) as f64 / 1e6;
        if latest - held.high >= 0.25 * held.rate * passed && latest > held.high {
            held.high = latest;
            held.high_at = now;
        }
        if seen >= self.state
            && let Some(best) = &self.best
            && best.trend.level >= held.level
        {
            held.level = best.trend.level;
            held.rate = best.trend.slope.median;
            held.patience = held.patience.max(patience(&best.trend, &best.said));
        }
    }

    fn rise(&mut self, state: State, cause: Cause, now: i64) -> Option<Change> {
        let best = self.best.as_ref()?;
        self.held = Some(Held {
            level: best.trend.level,
            onset: best.trend.onset,
            from: best.trend.from,
            high: best.trend.to,
            high_at: now,
            rate: best.trend.slope.median,
            patience: patience(&best.trend, &best.said),
        });
        self.change(state, cause, None, now)
    }

    fn hold_plateau(&mut self, ended: &Ended, now: i64) {
        self.held = Some(Held {
            level: 2,
            onset: ended.episode.start,
            from: ended.episode.base,
            high: ended.level,
            high_at: now,
            rate: 0.0,
            patience: 60.0,
        });
        self.best = None;
    }

    fn settle(
        &mut self,
        state: State,
        cause: Cause,
        ended: Option<Ended>,
        now: i64,
    ) -> Option<Change> {
        self.best = None;
        let change = self.change(state, cause, ended, now);
        if state == State::Normal {
            self.held = None;
        }
        change
    }

    fn change(
        &mut self,
        state: State,
        cause: Cause,
        ended: Option<Ended>,
        now: i64,
    ) -> Option<Change> {
        self.state = state;
        self.cause = cause;
        self.entered = now;
        let best = self.best.as_ref();
        Some(Change {
            state,
            cause,
            trend: best.map(|best| best.trend.clone()),
            said: best.map(|best| best.said),
            ended,
            peak_before: best.and_then(|best| {
                self.levels
                    .peak_before(best.trend.onset - LEVELS[best.trend.level].0 / 2)
            }),
            held: self.held,
        })
    }
}

/// Seconds without growth after which it counts as stopped.
fn patience(trend: &Trend, said: &Assessment) -> f64 {
    let width = LEVELS[trend.level].0 as f64 / 1e6;
    (0.5 * trend.seconds().min(said.needed))
        .max(8.0 * width)
        .max(20.0)
}
