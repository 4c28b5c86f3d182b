//! Minutes of live mixed load under every policy: what nobody does without us does not happen with us.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::timing::event_us;
use crate::harness::{Observer, Outcome, TempCgroup, Trial, Workload};
use crate::invocation::Scratch;
use crate::swap::{Swap, value_of};
use crate::vm_enforce::cache::Files;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_live_mixed_load_under_every_policy_comes_to_no_harm",
            mixed_load,
        )
        .with_deadline(Duration::from_secs(3 * 3600))
        .on_request(),
    ]
}

const M: u64 = 1 << 20;
const PAGE: u64 = 4096;
/// Of each policy, unless GREY_MINUTES says otherwise.
const MINUTES: u64 = 10;
/// The budget that is set: bytes a second over ten, actions a minute.
const BYTES_PER_S: u64 = 16 * M;
const ACTIONS: usize = 30;
const POLICIES: [&str; 6] = [
    "conservative",
    "dynamic",
    "aggressive",
    "scheduled",
    "proactive",
    "guest",
];

/// Eager: each of them finds something to do on this machine.
const CONFIG: &str = "\
observe = \"3s\"
floor = \"16M\"
[govern.budget]
bytes_per_s = \"16M\"
actions_per_min = 30
[govern.conservative]
available_pct = 60
[govern.dynamic]
available_pct = 75
interval = \"5s\"
[govern.aggressive]
used_pct = 30
bytes = \"64M\"
interval = \"10s\"
[govern.scheduled]
at = [\"* * * * *\"]
[govern.proactive]
interval = \"3s\"
[govern.guest]
idle = \"3s\"
fault_bytes_per_s = \"64M\"
";

/// What a time of load came to.
struct Life {
    kills: u64,
    /// Refaulted bytes, and passes of the load, by cgroup.
    refaults: BTreeMap<&'static str, u64>,
    passes: BTreeMap<&'static str, u64>,
}

fn minutes() -> Result<u64> {
    match std::env::var("GREY_MINUTES") {
        Ok(text) => text.parse().context("GREY_MINUTES"),
        Err(_) => Ok(MINUTES),
    }
}

fn mixed_load() -> Result<Outcome> {
    let time = Duration::from_secs(60 * minutes()?);
    let (control, _) = live("observe", time)?;
    // One policy alone where GREY_ONLY names it.
    let only = std::env::var("GREY_ONLY").ok();
    let wanted = |policy: &&str| only.as_deref().is_none_or(|only| only == *policy);
    for policy in POLICIES.into_iter().filter(wanted) {
        let (life, events) = live(policy, time)?;
        ensure!(
            life.kills <= control.kills,
            "{policy}: {} OOM kills, {} without it",
            life.kills,
            control.kills
        );
        let mut freed: BTreeMap<String, u64> = BTreeMap::new();
        let mut taken = Vec::new();
        for event in &events {
            let path = event["cgroup"]["path"].as_str().unwrap_or("/").to_owned();
            if event["type"] == "outcome" {
                let bytes = event["outcome"]["freed_bytes"].as_u64().unwrap_or(0);
                *freed.entry(path).or_default() += bytes;
            } else if event["type"] == "action" {
                let bytes = event["action"]["planned_bytes"].as_u64().unwrap_or(0);
                taken.push((event_us(event)?, bytes));
            }
        }
        let all: u64 = freed.values().sum();
        println!("{policy}: {} actions, {} MiB freed", taken.len(), all / M);
        for (name, refaults) in &life.refaults {
            let own: u64 = freed
                .iter()
                .filter(|(path, _)| path.ends_with(name))
                .map(|(_, bytes)| bytes)
                .sum();
            let bound = own / 4 + control.refaults[name] * 11 / 10 + 32 * M;
            println!(
                "  {name}: {} MiB freed, {} MiB came back ({} MiB without it), {} passes ({})",
                own / M,
                refaults / M,
                control.refaults[name] / M,
                life.passes[name],
                control.passes[name]
            );
            ensure!(*refaults <= bound, "{policy}: {name} goes round in circles");
        }
        within_budget(policy, &taken)?;
    }
    Ok(Outcome::Passed)
}

/// An action is told once it is begun, which may be later than it was decided by what came before it.
fn within_budget(policy: &str, taken: &[(i64, u64)]) -> Result<()> {
    const SLIP_US: i64 = 2_000_000;
    for (at, _) in taken {
        let within = |us: i64| {
            taken
                .iter()
                .filter(move |(it, _)| (*at..*at + us).contains(it))
        };
        let bytes: u64 = within(10_000_000 - SLIP_US).map(|(_, bytes)| bytes).sum();
        let count = within(60_000_000 - SLIP_US).count();
        ensure!(
            bytes <= 10 * BYTES_PER_S && count <= ACTIONS,
            "{policy}: {bytes} bytes in ten seconds, {count} actions in a minute"
        );
    }
    Ok(())
}

fn live(policy: &str, time: Duration) -> Result<(Life, Vec<Value>)> {
    let files = Files::new()?;
    let _swap = Swap::on(256 * M)?;
    let (hot, cold) = (files.file("hot", 32 * M)?, files.file("cold", 96 * M)?);
    let cgroups = [
        ("service", TempCgroup::new("service")?),
        ("reader", TempCgroup::new("reader")?),
        ("batch", TempCgroup::new("batch")?),
    ];
    let mut loads = Vec::new();
    for (name, cgroup) in &cgroups {
        let mut load = Workload::start(cgroup)?;
        let (cold_pages, hot_pages, burst) = match *name {
            "service" => (64 * M / PAGE, 32 * M / PAGE, 8 * M / PAGE),
            "reader" => (4 * M / PAGE, 4 * M / PAGE, M / PAGE),
            _ => (16 * M / PAGE, 8 * M / PAGE, 48 * M / PAGE),
        };
        load.step(&format!("unlike {cold_pages}"))?;
        if *name == "reader" {
            load.step(&format!("read {cold}"))?;
        }
        load.step(&format!("unlike {hot_pages}"))?;
        load.step(&format!("serve {hot_pages} {burst} {hot}"))?;
        loads.push(load);
    }
    let scratch = Scratch::new("live")?;
    // Under emulation everything costs twenty times as much.
    let text = format!("[budget]\ncpu_pct = 0\n\n[govern]\npolicy = \"{policy}\"\n{CONFIG}");
    fs::write(scratch.join("config.toml"), text)?;
    let config = scratch.argument("config.toml")?;
    let state = scratch.argument("state")?;
    let mut daemon = Observer::start(&["daemon", "--config", &config, "--state-dir", &state])?;
    let kills = value_of("/proc/vmstat", "oom_kill")?;
    let refaults = |cgroup: &TempCgroup| -> Result<u64> {
        let stat = |key| cgroup.stat("memory.stat", key);
        Ok((stat("workingset_refault_anon")? + stat("workingset_refault_file")?) * PAGE)
    };
    let mut before = BTreeMap::new();
    for (name, cgroup) in &cgroups {
        before.insert(*name, refaults(cgroup)?);
    }
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::thread::sleep(Duration::from_millis(500));
    }
    let mut life = Life {
        kills: value_of("/proc/vmstat", "oom_kill")? - kills,
        refaults: BTreeMap::new(),
        passes: BTreeMap::new(),
    };
    for ((name, cgroup), load) in cgroups.iter().zip(&mut loads) {
        life.refaults.insert(name, refaults(cgroup)? - before[name]);
        life.passes.insert(name, load.step("passes")?.parse()?);
    }
    daemon.signal(Signal::TERM)?;
    let events = daemon.events()?;
    let finished = daemon.finish(Duration::from_secs(30))?;
    ensure!(finished.code() == Some(0), "{policy}: {finished:?}");
    Ok((life, events))
}
