//! The facts of `profiling.rs` on the kernel of a VM, and what only a VM shows: huge pages counted one by one, and a live
//! leak whose verdict names the function.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::harness::{Outcome, Trial};
use crate::profiling;
use crate::verdict::{HEAP, Life, Live, lacks};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_profile_of_a_cgroup_counts_what_was_touched_and_what_was_kept",
            profiling::of_a_cgroup_counts_what_was_touched_and_what_was_kept,
        ),
        Trial::new(
            "vm_profile_what_mremap_moves_stays_with_who_brought_it",
            profiling::what_mremap_moves_stays_with_who_brought_it,
        ),
        Trial::new(
            "vm_profile_huge_pages_count_with_all_they_bring",
            profiling::huge_pages_count_with_all_they_bring,
        ),
        Trial::new(
            "vm_profile_names_the_leak_of_a_live_verdict",
            names_the_leak_of_a_live_verdict,
        )
        .with_deadline(Duration::from_secs(150))
        .shown_on(&["6.12"]),
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

/// An unbounded vector beside a reservation of 400 GiB: while it is suspect it is profiled, and the verdict that confirms
/// the leak blames the vector.
fn names_the_leak_of_a_live_verdict() -> Result<Outcome> {
    const RATE: u64 = 16 << 20;
    const RESERVED: &str = "429496729600";
    if let Some(reason) = lacks(&[HEAP]) {
        return Outcome::skipped(reason);
    }
    let mut vector = Life::new("named", Some(384 << 20), false)?;
    let mut live = Live::start(&[&vector])?;
    vector.run(&[HEAP, "vector", &RATE.to_string(), RESERVED, "4"], &[])?;
    let verdict = live.leak(&vector, Duration::from_secs(90))?;
    println!(
        "{:?}: {}",
        live.told_of(&vector),
        verdict["verdict"]["stacks"]
    );
    let first = &verdict["verdict"]["stacks"][0];
    ensure!(
        first["function"] == "vector" && first["comm"] == "heap",
        "the first stack is {first}"
    );
    let frames = first["frames"].as_array().context("no frames")?;
    ensure!(
        frames.iter().any(|frame| frame == "main"),
        "no main in {frames:?}"
    );
    let kept = profiling::figure(first, "kept_bytes")?;
    ensure!((1 << 20..512 << 20).contains(&kept), "{kept} bytes kept");
    Ok(Outcome::Passed)
}
