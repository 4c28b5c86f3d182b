//! A controller that is killed, stopped or left without its guard between any two of its system calls leaves nothing
//! behind.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::crash::inject;
use crate::crash::point::Blow;
use crate::crash::scene::Action;
use crate::crash::sweep::{Choice, Sweep, sweep_all};
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
            "vm_crash_a_controller_killed_anywhere_has_page_reporting_taken_back",
            killed_reporting,
        )
        .shown_on(&["6.12"]),
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
/// Fewer points of these: the same controller goes the same way with another knob of the machine.
const REPORTING: [Action; 2] = [Action::ReportLeased, Action::ReportKept];

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

fn each(actions: &[Action], every: usize, at_once: usize) -> Result<Vec<Sweep>> {
    let choice = choice(every)?;
    let sweep = |action: &Action| Sweep {
        action: *action,
        choice,
        at_once,
    };
    Ok(actions.iter().map(sweep).collect())
}

fn killed_limits() -> Result<Outcome> {
    sweep_all(Blow::Kill, each(&LIMITS, 5, 2)?)
}

fn killed_others() -> Result<Outcome> {
    sweep_all(Blow::Kill, each(&OTHERS, 5, 2)?)
}

/// One at a time, since KSM is the machine's.
fn killed_ksm() -> Result<Outcome> {
    sweep_all(Blow::Kill, each(&KSM, 9, 1)?)
}

fn killed_reporting() -> Result<Outcome> {
    let mut sweeps = each(&REPORTING[1..], 29, 1)?;
    if every_point() {
        sweeps.extend(each(&REPORTING[..1], 1, 1)?);
    }
    sweep_all(Blow::Kill, sweeps)
}

/// Most of the time everybody waits: many at once.
fn stopped() -> Result<Outcome> {
    let many = [Action::LimitLeased, Action::LimitKept, Action::Freeze];
    let mut sweeps = each(&many, 28, 4)?;
    // One at a time, and each takes the time after which a controller is taken for hung.
    sweeps.extend(each(&[Action::KsmLeased], 60, 1)?);
    if every_point() {
        let rest = [
            Action::Reclaim,
            Action::KsmKept,
            Action::KsmOff,
            Action::ReportLeased,
            Action::ReportKept,
        ];
        sweeps.extend(each(&rest, 1, 4)?);
    }
    sweep_all(Blow::Stop, sweeps)
}

fn both_killed() -> Result<Outcome> {
    let mut sweeps = Vec::new();
    for actions in [&LIMITS[..], &OTHERS, &KSM] {
        sweeps.extend(each(actions, 17, 2)?);
    }
    sweeps.extend(each(&REPORTING[..1], 60, 1)?);
    if every_point() {
        sweeps.extend(each(&REPORTING[1..], 1, 1)?);
    }
    sweep_all(Blow::Both, sweeps)
}

fn without_guard() -> Result<Outcome> {
    let mut sweeps = each(&LIMITS, 17, 2)?;
    sweeps.extend(each(&[Action::KsmLeased], 17, 2)?);
    sweeps.extend(each(&REPORTING[..1], 60, 1)?);
    if every_point() {
        sweeps.extend(each(&REPORTING[1..], 1, 1)?);
    }
    sweep_all(Blow::Guard, sweeps)
}
