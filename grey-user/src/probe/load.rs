//! Loads the object, attaches each probe in the cheapest way that works, and keeps what is attached.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use aya::maps::{Array, HashMap, Map, MapData, MapError, RingBuf, Stack};
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Btf, Ebpf, EbpfLoader, VerifierLogLevel};
use grey_common::LAYOUT_VERSION;
use thiserror::Error;

use super::attach::{Attached, attach_probe, growth_possible, off};
use super::check::RecordOffsets;
use super::counters::Counters;
use super::facts::Facts;
use super::levels::Levels;
use super::plan::{self, WITHIN_FAULTS};
use super::streaks;
use crate::doctor::ProbeStatus;

/// The committed kernel object.
pub(super) const OBJECT: &[u8] =
    aya::include_bytes_aligned!("../../../grey-ebpf/object/grey.bpf.o");

/// The CPUs that may ever be there.
const POSSIBLE_CPUS: &str = "/sys/devices/system/cpu/possible";

/// Names probes that are to fail, for tests: `oom_victim,vm_mmap=fexit`.
pub const FAIL_VAR: &str = "GREY_EBPF_FAIL_PROBES";

/// Why the kernel side could not be loaded at all.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The object was refused as a whole.
    #[error("kernel object: {0}")]
    Object(String),
    /// A map of the object is missing or of another type.
    #[error("kernel object: map {0}: {1}")]
    Map(&'static str, String),
}

/// What the user may set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Growth that makes an event, bytes; 0 for none.
    pub growth_bytes: u64,
    /// A reclaim run at least this long makes an event.
    pub stall_ns: u64,
    /// Bytes of each ring, a power of two times the page size.
    pub ring_bytes: u32,
    /// Cgroups that can be counted at the same time.
    pub cgroup_slots: u32,
    /// Cgroups that a walk over all of them has room for.
    pub level_slots: u32,
    /// Processes whose growth can be followed at the same time.
    pub process_slots: u32,
    /// Whether syscall tracepoints may be used as the last resort.
    pub syscall_tracepoints: bool,
    /// `probe` or `probe=way` that must fail.
    pub fail: BTreeSet<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            growth_bytes: 16 << 20,
            stall_ns: 10_000_000,
            ring_bytes: 256 << 10,
            cgroup_slots: 1024,
            level_slots: 4096,
            process_slots: 8192,
            syscall_tracepoints: false,
            fail: BTreeSet::new(),
        }
    }
}

impl Settings {
    /// Takes the probes that are to fail from [`FAIL_VAR`].
    #[must_use]
    pub fn with_fail_switch(mut self) -> Self {
        if let Ok(list) = std::env::var(FAIL_VAR) {
            self.fail = list
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect();
        }
        self
    }

    pub(super) fn must_fail(&self, probe: &str, way: &str) -> bool {
        self.fail.contains(probe)
            || self.fail.contains(&format!("{probe}={way}"))
            || self.fail.contains("all")
    }
}

/// The attached kernel side. Dropping it detaches every program; so does the end of the process.
pub struct Kernel {
    /// OOM, stalls, lifecycle.
    pub rare: RingBuf<MapData>,
    /// Growth.
    pub growth: RingBuf<MapData>,
    /// Becomes readable with [`Kernel::rare`].
    pub rare_fd: OwnedFd,
    /// Becomes readable with [`Kernel::growth`].
    pub growth_fd: OwnedFd,
    /// Counters by cgroup, losses.
    pub counters: Counters,
    /// Each probe, attached or not.
    pub probes: Vec<ProbeStatus>,
    own: HashMap<MapData, u32, u32>,
    pub(super) attached: Vec<Attached>,
    pub(super) levels: Levels,
    pub(super) ebpf: Ebpf,
}

impl Kernel {
    /// Whether the probe is attached in some way.
    #[must_use]
    pub fn has(&self, probe: &str) -> bool {
        self.probes
            .iter()
            .any(|status| status.name == probe && status.attached.is_some())
    }

    /// Counts reclaim by this process as our own from now on.
    pub fn mark_own(&mut self, tgid: u32) -> Result<(), MapError> {
        self.own.insert(tgid, 1, 0)
    }

    /// Run time of all our programs, while `kernel.bpf_stats_enabled` is on.
    #[must_use]
    pub fn run_time_ns(&self) -> u64 {
        self.ebpf
            .programs()
            .filter_map(|(_, program)| program.info().ok())
            .map(|info| info.run_time().as_nanos() as u64)
            .sum()
    }
}

/// Loads and attaches what this kernel allows. Fails only if not even the maps can be made.
pub fn load(facts: &Facts, settings: &Settings) -> Result<Kernel, LoadError> {
    let records = RecordOffsets::read(facts);
    let page = rustix::param::page_size() as u64;
    let growth_pages = settings.growth_bytes / page;
    let task_btf = u32::from(
        is_helper_supported(
            aya::programs::ProgramType::TracePoint,
            BpfHelper::BPF_FUNC_get_current_task_btf,
        )
        .unwrap_or(false),
    );
    let growth_within_faults = growth_possible(facts).is_ok()
        && !settings.must_fail("growth", WITHIN_FAULTS)
        && growth_pages > 0;
    let growth_on_fault = u32::from(growth_within_faults);
    let growth_step = (growth_pages / 16).max(1);
    let page_shift = u64::from(page.trailing_zeros());
    let never = u64::MAX >> page_shift;
    let growth_limit = if growth_pages == 0 {
        never
    } else {
        growth_pages
    };
    let vmlinux = if facts.btf_error.is_none() {
        Btf::from_sys_fs().ok()
    } else {
        None
    };

    let cpus = std::fs::read_to_string(POSSIBLE_CPUS)
        .ok()
        .and_then(|list| streaks::cpus(&list))
        .ok_or_else(|| LoadError::Map("STREAKS", format!("no CPUs in {POSSIBLE_CPUS}")))?;

    let mut loader = EbpfLoader::new();
    loader
        .btf(vmlinux.as_ref())
        .verifier_log_level(VerifierLogLevel::DEBUG)
        .override_global("OFFSETS", &facts.offsets, true)
        .override_global("GROWTH_PAGES", &growth_limit, true)
        .override_global("GROWTH_STEP", &growth_step, true)
        .override_global("STALL_NS", &settings.stall_ns, true)
        .override_global("PAGE_SHIFT", &page_shift, true)
        .override_global("TASK_BTF", &task_btf, true)
        .override_global("GROWTH_ON_FAULT", &growth_on_fault, true)
        .override_global("RECORD_FAULT_ERROR", &records.fault_error, true)
        .override_global("RECORD_VICTIM_PID", &records.victim_pid, true)
        .override_global("RECORD_RECLAIMED", &records.reclaimed, true)
        .override_global("LAYOUT", &LAYOUT_VERSION, true)
        .map_max_entries("RARE", settings.ring_bytes)
        .map_max_entries("GROWTH", settings.ring_bytes)
        .map_max_entries("PROCESS_GROWTH", settings.process_slots)
        .map_max_entries("STREAKS", cpus)
        .map_max_entries("LEVELS", settings.level_slots + 1);
    for map in [
        "CGROUP_SLOT",
        "FREE_SLOTS",
        "SLOTS",
        "COUNTERS",
        "CGROUP_GROWTH",
    ] {
        loader.map_max_entries(map, settings.cgroup_slots);
    }
    let mut ebpf = loader
        .load(OBJECT)
        .map_err(|error| LoadError::Object(one_line(&error)))?;

    // Slots are handed out from the end of the stack; 0 stands for none.
    let mut free: Stack<MapData, u32> = take(&mut ebpf, "FREE_SLOTS")?;
    for slot in (1..settings.cgroup_slots).rev() {
        free.push(slot, 0)
            .map_err(|error| LoadError::Map("FREE_SLOTS", one_line(&error)))?;
    }
    let counters = Counters::new(&mut ebpf, free, settings.cgroup_slots, cpus)?;
    let rare: RingBuf<MapData> = take(&mut ebpf, "RARE")?;
    let growth: RingBuf<MapData> = take(&mut ebpf, "GROWTH")?;
    let rare_fd = duplicate(&rare, "RARE")?;
    let growth_fd = duplicate(&growth, "GROWTH")?;
    let own = take(&mut ebpf, "OWN_TGIDS")?;
    let levels = Levels::take(&mut ebpf, settings.level_slots)?;
    let mut probes: Vec<ProbeStatus> = Vec::new();
    let mut attached = Vec::new();
    for probe in plan::probes() {
        let (status, how) = attach_probe(
            &mut ebpf,
            facts,
            settings,
            vmlinux.as_ref(),
            &probe,
            &probes,
        );
        probes.push(status);
        attached.extend(how);
    }
    let is_task_cgroup =
        |status: &ProbeStatus| status.name == plan::TASK_CGROUP && status.attached.is_some();
    if probes.iter().any(is_task_cgroup) {
        let mut followed: Array<MapData, u32> = take(&mut ebpf, "FOLLOWED")?;
        followed
            .set(0, 1, 0)
            .map_err(|error| LoadError::Map("FOLLOWED", one_line(&error)))?;
    }
    Ok(Kernel {
        rare,
        growth,
        rare_fd,
        growth_fd,
        counters,
        probes,
        own,
        attached,
        levels,
        ebpf,
    })
}

/// Takes a map out of the object as the type it must have.
pub(super) fn take<T: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, LoadError> {
    let map = ebpf
        .take_map(name)
        .ok_or_else(|| LoadError::Map(name, "missing".to_owned()))?;
    T::try_from(map).map_err(|error| LoadError::Map(name, one_line(&error)))
}

/// A descriptor of the ring that can be waited on while the ring itself is read.
fn duplicate(ring: &RingBuf<MapData>, name: &'static str) -> Result<OwnedFd, LoadError> {
    // SAFETY: the ring owns this descriptor and outlives the borrow.
    let fd = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) };
    fd.try_clone_to_owned()
        .map_err(|error| LoadError::Map(name, one_line(&error)))
}

/// An error and its causes on one line; of a verifier log only the last line that says something.
pub(super) fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let full = error.to_string();
        let mut lines = full
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with("processed "));
        // aya appends the verifier's log even where the kernel wrote none.
        let first = lines
            .next()
            .unwrap_or_default()
            .trim_end_matches(". Verifier output:")
            .to_owned();
        let part = match lines.next_back() {
            Some(last) => format!("{first} … {last}"),
            None => first,
        };
        if !text.contains(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
        next = error.source();
    }
    text
}

/// The probes as they stand when nothing could be loaded.
#[must_use]
pub fn unavailable(reason: &str) -> Vec<ProbeStatus> {
    plan::probes()
        .iter()
        .map(|probe| off(probe, reason.to_owned()))
        .collect()
}
