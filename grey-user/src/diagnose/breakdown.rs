//! Where the machine's memory is: parts that add up, and three sums that people ask for. Pure; docs/diagnose.md has
//! the formulas.

use serde::Serialize;

use crate::host::MemInfo;

/// One figure and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Stable name.
    pub name: &'static str,
    /// Bytes.
    pub bytes: u64,
    /// The line or lines of /proc/meminfo.
    pub source: &'static str,
    /// What it does.
    pub class: Class,
}

/// What can be done about a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Stays until its owner frees it; reclaim can move it to swap, where there is some.
    Swappable,
    /// Stays until its owner frees it.
    Fixed,
    /// Given back whenever somebody needs it.
    Reclaimable,
    /// Not in use.
    Free,
}

/// The machine's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Breakdown {
    /// `MemTotal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// `MemFree`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free: Option<u64>,
    /// `MemAvailable`: the kernel's estimate of what programs can have without swapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available: Option<u64>,
    /// `SwapTotal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_total: Option<u64>,
    /// `SwapTotal - SwapFree`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_used: Option<u64>,
    /// Memory in use for anything at all: `MemTotal - MemFree`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<u64>,
    /// What reclaim gives back without swap: `Active(file) + Inactive(file) + KReclaimable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reclaimable: Option<u64>,
    /// What no reclaim gives back without swap: `held - reclaimable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual_use: Option<u64>,
    /// What is held beyond actual use: `held - actual_use`. Harmless on a machine of its own; in a guest, memory that
    /// its host does not get back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waste: Option<u64>,
    /// Of `waste`, what was not used of late: `Inactive(file) + KReclaimable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waste_cold: Option<u64>,
    /// `Cached`, tmpfs included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached: Option<u64>,
    /// `Buffers`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffers: Option<u64>,
    /// What `held` is made of. The parts and `free` add up to `total`, unless one is missing on this kernel.
    pub parts: Vec<Part>,
}

impl Breakdown {
    /// Of /proc/meminfo.
    #[must_use]
    pub fn of(info: &MemInfo) -> Self {
        let held = sub(info.total, info.free);
        let cold_kernel = info.kernel_reclaimable.or(info.slab_reclaimable);
        let cache = sum([info.active_file, info.inactive_file]);
        let reclaimable = sum([cache, cold_kernel]);
        let actual_use = sub(held, reclaimable);
        Breakdown {
            total: info.total,
            free: info.free,
            available: info.available,
            swap_total: info.swap_total,
            swap_used: info.swap_used(),
            held,
            reclaimable,
            actual_use,
            waste: sub(held, actual_use),
            waste_cold: sum([info.inactive_file, cold_kernel]),
            cached: info.cached,
            buffers: info.buffers,
            parts: parts(info, held),
        }
    }

    /// Bytes of a part.
    #[must_use]
    pub fn part(&self, name: &str) -> Option<u64> {
        Some(self.parts.iter().find(|part| part.name == name)?.bytes)
    }
}

/// Everything that is held, each page in one part.
fn parts(info: &MemInfo, held: Option<u64>) -> Vec<Part> {
    use Class::{Fixed, Reclaimable, Swappable};
    let cache = sum([info.active_file, info.inactive_file]);
    // Page cache that is on no file list: mlock'ed files, ramfs.
    let pinned_cache = sub(sub(sum([info.cached, info.buffers]), info.shmem), cache);
    let kernel_reclaimable = info.kernel_reclaimable.or(info.slab_reclaimable);
    let slab_unreclaimable = info
        .slab_unreclaimable
        .or_else(|| sub(info.slab, info.slab_reclaimable));
    let list = [
        ("anon", info.anon, "AnonPages", Swappable),
        (
            "shmem",
            info.shmem,
            "Shmem: tmpfs and shared memory",
            Swappable,
        ),
        (
            "pinned_cache",
            pinned_cache,
            "Cached + Buffers - Shmem - Active(file) - Inactive(file)",
            Fixed,
        ),
        (
            "hugetlb",
            info.hugetlb,
            "Hugetlb: reserved huge pages, in use or not",
            Fixed,
        ),
        (
            "slab_unreclaimable",
            slab_unreclaimable,
            "SUnreclaim",
            Fixed,
        ),
        (
            "pagetables",
            sum([info.pagetables, info.sec_pagetables.or(Some(0))]),
            "PageTables + SecPageTables",
            Fixed,
        ),
        ("kernel_stacks", info.kernel_stack, "KernelStack", Fixed),
        // Where stacks are mapped virtually, VmallocUsed counts them too.
        (
            "vmalloc",
            info.vmalloc_used
                .map(|used| used.saturating_sub(info.kernel_stack.unwrap_or(0))),
            "VmallocUsed - KernelStack",
            Fixed,
        ),
        ("percpu", info.percpu, "Percpu", Fixed),
        (
            "page_cache",
            cache,
            "Active(file) + Inactive(file)",
            Reclaimable,
        ),
        (
            "slab_reclaimable",
            kernel_reclaimable,
            "KReclaimable",
            Reclaimable,
        ),
    ];
    let mut parts: Vec<Part> = list
        .into_iter()
        .filter_map(|(name, bytes, source, class)| {
            Some(Part {
                name,
                bytes: bytes?,
                source,
                class,
            })
        })
        .collect();
    let known: u64 = parts
        .iter()
        .map(|part| part.bytes)
        .fold(0, u64::saturating_add);
    // Without the large parts the rest would be them.
    if let (Some(held), Some(_), Some(_)) = (held, info.anon, cache) {
        parts.push(Part {
            name: "unaccounted",
            bytes: held.saturating_sub(known),
            source: "held - all other parts: drivers, balloons, swap cache",
            class: Fixed,
        });
    }
    parts
}

/// The sum, absent when a part of it is.
fn sum<const N: usize>(parts: [Option<u64>; N]) -> Option<u64> {
    parts
        .into_iter()
        .try_fold(0_u64, |sum, part| Some(sum.saturating_add(part?)))
}

/// The difference, not below zero: counters are read one after the other.
fn sub(from: Option<u64>, less: Option<u64>) -> Option<u64> {
    Some(from?.saturating_sub(less?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: &str = "MemTotal: 24684084 kB\nMemFree: 21623076 kB\nMemAvailable: 23740448 kB\nBuffers: 7648 kB\n\
        Cached: 2119144 kB\nSwapCached: 0 kB\nActive(file): 660872 kB\nInactive(file): 1457012 kB\nUnevictable: 18860 kB\n\
        Mlocked: 17936 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\nAnonPages: 342084 kB\nShmem: 8872 kB\nKReclaimable: 323168 kB\n\
        Slab: 366388 kB\nSReclaimable: 323168 kB\nSUnreclaim: 43220 kB\nKernelStack: 1708 kB\nPageTables: 4368 kB\n\
        SecPageTables: 0 kB\nVmallocUsed: 14460 kB\nPercpu: 1880 kB\nBalloon: 0 kB\nHugetlb: 0 kB\n";

    #[test]
    fn the_parts_and_what_is_free_add_up_to_the_machine() {
        let found = Breakdown::of(&MemInfo::parse(REAL));
        let kib = |n: u64| Some(n << 10);
        assert_eq!(found.held, kib(24_684_084 - 21_623_076));
        assert_eq!(found.reclaimable, kib(660_872 + 1_457_012 + 323_168));
        assert_eq!(
            found.actual_use,
            kib(24_684_084 - 21_623_076 - 660_872 - 1_457_012 - 323_168)
        );
        assert_eq!(found.waste, found.reclaimable);
        assert_eq!(found.waste_cold, kib(1_457_012 + 323_168));
        assert_eq!(
            found.part("pinned_cache"),
            kib(2_119_144 + 7648 - 8872 - 660_872 - 1_457_012)
        );
        assert_eq!(found.part("vmalloc"), kib(14_460 - 1708));
        let parts: u64 = found.parts.iter().map(|part| part.bytes).sum();
        assert_eq!(Some(parts + (21_623_076 << 10)), found.total);
        // What reclaim takes is one class, and it alone makes `reclaimable`.
        let reclaimable: u64 = found
            .parts
            .iter()
            .filter(|part| part.class == Class::Reclaimable)
            .map(|part| part.bytes)
            .sum();
        assert_eq!(Some(reclaimable), found.reclaimable);
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_absent_and_takes_its_sums_with_it() {
        let found = Breakdown::of(&MemInfo::parse(
            "MemTotal: 100 kB\nMemFree: 40 kB\nCached: 30 kB\n",
        ));
        assert_eq!(found.held, Some(60 << 10));
        assert_eq!(
            (found.reclaimable, found.actual_use, found.waste),
            (None, None, None)
        );
        assert_eq!(found.parts, []);
        assert_eq!(Breakdown::of(&MemInfo::default()), Breakdown::default());
    }

    #[test]
    fn counters_that_were_read_apart_do_not_go_below_zero() {
        let found = Breakdown::of(&MemInfo::parse(
            "MemTotal: 100 kB\nMemFree: 90 kB\nAnonPages: 30 kB\nActive(file): 8 kB\nInactive(file): 8 kB\nKReclaimable: 4 kB\n",
        ));
        assert_eq!(
            (found.actual_use, found.part("unaccounted")),
            (Some(0), Some(0))
        );
    }
}
