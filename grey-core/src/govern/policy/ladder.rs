//! A size is taken from several cgroups, least harm first: cache that was not used lately, other cache, anonymous memory.

use super::{LEAST, intent};
use crate::govern::{Group, Intent, Rung, View};

/// Intents that together take `bytes`, as far as there is so much: at each step of the ladder, each cgroup gives in
/// proportion to what it has.
pub(super) fn take(view: &View, bytes: u64, reason: &str) -> Vec<Intent> {
    let groups: Vec<&Group> = view.groups.iter().filter(|group| !group.busy).collect();
    let mut plans: Vec<Plan> = vec![Plan::default(); groups.len()];
    let mut left = bytes;
    let steps: [fn(&Group) -> u64; 3] = [Group::cold_gap, Group::cache_gap, Group::gap];
    for (step, room) in steps.into_iter().enumerate() {
        let rooms: Vec<u64> = groups
            .iter()
            .zip(&plans)
            .map(|(group, plan)| room(group).saturating_sub(plan.all()))
            .collect();
        let all: u64 = rooms.iter().sum();
        let part = left.min(all);
        for (plan, room) in plans.iter_mut().zip(rooms) {
            // In proportion; u128, since the product may not fit.
            let share = (u128::from(part) * u128::from(room))
                .checked_div(u128::from(all))
                .unwrap_or(0) as u64;
            if step < 2 {
                plan.file += share;
            } else {
                plan.anon += share;
            }
        }
        left -= part;
    }
    let mut intents = Vec::new();
    for (group, plan) in groups.into_iter().zip(plans) {
        if plan.file >= LEAST {
            intents.push(intent(
                &group.path,
                Rung::File,
                plan.file,
                reason.to_owned(),
            ));
        }
        if plan.anon >= LEAST {
            intents.push(intent(
                &group.path,
                Rung::Anon,
                plan.anon,
                reason.to_owned(),
            ));
        }
    }
    // Least harm first, the most of it first.
    intents.sort_by_key(|intent| (intent.rung, std::cmp::Reverse(intent.bytes)));
    intents
}

#[derive(Clone, Copy, Debug, Default)]
struct Plan {
    file: u64,
    anon: u64,
}

impl Plan {
    fn all(self) -> u64 {
        self.file + self.anon
    }
}
