//! The facts of `budget.rs` on the kernel of a VM, where mmap and its like are counted by fexit.

use std::time::Duration;

use crate::budget;
use crate::harness::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_budget_step_after_step_is_taken_told_and_the_rest_goes_on",
            budget::step_after_step_is_taken_told_and_the_rest_goes_on,
        )
        .with_deadline(Duration::from_secs(90))
        .shown_on(&["5.10", "7.2"]),
        Trial::new(
            "vm_budget_a_daemon_tells_it_in_status_and_a_larger_budget_gives_all_back",
            budget::a_daemon_tells_it_in_status_and_a_larger_budget_gives_all_back,
        )
        .with_deadline(Duration::from_secs(90))
        .shown_on(&["6.1", "6.12"]),
    ]
}
