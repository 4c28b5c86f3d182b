//! Cgroups that lie still are looked at cheaply, and told of again only when something has changed.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::attribution::scene::Scene;
use crate::degraded::SWITCH;
use crate::enforcing::Desk;
use crate::harness::{Observer, Outcome, TempCgroup, Trial, Workload, cgroup_root};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_quiet_cgroup_is_told_of_seldom_and_at_once_when_its_memory_changes_without_a_fault",
            || told_of_seldom(""),
        ),
        // Where a walk over all cgroups shows it by default, their files do it as well.
        Trial::new(
            "vm_quiet_cgroup_is_told_of_seldom_by_its_files_alone",
            || told_of_seldom(LEVELS),
        )
        .shown_on(&["6.12"]),
        Trial::new(
            "vm_quiet_cgroup_that_computes_is_told_of_by_the_daemon_and_its_idle_neighbour_is_not",
            || computes(""),
        ),
        Trial::new(
            "vm_quiet_cgroup_that_computes_is_told_of_by_its_files_alone",
            || computes(LEVELS),
        )
        .shown_on(&["6.12"]),
    ]
}

/// The probe that walks over all cgroups; `watch` says at its start which ones are off.
const LEVELS: &str = "cgroup_levels";
/// What it says when a walk failed.
const GAVE_UP: &str = "looked at by their files";

const M: u64 = 1 << 20;
const FILE: &str = "/tmp/grey-quiet";
/// The scene's ticks come each tenth of a second; a look is due every fifth.
const SLOW: usize = 5;
const LOOKED_ON: Duration = Duration::from_secs(5);
/// Looks in that time, and a full reading at every ninth of them; one more for the edges.
const LOOKS: usize = 10;
const MOST: usize = LOOKS / 9 + 2;

fn told_of_seldom(fail: &str) -> Result<Outcome> {
    let mut scene = Scene::with_variables(&["--slow-ticks", &SLOW.to_string()], &[(SWITCH, fail)])?;
    // A file of tmpfs is charged to who writes it, and goes without anybody faulting.
    scene.a.write("cgroup.procs", "0")?;
    fs::write(FILE, vec![1; 20 * M as usize])?;
    fs::write(cgroup_root()?.join("cgroup.procs"), "0")?;
    let path = scene.a.path().to_owned();
    let current = |event: &Value| {
        (event["type"] == "sample" && event["cgroup"]["path"] == path.as_str())
            .then(|| event["mem"]["current"].as_u64().unwrap_or(0))
    };
    let within = Duration::from_secs(20);
    scene
        .watch
        .wait_event("a sample with the file", within, |event| {
            current(event) >= Some(20 * M)
        })?;
    // What it did last may be told of in the next ticks.
    std::thread::sleep(Duration::from_secs(1));
    let before = scene.watch.events()?.len();
    std::thread::sleep(LOOKED_ON);
    let told = scene.watch.events()?[before..]
        .iter()
        .filter(|event| current(event).is_some())
        .count();
    ensure!(
        told <= MOST,
        "told of {told} times in {LOOKED_ON:?} while nothing happened"
    );
    fs::remove_file(FILE)?;
    scene
        .watch
        .wait_event("a sample without the file", within, |event| {
            current(event).is_some_and(|current| current < 4 * M)
        })?;
    let Scene { watch, .. } = scene;
    watch.signal(Signal::INT)?;
    let finished = watch.finish(within)?;
    ensure!(
        !finished.stderr.contains(GAVE_UP),
        "the walk failed: {}",
        finished.stderr
    );
    let off = finished.stderr.contains(LEVELS);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    ensure!(
        off == (!fail.is_empty() || release.starts_with("5.10.")),
        "{LEVELS} on {}: {}",
        release.trim(),
        finished.stderr
    );
    Ok(Outcome::Passed)
}

/// The daemon's ticks come each tenth of a second, and a look is due every thirtieth.
const LOOK: Duration = Duration::from_secs(3);

/// A cgroup that takes CPU time and no memory is none that sleeps; nobody sees it fault.
fn computes(fail: &str) -> Result<Outcome> {
    let parent = TempCgroup::new("quiet")?;
    parent.delegate("+memory")?;
    let (busy, idle) = (parent.child("busy")?, parent.child("idle")?);
    let (mut computer, mut sleeper) = (Workload::start(&busy)?, Workload::start(&idle)?);
    for workload in [&mut computer, &mut sleeper] {
        workload.step("touch 64")?;
    }
    let desk = Desk::new("quiet", "[budget]\ncpu_pct = 0\n")?;
    let (state, config) = (
        desk.scratch.argument("state")?,
        desk.scratch.argument("config.toml")?,
    );
    let args = [
        "daemon",
        "--samples",
        "--interval",
        "100ms",
        "--state-dir",
        &state,
        "--config",
        &config,
    ];
    let mut daemon = Observer::start_with(&args, &[(SWITCH, fail)])?;
    let within = Duration::from_secs(20);
    for cgroup in [&busy, &idle] {
        daemon.wait_event("a sample", within, |event| {
            cpu(event, cgroup.path()).is_some()
        })?;
    }
    computer.send(&format!("spin {}", (LOOK * 6).as_millis()))?;
    // What the step itself begins with may be told of at once.
    std::thread::sleep(LOOK);
    let before = daemon.events()?.len();
    std::thread::sleep(LOOK * 3);
    let mut seen = |path: &str| -> Result<Vec<u64>> {
        let events = &daemon.events()?[before..];
        Ok(events.iter().filter_map(|event| cpu(event, path)).collect())
    };
    let (computed, slept) = (seen(busy.path())?, seen(idle.path())?);
    ensure!(
        computed.len() >= 2 && computed.is_sorted_by(|a, b| a < b),
        "CPU time of who computes: {computed:?}"
    );
    // A full reading may come in that time.
    ensure!(slept.len() <= 1, "who sleeps was told of: {slept:?}");
    computer.reply(within)?;
    Ok(Outcome::Passed)
}

fn cpu(event: &Value, path: &str) -> Option<u64> {
    (event["type"] == "sample" && event["cgroup"]["path"] == path)
        .then(|| event["cpu"]["usage_us_total"].as_u64())
        .flatten()
}
