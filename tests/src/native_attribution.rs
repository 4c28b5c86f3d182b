//! Attribution of faults and calls, and cgroups that come and go, on the machine itself, in cgroups of its v2 tree.
//! It needs root and observes only.

use std::time::Duration;

use anyhow::Result;

use crate::attribution::{calls, faults, moves};
use crate::harness::{Outcome, Trial, cgroup_root};
use crate::vm_lifecycle;

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
            "native_few_faults_between_moves_count_where_they_are_made",
            moves::few_faults_between_moves_count_where_they_are_made,
        ),
        Trial::new(
            "native_children_on_the_stacks_of_others_count_for_their_own",
            moves::children_on_the_stacks_of_others_count_for_their_own,
        ),
        Trial::new(
            "native_calls_during_moves_count_once",
            moves::calls_during_moves_count_once,
        ),
        Trial::new("native_two_thousand_cgroups_leave_nothing_behind", || {
            vm_lifecycle::two_thousand_cgroups("10ms")
        })
        .with_deadline(Duration::from_secs(150)),
        Trial::new(
            "native_path_made_again_is_another_cgroup",
            vm_lifecycle::path_made_again_is_another_cgroup,
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
