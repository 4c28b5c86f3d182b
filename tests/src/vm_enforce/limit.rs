//! Limits: what is over them, what is told of them, and how they go again.

use anyhow::{Result, ensure};

use super::stage::{M, Stage};
use crate::harness::Outcome;

pub(super) fn reclaims_what_is_over() -> Result<Outcome> {
    let mut stage = Stage::new(150 * M, 8 * M)?;
    let path = stage.cgroup.path().to_owned();
    let settings = stage.settings()?;
    let over = stage.current()? - 96 * M;
    let events = stage.done(&["limit", &path, "--high", "96M", "--swap-max", "max"])?;
    println!("{events:?}");
    ensure!(
        stage.cgroup.number("memory.high")? == 96 * M,
        "{:?}",
        stage.settings()?
    );
    let current = stage.current()?;
    ensure!(current <= 97 * M, "{current} bytes in use above 96 MiB");
    let planned = events.action()?["planned_bytes"].as_u64();
    ensure!(
        planned.is_some_and(|bytes| bytes.abs_diff(over) <= M),
        "{planned:?} of {over}"
    );
    let notes = events.notes()?;
    ensure!(
        notes.contains("memory.swap.max: it was max already"),
        "{notes}"
    );
    // What was over the limit by more than a step was taken in steps first.
    ensure!(
        notes.contains("to memory.reclaim") == stage.has_reclaim(),
        "{notes}"
    );
    // memory.max under memory.high in force: allowed, and told.
    let events = stage.done(&["limit", &path, "--max", "90M", "--force", "--dry-run"])?;
    let effect = events.action()?["effect"].to_string();
    ensure!(
        effect.contains("memory.high (96M) is above memory.max (90M)"),
        "{effect}"
    );
    let ended = stage.enforce(&["limit", &path, "--high", "max"])?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    ensure!(stage.settings()? == settings, "{:?}", stage.settings()?);
    // Under a lease it goes by itself.
    stage.fill("again", 64 * M)?;
    // (Who puts it back, the command or on a slow machine its guard, is told by other tests.)
    let events = stage.done(&["limit", &path, "--high", "80%", "--lease", "1s"])?;
    let (planned, outcome) = (events.action()?, events.outcome()?);
    println!("{outcome}");
    // What is over it by more than a step is reclaimed first.
    let limit = planned["writes"]
        .as_array()
        .and_then(|writes| writes.last());
    ensure!(
        planned["lease_s"] == 1.0 && limit.is_some_and(|write| write["old"] == "max"),
        "{planned}"
    );
    ensure!(
        outcome["verdict"] == "revert" && outcome["freed_bytes"].as_u64() >= Some(8 * M),
        "{outcome}"
    );
    ensure!(stage.settings()? == settings, "{:?}", stage.settings()?);
    Ok(Outcome::Passed)
}
