//! The growth facts of `growth.rs`, on the kernel of a VM.

use crate::growth;
use crate::harness::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_growth_is_told_when_the_threshold_is_crossed",
            growth::is_told_when_the_threshold_is_crossed,
        ),
        Trial::new(
            "vm_growth_of_many_small_processes_is_the_cgroups",
            growth::of_many_small_processes_is_the_cgroups,
        ),
        Trial::new(
            "vm_growth_after_a_shrink_counts_from_the_low_point",
            growth::after_a_shrink_counts_from_the_low_point,
        ),
        Trial::new(
            "vm_growth_by_huge_pages_is_seen",
            growth::by_huge_pages_is_seen,
        ),
        Trial::new(
            "vm_growth_by_huge_pages_is_told_in_full",
            growth::by_huge_pages_is_told_in_full,
        ),
        Trial::new(
            "vm_growth_by_map_populate_is_seen",
            growth::by_map_populate_is_seen,
        ),
        Trial::new(
            "vm_growth_of_a_steady_process_is_none",
            growth::of_a_steady_process_is_none,
        ),
        Trial::new(
            "vm_growth_threshold_is_the_users",
            growth::threshold_is_the_users,
        ),
        Trial::new(
            "vm_growth_of_zero_switches_the_events_off",
            growth::of_zero_switches_the_events_off,
        ),
    ]
}
