//! Rises that end: told after the fact by how they began, how fast they were and where they came to rest.

use crate::event::Cause;

const MIB: f64 = 1_048_576.0;
const SECOND: i64 = 1_000_000;

/// One rise above the level that was usual before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Episode {
    /// Begin, µs.
    pub(super) start: i64,
    /// Level before it.
    pub(super) base: f64,
    /// Highest level.
    pub(super) peak: f64,
    /// When half of the height was passed for the last time, upwards.
    half_at: i64,
    /// The level has kept near `rest` since `rest_at`.
    rest: f64,
    pub(super) rest_at: i64,
    /// Processes at the begin.
    processes: Option<u64>,
}

/// How a rise ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ended {
    pub(super) episode: Episode,
    pub(super) cause: Cause,
    pub(super) level: f64,
}

/// Follows the level of one series and tells how its rises end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rises {
    base: f64,
    at: i64,
    level: f64,
    /// Highest level of earlier rises.
    high: f64,
    open: Option<Episode>,
}

impl Rises {
    pub(super) fn new(at: i64, level: f64) -> Self {
        Rises {
            base: level,
            at,
            level,
            high: level,
            open: None,
        }
    }

    /// Takes in one level. `first` is when the series began; a rise of less than `least` is none.
    pub(super) fn push(
        &mut self,
        at: i64,
        level: f64,
        processes: Option<u64>,
        first: i64,
        least: f64,
    ) -> Option<Ended> {
        let before = std::mem::replace(&mut self.at, at);
        let passed = (at - before) as f64 / 1e6;
        self.level = level;
        let Some(open) = &mut self.open else {
            if level >= self.base + (least / 2.0).max(0.05 * self.base) {
                self.open = Some(Episode {
                    start: before,
                    base: self.base,
                    peak: level,
                    half_at: at,
                    rest: level,
                    rest_at: at,
                    processes,
                });
            } else if level < self.base {
                self.base = level;
            } else {
                // What is usual follows slowly.
                self.base += (level - self.base) * (passed / 900.0).min(1.0);
            }
            return None;
        };
        open.peak = open.peak.max(level);
        let height = open.peak - open.base;
        if level < open.base + height / 2.0 {
            open.half_at = at;
        }
        if (level - open.rest).abs() > (0.04 * height).max(MIB) {
            open.rest = level;
            open.rest_at = at;
        }
        let episode = *open;
        let rise = (episode.rest_at - episode.start).max(0);
        let cause = if level <= episode.base + 0.3 * height {
            Cause::Load
        } else if at - episode.rest_at >= rise.clamp(60 * SECOND, 3600 * SECOND) {
            episode.rested(level, processes, first, least)
        } else {
            return None;
        };
        let cause = if cause != Cause::Load && episode.peak <= 1.1 * self.high {
            // It has been here before.
            Cause::Load
        } else {
            cause
        };
        self.high = self.high.max(episode.peak);
        self.open = None;
        self.base = level;
        Some(Ended {
            episode,
            cause,
            level,
        })
    }
}

impl Episode {
    fn rested(&self, level: f64, processes: Option<u64>, first: i64, least: f64) -> Cause {
        let rise = (self.rest_at - self.start).max(1);
        let height = self.peak - self.base;
        let birth = self.start - first <= (rise / 5).max(30 * SECOND);
        let overshot = self.peak - level >= 0.1 * height;
        let more = matches!((self.processes, processes), (Some(then), Some(now)) if now.saturating_mul(4) >= then.saturating_mul(5) && now > then);
        if height < least {
            return Cause::Unknown;
        }
        // A program that is many times as large as before has loaded something; an allocator keeps what a busy moment
        // of a program of some size took.
        let multiplied = level > 4.0 * self.base;
        if more {
            Cause::Load
        } else if overshot && !multiplied && height >= 0.25 * self.base {
            Cause::Retention
        } else if birth || multiplied {
            // A start slows down by itself; what climbs evenly and stops at once has met its cap.
            let early = (self.half_at - self.start) as f64 / (rise as f64) < 0.4;
            if early || rise < 60 * SECOND {
                Cause::Warmup
            } else {
                Cause::Cache
            }
        } else if rise <= 180 * SECOND && height >= 0.25 * self.base {
            Cause::Retention
        } else if rise <= 180 * SECOND {
            Cause::Load
        } else {
            Cause::Cache
        }
    }
}
