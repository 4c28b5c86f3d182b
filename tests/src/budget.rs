//! The budget of watching itself: what is done without, in which order, how it is told, and that it comes back.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::attribution::scene::time_ms;
use crate::harness::{Observer, Outcome, TempCgroup, Workload, assert_within, run};
use crate::invocation::Scratch;

const SOON: Duration = Duration::from_secs(20);
/// Pages a test touches to see whether they are counted.
const PAGES: u64 = 4000;

/// Two cgroups: one with a load that does not end, one where a test does what it counts.
struct Stage {
    load: Workload,
    own: Workload,
    busy: TempCgroup,
    quiet: TempCgroup,
}

impl Stage {
    fn new() -> Result<Stage> {
        let (busy, quiet) = (TempCgroup::new("busy")?, TempCgroup::new("quiet")?);
        let (mut load, own) = (Workload::start(&busy)?, Workload::start(&quiet)?);
        load.send("churn-touch 1000000000 32")?;
        Ok(Stage {
            load,
            own,
            busy,
            quiet,
        })
    }

    fn watch(&self, more: &[&str]) -> Result<Observer> {
        let mut args = vec!["watch", "--json"];
        args.extend(["--slow-ticks", "1", "--syscall-tracepoints", "on"]);
        args.extend(["--cgroup", self.busy.path(), "--cgroup", self.quiet.path()]);
        args.extend(["--budget-window", "500ms"]);
        args.extend(more);
        Observer::start(&args)
    }
}

fn steps(health: &Value) -> Vec<String> {
    let steps = health["health"]["budget"]["steps"].as_array();
    let steps = steps.into_iter().flatten().filter_map(Value::as_str);
    steps.map(str::to_owned).collect()
}

fn has(health: &Value, step: &str) -> bool {
    steps(health).iter().any(|it| it == step)
}

fn attached(health: &Value, probe: &str) -> Option<String> {
    let degraded = health["health"]["degraded"].as_array()?;
    let it = degraded.iter().find(|it| it["probe"] == probe)?;
    Some(it["attached"].as_str()?.to_owned())
}

/// The next `health` line at which the budget looks so.
fn wait_budget(
    observer: &mut Observer,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Value> {
    observer.wait_event(what, Duration::from_secs(40), |event| {
        event["type"] == "health" && !event["health"]["budget"].is_null() && wanted(event)
    })
}

/// Whether the kernel lets us time the programs.
fn timed(health: &Value) -> bool {
    health["health"]["budget"]["bpf_pct"].is_number()
}

fn sample_of(observer: &mut Observer, cgroup: &TempCgroup) -> Result<Value> {
    observer.wait_event("a sample", Duration::from_secs(30), |event| {
        event["type"] == "sample" && event["cgroup"]["path"] == cgroup.path()
    })
}

/// Faults of the quiet cgroup are counted from here on, each of them.
fn counts_again(observer: &mut Observer, stage: &mut Stage) -> Result<()> {
    let kind = |event: &Value| event["faults"]["user_write_total"].as_u64();
    let path = stage.quiet.path().to_owned();
    let ours = |event: &Value| event["type"] == "sample" && event["cgroup"]["path"] == path;
    // The first sample may still be without.
    stage.own.step("touch 10")?;
    observer.wait_event("a sample", SOON, &ours)?;
    stage.own.step("touch 10")?;
    let before = observer.wait_event("faults counted again", SOON, |event| {
        ours(event) && kind(event).is_some()
    })?;
    // The few pages may be in it or not: they are less than the error that is allowed.
    let base = kind(&before).context("no faults")?;
    stage.own.step(&format!("touch {PAGES}"))?;
    let after = observer.wait_event("the faults", SOON, |event| {
        ours(event) && kind(event).is_some_and(|now| now >= base + PAGES)
    })?;
    let rise = kind(&after).unwrap_or(0) - base;
    assert_within("faults after the probes came back", rise, PAGES, 1.0)
}

/// One step at a time, each told, each a figure less and none wrong; the rest goes on being told.
pub(crate) fn step_after_step_is_taken_told_and_the_rest_goes_on() -> Result<Outcome> {
    let stage = Stage::new()?;
    let mut observer = stage.watch(&["--interval", "200ms", "--budget-cpu", "0.001"])?;
    let first = wait_budget(&mut observer, "the first health line", |_| true)?;
    ensure!(
        steps(&first).is_empty() && first["health"]["budget"]["limit_cpu_pct"] == 0.001,
        "{first}"
    );
    let counted = sample_of(&mut observer, &stage.busy)?;
    ensure!(
        counted["faults"]["minor_total"].is_u64() && counted["vm"]["mapped_total"].is_u64(),
        "{counted}"
    );
    let mut before = first;
    while !["stacks", "interval", "calls", "faults"]
        .iter()
        .all(|step| has(&before, step))
    {
        let now = wait_budget(&mut observer, "the next step down", |event| {
            event["health"]["budget"]["step"] != before["health"]["budget"]["step"]
        })?;
        if !timed(&now) {
            return Ok(Outcome::Skipped("the kernel does not time programs".into()));
        }
        let step = |event: &Value| event["health"]["budget"]["step"].as_u64().unwrap_or(0);
        ensure!(
            step(&now) == step(&before) + 1 && steps(&now).starts_with(&steps(&before)),
            "{before}\n{now}"
        );
        // Two windows of half a second, cut to milliseconds.
        let (then, at) = (time_ms(&before), time_ms(&now));
        ensure!(
            step(&before) == 0 || at.zip(then).is_some_and(|(at, then)| at - then >= 950),
            "two steps too close: {before}\n{now}"
        );
        ensure!(now["health"]["budget"]["exceeded"][0] == "cpu", "{now}");
        before = now;
    }
    ensure!(
        attached(&before, "fault_user").as_deref() == Some("off")
            && attached(&before, "vm_mmap").as_deref() == Some("off")
            && attached(&before, "growth").as_deref() == Some("off")
            && attached(&before, "stacks").as_deref() == Some("off")
            && attached(&before, "interval").is_some_and(|told| told.starts_with("every ")),
        "{before}"
    );
    // The load goes on, but nobody counts it: the figures are absent, and the others are there.
    let uncounted = sample_of(&mut observer, &stage.busy)?;
    ensure!(
        uncounted["faults"]["minor_total"].is_null()
            && uncounted["faults"]["user_write_total"].is_null()
            && uncounted["vm"]["mapped_total"].is_null()
            && uncounted["vm"]["virtual"].is_u64()
            && uncounted["processes"] == 1,
        "{uncounted}"
    );
    let finished = observer.stop(Signal::INT, SOON)?;
    ensure!(
        finished.code() == Some(0)
            && finished.stderr.contains("page faults are not counted")
            && finished.stderr.contains("suspects are not profiled"),
        "{finished:?}"
    );
    drop(stage.load);
    Ok(Outcome::Passed)
}

/// When the load is gone everything comes back by itself, and each fault counts again.
pub(crate) fn what_was_switched_off_comes_back_by_itself() -> Result<Outcome> {
    let mut stage = Stage::new()?;
    let seconds = ["--interval", "1s", "--budget-cpu"];
    // What it costs under the load is this machine's; so is the budget that is less.
    let measure = stage.watch(&[&seconds[..], &["100", "--duration", "2200ms"]].concat())?;
    let measured = measure.finish(SOON)?;
    let last = measured.stdout.lines().last().context("no line")?;
    let last: Value = serde_json::from_str(last)?;
    if !timed(&last) {
        return Ok(Outcome::Skipped("the kernel does not time programs".into()));
    }
    let cost = &last["health"]["budget"]["cpu_pct"];
    let limit = cost.as_f64().context("no cost")? * 0.6;
    let mut observer = stage.watch(&[&seconds[..], &[&format!("{limit:.2}")]].concat())?;
    wait_budget(&mut observer, "faults given up", |event| {
        has(event, "faults")
    })?;
    // Its end: what is left to count is the test's own.
    let Stage {
        load,
        own,
        busy,
        quiet,
    } = stage;
    drop(load);
    let load = Workload::start(&busy)?;
    stage = Stage {
        load,
        own,
        busy,
        quiet,
    };
    let all = wait_budget(&mut observer, "everything back", |event| {
        steps(event).is_empty()
    })?;
    ensure!(
        attached(&all, "fault_user").is_none() && attached(&all, "stacks").is_none(),
        "{all}"
    );
    counts_again(&mut observer, &mut stage)?;
    let finished = observer.stop(Signal::INT, SOON)?;
    ensure!(
        finished.code() == Some(0) && finished.stderr.contains("page faults are counted again"),
        "{finished:?}"
    );
    Ok(Outcome::Passed)
}

/// The daemon: told in `status`, and a new configuration begins with everything on.
pub(crate) fn a_daemon_tells_it_in_status_and_a_larger_budget_gives_all_back() -> Result<Outcome> {
    let mut stage = Stage::new()?;
    let scratch = Scratch::new("budget")?;
    let state = scratch.argument("state")?;
    let path = scratch.join("config.toml");
    let configure = |cpu: &str| -> Result<()> {
        let text = format!("[budget]\ncpu_pct = {cpu}\nmemory = \"1T\"\nwindow = \"500ms\"\n");
        fs::write(&path, text)?;
        Ok(fs::set_permissions(
            &path,
            fs::Permissions::from_mode(0o644),
        )?)
    };
    configure("0.001")?;
    let config = scratch.argument("config.toml")?;
    let args = ["--samples", "--interval", "200ms", "--config", &config];
    let mut daemon = Observer::start(&[&["daemon"], &args[..], &["--state-dir", &state]].concat())?;
    let low = wait_budget(&mut daemon, "faults given up, or nothing left", |event| {
        has(event, "faults") || event["health"]["budget"]["exhausted"] == true
    })?;
    if !timed(&low) {
        return Ok(Outcome::Skipped("the kernel does not time programs".into()));
    }
    ensure!(has(&low, "faults"), "{low}");
    let status = run(&["status", "--json", "--state-dir", &state], SOON)?;
    let document: Value = serde_json::from_str(&status.stdout)?;
    ensure!(
        document["budget"]["steps"]
            .as_array()
            .is_some_and(|steps| steps.iter().any(|step| step == "faults")),
        "{document}"
    );
    let text = run(&["status", "--state-dir", &state], SOON)?;
    ensure!(
        text.stdout.contains("watching costs ")
            && text.stdout.contains("no faults")
            && text.stdout.contains("page faults are not counted"),
        "{text:?}"
    );
    configure("100")?;
    daemon.signal(Signal::HUP)?;
    let all = wait_budget(&mut daemon, "everything back", |event| {
        event["health"]["budget"]["limit_cpu_pct"] == 100.0
    })?;
    ensure!(
        steps(&all).is_empty() && attached(&all, "fault_user").is_none(),
        "{all}"
    );
    counts_again(&mut daemon, &mut stage)?;
    let finished = daemon.stop(Signal::TERM, SOON)?;
    ensure!(finished.code() == Some(0), "{finished:?}");
    drop(stage.load);
    Ok(Outcome::Passed)
}
