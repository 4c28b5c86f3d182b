//! What can be configured of governing. Plain values with their defaults; the bounds of each are where the file is read.

use std::fmt;
use std::str::FromStr;

use super::schedule::Schedule;
use crate::act::protection::Pattern;

const MIB: u64 = 1 << 20;
const SECOND: i64 = 1_000_000;

/// Who decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PolicyKind {
    /// Nobody: nothing is done.
    #[default]
    Observe,
    /// Only at critical pressure, and then little.
    Conservative,
    /// Keeps a part of the machine available.
    Dynamic,
    /// Over a threshold, frees up to a size.
    Aggressive,
    /// At given times.
    Scheduled,
    /// A little all the time, as long as nobody feels it.
    Proactive,
    /// In a virtual machine: what lies idle goes back to the host.
    Guest,
}

impl PolicyKind {
    /// All, by their names.
    pub const ALL: [PolicyKind; 7] = [
        PolicyKind::Observe,
        PolicyKind::Conservative,
        PolicyKind::Dynamic,
        PolicyKind::Aggressive,
        PolicyKind::Scheduled,
        PolicyKind::Proactive,
        PolicyKind::Guest,
    ];

    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            PolicyKind::Observe => "observe",
            PolicyKind::Conservative => "conservative",
            PolicyKind::Dynamic => "dynamic",
            PolicyKind::Aggressive => "aggressive",
            PolicyKind::Scheduled => "scheduled",
            PolicyKind::Proactive => "proactive",
            PolicyKind::Guest => "guest",
        }
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for PolicyKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        PolicyKind::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| {
                let names: Vec<&str> = PolicyKind::ALL.iter().map(|kind| kind.name()).collect();
                format!("is no policy; known are {}", names.join(", "))
            })
    }
}

/// All of `[govern]`. Times are in microseconds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who decides where no override says otherwise.
    pub policy: PolicyKind,
    /// `[govern.conservative]`
    pub conservative: Conservative,
    /// `[govern.dynamic]`
    pub dynamic: Dynamic,
    /// `[govern.aggressive]`
    pub aggressive: Aggressive,
    /// `[govern.scheduled]`
    pub scheduled: Scheduled,
    /// `[govern.proactive]`
    pub proactive: Proactive,
    /// `[govern.guest]`
    pub guest: Guest,
    /// `[govern.emergency]`, over every policy but `observe`.
    pub emergency: Option<Emergency>,
    /// `[govern.budget]`
    pub budget: Budget,
    /// `[govern.idle]`
    pub idle: Idle,
    /// `[[govern.override]]`, the first that matches holds.
    pub overrides: Vec<Override>,
    /// No cgroup is taken below this.
    pub floor: u64,
    /// How long an action is looked at afterwards.
    pub observe_us: i64,
    /// memory.high for a confirmed leak that runs away.
    pub contain_leaks: bool,
    /// Whether what was learned makes steps smaller.
    pub learn: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            policy: PolicyKind::Observe,
            conservative: Conservative::default(),
            dynamic: Dynamic::default(),
            aggressive: Aggressive::default(),
            scheduled: Scheduled::default(),
            proactive: Proactive::default(),
            guest: Guest::default(),
            emergency: Some(Emergency::default()),
            budget: Budget::default(),
            idle: Idle::default(),
            overrides: Vec::new(),
            floor: 100 * MIB,
            observe_us: 10 * SECOND,
            contain_leaks: false,
            learn: true,
        }
    }
}

/// Acts when the machine is close to its end: little available, or tasks stall.
#[derive(Clone, Debug, PartialEq)]
pub struct Conservative {
    /// Below this part of the machine, percent.
    pub available_pct: f64,
    /// Or when tasks of the machine stall for this part of the time, percent.
    pub psi_some_pct: f64,
    /// Bytes in one turn.
    pub bytes: u64,
    /// Between two turns.
    pub interval_us: i64,
}

impl Default for Conservative {
    fn default() -> Self {
        Conservative {
            available_pct: 5.0,
            psi_some_pct: 20.0,
            bytes: 64 * MIB,
            interval_us: 10 * SECOND,
        }
    }
}

/// Keeps `available_pct` of the machine available, and each cgroup under its ceiling.
#[derive(Clone, Debug, PartialEq)]
pub struct Dynamic {
    /// Percent of the machine's memory.
    pub available_pct: f64,
    /// Between two turns.
    pub interval_us: i64,
}

impl Default for Dynamic {
    fn default() -> Self {
        Dynamic {
            available_pct: 20.0,
            interval_us: 30 * SECOND,
        }
    }
}

/// Over `used_pct`, frees up to `bytes`.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggressive {
    /// Percent of the machine that is not available.
    pub used_pct: f64,
    /// Bytes in one turn.
    pub bytes: u64,
    /// Between two turns.
    pub interval_us: i64,
}

impl Default for Aggressive {
    fn default() -> Self {
        Aggressive {
            used_pct: 80.0,
            bytes: 1024 * MIB,
            interval_us: 60 * SECOND,
        }
    }
}

/// At the times of any of `at`, takes a part of what can be had.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scheduled {
    /// When, in local time.
    pub at: Vec<Schedule>,
    /// Percent of what can be taken from each cgroup; 0 stands for 50.
    pub take_pct: f64,
    /// Page cache alone.
    pub file_only: bool,
    /// Move free pages together afterwards.
    pub compact: bool,
}

/// The feedback law; see `policy::proactive`.
#[derive(Clone, Debug, PartialEq)]
pub struct Proactive {
    /// Between two steps of one cgroup.
    pub interval_us: i64,
    /// Stalls (PSI some) at which nothing more is taken, percent of the time.
    pub psi_some_pct: f64,
    /// The most of one step, percent of what lies over the floor.
    pub step_pct: f64,
    /// The most of one step, bytes.
    pub step: u64,
    /// Of what was taken, this part may come back, percent.
    pub refault_pct: f64,
    /// Anonymous memory too, once the page cache gives no more, where there is swap.
    pub anon: bool,
}

impl Default for Proactive {
    fn default() -> Self {
        Proactive {
            interval_us: 6 * SECOND,
            psi_some_pct: 0.1,
            step_pct: 1.0,
            step: 64 * MIB,
            refault_pct: 3.0,
            anon: true,
        }
    }
}

/// Gives what lies idle back to the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Guest {
    /// The machine counts as idle when less than this many bytes a second are faulted in, for `idle_us`.
    pub fault_bytes_per_s: u64,
    /// See there.
    pub idle_us: i64,
    /// Between two turns.
    pub interval_us: i64,
    /// The most of one turn.
    pub step: u64,
    /// Of what was taken, this part may come back, percent, before it stops for a while.
    pub refault_pct: f64,
    /// Cold anonymous memory too, where there is swap.
    pub anon: bool,
    /// Move free pages together, once there is nothing more to take.
    pub compact: bool,
    /// From this size of a block on the host is told of free memory; `None` leaves that as it is.
    pub report_block: Option<u64>,
    /// With less of the host's memory available than this, percent, more is taken and sooner. It is told by
    /// `Governor::set_host_available`.
    pub host_available_pct: f64,
}

impl Default for Guest {
    fn default() -> Self {
        Guest {
            fault_bytes_per_s: 4 * MIB,
            idle_us: 10 * SECOND,
            interval_us: 2 * SECOND,
            step: 128 * MIB,
            refault_pct: 5.0,
            anon: true,
            compact: true,
            report_block: Some(16 << 10),
            host_available_pct: 10.0,
        }
    }
}

/// Overrides intervals and the observation of earlier actions.
#[derive(Clone, Debug, PartialEq)]
pub struct Emergency {
    /// Below this part of the machine, percent.
    pub available_pct: f64,
    /// Bytes in one turn.
    pub bytes: u64,
    /// Between two turns.
    pub interval_us: i64,
}

impl Default for Emergency {
    fn default() -> Self {
        Emergency {
            available_pct: 3.0,
            bytes: 256 * MIB,
            interval_us: SECOND,
        }
    }
}

/// What may be done at most, whoever wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// Bytes taken a second, averaged over ten seconds.
    pub bytes_per_s: u64,
    /// Actions in any minute.
    pub actions_per_min: u32,
    /// Of one action.
    pub action_bytes: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Budget {
            bytes_per_s: 64 * MIB,
            actions_per_min: 60,
            action_bytes: 256 * MIB,
        }
    }
}

/// When a container counts as idle.
#[derive(Clone, Debug, PartialEq)]
pub struct Idle {
    /// For so long.
    pub after_us: i64,
    /// Less CPU time than this, percent of one CPU.
    pub cpu_pct: f64,
    /// Fewer faults than this a second.
    pub faults_per_s: f64,
    /// What was frozen goes on when somebody is seen to want it.
    pub thaw_on_demand: bool,
}

impl Default for Idle {
    fn default() -> Self {
        Idle {
            after_us: 600 * SECOND,
            cpu_pct: 0.5,
            faults_per_s: 10.0,
            thaw_on_demand: true,
        }
    }
}

/// What holds for the cgroups that a pattern names.
#[derive(Clone, Debug)]
pub struct Override {
    /// Path, glob, unit or container name.
    pub matches: Pattern,
    /// Another policy.
    pub policy: Option<PolicyKind>,
    /// It is not taken below this.
    pub floor: Option<u64>,
    /// Above it, memory is taken whatever the machine has.
    pub ceiling: Option<u64>,
    /// Anonymous memory may be taken.
    pub anon: Option<bool>,
    /// The operator confirmed that it may be frozen when it is idle.
    pub freeze: bool,
}

impl Settings {
    /// The first override for this cgroup.
    #[must_use]
    pub fn for_cgroup(&self, path: &str) -> Option<&Override> {
        self.overrides
            .iter()
            .find(|over| over.matches.matches(path))
    }

    /// Who decides for this cgroup.
    #[must_use]
    pub fn policy_for(&self, path: &str) -> PolicyKind {
        self.for_cgroup(path)
            .and_then(|over| over.policy)
            .unwrap_or(self.policy)
    }

    /// It is not taken below this.
    #[must_use]
    pub fn floor_for(&self, path: &str) -> u64 {
        self.for_cgroup(path)
            .and_then(|over| over.floor)
            .unwrap_or(self.floor)
    }
}
