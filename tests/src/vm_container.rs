//! A real OCI container (crun, busybox) is recognised, judged idle, reclaimed, and frozen only where that was confirmed;
//! it goes on when somebody asks it for something.

mod wanted;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::enforcing::Desk;
use crate::harness::{Observer, Outcome, Trial, cgroup_root, run, wait_until};
use crate::vm_enforce::cache::Files;
use wanted::Standby;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_container_is_recognised_judged_idle_reclaimed_frozen_where_confirmed_and_thawed_when_wanted",
            container,
        )
        .with_deadline(Duration::from_secs(120))
        .shown_on(&["6.12"]),
    ]
}

const CRUN: &str = "/debian/usr/bin/crun";
const M: u64 = 1 << 20;
const CACHE: u64 = 100 * M;
const SOON: Duration = Duration::from_secs(30);
/// As Podman names its cgroups.
const ID: &str = "7f3a9c0e1b7d8a6f5e3c2b1a09f8e7d6c5b4a3928171605f4e3d2c1b0a998877";
const NAME: &str = "7f3a9c0e1b7d";

/// Of the web server in the container.
const PORT: u16 = 8080;

/// A container that has read a file and then serves another to whoever asks. It goes with this.
struct Container {
    files: Files,
    state: PathBuf,
    path: String,
}

impl Container {
    fn start() -> Result<Container> {
        let files = Files::new()?;
        let bundle = PathBuf::from(files.file("marker", 0)?)
            .parent()
            .context("no folder")?
            .join("bundle");
        let rootfs = bundle.join("rootfs");
        for folder in ["bin", "proc", "dev", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(folder))?;
        }
        fs::copy("/bin/busybox", rootfs.join("bin/busybox"))?;
        for applet in ["sh", "cat", "httpd"] {
            symlink("busybox", rootfs.join("bin").join(applet))?;
        }
        fs::File::create(rootfs.join("data"))?.set_len(CACHE)?;
        fs::write(rootfs.join("tmp/answer"), "awake")?;
        let path = format!("/machine.slice/libpod-{ID}.scope");
        fs::write(bundle.join("config.json"), spec(&path).to_string())?;
        let container = Container {
            files,
            state: bundle.join("state"),
            path,
        };
        container.crun(&[
            "run",
            "--no-pivot",
            "--detach",
            "--bundle",
            text(&bundle)?,
            ID,
        ])?;
        Ok(container)
    }

    fn crun(&self, args: &[&str]) -> Result<()> {
        // Its output would be held open by the container.
        let log = self.state.with_extension("log");
        let status = Command::new(CRUN)
            .args(["--cgroup-manager=cgroupfs", "--root", text(&self.state)?])
            .args(args)
            .stdin(std::process::Stdio::null())
            .stdout(fs::File::create(&log)?)
            .stderr(fs::File::options().append(true).open(&log)?)
            .status()?;
        let said = fs::read_to_string(&log).unwrap_or_default();
        ensure!(status.success(), "crun {args:?}: {status}: {said}");
        Ok(())
    }

    fn file(&self, name: &str) -> Result<PathBuf> {
        Ok(cgroup_root()?
            .join(self.path.trim_start_matches('/'))
            .join(name))
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.file(name)?;
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.trim_end().to_owned())
    }

    fn current(&self) -> Result<u64> {
        Ok(self.read("memory.current")?.parse()?)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Ok(freeze) = self.file("cgroup.freeze") {
            let _ = fs::write(freeze, "0");
        }
        let _ = self.crun(&["delete", "--force", ID]);
        let _ = &self.files;
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path of other bytes")
}

/// The least that an OCI runtime wants to know.
fn spec(cgroup: &str) -> Value {
    let namespaces = ["pid", "mount", "uts", "ipc", "network"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": { "uid": 0, "gid": 0 }, "cwd": "/",
            "args": ["/bin/sh", "-c", format!(
                "cat /data > /dev/null; exec httpd -f -p 127.0.0.1:{PORT} -h /tmp"
            )],
            "env": ["PATH=/bin"],
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "idle",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "resources": { "memory": { "limit": 512 * M } },
            "namespaces": namespaces,
        },
    })
}

fn config(freeze: bool) -> String {
    format!(
        // Emulation makes watching some twenty times as dear as it is.
        "[budget]\ncpu_pct = 0\n\n[govern]\npolicy = \"observe\"\nobserve = \"1s\"\n\
         [govern.idle]\nafter = \"2s\"\n[govern.emergency]\nenabled = false\n\
         [govern.dynamic]\navailable_pct = 100\ninterval = \"1s\"\n\
         [[govern.override]]\nmatch = \"{NAME}\"\npolicy = \"dynamic\"\nfloor = \"32M\"\nfreeze = {freeze}\n\
         [[govern.override]]\nmatch = \"/grey-test-*-standby\"\npolicy = \"dynamic\"\nfreeze = {freeze}\n"
    )
}

/// Waits for the event that says why this cgroup goes on.
fn thawed(daemon: &mut Observer, path: &str, why: &str) -> Result<()> {
    let rollback = daemon.wait_event("a rollback for demand", SOON, |event| {
        let cause = event["rollback"]["cause"].as_str().unwrap_or_default();
        event["cgroup"]["path"] == path && cause.starts_with("demand: ")
    })?;
    let cause = rollback["rollback"]["cause"].as_str().unwrap_or_default();
    ensure!(cause.contains(why), "{rollback}");
    println!("{path}: {cause}");
    let outcome = daemon.wait_event("its outcome", SOON, |event| {
        event["type"] == "outcome" && event["cgroup"]["path"] == path
    })?;
    ensure!(
        outcome["outcome"]["notes"].to_string().contains(cause),
        "{outcome}"
    );
    Ok(())
}

fn container() -> Result<Outcome> {
    if !Path::new(CRUN).exists() {
        return Outcome::skipped("the guest's disk has no crun");
    }
    let container = Container::start()?;
    wait_until("what it reads", SOON, || {
        Ok((container.current()? >= CACHE).then_some(()))
    })?;
    let signalled = Standby::start("a-standby")?;
    let mut joined = Standby::start("b-standby")?;
    let control = Standby::start("c-standby")?;
    let desk = Desk::new("container", &config(false))?;
    let state = desk.scratch.argument("state")?;
    let file = desk.scratch.argument("config.toml")?;
    let mut daemon = Observer::start(&["daemon", "--state-dir", &state, "--config", &file])?;
    let action = daemon.wait_event("an action", SOON, |event| event["type"] == "action")?;
    ensure!(
        action["cgroup"]["kind"] == "container"
            && action["cgroup"]["name"] == NAME
            && action["cgroup"]["path"] == container.path.as_str()
            && action["action"]["kind"] == "reclaim",
        "{action}"
    );
    wait_until("what was read to go", SOON, || {
        Ok((container.current()? <= 48 * M).then_some(()))
    })?;
    let status = || -> Result<Value> {
        let done = run(&["status", "--json", "--state-dir", &state], SOON)?;
        Ok(serde_json::from_str(&done.stdout)?)
    };
    wait_until("a candidate", SOON, || {
        let status = status()?;
        let mut idle = status["idle_containers"].as_array().into_iter().flatten();
        Ok(idle
            .any(|path| *path == container.path.as_str())
            .then_some(()))
    })?;
    // Nobody has confirmed it: for more than a turn of that kind it goes on.
    let idle = Instant::now();
    while idle.elapsed() < Duration::from_secs(12) {
        ensure!(
            container.read("cgroup.freeze")? == "0",
            "frozen without a word"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    desk.write_config(&config(true), 0o644)?;
    daemon.signal(Signal::HUP)?;
    let frozen = |value: &str| {
        wait_until("cgroup.freeze", SOON, || {
            Ok((container.read("cgroup.freeze")? == value).then_some(()))
        })
    };
    frozen("1")?;
    for standby in [&signalled, &joined, &control] {
        standby.await_frozen(true)?;
    }
    signalled.signal()?;
    thawed(&mut daemon, signalled.path(), "SIGUSR1 waits for")?;
    signalled.await_frozen(false)?;
    joined.join()?;
    thawed(&mut daemon, joined.path(), "was put into it")?;
    joined.await_frozen(false)?;
    let said = run(
        &[
            "feedback",
            "release",
            &container.path,
            "--state-dir",
            &state,
        ],
        SOON,
    )?;
    ensure!(said.code() == Some(0), "{said:?}");
    frozen("0")?;
    // At the turn at which this one is, those that were wanted are not, and the one that nobody wants still is.
    frozen("1")?;
    ensure!(
        !signalled.is_frozen()? && !joined.is_frozen()? && control.is_frozen()?,
        "frozen: {}, {}, {}",
        signalled.is_frozen()?,
        joined.is_frozen()?,
        control.is_frozen()?
    );
    let init = container.read("cgroup.procs")?.parse()?;
    let asked = Instant::now();
    let answer = wanted::ask(init, PORT, "/answer")?;
    frozen("0")?;
    println!("thawed after {:?}", asked.elapsed());
    let answer = answer.join().ok().context("the client panicked")??;
    println!("answered after {:?}", asked.elapsed());
    ensure!(
        answer.contains("200 OK") && answer.ends_with("awake"),
        "{answer}"
    );
    let why = format!("a connection waits at TCP port {PORT}");
    thawed(&mut daemon, &container.path, &why)?;
    let status = status()?;
    let cooling = status["cooling_down"].to_string();
    for path in [signalled.path(), joined.path(), &container.path] {
        ensure!(cooling.contains(path), "{path}: {cooling}");
        let mut history = status["history"].as_array().into_iter().flatten();
        ensure!(
            history.any(|it| it["path"] == path && it["outcome"]["wanted"] == true),
            "{path}: {}",
            status["history"]
        );
    }
    ensure!(status["notes"].to_string().contains(&why), "{status}");
    ensure!(control.is_frozen()?, "thawed though nobody wants it");
    daemon.signal(Signal::TERM)?;
    let finished = daemon.finish(SOON)?;
    ensure!(finished.code() == Some(0), "{finished:?}");
    frozen("0")?;
    ensure!(!control.is_frozen()?, "frozen for ever");
    Ok(Outcome::Passed)
}
