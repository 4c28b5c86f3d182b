//! What a process's memory is made of, from /proc/PID/smaps_rollup: shared and its own, huge, swapped, merged.
//!
//! The kernel walks the page tables of the process for it (milliseconds a GiB), so it is for reports, not for ticks.

use std::fs::File;
use std::io::Read as _;

use rustix::fs::{Mode as FileMode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{HostError, ProcFs, figure};

/// Sums over all mappings of a process, bytes. A line this kernel does not have is absent.
///
/// Documentation/filesystems/proc.rst says what each stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Smaps {
    /// `Rss`: resident.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss: Option<u64>,
    /// `Pss`: each page divided by the number of processes that map it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pss: Option<u64>,
    /// `Pss_Dirty` (6.0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pss_dirty: Option<u64>,
    /// `Pss_Anon` (5.4, in smaps_rollup only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pss_anon: Option<u64>,
    /// `Pss_File` (5.4, in smaps_rollup only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pss_file: Option<u64>,
    /// `Pss_Shmem` (5.4, in smaps_rollup only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pss_shmem: Option<u64>,
    /// `Shared_Clean`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_clean: Option<u64>,
    /// `Shared_Dirty`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_dirty: Option<u64>,
    /// `Private_Clean`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_clean: Option<u64>,
    /// `Private_Dirty`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_dirty: Option<u64>,
    /// `Anonymous`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon: Option<u64>,
    /// `KSM`: pages merged with others (6.8).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ksm: Option<u64>,
    /// `LazyFree`: given up by madvise(MADV_FREE) and not yet taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lazy_free: Option<u64>,
    /// `AnonHugePages`: anonymous memory in transparent huge pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon_huge: Option<u64>,
    /// `ShmemPmdMapped`: shared memory in transparent huge pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shmem_huge: Option<u64>,
    /// `FilePmdMapped`: file memory in transparent huge pages (5.4).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_huge: Option<u64>,
    /// `Shared_Hugetlb`, which is no part of `rss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_hugetlb: Option<u64>,
    /// `Private_Hugetlb`, which is no part of `rss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_hugetlb: Option<u64>,
    /// `Swap`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<u64>,
    /// `SwapPss`: `Swap` divided by those that share it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_pss: Option<u64>,
    /// `Locked`: mlock'ed, as PSS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<u64>,
}

impl Smaps {
    /// Reads the content of smaps_rollup, or of smaps, whose mappings are summed up; `None` when it is neither.
    #[must_use]
    pub fn parse(content: &[u8]) -> Option<Self> {
        let mut sums = Smaps::default();
        for line in content.split(|byte| *byte == b'\n') {
            // The head of a mapping has colons as well, after its addresses.
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                continue;
            };
            let sum = match &line[..colon] {
                b"Rss" => &mut sums.rss,
                b"Pss" => &mut sums.pss,
                b"Pss_Dirty" => &mut sums.pss_dirty,
                b"Pss_Anon" => &mut sums.pss_anon,
                b"Pss_File" => &mut sums.pss_file,
                b"Pss_Shmem" => &mut sums.pss_shmem,
                b"Shared_Clean" => &mut sums.shared_clean,
                b"Shared_Dirty" => &mut sums.shared_dirty,
                b"Private_Clean" => &mut sums.private_clean,
                b"Private_Dirty" => &mut sums.private_dirty,
                b"Anonymous" => &mut sums.anon,
                b"KSM" => &mut sums.ksm,
                b"LazyFree" => &mut sums.lazy_free,
                b"AnonHugePages" => &mut sums.anon_huge,
                b"ShmemPmdMapped" => &mut sums.shmem_huge,
                b"FilePmdMapped" => &mut sums.file_huge,
                b"Shared_Hugetlb" => &mut sums.shared_hugetlb,
                b"Private_Hugetlb" => &mut sums.private_hugetlb,
                b"Swap" => &mut sums.swap,
                b"SwapPss" => &mut sums.swap_pss,
                b"Locked" => &mut sums.locked,
                _ => continue,
            };
            let bytes = line[colon + 1..]
                .trim_ascii()
                .strip_suffix(b" kB")
                .and_then(figure)
                .and_then(|kib| kib.checked_mul(1024));
            if let Some(bytes) = bytes {
                *sum = Some(sum.unwrap_or(0).saturating_add(bytes));
            }
        }
        sums.rss.is_some().then_some(sums)
    }

    /// Unique set size: what ending the process would give back, `Private_Clean + Private_Dirty`.
    #[must_use]
    pub fn uss(&self) -> Option<u64> {
        self.private_clean?.checked_add(self.private_dirty?)
    }

    /// Memory in transparent huge pages of any kind; absent where the kernel tells of none.
    #[must_use]
    pub fn huge(&self) -> Option<u64> {
        [self.anon_huge, self.shmem_huge, self.file_huge]
            .into_iter()
            .flatten()
            .reduce(u64::saturating_add)
    }
}

impl ProcFs {
    /// Sums of a process's mappings: smaps_rollup, or smaps where there is no such file (before 4.14). `None` when
    /// the process is gone, is a zombie or a kernel thread, which have no memory of their own.
    ///
    /// # Errors
    /// Of another user's process above all: [`HostError::is_permission`] tells (it takes `CAP_SYS_PTRACE`).
    pub fn smaps(&mut self, pid: u32) -> Result<Option<Smaps>, HostError> {
        if let Some(content) = self.content(pid, "smaps_rollup")? {
            // A process without memory gives ESRCH; an empty file would say the same.
            if content.is_empty() {
                return Ok(None);
            }
            return Smaps::parse(content)
                .map(Some)
                .ok_or_else(|| odd(pid, "smaps_rollup"));
        }
        let path = format!("{pid}/smaps");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fail = |what, source: Errno| {
            HostError::file(what, std::path::Path::new("/proc").join(&path), source)
        };
        let fd = match rustix::fs::openat(self.dir(), &path, flags, FileMode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::SRCH) => return Ok(None),
            Err(error) => return Err(fail("open", error)),
        };
        // Unlike the other files it comes in pieces, one a mapping or so: to its end, then.
        let mut content = Vec::new();
        match File::from(fd).read_to_end(&mut content) {
            Ok(0) => Ok(None),
            Ok(_) => Smaps::parse(&content)
                .map(Some)
                .ok_or_else(|| odd(pid, "smaps")),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            Err(error) => Err(fail(
                "read",
                Errno::from_io_error(&error).unwrap_or(Errno::IO),
            )),
        }
    }
}

fn odd(pid: u32, name: &str) -> HostError {
    HostError::Content {
        path: format!("/proc/{pid}/{name}").into(),
        why: "no resident size in it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;
    use crate::host::fixture::Tree;

    /// smaps_rollup as Linux 6.18 writes it, the figures made different from each other.
    const ROLLUP: &str =
        "5566d4b76000-7ffff3926000 ---p 00000000 00:00 0                          [rollup]
Rss:                1624 kB
Pss:                 376 kB
Pss_Dirty:           112 kB
Pss_Anon:            113 kB
Pss_File:            264 kB
Pss_Shmem:             1 kB
Shared_Clean:       1424 kB
Shared_Dirty:          2 kB
Private_Clean:        88 kB
Private_Dirty:       114 kB
Referenced:         1625 kB
Anonymous:           115 kB
KSM:                   3 kB
LazyFree:              4 kB
AnonHugePages:         5 kB
ShmemPmdMapped:        6 kB
FilePmdMapped:         7 kB
Shared_Hugetlb:        8 kB
Private_Hugetlb:       9 kB
Swap:                 10 kB
SwapPss:              11 kB
Locked:               12 kB
";

    /// Two mappings of smaps as Linux 5.10 writes them.
    const SMAPS: &str =
        "55556e0c8000-55556e0c9000 ---p 00000000 00:00 0                          [heap]
Size:                  4 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                   0 kB
Pss:                   0 kB
Private_Clean:         0 kB
Private_Dirty:         0 kB
Swap:                  8 kB
THPeligible:    0
ProtectionKey:         0
VmFlags: mr mw me sd 
7fc3b8f0c000-7fc3b8f0d000 rw-p 00000000 00:2f 77                         /tmp/Rss: 9 kB
Size:                  4 kB
Rss:                   4 kB
Pss:                   2 kB
Private_Clean:         1 kB
Private_Dirty:         3 kB
Swap:                 16 kB
VmFlags: rd wr mr mw me ac sd 
";

    #[test]
    fn every_figure_of_a_rollup_comes_from_its_own_line() {
        let kib = |n: u64| Some(n << 10);
        let want = Smaps {
            rss: kib(1624),
            pss: kib(376),
            pss_dirty: kib(112),
            pss_anon: kib(113),
            pss_file: kib(264),
            pss_shmem: kib(1),
            shared_clean: kib(1424),
            shared_dirty: kib(2),
            private_clean: kib(88),
            private_dirty: kib(114),
            anon: kib(115),
            ksm: kib(3),
            lazy_free: kib(4),
            anon_huge: kib(5),
            shmem_huge: kib(6),
            file_huge: kib(7),
            shared_hugetlb: kib(8),
            private_hugetlb: kib(9),
            swap: kib(10),
            swap_pss: kib(11),
            locked: kib(12),
        };
        let read = Smaps::parse(ROLLUP.as_bytes()).unwrap();
        assert_eq!(read, want);
        assert_eq!((read.uss(), read.huge()), (kib(88 + 114), kib(5 + 6 + 7)));
    }

    #[test]
    fn mappings_are_summed_and_what_no_line_tells_is_absent() {
        let read = Smaps::parse(SMAPS.as_bytes()).unwrap();
        let want = Smaps {
            rss: Some(4 << 10),
            pss: Some(2 << 10),
            private_clean: Some(1 << 10),
            private_dirty: Some(3 << 10),
            swap: Some(24 << 10),
            ..Smaps::default()
        };
        assert_eq!(read, want);
        assert_eq!((read.uss(), read.huge()), (Some(4 << 10), None));
    }

    #[test]
    fn odd_content_is_no_figure_and_no_panic() {
        for bad in [
            "",
            "\n",
            "Rss",
            "Rss:",
            "Rss: x kB",
            "Rss: 5",
            "Rss: -1 kB",
            "Rss: 99999999999999999999 kB",
        ] {
            assert_eq!(Smaps::parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(Smaps::parse(&[0xff, b':', 0, b'\n', 0xfe]), None);
        let half = Smaps::parse(b"Rss: 4 kB\nPrivate_Clean: 4 kB\nPrivate_Dir").unwrap();
        assert_eq!((half.rss, half.uss()), (Some(4096), None));
    }

    #[test]
    fn smaps_stands_in_for_a_missing_rollup_and_nothing_for_a_missing_process() {
        let tree = Tree::new();
        tree.file("/proc/7/smaps", SMAPS)
            .file("/proc/8/smaps_rollup", ROLLUP)
            .file("/proc/8/smaps", SMAPS)
            .file("/proc/9/smaps_rollup", "")
            .file("/proc/10/smaps_rollup", "nonsense\n");
        let mut proc = ProcFs::open(&tree.host()).unwrap();
        let rss = |proc: &mut ProcFs, pid| proc.smaps(pid).unwrap().map(|smaps| smaps.rss);
        assert_eq!(rss(&mut proc, 7), Some(Some(4 << 10)));
        assert_eq!(rss(&mut proc, 8), Some(Some(1624 << 10)));
        assert_eq!((rss(&mut proc, 9), rss(&mut proc, 11)), (None, None));
        let error = proc.smaps(10).unwrap_err();
        assert!(!error.is_permission());
        assert_eq!(
            error.to_string(),
            "/proc/10/smaps_rollup: no resident size in it"
        );
    }

    #[test]
    fn this_process_has_a_pss_and_a_kernel_thread_has_nothing() {
        let mut proc = ProcFs::open(&Host::live()).unwrap();
        let own = proc.smaps(std::process::id()).unwrap().unwrap();
        assert!(
            own.uss() <= own.pss && own.pss <= own.rss && own.uss() > Some(0),
            "{own:?}"
        );
        // Above every pid_max (2^22).
        assert_eq!(proc.smaps(u32::MAX).unwrap(), None);
    }
}
