//! The decoded form of each record.

use grey_common::RecordKind;

use crate::event::{Constraint, StallKind};

/// One record, in the form the rest of the program uses. Unknown figures are `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The OOM killer chose a victim.
    Oom(Oom),
    /// A reclaim run was longer than the threshold.
    Stall(Stall),
    /// A cgroup was made.
    CgroupMade(CgroupChange),
    /// A cgroup was removed.
    CgroupRemoved(CgroupChange),
    /// A cgroup was renamed; the path is the new one.
    CgroupRenamed(CgroupChange),
    /// A process executed a new program.
    ProcessExec(Process),
    /// A process ended.
    ProcessExit(Process),
    /// A process grew by the threshold.
    ProcessGrowth(Growth),
    /// The processes of a cgroup grew by the threshold together.
    CgroupGrowth(Growth),
}

impl Record {
    /// What it is, as the loss counters number it.
    #[must_use]
    pub fn kind(&self) -> RecordKind {
        match self {
            Record::Oom(_) => RecordKind::Oom,
            Record::Stall(_) => RecordKind::Stall,
            Record::CgroupMade(_) => RecordKind::CgroupMade,
            Record::CgroupRemoved(_) => RecordKind::CgroupRemoved,
            Record::CgroupRenamed(_) => RecordKind::CgroupRenamed,
            Record::ProcessExec(_) => RecordKind::ProcessExec,
            Record::ProcessExit(_) => RecordKind::ProcessExit,
            Record::ProcessGrowth(_) => RecordKind::ProcessGrowth,
            Record::CgroupGrowth(_) => RecordKind::CgroupGrowth,
        }
    }

    /// When the kernel side wrote it, CLOCK_MONOTONIC nanoseconds.
    #[must_use]
    pub fn ktime_ns(&self) -> u64 {
        match self {
            Record::Oom(oom) => oom.ktime_ns,
            Record::Stall(stall) => stall.ktime_ns,
            Record::CgroupMade(change)
            | Record::CgroupRemoved(change)
            | Record::CgroupRenamed(change) => change.ktime_ns,
            Record::ProcessExec(process) | Record::ProcessExit(process) => process.ktime_ns,
            Record::ProcessGrowth(growth) | Record::CgroupGrowth(growth) => growth.ktime_ns,
        }
    }

    /// The cgroup it is about.
    #[must_use]
    pub fn cgroup(&self) -> Option<u64> {
        match self {
            Record::Oom(oom) => oom.cgroup,
            Record::Stall(stall) => stall.cgroup,
            Record::CgroupMade(change)
            | Record::CgroupRemoved(change)
            | Record::CgroupRenamed(change) => Some(change.id),
            Record::ProcessExec(process) | Record::ProcessExit(process) => process.cgroup,
            Record::ProcessGrowth(growth) | Record::CgroupGrowth(growth) => growth.cgroup,
        }
    }
}

/// One OOM victim. Figures in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oom {
    /// CLOCK_MONOTONIC nanoseconds.
    pub ktime_ns: u64,
    /// The victim's cgroup.
    pub cgroup: Option<u64>,
    /// Cgroup whose limit was hit; `None` when global or unknown.
    pub limit_cgroup: Option<u64>,
    /// Cgroup of the task that ran out.
    pub trigger_cgroup: Option<u64>,
    /// Thread group id of the victim.
    pub pid: u32,
    /// Its command name; empty when unknown.
    pub comm: String,
    /// Anonymous memory.
    pub anon: Option<u64>,
    /// File memory.
    pub file: Option<u64>,
    /// Shared memory.
    pub shmem: Option<u64>,
    /// Page tables.
    pub pgtables: Option<u64>,
    /// Total virtual size.
    pub total_vm: Option<u64>,
    /// `oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// Thread group id of the task that ran out.
    pub trigger_pid: Option<u32>,
    /// Its command name; empty when unknown.
    pub trigger_comm: String,
    /// What ran out.
    pub constraint: Option<Constraint>,
}

/// A long reclaim run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// CLOCK_MONOTONIC nanoseconds at its end.
    pub ktime_ns: u64,
    /// The cgroup that waited.
    pub cgroup: Option<u64>,
    /// The cgroup reclaimed from; `None` when global or unknown.
    pub target: Option<u64>,
    /// How long, nanoseconds.
    pub ns: u64,
    /// Pages freed.
    pub pages: u64,
    /// Thread group id of the task that waited.
    pub pid: Option<u32>,
    /// Its command name; empty when unknown.
    pub comm: String,
    /// What it was spent in.
    pub kind: StallKind,
    /// Whether the run was of our own making.
    pub own: bool,
}

/// A cgroup came, went or was renamed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupChange {
    /// CLOCK_MONOTONIC nanoseconds.
    pub ktime_ns: u64,
    /// The cgroup.
    pub id: u64,
    /// Its path in its hierarchy, control characters and all, as the kernel has it. Use it only if not `truncated`.
    pub path: String,
    /// The path is cut, missing or not UTF-8: resolve the cgroup by its id.
    pub truncated: bool,
}

/// A process executed a new program or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// CLOCK_MONOTONIC nanoseconds.
    pub ktime_ns: u64,
    /// The process's cgroup.
    pub cgroup: Option<u64>,
    /// Thread group id.
    pub pid: u32,
    /// Command name; empty when unknown.
    pub comm: String,
}

/// A process or a cgroup grew by the threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// CLOCK_MONOTONIC nanoseconds.
    pub ktime_ns: u64,
    /// The cgroup it happened in.
    pub cgroup: Option<u64>,
    /// Thread group id; of a cgroup's growth the process that crossed the line.
    pub pid: u32,
    /// Its command name; empty when unknown.
    pub comm: String,
    /// Bytes grown since the last report, or since the lowest point after it.
    pub bytes: u64,
    /// Nanoseconds that took.
    pub since_ns: u64,
    /// Resident bytes of the process now.
    pub rss: Option<u64>,
    /// Total virtual size of the process now, bytes.
    pub total_vm: Option<u64>,
}
