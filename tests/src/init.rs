//! PID 1 of a test VM: mounts what a Linux system has, loads the modules, runs the command or the tests as a
//! child, reports on the results port and powers off.

use std::fs;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Resource, Rlimit, WaitOptions, setrlimit, wait};
use serde_json::json;

use crate::protocol::{RESULTS_ENV, Results};

const RESULTS_PORT: &str = "/dev/ttyS1";
/// How often the host hears that the guest still schedules.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// Files the host puts into the initramfs to say what to do.
const COMMAND_FILE: &str = "/grey/command";
const ARGS_FILE: &str = "/grey/args";
const MODULES_FILE: &str = "/grey/modules";

pub(crate) fn main() -> ! {
    let code = match prepare() {
        Ok(results) => {
            let code = run_payload().unwrap_or_else(|error| {
                eprintln!("init: {error:#}");
                125
            });
            results.send(&json!({"event": "exit", "code": code}));
            code
        }
        Err(error) => {
            eprintln!("init: {error:#}");
            125
        }
    };
    eprintln!("init: done with code {code}");
    power_off()
}

fn prepare() -> Result<Results> {
    let tree = [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/run"),
        ("tmpfs", "/dev/shm"),
        ("devpts", "/dev/pts"),
        ("tracefs", "/sys/kernel/tracing"),
        ("debugfs", "/sys/kernel/debug"),
        ("bpf", "/sys/fs/bpf"),
        ("cgroup2", "/sys/fs/cgroup"),
    ];
    for (kind, target) in tree {
        // Directories inside sysfs exist or cannot be made; the mount says which.
        let _ = fs::create_dir_all(target);
        if let Err(error) = mount(kind, target, kind, MountFlags::empty(), None) {
            // The kernel mounts devtmpfs by itself where CONFIG_DEVTMPFS_MOUNT covers an initramfs.
            eprintln!("init: mount {kind} on {target}: {error}");
        }
    }
    raw_port().with_context(|| format!("set up {RESULTS_PORT}"))?;
    let results = Results::to_file(Path::new(RESULTS_PORT))
        .with_context(|| format!("open {RESULTS_PORT}"))?;
    let release =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("read the kernel release")?;
    results.send(&json!({"event": "boot", "kernel": release.trim()}));

    for (resource, wanted) in [(Resource::Memlock, None), (Resource::Nofile, Some(1 << 20))] {
        let limit = Rlimit {
            current: wanted,
            maximum: wanted,
        };
        setrlimit(resource, limit).with_context(|| format!("raise the limit {resource:?}"))?;
    }
    enable_controllers()?;
    load_modules()?;
    mount_programs();
    // Servers and their clients talk over it.
    let up = Command::new("/bin/busybox")
        .args(["ifconfig", "lo", "up"])
        .status();
    if !up.is_ok_and(|status| status.success()) {
        eprintln!("init: the loopback interface does not come up");
    }
    let heartbeat =
        Results::to_file(Path::new(RESULTS_PORT)).context("open the results port again")?;
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(HEARTBEAT);
            heartbeat.send(&json!({"event": "alive"}));
        }
    });
    Ok(results)
}

/// A serial port as a byte pipe: no echo, no newline translation.
fn raw_port() -> Result<()> {
    use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
    let port = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(RESULTS_PORT)?;
    let mut attributes = tcgetattr(&port)?;
    attributes.make_raw();
    tcsetattr(&port, OptionalActions::Now, &attributes)?;
    Ok(())
}

fn enable_controllers() -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let available =
        fs::read_to_string(root.join("cgroup.controllers")).context("read cgroup.controllers")?;
    for controller in available.split_whitespace() {
        fs::write(
            root.join("cgroup.subtree_control"),
            format!("+{controller}"),
        )
        .with_context(|| format!("enable the cgroup controller {controller}"))?;
    }
    Ok(())
}

/// Loads the modules that the host listed, which it did in dependency order.
fn load_modules() -> Result<()> {
    let list = fs::read_to_string(MODULES_FILE).context("read the module list")?;
    for path in list.lines() {
        let file = fs::File::open(path).with_context(|| format!("open {path}"))?;
        if let Err(error) = rustix::system::finit_module(&file, c"", 0) {
            // A module that its kernel refuses costs the tests that need it, not the run.
            eprintln!("init: load {path}: {error}");
        }
    }
    Ok(())
}

/// The disk with real programs; without one the tests that need them say so.
fn mount_programs() {
    let disk = Path::new("/dev/vda");
    // Modules find their devices in the background.
    let end = Instant::now() + Duration::from_secs(2);
    while Path::new("/sys/bus/virtio/drivers/virtio_blk").exists()
        && !disk.exists()
        && Instant::now() < end
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    if disk.exists()
        && let Err(error) = mount(disk, "/debian", "ext4", MountFlags::RDONLY, None)
    {
        eprintln!("init: mount {}: {error}", disk.display());
    }
}

fn run_payload() -> Result<i32> {
    let mut command = if Path::new(COMMAND_FILE).exists() {
        let port = fs::OpenOptions::new()
            .append(true)
            .open(RESULTS_PORT)
            .context("open the results port")?;
        let mut command = Command::new("/bin/busybox");
        command.args(["sh", COMMAND_FILE]);
        command
            .stdout(port.try_clone().context("share the results port")?)
            .stderr(port);
        command
    } else {
        let args = fs::read_to_string(ARGS_FILE).unwrap_or_default();
        let mut command = Command::new("/proc/self/exe");
        command.arg("vm").args(args.lines());
        command
    };
    command
        .env_clear()
        .env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin:/debian/usr/bin")
        .env("HOME", "/root")
        .env("TERM", "dumb")
        .env(RESULTS_ENV, RESULTS_PORT)
        .current_dir("/root")
        .stdin(Stdio::null())
        .process_group(0);
    let child = command.spawn().context("start the payload")?;
    reap_until(child.id())
}

/// Reaps every orphan until the payload itself ends.
fn reap_until(payload: u32) -> Result<i32> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get().cast_unsigned() == payload => {
                let status = ExitStatus::from_raw(status.as_raw());
                return Ok(status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => bail!("wait for the payload: {error}"),
        }
    }
}

fn power_off() -> ! {
    // What was written to the console must leave the port before the machine goes.
    for port in [RESULTS_PORT, "/dev/console"] {
        if let Ok(file) = fs::OpenOptions::new().write(true).open(port) {
            let _ = rustix::termios::tcdrain(&file);
        }
    }
    let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    // Without ACPI the reboot ends QEMU as well, since it runs with -no-reboot.
    let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
    loop {
        std::thread::park();
    }
}
