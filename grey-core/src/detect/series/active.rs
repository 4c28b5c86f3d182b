//! The state machine of a series that has moved: which levels to judge, and what a judgement changes.

use super::{Active, Bench, Change, Context, Ended, Held, Judged};
use crate::detect::assess::{self, Around};
use crate::detect::levels::LEVELS;
use crate::detect::season;
use crate::detect::trend::analyse;
use crate::detect::{assess::Assessment, trend::Trend};
use crate::event::{Cause, Memory, State};

impl Active {
    /// The levels among `closed` at which growth might be seen, cheaply.
    pub(super) fn worth(&mut self, closed: u8, at: i64, gap: i64) -> u8 {
        if closed == 0 {
            return 0;
        }
        let mut mask = 0;
        for (level, (width, length)) in LEVELS.iter().enumerate() {
            if closed & (1 << level) == 0 {
                break;
            }
            let index = self.levels.index(level).unwrap_or(0);
            // A judgement costs as much as some hundred samples; half the resolution of a fine level is enough, except
            // where a suspicion waits for nothing but time. Samples far apart make no series of fine buckets.
            let close = self.state == State::Suspect && self.agreed[level] == 0;
            if *length == 48 && (index % 2 != 0 && !close || gap * 8 > *width * *length as i64) {
                continue;
            }
            if at < self.again[level] {
                continue;
            }
            let Some(growth) = self.levels.growth(level, self.least / 2.0) else {
                continue;
            };
            // A climb that is many windows of this level old is seen better by the next one.
            if level + 1 < LEVELS.len() && self.levels.growth(level + 1, 4.5 * growth).is_some() {
                continue;
            }
            // What has been as high before comes and goes, unless its floors see through that.
            if self.levels.swing(level) < 0.1 * growth
                && let Some(latest) = self.levels.latest(level)
                && self.levels.was_above(level, latest - self.least / 4.0)
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

    pub(super) fn look(
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
    pub(super) fn step(&mut self, now: i64, memory: Memory) -> Option<Change> {
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
