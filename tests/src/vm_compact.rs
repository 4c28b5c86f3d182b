//! `enforce compact`: free memory in holes of a page comes together in huge blocks.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::harness::{Outcome, TempCgroup, Trial, Workload, run};
use crate::invocation::{Invocation, Scratch};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_compact_makes_huge_blocks_of_scattered_free_pages",
            makes_huge_blocks,
        )
        .shown_on(&["6.12", "7.2"]),
    ]
}

const FILE: &str = "/proc/sys/vm/compact_memory";
const M: u64 = 1 << 20;
const PAGE: u64 = 4096;
const LONG: Duration = Duration::from_secs(45);

fn makes_huge_blocks() -> Result<Outcome> {
    if !fs::exists(FILE)? {
        return Outcome::skipped("this kernel does not compact on request");
    }
    let scratch = Scratch::new("compact")?;
    let state = scratch.argument("state")?;
    let compact = |more: &[&str]| -> Result<Vec<Value>> {
        let mut args = vec!["enforce", "compact", "--json", "--state-dir", &state];
        args.extend(more);
        let done = run(&args, LONG)?;
        ensure!(done.code() == Some(0), "{done:?}");
        done.stdout
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
            .collect()
    };
    let plan = compact(&["--dry-run"])?;
    let write = &plan[0]["action"]["writes"][0];
    ensure!(
        plan.len() == 1 && write["file"] == FILE && write["reversible"] == false,
        "{plan:?}"
    );
    ensure!(!scratch.join("state").exists(), "a dry run made a journal");

    // Most of the free memory, two of three pages of it given back.
    let free = free()?;
    let cgroup = TempCgroup::new("compact")?;
    let mut workload = Workload::start(&cgroup)?;
    let touched = free.saturating_sub(250 * M).min(400 * M);
    workload.step(&format!("touch {}", touched / PAGE))?;
    workload.step("punch")?;
    let looked = scanned()?;
    let events = compact(&[])?;
    let outcome = events
        .iter()
        .find(|event| event["type"] == "outcome")
        .with_context(|| format!("no outcome: {events:?}"))?;
    let outcome = &outcome["outcome"];
    println!("{outcome}");
    let huge = |state: &Value| state["free_huge"].as_u64().context("no free_huge");
    let (before, after) = (huge(&outcome["before"])?, huge(&outcome["after"])?);
    println!(
        "{} pages looked at, {} touched",
        scanned()? - looked,
        touched / PAGE
    );
    // Pages that came free wait on the lists of the CPUs, up to 1/8 of the memory, and join no block before they leave
    // them.
    ensure!(
        after > before + touched / 20,
        "{} MiB in huge blocks before, {} MiB after, with {} MiB in holes",
        before / M,
        after / M,
        touched / 3 * 2 / M
    );
    for state in ["before", "after"] {
        ensure!(outcome[state]["free"].as_u64() > Some(0), "{outcome}");
    }
    let notes = outcome["notes"].to_string();
    for word in ["huge page", "pages looked at", "cannot be taken back"] {
        ensure!(notes.contains(word), "nothing of {word}: {notes}");
    }
    ensure!(outcome["verdict"] == "commit", "{outcome}");
    // The program lost nothing.
    workload.step("touch-last")?;

    let program = scratch.program()?;
    let nobodys = scratch.argument("nobodys")?;
    Invocation::new()
        .program(&program)
        .nobody()
        .run(&["enforce", "compact", "--state-dir", &nobodys])?
        .is_one_line(3, &["root"])?;
    Ok(Outcome::Passed)
}

/// Pages that compactions have looked at.
fn scanned() -> Result<u64> {
    let stat = fs::read_to_string("/proc/vmstat")?;
    stat.lines()
        .find_map(|line| line.strip_prefix("compact_migrate_scanned "))
        .context("compact_migrate_scanned")?
        .parse()
        .context("compact_migrate_scanned")
}

fn free() -> Result<u64> {
    let info = fs::read_to_string("/proc/meminfo")?;
    let kib: u64 = info
        .lines()
        .find_map(|line| line.strip_prefix("MemFree:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .context("MemFree")?
        .parse()?;
    Ok(kib << 10)
}
