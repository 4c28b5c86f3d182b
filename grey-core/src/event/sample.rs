//! Figures of one cgroup.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Figures of one cgroup. Gauges unless the name ends in `_total`. As the memory.* files do, every figure
/// includes the cgroup's descendants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// Memory; absent parts are unknown.
    #[serde(default)]
    pub mem: Mem,
    /// Where `mem` comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_source: Option<MemSource>,
    /// Page faults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<Faults>,
    /// Virtual memory calls and size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<Vm>,
    /// Reclaim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reclaim: Option<Reclaim>,
    /// Memory pressure (PSI).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
    /// CPU time; `daemon` reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// memory.events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<MemEvents>,
    /// Processes in the cgroup and below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
}

/// Where the memory figures of a cgroup come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemSource {
    /// Its memory.* files.
    Files,
    /// The machine's own figures (/proc/meminfo), for the root.
    Machine,
    /// The sum over its processes, where the tree has no memory controller: pages that processes share after a fork
    /// are counted in each of them, and memory that no process maps is not seen.
    Processes,
}

/// Memory of a cgroup, bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Mem {
    /// memory.current.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// memory.stat `anon`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anon: Option<u64>,
    /// memory.stat `file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<u64>,
    /// memory.stat `shmem`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shmem: Option<u64>,
    /// memory.stat `kernel` (or the sum of its parts on kernels that do not give the sum).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<u64>,
    /// memory.stat `slab`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slab: Option<u64>,
    /// memory.stat `pagetables`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pagetables: Option<u64>,
    /// memory.stat `sock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sock: Option<u64>,
    /// memory.swap.current.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<u64>,
    /// memory.stat `inactive_file`: page cache that was not used lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactive_file: Option<u64>,
    /// All memory of the machine: /proc/meminfo `MemTotal`; root cgroup only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Room in swap: /proc/meminfo `SwapFree`; root cgroup only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_free: Option<u64>,
    /// Memory that can be had without swapping: /proc/meminfo `MemAvailable`; root cgroup only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<u64>,
    /// memory.max; `null` means no limit, absent means unknown.
    #[serde(default, skip_serializing_if = "Limit::is_unknown")]
    pub max: Limit,
    /// memory.high; `null` means no limit, absent means unknown.
    #[serde(default, skip_serializing_if = "Limit::is_unknown")]
    pub high: Limit,
}

/// A limit file's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Limit {
    /// Not read or not there: left out of the line.
    #[default]
    Unknown,
    /// `max`: written as `null`.
    None,
    /// Bytes.
    Bytes(u64),
}

impl Limit {
    /// Whether the field is to be left out.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Limit::Unknown
    }

    /// The limit in bytes, if there is one.
    #[must_use]
    pub fn bytes(self) -> Option<u64> {
        match self {
            Limit::Bytes(bytes) => Some(bytes),
            Limit::None | Limit::Unknown => None,
        }
    }
}

impl Serialize for Limit {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.bytes().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map_or(Limit::None, Limit::Bytes))
    }
}

impl JsonSchema for Limit {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Limit".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Option::<u64>::json_schema(generator)
    }
}

/// Page faults of a cgroup's tasks since attach; `major_total` since the cgroup began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Faults {
    /// Faults served without I/O: all faults the probe counted less the major ones in the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minor_total: Option<u64>,
    /// memory.stat `pgmajfault`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub major_total: Option<u64>,
    /// User-mode faults on a read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_read_total: Option<u64>,
    /// User-mode faults on a write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_write_total: Option<u64>,
    /// User-mode faults on an instruction fetch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_exec_total: Option<u64>,
    /// Faults taken in kernel mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_total: Option<u64>,
}

/// Virtual memory of a cgroup. Totals count calls that succeeded since attach.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Vm {
    /// Bytes mapped: mmap, plus what mremap and brk added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapped_total: Option<u64>,
    /// Bytes unmapped: munmap, plus what mremap and brk took away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmapped_total: Option<u64>,
    /// Bytes given back by madvise(MADV_DONTNEED or MADV_FREE); they stay mapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_total: Option<u64>,
    /// Successful calls of mmap, mremap and brk (a brk that moved nothing is not counted).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_calls_total: Option<u64>,
    /// Successful calls of munmap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmap_calls_total: Option<u64>,
    /// Successful calls of madvise(MADV_DONTNEED or MADV_FREE).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_calls_total: Option<u64>,
    /// Virtual size of all its processes, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#virtual: Option<u64>,
}

/// Reclaim and what it cost. Since attach, except `refault_total`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reclaim {
    /// Time the cgroup's tasks were held up in direct and memcg reclaim, our own runs left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall_us_total: Option<u64>,
    /// Pages freed by memcg reclaim of this cgroup and by direct reclaim its tasks entered, our own runs left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages_total: Option<u64>,
    /// Of `stall_us_total`, in global direct reclaim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_us_total: Option<u64>,
    /// Of `stall_us_total`, in memcg reclaim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memcg_us_total: Option<u64>,
    /// Time kswapd was awake (root cgroup only; nobody waits for it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kswapd_us_total: Option<u64>,
    /// Pages freed by reclaim of our own making.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_pages_total: Option<u64>,
    /// Time spent in reclaim of our own making.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_us_total: Option<u64>,
    /// memory.stat workingset_refault_anon + workingset_refault_file, pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refault_total: Option<u64>,
}

/// Pressure stall totals of memory.pressure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Psi {
    /// Time at least one task stalled on memory.
    pub some_us_total: u64,
    /// Time all tasks stalled on memory; absent where the kernel does not give it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_us_total: Option<u64>,
}

/// CPU time of cpu.stat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cpu {
    /// `usage_usec`
    pub usage_us_total: u64,
}

/// memory.events (of the cgroup and its descendants).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemEvents {
    /// `high`
    pub high_total: u64,
    /// `max`
    pub max_total: u64,
    /// `oom`
    pub oom_total: u64,
    /// `oom_kill`
    pub oom_kill_total: u64,
}
