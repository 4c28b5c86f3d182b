//! A controller that ends between any two of its system calls leaves nothing behind.

use std::time::Duration;

use anyhow::Result;

use crate::crash::point::Blow;
use crate::crash::scene::Action;
use crate::crash::sweep::{Choice, measure, sweep};
use crate::harness::{Outcome, Trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new("vm_crash_measure", measured).with_deadline(Duration::from_secs(200)),
        Trial::new("vm_crash_killed_anywhere_a_limit_goes", limit)
            .with_deadline(Duration::from_secs(400)),
    ]
}

fn measured() -> Result<Outcome> {
    for action in [Action::LimitLeased, Action::LimitKept, Action::Freeze, Action::KsmLeased, Action::KsmKept, Action::KsmOff] {
        let (stops, took) = measure(action)?;
        println!("{}: {stops} stops, {took:?}", action.name());
    }
    Ok(Outcome::Passed)
}

fn limit() -> Result<Outcome> {
    sweep(Action::LimitLeased, Blow::Kill, Choice::ALL, 2)?;
    Ok(Outcome::Passed)
}
