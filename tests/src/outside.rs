//! A guest seen from outside: what its host says it takes, and the disk with files to read that the host attached.

use std::fmt;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Value, json};

use crate::harness::wait_until;
use crate::invocation::Scratch;
use crate::protocol::{RESULTS_ENV, Results};

/// The host measures in milliseconds, but it may be busy.
const ANSWER: Duration = Duration::from_secs(10);
/// The disk's serial number (`xtask/src/vm/files.rs`).
const SERIAL: &str = "grey-files";

/// What the emulator's process takes of the host's memory, bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostMemory {
    /// All of it.
    pub(crate) rss: u64,
    /// Of that, this guest's RAM; the rest is the emulator.
    pub(crate) ram: Option<u64>,
    /// Of the RAM, what the host keeps in huge pages.
    pub(crate) ram_huge: Option<u64>,
}

impl fmt::Display for HostMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rss, ram, ram_huge } = self;
        write!(
            f,
            "process {rss}, guest's RAM {ram:?}, in huge pages {ram_huge:?}"
        )
    }
}

impl HostMemory {
    /// Asks the host on the results port, which answers on the same.
    pub(crate) fn ask() -> Result<Self> {
        let path = std::env::var_os(RESULTS_ENV).context("nobody listens to results")?;
        let mut port = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
            .open(&path)
            .context("open the results port")?;
        Results::from_env().send(&json!({"event": "host_memory"}));
        let end = Instant::now() + ANSWER;
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let left = end.saturating_duration_since(Instant::now());
            ensure!(
                !left.is_zero(),
                "the host does not say what this guest takes"
            );
            let mut fds = [PollFd::new(&port, PollFlags::IN)];
            let wait = Timespec {
                tv_sec: left.as_secs().try_into()?,
                tv_nsec: left.subsec_nanos().into(),
            };
            poll(&mut fds, Some(&wait))?;
            let mut bytes = [0; 256];
            match port.read(&mut bytes) {
                Ok(length) => line.extend_from_slice(&bytes[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("read the host's answer"),
            }
        }
        let answer: Value = serde_json::from_slice(&line).context("the host's answer")?;
        Ok(Self {
            rss: answer["rss"].as_u64().context("no rss")?,
            ram: answer["ram"].as_u64(),
            ram_huge: answer["ram_huge"].as_u64(),
        })
    }
}

/// `host-memory`: for a look by hand from a shell in the guest.
pub(crate) fn main() -> ExitCode {
    match HostMemory::ask() {
        Ok(memory) => {
            println!("{memory}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The files `hot` (100 MB) and `cold` (500 MB), mounted until this goes.
pub(crate) struct Files(Scratch);

impl Files {
    pub(crate) fn mount() -> Result<Self> {
        let disk = wait_until(
            "the disk with files to read",
            Duration::from_secs(5),
            || Ok(disk()),
        )?;
        let files = Self(Scratch::new("read")?);
        let flags = MountFlags::RDONLY | MountFlags::NOATIME;
        mount(&disk, files.0.join(""), "ext4", flags, None)
            .with_context(|| format!("mount {}", disk.display()))?;
        Ok(files)
    }

    pub(crate) fn path(&self, name: &str) -> Result<String> {
        self.0.argument(name)
    }

    /// Bytes that were read from the disk since the boot: sectors of 512 bytes, the third figure of its `stat`.
    pub(crate) fn bytes_read(&self) -> Result<u64> {
        let disk = disk().context("the disk with files is gone")?;
        let name = disk.file_name().context("a disk without a name")?;
        let path = PathBuf::from("/sys/block").join(name).join("stat");
        let stat = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let sectors: u64 = stat
            .split_whitespace()
            .nth(2)
            .context("no sectors")?
            .parse()?;
        Ok(sectors * 512)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = unmount(self.0.join(""), UnmountFlags::DETACH);
    }
}

fn disk() -> Option<PathBuf> {
    let disks = fs::read_dir("/sys/block").ok()?;
    let mut names = disks.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let name = names.find(|name| {
        fs::read_to_string(format!("/sys/block/{name}/serial"))
            .is_ok_and(|serial| serial.trim() == SERIAL)
    })?;
    Some(PathBuf::from("/dev").join(name))
}
