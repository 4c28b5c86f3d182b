//! Two hours of mixed load under every policy, beside the same hours with none.

use grey_core::govern::learn::Model;
use grey_core::govern::{PolicyKind, Settings};

use crate::catalogue::mixed;
use crate::load::PAGE;
use crate::run::Run;
use crate::world::MIB;

const HOURS: u64 = 2;
const SEEDS: [u64; 4] = [1, 2, 3, TIGHT];
const TIGHT: u64 = 4;
/// Of what is taken from a cgroup, no more than this may come back to it, beside a small rest, a tenth of what comes back
/// without any policy (the kernel's own reclaim shifts), and, since nobody can know before, its hot set once.
const MOST_BACK: f64 = 0.25;
const REST: f64 = 16.0 * MIB;

fn settings(policy: PolicyKind) -> Settings {
    let mut settings = Settings {
        policy,
        ..Settings::default()
    };
    // Such that there is something to do.
    settings.dynamic.available_pct = 30.0;
    settings.aggressive.used_pct = 70.0;
    settings.conservative.available_pct = 20.0;
    settings.scheduled.at = vec!["*/10 * * * *".parse().unwrap()];
    settings
}

/// Two hours; and what had come back to each cgroup after the first.
fn two_hours(policy: PolicyKind, seed: u64) -> (Run, Vec<f64>) {
    let mut world = mixed(seed);
    if seed == TIGHT {
        // It runs out of memory now and then, whoever governs.
        world.total *= 0.8;
        world.swap = 0.0;
    }
    let mut run = Run::new(world, settings(policy), Model::default());
    let back = |run: &Run| {
        let loads = run.world.loads.iter();
        loads.map(|load| load.totals.refaults * PAGE).collect()
    };
    run.seconds(HOURS * 1800);
    let first = back(&run);
    run.seconds(HOURS * 1800);
    (run, first)
}

/// In any ten seconds no more bytes, in any minute no more actions than are budgeted.
pub(crate) fn assert_budgets(run: &Run) {
    let budget = run.governor.settings().budget.clone();
    let done: Vec<_> = run.done.iter().map(|it| &it.decision).collect();
    for (index, first) in done.iter().enumerate() {
        let within = |us: i64| {
            done[index..]
                .iter()
                .take_while(move |it| it.at.0 < first.at.0 + us)
        };
        let bytes: u64 = within(10_000_000)
            .filter(|it| it.rung.takes())
            .map(|it| it.bytes)
            .sum();
        assert!(
            bytes <= budget.bytes_per_s * 10,
            "{bytes} bytes in ten seconds from {}",
            first.at
        );
        let actions = within(60_000_000).count();
        assert!(
            actions <= budget.actions_per_min as usize,
            "{actions} actions in a minute from {}",
            first.at
        );
        assert!(first.bytes <= budget.action_bytes, "{first:?}");
    }
}

fn check(policy: PolicyKind) {
    let mut freed_by_all = 0.0;
    for seed in SEEDS {
        let (control, control_first) = two_hours(PolicyKind::Observe, seed);
        assert!(control.done.is_empty());
        let (run, first) = two_hours(policy, seed);
        assert!(
            run.world.ooms <= control.world.ooms,
            "{policy}, seed {seed}: {} OOM kills, {} without it",
            run.world.ooms,
            control.world.ooms
        );
        assert_budgets(&run);
        let freed = run.freed();
        for (index, load) in run.world.loads.iter().enumerate() {
            let without = control.world.loads[index].totals.refaults * PAGE;
            let freed = freed.get(load.path.as_str()).copied().unwrap_or(0.0);
            let back = load.totals.refaults * PAGE - without;
            let again = back - (first[index] - control_first[index]);
            let hot = load.file.hot + load.file.out_hot + load.anon.hot + load.anon.out_hot;
            println!(
                "{policy:12} {seed} {:32} freed {:6.0} MiB; came back {:7.1} MiB more than {:.0} MiB, {:.1} in the second hour",
                load.path,
                freed / MIB,
                back / MIB,
                without / MIB,
                again / MIB,
            );
            let bound = MOST_BACK * freed + REST + without * 0.1;
            assert!(
                back <= bound + hot && again <= bound,
                "{policy}, seed {seed}: of {:.0} MiB taken from {}, {:.0} MiB came back, {:.0} of it in the second hour",
                freed / MIB,
                load.path,
                back / MIB,
                again / MIB
            );
        }
        println!(
            "{policy:12} {seed} {} actions, OOM kills {} ({} without), work done {:.4} of that without",
            run.done.len(),
            run.world.ooms,
            control.world.ooms,
            run.cpu_us() / control.cpu_us(),
        );
        assert!(
            run.cpu_us() >= control.cpu_us() * 0.995,
            "{policy}, seed {seed}: work was lost"
        );
        freed_by_all += run.freed_bytes();
    }
    // A policy that does nothing would pass all of this.
    assert!(freed_by_all > 100.0 * MIB, "{policy} took nothing");
}

#[test]
fn two_hours_of_conservative_do_no_harm() {
    check(PolicyKind::Conservative);
}

#[test]
fn two_hours_of_dynamic_do_no_harm() {
    check(PolicyKind::Dynamic);
}

#[test]
fn two_hours_of_aggressive_do_no_harm() {
    check(PolicyKind::Aggressive);
}

#[test]
fn two_hours_of_scheduled_do_no_harm() {
    check(PolicyKind::Scheduled);
}

#[test]
fn two_hours_of_proactive_do_no_harm() {
    check(PolicyKind::Proactive);
}

#[test]
fn two_hours_of_guest_do_no_harm() {
    check(PolicyKind::Guest);
}
