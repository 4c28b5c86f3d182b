//! The programs and maps of `profile`, apart from those of `watch`: loaded and attached while somebody profiles, and gone
//! with the value.

use std::collections::HashMap as StdHashMap;
use std::fs::File;
use std::os::fd::AsRawFd as _;

use aya::maps::{
    Array, CgroupArray, HashMap, MapData, MapError, PerCpuArray, RingBuf, StackTraceMap,
};
use aya::{Btf, Ebpf, EbpfLoader, VerifierLogLevel};
use grey_common::LAYOUT_VERSION;
use grey_common::stack::{MoveRecord, PageKey, StackCount, StackKey, StackState};

use super::attach::attach_probe;
use super::facts::Facts;
use super::load::{LoadError, OBJECT, Settings, one_line, take};
use super::plan;
use crate::doctor::ProbeStatus;

/// Maps of `watch` that the object brings along and nobody uses here.
const UNUSED: [&str; 9] = [
    "CGROUP_SLOT",
    "FREE_SLOTS",
    "SLOTS",
    "COUNTERS",
    "CGROUP_GROWTH",
    "PROCESS_GROWTH",
    "PENDING_RECLAIM",
    "PENDING_OOM",
    "OWN_TGIDS",
];

/// Room for two thousand moves between two looks.
const MOVES_BYTES: u32 = 64 << 10;

/// Whose faults are looked at.
#[derive(Debug)]
pub enum StackTarget {
    /// A process, by its thread group id.
    Process(u32),
    /// A cgroup with all below it, by its v2 directory.
    Cgroup(File),
}

/// Entries of the tables; each is memory of the kernel as long as the profile lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackRoom {
    /// Different stacks, about 1 KiB each.
    pub stacks: u32,
    /// Ways in (stacks by process), about 100 bytes each.
    pub counts: u32,
    /// Pages followed, about 100 bytes each.
    pub pages: u32,
}

/// The attached programs.
pub struct StackProbe {
    stacks: StackTraceMap<MapData>,
    counts: HashMap<MapData, StackKey, StackCount>,
    pages: HashMap<MapData, PageKey, StackKey>,
    shift: Array<MapData, u64>,
    state: PerCpuArray<MapData, StackState>,
    moves: RingBuf<MapData>,
    /// Each probe, attached or not.
    pub probes: Vec<ProbeStatus>,
    room: StackRoom,
    /// Gone when no longer attached.
    ebpf: Option<Ebpf>,
}

/// All that the tables hold at the end.
#[derive(Debug, Default)]
pub struct StackTables {
    /// What came in by each way.
    pub counts: Vec<(StackKey, StackCount)>,
    /// Each followed page with the stack that faulted it in last.
    pub pages: Vec<(PageKey, StackKey)>,
    /// Addresses by stack id, the innermost first.
    pub stacks: StdHashMap<i32, Vec<u64>>,
}

impl StackProbe {
    /// Loads and attaches.
    ///
    /// # Errors
    /// The object is refused, or no page fault can be seen on this kernel.
    pub fn load(
        facts: &Facts,
        target: StackTarget,
        room: StackRoom,
        settings: &Settings,
    ) -> Result<StackProbe, LoadError> {
        // A vector that grows moves its pages: without them its memory would be nobody's. It is paid for as long as a
        // profile takes.
        let settings = &Settings {
            syscall_tracepoints: true,
            ..settings.clone()
        };
        let vmlinux = if facts.btf_error.is_none() {
            Btf::from_sys_fs().ok()
        } else {
            None
        };
        let page = rustix::param::page_size();
        let page_shift = u64::from(page.trailing_zeros());
        let tgid = match &target {
            StackTarget::Process(tgid) => *tgid,
            StackTarget::Cgroup(_) => 0,
        };
        let ring = u32::try_from(page).unwrap_or(4096);
        let mut loader = EbpfLoader::new();
        loader
            .btf(vmlinux.as_ref())
            .verifier_log_level(VerifierLogLevel::DEBUG)
            .override_global("OFFSETS", &facts.offsets, true)
            .override_global("PAGE_SHIFT", &page_shift, true)
            .override_global("LAYOUT", &LAYOUT_VERSION, true)
            .override_global("STACK_TGID", &tgid, true)
            .map_max_entries("STACKS", room.stacks)
            .map_max_entries("STACK_COUNTS", room.counts)
            .map_max_entries("STACK_PAGES", room.pages)
            .map_max_entries("STACK_MOVES", MOVES_BYTES)
            .map_max_entries("RARE", ring)
            .map_max_entries("GROWTH", ring);
        for map in UNUSED {
            loader.map_max_entries(map, 1);
        }
        let mut ebpf = loader
            .load(OBJECT)
            .map_err(|error| LoadError::Object(one_line(&error)))?;
        // Programs are loaded with its descriptor, so it stays open until then.
        let mut cgroups: CgroupArray<MapData> = take(&mut ebpf, "STACK_CGROUPS")?;
        if let StackTarget::Cgroup(directory) = &target {
            cgroups
                .set(0, directory.as_raw_fd(), 0)
                .map_err(|error| LoadError::Map("STACK_CGROUPS", one_line(&error)))?;
        }
        let stacks = take(&mut ebpf, "STACKS")?;
        let counts = take(&mut ebpf, "STACK_COUNTS")?;
        let pages = take(&mut ebpf, "STACK_PAGES")?;
        let shift = take(&mut ebpf, "STACK_SHIFT")?;
        let state = take(&mut ebpf, "STACK_STATE")?;
        let moves = take(&mut ebpf, "STACK_MOVES")?;
        let mut probes: Vec<ProbeStatus> = Vec::new();
        for probe in plan::stack_probes() {
            let (status, _) = attach_probe(
                &mut ebpf,
                facts,
                settings,
                vmlinux.as_ref(),
                &probe,
                &probes,
            );
            probes.push(status);
        }
        drop(cgroups);
        let probe = StackProbe {
            stacks,
            counts,
            pages,
            shift,
            state,
            moves,
            probes,
            room,
            ebpf: Some(ebpf),
        };
        match probe.status(plan::STACK_USER) {
            Some(status) if status.attached.is_none() => Err(LoadError::Object(format!(
                "page faults cannot be seen: {}",
                status.reason.as_deref().unwrap_or("no reason given")
            ))),
            _ => Ok(probe),
        }
    }

    fn status(&self, name: &str) -> Option<&ProbeStatus> {
        self.probes.iter().find(|probe| probe.name == name)
    }

    /// Whether huge pages are counted as they are mapped.
    #[must_use]
    pub fn sees_huge(&self) -> bool {
        self.status(plan::STACK_HUGE)
            .is_some_and(|probe| probe.attached.is_some())
    }

    /// Sums over all CPUs since the start.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn state(&self) -> Result<StackState, MapError> {
        let mut sum = StackState::default();
        for cpu in self.state.get(&0, 0)?.iter() {
            let StackState {
                thread: _,
                seen,
                sampled,
                ns,
                lost_stacks,
                lost_counts,
                lost_pages,
                lost_moves,
            } = cpu;
            sum.seen += seen;
            sum.sampled += sampled;
            sum.ns += ns;
            sum.lost_stacks += lost_stacks;
            sum.lost_counts += lost_counts;
            sum.lost_pages += lost_pages;
            sum.lost_moves += lost_moves;
        }
        Ok(sum)
    }

    /// Follows one page in `2^shift` from now on.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_shift(&mut self, shift: u64) -> Result<(), MapError> {
        self.shift.set(0, shift, 0)
    }

    /// Takes the pages out of the table that `keep` does not want, and returns how many are left.
    pub fn prune(&mut self, keep: impl Fn(u64) -> bool) -> usize {
        let keys: Vec<PageKey> = self
            .pages
            .keys()
            .filter_map(Result::ok)
            // Entries that come meanwhile could go on for ever.
            .take(2 * self.room.pages as usize)
            .collect();
        let page = rustix::param::page_size() as u64;
        let mut left = 0;
        for key in keys {
            if key.huge == 1 || keep(key.address / page) {
                left += 1;
            } else {
                let _ = self.pages.remove(&key);
            }
        }
        left
    }

    /// The next range that mremap moved, in the order in which it happened.
    pub fn next_move(&mut self) -> Option<MoveRecord> {
        loop {
            let record = self.moves.next()?;
            if record.len() >= size_of::<MoveRecord>() {
                // SAFETY: long enough, and any bit pattern is a valid record; the ring aligns to 8 bytes only.
                return Some(unsafe { record.as_ptr().cast::<MoveRecord>().read_unaligned() });
            }
        }
    }

    /// Takes a page out of the table.
    pub fn take_page(&mut self, key: &PageKey) -> Option<StackKey> {
        let stack = self.pages.get(key, 0).ok()?;
        self.pages.remove(key).ok()?;
        Some(stack)
    }

    /// Detaches every program; the tables stay.
    pub fn detach(&mut self) {
        self.ebpf = None;
    }

    /// What the tables hold. After [`StackProbe::detach`], so that it is of one moment.
    #[must_use]
    pub fn tables(&self) -> StackTables {
        let mut tables = StackTables {
            counts: self.counts.iter().filter_map(Result::ok).collect(),
            pages: self.pages.iter().filter_map(Result::ok).collect(),
            stacks: StdHashMap::new(),
        };
        for (key, _) in &tables.counts {
            for id in [key.user, key.kernel] {
                if let Ok(number) = u32::try_from(id)
                    && !tables.stacks.contains_key(&id)
                    && let Ok(trace) = self.stacks.get(&number, 0)
                {
                    let frames = trace.frames().iter().map(|frame| frame.ip);
                    tables
                        .stacks
                        .insert(id, frames.take_while(|ip| *ip != 0).collect());
                }
            }
        }
        tables
    }
}
