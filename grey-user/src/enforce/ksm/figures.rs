//! What KSM holds, saves and costs, as the kernel tells it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use grey_core::act::{Knob, KnobFile, Value};
use serde::Serialize;

use crate::act::{Scene, files};
use crate::cli::Failure;
use crate::host::facts::Lookup;
use crate::host::{Host, Ksm, ProcFs};

/// Bytes of a `struct rmap_item`, of which KSM keeps one for each page it knows: the per-page cost that the kernel's
/// documentation gives for 64-bit machines (Documentation/admin-guide/mm/ksm.rst).
const RMAP_ITEM: u64 = 64;
/// How long looking through /proc may take.
const EACH: Duration = Duration::from_secs(5);
/// Processes told one by one.
const TOP: usize = 10;

/// The files below /sys/kernel/mm/ksm that this program may change.
pub(super) const KNOBS: [KnobFile; 10] = [
    KnobFile::KsmRun,
    KnobFile::KsmPagesToScan,
    KnobFile::KsmSleepMs,
    KnobFile::KsmAdvisorMode,
    KnobFile::KsmAdvisorMaxCpu,
    KnobFile::KsmAdvisorTargetScanTime,
    KnobFile::KsmAdvisorMinPages,
    KnobFile::KsmAdvisorMaxPages,
    KnobFile::KsmSmartScan,
    KnobFile::KsmUseZeroPages,
];

/// What the knobs hold; those this kernel does not have are not in it.
pub(super) type Knobs = BTreeMap<KnobFile, Value>;

/// Reads them.
///
/// # Errors
/// Exit 3: this kernel has no KSM, or does not show it to us.
pub(super) fn knobs(scene: &Scene) -> Result<Knobs, Failure> {
    let mut knobs = Knobs::new();
    for file in KNOBS {
        if !scene.host.has(format!("/sys/kernel/mm/{}", file.name())) {
            continue;
        }
        let knob = Knob::machine(file);
        let value = files::read(&scene.host, &scene.cgroups, &knob)
            .map_err(|fault| Failure::unsupported(format!("{knob}: {fault}; run it as root")))?;
        knobs.insert(file, value);
    }
    if !knobs.contains_key(&KnobFile::KsmRun) {
        return Err(Failure::unsupported(
            "/sys/kernel/mm/ksm/run: not there; this kernel is built without KSM (CONFIG_KSM), or /sys is not mounted",
        ));
    }
    Ok(knobs)
}

/// The machine's figures; what could not be read is noted in `unreadable`.
pub(super) fn machine(host: &Host, unreadable: &mut Vec<String>) -> Ksm {
    let mut look = Lookup::on(host);
    let ksm = Ksm::read(&mut look).unwrap_or_default();
    unreadable.extend(look.into_errors().iter().map(ToString::to_string));
    ksm
}

fn page() -> u64 {
    rustix::param::page_size() as u64
}

/// Bytes that would be in use were nothing merged.
pub(super) fn saved(ksm: &Ksm) -> Option<u64> {
    let pages = ksm
        .pages_sharing?
        .saturating_add(ksm.zero_pages.unwrap_or(0));
    Some(pages.saturating_mul(page()))
}

/// Pages KSM keeps track of.
pub(super) fn tracked(ksm: &Ksm) -> Option<u64> {
    [
        ksm.pages_shared,
        ksm.pages_sharing,
        ksm.pages_unshared,
        ksm.pages_volatile,
    ]
    .into_iter()
    .try_fold(0_u64, |sum, pages| Some(sum.saturating_add(pages?)))
}

/// Bytes saved less what keeping track costs, and whether the kernel computed it. Where it does not, by the formula of
/// its documentation: saved pages × page size − tracked pages × size of an rmap_item.
pub(super) fn profit(ksm: &Ksm) -> Option<(i64, bool)> {
    if let Some(profit) = ksm.general_profit {
        return Some((profit, true));
    }
    let cost = tracked(ksm)?.saturating_mul(RMAP_ITEM);
    let saved = i64::try_from(saved(ksm)?).ok()?;
    Some((saved.checked_sub_unsigned(cost)?, false))
}

/// A process that offers memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct User {
    pub pid: u32,
    pub comm: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Bytes of it that are merged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merged_bytes: Option<u64>,
    /// Bytes of it that KSM keeps track of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracked_bytes: Option<u64>,
    /// Bytes saved less what keeping track costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profit_bytes: Option<i64>,
    /// All its memory is offered (`PR_SET_MEMORY_MERGE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge_any: Option<bool>,
}

/// The processes that offer memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Users {
    /// Processes of which the kernel told; absent where it tells of none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub looked_at: Option<u64>,
    /// Those that offer memory, as far as the kernel tells (see [`Users::tells_all`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offering: Option<u64>,
    /// They, the most merged first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<User>,
    /// Whether the kernel tells of memory that is offered and was never scanned.
    #[serde(skip)]
    pub tells_all: bool,
}

impl Users {
    /// Looks through /proc.
    pub(super) fn read(host: &Host) -> Users {
        let mut users = Users::all(host);
        users.top.truncate(TOP);
        users
    }

    /// As [`Users::read`], with every one in `top`.
    pub(super) fn all(host: &Host) -> Users {
        let mut users = Users::default();
        let listed = ProcFs::open(host).and_then(|proc| Ok((proc.pids()?, proc)));
        let Ok((pids, mut proc)) = listed else {
            return users;
        };
        let end = Instant::now() + EACH;
        let bytes = |pages: Option<u64>| pages.map(|pages| pages.saturating_mul(page()));
        for pid in pids {
            if Instant::now() > end {
                break;
            }
            // Of other users' processes only root is told.
            let Ok(Some(ksm)) = proc.ksm(pid) else {
                continue;
            };
            // A kernel thread has no memory: its file is empty.
            if ksm.rmap_items.is_none() && ksm.merging_pages.is_none() {
                continue;
            }
            *users.looked_at.get_or_insert(0) += 1;
            // Both flags came with the same kernel (6.14); before it, only what was scanned once is told.
            users.tells_all |= ksm.mergeable.is_some();
            let offers = ksm.rmap_items > Some(0)
                || ksm.merging_pages > Some(0)
                || ksm.merge_any == Some(true)
                || ksm.mergeable == Some(true);
            *users.offering.get_or_insert(0) += u64::from(offers);
            if offers {
                users.top.push(User {
                    pid,
                    comm: proc.comm(pid).ok().flatten().unwrap_or_default(),
                    cgroup: proc.cgroup(pid).ok().flatten(),
                    merged_bytes: bytes(ksm.merging_pages),
                    tracked_bytes: bytes(ksm.rmap_items),
                    profit_bytes: ksm.profit,
                    merge_any: ksm.merge_any,
                });
            }
        }
        users
            .top
            .sort_by_key(|user| std::cmp::Reverse((user.merged_bytes, user.tracked_bytes)));
        users
    }
}

/// CPU time of KSM's own thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ksmd {
    pub pid: u32,
    /// Since boot.
    pub cpu_us: u64,
    at: Instant,
}

impl Ksmd {
    /// Finds and reads it; `None` where it is not to be seen, as in a container.
    pub(super) fn read(host: &Host) -> Option<Ksmd> {
        let mut proc = ProcFs::open(host).ok()?;
        let pid = proc.pids().ok()?.into_iter().find(|pid| {
            // A program may call itself so too, but has memory.
            proc.comm(*pid).ok().flatten().as_deref() == Some("ksmd")
                && proc
                    .memory(*pid)
                    .ok()
                    .flatten()
                    .is_some_and(|memory| memory.rss.is_none())
        })?;
        Ksmd {
            pid,
            cpu_us: 0,
            at: Instant::now(),
        }
        .again(host)
    }

    /// The same thread now.
    pub(super) fn again(&self, host: &Host) -> Option<Ksmd> {
        let stat = host.text(format!("/proc/{}/stat", self.pid)).ok()?;
        Some(Ksmd {
            pid: self.pid,
            cpu_us: cpu_us(&stat)?,
            at: Instant::now(),
        })
    }

    /// Percent of a core since `before`.
    pub(super) fn percent_since(&self, before: &Ksmd) -> Option<f64> {
        let time = self.at.checked_duration_since(before.at)?.as_micros();
        let used = self.cpu_us.checked_sub(before.cpu_us)?;
        (time > 0).then(|| used as f64 * 100.0 / time as f64)
    }
}

/// utime and stime, fields 14 and 15 of /proc/PID/stat, counted behind the name, which may hold blanks.
fn cpu_us(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let ticks = ticks(11)?.checked_add(ticks(12)?)?;
    Some(ticks.saturating_mul(1_000_000) / rustix::param::clock_ticks_per_second().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Tree;

    fn ksm(shared: u64, sharing: u64, unshared: u64, volatile: u64) -> Ksm {
        Ksm {
            pages_shared: Some(shared),
            pages_sharing: Some(sharing),
            pages_unshared: Some(unshared),
            pages_volatile: Some(volatile),
            ..Ksm::default()
        }
    }

    #[test]
    fn profit_is_the_kernels_or_by_its_formula_and_absent_without_figures() {
        let page = page() as i64;
        let own = ksm(1, 100, 10, 5);
        assert_eq!(profit(&own), Some((100 * page - 116 * 64, false)));
        let told = Ksm {
            general_profit: Some(-7),
            ..own.clone()
        };
        assert_eq!(profit(&told), Some((-7, true)));
        let zeros = Ksm {
            zero_pages: Some(3),
            ..own.clone()
        };
        assert_eq!(saved(&zeros), Some(103 * page as u64));
        let part = Ksm {
            pages_volatile: None,
            ..own
        };
        assert_eq!(profit(&part), None);
        assert_eq!(profit(&Ksm::default()), None);
    }

    #[test]
    fn the_cpu_time_of_ksmd_is_that_of_the_thread_and_not_of_a_program_by_its_name() {
        let tree = Tree::new();
        let stat = |pid: u32, times: &str| {
            format!("{pid} (k) (smd) S 2 0 0 0 -1 2097216 0 0 0 0 {times} 0 0 25 5 1 0 1 0 0\n")
        };
        tree.file("/proc/7/comm", "ksmd\n")
            .file("/proc/7/status", "Name:\tksmd\nTgid:\t7\nVmRSS:\t 4 kB\n")
            .file("/proc/7/stat", &stat(7, "900 900"))
            .file("/proc/30/comm", "ksmd\n")
            .file("/proc/30/status", "Name:\tksmd\nTgid:\t30\n")
            .file("/proc/30/stat", &stat(30, "1 41"));
        let tick = 1_000_000 / rustix::param::clock_ticks_per_second();
        let found = Ksmd::read(&tree.host()).unwrap();
        assert_eq!((found.pid, found.cpu_us), (30, 42 * tick));
        let later = Ksmd {
            cpu_us: found.cpu_us + 50_000,
            at: found.at + Duration::from_millis(200),
            ..found
        };
        assert_eq!(later.percent_since(&found), Some(25.0));
        assert_eq!(found.percent_since(&later), None);
        tree.without("/proc/30");
        assert_eq!(Ksmd::read(&tree.host()), None);
    }

    #[test]
    fn only_processes_that_offer_memory_are_told_and_silence_is_not_zero() {
        let tree = Tree::new();
        tree.file("/proc/2/comm", "kthreadd\n")
            .file("/proc/2/ksm_stat", "")
            .file("/proc/5/comm", "plain\n")
            .file("/proc/5/ksm_stat", "ksm_rmap_items 0\nksm_merging_pages 0\n")
            .file("/proc/6/comm", "vm\n")
            .file("/proc/6/cgroup", "0::/vms\n")
            .file(
                "/proc/6/ksm_stat",
                "ksm_rmap_items 9\nksm_merging_pages 3\nksm_process_profit -5\nksm_merge_any: yes\n",
            );
        let users = Users::read(&tree.host());
        assert_eq!((users.looked_at, users.offering), (Some(2), Some(1)));
        let page = page();
        assert_eq!(
            users.top,
            [User {
                pid: 6,
                comm: "vm".to_owned(),
                cgroup: Some("/vms".to_owned()),
                merged_bytes: Some(3 * page),
                tracked_bytes: Some(9 * page),
                profit_bytes: Some(-5),
                merge_any: Some(true),
            }]
        );
        assert!(!users.tells_all);
        tree.without("/proc/5/ksm_stat").without("/proc/6/ksm_stat");
        assert_eq!(Users::read(&tree.host()), Users::default());
    }
}
