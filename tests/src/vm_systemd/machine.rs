//! A machine in the machine: Debian's systemd as the first process of its own process and mount namespaces, over the
//! whole cgroup tree.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::harness::{cgroup_root, wait_until};
use crate::invocation::Scratch;

pub(super) const SYSTEMD: &str = "/debian/lib/systemd/systemd";

/// An emulated start.
const UP: Duration = Duration::from_secs(90);

/// Makes a root of the disk's libraries and units, our program and the files in `$FILES`, and becomes systemd in it.
/// Of what a start does, only what the service needs: sockets of the journal, and nothing of hardware.
const BOOT: &str = r#"
set -e
root=$1 files=$2
echo $$ > /sys/fs/cgroup/cgroup.procs
mount -t tmpfs tmpfs $root
cd $root
mkdir -p bin sbin lib lib64 usr/bin usr/sbin usr/lib usr/share debian proc sys dev run tmp root var/lib var/log etc/systemd/system home
for part in lib lib64 usr/lib usr/share; do mount --bind /debian/$part $part; done
mount --bind /debian debian
for program in debian/bin/* debian/usr/bin/systemd-*; do ln -s /$program bin/; done
for applet in sh kill sleep; do cp /bin/busybox bin/$applet; done
cp /bin/grey-ebpf usr/bin/
for unit in debian/lib/systemd/system/sysinit.target.wants/*; do
  case $unit in
    */systemd-journald.service) ;;
    *) ln -s /dev/null etc/systemd/system/${unit##*/} ;;
  esac
done
for unit in systemd-journald-audit.socket systemd-journald-dev-log.socket tmp.mount systemd-remount-fs.service; do
  [ -e etc/systemd/system/$unit ] || ln -s /dev/null etc/systemd/system/$unit
done
echo 0123456789abcdef0123456789abcdef > etc/machine-id
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' > etc/passwd
printf 'root:x:0:\nsystemd-journal:x:101:\nnogroup:x:65534:\n' > etc/group
printf 'ID=debian\n' > etc/os-release
cp -r $files/. .
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount --move . /
exec env -i container=test PATH=/bin:/usr/bin chroot . /lib/systemd/systemd --unit=sysinit.target --show-status=0 --log-level=info --log-target=journal
"#;

/// What a command said.
pub(super) struct Said {
    pub(super) success: bool,
    /// stdout and stderr.
    pub(super) text: String,
}

/// The machine; it ends with this.
pub(super) struct Machine {
    outside: Child,
    /// systemd, as it is called here.
    first: u32,
    _files: Scratch,
}

impl Machine {
    /// Starts it with these files, by their paths below its root.
    pub(super) fn boot(files: &[(&str, &str)]) -> Result<Self> {
        let scratch = Scratch::new("systemd")?;
        let all = scratch.join("files");
        for (path, text) in files {
            let path = all.join(path);
            fs::create_dir_all(path.parent().context("a file without a folder")?)?;
            fs::write(&path, text)?;
        }
        let root = scratch.join("root");
        fs::create_dir(&root)?;
        let outside = Command::new("/bin/busybox")
            .args(["unshare", "-m", "-p", "-f", "sh", "-c", BOOT, "boot"])
            .args([&root, &all])
            .stdin(Stdio::null())
            .spawn()
            .context("start systemd")?;
        let mut machine = Self {
            outside,
            first: 0,
            _files: scratch,
        };
        let scope = cgroup_root()?.join("init.scope/cgroup.procs");
        machine.first = wait_until("systemd in its scope", UP, || {
            if let Some(status) = machine.outside.try_wait()? {
                anyhow::bail!("systemd has ended: {status}");
            }
            let pids = fs::read_to_string(&scope).unwrap_or_default();
            Ok(pids.lines().next().and_then(|pid| pid.parse().ok()))
        })?;
        wait_until("systemd to be up", UP, || {
            let said = machine.run(&["/bin/systemctl", "is-active", "sysinit.target"])?;
            Ok(said.success.then_some(()))
        })?;
        Ok(machine)
    }

    fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.first)).join(path)
    }

    pub(super) fn write(&self, path: &str, text: &str) -> Result<()> {
        fs::write(self.inside(path), text).with_context(|| format!("write {path}"))
    }

    /// Runs a program in it.
    pub(super) fn run(&self, command: &[&str]) -> Result<Said> {
        let output = Command::new("/bin/busybox")
            .args(["nsenter", "-t", &self.first.to_string(), "-m", "-p"])
            .args(command)
            .env_clear()
            .env("PATH", "/bin:/usr/bin")
            .env("SYSTEMD_PAGER", "")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("run {command:?}"))?;
        let text = [output.stdout, output.stderr].concat();
        Ok(Said {
            success: output.status.success(),
            text: String::from_utf8_lossy(&text).into_owned(),
        })
    }

    /// As [`Machine::run`]; it has to succeed.
    pub(super) fn systemctl(&self, args: &[&str]) -> Result<()> {
        let said = self.run(&[&["/bin/systemctl"], args].concat())?;
        ensure!(
            said.success,
            "systemctl {args:?}: {}\n{}",
            said.text,
            self.log()
        );
        Ok(())
    }

    /// What systemd knows of the service.
    pub(super) fn property(&self, name: &str) -> Result<String> {
        let show = ["/bin/systemctl", "show", "grey-ebpf", "--value", "-p", name];
        let said = self.run(&show)?;
        ensure!(said.success, "systemctl show: {}", said.text);
        Ok(said.text.trim_end().to_owned())
    }

    /// The end of the journal, but for the daemon's events, and what the daemon says of itself.
    pub(super) fn log(&self) -> String {
        let said = self.run(&["/bin/journalctl", "--no-pager", "-o", "cat", "-n", "60"]);
        let text = said.map_or_else(|error| error.to_string(), |said| said.text);
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('{')).collect();
        let status = self.run(&["/usr/bin/grey-ebpf", "status"]);
        let status = status.map_or_else(|error| error.to_string(), |said| said.text);
        format!("{}\n{status}", lines.join("\n"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The kernel ends all processes of a namespace with its first.
        if let Some(first) = i32::try_from(self.first)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(first, rustix::process::Signal::KILL);
        } else {
            let _ = self.outside.kill();
        }
        let _ = self.outside.wait();
        if let Ok(root) = cgroup_root() {
            for name in [
                "grey-ebpf.service",
                "grey-ebpf-guard",
                "init.scope",
                "system.slice",
                "user.slice",
            ] {
                remove(&root.join(name));
            }
        }
    }
}

/// A cgroup and those below it, once their processes are gone.
fn remove(cgroup: &std::path::Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = wait_until("the cgroup to be empty", Duration::from_secs(5), || {
        Ok((!cgroup.exists() || fs::remove_dir(cgroup).is_ok()).then_some(()))
    });
}
