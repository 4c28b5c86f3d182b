//! OOM kills as the kernel's log tells of them: victim, whose limit, what was using the memory. Reading /dev/kmsg
//! takes nothing away from other readers.

use rustix::fs::{Mode as FileMode, OFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::{Host, HostError, figure};

#[cfg(test)]
mod tests;

/// One kill.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OomRecord {
    /// Microseconds since boot.
    pub boot_us: u64,
    /// The process killed.
    pub pid: u32,
    /// Its command name.
    pub comm: String,
    /// Why it was chosen.
    pub constraint: OomConstraint,
    /// The cgroup whose limit was hit; absent where the whole machine ran out, or where the log does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_cgroup: Option<String>,
    /// The victim's cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub victim_cgroup: Option<String>,
    /// Command name of the task whose allocation failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Order of the allocation that failed: 2^order pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<u32>,
    /// The victim's anonymous resident bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon: Option<u64>,
    /// Its resident file bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<u64>,
    /// Its resident shared bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shmem: Option<u64>,
    /// Its oom_score_adj.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Use of the cgroup whose limit was hit, at that moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<u64>,
    /// The limit that was hit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Anonymous bytes of that cgroup at that moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_anon: Option<u64>,
    /// Page cache of that cgroup at that moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_file: Option<u64>,
    /// Whether the whole cgroup was killed by memory.oom.group.
    pub group: bool,
    /// Processes that could have been chosen, the largest first (the log lists them with their resident size).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<OomCandidate>,
}

/// A process of the list the kernel prints at a kill.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OomCandidate {
    /// Thread group id.
    pub pid: u32,
    /// Command name.
    pub comm: String,
    /// Resident bytes.
    pub rss: u64,
    /// Swapped-out bytes.
    pub swap: u64,
}

/// What ran out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OomConstraint {
    /// A cgroup's limit.
    Memcg,
    /// The machine's memory.
    Global,
    /// The memory of some NUMA nodes: cpuset or mempolicy.
    Nodes,
    /// The log does not say.
    #[default]
    Unknown,
}

/// How the line begins that tells of a whole group's end.
const GROUP: &str = "Tasks in ";
/// How many candidates are kept.
const CANDIDATES: usize = 5;
/// The kernel's buffer is 128 KiB to a few MiB; more than this is not it.
const MOST: usize = 64 << 20;

/// The kernel's log, oldest first: (microseconds since boot, message) of each record.
///
/// # Errors
/// Above all permission: `CAP_SYSLOG` where kernel.dmesg_restrict is 1, and 0600 of /dev/kmsg.
pub fn kernel_log(host: &Host) -> Result<Option<Vec<(u64, String)>>, HostError> {
    const PATH: &str = "/dev/kmsg";
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match rustix::fs::open(host.path(PATH), flags, FileMode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NODEV | Errno::NXIO) => return Ok(None),
        Err(error) => return Err(HostError::file("open", PATH, error)),
    };
    let mut text = Vec::new();
    let mut record = [0_u8; 16 << 10];
    while text.len() < MOST {
        match rustix::io::read(&fd, &mut record) {
            Ok(0) | Err(Errno::AGAIN) => break,
            Ok(length) => text.extend_from_slice(&record[..length]),
            // A record was overwritten under us: the next read goes on with the oldest one there is.
            Err(Errno::PIPE | Errno::INTR) => {}
            Err(error) => return Err(HostError::file("read", PATH, error)),
        }
    }
    Ok(Some(records(&String::from_utf8_lossy(&text))))
}

/// `prio,seq,usec,flags;message`, and lines with a blank first that belong to the one before
/// (Documentation/ABI/testing/dev-kmsg).
fn records(text: &str) -> Vec<(u64, String)> {
    text.lines()
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| {
            let (head, message) = line.split_once(';')?;
            let at = figure(head.split(',').nth(2)?.as_bytes())?;
            Some((at, message.replace("\\x0a", "\n")))
        })
        .collect()
}

/// The kills among these records, oldest first. What the kernel left out (it limits the rate of its reports) is
/// absent.
#[must_use]
pub fn oom_records(log: &[(u64, String)]) -> Vec<OomRecord> {
    let mut found: Vec<OomRecord> = Vec::new();
    let mut report = Report::default();
    for (at, message) in log {
        for line in message.lines() {
            if let Some(record) = report.line(*at, line) {
                // The one that was chosen is killed once more with its group.
                let again = report.record.group && found.iter().any(|told| told.pid == record.pid);
                if !again {
                    found.push(record);
                }
            } else if report.record.group && line.starts_with(GROUP) {
                // It comes after the line of the one that was chosen.
                let chosen = report.chosen;
                if let Some(first) = found.last_mut().filter(|told| chosen == Some(told.pid)) {
                    first.group = true;
                }
            }
        }
    }
    found
}

/// A report as far as it has been read.
#[derive(Default)]
struct Report {
    record: OomRecord,
    /// Names of the columns of the list of tasks, while it lasts.
    columns: Vec<String>,
    /// The lines of a memory cgroup's statistics follow.
    in_stats: bool,
    /// Victim that the summary named.
    chosen: Option<u32>,
}

impl Report {
    fn line(&mut self, at: u64, line: &str) -> Option<OomRecord> {
        if let Some((trigger, rest)) = line.split_once(" invoked oom-killer: ") {
            *self = Report::default();
            self.record.trigger = Some(trigger.to_owned());
            self.record.order = value(rest, "order=").and_then(|order| order.parse().ok());
        } else if let Some(rest) = line.strip_prefix("memory: usage ") {
            self.record.usage = kib(rest);
            self.record.limit = rest.split_once("limit ").and_then(|(_, rest)| kib(rest));
        } else if line.starts_with("Memory cgroup stats for ") {
            self.in_stats = true;
            // Before 6.8 the first line of the statistics stands on this one in some kernels.
            if let Some((_, rest)) = line.rsplit_once(':') {
                self.stat(rest.trim());
            }
        } else if line.starts_with("Tasks state ") {
            self.in_stats = false;
        } else if line.trim_start().starts_with("[  pid  ]") {
            self.columns = line
                .trim_start()
                .trim_start_matches("[  pid  ]")
                .split_whitespace()
                .map(str::to_owned)
                .collect();
        } else if let Some(rest) = line.strip_prefix("oom-kill:") {
            self.columns.clear();
            self.in_stats = false;
            self.summary(rest);
        } else if let Some(at_word) = killed(line) {
            return self.killed(at, &line[..at_word], &line[at_word..]);
        } else if line.starts_with(GROUP) && line.contains("memory.oom.group") {
            self.record.group = true;
        } else if !self.columns.is_empty() {
            self.candidate(line);
        } else if self.in_stats {
            self.stat(line);
        }
        None
    }

    fn stat(&mut self, line: &str) {
        let Some((key, bytes)) = line.split_once(' ') else {
            return;
        };
        let bytes = figure(bytes.trim().as_bytes());
        match key {
            "anon" => self.record.cgroup_anon = bytes,
            "file" => self.record.cgroup_file = bytes,
            _ => {}
        }
    }

    /// `constraint=CONSTRAINT_MEMCG,…,oom_memcg=/a,task_memcg=/a/b,task=cc,pid=7,uid=0`; a path may hold commas.
    fn summary(&mut self, rest: &str) {
        let record = &mut self.record;
        record.constraint = match value(rest, "constraint=") {
            Some("CONSTRAINT_MEMCG") => OomConstraint::Memcg,
            Some("CONSTRAINT_NONE") => OomConstraint::Global,
            Some(_) => OomConstraint::Nodes,
            None => OomConstraint::Unknown,
        };
        let between = |from: &str, to: &str| {
            let (_, rest) = rest.split_once(from)?;
            Some(rest.rsplit_once(to)?.0.to_owned())
        };
        record.limit_cgroup = between(",oom_memcg=", ",task_memcg=");
        record.victim_cgroup = between(",task_memcg=", ",task=");
        self.chosen = rest
            .rsplit_once(",pid=")
            .and_then(|(_, rest)| rest.split(',').next()?.parse().ok());
    }

    /// `[    123]     0   123    12455    10615   126976        0             0 name`
    fn candidate(&mut self, line: &str) {
        let parsed = (|| {
            let rest = line.trim_start().strip_prefix('[')?;
            let (pid, rest) = rest.split_once(']')?;
            let words: Vec<&str> = rest.split_whitespace().collect();
            let column = |name: &str| {
                let at = self.columns.iter().position(|column| column == name)?;
                words.get(at).copied()
            };
            let pages = |name: &str| {
                Some(figure(column(name)?.as_bytes())? * rustix::param::page_size() as u64)
            };
            let name_at = self.columns.iter().position(|column| column == "name")?;
            Some(OomCandidate {
                pid: pid.trim().parse().ok()?,
                comm: words.get(name_at..)?.join(" "),
                rss: pages("rss")?,
                swap: pages("swapents").unwrap_or(0),
            })
        })();
        match parsed {
            Some(candidate) => self.record.candidates.push(candidate),
            None => self.columns.clear(),
        }
    }

    /// `Killed process 302 (api) total-vm:49820kB, anon-rss:40680kB, …`
    fn killed(&mut self, at: u64, before: &str, rest: &str) -> Option<OomRecord> {
        let (pid, rest) = rest.split_once(' ')?;
        let pid = pid.parse().ok()?;
        let figures_at = rest.rfind(") total-vm:").or_else(|| rest.rfind("), "))?;
        let comm = rest.get(..figures_at)?.strip_prefix('(')?.to_owned();
        let figures = &rest[figures_at..];
        let size = |key: &str| kib(figures.split_once(key)?.1);
        // A report is about the victim it chose; a kill without one (rate limit, group) knows only itself.
        let own = self.chosen == Some(pid);
        let group = before.starts_with("Memory cgroup out of memory") && self.record.group;
        let mut record = if own || group {
            self.record.clone()
        } else {
            OomRecord::default()
        };
        if record.constraint == OomConstraint::Unknown {
            record.constraint = if before.starts_with("Memory cgroup out of memory") {
                OomConstraint::Memcg
            } else if before.starts_with("Out of memory (") {
                OomConstraint::Nodes
            } else if before.starts_with("Out of memory") {
                OomConstraint::Global
            } else {
                OomConstraint::Unknown
            };
        }
        record.boot_us = at;
        record.pid = pid;
        record.comm = comm;
        record.anon = size("anon-rss:");
        record.file = size("file-rss:");
        record.shmem = size("shmem-rss:");
        record.oom_score_adj = figures
            .split_once("oom_score_adj:")
            .and_then(|(_, rest)| rest.split([' ', ',']).next()?.parse().ok());
        record
            .candidates
            .sort_by_key(|candidate| std::cmp::Reverse(candidate.rss + candidate.swap));
        record.candidates.truncate(CANDIDATES);
        Some(record)
    }
}

/// Where the victim's pid stands.
fn killed(line: &str) -> Option<usize> {
    const WORDS: &str = "Killed process ";
    let at = line.find(WORDS)?;
    let head = &line[..at];
    (head.starts_with("Memory cgroup out of memory")
        || head.starts_with("Out of memory")
        || head.is_empty())
    .then_some(at + WORDS.len())
}

/// The value after `key`, up to the next comma.
fn value<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    text.split_once(key)?.1.split(',').next()
}

/// The figure at the beginning, in kB.
fn kib(text: &str) -> Option<u64> {
    figure(text.split_once("kB")?.0.trim().as_bytes())?.checked_mul(1024)
}
