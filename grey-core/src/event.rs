//! The event schema `grey-ebpf/1`: one JSON object a line. Types only; who makes and who writes them is elsewhere.
//! Bytes, microseconds, RFC 3339 UTC. An unknown figure is `None` and left out, never zero. The schema only grows.

mod act;
mod budget;
mod sample;
mod verdict;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

pub use act::{
    ActionOutcome, ActionPlan, ActionState, OutcomeVerdict, PlannedWrite, RestoredFile, Rollback,
    SkippedFile,
};
pub use budget::Budget;
pub use sample::{Cpu, Faults, Limit, Mem, MemEvents, MemSource, Psi, Reclaim, Sample, Vm};
pub use verdict::{Cause, Evidence, Grower, GrowingStack, Memory, State, Subject, Verdict};

/// The schema's name and version, the first field of every line.
pub const SCHEMA: &str = "grey-ebpf/1";

/// One line: the common head, the cgroup it is about (if any) and what happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Always `grey-ebpf/1`.
    #[schemars(extend("const" = SCHEMA))]
    pub schema: String,
    /// When it happened.
    pub ts: Timestamp,
    /// Counts the lines of one stream from 0, so that a gap shows a lost line.
    pub seq: u64,
    /// Node name of the machine.
    pub host: String,
    /// `/proc/sys/kernel/random/boot_id`; absent where it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// The cgroup the event is about; absent on `health`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Cgroup>,
    /// True when events were lost or the kernel side was incomplete in the window this line covers.
    #[serde(default)]
    pub lossy: bool,
    /// What this line is, and the object named like it.
    #[serde(flatten)]
    pub body: Body,
}

/// The variants of an event. The variant's name is the line's `type`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Body {
    /// The state of one cgroup at a tick.
    Sample(Box<Sample>),
    /// The state of one process at a tick.
    Process {
        /// The process.
        process: Process,
    },
    /// A process or cgroup grew by the threshold; pushed by the kernel side.
    Growth {
        /// The growth.
        growth: Growth,
    },
    /// What the detector says of a cgroup or process; at each change of state.
    Verdict {
        /// What it says.
        verdict: Box<Verdict>,
    },
    /// The OOM killer chose a victim.
    Oom {
        /// The kill.
        oom: Oom,
    },
    /// Reclaim held a task up for longer than the threshold.
    Stall {
        /// The stall.
        stall: Stall,
    },
    /// A PSI trigger fired.
    Pressure {
        /// The trigger.
        pressure: Pressure,
    },
    /// An action is about to be taken, or would be.
    Action {
        /// The plan.
        action: Box<ActionPlan>,
    },
    /// What came of an action.
    Outcome {
        /// What came of it.
        outcome: Box<ActionOutcome>,
    },
    /// Changes were taken back.
    Rollback {
        /// Which, and why.
        rollback: Box<Rollback>,
    },
    /// Own cost, losses and degraded probes.
    Health {
        /// The report.
        health: Health,
    },
}

/// Identity of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cgroup {
    /// v2 cgroup id (inode number of its directory); absent when it is no longer known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// Path below the v2 mount, `/` for the root.
    pub path: String,
    /// `root`, `slice`, `service`, `scope`, `user`, `session`, `container`, `pod`, `vm`, `cgroup`.
    pub kind: String,
    /// A name a person knows it by: the unit, the container id (12 hex digits), the pod uid, the user.
    pub name: String,
}

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// Thread group id.
    pub pid: u32,
    /// Command name.
    pub comm: String,
    /// Resident bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss: Option<u64>,
    /// Resident anonymous bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anon: Option<u64>,
    /// Swapped-out bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<u64>,
    /// Total virtual size, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#virtual: Option<u64>,
}

/// Growth by the threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Growth {
    /// `process`, or `cgroup` when the processes of the cgroup grew by the threshold together.
    pub scope: GrowthScope,
    /// The process that grew; for a cgroup the one that crossed the line.
    pub pid: u32,
    /// Its command name.
    pub comm: String,
    /// Bytes grown since the last report, or since the lowest point after it.
    pub bytes: u64,
    /// Milliseconds that took.
    pub since_ms: u64,
    /// Resident bytes of that process now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss: Option<u64>,
    /// Virtual bytes of that process now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#virtual: Option<u64>,
}

/// What grew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GrowthScope {
    /// One process.
    Process,
    /// The processes of one cgroup together.
    Cgroup,
}

/// An OOM kill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Oom {
    /// Who was killed; absent when only memory.events told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub victim: Option<OomVictim>,
    /// Who ran out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<OomTrigger>,
    /// `memcg`, `global`, `cpuset` or `mempolicy`; absent when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraint: Option<Constraint>,
    /// Path of the cgroup whose limit was hit, where the kernel tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_cgroup: Option<String>,
    /// Kills this line stands for: 1, or more when only memory.events told of them.
    pub kills: u64,
}

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    /// A memory cgroup's limit.
    Memcg,
    /// The machine.
    Global,
    /// A cpuset's nodes.
    Cpuset,
    /// A memory policy's nodes.
    Mempolicy,
}

/// The victim of an OOM kill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OomVictim {
    /// Thread group id.
    pub pid: u32,
    /// Command name; empty when unknown.
    pub comm: String,
    /// Anonymous bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anon: Option<u64>,
    /// File bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<u64>,
    /// Shared-memory bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shmem: Option<u64>,
    /// Page-table bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pgtables: Option<u64>,
    /// Total virtual size, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#virtual: Option<u64>,
    /// `oom_score_adj`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
}

/// Who made the kernel run out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OomTrigger {
    /// Thread group id.
    pub pid: u32,
    /// Command name.
    pub comm: String,
    /// Path of its cgroup, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
}

/// A long reclaim run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stall {
    /// What it was spent in.
    pub kind: StallKind,
    /// How long.
    pub us: u64,
    /// Pages freed.
    pub pages: u64,
    /// Thread group id of the task that waited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its command name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// Path of the cgroup reclaimed from, where the kernel tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// True when the run was of our own making.
    #[serde(default)]
    pub own: bool,
}

/// Kinds of reclaim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StallKind {
    /// Global direct reclaim.
    Direct,
    /// memcg reclaim.
    Memcg,
    /// kswapd was awake.
    Kswapd,
}

/// A PSI trigger that fired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pressure {
    /// `some` or `full`.
    pub level: PressureLevel,
    /// Stall time of the trigger's window that makes it fire.
    pub threshold_us: u64,
    /// The window.
    pub window_us: u64,
    /// avg10 of that line at the time, percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avg10: Option<f64>,
}

/// Lines of a PSI file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PressureLevel {
    /// At least one task stalled.
    Some,
    /// All tasks stalled.
    Full,
}

/// Own cost and state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// CPU time of this process since the last `health`, percent of one core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_pct: Option<f64>,
    /// Resident bytes of this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss: Option<u64>,
    /// Run time of our programs as long as kernel.bpf_stats_enabled was on; absent unless it is on now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bpf_ns_total: Option<u64>,
    /// Records emitted by the kernel side since attach, by kind.
    #[serde(default)]
    pub emitted: BTreeMap<String, u64>,
    /// Records read since attach, by kind.
    #[serde(default)]
    pub read: BTreeMap<String, u64>,
    /// Lost since attach, by kind: no room in a ring, a full map.
    #[serde(default)]
    pub dropped: BTreeMap<String, u64>,
    /// Records read but not understood since attach.
    #[serde(default)]
    pub rejected: u64,
    /// Probes that are not attached in the best way, and what is lost.
    #[serde(default)]
    pub degraded: Vec<Degraded>,
    /// Cgroups known now.
    #[serde(default)]
    pub cgroups: u64,
    /// Entries in use in the kernel maps, by map.
    #[serde(default)]
    pub map_entries: BTreeMap<String, u64>,
    /// File descriptors open now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fds: Option<u64>,
    /// Own cost against what it may be; absent where nothing is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
}

/// A probe or source that does not work in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Degraded {
    /// Name of the probe or source.
    pub probe: String,
    /// How it is attached instead, or `off`.
    pub attached: String,
    /// What is lost.
    pub lost: String,
    /// Why.
    pub reason: String,
}
