//! OOM kills as `watch --json` tells of them: one event a victim, in time, with what the kernel knew at that moment.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::timing::{Latencies, ensure_between, event_us, wall_at};
use crate::harness::{Finished, Observer, Outcome, TempCgroup, Trial, Workload};

const LIMIT: u64 = 16 << 20;
const SOON: Duration = Duration::from_secs(20);
/// What is promised of a line on the pipe. A single line may take longer where every instruction is emulated and
/// the machine below is busy; half of them may not.
const PROMISED_US: i64 = 100_000;
const EMULATED_US: i64 = 1_000_000;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_oom_kill_is_told_at_once_as_the_kernel_saw_it",
            kill_is_told_at_once_as_the_kernel_saw_it,
        ),
        Trial::new(
            "vm_oom_limit_of_the_parent_is_named",
            limit_of_the_parent_is_named,
        ),
        Trial::new(
            "vm_oom_trigger_is_told_apart_from_the_victim",
            trigger_is_told_apart_from_the_victim,
        ),
        Trial::new(
            "vm_oom_group_kill_names_every_victim",
            group_kill_names_every_victim,
        ),
        Trial::new(
            "vm_oom_pass_for_a_dying_process_is_no_kill",
            pass_for_a_dying_process_is_no_kill,
        ),
        Trial::new(
            "vm_oom_storm_of_200_kills_loses_none",
            storm_of_200_kills_loses_none,
        )
        .with_deadline(Duration::from_secs(180)),
        Trial::new(
            "vm_oom_without_its_probe_is_told_from_memory_events",
            without_its_probe_is_told_from_memory_events,
        ),
    ]
}

/// A `watch` without ticks that has attached its probes.
fn watch(variables: &[(&str, &str)]) -> Result<Observer> {
    let mut observer = Observer::start_with(&["watch", "--json", "--interval", "1h"], variables)?;
    observer.wait_event("the first health line", Duration::from_secs(40), |event| {
        event["type"] == "health"
    })?;
    Ok(observer)
}

fn next_oom(observer: &mut Observer) -> Result<Value> {
    observer.wait_event("an oom event", SOON, |event| event["type"] == "oom")
}

/// Ends `watch`; its `oom` events from first to last, and its last health report.
fn all_ooms(observer: Observer) -> Result<(Vec<Value>, Value)> {
    let finished: Finished = observer.stop(Signal::INT, SOON)?;
    let events = finished
        .stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<Vec<Value>, _>>()?;
    let health = events
        .last()
        .filter(|event| event["type"] == "health")
        .context("no health line at the end")?["health"]
        .clone();
    let ooms = events
        .into_iter()
        .filter(|event| event["type"] == "oom")
        .collect();
    Ok((ooms, health))
}

/// A cgroup with a limit, and inside it a parent of victims that is none itself.
fn limited(label: &str, limit: u64) -> Result<(TempCgroup, Workload)> {
    let cgroup = TempCgroup::new(label)?;
    cgroup.write("memory.max", limit)?;
    let mut workload = Workload::start(&cgroup)?;
    workload.step("rename greedy")?;
    workload.step("oom-score -1000")?;
    Ok((cgroup, workload))
}

/// The answer to `oom-eat`: the victim's pid, its last stamp, and when its end was seen.
fn eat(workload: &mut Workload, score: i32) -> Result<(u64, i64, i64)> {
    let told = workload.step(&format!("oom-eat {score}"))?;
    let mut words = told.split(' ').map(str::parse::<i64>);
    let mut word = || words.next().context("too few words")?.context("a number");
    let (pid, signal, last, seen) = (word()?, word()?, word()?, word()?);
    ensure!(signal == 9, "the eater was not killed: {told}");
    Ok((pid.cast_unsigned(), last, seen))
}

/// Compares everything an `oom` event says with what the test knows; `limit` is where the limit sits.
fn check_oom(event: &Value, pid: u64, cgroup: &TempCgroup, limit: &TempCgroup) -> Result<()> {
    let (oom, victim) = (&event["oom"], &event["oom"]["victim"]);
    ensure!(victim["pid"] == pid, "victim {pid}: {event}");
    ensure!(victim["comm"] == "greedy", "comm: {event}");
    ensure!(event["cgroup"]["path"] == cgroup.path(), "cgroup: {event}");
    ensure!(event["cgroup"]["id"] == cgroup.id()?, "cgroup id: {event}");
    ensure!(oom["constraint"] == "memcg", "constraint: {event}");
    ensure!(oom["limit_cgroup"] == limit.path(), "limit_cgroup: {event}");
    ensure!(oom["kills"] == 1, "kills: {event}");
    let bytes = |name: &str| {
        victim[name]
            .as_u64()
            .with_context(|| format!("{name}: {event}"))
    };
    let off = bytes("anon")?.abs_diff(LIMIT);
    ensure!(
        off <= (1 << 20).max(LIMIT / 20),
        "anon is {off} bytes off the limit: {event}"
    );
    // 16 MiB take eight page tables of the last level at least.
    ensure!(bytes("pgtables")? >= 8 * 4096, "pgtables: {event}");
    ensure!(bytes("virtual")? >= bytes("anon")?, "virtual: {event}");
    ensure!(bytes("file")? < LIMIT, "file: {event}");
    // The program itself, where the root file system is a tmpfs, and a page of stamps.
    ensure!(bytes("shmem")? <= 4 << 20, "shmem: {event}");
    Ok(())
}

fn kill_is_told_at_once_as_the_kernel_saw_it() -> Result<Outcome> {
    const KILLS: usize = 8;
    let mut observer = watch(&[])?;
    let (cgroup, mut workload) = limited("oom", LIMIT)?;
    let (mut after_last, mut arrival) = (Latencies::default(), Latencies::default());
    for n in 0..KILLS {
        let score = 100 + i32::try_from(n)?;
        let (pid, last, seen) = eat(&mut workload, score)?;
        let event = next_oom(&mut observer)?;
        check_oom(&event, pid, &cgroup, &cgroup)?;
        let oom = &event["oom"];
        ensure!(oom["victim"]["oom_score_adj"] == score, "score: {event}");
        ensure!(oom["trigger"]["pid"] == pid, "trigger: {event}");
        ensure!(oom["trigger"]["comm"] == "greedy", "trigger: {event}");
        ensure!(
            oom["trigger"]["cgroup"] == cgroup.path(),
            "trigger: {event}"
        );
        // The kill lies between the victim's last stamp and the end its parent saw.
        ensure_between(&event, last, seen)?;
        let came = wall_at(observer.found_at().context("no time of the line")?);
        after_last.add(event_us(&event)? - last);
        arrival.add(came - event_us(&event)?);
    }
    after_last.tell("oom ts after the victim's last stamp");
    arrival.tell("oom line on the pipe after its ts");
    ensure!(
        arrival.median() <= PROMISED_US,
        "median arrival {} us",
        arrival.median()
    );
    ensure!(
        arrival.max() <= EMULATED_US,
        "slowest arrival {} us",
        arrival.max()
    );
    let (ooms, health) = all_ooms(observer)?;
    ensure!(
        ooms.len() == KILLS,
        "{} events of {KILLS} kills",
        ooms.len()
    );
    ensure!(health["emitted"]["oom"] == KILLS, "{health}");
    ensure!(
        cgroup.stat("memory.events", "oom_kill")? == KILLS as u64,
        "other kills"
    );
    Ok(Outcome::Passed)
}

fn limit_of_the_parent_is_named() -> Result<Outcome> {
    let mut observer = watch(&[])?;
    let parent = TempCgroup::new("limit")?;
    parent.delegate("+memory")?;
    parent.write("memory.max", LIMIT)?;
    let leaf = parent.child("leaf")?;
    let mut workload = Workload::start(&leaf)?;
    workload.step("rename greedy")?;
    workload.step("oom-score -1000")?;
    let (pid, last, seen) = eat(&mut workload, 0)?;
    let event = next_oom(&mut observer)?;
    check_oom(&event, pid, &leaf, &parent)?;
    ensure_between(&event, last, seen)?;
    let (ooms, _) = all_ooms(observer)?;
    ensure!(ooms.len() == 1, "{} events of one kill", ooms.len());
    Ok(Outcome::Passed)
}

fn trigger_is_told_apart_from_the_victim() -> Result<Outcome> {
    let mut observer = watch(&[])?;
    let (cgroup, mut small) = limited("trigger", LIMIT)?;
    small.step("rename small")?;
    let mut big = Workload::start(&cgroup)?;
    big.step("rename big")?;
    big.step("oom-score 500")?;
    // 12 MiB, at rest when the other one needs 6 MiB more than the 4 that are left.
    big.step("touch 3072")?;
    small.step(&format!("eat {}", 10 << 20))?;
    ensure!(!big.wait(SOON)?.success(), "the big process lives");
    let event = next_oom(&mut observer)?;
    let oom = &event["oom"];
    ensure!(
        oom["victim"]["pid"] == big.pid() && oom["victim"]["comm"] == "big",
        "{event}"
    );
    ensure!(oom["victim"]["oom_score_adj"] == 500, "{event}");
    let anon = oom["victim"]["anon"].as_u64().context("no anon")?;
    ensure!(anon.abs_diff(12 << 20) <= 1 << 20, "anon: {event}");
    ensure!(oom["trigger"]["pid"] == small.pid(), "{event}");
    ensure!(oom["trigger"]["comm"] == "small", "{event}");
    ensure!(
        oom["limit_cgroup"] == cgroup.path() && oom["constraint"] == "memcg",
        "{event}"
    );
    let (ooms, _) = all_ooms(observer)?;
    ensure!(ooms.len() == 1, "{} events of one kill", ooms.len());
    Ok(Outcome::Passed)
}

fn victims(ooms: &[Value]) -> BTreeSet<u64> {
    ooms.iter()
        .filter_map(|event| event["oom"]["victim"]["pid"].as_u64())
        .collect()
}

fn group_kill_names_every_victim() -> Result<Outcome> {
    let observer = watch(&[])?;
    let cgroup = TempCgroup::new("group")?;
    cgroup.write("memory.max", LIMIT)?;
    cgroup.write("memory.oom.group", 1)?;
    let mut group = Vec::new();
    for _ in 0..3 {
        let mut workload = Workload::start(&cgroup)?;
        workload.step("touch 256")?;
        group.push(workload);
    }
    let pids: BTreeSet<u64> = group
        .iter()
        .map(|workload| u64::from(workload.pid()))
        .collect();
    group[0].send("eat")?;
    for workload in &mut group {
        workload.wait(SOON)?;
    }
    let kills = cgroup.stat("memory.events", "oom_kill")?;
    // The kernel counts the one that it chose twice.
    ensure!(kills >= 3, "the kernel killed {kills}");
    let (ooms, _) = all_ooms(observer)?;
    ensure!(
        ooms.len() == 3,
        "{} events of 3 kills: {ooms:?}",
        ooms.len()
    );
    ensure!(
        victims(&ooms) == pids,
        "victims {:?} of {pids:?}",
        victims(&ooms)
    );
    ensure!(
        ooms.iter()
            .all(|event| event["cgroup"]["path"] == cgroup.path()),
        "cgroup: {ooms:?}"
    );
    Ok(Outcome::Passed)
}

/// The OOM killer lets a process that has SIGKILL already use the reserves instead of killing anybody.
fn pass_for_a_dying_process_is_no_kill() -> Result<Outcome> {
    let observer = watch(&[])?;
    let (cgroup, mut keeper) = limited("dying", LIMIT)?;
    let dying = keeper.step("dying 3072")?;
    let mut eater = Workload::start(&cgroup)?;
    eater.step("oom-score -1000")?;
    // The reaper takes the memory of the dying process, so this comes to its end.
    eater.step(&format!("eat {}", 10 << 20))?;
    let (ooms, kills) = (
        cgroup.stat("memory.events", "oom")?,
        cgroup.stat("memory.events", "oom_kill")?,
    );
    ensure!(ooms > 0, "the limit was not hit");
    ensure!(kills == 0, "the kernel killed {kills}");
    keeper.step(&format!("let-go {dying}"))?;
    let (told, _) = all_ooms(observer)?;
    ensure!(told.is_empty(), "told as a kill: {told:?}");
    Ok(Outcome::Passed)
}

fn storm_of_200_kills_loses_none() -> Result<Outcome> {
    const ROUNDS: usize = 2;
    const EACH: usize = 50;
    let mut observer = watch(&[])?;
    let mut sides = [limited("storm-a", 3 << 20)?, limited("storm-b", 3 << 20)?];
    let mut killed = Vec::new();
    for _ in 0..ROUNDS {
        for (_, workload) in &mut sides {
            workload.send(&format!("oom-storm {EACH}"))?;
        }
        for (_, workload) in &sides {
            let told = workload.reply(Duration::from_secs(80))?;
            let pids = told
                .strip_prefix("done ")
                .with_context(|| format!("the storm broke off: {told}"))?;
            killed.extend(pids.split_whitespace().map(str::parse::<u64>));
        }
    }
    let killed = killed.into_iter().collect::<Result<Vec<u64>, _>>()?;
    let distinct: BTreeSet<u64> = killed.iter().copied().collect();
    ensure!(
        killed.len() == 200 && distinct.len() == 200,
        "not 200 victims"
    );
    let counted = sides
        .iter()
        .map(|(cgroup, _)| cgroup.stat("memory.events", "oom_kill"))
        .sum::<Result<u64>>()?;
    ensure!(counted == 200, "the kernel counted {counted} kills");
    // None is waited for: each must have come when `watch` has read its rings a last time.
    observer.events()?;
    let (ooms, health) = all_ooms(observer)?;
    ensure!(ooms.len() == 200, "{} events; {health}", ooms.len());
    ensure!(
        victims(&ooms) == distinct,
        "other victims than the parents saw"
    );
    ensure!(
        health["emitted"]["oom"] == 200
            && health["read"]["oom"] == 200
            && health["dropped"]["oom"] == 0,
        "{health}"
    );
    Ok(Outcome::Passed)
}

fn without_its_probe_is_told_from_memory_events() -> Result<Outcome> {
    let mut observer = watch(&[("GREY_EBPF_FAIL_PROBES", "oom_victim")])?;
    let parent = TempCgroup::new("files")?;
    parent.delegate("+memory")?;
    parent.write("memory.max", LIMIT)?;
    let leaf = parent.child("leaf")?;
    let mut workload = Workload::start(&leaf)?;
    workload.step("oom-score -1000")?;
    let mut arrival = Latencies::default();
    for _ in 0..2 {
        let (_, _, seen) = eat(&mut workload, 0)?;
        next_oom(&mut observer)?;
        arrival.add(wall_at(observer.found_at().context("no time of the line")?) - seen);
    }
    arrival.tell("oom line from memory.events after the end of the victim");
    let (ooms, _) = all_ooms(observer)?;
    for event in &ooms {
        ensure!(
            event["cgroup"]["path"] == leaf.path(),
            "not the lowest cgroup: {event}"
        );
        for field in ["victim", "trigger", "constraint", "limit_cgroup"] {
            ensure!(
                event["oom"].get(field).is_none(),
                "{field} out of nowhere: {event}"
            );
        }
    }
    let kills: u64 = ooms
        .iter()
        .filter_map(|event| event["oom"]["kills"].as_u64())
        .sum();
    ensure!(kills == 2, "{kills} kills told of 2: {ooms:?}");
    Ok(Outcome::Passed)
}
