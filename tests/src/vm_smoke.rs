//! Whether the VM is what the other tests take it for, and the harness works in it.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::harness::{Outcome, TempCgroup, Trial, Workload, assert_within, cgroup_root};

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
