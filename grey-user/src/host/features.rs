//! What this kernel offers to act with, found out by looking and by calls that cannot do anything: never by its
//! version, and without changing a thing.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{CgroupFs, Host};

/// Whether a feature is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// It cannot be told without acting, or from another machine's files.
    Unknown,
}

impl From<bool> for Presence {
    fn from(present: bool) -> Self {
        if present { Presence::Yes } else { Presence::No }
    }
}

/// One feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Feature {
    /// The file or call.
    pub name: &'static str,
    /// What it is good for.
    pub purpose: &'static str,
    /// Whether it is there.
    pub present: Presence,
    /// What more is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What does instead where it is absent.
    pub alternative: &'static str,
}

/// Tells all features of the machine. `sample` is a cgroup below the root that has memory.* files, if there is one.
#[must_use]
pub fn detect(host: &Host, fs: &CgroupFs, sample: Option<&Path>) -> Vec<Feature> {
    let calls = Calls::of(host);
    let mut list = cgroup_features(fs, sample, host);
    list.extend(process_features(host, calls));
    list.extend(machine_features(host));
    list
}

/// The directory of a cgroup below the root, with memory.* files if any of the first level has them.
pub(super) fn sample_cgroup(host: &Host, fs: &CgroupFs) -> Option<PathBuf> {
    let mount = fs.mount()?;
    let names = host.names(mount);
    let dirs = || {
        names
            .iter()
            .map(|name| host.path(mount).join(name))
            .filter(|path| path.is_dir())
    };
    dirs()
        .find(|dir| dir.join("memory.current").exists())
        .or_else(|| dirs().next())
}

fn cgroup_features(fs: &CgroupFs, sample: Option<&Path>, host: &Host) -> Vec<Feature> {
    let root = fs.mount().map(|mount| host.path(mount));
    let memory = fs.has_memory();
    let below = |file: &str| match sample {
        _ if !memory => Presence::No,
        Some(dir) if dir.join("memory.current").exists() => dir.join(file).exists().into(),
        _ => Presence::Unknown,
    };
    let why = (!memory).then(|| "the v2 tree has no memory controller".to_owned());
    let why_or = |note: Option<String>| why.clone().or(note);
    let at_root = root
        .as_ref()
        .is_some_and(|root| root.join("memory.reclaim").exists());
    let reclaim = match below("memory.reclaim") {
        Presence::Unknown if at_root => Presence::Yes,
        other => other,
    };
    let peak = sample.map(|dir| dir.join("memory.peak"));
    let resettable = peak.as_deref().and_then(writable);
    let swappiness = if reclaim == Presence::No {
        Presence::No
    } else {
        Presence::Unknown
    };
    let freeze = match sample {
        Some(dir) => dir.join("cgroup.freeze").exists().into(),
        None if root.is_none() => Presence::No,
        None => Presence::Unknown,
    };
    vec![
        Feature {
            name: "memory.reclaim",
            purpose: "reclaiming a given amount from one cgroup",
            present: reclaim,
            note: why.clone(),
            alternative: "memory.high under a lease, where the controller is there; else drop_caches for the machine",
        },
        Feature {
            name: "memory.reclaim of the root",
            purpose: "reclaiming from the whole machine, only when asked by name",
            present: if root.is_some() {
                at_root.into()
            } else {
                Presence::No
            },
            note: None,
            alternative: "memory.reclaim of each top-level cgroup",
        },
        Feature {
            name: "memory.reclaim swappiness=",
            purpose: "choosing between file and anonymous memory for one reclaim",
            present: swappiness,
            note: match swappiness {
                Presence::Unknown => Some("not probed: only a reclaim can tell".to_owned()),
                _ => why.clone(),
            },
            alternative: "plain memory.reclaim, which follows vm.swappiness",
        },
        Feature {
            name: "node0/reclaim",
            purpose: "reclaiming from one NUMA node",
            present: host.has("/sys/devices/system/node/node0/reclaim").into(),
            note: None,
            alternative: "memory.reclaim per cgroup",
        },
        Feature {
            name: "memory.high",
            purpose: "throttling the growth of one cgroup",
            present: below("memory.high"),
            note: why.clone(),
            alternative: "nothing; the cgroup is only observed",
        },
        Feature {
            name: "memory.peak",
            purpose: "the highest use, kept by the kernel",
            present: below("memory.peak"),
            note: why_or(
                resettable
                    .map(|yes| (if yes { "resettable" } else { "not resettable" }).to_owned()),
            ),
            alternative: "the highest memory.current seen at a tick",
        },
        Feature {
            name: "memory.zswap.writeback",
            purpose: "keeping one cgroup's zswap from writing to disk",
            present: below("memory.zswap.writeback"),
            note: why,
            alternative: "memory.swap.max = 0 where disk swap is not wanted",
        },
        Feature {
            name: "cgroup.freeze",
            purpose: "freezing an idle container the operator named",
            present: freeze,
            note: (freeze == Presence::Unknown)
                .then(|| "not known: there is no cgroup below the root to look at".to_owned()),
            alternative: "nothing; such containers go on running",
        },
    ]
}

fn process_features(host: &Host, calls: Calls) -> Vec<Feature> {
    vec![
        Feature {
            name: "process_madvise",
            purpose: "paging out cold ranges of another process",
            present: calls.process_madvise,
            note: None,
            alternative: "memory.reclaim of its cgroup",
        },
        Feature {
            name: "PR_SET_MEMORY_MERGE",
            purpose: "merging of a whole process started by `run --ksm`",
            present: calls.memory_merge,
            note: None,
            alternative: "madvise(MADV_MERGEABLE) by the release agent inside the process",
        },
        Feature {
            name: "PAGEMAP_SCAN",
            purpose: "finding a process's resident ranges in one call",
            present: calls.pagemap_scan,
            note: None,
            alternative: "reading /proc/PID/pagemap page by page",
        },
        Feature {
            name: "/proc/PID/ksm_stat",
            purpose: "what KSM saved in one process",
            present: host.has("/proc/self/ksm_stat").into(),
            note: None,
            alternative: "the machine's KSM figures",
        },
    ]
}

fn machine_features(host: &Host) -> Vec<Feature> {
    let file = |name, purpose, path: &str, alternative| Feature {
        name,
        purpose,
        present: host.has(path).into(),
        note: None,
        alternative,
    };
    vec![
        file(
            "KSM",
            "merging equal pages",
            "/sys/kernel/mm/ksm/run",
            "nothing; equal pages stay apart",
        ),
        file(
            "KSM general_profit",
            "whether KSM pays",
            "/sys/kernel/mm/ksm/general_profit",
            "an estimate from pages_sharing",
        ),
        file(
            "KSM advisor",
            "pacing of the KSM scan by the kernel",
            "/sys/kernel/mm/ksm/advisor_mode",
            "a fixed pages_to_scan",
        ),
        file(
            "DAMON",
            "finding cold memory by sampling",
            "/sys/kernel/mm/damon/admin",
            "idle ranges from PAGEMAP_SCAN or /proc/PID/smaps",
        ),
        file(
            "DAMON_RECLAIM",
            "reclaim of cold memory by the kernel itself",
            "/sys/module/damon_reclaim/parameters/enabled",
            "memory.reclaim driven by pressure",
        ),
        file(
            "MGLRU",
            "ageing pages in generations",
            "/sys/kernel/mm/lru_gen/enabled",
            "the two-list LRU",
        ),
        file(
            "PSI",
            "the time lost to memory pressure",
            "/proc/pressure/memory",
            "reclaim stall times of the probes (boot with psi=1 to have PSI)",
        ),
    ]
}

/// Whether anybody may write to a file by its mode.
fn writable(path: &Path) -> Option<bool> {
    use std::os::unix::fs::PermissionsExt;
    Some(path.metadata().ok()?.permissions().mode() & 0o222 != 0)
}

/// Features that only a system call tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Calls {
    process_madvise: Presence,
    memory_merge: Presence,
    pagemap_scan: Presence,
}

impl Calls {
    fn of(host: &Host) -> Self {
        if host.is_live() {
            Calls {
                process_madvise: process_madvise(),
                memory_merge: memory_merge(),
                pagemap_scan: pagemap_scan(),
            }
        } else {
            let unknown = Presence::Unknown;
            Calls {
                process_madvise: unknown,
                memory_merge: unknown,
                pagemap_scan: unknown,
            }
        }
    }
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn process_madvise() -> Presence {
    let nothing: *const libc::iovec = std::ptr::null();
    // SAFETY: an empty vector is read from nowhere, and the invalid pidfd (-1) makes the call fail before it acts.
    let result = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            -1,
            nothing,
            0_usize,
            libc::MADV_COLD,
            0_u32,
        )
    };
    match (result, errno()) {
        (-1, libc::EBADF) => Presence::Yes,
        (-1, libc::ENOSYS) => Presence::No,
        // A seccomp filter may refuse the call before the kernel sees it.
        _ => Presence::Unknown,
    }
}

fn memory_merge() -> Presence {
    const PR_GET_MEMORY_MERGE: libc::c_int = 68;
    // SAFETY: the GET form takes no pointer and changes nothing.
    let result = unsafe { libc::prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) };
    match (result, errno()) {
        (0.., _) => Presence::Yes,
        (_, libc::EINVAL) => Presence::No,
        _ => Presence::Unknown,
    }
}

fn pagemap_scan() -> Presence {
    /// `_IOWR('f', 16, struct pm_scan_arg)` with its 96 bytes (include/uapi/linux/fs.h).
    const PAGEMAP_SCAN: u64 = (3 << 30) | (96 << 16) | ((b'f' as u64) << 8) | 16;
    let Ok(pagemap) = File::open("/proc/self/pagemap") else {
        return Presence::Unknown;
    };
    let nothing: *const libc::c_void = std::ptr::null();
    // SAFETY: a kernel that knows the request fails to copy its argument from the null pointer; no other does anything.
    let result = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN as _, nothing) };
    match (result, errno()) {
        (-1, libc::ENOTTY) => Presence::No,
        (-1, libc::EFAULT | libc::EINVAL) => Presence::Yes,
        _ => Presence::Unknown,
    }
}

#[cfg(test)]
mod tests;
