//! What goes back: fragmented heaps, cycles, and what is pinned and cannot.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use grey_user::act::agent::{Question, expect};
use grey_user::host::Host;
use serde_json::Value;

use crate::enforcing::Desk;
use crate::harness::{Outcome, TempCgroup, Trial};

use super::guest::{Bench, Guest, absent};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "native_release_a_fragmented_python_service_falls_to_a_tenth",
            fragmented,
        ),
        Trial::new(
            "native_release_a_thousand_trims_amid_eight_allocating_threads_change_nothing",
            hammered,
        ),
        Trial::new("native_release_the_collector_is_the_first_layer", collector),
        Trial::new("native_release_pinned_memory_is_told_beforehand", pinned),
        Trial::new(
            "native_release_without_an_agent_it_says_how_to_load_one",
            without,
        ),
        Trial::new("native_release_it_trims_of_its_own_accord", own_accord),
        Trial::new(
            "native_release_a_cgroup_is_trimmed_and_who_has_no_agent_is_named",
            cgroup,
        ),
        Trial::new(
            "native_release_an_observer_leaves_the_program_as_it_is",
            observed,
        ),
    ]
}

/// The one event of this type that `enforce` told.
fn event(stdout: &str, kind: &str) -> Result<Value> {
    let mut events = stdout.lines().map(serde_json::from_str::<Value>);
    events
        .find_map(|event| event.ok().filter(|event| event["type"] == kind))
        .with_context(|| format!("no {kind} in {stdout}"))
        .map(|event| event[kind].clone())
}

fn fragmented() -> Result<Outcome> {
    let bench = Bench::new("release-fragmented")?;
    let Some(python) = bench.python("buffers.py", &["0", "400"])? else {
        return absent("python3");
    };
    let desk = Desk::new("release-desk", "")?;
    let guest = Guest::start(python)?;
    let plateau = guest.resident()?;
    ensure!(plateau > 300 << 20, "nothing was retained: {plateau}");
    let pid = guest.pid().to_string();

    let planned = desk.enforce(&["trim", &pid, "--dry-run", "--json"])?;
    let planned = event(&planned.stdout, "action")?;
    let expected = planned["planned_bytes"]
        .as_u64()
        .context("no expectation")?;
    ensure!(
        guest.resident()? > plateau / 10 * 9,
        "a dry run freed memory"
    );

    let done = desk.enforce(&["trim", &pid, "--json", "--wait", "100ms"])?;
    ensure!(done.code() == Some(0), "{done:?}");
    let outcome = event(&done.stdout, "outcome")?;
    let freed = outcome["freed_bytes"].as_u64().context("nothing freed")?;
    let after = guest.resident()?;
    ensure!(after <= plateau / 10, "{plateau} -> {after}");
    ensure!(freed >= plateau / 10 * 8, "{outcome}");
    // What was expected is what came, within a tenth.
    ensure!(
        expected.abs_diff(freed) < freed / 10,
        "expected {expected}, freed {freed}"
    );
    // glibc still counts it as free; it is not expected a second time.
    let again = desk.enforce(&["trim", &pid, "--dry-run", "--json"])?;
    let again = event(&again.stdout, "action")?["planned_bytes"].as_u64();
    ensure!(again.is_some_and(|bytes| bytes < plateau / 20), "{again:?}");
    guest.finish_whole()?;
    Ok(Outcome::Passed)
}

fn hammered() -> Result<Outcome> {
    let bench = Bench::new("release-hammered")?;
    let Some(python) = bench.python("buffers.py", &["8", "40"])? else {
        return absent("python3");
    };
    let guest = Guest::start(python)?;
    for turn in 0..1000 {
        let question = Question::Trim {
            collector: turn % 100 == 0,
            wait: Duration::from_millis(500),
        };
        let answer = guest.ask(question)?;
        ensure!(!answer.busy, "turn {turn}: {answer:?}");
    }
    guest.finish_whole()?;
    // The same in C, where threads allocate at the same time for real.
    let Some(fragment) = bench.c("fragment", &["40", "8"])? else {
        return Ok(Outcome::Passed);
    };
    let guest = Guest::start(fragment)?;
    for _ in 0..200 {
        guest.trim()?;
    }
    guest.finish_whole()?;
    Ok(Outcome::Passed)
}

fn collector() -> Result<Outcome> {
    let bench = Bench::new("release-cycles")?;
    let Some(python) = bench.python("cycles.py", &[])? else {
        return absent("python3");
    };
    let guest = Guest::start(python)?;
    let before = guest.resident()?;
    let without = guest.ask(Question::Trim {
        collector: false,
        wait: Duration::from_secs(2),
    })?;
    ensure!(without.collector_state.is_none(), "{without:?}");
    let kept = guest.resident()?;
    ensure!(
        kept > before / 10 * 8,
        "not held by cycles: {before} -> {kept}"
    );
    let answer = guest.trim()?;
    ensure!(
        answer.collector_state.as_deref() == Some("done"),
        "{answer:?}"
    );
    ensure!(answer.collected >= Some(100_000), "{answer:?}");
    let after = guest.resident()?;
    ensure!(after < before / 3, "{before} -> {after}: {answer:?}");
    Ok(Outcome::Passed)
}

fn pinned() -> Result<Outcome> {
    let bench = Bench::new("release-pinned")?;
    let Some(python) = bench.python("dicts.py", &[])? else {
        return absent("python3");
    };
    let desk = Desk::new("release-pinned-desk", "")?;
    let guest = Guest::start(python)?;
    let before = guest.resident()?;
    ensure!(before > 60 << 20, "nothing is held: {before}");
    let pid = guest.pid().to_string();
    let planned = desk.enforce(&["trim", &pid, "--dry-run"])?;
    for part in [
        "next to nothing",
        "pinned",
        &format!("pageout {pid} --cold"),
    ] {
        ensure!(planned.stdout.contains(part), "{part}: {planned:?}");
    }
    let done = desk.enforce(&["trim", &pid, "--wait", "100ms"])?;
    ensure!(done.code() == Some(0), "{done:?}");
    let after = guest.resident()?;
    ensure!(
        after > before / 10 * 8,
        "it was not pinned: {before} -> {after}"
    );
    guest.finish_whole()?;
    Ok(Outcome::Passed)
}

fn without() -> Result<Outcome> {
    let bench = Bench::new("release-without")?;
    let Some(rests) = bench.c("lives", &["rests"])? else {
        return absent("cc");
    };
    let desk = Desk::new("release-without-desk", "")?;
    let mut guest = Guest::begin(rests, &[])?;
    guest.ready()?;
    let pid = guest.pid().to_string();
    let told = desk.enforce(&["trim", &pid])?;
    ensure!(told.code() == Some(3), "{told:?}");
    let library = super::guest::library()?;
    let load = format!("LD_PRELOAD={}", library.display());
    for part in ["no release agent", &pid, "glibc", &load, "pageout"] {
        ensure!(told.stderr.contains(part), "{part}: {told:?}");
    }
    // Loaded and switched off: nobody listens.
    let mut off = bench.c("lives", &["rests"])?.context("built once")?;
    off.env("GREY_RELEASE", "off");
    let mut guest = Guest::begin(off, &[&library])?;
    guest.ready()?;
    ensure!(
        super::guest::status(guest.pid(), "Threads:")? == 1,
        "it has a thread"
    );
    let told = desk.enforce(&["trim", &guest.pid().to_string()])?;
    ensure!(
        told.code() == Some(3) && told.stderr.contains("no agent listens"),
        "{told:?}"
    );
    Ok(Outcome::Passed)
}

fn cgroup() -> Result<Outcome> {
    if !rustix::process::geteuid().is_root() {
        return Outcome::skipped("only root can make a cgroup");
    }
    let bench = Bench::new("release-cgroup")?;
    let (Some(first), Some(second), Some(plain)) = (
        bench.c("fragment", &["60"])?,
        bench.c("fragment", &["60"])?,
        bench.c("lives", &["rests"])?,
    ) else {
        return absent("cc");
    };
    let desk = Desk::new("release-cgroup-desk", "")?;
    let cgroup = TempCgroup::new("release")?;
    let (first, second) = (Guest::start(first)?, Guest::start(second)?);
    let mut plain = Guest::begin(plain, &[])?;
    plain.ready()?;
    for guest in [&first, &second, &plain] {
        let procs = cgroup.directory().join("cgroup.procs");
        std::fs::write(procs, guest.pid().to_string())?;
    }
    let planned = desk.enforce(&["trim", cgroup.path(), "--dry-run", "--json"])?;
    let planned = event(&planned.stdout, "action")?;
    ensure!(
        planned["planned_bytes"].as_u64() > Some(100 << 20),
        "{planned}"
    );
    let done = desk.enforce(&["trim", cgroup.path(), "--json"])?;
    ensure!(done.code() == Some(0), "{done:?}");
    let outcome = event(&done.stdout, "outcome")?;
    let notes = outcome["notes"].to_string();
    let left_out = format!("left out: pid {} (lives): no release agent", plain.pid());
    for part in [
        &left_out,
        &format!("pid {} (fragment)", first.pid()),
        &format!("pid {} (fragment)", second.pid()),
    ] {
        ensure!(notes.contains(part), "{part}: {notes}");
    }
    for guest in [first, second] {
        ensure!(
            guest.resident()? < 20 << 20,
            "{} resident",
            guest.resident()?
        );
        guest.finish_whole()?;
    }
    Ok(Outcome::Passed)
}

/// What a verdict on retention asks.
fn observed() -> Result<Outcome> {
    let bench = Bench::new("release-observed")?;
    let Some(rests) = bench.c("lives", &["rests"])? else {
        return absent("cc");
    };
    let held = |pids: &[u32]| expect::held(&Host::live(), pids.iter().copied(), 7 << 20);
    let alone = Guest::start(rests)?;
    alone.ask(Question::Stat {
        wait: Duration::ZERO,
    })?;
    // Its allocator is not asked: what was seen from outside is what there is to say.
    ensure!(held(&[alone.pid()]) == Some(7 << 20));
    let fragment = bench.c("fragment", &["60"])?.context("built before")?;
    let fragment = Guest::start(fragment)?;
    fragment.ask(Question::Stat {
        wait: Duration::from_secs(1),
    })?;
    let free = held(&[fragment.pid(), std::process::id()]);
    ensure!(free > Some(50 << 20), "{free:?}");
    ensure!(held(&[std::process::id()]).is_none());
    let (said, _) = alone.finish()?;
    ensure!(said == ["alone"], "{said:?}");
    fragment.finish_whole()?;
    Ok(Outcome::Passed)
}

fn own_accord() -> Result<Outcome> {
    let bench = Bench::new("release-accord")?;
    let Some(mut fragment) = bench.c("fragment", &["100"])? else {
        return absent("cc");
    };
    fragment.env("GREY_RELEASE_THRESHOLD", "32M");
    fragment.env("GREY_RELEASE_INTERVAL", "200ms");
    let guest = Guest::start(fragment)?;
    crate::harness::wait_until("its memory to go back", Duration::from_secs(10), || {
        Ok((guest.resident()? < 20 << 20).then_some(()))
    })?;
    guest.finish_whole()?;
    Ok(Outcome::Passed)
}
