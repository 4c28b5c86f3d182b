//! What watching costs, measured window by window, and what is done without while that is more than it may be.

mod steps;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use aya::sys::{Stats, enable_stats};
use grey_core::budget::{Costs, Ladder, Limits, Offer, Programs, Step};
use grey_core::event;
use grey_core::time::Timestamp;

use super::{Notice, Observer};
use crate::host::OwnCost;
use crate::probe::{Family, RunTimes};
use crate::watch::resident::give_back;

/// The programs are timed for this part of each window only: two readings of the clock, about 25 ns, are added to each
/// run of each program on the machine meanwhile.
const TIMED: u32 = 30;
const TIMED_LEAST: Duration = Duration::from_millis(200);
const TIMED_MOST: Duration = Duration::from_secs(1);
/// Where the kernel does not time them: run time of the programs for one fault and one call, as it was measured.
const FAULT: Duration = Duration::from_nanos(50);
const CALL: Duration = Duration::from_nanos(400);
/// Where faults do not tell who is active, every cgroup is read after this time, but not more of them in a second than
/// this: what was saved is not spent again. At the slow pace each is read in any case.
const UNSEEN: Duration = Duration::from_secs(10);
const UNSEEN_PER_S: u32 = 50;

/// What watching may cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// CPU time of this process and its programs, percent of one core; 0 for no limit.
    pub cpu_pct: f64,
    /// Resident bytes; 0 for no limit.
    pub memory: u64,
    /// How long is measured before anything is decided.
    pub window: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Budget {
            cpu_pct: 1.0,
            memory: 64 << 20,
            window: Duration::from_secs(30),
        }
    }
}

impl Budget {
    fn limits(&self) -> Limits {
        Limits {
            cpu_pct: (self.cpu_pct > 0.0).then_some(self.cpu_pct),
            memory: (self.memory > 0).then_some(self.memory),
        }
    }
}

/// What may be given up to keep it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Time between two looks at the counters.
    pub interval: Duration,
    /// The longest that it may become.
    pub longest: Duration,
    /// Whether whoever reads the events keeps a flight recorder.
    pub recorder: bool,
}

impl Pace {
    fn after(&self, doublings: usize) -> Duration {
        let factor = u32::try_from(doublings).map_or(u32::MAX, |n| 1_u32 << n.min(31));
        let most = self.longest.max(self.interval);
        self.interval.saturating_mul(factor).min(most)
    }

    fn doublings(&self) -> usize {
        (0..32)
            .find(|n| self.after(*n) >= self.longest)
            .unwrap_or_default()
    }
}

/// The programs' time is being taken.
struct Timing {
    since: Instant,
    before: RunTimes,
    /// Keeps the kernel's statistics on; absent where they are on anyway.
    _stats: Option<OwnedFd>,
}

/// The budget in force, and what was measured.
pub(super) struct Keeping {
    budget: Budget,
    pace: Pace,
    ladder: Ladder,
    due: Instant,
    began: (Instant, OwnCost),
    timing: Option<Timing>,
    /// Why the programs' time is estimated.
    untimed: Option<String>,
    /// Faults and calls counted up to the begin of the window.
    counted: [u64; 2],
    last: Option<Costs>,
    exhausted: bool,
}

impl Keeping {
    pub(super) fn times(&self, step: Step) -> usize {
        self.ladder.times(step)
    }

    fn begin(&mut self, cost: OwnCost) {
        let now = Instant::now();
        self.began = (now, cost);
        self.due = now + self.budget.window.saturating_sub(timed(self.budget.window));
    }

    pub(super) fn figures(&self) -> event::Budget {
        let limits = self.budget.limits();
        let hundredths = |pct: f64| (pct * 100.0).round() / 100.0;
        let mut steps: Vec<String> = Vec::new();
        for step in self.ladder.steps().map(Step::name) {
            if !steps.iter().any(|it| it == step) {
                steps.push(step.to_owned());
            }
        }
        event::Budget {
            cpu_pct: self.last.map(|costs| hundredths(costs.cpu_pct())),
            bpf_pct: self
                .last
                .and_then(|costs| Some(hundredths(costs.programs?.sum()))),
            bpf_estimated: self.untimed.clone(),
            limit_cpu_pct: limits.cpu_pct,
            memory_bytes: self.last.and_then(|costs| costs.memory),
            limit_memory_bytes: limits.memory,
            window_s: self.budget.window.as_secs_f64(),
            step: self.ladder.steps().len() as u64,
            steps,
            interval_s: self.pace.after(self.times(Step::Interval)).as_secs_f64(),
            exceeded: self
                .last
                .iter()
                .flat_map(|costs| costs.exceeds(&limits))
                .map(|resource| resource.name().to_owned())
                .collect(),
            exhausted: self.exhausted,
        }
    }
}

fn timed(window: Duration) -> Duration {
    (window / TIMED).clamp(TIMED_LEAST, TIMED_MOST)
}

impl Observer {
    /// Keeps this budget from now on. What an earlier one had switched off comes back.
    pub fn keep_budget(
        &mut self,
        budget: Budget,
        pace: Pace,
        now: Timestamp,
        out: &mut Vec<Notice>,
    ) {
        let earlier = self.budget.take();
        let steps: Vec<Step> = earlier
            .iter()
            .flat_map(|earlier| earlier.ladder.steps().rev())
            .collect();
        let came_back = !steps.is_empty();
        for step in steps {
            if let Err(error) = self.give_back(step) {
                tracing::warn!("{step}: {error}");
            }
        }
        let mut keeping = Keeping {
            budget,
            pace,
            ladder: Ladder::default(),
            due: Instant::now(),
            began: (Instant::now(), OwnCost::default()),
            timing: None,
            untimed: None,
            counted: [0, 0],
            last: None,
            exhausted: false,
        };
        keeping.begin(OwnCost::now());
        self.budget = Some(keeping);
        // Counts from here on.
        self.estimated();
        if came_back {
            self.health(now, out);
        }
    }

    /// When [`Observer::budget`] wants to be called next.
    #[must_use]
    pub fn budget_due(&self) -> Option<Instant> {
        let keeping = self.budget.as_ref()?;
        (keeping.budget.limits() != Limits::default()).then_some(keeping.due)
    }

    /// Time between two ticks now; `None` where no pace was given.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        let keeping = self.budget.as_ref()?;
        Some(keeping.pace.after(keeping.times(Step::Interval)))
    }

    /// Whether this is done without now.
    #[must_use]
    pub fn spares(&self, step: Step) -> bool {
        self.budget
            .as_ref()
            .is_some_and(|keeping| keeping.times(step) > 0)
    }

    /// Own cost against the budget, where anything is limited.
    #[must_use]
    pub fn budget_figures(&self) -> Option<event::Budget> {
        let keeping = self.budget.as_ref()?;
        (keeping.budget.limits() != Limits::default()).then(|| keeping.figures())
    }

    /// Ticks after which a cgroup is read again that nothing tells to have been active.
    pub(super) fn slow_pace(&self) -> u64 {
        let slow = self.options.slow_ticks.max(1);
        if self.coverage.fault_user {
            return slow;
        }
        let Some(interval) = self.interval().filter(|_| self.spares(Step::Faults)) else {
            return 1;
        };
        let cgroups = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        let time = UNSEEN.max(Duration::from_secs(1) * (cgroups / UNSEEN_PER_S));
        let ticks = time.as_micros().div_ceil(interval.as_micros().max(1));
        u64::try_from(ticks).unwrap_or(u64::MAX).clamp(1, slow)
    }

    /// Measures, and at the end of a window takes a step. Returns what there is to tell people.
    pub fn budget(&mut self, now: Timestamp, out: &mut Vec<Notice>) -> Option<String> {
        let keeping = self.budget.as_mut()?;
        let end = keeping.began.0 + keeping.budget.window;
        if keeping.timing.is_none() && Instant::now() < end {
            let timing = self.take_time();
            let keeping = self.budget.as_mut()?;
            match timing {
                Ok(timing) => {
                    keeping.timing = timing;
                    keeping.untimed = None;
                }
                Err(error) => keeping.untimed = Some(error),
            }
            keeping.due = end;
            return None;
        }
        let estimated = self.estimated();
        let programs = self.timed().or(estimated);
        let cost = self.cost_without_free_memory();
        let offer = self.offer();
        let keeping = self.budget.as_mut()?;
        let (began, before) = keeping.began;
        let wall = began.elapsed().as_micros().max(1) as f64;
        let costs = Costs {
            own_pct: cost.cpu_us.saturating_sub(before.cpu_us) as f64 * 100.0 / wall,
            programs,
            memory: cost.rss,
        };
        keeping.last = Some(costs);
        keeping.begin(cost);
        let limits = keeping.budget.limits();
        let change = keeping.ladder.window(&costs, &limits, &offer);
        let told = keeping.figures().cost();
        let end = keeping.ladder.exhausted() && !keeping.exhausted;
        keeping.exhausted = keeping.ladder.exhausted();
        let line = match change {
            Some(change) => self.change(change),
            None if end => "nothing is left that could be done without".to_owned(),
            None => return None,
        };
        // What the change itself cost is no reason for another.
        if let Some(keeping) = &mut self.budget {
            keeping.begin(OwnCost::now());
        }
        self.health(now, out);
        Some(format!("watching costs {told}: {line}"))
    }

    /// What this process costs. Where its memory is over the limit, what it holds and does not use goes first.
    fn cost_without_free_memory(&self) -> OwnCost {
        let cost = OwnCost::now();
        let keeping = self.budget.as_ref();
        let limit = keeping.and_then(|keeping| keeping.budget.limits().memory);
        if cost.rss.zip(limit).is_some_and(|(rss, limit)| rss > limit) {
            give_back();
            return OwnCost::now();
        }
        cost
    }

    fn offer(&self) -> Offer {
        let Some(keeping) = &self.budget else {
            return Offer::default();
        };
        let has = |family, step| {
            let kernel = self.kernel.as_ref();
            keeping.times(step) > 0 || kernel.is_some_and(|kernel| kernel.has_any(family))
        };
        Offer {
            stacks: self.suspects.profiles(),
            doublings: keeping.pace.doublings(),
            calls: has(Family::Calls, Step::Calls),
            faults: has(Family::Faults, Step::Faults),
            recorder: keeping.pace.recorder,
        }
    }

    /// Begins to time the programs.
    fn take_time(&self) -> Result<Option<Timing>, String> {
        let Some(kernel) = &self.kernel else {
            return Ok(None);
        };
        let stats = match enable_stats(Stats::RunTime) {
            Ok(stats) => Some(stats),
            Err(_) if self.stats_are_on() => None,
            Err(error) => {
                return Err(format!(
                    "{}: {}; it takes Linux 5.8 and CAP_SYS_ADMIN, or kernel.bpf_stats_enabled=1",
                    error.call, error.io_error
                ));
            }
        };
        Ok(Some(Timing {
            since: Instant::now(),
            before: kernel.run_times(),
            _stats: stats,
        }))
    }

    /// What the programs cost by what they counted in the window.
    fn estimated(&mut self) -> Option<Programs> {
        self.kernel.as_ref()?;
        self.collect();
        let root = self.tree.id_of("/").and_then(|id| self.tree.totals(id));
        let now = root.copied().unwrap_or_default();
        let faults =
            now.fault_user_read + now.fault_user_write + now.fault_user_exec + now.fault_kernel;
        let calls = now.mmap_calls
            + now.munmap_calls
            + now.mremap_calls
            + now.brk_calls
            + now.madvise_calls;
        let keeping = self.budget.as_mut()?;
        let before = std::mem::replace(&mut keeping.counted, [faults, calls]);
        let wall = keeping.began.0.elapsed().as_secs_f64().max(1e-3);
        let pct = |now: u64, before: u64, each: Duration| {
            now.saturating_sub(before) as f64 * each.as_secs_f64() * 100.0 / wall
        };
        keeping.untimed.as_ref()?;
        Some(Programs {
            faults_pct: pct(faults, before[0], FAULT),
            calls_pct: pct(calls, before[1], CALL),
            other_pct: 0.0,
        })
    }

    /// Ends the timing: what the programs cost.
    fn timed(&mut self) -> Option<Programs> {
        let timing = self.budget.as_mut()?.timing.take()?;
        let after = self.kernel.as_ref()?.run_times();
        let wall = timing.since.elapsed().as_secs_f64();
        let pct = |of: fn(&RunTimes) -> Duration| {
            let ran = of(&after).saturating_sub(of(&timing.before));
            ran.as_secs_f64() * 100.0 / wall.max(1e-3)
        };
        Some(Programs {
            calls_pct: pct(|times| times.calls),
            faults_pct: pct(|times| times.faults),
            other_pct: pct(|times| times.other),
        })
    }

    /// Whether the administrator keeps the kernel's statistics on.
    pub(super) fn stats_are_on(&self) -> bool {
        self.host
            .text("/proc/sys/kernel/bpf_stats_enabled")
            .is_ok_and(|text| text.trim() == "1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(interval: Duration, longest: u64) -> Pace {
        Pace {
            interval,
            longest: Duration::from_secs(longest),
            recorder: false,
        }
    }

    #[test]
    fn the_interval_doubles_up_to_the_longest_and_is_never_shorter_than_asked_for() {
        let seconds = |pace: Pace| -> Vec<f64> {
            (0..=pace.doublings())
                .map(|n| pace.after(n).as_secs_f64())
                .collect()
        };
        let second = Duration::from_secs(1);
        assert_eq!(seconds(pace(second, 10)), [1.0, 2.0, 4.0, 8.0, 10.0]);
        assert_eq!(seconds(pace(second, 2)), [1.0, 2.0]);
        assert_eq!(seconds(pace(10 * second, 10)), [10.0]);
        assert_eq!(seconds(pace(60 * second, 10)), [60.0]);
        assert_eq!(pace(Duration::from_millis(10), 10).doublings(), 10);
    }

    #[test]
    fn programs_are_timed_for_a_small_part_of_a_window() {
        let of = |ms: u64| timed(Duration::from_millis(ms)).as_millis();
        assert_eq!(
            [of(500), of(6000), of(15_000), of(600_000)],
            [200, 200, 500, 1000]
        );
    }
}
