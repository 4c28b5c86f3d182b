use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    cpu_pct: Some(1.0),
    memory: Some(64 << 20),
};

const ALL: Offer = Offer {
    stacks: true,
    doublings: 4,
    calls: true,
    faults: true,
    recorder: true,
};

fn costs(own_pct: f64, calls_pct: f64, faults_pct: f64, memory: u64) -> Costs {
    Costs {
        own_pct,
        programs: Some(Programs {
            calls_pct,
            faults_pct,
            other_pct: 0.0,
        }),
        memory: Some(memory << 20),
    }
}

/// The changes of so many windows that all cost this.
fn changes(ladder: &mut Ladder, costs: &Costs, windows: u32) -> Vec<Change> {
    (0..windows)
        .filter_map(|_| ladder.window(costs, &LIMITS, &ALL))
        .collect()
}

fn taken(ladder: &Ladder) -> Vec<&'static str> {
    ladder.steps().map(Step::name).collect()
}

const NIL: Costs = Costs {
    own_pct: 0.0,
    programs: None,
    memory: None,
};

#[test]
fn what_costs_us_most_goes_by_our_own_steps_first_and_each_has_two_windows() {
    let mut ladder = Ladder::default();
    let dear = costs(3.0, 0.5, 0.5, 8);
    let steps: Vec<Option<Change>> = (0..16)
        .map(|_| ladder.window(&dear, &LIMITS, &ALL))
        .collect();
    assert!(steps.iter().step_by(2).all(Option::is_none), "{steps:?}");
    assert_eq!(
        taken(&ladder),
        [
            "stacks", "interval", "interval", "interval", "interval", "calls", "faults"
        ]
    );
    assert!(ladder.exhausted());
}

#[test]
fn where_the_programs_cost_most_they_go_before_the_interval() {
    let mut ladder = Ladder::default();
    changes(&mut ladder, &costs(0.2, 1.0, 2.0, 8), 4);
    assert_eq!(taken(&ladder), ["calls", "faults"]);
    changes(&mut ladder, &costs(0.2, 1.0, 2.0, 8), 4);
    assert_eq!(taken(&ladder), ["calls", "faults", "stacks", "interval"]);
}

#[test]
fn what_costs_next_to_nothing_stays() {
    let mut ladder = Ladder::default();
    changes(&mut ladder, &costs(0.01, 0.0, 4.0, 8), 20);
    assert_eq!(taken(&ladder), ["faults", "stacks"]);
    assert!(ladder.exhausted());
    let mut ladder = Ladder::default();
    let unknown = Costs {
        own_pct: 4.0,
        programs: None,
        memory: None,
    };
    changes(&mut ladder, &unknown, 40);
    assert_eq!(ladder.times(Step::Calls) + ladder.times(Step::Faults), 0);
}

#[test]
fn one_window_above_and_anything_between_half_and_whole_change_nothing() {
    let mut ladder = Ladder::default();
    for cost in [3.0, 0.9, 3.0, 0.6, 3.0, 1.0, 3.0] {
        assert_eq!(
            ladder.window(&costs(cost, 0.0, 0.0, 8), &LIMITS, &ALL),
            None
        );
    }
    changes(&mut ladder, &costs(3.0, 0.0, 0.0, 8), 2);
    assert_eq!(taken(&ladder).len(), 1);
    assert!(changes(&mut ladder, &costs(0.7, 0.0, 0.0, 8), 1000).is_empty());
}

#[test]
fn what_went_last_comes_back_first_after_four_windows_below_half() {
    let mut ladder = Ladder::default();
    changes(&mut ladder, &costs(3.0, 0.5, 0.5, 8), 14);
    let back = changes(&mut ladder, &costs(0.4, 0.0, 0.0, 8), 28);
    assert_eq!(
        back,
        [
            Step::Faults,
            Step::Calls,
            Step::Interval,
            Step::Interval,
            Step::Interval,
            Step::Interval,
            Step::Stacks
        ]
        .map(Change::Up)
    );
    assert_eq!(ladder.steps().len(), 0);
}

#[test]
fn memory_has_steps_of_its_own_and_cpu_time_does_not_wait_for_it() {
    let mut ladder = Ladder::default();
    changes(&mut ladder, &costs(0.1, 0.0, 0.0, 80), 4);
    assert_eq!(taken(&ladder), ["stacks", "recorder"]);
    assert!(!ladder.exhausted());
    changes(&mut ladder, &costs(0.1, 0.0, 0.0, 80), 2);
    assert!(ladder.exhausted());
    changes(&mut ladder, &costs(3.0, 0.0, 0.0, 80), 2);
    assert_eq!(taken(&ladder), ["stacks", "recorder", "interval"]);
    // Memory stays between half and whole.
    changes(&mut ladder, &costs(0.0, 0.0, 0.0, 40), 50);
    assert_eq!(taken(&ladder), ["stacks", "recorder"]);
    changes(&mut ladder, &costs(0.0, 0.0, 0.0, 10), 8);
    assert!(taken(&ladder).is_empty());
}

#[test]
fn too_much_memory_holds_back_only_what_saves_memory() {
    let mut ladder = Ladder::default();
    changes(&mut ladder, &costs(3.0, 0.5, 0.5, 8), 14);
    changes(&mut ladder, &costs(0.0, 0.0, 0.0, 80), 50);
    assert_eq!(taken(&ladder), ["stacks", "recorder"]);
}

/// Costs of a step are saved by it, so it comes back and goes again.
#[test]
fn a_step_that_does_not_last_waits_twice_as_long_each_time() {
    let mut ladder = Ladder::default();
    let mut last = 0;
    let mut rests = Vec::new();
    for window in 0..2000_u32 {
        let dear = ladder.times(Step::Faults) == 0;
        let cost = costs(0.0, 0.0, if dear { 3.0 } else { 0.0 }, 8);
        match ladder.window(&cost, &LIMITS, &ALL) {
            Some(Change::Down(Step::Faults)) => last = window,
            Some(Change::Up(Step::Faults)) => rests.push(window - last),
            other => assert_eq!(other, None),
        }
    }
    assert_eq!(rests[..7], [4, 8, 16, 32, 64, 128, 128]);
}

#[test]
fn a_step_that_fails_is_not_taken_and_one_that_cannot_come_back_waits_longer() {
    let mut ladder = Ladder::default();
    changes(&mut ladder, &costs(0.0, 0.0, 3.0, 8), 2);
    ladder.failed(Change::Down(Step::Faults));
    assert!(taken(&ladder).is_empty());
    changes(&mut ladder, &costs(0.0, 0.0, 3.0, 8), 2);
    assert_eq!(changes(&mut ladder, &NIL, 4), [Change::Up(Step::Faults)]);
    ladder.failed(Change::Up(Step::Faults));
    assert_eq!(taken(&ladder), ["faults"]);
    assert!(changes(&mut ladder, &NIL, 7).is_empty());
    assert_eq!(changes(&mut ladder, &NIL, 1), [Change::Up(Step::Faults)]);
}

#[test]
fn nothing_happens_without_limits() {
    let mut ladder = Ladder::default();
    for _ in 0..100 {
        let change = ladder.window(&costs(90.0, 90.0, 90.0, 9000), &Limits::default(), &ALL);
        assert_eq!(change, None);
    }
}

fn any_costs() -> impl Strategy<Value = Costs> {
    let part = prop_oneof![Just(0.0), 0.0..0.5, 0.0..5.0];
    (
        part.clone(),
        part.clone(),
        part.clone(),
        part,
        0_u64..100,
        any::<bool>(),
    )
        .prop_map(|(own, calls, faults, other, memory, known)| Costs {
            own_pct: own,
            programs: known.then_some(Programs {
                calls_pct: calls,
                faults_pct: faults,
                other_pct: other,
            }),
            memory: known.then_some(memory << 20),
        })
}

fn any_offer() -> impl Strategy<Value = Offer> {
    (any::<[bool; 4]>(), 0_usize..5).prop_map(|([stacks, calls, faults, recorder], doublings)| {
        Offer {
            stacks,
            doublings,
            calls,
            faults,
            recorder,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// A step down comes two windows after any other change at the earliest, a step up four; nothing is taken that is
    /// not offered, nor given back that was not taken; and costs that are nil end with everything on.
    #[test]
    fn changes_keep_their_distance_and_end_at_nothing(all in vec(any_costs(), 0..300), offer in any_offer()) {
        let mut ladder = Ladder::default();
        let mut last: Option<usize> = None;
        let mut steps: Vec<Step> = Vec::new();
        for (window, costs) in all.iter().enumerate() {
            let before = taken(&ladder);
            match ladder.window(costs, &LIMITS, &offer) {
                Some(Change::Down(step)) => {
                    let wait = PATIENCE as usize;
                    prop_assert!(last.map_or(window + 1 >= wait, |last| window >= last + wait));
                    prop_assert!(costs.exceeds(&LIMITS).count() > 0);
                    steps.push(step);
                    prop_assert!(ladder.times(step) <= offer.times(step));
                    last = Some(window);
                }
                Some(Change::Up(step)) => {
                    prop_assert!(last.is_some_and(|last| window >= last + WAIT as usize));
                    prop_assert!(!costs.exceeds(&LIMITS).any(|resource| step.helps(resource)));
                    let at = steps.iter().rposition(|it| *it == step);
                    prop_assert!(at.is_some());
                    steps.remove(at.unwrap_or(0));
                    last = Some(window);
                }
                None => prop_assert_eq!(before, taken(&ladder)),
            }
            prop_assert_eq!(ladder.steps().collect::<Vec<_>>(), steps.clone());
        }
        let enough = steps.len() * LONGEST_WAIT as usize;
        for _ in 0..enough {
            let change = ladder.window(&NIL, &LIMITS, &offer);
            prop_assert!(!matches!(change, Some(Change::Down(_))));
        }
        prop_assert_eq!(ladder.steps().len(), 0);
    }
}
