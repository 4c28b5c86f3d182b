//! What a labelled trace is: samples of one or more cgroups, which of them is judged, and the truth about it.

use grey_core::detect::Point;
use grey_core::event::{Cause, Cgroup, Memory};
use serde::Serialize;

/// Which part of the scores a class belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Leaks of anonymous memory.
    Leak,
    /// Growth without bound of other memory: page tables, slab, sockets, shared memory.
    Other,
    /// No leak.
    Negative,
    /// No leak, but for its time the same as one from outside; reported, not scored.
    Ambiguous,
}

/// The truth about the judged cgroup.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Truth {
    /// Whether it leaks.
    pub leak: bool,
    /// When the leak begins, µs.
    pub onset_us: Option<i64>,
    /// Mean growth of the leak from its onset, bytes a second.
    pub rate_bps: Option<f64>,
    /// When the limit is hit, or would be at the true growth, µs.
    pub limit_us: Option<i64>,
    /// The leaking memory.
    pub memory: Option<Memory>,
    /// Causes that are right.
    pub causes: Vec<Cause>,
    /// Whether saying nothing is right.
    pub silence: bool,
}

/// A labelled trace.
#[derive(Clone, Debug)]
pub struct Trace {
    /// `class/seed`.
    pub name: String,
    /// Its class.
    pub class: &'static str,
    /// What the class counts as.
    pub kind: Kind,
    /// Seed.
    pub seed: u64,
    /// Nominal time between two samples, seconds.
    pub interval_s: f64,
    /// The cgroups of the trace; the first one is judged.
    pub cgroups: Vec<Cgroup>,
    /// Samples by time: which cgroup, and its figures.
    pub points: Vec<(u8, Point)>,
    /// The truth about the first cgroup.
    pub truth: Truth,
}

impl Trace {
    /// From the first to the last sample, seconds.
    #[must_use]
    pub fn span_s(&self) -> f64 {
        match (self.points.first(), self.points.last()) {
            (Some((_, first)), Some((_, last))) => (last.at_us - first.at_us) as f64 / 1e6,
            _ => 0.0,
        }
    }
}
