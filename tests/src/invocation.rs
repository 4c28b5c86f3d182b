//! `grey-ebpf` started in unusual ways: as another user, without a cgroup tree, with a stdout or stderr that takes
//! nothing. What it said on both and how it ended is kept apart.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount_change, mount_remount, unmount,
};
use rustix::process::{Gid, Signal, Uid};
use rustix::thread::{UnshareFlags, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::harness::{grey_ebpf, wait_until};

/// Somebody without any privilege, as nearly every system has it.
const NOBODY: u32 = 65_534;

/// How to start it. The default is plainly: as we are, both outputs kept.
#[derive(Default)]
pub(crate) struct Invocation {
    program: Option<PathBuf>,
    environment: Vec<(&'static str, String)>,
    nobody: bool,
    /// A mount to take away, in a mount namespace of its own.
    without: Option<PathBuf>,
    /// A mount to make read-only, in a mount namespace of its own.
    read_only: Option<PathBuf>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Invocation {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A scratch folder's copy of the program, which anybody may run.
    pub(crate) fn program(mut self, program: &Path) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    /// As a user without privileges, if we are more than that.
    pub(crate) fn nobody(mut self) -> Self {
        self.nobody = rustix::process::geteuid().is_root();
        self
    }

    /// Without the file system mounted at `mount`.
    pub(crate) fn without(mut self, mount: &Path) -> Self {
        self.without = Some(mount.to_owned());
        self
    }

    /// With the file system at `mount` read-only, as it is in most containers.
    pub(crate) fn read_only(mut self, mount: &Path) -> Self {
        self.read_only = Some(mount.to_owned());
        self
    }

    pub(crate) fn env(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    pub(crate) fn stdout(mut self, stdout: impl Into<OwnedFd>) -> Self {
        self.stdout = Some(stdout.into());
        self
    }

    pub(crate) fn stderr(mut self, stderr: impl Into<OwnedFd>) -> Self {
        self.stderr = Some(stderr.into());
        self
    }

    /// Runs `grey-ebpf ARGS` to its end. A panic is never a way to end.
    pub(crate) fn run(self, args: &[&str]) -> Result<Ended> {
        // Files and not pipes: nothing has to be read while it runs.
        let (mut out, mut err) = (scratch_file()?, scratch_file()?);
        let mut command = Command::new(self.program.unwrap_or_else(grey_ebpf));
        command
            .args(args)
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(self.stdout.map_or(out.try_clone()?.into(), Stdio::from))
            .stderr(self.stderr.map_or(err.try_clone()?.into(), Stdio::from));
        let (nobody, without, read_only) = (self.nobody, self.without, self.read_only);
        let before = move || {
            if without.is_some() || read_only.is_some() {
                // SAFETY: no file descriptor table is shared with another thread: this is a freshly forked process.
                unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)? };
                mount_change(
                    "/",
                    MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
                )?;
            }
            if let Some(mount) = &without {
                unmount(mount, UnmountFlags::DETACH)?;
            }
            if let Some(mount) = &read_only {
                mount_remount(mount, MountFlags::BIND | MountFlags::RDONLY, "")?;
            }
            if nobody {
                let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
                set_thread_groups(&[])?;
                set_thread_res_gid(gid, gid, gid)?;
                set_thread_res_uid(uid, uid, uid)?;
            }
            // Last: a change of user clears it.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes system calls and does not allocate.
        unsafe { command.pre_exec(before) };
        let mut child = command
            .spawn()
            .with_context(|| format!("start grey-ebpf {}", args.join(" ")))?;
        let status = wait_until("the end of grey-ebpf", Duration::from_secs(30), || {
            child.try_wait().context("wait for grey-ebpf")
        });
        if status.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let status = status.with_context(|| format!("grey-ebpf {}", args.join(" ")))?;
        let ended = Ended {
            code: status.code(),
            stdout: text(&mut out)?,
            stderr: text(&mut err)?,
        };
        ensure!(
            status.signal().is_none()
                && ended.code != Some(101)
                && !ended.stderr.contains("panicked"),
            "grey-ebpf {}: {status}\n{}",
            args.join(" "),
            ended.stderr
        );
        Ok(ended)
    }
}

impl Ended {
    /// An error as it has to be: this code, one line that says all of `says`, nothing on stdout.
    pub(crate) fn is_one_line(&self, code: i32, says: &[&str]) -> Result<()> {
        ensure!(self.code == Some(code), "not code {code}: {self:?}");
        ensure!(self.stdout.is_empty(), "something on stdout: {self:?}");
        ensure!(
            self.stderr.ends_with('\n') && self.stderr.lines().count() == 1,
            "not one line: {self:?}"
        );
        self.says(says)
    }

    /// Like [`Ended::is_one_line`] for what goes wrong later: what is lost on this machine may have been told before.
    pub(crate) fn ends_with_one_line(&self, code: i32, says: &[&str]) -> Result<()> {
        ensure!(self.code == Some(code), "not code {code}: {self:?}");
        let last = self.stderr.lines().last().unwrap_or_default();
        let before = self.stderr.lines().count().saturating_sub(1);
        ensure!(
            before == 0
                || before == 1
                    && self
                        .stderr
                        .lines()
                        .next()
                        .is_some_and(|line| line.ends_with("details: grey-ebpf doctor")),
            "more than one line: {self:?}"
        );
        Ended {
            code: self.code,
            stdout: String::new(),
            stderr: format!("{last}\n"),
        }
        .says(says)
    }

    fn says(&self, says: &[&str]) -> Result<()> {
        ensure!(
            self.stderr.starts_with("grey-ebpf: "),
            "whose error is this? {self:?}"
        );
        for word in says {
            ensure!(
                self.stderr.contains(word),
                "says nothing of {word:?}: {self:?}"
            );
        }
        Ok(())
    }
}

/// A folder of one test that anybody may look into; it goes with the test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(label: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("grey-tests-{}-{label}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self(path))
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The path of a file in it, as an argument.
    pub(crate) fn argument(&self, name: &str) -> Result<String> {
        let path = self.join(name);
        Ok(path.to_str().context("a path that is no text")?.to_owned())
    }

    /// A copy of `grey-ebpf` that anybody may run; the folder of a build is often closed to others.
    pub(crate) fn program(&self) -> Result<PathBuf> {
        let path = self.join("grey-ebpf");
        if !path.exists() {
            fs::copy(grey_ebpf(), &path).context("copy grey-ebpf")?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn scratch_file() -> Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    Ok(memfd_create("output", MemfdFlags::CLOEXEC)
        .context("make a file in memory")?
        .into())
}

fn text(file: &mut File) -> Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    String::from_utf8(bytes).context("an output that is no text")
}
