//! What `watch` and `doctor` say when probes are made to fail: what depends on them is absent, not zero, and what
//! another way still gives is exact.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Finished, Observer, Outcome, TempCgroup, Workload, assert_within};

/// Names the probes, or `probe=way`, that must fail.
pub(crate) const SWITCH: &str = "GREY_EBPF_FAIL_PROBES";
const SOON: Duration = Duration::from_secs(40);

/// Each probe and the figures of a sample that go with it. The other probes give events only.
const FIELDS: &[(&str, &[&str])] = &[
    (
        "fault_user",
        &[
            "faults.minor_total",
            "faults.user_read_total",
            "faults.user_write_total",
            "faults.user_exec_total",
        ],
    ),
    (
        "fault_kernel",
        &["faults.minor_total", "faults.kernel_total"],
    ),
    ("growth", &[]),
    ("oom_control", &[]),
    ("oom_victim", &[]),
    ("reclaim_target", &[]),
    (
        "reclaim_memcg",
        &[
            "reclaim.stall_us_total",
            "reclaim.pages_total",
            "reclaim.memcg_us_total",
        ],
    ),
    (
        "reclaim_direct",
        &[
            "reclaim.stall_us_total",
            "reclaim.pages_total",
            "reclaim.direct_us_total",
        ],
    ),
    ("reclaim_kswapd", &["reclaim.kswapd_us_total"]),
    ("vm_mmap", &["vm.mapped_total", "vm.map_calls_total"]),
    ("vm_munmap", &["vm.unmapped_total", "vm.unmap_calls_total"]),
    (
        "vm_mremap",
        &["vm.mapped_total", "vm.unmapped_total", "vm.map_calls_total"],
    ),
    (
        "vm_brk",
        &["vm.mapped_total", "vm.unmapped_total", "vm.map_calls_total"],
    ),
    (
        "vm_madvise",
        &["vm.released_total", "vm.release_calls_total"],
    ),
    ("cgroup_lifecycle", &[]),
    ("process_lifecycle", &[]),
    ("task_cgroup", &[]),
    ("cgroup_levels", &[]),
];

/// Figures that two probes give together: gone only when both are.
const SHARED: &[&str] = &["reclaim.own_pages_total", "reclaim.own_us_total"];

fn run_with(args: &[&str], fail: &str) -> Result<Finished> {
    Observer::start_with(args, &[(SWITCH, fail)])?.finish(SOON)
}

/// The probes by name as `doctor --json` has them.
fn doctor(fail: &str) -> Result<BTreeMap<String, Value>> {
    let finished = run_with(&["doctor", "--json"], fail)?;
    ensure!(finished.code() == Some(0), "doctor: {finished:?}");
    let report: Value = serde_json::from_str(&finished.stdout)?;
    let probes = report["probes"].as_array().context("no probes")?;
    probes
        .iter()
        .map(|probe| {
            Ok((
                probe["name"].as_str().context("no name")?.to_owned(),
                probe.clone(),
            ))
        })
        .collect()
}

/// Names of the figures of a sample, as `vm.mapped_total`.
fn figures(sample: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (part, values) in sample.as_object().into_iter().flatten() {
        for name in values
            .as_object()
            .into_iter()
            .flat_map(|values| values.keys())
        {
            names.insert(format!("{part}.{name}"));
        }
    }
    names
}

/// One look: the figures of the root and of all cgroups, and the health report.
fn look(fail: &str) -> Result<(BTreeSet<String>, BTreeSet<String>, Value)> {
    let finished = run_with(&["watch", "--once", "--json"], fail)?;
    ensure!(
        finished.code() == Some(0),
        "watch with {fail} off: {finished:?}"
    );
    let (mut root, mut any, mut health) = (BTreeSet::new(), BTreeSet::new(), Value::Null);
    for line in finished.stdout.lines() {
        let event: Value = serde_json::from_str(line)?;
        match event["type"].as_str() {
            Some("sample") => {
                if event["cgroup"]["path"] == "/" {
                    root = figures(&event);
                }
                any.extend(figures(&event));
            }
            Some("health") => health = event["health"].clone(),
            _ => {}
        }
    }
    ensure!(!root.is_empty(), "no sample of the root with {fail} off");
    Ok((root, any, health))
}

fn degraded<'a>(health: &'a Value, probe: &str) -> Option<&'a Value> {
    health["degraded"]
        .as_array()?
        .iter()
        .find(|degraded| degraded["probe"] == probe)
}

fn lost_with(probe: &str) -> Result<BTreeSet<String>> {
    let (_, fields) = FIELDS
        .iter()
        .find(|(name, _)| *name == probe)
        .with_context(|| format!("the table has no probe {probe}"))?;
    Ok(fields.iter().map(|field| (*field).to_owned()).collect())
}

/// One probe off: `watch` runs, says so and lacks what the table says and nothing else.
fn check_one(probe: &str, usual: &BTreeSet<String>) -> Result<()> {
    let (root, any, health) = look(probe)?;
    let lost = lost_with(probe)?;
    let missing: BTreeSet<String> = usual.difference(&root).cloned().collect();
    ensure!(
        missing == lost,
        "{probe} off: {missing:?} is absent and not {lost:?}"
    );
    ensure!(
        any.is_disjoint(&lost),
        "{probe} off: a cgroup still has one of {lost:?}"
    );
    let told = degraded(&health, probe).with_context(|| format!("{probe} not in {health}"))?;
    let reason = told["reason"].as_str().unwrap_or_default();
    ensure!(told["attached"] == "off", "{told}");
    ensure!(reason.contains(SWITCH), "{told}");
    Ok(())
}

/// `doctor` with one probe off: it names that one and no other.
fn check_doctor(probe: &str, probes: &BTreeMap<String, Value>) -> Result<()> {
    let now = doctor(probe)?;
    for (name, before) in probes {
        let after = now
            .get(name)
            .with_context(|| format!("doctor forgot {name}"))?;
        if name == probe {
            let reason = after["reason"].as_str().unwrap_or_default();
            ensure!(
                after.get("attached").is_none() && reason.contains(SWITCH),
                "{after}"
            );
            ensure!(after["lost"].is_string(), "nothing lost: {after}");
        } else {
            let attached = |probe: &Value| probe.get("attached").is_some();
            ensure!(
                attached(before) == attached(after),
                "{probe} took {name} with it: {after}"
            );
        }
    }
    Ok(())
}

/// `workers` probes at a time, each with a run of `doctor` too where `twice` is set.
fn each_probe(workers: usize, twice: bool) -> Result<Outcome> {
    let probes = doctor("")?;
    let known: BTreeSet<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
    let named: BTreeSet<&str> = probes.keys().map(String::as_str).collect();
    ensure!(known == named, "doctor has {named:?}, the table {known:?}");
    let (usual, _, health) = look("")?;
    for (name, probe) in &probes {
        let works = probe.get("attached").is_some();
        let off = degraded(&health, name).is_some_and(|told| told["attached"] == "off");
        ensure!(works != off, "doctor and health differ about {name}");
        if works {
            ensure!(
                lost_with(name)?.is_subset(&usual),
                "{name} works, figures are missing: {usual:?}"
            );
        }
    }
    // A probe that this kernel refuses has nothing more to lose.
    let queue: Vec<&str> = probes
        .iter()
        .filter(|(_, probe)| probe.get("attached").is_some())
        .map(|(name, _)| name.as_str())
        .collect();
    // Tracepoints attach on every machine that these tests run on.
    ensure!(queue.len() >= 9, "only {queue:?} to switch off");
    let queue = Mutex::new(queue);
    let next = || queue.lock().ok().and_then(|mut queue| queue.pop());
    let work = || -> Result<()> {
        while let Some(probe) = next() {
            check_one(probe, &usual)?;
            if twice {
                check_doctor(probe, &probes)?;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(result) => result?,
                Err(_) => bail!("a worker panicked"),
            }
        }
        Ok(Outcome::Passed)
    })
}

pub(crate) fn each_probe_can_fail_alone() -> Result<Outcome> {
    each_probe(2, true)
}

/// In a VM: one CPU, since an emulated one may run a breakpoint that the other has just taken away, and this attaches
/// to the page fault again and again; `doctor` is asked for all probes at once.
pub(crate) fn each_probe_can_fail_alone_on_one_cpu() -> Result<Outcome> {
    let mut cpus = rustix::thread::CpuSet::new();
    cpus.set(0);
    rustix::thread::sched_setaffinity(None, &cpus).context("stay on one CPU")?;
    each_probe(1, false)
}

pub(crate) fn all_probes_off_leave_the_files() -> Result<Outcome> {
    let (usual, _, _) = look("")?;
    let (root, any, health) = look("all")?;
    let mut lost: BTreeSet<String> = SHARED.iter().map(|field| (*field).to_owned()).collect();
    for (probe, _) in FIELDS {
        lost.extend(lost_with(probe)?);
        ensure!(
            degraded(&health, probe).is_some(),
            "{probe} not in {health}"
        );
    }
    ensure!(any.is_disjoint(&lost), "figures without a probe: {any:?}");
    for (name, probe) in doctor("all")? {
        ensure!(
            probe.get("attached").is_none(),
            "doctor says that {name} is on"
        );
    }
    let kept: BTreeSet<String> = usual.difference(&lost).cloned().collect();
    ensure!(root == kept, "the files give {kept:?}, not {root:?}");
    ensure!(
        kept.iter().any(|name| name.starts_with("mem.")),
        "no memory figure: {kept:?}"
    );
    Ok(Outcome::Passed)
}

pub(crate) fn without_its_probe_there_are_no_growth_events() -> Result<Outcome> {
    let mut observer = Observer::start_with(
        &["watch", "--json", "--interval", "1h"],
        &[(SWITCH, "growth")],
    )?;
    observer.wait_event("the first health line", SOON, |event| {
        event["type"] == "health"
    })?;
    let cgroup = TempCgroup::new("no-growth")?;
    Workload::start(&cgroup)?.step("touch 10240")?;
    let finished = observer.stop(Signal::INT, SOON)?;
    ensure!(finished.code() == Some(0), "{finished:?}");
    ensure!(
        !finished.stdout.contains(r#""type":"growth""#),
        "{}",
        finished.stdout
    );
    Ok(Outcome::Passed)
}

const CALLS: [&str; 5] = ["vm_mmap", "vm_munmap", "vm_mremap", "vm_brk", "vm_madvise"];

/// `ways` of each system call probe made to fail, in the switch's syntax.
pub(crate) fn calls_without(ways: &[&str]) -> String {
    let mut parts = Vec::new();
    for call in CALLS {
        parts.extend(ways.iter().map(|way| format!("{call}={way}")));
    }
    parts.join(",")
}

/// With these ways off, each of `probes` is served by the way `by`, and the counts are exact all the same.
pub(crate) fn counts_exactly(fail: &str, probes: &[&str], by: &str) -> Result<Outcome> {
    const PIECE: u64 = 257 * 4096;
    const TOUCHED: u64 = 3000;
    let cgroup = TempCgroup::new("exact")?;
    let mut workload = Workload::start(&cgroup)?;
    // Started after the workload, so that it counts from here.
    let mut observer = Observer::start_with(
        &[
            "watch",
            "--json",
            "--interval",
            "100ms",
            "--syscall-tracepoints",
            "on",
        ],
        &[(SWITCH, fail)],
    )?;
    let health = observer.wait_event("the first health line", SOON, |event| {
        event["type"] == "health"
    })?;
    for probe in probes {
        let told = degraded(&health["health"], probe);
        ensure!(
            told.is_some_and(|told| told["attached"] == by),
            "{probe} is not served by {by}: {told:?}"
        );
    }
    for _ in 0..3 {
        workload.step(&format!("map {PIECE}"))?;
    }
    ensure!(
        workload.step(&format!("map {}", usize::MAX >> 1)).is_err(),
        "mapped all"
    );
    workload.step(&format!("remap {}", 2 * PIECE))?;
    workload.step("unmap")?;
    workload.step("brk 65536")?;
    workload.step(&format!("touch {TOUCHED}"))?;
    workload.step("dontneed")?;
    let touched = TOUCHED * 4096;
    let expected = [
        ("mapped_total", 4 * PIECE + 65536 + touched),
        ("unmapped_total", 2 * PIECE),
        ("released_total", touched),
        ("map_calls_total", 6),
        ("unmap_calls_total", 1),
        ("release_calls_total", 1),
    ];
    let sample = observer.wait_event("the exact figures", Duration::from_secs(10), |event| {
        event["cgroup"]["path"] == cgroup.path()
            && event["type"] == "sample"
            && expected
                .iter()
                .all(|(name, value)| event["vm"][name] == *value)
    })?;
    let faults = sample["faults"]["minor_total"]
        .as_u64()
        .context("no faults")?;
    assert_within("minor faults", faults, TOUCHED, 1.0)?;
    let finished = observer.stop(Signal::INT, SOON)?;
    ensure!(finished.code() == Some(0), "{finished:?}");
    Ok(Outcome::Passed)
}

pub(crate) fn calls_by_syscall_tracepoints_are_counted_exactly() -> Result<Outcome> {
    let fail = calls_without(&["fexit", "kprobe"]);
    counts_exactly(&fail, &CALLS, "syscall tracepoint")
}

pub(crate) fn calls_by_kprobes_are_counted_exactly() -> Result<Outcome> {
    counts_exactly(&calls_without(&["fexit"]), &CALLS, "kprobe")
}

pub(crate) fn faults_by_classic_tracepoints_are_counted_exactly() -> Result<Outcome> {
    counts_exactly(
        "fault_user=BTF tracepoint,fault_kernel=BTF tracepoint",
        &["fault_user", "fault_kernel"],
        "classic tracepoint",
    )
}

/// Where no fault program looks for growth, rss_stat does.
pub(crate) fn growth_by_rss_stat_is_told_in_time() -> Result<Outcome> {
    crate::growth::crossing(&[(SWITCH, "growth=in the fault program")], 3)
}
