//! Cgroups that lie still are looked at cheaply, and told of again only when something has changed.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::attribution::scene::Scene;
use crate::harness::{Outcome, Trial, cgroup_root};

pub(crate) fn trials() -> Vec<Trial> {
    vec![Trial::new(
        "vm_quiet_cgroup_is_told_of_seldom_and_at_once_when_its_memory_changes_without_a_fault",
        told_of_seldom,
    )]
}

const M: u64 = 1 << 20;
const FILE: &str = "/tmp/grey-quiet";
/// The scene's ticks come each tenth of a second; a look is due every fifth.
const SLOW: usize = 5;
const LOOKED_ON: Duration = Duration::from_secs(5);
/// Looks in that time, and a full reading at every ninth of them; one more for the edges.
const LOOKS: usize = 10;
const MOST: usize = LOOKS / 9 + 2;

fn told_of_seldom() -> Result<Outcome> {
    let mut scene = Scene::with(&["--slow-ticks", &SLOW.to_string()])?;
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
    Ok(Outcome::Passed)
}
