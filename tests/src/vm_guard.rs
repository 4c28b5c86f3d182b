//! The guard over real limits: whatever ends or stops the command, or the guard, or both.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;

use crate::guard::{Folder, guard_of, heap, runs, send, status};
use crate::harness::timing::Latencies;
use crate::harness::{
    Finished, Observer, Outcome, TempCgroup, Trial, cgroup_root, run, wait_until,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new("vm_guard_puts_a_limit_back_after_sigkill", after_sigkill),
        Trial::new("vm_guard_puts_a_limit_back_after_sigstop", after_sigstop),
        Trial::new("vm_guard_is_not_needed_at_a_leases_end", leases_end),
        Trial::new("vm_guard_that_is_killed_ends_the_action", guard_killed),
        Trial::new(
            "vm_guard_and_command_killed_leave_it_to_rollback",
            both_killed,
        ),
        Trial::new("vm_guard_leaves_what_others_wrote", foreign_write),
        Trial::new("vm_guard_leaves_a_cgroup_made_again", made_again),
        Trial::new("vm_guard_is_small_and_hard_to_end", small_and_hard_to_end),
        Trial::new("vm_guard_frozen_writer_does_not_hang", frozen_writer),
    ]
}

const LIMIT: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(20);
const HIGH: &str = "134217728";

/// `enforce limit --high 128M --lease` in force, with its guard.
struct Held {
    cgroup: TempCgroup,
    folder: Folder,
    command: Observer,
    guard: u32,
}

fn hold(label: &str, lease: &str) -> Result<Held> {
    let cgroup = TempCgroup::new(label)?;
    let folder = Folder::new(label)?;
    ensure!(cgroup.read("memory.high")? == "max");
    let command = Observer::start(&[
        "enforce",
        "limit",
        cgroup.path(),
        "--high",
        "128M",
        "--lease",
        lease,
        "--state-dir",
        folder.path(),
    ])?;
    await_high(&cgroup, HIGH, SOON)?;
    let guard = guard_of(command.pid())?.context("no guard runs")?;
    Ok(Held {
        cgroup,
        folder,
        command,
        guard,
    })
}

fn await_high(cgroup: &TempCgroup, value: &str, within: Duration) -> Result<()> {
    wait_until(&format!("memory.high = {value}"), within, || {
        Ok((cgroup.read("memory.high")? == value).then_some(()))
    })
}

fn await_end(guard: u32) -> Result<()> {
    wait_until(
        "the guard's end",
        LIMIT,
        || Ok((!runs(guard)).then_some(())),
    )
}

fn micros(since: Instant) -> i64 {
    i64::try_from(since.elapsed().as_micros()).unwrap_or(i64::MAX)
}

fn refused(finished: &Finished, word: &str) -> Result<()> {
    ensure!(
        finished.code() == Some(4) && finished.stderr.contains(word),
        "not {word}: {finished:?}"
    );
    Ok(())
}

fn no_guard_cgroup() -> Result<()> {
    let dir = cgroup_root()?.join("grey-ebpf-guard");
    wait_until("the guard's cgroup gone", LIMIT, || {
        Ok((!dir.exists()).then_some(()))
    })
}

fn after_sigkill() -> Result<Outcome> {
    let mut latencies = Latencies::default();
    for round in 0..4 {
        let held = hold(&format!("kill{round}"), "60s")?;
        let start = Instant::now();
        held.command.signal(Signal::KILL)?;
        await_high(&held.cgroup, "max", LIMIT)?;
        latencies.add(micros(start));
        await_end(held.guard)?;
        let journal = fs::read_to_string(held.folder.0.join("journal"))?;
        ensure!(
            journal
                .lines()
                .last()
                .is_some_and(|line| line.contains("\"restored\"")),
            "{journal}"
        );
        // Nothing is left to undo.
        let list = run(&["rollback", "--state-dir", held.folder.path()], SOON)?;
        ensure!(list.code() == Some(0), "{list:?}");
        ensure!(held.cgroup.read("memory.high")? == "max");
    }
    no_guard_cgroup()?;
    latencies.tell("SIGKILL of the command to memory.high back");
    Ok(Outcome::Passed)
}

fn after_sigstop() -> Result<Outcome> {
    let mut latencies = Latencies::default();
    for round in 0..2 {
        let held = hold(&format!("stop{round}"), "60s")?;
        let start = Instant::now();
        held.command.signal(Signal::STOP)?;
        await_high(&held.cgroup, "max", LIMIT)?;
        latencies.add(micros(start));
        held.command.signal(Signal::CONT)?;
        let finished = held.command.finish(SOON)?;
        refused(&finished, "held up")?;
        ensure!(
            held.cgroup.read("memory.high")? == "max",
            "it was changed again"
        );
        await_end(held.guard)?;
    }
    latencies.tell("SIGSTOP of the command to memory.high back");
    Ok(Outcome::Passed)
}

fn leases_end() -> Result<Outcome> {
    let held = hold("lease", "1s")?;
    let start = Instant::now();
    await_high(&held.cgroup, "max", Duration::from_secs(3))?;
    let took = start.elapsed();
    let finished = held.command.finish(SOON)?;
    ensure!(
        finished.code() == Some(0) && finished.stdout.contains("rolled back (lease)"),
        "{finished:?}"
    );
    await_end(held.guard)?;
    no_guard_cgroup()?;
    println!("a lease of 1 s was over after {took:?}");
    Ok(Outcome::Passed)
}

fn guard_killed() -> Result<Outcome> {
    let held = hold("alone", "60s")?;
    let start = Instant::now();
    send(held.guard, Signal::KILL)?;
    await_high(&held.cgroup, "max", LIMIT)?;
    println!(
        "SIGKILL of the guard to memory.high back: {:?}",
        start.elapsed()
    );
    let finished = held.command.finish(SOON)?;
    refused(&finished, "guard is lost")?;
    Ok(Outcome::Passed)
}

fn both_killed() -> Result<Outcome> {
    let held = hold("both", "60s")?;
    // Stopped first: it must not notice the command's end.
    send(held.guard, Signal::STOP)?;
    held.command.signal(Signal::KILL)?;
    send(held.guard, Signal::KILL)?;
    await_end(held.guard)?;
    ensure!(held.cgroup.read("memory.high")? == HIGH, "who put it back?");
    let finished = run(&["rollback", "--state-dir", held.folder.path()], SOON)?;
    ensure!(finished.code() == Some(0), "{finished:?}");
    ensure!(held.cgroup.read("memory.high")? == "max", "{finished:?}");
    Ok(Outcome::Passed)
}

fn foreign_write() -> Result<Outcome> {
    let held = hold("foreign", "60s")?;
    held.cgroup.write("memory.high", "268435456")?;
    held.command.signal(Signal::KILL)?;
    await_end(held.guard)?;
    ensure!(
        held.cgroup.read("memory.high")? == "268435456",
        "it was overwritten"
    );
    let journal = fs::read_to_string(held.folder.0.join("journal"))?;
    ensure!(journal.contains("\"foreign\""), "{journal}");
    Ok(Outcome::Passed)
}

fn made_again() -> Result<Outcome> {
    let held = hold("again", "60s")?;
    held.command.signal(Signal::STOP)?;
    fs::remove_dir(held.cgroup.directory())?;
    fs::create_dir(held.cgroup.directory())?;
    held.cgroup.write("memory.high", HIGH)?;
    held.command.signal(Signal::KILL)?;
    await_end(held.guard)?;
    ensure!(
        held.cgroup.read("memory.high")? == HIGH,
        "it is another cgroup"
    );
    let journal = fs::read_to_string(held.folder.0.join("journal"))?;
    ensure!(journal.contains("\"gone\""), "{journal}");
    Ok(Outcome::Passed)
}

fn small_and_hard_to_end() -> Result<Outcome> {
    let held = hold("small", "60s")?;
    let guard = held.guard;
    let rss = status(guard, "VmRSS").context("VmRSS")?;
    let locked = status(guard, "VmLck").context("VmLck")?;
    println!("the guard: {rss} KiB resident, {locked} KiB locked");
    ensure!(
        rss < 4 * 1024 && locked > 0,
        "{rss} KiB, {locked} KiB locked"
    );
    let adj = fs::read_to_string(format!("/proc/{guard}/oom_score_adj"))?;
    ensure!(adj.trim() == "-1000", "oom_score_adj is {adj}");
    let place = fs::read_to_string(format!("/proc/{guard}/cgroup"))?;
    ensure!(place.trim() == "0::/grey-ebpf-guard", "it is in {place}");
    let home = cgroup_root()?.join("grey-ebpf-guard");
    let min = fs::read_to_string(home.join("memory.min"))?;
    ensure!(min.trim() == "8388608", "memory.min is {min}");
    let current = fs::read_to_string(home.join("memory.current"))?;
    println!("its cgroup: {} bytes charged", current.trim());
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        send(guard, signal)?;
    }
    let before = heap(guard)?;
    held.command.signal(Signal::STOP)?;
    await_high(&held.cgroup, "max", LIMIT)?;
    let after = heap(guard)?;
    ensure!(before == after, "it grew from {before:?} to {after:?}");
    held.command.signal(Signal::KILL)?;
    await_end(guard)?;
    no_guard_cgroup()?;
    Ok(Outcome::Passed)
}

/// A helper that blocks and is then frozen with its cgroup: SIGSTOP's bigger sister.
fn frozen_writer() -> Result<Outcome> {
    use grey_core::act::Fault;
    use grey_user::act::writer::{Wait, write};
    let cgroup = TempCgroup::new("frozen")?;
    let (_reader, writer) = rustix::pipe::pipe()?;
    rustix::io::ioctl_fionbio(&writer, true)?;
    while rustix::io::write(&writer, &[0; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false)?;
    let children = format!("/proc/self/task/{}/children", std::process::id());
    let (mut frozen, mut trouble) = (false, None);
    let start = Instant::now();
    let ended = write(writer, &[0; 4096], Duration::from_millis(600), &mut || {
        if !frozen && trouble.is_none() {
            let freeze = || -> Result<()> {
                let text = fs::read_to_string(&children)?;
                cgroup.adopt(text.trim().parse().context("no helper")?)?;
                cgroup.write("cgroup.freeze", 1)
            };
            match freeze() {
                Ok(()) => frozen = cgroup.stat("cgroup.events", "frozen").unwrap_or(0) == 1,
                Err(error) => trouble = Some(error),
            }
        }
        Wait::On
    });
    if let Some(error) = trouble {
        bail!(error);
    }
    ensure!(frozen, "the helper was never frozen");
    ensure!(
        matches!(ended, Err(Fault::TimedOut { .. })),
        "it ended with {ended:?}"
    );
    let took = start.elapsed();
    println!("a frozen writer was given up after {took:?}: {ended:?}");
    ensure!(took < Duration::from_secs(5), "{took:?}");
    Ok(Outcome::Passed)
}
