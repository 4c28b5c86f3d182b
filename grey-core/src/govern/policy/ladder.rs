//! A size is to become available: each cgroup gives in proportion to what it has, least harm first. Page cache counts as
//! available already (MemAvailable), so that where there is swap it is anonymous memory that helps; cache is left over
//! for machines without, where free pages at least spare tasks the way into direct reclaim.

use super::{LEAST, intent};
use crate::govern::{Group, Intent, Rung, View};

/// A look for anonymous memory that is not touched that found next to none is not repeated for so long.
const FUTILE_US: u64 = 60_000_000;

/// One step: by which means, and how much of it a cgroup has.
type Step = (Rung, fn(&Group) -> u64);

/// What nobody uses any more, what is not touched, then cache that was not used lately, other cache, and whatever the kernel
/// takes.
const AT_EASE: [Step; 5] = [
    (Rung::Trim, retained),
    (Rung::Pageout, untouched),
    (Rung::File, Group::cold_gap),
    (Rung::File, Group::cache_gap),
    (Rung::Anon, Group::gap),
];
/// To look for what is not touched takes too long.
const IN_NEED: [Step; 4] = [
    (Rung::Trim, retained),
    (Rung::Anon, |group| {
        if group.swappable < LEAST {
            0
        } else {
            group.gap()
        }
    }),
    (Rung::File, Group::cold_gap),
    (Rung::File, Group::cache_gap),
];

/// What release agents give back; it needs no swap.
fn retained(group: &Group) -> u64 {
    group.retained.min(over_floor(group))
}

fn over_floor(group: &Group) -> u64 {
    group.current.saturating_sub(group.floor)
}

fn untouched(group: &Group) -> u64 {
    if group.anon_futile_us.is_some_and(|ago| ago < FUTILE_US) {
        0
    } else {
        group.gap().min(group.swappable)
    }
}

/// Intents that together take `bytes`, as far as there is so much.
pub(super) fn take(view: &View, bytes: u64, reason: &str) -> Vec<Intent> {
    by(&AT_EASE, view, bytes, reason)
}

/// The same at once.
pub(super) fn take_at_once(view: &View, bytes: u64, reason: &str) -> Vec<Intent> {
    by(&IN_NEED, view, bytes, reason)
}

fn by(steps: &[Step], view: &View, bytes: u64, reason: &str) -> Vec<Intent> {
    let groups: Vec<&Group> = view.groups.iter().filter(|group| !group.busy).collect();
    // What each gives so far, and of that, by the means that come first for it.
    let mut given: Vec<u64> = vec![0; groups.len()];
    let mut cache: Vec<u64> = vec![0; groups.len()];
    let mut intents: Vec<Intent> = Vec::new();
    let mut left = bytes;
    for (rung, room) in steps {
        let rooms: Vec<u64> = groups
            .iter()
            .enumerate()
            .map(|(at, group)| {
                let before = if *rung == Rung::File {
                    cache[at]
                } else {
                    given[at]
                };
                let most = match rung {
                    Rung::Trim => over_floor(group),
                    _ => group.gap(),
                };
                let most = most.saturating_sub(given[at]);
                room(group).saturating_sub(before).min(most)
            })
            .collect();
        let all: u64 = rooms.iter().sum();
        let part = left.min(all);
        let mut step = Vec::new();
        for (at, room) in rooms.into_iter().enumerate() {
            // In proportion; u128, since the product may not fit.
            let share = (u128::from(part) * u128::from(room))
                .checked_div(u128::from(all))
                .unwrap_or(0) as u64;
            given[at] += share;
            if *rung == Rung::File {
                cache[at] += share;
            }
            if share > 0 {
                step.push((at, share));
            }
        }
        step.sort_by_key(|(_, share)| std::cmp::Reverse(*share));
        for (at, share) in step {
            let path = &groups[at].path;
            // Cold cache and other cache are one write.
            let same = intents
                .iter_mut()
                .find(|it| it.rung == *rung && it.path == *path);
            match same {
                Some(same) => same.bytes += share,
                None => intents.push(intent(path, *rung, share, reason.to_owned())),
            }
        }
        left -= part;
    }
    intents.retain(|intent| intent.bytes >= LEAST);
    intents
}
