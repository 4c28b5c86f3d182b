//! The document that `snapshot save` writes: one JSON object, schema `grey-ebpf-snapshot/1`. Bytes; an unknown figure is
//! left out, never zero. The schema only grows.

use grey_core::event::{Cgroup, Mem, MemSource};
use grey_core::glob::CgroupFilter;
use grey_core::identity::identify;
use grey_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host::{FullEvents, MemInfo, VmStat};

/// The schema's name and version, the document's first field.
pub const SCHEMA: &str = "grey-ebpf-snapshot/1";
/// The name without the version.
pub(super) const FAMILY: &str = "grey-ebpf-snapshot/";

/// Memory of a machine, its cgroups and processes at one time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Always `grey-ebpf-snapshot/1`.
    pub schema: String,
    /// When it was begun.
    pub ts: Timestamp,
    /// How long it took, microseconds: figures read last are so much younger than those read first.
    #[serde(default)]
    pub took_us: u64,
    /// Node name of the machine.
    pub host: String,
    /// `/proc/sys/kernel/random/boot_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Kernel release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Version of the program that wrote it.
    #[serde(default)]
    pub program: String,
    /// Where the v2 tree is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
    /// `--cgroup` as given; empty: every cgroup and process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chosen: Vec<String>,
    /// The machine.
    #[serde(default)]
    pub machine: Machine,
    /// The chosen cgroups, by path.
    #[serde(default)]
    pub cgroups: Vec<CgroupEntry>,
    /// The processes in them.
    #[serde(default)]
    pub processes: Processes,
}

/// The whole machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// /proc/meminfo.
    pub memory: MemInfo,
    /// Counters of /proc/vmstat.
    pub vm: VmStat,
}

/// One cgroup. Its figures include its descendants, as the memory.* files do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CgroupEntry {
    /// Which.
    pub cgroup: Cgroup,
    /// Its memory.
    #[serde(default)]
    pub mem: Mem,
    /// Where `mem` comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_source: Option<MemSource>,
    /// memory.peak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<u64>,
    /// What reclaim can take without swap: page cache and the slab that shrinks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reclaimable: Option<u64>,
    /// Sum over its processes of PSS; absent unless that of each is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pss: Option<u64>,
    /// Sum over its processes of USS; absent unless that of each is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uss: Option<u64>,
    /// Processes in it and below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Removed cgroups below that memory keeps alive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dying_cgroups: Option<u64>,
    /// memory.events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<FullEvents>,
    /// Counters since it began.
    #[serde(default)]
    pub counters: Counters,
}

/// Counters of memory.stat, in events or pages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// `pgmajfault`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major_faults: Option<u64>,
    /// Pages that came back after they had been reclaimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refaults: Option<u64>,
    /// `pgscan`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scanned: Option<u64>,
    /// `pgsteal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reclaimed: Option<u64>,
    /// `pswpout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swapped_out: Option<u64>,
}

/// The processes, largest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Processes {
    /// Of how many at most the PSS and USS were asked for.
    pub detailed: u64,
    /// Of how many they were refused.
    pub denied: u64,
    /// All that have memory of their own (kernel threads have none).
    pub list: Vec<ProcessEntry>,
}

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEntry {
    /// Thread group id.
    pub pid: u32,
    /// When it began, clock ticks since boot: names it with the pid, as pids are reused.
    pub started: u64,
    /// Command name.
    pub comm: String,
    /// Path of its cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Resident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss: Option<u64>,
    /// Resident anonymous.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anon: Option<u64>,
    /// Swapped out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<u64>,
    /// Total virtual size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#virtual: Option<u64>,
    /// Proportional set size: each page divided by the processes that map it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pss: Option<u64>,
    /// Unique set size: what its end would give back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uss: Option<u64>,
    /// Swapped out, divided by the processes that share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_pss: Option<u64>,
    /// In transparent huge pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub huge: Option<u64>,
    /// Merged by KSM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ksm: Option<u64>,
}

impl Snapshot {
    /// Whether `--cgroup` chose the cgroup at this path, which then need not exist at that time.
    #[must_use]
    pub fn chose(&self) -> Choice {
        let mount = self.mount.as_deref().unwrap_or_default();
        Choice {
            // It was valid when the snapshot was saved; a list that was meddled with chooses everything.
            filter: CgroupFilter::new(&self.chosen, mount).unwrap_or_default(),
        }
    }
}

/// Which cgroups and processes a snapshot tells of.
#[derive(Debug)]
pub struct Choice {
    filter: CgroupFilter,
}

impl Choice {
    /// The cgroups of this filter.
    #[must_use]
    pub fn new(filter: CgroupFilter) -> Choice {
        Choice { filter }
    }

    /// Whether it tells of a cgroup.
    #[must_use]
    pub fn cgroup(&self, path: &str) -> bool {
        self.filter.matches(path, &identify(path).name)
    }

    /// Whether it tells of the processes of a cgroup: of a chosen one or below it.
    #[must_use]
    pub fn processes_of(&self, path: Option<&str>) -> bool {
        ancestors(path.unwrap_or("/")).any(|path| self.cgroup(path))
    }
}

/// A path and all above it, the root last.
pub(super) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| match path.rfind('/') {
        _ if *path == "/" || path.is_empty() => None,
        Some(0) | None => Some("/"),
        Some(at) => Some(&path[..at]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_its_ancestors_up_to_the_root() {
        let all = |path| ancestors(path).collect::<Vec<_>>();
        assert_eq!(all("/a/b/c"), ["/a/b/c", "/a/b", "/a", "/"]);
        assert_eq!(all("/a"), ["/a", "/"]);
        assert_eq!(all("/"), ["/"]);
        assert_eq!(all("odd"), ["odd", "/"]);
        assert_eq!(all(""), [""]);
    }

    #[test]
    fn a_choice_of_a_cgroup_has_the_processes_below_it_too() {
        let snapshot = Snapshot {
            mount: Some("/sys/fs/cgroup".to_owned()),
            chosen: vec!["/sys/fs/cgroup/a".to_owned(), "nginx".to_owned()],
            ..Snapshot::default()
        };
        let choice = snapshot.chose();
        assert!(choice.cgroup("/a") && !choice.cgroup("/a/b") && !choice.cgroup("/"));
        assert!(choice.cgroup("/system.slice/nginx.service"));
        assert!(choice.processes_of(Some("/a/b/c")) && choice.processes_of(Some("/a")));
        assert!(!choice.processes_of(Some("/b")) && !choice.processes_of(None));
        let all = Snapshot::default().chose();
        assert!(all.cgroup("/b") && all.processes_of(None));
    }
}
