//! The recent past of one cgroup, one point a tick, in few bytes.

use crate::event::Mem;

/// Points of growth a history can show.
pub const HISTORY: usize = 60;

/// Growth needs one more level than there are points of it.
const POINTS: usize = HISTORY + 1;
const UNKNOWN: u32 = u32::MAX;
const PAGE: f64 = 4096.0;

/// What a history is made of: the best figure that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Basis {
    /// Page faults: no memory figure is known.
    Faults,
    /// memory.current: anon is unknown.
    Memory,
    /// anon + swap.
    Anon,
}

/// A ring of levels in 4 KiB pages (or of faults/s), the newest last.
#[derive(Clone, Debug)]
pub(super) struct History {
    points: [u32; POINTS],
    next: u8,
    len: u8,
    basis: Basis,
    swap_known: bool,
}

impl History {
    pub(super) fn new() -> Self {
        History {
            points: [UNKNOWN; POINTS],
            next: 0,
            len: 0,
            basis: Basis::Faults,
            swap_known: false,
        }
    }

    pub(super) fn basis(&self) -> Basis {
        self.basis
    }

    /// Adds what a sample says about the `ticks` since the one before. The level between the two is not known but
    /// its average slope is, so the gap is a straight line.
    pub(super) fn push(&mut self, mem: &Mem, faults: Option<f64>, ticks: usize) {
        let (basis, value) = match (mem.anon, mem.current) {
            (Some(anon), _) => (
                Basis::Anon,
                pages(anon.saturating_add(mem.swap.unwrap_or(0))),
            ),
            (None, Some(current)) => (Basis::Memory, pages(current)),
            (None, None) => (Basis::Faults, faults.map_or(UNKNOWN, clamp)),
        };
        let swap_known = mem.swap.is_some();
        let swap_changed =
            basis == Basis::Anon && self.basis == Basis::Anon && swap_known != self.swap_known;
        if basis > self.basis
            || swap_changed
            || (basis < self.basis && self.points.iter().all(|p| *p == UNKNOWN))
        {
            // Levels of different make cannot be compared.
            *self = History {
                basis,
                swap_known,
                ..History::new()
            };
        }
        self.swap_known = swap_known;
        let value = if basis == self.basis { value } else { UNKNOWN };
        let ticks = ticks.clamp(1, POINTS);
        let before = self.newest();
        for tick in 1..ticks {
            self.append(match (before, value) {
                (_, UNKNOWN) | (UNKNOWN, _) => UNKNOWN,
                _ if self.basis == Basis::Faults => value,
                (from, to) => {
                    let share = tick as f64 / ticks as f64;
                    clamp(f64::from(from) + (f64::from(to) - f64::from(from)) * share)
                }
            });
        }
        self.append(value);
    }

    /// The last `n` points as rates (bytes/s or faults/s), of which the last `silent` are not known.
    pub(super) fn rates(&self, n: usize, silent: usize, tick_us: u64) -> Vec<Option<f64>> {
        let seconds = tick_us as f64 / 1e6;
        self.window(n.min(HISTORY), silent, |back| {
            match (self.point(back), self.basis) {
                (UNKNOWN, _) => None,
                (faults, Basis::Faults) => Some(f64::from(faults)),
                (to, _) => match self.point(back + 1) {
                    UNKNOWN => None,
                    from => Some((f64::from(to) - f64::from(from)) * PAGE / seconds),
                },
            }
        })
    }

    /// The last `n` levels (bytes, or faults/s), of which the last `silent` are not known.
    pub(super) fn levels(&self, n: usize, silent: usize) -> Vec<Option<f64>> {
        self.window(n.min(POINTS), silent, |back| {
            match (self.point(back), self.basis) {
                (UNKNOWN, _) => None,
                (faults, Basis::Faults) => Some(f64::from(faults)),
                (pages, _) => Some(f64::from(pages) * PAGE),
            }
        })
    }

    fn window(
        &self,
        n: usize,
        silent: usize,
        at: impl Fn(usize) -> Option<f64>,
    ) -> Vec<Option<f64>> {
        (0..n)
            .rev()
            .map(|back| {
                if back < silent {
                    None
                } else {
                    at(back - silent)
                }
            })
            .collect()
    }

    fn append(&mut self, value: u32) {
        self.points[usize::from(self.next)] = value;
        self.next = if usize::from(self.next) + 1 == POINTS {
            0
        } else {
            self.next + 1
        };
        self.len = self.len.saturating_add(1).min(POINTS as u8);
    }

    /// The point `back` before the newest.
    fn point(&self, back: usize) -> u32 {
        if back >= usize::from(self.len) {
            return UNKNOWN;
        }
        self.points[(usize::from(self.next) + POINTS - 1 - back) % POINTS]
    }

    fn newest(&self) -> u32 {
        self.point(0)
    }
}

fn pages(bytes: u64) -> u32 {
    u32::try_from(bytes / 4096).map_or(UNKNOWN - 1, |pages| pages.min(UNKNOWN - 1))
}

fn clamp(value: f64) -> u32 {
    // `as` saturates; NaN cannot come in and would become 0.
    (value.round() as u32).min(UNKNOWN - 1)
}
