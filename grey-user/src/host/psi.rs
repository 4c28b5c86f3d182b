//! Pressure stall information: the figures of a pressure file, and triggers to be polled.
//!
//! Registering a trigger is an observation: the kernel averages somewhat more often while it is open, nothing else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use grey_core::event::{PressureLevel, Psi};
use rustix::fs::{Mode as FileMode, OFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::cgroupfs::{CgroupFs, open_dir};
use super::{Host, HostError, figure};

/// The machine's own pressure file.
pub const MEMORY: &str = "/proc/pressure/memory";

/// One line of a pressure file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PsiLine {
    /// Share of the last 10 s, percent.
    pub avg10: f64,
    /// Share of the last minute, percent.
    pub avg60: f64,
    /// Share of the last five minutes, percent.
    pub avg300: f64,
    /// Since boot or since the cgroup began, microseconds.
    pub total_us: u64,
}

/// A pressure file.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PsiFile {
    /// At least one task stalled.
    pub some: PsiLine,
    /// All tasks stalled; absent where the kernel does not give it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full: Option<PsiLine>,
}

impl PsiFile {
    /// Reads the content of a pressure file; `None` when it is not one.
    #[must_use]
    pub fn parse(content: &str) -> Option<Self> {
        let line = |name: &str| -> Option<PsiLine> {
            let mut fields = content
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?
                .split(' ');
            let mut field = |key: &str| fields.next()?.strip_prefix(key)?.strip_prefix('=');
            Some(PsiLine {
                avg10: field("avg10")?.parse().ok()?,
                avg60: field("avg60")?.parse().ok()?,
                avg300: field("avg300")?.parse().ok()?,
                total_us: field("total")?.parse().ok()?,
            })
        };
        Some(PsiFile {
            some: line("some")?,
            full: line("full"),
        })
    }
}

/// The two totals of a pressure file, without the averages; `None` when it is not one.
#[must_use]
pub fn parse_totals(content: &[u8]) -> Option<Psi> {
    let total = |name: &[u8]| -> Option<u64> {
        let line = content
            .split(|byte| *byte == b'\n')
            .find(|line| line.starts_with(name))?;
        let last = line.rsplit(|byte| *byte == b' ').next()?;
        figure(last.strip_prefix(b"total=")?)
    };
    Some(Psi {
        some_us_total: total(b"some ")?,
        full_us_total: total(b"full "),
    })
}

/// /proc/pressure/memory; `None` where PSI is not built in or switched off.
///
/// # Errors
/// Where it is there and cannot be read or understood.
pub fn memory(host: &Host) -> Result<Option<PsiFile>, HostError> {
    let Some(text) = host.text_opt(MEMORY)? else {
        return Ok(None);
    };
    match PsiFile::parse(&text) {
        Some(file) => Ok(Some(file)),
        None => Err(HostError::Content {
            path: MEMORY.into(),
            why: "not a pressure file".to_owned(),
        }),
    }
}

/// A registered trigger. Poll it for `POLLPRI`; `POLLERR` means that its cgroup is gone. Dropping it ends it.
#[derive(Debug)]
pub struct Trigger {
    fd: OwnedFd,
    /// The pressure file it watches.
    pub path: PathBuf,
    /// The line it watches.
    pub level: PressureLevel,
    /// Stall time within the window that makes it fire.
    pub threshold_us: u64,
    /// The window: as asked for, or the next multiple of 2 s where `CAP_SYS_RESOURCE` is missing.
    pub window_us: u64,
}

impl Trigger {
    /// The descriptor alone.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for Trigger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A trigger on the whole machine: memory.pressure of the v2 root, else /proc/pressure/memory.
///
/// # Errors
/// The error of the last file tried: [`HostError::Unsupported`] where PSI is absent or off.
pub fn machine_trigger(
    host: &Host,
    fs: &CgroupFs,
    level: PressureLevel,
    threshold_us: u64,
    window_us: u64,
) -> Result<Trigger, HostError> {
    cgroup_trigger(fs, "/", level, threshold_us, window_us).or_else(|_| {
        let path = PathBuf::from(MEMORY);
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::open(host.path(&path), flags, FileMode::empty()) {
            Ok(fd) => register(fd, path, level, threshold_us, window_us),
            Err(error) => Err(refused(path, error)),
        }
    })
}

/// A trigger on one cgroup's memory.pressure.
///
/// # Errors
/// [`HostError::Unsupported`] where the cgroup has no such file or takes no trigger, else why it cannot be opened.
pub fn cgroup_trigger(
    fs: &CgroupFs,
    path: &str,
    level: PressureLevel,
    threshold_us: u64,
    window_us: u64,
) -> Result<Trigger, HostError> {
    let file = fs.reach(path).join("memory.pressure");
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = open_dir(fs.dir()?, path)
        .and_then(|dir| rustix::fs::openat(&dir, c"memory.pressure", flags, FileMode::empty()));
    match fd {
        Ok(fd) => register(fd, file, level, threshold_us, window_us),
        Err(error) => Err(refused(file, error)),
    }
}

fn register(
    fd: OwnedFd,
    path: PathBuf,
    level: PressureLevel,
    threshold_us: u64,
    window_us: u64,
) -> Result<Trigger, HostError> {
    let name = match level {
        PressureLevel::Some => "some",
        PressureLevel::Full => "full",
    };
    // Without CAP_SYS_RESOURCE the kernel takes windows of whole multiples of 2 s only (6.5).
    let coarse = window_us.next_multiple_of(2_000_000);
    let mut refusal = Errno::INVAL;
    for window_us in [window_us, coarse] {
        // The NUL belongs to it, as in the example of Documentation/accounting/psi.rst: kernel/sched/psi.c puts its
        // own NUL over the last byte it was given, which otherwise is the window's last digit.
        let text = format!("{name} {threshold_us} {window_us}\0");
        match rustix::io::write(&fd, text.as_bytes()) {
            Ok(_) => {
                return Ok(Trigger {
                    fd,
                    path,
                    level,
                    threshold_us,
                    window_us,
                });
            }
            Err(error) => refusal = error,
        }
        if refusal != Errno::INVAL {
            break;
        }
    }
    Err(refused(path, refusal))
}

fn refused(path: PathBuf, error: Errno) -> HostError {
    match error {
        Errno::NOENT | Errno::NODEV => HostError::Unsupported {
            path,
            why: "there is no such pressure file",
        },
        Errno::OPNOTSUPP => HostError::Unsupported {
            path,
            why: "PSI is switched off (kernel command line psi=1 switches it on)",
        },
        Errno::INVAL => HostError::Unsupported {
            path,
            why: "the kernel does not take this trigger",
        },
        Errno::BUSY => HostError::Unsupported {
            path,
            why: "this descriptor has a trigger already",
        },
        error => HostError::file("register a trigger on", path, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: &str = "some avg10=1.25 avg60=0.50 avg300=0.10 total=13409\n\
        full avg10=0.00 avg60=0.00 avg300=0.00 total=4000\n";

    #[test]
    fn both_lines_are_read_and_full_may_be_missing() {
        let file = PsiFile::parse(REAL).unwrap();
        assert_eq!((file.some.avg10, file.some.total_us), (1.25, 13_409));
        assert_eq!(file.full.unwrap().total_us, 4000);
        let some = REAL.lines().next().unwrap();
        assert_eq!(PsiFile::parse(some).unwrap().full, None);
        let totals = |full_us_total| {
            Some(Psi {
                some_us_total: 13_409,
                full_us_total,
            })
        };
        assert_eq!(parse_totals(REAL.as_bytes()), totals(Some(4000)));
        assert_eq!(parse_totals(some.as_bytes()), totals(None));
    }

    #[test]
    fn what_is_not_a_pressure_file_is_unknown() {
        let garbage = [
            "",
            "some",
            "some avg10=0.00",
            "full avg10=0 avg60=0 avg300=0 total=1",
            "some total=-1",
            "x\ny\n",
        ];
        for content in garbage {
            assert_eq!(PsiFile::parse(content), None, "{content}");
            assert_eq!(parse_totals(content.as_bytes()), None, "{content}");
        }
    }

    #[test]
    fn a_refused_trigger_names_its_file_and_the_cause() {
        let text = |error| refused(PathBuf::from(MEMORY), error).to_string();
        assert_eq!(
            text(Errno::INVAL),
            "/proc/pressure/memory: the kernel does not take this trigger"
        );
        assert!(text(Errno::OPNOTSUPP).contains("psi=1"));
        assert!(
            text(Errno::ACCESS)
                .starts_with("register a trigger on /proc/pressure/memory: Permission denied")
        );
        assert!(refused(PathBuf::from(MEMORY), Errno::ACCESS).is_permission());
    }

    #[test]
    fn this_machine_takes_a_trigger_or_says_why_not() {
        let host = Host::live();
        let fs = CgroupFs::discover(&host);
        match machine_trigger(&host, &fs, PressureLevel::Some, 100_000, 1_000_000) {
            Ok(trigger) => assert!([1_000_000, 2_000_000].contains(&trigger.window_us)),
            Err(error) => assert!(error.to_string().contains("pressure"), "{error}"),
        }
    }
}
