//! Whether somebody wants what stands still to run: looked at once a second as long as it does.

use std::time::{Duration, Instant};

use crate::act::{Scene, Target};
use crate::host::{Call, Waiting};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Of the time, one part in so many is spent on looking: on a machine with very many sockets it is done less often.
const SHARE: u32 = 100;

/// One frozen cgroup.
#[derive(Debug)]
pub(super) struct Demand {
    base: Waiting,
    next: Instant,
}

impl Demand {
    /// Of a cgroup that is to be stopped.
    pub(super) fn before(scene: &Scene, target: &Target) -> Demand {
        Demand {
            base: read(scene, target, None).unwrap_or_default(),
            next: Instant::now(),
        }
    }

    /// It stands still now.
    pub(super) fn begin(&mut self, scene: &Scene, target: &Target) {
        if let Some(now) = read(scene, target, None) {
            self.base = now.since(&self.base);
        }
    }

    /// What cannot be seen, in words.
    pub(super) fn blind(&self) -> Option<String> {
        let blind: Vec<&str> = self.base.blind().collect();
        (!blind.is_empty()).then(|| blind.join("; "))
    }

    /// What came since it stands still.
    pub(super) fn look(&mut self, scene: &Scene, target: &Target) -> Option<Call> {
        let start = Instant::now();
        if start < self.next {
            return None;
        }
        let call = read(scene, target, Some(&self.base)).and_then(|now| self.base.call(&now));
        self.next = start + EVERY.max(start.elapsed() * SHARE);
        call
    }
}

/// `None` where the cgroup is gone, or is another one.
fn read(scene: &Scene, target: &Target, earlier: Option<&Waiting>) -> Option<Waiting> {
    let walk = scene.cgroups.walk_from(&target.path).ok()?;
    if walk.cgroups.first()?.id != target.id {
        return None;
    }
    let mut pids: Vec<u32> = walk
        .cgroups
        .iter()
        .flat_map(|entry| scene.cgroups.pids(&entry.path).unwrap_or_default())
        // Those of a namespace that we are not in.
        .filter(|pid| *pid != 0)
        .collect();
    pids.sort_unstable();
    pids.dedup();
    Some(Waiting::read(&scene.host, &pids, earlier))
}
