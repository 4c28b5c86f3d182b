//! Parsers of memory.stat and memory.events over bytes: no allocation, unknown lines are passed over.

use grey_core::event::MemEvents;

use super::figure;

/// The lines of memory.stat that we use; bytes or pages as the kernel gives them, absent where it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemStat {
    /// Anonymous bytes.
    pub anon: Option<u64>,
    /// Page cache bytes, tmpfs included.
    pub file: Option<u64>,
    /// tmpfs and shared memory bytes.
    pub shmem: Option<u64>,
    /// Page cache that was not used lately, bytes.
    pub inactive_file: Option<u64>,
    /// All kernel memory, bytes (5.18).
    pub kernel: Option<u64>,
    /// Kernel stacks, bytes.
    pub kernel_stack: Option<u64>,
    /// Page tables, bytes (5.11).
    pub pagetables: Option<u64>,
    /// Secondary page tables (KVM), bytes (6.1).
    pub sec_pagetables: Option<u64>,
    /// Per-CPU memory, bytes.
    pub percpu: Option<u64>,
    /// Socket buffers, bytes.
    pub sock: Option<u64>,
    /// vmalloc, bytes (5.19).
    pub vmalloc: Option<u64>,
    /// Slab, bytes.
    pub slab: Option<u64>,
    /// Refaults of anonymous pages (5.9).
    pub refault_anon: Option<u64>,
    /// Refaults of file pages (5.9).
    pub refault_file: Option<u64>,
    /// Refaults before they were split.
    pub refault: Option<u64>,
    /// Page faults.
    pub pgfault: Option<u64>,
    /// Major page faults.
    pub pgmajfault: Option<u64>,
    /// Pages scanned by reclaim.
    pub pgscan: Option<u64>,
    /// Pages freed by reclaim.
    pub pgsteal: Option<u64>,
    /// … of those by proactive reclaim (6.16).
    pub pgsteal_proactive: Option<u64>,
}

impl MemStat {
    /// Reads the content of a memory.stat file.
    #[must_use]
    pub fn parse(content: &[u8]) -> Self {
        let mut stat = MemStat::default();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', content).chain([content.len()]) {
            let line = content.get(start..end).unwrap_or_default();
            start = end + 1;
            // From the end: most figures are shorter than their names.
            let Some(blank) = line.iter().rposition(|byte| *byte == b' ') else {
                continue;
            };
            let field = match &line[..blank] {
                b"anon" => &mut stat.anon,
                b"file" => &mut stat.file,
                b"shmem" => &mut stat.shmem,
                b"inactive_file" => &mut stat.inactive_file,
                b"kernel" => &mut stat.kernel,
                b"kernel_stack" => &mut stat.kernel_stack,
                b"pagetables" => &mut stat.pagetables,
                b"sec_pagetables" => &mut stat.sec_pagetables,
                b"percpu" => &mut stat.percpu,
                b"sock" => &mut stat.sock,
                b"vmalloc" => &mut stat.vmalloc,
                b"slab" => &mut stat.slab,
                b"workingset_refault_anon" => &mut stat.refault_anon,
                b"workingset_refault_file" => &mut stat.refault_file,
                b"workingset_refault" => &mut stat.refault,
                b"pgfault" => &mut stat.pgfault,
                b"pgmajfault" => &mut stat.pgmajfault,
                b"pgscan" => &mut stat.pgscan,
                b"pgsteal" => &mut stat.pgsteal,
                b"pgsteal_proactive" => &mut stat.pgsteal_proactive,
                _ => continue,
            };
            *field = figure(&line[blank + 1..]);
        }
        stat
    }

    /// All kernel memory: `kernel`, or on kernels before 5.18 the sum of the parts that are there.
    ///
    /// `sock` is no part of it: the kernel's own `kernel` leaves socket buffers out (Documentation/admin-guide/
    /// cgroup-v2.rst), and the figure has to mean the same on every kernel.
    #[must_use]
    pub fn kernel_total(&self) -> Option<u64> {
        if self.kernel.is_some() {
            return self.kernel;
        }
        [
            self.kernel_stack,
            self.pagetables,
            self.sec_pagetables,
            self.percpu,
            self.vmalloc,
            self.slab,
        ]
        .into_iter()
        .flatten()
        .reduce(u64::saturating_add)
    }

    /// Refaults of anonymous and file pages together.
    #[must_use]
    pub fn refault_total(&self) -> Option<u64> {
        match (self.refault_anon, self.refault_file) {
            (None, None) => self.refault,
            (anon, file) => Some(anon.unwrap_or(0).saturating_add(file.unwrap_or(0))),
        }
    }
}

/// Reads the content of a memory.events file; `None` unless all four counters are there.
#[must_use]
pub fn parse_events(content: &[u8]) -> Option<MemEvents> {
    let [mut high, mut max, mut oom, mut oom_kill] = [None; 4];
    for line in content.split(|byte| *byte == b'\n') {
        let Some(blank) = line.iter().position(|byte| *byte == b' ') else {
            continue;
        };
        let field = match &line[..blank] {
            b"high" => &mut high,
            b"max" => &mut max,
            b"oom" => &mut oom,
            b"oom_kill" => &mut oom_kill,
            _ => continue,
        };
        *field = figure(&line[blank + 1..]);
    }
    Some(MemEvents {
        high_total: high?,
        max_total: max?,
        oom_total: oom?,
        oom_kill_total: oom_kill?,
    })
}

#[cfg(test)]
mod tests;
