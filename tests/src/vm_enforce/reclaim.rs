//! What reclaim frees, and why not more.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::stage::{Events, M, PAGE, Stage, nearly};
use crate::harness::{Observer, Outcome, assert_within, wait_until};
use crate::swap::Swap;

/// 200 MiB out of 150 MiB of clean page cache and 100 MiB of cold anonymous memory.
pub(super) fn takes_cache_and_cold_memory() -> Result<Outcome> {
    let _swap = Swap::on(256 * M)?;
    let stage = Stage::new(150 * M, 100 * M)?;
    let path = stage.cgroup.path().to_owned();
    let before = (stage.current()?, stage.file()?, stage.swapped()?);
    let settings = stage.settings()?;
    let events = stage.done(&["reclaim", &path, "200M", "--observe", "300ms"])?;
    let freed = before.0.saturating_sub(stage.current()?);
    let (file, swapped) = (
        before.1.saturating_sub(stage.file()?),
        stage.swapped()? - before.2,
    );
    println!(
        "{} MiB freed, {} of page cache, {} to swap: {:?}",
        freed / M,
        file / M,
        swapped / M,
        events.outcome()?
    );
    nearly("freed", freed, 200 * M)?;
    // No more than was asked for but what a step takes beyond its size.
    ensure!(freed <= 248 * M, "{freed} bytes freed of 200 MiB asked for");
    ensure!(swapped >= 16 * M, "{swapped} bytes went to swap");
    let outcome = events.outcome()?;
    assert_within(
        "freed_bytes, by memory.current",
        outcome["freed_bytes"].as_u64().context("no freed_bytes")?,
        freed,
        2.0,
    )?;
    ensure!(
        events.action()?["planned_bytes"] == 200 * M && outcome["verdict"] == "commit",
        "{events:?}"
    );
    // Nobody has asked for any of it since.
    nearly("kept", outcome["kept_bytes"].as_u64().unwrap_or(0), freed)?;
    ensure!(outcome["refaults"].is_u64(), "{outcome}");
    for state in ["before", "after"] {
        for figure in ["current", "anon", "file", "swap", "available", "free"] {
            ensure!(outcome[state][figure].is_u64(), "no {figure}: {outcome}");
        }
    }
    ensure!(stage.settings()? == settings, "{:?}", stage.settings()?);
    let notes = events.notes()?;
    if stage.has_reclaim() {
        ensure!(notes.contains("to memory.reclaim"), "{notes}");
    } else {
        ensure!(
            notes.contains("this kernel has no memory.reclaim"),
            "{notes}"
        );
    }
    // Who has lost it finds it again.
    let mut stage = stage;
    stage.workload.step("touch-last")?;
    Ok(Outcome::Passed)
}

pub(super) fn without_swap_takes_the_file_part() -> Result<Outcome> {
    let stage = Stage::new(150 * M, 60 * M)?;
    let path = stage.cgroup.path().to_owned();
    let before = (stage.current()?, stage.file()?, stage.stat("anon")?);
    let settings = stage.settings()?;
    let events = stage.done(&["reclaim", &path, "200M"])?;
    let freed = before.0.saturating_sub(stage.current()?);
    nearly("freed of what could be", freed, before.1)?;
    assert_within("anon", stage.stat("anon")?, before.2, 1.0)?;
    let notes = events.notes()?;
    println!("{} MiB freed: {notes}", freed / M);
    ensure!(tells(&notes, "no swap: "), "{notes}");
    ensure!(stage.settings()? == settings, "{:?}", stage.settings()?);
    // A share of what it holds now, and all of it is anonymous: that is told before anything is written.
    let refused = stage.enforce(&["reclaim", &path, "50%"])?;
    ensure!(
        refused.code() == Some(3)
            && refused.stdout.is_empty()
            && refused.stderr.lines().count() == 1
            && refused.stderr.contains("no swap"),
        "{refused:?}"
    );
    Ok(Outcome::Passed)
}

pub(super) fn file_only_leaves_anonymous_memory() -> Result<Outcome> {
    let _swap = Swap::on(256 * M)?;
    let stage = Stage::new(100 * M, 60 * M)?;
    let path = stage.cgroup.path().to_owned();
    let before = (stage.file()?, stage.stat("anon")?, stage.swapped()?);
    let settings = stage.settings()?;
    let events = stage.done(&["reclaim", &path, "150M", "--file-only"])?;
    println!("{:?}", events.outcome()?);
    nearly(
        "page cache taken",
        before.0.saturating_sub(stage.file()?),
        before.0,
    )?;
    assert_within("anon", stage.stat("anon")?, before.1, 1.0)?;
    let swapped = stage.swapped()?;
    ensure!(
        swapped <= before.2 + 64 * PAGE,
        "{swapped} bytes went to swap"
    );
    let notes = events.notes()?;
    ensure!(tells(&notes, "--file-only: "), "{notes}");
    // Also what was closed meanwhile, on kernels that take no swappiness.
    ensure!(stage.settings()? == settings, "{:?}", stage.settings()?);
    let takes = stage.has_reclaim()
        && stage
            .cgroup
            .write("memory.reclaim", "4096 swappiness=0")
            .map_or_else(|error| !format!("{error:#}").contains("Invalid"), |()| true);
    ensure!(
        takes != notes.contains("memory.swap.max was 0 meanwhile"),
        "the kernel takes swappiness: {takes}; {notes}"
    );
    // What little is left is not worth a write.
    let refused = stage.enforce(&["reclaim", &path, "50M", "--file-only"])?;
    ensure!(refused.code() == Some(3), "{refused:?}");
    Ok(Outcome::Passed)
}

pub(super) fn goes_as_far_as_the_swap_limit() -> Result<Outcome> {
    let _swap = Swap::on(256 * M)?;
    let stage = Stage::new(0, 80 * M)?;
    let path = stage.cgroup.path().to_owned();
    stage.cgroup.write("memory.swap.max", 24 * M)?;
    let events = stage.done(&["reclaim", &path, "64M"])?;
    let swapped = stage.swapped()?;
    println!("{} MiB to swap: {}", swapped / M, events.notes()?);
    ensure!(events.action()?["planned_bytes"] == 24 * M, "{events:?}");
    nearly("swapped out", swapped, 24 * M)?;
    ensure!(swapped <= 24 * M, "{swapped} bytes in swap");
    let notes = events.notes()?;
    ensure!(
        notes.contains(&format!("memory.swap.max of {path} is reached")),
        "{notes}"
    );
    // Now nothing more can go anywhere.
    let refused = stage.enforce(&["reclaim", &path, "64M"])?;
    ensure!(
        refused.code() == Some(3) && refused.stderr.contains("memory.swap.max"),
        "{refused:?}"
    );
    Ok(Outcome::Passed)
}

/// The whole machine is reclaimed from where it is named, and only with what reclaims from it.
pub(super) fn root_by_name() -> Result<Outcome> {
    let stage = Stage::new(100 * M, 0)?;
    let root = crate::harness::cgroup_root()?.join("memory.reclaim");
    let had = stage.file()?;
    if !root.exists() {
        let refused = stage.enforce(&["reclaim", "/", "64M"])?;
        ensure!(
            refused.code() == Some(3) && refused.stderr.contains("drop-caches"),
            "{refused:?}"
        );
        ensure!(stage.file()? == had, "{} of {had}", stage.file()?);
        return Ok(Outcome::Passed);
    }
    let events = stage.done(&["reclaim", "/", "64M"])?;
    println!("{:?}", events.outcome()?);
    let outcome = events.outcome()?;
    let freed = outcome["freed_bytes"].as_u64().context("no freed_bytes")?;
    nearly("MemFree", freed, 56 * M)?;
    ensure!(outcome["target"] == "/", "{outcome}");
    Ok(Outcome::Passed)
}

/// The process that writes is stopped in the middle of its work: the command ends in time and takes it along.
pub(super) fn frozen_writer_does_not_hang() -> Result<Outcome> {
    let mut stage = Stage::new(100 * M, 0)?;
    let config = stage.scratch.argument("config.toml")?;
    std::fs::write(
        &config,
        "[safety]\nstep = \"8M\"\nwrite_timeout = \"500ms\"\n",
    )?;
    let (path, state) = (stage.cgroup.path().to_owned(), stage.state_dir()?);
    let settings = stage.settings()?;
    for attempt in 0..6 {
        let mut observer = Observer::start(&[
            "enforce",
            "reclaim",
            &path,
            "90M",
            "--json",
            "--config",
            &config,
            "--state-dir",
            &state,
        ])?;
        let pid = observer.pid();
        observer.wait_event("the action", Duration::from_secs(30), |event| {
            event["type"] == "action"
        })?;
        let standing = children(pid);
        let Some(writer) = stop_a_new_child(pid, &standing)? else {
            // Each of its writers was gone before it was stopped.
            observer.finish(Duration::from_secs(30))?;
            stage.fill(&format!("again{attempt}"), 100 * M)?;
            continue;
        };
        let stopped = Instant::now();
        let ended = observer.finish(Duration::from_secs(20))?;
        println!("ended {:?} after {:?}", ended.code(), stopped.elapsed());
        ensure!(
            stopped.elapsed() < Duration::from_secs(10),
            "it took {:?}",
            stopped.elapsed()
        );
        let notes = Events::of(&ended)?.notes()?;
        match ended.code() {
            // It had done its work when it was stopped, and the next one went on.
            Some(0) if !notes.contains("a write was ended after") && stage.has_reclaim() => {
                stage.fill(&format!("again{attempt}"), 100 * M)?;
                continue;
            }
            Some(0) => {}
            Some(1) => ensure!(notes.contains("took too long"), "{notes}"),
            code => anyhow::bail!("code {code:?}: {ended:?}"),
        }
        wait_until("the end of the writer", Duration::from_secs(10), || {
            Ok(matches!(state_of(writer), None | Some('Z')).then_some(()))
        })?;
        ensure!(stage.settings()? == settings, "{:?}", stage.settings()?);
        return Ok(Outcome::Passed);
    }
    anyhow::bail!("no writer was met with at work")
}

fn children(pid: u32) -> BTreeSet<i32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    list.unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// `R`, `S`, `T` …; `None` for a process that is gone.
fn state_of(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Stops the first process that `pid` makes from now on; `None` where it ends first.
fn stop_a_new_child(pid: u32, standing: &BTreeSet<i32>) -> Result<Option<i32>> {
    let end = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end {
        for child in children(pid).difference(standing) {
            let Some(it) = Pid::from_raw(*child) else {
                continue;
            };
            if kill_process(it, Signal::STOP).is_ok() {
                let stopped = wait_until("a stopped writer", Duration::from_secs(10), || {
                    Ok(match state_of(*child) {
                        Some('T') => Some(true),
                        None | Some('Z') => Some(false),
                        _ => None,
                    })
                })?;
                if stopped {
                    return Ok(Some(*child));
                }
            }
        }
        if matches!(i32::try_from(pid).ok().and_then(state_of), None | Some('Z')) {
            return Ok(None);
        }
    }
    anyhow::bail!("{pid} neither ended nor wrote")
}

/// Whether the 60 MiB that stay are told; what the program itself takes comes on top.
fn tells(notes: &str, why: &str) -> bool {
    ["60M", "61M"]
        .iter()
        .any(|size| notes.contains(&format!("{why}{size} of anonymous memory stay")))
}
