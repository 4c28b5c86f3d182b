//! A cgroup that exists as long as the test: made below the v2 mount, emptied and removed on drop.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::wait_until;

/// The mount point of the v2 hierarchy, which is `/sys/fs/cgroup/unified` on a hybrid machine.
pub(crate) fn cgroup_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let target = words.next()?;
            (words.next()? == "cgroup2").then(|| PathBuf::from(target))
        })
        .next()
        .context("no cgroup v2 hierarchy is mounted")
}

/// A cgroup of this test. Dropping it kills what still runs inside and removes it with all below it.
pub(crate) struct TempCgroup {
    directory: PathBuf,
    path: String,
}

impl TempCgroup {
    /// `label` tells the cgroups of one test apart; the name is made unique.
    pub(crate) fn new(label: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("grey-test-{}-{serial}-{label}", std::process::id());
        Self::create(cgroup_root()?.join(&name), format!("/{name}"))
    }

    /// A cgroup below this one. Keep the parent alive longer than the child.
    pub(crate) fn child(&self, label: &str) -> Result<Self> {
        Self::create(self.directory.join(label), format!("{}/{label}", self.path))
    }

    fn create(directory: PathBuf, path: String) -> Result<Self> {
        fs::create_dir(&directory)
            .with_context(|| format!("create the cgroup {}", directory.display()))?;
        Ok(Self { directory, path })
    }

    /// Where it is in the file system.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its path below the v2 mount, as events carry it.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The kernel's id of it: the inode number of its directory.
    pub(crate) fn id(&self) -> Result<u64> {
        Ok(fs::metadata(&self.directory)
            .context("stat the cgroup")?
            .ino())
    }

    /// Enables controllers for the children, as in `"+memory"`.
    pub(crate) fn delegate(&self, controllers: &str) -> Result<()> {
        self.write("cgroup.subtree_control", controllers)
    }

    pub(crate) fn has(&self, file: &str) -> bool {
        self.directory.join(file).exists()
    }

    pub(crate) fn write(&self, file: &str, value: impl ToString) -> Result<()> {
        let path = self.directory.join(file);
        let value = value.to_string();
        fs::write(&path, &value).with_context(|| format!("write {value} to {}", path.display()))
    }

    pub(crate) fn read(&self, file: &str) -> Result<String> {
        let path = self.directory.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(text.trim_end().to_owned())
    }

    /// A file of one number, such as `memory.current`.
    pub(crate) fn number(&self, file: &str) -> Result<u64> {
        self.read(file)?
            .parse()
            .with_context(|| format!("the number in {file} of {}", self.path))
    }

    /// One key of a flat keyed file, as in `stat("memory.stat", "anon")`.
    pub(crate) fn stat(&self, file: &str, key: &str) -> Result<u64> {
        self.read(file)?
            .lines()
            .find_map(|line| {
                line.split_once(' ')
                    .filter(|(name, _)| *name == key)
                    .map(|(_, value)| value.to_owned())
            })
            .with_context(|| format!("no key {key} in {file} of {}", self.path))?
            .parse()
            .with_context(|| format!("the number at {key} in {file} of {}", self.path))
    }

    /// Moves a process into it.
    pub(crate) fn adopt(&self, pid: u32) -> Result<()> {
        self.write("cgroup.procs", pid)
    }

    pub(crate) fn processes(&self) -> Result<Vec<u32>> {
        Ok(self
            .read("cgroup.procs")?
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect())
    }
}

impl Drop for TempCgroup {
    fn drop(&mut self) {
        let directory = &self.directory;
        let removed = wait_until("remove the cgroup", Duration::from_secs(10), || {
            Ok(empty_and_remove(directory).then_some(()))
        });
        if let Err(error) = removed {
            eprintln!("{error:#}: {}", directory.display());
        }
    }
}

/// One attempt; a killed process holds its cgroup until it has been torn down.
fn empty_and_remove(directory: &Path) -> bool {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            empty_and_remove(&entry.path());
        }
    }
    let _ = fs::write(directory.join("cgroup.freeze"), "0");
    let processes = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    for pid in processes.lines().filter_map(|line| line.parse().ok()) {
        // 0 stands for a process of another pid namespace: not ours.
        if let Some(pid) = Pid::from_raw(pid).filter(|pid| *pid != rustix::process::getpid()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    fs::remove_dir(directory).is_ok() || !directory.exists()
}
