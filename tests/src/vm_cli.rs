//! The command line where a memory controller is: without root, without anything to watch, cgroups by the names people
//! use, limits, and memory pressure.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Observer, Outcome, TempCgroup, Trial, Workload, cgroup_root};
use crate::invocation::{Invocation, Scratch};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_cli_without_root_watch_shows_the_memory_files",
            without_root_memory_files,
        ),
        Trial::new(
            "vm_cli_with_nothing_to_watch_is_one_line_and_code_3",
            nothing_to_watch,
        ),
        Trial::new("vm_cli_limits_are_bytes_or_null", limits),
        Trial::new(
            "vm_cli_a_cgroup_is_found_by_unit_and_container_name",
            by_name,
        )
        .shown_on(&["6.12"]),
        Trial::new(
            "vm_cli_a_sample_between_ticks_has_the_counters_of_now",
            sample_between_ticks,
        ),
        Trial::new("vm_cli_pressure_in_a_cgroup_is_an_event", pressure_event),
    ]
}

fn lines(stdout: &str) -> Result<Vec<Value>> {
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
        .collect()
}

/// Without the probes: what comes from files needs none, and loading them takes a second under emulation.
fn from_files() -> Invocation {
    Invocation::new().env("GREY_EBPF_FAIL_PROBES", "all")
}

fn sample_of<'a>(events: &'a [Value], path: &str) -> Result<&'a Value> {
    events
        .iter()
        .find(|event| event["type"] == "sample" && event["cgroup"]["path"] == path)
        .with_context(|| format!("no sample of {path} among {} events", events.len()))
}

fn without_root_memory_files() -> Result<Outcome> {
    let scratch = Scratch::new("nobody")?;
    let program = scratch.program()?;
    let cgroup = TempCgroup::new("nobody")?;
    let mut workload = Workload::start(&cgroup)?;
    workload.step("touch 1000")?;
    let ended = Invocation::new().program(&program).nobody().run(&[
        "watch",
        "--once",
        "--json",
        "--cgroup",
        cgroup.path(),
    ])?;
    ensure!(
        ended.code == Some(0) && ended.stderr.lines().count() == 1,
        "{ended:?}"
    );
    ensure!(ended.stderr.contains("not root"), "{}", ended.stderr);
    let events = lines(&ended.stdout)?;
    let sample = sample_of(&events, cgroup.path())?;
    let anon = sample["mem"]["anon"].as_u64().unwrap_or_default();
    ensure!(anon >= 1000 * 4096, "anon {anon}: {sample}");
    ensure!(
        anon == cgroup.stat("memory.stat", "anon")?,
        "not the kernel's own figure: {sample}"
    );
    ensure!(sample["psi"]["some_us_total"].is_u64(), "no PSI: {sample}");
    ensure!(
        sample["faults"].get("minor_total").is_none() && sample["vm"].get("mapped_total").is_none(),
        "counters that nobody counts: {sample}"
    );
    Ok(Outcome::Passed)
}

fn nothing_to_watch() -> Result<Outcome> {
    let scratch = Scratch::new("nothing")?;
    let program = scratch.program()?;
    let root = cgroup_root()?;
    let none = |args: &[&str]| {
        Invocation::new()
            .program(&program)
            .without(&root)
            .nobody()
            .run(args)
    };
    none(&["watch", "--once", "--json"])?.is_one_line(
        3,
        &[
            "nothing to watch",
            "not root",
            "no cgroup v2 tree",
            "doctor",
        ],
    )?;
    ensure!(
        none(&["doctor"])?.code == Some(3),
        "doctor says that watch works"
    );
    // The same for root where every probe fails.
    let failed = Invocation::new()
        .without(&root)
        .env("GREY_EBPF_FAIL_PROBES", "all")
        .run(&["watch", "--json"])?;
    failed.is_one_line(3, &["nothing to watch", "no cgroup v2 tree", "doctor"])?;
    // With either of the two there is something to watch.
    let probes_only = Invocation::new()
        .without(&root)
        .run(&["watch", "--once", "--json"])?;
    ensure!(probes_only.code == Some(0), "{probes_only:?}");
    let files_only = Invocation::new()
        .env("GREY_EBPF_FAIL_PROBES", "all")
        .run(&["watch", "--once", "--json"])?;
    ensure!(files_only.code == Some(0), "{files_only:?}");
    Ok(Outcome::Passed)
}

fn limits() -> Result<Outcome> {
    let cgroup = TempCgroup::new("limits")?;
    let look = || -> Result<Value> {
        let ended = from_files().run(&["watch", "--once", "--json", "--cgroup", cgroup.path()])?;
        Ok(sample_of(&lines(&ended.stdout)?, cgroup.path())?["mem"].clone())
    };
    let mem = look()?;
    for limit in ["max", "high"] {
        ensure!(
            mem.get(limit).is_some_and(Value::is_null),
            "no limit is null and not absent: {mem}"
        );
    }
    cgroup.write("memory.max", 64 << 20)?;
    cgroup.write("memory.high", 48 << 20)?;
    let mem = look()?;
    ensure!(mem["max"] == 64 << 20 && mem["high"] == 48 << 20, "{mem}");
    let text = from_files().run(&["watch", "--once", "--cgroup", cgroup.path()])?;
    ensure!(
        text.stdout.contains("48M") || text.stdout.contains("64M"),
        "no limit in the table: {}",
        text.stdout
    );
    Ok(Outcome::Passed)
}

fn by_name() -> Result<Outcome> {
    const ID: &str = "4f2a9c0e1b7d8a6f5e3c2b1a09f8e7d6c5b4a3928171605f4e3d2c1b0a998877";
    let slice = TempCgroup::new("by-name.slice")?;
    let unit = slice.child("grey-web.service")?;
    let scope = format!("docker-{ID}.scope");
    let container = slice.child(&scope)?;
    let other = slice.child("grey-other.service")?;
    let (mut web, mut boxed) = (Workload::start(&unit)?, Workload::start(&container)?);
    web.step("touch 10")?;
    boxed.step("touch 10")?;
    let under_mount = unit
        .directory()
        .to_str()
        .context("a path that is no text")?
        .to_owned();
    let cases: &[(&str, &TempCgroup, &str, &str)] = &[
        ("grey-web.service", &unit, "service", "grey-web.service"),
        ("grey-web", &unit, "service", "grey-web.service"),
        (unit.path(), &unit, "service", "grey-web.service"),
        (&under_mount, &unit, "service", "grey-web.service"),
        ("grey-w*", &unit, "service", "grey-web.service"),
        (&ID[..12], &container, "container", &ID[..12]),
        (ID, &container, "container", &ID[..12]),
    ];
    for (pattern, cgroup, kind, name) in cases {
        let ended = from_files().run(&["watch", "--once", "--json", "--cgroup", pattern])?;
        ensure!(ended.code == Some(0), "--cgroup {pattern}: {ended:?}");
        let events = lines(&ended.stdout)?;
        let sample =
            sample_of(&events, cgroup.path()).with_context(|| format!("--cgroup {pattern}"))?;
        ensure!(
            sample["cgroup"]["kind"] == *kind && sample["cgroup"]["name"] == *name,
            "--cgroup {pattern}: {sample}"
        );
        let strangers: Vec<&Value> = events
            .iter()
            .filter_map(|event| event.get("cgroup"))
            .filter(|seen| seen["path"] != cgroup.path())
            .collect();
        ensure!(
            strangers.is_empty(),
            "--cgroup {pattern} shows others too: {strangers:?}"
        );
    }
    // A slash-less pattern is a name and never half of one.
    let half = from_files().run(&["watch", "--once", "--cgroup", "grey-we"])?;
    half.is_one_line(2, &["grey-we"])?;
    // And all below a path.
    let below = format!("{}/**", slice.path());
    let ended = from_files().run(&["watch", "--once", "--json", "--cgroup", &below])?;
    let events = lines(&ended.stdout)?;
    for cgroup in [&unit, &container, &other] {
        sample_of(&events, cgroup.path())?;
    }
    Ok(Outcome::Passed)
}

fn pressure_event() -> Result<Outcome> {
    if !Path::new("/proc/pressure/memory").exists() {
        return Outcome::skipped("this kernel keeps no PSI");
    }
    let cgroup = TempCgroup::new("pressure")?;
    cgroup.write("memory.high", 8 << 20)?;
    let mut observer = Observer::start(&[
        "watch",
        "--json",
        "--interval",
        "500ms",
        "--cgroup",
        cgroup.path(),
    ])?;
    // The triggers are set once the first look is over.
    observer.wait_event("the first look", Duration::from_secs(20), |event| {
        event["type"] == "health"
    })?;
    let before = cgroup.stat("memory.events", "high")?;
    let mut workload = Workload::start(&cgroup)?;
    // Above memory.high each page is paid for with a sleep, which the kernel counts as a stall.
    workload.send("eat 33554432")?;
    let event = observer.wait_event("pressure", Duration::from_secs(40), |event| {
        event["type"] == "pressure" && event["cgroup"]["path"] == cgroup.path()
    })?;
    let pressure = &event["pressure"];
    ensure!(
        pressure["level"] == "some"
            && pressure["threshold_us"] == 100_000
            && pressure["window_us"] == 1_000_000,
        "{event}"
    );
    ensure!(
        cgroup.stat("memory.events", "high")? > before,
        "memory.high was not reached"
    );
    let finished = observer.stop(Signal::INT, Duration::from_secs(10))?;
    ensure!(finished.code() == Some(0), "{finished:?}");
    Ok(Outcome::Passed)
}

/// memory.events notifies at once; the line it makes must not mix new files with the counters of the last tick.
fn sample_between_ticks() -> Result<Outcome> {
    let cgroup = TempCgroup::new("between")?;
    cgroup.write("memory.high", 8 << 20)?;
    let mut observer = Observer::start(&[
        "watch",
        "--json",
        "--interval",
        "1h",
        "--cgroup",
        cgroup.path(),
    ])?;
    observer.wait_event("the first look", Duration::from_secs(20), |event| {
        event["type"] == "health"
    })?;
    let mut workload = Workload::start(&cgroup)?;
    workload.send("eat 12582912")?;
    let sample = observer.wait_event("a sample at once", Duration::from_secs(20), |event| {
        event["type"] == "sample" && event["events"]["high_total"].as_u64() > Some(0)
    })?;
    let faults = sample["faults"]["user_write_total"].as_u64();
    // The limit was crossed after 2048 pages; the process had some before.
    ensure!(faults >= Some(1500), "{faults:?} faults: {sample}");
    Ok(Outcome::Passed)
}
