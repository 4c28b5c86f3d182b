//! /proc/meminfo.

use serde::{Deserialize, Serialize};

use super::{Host, HostError, figure};

/// /proc/meminfo, bytes. A line this kernel does not have is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// `SUnreclaim`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slab_unreclaimable: Option<u64>,
    /// `KReclaimable`: `SReclaimable` and other kernel memory with a shrinker (4.20)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_reclaimable: Option<u64>,
    /// `Active(file)`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_file: Option<u64>,
    /// `Inactive(file)`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inactive_file: Option<u64>,
    /// `Unevictable`: mlocked, ramfs and locked shared memory
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unevictable: Option<u64>,
    /// `Mlocked`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mlocked: Option<u64>,
    /// `SwapCached`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_cached: Option<u64>,
    /// `Dirty`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dirty: Option<u64>,
    /// `Writeback`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writeback: Option<u64>,
    /// `AnonHugePages`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon_huge: Option<u64>,
    /// `ShmemHugePages`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shmem_huge: Option<u64>,
    /// `FileHugePages`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_huge: Option<u64>,
    /// `Hugetlb`: all reserved huge pages of all sizes, in use or not
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hugetlb: Option<u64>,
    /// `Balloon`: taken away from this guest by its host (6.18)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balloon: Option<u64>,
    /// `Hugepagesize`: bytes of a huge page of the default size
    #[serde(skip_serializing_if = "Option::is_none")]
    pub huge_page_size: Option<u64>,
    /// `HugePages_Free`: reserved huge pages of the default size that nobody uses, a count
    #[serde(skip_serializing_if = "Option::is_none")]
    pub huge_pages_free: Option<u64>,
    /// `HugePages_Rsvd`: of those, promised to a mapping, a count
    #[serde(skip_serializing_if = "Option::is_none")]
    pub huge_pages_reserved: Option<u64>,
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
                // Counts, not sizes.
                "HugePages_Free" | "HugePages_Rsvd" => {
                    let count = figure(value.trim().as_bytes());
                    match key {
                        "HugePages_Free" => info.huge_pages_free = count,
                        _ => info.huge_pages_reserved = count,
                    }
                    continue;
                }
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
                "SUnreclaim" => &mut info.slab_unreclaimable,
                "KReclaimable" => &mut info.kernel_reclaimable,
                "Active(file)" => &mut info.active_file,
                "Inactive(file)" => &mut info.inactive_file,
                "Unevictable" => &mut info.unevictable,
                "Mlocked" => &mut info.mlocked,
                "SwapCached" => &mut info.swap_cached,
                "Dirty" => &mut info.dirty,
                "Writeback" => &mut info.writeback,
                "AnonHugePages" => &mut info.anon_huge,
                "ShmemHugePages" => &mut info.shmem_huge,
                "FileHugePages" => &mut info.file_huge,
                "Hugetlb" => &mut info.hugetlb,
                "Balloon" => &mut info.balloon,
                "Hugepagesize" => &mut info.huge_page_size,
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
