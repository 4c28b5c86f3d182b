use super::*;
use crate::govern::view::Last;
use crate::govern::{Conservative, Dynamic, Group, Growth, Machine, Proactive, Since};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A cgroup of 1000 MiB over a floor of 100: 400 cold cache, 200 other, 400 anonymous.
fn group(path: &str) -> Group {
    Group {
        path: path.to_owned(),
        current: 1000 * MIB,
        cache: 600 * MIB,
        cold_cache: 400 * MIB,
        swappable: 400 * MIB,
        floor: 100 * MIB,
        since: Since {
            us: 6_000_000,
            psi_some_us: Some(0),
            refaults: Some(0),
            ..Since::default()
        },
        ..Group::default()
    }
}

fn view(available_pct: u64, groups: Vec<Group>) -> View {
    View {
        machine: Machine {
            total: Some(100 * GIB),
            available: Some(available_pct * GIB),
            swap_free: Some(10 * GIB),
            ..Machine::default()
        },
        groups,
        ..View::default()
    }
}

/// Means and MiB of what is wanted.
fn wanted(intents: &[Intent]) -> Vec<(&str, Rung, u64)> {
    intents
        .iter()
        .map(|it| (it.path.as_str(), it.rung, it.bytes / MIB))
        .collect()
}

#[test]
fn what_is_not_touched_goes_before_cache_which_counts_as_available() {
    let take = |bytes, groups| ladder::take(&view(1, groups), bytes, "why");
    assert_eq!(
        wanted(&take(300 * MIB, vec![group("/a")])),
        [("/a", Rung::Pageout, 300)]
    );
    assert_eq!(
        wanted(&take(700 * MIB, vec![group("/a")])),
        [("/a", Rung::Pageout, 400), ("/a", Rung::File, 300)]
    );
    // All there is over the floor and no more.
    let all = take(u64::MAX, vec![group("/a")]);
    assert_eq!(all.iter().map(|it| it.bytes).sum::<u64>(), 900 * MIB);
    // The last look found none: page cache, then whatever the kernel takes.
    let futile = Group {
        anon_futile_us: Some(1_000_000),
        ..group("/a")
    };
    assert_eq!(
        wanted(&take(700 * MIB, vec![futile])),
        [("/a", Rung::File, 600), ("/a", Rung::Anon, 100)]
    );
    // Without swap there is only page cache.
    let bare = Group {
        swappable: 0,
        ..group("/a")
    };
    assert_eq!(wanted(&take(GIB, vec![bare])), [("/a", Rung::File, 600)]);
}

#[test]
fn what_a_release_agent_gives_back_goes_first_and_needs_no_swap() {
    let holds = Group {
        retained: 250 * MIB,
        ..group("/a")
    };
    let take = |bytes, group: &Group| ladder::take(&view(1, vec![group.clone()]), bytes, "why");
    assert_eq!(
        wanted(&take(300 * MIB, &holds)),
        [("/a", Rung::Trim, 250), ("/a", Rung::Pageout, 50)]
    );
    assert_eq!(
        wanted(&ladder::take_at_once(
            &view(1, vec![holds.clone()]),
            100 * MIB,
            "why"
        )),
        [("/a", Rung::Trim, 100)]
    );
    let bare = Group {
        swappable: 0,
        cache: 0,
        cold_cache: 0,
        ..holds.clone()
    };
    assert_eq!(wanted(&take(GIB, &bare)), [("/a", Rung::Trim, 250)]);
    // Not below the floor.
    let low = Group {
        current: 150 * MIB,
        ..bare
    };
    assert_eq!(wanted(&take(GIB, &low)), [("/a", Rung::Trim, 50)]);
}

#[test]
fn each_gives_in_proportion_and_who_is_busy_nothing() {
    let small = Group {
        swappable: 100 * MIB,
        ..group("/small")
    };
    let busy = Group {
        busy: true,
        ..group("/busy")
    };
    let intents = ladder::take(
        &view(1, vec![group("/large"), small, busy]),
        100 * MIB,
        "why",
    );
    assert_eq!(
        wanted(&intents),
        [("/large", Rung::Pageout, 80), ("/small", Rung::Pageout, 20)]
    );
}

#[test]
fn an_emergency_asks_the_kernel_at_once() {
    let settings = crate::govern::Emergency::default();
    let busy = Group {
        busy: true,
        ..group("/a")
    };
    let intents = emergency(&settings, &view(2, vec![busy.clone()]));
    assert_eq!(wanted(&intents), [("/a", Rung::Anon, 256)]);
    assert!(intents.iter().all(|it| it.urgent));
    assert!(emergency(&settings, &view(3, vec![busy])).is_empty());
}

#[test]
fn conservative_acts_at_either_sign_of_need_alone() {
    let settings = Conservative::default();
    let with = |available, stalled| {
        let mut view = view(available, vec![group("/a")]);
        view.machine.since = Since {
            us: 10_000_000,
            psi_some_us: stalled,
            ..Since::default()
        };
        !conservative::decide(&settings, &view).is_empty()
    };
    assert!(with(4, None));
    assert!(with(50, Some(2_000_000)));
    assert!(!with(5, None));
    assert!(!with(5, Some(1_999_999)));
}

#[test]
fn dynamic_takes_what_is_missing_less_what_ceilings_give() {
    let settings = Dynamic::default();
    let above = Group {
        ceiling: Some(700 * MIB),
        ..group("/above")
    };
    // Enough is available: only the ceiling counts.
    let intents = dynamic::decide(&settings, &view(20, vec![above.clone(), group("/b")]));
    assert_eq!(wanted(&intents), [("/above", Rung::File, 300)]);
    let mut short = view(20, vec![above, group("/b")]);
    short.machine.available = Some(20 * GIB - 500 * MIB);
    let intents = dynamic::decide(&settings, &short);
    assert_eq!(
        wanted(&intents),
        [("/above", Rung::File, 300), ("/b", Rung::Pageout, 200)]
    );
    // A ceiling below the floor is the floor.
    let low = Group {
        ceiling: Some(MIB),
        ..group("/low")
    };
    let intents = dynamic::decide(&settings, &view(20, vec![low]));
    assert_eq!(intents.iter().map(|it| it.bytes).sum::<u64>(), 900 * MIB);
}

fn step(group: Group) -> Option<(Rung, u64)> {
    let intents = proactive::decide(&Proactive::default(), &view(50, vec![group]));
    intents.first().map(|it| (it.rung, it.bytes / MIB))
}

#[test]
fn proactive_takes_a_tenth_of_the_cold_and_faster_while_nothing_comes_back() {
    assert_eq!(step(group("/a")), Some((Rung::File, 40)));
    let after = |good, refaults| Group {
        last: Some(Last {
            asked: 40 * MIB,
            freed: 40 * MIB,
            refaults,
            good,
            ago_us: 12_000_000,
            file_only: true,
            ..Last::default()
        }),
        ..group("/a")
    };
    // 40 · √2, and no more than a step.
    assert_eq!(step(after(1, 0)), Some((Rung::File, 56)));
    assert_eq!(step(after(8, 0)), Some((Rung::File, 64)));
    // 5 % of it came back, then 10 %.
    assert_eq!(step(after(8, 512)), Some((Rung::File, 38)));
    assert_eq!(step(after(8, 1024)), None);
    // It rests for ten intervals.
    let mut rested = after(0, 10_240);
    if let Some(last) = &mut rested.last {
        last.ago_us = 60_000_000;
    }
    assert_eq!(step(rested), Some((Rung::File, 40)));
}

#[test]
fn proactive_slows_down_with_stalls_and_stops_at_the_limit() {
    let stalled = |us| {
        let mut group = group("/a");
        group.since.psi_some_us = Some(us);
        step(group)
    };
    // 0.1 % of six seconds is the limit.
    assert_eq!(stalled(3_000), Some((Rung::File, 20)));
    assert_eq!(stalled(6_000), None);
    assert_eq!(stalled(u64::MAX / 2), None);
}

#[test]
fn proactive_goes_on_to_what_is_not_touched_when_little_is_cold() {
    let used = Group {
        cold_cache: 30 * MIB,
        ..group("/a")
    };
    assert_eq!(step(used.clone()), Some((Rung::Pageout, 40)));
    let futile = Group {
        anon_futile_us: Some(0),
        ..used.clone()
    };
    // A quarter of a percent of what may be in use.
    assert_eq!(step(futile), Some((Rung::File, 1)));
    let unknown = Group {
        since: Since::default(),
        ..used
    };
    assert_eq!(step(unknown), None);
}

#[test]
fn proactive_leaves_cache_alone_that_came_back_and_goes_on_to_what_is_not_touched() {
    let came_back = |cache_cools| Group {
        cache_cools,
        last: Some(Last {
            asked: 32 * MIB,
            freed: 32 * MIB,
            refaults: 8192,
            ago_us: 1_000_000,
            file_only: true,
            ..Last::default()
        }),
        ..group("/a")
    };
    assert_eq!(step(came_back(false)), None);
    assert_eq!(step(came_back(true)), Some((Rung::Pageout, 40)));
    let futile = Group {
        anon_futile_us: Some(0),
        ..came_back(true)
    };
    assert_eq!(step(futile), None);
}

#[test]
fn a_leak_is_contained_where_it_runs_away_and_never_below_its_use() {
    let leaks = |rate_bps, ttl_s| Group {
        leak: Some(Growth { rate_bps, ttl_s }),
        ..group("/a")
    };
    let mut settings = Settings {
        contain_leaks: true,
        ..Settings::default()
    };
    let all = view(
        50,
        vec![
            leaks(2e6, Some(100.0)),
            leaks(2e6, None),
            leaks(2e6, Some(1000.0)),
            leaks(1e5, Some(100.0)),
        ],
    );
    let intents = contain(&settings, &all);
    assert_eq!(
        wanted(&intents),
        [("/a", Rung::High, 1000), ("/a", Rung::High, 1000)]
    );
    assert!(
        intents[0].reason.contains("buys 7m52s"),
        "{}",
        intents[0].reason
    );
    settings.contain_leaks = false;
    assert!(contain(&settings, &all).is_empty());
}
