//! What is kept of one cgroup: as little as the policies need, since there are thousands.

use super::totals::{Mark, Totals};
use crate::event::{Limit, Mem, Sample};
use crate::govern::view::{Growth, Last, Since};
use crate::time::Timestamp;
use crate::units::Figure;

#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) kind: Kind,
    pub(super) frozen: bool,
    /// Whether memory.high is a number; as last read.
    pub(super) limited: bool,
    pub(super) mem: Levels,
    pub(super) now: Totals,
    /// At the last turn.
    pub(super) mark: Mark,
    /// Pages that come back to it a second, averaged over minutes.
    pub(super) steady: Option<f64>,
    /// Since when it is idle.
    pub(super) idle_since: Timestamp,
    // Boxed: of thousands of cgroups few have any of it.
    pub(super) rare: Option<Box<Rare>>,
}

/// What came of decisions and verdicts.
#[derive(Clone, Debug, Default)]
pub(super) struct Rare {
    /// At the last reclaim.
    pub(super) reclaimed: Option<(Last, Totals)>,
    /// At the one before it, until it is known that the last was done.
    pub(super) before: Option<(Last, Totals)>,
    /// When anonymous memory gave next to nothing.
    pub(super) anon_futile: Option<Timestamp>,
    pub(super) leak: Option<Growth>,
    /// Until it is tried: bytes that release agents are expected to give back.
    pub(super) retained: Figure,
}

impl Known {
    pub(super) fn new(kind: Kind, sample: &Sample, now: Totals) -> Known {
        Known {
            kind,
            frozen: false,
            limited: is_limited(&sample.mem, false),
            mem: Levels::of(&sample.mem),
            now,
            mark: Mark::new(now.at),
            steady: None,
            idle_since: now.at,
            rare: None,
        }
    }

    /// Takes its latest figures in.
    pub(super) fn take(&mut self, sample: &Sample, now: Totals) {
        self.limited = is_limited(&sample.mem, self.limited);
        self.mem = Levels::of(&sample.mem);
        self.mark.hold(&self.now, &now);
        self.now = now;
        if self.since_mark(now.at).refaults.is_none() && now.refaults.get().is_some() {
            // Another cgroup of the same name.
            self.mark = Mark::new(now.at);
            if let Some(rare) = &mut self.rare {
                rare.reclaimed = None;
                rare.before = None;
            }
        }
        if now.faults.get().is_none() {
            // Not counted for a while: what was counted before and after it are not the faults since the last turn.
            self.mark.without_faults();
        }
    }

    /// What came since the last turn.
    pub(super) fn since_mark(&self, now: Timestamp) -> Since {
        self.now.since(&self.mark.totals(&self.now), now)
    }

    /// Pages that come back a second: over minutes, or since the last turn if that is less.
    pub(super) fn steady(&self, now: Timestamp) -> f64 {
        let since = self.since_mark(now);
        let lately = since
            .refaults
            .filter(|_| since.us > 0)
            .map(|pages| pages as f64 * 1e6 / since.us as f64);
        let steady = self.steady.unwrap_or(0.0);
        lately.map_or(steady, |lately| lately.min(steady))
    }

    pub(super) fn takes_part(&self) -> bool {
        self.kind != Kind::Above
    }
}

/// What there is to know of a cgroup's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The root, a slice, a user: others are below, and nobody acts on it as such.
    Above,
    Container,
    Pod,
    Other,
}

impl Kind {
    pub(super) fn of(kind: &str) -> Kind {
        match kind {
            "root" | "slice" | "user" => Kind::Above,
            "container" => Kind::Container,
            "pod" => Kind::Pod,
            _ => Kind::Other,
        }
    }
}

/// Of a sample's memory what the policies see, bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Levels {
    pub(super) current: Figure,
    pub(super) anon: Figure,
    pub(super) file: Figure,
    pub(super) inactive_file: Figure,
    pub(super) shmem: Figure,
}

impl Levels {
    fn of(mem: &Mem) -> Levels {
        Levels {
            current: mem.current.into(),
            anon: mem.anon.into(),
            file: mem.file.into(),
            inactive_file: mem.inactive_file.into(),
            shmem: mem.shmem.into(),
        }
    }
}

/// Whether memory.high is a number.
fn is_limited(mem: &Mem, before: bool) -> bool {
    match mem.high {
        // A limit that was not read this time is the one before.
        Limit::Unknown => before,
        Limit::None => false,
        Limit::Bytes(_) => true,
    }
}

/// Of the root's last sample what it says of the machine, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Available {
    pub(super) total: Option<u64>,
    pub(super) available: Option<u64>,
    pub(super) swap_free: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::Known;

    #[test]
    fn of_thousands_of_cgroups_each_that_does_nothing_is_small() {
        assert!(size_of::<Known>() <= 152, "{} bytes", size_of::<Known>());
    }
}
