//! The facts of `profiling.rs` on the kernel of a VM, and what only a VM shows: huge pages counted one by one, and a live
//! leak whose verdict names the function.

use std::time::Duration;

use crate::harness::Trial;
use crate::profiling;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_profile_of_a_cgroup_counts_what_was_touched_and_what_was_kept",
            profiling::of_a_cgroup_counts_what_was_touched_and_what_was_kept,
        ),
        Trial::new(
            "vm_profile_memory_that_the_kernel_fills_counts_for_who_asked_for_it",
            profiling::memory_that_the_kernel_fills_counts_for_who_asked_for_it,
        ),
        Trial::new(
            "vm_profile_leaves_nothing_in_the_kernel_however_it_ends",
            profiling::leaves_nothing_in_the_kernel_however_it_ends,
        )
        .with_deadline(Duration::from_secs(120))
        .shown_on(&["5.10", "7.2"]),
    ]
}
