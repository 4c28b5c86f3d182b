//! Growth events as `watch --json` tells of them, without any tick: the same facts on this machine and in a VM.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::timing::{Latencies, ensure_between, event_us, wall_at};
use crate::harness::{Observer, Outcome, TempCgroup, Workload};

const PAGE: u64 = 4096;
/// The default of `--growth`.
pub(crate) const THRESHOLD: u64 = 16 << 20;
/// How far a resident size may be off: kernels from 6.2 keep up to 64 pages of each counter in each CPU's hands.
const SLACK: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(20);
/// What is promised of an event and of its line on the pipe.
const PROMISED_US: i64 = 100_000;
/// A single line may take longer where the machine is busy or every instruction emulated.
const SLOWEST_US: i64 = 1_000_000;

/// A `watch` without ticks that has attached its probes.
pub(crate) fn watch(more: &[&str], variables: &[(&str, &str)]) -> Result<Observer> {
    let args = [&["watch", "--json", "--interval", "1h"], more].concat();
    let mut observer = Observer::start_with(&args, variables)?;
    observer.wait_event("the first health line", Duration::from_secs(40), |event| {
        event["type"] == "health"
    })?;
    Ok(observer)
}

/// A workload in a cgroup of its own.
fn grower() -> Result<(TempCgroup, Workload)> {
    let cgroup = TempCgroup::new("growth")?;
    let mut workload = Workload::start(&cgroup)?;
    workload.step("rename grower")?;
    Ok((cgroup, workload))
}

/// The next growth event of that cgroup.
fn next_growth(observer: &mut Observer, cgroup: &TempCgroup) -> Result<Value> {
    let path = cgroup.path();
    observer.wait_event("a growth event", SOON, |event| {
        event["type"] == "growth" && event["cgroup"]["path"] == path
    })
}

/// Ends `watch` and returns the growth events of that cgroup, from first to last.
fn all_growths(observer: Observer, cgroup: &TempCgroup) -> Result<Vec<Value>> {
    let finished = observer.stop(Signal::INT, SOON)?;
    let mut events = finished
        .stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<Vec<Value>, _>>()?;
    events.retain(|event| event["type"] == "growth" && event["cgroup"]["path"] == cgroup.path());
    Ok(events)
}

fn figure(event: &Value, name: &str) -> Result<u64> {
    event["growth"][name]
        .as_u64()
        .with_context(|| format!("no {name}: {event}"))
}

/// The two stamps that a step answered with.
fn stamps(told: &str) -> Result<(i64, i64)> {
    let (from, to) = told.split_once(' ').context("two stamps")?;
    Ok((from.parse()?, to.parse()?))
}

fn resident(pid: u32) -> Result<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = statm.split(' ').nth(1).context("statm")?.parse()?;
    Ok(pages * PAGE)
}

/// Fails unless the event tells of the growth of this workload by about `bytes`.
fn check(event: &Value, cgroup: &TempCgroup, workload: &Workload, bytes: u64) -> Result<()> {
    ensure!(event["growth"]["scope"] == "process", "scope: {event}");
    ensure!(event["growth"]["pid"] == workload.pid(), "pid: {event}");
    ensure!(event["growth"]["comm"] == "grower", "comm: {event}");
    ensure!(event["cgroup"]["id"] == cgroup.id()?, "cgroup: {event}");
    let told = figure(event, "bytes")?;
    ensure!(
        told >= bytes && told <= bytes + SLACK,
        "{told} bytes and not {bytes}: {event}"
    );
    ensure!(figure(event, "rss")? >= told, "rss: {event}");
    ensure!(
        figure(event, "virtual")? >= figure(event, "rss")?,
        "virtual: {event}"
    );
    Ok(())
}

/// Crosses the threshold again and again, each time at a page known beforehand, and looks at the clock around it.
pub(crate) fn crossing(variables: &[(&str, &str)], rounds: usize) -> Result<Outcome> {
    let mut observer = watch(&[], variables)?;
    let (cgroup, mut workload) = grower()?;
    workload.step("touch 4608")?;
    let mut last = next_growth(&mut observer, &cgroup)?;
    check(&last, &cgroup, &workload, THRESHOLD)?;
    let (mut told, mut arrival) = (Latencies::default(), Latencies::default());
    for _ in 0..rounds {
        let target = figure(&last, "rss")? + THRESHOLD;
        let left = target.saturating_sub(resident(workload.pid())?);
        let before = left.saturating_sub(SLACK) / PAGE;
        let step = format!("cross {before} {}", 2 * SLACK / PAGE);
        let (from, to) = stamps(&workload.step(&step)?)?;
        let event = next_growth(&mut observer, &cgroup)?;
        check(&event, &cgroup, &workload, THRESHOLD)?;
        ensure_between(&event, from, to)?;
        let since = (event_us(&event)? - event_us(&last)?) / 1000;
        let off = since.abs_diff(figure(&event, "since_ms")?.cast_signed());
        ensure!(
            off <= 2,
            "since_ms is not the {since} ms since the last event: {event}"
        );
        told.add(event_us(&event)? - from);
        arrival
            .add(wall_at(observer.found_at().context("no time of the line")?) - event_us(&event)?);
        last = event;
    }
    told.tell("growth ts after the last stamp before the crossing");
    arrival.tell("growth line on the pipe after its ts");
    // The time in which the workload crosses is in it: a busy machine takes it away for a moment.
    ensure!(
        told.median() <= PROMISED_US && told.max() <= SLOWEST_US,
        "slowest event {} us",
        told.max()
    );
    ensure!(
        arrival.median() <= PROMISED_US,
        "median arrival {} us",
        arrival.median()
    );
    ensure!(
        arrival.max() <= SLOWEST_US,
        "slowest arrival {} us",
        arrival.max()
    );
    let events = all_growths(observer, &cgroup)?;
    ensure!(
        events.len() == rounds + 1,
        "{} events: {events:?}",
        events.len()
    );
    Ok(Outcome::Passed)
}

pub(crate) fn is_told_when_the_threshold_is_crossed() -> Result<Outcome> {
    crossing(&[], 6)
}

pub(crate) fn of_many_small_processes_is_the_cgroups() -> Result<Outcome> {
    let mut observer = watch(&[], &[])?;
    let (cgroup, mut workload) = grower()?;
    // 20 MiB, and what a fork itself takes, up to 1 MiB each: once over the threshold and not twice.
    let (from, to) = stamps(&workload.step("fork-hold 10 512")?)?;
    let event = next_growth(&mut observer, &cgroup)?;
    ensure_between(&event, from, to)?;
    ensure!(event["growth"]["scope"] == "cgroup", "scope: {event}");
    ensure!(event["growth"]["comm"] == "grower", "comm: {event}");
    let pids: BTreeSet<u64> = cgroup.processes()?.into_iter().map(u64::from).collect();
    ensure!(pids.len() == 11, "{} processes", pids.len());
    ensure!(pids.contains(&figure(&event, "pid")?), "pid: {event}");
    let bytes = figure(&event, "bytes")?;
    ensure!(
        (THRESHOLD..THRESHOLD + 2 * SLACK).contains(&bytes),
        "bytes: {event}"
    );
    ensure!(
        figure(&event, "rss")? < THRESHOLD / 2,
        "a small process: {event}"
    );
    let events = all_growths(observer, &cgroup)?;
    ensure!(events.len() == 1, "one event: {events:?}");
    Ok(Outcome::Passed)
}

pub(crate) fn after_a_shrink_counts_from_the_low_point() -> Result<Outcome> {
    let mut observer = watch(&[], &[])?;
    let (cgroup, mut workload) = grower()?;
    workload.step("touch 5120")?;
    check(
        &next_growth(&mut observer, &cgroup)?,
        &cgroup,
        &workload,
        THRESHOLD,
    )?;
    workload.step("unmap")?;
    workload.step("touch 5120")?;
    check(
        &next_growth(&mut observer, &cgroup)?,
        &cgroup,
        &workload,
        THRESHOLD,
    )?;
    workload.step("dontneed")?;
    workload.step("touch-last")?;
    check(
        &next_growth(&mut observer, &cgroup)?,
        &cgroup,
        &workload,
        THRESHOLD,
    )?;
    let events = all_growths(observer, &cgroup)?;
    ensure!(events.len() == 3, "three events: {events:?}");
    Ok(Outcome::Passed)
}

pub(crate) fn by_huge_pages_is_seen() -> Result<Outcome> {
    let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
        .unwrap_or_else(|_| "[never]".into());
    if enabled.contains("[never]") {
        return Outcome::skipped("transparent huge pages are off on this machine");
    }
    let mut observer = watch(&[], &[])?;
    let (cgroup, mut workload) = grower()?;
    let (from, to) = stamps(&workload.step(&format!("huge {}", 40 << 20))?)?;
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", workload.pid()))?;
    let huge = rollup
        .lines()
        .find_map(|line| line.strip_prefix("AnonHugePages:"))
        .and_then(|rest| {
            rest.trim()
                .trim_end_matches(" kB")
                .trim()
                .parse::<u64>()
                .ok()
        })
        .unwrap_or(0);
    if huge < 20 << 10 {
        return Outcome::skipped(format!("the machine gave {huge} KiB of huge pages only"));
    }
    let event = next_growth(&mut observer, &cgroup)?;
    // Seen at the first fault after the huge page that crossed.
    check(&event, &cgroup, &workload, THRESHOLD).or_else(|error| {
        let bytes = figure(&event, "bytes")?;
        ensure!(bytes < THRESHOLD + SLACK + (2 << 20), "{error}");
        Ok(())
    })?;
    ensure_between(&event, from, to)?;
    Ok(Outcome::Passed)
}

/// Faster than anything else grows: by the threshold every half a millisecond, each report on the heels of the other.
pub(crate) fn by_huge_pages_is_told_in_full() -> Result<Outcome> {
    const GROWN: u64 = 10 * THRESHOLD;
    let (cgroup, mut workload) = grower()?;
    // Memory that a guest touches for the first time comes slowly.
    workload.step(&format!("huge {GROWN}"))?;
    workload.step("unmap")?;
    let observer = watch(&[], &[])?;
    workload.step(&format!("huge {GROWN}"))?;
    // What it took to come here is not yet told, and not more than a threshold.
    let told = resident(workload.pid())?;
    let events = all_growths(observer, &cgroup)?;
    let mut sum = 0;
    for event in &events {
        sum += figure(event, "bytes")?;
    }
    ensure!(
        (GROWN - THRESHOLD - 3 * SLACK..=told + SLACK).contains(&sum),
        "{sum} bytes told of {GROWN}: {events:?}"
    );
    Ok(Outcome::Passed)
}

pub(crate) fn by_map_populate_is_seen() -> Result<Outcome> {
    // No fault tells of it: what grows is read at the end of the call.
    let mut observer = watch(&["--syscall-tracepoints", "on"], &[])?;
    populated(&mut observer)
}

/// One mmap call that brings 32 MiB in.
pub(crate) fn populated(observer: &mut Observer) -> Result<Outcome> {
    let (cgroup, mut workload) = grower()?;
    let (from, to) = stamps(&workload.step(&format!("populate {}", 32 << 20))?)?;
    let event = next_growth(observer, &cgroup)?;
    ensure!(event["growth"]["pid"] == workload.pid(), "pid: {event}");
    let bytes = figure(&event, "bytes")?;
    // With what the program itself took since its start.
    ensure!((32 << 20..37 << 20).contains(&bytes), "not 32 MiB: {event}");
    ensure_between(&event, from, to)?;
    Ok(Outcome::Passed)
}

pub(crate) fn of_a_steady_process_is_none() -> Result<Outcome> {
    let mut observer = watch(&[], &[])?;
    let (cgroup, mut workload) = grower()?;
    // 160 MiB of faults and never more than 4 MiB at a time.
    workload.step("churn-touch 40 1024")?;
    // The real growth shows that all before it has been told.
    workload.step("touch 5120")?;
    check(
        &next_growth(&mut observer, &cgroup)?,
        &cgroup,
        &workload,
        THRESHOLD,
    )?;
    let events = all_growths(observer, &cgroup)?;
    ensure!(events.len() == 1, "one event: {events:?}");
    Ok(Outcome::Passed)
}

/// 2 MiB, again and again, and two reports each time if nobody kept count.
pub(crate) fn of_a_process_that_comes_and_goes_is_told_at_a_bounded_rate() -> Result<Outcome> {
    const ROUNDS: usize = 1000;
    let observer = watch(&["--growth", "1M"], &[])?;
    let (cgroup, mut workload) = grower()?;
    let begun = Instant::now();
    workload.step(&format!("churn-touch {ROUNDS} 512"))?;
    let seconds = begun.elapsed().as_secs_f64();
    let events = all_growths(observer, &cgroup)?;
    let most = 128.0 + 50.0 * seconds + 2.0;
    ensure!(
        events.len() >= 128,
        "{} events, and 128 may come at once",
        events.len()
    );
    ensure!(
        (events.len() as f64) <= most,
        "{} events in {seconds:.1} s",
        events.len()
    );
    Ok(Outcome::Passed)
}

pub(crate) fn threshold_is_the_users() -> Result<Outcome> {
    let mut observer = watch(&["--growth", "64M"], &[])?;
    let (cgroup, mut workload) = grower()?;
    // 40 MiB, which is nothing, and 32 MiB more.
    workload.step("touch 10240")?;
    workload.step("touch 8192")?;
    check(
        &next_growth(&mut observer, &cgroup)?,
        &cgroup,
        &workload,
        64 << 20,
    )?;
    let events = all_growths(observer, &cgroup)?;
    ensure!(events.len() == 1, "one event: {events:?}");
    Ok(Outcome::Passed)
}

pub(crate) fn of_zero_switches_the_events_off() -> Result<Outcome> {
    let observer = watch(&["--growth", "0"], &[])?;
    let (cgroup, mut workload) = grower()?;
    workload.step("touch 10240")?;
    let finished = observer.stop(Signal::INT, SOON)?;
    let types: Vec<Value> = finished
        .stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(
        types.iter().all(|event| event["type"] != "growth"),
        "{types:?}"
    );
    let health = types.last().context("no lines")?;
    let off = health["health"]["degraded"]
        .as_array()
        .context("no degraded")?
        .iter()
        .any(|probe| probe["probe"] == "growth" && probe["attached"] == "off");
    ensure!(off, "health does not say that growth is off: {health}");
    drop(cgroup);
    Ok(Outcome::Passed)
}
