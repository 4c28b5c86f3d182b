//! Layouts that the kernel side writes and the user side reads. Nothing here does I/O; every type is
//! `#[repr(C)]`, holds no padding bytes and has its size and offsets asserted below.
#![no_std]
#![deny(missing_docs)]

use core::mem::{offset_of, size_of};

pub mod stack;

/// Version of these layouts. The kernel object carries it in a global; the loader refuses another one.
pub const LAYOUT_VERSION: u32 = 6;

/// `TASK_COMM_LEN` of the kernel (include/linux/sched.h).
pub const COMM_LEN: usize = 16;

/// Longest cgroup path a lifecycle record carries; a longer one arrives cut and is resolved by id instead.
pub const PATH_LEN: usize = 256;

/// Index that stands for "no slot": never handed out by the user side.
pub const NO_INDEX: u32 = 0;

/// Counters of one cgroup on one CPU, since attach. Pages are the machine's base pages, times are nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupCounters {
    /// User-mode faults on a read.
    pub fault_user_read: u64,
    /// User-mode faults on a write.
    pub fault_user_write: u64,
    /// User-mode faults on an instruction fetch.
    pub fault_user_exec: u64,
    /// Faults taken in kernel mode (copy_to_user and the like).
    pub fault_kernel: u64,
    /// Successful mmap calls.
    pub mmap_calls: u64,
    /// Bytes mapped by them, page aligned.
    pub mmap_bytes: u64,
    /// Successful munmap calls.
    pub munmap_calls: u64,
    /// Bytes unmapped by them, page aligned.
    pub munmap_bytes: u64,
    /// Successful mremap calls.
    pub mremap_calls: u64,
    /// Bytes by which mremap made mappings longer.
    pub mremap_grown_bytes: u64,
    /// Bytes by which mremap made mappings shorter.
    pub mremap_shrunk_bytes: u64,
    /// brk calls that moved the break.
    pub brk_calls: u64,
    /// Bytes by which brk grew the heap.
    pub brk_grown_bytes: u64,
    /// Bytes by which brk shrank the heap.
    pub brk_shrunk_bytes: u64,
    /// Successful madvise(MADV_DONTNEED) and madvise(MADV_FREE) calls.
    pub madvise_calls: u64,
    /// Bytes given back by them, page aligned.
    pub madvise_bytes: u64,
    /// Direct (global) reclaim runs entered by tasks of the cgroup.
    pub direct_runs: u64,
    /// Time its tasks were held up in them.
    pub direct_ns: u64,
    /// Pages those runs freed.
    pub direct_pages: u64,
    /// memcg reclaim runs entered by tasks of the cgroup.
    pub memcg_runs: u64,
    /// Time its tasks were held up in them.
    pub memcg_ns: u64,
    /// Pages that memcg reclaim took from this cgroup (as the target, whoever ran it).
    pub memcg_pages: u64,
    /// Time kswapd was awake (counted in the cgroup kswapd lives in, the root).
    pub kswapd_ns: u64,
    /// Reclaim runs of our own making, on this cgroup as the target.
    pub own_runs: u64,
    /// Time we spent in them.
    pub own_ns: u64,
    /// Pages they freed.
    pub own_pages: u64,
}

/// How many `u64` counters [`CgroupCounters`] holds.
pub const COUNTERS: usize = size_of::<CgroupCounters>() / 8;

impl CgroupCounters {
    /// The counters as an array, in declaration order.
    #[must_use]
    pub fn to_array(self) -> [u64; COUNTERS] {
        // SAFETY: repr(C), only u64 fields, and COUNTERS is the size over eight.
        unsafe { core::mem::transmute(self) }
    }

    /// The inverse of [`CgroupCounters::to_array`].
    #[must_use]
    pub fn from_array(values: [u64; COUNTERS]) -> Self {
        // SAFETY: as above; any bit pattern is a valid u64.
        unsafe { core::mem::transmute(values) }
    }

    /// Adds `other` field by field, wrapping.
    pub fn add(&mut self, other: &Self) {
        let mut sum = self.to_array();
        for (a, b) in sum.iter_mut().zip(other.to_array()) {
            *a = a.wrapping_add(b);
        }
        *self = Self::from_array(sum);
    }
}

/// What the kernel side tells of one slot of the counter table; the user side maps this array into memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// The cgroup whose counters the slot holds; 0 when free.
    pub cgroup: u64,
    /// Set by the kernel side when a counter moved, cleared by the user side before it reads them.
    pub dirty: u64,
}

/// What the kernel side says of one cgroup in a walk over all of them; the user side maps the array of them into memory.
/// The first element counts the others in `cgroup`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupLevel {
    /// v2 cgroup id.
    pub cgroup: u64,
    /// As memory.current, in pages.
    pub pages: u64,
    /// CPU time with that of its descendants, nanoseconds, as of the last flush (what reading cpu.stat of it or of a
    /// cgroup above it does first).
    pub cpu_ns: u64,
}

/// Faults that one CPU took in a row for one cgroup, and has not moved to the counter table yet: the common fault
/// touches this one cache line and no table. The user side maps the array of them into memory.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    /// Whose faults these are; 0 for nobody's.
    pub cgroup: u64,
    /// User-mode faults on a read, a write and an instruction fetch, and faults in kernel mode.
    pub faults: [u64; 4],
    /// Slot of the cgroup.
    pub slot: u32,
    /// Not 0 where the process has to be looked at for growth with the next fault. `stack` is 0 then.
    pub look: u32,
    /// Odd while the CPU moves the counts away and begins anew.
    pub epoch: u32,
    /// The turn (tasks that ended or changed their cgroup so far) in which `stack` was found to be of this cgroup.
    pub turn: u32,
    /// Where the registers of the task that faulted last are kept, the top of its kernel stack: the same one in the same
    /// turn is the same task in the same cgroup. 0 for nobody's.
    pub stack: u64,
}

impl Streak {
    /// The counts where they belong.
    #[must_use]
    pub fn counters(&self) -> CgroupCounters {
        let [read, write, exec, kernel] = self.faults;
        CgroupCounters {
            fault_user_read: read,
            fault_user_write: write,
            fault_user_exec: exec,
            fault_kernel: kernel,
            ..CgroupCounters::default()
        }
    }
}

/// Growth bookkeeping of one process (key: tgid), written by the fault path.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessGrowth {
    /// Resident pages (anon + file + shmem) at the low-water mark since the last report.
    pub base_pages: u64,
    /// Resident pages when last looked at.
    pub seen_pages: u64,
    /// When `base_pages` was set, `bpf_ktime_get_ns`.
    pub base_ns: u64,
    /// Pages this process has added to its cgroup's growth account.
    pub charged_pages: i64,
    /// Total virtual size when last looked at, in pages.
    pub total_vm: u64,
    /// Slot of the cgroup that `charged_pages` went to.
    pub index: u32,
    /// 0.
    pub reserved: u32,
    /// Up to when this process has used up its growth events, `bpf_ktime_get_ns`; 0 before the first one.
    pub due_ns: u64,
}

/// Growth account of one cgroup: net resident growth of its processes since the last report.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupGrowth {
    /// Net pages its processes grew by since `since_ns` (may be negative).
    pub pages: i64,
    /// When the account was last set to zero.
    pub since_ns: u64,
}

/// What a record in a ring is; also the row of the loss counters.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// [`OomRecord`], rare ring.
    Oom = 1,
    /// [`StallRecord`], rare ring.
    Stall = 2,
    /// [`CgroupRecord`], rare ring.
    CgroupMade = 3,
    /// [`CgroupRecord`], rare ring.
    CgroupRemoved = 4,
    /// [`CgroupRecord`], rare ring.
    CgroupRenamed = 5,
    /// [`ProcessRecord`], rare ring; only of processes that had a growth event.
    ProcessExec = 6,
    /// [`ProcessRecord`], rare ring; only of processes that had a growth event.
    ProcessExit = 7,
    /// [`GrowthRecord`], growth ring: a process.
    ProcessGrowth = 8,
    /// [`GrowthRecord`], growth ring: a cgroup as a whole.
    CgroupGrowth = 9,
}

impl RecordKind {
    /// Every kind, in the order of its number.
    pub const ALL: [RecordKind; 9] = [
        RecordKind::Oom,
        RecordKind::Stall,
        RecordKind::CgroupMade,
        RecordKind::CgroupRemoved,
        RecordKind::CgroupRenamed,
        RecordKind::ProcessExec,
        RecordKind::ProcessExit,
        RecordKind::ProcessGrowth,
        RecordKind::CgroupGrowth,
    ];

    /// The kind with this number, or `None` for anything a damaged record may hold.
    #[must_use]
    pub fn from_raw(raw: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == raw)
    }

    /// The name used in `health.dropped`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            RecordKind::Oom => "oom",
            RecordKind::Stall => "stall",
            RecordKind::CgroupMade => "cgroup_made",
            RecordKind::CgroupRemoved => "cgroup_removed",
            RecordKind::CgroupRenamed => "cgroup_renamed",
            RecordKind::ProcessExec => "process_exec",
            RecordKind::ProcessExit => "process_exit",
            RecordKind::ProcessGrowth => "process_growth",
            RecordKind::CgroupGrowth => "cgroup_growth",
        }
    }
}

/// Rows of the `LOSS` array: one a record kind (its number), then the full maps.
pub mod loss {
    /// No free slot for a new cgroup: its counters are not kept.
    pub const CGROUP_SLOTS: u32 = 10;
    /// The process table was full: growth of that process is not seen.
    pub const PROCESS_TABLE: u32 = 11;
    /// A reclaim or system call could not be paired with its end.
    pub const PAIRING: u32 = 12;
    /// Rows of the array.
    pub const ROWS: u32 = 13;
}

/// One row of the per-CPU `LOSS` array.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossCount {
    /// Records the kernel side wanted to send.
    pub emitted: u64,
    /// Of these, how many found no room.
    pub dropped: u64,
}

/// First field of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// A [`RecordKind`] number.
    pub kind: u32,
    /// Size of the whole record in bytes.
    pub size: u32,
    /// `bpf_ktime_get_ns` (CLOCK_MONOTONIC).
    pub ktime_ns: u64,
    /// v2 cgroup id the record is about; 0 when not known.
    pub cgroup: u64,
}

/// Value of an unknown unsigned figure in a record: absent, never zero.
pub const UNKNOWN: u64 = u64::MAX;

/// Constraint of an OOM kill (`enum oom_constraint`, include/linux/oom.h), as the kernel numbers it.
pub mod constraint {
    /// Global: no memory anywhere.
    pub const NONE: u32 = 0;
    /// cpuset.
    pub const CPUSET: u32 = 1;
    /// Memory policy.
    pub const MEMORY_POLICY: u32 = 2;
    /// A memory cgroup's limit.
    pub const MEMCG: u32 = 3;
    /// The probe could not tell.
    pub const UNKNOWN: u32 = u32::MAX;
}

/// One OOM victim.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomRecord {
    /// `header.cgroup` is the victim's cgroup.
    pub header: Header,
    /// Cgroup whose limit was hit; 0 when global or unknown.
    pub limit_cgroup: u64,
    /// Cgroup of the task that ran out.
    pub trigger_cgroup: u64,
    /// Bytes of anonymous memory, or [`UNKNOWN`].
    pub anon: u64,
    /// Bytes of file memory, or [`UNKNOWN`].
    pub file: u64,
    /// Bytes of shared memory, or [`UNKNOWN`].
    pub shmem: u64,
    /// Bytes of page tables, or [`UNKNOWN`].
    pub pgtables: u64,
    /// Bytes of total virtual size, or [`UNKNOWN`].
    pub total_vm: u64,
    /// Thread group id of the victim.
    pub pid: u32,
    /// Thread group id of the task that ran out.
    pub trigger_pid: u32,
    /// One of [`constraint`].
    pub constraint: u32,
    /// `oom_score_adj` of the victim, or `i32::MIN` when unknown.
    pub oom_score_adj: i32,
    /// NUL-padded; empty when unknown.
    pub comm: [u8; COMM_LEN],
    /// NUL-padded.
    pub trigger_comm: [u8; COMM_LEN],
}

/// What a stall was spent in.
pub mod stall {
    /// Global direct reclaim.
    pub const DIRECT: u32 = 0;
    /// memcg reclaim.
    pub const MEMCG: u32 = 1;
    /// kswapd was awake this long (nobody waited for it).
    pub const KSWAPD: u32 = 2;
}

/// A reclaim run longer than the threshold. `header.cgroup` is the cgroup that waited.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StallRecord {
    /// `header.cgroup` is the cgroup that waited.
    pub header: Header,
    /// Cgroup that was reclaimed from; 0 when global or unknown.
    pub target: u64,
    /// Length of the run.
    pub ns: u64,
    /// Pages it freed.
    pub pages: u64,
    /// Thread group id of the task that waited.
    pub pid: u32,
    /// One of [`stall`].
    pub kind: u32,
    /// 1 when the run was of our own making.
    pub own: u32,
    /// Always zero.
    pub reserved: u32,
    /// NUL-padded.
    pub comm: [u8; COMM_LEN],
}

/// A cgroup came, went or was renamed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupRecord {
    /// `header.cgroup` is its id.
    pub header: Header,
    /// Bytes used in `path`, without the NUL.
    pub path_len: u32,
    /// Always zero.
    pub reserved: u32,
    /// Path in its hierarchy, cut at [`PATH_LEN`].
    pub path: [u8; PATH_LEN],
}

/// A process executed a new program or ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessRecord {
    /// `header.cgroup` is the process's cgroup.
    pub header: Header,
    /// Thread group id.
    pub pid: u32,
    /// Always zero.
    pub reserved: u32,
    /// NUL-padded.
    pub comm: [u8; COMM_LEN],
}

/// A process or a cgroup grew by the threshold.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrowthRecord {
    /// `header.cgroup` is the cgroup it happened in.
    pub header: Header,
    /// Bytes grown since the last report (or the low-water mark since).
    pub bytes: u64,
    /// Nanoseconds that took.
    pub since_ns: u64,
    /// Resident bytes of the process now.
    pub rss: u64,
    /// Total virtual size of the process now, bytes.
    pub total_vm: u64,
    /// Thread group id; for a cgroup record the process that crossed the line.
    pub pid: u32,
    /// Always zero.
    pub reserved: u32,
    /// NUL-padded.
    pub comm: [u8; COMM_LEN],
}

/// Where a `syscalls:sys_enter_*` record keeps its first argument; the loader compares it with the format file.
pub const SYS_ENTER_ARGS_OFFSET: usize = 16;

/// Where a `syscalls:sys_exit_*` record keeps the result; the loader compares it with the format file.
pub const SYS_EXIT_RET_OFFSET: usize = 16;

/// Offset that is not there on this kernel: what needs it is skipped and stays absent.
pub const NO_OFFSET: u32 = u32::MAX;

/// Member offsets and sizes of the running kernel, read from its BTF by the loader. Bytes; [`NO_OFFSET`] if missing.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// `task_struct.mm`
    pub task_mm: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.comm`
    pub task_comm: u32,
    /// `task_struct.signal`
    pub task_signal: u32,
    /// `task_struct.cgroups`
    pub task_cgroups: u32,
    /// `mm_struct.total_vm`
    pub mm_total_vm: u32,
    /// `mm_struct.rss_stat`: the first counter's value
    pub mm_rss: u32,
    /// Bytes from one rss counter's value to the next
    pub mm_rss_stride: u32,
    /// `mm_struct.pgtables_bytes`
    pub mm_pgtables: u32,
    /// `signal_struct.oom_score_adj`
    pub signal_oom_score_adj: u32,
    /// `signal_struct.live`
    pub signal_live: u32,
    /// `css_set.dfl_cgrp`
    pub css_set_dfl_cgrp: u32,
    /// `cgroup.kn`
    pub cgroup_kn: u32,
    /// `cgroup.root`
    pub cgroup_root: u32,
    /// `cgroup_root.hierarchy_id`
    pub root_hierarchy_id: u32,
    /// `kernfs_node.id`
    pub kn_id: u32,
    /// `mem_cgroup.css`
    pub memcg_css: u32,
    /// `cgroup_subsys_state.cgroup`
    pub css_cgroup: u32,
    /// `oom_control.memcg`
    pub oc_memcg: u32,
    /// `oom_control.chosen`
    pub oc_chosen: u32,
    /// `oom_control.constraint`
    pub oc_constraint: u32,
    /// `mm_struct.brk`
    pub mm_brk: u32,
    /// `task_struct.stack`
    pub task_stack: u32,
    /// `vm_fault.address`
    pub vmf_address: u32,
    /// `cgroup.subsys[memory_cgrp_id]`
    pub cgroup_memory: u32,
    /// `cgroup.bstat.cputime.sum_exec_runtime`
    pub cgroup_cpu: u32,
    /// `mem_cgroup.memory.usage`, from `mem_cgroup.css` on
    pub css_usage: u32,
}

impl Offsets {
    /// Nothing known.
    pub const NONE: Offsets = Offsets {
        task_mm: NO_OFFSET,
        task_tgid: NO_OFFSET,
        task_comm: NO_OFFSET,
        task_signal: NO_OFFSET,
        task_cgroups: NO_OFFSET,
        mm_total_vm: NO_OFFSET,
        mm_rss: NO_OFFSET,
        mm_rss_stride: NO_OFFSET,
        mm_pgtables: NO_OFFSET,
        signal_oom_score_adj: NO_OFFSET,
        signal_live: NO_OFFSET,
        css_set_dfl_cgrp: NO_OFFSET,
        cgroup_kn: NO_OFFSET,
        cgroup_root: NO_OFFSET,
        root_hierarchy_id: NO_OFFSET,
        kn_id: NO_OFFSET,
        memcg_css: NO_OFFSET,
        css_cgroup: NO_OFFSET,
        oc_memcg: NO_OFFSET,
        oc_chosen: NO_OFFSET,
        oc_constraint: NO_OFFSET,
        mm_brk: NO_OFFSET,
        task_stack: NO_OFFSET,
        vmf_address: NO_OFFSET,
        cgroup_memory: NO_OFFSET,
        cgroup_cpu: NO_OFFSET,
        css_usage: NO_OFFSET,
    };
}

/// Order of `mm_struct.rss_stat` (include/linux/mm_types_task.h).
pub mod rss {
    /// MM_FILEPAGES
    pub const FILE: u32 = 0;
    /// MM_ANONPAGES
    pub const ANON: u32 = 1;
    /// MM_SWAPENTS
    pub const SWAP: u32 = 2;
    /// MM_SHMEMPAGES
    pub const SHMEM: u32 = 3;
}

const _: () = {
    assert!(size_of::<CgroupCounters>() == 26 * 8);
    assert!(size_of::<Header>() == 24);
    assert!(offset_of!(Header, cgroup) == 16);
    assert!(size_of::<OomRecord>() == 24 + 7 * 8 + 4 * 4 + 2 * COMM_LEN);
    assert!(offset_of!(OomRecord, comm) == 96);
    assert!(size_of::<StallRecord>() == 24 + 3 * 8 + 4 * 4 + COMM_LEN);
    assert!(offset_of!(StallRecord, comm) == 64);
    assert!(size_of::<CgroupRecord>() == 24 + 8 + PATH_LEN);
    assert!(offset_of!(CgroupRecord, path) == 32);
    assert!(size_of::<ProcessRecord>() == 24 + 8 + COMM_LEN);
    assert!(size_of::<GrowthRecord>() == 24 + 4 * 8 + 8 + COMM_LEN);
    assert!(offset_of!(GrowthRecord, comm) == 64);
    assert!(size_of::<ProcessGrowth>() == 56);
    assert!(size_of::<CgroupGrowth>() == 16);
    assert!(size_of::<LossCount>() == 16);
    assert!(size_of::<Slot>() == 16);
    assert!(size_of::<CgroupLevel>() == 24);
    assert!(size_of::<Offsets>() == 27 * 4);
};

#[cfg(feature = "user")]
mod pod {
    // SAFETY: repr(C), Copy, no padding, any bit pattern valid.
    unsafe impl aya::Pod for super::CgroupCounters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::ProcessGrowth {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::CgroupGrowth {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::LossCount {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Offsets {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Slot {}
}
