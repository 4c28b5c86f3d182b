//! What is learned from two hundred outcomes on some machines does less harm on others, at what is freed; and it can be
//! forgotten.

use grey_core::govern::learn::Model;
use grey_core::govern::{PolicyKind, Settings};

use crate::catalogue::node;
use crate::run::Run;
use crate::world::MIB;

const DAY: u64 = 86_400;
const OUTCOMES: u64 = 200;
const HELD_OUT: [u64; 4] = [101, 102, 103, 104];

/// A fixed step: a part of what each cgroup can give, again and again.
fn settings(policy: PolicyKind, learn: bool) -> Settings {
    let mut settings = Settings {
        policy,
        learn,
        ..Settings::default()
    };
    settings.scheduled.at = vec!["*/20 * * * *".parse().unwrap()];
    settings.scheduled.take_pct = 10.0;
    settings
}

fn run(seed: u64, settings: Settings, model: Model) -> Run {
    let mut run = Run::new(node(seed), settings, model);
    run.every = 10;
    run
}

/// A model of two hundred outcomes of the fixed step on other machines.
fn learned() -> Model {
    let mut model = Model::default();
    for seed in 1.. {
        let mut run = run(seed, settings(PolicyKind::Scheduled, false), model.clone());
        for _ in 0..DAY / 10 {
            run.seconds(10);
            if run.governor.model().outcomes >= OUTCOMES {
                return run.governor.model().clone();
            }
        }
        model = run.governor.model().clone();
    }
    model
}

struct Day {
    freed: f64,
    back: f64,
    stalled: f64,
}

impl std::iter::Sum for Day {
    fn sum<I: Iterator<Item = Day>>(days: I) -> Day {
        let none = Day {
            freed: 0.0,
            back: 0.0,
            stalled: 0.0,
        };
        days.fold(none, |a, b| Day {
            freed: a.freed + b.freed,
            back: a.back + b.back,
            stalled: a.stalled + b.stalled,
        })
    }
}

impl Day {
    /// Bytes that came back, and time that was stalled, in a GiB that was freed.
    fn harm(&self) -> (f64, f64) {
        let gib = self.freed / (1024.0 * MIB);
        (self.back / gib, self.stalled / gib)
    }
}

fn day(seed: u64, settings: Settings, model: &Model) -> Day {
    let mut control = run(
        seed,
        self::settings(PolicyKind::Observe, false),
        Model::default(),
    );
    control.seconds(DAY);
    let mut run = run(seed, settings, model.clone());
    run.seconds(DAY);
    Day {
        freed: run.freed_bytes(),
        back: run.refaulted_bytes() - control.refaulted_bytes(),
        stalled: run.stalled_us() - control.stalled_us(),
    }
}

#[test]
fn after_two_hundred_outcomes_a_gib_does_a_third_less_harm_on_machines_it_has_not_seen() {
    let model = learned();
    println!("{} outcomes, {} bad", model.outcomes, model.bad);
    for (name, weight) in model.weights() {
        println!("  {name:16} {weight:6.2}");
    }
    let policy = PolicyKind::Scheduled;
    let all = |learn| -> Day {
        let days = HELD_OUT.iter();
        days.map(|seed| day(*seed, settings(policy, learn), &model))
            .sum()
    };
    let (fixed, learned) = (all(false), all(true));
    let ((back, stalled), (back_then, stalled_then)) = (learned.harm(), fixed.harm());
    println!(
        "a GiB freed: {:.0} MiB came back instead of {:.0} MiB, {:.2} s stalled instead of {:.2} s; freed {:.2} of it",
        back / MIB,
        back_then / MIB,
        stalled / 1e6,
        stalled_then / 1e6,
        learned.freed / fixed.freed
    );
    assert!(back <= 0.7 * back_then && stalled <= 0.7 * stalled_then);
    assert!(learned.freed >= 0.9 * fixed.freed);
}

#[test]
fn what_was_learned_changes_decisions_and_forgetting_brings_the_fixed_ones_back() {
    let settings = || settings(PolicyKind::Scheduled, true);
    let decisions = |mut run: Run| -> Vec<_> {
        run.seconds(DAY / 4);
        let done = run.done.iter().map(|it| &it.decision);
        done.map(|it| (it.at, it.path.clone(), it.bytes)).collect()
    };
    let fresh = decisions(run(7, settings(), Model::default()));
    assert!(fresh.len() > 20);
    let model = learned();
    assert_ne!(decisions(run(7, settings(), model.clone())), fresh);
    let mut forgetful = run(7, settings(), model);
    forgetful.governor.forget();
    assert_eq!(decisions(forgetful), fresh);
}
