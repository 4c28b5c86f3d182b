//! Memory of the whole machine: swap, zram, zswap, THP, KSM, MGLRU and DAMON as they stand.

use std::path::PathBuf;

use serde::Serialize;

use super::facts::Lookup;
use super::ksm_stat::Ksm;
use super::meminfo::MemInfo;
use super::{figure, psi};

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
            ksm: Ksm::read(look),
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

/// The choice in brackets of a knob such as `always [madvise] never`.
pub(super) fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Tree;

    #[test]
    fn what_a_machine_has_is_read_and_what_it_has_not_is_absent() {
        let tree = Tree::new();
        tree.file("/proc/meminfo", "MemTotal:        1000 kB\nMemAvailable: many kB\nHugePages_Total:       0\n")
            .file(
                "/proc/swaps",
                "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
                 /dev/zram0                              partition\t2048\t\t512\t\t100\n/swap file 1 2\n",
            )
            .file("/sys/block/zram0/disksize", "2097152\n")
            .file("/sys/block/zram0/mm_stat", "  524288   131072   147456 0 147456 3 0 0 0\n")
            .file("/sys/block/zram1/disksize", "0\n")
            .file("/sys/block/zram1/mm_stat", "0 0 0 0 0 0 0 0 0\n")
            .file("/sys/block/sda/size", "1\n")
            .file("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
            .file("/sys/kernel/mm/lru_gen/enabled", "0x0007\n")
            .file("/sys/kernel/mm/ksm/run", "1\n")
            .file("/sys/kernel/mm/ksm/general_profit", "-4096\n")
            .file("/proc/pressure/memory", "not a pressure file\n");
        let host = tree.host();
        let mut look = Lookup::on(&host);
        let facts = MemoryFacts::read(&mut look);
        assert_eq!(
            (facts.meminfo.total, facts.meminfo.available),
            (Some(1000 << 10), None)
        );
        let swap = Swap {
            path: "/dev/zram0".into(),
            size: 2 << 20,
            used: 512 << 10,
            priority: 100,
        };
        assert_eq!(facts.swaps, Some(vec![swap]));
        let zram = Zram {
            name: "zram0".to_owned(),
            size: 2 << 20,
            stored: 512 << 10,
            used: 147_456,
        };
        assert_eq!(facts.zram, [zram]);
        assert_eq!(
            (facts.thp.as_deref(), facts.mglru, facts.damon_reclaim),
            (Some("madvise"), Some(true), None)
        );
        let ksm = facts.ksm.unwrap();
        assert_eq!(
            (ksm.run, ksm.general_profit, ksm.advisor),
            (Some(1), Some(-4096), None)
        );
        assert_eq!((facts.zswap, facts.psi), (None, None));
        let errors: Vec<String> = look.into_errors().iter().map(ToString::to_string).collect();
        assert_eq!(errors, ["/proc/pressure/memory: not a pressure file"]);
    }

    #[test]
    fn an_empty_machine_has_no_figures_and_no_zeros() {
        let tree = Tree::new();
        let host = tree.host();
        let facts = MemoryFacts::read(&mut Lookup::on(&host));
        assert_eq!(facts, MemoryFacts::default());
    }
}
