//! The facts of `alert.rs` in a VM, where the leaking cgroup has a limit of its own.

use std::time::Duration;

use crate::alert;
use crate::harness::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_alerts_of_a_leak_outlive_a_kill_and_reach_a_command_once",
            alert::of_a_leak_outlive_a_kill_and_reach_a_command_once,
        )
        .with_deadline(Duration::from_secs(240))
        .shown_on(&["6.12"]),
    ]
}
