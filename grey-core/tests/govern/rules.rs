//! The rules that hold for every policy, one by one, in a machine of one or two cgroups.

use grey_core::act::protection::Pattern;
use grey_core::event::{Body, Event};
use grey_core::govern::learn::Model;
use grey_core::govern::{Override, PolicyKind, Refused, Rung, Settings};

use crate::catalogue::pool;
use crate::load::Load;
use crate::mixed::assert_budgets;
use crate::run::Run;
use crate::world::{MIB, World};

const A: &str = "/a.service";
const B: &str = "/b.service";
const SECOND: i64 = 1_000_000;

fn load(path: &str) -> Load {
    Load {
        path: path.to_owned(),
        anon: pool(150.0, 50.0, 0.0),
        file: pool(50.0, 0.0, 550.0),
        ..Load::default()
    }
}

/// Two cgroups of 800 MiB on a machine that has this much.
fn world(total: f64) -> World {
    World::new(total * MIB, 0.0, vec![load(A), load(B)])
}

/// Room for all.
fn easy() -> World {
    world(8192.0)
}

/// Page cache counts as available; so the threshold is what makes it want memory.
fn wants(policy: PolicyKind) -> Settings {
    let mut settings = Settings {
        policy,
        emergency: None,
        learn: false,
        ..Settings::default()
    };
    settings.dynamic.available_pct = 100.0;
    settings.dynamic.interval_us = SECOND;
    settings.observe_us = SECOND;
    settings
}

fn run(world: World, settings: Settings) -> Run {
    Run::new(world, settings, Model::default())
}

fn over(path: &str) -> Override {
    Override {
        matches: Pattern::new(path, "").unwrap(),
        policy: None,
        floor: None,
        ceiling: None,
        anon: None,
        freeze: false,
    }
}

fn held(run: &Run, why: &str) -> usize {
    run.governor
        .held()
        .filter(|(_, held)| held.why.name() == why)
        .count()
}

#[test]
fn an_emergency_does_not_wait_for_the_interval_and_none_happens_above_its_threshold() {
    let mut settings = wants(PolicyKind::Conservative);
    settings.conservative.interval_us = 86_400 * SECOND;
    settings.observe_us = 100 * SECOND;
    settings.emergency = Some(grey_core::govern::Emergency {
        available_pct: 99.0,
        bytes: 8 << 20,
        interval_us: SECOND,
    });
    let mut emergency = run(easy(), settings.clone());
    emergency.seconds(10);
    assert!(emergency.done.len() >= 10, "{}", emergency.done.len());
    assert!(emergency.done.iter().all(|it| it.decision.urgent));
    // With none there is only the policy, which is content.
    settings.emergency = None;
    let mut none = run(easy(), settings.clone());
    none.seconds(10);
    assert!(none.done.is_empty());
    settings.emergency = Some(grey_core::govern::Emergency {
        available_pct: 1.0,
        ..grey_core::govern::Emergency::default()
    });
    let mut calm = run(easy(), settings);
    calm.seconds(10);
    assert!(calm.done.is_empty());
}

#[test]
fn a_scheduled_policy_acts_at_its_minute_and_only_then() {
    let mut settings = wants(PolicyKind::Scheduled);
    settings.scheduled.at = vec!["00:20".parse().unwrap(), "00:45".parse().unwrap()];
    settings.scheduled.compact = true;
    let mut run = run(easy(), settings);
    run.seconds(2 * 3600);
    let mut minutes: Vec<String> = run
        .done
        .iter()
        .map(|it| it.decision.at.to_string()[11..19].to_owned())
        .collect();
    minutes.dedup();
    assert_eq!(minutes, ["00:20:00", "00:45:00"]);
    assert!(run.done.iter().any(|it| it.decision.rung == Rung::Compact));
}

#[test]
fn nothing_is_taken_below_the_floor() {
    for floor in [250.0, 400.0, 600.0] {
        let mut settings = wants(PolicyKind::Dynamic);
        settings.floor = (floor * MIB) as u64;
        settings.overrides = vec![Override {
            floor: Some((700.0 * MIB) as u64),
            ..over(B)
        }];
        let mut run = run(easy(), settings);
        for _ in 0..120 {
            run.second();
            assert!(run.world.loads[0].resident() >= floor * MIB - 1.0);
            assert!(run.world.loads[1].resident() >= 700.0 * MIB - 1.0);
        }
        // Without a floor there would be less.
        assert!(
            run.world.loads[0].resident() < floor * MIB + 64.0 * MIB,
            "{floor}"
        );
        assert!(run.world.loads[1].resident() < 764.0 * MIB, "{floor}");
    }
}

#[test]
fn a_cgroup_is_kept_under_its_ceiling_whatever_the_machine_has() {
    let mut settings = wants(PolicyKind::Dynamic);
    settings.dynamic.available_pct = 0.0;
    settings.overrides = vec![Override {
        ceiling: Some((500.0 * MIB) as u64),
        ..over(A)
    }];
    let mut run = run(easy(), settings);
    run.seconds(60);
    assert!(run.world.loads[0].resident() <= 501.0 * MIB);
    assert!(run.done.iter().all(|it| it.decision.path == A));
    assert!((run.world.loads[1].resident() - 800.0 * MIB).abs() < MIB);
}

#[test]
fn what_is_protected_is_left_alone_and_said() {
    let mut run = run(easy(), wants(PolicyKind::Dynamic));
    run.protected = vec![A.to_owned()];
    run.seconds(60);
    assert!(!run.done.is_empty() && run.done.iter().all(|it| it.decision.path == B));
    assert!(held(&run, "protected") > 0);
}

#[test]
fn after_harm_it_waits_and_longer_each_time() {
    let mut settings = wants(PolicyKind::Dynamic);
    settings.observe_us = 10 * SECOND;
    settings.budget.action_bytes = 4 << 20;
    // All of it is in use.
    let mut hot = load(A);
    hot.file = pool(600.0, 0.0, 0.0);
    let world = World::new(8192.0 * MIB, 0.0, vec![hot]);
    let mut run = run(world, settings);
    run.seconds(3600);
    let at: Vec<i64> = run
        .done
        .iter()
        .map(|it| it.decision.at.0 / SECOND)
        .collect();
    assert!(at.len() >= 3, "{at:?}");
    let gaps: Vec<i64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // A minute, then two, counted from the end of the observation; then it is left alone: all of it came back.
    assert!((70..80).contains(&gaps[0]), "{gaps:?}");
    assert!((130..140).contains(&gaps[1]), "{gaps:?}");
    assert!(held(&run, "comes_back") > 0 && at.len() < 6, "{at:?}");
}

#[test]
fn budgets_are_never_exceeded_whoever_wants_more() {
    let mut settings = wants(PolicyKind::Dynamic);
    settings.floor = 0;
    settings.budget.bytes_per_s = 3 << 20;
    settings.budget.actions_per_min = 7;
    settings.budget.action_bytes = 9 << 20;
    settings.emergency = Some(grey_core::govern::Emergency {
        available_pct: 99.0,
        bytes: 1 << 30,
        interval_us: SECOND,
    });
    let mut run = run(easy(), settings);
    run.seconds(600);
    assert_budgets(&run);
    assert!(run.done.len() >= 60, "{}", run.done.len());
    assert!(held(&run, "budget") > 0);
}

#[test]
fn on_lossy_figures_nothing_is_decided() {
    let mut run = run(easy(), wants(PolicyKind::Dynamic));
    // One line of a tick is enough, and it is not the last.
    run.spoil = |event| {
        event.lossy = event.cgroup.as_ref().is_some_and(|cgroup| cgroup.path == A);
    };
    run.seconds(30);
    assert!(run.done.is_empty() && held(&run, "lossy") > 0);
    run.spoil = |_| {};
    run.seconds(5);
    assert!(!run.done.is_empty());
}

#[test]
fn the_first_override_that_matches_decides() {
    let mut settings = wants(PolicyKind::Dynamic);
    settings.overrides = vec![
        Override {
            policy: Some(PolicyKind::Observe),
            ..over("/a*")
        },
        Override {
            policy: Some(PolicyKind::Dynamic),
            ..over(A)
        },
    ];
    let mut overridden = run(easy(), settings.clone());
    overridden.seconds(30);
    assert!(!overridden.done.is_empty() && overridden.done.iter().all(|it| it.decision.path == B));
    settings.overrides.reverse();
    let mut reversed = run(easy(), settings);
    reversed.seconds(30);
    assert!(reversed.done.iter().any(|it| it.decision.path == A));
}

#[test]
fn observe_does_nothing_not_even_in_an_emergency() {
    let mut settings = wants(PolicyKind::Observe);
    settings.emergency = Some(grey_core::govern::Emergency {
        available_pct: 99.0,
        ..grey_core::govern::Emergency::default()
    });
    let mut run = run(easy(), settings);
    run.seconds(60);
    assert!(run.done.is_empty());
}

#[test]
fn a_cgroup_is_left_alone_while_an_action_on_it_is_observed() {
    let mut settings = wants(PolicyKind::Dynamic);
    settings.observe_us = 20 * SECOND;
    settings.budget.action_bytes = 4 << 20;
    let mut run = run(easy(), settings);
    run.seconds(200);
    for path in [A, B] {
        let mine = run.done.iter().filter(|it| it.decision.path == path);
        let at: Vec<i64> = mine.map(|it| it.decision.at.0).collect();
        assert!(at.len() > 5, "{at:?}");
        assert!(at.windows(2).all(|pair| pair[1] - pair[0] >= 20 * SECOND));
    }
}

/// The figures that a sample does not have.
fn without(edit: fn(&mut grey_core::event::Sample)) -> impl Fn(PolicyKind) -> usize {
    move |policy| {
        let mut settings = wants(policy);
        settings.conservative.available_pct = 100.0;
        settings.aggressive.used_pct = 0.0;
        settings.emergency = Some(grey_core::govern::Emergency {
            available_pct: 99.0,
            ..grey_core::govern::Emergency::default()
        });
        let mut run = run(easy(), settings);
        run.seconds(2);
        let mut count = 0;
        for _ in 0..30 {
            run.world.step();
            for mut event in run.world.samples() {
                if let Body::Sample(sample) = &mut event.body {
                    edit(sample);
                }
                run.governor.observe(&event);
            }
            count += run.governor.decide(run.world.now(), &|_| None).len();
        }
        count
    }
}

#[test]
fn on_what_is_not_known_nothing_is_decided() {
    let whole = without(|_| {});
    let acting = [
        PolicyKind::Conservative,
        PolicyKind::Dynamic,
        PolicyKind::Aggressive,
    ];
    for policy in acting {
        assert!(whole(policy) > 0, "{policy}");
        let no_total = without(|sample| sample.mem.total = None);
        let no_available = without(|sample| sample.mem.available = None);
        let no_file = without(|sample| sample.mem.file = None);
        let no_current = without(|sample| sample.mem.current = None);
        for unknown in [
            &no_total(policy),
            &no_available(policy),
            &no_file(policy),
            &no_current(policy),
        ] {
            assert_eq!(*unknown, 0, "{policy}");
        }
    }
    let proactive = PolicyKind::Proactive;
    assert!(emergency_free(|_| {}) > 0);
    assert_eq!(
        emergency_free(|sample| {
            sample.psi = None;
            sample.reclaim = None;
        }),
        0,
        "{proactive}: neither stalls nor refaults"
    );
    // Either is enough.
    assert!(emergency_free(|sample| sample.psi = None) > 0);
}

/// Decisions of the proactive policy from samples that are incomplete from the start.
fn emergency_free(edit: fn(&mut grey_core::event::Sample)) -> usize {
    let mut run = run(easy(), wants(PolicyKind::Proactive));
    let mut count = 0;
    for _ in 0..30 {
        run.world.step();
        for mut event in run.world.samples() {
            if let Body::Sample(sample) = &mut event.body {
                edit(sample);
            }
            run.governor.observe(&event);
        }
        count += run.governor.decide(run.world.now(), &|_| None).len();
    }
    count
}

#[test]
fn without_a_figure_of_swap_no_anonymous_memory_is_taken() {
    let mut settings = wants(PolicyKind::Dynamic);
    settings.floor = 0;
    let mut world = easy();
    world.swap = 4096.0 * MIB;
    let mut known = run(world.clone(), settings.clone());
    known.seconds(60);
    assert!(known.done.iter().any(|it| it.decision.rung.needs_swap()));
    let mut unknown = run(world, settings);
    unknown.spoil = |event: &mut Event| {
        if let Body::Sample(sample) = &mut event.body {
            sample.mem.swap_free = None;
        }
    };
    unknown.seconds(60);
    assert!(!unknown.done.is_empty());
    assert!(unknown.done.iter().all(|it| !it.decision.rung.needs_swap()));
}

#[test]
fn a_clock_that_is_set_back_neither_stops_it_nor_frees_it_of_its_budget() {
    let mut settings = wants(PolicyKind::Dynamic);
    settings.budget.bytes_per_s = 1 << 20;
    settings.floor = 0;
    let mut run = run(easy(), settings);
    run.seconds(600);
    let now = run.world.now();
    let lately = run.done.iter().rev().map(|it| &it.decision);
    let before: u64 = lately
        .take_while(|it| it.at.0 > now.0 - 10 * SECOND)
        .map(|it| it.bytes)
        .sum();
    assert!(before > 5 << 20, "{before}");
    let count = run.done.len();
    run.world.second -= 500;
    run.seconds(9);
    assert!(
        before + bytes(&run, count) <= 10 << 20,
        "the budget was forgotten"
    );
    run.seconds(60);
    assert!(bytes(&run, count) > 20 << 20, "it waits for the old time");
}

fn bytes(run: &Run, from: usize) -> u64 {
    run.done[from..].iter().map(|it| it.decision.bytes).sum()
}

#[test]
fn what_was_refused_says_by_which_rule() {
    for (why, name) in [
        (Refused::Lossy, "lossy"),
        (Refused::Protected(String::new()), "protected"),
        (Refused::Floor, "floor"),
        (Refused::Busy, "busy"),
        (Refused::CoolingDown, "cooling_down"),
        (Refused::ComesBack, "comes_back"),
        (Refused::Budget, "budget"),
        (Refused::Learned, "learned"),
        (Refused::NoSwap, "no_swap"),
    ] {
        assert_eq!(why.name(), name);
    }
}
