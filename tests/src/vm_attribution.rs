//! Attribution of faults and calls where the v2 tree has the memory controller.

use crate::attribution::{calls, faults, moves};
use crate::harness::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_faults_count_by_kind_in_their_cgroup",
            faults::faults_count_by_kind_in_their_cgroup,
        ),
        Trial::new(
            "vm_threads_children_and_new_programs_count_for_their_cgroup",
            faults::threads_children_and_new_programs_count_for_their_cgroup,
        ),
        Trial::new(
            "vm_what_was_active_is_sampled_at_the_next_tick",
            faults::what_was_active_is_sampled_at_the_next_tick,
        ),
        Trial::new("vm_calls_count_to_the_byte", calls::calls_count_to_the_byte),
        Trial::new(
            "vm_calls_that_fail_count_nothing",
            calls::calls_that_fail_count_nothing,
        ),
        Trial::new(
            "vm_mapped_less_unmapped_is_what_the_process_grew_by",
            calls::mapped_less_unmapped_is_what_the_process_grew_by,
        ),
        Trial::new(
            "vm_what_a_process_did_stays_with_the_cgroup_it_was_in",
            moves::what_a_process_did_stays_with_the_cgroup_it_was_in,
        ),
        Trial::new(
            "vm_few_faults_between_moves_count_where_they_are_made",
            moves::few_faults_between_moves_count_where_they_are_made,
        ),
        Trial::new(
            "vm_children_on_the_stacks_of_others_count_for_their_own",
            moves::children_on_the_stacks_of_others_count_for_their_own,
        ),
        Trial::new(
            "vm_calls_during_moves_count_once",
            moves::calls_during_moves_count_once,
        ),
    ]
}
