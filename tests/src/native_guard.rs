//! The guard as a process, over ordinary files: what happens to it and to its controller.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use grey_core::act::{Close, Record, decode_all};
use rustix::process::Signal;

use crate::guard::{Controlled, NEW, OLD, heap, runs, send, status};
use crate::harness::timing::Latencies;
use crate::harness::{Outcome, Trial, grey_ebpf, run, wait_until};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new("native_guard_puts_back_after_sigkill", after_sigkill),
        Trial::new("native_guard_puts_back_after_sigstop", after_sigstop),
        Trial::new(
            "native_guard_survives_what_ends_its_controller",
            survives_what_ends_its_controller,
        ),
        Trial::new(
            "native_guard_that_is_killed_is_missed_at_once",
            killed_is_missed_at_once,
        ),
        Trial::new("native_guard_that_hangs_is_missed", that_hangs_is_missed),
        Trial::new(
            "native_guard_ends_with_its_controller",
            ends_with_its_controller,
        ),
        Trial::new("native_guard_is_small_and_stays_so", is_small_and_stays_so),
        Trial::new("native_guard_is_not_run_by_hand", is_not_run_by_hand),
    ]
}

/// All of it: notice, put back, and what the machine adds.
const LIMIT: Duration = Duration::from_secs(2);

fn put_back(controlled: &Controlled, since: Instant) -> Result<i64> {
    wait_until("putting back", LIMIT, || {
        Ok(controlled.all(OLD)?.then_some(()))
    })?;
    Ok(i64::try_from(since.elapsed().as_micros())?)
}

fn closed(controlled: &Controlled) -> Result<Vec<(u32, Close)>> {
    let bytes = fs::read(controlled.folder.0.join("journal"))?;
    let (records, damage) = decode_all(&bytes);
    ensure!(damage.lines == 0 && !damage.torn, "{damage:?}");
    let closed = records.into_iter().filter_map(|record| match record {
        Record::Closed { step, how, .. } => Some((step, how)),
        _ => None,
    });
    Ok(closed.collect())
}

fn after_sigkill() -> Result<Outcome> {
    let mut latencies = Latencies::default();
    for round in 0..30 {
        let controlled = Controlled::start(&format!("kill-{round}"), 8)?;
        ensure!(controlled.all(NEW)?, "nothing was changed");
        let start = Instant::now();
        controlled.signal(Signal::KILL)?;
        latencies.add(put_back(&controlled, start)?);
        let guard = controlled.guard;
        wait_until(
            "the guard's end",
            LIMIT,
            || Ok((!runs(guard)).then_some(())),
        )?;
        let expected: Vec<_> = (0..8).rev().map(|step| (step, Close::Restored)).collect();
        let closed = closed(&controlled)?;
        ensure!(closed == expected, "the journal has {closed:?}");
    }
    latencies.tell("SIGKILL of the controller to 8 files put back");
    Ok(Outcome::Passed)
}

fn after_sigstop() -> Result<Outcome> {
    let mut latencies = Latencies::default();
    for round in 0..5 {
        let mut controlled = Controlled::start(&format!("stop-{round}"), 1)?;
        let start = Instant::now();
        controlled.signal(Signal::STOP)?;
        latencies.add(put_back(&controlled, start)?);
        controlled.signal(Signal::CONT)?;
        let (said, code) = controlled.end()?;
        ensure!(
            code == Some(4) && said.contains("taken over"),
            "it ended with {code:?} and said {said}"
        );
        ensure!(controlled.all(OLD)?, "it was changed again");
    }
    latencies.tell("SIGSTOP of the controller to 1 file put back");
    Ok(Outcome::Passed)
}

fn survives_what_ends_its_controller() -> Result<Outcome> {
    let controlled = Controlled::start("signals", 1)?;
    for signal in [
        Signal::INT,
        Signal::TERM,
        Signal::HUP,
        Signal::QUIT,
        Signal::TSTP,
    ] {
        send(controlled.guard, signal)?;
    }
    let guard = controlled.guard;
    let word = |at: usize| -> Result<String> {
        let stat = fs::read_to_string(format!("/proc/{guard}/stat"))?;
        let rest = stat.rsplit(") ").next().context("stat")?;
        Ok(rest.split(' ').nth(at).context("stat")?.to_owned())
    };
    // Its group and its session are its own: a terminal's signals do not reach it.
    ensure!(word(2)? == guard.to_string(), "process group {}", word(2)?);
    ensure!(word(3)? == guard.to_string(), "session {}", word(3)?);
    let mut files = Vec::new();
    for entry in fs::read_dir(format!("/proc/{guard}/fd"))? {
        files.push(fs::read_link(entry?.path())?.display().to_string());
    }
    let strange = files.iter().find(|file| {
        file.contains("pipe:")
            || (file.starts_with('/') && *file != "/dev/null" && {
                !file.starts_with(controlled.folder.path())
            })
    });
    ensure!(strange.is_none(), "it holds {strange:?} of {files:?}");
    controlled.signal(Signal::KILL)?;
    put_back(&controlled, Instant::now())?;
    Ok(Outcome::Passed)
}

fn killed_is_missed_at_once() -> Result<Outcome> {
    let mut controlled = Controlled::start("killed", 1)?;
    let start = Instant::now();
    send(controlled.guard, Signal::KILL)?;
    let (said, code) = controlled.end()?;
    let took = start.elapsed();
    ensure!(
        code == Some(4) && said.contains("lost"),
        "it ended with {code:?} and said {said}"
    );
    ensure!(took < Duration::from_secs(1), "noticed after {took:?}");
    ensure!(controlled.all(NEW)?, "nobody was there to put it back");
    Ok(Outcome::Passed)
}

fn that_hangs_is_missed() -> Result<Outcome> {
    let mut controlled = Controlled::start("hangs", 1)?;
    send(controlled.guard, Signal::STOP)?;
    let (said, code) = controlled.end()?;
    ensure!(
        code == Some(4) && said.contains("lost"),
        "it ended with {code:?} and said {said}"
    );
    // Were it to come to later, it might undo what is somebody else's by then.
    let guard = controlled.guard;
    wait_until(
        "the guard's end",
        LIMIT,
        || Ok((!runs(guard)).then_some(())),
    )?;
    Ok(Outcome::Passed)
}

fn ends_with_its_controller() -> Result<Outcome> {
    let mut controlled = Controlled::start("orderly", 2)?;
    fs::write(controlled.folder.0.join("release"), "")?;
    let (said, code) = controlled.end()?;
    ensure!(code == Some(0), "it ended with {code:?} and said {said}");
    let guard = controlled.guard;
    ensure!(!runs(guard), "the guard outlived the controller's good-bye");
    ensure!(controlled.all(NEW)?, "what was released was put back");
    ensure!(
        closed(&controlled)?.is_empty(),
        "the journal was written to"
    );
    Ok(Outcome::Passed)
}

fn is_small_and_stays_so() -> Result<Outcome> {
    let controlled = Controlled::start("small", 1)?;
    let guard = controlled.guard;
    // How large it is depends on the build: the VM tests hold the shipped one to a figure.
    let before = heap(guard)?;
    let rss = status(guard, "VmRSS").context("VmRSS")?;
    let locked = status(guard, "VmLck").context("VmLck")?;
    println!("the guard: {rss} KiB resident, {locked} KiB locked, VmData and mappings {before:?}");
    controlled.signal(Signal::STOP)?;
    put_back(&controlled, Instant::now())?;
    let after = heap(guard)?;
    ensure!(before == after, "it grew from {before:?} to {after:?}");
    let adj = fs::read_to_string(format!("/proc/{guard}/oom_score_adj"))?;
    ensure!(
        adj.trim() == "-1000" || !may_exempt()?,
        "oom_score_adj is {adj}"
    );
    Ok(Outcome::Passed)
}

/// Whether we may exempt somebody from the OOM killer: CAP_SYS_RESOURCE, which root may lack in a container.
fn may_exempt() -> Result<bool> {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .context("no CapEff in /proc/self/status")?;
    Ok(u64::from_str_radix(effective.trim(), 16)? >> CAP_SYS_RESOURCE & 1 == 1)
}

fn is_not_run_by_hand() -> Result<Outcome> {
    use std::os::unix::process::CommandExt as _;
    let output = std::process::Command::new(grey_ebpf())
        .arg0("grey-ebpf-guard")
        .stdin(std::process::Stdio::null())
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(2) && stderr.lines().count() == 1,
        "{:?}: {stderr}",
        output.status
    );
    // By its own name it is itself.
    ensure!(run(&["--version"], LIMIT)?.code() == Some(0));
    Ok(Outcome::Passed)
}
