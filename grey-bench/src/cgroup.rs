//! A cgroup of ours to put a load into, and what is in it has taken.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// Removed with its children at the end.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

/// Where the v2 tree is.
///
/// # Errors
/// There is none.
pub fn mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    mount_in(&mounts)
        .map(PathBuf::from)
        .context("no cgroup v2 tree is mounted")
}

fn mount_in(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let point = words.next()?;
        (words.next()? == "cgroup2").then_some(point)
    })
}

impl Cgroup {
    /// Makes one at the top of the v2 tree.
    ///
    /// # Errors
    /// No v2 tree, or none in which we may make cgroups.
    pub fn new(label: &str) -> Result<Cgroup> {
        let name = format!("grey-bench-{}-{label}", std::process::id());
        Cgroup::at(mount()?.join(name))
    }

    fn at(path: PathBuf) -> Result<Cgroup> {
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Cgroup { path })
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As the program under test names it: below the mount.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        format!("/{}", name.to_string_lossy())
    }

    /// Whether memory is accounted in it.
    #[must_use]
    pub fn has_memory(&self) -> bool {
        self.path.join("memory.stat").exists()
    }

    /// Text of one of its files.
    ///
    /// # Errors
    /// It is not there.
    pub fn read(&self, file: &str) -> Result<String> {
        let path = self.path.join(file);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// Writes one of its files.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.path.join(file);
        fs::write(&path, text).with_context(|| format!("write {text} to {}", path.display()))
    }

    /// The command, and all it starts, will run in here.
    ///
    /// # Errors
    /// cgroup.procs cannot be opened.
    pub fn hold(&self, command: &mut Command) -> Result<()> {
        let path = self.path.join("cgroup.procs");
        let procs = File::options()
            .write(true)
            .open(&path)
            .with_context(|| path.display().to_string())?;
        let enter = move || (&procs).write_all(b"0");
        // SAFETY: between fork and exec the closure makes one system call and does not allocate.
        unsafe { command.pre_exec(enter) };
        Ok(())
    }

    /// User and system time of all that ever ran in it.
    ///
    /// # Errors
    /// No cpu.stat.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let us = key_of(&self.read("cpu.stat")?, "usage_usec").context("no usage_usec")?;
        Ok(us as f64 / 1e6)
    }
}

/// The number behind a key at the begin of a line.
#[must_use]
pub fn key_of(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                let _ = fs::remove_dir(entry.path());
            }
        }
        // Who was in it may take a moment to be gone.
        for _ in 0..100 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        eprintln!("bench: {} is still in use", self.path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2_tree_is_found_beside_those_of_v1() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_in(hybrid), Some("/sys/fs/cgroup/unified"));
        assert_eq!(mount_in("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn a_key_is_a_whole_word() {
        let text = "usage_usec 1250\nuser_usec 1000\nuser_usec_more 7\n";
        assert_eq!(key_of(text, "user_usec"), Some(1000));
        assert_eq!(key_of(text, "user"), None);
    }
}
