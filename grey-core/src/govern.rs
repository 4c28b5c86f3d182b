//! Governing: from what is seen of the machine and its cgroups to what is done about it. Pure: events and instants in,
//! decisions out; `daemon` acts on them, `replay --policy` prints them.
//!
//! Events ─► [`Figures`] ─► [`View`] ─► a policy: [`Intent`]s ─► [`Bounds`]: protection, floors, cool-downs, budgets, what
//! was learned ─► [`Decision`]s. What came of one comes back as an [`Outcome`].

mod account;
mod aftermath;
mod bounds;
mod figures;
mod governor;
pub mod learn;
pub mod policy;
pub mod schedule;
mod settings;
mod view;

use crate::time::Timestamp;

pub use bounds::{Bounds, Held, Refused};
pub use figures::Figures;
pub use governor::{Governor, Settled};
pub use settings::{
    Aggressive, Budget, Conservative, Dynamic, Emergency, Guest, Idle, Override, PolicyKind,
    Proactive, Scheduled, Settings,
};
pub use view::{Group, Growth, Machine, Since, View};

/// The means, least harm first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// Clean page cache, by memory.reclaim.
    File,
    /// Page cache and anonymous memory, by memory.reclaim: there has to be swap.
    Anon,
    /// The release agent in the program gives freed memory back.
    Trim,
    /// Anonymous memory that is not used goes to swap, by process_madvise.
    Pageout,
    /// memory.high for a time, never below what is in use.
    High,
    /// An idle container that the operator named stands still.
    Freeze,
    /// Free pages are moved together, so that a host can have them back in large blocks.
    Compact,
}

impl Rung {
    /// The `kind` of the action.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Rung::File | Rung::Anon => "reclaim",
            Rung::Trim => "trim",
            Rung::Pageout => "pageout",
            Rung::High => "limit",
            Rung::Freeze => "freeze",
            Rung::Compact => "compact",
        }
    }

    /// Whether memory goes to swap.
    #[must_use]
    pub const fn needs_swap(self) -> bool {
        matches!(self, Rung::Anon | Rung::Pageout)
    }

    /// Whether the kernel takes what the program may want again: refaults tell how well that was chosen. What a trim frees
    /// nobody wants back, and it says nothing of the next reclaim.
    #[must_use]
    pub const fn reclaims(self) -> bool {
        self.takes() && !matches!(self, Rung::Trim)
    }

    /// Whether it takes memory: floors and the budget of bytes hold for it.
    #[must_use]
    pub const fn takes(self) -> bool {
        matches!(self, Rung::File | Rung::Anon | Rung::Trim | Rung::Pageout)
    }
}

/// What a policy wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// Path of the cgroup; `/` for the machine.
    pub path: String,
    /// By which means.
    pub rung: Rung,
    /// Bytes to take; for [`Rung::High`] the limit itself; 0 where it means nothing.
    pub bytes: u64,
    /// Why, with figures.
    pub reason: String,
    /// It cannot wait for the next turn, nor for the observation of the action before it to end.
    pub urgent: bool,
}

/// What is to be done: an intent within all bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Counts the decisions of one governor from 1.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// Who wanted it.
    pub policy: PolicyKind,
    /// Path of the cgroup; `/` for the machine.
    pub path: String,
    /// By which means.
    pub rung: Rung,
    /// Bytes to take; for [`Rung::High`] the limit itself.
    pub bytes: u64,
    /// Why, with figures, and what was cut off.
    pub reason: String,
    /// Whether it was an emergency.
    pub urgent: bool,
    /// What was learned: probability of harm.
    pub expected_harm: f64,
    /// What the model looked at, kept for the lesson.
    pub features: learn::Features,
}

/// What came of a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Bytes the target had less right afterwards.
    pub freed: u64,
    /// Of these, at the end of the observation.
    pub kept: u64,
    /// Time tasks of the target stalled on memory meanwhile (PSI some), µs.
    pub psi_some_us: u64,
    /// The same, all tasks.
    pub psi_full_us: u64,
    /// Pages that came back.
    pub refaults: u64,
    /// Faults that read from a disk.
    pub majors: u64,
    /// From the decision to the end of the observation, µs.
    pub elapsed_us: u64,
    /// CPU time of the target while it was observed, per µs; and in as long a time before. Absent where unknown.
    pub cpu: Option<(f64, f64)>,
    /// The watchdog, or a failure, took it back.
    pub reverted: bool,
    /// It was taken back before its time because somebody wanted what it stopped.
    pub wanted: bool,
}

#[cfg(test)]
mod tests;
