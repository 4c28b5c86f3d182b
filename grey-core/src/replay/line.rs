//! One line of a recording to what the detector needs of it, in place: unknown fields are checked and skipped.

use std::fmt::Write as _;

use crate::detect::Point;
use crate::event::Limit;
use crate::time::Timestamp;

use super::json::{Cursor, Fault, Text};
use super::time;

/// Kinds of line that matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    #[default]
    Other,
}

/// The parts of a line, borrowed from it. Filled in place: to hand it on by value would cost more than to read it.
#[derive(Debug, Default)]
pub(super) struct Line<'a> {
    pub(super) kind: Kind,
    pub(super) ts: Timestamp,
    pub(super) seq: u64,
    pub(super) host: Option<Text<'a>>,
    pub(super) boot_id: Option<Text<'a>>,
    /// The object as it stands.
    pub(super) cgroup: &'a str,
    /// The object of a `process`, `growth` or `oom` as it stands.
    pub(super) body: &'a str,
    r#type: Option<Text<'a>>,
    /// There is a `type`, of whatever kind.
    typed: bool,
    instant: Option<Text<'a>>,
    identity: Option<&'a str>,
    mem: bool,
    /// `mem.anon` is there and no count of bytes.
    strange_anon: bool,
    process: Option<&'a str>,
    growth: Option<&'a str>,
    oom: Option<&'a str>,
}

/// Why a line cannot be used, in words.
pub(super) type Why = String;

impl<'a> Line<'a> {
    /// Reads a text that is not blank into this new line. The figures of a sample are left in `point`; `id` is the cgroup
    /// object's and not set there. `guess` is an object that was read before: where the cgroup's is the same, it is not
    /// looked into again.
    pub(super) fn read(
        &mut self,
        text: &'a str,
        guess: Option<&str>,
        point: &mut Point,
    ) -> Result<(), Why> {
        *point = Point::default();
        let mut cursor = Cursor::new(text);
        cursor
            .object(|cursor, key| self.member(cursor, key, guess, point))
            .and_then(|()| cursor.end())
            .map_err(|fault| {
                let mut why = format!("not JSON: {}", fault.why);
                let _ = write!(why, " at column {}", fault.at + 1);
                why
            })?;
        self.understand(point)
    }

    #[inline]
    fn member(
        &mut self,
        cursor: &mut Cursor<'a>,
        key: &[u8],
        guess: Option<&str>,
        point: &mut Point,
    ) -> Result<(), Fault> {
        match key {
            b"ts" => self.instant = cursor.maybe_string()?,
            b"type" => {
                self.typed = true;
                self.r#type = cursor.maybe_string()?;
            }
            b"seq" => self.seq = cursor.figure()?.unwrap_or(0),
            b"host" => self.host = cursor.maybe_string()?,
            b"boot_id" => self.boot_id = cursor.maybe_string()?,
            b"cgroup" => {
                self.identity = match guess.and_then(|guess| cursor.again(guess)) {
                    Some(same) => Some(same),
                    None => object_only(cursor)?,
                };
            }
            b"mem" => self.mem(cursor, point)?,
            b"faults" => point.faults = one(cursor, b"minor_total")?,
            b"vm" => point.virt = one(cursor, b"virtual")?,
            b"processes" => point.processes = cursor.figure()?,
            b"process" => self.process = object_only(cursor)?,
            b"growth" => self.growth = object_only(cursor)?,
            b"oom" => self.oom = object_only(cursor)?,
            _ => {
                cursor.skip()?;
            }
        }
        Ok(())
    }

    fn mem(&mut self, cursor: &mut Cursor<'a>, point: &mut Point) -> Result<(), Fault> {
        if cursor.peek() != b'{' {
            cursor.skip()?;
            return Ok(());
        }
        self.mem = true;
        let strange = &mut self.strange_anon;
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

    /// What it is, from what was found.
    fn understand(&mut self, point: &mut Point) -> Result<(), Why> {
        (self.kind, self.body) = match self.r#type.map(|kind| kind.raw) {
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
        if self.kind == Kind::Other {
            return Ok(());
        }
        if self.kind == Kind::Sample && self.strange_anon {
            return Err("`mem.anon` is no number of bytes".to_owned());
        }
        let ts = self.instant.ok_or("no `ts` string")?;
        self.ts = time::parse(ts.raw)
            .ok_or_else(|| format!("`ts` is no RFC 3339 instant: {}", short(ts.raw)))?;
        point.at_us = self.ts.0;
        self.cgroup = self.identity.ok_or("no `cgroup` object")?;
        Ok(())
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
