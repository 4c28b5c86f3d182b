//! Figures of the root cgroup, which the memory controller keeps in part only: the machine's own files have the rest.

use grey_core::event::{Mem, Psi};

use super::{CgroupFiles, Gone, Host, HostError, MemInfo, Reading, VmStat, psi};

impl Reading {
    /// The machine from /proc/meminfo, /proc/vmstat and /proc/pressure/memory.
    ///
    /// - `current` stays absent: `MemTotal - MemAvailable` counts what cannot be had back, memory.current counts what
    ///   was charged; neither stands for the other.
    /// - `anon` is `AnonPages`, `swap` is `SwapTotal - SwapFree`.
    /// - `file` is `Cached + Buffers`, tmpfs included as in memory.stat's `file`.
    /// - `kernel` is slab, page tables, per-CPU memory and the larger of `VmallocUsed` and `KernelStack`: where stacks
    ///   are virtually mapped, `VmallocUsed` holds them already.
    ///
    /// # Errors
    /// Where /proc/meminfo cannot be read. A missing vmstat or pressure file only leaves its figures out.
    pub fn of_machine(host: &Host) -> Result<Self, HostError> {
        let info = MemInfo::read(host)?;
        let mut reading = Reading::default();
        match VmStat::read(host) {
            Ok(stat) => {
                reading.pgfault = stat.pgfault;
                reading.pgmajfault = stat.pgmajfault;
                // Before 5.9 one line counted both kinds.
                reading.refault = sum([stat.refault_file, stat.refault_anon.or(Some(0))]);
                reading.pgscan = sum([stat.pgscan_kswapd, stat.pgscan_direct]);
                reading.pgsteal = sum([stat.pgsteal_kswapd, stat.pgsteal_direct]);
            }
            Err(_) => reading.errors += 1,
        }
        let held = [
            info.slab,
            info.pagetables,
            info.percpu,
            info.vmalloc_used.max(info.kernel_stack),
        ];
        reading.mem = Mem {
            anon: info.anon,
            file: sum([info.cached, info.buffers]),
            shmem: info.shmem,
            slab: info.slab,
            pagetables: info.pagetables,
            kernel: sum(held).map(|bytes| bytes.saturating_add(info.sec_pagetables.unwrap_or(0))),
            swap: info.swap_used(),
            inactive_file: info.inactive_file,
            total: info.total,
            swap_free: info.swap_free,
            available: info.available,
            ..Mem::default()
        };
        match psi::memory(host) {
            Ok(file) => {
                reading.psi = file.map(|file| Psi {
                    some_us_total: file.some.total_us,
                    full_us_total: file.full.map(|line| line.total_us),
                });
            }
            Err(_) => reading.errors += 1,
        }
        Ok(reading)
    }

    /// The root cgroup: the machine's figures for memory, the root's own files for what happened.
    ///
    /// The root's memory.stat leaves the kernel memory of the root's own tasks out (it is charged to nobody), so its
    /// `kernel`, `slab`, `pagetables` and `sock` are those of the other cgroups: the machine's are taken, and `sock`,
    /// which meminfo does not tell, stays absent. Its counters are the better ones, since /proc/vmstat leaves memcg
    /// reclaim out.
    ///
    /// # Errors
    /// Where /proc/meminfo cannot be read.
    pub fn of_root(
        host: &Host,
        files: &mut CgroupFiles,
        buf: &mut Vec<u8>,
    ) -> Result<Self, HostError> {
        let machine = Reading::of_machine(host)?;
        Ok(match files.read(buf) {
            Ok(own) => Reading::merge(own, machine),
            // The root is never removed; a tree that was unmounted leaves the machine.
            Err(Gone) => machine,
        })
    }

    fn merge(own: Reading, machine: Reading) -> Self {
        Reading {
            mem: Mem {
                current: own.mem.current,
                max: own.mem.max,
                high: own.mem.high,
                ..machine.mem
            },
            psi: own.psi.or(machine.psi),
            events: own.events,
            pgfault: own.pgfault.or(machine.pgfault),
            pgmajfault: own.pgmajfault.or(machine.pgmajfault),
            refault: own.refault.or(machine.refault),
            pgscan: own.pgscan.or(machine.pgscan),
            pgsteal: own.pgsteal.or(machine.pgsteal),
            pgsteal_proactive: own.pgsteal_proactive,
            errors: own.errors + machine.errors,
        }
    }
}

/// The sum, absent when a part of it is.
fn sum<const N: usize>(parts: [Option<u64>; N]) -> Option<u64> {
    parts
        .into_iter()
        .try_fold(0_u64, |sum, part| Some(sum.saturating_add(part?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Tree;

    const MEMINFO: &str = "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 300 kB\nBuffers: 10 kB\nCached: 200 kB\n\
        AnonPages: 400 kB\nShmem: 50 kB\nSlab: 60 kB\nKernelStack: 5 kB\nPageTables: 7 kB\nPercpu: 3 kB\n\
        VmallocUsed: 9 kB\nSwapTotal: 500 kB\nSwapFree: 350 kB\n";

    #[test]
    fn the_machine_stands_in_for_the_root_and_current_stays_absent() {
        let tree = Tree::new();
        tree.file("/proc/meminfo", MEMINFO);
        let reading = Reading::of_machine(&tree.host()).unwrap();
        let kib = |n: u64| Some(n * 1024);
        assert_eq!(reading.mem.current, None);
        assert_eq!(reading.mem.anon, kib(400));
        assert_eq!(reading.mem.file, kib(210));
        assert_eq!(reading.mem.shmem, kib(50));
        assert_eq!(reading.mem.kernel, kib(60 + 7 + 3 + 9));
        assert_eq!(reading.mem.swap, kib(150));
        assert_eq!(
            (reading.psi, reading.refault, reading.pgscan),
            (None, None, None)
        );
    }

    #[test]
    fn a_part_that_is_missing_makes_the_sum_absent() {
        let tree = Tree::new();
        tree.file("/proc/meminfo", "Cached: 200 kB\nSwapTotal: 0 kB\n");
        tree.file(
            "/proc/vmstat",
            "workingset_refault 12\npgscan_kswapd 3\npgscan_direct 4\n",
        );
        let reading = Reading::of_machine(&tree.host()).unwrap();
        assert_eq!(
            (reading.mem.file, reading.mem.swap, reading.mem.kernel),
            (None, None, None)
        );
        assert_eq!(
            (reading.refault, reading.pgscan, reading.pgsteal),
            (Some(12), Some(7), None)
        );
    }

    #[test]
    fn kernel_memory_of_the_root_is_the_machines_and_its_counters_are_its_own() {
        let stat = |kernel, scan| Reading {
            mem: Mem {
                kernel,
                sock: Some(8),
                ..Mem::default()
            },
            pgscan: scan,
            ..Reading::default()
        };
        let merged = Reading::merge(
            stat(Some(1), Some(70)),
            Reading {
                mem: Mem {
                    kernel: Some(900),
                    ..Mem::default()
                },
                pgscan: Some(60),
                pgfault: Some(5),
                ..Reading::default()
            },
        );
        assert_eq!(
            (
                merged.mem.kernel,
                merged.mem.sock,
                merged.pgscan,
                merged.pgfault
            ),
            (Some(900), None, Some(70), Some(5))
        );
    }
}
