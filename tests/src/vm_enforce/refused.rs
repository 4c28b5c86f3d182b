//! What is only said, and what is refused: nothing is written then.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::stage::{Events, M, Stage};
use crate::harness::{Finished, Outcome, TempCgroup, run};
use crate::swap::value_of;

pub(super) fn dry_runs_write_nothing() -> Result<Outcome> {
    let stage = Stage::new(64 * M, 16 * M)?;
    let path = stage.cgroup.path().to_owned();
    let state = stage.state_dir()?;
    let before = (stage.settings()?, reclaimed(&stage)?, drops()?);
    let current = stage.current()?;
    let runs: [&[&str]; 6] = [
        &["reclaim", &path, "32M"],
        &["reclaim", &path, "100%", "--file-only"],
        &[
            "limit", &path, "--high", "64M", "--max", "512M", "--low", "10%",
        ],
        &["drop-caches"],
        &["drop-caches", "--level", "3"],
        &["drop-caches", "--cgroup", &path],
    ];
    for args in runs {
        let mut all = args.to_vec();
        all.push("--dry-run");
        let events = stage.done(&all)?;
        ensure!(events.0.len() == 1, "{args:?}: {events:?}");
        let action = events.action()?;
        println!("{action}");
        ensure!(
            action["dry_run"] == true
                && action.get("id").is_none()
                && action["writes"][0]["new"].is_string()
                && action["effect"].is_string(),
            "{args:?}: {action}"
        );
        let after = (stage.settings()?, reclaimed(&stage)?, drops()?);
        ensure!(after == before, "{args:?}: {before:?}, then {after:?}");
        ensure!(
            !std::path::Path::new(&state).exists(),
            "{args:?} made a journal"
        );
    }
    // The same for people.
    let told = stage.enforce(&["reclaim", &path, "32M", "--simulation"])?;
    ensure!(
        told.code() == Some(0) && told.stdout.contains("nothing is written"),
        "{told:?}"
    );
    ensure!(
        stage.current()? + M >= current,
        "{current}, then {}",
        stage.current()?
    );
    Ok(Outcome::Passed)
}

/// Pages that were ever looked at or taken.
fn reclaimed(stage: &Stage) -> Result<[u64; 2]> {
    Ok([stage.stat("pgscan")?, stage.stat("pgsteal")?])
}

/// How often caches were dropped.
fn drops() -> Result<[u64; 2]> {
    Ok([
        value_of("/proc/vmstat", "drop_pagecache")?,
        value_of("/proc/vmstat", "drop_slab")?,
    ])
}

pub(super) fn bad_arguments() -> Result<Outcome> {
    let stage = Stage::new(0, 96 * M)?;
    let path = stage.cgroup.path().to_owned();
    let before = (stage.settings()?, reclaimed(&stage)?, drops()?);
    let gone = TempCgroup::new("gone")?.path().to_owned();
    let cases: [(u8, &str, &[&str]); 23] = [
        (2, "24h", &["reclaim", &path, "1M", "--observe", "0"]),
        (2, "nothing", &["reclaim", &path, "0"]),
        (2, "nothing", &["reclaim", &path, "0G"]),
        (2, "percentage", &["reclaim", &path, "0%"]),
        (2, "percentage", &["reclaim", &path, "101%"]),
        (2, "negative", &["reclaim", &path, "--", "-5M"]),
        (2, "64 bits", &["reclaim", &path, "18446744073709551616"]),
        (2, "number", &["reclaim", &path, "much"]),
        (4, "64G", &["reclaim", &path, "65G"]),
        (4, "64G", &["reclaim", &path, "18446744073709551615"]),
        (2, "no such cgroup", &["reclaim", &gone, "1M"]),
        (
            2,
            "swappiness",
            &["reclaim", &path, "1M", "--swappiness", "201"],
        ),
        (
            2,
            "cannot be used with",
            &["reclaim", &path, "1M", "--file-only", "--swappiness", "7"],
        ),
        (2, "--lease", &["reclaim", &path, "1M", "--lease", "5s"]),
        (2, "--level", &["drop-caches", "--level", "4"]),
        (
            2,
            "cannot be used with",
            &["drop-caches", "--level", "2", "--cgroup", &path],
        ),
        (2, "no such cgroup", &["drop-caches", "--cgroup", &gone]),
        (2, "required", &["limit", &path]),
        (4, "64M", &["limit", &path, "--high", "67108863"]),
        (4, "64M", &["limit", &path, "--max", "0", "--force"]),
        (4, "in use", &["limit", &path, "--max", "80M"]),
        (4, "machine", &["limit", &path, "--min", "2T"]),
        (2, "64 bits", &["limit", &path, "--swap-max", "99999999T"]),
    ];
    for (code, word, args) in cases {
        let ended = stage.enforce(args)?;
        one_line(&ended, i32::from(code), word)
            .map_err(|error| error.context(format!("{args:?}")))?;
    }
    // A swap limit is no reason to refuse; what cannot go anywhere is.
    let vain = stage.enforce(&["reclaim", &path, "50M"])?;
    one_line(&vain, 3, "no swap")?;
    ensure!(
        (stage.settings()?, reclaimed(&stage)?, drops()?) == before,
        "something was written"
    );
    ensure!(!std::path::Path::new(&stage.state_dir()?).exists());
    // A cgroup whose parent does not give it the controller.
    let parent = TempCgroup::new("parent")?;
    let bare = parent.child("bare")?;
    ensure!(!bare.has("memory.current"));
    for args in [
        vec!["reclaim", bare.path(), "1M"],
        vec!["limit", bare.path(), "--high", "1G"],
    ] {
        one_line(&stage.enforce(&args)?, 3, "MemoryAccounting=yes")?;
    }
    // As JSON nothing but JSON: an error has none.
    let ended = run(
        &["enforce", "reclaim", &gone, "1M", "--json"],
        Duration::from_secs(30),
    )?;
    one_line(&ended, 2, "no such cgroup")?;
    ensure!(Events::of(&ended)?.0.is_empty());
    Ok(Outcome::Passed)
}

fn one_line(ended: &Finished, code: i32, word: &str) -> Result<()> {
    ensure!(
        ended.code() == Some(code)
            && ended.stdout.is_empty()
            && ended.stderr.lines().count() == 1
            && ended.stderr.starts_with("grey-ebpf: ")
            && ended.stderr.contains(word),
        "not {code} with {word:?}: {ended:?}"
    );
    Ok(())
}
