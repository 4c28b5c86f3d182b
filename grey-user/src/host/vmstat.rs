//! The counters of /proc/vmstat that tell of reclaim, swapping, compaction, huge pages and kills.

use super::flat::flat;
use super::{Host, HostError, figure};

flat! {
    /// Counters since boot, of events or pages; absent where this kernel has no such line.
    pub struct VmStat {
        /// Page faults.
        pgfault = "pgfault",
        /// Page faults that waited for a device.
        pgmajfault = "pgmajfault",
        /// Pages looked at in the background.
        pgscan_kswapd = "pgscan_kswapd",
        /// Pages looked at while a task waited.
        pgscan_direct = "pgscan_direct",
        /// Pages looked at for a huge page.
        pgscan_khugepaged = "pgscan_khugepaged",
        /// Pages looked at because somebody asked.
        pgscan_proactive = "pgscan_proactive",
        /// Waits because direct reclaim was throttled.
        pgscan_direct_throttle = "pgscan_direct_throttle",
        /// Pages freed in the background.
        pgsteal_kswapd = "pgsteal_kswapd",
        /// Pages freed while a task waited.
        pgsteal_direct = "pgsteal_direct",
        /// Pages freed for a huge page.
        pgsteal_khugepaged = "pgsteal_khugepaged",
        /// Pages freed because somebody asked.
        pgsteal_proactive = "pgsteal_proactive",
        /// Anonymous pages freed.
        pgsteal_anon = "pgsteal_anon",
        /// File pages freed.
        pgsteal_file = "pgsteal_file",
        /// Anonymous pages that came back (5.9).
        refault_anon = "workingset_refault_anon",
        /// File pages that came back; both kinds before 5.9.
        refault_file = "workingset_refault_file" | "workingset_refault",
        /// Anonymous pages that came back to the working set (5.9).
        activate_anon = "workingset_activate_anon",
        /// File pages that came back to the working set; both kinds before 5.9.
        activate_file = "workingset_activate_file" | "workingset_activate",
        /// Anonymous pages that came back and had been in use before (5.9).
        restore_anon = "workingset_restore_anon",
        /// File pages that came back and had been in use before; both kinds before 5.9.
        restore_file = "workingset_restore_file" | "workingset_restore",
        /// Pages read from swap.
        swap_in = "pswpin",
        /// Pages written to swap.
        swap_out = "pswpout",
        /// Pages read from zswap.
        zswpin = "zswpin",
        /// Pages put into zswap.
        zswpout = "zswpout",
        /// Pages zswap wrote to its device.
        zswpwb = "zswpwb",
        /// Processes killed for want of memory.
        oom_kill = "oom_kill",
        /// How often somebody dropped the page cache (`vm.drop_caches`).
        drop_pagecache = "drop_pagecache",
        /// How often somebody dropped slab objects (`vm.drop_caches`).
        drop_slab = "drop_slab",
        /// Tasks that waited for compaction.
        compact_stall = "compact_stall",
        /// Compactions that did not make the block.
        compact_fail = "compact_fail",
        /// Compactions that did.
        compact_success = "compact_success",
        /// How often the background compaction woke.
        compact_daemon_wake = "compact_daemon_wake",
        /// Pages looked at to be moved.
        compact_migrate_scanned = "compact_migrate_scanned",
        /// Pages looked at to be moved to.
        compact_free_scanned = "compact_free_scanned",
        /// Huge pages given at a fault.
        thp_fault_alloc = "thp_fault_alloc",
        /// Faults that got small pages instead.
        thp_fault_fallback = "thp_fault_fallback",
        /// Huge pages made of small ones.
        thp_collapse_alloc = "thp_collapse_alloc",
        /// Huge pages that could not be made.
        thp_collapse_alloc_failed = "thp_collapse_alloc_failed",
        /// Huge pages split into small ones.
        thp_split_page = "thp_split_page",
        /// Huge pages put up for a split.
        thp_deferred_split_page = "thp_deferred_split_page",
        /// Huge pages split because most of them was never used.
        thp_underused_split_page = "thp_underused_split_page",
        /// Huge pages written to swap whole.
        thp_swpout = "thp_swpout",
        /// Huge pages split before they were written to swap.
        thp_swpout_fallback = "thp_swpout_fallback",
        /// KSM pages copied when they came from swap.
        ksm_swpin_copy = "ksm_swpin_copy",
        /// KSM pages copied because somebody wrote.
        cow_ksm = "cow_ksm",
    }
}

impl VmStat {
    /// Reads /proc/vmstat.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn read(host: &Host) -> Result<Self, HostError> {
        host.text("/proc/vmstat").map(|text| Self::parse(&text))
    }
}

/// Tasks that had to reclaim memory themselves since boot: `allocstall_*`, which has a line a zone.
#[must_use]
pub fn direct_reclaims(content: &str) -> Option<u64> {
    content
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(key, _)| *key == "allocstall" || key.starts_with("allocstall_"))
        .filter_map(|(_, value)| figure(value.trim().as_bytes()))
        .reduce(u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::flat::testing::numbered;

    /// Files read in VMs of these kernels.
    const REAL: [(&str, &str); 4] = [
        ("5.10", include_str!("testdata/vmstat-5.10")),
        ("6.1", include_str!("testdata/vmstat-6.1")),
        ("6.12", include_str!("testdata/vmstat-6.12")),
        ("7.2", include_str!("testdata/vmstat-7.2")),
    ];

    #[test]
    fn every_counter_comes_from_its_own_line_on_every_kernel() {
        for (kernel, content) in REAL {
            let (text, values) = numbered(content);
            for (key, got) in VmStat::parse(&text).by_key() {
                assert_eq!(got, values.get(key).copied(), "{key} on {kernel}");
            }
        }
    }

    #[test]
    fn no_counter_is_misspelt_for_the_newest_kernel_has_them_all() {
        let missing: Vec<&str> = VmStat::parse(REAL[3].1)
            .by_key()
            .into_iter()
            .filter_map(|(key, value)| value.is_none().then_some(key))
            .collect();
        assert_eq!(missing, Vec::<&str>::new());
    }

    #[test]
    fn counters_from_before_they_were_split_stand_in() {
        let stat = VmStat::parse(
            "workingset_refault 12\nworkingset_activate 3\npgfault -1\npswpin\noom_kill 99999999999999999999\n",
        );
        assert_eq!(
            (stat.refault_file, stat.activate_file, stat.refault_anon),
            (Some(12), Some(3), None)
        );
        assert_eq!(
            (stat.pgfault, stat.swap_in, stat.oom_kill),
            (None, None, None)
        );
    }

    #[test]
    fn direct_reclaims_are_summed_over_the_zones() {
        assert_eq!(
            direct_reclaims("allocstall_dma 1\nallocstall_normal 20\nallocstalled 5\n"),
            Some(21)
        );
        assert_eq!(direct_reclaims("allocstall 7\n"), Some(7));
        assert_eq!(direct_reclaims("pgfault 7\n"), None);
        for (kernel, content) in REAL {
            assert!(direct_reclaims(content).is_some(), "{kernel}");
        }
    }
}
