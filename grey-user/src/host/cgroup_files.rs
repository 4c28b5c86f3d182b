//! The memory.* files of one cgroup, kept open: a tick is a handful of `pread`s and no path walk.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use grey_core::event::{Limit, Mem, MemEvents, Psi};
use rustix::fs::{Mode as FileMode, OFlags};
use rustix::io::Errno;

use super::cgroupfs::{CgroupFs, is_alive, open_dir};
use super::memstat::{MemStat, parse_events};
use super::psi::parse_totals;
use super::{HostError, figure_line};

/// The cgroup was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cgroup is gone")]
pub struct Gone;

/// One reading of a cgroup's files. A figure that no file gave is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Memory; `max` and `high` as of the last [`CgroupFiles::read_limits`].
    pub mem: Mem,
    /// memory.pressure.
    pub psi: Option<Psi>,
    /// memory.events.
    pub events: Option<MemEvents>,
    /// memory.stat `pgfault`.
    pub pgfault: Option<u64>,
    /// memory.stat `pgmajfault`.
    pub pgmajfault: Option<u64>,
    /// Refaulted pages, anonymous and file.
    pub refault: Option<u64>,
    /// Pages scanned by reclaim.
    pub pgscan: Option<u64>,
    /// Pages freed by reclaim.
    pub pgsteal: Option<u64>,
    /// … of those by proactive reclaim, where the kernel tells them apart.
    pub pgsteal_proactive: Option<u64>,
    /// Files that are there but could not be read or understood; [`CgroupFiles::last_error`] has the last one.
    pub errors: u32,
}

/// memory.max and memory.high.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// memory.max.
    pub max: Limit,
    /// memory.high.
    pub high: Limit,
    /// Files that are there but could not be read or understood.
    pub errors: u32,
}

#[derive(Clone, Copy, Debug)]
enum File {
    Current,
    Stat,
    Events,
    Pressure,
    Swap,
    Max,
    High,
    Cpu,
    Procs,
}

const FILES: [&CStr; 9] = [
    c"memory.current",
    c"memory.stat",
    c"memory.events",
    c"memory.pressure",
    c"memory.swap.current",
    c"memory.max",
    c"memory.high",
    c"cpu.stat",
    c"cgroup.procs",
];

/// Reads after which an absent file is looked for again: somebody may have enabled the controller meanwhile.
const RETRY: u8 = 60;

#[derive(Debug, Default)]
enum Slot {
    #[default]
    Closed,
    Open(OwnedFd),
    Absent(u8),
}

/// Open descriptors of one cgroup's files.
///
/// They are opened at the first read and relative to the cgroup's own directory, so that a cgroup which takes the
/// path of a removed one is never read in its place. Each open file pins a page of kernel buffer once it was read:
/// [`CgroupFiles::release`] gives them back for cgroups that are read seldom.
#[derive(Debug)]
pub struct CgroupFiles {
    id: u64,
    path: Box<str>,
    dir: OwnedFd,
    // Boxed, as the error is: of thousands of cgroups few are read often, and fewer fail.
    slots: Option<Box<Slots>>,
    limits: Limits,
    last_error: Option<Box<HostError>>,
}

type Slots = [Slot; FILES.len()];

impl CgroupFiles {
    /// The cgroup at `path`; `None` where it does not exist or is another cgroup (by its id) by now.
    ///
    /// # Errors
    /// Running out of descriptors, missing permission.
    pub fn open(fs: &CgroupFs, id: u64, path: &str) -> Result<Option<Self>, HostError> {
        let dir = match open_dir(fs.dir()?, path) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NODEV | Errno::NOTDIR) => return Ok(None),
            Err(source) => return Err(HostError::file("open", fs.reach(path), source)),
        };
        match rustix::fs::fstat(&dir) {
            Ok(stat) if stat.st_ino == id => Ok(Some(CgroupFiles {
                id,
                path: path.into(),
                dir,
                slots: None,
                limits: Limits::default(),
                last_error: None,
            })),
            Ok(_) => Ok(None),
            Err(source) => Err(HostError::file("stat", fs.reach(path), source)),
        }
    }

    /// The cgroup's id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its path below the mount.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The last error that [`Reading::errors`] or [`Limits::errors`] counted.
    #[must_use]
    pub fn last_error(&self) -> Option<&HostError> {
        self.last_error.as_deref()
    }

    /// Closes all files but the directory; the next read opens them again.
    pub fn release(&mut self) {
        self.slots = None;
    }

    /// Whether the cgroup still exists.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        is_alive(self.dir.as_fd())
    }

    /// Reads memory.current, .stat, .events, .pressure and .swap.current. `buf` is scratch space to be reused.
    ///
    /// # Errors
    /// [`Gone`] when the cgroup was removed.
    pub fn read(&mut self, buf: &mut Vec<u8>) -> Result<Reading, Gone> {
        let mut reading = Reading::default();
        let mut errors = 0;
        if let Some(content) = self.content(File::Current, buf, &mut errors)? {
            reading.mem.current = figure_line(content);
            self.check(File::Current, reading.mem.current.is_some(), &mut errors);
        }
        if let Some(content) = self.content(File::Stat, buf, &mut errors)? {
            let stat = MemStat::parse(content);
            let understood = stat != MemStat::default();
            reading.mem.anon = stat.anon;
            reading.mem.file = stat.file;
            reading.mem.inactive_file = stat.inactive_file;
            reading.mem.shmem = stat.shmem;
            reading.mem.kernel = stat.kernel_total();
            reading.mem.slab = stat.slab;
            reading.mem.pagetables = stat.pagetables;
            reading.mem.sock = stat.sock;
            reading.pgfault = stat.pgfault;
            reading.pgmajfault = stat.pgmajfault;
            reading.refault = stat.refault_total();
            reading.pgscan = stat.pgscan;
            reading.pgsteal = stat.pgsteal;
            reading.pgsteal_proactive = stat.pgsteal_proactive;
            self.check(File::Stat, understood, &mut errors);
        }
        if let Some(content) = self.content(File::Events, buf, &mut errors)? {
            reading.events = parse_events(content);
            self.check(File::Events, reading.events.is_some(), &mut errors);
        }
        if let Some(content) = self.content(File::Pressure, buf, &mut errors)? {
            reading.psi = parse_totals(content);
            self.check(File::Pressure, reading.psi.is_some(), &mut errors);
        }
        if let Some(content) = self.content(File::Swap, buf, &mut errors)? {
            reading.mem.swap = figure_line(content);
            self.check(File::Swap, reading.mem.swap.is_some(), &mut errors);
        }
        let mut slots = self.slots.iter().flat_map(|slots| slots.iter());
        if !slots.any(|slot| matches!(slot, Slot::Open(_))) && !self.is_alive() {
            return Err(Gone);
        }
        reading.mem.max = self.limits.max;
        reading.mem.high = self.limits.high;
        reading.errors = errors;
        Ok(reading)
    }

    /// Reads memory.max and memory.high, which change seldom.
    ///
    /// # Errors
    /// [`Gone`] when the cgroup was removed.
    pub fn read_limits(&mut self, buf: &mut Vec<u8>) -> Result<Limits, Gone> {
        let mut limits = Limits::default();
        let mut errors = 0;
        for file in [File::Max, File::High] {
            let Some(content) = self.content(file, buf, &mut errors)? else {
                continue;
            };
            let limit = match content.trim_ascii() {
                b"max" => Limit::None,
                digits => super::figure(digits).map_or(Limit::Unknown, Limit::Bytes),
            };
            self.check(file, !limit.is_unknown(), &mut errors);
            match file {
                File::Max => limits.max = limit,
                _ => limits.high = limit,
            }
        }
        limits.errors = errors;
        self.limits = limits;
        Ok(limits)
    }

    /// memory.current, and the CPU time where that is asked for.
    pub fn level(&mut self, cpu: bool, buf: &mut Vec<u8>) -> (Option<u64>, Option<u64>) {
        let current = match self.content(File::Current, buf, &mut 0) {
            Ok(Some(content)) => figure_line(content),
            _ => None,
        };
        (current, if cpu { self.read_cpu(buf) } else { None })
    }

    /// CPU time of cpu.stat, µs, which every cgroup but the root of old kernels has.
    pub fn read_cpu(&mut self, buf: &mut Vec<u8>) -> Option<u64> {
        let mut errors = 0;
        let content = self.content(File::Cpu, buf, &mut errors).ok()??;
        content
            .split(|byte| *byte == b'\n')
            .find_map(|line| super::figure(line.strip_prefix(b"usage_usec ")?))
    }

    /// Processes directly in it, by thread group id; none where a threaded cgroup keeps them in its domain cgroup.
    /// `None`: the cgroup is gone, or its list could not be read.
    pub fn pids(&mut self, buf: &mut Vec<u8>) -> Option<Vec<u32>> {
        let mut errors = 0;
        let content = self.content(File::Procs, buf, &mut errors).ok()?;
        (errors == 0).then(|| parse_pids(content.unwrap_or_default()))
    }

    fn check(&mut self, file: File, understood: bool, errors: &mut u32) {
        if !understood {
            *errors += 1;
            self.last_error = Some(Box::new(HostError::Content {
                path: self.subject(file).into(),
                why: "the content is not understood".to_owned(),
            }));
        }
    }

    fn subject(&self, file: File) -> String {
        format!(
            "{}/{}",
            self.path.trim_end_matches('/'),
            FILES[file as usize].to_string_lossy()
        )
    }

    /// Content of a file; `None` when it is absent or counted as an error.
    fn content<'b>(
        &mut self,
        file: File,
        buf: &'b mut Vec<u8>,
        errors: &mut u32,
    ) -> Result<Option<&'b [u8]>, Gone> {
        let at = file as usize;
        let slot = &mut self.slots.get_or_insert_default()[at];
        match slot {
            Slot::Open(_) => {}
            Slot::Absent(wait) if *wait > 0 => {
                *wait -= 1;
                return Ok(None);
            }
            Slot::Closed | Slot::Absent(_) => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                match rustix::fs::openat(&self.dir, FILES[at], flags, FileMode::empty()) {
                    Ok(fd) => *slot = Slot::Open(fd),
                    Err(error) => return self.failed(file, "open", error, errors).map(|()| None),
                }
            }
        }
        let Slot::Open(fd) = slot else {
            return Ok(None);
        };
        let read = match file {
            File::Procs => read_in_pieces(fd.as_fd(), buf),
            _ => read_at_start(fd.as_fd(), buf),
        };
        match read {
            Ok(len) => Ok(Some(&buf[..len])),
            Err(error) => self.failed(file, "read", error, errors).map(|()| None),
        }
    }

    fn failed(
        &mut self,
        file: File,
        what: &'static str,
        error: Errno,
        errors: &mut u32,
    ) -> Result<(), Gone> {
        match error {
            // ENODEV: the file or its cgroup was removed. EOPNOTSUPP: PSI is switched off.
            Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP => {
                if !self.is_alive() {
                    return Err(Gone);
                }
                self.slots.get_or_insert_default()[file as usize] = Slot::Absent(RETRY);
            }
            error => {
                self.slots.get_or_insert_default()[file as usize] = Slot::Closed;
                *errors += 1;
                let failed = HostError::file(what, self.subject(file), error);
                self.last_error = Some(Box::new(failed));
            }
        }
        Ok(())
    }
}

/// Reads a kernel file from its beginning into `buf`, which grows as needed. Such a file is made in one piece, so
/// that a read which leaves room has seen all of it.
pub(crate) fn read_at_start(fd: BorrowedFd<'_>, buf: &mut Vec<u8>) -> Result<usize, Errno> {
    read(fd, buf, usize::MAX)
}

/// The same of a file that is made record by record: a read gets as many as go into the kernel's buffer, a page at least
/// (fs/seq_file.c), and only one that fell far short of it has seen the last one.
fn read_in_pieces(fd: BorrowedFd<'_>, buf: &mut Vec<u8>) -> Result<usize, Errno> {
    read(fd, buf, 2048)
}

/// To the end, which is a read of nothing, or one of less than `short` that left room.
fn read(fd: BorrowedFd<'_>, buf: &mut Vec<u8>, short: usize) -> Result<usize, Errno> {
    if buf.len() < 4096 {
        buf.resize(4096, 0);
    }
    let mut filled = 0;
    loop {
        match rustix::io::pread(fd, &mut buf[filled..], filled as u64) {
            Ok(n) if n == 0 || (n < short && filled + n < buf.len()) => return Ok(filled + n),
            Ok(n) => {
                filled += n;
                if filled == buf.len() {
                    let len = buf.len() * 2;
                    buf.resize(len, 0);
                }
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The lines of cgroup.procs. Pid 0 stands for a process of another pid namespace: it cannot be looked up.
pub(super) fn parse_pids(text: &[u8]) -> Vec<u32> {
    text.split(|byte| *byte == b'\n')
        .filter_map(super::figure)
        .filter_map(|pid| u32::try_from(pid).ok())
        .filter(|pid| *pid != 0)
        .collect()
}

#[cfg(test)]
mod tests;
