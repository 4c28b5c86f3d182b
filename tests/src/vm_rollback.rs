//! `rollback` over real limits: power loss, other writers, other boots, a disk that takes nothing, a controller that is
//! acting.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use grey_core::act::{Close, Record, decode_all, encode};
use grey_user::cli::Exit;
use grey_user::rollback::{self, RollbackArgs};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use serde_json::Value;

use crate::guard::{guard_of, runs, send};
use crate::harness::{Observer, Outcome, TempCgroup, Trial, grey_ebpf, wait_until};
use crate::invocation::{Ended, Invocation};
use crate::journal::Shelf;

mod power;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = power::trials();
    trials.extend([
        Trial::new(
            "vm_rollback_somebody_elses_later_write_stays_until_it_is_forced",
            foreign_write,
        ),
        Trial::new("vm_rollback_leaves_a_cgroup_made_again_alone", made_again),
        Trial::new(
            "vm_rollback_closes_what_is_from_another_boot_and_replays_nothing",
            other_boot,
        ),
        Trial::new("vm_rollback_on_a_full_disk_nothing_is_done", full_disk)
            .with_deadline(Duration::from_secs(120)),
        Trial::new(
            "vm_rollback_with_a_read_only_journal_puts_back_and_says_so",
            read_only,
        ),
        Trial::new(
            "vm_rollback_beside_a_controller_takes_back_only_what_it_is_asked_for",
            beside_a_controller,
        ),
    ]);
    trials
}

const SOON: Duration = Duration::from_secs(20);
/// What the limits were, unlike what the kernel makes them.
const PRIOR: [(&str, &str); 2] = [("memory.high", "1073741824"), ("memory.max", "2147483648")];
/// What is set.
const NEW: [&str; 2] = ["134217728", "268435456"];

/// A cgroup with limits, and a journal.
struct Bench {
    cgroup: TempCgroup,
    shelf: Shelf,
}

impl Bench {
    fn new(label: &str) -> Result<Bench> {
        let cgroup = TempCgroup::new(label)?;
        for (file, value) in PRIOR {
            cgroup.write(file, value)?;
        }
        Ok(Bench {
            cgroup,
            shelf: Shelf::empty(label)?,
        })
    }

    /// `enforce limit` of both, and what comes behind it.
    fn limit<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec!["enforce", "limit", self.cgroup.path()];
        args.extend(["--high", "128M", "--max", "256M"]);
        args.extend(["--state-dir", self.shelf.state()]);
        args.extend(more);
        args
    }

    fn keep(&self) -> Result<()> {
        let ended = Invocation::new().run(&self.limit(&[]))?;
        ensure!(ended.code == Some(0), "{ended:?}");
        self.holds(NEW)
    }

    /// Starts it under a lease, and waits until it is in force.
    fn hold(&self) -> Result<Observer> {
        let observer = Observer::start(&self.limit(&["--lease", "60s", "--json"]))?;
        wait_until("the limits", SOON, || {
            Ok(self.holds(NEW).is_ok().then_some(()))
        })?;
        Ok(observer)
    }

    fn set(&self, values: [&str; 2]) -> Result<()> {
        for ((file, _), value) in PRIOR.iter().zip(values) {
            self.cgroup.write(file, value)?;
        }
        Ok(())
    }

    fn holds(&self, values: [&str; 2]) -> Result<()> {
        for ((file, _), value) in PRIOR.iter().zip(values) {
            let now = self.cgroup.read(file)?;
            ensure!(now == value, "{file} holds {now}, not {value}");
        }
        Ok(())
    }

    fn as_before(&self) -> Result<()> {
        self.holds(PRIOR.map(|(_, value)| value))
    }

    fn rollback(&self, more: &[&str]) -> Result<Ended> {
        let mut args = vec!["rollback", "--state-dir", self.shelf.state()];
        args.extend(more);
        Invocation::new().run(&args)
    }

    fn state_of(&self, id: u64) -> Result<String> {
        let rows = self.shelf.list()?;
        let row = rows.iter().find(|row| row["id"] == id);
        let row = row.with_context(|| format!("no action {id} in {rows:?}"))?;
        Ok(row["state"].as_str().unwrap_or_default().to_owned())
    }
}

fn done(ended: &Ended, says: &[&str]) -> Result<()> {
    ensure!(
        ended.code == Some(0) && ended.stderr.is_empty(),
        "{ended:?}"
    );
    for word in says {
        ensure!(ended.stdout.contains(word), "no {word:?}: {ended:?}");
    }
    Ok(())
}

fn foreign_write() -> Result<Outcome> {
    let bench = Bench::new("foreign")?;
    bench.keep()?;
    let listed = bench.rollback(&["--list"])?;
    println!("{}", listed.stdout);
    done(
        &listed,
        &[
            "kept",
            "1073741824 -> 134217728: in force",
            "-> 268435456: in force",
        ],
    )?;
    bench.cgroup.write("memory.high", "268435456")?;
    let listed = bench.rollback(&["--list"])?;
    done(&listed, &["holds 268435456, which somebody else wrote"])?;
    let ended = bench.rollback(&[])?;
    println!("{}", ended.stdout);
    done(
        &ended,
        &[
            "memory.high  left alone: was written by somebody else since (holds 268435456)",
            "--id 1 --force",
            "memory.max  268435456 -> 2147483648",
        ],
    )?;
    bench.holds(["268435456", PRIOR[1].1])?;
    // Neither once more nor with force does anything come over it unasked.
    for more in [&[][..], &["--force"], &["--id", "1"]] {
        done(&bench.rollback(more)?, &["nothing to undo"])?;
        bench.holds(["268435456", PRIOR[1].1])?;
    }
    let forced = bench.rollback(&["--id", "1", "--force", "--json"])?;
    let event: Value = serde_json::from_str(&forced.stdout)?;
    ensure!(
        forced.code == Some(0)
            && event["rollback"]["id"] == 1
            && event["rollback"]["restored"][0]["from"] == "268435456"
            && event["rollback"]["restored"][0]["to"] == PRIOR[0].1
            && event["cgroup"]["path"] == bench.cgroup.path(),
        "{forced:?}"
    );
    bench.as_before()?;
    ensure!(bench.state_of(1)? == "undone");
    Ok(Outcome::Passed)
}

fn made_again() -> Result<Outcome> {
    let bench = Bench::new("again")?;
    bench.keep()?;
    let first = bench.cgroup.id()?;
    fs::remove_dir(bench.cgroup.directory())?;
    fs::create_dir(bench.cgroup.directory())?;
    ensure!(
        bench.cgroup.id()? != first,
        "the id of a removed cgroup came again"
    );
    // Even where it holds just what was written to the one before.
    bench.set(NEW)?;
    for more in [&[][..], &["--id", "1", "--force"]] {
        let ended = bench.rollback(more)?;
        let says = if more.is_empty() {
            "left alone: is gone with its cgroup"
        } else {
            "nothing to undo"
        };
        done(&ended, &[says])?;
        bench.holds(NEW)?;
    }
    Ok(Outcome::Passed)
}

fn other_boot() -> Result<Outcome> {
    let bench = Bench::new("boot")?;
    bench.keep()?;
    let records: Vec<u8> = bench
        .shelf
        .records()?
        .into_iter()
        .map(|record| match record {
            Record::Begin {
                id,
                at,
                pid,
                kind,
                target,
                reason,
                ..
            } => Record::Begin {
                id,
                at,
                boot: "8d2e4f40-9d4b-4bb1-a2a7-1e5b2f0c3c11".to_owned(),
                pid,
                kind,
                target,
                reason,
            },
            other => other,
        })
        .flat_map(|record| encode(&record))
        .collect();
    bench.shelf.write(&records)?;
    done(&bench.rollback(&[])?, &["is from before the last boot"])?;
    bench.holds(NEW)?;
    let closed = |step| Record::Closed {
        id: 1,
        step,
        how: Close::OtherBoot,
    };
    let records = bench.shelf.records()?;
    ensure!(
        records.contains(&closed(0)) && records.contains(&closed(1)),
        "{records:?}"
    );
    // The next controller does not replay it either, and its ids go on.
    let ended = Invocation::new().run(&bench.limit(&["--lease", "100ms"]))?;
    ensure!(ended.code == Some(0), "{ended:?}");
    bench.holds(NEW)?;
    ensure!(bench.state_of(2).is_ok());
    Ok(Outcome::Passed)
}

/// A file system in memory at the journal's folder.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(path: &'a Path) -> Result<Small<'a>> {
        fs::create_dir_all(path)?;
        let options = c"size=64k,mode=0700";
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), options)?;
        Ok(Small(path))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.0, UnmountFlags::DETACH);
    }
}

/// Fills what is left of the file system.
fn fill(path: &Path) -> Result<()> {
    use std::io::Write as _;
    let mut file = fs::File::create(path.join("filler"))?;
    while file.write(&[b'x'; 4096]).is_ok_and(|written| written > 0) {}
    Ok(())
}

fn full_disk() -> Result<Outcome> {
    let bench = Bench::new("full")?;
    let state = bench.shelf.scratch.join("state");
    let nothing_done = |what: &str, ended: &Ended| -> Result<()> {
        ensure!(ended.code == Some(4), "{what}: {ended:?}");
        ensure!(
            ended
                .stderr
                .contains("journal: no space left on the device; "),
            "{what}: {ended:?}"
        );
        bench.as_before().with_context(|| what.to_owned())
    };

    // How long a whole journal is.
    bench.keep()?;
    let whole = bench.shelf.bytes()?;
    done(&bench.rollback(&[])?, &["-> 1073741824"])?;
    fs::remove_dir_all(&state)?;
    let begun = whole.iter().position(|byte| *byte == b'\n').unwrap_or(0);

    let small = Small::mount(&state)?;
    fill(&state)?;
    let ended = Invocation::new().run(&bench.limit(&[]))?;
    nothing_done("from the first byte", &ended)?;
    ensure!(ended.stderr.lines().count() == 1, "{ended:?}");
    // Room for a part of the first, of the second and of the last record, to the end of a page.
    for room in [begun / 2, begun + 20, whole.len() - 10] {
        fs::remove_file(state.join("filler"))?;
        // Empty lines say nothing.
        bench.shelf.write(&vec![b'\n'; 4096 - room])?;
        fill(&state)?;
        let ended = Invocation::new().run(&bench.limit(&[]))?;
        nothing_done(&format!("with room for {room} bytes"), &ended)?;
        ensure!(
            bench.shelf.bytes()?.len() >= 4096,
            "the page was not filled"
        );
        // Undoing needs no room, and finds nothing in force.
        let ended = bench.rollback(&[])?;
        ensure!(ended.code == Some(0), "{ended:?}");
        bench.as_before()?;
    }
    drop(small);

    // A limit on file sizes cuts to the byte.
    fs::remove_dir_all(&state)?;
    let mut refused = 0;
    for room in (0..whole.len() as u64).step_by(61) {
        let _ = fs::remove_dir_all(&state);
        let ended = limited(&bench.limit(&[]), room)?;
        ensure!(
            ended.code == Some(4),
            "with room for {room} bytes: {ended:?}"
        );
        bench
            .as_before()
            .with_context(|| format!("with room for {room} bytes"))?;
        refused += 1;
        let ended = bench.rollback(&[])?;
        ensure!(ended.code == Some(0), "{ended:?}");
        bench.as_before()?;
    }
    println!("{refused} times no room for all of {} bytes", whole.len());
    let _ = fs::remove_dir_all(&state);
    // Its pid may have a digit more than that of the first.
    let ended = limited(&bench.limit(&[]), whole.len() as u64 + 8)?;
    ensure!(ended.code == Some(0), "with room for all: {ended:?}");
    bench.holds(NEW)?;
    Ok(Outcome::Passed)
}

/// Runs it where no file can be longer than this.
fn limited(args: &[&str], bytes: u64) -> Result<Ended> {
    let mut command = Command::new(grey_ebpf());
    command.args(args).stdin(Stdio::null());
    let limit = move || {
        let limit = Rlimit {
            current: Some(bytes),
            maximum: Some(bytes),
        };
        Ok(setrlimit(Resource::Fsize, limit)?)
    };
    // SAFETY: between fork and exec the closure makes one system call and does not allocate.
    unsafe { command.pre_exec(limit) };
    let output = command.output().context("run grey-ebpf")?;
    Ok(Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn read_only() -> Result<Outcome> {
    let bench = Bench::new("readonly")?;
    let state = bench.shelf.scratch.join("state");
    let _small = Small::mount(&state)?;
    bench.keep()?;
    mount_remount(&state, MountFlags::RDONLY, c"size=64k")?;
    let listed = bench.rollback(&["--list"])?;
    done(&listed, &["kept", "in force"])?;
    Invocation::new()
        .run(&bench.limit(&["--lease", "1s"]))?
        .is_one_line(4, &["journal", "read-only", "--state-dir"])?;
    bench.holds(NEW)?;
    let ended = bench.rollback(&[])?;
    ensure!(
        ended.code == Some(0)
            && ended.stdout.contains("134217728 -> 1073741824")
            && ended.stderr.lines().count() == 1
            && ended
                .stderr
                .contains("journal: the file system is read-only"),
        "{ended:?}"
    );
    bench.as_before()?;
    // It can only look again, and finds it done.
    let again = bench.rollback(&[])?;
    ensure!(again.code == Some(0), "{again:?}");
    bench.as_before()?;
    mount_remount(&state, MountFlags::empty(), c"size=64k")?;
    ensure!(bench.state_of(1)? == "kept");
    done(&bench.rollback(&[])?, &["nothing to undo"])?;
    ensure!(bench.state_of(1)? == "undone");
    Ok(Outcome::Passed)
}

fn beside_a_controller() -> Result<Outcome> {
    let bench = Bench::new("beside")?;
    // Kept: memory.low of the same cgroup.
    let kept = Invocation::new().run(&[
        "enforce",
        "limit",
        bench.cgroup.path(),
        "--low",
        "64M",
        "--state-dir",
        bench.shelf.state(),
    ])?;
    ensure!(kept.code == Some(0), "{kept:?}");
    let held = bench.hold()?;
    let pid = format!("(pid {})", held.pid());

    let second = Invocation::new().run(&bench.limit(&[]))?;
    second.is_one_line(4, &["another grey-ebpf", &pid])?;
    ensure!(bench.state_of(2)? == "under_way" && bench.state_of(1)? == "kept");

    // What was kept is taken back; what the other one is in the middle of stays.
    let ended = bench.rollback(&[])?;
    ensure!(
        ended.code == Some(4)
            && ended.stdout.contains("memory.low  67108864 -> 0")
            && ended.stderr.lines().count() == 1
            && ended.stderr.contains("action 2")
            && ended.stderr.contains(&pid)
            && ended.stderr.contains("--id 2"),
        "{ended:?}"
    );
    ensure!(bench.cgroup.read("memory.low")? == "0");
    bench.holds(NEW)?;
    for more in [&["--unfinished"][..], &[]] {
        let ended = bench.rollback(more)?;
        ensure!(
            ended.code == Some(4) && ended.stdout.is_empty(),
            "{ended:?}"
        );
        bench.holds(NEW)?;
    }
    // By its id it is taken back, and the other one goes on with nothing and ends.
    done(
        &bench.rollback(&["--id", "2"])?,
        &["134217728 -> 1073741824"],
    )?;
    bench.as_before()?;
    let finished = held.finish(SOON)?;
    ensure!(
        finished.code() == Some(0) && finished.stderr.is_empty(),
        "{finished:?}"
    );
    bench.as_before()?;

    // A kept change under one that is under way stays until that one is over.
    bench.keep()?;
    let over = Observer::start(&[
        "enforce",
        "limit",
        bench.cgroup.path(),
        "--high",
        "192M",
        "--lease",
        "60s",
        "--json",
        "--state-dir",
        bench.shelf.state(),
    ])?;
    let above = "201326592";
    wait_until("the limit above", SOON, || {
        Ok(bench.holds([above, NEW[1]]).is_ok().then_some(()))
    })?;
    let ended = bench.rollback(&["--id", "3"])?;
    ensure!(
        ended.code == Some(1) && ended.stderr.contains("by action 4"),
        "{ended:?}"
    );
    bench.holds([above, PRIOR[1].1])?;
    ensure!(bench.state_of(3)? == "kept");
    let finished = over.stop(Signal::INT, SOON)?;
    ensure!(finished.code() == Some(0), "{finished:?}");
    bench.holds([NEW[0], PRIOR[1].1])?;
    done(&bench.rollback(&[])?, &["134217728 -> 1073741824"])?;
    bench.as_before()?;
    Ok(Outcome::Passed)
}
