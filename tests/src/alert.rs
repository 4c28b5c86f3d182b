//! A leak from its first verdict to the end of its cgroup, as a command that is run at alerts gets to know of it, with a
//! kill and a restart of the watch in between. It is as large as the limit demands: a part of the cgroup's own in a
//! VM, of the machine's memory elsewhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Observer, Outcome, TempCgroup, Workload, run};

/// Seconds in which the leak would take all the room there is.
const WHOLE_S: u64 = 105;
/// Seconds without growth before it, so that it is no start.
const SETTLE: usize = 12;
/// It must have been found by then.
const MOST_S: usize = 40;
const LIMIT: u64 = 384 << 20;
const PAGE: u64 = 4096;
/// Less than this is too little room for a leak that harms nobody.
const LEAST_ROOM: u64 = 2 << 30;
const LONG: Duration = Duration::from_secs(60);

/// A folder that is gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(label: &str) -> Result<Self> {
        let name = format!("grey-alert-{label}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    fn lines(&self, name: &str) -> Result<Vec<Value>> {
        self.text(name)
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
            .collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Bytes that the leak may take, and the cgroup it lives in.
fn scene() -> Result<Option<(TempCgroup, u64)>> {
    let cgroup = TempCgroup::new("leak $(touch x);'\"`")?;
    if cgroup.has("memory.max") {
        cgroup.write("memory.max", LIMIT)?;
        return Ok(Some((cgroup, LIMIT)));
    }
    let meminfo = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let available = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.parse::<u64>().ok())
        .context("MemAvailable")?
        << 10;
    Ok((available >= LEAST_ROOM).then_some((cgroup, available)))
}

fn is(event: &Value, kind: &str, path: &str) -> bool {
    event["type"] == kind && event["cgroup"]["path"] == path
}

fn state(event: &Value) -> &str {
    event["verdict"]["state"].as_str().unwrap_or("")
}

pub(crate) fn of_a_leak_outlive_a_kill_and_reach_a_command_once() -> Result<Outcome> {
    let Some((cgroup, room)) = scene()? else {
        return Outcome::skipped("less than 2 GiB of memory are available");
    };
    let path = cgroup.path().to_owned();
    let folder = Folder::new("leak")?;
    let mut workload = Workload::start(&cgroup)?;
    workload.step("touch 4096")?;
    let kept = folder.file("state");
    let note = format!(
        "cat >> {}; ls /proc/self/fd >> {}",
        folder.file("events"),
        folder.file("fds")
    );
    let pattern = glob_of(&path);
    let watch = [
        "watch",
        "--json",
        "--cgroup",
        &pattern,
        "--state",
        &kept,
        "--alert-on",
        "suspect",
        "--on-alert",
        "sh",
        "-c",
        &note,
    ];
    // Beside it one whose command hangs, with room for one alert.
    let hang = format!("echo started >> {}; exec sleep 1000", folder.file("hung"));
    let mut other = Observer::start(&[
        "watch",
        "--json",
        "--cgroup",
        &pattern,
        "--alert-on",
        "suspect",
        "--alert-rate",
        "1/1h",
        "--alert-timeout",
        "500ms",
        "--on-alert",
        "sh",
        "-c",
        &hang,
        ";",
        "--slow-ticks",
        "5",
    ])?;
    let mut observer = Observer::start(&watch)?;

    // The samples themselves set the pace: one is made each second in which something happened.
    let chunk = room / WHOLE_S / PAGE;
    for _ in 0..SETTLE {
        workload.step("touch 1")?;
        observer.wait_event("a sample", LONG, |event| is(event, "sample", &path))?;
    }
    let mut seconds = 0;
    let suspect = loop {
        ensure!(
            seconds < MOST_S,
            "no verdict of suspect after {seconds} s of {chunk} pages a second"
        );
        seconds += 1;
        workload.step(&format!("touch {chunk}"))?;
        let event = observer.wait_event("a sample or verdict", LONG, |event| {
            is(event, "sample", &path) || is(event, "verdict", &path) && state(event) != "growing"
        })?;
        if event["type"] == "verdict" {
            break event;
        }
    };
    println!("suspect after {seconds} s: {suspect}");
    ensure!(
        matches!(state(&suspect), "suspect" | "confirmed"),
        "{suspect}"
    );
    ensure!(suspect["verdict"]["cause"] == "leak", "{suspect}");
    let grower = &suspect["verdict"]["evidence"]["grower"];
    ensure!(grower["pid"] == workload.pid(), "who grew: {grower}");

    // It is kept soon after, and what a kill leaves is all there is.
    for tick in 0.. {
        if has_standing(Path::new(&kept)) {
            break;
        }
        ensure!(tick < 20, "no verdict in the state file after {tick} ticks");
        workload.step("touch 1")?;
        observer.wait_event("a sample", LONG, |event| is(event, "sample", &path))?;
    }
    let before: Vec<Value> = verdicts(&observer.events()?, &path);
    observer.stop(Signal::KILL, LONG)?;
    let mut again = Observer::start(&watch)?;
    for _ in 0..3 {
        workload.step("touch 1")?;
        again.wait_event("a sample", LONG, |event| is(event, "sample", &path))?;
    }
    drop(workload);
    drop(cgroup);
    let recovered = again.wait_event("the end of the leak", LONG, |event| {
        is(event, "verdict", &path) && state(event) == "recovered"
    })?;
    ensure!(recovered["verdict"]["cause"] == "leak", "{recovered}");
    let after = again.stop(Signal::INT, LONG)?;
    ensure!(
        after.code() == Some(0) && !after.stderr.contains("--state"),
        "{after:?}"
    );
    let after: Vec<Value> = after
        .stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let after = verdicts(&after, &path);
    ensure!(
        !after
            .iter()
            .any(|event| matches!(state(event), "growing" | "suspect")),
        "the verdict began anew: {after:?}"
    );

    // Each change from suspect on came to the command once, as it was told.
    let expected: Vec<Value> = before
        .into_iter()
        .chain(after)
        .filter(|event| state(event) != "growing")
        .collect();
    let got = folder.lines("events")?;
    ensure!(
        got == expected,
        "the command got {got:#?} instead of {expected:#?}"
    );
    ensure!(!Path::new("x").exists(), "a cgroup's name was run");
    // Standard input, output, error, and the folder that ls reads.
    let fds = folder.text("fds");
    ensure!(
        fds.lines().take(4).collect::<Vec<_>>() == ["0", "1", "2", "3"]
            && fds.lines().all(|fd| fd.len() == 1),
        "descriptors of the command: {fds}"
    );

    // The other one was ended, and had one alert.
    other.wait_event("the end of the leak", LONG, |event| {
        is(event, "verdict", &path) && state(event) == "recovered"
    })?;
    let other = other.stop(Signal::INT, LONG)?;
    for line in [
        "grey-ebpf: --on-alert sh: took longer than 500ms, and was ended",
        "grey-ebpf: --on-alert sh: more than 1 in 1h00m; the next ones are counted, not run (--alert-rate)",
    ] {
        ensure!(
            other.stderr.contains(line),
            "stderr without {line:?}: {}",
            other.stderr
        );
    }
    ensure!(other.code() == Some(0), "{other:?}");
    ensure!(
        folder.text("hung") == "started\n",
        "{}",
        folder.text("hung")
    );
    Ok(Outcome::Passed)
}

/// A pattern that means this path and nothing else.
fn glob_of(path: &str) -> String {
    path.chars()
        .map(|c| if "$()'\"`; ".contains(c) { '?' } else { c })
        .collect()
}

fn verdicts(events: &[Value], path: &str) -> Vec<Value> {
    events
        .iter()
        .filter(|event| is(event, "verdict", path))
        .cloned()
        .collect()
}

/// Whether a state file is there that has an open verdict.
fn has_standing(path: &Path) -> bool {
    use std::io::Read as _;
    let Ok(bytes) = fs::read(path) else {
        return false;
    };
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return false;
    };
    let mut json = String::new();
    let read = flate2::read::GzDecoder::new(&bytes[end + 1..]).read_to_string(&mut json);
    read.is_ok()
        && (json.contains(r#""state":"suspect""#) || json.contains(r#""state":"confirmed""#))
}

pub(crate) fn to_a_command_that_is_not_there_are_refused_at_the_start() -> Result<Outcome> {
    for command in ["no-such-command-77", "/no/such/command", "/proc/version"] {
        let ended = run(&["watch", "--json", "--on-alert", command], LONG)?;
        ensure!(ended.code() == Some(2), "{ended:?}");
        ensure!(ended.stdout.is_empty(), "{ended:?}");
        ensure!(
            ended.stderr.lines().count() == 1
                && ended.stderr.starts_with("grey-ebpf: --on-alert: "),
            "{ended:?}"
        );
    }
    Ok(Outcome::Passed)
}

pub(crate) fn state_that_cannot_be_used_is_told_and_kept_aside() -> Result<Outcome> {
    let folder = Folder::new("bad")?;
    let path = folder.file("state");
    for (content, why) in [
        ("", "not a state file of grey-ebpf"),
        ("grey-ebpf-state 9 crc32=00000000 bytes=0\n", "format 9"),
        (
            "grey-ebpf-state 1 crc32=00000000 bytes=10\nhello",
            "cut off: 5 of 10 bytes",
        ),
        (
            "grey-ebpf-state 1 crc32=00000000 bytes=5\nhello",
            "damaged: its checksum is wrong",
        ),
    ] {
        fs::write(&path, content)?;
        let ended = run(&["watch", "--once", "--json", "--state", &path], LONG)?;
        ensure!(ended.code() == Some(0), "{ended:?}");
        let told = ended
            .stderr
            .lines()
            .filter(|line| line.contains("--state"))
            .collect::<Vec<_>>();
        ensure!(
            told.len() == 1 && told[0].contains(why) && told[0].contains("beginning anew"),
            "{told:?}"
        );
        ensure!(
            fs::read_to_string(format!("{path}.bad"))? == content,
            "{why}: what is kept"
        );
        let again = run(&["watch", "--once", "--json", "--state", &path], LONG)?;
        ensure!(
            !again.stderr.contains("--state"),
            "what was written is not good: {again:?}"
        );
    }
    let ended = run(
        &["watch", "--once", "--state", "/no/such/folder/state"],
        LONG,
    )?;
    ensure!(
        ended.code() == Some(1) && ended.stderr.contains("/no/such/folder/state"),
        "{ended:?}"
    );

    // Two at a time: the second one reads, and leaves the file to the first.
    let mut first = Observer::start(&["watch", "--json", "--state", &path])?;
    first.wait_event("the first line", LONG, |_| true)?;
    let written = fs::metadata(&path)?.modified()?;
    let second = run(&["watch", "--once", "--json", "--state", &path], LONG)?;
    ensure!(second.code() == Some(0), "{second:?}");
    ensure!(
        second.stderr.contains("another grey-ebpf writes it"),
        "{second:?}"
    );
    ensure!(
        fs::metadata(&path)?.modified()? == written,
        "the second one wrote"
    );
    first.stop(Signal::INT, LONG)?;
    ensure!(
        fs::metadata(&path)?.modified()? > written,
        "the first one did not"
    );
    Ok(Outcome::Passed)
}
