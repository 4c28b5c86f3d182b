//! One line of a recording to what the detector needs of it, in place: unknown fields are checked and skipped.

use std::fmt::Write as _;

use crate::detect::Point;
use crate::event::Limit;
use crate::time::Timestamp;

use super::json::{Cursor, Fault, Text};
use super::time;

/// Kinds of line that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The state of a cgroup.
    Sample,
    /// The state of a process.
    Process,
    /// Growth by the threshold.
    Growth,
    /// An OOM kill.
    Oom,
    /// What the detector has no use for, a verdict among others: it is reached again.
    Other,
}

/// The parts of a line, borrowed from it.
#[derive(Clone, Debug)]
pub(super) struct Line<'a> {
    pub(super) kind: Kind,
    pub(super) ts: Timestamp,
    pub(super) seq: u64,
    pub(super) host: Option<Text<'a>>,
    pub(super) boot_id: Option<Text<'a>>,
    /// The object as it stands.
    pub(super) cgroup: &'a str,
    /// The figures of a sample; `id` is the cgroup object's and not set here.
    pub(super) point: Point,
    /// The object of a `process`, `growth` or `oom` as it stands.
    pub(super) body: &'a str,
}

/// Why a line cannot be used, in words.
pub(super) type Why = String;

/// Reads a line that is UTF-8 and not blank.
pub(super) fn parse(text: &str) -> Result<Line<'_>, Why> {
    Parts::read(text)
        .map_err(|fault| {
            let mut why = format!("not JSON: {}", fault.why);
            let _ = write!(why, " at column {}", fault.at + 1);
            why
        })?
        .line()
}

#[derive(Default)]
struct Parts<'a> {
    kind: Option<Text<'a>>,
    /// There is a `type`, of whatever kind.
    typed: bool,
    ts: Option<Text<'a>>,
    seq: u64,
    host: Option<Text<'a>>,
    boot_id: Option<Text<'a>>,
    cgroup: Option<&'a str>,
    mem: bool,
    /// `mem.anon` is there and no count of bytes.
    strange_anon: bool,
    point: Point,
    process: Option<&'a str>,
    growth: Option<&'a str>,
    oom: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn read(text: &'a str) -> Result<Self, Fault> {
        let mut parts = Parts::default();
        let mut cursor = Cursor::new(text);
        cursor.object(|cursor, key| parts.member(cursor, key))?;
        cursor.end()?;
        Ok(parts)
    }

    #[inline]
    fn member(&mut self, cursor: &mut Cursor<'a>, key: &[u8]) -> Result<(), Fault> {
        match key {
            b"ts" => self.ts = cursor.maybe_string()?,
            b"type" => {
                self.typed = true;
                self.kind = cursor.maybe_string()?;
            }
            b"seq" => self.seq = cursor.figure()?.unwrap_or(0),
            b"host" => self.host = cursor.maybe_string()?,
            b"boot_id" => self.boot_id = cursor.maybe_string()?,
            b"cgroup" => self.cgroup = object_only(cursor)?,
            b"mem" => self.mem(cursor)?,
            b"faults" => self.point.faults = one(cursor, b"minor_total")?,
            b"vm" => self.point.virt = one(cursor, b"virtual")?,
            b"processes" => self.point.processes = cursor.figure()?,
            b"process" => self.process = object_only(cursor)?,
            b"growth" => self.growth = object_only(cursor)?,
            b"oom" => self.oom = object_only(cursor)?,
            _ => {
                cursor.skip()?;
            }
        }
        Ok(())
    }

    fn mem(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Fault> {
        if cursor.peek() != b'{' {
            cursor.skip()?;
            return Ok(());
        }
        self.mem = true;
        let (point, strange) = (&mut self.point, &mut self.strange_anon);
        cursor.object(|cursor, key| {
            match key {
                b"anon" => {
                    point.anon = cursor.figure()?;
                    *strange = point.anon.is_none();
                }
                b"swap" => point.swap = cursor.figure()?,
                b"max" if cursor.peek() == b'n' => {
                    cursor.skip()?;
                    point.max = Limit::None;
                }
                b"max" => point.max = cursor.figure()?.map_or(Limit::Unknown, Limit::Bytes),
                b"file" => point.file = cursor.figure()?,
                b"shmem" => point.shmem = cursor.figure()?,
                b"kernel" => point.kernel = cursor.figure()?,
                b"slab" => point.slab = cursor.figure()?,
                b"pagetables" => point.pagetables = cursor.figure()?,
                b"sock" => point.sock = cursor.figure()?,
                b"available" => point.available = cursor.figure()?,
                _ => {
                    cursor.skip()?;
                }
            }
            Ok(())
        })
    }

    fn line(self) -> Result<Line<'a>, Why> {
        let (kind, body) = match self.kind.map(|kind| kind.raw) {
            Some("sample") if self.mem => (Kind::Sample, ""),
            // Written where nothing of the cgroup's memory could be read.
            Some("sample") => (Kind::Other, ""),
            Some("process") => (Kind::Process, named(self.process, "process")?),
            Some("growth") => (Kind::Growth, named(self.growth, "growth")?),
            Some("oom") => (Kind::Oom, named(self.oom, "oom")?),
            Some(_) => (Kind::Other, ""),
            None if self.typed => return Err("`type` is no string".to_owned()),
            None if self.mem => (Kind::Sample, ""),
            None => return Err("neither a `type` nor a `mem` object".to_owned()),
        };
        let mut line = Line {
            kind,
            ts: Timestamp::default(),
            seq: self.seq,
            host: self.host,
            boot_id: self.boot_id,
            cgroup: "",
            point: self.point,
            body,
        };
        if kind == Kind::Other {
            return Ok(line);
        }
        if kind == Kind::Sample && self.strange_anon {
            return Err("`mem.anon` is no number of bytes".to_owned());
        }
        let ts = self.ts.ok_or("no `ts` string")?;
        line.ts = time::parse(ts.raw)
            .ok_or_else(|| format!("`ts` is no RFC 3339 instant: {}", short(ts.raw)))?;
        line.point.at_us = line.ts.0;
        line.cgroup = self.cgroup.ok_or("no `cgroup` object")?;
        Ok(line)
    }
}

/// A text of somebody else's in a message: without escapes and not too long.
fn short(text: &str) -> String {
    const LONGEST: usize = 40;
    crate::view::printable(text).chars().take(LONGEST).collect()
}

fn named<'a>(body: Option<&'a str>, name: &str) -> Result<&'a str, Why> {
    body.ok_or_else(|| format!("no `{name}` object"))
}

fn object_only<'a>(cursor: &mut Cursor<'a>) -> Result<Option<&'a str>, Fault> {
    let object = cursor.peek() == b'{';
    let text = cursor.skip()?;
    Ok(object.then_some(text))
}

/// One figure of an object; `None` where there is none or it is no object.
fn one(cursor: &mut Cursor<'_>, wanted: &[u8]) -> Result<Option<u64>, Fault> {
    let mut figure = None;
    if cursor.peek() == b'{' {
        cursor.object(|cursor, key| {
            if key == wanted {
                figure = cursor.figure()?;
            } else {
                cursor.skip()?;
            }
            Ok(())
        })?;
    } else {
        cursor.skip()?;
    }
    Ok(figure)
}
