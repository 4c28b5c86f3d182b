//! What native and VM tests of the guard share: a controller of its own over ordinary files, finding a guard's process,
//! reading what is known of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use grey_core::act::{Change, Knob, KnobFile, Value};
use grey_user::act::guard::{Config, Guard};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{grey_ebpf, wait_until};

/// The guard takes it for hung after this long, as without configuration.
pub(crate) const HANG: Duration = Duration::from_millis(1500);
/// What files of ordinary folders hold, as long as each other.
pub(crate) const OLD: &str = "max";
pub(crate) const NEW: &str = "100";

/// `guard-controller DIR FILES`: changes FILES files of a folder under a guard, says `armed PID` of the guard, and
/// beats until the guard is lost or takes over: then it says which and ends with 4.
pub(crate) fn controller(mut args: impl Iterator<Item = String>) -> ExitCode {
    let dir = PathBuf::from(args.next().unwrap_or_default());
    let files = args.next().and_then(|count| count.parse().ok());
    match control(&dir, files.unwrap_or(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::from(4)
        }
    }
}

fn control(dir: &Path, files: u32) -> Result<()> {
    let config = Config {
        journal: &dir.join("journal"),
        hang: HANG,
        lock: None,
    };
    let mut guard = Guard::start_as(&config, &grey_ebpf())?;
    let value = |text| Value::new(text).context("a value");
    for step in 0..files {
        let path = dir.join(step.to_string());
        let change = Change {
            knob: &Knob::cgroup("/none", 1, KnobFile::MemoryHigh),
            old: &value(OLD)?,
            new: &value(NEW)?,
            leaves: None,
        };
        let file = fs::OpenOptions::new().read(true).write(true).open(&path)?;
        guard.arm(1, step, &change, file.into())?;
        fs::write(&path, NEW)?;
    }
    println!("armed {}", guard.pid().context("the guard has no process")?);
    loop {
        guard.beat()?;
        if dir.join("release").exists() {
            guard.release(1, None)?;
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A folder that goes with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(label: &str) -> Result<Folder> {
        let name = format!("grey-guard-{}-{label}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        Ok(Folder(dir))
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A controller over `files` ordinary files, and its guard.
pub(crate) struct Controlled {
    pub(crate) folder: Folder,
    pub(crate) controller: Child,
    pub(crate) guard: u32,
    files: u32,
}

impl Controlled {
    pub(crate) fn start(label: &str, files: u32) -> Result<Controlled> {
        let folder = Folder::new(label)?;
        fs::write(folder.0.join("journal"), "")?;
        for step in 0..files {
            fs::write(folder.0.join(step.to_string()), OLD)?;
        }
        let mut controller = Command::new("/proc/self/exe")
            .args(["guard-controller", folder.path(), &files.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .context("start a controller")?;
        let mut line = String::new();
        let out = controller.stdout.as_mut().context("no stdout")?;
        // One byte at a time: what comes after the line is somebody else's to read.
        while !line.ends_with('\n') {
            let mut byte = [0];
            if std::io::Read::read(out, &mut byte)? == 0 {
                bail!("the controller ended first: {line}");
            }
            line.push(char::from(byte[0]));
        }
        let guard = line
            .trim()
            .strip_prefix("armed ")
            .with_context(|| format!("the controller says {line}"))?
            .parse()?;
        Ok(Controlled {
            folder,
            controller,
            guard,
            files,
        })
    }

    /// Whether all files hold this.
    pub(crate) fn all(&self, value: &str) -> Result<bool> {
        for step in 0..self.files {
            if fs::read_to_string(self.folder.0.join(step.to_string()))? != value {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.controller), signal)?)
    }

    /// The rest of what the controller says, and its exit code.
    pub(crate) fn end(&mut self) -> Result<(String, Option<i32>)> {
        let controller = &mut self.controller;
        let status = wait_until("the controller's end", Duration::from_secs(10), || {
            Ok(controller.try_wait()?)
        })?;
        let mut said = String::new();
        if let Some(out) = controller.stdout.as_mut() {
            std::io::Read::read_to_string(out, &mut said)?;
        }
        Ok((said.trim().to_owned(), status.code()))
    }
}

impl Drop for Controlled {
    fn drop(&mut self) {
        let _ = self.controller.kill();
        let _ = self.controller.wait();
        // Its guard ends by itself; a stopped one would not.
        let _ = send(self.guard, Signal::CONT);
    }
}

/// Sends a signal to a process that this test has started, or to its guard.
pub(crate) fn send(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(pid.context("no pid")?, signal).with_context(|| format!("send {signal:?}"))
}

/// The guard of a controller.
pub(crate) fn guard_of(controller: u32) -> Result<Option<u32>> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.trim() == "grey-ebpf-guard" && status(pid, "PPid") == Some(u64::from(controller)) {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

/// Whether a process runs: a zombie does not.
pub(crate) fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .is_ok_and(|status| !status.contains("State:\tZ") && !status.contains("State:\tX"))
}

/// A figure of `/proc/PID/status`.
pub(crate) fn status(pid: u32, key: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes of memory the process has mapped for data, and the number of its mappings: an allocator that grows changes
/// them.
pub(crate) fn heap(pid: u32) -> Result<(Option<u64>, usize)> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).context("maps of the guard")?;
    Ok((status(pid, "VmData"), maps.lines().count()))
}
