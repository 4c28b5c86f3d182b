//! A real OCI container (crun, busybox) is recognised, judged idle, reclaimed, and frozen only where that was confirmed.

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

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_container_is_recognised_judged_idle_reclaimed_and_frozen_only_where_confirmed",
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

/// A container that has read a file and then sleeps. It goes with this.
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
        for applet in ["sh", "cat", "sleep"] {
            symlink("busybox", rootfs.join("bin").join(applet))?;
        }
        fs::File::create(rootfs.join("data"))?.set_len(CACHE)?;
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
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": { "uid": 0, "gid": 0 }, "cwd": "/",
            "args": ["/bin/sh", "-c", "cat /data > /dev/null; exec sleep 100000"],
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
            "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "uts" }, { "type": "ipc" }],
        },
    })
}

fn config(freeze: bool) -> String {
    format!(
        "[govern]\npolicy = \"observe\"\nobserve = \"1s\"\n\
         [govern.idle]\nafter = \"2s\"\n[govern.emergency]\nenabled = false\n\
         [govern.dynamic]\navailable_pct = 100\ninterval = \"1s\"\n\
         [[govern.override]]\nmatch = \"{NAME}\"\npolicy = \"dynamic\"\nfloor = \"32M\"\nfreeze = {freeze}\n"
    )
}

fn container() -> Result<Outcome> {
    if !Path::new(CRUN).exists() {
        return Outcome::skipped("the guest's disk has no crun");
    }
    let container = Container::start()?;
    wait_until("what it reads", SOON, || {
        Ok((container.current()? >= CACHE).then_some(()))
    })?;
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
    frozen("1")?;
    daemon.signal(Signal::TERM)?;
    let finished = daemon.finish(SOON)?;
    ensure!(finished.code() == Some(0), "{finished:?}");
    frozen("0")?;
    Ok(Outcome::Passed)
}
