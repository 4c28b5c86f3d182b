//! What is switched off while watching costs more than it may, one step at a time, and when it comes back. Pure: the
//! costs of one window in, at most one change out.

use std::fmt;

#[cfg(test)]
mod tests;

/// Windows in a row above a limit before a step down: one alone may be a burst.
const PATIENCE: u32 = 2;
/// Windows in a row below half of the limit before what was switched off last comes back, at first and at most.
const WAIT: u32 = 4;
const LONGEST_WAIT: u32 = 128;
/// What a step switches off must cost this part of the limit: less would be lost for nothing.
const WORTH: f64 = 0.1;

/// One thing that can be done without. Each list is in the order of what is missed least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Stacks of suspects are not looked at.
    Stacks,
    /// Figures are read half as often; can be taken several times.
    Interval,
    /// mmap and its like are not counted.
    Calls,
    /// Page faults are not counted, and growth is not told at once.
    Faults,
    /// The flight recorder keeps a minute instead of five.
    Recorder,
}

/// What saves our own CPU time.
const OURS: [Step; 2] = [Step::Stacks, Step::Interval];
/// What saves time of the programs in the kernel.
const PROGRAMS: [Step; 2] = [Step::Calls, Step::Faults];
/// What saves memory.
const MEMORY: [Step; 2] = [Step::Stacks, Step::Recorder];

impl Step {
    fn helps(self, resource: Resource) -> bool {
        match resource {
            Resource::Cpu => OURS.contains(&self) || PROGRAMS.contains(&self),
            Resource::Memory => MEMORY.contains(&self),
        }
    }

    /// As events call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Step::Stacks => "stacks",
            Step::Interval => "interval",
            Step::Calls => "calls",
            Step::Faults => "faults",
            Step::Recorder => "recorder",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// CPU time, ours and the programs'.
    Cpu,
    /// Resident memory.
    Memory,
}

impl Resource {
    const ALL: [Resource; 2] = [Resource::Cpu, Resource::Memory];

    /// As events call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Resource::Cpu => "cpu",
            Resource::Memory => "memory",
        }
    }
}

/// What watching may cost; `None` for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Percent of one core, over 0.
    pub cpu_pct: Option<f64>,
    /// Resident bytes.
    pub memory: Option<u64>,
}

/// What it cost in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Costs {
    /// CPU time of this process, percent of one core.
    pub own_pct: f64,
    /// Run time of the programs; `None` where the kernel does not tell.
    pub programs: Option<Programs>,
    /// Resident bytes at its end.
    pub memory: Option<u64>,
}

impl Costs {
    /// All CPU time that is known of, percent of one core.
    #[must_use]
    pub fn cpu_pct(&self) -> f64 {
        self.own_pct + self.programs.map_or(0.0, Programs::sum)
    }

    /// What is over its limit.
    pub fn exceeds(&self, limits: &Limits) -> impl Iterator<Item = Resource> {
        let over = |resource: &Resource| self.part(*resource, limits).is_some_and(|it| it > 1.0);
        Resource::ALL.into_iter().filter(over)
    }

    /// As a part of the limit.
    fn part(&self, resource: Resource, limits: &Limits) -> Option<f64> {
        match resource {
            Resource::Cpu => Some(self.cpu_pct() / limits.cpu_pct?),
            Resource::Memory => Some(self.memory? as f64 / limits.memory? as f64),
        }
    }
}

/// Run time of the programs in the kernel on all CPUs, percent of one core.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Programs {
    /// Those that [`Step::Calls`] takes away.
    pub calls_pct: f64,
    /// Those that [`Step::Faults`] takes away.
    pub faults_pct: f64,
    /// All others.
    pub other_pct: f64,
}

impl Programs {
    /// All of them.
    #[must_use]
    pub fn sum(self) -> f64 {
        self.calls_pct + self.faults_pct + self.other_pct
    }
}

/// What there is to be done without, as long as nothing is: on this machine, as it is configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Suspects are profiled.
    pub stacks: bool,
    /// How often the interval can be doubled.
    pub doublings: usize,
    /// Calls are counted.
    pub calls: bool,
    /// Faults are counted.
    pub faults: bool,
    /// There is a flight recorder.
    pub recorder: bool,
}

impl Offer {
    fn times(&self, step: Step) -> usize {
        match step {
            Step::Stacks => usize::from(self.stacks),
            Step::Interval => self.doublings,
            Step::Calls => usize::from(self.calls),
            Step::Faults => usize::from(self.faults),
            Step::Recorder => usize::from(self.recorder),
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Do without.
    Down(Step),
    /// It comes back.
    Up(Step),
}

#[derive(Clone, Copy, Debug)]
struct Taken {
    step: Step,
    why: Resource,
    /// Windows below half of the limit until it comes back.
    wait: u32,
}

/// When a step came back last.
#[derive(Clone, Copy, Debug)]
struct Returned {
    step: Step,
    at: u64,
    waited: u32,
}

/// The steps that are taken.
#[derive(Clone, Debug, Default)]
pub struct Ladder {
    taken: Vec<Taken>,
    returned: Vec<Returned>,
    windows: u64,
    /// By resource: windows in a row over the limit, and below half of it.
    over: [u32; 2],
    under: [u32; 2],
    exhausted: bool,
}

impl Ladder {
    /// Takes in what a window cost. At most one change comes of it, and the next one only after windows that show what
    /// it has brought.
    pub fn window(&mut self, costs: &Costs, limits: &Limits, offer: &Offer) -> Option<Change> {
        self.windows += 1;
        for (n, resource) in Resource::ALL.into_iter().enumerate() {
            let part = costs.part(resource, limits);
            let count = |row: u32, holds: bool| if holds { row.saturating_add(1) } else { 0 };
            self.over[n] = count(self.over[n], part.is_some_and(|part| part > 1.0));
            // What has no limit any more is below it.
            self.under[n] = count(self.under[n], part.is_none_or(|part| part < 0.5));
        }
        self.exhausted = false;
        for (n, resource) in Resource::ALL.into_iter().enumerate() {
            if self.over[n] < PATIENCE {
                continue;
            }
            match self.next(resource, costs, limits, offer) {
                Some(step) => return Some(self.down(step, resource)),
                None => self.exhausted = true,
            }
        }
        let back = Resource::ALL.into_iter().enumerate().find_map(|(n, why)| {
            let last = self.taken.iter().rposition(|taken| taken.why == why)?;
            let Taken { step, wait, .. } = self.taken[last];
            (self.under[n] >= wait && !self.held(step)).then_some(last)
        })?;
        Some(self.up(back))
    }

    /// Whether something is over its limit that this step helps.
    fn held(&self, step: Step) -> bool {
        Resource::ALL
            .into_iter()
            .zip(self.over)
            .any(|(resource, over)| over > 0 && step.helps(resource))
    }

    /// The step that is taken next for this resource, if there is any left that is worth it.
    fn next(
        &self,
        resource: Resource,
        costs: &Costs,
        limits: &Limits,
        offer: &Offer,
    ) -> Option<Step> {
        let programs = costs.programs.unwrap_or_default();
        let lists: &[[Step; 2]] = match resource {
            Resource::Memory => &[MEMORY],
            // Where most of the cost is comes first.
            Resource::Cpu if programs.sum() > costs.own_pct => &[PROGRAMS, OURS],
            Resource::Cpu => &[OURS, PROGRAMS],
        };
        let least = limits.cpu_pct.unwrap_or(0.0) * WORTH;
        let worth = |step: Step| match step {
            Step::Stacks | Step::Recorder => true,
            Step::Interval => costs.own_pct >= least,
            Step::Calls => programs.calls_pct >= least,
            Step::Faults => programs.faults_pct >= least,
        };
        lists
            .iter()
            .flatten()
            .copied()
            .find(|step| self.times(*step) < offer.times(*step) && worth(*step))
    }

    fn down(&mut self, step: Step, why: Resource) -> Change {
        let before = self.returned.iter().position(|it| it.step == step);
        // What does not last is tried less and less often.
        let wait = before.map_or(WAIT, |at| {
            let Returned { at, waited, .. } = self.returned.remove(at);
            if self.windows - at <= 2 * u64::from(waited) {
                (waited * 2).min(LONGEST_WAIT)
            } else {
                (waited / 2).max(WAIT)
            }
        });
        self.taken.push(Taken { step, why, wait });
        self.begin_anew();
        Change::Down(step)
    }

    fn up(&mut self, at: usize) -> Change {
        let Taken { step, wait, .. } = self.taken.remove(at);
        self.returned.retain(|it| it.step != step);
        self.returned.push(Returned {
            step,
            at: self.windows,
            waited: wait,
        });
        self.begin_anew();
        Change::Up(step)
    }

    fn begin_anew(&mut self) {
        self.over = [0, 0];
        self.under = [0, 0];
    }

    /// A step that could not be taken or given back after all.
    pub fn failed(&mut self, change: Change) {
        match change {
            Change::Down(step) => {
                if let Some(at) = self.taken.iter().rposition(|taken| taken.step == step) {
                    self.taken.remove(at);
                }
            }
            Change::Up(step) => {
                let back = self.returned.iter().position(|it| it.step == step);
                let waited = back.map_or(WAIT, |at| self.returned.remove(at).waited);
                self.taken.push(Taken {
                    step,
                    why: Resource::Cpu,
                    wait: (waited * 2).min(LONGEST_WAIT),
                });
            }
        }
    }

    /// How often this step is taken now.
    #[must_use]
    pub fn times(&self, step: Step) -> usize {
        self.taken.iter().filter(|taken| taken.step == step).count()
    }

    /// The steps that are taken, the first one first.
    pub fn steps(&self) -> impl DoubleEndedIterator<Item = Step> + ExactSizeIterator {
        self.taken.iter().map(|taken| taken.step)
    }

    /// Whether a limit is exceeded and nothing is left that would help.
    #[must_use]
    pub fn exhausted(&self) -> bool {
        self.exhausted
    }
}
