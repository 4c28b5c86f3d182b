//! How much memory and CPU time each cgroup has, from one walk in the kernel.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use aya::maps::{Map, MapData};
use grey_common::CgroupLevel;

use super::attach::Link;
use super::load::{Kernel, LoadError};
use super::mapped::Mapped;
use super::plan::CGROUP_LEVELS;

const NAME: &str = "LEVELS";

// Numbers of linux/bpf.h.
const LINK_CREATE: libc::c_long = 28;
const ITER_CREATE: libc::c_long = 33;
const TRACE_ITER: u32 = 28;
/// BPF_CGROUP_ITER_DESCENDANTS_PRE
const DESCENDANTS: u32 = 2;

/// `union bpf_attr` for BPF_LINK_CREATE, as far as it is needed.
#[repr(C)]
#[derive(Default)]
struct Create {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    info: u64,
    info_len: u32,
    pad: u32,
}

/// `union bpf_iter_link_info` of cgroups. Without a cgroup to begin with it is the root of this process's namespace.
#[repr(C)]
#[derive(Default)]
struct Info {
    order: u32,
    fd: u32,
    id: u64,
}

/// `union bpf_attr` for BPF_ITER_CREATE.
#[repr(C)]
struct IterCreate {
    link: u32,
    flags: u32,
}

fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: a command with an attribute of its own layout and size, which the kernel only reads; what it points to lives
    // as long as the caller's values.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    let fd = RawFd::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Binds the loaded program to the walk over all cgroups, parents before their children.
pub(super) fn attach(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let info = Info {
        order: DESCENDANTS,
        ..Info::default()
    };
    bpf(
        LINK_CREATE,
        &Create {
            program: program.as_raw_fd().unsigned_abs(),
            attach_type: TRACE_ITER,
            info: (&raw const info) as u64,
            info_len: size_of::<Info>() as u32,
            ..Create::default()
        },
    )
}

/// What a cgroup has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// v2 cgroup id.
    pub cgroup: u64,
    /// As memory.current.
    pub current: u64,
    /// As usage_usec of cpu.stat when it, or that of a cgroup above, was read last, by anybody.
    pub cpu_us: u64,
}

/// The table that the walk fills. It is mapped while it is read: each page of it would be resident.
pub(super) struct Levels {
    data: MapData,
    count: u32,
}

impl Levels {
    /// With room for `cgroups`.
    pub(super) fn take(ebpf: &mut Ebpf, cgroups: u32) -> Result<Self, LoadError> {
        let Some(Map::Array(data)) = ebpf.take_map(NAME) else {
            return Err(LoadError::Map(NAME, "missing or not an array".to_owned()));
        };
        let count = cgroups + 1;
        Ok(Levels { data, count })
    }

    /// Has the program run for each cgroup; what it wrote, and of how many.
    fn walk(&self, link: &OwnedFd) -> io::Result<(Mapped<CgroupLevel>, u32)> {
        let table = Mapped::of(&self.data, NAME, self.count).map_err(io::Error::other)?;
        let [count, ..] = words(&table, 0);
        count.store(0, Ordering::Relaxed);
        // One of its own for each walk: it does not begin again.
        let iter = bpf(
            ITER_CREATE,
            &IterCreate {
                link: link.as_raw_fd().unsigned_abs(),
                flags: 0,
            },
        )?;
        // The program writes to the table alone; the end of the walk is the end of this file.
        while rustix::io::read(&iter, &mut [0; 64])? > 0 {}
        let count = count.load(Ordering::Relaxed);
        match u32::try_from(count) {
            Ok(count) if count < self.count => Ok((table, count)),
            _ => Err(io::Error::other(format!(
                "{count} cgroups are more than the {} there is room for",
                self.count - 1
            ))),
        }
    }
}

fn words(table: &Mapped<CgroupLevel>, index: u32) -> [&AtomicU64; 3] {
    let entry = table.at(index).as_ptr();
    // SAFETY: an element of the mapping, aligned as the type asks, and borrowed with it; the kernel side writes whole words.
    unsafe {
        [
            AtomicU64::from_ptr(&raw mut (*entry).cgroup),
            AtomicU64::from_ptr(&raw mut (*entry).pages),
            AtomicU64::from_ptr(&raw mut (*entry).cpu_ns),
        ]
    }
}

fn level(table: &Mapped<CgroupLevel>, index: u32) -> Level {
    let [cgroup, pages, cpu_ns] = words(table, index).map(|word| word.load(Ordering::Relaxed));
    Level {
        cgroup,
        current: pages.saturating_mul(rustix::param::page_size() as u64),
        cpu_us: cpu_ns / 1000,
    }
}

impl Kernel {
    /// Whether [`Kernel::levels`] can walk.
    #[must_use]
    pub fn walks(&self) -> bool {
        self.has(CGROUP_LEVELS)
    }

    /// Walks over all cgroups; `None` where this kernel cannot.
    ///
    /// # Errors
    /// The kernel's, and more cgroups than there is room for.
    pub fn levels(&mut self) -> Option<io::Result<impl Iterator<Item = Level> + use<>>> {
        let mut links = self.attached.iter().flat_map(|attached| &attached.links);
        let link = links.find_map(|link| match link {
            Link::Iter(link) => Some(link),
            _ => None,
        })?;
        let walked = self.levels.walk(link);
        Some(walked.map(|(table, count)| (1..=count).map(move |index| level(&table, index))))
    }
}
