//! Figures of the root cgroup from the machine's own files: the memory controller keeps few for the root.

use grey_core::event::Psi;

use super::memory::{MemInfo, VmStat};
use super::{Host, HostError, Reading, psi};

impl Reading {
    /// The root from /proc/meminfo, /proc/vmstat and /proc/pressure/memory alone.
    ///
    /// - `current` stays absent: `MemTotal - MemAvailable` counts what cannot be had back, memory.current counts what
    ///   was charged; neither stands for the other.
    /// - `anon` is `AnonPages`, `swap` is `SwapTotal - SwapFree`.
    /// - `file` is `Cached + Buffers`, tmpfs included as memory.stat's `file` does.
    /// - `kernel` is slab, page tables, per-CPU memory and the larger of `VmallocUsed` and `KernelStack`: where stacks
    ///   are virtually mapped, `VmallocUsed` holds them already.
    ///
    /// # Errors
    /// Where /proc/meminfo cannot be read. A missing vmstat or pressure file only leaves its figures out.
    pub fn of_machine(host: &Host) -> Result<Self, HostError> {
        let info = MemInfo::read(host)?;
        let stat = VmStat::read(host).unwrap_or_default();
        let mut reading = Reading::default();
        let mem = &mut reading.mem;
        mem.anon = info.anon;
        mem.file = sum([info.cached, info.buffers]);
        mem.shmem = info.shmem;
        mem.slab = info.slab;
        mem.pagetables = info.pagetables;
        mem.kernel = sum([
            info.slab,
            info.pagetables,
            info.percpu,
            info.vmalloc_used.max(info.kernel_stack),
        ])
        .map(|kernel| kernel.saturating_add(info.sec_pagetables.unwrap_or(0)));
        mem.swap = info.swap_used();
        reading.pgfault = stat.pgfault;
        reading.pgmajfault = stat.pgmajfault;
        reading.refault = sum([stat.refault_file, stat.refault_anon.or(Some(0))]);
        reading.pgscan = sum([stat.pgscan_kswapd, stat.pgscan_direct]);
        reading.pgsteal = sum([stat.pgsteal_kswapd, stat.pgsteal_direct]);
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

    /// Fills what this reading of the root's own files lacks from `machine`.
    pub fn fill_from(&mut self, machine: &Reading) {
        let Reading {
            mem,
            psi,
            events: _,
            pgfault,
            pgmajfault,
            refault,
            pgscan,
            pgsteal,
            pgsteal_proactive,
            errors,
        } = machine;
        let grey_core::event::Mem {
            current: _,
            anon,
            file,
            shmem,
            kernel,
            slab,
            pagetables,
            sock,
            swap,
            max: _,
            high: _,
        } = mem;
        let fill = |to: &mut Option<u64>, from: &Option<u64>| *to = to.or(*from);
        fill(&mut self.mem.anon, anon);
        fill(&mut self.mem.file, file);
        fill(&mut self.mem.shmem, shmem);
        fill(&mut self.mem.kernel, kernel);
        fill(&mut self.mem.slab, slab);
        fill(&mut self.mem.pagetables, pagetables);
        fill(&mut self.mem.sock, sock);
        fill(&mut self.mem.swap, swap);
        fill(&mut self.pgfault, pgfault);
        fill(&mut self.pgmajfault, pgmajfault);
        fill(&mut self.refault, refault);
        fill(&mut self.pgscan, pgscan);
        fill(&mut self.pgsteal, pgsteal);
        fill(&mut self.pgsteal_proactive, pgsteal_proactive);
        if self.psi.is_none() {
            self.psi.clone_from(psi);
        }
        self.errors += errors;
    }
}

/// The sum, absent when a part of it is.
fn sum<const N: usize>(parts: [Option<u64>; N]) -> Option<u64> {
    parts
        .into_iter()
        .try_fold(0_u64, |sum, part| Some(sum.saturating_add(part?)))
}
