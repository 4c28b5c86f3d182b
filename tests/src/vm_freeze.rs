//! `enforce freeze` and `thaw`: processes stop for a time and go on, whatever becomes of the command.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use rustix::process::Signal;

use crate::harness::{Observer, Outcome, TempCgroup, Trial, Workload, cgroup_root, wait_until};
use crate::invocation::{Ended, Invocation, Scratch};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new("vm_freeze_stops_and_its_lease_lets_go_on", lease),
        Trial::new("vm_freeze_interrupted_or_killed_lets_go_on", broken_off),
        Trial::new("vm_freeze_refuses_what_it_must", refusals),
        Trial::new("vm_freeze_thaw_lets_go_on_whoever_froze", thaw),
    ]
}

const SOON: Duration = Duration::from_secs(10);

/// A cgroup with a process that answers while it runs.
struct Scene {
    state: String,
    workload: Workload,
    cgroup: TempCgroup,
    _scratch: Scratch,
}

impl Scene {
    fn new(label: &str) -> Result<Self> {
        let scratch = Scratch::new(label)?;
        let cgroup = TempCgroup::new(label)?;
        Ok(Self {
            state: scratch.argument("state")?,
            workload: Workload::start(&cgroup)?,
            cgroup,
            _scratch: scratch,
        })
    }

    fn run(&self, args: &[&str]) -> Result<Ended> {
        let mut all = vec!["enforce", "--state-dir", &self.state];
        all.extend(args);
        Invocation::new().run(&all)
    }

    fn start(&self, args: &[&str]) -> Result<Observer> {
        let mut all = vec!["enforce", "--state-dir", &self.state, "--json"];
        all.extend(args);
        Observer::start(&all)
    }

    fn frozen(&self) -> Result<bool> {
        Ok(self.cgroup.stat("cgroup.events", "frozen")? == 1)
    }

    fn await_frozen(&self, wanted: bool, within: Duration) -> Result<()> {
        wait_until("frozen as wanted", within, || {
            Ok((self.frozen()? == wanted).then_some(()))
        })
    }

    /// Asks for a step and sees that no answer comes while it is frozen.
    fn is_silent(&mut self) -> Result<()> {
        self.workload.send("work 1000")?;
        if let Ok(answer) = self.workload.reply(Duration::from_millis(500)) {
            bail!("a frozen process answered {answer}");
        }
        ensure!(self.frozen()?, "thawed meanwhile");
        Ok(())
    }

    fn answers(&self) -> Result<()> {
        ensure!(self.workload.reply(SOON)?.starts_with("done"));
        Ok(())
    }
}

fn lease() -> Result<Outcome> {
    let mut scene = Scene::new("freeze-lease")?;
    let path = scene.cgroup.path().to_owned();
    let mut command = scene.start(&["freeze", &path, "--yes", "--lease", "3s"])?;
    scene.await_frozen(true, SOON)?;
    let start = Instant::now();
    scene.is_silent()?;
    scene.await_frozen(false, Duration::from_secs(6))?;
    let held = start.elapsed();
    scene.answers()?;
    ensure!(
        held > Duration::from_millis(1500),
        "frozen for only {held:?}"
    );
    let action = command.wait_event("the plan", SOON, |event| event["type"] == "action")?;
    let write = &action["action"]["writes"][0];
    ensure!(
        action["action"]["kind"] == "freeze"
            && action["action"]["lease_s"] == 3.0
            && write["old"] == "0"
            && write["new"] == "1",
        "{action}"
    );
    let rollback = command.wait_event("the end", SOON, |event| event["type"] == "rollback")?;
    ensure!(
        rollback["rollback"]["cause"] == "lease"
            && rollback["rollback"]["restored"][0]["to"] == "0",
        "{rollback}"
    );
    let ended = command.finish(SOON)?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    Ok(Outcome::Passed)
}

fn broken_off() -> Result<Outcome> {
    for signal in [Signal::INT, Signal::KILL] {
        let mut scene = Scene::new("freeze-broken")?;
        let path = scene.cgroup.path().to_owned();
        let command = scene.start(&["freeze", &path, "--yes"])?;
        scene.await_frozen(true, SOON)?;
        scene.is_silent()?;
        let at = Instant::now();
        command.signal(signal)?;
        scene.await_frozen(false, Duration::from_secs(2))?;
        println!("{signal:?}: goes on after {:?}", at.elapsed());
        scene.answers()?;
        ensure!(scene.cgroup.read("cgroup.freeze")? == "0");
        let ended = command.finish(SOON)?;
        match signal {
            Signal::INT => ensure!(ended.code() == Some(0), "{ended:?}"),
            _ => ensure!(ended.code().is_none(), "{ended:?}"),
        }
    }
    Ok(Outcome::Passed)
}

fn refusals() -> Result<Outcome> {
    let scene = Scene::new("freeze-refused")?;
    let path = scene.cgroup.path().to_owned();
    scene
        .run(&["freeze", &path])?
        .is_one_line(4, &[&path, "1 process", "--yes"])?;
    scene
        .run(&["freeze", &path, "--yes", "--protect", &path])?
        .is_one_line(4, &[&path])?;
    let empty = TempCgroup::new("freeze-empty")?;
    scene
        .run(&["freeze", empty.path(), "--yes"])?
        .is_one_line(2, &[empty.path(), "no process"])?;
    scene
        .run(&["freeze", "/no-such-cgroup", "--yes"])?
        .is_one_line(2, &["no-such-cgroup"])?;
    scene
        .run(&["freeze", "/", "--yes"])?
        .is_one_line(4, &["/"])?;
    scene
        .run(&["thaw", &path, "--lease", "1s"])?
        .is_one_line(2, &["lease"])?;
    // What the command itself runs in.
    let own = scene.cgroup.child("own")?;
    own.adopt(std::process::id())?;
    let inside = scene.run(&["freeze", &path, "--yes"]);
    std::fs::write(
        cgroup_root()?.join("cgroup.procs"),
        std::process::id().to_string(),
    )?;
    inside?.is_one_line(4, &[&path, "this command"])?;
    // What is below counts too.
    let below = scene.cgroup.child("vital")?;
    scene
        .run(&["freeze", &path, "--yes", "--protect", below.path()])?
        .is_one_line(4, &[below.path()])?;
    // Somebody else's.
    scene.cgroup.write("cgroup.freeze", 1)?;
    scene
        .run(&["freeze", &path, "--yes"])?
        .is_one_line(4, &[&path, "frozen already"])?;
    ensure!(scene.cgroup.read("cgroup.freeze")? == "1", "theirs is gone");
    scene.cgroup.write("cgroup.freeze", 0)?;
    // And the plan alone needs no confirmation.
    let plan = scene.run(&["freeze", &path, "--dry-run"])?;
    ensure!(
        plan.code == Some(0)
            && plan.stdout.contains("cgroup.freeze  0 -> 1")
            && plan.stdout.contains("taken back after 1m"),
        "{plan:?}"
    );
    ensure!(scene.cgroup.read("cgroup.freeze")? == "0" && !scene.frozen()?);
    Ok(Outcome::Passed)
}

fn thaw() -> Result<Outcome> {
    let mut scene = Scene::new("thaw")?;
    let path = scene.cgroup.path().to_owned();
    let not = scene.run(&["thaw", &path])?;
    ensure!(
        not.code == Some(0) && not.stdout.contains("not frozen"),
        "{not:?}"
    );
    scene.cgroup.write("cgroup.freeze", 1)?;
    scene.await_frozen(true, SOON)?;
    scene.is_silent()?;
    let thawed = scene.run(&["thaw", &path])?;
    ensure!(
        thawed.code == Some(0) && thawed.stdout.contains("somebody else"),
        "{thawed:?}"
    );
    ensure!(!scene.frozen()? && scene.cgroup.read("cgroup.freeze")? == "0");
    scene.answers()?;
    // A frozen parent holds it, thawed itself or not.
    let child = scene.cgroup.child("held")?;
    let mut inside = Workload::start(&child)?;
    scene.cgroup.write("cgroup.freeze", 1)?;
    scene.await_frozen(true, SOON)?;
    scene
        .run(&["thaw", child.path()])?
        .is_one_line(1, &[child.path(), &path, "not frozen itself"])?;
    child.write("cgroup.freeze", 1)?;
    let both = scene.run(&["thaw", child.path()])?;
    ensure!(
        both.code == Some(1) && both.stderr.contains("above it is frozen"),
        "{both:?}"
    );
    ensure!(child.read("cgroup.freeze")? == "0" && child.stat("cgroup.events", "frozen")? == 1);
    let thawed = scene.run(&["thaw", &path])?;
    ensure!(thawed.code == Some(0), "{thawed:?}");
    inside.step("work 1000")?;
    Ok(Outcome::Passed)
}
