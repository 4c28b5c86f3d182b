//! The facts of `budget.rs` on this machine itself.

use crate::budget;
use crate::harness::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "native_budget_step_after_step_is_taken_told_and_the_rest_goes_on",
            budget::step_after_step_is_taken_told_and_the_rest_goes_on,
        ),
        Trial::new(
            "native_budget_what_was_switched_off_comes_back_by_itself",
            budget::what_was_switched_off_comes_back_by_itself,
        ),
        Trial::new(
            "native_budget_a_daemon_tells_it_in_status_and_a_larger_budget_gives_all_back",
            budget::a_daemon_tells_it_in_status_and_a_larger_budget_gives_all_back,
        ),
    ]
}
