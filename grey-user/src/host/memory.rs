//! Memory of the whole machine: meminfo, vmstat, swap, zram, zswap, THP, KSM, MGLRU and DAMON as they stand.

use std::path::PathBuf;

use serde::Serialize;

use super::facts::Lookup;
use super::{Host, HostError, figure, psi};

/// /proc/meminfo, bytes. A line this kernel does not have is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct MemInfo {
    /// `MemTotal`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// `MemFree`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free: Option<u64>,
    /// `MemAvailable`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available: Option<u64>,
    /// `Buffers`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffers: Option<u64>,
    /// `Cached`, tmpfs included
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached: Option<u64>,
    /// `AnonPages`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon: Option<u64>,
    /// `Shmem`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shmem: Option<u64>,
    /// `Slab`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slab: Option<u64>,
    /// `SReclaimable`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slab_reclaimable: Option<u64>,
    /// `KernelStack`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_stack: Option<u64>,
    /// `PageTables`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pagetables: Option<u64>,
    /// `SecPageTables`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sec_pagetables: Option<u64>,
    /// `Percpu`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percpu: Option<u64>,
    /// `VmallocUsed`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vmalloc_used: Option<u64>,
    /// `SwapTotal`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_total: Option<u64>,
    /// `SwapFree`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_free: Option<u64>,
    /// `Zswap`: bytes the compressed pool takes
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zswap: Option<u64>,
    /// `Zswapped`: bytes it stands for
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zswapped: Option<u64>,
}

impl MemInfo {
    /// Reads /proc/meminfo.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn read(host: &Host) -> Result<Self, HostError> {
        host.text("/proc/meminfo").map(|text| Self::parse(&text))
    }

    /// Reads the content of /proc/meminfo.
    #[must_use]
    pub fn parse(content: &str) -> Self {
        let mut info = MemInfo::default();
        for line in content.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let field = match key {
                "MemTotal" => &mut info.total,
                "MemFree" => &mut info.free,
                "MemAvailable" => &mut info.available,
                "Buffers" => &mut info.buffers,
                "Cached" => &mut info.cached,
                "AnonPages" => &mut info.anon,
                "Shmem" => &mut info.shmem,
                "Slab" => &mut info.slab,
                "SReclaimable" => &mut info.slab_reclaimable,
                "KernelStack" => &mut info.kernel_stack,
                "PageTables" => &mut info.pagetables,
                "SecPageTables" => &mut info.sec_pagetables,
                "Percpu" => &mut info.percpu,
                "VmallocUsed" => &mut info.vmalloc_used,
                "SwapTotal" => &mut info.swap_total,
                "SwapFree" => &mut info.swap_free,
                "Zswap" => &mut info.zswap,
                "Zswapped" => &mut info.zswapped,
                _ => continue,
            };
            *field = kib(value);
        }
        info
    }

    /// Swap in use.
    #[must_use]
    pub fn swap_used(&self) -> Option<u64> {
        self.swap_total?.checked_sub(self.swap_free?)
    }
}

fn kib(value: &str) -> Option<u64> {
    figure(value.trim().strip_suffix(" kB")?.as_bytes())?.checked_mul(1024)
}

/// Counters of /proc/vmstat since boot; absent where this kernel has no such line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VmStat {
    /// `pgfault`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgfault: Option<u64>,
    /// `pgmajfault`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgmajfault: Option<u64>,
    /// `pgscan_kswapd`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgscan_kswapd: Option<u64>,
    /// `pgscan_direct`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgscan_direct: Option<u64>,
    /// `pgsteal_kswapd`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgsteal_kswapd: Option<u64>,
    /// `pgsteal_direct`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgsteal_direct: Option<u64>,
    /// `workingset_refault_anon`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refault_anon: Option<u64>,
    /// `workingset_refault_file`, or `workingset_refault` before 5.9
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refault_file: Option<u64>,
    /// `pswpin`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_in: Option<u64>,
    /// `pswpout`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_out: Option<u64>,
    /// `oom_kill`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kill: Option<u64>,
}

impl VmStat {
    /// Reads /proc/vmstat.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn read(host: &Host) -> Result<Self, HostError> {
        host.text("/proc/vmstat").map(|text| Self::parse(&text))
    }

    /// Reads the content of /proc/vmstat.
    #[must_use]
    pub fn parse(content: &str) -> Self {
        let mut stat = VmStat::default();
        for line in content.lines() {
            let Some((key, value)) = line.split_once(' ') else {
                continue;
            };
            let field = match key {
                "pgfault" => &mut stat.pgfault,
                "pgmajfault" => &mut stat.pgmajfault,
                "pgscan_kswapd" => &mut stat.pgscan_kswapd,
                "pgscan_direct" => &mut stat.pgscan_direct,
                "pgsteal_kswapd" => &mut stat.pgsteal_kswapd,
                "pgsteal_direct" => &mut stat.pgsteal_direct,
                "workingset_refault_anon" => &mut stat.refault_anon,
                "workingset_refault_file" | "workingset_refault" => &mut stat.refault_file,
                "pswpin" => &mut stat.swap_in,
                "pswpout" => &mut stat.swap_out,
                "oom_kill" => &mut stat.oom_kill,
                _ => continue,
            };
            *field = figure(value.as_bytes());
        }
        stat
    }
}

/// A swap area.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Swap {
    /// Device or file.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Bytes in use.
    pub used: u64,
    /// Higher is used first.
    pub priority: i32,
}

/// A zram device with data on it or a size set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Zram {
    /// `zram0` …
    pub name: String,
    /// Size of the device, bytes.
    pub size: u64,
    /// Bytes stored on it.
    pub stored: u64,
    /// Bytes of memory that takes.
    pub used: u64,
}

/// zswap, where it is built in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Zswap {
    /// Whether it is on.
    pub enabled: bool,
    /// Its compressor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compressor: Option<String>,
    /// Bytes its pool takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<u64>,
    /// Bytes the pool stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<u64>,
}

/// KSM, where it is built in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ksm {
    /// `run`: 0 stopped, 1 running, 2 unmerging.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<u64>,
    /// Pages kept once for several users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages_shared: Option<u64>,
    /// Pages saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages_sharing: Option<u64>,
    /// Bytes saved less KSM's own, where the kernel computes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub general_profit: Option<i64>,
    /// The advisor in use (`none`, `scan-time`), where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advisor: Option<String>,
}

/// Memory facts of the machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MemoryFacts {
    /// /proc/meminfo.
    pub meminfo: MemInfo,
    /// Swap areas in use; absent where the kernel has no swap at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swaps: Option<Vec<Swap>>,
    /// zram devices that are set up.
    pub zram: Vec<Zram>,
    /// zswap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zswap: Option<Zswap>,
    /// Transparent huge pages: `always`, `madvise`, `never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thp: Option<String>,
    /// KSM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ksm: Option<Ksm>,
    /// Multi-generational LRU: on or off, absent where it is not built in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mglru: Option<bool>,
    /// DAMON_RECLAIM: on or off, absent where it is not built in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damon_reclaim: Option<bool>,
    /// Pressure of the machine; absent where PSI is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<psi::PsiFile>,
}

impl MemoryFacts {
    /// Reads all of them; what is there and cannot be read is noted in `look`.
    #[must_use]
    pub fn read(look: &mut Lookup<'_>) -> Self {
        let meminfo = look
            .text("/proc/meminfo")
            .map(|text| MemInfo::parse(&text))
            .unwrap_or_default();
        let psi = psi::memory(look.host());
        MemoryFacts {
            swaps: look
                .text("/proc/swaps")
                .map(|text| text.lines().skip(1).filter_map(swap).collect()),
            zram: zram(look),
            zswap: zswap(look, &meminfo),
            thp: look
                .text("/sys/kernel/mm/transparent_hugepage/enabled")
                .and_then(|text| chosen(&text)),
            ksm: ksm(look),
            // A bit mask; bit 0 is the main switch (Documentation/admin-guide/mm/multigen_lru.rst).
            mglru: look
                .text("/sys/kernel/mm/lru_gen/enabled")
                .and_then(|text| {
                    u64::from_str_radix(text.trim_start_matches("0x"), 16)
                        .ok()
                        .map(|mask| mask & 1 == 1)
                }),
            damon_reclaim: look
                .text("/sys/module/damon_reclaim/parameters/enabled")
                .map(|text| text == "Y"),
            psi: look.keep(psi).flatten(),
            meminfo,
        }
    }
}

fn swap(line: &str) -> Option<Swap> {
    let mut fields = line.split_whitespace();
    let path = PathBuf::from(fields.next()?);
    let mut numbers = fields.skip(1);
    let size = figure(numbers.next()?.as_bytes())?.checked_mul(1024)?;
    let used = figure(numbers.next()?.as_bytes())?.checked_mul(1024)?;
    Some(Swap {
        path,
        size,
        used,
        priority: numbers.next()?.parse().ok()?,
    })
}

fn zram(look: &mut Lookup<'_>) -> Vec<Zram> {
    let names = look.host().names("/sys/block");
    let devices = names.into_iter().filter(|name| name.starts_with("zram"));
    devices
        .filter_map(|name| {
            let size = look.figure(format!("/sys/block/{name}/disksize"))?;
            // Documentation/admin-guide/blockdev/zram.rst: orig_data_size compr_data_size mem_used_total …
            let stat = look.text(format!("/sys/block/{name}/mm_stat"))?;
            let mut fields = stat
                .split_whitespace()
                .map(|field| figure(field.as_bytes()));
            let stored = fields.next()??;
            let used = fields.nth(1)??;
            (size > 0).then_some(Zram {
                name,
                size,
                stored,
                used,
            })
        })
        .collect()
}

fn zswap(look: &mut Lookup<'_>, meminfo: &MemInfo) -> Option<Zswap> {
    let enabled = look.text("/sys/module/zswap/parameters/enabled")? == "Y";
    Some(Zswap {
        enabled,
        compressor: look.text("/sys/module/zswap/parameters/compressor"),
        pool: meminfo.zswap,
        stored: meminfo.zswapped,
    })
}

fn ksm(look: &mut Lookup<'_>) -> Option<Ksm> {
    const DIR: &str = "/sys/kernel/mm/ksm";
    if !look.host().has(DIR) {
        return None;
    }
    Some(Ksm {
        run: look.figure(format!("{DIR}/run")),
        pages_shared: look.figure(format!("{DIR}/pages_shared")),
        pages_sharing: look.figure(format!("{DIR}/pages_sharing")),
        general_profit: look
            .text(format!("{DIR}/general_profit"))
            .and_then(|text| text.parse().ok()),
        advisor: look
            .text(format!("{DIR}/advisor_mode"))
            .and_then(|text| chosen(&text)),
    })
}

/// The choice in brackets of a knob such as `always [madvise] never`.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}
