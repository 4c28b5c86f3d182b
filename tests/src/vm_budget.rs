//! The facts of `budget.rs` on the kernel of a VM, where mmap and its like are counted by fexit.

use std::time::Duration;

use anyhow::Result;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::budget;
use crate::harness::{Outcome, Trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_budget_step_after_step_is_taken_told_and_the_rest_goes_on",
            || on_one_cpu(budget::step_after_step_is_taken_told_and_the_rest_goes_on),
        )
        .with_deadline(Duration::from_secs(90))
        .shown_on(&["5.10", "7.2"]),
        Trial::new(
            "vm_budget_a_daemon_tells_it_in_status_and_a_larger_budget_gives_all_back",
            || on_one_cpu(budget::a_daemon_tells_it_in_status_and_a_larger_budget_gives_all_back),
        )
        .with_deadline(Duration::from_secs(90))
        .shown_on(&["6.12"]),
    ]
}

/// Load, observer and test on one CPU: the budget has the kernel change its code, and an emulator of several processors may
/// go on with old code where one changes what another runs, here in each page fault (`Oops: int3`, at the jump of such a
/// switch). Natively the same is done while another CPU faults.
fn on_one_cpu(test: fn() -> Result<Outcome>) -> Result<Outcome> {
    let all = sched_getaffinity(None)?;
    let mut one = CpuSet::new();
    one.set(0);
    sched_setaffinity(None, &one)?;
    let outcome = test();
    sched_setaffinity(None, &all)?;
    outcome
}
