//! What each CPU has counted and not moved to the tables yet.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use aya::Ebpf;
use grey_common::{CgroupCounters, Streak};

use super::load::LoadError;
use super::mapped::Mapped;

/// Looks at a streak that its CPU is just ending; a hypervisor may keep that CPU from going on.
const LOOKS: usize = 1000;

pub(super) struct Streaks {
    memory: Mapped<Streak>,
    /// As at the last look of [`Streaks::take_active`].
    seen: Vec<Streak>,
}

impl Streaks {
    /// For CPUs numbered up to `cpus`.
    pub(super) fn take(ebpf: &mut Ebpf, cpus: u32) -> Result<Self, LoadError> {
        Ok(Streaks {
            memory: Mapped::take(ebpf, "STREAKS", cpus)?,
            seen: vec![Streak::default(); cpus as usize],
        })
    }

    /// All of them. One that does not hold still is left out: what it has is told at the next look.
    fn all(&self) -> impl Iterator<Item = Streak> + '_ {
        (0..self.memory.count()).filter_map(|cpu| self.at(cpu))
    }

    /// What the streaks of a cgroup hold, and the sum of their epochs: it is another one once any of them has been moved to
    /// the tables. By cgroup and not by slot, for a streak may outlive its cgroup's slot.
    pub(super) fn of(&self, cgroup: u64) -> (CgroupCounters, u64) {
        let (mut counters, mut epochs) = (CgroupCounters::default(), 0_u64);
        for streak in self
            .all()
            .filter(|streak| streak.cgroup != 0 && streak.cgroup == cgroup)
        {
            counters.add(&streak.counters());
            epochs = epochs.wrapping_add(u64::from(streak.epoch));
        }
        (counters, epochs)
    }

    /// Whether the cgroup had a streak at the last look of [`Streaks::take_active`]; one that has begun since is the next
    /// look's.
    pub(super) fn had(&self, cgroup: u64) -> bool {
        self.seen.iter().any(|streak| streak.cgroup == cgroup)
    }

    /// Cgroups, with their slots, that faulted on some CPU since the last look.
    pub(super) fn take_active(&mut self, mut tell: impl FnMut(u64, u32)) {
        for cpu in 0..self.memory.count() {
            let Some(now) = self.at(cpu) else { continue };
            let seen = &mut self.seen[cpu as usize];
            if now.cgroup != 0 && (now.epoch != seen.epoch || now.faults != seen.faults) {
                tell(now.cgroup, now.slot);
            }
            *seen = now;
        }
    }

    fn at(&self, cpu: u32) -> Option<Streak> {
        let entry = self.memory.at(cpu).as_ptr();
        // SAFETY: an element of the mapping, aligned as the type asks; the kernel side writes whole words.
        let (epoch, cgroup, slot, faults) = unsafe {
            (
                AtomicU32::from_ptr(&raw mut (*entry).epoch),
                AtomicU64::from_ptr(&raw mut (*entry).cgroup),
                AtomicU32::from_ptr(&raw mut (*entry).slot),
                [0, 1, 2, 3].map(|row| AtomicU64::from_ptr(&raw mut (*entry).faults[row])),
            )
        };
        for _ in 0..LOOKS {
            let before = epoch.load(Ordering::Acquire);
            let streak = Streak {
                cgroup: cgroup.load(Ordering::Relaxed),
                faults: faults.map(|count| count.load(Ordering::Relaxed)),
                slot: slot.load(Ordering::Relaxed),
                epoch: before,
                ..Streak::default()
            };
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && epoch.load(Ordering::Relaxed) == before {
                return Some(streak);
            }
            std::hint::spin_loop();
        }
        None
    }
}

/// The highest CPU number that may ever be, and one more, from a list such as `0-7,16`.
pub(super) fn cpus(possible: &str) -> Option<u32> {
    let last = possible.trim().rsplit([',', '-']).next()?;
    last.parse::<u32>().ok()?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_counted_to_the_last_one() {
        for (list, count) in [
            ("0\n", Some(1)),
            ("0-1\n", Some(2)),
            ("0-3,8-11\n", Some(12)),
            ("0,5\n", Some(6)),
            ("\n", None),
            ("4294967295", None),
        ] {
            assert_eq!(cpus(list), count, "{list:?}");
        }
    }
}
