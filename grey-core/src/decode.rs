//! Decodes the records of the kernel side's rings. Takes any bytes; what does not hold is rejected, never guessed at.

use std::mem::{offset_of, size_of};

use grey_common::{
    COMM_LEN, CgroupRecord, GrowthRecord, Header, OomRecord, PATH_LEN, ProcessRecord, RecordKind,
    StallRecord, UNKNOWN, constraint, stall,
};

use crate::event::{Constraint, StallKind};

#[cfg(test)]
mod tests;

/// One record, in the form the rest of the program uses. Unknown figures are `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The OOM killer chose a victim.
    Oom(Oom),
    /// A reclaim run was longer than the threshold.
    Stall(Stall),
    /// A cgroup was made.
    CgroupMade(CgroupChange),
    /// A cgroup was removed.
    CgroupRemoved(CgroupChange),
    /// A cgroup was renamed; the path is the new one.
    CgroupRenamed(CgroupChange),
    /// A process executed a new program.
    ProcessExec(Process),
    /// A process ended.
    ProcessExit(Process),
    /// A process grew by the threshold.
    ProcessGrowth(Growth),
    /// The processes of a cgroup grew by the threshold together.
    CgroupGrowth(Growth),
}

impl Record {
    /// What it is, as the loss counters number it.
    #[must_use]
    pub fn kind(&self) -> RecordKind {
        match self {
            Record::Oom(_) => RecordKind::Oom,
            Record::Stall(_) => RecordKind::Stall,
            Record::CgroupMade(_) => RecordKind::CgroupMade,
            Record::CgroupRemoved(_) => RecordKind::CgroupRemoved,
            Record::CgroupRenamed(_) => RecordKind::CgroupRenamed,
            Record::ProcessExec(_) => RecordKind::ProcessExec,
            Record::ProcessExit(_) => RecordKind::ProcessExit,
            Record::ProcessGrowth(_) => RecordKind::ProcessGrowth,
            Record::CgroupGrowth(_) => RecordKind::CgroupGrowth,
        }
    }

    /// When the kernel side wrote it, CLOCK_MONOTONIC nanoseconds.
    #[must_use]
    pub fn ktime_ns(&self) -> u64 {
        match self {
            Record::Oom(oom) => oom.ktime_ns,
            Record::Stall(stall) => stall.ktime_ns,
            Record::CgroupMade(change)
            | Record::CgroupRemoved(change)
            | Record::CgroupRenamed(change) => change.ktime_ns,
            Record::ProcessExec(process) | Record::ProcessExit(process) => process.ktime_ns,
            Record::ProcessGrowth(growth) | Record::CgroupGrowth(growth) => growth.ktime_ns,
        }
    }

    /// The cgroup it is about.
    #[must_use]
    pub fn cgroup(&self) -> Option<u64> {
        match self {
            Record::Oom(oom) => oom.cgroup,
            Record::Stall(stall) => stall.cgroup,
            Record::CgroupMade(change)
            | Record::CgroupRemoved(change)
            | Record::CgroupRenamed(change) => Some(change.id),
            Record::ProcessExec(process) | Record::ProcessExit(process) => process.cgroup,
            Record::ProcessGrowth(growth) | Record::CgroupGrowth(growth) => growth.cgroup,
        }
    }
}

/// One OOM victim. Figures in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oom {
    /// CLOCK_MONOTONIC nanoseconds.
    pub ktime_ns: u64,
    /// The victim's cgroup.
    pub cgroup: Option<u64>,
    /// Cgroup whose limit was hit; `None` when global or unknown.
    pub limit_cgroup: Option<u64>,
    /// Cgroup of the task that ran out.
    pub trigger_cgroup: Option<u64>,
    /// Thread group id of the victim.
    pub pid: u32,
    /// Its command name; empty when unknown.
    pub comm: String,
    /// Anonymous memory.
    pub anon: Option<u64>,
    /// File memory.
    pub file: Option<u64>,
    /// Shared memory.
    pub shmem: Option<u64>,
    /// Page tables.
    pub pgtables: Option<u64>,
    /// Total virtual size.
    pub total_vm: Option<u64>,
    /// `oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// Thread group id of the task that ran out.
    pub trigger_pid: Option<u32>,
    /// Its command name; empty when unknown.
    pub trigger_comm: String,
    /// What ran out.
    pub constraint: Option<Constraint>,
}

/// A long reclaim run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// CLOCK_MONOTONIC nanoseconds at its end.
    pub ktime_ns: u64,
    /// The cgroup that waited.
    pub cgroup: Option<u64>,
    /// The cgroup reclaimed from; `None` when global or unknown.
    pub target: Option<u64>,
    /// How long, nanoseconds.
    pub ns: u64,
    /// Pages freed.
    pub pages: u64,
    /// Thread group id of the task that waited.
    pub pid: Option<u32>,
    /// Its command name; empty when unknown.
    pub comm: String,
    /// What it was spent in.
    pub kind: StallKind,
    /// Whether the run was of our own making.
    pub own: bool,
}

/// A cgroup came, went or was renamed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupChange {
    /// CLOCK_MONOTONIC nanoseconds.
    pub ktime_ns: u64,
    /// The cgroup.
    pub id: u64,
    /// Its path in its hierarchy, control characters and all, as the kernel has it. Use it only if not `truncated`.
    pub path: String,
    /// The path is cut, missing or not UTF-8: resolve the cgroup by its id.
    pub truncated: bool,
}

/// A process executed a new program or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// CLOCK_MONOTONIC nanoseconds.
    pub ktime_ns: u64,
    /// The process's cgroup.
    pub cgroup: Option<u64>,
    /// Thread group id.
    pub pid: u32,
    /// Command name; empty when unknown.
    pub comm: String,
}

/// A process or a cgroup grew by the threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// CLOCK_MONOTONIC nanoseconds.
    pub ktime_ns: u64,
    /// The cgroup it happened in.
    pub cgroup: Option<u64>,
    /// Thread group id; of a cgroup's growth the process that crossed the line.
    pub pid: u32,
    /// Its command name; empty when unknown.
    pub comm: String,
    /// Bytes grown since the last report, or since the lowest point after it.
    pub bytes: u64,
    /// Nanoseconds that took.
    pub since_ns: u64,
    /// Resident bytes of the process now.
    pub rss: Option<u64>,
    /// Total virtual size of the process now, bytes.
    pub total_vm: Option<u64>,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// Not even a header.
    #[error("record of {len} bytes is shorter than its {need}-byte header")]
    TooShort {
        /// Bytes there were.
        len: usize,
        /// Bytes a header takes.
        need: usize,
    },
    /// No record kind has this number.
    #[error("unknown record kind {0}")]
    UnknownKind(u32),
    /// Header, buffer and kind do not agree on the size.
    #[error("{kind} record: {len} bytes arrived, its header says {said}, its kind takes {need}", kind = kind.name())]
    SizeMismatch {
        /// The record's kind.
        kind: RecordKind,
        /// Bytes that arrived.
        len: usize,
        /// Bytes the header says.
        said: u32,
        /// Bytes a record of this kind takes.
        need: usize,
    },
    /// A path longer than its room.
    #[error("{kind} record: path length {len} is over {PATH_LEN}", kind = kind.name())]
    PathLength {
        /// The record's kind.
        kind: RecordKind,
        /// The length it says.
        len: u32,
    },
    /// A path that does not begin at the hierarchy's root.
    #[error("{kind} record: path does not begin with a slash", kind = kind.name())]
    RelativePath {
        /// The record's kind.
        kind: RecordKind,
    },
    /// A lifecycle record of no cgroup.
    #[error("{kind} record: cgroup id is 0", kind = kind.name())]
    NoCgroup {
        /// The record's kind.
        kind: RecordKind,
    },
    /// A stall kind that does not exist.
    #[error("stall record: unknown stall kind {0}")]
    StallKind(u32),
}

/// Decodes one ring record. The bytes may have any length and content.
///
/// # Errors
/// [`Reject`] says what does not hold; the caller counts it in `health.rejected`.
pub fn decode(bytes: &[u8]) -> Result<Record, Reject> {
    let fields = Fields(bytes);
    let need = size_of::<Header>();
    if bytes.len() < need {
        return Err(Reject::TooShort {
            len: bytes.len(),
            need,
        });
    }
    let raw = fields.u32(offset_of!(Header, kind));
    let kind = RecordKind::from_raw(raw).ok_or(Reject::UnknownKind(raw))?;
    let need = size_of_kind(kind);
    let said = fields.u32(offset_of!(Header, size));
    if bytes.len() != need || usize::try_from(said) != Ok(need) {
        return Err(Reject::SizeMismatch {
            kind,
            len: bytes.len(),
            said,
            need,
        });
    }
    Ok(match kind {
        RecordKind::Oom => Record::Oom(oom(&fields)),
        RecordKind::Stall => Record::Stall(stalled(&fields)?),
        RecordKind::CgroupMade => Record::CgroupMade(change(kind, &fields)?),
        RecordKind::CgroupRemoved => Record::CgroupRemoved(change(kind, &fields)?),
        RecordKind::CgroupRenamed => Record::CgroupRenamed(change(kind, &fields)?),
        RecordKind::ProcessExec => Record::ProcessExec(process(&fields)),
        RecordKind::ProcessExit => Record::ProcessExit(process(&fields)),
        RecordKind::ProcessGrowth => Record::ProcessGrowth(growth(&fields)),
        RecordKind::CgroupGrowth => Record::CgroupGrowth(growth(&fields)),
    })
}

/// A command name as a person may see it: up to the first NUL, lossy UTF-8, control characters escaped, because
/// a process chooses its own name and must not steer the terminal that shows it.
#[must_use]
pub fn comm(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let mut out = String::new();
    for c in String::from_utf8_lossy(&bytes[..end]).chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

fn size_of_kind(kind: RecordKind) -> usize {
    match kind {
        RecordKind::Oom => size_of::<OomRecord>(),
        RecordKind::Stall => size_of::<StallRecord>(),
        RecordKind::CgroupMade | RecordKind::CgroupRemoved | RecordKind::CgroupRenamed => {
            size_of::<CgroupRecord>()
        }
        RecordKind::ProcessExec | RecordKind::ProcessExit => size_of::<ProcessRecord>(),
        RecordKind::ProcessGrowth | RecordKind::CgroupGrowth => size_of::<GrowthRecord>(),
    }
}

/// Reads fields by offset. [`decode`] has compared the length with the kind's size first, so every offset is inside;
/// outside it would read zeros rather than panic.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, offset: usize) -> [u8; N] {
        self.0
            .get(offset..)
            .and_then(|rest| rest.first_chunk::<N>())
            .copied()
            .unwrap_or([0; N])
    }

    // The kernel side runs on this machine, so its byte order is ours.
    fn u32(&self, offset: usize) -> u32 {
        u32::from_ne_bytes(self.array(offset))
    }

    fn u64(&self, offset: usize) -> u64 {
        u64::from_ne_bytes(self.array(offset))
    }

    fn figure(&self, offset: usize) -> Option<u64> {
        Some(self.u64(offset)).filter(|value| *value != UNKNOWN)
    }

    fn id(&self, offset: usize) -> Option<u64> {
        Some(self.u64(offset)).filter(|id| *id != 0 && *id != UNKNOWN)
    }

    fn pid(&self, offset: usize) -> Option<u32> {
        Some(self.u32(offset)).filter(|pid| *pid != 0)
    }

    fn comm(&self, offset: usize) -> String {
        comm(&self.array::<COMM_LEN>(offset))
    }

    fn ktime(&self) -> u64 {
        self.u64(offset_of!(Header, ktime_ns))
    }

    fn cgroup(&self) -> Option<u64> {
        self.id(offset_of!(Header, cgroup))
    }
}

fn oom(fields: &Fields<'_>) -> Oom {
    let adj = i32::from_ne_bytes(fields.array(offset_of!(OomRecord, oom_score_adj)));
    Oom {
        ktime_ns: fields.ktime(),
        cgroup: fields.cgroup(),
        limit_cgroup: fields.id(offset_of!(OomRecord, limit_cgroup)),
        trigger_cgroup: fields.id(offset_of!(OomRecord, trigger_cgroup)),
        pid: fields.u32(offset_of!(OomRecord, pid)),
        comm: fields.comm(offset_of!(OomRecord, comm)),
        anon: fields.figure(offset_of!(OomRecord, anon)),
        file: fields.figure(offset_of!(OomRecord, file)),
        shmem: fields.figure(offset_of!(OomRecord, shmem)),
        pgtables: fields.figure(offset_of!(OomRecord, pgtables)),
        total_vm: fields.figure(offset_of!(OomRecord, total_vm)),
        oom_score_adj: Some(adj).filter(|adj| *adj != i32::MIN),
        trigger_pid: fields.pid(offset_of!(OomRecord, trigger_pid)),
        trigger_comm: fields.comm(offset_of!(OomRecord, trigger_comm)),
        constraint: match fields.u32(offset_of!(OomRecord, constraint)) {
            constraint::NONE => Some(Constraint::Global),
            constraint::CPUSET => Some(Constraint::Cpuset),
            constraint::MEMORY_POLICY => Some(Constraint::Mempolicy),
            constraint::MEMCG => Some(Constraint::Memcg),
            // `UNKNOWN`, or a number that a newer kernel gave a meaning we do not know.
            _ => None,
        },
    }
}

fn stalled(fields: &Fields<'_>) -> Result<Stall, Reject> {
    let kind = match fields.u32(offset_of!(StallRecord, kind)) {
        stall::DIRECT => StallKind::Direct,
        stall::MEMCG => StallKind::Memcg,
        stall::KSWAPD => StallKind::Kswapd,
        other => return Err(Reject::StallKind(other)),
    };
    Ok(Stall {
        ktime_ns: fields.ktime(),
        cgroup: fields.cgroup(),
        target: fields.id(offset_of!(StallRecord, target)),
        ns: fields.u64(offset_of!(StallRecord, ns)),
        pages: fields.u64(offset_of!(StallRecord, pages)),
        pid: fields.pid(offset_of!(StallRecord, pid)),
        comm: fields.comm(offset_of!(StallRecord, comm)),
        kind,
        own: fields.u32(offset_of!(StallRecord, own)) != 0,
    })
}

fn change(kind: RecordKind, fields: &Fields<'_>) -> Result<CgroupChange, Reject> {
    let id = fields.cgroup().ok_or(Reject::NoCgroup { kind })?;
    let len = fields.u32(offset_of!(CgroupRecord, path_len));
    let used = usize::try_from(len)
        .ok()
        .filter(|used| *used <= PATH_LEN)
        .ok_or(Reject::PathLength { kind, len })?;
    let room = fields.array::<PATH_LEN>(offset_of!(CgroupRecord, path));
    let bytes = room[..used].split(|b| *b == 0).next().unwrap_or_default();
    if bytes.first().is_some_and(|b| *b != b'/') {
        return Err(Reject::RelativePath { kind });
    }
    let (path, exact) = match std::str::from_utf8(bytes) {
        Ok(path) => (path.to_owned(), true),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), false),
    };
    Ok(CgroupChange {
        ktime_ns: fields.ktime(),
        id,
        // bpf_probe_read_kernel_str ends with a NUL: one byte less than the room is already as long as it gets.
        truncated: !exact || path.is_empty() || used >= PATH_LEN - 1,
        path,
    })
}

fn process(fields: &Fields<'_>) -> Process {
    Process {
        ktime_ns: fields.ktime(),
        cgroup: fields.cgroup(),
        pid: fields.u32(offset_of!(ProcessRecord, pid)),
        comm: fields.comm(offset_of!(ProcessRecord, comm)),
    }
}

fn growth(fields: &Fields<'_>) -> Growth {
    Growth {
        ktime_ns: fields.ktime(),
        cgroup: fields.cgroup(),
        pid: fields.u32(offset_of!(GrowthRecord, pid)),
        comm: fields.comm(offset_of!(GrowthRecord, comm)),
        bytes: fields.u64(offset_of!(GrowthRecord, bytes)),
        since_ns: fields.u64(offset_of!(GrowthRecord, since_ns)),
        rss: fields.figure(offset_of!(GrowthRecord, rss)),
        total_vm: fields.figure(offset_of!(GrowthRecord, total_vm)),
    }
}
