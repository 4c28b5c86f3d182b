//! In a virtual machine that lies idle, cache that nobody used lately is dropped, anonymous memory of idle cgroups goes
//! to zram or swap, and free pages are moved together: free-page reporting then gives them back to the host.

use std::fmt::Write as _;

use super::{LEAST, intent};
use crate::govern::{Group, Guest, Intent, Rung, View};
use crate::units::{format_bytes, format_duration_us};

/// A cgroup whose memory came back, or that gave next to nothing, is left alone for so long.
const REST_US: u64 = 300_000_000;
/// So much has to be freed before pages are moved together.
const WORTH_MOVING: u64 = 16 << 20;

/// The first step: it shows whether what the kernel holds for cold is. Of what comes back a kernel with generations
/// needs 64 pages to learn from (`MIN_LRU_BATCH`, mm/vmscan.c).
const PROBE: u64 = 2 << 20;
/// So long rests a cgroup whose first step came back: the lesson was small, and what was hot is known by then.
const SHORT_REST_US: u64 = 60_000_000;
/// A step that nobody felt is doubled, so many times at most.
const DOUBLINGS: u32 = 2;

pub(super) fn decide(settings: &Guest, view: &View) -> Vec<Intent> {
    let quiet = view.machine.quiet_us;
    let tight = view
        .machine
        .host_available_pct
        .is_some_and(|pct| pct < settings.host_available_pct);
    // A host in need is not kept waiting for long, and gets cache that was used lately as well.
    let wait = u64::try_from(settings.idle_us).unwrap_or(0) / if tight { 4 } else { 1 };
    if quiet < wait {
        return Vec::new();
    }
    let rests = |group: &Group| {
        group.last.is_some_and(|last| {
            let rest = match last.asked {
                ..=PROBE => SHORT_REST_US,
                _ => REST_US,
            };
            (last.returned() * 100.0 > settings.refault_pct || last.futile()) && last.ago_us < rest
        })
    };
    let mut left = settings.step << DOUBLINGS;
    let mut intents = Vec::new();
    for group in &view.groups {
        if group.busy || rests(group) {
            continue;
        }
        let (cache, kind) = match tight {
            true => (group.cache_gap(), "cache"),
            false => (group.cold_gap(), "cold cache"),
        };
        // What of the anonymous memory is in use is found out page by page when it is taken.
        let (rung, room, kind) = if cache >= LEAST {
            (Rung::File, cache, kind)
        } else if settings.anon && group.gap() > group.cache_gap() {
            let room = group.gap() - group.cache_gap();
            (Rung::Pageout, room, "cold anonymous memory")
        } else {
            continue;
        };
        let bytes = room.min(step(settings, group)).min(left);
        if bytes < LEAST {
            continue;
        }
        left -= bytes;
        let mut reason = format!(
            "idle for {}: {} of {} {kind}",
            format_duration_us(quiet),
            format_bytes(bytes),
            format_bytes(room),
        );
        if let Some(pct) = view.machine.host_available_pct.filter(|_| tight) {
            // Writing to a String cannot fail.
            let _ = write!(reason, "; the host has {pct:.1} % left");
        }
        intents.push(intent(&group.path, rung, bytes, reason));
    }
    // Until pages are moved, next to nothing of what was taken page by page goes back. That is done when all is taken, or
    // so much that the host should not wait for the rest; not while a cgroup is looked at, which it would disturb.
    let scattered = view.machine.scattered;
    let worth = match intents.is_empty() {
        true => WORTH_MOVING,
        false => (settings.step / 2).max(WORTH_MOVING),
    };
    let ready = view.groups.iter().all(|group| !group.busy);
    if settings.compact && ready && scattered >= worth {
        let reason = format!(
            "idle for {}, {} were freed",
            format_duration_us(quiet),
            format_bytes(scattered)
        );
        intents.insert(0, intent("/", Rung::Compact, 0, reason));
    }
    intents
}

/// A kernel with generations keeps no order among pages that were read by read(2) until it has seen some of them come
/// back (`get_tier_idx` of mm/vmscan.c): a small step is all that this lesson costs.
fn step(settings: &Guest, group: &Group) -> u64 {
    match group.last.map_or(0, |last| last.good) {
        0 => settings.step.min(PROBE),
        good => settings.step << (good - 1).min(DOUBLINGS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::govern::view::{Last, Machine};

    const MIB: u64 = 1 << 20;

    fn group() -> Group {
        Group {
            path: "/web".to_owned(),
            current: 900 * MIB,
            cache: 600 * MIB,
            cold_cache: 500 * MIB,
            swappable: 200 * MIB,
            floor: 100 * MIB,
            ..Group::default()
        }
    }

    fn view(groups: Vec<Group>) -> View {
        View {
            machine: Machine {
                quiet_us: 60_000_000,
                ..Machine::default()
            },
            groups,
            ..View::default()
        }
    }

    fn good(times: u32) -> Option<Last> {
        Some(Last {
            asked: 8 * MIB,
            freed: 8 * MIB,
            good: times,
            ago_us: 1,
            ..Last::default()
        })
    }

    fn bytes(view: &View) -> Vec<(Rung, u64)> {
        let intents = decide(&Guest::default(), view);
        intents.iter().map(|it| (it.rung, it.bytes / MIB)).collect()
    }

    #[test]
    fn nothing_is_taken_before_the_machine_is_idle() {
        let mut view = view(vec![group()]);
        view.machine.quiet_us = 9_999_999;
        assert_eq!(bytes(&view), []);
        view.machine.quiet_us = 10_000_000;
        assert_eq!(bytes(&view), [(Rung::File, 2)]);
    }

    #[test]
    fn a_small_step_comes_first_and_steps_that_nobody_felt_are_doubled() {
        let steps = [(0, 2), (1, 128), (2, 256), (3, 500), (9, 500)];
        for (times, wanted) in steps {
            let group = Group {
                last: good(times),
                ..group()
            };
            assert_eq!(bytes(&view(vec![group])), [(Rung::File, wanted)], "{times}");
        }
    }

    #[test]
    fn a_cgroup_whose_memory_came_back_rests() {
        let mut last = good(2).unwrap();
        last.refaults = 8 * MIB / 4096 / 10;
        let mut resting = Group {
            last: Some(last),
            ..group()
        };
        assert_eq!(bytes(&view(vec![resting.clone()])), []);
        last.ago_us = REST_US;
        resting.last = Some(last);
        assert_eq!(bytes(&view(vec![resting.clone()])), [(Rung::File, 256)]);
        // A first step teaches more than it costs.
        last.asked = PROBE;
        last.ago_us = SHORT_REST_US;
        last.good = 0;
        resting.last = Some(last);
        assert_eq!(bytes(&view(vec![resting])), [(Rung::File, 2)]);
    }

    #[test]
    fn anonymous_memory_is_taken_once_cache_gives_no_more() {
        let group = Group {
            cold_cache: 0,
            last: good(1),
            ..group()
        };
        let view = view(vec![group]);
        assert_eq!(bytes(&view), [(Rung::Pageout, 128)]);
        let without = Guest {
            anon: false,
            ..Guest::default()
        };
        assert_eq!(decide(&without, &view), []);
    }

    #[test]
    fn a_host_in_need_gets_more_and_sooner() {
        let mut view = view(vec![Group {
            cold_cache: 0,
            swappable: 0,
            ..group()
        }]);
        view.machine.quiet_us = 2_500_000;
        assert_eq!(bytes(&view), []);
        for (pct, wanted) in [(Some(9.9), vec![(Rung::File, 2)]), (Some(10.0), vec![])] {
            view.machine.host_available_pct = pct;
            assert_eq!(bytes(&view), wanted, "{pct:?}");
        }
        view.machine.host_available_pct = Some(5.0);
        let intents = decide(&Guest::default(), &view);
        assert!(
            intents[0].reason.ends_with("the host has 5.0 % left"),
            "{}",
            intents[0].reason
        );
    }

    #[test]
    fn pages_are_moved_together_once_all_is_taken_and_looked_at() {
        let nothing_left = Group {
            cold_cache: 0,
            swappable: 0,
            ..group()
        };
        let mut view = view(vec![nothing_left]);
        assert_eq!(bytes(&view), []);
        view.machine.scattered = WORTH_MOVING;
        assert_eq!(bytes(&view), [(Rung::Compact, 0)]);
        view.groups[0].busy = true;
        assert_eq!(bytes(&view), []);
        // Much of it is moved before more is taken.
        view.groups[0] = group();
        view.machine.scattered = 64 * MIB - 1;
        assert_eq!(bytes(&view), [(Rung::File, 2)]);
        view.machine.scattered = 64 * MIB;
        assert_eq!(bytes(&view), [(Rung::Compact, 0), (Rung::File, 2)]);
    }
}
