//! What reclaim can take from a cgroup, and what keeps the rest where it is.

use grey_core::event::Limit;
use grey_core::units::format_bytes;

use crate::act::Scene;
use crate::cli::Failure;
use crate::host::{CgroupDetail, MemInfo};

use super::Take;

/// A cgroup's memory as reclaim sees it, bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Room {
    /// memory.current; the root has none.
    pub used: Option<u64>,
    /// Page cache that is as on disk.
    pub clean: u64,
    /// Page cache that has to be written first.
    pub dirty: u64,
    /// Anonymous and tmpfs memory.
    pub anon: u64,
    /// Memory that can never be taken, such as mlock'ed.
    pub unevictable: u64,
    /// How much anonymous memory can go.
    pub swap: SwapRoom,
    /// Page cache was asked to be left alone.
    pub anon_only: bool,
}

/// Where anonymous memory can go, and why no more of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SwapRoom {
    /// Bytes.
    pub bytes: u64,
    /// What bounds it.
    pub bound: Bound,
}

/// What bounds how much anonymous memory can go.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Bound {
    /// The machine has no swap.
    #[default]
    NoSwap,
    /// SwapFree.
    Free,
    /// memory.swap.max of this cgroup.
    Limit(String),
    /// It was not asked for.
    FileOnly,
    /// `vm.swappiness` is 0, and no other was asked for.
    Swappiness,
}

impl Room {
    /// As it is now.
    ///
    /// # Errors
    /// The cgroup is gone (exit 2), or its memory cannot be read (exit 3).
    pub(crate) fn look(scene: &Scene, path: &str, take: Take) -> Result<Room, Failure> {
        let detail = CgroupDetail::read(&scene.cgroups, path)
            .map_err(|error| Failure::unsupported(format!("{error}; run it as root")))?
            .ok_or_else(|| Failure::usage(format!("{path}: the cgroup is gone")))?;
        let stat = detail.stat.as_ref().ok_or_else(|| no_controller(path))?;
        let lists = stat
            .inactive_file
            .zip(stat.active_file)
            .zip(stat.inactive_anon.zip(stat.active_anon));
        let ((inactive_file, active_file), (inactive_anon, active_anon)) =
            lists.ok_or_else(|| {
                Failure::unsupported(format!(
                    "{path}: memory.stat does not tell what can be reclaimed on this kernel"
                ))
            })?;
        let file = inactive_file.saturating_add(active_file);
        let dirty = stat
            .file_dirty
            .unwrap_or(0)
            .saturating_add(stat.file_writeback.unwrap_or(0))
            .min(file);
        Ok(Room {
            used: detail.current,
            clean: file - dirty,
            dirty,
            anon: inactive_anon.saturating_add(active_anon),
            unevictable: stat.unevictable.unwrap_or(0),
            swap: swap_room(scene, path, take)?,
            anon_only: take == Take::AnonOnly,
        })
    }

    /// What can be taken at once.
    pub(crate) fn reclaimable(&self) -> u64 {
        let anon = self.anon.min(self.swap.bytes);
        if self.anon_only {
            anon
        } else {
            self.clean.saturating_add(anon)
        }
    }

    /// Anonymous memory that cannot go anywhere.
    fn staying(&self) -> u64 {
        self.anon.saturating_sub(self.swap.bytes)
    }

    /// What there is to take, in words.
    pub(crate) fn told(&self) -> String {
        let going = self.anon.min(self.swap.bytes);
        let mut parts = Vec::new();
        if !self.anon_only {
            parts.push(format!("{} of clean page cache", format_bytes(self.clean)));
        }
        if going > 0 {
            parts.push(format!(
                "{} of anonymous memory into swap",
                format_bytes(going)
            ));
        }
        let mut text = format!(
            "{} can be taken: {}",
            format_bytes(self.reclaimable()),
            parts.join(", ")
        );
        for reason in self.why_not_more() {
            text.push_str("; ");
            text.push_str(&reason);
        }
        text
    }

    /// Why what is left is left, the greatest reasons only: little of each kind is always there.
    pub(crate) fn why_not_more(&self) -> Vec<String> {
        const LITTLE: u64 = 1 << 20;
        let mut reasons = Vec::new();
        let staying = self.staying();
        if staying >= LITTLE {
            reasons.push(format!(
                "{}: {} of anonymous memory stay",
                self.swap.bound,
                format_bytes(staying)
            ));
        }
        if self.dirty >= LITTLE {
            reasons.push(format!(
                "{} of page cache have to be written to disk first",
                format_bytes(self.dirty)
            ));
        }
        if self.unevictable >= LITTLE {
            reasons.push(format!(
                "{} cannot be reclaimed at all (mlock and its like)",
                format_bytes(self.unevictable)
            ));
        }
        reasons
    }

    /// Why reclaim would be in vain: nothing but anonymous memory that cannot go anywhere.
    pub(crate) fn in_vain(&self, size: u64) -> Option<String> {
        const NEXT_TO_NOTHING: u64 = 1 << 20;
        let dirty = if self.anon_only { 0 } else { self.dirty };
        let takeable = self.reclaimable().saturating_add(dirty);
        (self.staying() > 0 && takeable < size.min(NEXT_TO_NOTHING)).then(|| {
            format!(
                "it has next to nothing but {} of anonymous memory, and {}{}",
                format_bytes(self.anon),
                self.swap.bound,
                self.swap.bound.remedy()
            )
        })
    }
}

impl Bound {
    fn remedy(&self) -> &'static str {
        match self {
            Bound::NoSwap => "; set up swap or zram for it to go to",
            Bound::Free => "; add swap or zram",
            Bound::Limit(_) => "; raise it with `enforce limit --swap-max`",
            Bound::FileOnly => "; leave that out",
            Bound::Swappiness => "; name another with --swappiness",
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bound::NoSwap => f.write_str("no swap"),
            Bound::Free => f.write_str("swap is full"),
            Bound::Limit(path) => write!(f, "memory.swap.max of {path} is reached"),
            Bound::FileOnly => f.write_str("--file-only"),
            Bound::Swappiness => f.write_str("vm.swappiness is 0"),
        }
    }
}

fn swap_room(scene: &Scene, path: &str, take: Take) -> Result<SwapRoom, Failure> {
    let none = |bound| SwapRoom { bytes: 0, bound };
    if take == Take::FileOnly {
        return Ok(none(Bound::FileOnly));
    }
    let info = MemInfo::read(&scene.host)
        .map_err(|error| Failure::unsupported(format!("{error}; mount /proc")))?;
    if info.swap_total.unwrap_or(0) == 0 {
        return Ok(none(Bound::NoSwap));
    }
    // mm/vmscan.c: reclaim for a cgroup leaves anonymous memory alone at swappiness 0.
    if take == Take::AsIs && scene.host.text("/proc/sys/vm/swappiness").ok().as_deref() == Some("0")
    {
        return Ok(none(Bound::Swappiness));
    }
    let mut room = SwapRoom {
        bytes: info.swap_free.unwrap_or(0),
        bound: Bound::Free,
    };
    for at in lineage(path) {
        let Ok(Some(detail)) = CgroupDetail::read(&scene.cgroups, at) else {
            continue;
        };
        if let (Limit::Bytes(max), Some(current)) = (detail.swap_max, detail.swap) {
            let left = max.saturating_sub(current);
            if left < room.bytes {
                room = SwapRoom {
                    bytes: left,
                    bound: Bound::Limit(at.to_owned()),
                };
            }
        }
    }
    Ok(room)
}

/// A cgroup and those above it, without the root.
pub(crate) fn lineage(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| {
        path.rsplit_once('/').map(|(parent, _)| parent)
    })
    .filter(|path| !path.trim_matches('/').is_empty())
}

/// A cgroup without memory.* files.
pub(crate) fn no_controller(path: &str) -> Failure {
    Failure::unsupported(format!(
        "{path}: the memory controller is not on for this cgroup; MemoryAccounting=yes in its unit, or +memory in the cgroup.subtree_control of its parent, switches it on"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;

    fn room(clean: u64, anon: u64, swap: u64, bound: Bound) -> Room {
        Room {
            used: Some(clean + anon),
            clean,
            anon,
            swap: SwapRoom { bytes: swap, bound },
            ..Room::default()
        }
    }

    #[test]
    fn anonymous_memory_counts_as_far_as_swap_takes_it() {
        let all = room(150 * M, 100 * M, 400 * M, Bound::Free);
        assert_eq!(all.reclaimable(), 250 * M);
        assert_eq!(all.why_not_more(), Vec::<String>::new());
        let some = room(150 * M, 100 * M, 40 * M, Bound::Limit("/a".to_owned()));
        assert_eq!(some.reclaimable(), 190 * M);
        assert_eq!(
            some.why_not_more(),
            ["memory.swap.max of /a is reached: 60M of anonymous memory stay"]
        );
        let none = room(150 * M, 120 * M, 0, Bound::NoSwap);
        assert_eq!(none.reclaimable(), 150 * M);
        assert_eq!(
            none.why_not_more(),
            ["no swap: 120M of anonymous memory stay"]
        );
    }

    #[test]
    fn reclaim_is_in_vain_where_nothing_but_anonymous_memory_is_and_it_cannot_go() {
        let none = room(100 << 10, 120 * M, 0, Bound::NoSwap);
        assert!(none.in_vain(200 * M).unwrap().contains("no swap"));
        // What little there is may be asked for.
        assert_eq!(none.in_vain(64 << 10), None);
        assert_eq!(
            room(100 << 10, 120 * M, 200 * M, Bound::Free).in_vain(200 * M),
            None
        );
        assert_eq!(
            room(20 * M, 120 * M, 0, Bound::NoSwap).in_vain(200 * M),
            None
        );
        // An empty one is not in vain: it is done at once.
        assert_eq!(room(0, 0, 0, Bound::NoSwap).in_vain(200 * M), None);
    }

    #[test]
    fn the_limits_of_all_cgroups_above_count_and_the_root_has_none() {
        let all: Vec<&str> = lineage("/a/b/c").collect();
        assert_eq!(all, ["/a/b/c", "/a/b", "/a"]);
        assert_eq!(lineage("/").count(), 0);
    }
}
