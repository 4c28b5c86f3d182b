//! Memory figures of processes from /proc, and what this process costs itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode as FileMode, OFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::cgroup_files::read_at_start;
use super::{Host, HostError, figure};

/// Memory of one process, bytes. A kernel thread has none: all figures are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProcMem {
    /// Thread group id.
    pub pid: u32,
    /// Command name.
    pub comm: String,
    /// Resident.
    pub rss: Option<u64>,
    /// Resident anonymous.
    pub anon: Option<u64>,
    /// Resident file mappings.
    pub file: Option<u64>,
    /// Resident shared memory.
    pub shmem: Option<u64>,
    /// Swapped out.
    pub swap: Option<u64>,
    /// Total virtual size.
    pub r#virtual: Option<u64>,
}

/// /proc, with a descriptor of it and a buffer that is reused.
#[derive(Debug)]
pub struct ProcFs {
    dir: OwnedFd,
    page: u64,
    buf: Vec<u8>,
}

impl ProcFs {
    /// Opens /proc.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn open(host: &Host) -> Result<Self, HostError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(host.path("/proc"), flags, FileMode::empty())
            .map_err(|source| HostError::file("open", "/proc", source))?;
        Ok(ProcFs {
            dir,
            page: rustix::param::page_size() as u64,
            buf: Vec::new(),
        })
    }

    /// Figures of /proc/PID/status; `None` when the process is gone.
    ///
    /// # Errors
    /// Where the file is there and cannot be read.
    pub fn memory(&mut self, pid: u32) -> Result<Option<ProcMem>, HostError> {
        Ok(self
            .content(pid, "status")?
            .map(|content| parse_status(pid, content)))
    }

    /// Resident and virtual bytes from /proc/PID/statm, which is cheaper than [`ProcFs::memory`]; `None` when the
    /// process is gone. The resident figure lags by up to 64 pages per thread on older kernels, as `status` does.
    ///
    /// # Errors
    /// Where the file is there and cannot be read.
    pub fn statm(&mut self, pid: u32) -> Result<Option<(u64, u64)>, HostError> {
        let page = self.page;
        let Some(content) = self.content(pid, "statm")? else {
            return Ok(None);
        };
        let mut fields = content
            .trim_ascii_end()
            .split(|byte| *byte == b' ')
            .map(figure);
        match (fields.next().flatten(), fields.next().flatten()) {
            (Some(size), Some(resident)) => Ok(Some((resident * page, size * page))),
            _ => Err(HostError::Content {
                path: format!("/proc/{pid}/statm").into(),
                why: "not two figures".into(),
            }),
        }
    }

    /// Command name; `None` when the process is gone.
    ///
    /// # Errors
    /// Where the file is there and cannot be read.
    pub fn comm(&mut self, pid: u32) -> Result<Option<String>, HostError> {
        Ok(self
            .content(pid, "comm")?
            .map(|content| String::from_utf8_lossy(content.trim_ascii_end()).into_owned()))
    }

    /// Path of the process's cgroup in the v2 tree; `None` when the process is gone or there is no such tree.
    ///
    /// # Errors
    /// Where the file is there and cannot be read.
    pub fn cgroup(&mut self, pid: u32) -> Result<Option<String>, HostError> {
        let Some(content) = self.content(pid, "cgroup")? else {
            return Ok(None);
        };
        Ok(content
            .split(|byte| *byte == b'\n')
            .find_map(|line| line.strip_prefix(b"0::"))
            .map(|path| {
                let path = String::from_utf8_lossy(path);
                // The kernel marks a cgroup that was removed under a process that is still exiting.
                path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned()
            }))
    }

    /// All processes, in ascending order.
    ///
    /// # Errors
    /// Where /proc cannot be read.
    pub fn pids(&self) -> Result<Vec<u32>, HostError> {
        let fail = |source: Errno| HostError::file("read", "/proc", source);
        let mut pids = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            pids.extend(
                figure(entry.file_name().to_bytes()).and_then(|pid| u32::try_from(pid).ok()),
            );
        }
        pids.sort_unstable();
        Ok(pids)
    }

    /// When the process began, clock ticks since boot: with the pid it names one process, as pids are reused. `None`
    /// when the process is gone.
    ///
    /// # Errors
    /// Where the file is there and cannot be read.
    pub fn started(&mut self, pid: u32) -> Result<Option<u64>, HostError> {
        let Some(content) = self.content(pid, "stat")? else {
            return Ok(None);
        };
        start_time(content)
            .map(Some)
            .ok_or_else(|| HostError::Content {
                path: format!("/proc/{pid}/stat").into(),
                why: "no start time".into(),
            })
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    pub(super) fn content(&mut self, pid: u32, name: &str) -> Result<Option<&[u8]>, HostError> {
        let path = format!("{pid}/{name}");
        let fail = |what, error: Errno| match error {
            Errno::NOENT | Errno::SRCH => Ok(None),
            error => Err(HostError::file(what, Path::new("/proc").join(&path), error)),
        };
        let fd = match rustix::fs::openat(
            &self.dir,
            &path,
            OFlags::RDONLY | OFlags::CLOEXEC,
            FileMode::empty(),
        ) {
            Ok(fd) => fd,
            Err(error) => return fail("open", error),
        };
        match read_at_start(fd.as_fd(), &mut self.buf) {
            Ok(len) => Ok(Some(&self.buf[..len])),
            Err(error) => fail("read", error),
        }
    }
}

/// Field 22 of /proc/PID/stat. The command name may hold blanks and brackets, so counting begins after its last one.
pub(super) fn start_time(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = stat[end + 1..].trim_ascii().split(|byte| *byte == b' ');
    figure(fields.nth(19)?)
}

fn parse_status(pid: u32, content: &[u8]) -> ProcMem {
    let mut memory = ProcMem {
        pid,
        ..ProcMem::default()
    };
    for line in content.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let value = line[colon + 1..].trim_ascii();
        let field = match &line[..colon] {
            b"Name" => {
                memory.comm = String::from_utf8_lossy(value).into_owned();
                continue;
            }
            b"Tgid" => {
                memory.pid = figure(value)
                    .and_then(|tgid| u32::try_from(tgid).ok())
                    .unwrap_or(pid);
                continue;
            }
            b"VmRSS" => &mut memory.rss,
            b"RssAnon" => &mut memory.anon,
            b"RssFile" => &mut memory.file,
            b"RssShmem" => &mut memory.shmem,
            b"VmSwap" => &mut memory.swap,
            b"VmSize" => &mut memory.r#virtual,
            _ => continue,
        };
        *field = value
            .strip_suffix(b" kB")
            .and_then(figure)
            .and_then(|kib| kib.checked_mul(1024));
    }
    memory
}

/// What this process costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OwnCost {
    /// User and system CPU time of all its threads since it began, microseconds.
    pub cpu_us: u64,
    /// Resident bytes.
    pub rss: Option<u64>,
    /// Open file descriptors.
    pub fds: Option<u64>,
}

impl OwnCost {
    /// Measures this process. What cannot be read is absent.
    #[must_use]
    pub fn now() -> Self {
        // SAFETY: all-zero bytes are a valid `rusage`, a struct of integers.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` is a writable `rusage`; the call cannot fail with these arguments and keeps nothing.
        unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
        let micros = |time: libc::timeval| {
            u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000
                + u64::try_from(time.tv_usec).unwrap_or(0)
        };
        let page = rustix::param::page_size() as u64;
        let rss = std::fs::read("/proc/self/statm")
            .ok()
            .and_then(|statm| figure(statm.split(|byte| *byte == b' ').nth(1)?))
            .map(|pages| pages * page);
        // The directory's own descriptor is among the entries.
        let fds = std::fs::read_dir("/proc/self/fd")
            .ok()
            .map(|entries| entries.count().saturating_sub(1) as u64);
        OwnCost {
            cpu_us: micros(usage.ru_utime) + micros(usage.ru_stime),
            rss,
            fds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_gives_bytes_and_a_kernel_thread_has_none() {
        let status = b"Name:\tnginx: worker\nUmask:\t0022\nTgid:\t41\nPid:\t42\nVmSize:\t  100 kB\nVmRSS:\t   30 kB\n\
            RssAnon:\t   10 kB\nRssFile:\t   15 kB\nRssShmem:\t    5 kB\nVmSwap:\t    7 kB\n";
        let want = ProcMem {
            pid: 41,
            comm: "nginx: worker".to_owned(),
            rss: Some(30 << 10),
            anon: Some(10 << 10),
            file: Some(15 << 10),
            shmem: Some(5 << 10),
            swap: Some(7 << 10),
            r#virtual: Some(100 << 10),
        };
        assert_eq!(parse_status(42, status), want);
        let kthread = parse_status(2, b"Name:\tkthreadd\nTgid:\t2\nThreads:\t1\n");
        assert_eq!(
            kthread,
            ProcMem {
                pid: 2,
                comm: "kthreadd".to_owned(),
                ..ProcMem::default()
            }
        );
        assert_eq!(
            parse_status(9, b"VmRSS:\t30\nVmSwap: x kB\n"),
            ProcMem {
                pid: 9,
                ..ProcMem::default()
            }
        );
    }

    #[test]
    fn this_process_is_seen_and_a_dead_one_is_not() {
        let mut proc = ProcFs::open(&Host::live()).unwrap();
        let own = std::process::id();
        let memory = proc.memory(own).unwrap().unwrap();
        assert_eq!((memory.pid, memory.rss.is_some()), (own, true));
        let (rss, size) = proc.statm(own).unwrap().unwrap();
        assert!(rss > 0 && rss <= size && rss % 4096 == 0);
        assert_eq!(proc.comm(own).unwrap().unwrap(), memory.comm);
        assert!(proc.pids().unwrap().contains(&own));
        // Above every pid_max (2^22).
        let dead = u32::MAX;
        assert_eq!(
            (proc.memory(dead).unwrap(), proc.statm(dead).unwrap()),
            (None, None)
        );
    }

    #[test]
    fn the_start_time_is_found_behind_any_command_name() {
        let rest = "S 1 42 42 0 -1 4194560 10 0 0 0 1 2 0 0 20 0 1 0 777 1000 99";
        for comm in ["cat", "a) S 1 (b", "x y z", ")"] {
            let stat = format!("42 ({comm}) {rest}\n");
            assert_eq!(start_time(stat.as_bytes()), Some(777), "{comm}");
        }
        for bad in ["", "42", "42 (cat", "42 (cat) S 1", "42 (cat)"] {
            assert_eq!(start_time(bad.as_bytes()), None, "{bad}");
        }
        let mut proc = ProcFs::open(&Host::live()).unwrap();
        let own = proc.started(std::process::id()).unwrap();
        assert!(own > Some(0) && own == proc.started(std::process::id()).unwrap());
        assert_eq!(proc.started(u32::MAX).unwrap(), None);
    }

    #[test]
    fn own_cost_counts_descriptors_and_time() {
        let before = OwnCost::now();
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        let after = OwnCost::now();
        assert!(after.cpu_us >= before.cpu_us && after.rss > Some(0) && after.fds > Some(2));
        drop(file);
    }
}
