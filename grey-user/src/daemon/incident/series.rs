//! The points of one cgroup in few bytes: of each, what is not as it was at the one before.

use std::collections::VecDeque;

use grey_core::event::Sample;
use grey_core::time::Timestamp;
use grey_core::units::Figure;
use serde_json::Value;

/// Of a document's row, in its order; `ts` is the point's time.
pub(super) const COLUMNS: [&str; 1 + FIGURES] = [
    "ts",
    "current",
    "anon",
    "file",
    "swap",
    "available",
    "psi_some_us_total",
    "psi_full_us_total",
    "refault_total",
    "minor_total",
    "pages_total",
];

const FIGURES: usize = 10;
/// Which figures changed, the time, and the figures: each a number of at most ten bytes.
const MOST_A_POINT: usize = 10 * (2 + FIGURES);
/// Bytes of room that are added at once: a full series of one point a second takes some thousands.
const MORE_ROOM: usize = 256;

/// The figures of one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) at: Timestamp,
    figures: [Figure; FIGURES],
}

impl Point {
    pub(super) fn of(sample: &Sample, at: Timestamp) -> Point {
        let psi = sample.psi.as_ref();
        let reclaim = sample.reclaim.as_ref();
        let figures = [
            sample.mem.current,
            sample.mem.anon,
            sample.mem.file,
            sample.mem.swap,
            sample.mem.available,
            psi.map(|psi| psi.some_us_total),
            psi.and_then(|psi| psi.full_us_total),
            reclaim.and_then(|it| it.refault_total),
            sample.faults.as_ref().and_then(|it| it.minor_total),
            reclaim.and_then(|it| it.pages_total),
        ];
        Point {
            at,
            figures: figures.map(Figure::from),
        }
    }

    pub(super) fn row(&self) -> Value {
        let figures = self.figures.iter().map(|figure| Value::from(figure.get()));
        std::iter::once(Value::from(self.at.to_string()))
            .chain(figures)
            .collect()
    }

    /// Appends what is not as it was `before`: a bit for each figure that changed, the time that passed, and by how much
    /// each of those did. Differences wrap, so that any two points have one.
    fn write(&self, before: &Point, bytes: &mut VecDeque<u8>) {
        let pairs = || self.figures.iter().zip(&before.figures);
        let changed = pairs()
            .rev()
            .fold(0, |bits, (now, then)| bits << 1 | u64::from(now != then));
        put(bytes, changed);
        put(bytes, zigzag(self.at.0.wrapping_sub(before.at.0)));
        for (now, then) in pairs().filter(|(now, then)| now != then) {
            let difference = now.to_word().wrapping_sub(then.to_word());
            put(bytes, zigzag(difference.cast_signed()));
        }
    }

    /// The point after `before`; `None` at the end.
    fn read(before: &Point, bytes: &mut impl Iterator<Item = u8>) -> Option<Point> {
        let changed = take(bytes)?;
        let mut point = *before;
        point.at.0 = point.at.0.wrapping_add(unzigzag(take(bytes)?));
        for (bit, figure) in point.figures.iter_mut().enumerate() {
            if changed >> bit & 1 == 1 {
                let difference = unzigzag(take(bytes)?).cast_unsigned();
                *figure = Figure::from_word(figure.to_word().wrapping_add(difference));
            }
        }
        Some(point)
    }
}

/// Appends a number, seven bits a byte, the lowest first; the last byte's highest bit is 0 (LEB128).
fn put(bytes: &mut VecDeque<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push_back(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push_back(number as u8);
}

fn take(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = bytes.next()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// Small numbers of either sign become small ones: 0, −1, 1, −2 … are 0, 1, 2, 3 …
fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

/// The points of one cgroup, oldest first; there is always one.
#[derive(Clone, Debug)]
pub(super) struct Series {
    first: Point,
    // Boxed: of most cgroups there is one point.
    rest: Option<Box<Rest>>,
}

/// The points after the first.
#[derive(Clone, Debug)]
struct Rest {
    last: Point,
    bytes: VecDeque<u8>,
}

impl Series {
    pub(super) fn new(point: Point) -> Series {
        Series {
            first: point,
            rest: None,
        }
    }

    pub(super) fn push(&mut self, point: Point) {
        let rest = self.rest.get_or_insert_with(|| {
            Box::new(Rest {
                last: self.first,
                bytes: VecDeque::new(),
            })
        });
        if rest.bytes.capacity() - rest.bytes.len() < MOST_A_POINT {
            // Not twice as many each time: a full series would have room for as much again.
            rest.bytes.reserve_exact(MORE_ROOM);
        }
        point.write(&rest.last, &mut rest.bytes);
        rest.last = point;
    }

    pub(super) fn last(&self) -> &Point {
        self.rest.as_ref().map_or(&self.first, |rest| &rest.last)
    }

    pub(super) fn points(&self) -> impl Iterator<Item = Point> + '_ {
        let bytes = self.rest.iter().flat_map(|rest| &rest.bytes);
        let mut bytes = bytes.copied();
        std::iter::successors(Some(self.first), move |before| {
            Point::read(before, &mut bytes)
        })
    }

    /// Drops what was before `since`, but for the last point of it, which tells where the rest began.
    pub(super) fn forget(&mut self, since: i64) {
        while let Some(rest) = &mut self.rest {
            let mut bytes = rest.bytes.iter().copied();
            match Point::read(&self.first, &mut bytes) {
                Some(second) if second.at.0 < since => {
                    let read = rest.bytes.len() - bytes.len();
                    rest.bytes.drain(..read);
                    self.first = second;
                }
                Some(_) => return,
                None => self.rest = None,
            }
        }
    }

    pub(super) fn shrink_to_fit(&mut self) {
        if let Some(rest) = &mut self.rest {
            rest.bytes.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests;
