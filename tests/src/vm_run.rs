//! `run` where there is a memory controller: its limits hold, its pages are merged, nothing stays.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use grey_user::host::{Host, MemInfo};

use crate::harness::{Outcome, Trial, cgroup_root, grey_ebpf, wait_until};
use crate::vm_enforce::cache::Files;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new("vm_run_limits_hold_and_go_with_the_command", limits_hold),
        Trial::new("vm_run_ksm_merges_what_the_command_writes", ksm_merges),
    ]
}

const M: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);

fn run(options: &[&str], words: &[&str]) -> Command {
    let mut command = Command::new(grey_ebpf());
    command.arg("run").args(options).arg("--").args(words);
    command
}

fn cgroup_of(child: &Child) -> Result<PathBuf> {
    let end = format!("grey-run-{}-", child.id());
    let path = wait_until("its cgroup", SOON, || {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", child.id()))?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
        Ok(path.filter(|path| path.contains(&end)).map(str::to_owned))
    })?;
    Ok(cgroup_root()?.join(path))
}

fn limits_hold() -> Result<Outcome> {
    let mut child = run(
        &["--high", "48M", "--max", "25%", "--swap-max", "0"],
        &["cat"],
    )
    .stdin(Stdio::piped())
    .spawn()?;
    let cgroup = cgroup_of(&child)?;
    let number =
        |file: &str| -> Result<u64> { Ok(fs::read_to_string(cgroup.join(file))?.trim().parse()?) };
    let total = MemInfo::read(&Host::live())?.total.context("no MemTotal")?;
    ensure!(number("memory.high")? == 48 * M, "memory.high");
    ensure!(
        number("memory.max")?.abs_diff(total / 4) <= 4096,
        "memory.max {} of {total}",
        number("memory.max")?
    );
    ensure!(number("memory.swap.max")? == 0, "memory.swap.max");
    drop(child.stdin.take());
    ensure!(child.wait()?.success(), "cat failed");
    wait_until("the cgroup's end", SOON, || {
        Ok((!cgroup.exists()).then_some(()))
    })?;

    // Reading twice as much as memory.high allows goes on, meets it, and stays under it.
    let files = Files::new()?;
    let file = files.file("read", 64 * M)?;
    fs::write("/proc/sys/vm/drop_caches", "1")?;
    let before = fs::read_dir(cgroup_root()?)?.count();
    let script = format!(
        "dd if={file} of=/dev/null bs=1M 2>/dev/null; \
         d={}$(sed -n s/^0:://p /proc/self/cgroup); cat $d/memory.current; sed -n 's/^high //p' $d/memory.events",
        cgroup_root()?.display()
    );
    let output = run(&["--high", "32M"], &["sh", "-c", &script]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let figures: Vec<u64> = text.lines().flat_map(str::parse).collect();
    println!("memory.current, and times over memory.high: {figures:?}");
    ensure!(
        matches!(figures[..], [current, over] if (16 * M..=34 * M).contains(&current) && over > 0),
        "{text}"
    );
    wait_until("no cgroup more than before", SOON, || {
        Ok((fs::read_dir(cgroup_root()?)?.count() == before).then_some(()))
    })?;
    Ok(Outcome::Passed)
}

fn ksm_merges() -> Result<Outcome> {
    let knob = |name: &str| format!("/sys/kernel/mm/ksm/{name}");
    let before = [
        ("run", fs::read_to_string(knob("run"))?),
        ("pages_to_scan", fs::read_to_string(knob("pages_to_scan"))?),
        (
            "sleep_millisecs",
            fs::read_to_string(knob("sleep_millisecs"))?,
        ),
    ];
    let outcome = merges();
    for (name, value) in before {
        fs::write(knob(name), value)?;
    }
    outcome
}

fn merges() -> Result<Outcome> {
    let own = std::env::current_exe()?;
    let own = own.to_str().context("a path")?;
    let told = run(&["--ksm"], &["true"]).output()?;
    if !told.status.success() {
        let text = String::from_utf8(told.stderr)?;
        ensure!(
            told.status.code() == Some(3)
                && text.contains("Linux 6.4")
                && text.lines().count() == 1,
            "{}: {text}",
            told.status
        );
        println!("{}", text.trim());
        return Ok(Outcome::Passed);
    }
    for (name, value) in [
        ("run", "1"),
        ("pages_to_scan", "20000"),
        ("sleep_millisecs", "5"),
    ] {
        fs::write(format!("/sys/kernel/mm/ksm/{name}"), value)?;
    }
    let mut with = Toucher::start(run(&["--ksm"], &[own, "workload"]))?;
    let mut without = Toucher::start(run(&[], &[own, "workload"]))?;
    let merged = wait_until("merged pages", SOON, || {
        let now = with.merged()?;
        Ok((now > PAGES * 3 / 4).then_some(now))
    })?;
    let beside = without.merged()?;
    println!("{merged} of {PAGES} pages merged with --ksm, {beside} without");
    ensure!(
        beside == 0,
        "{beside} pages were merged without being asked"
    );
    with.end()?;
    without.end()?;
    Ok(Outcome::Passed)
}

/// Pages that are all alike.
const PAGES: u64 = 4096;

struct Toucher {
    child: Child,
    stdin: ChildStdin,
}

impl Toucher {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        writeln!(stdin, "touch {PAGES}")?;
        Ok(Toucher { child, stdin })
    }

    fn merged(&mut self) -> Result<u64> {
        let path = format!("/proc/{}/ksm_merging_pages", self.child.id());
        Ok(fs::read_to_string(path)?.trim().parse()?)
    }

    fn end(self) -> Result<()> {
        let Toucher { mut child, stdin } = self;
        drop(stdin);
        let status = child.wait()?;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}
