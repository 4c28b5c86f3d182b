//! Whether the VM is what the other tests take it for, and the harness works in it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::harness::{Observer, Outcome, TempCgroup, Trial, Workload, assert_within, cgroup_root};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new("vm_has_the_memory_controller", has_the_memory_controller),
        Trial::new("vm_has_btf_and_tracefs", has_btf_and_tracefs),
        Trial::new(
            "vm_workload_is_charged_to_its_cgroup",
            workload_is_charged_to_its_cgroup,
        ),
        Trial::new(
            "vm_eating_past_the_limit_ends_in_a_memcg_kill",
            eating_past_the_limit_ends_in_a_memcg_kill,
        ),
        Trial::new(
            "vm_workload_maps_and_touches_nothing_but_what_it_is_told",
            workload_maps_and_touches_nothing_but_what_it_is_told,
        ),
        Trial::new(
            "vm_watch_reports_the_cgroup_of_a_workload",
            watch_reports_the_cgroup_of_a_workload,
        ),
        Trial::new("vm_has_memory_reclaim", has_memory_reclaim),
    ]
}

fn has_the_memory_controller() -> Result<Outcome> {
    let enabled = std::fs::read_to_string(cgroup_root()?.join("cgroup.subtree_control"))?;
    ensure!(
        enabled.split_whitespace().any(|name| name == "memory"),
        "only {enabled}"
    );
    Ok(Outcome::Passed)
}

fn has_btf_and_tracefs() -> Result<Outcome> {
    for path in [
        "/sys/kernel/btf/vmlinux",
        "/sys/kernel/tracing/events/oom/mark_victim/format",
    ] {
        ensure!(std::path::Path::new(path).exists(), "no {path}");
    }
    Ok(Outcome::Passed)
}

fn workload_is_charged_to_its_cgroup() -> Result<Outcome> {
    let (cgroup, sibling) = (TempCgroup::new("a")?, TempCgroup::new("b")?);
    let mut workload = Workload::start(&cgroup)?;
    let before = cgroup.stat("memory.stat", "anon")?;
    workload.step("touch 4000")?;
    let after = cgroup.stat("memory.stat", "anon")?;
    assert_within("anon memory", after - before, 4000 * 4096, 3.0)?;
    ensure!(
        sibling.number("memory.current")? == 0,
        "the sibling was charged"
    );
    Ok(Outcome::Passed)
}

fn eating_past_the_limit_ends_in_a_memcg_kill() -> Result<Outcome> {
    let cgroup = TempCgroup::new("oom")?;
    cgroup.write("memory.max", 16 << 20)?;
    let mut workload = Workload::start(&cgroup)?;
    let ended = workload.step("fork-eat")?;
    ensure!(
        ended.ends_with("signal 9"),
        "the child ended otherwise: {ended}"
    );
    ensure!(
        cgroup.stat("memory.events", "oom_kill")? == 1,
        "not one kill"
    );
    workload.send("exit 0")?;
    ensure!(
        workload.wait(Duration::from_secs(10))?.success(),
        "the parent was hit"
    );
    Ok(Outcome::Passed)
}

fn has_memory_reclaim() -> Result<Outcome> {
    let cgroup = TempCgroup::new("reclaim")?;
    if cgroup.has("memory.reclaim") {
        Ok(Outcome::Passed)
    } else {
        Outcome::skipped("this kernel has no memory.reclaim")
    }
}

/// What the attribution tests rest on.
fn workload_maps_and_touches_nothing_but_what_it_is_told() -> Result<Outcome> {
    let cgroup = TempCgroup::new("exact")?;
    let mut workload = Workload::start(&cgroup)?;
    workload.step("map 4096")?;
    workload.step("unmap")?;
    let size = vm_size(workload.pid())?;
    let faults = minor_faults(workload.pid())?;
    for _ in 0..100 {
        workload.step("map 1048576")?;
        workload.step("unmap")?;
    }
    ensure!(
        vm_size(workload.pid())? == size,
        "the workload's own heap moved"
    );
    let noise = minor_faults(workload.pid())? - faults;
    workload.step("touch 4000")?;
    ensure!(
        vm_size(workload.pid())? == size + 4000 * 4096,
        "not 4000 pages mapped"
    );
    assert_within(
        "minor faults",
        minor_faults(workload.pid())? - faults - noise,
        4000,
        1.0,
    )?;
    ensure!(noise < 20, "{noise} faults of the workload's own");
    Ok(Outcome::Passed)
}

/// The virtual size in bytes, which `/proc/PID/statm` has in pages.
fn vm_size(pid: u32) -> Result<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    Ok(statm.split(' ').next().unwrap_or_default().parse::<u64>()? * 4096)
}

/// Field 10 of `/proc/PID/stat`, counted after the name in brackets, which ends field 2.
fn minor_faults(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat
        .rsplit_once(") ")
        .context("no name in the stat line")?
        .1;
    Ok(fields
        .split(' ')
        .nth(7)
        .context("too few fields")?
        .parse()?)
}

fn watch_reports_the_cgroup_of_a_workload() -> Result<Outcome> {
    let cgroup = TempCgroup::new("watched")?;
    let mut observer = Observer::start(&["watch", "--json", "--interval", "200ms"])?;
    let mut workload = Workload::start(&cgroup)?;
    workload.step("touch 2000")?;
    let sample = observer.wait_event(
        "a sample of the workload",
        Duration::from_secs(20),
        |event| {
            event["type"] == "sample"
                && event["cgroup"]["path"] == cgroup.path()
                && event["mem"]["anon"].as_u64() >= Some(2000 * 4096)
        },
    )?;
    ensure!(
        sample["cgroup"]["id"] == cgroup.id()?,
        "another id: {sample}"
    );
    let finished = observer.stop(Signal::INT, Duration::from_secs(10))?;
    ensure!(
        finished.code() == Some(0),
        "{:?}: {}",
        finished.status,
        finished.stderr
    );
    Ok(Outcome::Passed)
}
