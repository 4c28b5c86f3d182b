//! A controller that is killed, stopped or left without its guard between any two of its system calls leaves nothing
//! behind.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::crash::inject;
use crate::crash::point::Blow;
use crate::crash::scene::Action;
use crate::crash::sweep::{Choice, sweep};
use crate::harness::{Outcome, Trial};

pub(crate) fn trials() -> Vec<Trial> {
    let trials = [
        Trial::new(
            "vm_crash_a_controller_killed_anywhere_has_its_limits_taken_back",
            killed_limits,
        )
        .shown_on(&["6.1", "6.12", "7.2"]),
        Trial::new(
            "vm_crash_a_controller_killed_anywhere_has_freeze_and_reclaim_taken_back",
            killed_others,
        )
        .shown_on(&["5.10", "6.12", "7.2"]),
        Trial::new(
            "vm_crash_a_controller_killed_anywhere_has_ksm_taken_back",
            killed_ksm,
        )
        .shown_on(&["6.12", "7.2"]),
        Trial::new(
            "vm_crash_a_controller_stopped_anywhere_is_taken_over_and_ends_by_itself",
            stopped,
        )
        .shown_on(&["6.12"]),
        Trial::new(
            "vm_crash_after_guard_and_controller_were_killed_rollback_alone_is_enough",
            both_killed,
        )
        .shown_on(&["5.10", "6.12"]),
        Trial::new(
            "vm_crash_without_its_guard_a_controller_takes_everything_back",
            without_guard,
        )
        .shown_on(&["6.1", "6.12"]),
        Trial::new(
            "vm_crash_a_controller_whose_calls_fail_ends_in_order",
            inject::trial,
        )
        .shown_on(&["6.1", "6.12"]),
    ];
    trials
        .map(|trial| trial.with_deadline(Duration::from_secs(900)))
        .to_vec()
}

const LIMITS: [Action; 2] = [Action::LimitLeased, Action::LimitKept];
const OTHERS: [Action; 2] = [Action::Freeze, Action::Reclaim];
const KSM: [Action; 3] = [Action::KsmLeased, Action::KsmKept, Action::KsmOff];

fn every_point() -> bool {
    std::env::var_os("GREY_ALL").is_some()
}

/// One point of `every` after every second landmark, every fourth on other kernels than the default one, and not the same
/// ones on each; with GREY_ALL=1 all of them, which takes a quarter of an hour on an emulated machine.
fn choice(every: usize) -> Result<Choice> {
    if every_point() {
        return Ok(Choice::ALL);
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut parts = release.split('.');
    let mut number = || -> Result<usize> {
        let part = parts.next().context("a kernel release has two numbers")?;
        Ok(part.parse()?)
    };
    let (major, minor) = (number()?, number()?);
    Ok(Choice {
        every,
        from: major + minor,
        stride: if (major, minor) == (6, 12) { 2 } else { 4 },
    })
}

fn killed_limits() -> Result<Outcome> {
    for action in LIMITS {
        sweep(action, Blow::Kill, choice(5)?, 2)?;
    }
    Ok(Outcome::Passed)
}

fn killed_others() -> Result<Outcome> {
    for action in OTHERS {
        sweep(action, Blow::Kill, choice(5)?, 2)?;
    }
    Ok(Outcome::Passed)
}

/// One at a time, since KSM is the machine's.
fn killed_ksm() -> Result<Outcome> {
    for action in KSM {
        sweep(action, Blow::Kill, choice(9)?, 1)?;
    }
    Ok(Outcome::Passed)
}

/// Most of the time everybody waits: many at once.
fn stopped() -> Result<Outcome> {
    for action in [Action::LimitLeased, Action::LimitKept, Action::Freeze] {
        sweep(action, Blow::Stop, choice(28)?, 4)?;
    }
    // One at a time, and each takes the time after which a controller is taken for hung.
    sweep(Action::KsmLeased, Blow::Stop, choice(60)?, 1)?;
    if every_point() {
        sweep(Action::Reclaim, Blow::Stop, choice(1)?, 4)?;
        sweep(Action::KsmKept, Blow::Stop, choice(1)?, 1)?;
        sweep(Action::KsmOff, Blow::Stop, choice(1)?, 1)?;
    }
    Ok(Outcome::Passed)
}

fn both_killed() -> Result<Outcome> {
    for action in LIMITS.into_iter().chain(OTHERS).chain(KSM) {
        sweep(action, Blow::Both, choice(17)?, 2)?;
    }
    Ok(Outcome::Passed)
}

fn without_guard() -> Result<Outcome> {
    for action in LIMITS.into_iter().chain([Action::KsmLeased]) {
        sweep(action, Blow::Guard, choice(17)?, 2)?;
    }
    Ok(Outcome::Passed)
}
