//! The facts of `degraded.rs` on the kernel of a VM, and those that take an OOM kill.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::degraded;
use crate::harness::{Observer, Outcome, TempCgroup, Trial, Workload};

const SWITCH: &str = "GREY_EBPF_FAIL_PROBES";
const SOON: Duration = Duration::from_secs(40);
const FENTRY_WAYS: &str =
    "oom_victim=BTF tracepoint and fentry,oom_victim=fentry and BTF tracepoint";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_degraded_each_probe_can_fail_alone",
            degraded::each_probe_can_fail_alone_on_one_cpu,
        )
        .with_deadline(Duration::from_secs(150))
        .shown_on(&["5.10", "6.12"]),
        Trial::new(
            "vm_degraded_all_probes_off_leave_the_files",
            degraded::all_probes_off_leave_the_files,
        ),
        Trial::new(
            "vm_degraded_calls_by_kprobes_are_counted_exactly",
            degraded::calls_by_kprobes_are_counted_exactly,
        ),
        Trial::new(
            "vm_degraded_calls_by_syscall_tracepoints_are_counted_exactly",
            degraded::calls_by_syscall_tracepoints_are_counted_exactly,
        ),
        Trial::new(
            "vm_degraded_faults_by_classic_tracepoints_are_counted_exactly",
            degraded::faults_by_classic_tracepoints_are_counted_exactly,
        ),
        Trial::new(
            "vm_degraded_growth_by_rss_stat_is_told_in_time",
            degraded::growth_by_rss_stat_is_told_in_time,
        ),
        Trial::new(
            "vm_degraded_events_lack_what_their_probes_would_tell",
            events_lack_what_their_probes_would_tell,
        ),
        Trial::new(
            "vm_degraded_oom_victim_is_right_without_fentry",
            oom_victim_is_right_without_fentry,
        ),
        Trial::new(
            "vm_degraded_oom_victim_is_right_by_classic_tracepoint",
            oom_victim_is_right_by_classic_tracepoint,
        ),
    ]
}

/// One OOM kill under a `watch` with these probes off: the cgroup, the victim, all events.
fn killed(fail: &str) -> Result<(TempCgroup, u64, Vec<Value>)> {
    let args = ["watch", "--json", "--interval", "1h", "--stall", "1us"];
    let mut observer = Observer::start_with(&args, &[(SWITCH, fail)])?;
    observer.wait_event("the first health line", SOON, |event| {
        event["type"] == "health"
    })?;
    let cgroup = TempCgroup::new("killed")?;
    cgroup.write("memory.max", 24 << 20)?;
    let mut workload = Workload::start(&cgroup)?;
    workload.step("rename greedy")?;
    workload.step("oom-score -1000")?;
    let told = workload.step("oom-eat 0")?;
    let pid = told.split(' ').next().context("no pid")?.parse()?;
    observer.wait_event("the oom event", SOON, |event| event["type"] == "oom")?;
    let finished = observer.stop(Signal::INT, SOON)?;
    let events = finished
        .stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    Ok((cgroup, pid, events))
}

fn of_type<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events
        .iter()
        .filter(|event| event["type"] == name)
        .collect()
}

fn events_lack_what_their_probes_would_tell() -> Result<Outcome> {
    // With the probes: a growth event, stalls with a target, a kill with its constraint.
    let (cgroup, pid, events) = killed("")?;
    let (ooms, stalls) = (of_type(&events, "oom"), of_type(&events, "stall"));
    ensure!(
        ooms.len() == 1 && ooms[0]["oom"]["victim"]["pid"] == pid,
        "{ooms:?}"
    );
    ensure!(ooms[0]["oom"]["constraint"] == "memcg", "{ooms:?}");
    ensure!(
        !of_type(&events, "growth").is_empty(),
        "no growth of 24 MiB"
    );
    ensure!(!stalls.is_empty(), "no reclaim before the kill");
    ensure!(
        stalls
            .iter()
            .all(|stall| stall["stall"]["target"] == cgroup.path()),
        "{stalls:?}"
    );
    // Without them: the same, less what they tell.
    let (_, pid, events) = killed("oom_control,reclaim_target,growth")?;
    let (ooms, stalls) = (of_type(&events, "oom"), of_type(&events, "stall"));
    ensure!(
        ooms.len() == 1 && ooms[0]["oom"]["victim"]["pid"] == pid,
        "{ooms:?}"
    );
    for field in ["constraint", "limit_cgroup"] {
        ensure!(ooms[0]["oom"].get(field).is_none(), "{field}: {ooms:?}");
    }
    ensure!(
        ooms[0]["oom"]["victim"]["anon"].as_u64() > Some(20 << 20),
        "{ooms:?}"
    );
    ensure!(
        of_type(&events, "growth").is_empty(),
        "growth without its probe"
    );
    ensure!(!stalls.is_empty(), "no reclaim before the kill");
    ensure!(
        stalls
            .iter()
            .all(|stall| stall["stall"].get("target").is_none()),
        "{stalls:?}"
    );
    Ok(Outcome::Passed)
}

/// One kill told once, with the right pid and what else this way knows, which is never a wrong figure.
fn victim_is_right(fail: &str) -> Result<Value> {
    let (cgroup, pid, events) = killed(fail)?;
    let ooms = of_type(&events, "oom");
    ensure!(ooms.len() == 1, "{ooms:?}");
    let (event, victim) = (ooms[0], &ooms[0]["oom"]["victim"]);
    ensure!(victim["pid"] == pid, "{event}");
    ensure!(
        victim["comm"] == "greedy" || victim["comm"] == "",
        "{event}"
    );
    if let Some(anon) = victim["anon"].as_u64() {
        ensure!(anon.abs_diff(24 << 20) < 2 << 20, "{event}");
    }
    ensure!(
        event["cgroup"].is_null() || event["cgroup"]["path"] == cgroup.path(),
        "{event}"
    );
    ensure!(event["oom"]["trigger"]["pid"] == pid, "{event}");
    ensure!(event["oom"]["constraint"] == "memcg", "{event}");
    ensure!(event["oom"]["limit_cgroup"] == cgroup.path(), "{event}");
    Ok(victim.clone())
}

fn oom_victim_is_right_without_fentry() -> Result<Outcome> {
    let victim = victim_is_right(FENTRY_WAYS)?;
    println!("without fentry: {victim}");
    Ok(Outcome::Passed)
}

fn oom_victim_is_right_by_classic_tracepoint() -> Result<Outcome> {
    let fail =
        format!("{FENTRY_WAYS},oom_victim=BTF tracepoint,oom_victim=BTF tracepoint (pid only)");
    let victim = victim_is_right(&fail)?;
    println!("by classic tracepoint: {victim}");
    // The record has a pid; figures that it lacks are left out.
    ensure!(
        victim.get("anon").is_none() && victim.get("oom_score_adj").is_none(),
        "{victim}"
    );
    Ok(Outcome::Passed)
}
