//! How `watch` ends, and that nothing of it stays in the kernel.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::harness::{Observer, Outcome, TempCgroup, Workload, grey_ebpf, wait_until};

const SOON: Duration = Duration::from_secs(40);
/// The kernel frees programs and maps after a grace period of its own.
const GRACE: Duration = Duration::from_secs(15);

/// What the kernel numbers: the command of bpf(2) that steps through them, and their key in fdinfo.
const KINDS: [(&str, libc::c_long, &str); 3] = [
    ("program", 11, "prog_id:"),
    ("map", 12, "map_id:"),
    ("link", 31, "link_id:"),
];

/// Every object of a kind that the kernel holds, by id.
pub(crate) fn loaded(command: libc::c_long) -> Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    // union bpf_attr of BPF_*_GET_NEXT_ID: start_id, next_id, open_flags.
    let mut attributes = [0u32; 3];
    loop {
        // SAFETY: the size covers the array, which outlives the call; the kernel writes next_id.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command,
                attributes.as_mut_ptr(),
                size_of_val(&attributes),
            )
        };
        if result != 0 {
            let error = std::io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::ENOENT) {
                return Ok(found);
            }
            return Err(error).context("step through the kernel's BPF objects");
        }
        found.insert(attributes[1]);
        attributes[0] = attributes[1];
    }
}

pub(crate) fn all_loaded() -> Result<Vec<BTreeSet<u32>>> {
    KINDS
        .iter()
        .map(|(_, command, _)| loaded(*command))
        .collect()
}

/// The objects that a process holds descriptors of.
pub(crate) fn held(pid: u32) -> Result<Vec<BTreeSet<u32>>> {
    let mut held = vec![BTreeSet::new(); KINDS.len()];
    let directory = format!("/proc/{pid}/fdinfo");
    for entry in std::fs::read_dir(&directory).with_context(|| directory.clone())? {
        // A descriptor may be closed meanwhile.
        let text = std::fs::read_to_string(entry?.path()).unwrap_or_default();
        for line in text.lines() {
            for ((_, _, key), ids) in KINDS.iter().zip(&mut held) {
                if let Some(id) = line.strip_prefix(key) {
                    ids.insert(id.trim().parse()?);
                }
            }
        }
    }
    Ok(held)
}

/// A `watch` that has attached, with what it holds in the kernel.
fn watching() -> Result<(Observer, Vec<BTreeSet<u32>>)> {
    let mut observer = Observer::start(&["watch", "--json", "--interval", "100ms"])?;
    observer.wait_event("the first health line", SOON, |event| {
        event["type"] == "health"
    })?;
    let held = held(observer.pid())?;
    let present = all_loaded()?;
    for (((kind, ..), held), present) in KINDS.iter().zip(&held).zip(&present) {
        ensure!(held.len() >= 5, "watch holds {held:?} of the kind {kind}");
        ensure!(
            held.is_subset(present),
            "{kind} {held:?} not among {present:?}"
        );
    }
    Ok((observer, held))
}

/// Waits until none of these is left.
pub(crate) fn gone(held: &[BTreeSet<u32>]) -> Result<()> {
    for ((kind, command, _), held) in KINDS.iter().zip(held) {
        let mut left = BTreeSet::new();
        wait_until("the end of what watch held", GRACE, || {
            left = loaded(*command)?.intersection(held).copied().collect();
            Ok(left.is_empty().then_some(()))
        })
        .with_context(|| format!("{kind}: {left:?} of {held:?} left"))?;
    }
    Ok(())
}

/// Fails unless the stream is whole: every line is JSON, numbered without a gap, the last one a health report.
fn check_stream(stdout: &str) -> Result<()> {
    let mut last = Value::Null;
    for (n, line) in stdout.lines().enumerate() {
        last = serde_json::from_str(line).with_context(|| format!("line {n}: {line}"))?;
        ensure!(last["seq"] == n, "line {n} has another number: {line}");
    }
    ensure!(last["type"] == "health", "the last line: {last}");
    Ok(())
}

fn ends_on(signal: Signal) -> Result<Outcome> {
    let (observer, held) = watching()?;
    // Ends in the middle of its work, not at rest.
    let cgroup = TempCgroup::new("busy")?;
    let mut workload = Workload::start(&cgroup)?;
    workload.send("churn-touch 100000 256")?;
    let finished = observer.stop(signal, SOON)?;
    drop(workload);
    ensure!(
        finished.code() == Some(0),
        "{:?}: {}",
        finished.status,
        finished.stderr
    );
    ensure!(!finished.stderr.contains("panic"), "{}", finished.stderr);
    check_stream(&finished.stdout)?;
    gone(&held)?;
    Ok(Outcome::Passed)
}

pub(crate) fn on_sigint_is_clean() -> Result<Outcome> {
    ends_on(Signal::INT)
}

pub(crate) fn on_sigterm_is_clean() -> Result<Outcome> {
    ends_on(Signal::TERM)
}

pub(crate) fn on_sighup_is_clean() -> Result<Outcome> {
    ends_on(Signal::HUP)
}

pub(crate) fn on_sigkill_leaves_nothing_in_the_kernel() -> Result<Outcome> {
    let (observer, held) = watching()?;
    let finished = observer.stop(Signal::KILL, SOON)?;
    ensure!(finished.status.signal() == Some(9), "{:?}", finished.status);
    gone(&held)?;
    Ok(Outcome::Passed)
}

pub(crate) fn of_the_reader_is_a_normal_end() -> Result<Outcome> {
    let mut child = Command::new(grey_ebpf())
        .args(["watch", "--json", "--interval", "50ms"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start watch")?;
    let mut lines = BufReader::new(child.stdout.take().context("no stdout")?);
    let mut line = String::new();
    lines.read_line(&mut line).context("read the first line")?;
    let first: Value = serde_json::from_str(&line).with_context(|| format!("line {line}"))?;
    let held = held(child.id())?;
    // As `head -1` does.
    drop(lines);
    let ended = wait_until("the end of watch without a reader", SOON, || {
        child.try_wait().context("wait for watch")
    });
    let Ok(status) = ended else {
        child.kill().context("end watch")?;
        bail!("watch goes on without a reader");
    };
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .context("no stderr")?
        .read_to_string(&mut stderr)?;
    ensure!(status.code() == Some(0), "{status:?}: {stderr}");
    ensure!(
        !stderr.contains("panic") && !stderr.contains("pipe"),
        "{stderr}"
    );
    ensure!(first["schema"] == "grey-ebpf/1", "{first}");
    gone(&held)?;
    Ok(Outcome::Passed)
}

/// Where nobody else uses BPF: after all ways to end, the kernel holds what it held before.
pub(crate) fn leaves_the_kernel_as_it_was() -> Result<Outcome> {
    let before = all_loaded()?;
    let ends = [Signal::INT, Signal::TERM, Signal::KILL];
    for signal in ends {
        let (observer, _) = watching()?;
        let pid = Pid::from_raw(observer.pid().cast_signed()).context("a pid")?;
        ensure!(
            rustix::process::test_kill_process(pid).is_ok(),
            "watch has ended by itself"
        );
        observer.stop(signal, SOON)?;
        let mut now = Vec::new();
        wait_until("the kernel as it was", GRACE, || {
            now = all_loaded()?;
            Ok((now == before).then_some(()))
        })
        .with_context(|| format!("after {signal:?}: {now:?}, before {before:?}"))?;
    }
    Ok(Outcome::Passed)
}
