//! `diagnose` where a memory controller is: a cgroup's figures, who was killed by whose limit, KSM, what keeps memory
//! from going down, what grows.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::harness::{Observer, Outcome, TempCgroup, Trial, Workload, assert_within, wait_until};
use crate::invocation::{Invocation, Scratch};
use crate::native_diagnose::{answer, bytes, report};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_diagnose_shows_a_cgroups_anon_and_file",
            shows_anon_and_file,
        ),
        Trial::new(
            "vm_diagnose_tells_whose_limit_killed_whom",
            tells_whose_limit_killed_whom,
        ),
        Trial::new(
            "vm_diagnose_tells_whether_ksm_merges_and_why_not",
            tells_whether_ksm_merges,
        ),
        Trial::new(
            "vm_diagnose_tells_whether_memory_reclaim_is_there",
            tells_whether_reclaim_is_there,
        ),
        Trial::new(
            "vm_diagnose_names_what_keeps_memory_from_going_down",
            names_what_keeps_memory,
        ),
        Trial::new(
            "vm_diagnose_detect_leaks_names_growth_its_rate_and_its_limit",
            names_a_leak,
        )
        .with_deadline(Duration::from_secs(90))
        .shown_on(&["6.12"]),
    ]
}

const M: u64 = 1 << 20;
const PAGE: u64 = 4096;
const SOON: Duration = Duration::from_secs(30);

fn cgroup_of(report: &Value, path: &str) -> Result<Value> {
    report["cgroups"]["top"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|cgroup| cgroup["path"] == path)
        .cloned()
        .with_context(|| format!("no cgroup {path}: {}", report["cgroups"]))
}

fn shows_anon_and_file() -> Result<Outcome> {
    let parent = TempCgroup::new("shows")?;
    parent.delegate("+memory")?;
    parent.write("memory.max", 128 * M)?;
    let cgroup = parent.child("leaf")?;
    let mut workload = Workload::start(&cgroup)?;
    workload.step("touch 3000")?;
    let scratch = Scratch::new("file")?;
    workload.step(&format!("write {} {}", scratch.argument("file")?, 8 * M))?;
    let report = report(&["--cgroup", &format!("{}/**", parent.path())])?;
    let seen = cgroup_of(&report, cgroup.path())?;
    ensure!(
        report["cgroups"]["source"] == "files",
        "{}",
        report["cgroups"]
    );
    // Nobody works in it: the kernel's own figures are the same now. memory.stat lags by a batch of pages per CPU.
    for (key, at) in [("anon", "/anon"), ("file", "/file"), ("shmem", "/shmem")] {
        let own = cgroup.stat("memory.stat", key)?;
        ensure!(
            bytes(&seen, at)?.abs_diff(own) <= 64 * PAGE,
            "{key} {own}: {seen}"
        );
    }
    ensure!(bytes(&seen, "/anon")? + 64 * PAGE >= 3000 * PAGE, "{seen}");
    ensure!(bytes(&seen, "/file")? + 64 * PAGE >= 8 * M, "{seen}");
    let current = cgroup.number("memory.current")?;
    ensure!(
        bytes(&seen, "/current")?.abs_diff(current) <= 64 * PAGE,
        "{current}: {seen}"
    );
    ensure!(
        seen["max"].is_null() && seen.get("max").is_some(),
        "no limit of its own: {seen}"
    );
    ensure!(
        seen["limit"]["cgroup"] == parent.path() && bytes(&seen, "/limit/bytes")? == 128 * M,
        "the parent's limit holds: {seen}"
    );
    ensure!(
        seen["events"]["oom_kill"] == 0 && seen["processes"] == 1,
        "{seen}"
    );
    ensure!(seen["pressure"]["some"]["avg10"].is_number(), "{seen}");
    Ok(Outcome::Passed)
}

/// A leaf whose parent has the limit: its eater is killed, and the report says by whose limit.
fn tells_whose_limit_killed_whom() -> Result<Outcome> {
    let parent = TempCgroup::new("kills")?;
    parent.delegate("+memory")?;
    parent.write("memory.max", 16 * M)?;
    let leaf = parent.child("leaf")?;
    let mut workload = Workload::start(&leaf)?;
    workload.step("rename greedy")?;
    workload.step("oom-score -1000")?;
    let told = workload.step("oom-eat 0")?;
    let pid: u64 = told.split(' ').next().context("no pid")?.parse()?;
    let seen = report(&[])?;
    let found = answer(&seen, "oom_killed")?;
    ensure!(
        found["applies"] == true && found["severity"] == "critical",
        "{found}"
    );
    let text = found["answer"].as_str().context("no answer")?;
    let want = format!(
        "greedy (pid {pid}) in {} was killed at the limit of {} above it (16M)",
        leaf.path(),
        parent.path()
    );
    ensure!(text.contains(&want), "{want:?}: {text}");
    ensure!(
        seen["answers"][0]["id"] == "oom_killed",
        "not the first: {}",
        seen["answers"]
    );
    let record = &seen["oom"]["records"][0];
    ensure!(
        record["pid"] == pid
            && record["constraint"] == "memcg"
            && record["limit_cgroup"] == parent.path()
            && record["victim_cgroup"] == leaf.path()
            && bytes(record, "/limit")? == 16 * M,
        "{record}"
    );
    assert_within(
        "anon of the cgroup at the kill",
        bytes(record, "/cgroup_anon")?,
        16 * M,
        8.0,
    )?;
    let in_list = record["candidates"].as_array().into_iter().flatten();
    ensure!(
        in_list
            .clone()
            .any(|task| task["pid"] == pid && task["rss"].as_u64() > Some(12 * M)),
        "what was using the memory: {record}"
    );
    let counted = seen["oom"]["cgroups"].as_array().into_iter().flatten();
    let own: Vec<&Value> = counted
        .filter(|cgroup| cgroup["path"] == leaf.path())
        .collect();
    ensure!(
        own.len() == 1 && own[0]["kills"] == leaf.stat("memory.events.local", "oom_kill")?,
        "{}",
        seen["oom"]
    );
    ensure!(
        own[0]["limit"]["cgroup"] == parent.path(),
        "whose limit: {}",
        seen["oom"]
    );
    // The kernel counts the kill in the parent too, which lost no process of its own.
    let parents = seen["oom"]["cgroups"].as_array().into_iter().flatten();
    ensure!(
        parents
            .clone()
            .all(|cgroup| cgroup["path"] != parent.path()),
        "{}",
        seen["oom"]
    );
    // Somebody without rights has the counters, and is told what the log would add.
    let scratch = Scratch::new("kills")?;
    let ended = Invocation::new()
        .program(&scratch.program()?)
        .nobody()
        .run(&["diagnose", "--json"])?;
    ensure!(
        ended.code == Some(0) && ended.stderr.is_empty(),
        "{ended:?}"
    );
    let seen: Value = serde_json::from_str(&ended.stdout)?;
    let found = answer(&seen, "oom_killed")?;
    ensure!(found["applies"] == true, "{found}");
    if fs::read_to_string("/proc/sys/kernel/dmesg_restrict")?.trim() == "1" {
        ensure!(seen["oom"]["log_read"] == false, "{}", seen["oom"]);
        let text = found["answer"].as_str().unwrap_or_default();
        ensure!(text.contains("may not read"), "{text}");
    }
    ensure!(found.to_string().contains(leaf.path()), "{found}");
    Ok(Outcome::Passed)
}

/// KSM as it was, when this goes.
struct KsmAsBefore(Vec<(&'static str, String)>);

impl KsmAsBefore {
    fn note() -> Result<Self> {
        let knobs = ["pages_to_scan", "sleep_millisecs", "run"];
        let read = |knob| Ok((knob, fs::read_to_string(ksm(knob))?));
        Ok(Self(knobs.into_iter().map(read).collect::<Result<_>>()?))
    }
}

impl Drop for KsmAsBefore {
    fn drop(&mut self) {
        for (knob, value) in &self.0 {
            let _ = fs::write(ksm(knob), value.trim());
        }
    }
}

fn ksm(knob: &str) -> String {
    format!("/sys/kernel/mm/ksm/{knob}")
}

fn tells_whether_ksm_merges() -> Result<Outcome> {
    if !fs::exists("/sys/kernel/mm/ksm/run")? {
        return Outcome::skipped("this kernel has no KSM");
    }
    let _before = KsmAsBefore::note()?;
    fs::write(ksm("run"), "0")?;
    let cause = |report: &Value| -> Result<String> {
        let found = answer(report, "ksm_not_merging")?;
        Ok(found["reasons"][0]["id"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    };
    let seen = report(&[])?;
    ensure!(
        cause(&seen)? == "stopped",
        "{}",
        answer(&seen, "ksm_not_merging")?
    );
    fs::write(ksm("sleep_millisecs"), "20")?;
    fs::write(ksm("pages_to_scan"), "2000")?;
    fs::write(ksm("run"), "1")?;
    let seen = report(&[])?;
    ensure!(
        cause(&seen)? == "nobody_asked",
        "{}",
        answer(&seen, "ksm_not_merging")?
    );
    // 4 MiB of pages that are all alike, offered.
    const PAGES: usize = 1024;
    let offered = Offered::new(PAGES)?;
    wait_until("merged pages", SOON, || {
        let sharing: usize = fs::read_to_string(ksm("pages_sharing"))?.trim().parse()?;
        Ok((sharing >= PAGES * 9 / 10).then_some(()))
    })?;
    let seen = report(&[])?;
    ensure!(
        cause(&seen)? == "merging",
        "{}",
        answer(&seen, "ksm_not_merging")?
    );
    ensure!(
        bytes(&seen, "/ksm/saved")? >= (PAGES * 9 / 10) as u64 * PAGE,
        "{}",
        seen["ksm"]
    );
    if fs::exists("/proc/self/ksm_stat")? {
        let own = std::process::id();
        let users = seen["ksm"]["processes"]["top"]
            .as_array()
            .into_iter()
            .flatten();
        let user = users
            .clone()
            .find(|user| user["pid"] == own)
            .with_context(|| format!("we offer memory: {}", seen["ksm"]))?;
        ensure!(
            bytes(user, "/merged")? >= (PAGES * 9 / 10) as u64 * PAGE,
            "{user}"
        );
    }
    drop(offered);
    Ok(Outcome::Passed)
}

/// Pages of the same content, offered to KSM.
struct Offered {
    start: *mut libc::c_void,
    length: usize,
}

impl Offered {
    fn new(pages: usize) -> Result<Self> {
        let length = pages * PAGE as usize;
        // SAFETY: a new private mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        ensure!(
            start != libc::MAP_FAILED,
            "mmap: {}",
            std::io::Error::last_os_error()
        );
        let offered = Self { start, length };
        // SAFETY: the mapping is ours, writable and of this length; KSM keeps its content.
        let result = unsafe {
            std::ptr::write_bytes(start.cast::<u8>(), 0x5a, length);
            libc::madvise(start, length, libc::MADV_MERGEABLE)
        };
        ensure!(result == 0, "madvise: {}", std::io::Error::last_os_error());
        Ok(offered)
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, to which nobody else has a pointer.
        unsafe { libc::munmap(self.start, self.length) };
    }
}

fn tells_whether_reclaim_is_there() -> Result<Outcome> {
    let cgroup = TempCgroup::new("reclaim")?;
    let there = cgroup.has("memory.reclaim");
    let seen = report(&[])?;
    let found = answer(&seen, "reclaim_unavailable")?;
    ensure!(
        found["applies"] == !there,
        "memory.reclaim is there: {there}: {found}"
    );
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    if there {
        ensure!(found["answer"] == "Yes.", "{found}");
    } else {
        let text = found["answer"].as_str().unwrap_or_default();
        ensure!(
            found["reasons"][0]["id"] == "old_kernel"
                && text.contains("5.19")
                && text.contains(release.trim()),
            "{found}"
        );
    }
    // What was tried is true of this kernel: a user without rights may not write there.
    if there {
        let scratch = Scratch::new("reclaim")?;
        let ended = Invocation::new()
            .program(&scratch.program()?)
            .nobody()
            .run(&["diagnose", "--json"])?;
        let seen: Value = serde_json::from_str(&ended.stdout)?;
        let found = answer(&seen, "reclaim_unavailable")?;
        ensure!(found["reasons"][0]["id"] == "no_permission", "{found}");
    }
    Ok(Outcome::Passed)
}

/// 96 MiB of files in tmpfs and 48 MiB that memory.low protects, in a machine of 1 GiB.
fn names_what_keeps_memory() -> Result<Outcome> {
    let causes = |report: &Value| -> Result<Vec<Value>> {
        Ok(answer(report, "ram_not_reducing")?["reasons"]
            .as_array()
            .cloned()
            .unwrap_or_default())
    };
    let find = |causes: &[Value], id: &str| causes.iter().find(|cause| cause["id"] == id).cloned();
    let before = report(&[])?;
    ensure!(find(&causes(&before)?, "protected").is_none(), "{before}");
    let cgroup = TempCgroup::new("protected")?;
    cgroup.write("memory.low", 48 * M)?;
    let mut workload = Workload::start(&cgroup)?;
    workload.step(&format!("touch {}", 64 * M / PAGE))?;
    let mount = Scratch::new("tmpfs")?;
    let _tmpfs = Tmpfs::mount(&mount.join(""))?;
    workload.step(&format!("write {} {}", mount.argument("file")?, 96 * M))?;
    let seen = report(&[])?;
    let causes = causes(&seen)?;
    let protected = find(&causes, "protected").with_context(|| format!("{causes:?}"))?;
    ensure!(
        protected["figures"][0]["bytes"] == 48 * M && protected.to_string().contains(cgroup.path()),
        "{protected}"
    );
    let tmpfs = find(&causes, "tmpfs").with_context(|| format!("{causes:?}"))?;
    ensure!(bytes(&tmpfs, "/figures/0/bytes")? >= 96 * M, "{tmpfs}");
    let path = mount.argument("")?;
    let path = path.trim_end_matches('/');
    let used = seen["tmpfs"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|tmpfs| tmpfs["mount"] == path)
        .and_then(|tmpfs| tmpfs["used"].as_u64())
        .with_context(|| format!("{path}: {}", seen["tmpfs"]))?;
    assert_within("files in the tmpfs", used, 96 * M, 1.0)?;
    Ok(Outcome::Passed)
}

/// A tmpfs as long as this lives.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    fn mount(path: &std::path::Path) -> Result<Self> {
        rustix::mount::mount(
            "tmpfs",
            path,
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            None,
        )
        .context("mount a tmpfs")?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// 4 MiB/s towards 256 MiB: named within half a minute, with its rate and its limit; an idle one beside it is silent.
fn names_a_leak() -> Result<Outcome> {
    let cgroup = TempCgroup::new("leak")?;
    cgroup.write("memory.max", 256 * M)?;
    let idle = TempCgroup::new("idle")?;
    let mut rest = Workload::start(&idle)?;
    rest.step("touch 2000")?;
    let mut workload = Workload::start(&cgroup)?;
    let (one, two) = (cgroup.path().to_owned(), idle.path().to_owned());
    let observer = Observer::start(&[
        "diagnose",
        "--json",
        "--detect-leaks",
        "--for",
        "30s",
        "--cgroup",
        &one,
        "--cgroup",
        &two,
    ])?;
    let begun = std::time::Instant::now();
    let mut grown = 0;
    // The pace is the workload's; the observer's end is what is waited for.
    while begun.elapsed() < Duration::from_secs(33) {
        let due = begun.elapsed().as_millis() as u64 * 4 * M / 1000;
        if grown + M <= due.min(200 * M) {
            workload.step(&format!("touch {}", M / PAGE))?;
            grown += M;
        } else {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let ended = observer.finish(SOON)?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    let seen: Value = serde_json::from_str(&ended.stdout)?;
    let standing = seen["leaks"]["standing"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let found = standing
        .iter()
        .find(|standing| {
            standing["cgroup"]["path"] == one.as_str()
                && standing["verdict"].get("process").is_none()
        })
        .with_context(|| format!("nothing of the leak: {}", seen["leaks"]))?;
    let verdict = &found["verdict"];
    // How sure it has to be by then is held by the tests of verdicts.
    let state = verdict["state"].as_str().unwrap_or_default();
    ensure!(
        ["growing", "suspect", "confirmed"].contains(&state) && verdict["memory"] == "anon",
        "{verdict}"
    );
    let level = bytes(found, "/level_bytes")?;
    ensure!(
        (90 * M..=200 * M).contains(&level),
        "anon + swap at the end: {found}"
    );
    ensure!(
        verdict["limit_cgroup"] == one.as_str() && verdict["limit_bytes"] == 256 * M,
        "{verdict}"
    );
    let rate = verdict["rate_bps"].as_f64().context("no rate")?;
    ensure!((3.0..5.0).contains(&(rate / M as f64)), "{rate}: {verdict}");
    ensure!(
        standing
            .iter()
            .all(|standing| standing["cgroup"]["path"] != two.as_str()),
        "the idle one: {standing:?}"
    );
    Ok(Outcome::Passed)
}
