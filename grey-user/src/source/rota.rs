//! Whose turn it is: of thousands of cgroups in which nothing is seen to happen, a few are looked at in each tick.

use std::collections::VecDeque;

/// Cgroups in the order in which they are looked at, round after round.
///
/// Not by their ids: the kernel numbers the files of a cgroup as well, so the ids of many lie a constant apart, and thousands
/// would come in a few ticks of a round and none in the others.
#[derive(Debug, Default)]
pub(super) struct Rota {
    ids: VecDeque<u64>,
    /// What earlier ticks left: turns times ticks of a round.
    owed: u64,
}

impl Rota {
    /// One that was not there before: the last of a round that begins now.
    pub(super) fn push(&mut self, id: u64) {
        self.ids.push_back(id);
    }

    /// Nobody but these is in the list any more.
    pub(super) fn retain(&mut self, lives: impl Fn(u64) -> bool) {
        self.ids.retain(|id| lives(*id));
    }

    /// Those whose turn it is in this tick, so that all have had theirs after `ticks` of them. Who does not live any more
    /// leaves the list when it would be its turn.
    pub(super) fn turns(&mut self, ticks: u64, lives: impl Fn(u64) -> bool) -> Vec<u64> {
        let ticks = ticks.max(1);
        self.owed += self.ids.len() as u64;
        let mut turns = Vec::new();
        while self.owed >= ticks
            && let Some(id) = self.ids.pop_front()
        {
            if lives(id) {
                turns.push(id);
                self.owed -= ticks;
            }
        }
        self.owed %= ticks;
        self.ids.extend(&turns);
        turns
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_a_round_apart_do_not_come_all_at_once() {
        let mut rota = Rota::default();
        // Sixty files and more have a number of their own in each cgroup.
        (0..10_000).for_each(|n| rota.push(n * 60));
        for _ in 0..90 {
            let turns = rota.turns(30, |_| true).len();
            assert!((333..=334).contains(&turns), "{turns}");
        }
    }

    #[test]
    fn of_fewer_than_a_round_has_ticks_each_comes_once_in_a_round() {
        let mut rota = Rota::default();
        (0..7).for_each(|id| rota.push(id));
        let turns: Vec<u64> = (0..60).flat_map(|_| rota.turns(30, |_| true)).collect();
        assert_eq!(turns, (0..7).chain(0..7).collect::<Vec<u64>>());
    }

    #[test]
    fn nobody_left_is_no_endless_round() {
        let mut rota = Rota::default();
        assert!(rota.turns(1, |_| true).is_empty());
        (0..100).for_each(|id| rota.push(id));
        assert!(rota.turns(1, |_| false).is_empty());
        rota.push(100);
        assert_eq!(rota.turns(0, |_| true), [100_u64]);
    }

    proptest! {
        /// Whoever comes and goes: between two turns of one that stays there are never more ticks than a round has.
        #[test]
        fn a_round_is_never_longer_than_said(
            ticks in 1_u64..40,
            begin in 0_u64..200,
            steps in proptest::collection::vec((0_u64..20, 0_usize..20), 1..120),
        ) {
            let mut rota = Rota::default();
            let mut living: HashSet<u64> = (0..begin).collect();
            (0..begin).for_each(|id| rota.push(id));
            let mut seen: HashMap<u64, u64> = living.iter().map(|id| (*id, 0)).collect();
            let mut new = begin;
            for (now, (come, go)) in (1..).zip(steps) {
                for _ in 0..come {
                    rota.push(new);
                    living.insert(new);
                    seen.insert(new, now - 1);
                    new += 1;
                }
                let gone: Vec<u64> = living.iter().copied().take(go).collect();
                for id in gone {
                    living.remove(&id);
                }
                let turns = rota.turns(ticks, |id| living.contains(&id));
                for id in turns {
                    prop_assert!(living.contains(&id));
                    seen.insert(id, now);
                }
                for id in &living {
                    prop_assert!(now - seen[id] <= ticks, "{id} at {now}: {}", seen[id]);
                }
            }
        }
    }
}
