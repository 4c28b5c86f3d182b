//! Facts about `profile` that hold on this machine and in a VM: its figures against a workload that is known to the page,
//! and that nothing of it stays.

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::exit;
use crate::harness::{Observer, Outcome, TempCgroup, Workload, run, wait_until};

const PAGE: u64 = 4096;
/// Emulated, reading the kernel's BTF alone takes seconds.
const SOON: Duration = Duration::from_secs(60);

/// A figure of a profile or of one of its stacks.
pub(crate) fn figure(of: &Value, field: &str) -> Result<u64> {
    of[field]
        .as_u64()
        .with_context(|| format!("no {field} in {of}"))
}

/// A profile being taken of `target`, attached by now.
pub(crate) fn start(target: &[&str]) -> Result<Observer> {
    let args = [&["profile", "--for", "1h", "--json"], target].concat();
    let observer = Observer::start(&args)?;
    let infos = std::path::PathBuf::from(format!("/proc/{}/fdinfo", observer.pid()));
    let attached = wait_until("the programs of profile", SOON, || {
        // Of a process that has ended only the entry is left.
        if std::fs::read_dir(&infos)?.next().is_none() {
            return Ok(Some(false));
        }
        // Those of page faults are attached last.
        let links = std::fs::read_dir(&infos)?
            .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok())
            .filter(|text| text.contains("raw_tracepoint"))
            .count();
        Ok((links >= 2).then_some(true))
    })?;
    if !attached {
        let finished = observer.finish(SOON)?;
        bail!("profile {target:?} ended: {}", finished.stderr);
    }
    Ok(observer)
}

/// Ends it and reads what it wrote.
pub(crate) fn end(observer: Observer) -> Result<Value> {
    let finished = observer.stop(Signal::INT, SOON)?;
    ensure!(
        finished.code() == Some(0),
        "{:?}: {}",
        finished.status,
        finished.stderr
    );
    serde_json::from_str(&finished.stdout).with_context(|| finished.stdout.clone())
}

/// A workload that has touched its pages while its cgroup was profiled, one page in one.
fn profiled(steps: &[&str]) -> Result<Value> {
    let cgroup = TempCgroup::new("profiled")?;
    let inner = cgroup.child("inner")?;
    let beside = TempCgroup::new("beside")?;
    let mut workload = Workload::start(&inner)?;
    let mut other = Workload::start(&beside)?;
    let observer = start(&["--cgroup", cgroup.path(), "--overhead", "100%"])?;
    other.step("touch 3000")?;
    for step in steps {
        workload.step(step)?;
    }
    let profile = end(observer)?;
    ensure!(
        figure(&profile, "one_in")? == 1 && figure(&profile["lost"], "pages")? == 0,
        "it is to be exact: {profile}"
    );
    for stack in profile["stacks"].as_array().context("no stacks")? {
        ensure!(
            stack["pid"] == workload.pid(),
            "somebody else's stack: {stack}"
        );
    }
    Ok(profile)
}

/// Within some pages of the program itself: its stack, its buffers.
fn about(profile: &Value, field: &str, pages: u64) -> Result<()> {
    const OWN: u64 = 64;
    let found = figure(profile, field)? / PAGE;
    ensure!(
        (pages..=pages + OWN).contains(&found),
        "{field}: {found} pages instead of {pages}: {profile}"
    );
    Ok(())
}

pub(crate) fn of_a_cgroup_counts_what_was_touched_and_what_was_kept() -> Result<Outcome> {
    // Kept 1000; gone by munmap 800, by madvise 600, by a shorter mapping 300 of 400.
    let profile = profiled(&[
        "touch 1000",
        "touch 800",
        "unmap",
        "touch 600",
        "dontneed",
        "touch 400",
        "remap 409600",
    ])?;
    about(&profile, "faulted_bytes", 2800)?;
    about(&profile, "kept_bytes", 1100)?;
    Ok(Outcome::Passed)
}

pub(crate) fn what_mremap_moves_stays_with_who_brought_it() -> Result<Outcome> {
    // It cannot grow where it is: the mapping before it is in the way.
    let profile = profiled(&["map 4096", "touch 700", "remap 5734400"])?;
    about(&profile, "faulted_bytes", 700)?;
    about(&profile, "kept_bytes", 700)?;
    Ok(Outcome::Passed)
}

pub(crate) fn huge_pages_count_with_all_they_bring() -> Result<Outcome> {
    let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
        .unwrap_or_else(|_| "[never]".into());
    if enabled.contains("[never]") {
        return Outcome::skipped("transparent huge pages are off on this machine");
    }
    const BYTES: u64 = 40 << 20;
    let cgroup = TempCgroup::new("huge")?;
    let mut workload = Workload::start(&cgroup)?;
    let observer = start(&["--cgroup", cgroup.path(), "--overhead", "100%"])?;
    workload.step(&format!("huge {BYTES}"))?;
    let huge = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", workload.pid()))?;
    let profile = end(observer)?;
    let huge = huge
        .lines()
        .find(|line| line.starts_with("AnonHugePages:"))
        .unwrap_or_default();
    println!(
        "{huge}, {} faults, counted one by one: {}",
        profile["faults"], profile["huge_pages_counted"]
    );
    // Whatever the kernel made of it, all of it is there.
    about(&profile, "kept_bytes", BYTES / PAGE)?;
    Ok(Outcome::Passed)
}

pub(crate) fn a_reservation_that_nobody_touches_counts_nothing() -> Result<Outcome> {
    // 512 MiB; reading gives the zero page, which is nobody's memory.
    let profile = profiled(&["map 536870912", "touch 500", "map 4096000", "read-last"])?;
    about(&profile, "faulted_bytes", 1500)?;
    about(&profile, "kept_bytes", 500)?;
    Ok(Outcome::Passed)
}

pub(crate) fn memory_that_the_kernel_fills_counts_for_who_asked_for_it() -> Result<Outcome> {
    let profile = profiled(&["read-into 700"])?;
    about(&profile, "kept_bytes", 700)?;
    let through = profile["stacks"]
        .as_array()
        .context("no stacks")?
        .iter()
        .filter(|stack| {
            let frames = stack["frames"].as_array();
            frames.is_some_and(|frames| frames.iter().any(|frame| frame["kernel"] == true))
        })
        .map(|stack| figure(stack, "kept_bytes"))
        .sum::<Result<u64>>()?;
    ensure!(
        through >= 690 * PAGE,
        "{through} bytes by stacks with kernel frames: {profile}"
    );
    Ok(Outcome::Passed)
}

pub(crate) fn a_page_that_comes_back_belongs_to_who_brought_it_back() -> Result<Outcome> {
    // The same addresses, given back and read in again by the kernel: none is left of the first touch.
    let profile = profiled(&["touch 700", "dontneed", "read-into-last"])?;
    about(&profile, "faulted_bytes", 1400)?;
    about(&profile, "kept_bytes", 700)?;
    let by_touch: u64 = profile["stacks"]
        .as_array()
        .context("no stacks")?
        .iter()
        .filter(|stack| stack["faulted_bytes"].as_u64() >= Some(690 * PAGE))
        .filter(|stack| {
            let frames = stack["frames"].as_array();
            frames.is_some_and(|frames| frames.iter().all(|frame| frame["kernel"] != true))
        })
        .map(|stack| figure(stack, "kept_bytes"))
        .sum::<Result<u64>>()?;
    ensure!(
        by_touch == 0,
        "{by_touch} bytes left of the touch: {profile}"
    );
    Ok(Outcome::Passed)
}

pub(crate) fn follows_fewer_pages_where_the_budget_is_small() -> Result<Outcome> {
    const PAGES: u64 = 60_000;
    let cgroup = TempCgroup::new("budget")?;
    let mut workload = Workload::start(&cgroup)?;
    let observer = start(&["--cgroup", cgroup.path(), "--overhead", "0.5%"])?;
    workload.step("churn-touch 30 10000")?;
    workload.step(&format!("touch {PAGES}"))?;
    let profile = end(observer)?;
    let one_in = figure(&profile, "one_in")?;
    let kept = figure(&profile, "kept_bytes")? / PAGE;
    println!(
        "one page in {one_in}, {kept} pages kept of {PAGES}, cost {}",
        profile["cost"]
    );
    ensure!(one_in > 1, "every page was followed: {}", profile["cost"]);
    // 60000 pages of which one in n is followed: three standard deviations of the estimate.
    let spread = 3.0 * (PAGES as f64 * one_in as f64).sqrt();
    ensure!(
        (kept as f64 - PAGES as f64).abs() < spread + 64.0,
        "{kept} pages kept instead of {PAGES} ± {spread}"
    );
    Ok(Outcome::Passed)
}

fn leaves_nothing_at(signal: Signal) -> Result<()> {
    let cgroup = TempCgroup::new("left")?;
    let mut workload = Workload::start(&cgroup)?;
    let observer = start(&["--cgroup", cgroup.path()])?;
    let held = exit::held(observer.pid())?;
    ensure!(!held[1].is_empty() && !held[2].is_empty(), "{held:?}");
    // In the middle of its work, not at rest.
    workload.send("churn-touch 100000 256")?;
    let finished = observer.stop(signal, SOON)?;
    match signal {
        Signal::KILL => ensure!(finished.status.signal() == Some(9), "{:?}", finished.status),
        _ => ensure!(finished.code() == Some(0), "{}", finished.stderr),
    }
    exit::gone(&held)
}

pub(crate) fn leaves_nothing_in_the_kernel_however_it_ends() -> Result<Outcome> {
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        leaves_nothing_at(signal)?;
    }
    Ok(Outcome::Passed)
}

/// gzip'd bytes of a file, plain.
pub(crate) fn unzipped(path: &std::path::Path) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path)?).read_to_end(&mut plain)?;
    Ok(plain)
}

pub(crate) fn refuses_in_one_line_what_it_cannot_profile() -> Result<Outcome> {
    let none = "4194304";
    for (args, code, says) in [
        (&["profile", "--pid", none][..], 2, "no such process"),
        (&["profile", "--cgroup", "/no/such"], 2, "/no/such"),
        (&["profile", "--pid", "1", "-o", "x.txt"], 2, ".svg"),
        (
            &["profile", "--pid", "1", "-o", "/no/such/folder/x.svg"],
            1,
            "/no/such/folder",
        ),
        (&["profile", "diff", "/dev/null/x", "/y"], 1, "/dev/null/x"),
        (
            &["profile", "diff", "/proc/self/exe", "/y"],
            2,
            "is no text",
        ),
    ] {
        let finished = run(args, SOON)?;
        ensure!(
            finished.code() == Some(code)
                && finished.stderr.contains(says)
                && finished.stderr.trim_end().lines().count() == 1
                && finished.stdout.is_empty(),
            "{args:?}: {:?}: {}",
            finished.code(),
            finished.stderr
        );
    }
    Ok(Outcome::Passed)
}
