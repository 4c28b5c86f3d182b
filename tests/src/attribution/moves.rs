//! A process that moves between cgroups: what it did before stays, what it does after is the new one's.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::calls::{TOTALS, sum_of_rises};
use super::scene::{Look, Scene, rose_by, virtual_size};
use crate::harness::{Outcome, Workload, assert_within};

pub(crate) fn what_a_process_did_stays_with_the_cgroup_it_was_in() -> Result<Outcome> {
    let mut scene = Scene::new()?;
    let mut workload = Workload::start(&scene.a)?;
    let kind = "faults.user_write_total";
    let before = scene.look()?;
    workload.step("map 40960")?;
    workload.step("touch 3000")?;
    scene.b.adopt(workload.pid())?;
    workload.step("map 81920")?;
    workload.step("touch 5000")?;
    let there = scene.look()?;
    let page = 4096;
    rose_by(&there.a, &before.a, "vm.mapped_total", 3010 * page)?;
    rose_by(&there.b, &before.b, "vm.mapped_total", 5020 * page)?;
    rose_by(
        &there.parent,
        &before.parent,
        "vm.mapped_total",
        8030 * page,
    )?;
    assert_within("faults in a", there.a.rise(&before.a, kind)?, 3000, 1.0)?;
    assert_within("faults in b", there.b.rise(&before.b, kind)?, 5000, 1.0)?;
    // Its size goes with it.
    ensure!(
        there.a.get("vm.virtual")? == 0,
        "a has {} bytes virtual",
        there.a.get("vm.virtual")?
    );
    let size = virtual_size(workload.pid())?;
    ensure!(there.b.get("vm.virtual")? == size, "b lacks the process");
    ensure!(
        there.parent.get("vm.virtual")? == size,
        "the parent counts it twice or not"
    );
    // And back.
    scene.a.adopt(workload.pid())?;
    workload.step("unmap")?;
    workload.step("touch 3000")?;
    let back = scene.look()?;
    rose_by(&back.a, &there.a, "vm.unmapped_total", 5000 * page)?;
    rose_by(&back.a, &there.a, "vm.mapped_total", 3000 * page)?;
    assert_within("faults in a again", back.a.rise(&there.a, kind)?, 3000, 1.0)?;
    back.b.unmoved(&there.b, "the cgroup it left", &TOTALS)?;
    Ok(Outcome::Passed)
}

/// Faults in one cgroup, then in the other, by turns.
const ROUNDS: u64 = 200;
const MANY: u64 = 30;
const FEW: u64 = 10;

/// Whether each has the faults of its turns and of no other's.
fn are_rounds(after: &Look, before: &Look) -> Result<()> {
    let kind = "faults.user_write_total";
    let in_a = after.a.rise(&before.a, kind)?;
    let in_b = after.b.rise(&before.b, kind)?;
    assert_within("faults in a", in_a, ROUNDS * MANY, 2.0)?;
    assert_within("faults in b", in_b, ROUNDS * FEW, 4.0)
}

/// Moved after every few faults: a fault program that remembers whose the last fault was must not take one for the other.
pub(crate) fn few_faults_between_moves_count_where_they_are_made() -> Result<Outcome> {
    let mut scene = Scene::new()?;
    let mut workload = Workload::start(&scene.a)?;
    let [a, b] = [&scene.a, &scene.b].map(|cgroup| cgroup.directory().join("cgroup.procs"));
    let before = scene.look()?;
    workload.step(&format!(
        "hop {} {} {ROUNDS} {MANY} {FEW}",
        a.display(),
        b.display()
    ))?;
    are_rounds(&scene.look()?, &before)?;
    Ok(Outcome::Passed)
}

/// Children that get the kernel stack of one that has just ended in another cgroup.
pub(crate) fn children_on_the_stacks_of_others_count_for_their_own() -> Result<Outcome> {
    let mut scene = Scene::new()?;
    let mut workloads = [Workload::start(&scene.a)?, Workload::start(&scene.b)?];
    for workload in &mut workloads {
        workload.step("pin 0")?;
        workload.step("touch 16")?;
        workload.step("lend 1")?;
    }
    let before = scene.look()?;
    for _ in 0..ROUNDS {
        for (workload, pages) in workloads.iter_mut().zip([MANY, FEW]) {
            workload.step(&format!("lend {pages}"))?;
        }
    }
    are_rounds(&scene.look()?, &before)?;
    Ok(Outcome::Passed)
}

/// Moved to and fro while it maps and unmaps without a pause: each call counts once, in one of the two.
pub(crate) fn calls_during_moves_count_once() -> Result<Outcome> {
    let (churn, length) = (5000, 8192);
    let mut scene = Scene::new()?;
    let mut workload = Workload::start(&scene.a)?;
    let before = scene.look()?;
    let (mut moves, mut calls) = (0, 0);
    while moves < 20 {
        workload.send(&format!("churn {churn} {length}"))?;
        calls += churn;
        let told = loop {
            let to = if moves % 2 == 0 { &scene.b } else { &scene.a };
            to.adopt(workload.pid())?;
            moves += 1;
            if let Ok(told) = workload.reply(Duration::from_millis(3)) {
                break told;
            }
        };
        ensure!(told.starts_with("done"), "the workload: {told}");
    }
    let after = scene.look()?;
    let pairs = [(&after.a, &before.a), (&after.b, &before.b)];
    for (place, expected) in [
        ("vm.mapped_total", calls * length),
        ("vm.unmapped_total", calls * length),
        ("vm.map_calls_total", calls),
        ("vm.unmap_calls_total", calls),
    ] {
        let sum = sum_of_rises(pairs, place)?;
        ensure!(
            sum == expected,
            "{place} of both: {sum}, not {expected}, after {moves} moves"
        );
        rose_by(&after.parent, &before.parent, place, expected)?;
        for (now, then) in pairs {
            ensure!(
                now.rise(then, place)? > 0,
                "{place}: one of them did it all"
            );
        }
    }
    Ok(Outcome::Passed)
}
