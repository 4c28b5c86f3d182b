//! `daemon`: what a policy wants is done within its bounds, told with one id, and nothing else is touched.

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::enforcing::Desk;
use crate::harness::{Observer, Outcome, TempCgroup, Trial, Workload, run, wait_until};
use crate::vm_enforce::stage::{M, Stage};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_govern_takes_cache_within_floor_and_budget_and_tells_what_came_of_it",
            takes_within_bounds,
        )
        .shown_on(&["5.10", "6.12"]),
        Trial::new(
            "vm_govern_shadow_decides_the_same_and_writes_nothing",
            shadow,
        )
        .shown_on(&["6.12", "7.2"]),
        Trial::new("vm_govern_leaves_what_is_protected_and_says_so", protected).shown_on(&["6.12"]),
        Trial::new(
            "vm_govern_emergency_does_not_wait_for_an_interval",
            emergency,
        ),
        Trial::new("vm_govern_acts_at_its_time", scheduled).shown_on(&["6.12"]),
        Trial::new(
            "vm_govern_reload_of_a_broken_file_keeps_the_old_one",
            reload,
        )
        .shown_on(&["6.12"]),
        Trial::new(
            "vm_govern_idle_cgroup_stands_still_until_it_is_let_go_or_the_daemon_is_killed",
            stands_still,
        )
        .shown_on(&["5.10", "6.12"]),
        Trial::new(
            "vm_govern_oom_kill_leaves_the_last_minutes_in_a_document",
            incident,
        )
        .shown_on(&["6.12"]),
    ]
}

const SOON: Duration = Duration::from_secs(30);

/// A configuration that acts on this cgroup alone.
fn config(path: &str, policy: &str, more: &str) -> String {
    format!(
        "[budget]\ncpu_pct = 0\n\n[govern]\npolicy = \"observe\"\nobserve = \"1s\"\n{more}\n\
         [[govern.override]]\nmatch = \"{path}\"\npolicy = \"{policy}\"\nfloor = \"64M\"\nfreeze = true\n"
    )
}

/// Wants memory at each turn.
const WANTS_ALL: &str = "[govern.dynamic]\navailable_pct = 100\ninterval = \"1s\"\n\
    [govern.emergency]\nenabled = false\n";

fn daemon(desk: &Desk, more: &[&str]) -> Result<Observer> {
    let state = desk.scratch.argument("state")?;
    let config = desk.scratch.argument("config.toml")?;
    let mut args = vec!["daemon", "--state-dir", &state, "--config", &config];
    args.extend(more);
    Observer::start(&args)
}

fn status(desk: &Desk) -> Result<Value> {
    let state = desk.scratch.argument("state")?;
    let done = run(&["status", "--json", "--state-dir", &state], SOON)?;
    ensure!(done.code() == Some(0), "{done:?}");
    Ok(serde_json::from_str(&done.stdout)?)
}

fn ends_well(observer: Observer) -> Result<()> {
    observer.signal(Signal::TERM)?;
    let finished = observer.finish(SOON)?;
    ensure!(finished.code() == Some(0), "{finished:?}");
    Ok(())
}

fn is(event: &Value, kind: &str, path: &str) -> bool {
    event["type"] == kind && event["cgroup"]["path"] == path
}

fn takes_within_bounds() -> Result<Outcome> {
    let stage = Stage::new(160 * M, 8 * M)?;
    let path = stage.cgroup.path().to_owned();
    let budget = format!("{WANTS_ALL}[govern.budget]\nbytes_per_s = \"6M\"\n");
    let desk = Desk::new("govern", &config(&path, "dynamic", &budget))?;
    let bystander = TempCgroup::new("bystander")?;
    let mut other = Workload::start(&bystander)?;
    other.step("touch 4096")?;
    let held = bystander.number("memory.current")?;
    let mut daemon = daemon(&desk, &[])?;
    let action = daemon.wait_event("an action", SOON, |event| is(event, "action", &path))?;
    let plan = &action["action"];
    ensure!(
        plan["policy"] == "dynamic"
            && plan["dry_run"] == false
            && plan["expected_harm"].as_f64() < Some(0.5),
        "{action}"
    );
    let outcome = daemon.wait_event("an outcome", SOON, |event| is(event, "outcome", &path))?;
    ensure!(
        outcome["outcome"]["id"] == plan["id"]
            && outcome["outcome"]["freed_bytes"].as_u64() > Some(M)
            && outcome["outcome"]["kept_bytes"].as_u64() > Some(M)
            && outcome["outcome"]["verdict"] == "commit",
        "{outcome}"
    );
    // As far as the floor.
    let slack = 4 * M;
    wait_until("the floor", SOON, || {
        let current = stage.current()?;
        Ok((current <= 64 * M + 2 * slack).then_some(()))
    })?;
    // Two turns more change nothing.
    let seen = Instant::now();
    wait_until("two turns", SOON, || {
        Ok((seen.elapsed() > Duration::from_millis(2500)).then_some(()))
    })?;
    let current = stage.current()?;
    ensure!(
        current + slack >= 64 * M,
        "{current} bytes: below the floor"
    );
    let mut taken: Vec<(i64, u64)> = Vec::new();
    for event in daemon.events()? {
        if event["type"] != "action" {
            continue;
        }
        ensure!(is(&event, "action", &path), "{event}");
        let at = crate::harness::timing::event_us(&event)?;
        taken.push((at, event["action"]["planned_bytes"].as_u64().unwrap_or(0)));
    }
    // Told after the decision, by up to as much as an action before it takes.
    let slip = 1_000_000;
    for (at, _) in &taken {
        let within: u64 = taken
            .iter()
            .filter(|(other, _)| (*at..*at + 10_000_000 - slip).contains(other))
            .map(|(_, bytes)| bytes)
            .sum();
        ensure!(
            within <= 60 * M,
            "{within} bytes within ten seconds: {taken:?}"
        );
    }
    let now = bystander.number("memory.current")?;
    ensure!(now + M > held, "{held} bytes before, {now} now");
    let status = status(&desk)?;
    let settled = status["history"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|done| done["outcome"]["freed"].as_u64() > Some(0))
        .count();
    ensure!(settled > 0, "{status}");
    println!("{} actions, {} MiB left", taken.len(), current / M);
    ends_well(daemon)?;
    Ok(Outcome::Passed)
}

fn shadow() -> Result<Outcome> {
    let stage = Stage::new(120 * M, 0)?;
    let path = stage.cgroup.path().to_owned();
    let desk = Desk::new("shadow", &config(&path, "dynamic", WANTS_ALL))?;
    let before = stage.current()?;
    let mut daemon = daemon(&desk, &["--shadow"])?;
    for _ in 0..2 {
        let action = daemon.wait_event("an action", SOON, |event| is(event, "action", &path))?;
        let plan = &action["action"];
        ensure!(
            plan["dry_run"] == true
                && plan["id"].is_null()
                && plan["planned_bytes"].as_u64() > Some(M),
            "{action}"
        );
    }
    ends_well(daemon)?;
    let after = stage.current()?;
    ensure!(
        after + 2 * M > before,
        "{before} bytes before, {after} after"
    );
    ensure!(
        !desk.scratch.join("state/journal").exists(),
        "a journal was made"
    );
    Ok(Outcome::Passed)
}

fn protected() -> Result<Outcome> {
    let stage = Stage::new(120 * M, 0)?;
    let path = stage.cgroup.path().to_owned();
    let text = format!(
        "[safety]\nprotect = [\"{path}\"]\n{}",
        config(&path, "dynamic", WANTS_ALL)
    );
    let desk = Desk::new("protected", &text)?;
    let before = stage.current()?;
    let mut daemon = daemon(&desk, &[])?;
    let held = wait_until("something held back", SOON, || {
        // It has not begun to listen yet.
        let Ok(status) = status(&desk) else {
            return Ok(None);
        };
        let held = status["held_back"].as_array().cloned().unwrap_or_default();
        Ok((held.len() >= 2).then_some(held))
    })?;
    ensure!(
        held.iter()
            .all(|held| held["why"] == "protected" && held["path"] == path.as_str()),
        "{held:?}"
    );
    ensure!(
        !daemon
            .events()?
            .iter()
            .any(|event| event["type"] == "action"),
        "an action"
    );
    ends_well(daemon)?;
    let after = stage.current()?;
    ensure!(
        after + 2 * M > before,
        "{before} bytes before, {after} after"
    );
    Ok(Outcome::Passed)
}

fn emergency() -> Result<Outcome> {
    let stage = Stage::new(120 * M, 0)?;
    let path = stage.cgroup.path().to_owned();
    // The policy itself has no turn for a day and would be content.
    let more = "[govern.dynamic]\navailable_pct = 1\ninterval = \"24h\"\n\
        [govern.emergency]\navailable_pct = 100\ninterval = \"500ms\"\n";
    let desk = Desk::new("emergency", &config(&path, "dynamic", more))?;
    let mut daemon = daemon(&desk, &[])?;
    let action = daemon.wait_event("an action", SOON, |event| is(event, "action", &path))?;
    let reason = action["action"]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("emergency: "), "{action}");
    wait_until("memory to go", SOON, || {
        Ok((stage.current()? <= 72 * M).then_some(()))
    })?;
    ends_well(daemon)?;
    Ok(Outcome::Passed)
}

/// The minute that the clock shows, and the second of it.
fn clock() -> Result<(u64, u64)> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_secs();
    Ok((now / 60, now % 60))
}

fn scheduled() -> Result<Outcome> {
    let stage = Stage::new(120 * M, 0)?;
    let path = stage.cgroup.path().to_owned();
    // Two minutes before the next minute begins is not two minutes to wait: the clock is put to 12 s before it.
    let (minute, second) = clock()?;
    let minute = if second > 40 { minute + 1 } else { minute };
    let set = rustix::time::Timespec {
        tv_sec: i64::try_from(minute * 60 + 48)?,
        tv_nsec: 0,
    };
    rustix::time::clock_settime(rustix::time::ClockId::Realtime, set)?;
    let due = minute + 1;
    let at = format!("{:02}:{:02}", due / 60 % 24, due % 60);
    let more = format!(
        "[govern.scheduled]\nat = [\"{at}\"]\ntake_pct = 100\n[govern.emergency]\nenabled = false\n"
    );
    let desk = Desk::new("scheduled", &config(&path, "scheduled", &more))?;
    let mut daemon = daemon(&desk, &[])?;
    let action = daemon.wait_event("an action", SOON, |event| is(event, "action", &path))?;
    let began = crate::harness::timing::event_us(&action)? / 1_000_000;
    let early = began - i64::try_from(due * 60)?;
    ensure!((0..8).contains(&early), "{early} s after {at}: {action}");
    wait_until("memory to go", SOON, || {
        Ok((stage.current()? <= 72 * M).then_some(()))
    })?;
    let actions = daemon
        .events()?
        .iter()
        .filter(|event| event["type"] == "action")
        .count();
    ensure!(actions == 1, "{actions} actions");
    ends_well(daemon)?;
    Ok(Outcome::Passed)
}

fn reload() -> Result<Outcome> {
    let stage = Stage::new(120 * M, 0)?;
    let path = stage.cgroup.path().to_owned();
    let desk = Desk::new("reload", "[govern]\npolicy = \"observe\"\n")?;
    let mut daemon = daemon(&desk, &[])?;
    wait_until("an answer", SOON, || Ok(status(&desk).ok()))?;
    desk.write_config("[govern]\npolicy = \"observe\"\nfloor = \"lots\"\n", 0o644)?;
    daemon.signal(Signal::HUP)?;
    let failed = wait_until("the failed reload", SOON, || {
        let status = status(&desk)?;
        Ok(status["reload_failed"].as_str().map(str::to_owned))
    })?;
    for word in ["config.toml:3", "floor"] {
        ensure!(failed.contains(word), "nothing of {word}: {failed}");
    }
    ensure!(status(&desk)?["policy"] == "observe", "not the old one");
    desk.write_config(&config(&path, "dynamic", WANTS_ALL), 0o644)?;
    daemon.signal(Signal::HUP)?;
    daemon.wait_event("an action", SOON, |event| is(event, "action", &path))?;
    ensure!(
        status(&desk)?["reload_failed"].is_null(),
        "it still says so"
    );
    ends_well(daemon)?;
    Ok(Outcome::Passed)
}

fn stands_still() -> Result<Outcome> {
    let cgroup = TempCgroup::new("idle")?;
    let mut workload = Workload::start(&cgroup)?;
    workload.step("touch 16")?;
    let path = cgroup.path().to_owned();
    let more = "[govern.idle]\nafter = \"2s\"\n[govern.emergency]\nenabled = false\n";
    let desk = Desk::new("idle", &config(&path, "conservative", more))?;
    let still = |value: &str| -> Result<Instant> {
        wait_until("cgroup.freeze", SOON, || {
            Ok((cgroup.read("cgroup.freeze")? == value).then_some(Instant::now()))
        })
    };
    let mut observer = daemon(&desk, &[])?;
    let action = observer.wait_event("an action", SOON, |event| is(event, "action", &path))?;
    ensure!(
        action["action"]["kind"] == "freeze" && action["action"]["lease_s"].as_f64() > Some(1.0),
        "{action}"
    );
    still("1")?;
    let state = desk.scratch.argument("state")?;
    let said = run(&["feedback", "release", &path, "--state-dir", &state], SOON)?;
    ensure!(said.code() == Some(0), "{said:?}");
    observer.wait_event("a rollback", SOON, |event| is(event, "rollback", &path))?;
    still("0")?;
    // It is idle still, and stands still again; a daemon that is killed leaves nothing so.
    still("1")?;
    observer.signal(Signal::KILL)?;
    let killed = Instant::now();
    let back = still("0")?.saturating_duration_since(killed);
    println!("let go {} ms after the kill", back.as_millis());
    ensure!(back <= Duration::from_secs(2), "only after {back:?}");
    workload.step("touch 16")?;
    Ok(Outcome::Passed)
}

fn incident() -> Result<Outcome> {
    let cgroup = TempCgroup::new("oom")?;
    cgroup.write("memory.max", 48 * M)?;
    if cgroup.has("memory.swap.max") {
        cgroup.write("memory.swap.max", 0)?;
    }
    let path = cgroup.path().to_owned();
    let desk = Desk::new("incident", "[govern]\npolicy = \"observe\"\n")?;
    let mut daemon = daemon(&desk, &["--samples"])?;
    let mut workload = Workload::start(&cgroup)?;
    workload.step("touch 4096")?;
    daemon.wait_event("a sample", SOON, |event| is(event, "sample", &path))?;
    // It does not answer: it is the victim.
    let _ = workload.step("touch 16384");
    daemon.wait_event("the kill", SOON, |event| is(event, "oom", &path))?;
    let folder = desk.scratch.join("state/incidents");
    let document: Value = wait_until("the document", SOON, || {
        let Ok(entries) = fs::read_dir(&folder) else {
            return Ok(None);
        };
        let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let Some(file) = files.find(|file| file.extension().is_some_and(|it| it == "json")) else {
            return Ok(None);
        };
        Ok(Some(serde_json::from_slice(&fs::read(file)?)?))
    })?;
    let series = document["series"][&path].as_array().context("no series")?;
    ensure!(!series.is_empty(), "{document}");
    ensure!(
        document["oom"]["oom"]["victim"]["pid"].as_u64() == Some(u64::from(workload.pid())),
        "{}",
        document["oom"]
    );
    ensure!(document["series"]["/"].is_array(), "nothing of the machine");
    println!("{} instants", series.len());
    ends_well(daemon)?;
    Ok(Outcome::Passed)
}
