//! What `diagnose` knows of a machine: plain data, filled by `gather`, judged by `answers`, printed by `text` and as
//! JSON. An unknown figure is absent.

use std::path::PathBuf;

use grey_core::event::Limit;
use serde::Serialize;

use crate::host::memory::{Swap, Zram, Zswap};
use crate::host::oom_log::OomRecord;
use crate::host::psi::PsiFile;
use crate::host::{FullEvents, Ksm, MemInfo, Mode};

/// Everything that was found out.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// /proc/meminfo.
    pub meminfo: MemInfo,
    /// Swap areas; absent where the kernel has no swap at all.
    pub swaps: Option<Vec<Swap>>,
    /// zram devices.
    pub zram: Vec<Zram>,
    /// zswap.
    pub zswap: Option<Zswap>,
    /// Transparent huge pages: `always`, `madvise`, `never`.
    pub thp: Option<String>,
    /// KSM of the machine.
    pub ksm: Option<Ksm>,
    /// Processes that take part in KSM.
    pub ksm_users: KsmUsers,
    /// Pressure of the machine.
    pub psi: Option<PsiFile>,
    /// Free memory by block size.
    pub zones: Vec<ZoneUse>,
    /// Mounted tmpfs that hold something, the largest first.
    pub tmpfs: Vec<Tmpfs>,
    /// The guest's side of virtualisation, in a virtual machine.
    pub guest: Option<Guest>,
    /// The kernel, the tree and our standing with both.
    pub machine: Standing,
    /// The cgroups.
    pub cgroups: Cgroups,
    /// The processes.
    pub processes: Processes,
    /// OOM kills.
    pub oom: Oom,
}

/// The kernel, the cgroup tree, and what we may do with them.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Node name.
    pub hostname: Option<String>,
    /// Identity of this boot.
    pub boot_id: Option<String>,
    /// `uname -r`.
    pub release: Option<String>,
    /// Effective user id.
    pub euid: Option<u32>,
    /// Names of the capabilities of ours that matter here; absent where the kernel does not tell.
    pub capabilities: Option<Vec<&'static str>>,
    /// The capabilities hold inside a user namespace only.
    pub in_user_namespace: bool,
    /// /proc hides other users' processes.
    pub hidepid: bool,
    /// What says that this is a container.
    pub container: Option<&'static str>,
    /// Layout of the cgroup hierarchies; absent where it is not known.
    pub mode: Option<Mode>,
    /// Mount point of the v2 tree.
    pub mount: Option<PathBuf>,
    /// Whether only a part of the v2 tree is in view.
    pub partial: bool,
    /// Whether the v2 tree is mounted read-only.
    pub read_only: bool,
    /// Whether the v2 tree has the memory controller.
    pub has_memory: bool,
    /// Whether the root's children have it.
    pub memory_delegated: Option<bool>,
    /// Where the v1 memory controller is mounted.
    pub v1_memory: Option<PathBuf>,
    /// `cgroup_disable=memory` is on the kernel's command line.
    pub memory_disabled: bool,
    /// Whether a cgroup below the root has a memory.reclaim; absent where none could be looked at.
    pub reclaim_file: Option<bool>,
    /// Whether we may write to it.
    pub reclaim_writable: Option<bool>,
    /// What is there and could not be read, each with the reason.
    pub denied: Vec<Denied>,
}

/// A source that is there and that we may not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Denied {
    /// The file or files.
    pub what: String,
    /// The kernel's reason.
    pub reason: String,
    /// What is lost without it.
    pub lost: &'static str,
    /// What would let us read it.
    pub remedy: String,
}

/// A virtual machine as seen from the inside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Guest {
    /// `KVM/QEMU`, `WSL2`, `Xen` …, as far as it can be told.
    pub hypervisor: String,
    /// Whether a balloon device is driven.
    pub balloon: bool,
    /// Whether the balloon reports free pages to the host (VIRTIO_BALLOON_F_REPORTING); absent without a balloon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_page_reporting: Option<bool>,
    /// What to switch on so that free memory goes back to the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switch_on: Option<String>,
}

/// Free memory of a zone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ZoneUse {
    /// NUMA node.
    pub node: u32,
    /// `DMA32`, `Normal` …
    pub zone: String,
    /// Free bytes in blocks of the buddy allocator.
    pub free: u64,
    /// Free blocks by order; a block of order n is 2^n pages.
    pub free_blocks: Vec<u64>,
    /// By order, share (0 to 1) of the free memory in blocks smaller than that.
    pub unusable: Vec<f64>,
}

/// A mounted tmpfs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tmpfs {
    /// Where.
    pub mount: PathBuf,
    /// Bytes of files in it.
    pub used: u64,
}

/// Processes that offered their memory to KSM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KsmUsers {
    /// Processes that were looked at; absent where the kernel has no ksm_stat or shows none of them to us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub looked_at: Option<u64>,
    /// Those of them with something for KSM to scan: a merge-any flag or pages on KSM's list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offering: Option<u64>,
    /// The ones with most pages merged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<KsmUser>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KsmUser {
    /// Thread group id.
    pub pid: u32,
    /// Command name.
    pub comm: String,
    /// Bytes merged.
    pub merged: u64,
    /// Bytes saved less KSM's own for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profit: Option<i64>,
}

/// Where the cgroups' figures come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// memory.* files.
    Files,
    /// Sums over the processes: no page cache, no kernel memory, no limits.
    Processes,
    /// There is nothing to read.
    #[default]
    Nothing,
}

/// The cgroups.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cgroups {
    /// Where the figures come from.
    pub source: Source,
    /// How many there are; absent where there is no tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// How many the filter let through, the root left out where there are others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<u64>,
    /// The largest of them. A figure includes the descendants'.
    pub top: Vec<CgroupUse>,
    /// All others, for the answers.
    #[serde(skip)]
    pub others: Vec<CgroupUse>,
    /// Removed cgroups that memory still holds (cgroup.stat `nr_dying_descendants` of the root).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dying: Option<u64>,
    /// True when time ran out before all were read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
}

impl Cgroups {
    /// All that were read, the largest first, whatever the filter.
    pub fn all(&self) -> impl Iterator<Item = &CgroupUse> {
        self.top.iter().chain(&self.others)
    }
}

/// One cgroup, bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CgroupUse {
    /// Path below the mount.
    pub path: String,
    /// `service`, `container` …
    pub kind: String,
    /// A name a person knows it by.
    pub name: String,
    /// memory.current.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// Anonymous.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon: Option<u64>,
    /// Page cache, tmpfs included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<u64>,
    /// tmpfs and shared memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shmem: Option<u64>,
    /// Kernel memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<u64>,
    /// Swapped out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<u64>,
    /// Anonymous memory in huge pages (memory.stat `anon_thp`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon_huge: Option<u64>,
    /// What reclaim can take without swap: active_file + inactive_file + slab_reclaimable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reclaimable: Option<u64>,
    /// memory.max.
    #[serde(skip_serializing_if = "Limit::is_unknown")]
    pub max: Limit,
    /// memory.high.
    #[serde(skip_serializing_if = "Limit::is_unknown")]
    pub high: Limit,
    /// The lowest memory.max of it and of those above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<EffectiveLimit>,
    /// memory.min, where set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<u64>,
    /// memory.low, where set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low: Option<u64>,
    /// memory.pressure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<PsiFile>,
    /// memory.events, descendants included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<FullEvents>,
    /// memory.events.local, without the descendants'.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own_events: Option<FullEvents>,
    /// Processes in it and below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
}

impl CgroupUse {
    /// What to sort by: memory.current, else what the processes have.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.current
            .or(self.anon)
            .unwrap_or(0)
            .saturating_add(self.swap.unwrap_or(0))
    }
}

/// A limit and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EffectiveLimit {
    /// Path of the cgroup that sets it.
    pub cgroup: String,
    /// Bytes.
    pub bytes: u64,
    /// memory.current there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
}

impl EffectiveLimit {
    /// Share in use, 0 to 1.
    #[must_use]
    pub fn used(&self) -> Option<f64> {
        (self.bytes > 0).then(|| Some(self.current? as f64 / self.bytes as f64))?
    }
}

/// The processes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Processes {
    /// How many were seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// The largest by resident size and swap of those that are wanted.
    pub top: Vec<ProcessUse>,
    /// The largest of all, whatever the filter.
    #[serde(skip)]
    pub largest: Option<ProcessUse>,
    /// Of `top`, those without PSS because we may not read their smaps_rollup.
    pub denied: u64,
    /// Of `top`, those without PSS because time ran out.
    pub late: u64,
    /// True when time ran out before all were read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
}

/// One process, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProcessUse {
    /// Thread group id.
    pub pid: u32,
    /// Command name.
    pub comm: String,
    /// Path of its cgroup in the v2 tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Resident: `Rss` of smaps_rollup, else `VmRSS` of status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss: Option<u64>,
    /// Each page divided by those that map it; absent without privilege.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pss: Option<u64>,
    /// What its end would give back; absent without privilege.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uss: Option<u64>,
    /// Swapped out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<u64>,
    /// Resident anonymous.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon: Option<u64>,
    /// Anonymous memory in huge pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon_huge: Option<u64>,
    /// Locked in memory (`VmLck` counts address space, so this is smaps_rollup's `Locked`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<u64>,
    /// Virtual size.
    #[serde(rename = "virtual", skip_serializing_if = "Option::is_none")]
    pub virt: Option<u64>,
}

/// OOM kills.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Oom {
    /// Kills since boot (/proc/vmstat `oom_kill`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kills_since_boot: Option<u64>,
    /// Microseconds since boot, to tell how long ago a record was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime_us: Option<u64>,
    /// What the kernel log still has of them, the latest first.
    pub records: Vec<OomRecord>,
    /// Whether the kernel log could be read.
    pub log_read: bool,
    /// Cgroups that exist and lost a process of their own, by count.
    pub cgroups: Vec<OomCgroup>,
}

/// Kills in one cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OomCgroup {
    /// Its path.
    pub path: String,
    /// Kills of processes of its own.
    pub kills: u64,
    /// Kills of it as a whole (memory.oom.group).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_kills: Option<u64>,
    /// The limit over it, as it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<EffectiveLimit>,
}
