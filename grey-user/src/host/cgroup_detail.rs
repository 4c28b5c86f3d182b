//! Everything a cgroup's files tell of its memory, for reports: one slow reading, apart from the hot one of samples.

use std::os::fd::OwnedFd;

use grey_core::event::Limit;
use rustix::fs::{Mode as FileMode, OFlags};
use rustix::io::Errno;

use super::cgroup_files::read_at_start;
use super::cgroupfs::{is_alive, open_dir};
use super::flat::flat;
use super::psi::PsiFile;
use super::{CgroupFs, Host, HostError, figure, figure_line};

flat! {
    /// memory.stat, bytes or events as the kernel gives them (Documentation/admin-guide/cgroup-v2.rst); absent where
    /// this kernel has no such line.
    pub struct FullStat {
        /// Anonymous memory.
        anon = "anon",
        /// Page cache, tmpfs included.
        file = "file",
        /// All kernel memory.
        kernel = "kernel",
        /// Kernel stacks.
        kernel_stack = "kernel_stack",
        /// Page tables.
        pagetables = "pagetables",
        /// Secondary page tables (KVM, IOMMU).
        sec_pagetables = "sec_pagetables",
        /// Per-CPU memory.
        percpu = "percpu",
        /// Socket buffers.
        sock = "sock",
        /// vmalloc.
        vmalloc = "vmalloc",
        /// tmpfs and shared memory.
        shmem = "shmem",
        /// What zswap's pool takes for it.
        zswap = "zswap",
        /// What that stands for.
        zswapped = "zswapped",
        /// Page cache that processes map.
        file_mapped = "file_mapped",
        /// Page cache to be written.
        file_dirty = "file_dirty",
        /// Page cache being written.
        file_writeback = "file_writeback",
        /// Swapped out and still in memory.
        swapcached = "swapcached",
        /// Anonymous memory in huge pages.
        anon_thp = "anon_thp",
        /// Page cache in huge pages.
        file_thp = "file_thp",
        /// Shared memory in huge pages.
        shmem_thp = "shmem_thp",
        /// Anonymous (and tmpfs) memory that was not used of late.
        inactive_anon = "inactive_anon",
        /// Anonymous (and tmpfs) memory in use.
        active_anon = "active_anon",
        /// Page cache that was not used of late.
        inactive_file = "inactive_file",
        /// Page cache in use.
        active_file = "active_file",
        /// What cannot be reclaimed, such as mlock'ed memory.
        unevictable = "unevictable",
        /// Slab the kernel can shrink.
        slab_reclaimable = "slab_reclaimable",
        /// Slab it cannot.
        slab_unreclaimable = "slab_unreclaimable",
        /// All slab.
        slab = "slab",
        /// hugetlb pages, where the mount counts them in.
        hugetlb = "hugetlb",
        /// Anonymous pages that came back.
        refault_anon = "workingset_refault_anon",
        /// File pages that came back; both kinds before 5.9.
        refault_file = "workingset_refault_file" | "workingset_refault",
        /// Anonymous pages that came back to the working set.
        activate_anon = "workingset_activate_anon",
        /// File pages that came back to the working set; both kinds before 5.9.
        activate_file = "workingset_activate_file" | "workingset_activate",
        /// Pages reclaim looked at.
        pgscan = "pgscan",
        /// Pages reclaim freed.
        pgsteal = "pgsteal",
        /// … in the background.
        pgsteal_kswapd = "pgsteal_kswapd",
        /// … while a task waited.
        pgsteal_direct = "pgsteal_direct",
        /// … because somebody asked.
        pgsteal_proactive = "pgsteal_proactive",
        /// Pages read from swap.
        swap_in = "pswpin",
        /// Pages written to swap.
        swap_out = "pswpout",
        /// Page faults.
        pgfault = "pgfault",
        /// Page faults that waited for a device.
        pgmajfault = "pgmajfault",
        /// Huge pages given at a fault.
        thp_fault_alloc = "thp_fault_alloc",
        /// Huge pages made of small ones.
        thp_collapse_alloc = "thp_collapse_alloc",
    }
}

impl FullStat {
    /// What reclaim can take without swap: page cache on the LRU lists and the slab that shrinks. tmpfs is not in it,
    /// for it lies on the anonymous lists.
    #[must_use]
    pub fn reclaimable(&self) -> Option<u64> {
        self.inactive_file?
            .checked_add(self.active_file?)?
            .checked_add(self.slab_reclaimable?)
    }

    /// All kernel memory: `kernel`, or before 5.18 the sum of its parts, as [`super::memstat::MemStat::kernel_total`].
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
        let file = self.refault_file?;
        Some(file.saturating_add(self.refault_anon.unwrap_or(0)))
    }

    /// Memory in huge pages of any kind; absent where the kernel tells of none.
    #[must_use]
    pub fn huge(&self) -> Option<u64> {
        [self.anon_thp, self.file_thp, self.shmem_thp]
            .into_iter()
            .flatten()
            .reduce(u64::saturating_add)
    }
}

flat! {
    /// memory.events or memory.events.local: how often it happened since the cgroup began.
    pub struct FullEvents {
        /// Reclaimed below memory.low, for want of anything else.
        low = "low",
        /// Went over memory.high.
        high = "high",
        /// Was about to go over memory.max.
        max = "max",
        /// Could not be kept below memory.max by reclaim.
        oom = "oom",
        /// Processes killed.
        oom_kill = "oom_kill",
        /// Times it was killed as a whole (memory.oom.group).
        oom_group_kill = "oom_group_kill",
        /// Times its sockets were held back.
        sock_throttled = "sock_throttled",
    }
}

flat! {
    /// cgroup.stat.
    pub struct CgroupStat {
        /// Cgroups below.
        descendants = "nr_descendants",
        /// Removed cgroups below that memory charged to them keeps alive.
        dying_descendants = "nr_dying_descendants",
        /// Memory controllers below.
        memory = "nr_subsys_memory",
        /// Memory controllers of removed cgroups below: the ones that hold memory.
        dying_memory = "nr_dying_subsys_memory",
    }
}

/// All of a cgroup's memory. What its kernel or its tree does not have is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CgroupDetail {
    /// memory.current.
    pub current: Option<u64>,
    /// memory.peak.
    pub peak: Option<u64>,
    /// memory.min.
    pub min: Limit,
    /// memory.low.
    pub low: Limit,
    /// memory.high.
    pub high: Limit,
    /// memory.max.
    pub max: Limit,
    /// memory.swap.current.
    pub swap: Option<u64>,
    /// memory.swap.peak.
    pub swap_peak: Option<u64>,
    /// memory.swap.max.
    pub swap_max: Limit,
    /// memory.zswap.current.
    pub zswap: Option<u64>,
    /// memory.oom.group: whether an OOM kills all of it.
    pub oom_group: Option<bool>,
    /// memory.stat.
    pub stat: Option<FullStat>,
    /// memory.events: of the cgroup and those below.
    pub events: Option<FullEvents>,
    /// memory.events.local: of the cgroup alone.
    pub events_local: Option<FullEvents>,
    /// cgroup.stat.
    pub cgroups: Option<CgroupStat>,
    /// memory.pressure.
    pub psi: Option<PsiFile>,
    /// Files that are there and could not be read.
    pub errors: Vec<String>,
}

impl CgroupDetail {
    /// Reads the cgroup at `path`; `None` when it is gone.
    ///
    /// # Errors
    /// Where its directory cannot be opened. A single file's error is in [`CgroupDetail::errors`].
    pub fn read(fs: &CgroupFs, path: &str) -> Result<Option<Self>, HostError> {
        let dir = match open_dir(fs.dir()?, path) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NODEV | Errno::NOTDIR) => return Ok(None),
            Err(source) => return Err(HostError::file("open", fs.reach(path), source)),
        };
        let mut files = Files {
            dir,
            path,
            buf: Vec::new(),
            errors: Vec::new(),
        };
        let detail = CgroupDetail {
            current: files.figure("memory.current"),
            peak: files.figure("memory.peak"),
            min: files.limit("memory.min"),
            low: files.limit("memory.low"),
            high: files.limit("memory.high"),
            max: files.limit("memory.max"),
            swap: files.figure("memory.swap.current"),
            swap_peak: files.figure("memory.swap.peak"),
            swap_max: files.limit("memory.swap.max"),
            zswap: files.figure("memory.zswap.current"),
            oom_group: files.figure("memory.oom.group").map(|group| group == 1),
            stat: files.text("memory.stat").map(|text| FullStat::parse(&text)),
            events: files
                .text("memory.events")
                .map(|text| FullEvents::parse(&text)),
            events_local: files
                .text("memory.events.local")
                .map(|text| FullEvents::parse(&text)),
            cgroups: files
                .text("cgroup.stat")
                .map(|text| CgroupStat::parse(&text)),
            psi: files
                .text("memory.pressure")
                .and_then(|text| PsiFile::parse(&text)),
            errors: Vec::new(),
        };
        if !is_alive(std::os::fd::AsFd::as_fd(&files.dir)) {
            return Ok(None);
        }
        Ok(Some(CgroupDetail {
            errors: files.errors,
            ..detail
        }))
    }
}

/// Removed cgroups of the whole tree that memory charged to them keeps alive (cgroup.stat of the root); absent where
/// there is no v2 tree.
#[must_use]
pub fn dying_cgroups(host: &Host, fs: &CgroupFs) -> Option<CgroupStat> {
    let text = host.text_opt(fs.mount()?.join("cgroup.stat")).ok()??;
    Some(CgroupStat::parse(&text))
}

struct Files<'a> {
    dir: OwnedFd,
    path: &'a str,
    buf: Vec<u8>,
    errors: Vec<String>,
}

impl Files<'_> {
    fn content(&mut self, name: &str) -> Option<&[u8]> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let read = rustix::fs::openat(&self.dir, name, flags, FileMode::empty())
            .and_then(|fd| read_at_start(std::os::fd::AsFd::as_fd(&fd), &mut self.buf));
        match read {
            Ok(len) => Some(&self.buf[..len]),
            // ENODEV: the cgroup is gone. EOPNOTSUPP: PSI is switched off.
            Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => None,
            Err(error) => {
                let subject = format!("{}/{name}", self.path.trim_end_matches('/'));
                self.errors
                    .push(HostError::file("read", subject, error).to_string());
                None
            }
        }
    }

    fn text(&mut self, name: &str) -> Option<String> {
        self.content(name)
            .map(|content| String::from_utf8_lossy(content).into_owned())
    }

    fn figure(&mut self, name: &str) -> Option<u64> {
        self.content(name).and_then(figure_line)
    }

    fn limit(&mut self, name: &str) -> Limit {
        match self.content(name).map(<[u8]>::trim_ascii) {
            Some(b"max") => Limit::None,
            Some(digits) => figure(digits).map_or(Limit::Unknown, Limit::Bytes),
            None => Limit::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
