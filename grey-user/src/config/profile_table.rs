//! `[profile]`: whether a cgroup that is suspected of a leak has its stacks looked at.

use std::time::Duration;

use super::document::Table;
use crate::source::SUSPECT_TIME;

/// What is looked up about a suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profiling {
    /// Whether anything is.
    pub on_suspect: bool,
    /// For how long.
    pub time: Duration,
}

impl Default for Profiling {
    fn default() -> Self {
        Profiling {
            on_suspect: true,
            time: SUSPECT_TIME,
        }
    }
}

impl Profiling {
    /// For how long a suspect is profiled; `None` where it is not.
    #[must_use]
    pub fn time(self) -> Option<Duration> {
        self.on_suspect.then_some(self.time)
    }
}

pub(super) fn read(root: &mut Table<'_>, profiling: &mut Profiling) {
    let Profiling { on_suspect, time } = profiling;
    let mut table = root.table("profile");
    table.flag(
        (
            "on_suspect",
            "A cgroup that is suspected of a leak is profiled, so that a confirmed verdict names the functions.",
        ),
        on_suspect,
    );
    table.duration(
        ("for", "How long that takes; a verdict ends it sooner."),
        Duration::from_secs(1)..=Duration::from_secs(300),
        time,
    );
    table.finish();
}
