//! The journal's records and their form on disk: one line each, `g1 CRC32 JSON`, so that a torn or rotten line is seen
//! and costs nothing but itself.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::knob::{Knob, Value};

/// What a line begins with: the format's version.
pub const MAGIC: &str = "g1";
/// A line is never longer: paths are at most 4096 bytes, and JSON may take six for one of them.
pub const MAX_LINE: usize = 64 << 10;

/// One fact of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "r", rename_all = "snake_case")]
pub enum Record {
    /// An action begins. Nothing is changed before this is on disk.
    Begin {
        /// Its id, never given twice in one journal.
        id: u64,
        /// Wall-clock milliseconds since 1970.
        at: u64,
        /// Boot id of the machine.
        boot: String,
        /// Who acts.
        pid: u32,
        /// `reclaim`, `limit`, `ksm` …
        kind: String,
        /// Cgroup path, `pid 123`, or `machine`.
        target: String,
        /// Why, in words.
        reason: String,
    },
    /// A knob is about to change.
    Intent {
        /// The action.
        id: u64,
        /// Counts the action's changes from 0.
        step: u32,
        /// Which file.
        knob: Knob,
        /// What it holds now.
        old: Value,
        /// What it will hold.
        new: Value,
        /// The kernel itself changes this file along with the action's next step, and leaves this value in it when that
        /// one is undone: then too `old` is put back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        leaves: Option<Value>,
    },
    /// The action is complete and its changes are meant to stay until somebody asks for their undoing.
    Kept {
        /// The action.
        id: u64,
    },
    /// The action is over, and no change of it is in force.
    Ended {
        /// The action.
        id: u64,
    },
    /// One change is no longer ours to undo.
    Closed {
        /// The action.
        id: u64,
        /// Its step.
        step: u32,
        /// Why.
        how: Close,
    },
    /// Something bad followed an action of this kind on this target. Carries the whole history of the pair.
    Harm(Harm),
    /// When an action of this kind was last taken, kept when older records are dropped.
    Last {
        /// The action's kind.
        kind: String,
        /// Its target.
        target: String,
        /// Wall-clock milliseconds.
        at: u64,
    },
    /// Ids below this were given already; kept when older records are dropped.
    Next {
        /// The next id.
        id: u64,
    },
}

/// How often harm followed an action, and when it last did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Harm {
    /// The action's kind.
    pub kind: String,
    /// Its target.
    pub target: String,
    /// Wall-clock milliseconds of the last one.
    pub at: u64,
    /// How often in a row.
    pub count: u32,
    /// The last one, in words.
    pub why: String,
}

/// Why a change is no longer open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Close {
    /// The old value was put back.
    Restored,
    /// The file held the old value already.
    Back,
    /// The write never happened.
    Never,
    /// Somebody else wrote to it since: theirs stays.
    Foreign,
    /// A later action of ours lies over it and now restores what this one would have.
    Covered,
    /// The cgroup is gone, or another one has its path.
    Gone,
    /// From before the last boot.
    OtherBoot,
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Close::Restored => "restored",
            Close::Back => "holds the old value already",
            Close::Never => "was never written",
            Close::Foreign => "was written by somebody else since",
            Close::Covered => "is under a later action",
            Close::Gone => "is gone with its cgroup",
            Close::OtherBoot => "is from before the last boot",
        })
    }
}

/// What of a journal could not be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Lines that are no records: torn, rotten, or of a newer version.
    pub lines: u64,
    /// Whether the last line has no end, so that the next record needs a line of its own.
    pub torn: bool,
}

/// One record as a line.
#[must_use]
pub fn encode(record: &Record) -> Vec<u8> {
    // Strings and integers only: neither can fail to serialise.
    let json = serde_json::to_string(record).unwrap_or_default();
    let mut line = Vec::with_capacity(json.len() + 13);
    line.extend_from_slice(format!("{MAGIC} {:08x} ", crc32fast::hash(json.as_bytes())).as_bytes());
    line.extend_from_slice(json.as_bytes());
    line.push(b'\n');
    line
}

/// The records of a journal in their order, and what could not be read of it. Never fails: what is damaged is left out.
#[must_use]
pub fn decode_all(bytes: &[u8]) -> (Vec<Record>, Damage) {
    let mut records = Vec::new();
    let mut damage = Damage {
        torn: bytes.last().is_some_and(|byte| *byte != b'\n'),
        ..Damage::default()
    };
    for line in bytes.split(|byte| *byte == b'\n') {
        if line.is_empty() {
            continue;
        }
        match decode(line) {
            Some(record) => records.push(record),
            None => damage.lines += 1,
        }
    }
    (records, damage)
}

/// Whether a line is a whole record that only a later version can have written: this version leaves it alone.
#[must_use]
pub fn from_newer(line: &[u8]) -> bool {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let (Some(magic), Some(sum), Some(json)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let version = magic.strip_prefix(b"g").and_then(|digits| {
        let digits = std::str::from_utf8(digits).ok()?;
        digits.parse::<u32>().ok()
    });
    let sum = std::str::from_utf8(sum)
        .ok()
        .and_then(|sum| u32::from_str_radix(sum, 16).ok());
    // Another form of line, or another kind of record.
    let unknown = |version| version > 1 || version == 1 && decode(line).is_none();
    version.is_some_and(unknown) && sum == Some(crc32fast::hash(json))
}

fn decode(line: &[u8]) -> Option<Record> {
    let rest = line.strip_prefix(MAGIC.as_bytes())?.strip_prefix(b" ")?;
    let (sum, json) = (rest.get(..8)?, rest.get(8..)?.strip_prefix(b" ")?);
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    (sum == crc32fast::hash(json)).then_some(())?;
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::act::knob::KnobFile;

    fn records() -> Vec<Record> {
        let knob = Knob::cgroup("/a b/ü", 42, KnobFile::MemoryHigh);
        vec![
            Record::Begin {
                id: 1,
                at: 5,
                boot: "b".to_owned(),
                pid: 9,
                kind: "limit".to_owned(),
                target: "/a b/ü".to_owned(),
                reason: "by hand\nwith a line break".to_owned(),
            },
            Record::Intent {
                id: 1,
                step: 0,
                knob,
                old: Value::limit(None, 4096),
                new: Value::number(4096),
                leaves: None,
            },
            Record::Intent {
                id: 1,
                step: 1,
                knob: Knob::machine(KnobFile::KsmRun),
                old: Value::number(0),
                new: Value::number(1),
                leaves: Value::new("100"),
            },
            Record::Kept { id: 1 },
            Record::Closed {
                id: 1,
                step: 0,
                how: Close::Foreign,
            },
        ]
    }

    fn bytes() -> Vec<u8> {
        records().iter().flat_map(encode).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(decode_all(&bytes()), (records(), Damage::default()));
    }

    #[test]
    fn cut_at_any_byte_only_the_last_record_is_lost() {
        let bytes = bytes();
        for at in 0..bytes.len() {
            let whole = bytes[..at].iter().filter(|byte| **byte == b'\n').count();
            let (read, damage) = decode_all(&bytes[..at]);
            // A record that lacks nothing but its line break is whole.
            let complete = usize::from(bytes[at] == b'\n' && at > 0);
            assert_eq!(read, records()[..whole + complete], "cut at {at}");
            assert_eq!(damage.torn, at > 0 && bytes[at - 1] != b'\n');
        }
    }

    #[test]
    fn a_changed_byte_costs_its_record_and_no_other() {
        let good = bytes();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x11;
            let (read, damage) = decode_all(&bad);
            assert!(damage.lines >= 1, "byte {at}");
            assert!(
                read.len() + 2 >= records().len(),
                "byte {at}: only {} are left",
                read.len()
            );
            assert!(read.iter().all(|record| records().contains(record)));
        }
    }
}
