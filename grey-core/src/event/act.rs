//! The events of acting: what is about to be done, what came of it, what was taken back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An action, told before anything is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ActionPlan {
    /// Its id in the journal, which `rollback --id` takes; absent in a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// `reclaim`, `limit`, `ksm`, `drop_caches`, `compact`, `pageout`, `freeze`, `thaw`, `trim`.
    pub kind: String,
    /// Cgroup path, `pid 123` or `machine`.
    pub target: String,
    /// Bytes it is meant to free; absent where that is not its aim or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_bytes: Option<u64>,
    /// Why it is done.
    pub reason: String,
    /// True when nothing is going to be written.
    pub dry_run: bool,
    /// What is written where, in this order.
    #[serde(default)]
    pub writes: Vec<PlannedWrite>,
    /// What is to be expected, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// Seconds after which it is taken back by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_s: Option<f64>,
    /// The policy that wanted it; absent where a person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// What was learned: probability of harm, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_harm: Option<f64>,
}

/// One write of an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedWrite {
    /// The file (or the call, as in `process_madvise pid 123`).
    pub file: String,
    /// What it holds now; absent where it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// What is written.
    pub new: String,
    /// Whether it can be taken back.
    pub reversible: bool,
}

/// What came of an action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ActionOutcome {
    /// The action's id.
    pub id: u64,
    /// Its kind.
    pub kind: String,
    /// Its target.
    pub target: String,
    /// Bytes the target had less right after it (memory.current, or resident bytes of a process; of the machine and the
    /// root cgroup the fall of `anon` and `file` or the rise of `free`, whichever is greater); 0 where it had more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freed_bytes: Option<u64>,
    /// Of these, bytes it still had less at the end of the observation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_bytes: Option<u64>,
    /// Time tasks of the target stalled on memory since the action began (PSI some).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psi_delta_us: Option<u64>,
    /// Pages of the target that came back since the action began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refaults: Option<u64>,
    /// `commit`: what was done stays (or is over). `revert`: it was taken back.
    pub verdict: OutcomeVerdict,
    /// What was done, and why no more, in words.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The target before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<ActionState>,
    /// The target after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ActionState>,
    /// Time the action took, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_us: Option<u64>,
}

/// Whether an action stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeVerdict {
    /// It stays.
    Commit,
    /// It was taken back.
    Revert,
}

/// Figures of an action's target at one moment, bytes unless they say otherwise. Absent figures are unknown or do not
/// apply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ActionState {
    /// memory.current.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// Anonymous memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anon: Option<u64>,
    /// Page cache with tmpfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<u64>,
    /// Swap in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<u64>,
    /// Resident bytes of a process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss: Option<u64>,
    /// MemAvailable of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<u64>,
    /// MemFree of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<u64>,
    /// Refaults of the target, pages since it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refaults: Option<u64>,
    /// PSI some of the target, microseconds since it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psi_some_us: Option<u64>,
    /// PSI full of the target, microseconds since it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psi_full_us: Option<u64>,
    /// Faults of the target that read from a disk, since it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub major_faults: Option<u64>,
    /// CPU time of the target since it began, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<u64>,
    /// KSM: what merging saves less what it costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ksm_profit: Option<i64>,
    /// Free bytes in blocks of a huge page or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_huge: Option<u64>,
}

/// What was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rollback {
    /// The action; absent when several were taken back together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// Why: `lease`, `by hand`, `oom_kill`, `pressure`, `available`, `refaults`, `critical_service`, `controller` …, with
    /// figures behind a colon.
    pub cause: String,
    /// Files that hold their old value again.
    pub restored: Vec<RestoredFile>,
    /// Files that were left alone.
    pub skipped: Vec<SkippedFile>,
}

/// A file that was put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RestoredFile {
    /// The file.
    pub file: String,
    /// What it held.
    pub from: String,
    /// What it holds now.
    pub to: String,
}

/// A file that was not put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SkippedFile {
    /// The file.
    pub file: String,
    /// Why not.
    pub why: String,
}
