//! What is kept of one cgroup: as little as the policies need, since there are thousands.

use super::totals::Totals;
use crate::event::{Limit, Mem};
use crate::govern::view::{Growth, Last};
use crate::time::Timestamp;
use crate::units::Figure;

#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) kind: Kind,
    pub(super) mem: Levels,
    pub(super) now: Totals,
    /// At the last turn.
    pub(super) mark: Totals,
    // Boxed, as `leak` is: of thousands of cgroups few have one.
    /// At the last reclaim.
    pub(super) reclaimed: Option<Box<(Last, Totals)>>,
    /// At the one before it, until it is known that the last was done.
    pub(super) before: Option<Box<(Last, Totals)>>,
    /// When anonymous memory gave next to nothing.
    pub(super) anon_futile: Option<Timestamp>,
    /// Pages that come back to it a second, averaged over minutes.
    pub(super) steady: Option<f64>,
    /// Since when it is idle.
    pub(super) idle_since: Timestamp,
    pub(super) leak: Option<Box<Growth>>,
    /// Until it is tried: bytes that release agents are expected to give back.
    pub(super) retained: Figure,
    pub(super) frozen: bool,
}

impl Known {
    /// Pages that come back a second: over minutes, or since the last turn if that is less.
    pub(super) fn steady(&self, now: Timestamp) -> f64 {
        let since = self.now.since(&self.mark, now);
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
    /// Whether memory.high is a number; as last read.
    pub(super) limited: bool,
}

impl Levels {
    pub(super) fn of(mem: &Mem, before: Option<&Levels>) -> Levels {
        let limited = match mem.high {
            // A limit that was not read this time is the one before.
            Limit::Unknown => before.is_some_and(|before| before.limited),
            Limit::None => false,
            Limit::Bytes(_) => true,
        };
        Levels {
            current: mem.current.into(),
            anon: mem.anon.into(),
            file: mem.file.into(),
            inactive_file: mem.inactive_file.into(),
            shmem: mem.shmem.into(),
            limited,
        }
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
        assert!(size_of::<Known>() <= 256, "{} bytes", size_of::<Known>());
    }
}
