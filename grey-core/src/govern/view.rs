//! What a policy sees: the machine and the cgroups that may be acted on, at one instant. An unknown figure is `None`, and
//! nothing is decided on it.

use super::{PolicyKind, Settings};
use crate::time::Timestamp;

/// One instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// Now.
    pub now: Timestamp,
    /// The machine.
    pub machine: Machine,
    /// The cgroups that may be acted on, by path: none of them is inside another.
    pub groups: Vec<Group>,
}

/// What happened in a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Since {
    /// How long it was, µs.
    pub us: u64,
    /// Tasks stalled on memory, µs.
    pub psi_some_us: Option<u64>,
    /// All tasks did.
    pub psi_full_us: Option<u64>,
    /// Pages came back.
    pub refaults: Option<u64>,
    /// Faults that read from a disk.
    pub majors: Option<u64>,
    /// Faults.
    pub faults: Option<u64>,
    /// CPU time, µs.
    pub cpu_us: Option<u64>,
}

impl Since {
    /// Part of the time in which tasks stalled, 0 to 1.
    #[must_use]
    pub fn psi_some(&self) -> Option<f64> {
        self.share(self.psi_some_us?)
    }

    /// CPUs used.
    #[must_use]
    pub fn cpus(&self) -> Option<f64> {
        self.share(self.cpu_us?)
    }

    /// Faults a second.
    #[must_use]
    pub fn faults_per_s(&self) -> Option<f64> {
        Some(self.share(self.faults?)? * 1e6)
    }

    fn share(&self, part: u64) -> Option<f64> {
        (self.us > 0).then(|| part as f64 / self.us as f64)
    }
}

/// The machine. Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Machine {
    /// All memory.
    pub total: Option<u64>,
    /// MemAvailable.
    pub available: Option<u64>,
    /// Page cache with tmpfs.
    pub file: Option<u64>,
    /// Room in swap.
    pub swap_free: Option<u64>,
    /// Since the last turn.
    pub since: Since,
    /// For how long next to nothing was faulted in, µs.
    pub quiet_us: u64,
    /// Bytes freed since free pages were moved together last.
    pub scattered: u64,
    /// Of the host that this virtual machine is on, percent of its memory that is available, where it is told.
    pub host_available_pct: Option<f64>,
}

impl Machine {
    /// MemAvailable in percent of all.
    #[must_use]
    pub fn available_pct(&self) -> Option<f64> {
        let (available, total) = (self.available?, self.total?);
        (total > 0).then(|| available as f64 * 100.0 / total as f64)
    }

    /// Bytes missing until this percentage is available; 0 where it is.
    #[must_use]
    pub fn missing_to(&self, pct: f64) -> Option<u64> {
        let wanted = (self.total? as f64 * pct / 100.0) as u64;
        Some(wanted.saturating_sub(self.available?))
    }
}

/// A leak that the detector confirmed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Growth {
    /// Bytes a second.
    pub rate_bps: f64,
    /// Seconds until its limit.
    pub ttl_s: Option<f64>,
}

/// A cgroup. Bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// Its path.
    pub path: String,
    /// Who decides for it.
    pub policy: PolicyKind,
    /// A container or a pod.
    pub container: bool,
    /// memory.current.
    pub current: u64,
    /// Page cache that can be dropped: without tmpfs.
    pub cache: u64,
    /// Of that, what was not used lately; `cache` where the kernel does not tell.
    pub cold_cache: u64,
    /// Anonymous memory that swap has room for; 0 where it must not be taken.
    pub swappable: u64,
    /// It is not taken below this.
    pub floor: u64,
    /// Above this it is taken from whatever the machine has.
    pub ceiling: Option<u64>,
    /// memory.high holds a number.
    pub limited: bool,
    /// Since the last turn.
    pub since: Since,
    /// For how long it was idle, µs.
    pub idle_us: u64,
    /// The operator confirmed that it may stand still.
    pub may_freeze: bool,
    /// It stands still.
    pub frozen: bool,
    /// What came of the last reclaim.
    pub last: Option<Last>,
    /// To take page cache from it did harm: not now.
    pub cache_cools: bool,
    /// Part of what was taken from it in the last hours that came back.
    pub returned: f64,
    /// How long ago anonymous memory gave next to nothing, µs, where that was its last answer.
    pub anon_futile_us: Option<u64>,
    /// What its release agents are expected to give back, where its allocator was found to keep freed memory.
    pub retained: u64,
    /// It leaks.
    pub leak: Option<Growth>,
    /// An action on it is under way or being looked at.
    pub busy: bool,
}

/// The last reclaim of a cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Last {
    /// Bytes asked for.
    pub asked: u64,
    /// Bytes freed.
    pub freed: u64,
    /// Pages that came back since, beyond those that came steadily before it.
    pub refaults: u64,
    /// Those, a second.
    pub steady: f64,
    /// How many before it in a row that did no harm.
    pub good: u32,
    /// How long it is ago, µs.
    pub ago_us: u64,
    /// It was page cache alone.
    pub file_only: bool,
}

/// Of every machine that this runs on.
pub(super) const PAGE: u64 = 4096;

impl Last {
    /// It gave next to nothing.
    #[must_use]
    pub fn futile(&self) -> bool {
        self.freed < self.asked / 10
    }

    /// Part of what was freed that came back, 0 to 1 and more.
    #[must_use]
    pub fn returned(&self) -> f64 {
        if self.freed == 0 {
            return if self.refaults == 0 { 0.0 } else { 1.0 };
        }
        (self.refaults * PAGE) as f64 / self.freed as f64
    }
}

impl Group {
    /// Bytes over the floor that can be taken at all, cache and anonymous.
    #[must_use]
    pub fn gap(&self) -> u64 {
        let reclaimable = self.cache + self.swappable;
        self.current.saturating_sub(self.floor).min(reclaimable)
    }

    /// Of these, page cache.
    #[must_use]
    pub fn cache_gap(&self) -> u64 {
        self.gap().min(self.cache)
    }

    /// Of these, page cache that was not used lately.
    #[must_use]
    pub fn cold_gap(&self) -> u64 {
        self.gap().min(self.cold_cache)
    }

    /// Bytes above the ceiling, as far as they can be taken.
    #[must_use]
    pub fn above_ceiling(&self) -> u64 {
        let ceiling = self.ceiling.map(|ceiling| ceiling.max(self.floor));
        ceiling.map_or(0, |ceiling| {
            self.current.saturating_sub(ceiling).min(self.gap())
        })
    }

    /// Whether it has been idle for as long as the settings ask.
    #[must_use]
    pub fn is_idle(&self, settings: &Settings) -> bool {
        self.idle_us >= u64::try_from(settings.idle.after_us).unwrap_or(0)
    }
}
