//! `drop-caches`: the machine's once, a cgroup's without touching the machine's.

use anyhow::{Context as _, Result, ensure};

use super::stage::{M, Stage, nearly};
use crate::harness::Outcome;
use crate::invocation::Invocation;
use crate::swap::value_of;

pub(super) fn drops_once() -> Result<Outcome> {
    let mut stage = Stage::new(100 * M, 4 * M)?;
    let path = stage.cgroup.path().to_owned();
    let dropped = || value_of("/proc/vmstat", "drop_pagecache");
    let count = dropped()?;
    // One cgroup's.
    let had = stage.file()?;
    let events = stage.done(&["drop-caches", "--cgroup", &path])?;
    println!("{:?}", events.outcome()?);
    nearly("one cgroup's", had - stage.file()?, had)?;
    ensure!(
        events.action()?["kind"] == "reclaim" && dropped()? == count,
        "{events:?}"
    );
    // The machine's.
    stage.fill("again", 100 * M)?;
    let had = stage.file()?;
    let events = stage.done(&["drop-caches"])?;
    let outcome = events.outcome()?;
    println!("{outcome}");
    ensure!(
        dropped()? == count + 1,
        "dropped {} times",
        dropped()? - count
    );
    nearly("the machine's", had - stage.file()?, had)?;
    let figure = |state: &str, name: &str| {
        outcome[state][name]
            .as_u64()
            .with_context(|| format!("no {name}: {outcome}"))
    };
    // Pages of such a burst wait on the CPUs' own lists before they count as free, up to an eighth of all memory.
    ensure!(
        figure("after", "free")? >= figure("before", "free")? + 20 * M,
        "{outcome}"
    );
    ensure!(outcome["freed_bytes"].as_u64() >= Some(80 * M), "{outcome}");
    let notes = events.notes()?;
    for word in ["MemFree", "Cached", "cannot be taken back"] {
        ensure!(notes.contains(word), "nothing of {word}: {notes}");
    }
    // Not again at once, unless somebody insists; slab alone then.
    let slab = value_of("/proc/vmstat", "drop_slab")?;
    let again = stage.enforce(&["drop-caches"])?;
    ensure!(
        again.code() == Some(4) && again.stderr.lines().count() == 1,
        "{again:?}"
    );
    ensure!(dropped()? == count + 1, "it was dropped again");
    stage.done(&["drop-caches", "--level", "2", "--force"])?;
    ensure!(
        dropped()? == count + 1 && value_of("/proc/vmstat", "drop_slab")? == slab + 1,
        "level 2 is slab alone"
    );
    // Without the right to.
    Invocation::new()
        .program(&stage.scratch.program()?)
        .nobody()
        .run(&["enforce", "drop-caches", "--state-dir", "/tmp/nobody"])?
        .is_one_line(3, &["drop_caches", "--cgroup"])?;
    Ok(Outcome::Passed)
}
