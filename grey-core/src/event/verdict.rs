//! The `verdict` event: what the detector says of a cgroup's or a process's memory.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// What the memory of a cgroup or process is doing. One line at each change of state, not at each tick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// How sure it is.
    pub state: State,
    /// What it is.
    pub cause: Cause,
    /// Which memory it is about.
    #[serde(default)]
    pub memory: Memory,
    /// The process, when it is about one process and not the whole cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Subject>,
    /// Growth, bytes a second (Theil–Sen slope over the window of the evidence).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_bps: Option<f64>,
    /// Its 95 % confidence interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_ci95: Option<[f64; 2]>,
    /// 0 to 1: how well the evidence fulfils what a verdict of `confirmed` takes.
    pub confidence: f64,
    /// Bytes grown since `since`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth_bytes: Option<u64>,
    /// When the growth began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The limit that the growth runs into first: memory.max of the cgroup or of one above it, else the machine's memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// Path of the cgroup whose limit that is; `/` for the machine's memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_cgroup: Option<String>,
    /// Seconds until that limit at this rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<f64>,
    /// Its 95 % confidence interval, from that of the rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ci95_s: Option<[f64; 2]>,
    /// Of retention: bytes that a trim by the release agent is expected to free at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trim_bytes: Option<u64>,
    /// Figures that a person can check.
    pub evidence: Evidence,
    /// Whose stacks kept most of the memory that came in while it was suspect, the most first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stacks: Vec<GrowingStack>,
    /// What to do next, one sentence.
    pub advice: String,
}

/// A way in which memory came in, with its bytes in a profile of some seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GrowingStack {
    /// Thread group id.
    pub pid: u32,
    /// Command name.
    pub comm: String,
    /// The innermost function that belongs neither to an allocator nor to a language's runtime.
    pub function: String,
    /// Private anonymous memory that came in this way and was still there at the end.
    pub kept_bytes: u64,
    /// All that came in this way.
    pub faulted_bytes: u64,
    /// Names of the frames, the innermost first; `FILE+0xOFFSET [build id]` without a symbol.
    pub frames: Vec<String>,
}

/// How sure a verdict is.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing to tell.
    #[default]
    Normal,
    /// It grows; too early or too little to say more.
    Growing,
    /// The growth has the marks of the cause, but not yet enough of it.
    Suspect,
    /// Enough evidence to wake somebody.
    Confirmed,
    /// What was suspect or confirmed has stopped or gone back.
    Recovered,
}

/// What growth is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Memory that is taken and never given back, without bound.
    Leak,
    /// Freed by the program, kept by its allocator.
    Retention,
    /// A cache that fills: file pages, or a program's own up to its cap.
    Cache,
    /// Address space that was mapped and never touched.
    Reservation,
    /// A start: growth that slows down by itself.
    Warmup,
    /// It follows the work: comes and goes, or grows with the number of processes.
    Load,
    /// Not known (yet).
    #[default]
    Unknown,
}

/// Which memory a verdict is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Memory {
    /// Anonymous memory, resident and swapped out.
    #[default]
    Anon,
    /// Page cache.
    File,
    /// Shared memory and tmpfs.
    Shmem,
    /// Kernel memory other than slab, page tables and sockets.
    Kernel,
    /// Slab.
    Slab,
    /// Page tables.
    Pagetables,
    /// Socket buffers.
    Sock,
    /// Virtual size.
    Virtual,
}

/// The process a verdict is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Subject {
    /// Thread group id.
    pub pid: u32,
    /// Command name.
    pub comm: String,
}

/// What a verdict rests on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// One sentence: what was seen, with figures.
    pub reason: String,
    /// Level before the growth, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_bytes: Option<u64>,
    /// Level now, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level_bytes: Option<u64>,
    /// Highest level seen before the growth, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_before_bytes: Option<u64>,
    /// Seconds that the growth has lasted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_s: Option<f64>,
    /// Seconds it has to last before it counts as confirmed at this rate and limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed_s: Option<f64>,
    /// Width of the buckets whose minima are judged, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket_s: Option<f64>,
    /// Buckets judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floors: Option<u32>,
    /// Mann–Kendall Z of the floors, with the Hamed–Rao correction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub z: Option<f64>,
    /// Kendall's tau of the floors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tau: Option<f64>,
    /// Growth of the second half of the window over that of the first; under 1 it slows down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_half: Option<f64>,
    /// Share of the growth that came in the largest single bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_step: Option<f64>,
    /// Share of the room below the limit that the growth has taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_taken: Option<f64>,
    /// Growth of the virtual size in the same time, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_growth_bytes: Option<i64>,
    /// Processes at the begin of the growth and now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<[u64; 2]>,
    /// The process that grew most, where growth events tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grower: Option<Grower>,
}

/// The process that grew most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Grower {
    /// Thread group id.
    pub pid: u32,
    /// Command name.
    pub comm: String,
    /// Bytes it grew by since the growth began.
    pub bytes: u64,
}

macro_rules! words {
    ($type:ident { $($variant:ident => $word:literal,)+ }) => {
        impl $type {
            /// The word that stands for it in a line.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self {
                    $($type::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }
    };
}

words!(State {
    Normal => "normal",
    Growing => "growing",
    Suspect => "suspect",
    Confirmed => "confirmed",
    Recovered => "recovered",
});
words!(Cause {
    Leak => "leak",
    Retention => "retention",
    Cache => "cache",
    Reservation => "reservation",
    Warmup => "warmup",
    Load => "load",
    Unknown => "unknown",
});
words!(Memory {
    Anon => "anon",
    File => "file",
    Shmem => "shmem",
    Kernel => "kernel",
    Slab => "slab",
    Pagetables => "pagetables",
    Sock => "sock",
    Virtual => "virtual",
});
