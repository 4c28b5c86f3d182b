//! The watchdog: what goes wrong after an action takes it back within 2 s and says why, what does not go wrong does not,
//! and harm is not done again at once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::enforcing::Desk;
use crate::harness::timing::wall_us;
use crate::harness::{Outcome, TempCgroup, Trial, Workload, wait_until};
use crate::swap::{Swap, value_of};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_watchdog_an_oom_kill_in_the_target_takes_it_back",
            oom_kill,
        ),
        Trial::new(
            "vm_watchdog_an_oom_kill_at_a_limit_above_takes_it_back",
            oom_kill_above,
        ),
        Trial::new("vm_watchdog_pressure_takes_it_back", pressure),
        Trial::new("vm_watchdog_little_available_takes_it_back", available),
        Trial::new("vm_watchdog_a_storm_of_refaults_takes_it_back", refaults),
        Trial::new(
            "vm_watchdog_the_end_of_a_critical_service_takes_it_back",
            critical_service,
        ),
        Trial::new(
            "vm_watchdog_harm_is_not_repeated_before_a_growing_cool_down",
            cool_down,
        ),
    ]
}

const M: u64 = 1 << 20;
const PAGE: u64 = 4096;
/// The least a limit may be.
const LEAST: u64 = 64 * M;
const HIGH: (&str, &str, u64) = ("--high", "memory.high", LEAST);
const MAX: (&str, &str, u64) = ("--max", "memory.max", LEAST);
const LOW: (&str, &str, u64) = ("--low", "memory.low", LEAST);
/// Long enough to see the other rules not being broken either.
const CONTROL: &str = "1500ms";
const LEASE: &str = "20s";

fn pages(bytes: u64) -> String {
    format!("touch {}", bytes / PAGE)
}

/// The instant of a wall-clock stamp of the past.
fn instant(stamp_us: i64) -> Result<Instant> {
    let ago = u64::try_from(wall_us() - stamp_us).unwrap_or(0);
    Instant::now()
        .checked_sub(Duration::from_micros(ago))
        .context("before the boot")
}

/// A child that eats up to the limit that the action set.
fn oom_kill() -> Result<Outcome> {
    let desk = Desk::new("oom", "")?;
    let cgroup = TempCgroup::new("target")?;
    let mut workload = Workload::start(&cgroup)?;
    workload.step("oom-score -1000")?;
    let held = desk.hold(&cgroup, MAX, LEASE, &[])?;
    let told = workload.step("oom-eat 500")?;
    // PID SIGNAL LAST SEEN: the last stamp of the victim lies before the kill.
    let last = told.split(' ').nth(2).context("no stamp")?.parse()?;
    held.tripped("oom_kill", instant(last)?)?;
    ensure!(cgroup.stat("memory.events", "oom_kill")? == 1, "no kill");

    let cgroup = TempCgroup::new("control")?;
    let mut workload = Workload::start(&cgroup)?;
    let held = desk.hold(&cgroup, MAX, CONTROL, &[])?;
    workload.step(&pages(40 * M))?;
    held.lasted()?;
    Ok(Outcome::Passed)
}

/// What the target is kept from being reclaimed is missing where its parent's limit is reached; a sibling that reaches
/// a limit of its own is nobody's fault.
fn oom_kill_above() -> Result<Outcome> {
    let desk = Desk::new("above", "")?;
    let run = |limit_above: bool| -> Result<()> {
        let parent = TempCgroup::new("parent")?;
        parent.delegate("+memory")?;
        let target = parent.child("target")?;
        let sibling = parent.child("sibling")?;
        let limited = if limit_above { &parent } else { &sibling };
        limited.write("memory.max", 24 * M)?;
        let mut workload = Workload::start(&sibling)?;
        workload.step("oom-score -1000")?;
        let lease = if limit_above { LEASE } else { CONTROL };
        let held = desk.hold(&target, LOW, lease, &[])?;
        let told = workload.step("oom-eat 500")?;
        ensure!(parent.stat("memory.events", "oom_kill")? == 1, "no kill");
        if limit_above {
            let last = told.split(' ').nth(2).context("no stamp")?.parse()?;
            held.tripped("oom_kill", instant(last)?)?;
        } else {
            held.lasted()?;
        }
        Ok(())
    };
    run(true)?;
    run(false)?;
    Ok(Outcome::Passed)
}

/// Without swap nothing can be taken from it, so above memory.high its tasks are put to sleep.
fn pressure() -> Result<Outcome> {
    let desk = Desk::new("pressure", "")?;
    let cgroup = TempCgroup::new("target")?;
    let mut workload = Workload::start(&cgroup)?;
    workload.step(&pages(60 * M))?;
    let held = desk.hold(&cgroup, HIGH, LEASE, &[])?;
    let start = Instant::now();
    workload.send(&pages(48 * M))?;
    held.tripped("pressure", start)?;
    workload.reply(Duration::from_secs(20))?;

    let cgroup = TempCgroup::new("control")?;
    let mut workload = Workload::start(&cgroup)?;
    workload.step(&pages(60 * M))?;
    let held = desk.hold(&cgroup, ("--high", "memory.high", 256 * M), CONTROL, &[])?;
    workload.step(&pages(48 * M))?;
    held.lasted()?;
    Ok(Outcome::Passed)
}

/// Somebody else takes the machine's memory; the threshold lies a bit under what there is.
fn available() -> Result<Outcome> {
    let available = || -> Result<u64> { Ok(value_of("/proc/meminfo", "MemAvailable")? * 1024) };
    let cgroup = TempCgroup::new("target")?;
    let other = TempCgroup::new("other")?;
    let run = |bytes: u64, lease: &str| -> Result<()> {
        let mut workload = Workload::start(&other)?;
        let least = available()? - 40 * M;
        let desk = Desk::new(
            "available",
            &format!("[watchdog]\nmin_available = \"{least}\"\n"),
        )?;
        let held = desk.hold(&cgroup, LOW, lease, &[])?;
        let start = Instant::now();
        workload.step(&pages(bytes))?;
        if lease == CONTROL {
            held.lasted()
        } else {
            held.tripped("available", start)
        }
    };
    run(4 * M, CONTROL)?;
    run(128 * M, LEASE)?;
    Ok(Outcome::Passed)
}

/// A working set of half as much again as memory.high, read in order again and again: each page comes back from swap.
fn refaults() -> Result<Outcome> {
    let _swap = Swap::on(256 * M)?;
    let config = "[watchdog]\npsi_some_pct = 100\npsi_full_pct = 100\nrefaults_per_s = 500\n";
    let desk = Desk::new("refaults", config)?;
    let run = |high: u64, lease: &str| -> Result<()> {
        let cgroup = TempCgroup::new("target")?;
        let mut workload = Workload::start(&cgroup)?;
        workload.step(&pages(96 * M))?;
        let before = cgroup.stat("memory.stat", "workingset_refault_anon")?;
        let held = desk.hold(&cgroup, ("--high", "memory.high", high), lease, &[])?;
        // The file holds the limit before the kernel has taken what is above it.
        wait_until(
            "what is above the limit to go",
            Duration::from_secs(10),
            || Ok((cgroup.number("memory.current")? <= high).then_some(())),
        )?;
        let start = Instant::now();
        for _ in 0..100 {
            workload.send("read-last")?;
        }
        if lease == CONTROL {
            held.lasted()?;
        } else {
            held.tripped("refaults", start)?;
        }
        let after = cgroup.stat("memory.stat", "workingset_refault_anon")?;
        println!("{} pages came back", after - before);
        Ok(())
    };
    run(LEAST, LEASE)?;
    run(256 * M, CONTROL)?;
    Ok(Outcome::Passed)
}

fn critical_service() -> Result<Outcome> {
    let (service, other) = (TempCgroup::new("service")?, TempCgroup::new("other")?);
    let config = format!("[safety]\ncritical = [\"{}\"]\n", service.path());
    let desk = Desk::new("critical", &config)?;
    let target = TempCgroup::new("target")?;
    let mut critical = Workload::start(&service)?;

    let mut harmless = Workload::start(&other)?;
    let held = desk.hold(&target, LOW, CONTROL, &[])?;
    harmless.send("exit 0")?;
    harmless.wait(Duration::from_secs(10))?;
    held.lasted()?;

    let held = desk.hold(&target, LOW, LEASE, &[])?;
    let start = Instant::now();
    critical.send("exit 0")?;
    held.tripped("critical_service", start)?;

    // With its cgroup: the open file of it says so.
    let held = {
        let _critical = Workload::start(&service)?;
        desk.hold(&other, LOW, LEASE, &[])?
    };
    let start = Instant::now();
    drop(service);
    held.tripped("critical_service", start)?;
    Ok(Outcome::Passed)
}

fn cool_down() -> Result<Outcome> {
    let service = TempCgroup::new("service")?;
    let desk = Desk::new(
        "cooldown",
        &format!(
            "[safety]\ncritical = [\"{}\"]\ncooldown = \"4s\"\ncooldown_max = \"1h\"\n",
            service.path()
        ),
    )?;
    let (target, other) = (TempCgroup::new("target")?, TempCgroup::new("other")?);
    let harm = |more: &[&str]| -> Result<Instant> {
        let mut critical = Workload::start(&service)?;
        let held = desk.hold(&target, LOW, LEASE, more)?;
        let start = Instant::now();
        critical.send("exit 0")?;
        held.tripped_after(more, "critical_service", start)?;
        Ok(Instant::now())
    };
    let again = |cgroup: &TempCgroup| {
        desk.enforce(&["limit", cgroup.path(), "--low", "64M", "--lease", "100ms"])
    };
    let refused = |says: &[&str]| -> Result<()> {
        let finished = again(&target)?;
        ensure!(
            finished.code() == Some(4)
                && finished.stdout.is_empty()
                && finished.stderr.lines().count() == 1
                && says.iter().all(|word| finished.stderr.contains(word)),
            "{says:?}: {finished:?}"
        );
        ensure!(target.read("memory.low")? == "0", "it was written");
        print!("{}", finished.stderr);
        Ok(())
    };
    let at = harm(&[])?;
    refused(&[
        "cools down for 4.0s",
        "1 in a row",
        "critical_service",
        "--force",
    ])?;
    ensure!(again(&other)?.code() == Some(0), "another target");
    let waited = wait_until("the end of the cool-down", Duration::from_secs(30), || {
        let begun = at.elapsed();
        let finished = again(&target)?;
        ensure!(matches!(finished.code(), Some(0 | 4)), "{finished:?}");
        let allowed = finished.code() == Some(0);
        // The harm was noted before we knew of it, so by then its cool-down is over for certain.
        ensure!(
            allowed || begun < Duration::from_secs(4),
            "{begun:?} after the harm: {finished:?}"
        );
        Ok(allowed.then(|| at.elapsed()))
    })?;
    println!("allowed again {} ms after the harm", waited.as_millis());
    ensure!(
        waited >= Duration::from_millis(3_500),
        "already after {waited:?}"
    );
    // That went well, so the next harm is the first one again; the one after it, forced, is not.
    harm(&[])?;
    harm(&["--force"])?;
    refused(&["cools down for 8.0s", "2 in a row"])?;
    Ok(Outcome::Passed)
}
