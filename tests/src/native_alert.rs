//! The facts of `alert.rs` on this machine itself. Where it has no memory controller, the figures are summed from the
//! processes and the limit is the machine's memory.

use std::time::Duration;

use crate::alert;
use crate::harness::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "native_alerts_of_a_leak_outlive_a_kill_and_reach_a_command_once",
            alert::of_a_leak_outlive_a_kill_and_reach_a_command_once,
        )
        .with_deadline(Duration::from_secs(150)),
        Trial::new(
            "native_alerts_to_a_command_that_is_not_there_are_refused_at_the_start",
            alert::to_a_command_that_is_not_there_are_refused_at_the_start,
        ),
        Trial::new(
            "native_state_that_cannot_be_used_is_told_and_kept_aside",
            alert::state_that_cannot_be_used_is_told_and_kept_aside,
        ),
    ]
}
