//! Decodes the records of the kernel side's rings. Takes any bytes; what does not hold is rejected, never guessed at.

use std::mem::{offset_of, size_of};

use grey_common::{
    COMM_LEN, CgroupRecord, GrowthRecord, Header, OomRecord, PATH_LEN, ProcessRecord, RecordKind,
    StallRecord, UNKNOWN, constraint, stall,
};

use crate::event::{Constraint, StallKind};

mod record;

pub use record::{CgroupChange, Growth, Oom, Process, Record, Stall};

#[cfg(test)]
mod tests;

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

/// A command name as a person may see it: up to the first NUL, lossy UTF-8, control characters escaped.
#[must_use]
pub fn comm(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    printable(&String::from_utf8_lossy(&bytes[..end]))
}

/// Text with its control characters escaped: processes and cgroups choose their own names, and must not steer the
/// terminal that shows them.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
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
