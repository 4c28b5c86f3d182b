//! Attribution of faults and calls on the machine itself, in cgroups of its v2 tree. It needs root and observes only.

use anyhow::Result;

use crate::attribution::{calls, faults, moves};
use crate::harness::{Outcome, Trial, cgroup_root};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        Trial::new(
            "native_faults_count_by_kind_in_their_cgroup",
            faults::faults_count_by_kind_in_their_cgroup,
        ),
        Trial::new(
            "native_threads_children_and_new_programs_count_for_their_cgroup",
            faults::threads_children_and_new_programs_count_for_their_cgroup,
        ),
        Trial::new(
            "native_what_was_active_is_sampled_at_the_next_tick",
            faults::what_was_active_is_sampled_at_the_next_tick,
        ),
        Trial::new(
            "native_calls_count_to_the_byte",
            calls::calls_count_to_the_byte,
        ),
        Trial::new(
            "native_calls_that_fail_count_nothing",
            calls::calls_that_fail_count_nothing,
        ),
        Trial::new(
            "native_mapped_less_unmapped_is_what_the_process_grew_by",
            calls::mapped_less_unmapped_is_what_the_process_grew_by,
        ),
        Trial::new(
            "native_what_a_process_did_stays_with_the_cgroup_it_was_in",
            moves::what_a_process_did_stays_with_the_cgroup_it_was_in,
        ),
        Trial::new(
            "native_calls_during_moves_count_once",
            moves::calls_during_moves_count_once,
        ),
    ];
    if !rustix::process::geteuid().is_root() || cgroup_root().is_err() {
        for trial in &mut trials {
            trial.run = cannot;
        }
    }
    trials
}

fn cannot() -> Result<Outcome> {
    Outcome::skipped("needs root and a cgroup v2 hierarchy to make cgroups in")
}
