//! One series: its floors, its state and what makes it change.

mod active;

use super::assess::{self, Assessment};
use super::episode::{Ended, Rises};
use super::levels::{LEVELS, Levels, Reading};
use super::stats::Scratch;
use super::trend::{Floors, Trend};
use crate::event::{Cause, Memory, State};
use crate::units::Figure;

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
    /// What there is to judge: bits as of [`Series::push`].
    pub(super) due: u8,
    /// First and last sample, µs.
    pub(super) first: i64,
    pub(super) last_at: i64,
    /// Last level, bytes.
    pub(super) last: f64,
    /// Within these it has stayed so far.
    low: f64,
    high: f64,
    faults: Figure,
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
            due: 0,
            first: at,
            last_at: at,
            last: level,
            low: level,
            high: level,
            faults: Figure::default(),
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
        let activity = match (self.faults.get(), faults) {
            (Some(before), Some(now)) if now >= before && seconds > 0.0 => {
                let own = (level - self.last).max(0.0) / 4096.0;
                Some(((now - before) as f64 - own).max(0.0) / seconds)
            }
            _ => None,
        };
        self.faults = faults.or(self.faults.get()).into();
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
