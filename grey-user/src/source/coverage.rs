//! Which figures the attached probes give.

use crate::probe::Kernel;

/// What the attached probes cover.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Coverage {
    pub(super) fault_user: bool,
    pub(super) fault_kernel: bool,
    pub(super) mmap: bool,
    pub(super) munmap: bool,
    pub(super) mremap: bool,
    pub(super) brk: bool,
    pub(super) madvise: bool,
    pub(super) direct: bool,
    pub(super) memcg: bool,
    pub(super) kswapd: bool,
    pub(super) oom: bool,
    pub(super) lifecycle: bool,
    pub(super) exits: bool,
}

impl Coverage {
    pub(super) fn of(kernel: Option<&Kernel>) -> Coverage {
        let has = |probe: &str| kernel.is_some_and(|kernel| kernel.has(probe));
        Coverage {
            fault_user: has("fault_user"),
            fault_kernel: has("fault_kernel"),
            mmap: has("vm_mmap"),
            munmap: has("vm_munmap"),
            mremap: has("vm_mremap"),
            brk: has("vm_brk"),
            madvise: has("vm_madvise"),
            direct: has("reclaim_direct"),
            memcg: has("reclaim_memcg"),
            kswapd: has("reclaim_kswapd"),
            oom: has("oom_victim"),
            lifecycle: has("cgroup_lifecycle"),
            exits: has("process_lifecycle"),
        }
    }
}
