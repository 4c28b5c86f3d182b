//! `enforce ksm`: equal pages are merged and judged, unlike ones are told to be for nothing, unmerging needs memory, and
//! every setting comes back, whatever ends it.

mod stage;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::harness::{Outcome, TempCgroup, Trial, Workload, wait_until};
use crate::invocation::Invocation;
use stage::{
    KSM, Ksm, LONG, M, Odd, PAGE, SOON, Settings, available, event, figure, has, no_ksm, notes,
    put, two_alike,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_ksm_merges_equal_pages_judges_that_it_pays_and_unmerges_only_where_there_is_room",
            equal_pages,
        )
        .with_deadline(Duration::from_secs(150)),
        Trial::new("vm_ksm_says_that_unlike_pages_do_not_pay", unlike_pages)
            .with_deadline(Duration::from_secs(90)),
        Trial::new(
            "vm_ksm_settings_come_back_after_a_lease_a_rollback_and_a_kill",
            settings_come_back,
        )
        .with_deadline(Duration::from_secs(90)),
        Trial::new(
            "vm_ksm_refuses_what_it_cannot_take_back_and_a_dry_run_writes_nothing",
            refuses,
        ),
    ]
}

fn equal_pages() -> Result<Outcome> {
    if let Some(skipped) = no_ksm() {
        return skipped;
    }
    const BYTES: u64 = 100 * M;
    let _odd = Odd::set()?;
    let prior = Settings::read()?;
    let ksm = Ksm::new("equal")?;
    let seen = ksm.status()?;
    ensure!(
        seen["verdict"]["id"] == "stopped" && seen["verdict"]["pays"].is_null(),
        "{seen}"
    );
    let parent = TempCgroup::new("ksm")?;
    parent.delegate("+memory")?;
    let cgroup = parent.child("pair")?;
    let pair = two_alike(&cgroup, BYTES)?;
    let start = Instant::now();
    let outcome = ksm.outcome("enforce ksm on --aggressive --json")?;
    ensure!(notes(&outcome).contains("ksm status"), "{outcome}");
    ensure!(figure("run")? == 1, "KSM is off");
    ensure!(Settings::read()? != prior, "nothing was set");
    let merged = BYTES / PAGE * 95 / 100;
    wait_until("merged pages", LONG, || {
        Ok((figure("pages_sharing")? >= merged).then_some(()))
    })?;
    println!("{} MiB merged within {:?}", BYTES / M, start.elapsed());
    let seen = ksm.status()?;
    println!("{}", ksm.run("enforce ksm status")?.stdout);
    let verdict = &seen["verdict"];
    ensure!(verdict["pays"] == true && verdict["id"] == "pays", "{seen}");
    let bytes = |at: &str| {
        seen[at]
            .as_u64()
            .with_context(|| format!("no {at}: {seen}"))
    };
    ensure!(
        (merged * PAGE..=BYTES * 5 / 4).contains(&bytes("saved_bytes")?),
        "{seen}"
    );
    // 64 bytes each for 200 MiB of pages that KSM knows of are 3 MiB.
    ensure!(
        (85 * M..bytes("saved_bytes")?).contains(&bytes("profit_bytes")?),
        "{seen}"
    );
    let source = if has("general_profit") {
        "kernel"
    } else {
        "computed"
    };
    ensure!(seen["profit_source"] == source, "{seen}");
    ensure!(
        seen["ksmd"]["cpu_pct"]
            .as_f64()
            .is_some_and(|pct| pct <= 110.0)
            && seen["ksmd"]["cpu_us"].as_u64() > Some(0),
        "{seen}"
    );
    if fs::exists("/proc/self/ksm_merging_pages")? {
        let top = seen["processes"]["top"].to_string();
        for workload in &pair {
            ensure!(
                top.contains(&format!("\"pid\":{}", workload.pid())),
                "{seen}"
            );
        }
    }
    unmerges_where_there_is_room(&ksm, &cgroup)?;
    drop(pair);
    let back = ksm.run("rollback --json")?;
    ensure!(back.code() == Some(0), "{back:?}");
    ensure!(
        Settings::read()? == prior,
        "{:?} before, {:?} after",
        prior,
        Settings::read()?
    );
    Ok(Outcome::Passed)
}

/// With merged pages: not without memory for them, not over a cgroup's limit, but else.
fn unmerges_where_there_is_room(ksm: &Ksm, cgroup: &TempCgroup) -> Result<()> {
    let unmerge = "enforce ksm off --unmerge --json";
    let sharing = figure("pages_sharing")?;
    let mut hog = Workload::start_here()?;
    // Fewer available than the copies need with 128 MiB to spare, and enough to go on.
    let room = sharing * PAGE + 60 * M;
    hog.step(&format!(
        "touch {}",
        available()?.saturating_sub(room) / PAGE
    ))?;
    ksm.refused(unmerge, 4, &["--unmerge", "available", "stay free"])?;
    drop(hog);
    wait_until("memory again", SOON, || {
        Ok((available()? > sharing * PAGE + 200 * M).then_some(()))
    })?;
    if fs::exists("/proc/self/ksm_merging_pages")? {
        cgroup.write("memory.max", cgroup.number("memory.current")? + 10 * M)?;
        ksm.refused(unmerge, 4, &["--unmerge", cgroup.path(), "memory.max"])?;
        cgroup.write("memory.max", "max")?;
    }
    ensure!(figure("run")? == 1, "a refusal stopped KSM");
    ensure!(
        figure("pages_sharing")? >= sharing * 9 / 10,
        "a refusal unmerged"
    );
    // Without --unmerge what is merged stays so.
    let stopped = ksm.outcome("enforce ksm off --json")?;
    ensure!(figure("run")? == 0, "{stopped}");
    ensure!(figure("pages_sharing")? >= sharing * 9 / 10, "{stopped}");
    let seen = ksm.status()?;
    ensure!(seen["verdict"]["id"] == "stopped_merged", "{seen}");
    let outcome = ksm.outcome(unmerge)?;
    ensure!(notes(&outcome).contains("unmerged"), "{outcome}");
    println!("{outcome}");
    ensure!(
        (figure("pages_sharing")?, figure("run")?) == (0, 0),
        "{} still merged, run is {}",
        figure("pages_sharing")?,
        figure("run")?
    );
    Ok(())
}

fn unlike_pages() -> Result<Outcome> {
    if let Some(skipped) = no_ksm() {
        return skipped;
    }
    let _odd = Odd::set()?;
    let prior = Settings::read()?;
    let ksm = Ksm::new("unlike")?;
    let cgroup = TempCgroup::new("unlike")?;
    ksm.outcome("enforce ksm on --aggressive --json")?;
    let seen = ksm.status()?;
    ensure!(seen["verdict"]["id"] == "nobody_offers", "{seen}");
    let mut pair = [Workload::start(&cgroup)?, Workload::start(&cgroup)?];
    for workload in &mut pair {
        workload.step(&format!("unlike {}", 8 * M / PAGE))?;
        workload.step("offer")?;
    }
    // More scans than the three after which the smart scan begins to pass pages over.
    let scans = figure("full_scans")? + 5;
    wait_until("full scans", LONG, || {
        Ok((figure("full_scans")? >= scans).then_some(()))
    })?;
    let seen = ksm.status()?;
    println!("{}", ksm.run("enforce ksm status")?.stdout);
    let verdict = &seen["verdict"];
    ensure!(
        verdict["pays"] == false && verdict["id"] == "no_equals",
        "{seen}"
    );
    ensure!(
        verdict["text"]
            .as_str()
            .is_some_and(|text| text.contains("does not pay")),
        "{seen}"
    );
    ensure!(seen["profit_bytes"].as_i64() < Some(0), "{seen}");
    drop(pair);
    let back = ksm.run("rollback --json")?;
    ensure!(back.code() == Some(0), "{back:?}");
    ensure!(
        Settings::read()? == prior,
        "{:?} before, {:?} after",
        prior,
        Settings::read()?
    );
    Ok(Outcome::Passed)
}

fn settings_come_back() -> Result<Outcome> {
    if let Some(skipped) = no_ksm() {
        return skipped;
    }
    let _odd = Odd::set()?;
    let ksm = Ksm::new("back")?;
    let cgroup = TempCgroup::new("back")?;
    let pair = two_alike(&cgroup, 4 * M)?;
    // A lease, over a scan time that --aggressive shortens.
    let quick = Settings::read()?;
    if has("advisor_target_scan_time") {
        put("advisor_target_scan_time", 111)?;
    }
    let slow = Settings::read()?;
    let outcome = ksm.outcome("enforce ksm on --aggressive --lease 1s --json")?;
    let now = Settings::read()?;
    ensure!(now == slow, "lease: {slow:?} before, {now:?} after");
    ensure!(
        outcome["verdict"] == "revert" && notes(&outcome).contains("verdict: "),
        "{outcome}"
    );
    if has("advisor_target_scan_time") {
        put("advisor_target_scan_time", 3)?;
    }
    let prior = Settings::read()?;
    ensure!(prior == quick, "{quick:?}, {prior:?}");
    // One that is ended when all is merged, with its verdict.
    let held = ksm.start("enforce ksm on --aggressive --lease 60s --json")?;
    // `run` is the last that it writes; pages may be merged since the lease before.
    wait_until("merged pages while it is on", SOON, || {
        let merged = figure("pages_sharing")? >= 4 * M / PAGE * 9 / 10;
        Ok((figure("run")? == 1 && merged).then_some(()))
    })?;
    let ended = held.stop(Signal::INT, SOON)?;
    let now = Settings::read()?;
    ensure!(now == prior, "SIGINT: {prior:?} before, {now:?} after");
    let outcome = event(&ended.stdout, "outcome")?;
    println!("{outcome}");
    ensure!(
        outcome["verdict"] == "revert" && notes(&outcome).contains("it pays"),
        "{outcome}"
    );
    ensure!(
        outcome["after"]["ksm_profit"].as_i64() > Some(3 * M as i64),
        "{outcome}"
    );
    // Until it is rolled back; also where it ran before.
    for on in [0, 1] {
        put("run", on)?;
        let prior = Settings::read()?;
        ksm.outcome("enforce ksm on --aggressive --json")?;
        ensure!(Settings::read()? != prior, "nothing was set");
        let scans = figure("full_scans")? + 2;
        wait_until(
            "full scans, so that an advisor has set its rate",
            SOON,
            || Ok((figure("full_scans")? >= scans).then_some(())),
        )?;
        let done = ksm.run("rollback --json")?;
        ensure!(done.code() == Some(0), "{done:?}");
        ensure!(
            Settings::read()? == prior,
            "rollback to {on}: {prior:?} before, {:?} after",
            Settings::read()?
        );
    }
    put("run", 0)?;
    // A kill, from which the guard recovers.
    let mut held = ksm.start("enforce ksm on --aggressive --lease 60s --json")?;
    held.wait_event("the plan", SOON, |event| event["type"] == "action")?;
    wait_until("KSM on", SOON, || Ok((figure("run")? == 1).then_some(())))?;
    held.signal(Signal::KILL)?;
    let killed = Instant::now();
    wait_until("the settings", Duration::from_secs(2), || {
        Ok((Settings::read()? == prior).then_some(()))
    })
    .with_context(|| format!("{prior:?} before, {:?} now", Settings::read()))?;
    println!("all back {:?} after SIGKILL", killed.elapsed());
    drop(pair);
    Ok(Outcome::Passed)
}

fn refuses() -> Result<Outcome> {
    if let Some(skipped) = no_ksm() {
        return skipped;
    }
    let _odd = Odd::set()?;
    let ksm = Ksm::new("refuses")?;
    ksm.refused("enforce ksm on --unmerge", 2, &["--unmerge"])?;
    ksm.refused("enforce ksm on --advisor fast", 2, &["fast", "scan-time"])?;
    ksm.refused("enforce ksm status --lease 5s", 2, &["--lease"])?;
    if !has("advisor_mode") {
        ksm.refused(
            "enforce ksm on --advisor scan-time",
            3,
            &["--advisor scan-time", "6.8"],
        )?;
    }
    // At 2 an undo would have to unmerge everything.
    put("run", 2)?;
    let prior = Settings::read()?;
    ksm.refused("enforce ksm on", 4, &["run is 2", "--force"])?;
    let done = ksm.run("enforce ksm off --unmerge")?;
    ensure!(
        done.code() == Some(0) && done.stdout.contains("off already"),
        "{done:?}"
    );
    ensure!(
        Settings::read()? == prior,
        "{prior:?}, {:?}",
        Settings::read()?
    );
    ksm.outcome("enforce ksm on --force --lease 200ms --json")?;
    ensure!(figure("run")? == 0, "run is {}", figure("run")?);
    // Nothing is written by a dry run, and no journal made.
    let dry = Ksm::new("dry")?;
    let prior = Settings::read()?;
    let done = dry.run("enforce ksm on --aggressive --dry-run --json")?;
    ensure!(done.code() == Some(0), "{done:?}");
    let plan = event(&done.stdout, "action")?;
    let last = plan["writes"].as_array().and_then(|writes| writes.last());
    ensure!(
        plan["dry_run"] == true
            && last.is_some_and(|last| last["file"] == format!("{KSM}/run")
                && last["old"] == "0"
                && last["new"] == "1"),
        "{plan}"
    );
    ensure!(
        Settings::read()? == prior,
        "{prior:?}, {:?}",
        Settings::read()?
    );
    ensure!(
        !dry.scratch.join("state").exists(),
        "a dry run made a journal"
    );
    // Nobody may only look.
    let program = dry.scratch.program()?;
    let state = dry.scratch.argument("nobodys")?;
    let nobody = |args: &[&str]| {
        let mut all = vec!["enforce", "ksm"];
        all.extend(args);
        all.extend(["--state-dir", &state]);
        Invocation::new().program(&program).nobody().run(&all)
    };
    nobody(&["on"])?.is_one_line(3, &["root"])?;
    let look = nobody(&["status"])?;
    ensure!(
        look.code == Some(0) && look.stdout.contains("KSM is off"),
        "{look:?}"
    );
    ensure!(
        Settings::read()? == prior,
        "{prior:?}, {:?}",
        Settings::read()?
    );
    Ok(Outcome::Passed)
}
