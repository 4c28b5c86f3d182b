//! What memory is taken from: processes that hold some, and files that are read into the page cache.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::cgroup::Cgroup;
use crate::scratch::Scratch;

/// The disk with files to read, by its serial number (xtask/src/vm/files.rs).
const SERIAL: &str = "grey-files";
const LARGE: &str = "cold";
const PATIENCE: Duration = Duration::from_secs(5);

/// A process that holds memory until this goes.
#[derive(Debug)]
pub struct Holder {
    child: Child,
    stdin: Option<ChildStdin>,
    /// It may say more at its end.
    out: BufReader<ChildStdout>,
}

impl Holder {
    /// Anonymous memory.
    ///
    /// # Errors
    /// It does not get it.
    pub fn start(cgroup: &Cgroup, mib: usize) -> Result<Holder> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["load", "hold", &mib.to_string()]);
        Holder::of(cgroup, command)
    }

    /// Page cache of the begin of a file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn reader(cgroup: &Cgroup, file: &Path, mib: usize) -> Result<Holder> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["load", "hold", &mib.to_string()]).arg(file);
        Holder::of(cgroup, command)
    }

    /// A program that says a line when it is ready and goes on until its input ends.
    ///
    /// # Errors
    /// It ends before.
    pub fn of(cgroup: &Cgroup, mut command: Command) -> Result<Holder> {
        cgroup.hold(&mut command)?;
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| program.clone())?;
        let stdin = child.stdin.take();
        let out = child.stdout.take().context("no stdout")?;
        let mut holder = Holder {
            child,
            stdin,
            out: BufReader::new(out),
        };
        let mut line = String::new();
        let read = holder.out.read_line(&mut line)?;
        ensure!(read > 0, "{program} ended before it was ready");
        Ok(holder)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `load hold MIB [FILE]`: holds memory, or page cache of a file, says so, and waits for the end of its input.
///
/// # Errors
/// Arguments, or a file that cannot be read.
pub fn hold(words: &[String]) -> Result<()> {
    let (mib, file) = match words {
        [mib] => (mib, None),
        [mib, file] => (mib, Some(file)),
        _ => bail!("load hold MIB [FILE]"),
    };
    let bytes = mib.parse::<usize>().context("MIB")? << 20;
    let held = match file {
        Some(path) => {
            let file = fs::File::open(path).with_context(|| path.clone())?;
            let read = std::io::copy(&mut file.take(bytes as u64), &mut std::io::sink())?;
            ensure!(read == bytes as u64, "{path} has {read} bytes only");
            Vec::new()
        }
        None => half_random(bytes),
    };
    println!("held");
    std::io::stdout().flush()?;
    let _ = std::io::stdin().read(&mut [0]);
    drop(std::hint::black_box(held));
    Ok(())
}

/// Compresses to about half.
fn half_random(bytes: usize) -> Vec<u8> {
    let mut memory = vec![0; bytes];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for page in memory.chunks_mut(4096) {
        let (half, _) = page.split_at_mut(page.len() / 2);
        for word in half.chunks_exact_mut(8) {
            // xorshift64.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        // A page that was never written would not be there.
        if let Some(last) = page.last_mut() {
            *last = 1;
        }
    }
    memory
}

/// The disk with files to read, mounted until this goes.
#[derive(Debug)]
pub struct Files(Scratch);

impl Files {
    /// Read-only.
    ///
    /// # Errors
    /// There is no such disk.
    pub fn mount() -> Result<Files> {
        let disk = disk().context("no disk with files to read")?;
        let files = Files(Scratch::new("files")?);
        let flags = MountFlags::RDONLY | MountFlags::NOATIME;
        mount(&disk, files.0.path(), "ext4", flags, None)
            .with_context(|| format!("mount {}", disk.display()))?;
        Ok(files)
    }

    /// Half a gigabyte.
    #[must_use]
    pub fn large(&self) -> PathBuf {
        self.0.path().join(LARGE)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What a process that has just ended still holds goes with the process.
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_memory_is_half_random_on_each_page() {
        let memory = half_random(2 * 4096);
        for page in memory.chunks(4096) {
            assert!(page[..2048].iter().filter(|byte| **byte == 0).count() < 64);
            assert!(page[2048..4095].iter().all(|byte| *byte == 0));
            assert_eq!(page[4095], 1);
        }
        assert_ne!(memory[..2048], memory[4096..6144]);
    }
}
