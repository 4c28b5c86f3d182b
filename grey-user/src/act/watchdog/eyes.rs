//! The files the watchdog looks at, kept open, and what they say: a look is a handful of `pread`s.

use std::ffi::CStr;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use grey_core::act::watchdog::{Kills, Reading, Service, Subject};
use grey_core::event::Psi;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::host::memstat::MemStat;
use crate::host::{CgroupFs, Host, figure, psi};

use super::super::scene::{Scene, Target};

/// A rule that rests, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Off {
    /// The cause that it would tell.
    pub rule: &'static str,
    /// What it looks at.
    pub subject: String,
    /// Why it cannot.
    pub why: String,
}

impl fmt::Display for Off {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.rule, self.subject, self.why)
    }
}

/// Where kills are counted.
#[derive(Debug)]
enum KillFile {
    /// memory.events of the target: any kill counts.
    Target(OwnedFd),
    /// memory.events and memory.events.local of a cgroup above: the second one says whose limit it was.
    Above(OwnedFd, OwnedFd),
    /// /proc/vmstat.
    Machine(OwnedFd),
}

/// The open files.
#[derive(Debug)]
pub(super) struct Eyes {
    start: Instant,
    name: String,
    kills: Vec<(String, KillFile)>,
    pressure: Option<OwnedFd>,
    meminfo: Option<OwnedFd>,
    stat: Option<OwnedFd>,
    /// cgroup.events of the critical services that exist.
    services: Vec<(String, OwnedFd)>,
    off: Vec<Off>,
    buf: Vec<u8>,
}

impl Eyes {
    pub(super) fn open(scene: &Scene, target: Option<&Target>) -> Eyes {
        let mut eyes = Eyes {
            start: Instant::now(),
            name: target.map_or("the machine".to_owned(), |target| target.path.clone()),
            kills: Vec::new(),
            pressure: None,
            meminfo: None,
            stat: None,
            services: Vec::new(),
            off: Vec::new(),
            buf: Vec::new(),
        };
        // The root cgroup is the machine: it has neither memory.events nor, before 6.1, memory.pressure.
        match target.filter(|target| target.path != "/") {
            Some(target) => eyes.open_target(&scene.cgroups, target),
            None => eyes.open_machine(&scene.host, target),
        }
        let meminfo = machine_file(&scene.host, "/proc/meminfo");
        eyes.meminfo = eyes.or_off("available", "/proc/meminfo", meminfo);
        eyes.open_services(scene);
        eyes
    }

    fn open_target(&mut self, cgroups: &CgroupFs, target: &Target) {
        let dir = target.dir.as_fd();
        let name = |file: &str| format!("{}/{file}", target.path);
        let events = cgroup_file(dir, c"memory.events");
        if let Some(file) = self.or_off("oom_kill", &name("memory.events"), events) {
            let place = (target.path.clone(), KillFile::Target(file));
            self.kills.push(place);
        }
        let pressure = cgroup_file(dir, c"memory.pressure");
        self.pressure = self.or_off("pressure", &name("memory.pressure"), pressure);
        let stat = cgroup_file(dir, c"memory.stat");
        self.stat = self.or_off("refaults", &name("memory.stat"), stat);
        let mut above = target.path.as_str();
        while let Some((parent, _)) = above.rsplit_once('/').filter(|(up, _)| !up.is_empty()) {
            above = parent;
            let files = open_below(cgroups, parent, c"memory.events").and_then(|events| {
                Ok((events, open_below(cgroups, parent, c"memory.events.local")?))
            });
            let subject = format!("{parent}/memory.events.local");
            if let Some((events, local)) = self.or_off("oom_kill", &subject, files) {
                let place = (parent.to_owned(), KillFile::Above(events, local));
                self.kills.push(place);
            }
        }
    }

    fn open_machine(&mut self, host: &Host, target: Option<&Target>) {
        let vmstat = machine_file(host, "/proc/vmstat");
        if let Some(file) = self.or_off("oom_kill", "/proc/vmstat", vmstat) {
            let place = ("the machine".to_owned(), KillFile::Machine(file));
            self.kills.push(place);
        }
        let pressure = machine_file(host, psi::MEMORY);
        self.pressure = self.or_off("pressure", psi::MEMORY, pressure);
        if target.is_some() {
            let vmstat = machine_file(host, "/proc/vmstat");
            self.stat = self.or_off("refaults", "/proc/vmstat", vmstat);
        }
    }

    fn open_services(&mut self, scene: &Scene) {
        let walk = scene.cgroups.walk().unwrap_or_default();
        for entry in walk.cgroups {
            if !scene.protection.is_critical(&entry.path) {
                continue;
            }
            let events = open_below(&scene.cgroups, &entry.path, c"cgroup.events");
            let subject = format!("{}/cgroup.events", entry.path.trim_end_matches('/'));
            if let Some(file) = self.or_off("critical_service", &subject, events) {
                self.services.push((entry.path, file));
            }
        }
    }

    fn or_off<T>(
        &mut self,
        rule: &'static str,
        subject: &str,
        opened: Result<T, Errno>,
    ) -> Option<T> {
        match opened {
            Ok(file) => Some(file),
            Err(error) => {
                self.off.push(Off {
                    rule,
                    subject: subject.to_owned(),
                    why: match error {
                        Errno::NOENT | Errno::NODEV => "is not there".to_owned(),
                        Errno::OPNOTSUPP => "is switched off".to_owned(),
                        error => std::io::Error::from(error).to_string(),
                    },
                });
                None
            }
        }
    }

    pub(super) fn off(&self) -> &[Off] {
        &self.off
    }

    pub(super) fn subject(&self) -> Subject {
        let names = |(name, _): &(String, _)| name.clone();
        Subject {
            name: self.name.clone(),
            kills: self.kills.iter().map(|(name, _)| name.clone()).collect(),
            services: self.services.iter().map(names).collect(),
        }
    }

    pub(super) fn read(&mut self) -> Reading {
        let buf = &mut self.buf;
        let refaults = |text: &[u8]| MemStat::parse(text).refault_total();
        Reading {
            kills: self.kills.iter().map(|(_, file)| file.read(buf)).collect(),
            psi: self.pressure.as_ref().and_then(|file| pressure(file, buf)),
            available: self
                .meminfo
                .as_ref()
                .and_then(|file| Some(key(text(file, buf)?, b"MemAvailable:")? * 1024)),
            refaults: self
                .stat
                .as_ref()
                .and_then(|file| refaults(text(file, buf)?)),
            services: self
                .services
                .iter()
                .map(|(_, file)| service(file, buf))
                .collect(),
            // Last: what is told of a time had happened by then.
            at_us: self.start.elapsed().as_micros() as u64,
        }
    }
}

impl KillFile {
    fn read(&self, buf: &mut Vec<u8>) -> Option<Kills> {
        let (file, local) = match self {
            KillFile::Target(file) | KillFile::Machine(file) => (file, None),
            KillFile::Above(events, local) => (events, Some(local)),
        };
        let total = key(text(file, buf)?, b"oom_kill")?;
        let at_limit = match local {
            None => None,
            Some(local) => Some(key(text(local, buf)?, b"oom")?),
        };
        Some(Kills { total, at_limit })
    }
}

fn pressure(file: &OwnedFd, buf: &mut Vec<u8>) -> Option<Psi> {
    psi::parse_totals(text(file, buf)?)
}

fn service(file: &OwnedFd, buf: &mut Vec<u8>) -> Option<Service> {
    match crate::host::read_at_start(file.as_fd(), buf) {
        Ok(length) => match key(&buf[..length], b"populated")? {
            0 => Some(Service::Empty),
            _ => Some(Service::Runs),
        },
        Err(Errno::NODEV | Errno::NOENT) => Some(Service::Gone),
        Err(_) => None,
    }
}

fn text<'b>(file: &OwnedFd, buf: &'b mut Vec<u8>) -> Option<&'b [u8]> {
    let length = crate::host::read_at_start(file.as_fd(), buf).ok()?;
    Some(&buf[..length])
}

/// The number behind a key of a file of lines `KEY NUMBER`, with or without a unit.
fn key(text: &[u8], key: &[u8]) -> Option<u64> {
    let line = text
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(b" "))?;
    let number = line.trim_ascii_start();
    let end = number.iter().position(|byte| *byte == b' ');
    figure(&number[..end.unwrap_or(number.len())])
}

fn machine_file(host: &Host, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(host.path(Path::new(path)), flags, Mode::empty())?;
    readable(file)
}

fn cgroup_file(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    readable(file)
}

fn open_below(cgroups: &CgroupFs, path: &str, name: &CStr) -> Result<OwnedFd, Errno> {
    let root = cgroups.dir().map_err(|_| Errno::NOENT)?;
    let below = match path.trim_matches('/') {
        "" => ".",
        below => below,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(root, below, flags, Mode::empty())?;
    cgroup_file(dir.as_fd(), name)
}

/// A pressure file opens and fails at the first read where PSI is off.
fn readable(file: OwnedFd) -> Result<OwnedFd, Errno> {
    let mut byte = [0];
    rustix::io::pread(&file, &mut byte, 0).map(|_| file)
}
