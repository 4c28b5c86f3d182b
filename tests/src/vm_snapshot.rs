//! `snapshot` where a cgroup has memory.* files, and with swap.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::harness::{Outcome, TempCgroup, Trial, Workload};
use crate::native_snapshot::{Album, M, find, reduced, took_and_gave_back};
use crate::swap::Swap;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_snapshot_shows_what_a_program_took_and_gave_back",
            took_and_gave_back_by_files,
        )
        .with_deadline(Duration::from_secs(120)),
        Trial::new(
            "vm_snapshot_tells_what_was_swapped_out_from_what_was_freed",
            swapped_out,
        )
        .with_deadline(Duration::from_secs(120)),
    ]
}

fn took_and_gave_back_by_files() -> Result<Outcome> {
    let cgroup = TempCgroup::new("files")?;
    ensure!(
        cgroup.has("memory.current"),
        "a VM without the memory controller"
    );
    drop(cgroup);
    took_and_gave_back()
}

/// 64 MiB, most of which a lowered memory.high sends to swap: less of memory.current, and nothing saved.
fn swapped_out() -> Result<Outcome> {
    let _swap = Swap::on(256 << 20)?;
    let cgroup = TempCgroup::new("swapped")?;
    let mut workload = Workload::start(&cgroup)?;
    workload.step("touch 16384")?;
    let album = Album::of("swapped", &[cgroup.path()])?;
    album.save("before")?;
    cgroup.write("memory.high", 16 << 20)?;
    crate::harness::wait_until("reclaim", Duration::from_secs(30), || {
        Ok((cgroup.number("memory.current")? < 24 << 20).then_some(()))
    })?;
    album.save("after")?;
    let comparison = album.compare("before", "after")?;
    let entry = find(&comparison, "cgroups", "path", cgroup.path())?;
    let went = entry["figures"]["swap"]["reduction_bytes"].as_i64();
    let swapped = went.map_or(0, |bytes| -bytes);
    ensure!(swapped > 40 * M, "{swapped} bytes swapped out: {entry}");
    ensure!(
        entry["reduction_bytes"].as_i64() > Some(40 * M) && entry["figure"] == "current",
        "{entry}"
    );
    reduced(entry, "anon", swapped, 2 * M)?;
    reduced(entry, "anon_swap", 0, 2 * M)?;
    let pages = entry["happened"]["pages_reclaimed"].as_i64();
    ensure!(pages > Some(40 * M / 4096), "{entry}");
    let process = find(&comparison, "processes", "pid", workload.pid())?;
    reduced(process, "swap", -swapped, 2 * M)?;
    reduced(process, "uss", swapped, 2 * M)?;
    reduced(process, "swap_pss", -swapped, 2 * M)?;
    Ok(Outcome::Passed)
}
