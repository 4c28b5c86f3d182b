//! `enforce reclaim`, `limit` and `drop-caches` on cgroups with real page cache and anonymous memory, with swap and
//! without: what they free, why not more, what they refuse, and that they leave nothing behind.

pub(crate) mod cache;
mod caches;
mod limit;
mod reclaim;
mod refused;
pub(crate) mod stage;

use std::time::Duration;

use crate::harness::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let long = Duration::from_secs(120);
    let mut trials = vec![
        Trial::new(
            "vm_enforce_reclaim_takes_page_cache_and_cold_memory_into_zram",
            reclaim::takes_cache_and_cold_memory,
        ),
        Trial::new(
            "vm_enforce_reclaim_without_swap_takes_page_cache_and_says_why_not_more",
            reclaim::without_swap_takes_the_file_part,
        ),
        Trial::new(
            "vm_enforce_reclaim_file_only_leaves_anonymous_memory_though_there_is_swap",
            reclaim::file_only_leaves_anonymous_memory,
        ),
        Trial::new(
            "vm_enforce_reclaim_goes_as_far_as_the_swap_limit",
            reclaim::goes_as_far_as_the_swap_limit,
        ),
        Trial::new(
            "vm_enforce_reclaim_of_the_whole_machine_is_by_name",
            reclaim::root_by_name,
        ),
        Trial::new(
            "vm_enforce_reclaim_of_a_frozen_writer_does_not_hang",
            reclaim::frozen_writer_does_not_hang,
        ),
        Trial::new(
            "vm_enforce_dry_runs_write_nothing",
            refused::dry_runs_write_nothing,
        ),
        Trial::new(
            "vm_enforce_refuses_bad_arguments_and_writes_nothing",
            refused::bad_arguments,
        ),
        Trial::new(
            "vm_enforce_limit_reclaims_what_is_over_it_and_a_lease_takes_it_back",
            limit::reclaims_what_is_over,
        ),
        Trial::new(
            "vm_enforce_drop_caches_drops_once_and_a_cgroups_alone_by_reclaim",
            caches::drops_once,
        ),
    ];
    for trial in &mut trials {
        *trial = trial.with_deadline(long);
    }
    trials
}
