//! The report: facts, sums and answers under the keys that `--json` keeps stable.

use std::time::Duration;

use grey_core::time::Timestamp;
use serde::Serialize;

use super::answers::{Answer, answers};
use super::breakdown::Breakdown;
use super::facts::{Cgroups, Denied, Facts, Guest, KsmUsers, Oom, Processes, Tmpfs, ZoneUse};
use super::leaks::Leaks;
use crate::host::memory::{Swap, Zram, Zswap};
use crate::host::{Ksm, PsiFile};

/// What `diagnose --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Always `grey-ebpf/1`.
    pub schema: &'static str,
    /// Always `diagnose`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Version of this program.
    pub version: &'static str,
    /// When the figures were read.
    pub ts: Timestamp,
    /// How long that took, microseconds.
    pub took_us: u64,
    /// Node name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Identity of this boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// `uname -r`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The answers, the worst first.
    pub answers: Vec<Answer>,
    /// The machine's memory.
    pub memory: Breakdown,
    /// /proc/pressure/memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<PsiFile>,
    /// Swap.
    pub swap: SwapUse,
    /// Huge pages.
    pub huge_pages: HugePages,
    /// Free memory by block size.
    pub fragmentation: Vec<ZoneUse>,
    /// KSM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ksm: Option<KsmUse>,
    /// Mounted tmpfs that hold something.
    pub tmpfs: Vec<Tmpfs>,
    /// The guest's side, in a virtual machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
    /// The largest cgroups.
    pub cgroups: Cgroups,
    /// The largest processes.
    pub processes: Processes,
    /// OOM kills.
    pub oom: Oom,
    /// What `--detect-leaks` saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaks: Option<Leaks>,
    /// What is there and could not be read.
    pub denied: Vec<Denied>,
}

/// Swap.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SwapUse {
    /// Areas; absent where the kernel has no swap at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub areas: Option<Vec<Swap>>,
    /// zram devices.
    pub zram: Vec<ZramUse>,
    /// zswap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zswap: Option<ZswapUse>,
}

/// A zram device.
#[derive(Clone, Debug, Serialize)]
pub struct ZramUse {
    /// What it holds in what.
    #[serde(flatten)]
    pub device: Zram,
    /// Bytes stored for each byte of memory it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

/// zswap.
#[derive(Clone, Debug, Serialize)]
pub struct ZswapUse {
    /// Its state.
    #[serde(flatten)]
    pub zswap: Zswap,
    /// Bytes stored for each byte of its pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

/// Huge pages.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HugePages {
    /// Transparent huge pages: `always`, `madvise`, `never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transparent: Option<String>,
    /// Anonymous memory in huge pages (`AnonHugePages`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon: Option<u64>,
    /// Share of anonymous memory in huge pages, 0 to 1: AnonHugePages / AnonPages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon_share: Option<f64>,
    /// Shared memory in huge pages (`ShmemHugePages`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shmem: Option<u64>,
    /// Page cache in huge pages (`FileHugePages`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<u64>,
    /// Reserved by hugetlb, in use or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hugetlb: Option<u64>,
}

/// KSM.
#[derive(Clone, Debug, Serialize)]
pub struct KsmUse {
    /// Its knobs and counters.
    #[serde(flatten)]
    pub machine: Ksm,
    /// Bytes saved by merging: `pages_sharing` times the page size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saved: Option<u64>,
    /// Processes that take part.
    pub processes: KsmUsers,
}

impl Report {
    /// Draws the conclusions.
    #[must_use]
    pub fn of(facts: &Facts, leaks: Option<Leaks>, ts: Timestamp, took: Duration) -> Self {
        let memory = Breakdown::of(&facts.meminfo);
        let info = &facts.meminfo;
        Report {
            schema: grey_core::event::SCHEMA,
            kind: "diagnose",
            version: env!("CARGO_PKG_VERSION"),
            ts,
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            host: facts.machine.hostname.clone(),
            boot_id: facts.machine.boot_id.clone(),
            kernel: facts.machine.release.clone(),
            answers: answers(facts, &memory),
            memory,
            pressure: facts.psi,
            swap: SwapUse {
                areas: facts.swaps.clone(),
                zram: facts
                    .zram
                    .iter()
                    .map(|device| ZramUse {
                        ratio: ratio(Some(device.stored), Some(device.used)),
                        device: device.clone(),
                    })
                    .collect(),
                zswap: facts.zswap.as_ref().map(|zswap| ZswapUse {
                    ratio: ratio(zswap.stored, zswap.pool),
                    zswap: zswap.clone(),
                }),
            },
            huge_pages: HugePages {
                transparent: facts.thp.clone(),
                anon: info.anon_huge,
                anon_share: ratio(info.anon_huge, info.anon),
                shmem: info.shmem_huge,
                file: info.file_huge,
                hugetlb: info.hugetlb,
            },
            fragmentation: facts.zones.clone(),
            ksm: facts.ksm.as_ref().map(|ksm| KsmUse {
                saved: ksm
                    .pages_sharing
                    .map(|pages| pages.saturating_mul(rustix::param::page_size() as u64)),
                machine: ksm.clone(),
                processes: facts.ksm_users.clone(),
            }),
            tmpfs: facts.tmpfs.clone(),
            guest: facts.guest.clone(),
            cgroups: facts.cgroups.clone(),
            processes: facts.processes.clone(),
            oom: facts.oom.clone(),
            leaks,
            denied: facts.machine.denied.clone(),
        }
    }
}

/// A quotient; absent where there is nothing to divide by.
fn ratio(above: Option<u64>, below: Option<u64>) -> Option<f64> {
    let below = below.filter(|below| *below > 0)?;
    Some(above? as f64 / below as f64)
}
