//! Page faults: how many, of which kind, and in whose cgroup.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::scene::{Figures, Scene, rose_by};
use crate::harness::{Outcome, Workload, assert_within};

/// Pages a test touches: enough for one percent to hold the faults of the workload's own few steps.
const PAGES: u64 = 4000;

const KINDS: [&str; 5] = [
    "faults.minor_total",
    "faults.user_read_total",
    "faults.user_write_total",
    "faults.user_exec_total",
    "faults.kernel_total",
];

/// A fault's kind shows in the figure of that kind and in no other, in the cgroup, in its parent, and nowhere else.
pub(crate) fn faults_count_by_kind_in_their_cgroup() -> Result<Outcome> {
    let mut scene = Scene::new()?;
    let map = format!("map {}", PAGES * 4096);
    let touch = format!("touch {PAGES}");
    let kernel = format!("kernel-touch {PAGES}");
    steps_count_as(&mut scene, "faults.user_write_total", &[&touch], PAGES)?;
    steps_count_as(
        &mut scene,
        "faults.user_read_total",
        &[&map, "read-last"],
        PAGES,
    )?;
    steps_count_as(&mut scene, "faults.kernel_total", &[&kernel], PAGES)?;
    instruction_fetches(&mut scene)?;
    Ok(Outcome::Passed)
}

pub(crate) fn threads_children_and_new_programs_count_for_their_cgroup() -> Result<Outcome> {
    let mut scene = Scene::new()?;
    // Each of the four has a stack of its own to fault in.
    let threads = ["threads 4 2500"];
    steps_count_as(&mut scene, "faults.user_write_total", &threads, 10_000)?;
    children(&mut scene)?;
    child_in_another_cgroup(&mut scene)?;
    new_program(&mut scene)?;
    Ok(Outcome::Passed)
}

/// Does `steps` in `a`; `kind` rises by `pages` there and in the parent, every other kind by next to nothing,
/// nothing at all moves in `b`, where a process sits idle.
fn steps_count_as(scene: &mut Scene, kind: &str, steps: &[&str], pages: u64) -> Result<()> {
    let mut workload = Workload::start(&scene.a)?;
    let _idle = Workload::start(&scene.b)?;
    workload.step("touch 10")?;
    workload.step("unmap")?;
    let before = scene.look()?;
    for step in steps {
        workload.step(step)?;
    }
    let after = scene.look()?;
    assert_within(kind, after.a.rise(&before.a, kind)?, pages, 1.0)?;
    let minor = after.a.rise(&before.a, "faults.minor_total")?;
    assert_within("faults.minor_total", minor, pages, 1.0)?;
    for other in KINDS {
        let rise = after.a.rise(&before.a, other)?;
        ensure!(
            other == kind || other == "faults.minor_total" || rise <= pages / 100,
            "{other} rose by {rise} beside {kind}"
        );
        let above = after.parent.rise(&before.parent, other)?;
        ensure!(
            above == rise,
            "{other} rose by {rise}, the parent's by {above}"
        );
    }
    after.b.unmoved(&before.b, "the sibling", &KINDS)
}

fn instruction_fetches(scene: &mut Scene) -> Result<()> {
    let blocks = 1000;
    let kind = "faults.user_exec_total";
    let mut workload = Workload::start(&scene.a)?;
    let before = scene.look()?;
    workload.step(&format!("run-pages {blocks}"))?;
    let after = scene.look()?;
    let rise = after.a.rise(&before.a, kind)?;
    assert_within(kind, rise, blocks, 2.0)?;
    rose_by(&after.parent, &before.parent, kind, rise)?;
    after.b.unmoved(&before.b, "the sibling", &KINDS)
}

fn children(scene: &mut Scene) -> Result<()> {
    let kind = "faults.user_write_total";
    let mut workload = Workload::start(&scene.a)?;
    workload.step("touch 5000")?;
    let before = scene.look()?;
    // New pages of the child's own.
    ensure!(workload.step("fork-touch 5000")?.ends_with("exit 0"));
    let touched = scene.look()?;
    let rise = touched.a.rise(&before.a, kind)?;
    assert_within("a child's faults", rise, 5000, 1.5)?;
    // Pages it shares with its parent until it writes.
    ensure!(workload.step("fork-write")?.ends_with("exit 0"));
    let copied = scene.look()?;
    let rise = copied.a.rise(&touched.a, kind)?;
    assert_within("a child's copies on write", rise, 5000, 1.5)?;
    copied.b.unmoved(&before.b, "the sibling", &KINDS)
}

fn child_in_another_cgroup(scene: &mut Scene) -> Result<()> {
    let kind = "faults.user_write_total";
    let mut workload = Workload::start(&scene.a)?;
    let before = scene.look()?;
    let procs = scene.b.directory().join("cgroup.procs");
    let told = workload.step(&format!("fork-into {} {PAGES}", procs.display()))?;
    ensure!(told.ends_with("exit 0"), "the child: {told}");
    let after = scene.look()?;
    let there = after.b.rise(&before.b, kind)?;
    assert_within("a child's faults where it went", there, PAGES, 1.0)?;
    // The parent's share of a fork: the few pages both write to.
    let here = after.a.rise(&before.a, kind)?;
    ensure!(here < PAGES / 20, "{here} faults stayed in a");
    rose_by(&after.parent, &before.parent, kind, here + there)
}

fn new_program(scene: &mut Scene) -> Result<()> {
    let kind = "faults.user_write_total";
    let mut workload = Workload::start(&scene.a)?;
    let before = scene.look()?;
    workload.send("exec")?;
    let hello = workload.reply(Duration::from_secs(20))?;
    ensure!(hello == "ready", "after exec: {hello}");
    let fresh = scene.look()?;
    let start_up = fresh.a.rise(&before.a, "faults.minor_total")?;
    ensure!(
        (10..5000).contains(&start_up),
        "the new program's start took {start_up} faults"
    );
    workload.step(&format!("touch {PAGES}"))?;
    let after = scene.look()?;
    let rise = after.a.rise(&fresh.a, kind)?;
    assert_within("faults after exec", rise, PAGES, 1.0)?;
    after.b.unmoved(&before.b, "the sibling", &KINDS)
}

/// With the slow pace out of reach, only its own counters can get a cgroup read.
pub(crate) fn what_was_active_is_sampled_at_the_next_tick() -> Result<Outcome> {
    let mut scene = Scene::with(&["--slow-ticks", "80000"])?;
    let mut workload = Workload::start(&scene.a)?;
    workload.step(&format!("touch {PAGES}"))?;
    let (child, parent, idle) = (scene.a.path(), scene.parent.path(), scene.b.path());
    let enough = |event: &serde_json::Value, path: &str| {
        event["type"] == "sample"
            && event["cgroup"]["path"] == path
            && Figures(event.clone())
                .get("faults.minor_total")
                .is_ok_and(|n| n >= PAGES)
    };
    let soon = Duration::from_secs(5);
    // Parents come before their children in one tick.
    scene
        .watch
        .wait_event("the parent's sample", soon, |event| enough(event, parent))?;
    scene
        .watch
        .wait_event("the child's sample", soon, |event| enough(event, child))?;
    let of_idle = scene.watch.events()?;
    let of_idle = of_idle
        .iter()
        .filter(|event| event["type"] == "sample" && event["cgroup"]["path"] == idle)
        .count();
    ensure!(of_idle == 1, "the idle sibling was read {of_idle} times");
    Ok(Outcome::Passed)
}
