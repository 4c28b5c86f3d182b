//! Makes labelled traces from seeds: a program is a sum of parts (base, noise, caches, collectors, leaks), sampled as
//! grey-ebpf samples a real one.

mod classes;
mod leaks;
mod negatives;
mod others;
mod parts;
mod positives;
mod sample;

pub use classes::{CLASSES, Class, Seeds};
pub use sample::generate;

use grey_core::event::{Cause, Memory};

use parts::Part;

pub(crate) const KIB: f64 = 1024.0;
pub(crate) const MIB: f64 = 1024.0 * KIB;
pub(crate) const GIB: f64 = 1024.0 * MIB;
pub(crate) const MINUTE: f64 = 60.0;
pub(crate) const HOUR: f64 = 3600.0;
pub(crate) const DAY: f64 = 24.0 * HOUR;

/// What bounds the judged cgroup.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// Its own memory.max.
    Own(f64),
    /// memory.max of the cgroup above it.
    Parent(f64),
    /// Nothing but the machine's memory: bytes available while it holds nothing.
    Machine(f64),
}

impl Bound {
    pub(crate) fn scaled(self, by: f64) -> Bound {
        match self {
            Bound::Own(bytes) => Bound::Own(bytes * by),
            Bound::Parent(bytes) => Bound::Parent(bytes * by),
            Bound::Machine(bytes) => Bound::Machine(bytes * by),
        }
    }

    pub(crate) fn bytes(self) -> f64 {
        match self {
            Bound::Own(bytes) | Bound::Parent(bytes) | Bound::Machine(bytes) => bytes,
        }
    }
}

/// A program, and how it is sampled.
pub(crate) struct Plan {
    pub(crate) parts: Vec<Box<dyn Part>>,
    pub(crate) bound: Bound,
    /// Planned length, seconds; a trace ends earlier when the limit is hit.
    pub(crate) duration: f64,
    /// Seconds between samples; `None` lets the length of the trace decide.
    pub(crate) interval: Option<f64>,
    /// Begin of the leak, seconds.
    pub(crate) onset: Option<f64>,
    pub(crate) memory: Option<Memory>,
    pub(crate) causes: &'static [Cause],
    pub(crate) silence: bool,
    /// Reclaim from outside: every so many seconds this share of the resident anonymous memory.
    pub(crate) enforced: Option<(f64, f64)>,
    /// Copies of the same program in cgroups beside it.
    pub(crate) siblings: usize,
    /// Whether the page-fault counter may be missing.
    pub(crate) faults_may_miss: bool,
}
