//! A QEMU process: started, watched on its results port and its console, and always brought to an end.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::kernel::Bootable;
use super::resident;
use super::results::{Piece, Record, Splitter};

const QEMU: &str = "qemu-system-x86_64";
/// Console lines that mean that nothing sensible will follow. A soft lockup ("BUG: soft lockup") is none of them:
/// an emulated guest on a busy machine shows it and goes on.
const FATAL: [&str; 6] = [
    "int3: 0000",
    "Kernel panic",
    "Oops: ",
    "BUG: kernel",
    "BUG: unable to handle",
    "Unable to mount root fs",
];
/// A CPU that has been stuck for about 23 s shows this, and again every 28 s. A guest on a busy machine may show it once or
/// twice and go on.
pub(super) const STUCK: &str = "BUG: soft lockup";
/// A CPU that is stuck for so many of these does not go on.
const STUCK_FOR_GOOD: usize = 4;
/// How often the console is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accelerator {
    Kvm,
    Tcg,
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    /// Until init reports.
    pub(crate) boot: Duration,
    /// Between any two signs of life; init sends one every three seconds.
    pub(crate) idle: Duration,
    pub(crate) total: Duration,
}

impl Deadlines {
    /// Generous, since an emulated guest shares the machine with compilers.
    pub(crate) const fn usual(total: Duration) -> Self {
        Self {
            boot: Duration::from_secs(120),
            idle: Duration::from_secs(60),
            total,
        }
    }

    /// For finding out whether an accelerator works at all.
    pub(crate) const PROBE: Self = Self {
        boot: Duration::from_secs(10),
        idle: Duration::from_secs(5),
        total: Duration::from_secs(15),
    };
}

/// What the machine has besides processors.
#[derive(Debug, Clone)]
pub(crate) struct Hardware {
    pub(crate) memory_mib: u32,
    /// Disks in their order: /dev/vda, /dev/vdb.
    pub(crate) disks: Vec<Drive>,
    /// A balloon that reports free pages to this machine.
    pub(crate) balloon: bool,
}

/// A raw image as a disk.
#[derive(Debug, Clone)]
pub(crate) struct Drive {
    pub(crate) image: PathBuf,
    pub(crate) writable: bool,
    /// By which the guest knows it, where its place among the disks is not enough.
    pub(crate) serial: Option<&'static str>,
}

/// A running guest. Dropping it kills the process.
pub(crate) struct Guest {
    child: Child,
    /// Answers to the guest's questions; the other direction of the results port.
    answers: ChildStdin,
    memory_mib: u32,
    output: Receiver<Vec<u8>>,
    console: PathBuf,
    errors: PathBuf,
}

impl Guest {
    /// Boots; the console goes to `directory/console.log`.
    pub(crate) fn boot(
        kernel: &Bootable,
        initramfs: &Path,
        directory: &Path,
        accelerator: Accelerator,
        hardware: &Hardware,
    ) -> Result<Self> {
        let console = directory.join("console.log");
        let errors = directory.join("qemu.log");
        let machine = match accelerator {
            Accelerator::Kvm => ["kvm", "host"],
            Accelerator::Tcg => ["tcg", "max"],
        };
        let mut command = Command::new(QEMU);
        command
            .args(["-accel", machine[0], "-cpu", machine[1]])
            .args([
                "-m",
                &hardware.memory_mib.to_string(),
                "-smp",
                "2",
                "-no-reboot",
                "-nodefaults",
                "-display",
                "none",
            ])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(initramfs)
            .args([
                "-append",
                "console=ttyS0 quiet panic=-1 oops=panic psi=1 no_timer_check rdinit=/init",
            ])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            // The second port is our pipe: results stream as they come, apart from the kernel's messages.
            .args([
                "-chardev",
                "stdio,id=results,signal=off",
                "-serial",
                "chardev:results",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(
                fs::File::create(&errors)
                    .with_context(|| format!("create {}", errors.display()))?,
            );
        if hardware.balloon {
            // Free memory goes back to this machine, as in guests that are set up well; the tests measure it from here.
            command.args(["-device", "virtio-balloon-pci,free-page-reporting=on"]);
        }
        for (index, drive) in hardware.disks.iter().enumerate() {
            let Drive {
                image,
                writable,
                serial,
            } = drive;
            let serial = serial.map_or(String::new(), |serial| format!(",serial={serial}"));
            let access = if *writable { "off" } else { "on" };
            // Commas separate options; a doubled one stands for itself.
            let file = image.display().to_string().replace(',', ",,");
            command
                .arg("-drive")
                .arg(format!(
                    "if=none,id=disk{index},format=raw,readonly={access},file={file}"
                ))
                .arg("-device")
                .arg(format!("virtio-blk-pci,drive=disk{index}{serial}"));
        }
        let follow_us = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
        // SAFETY: between fork and exec the closure makes one system call and does not allocate.
        unsafe { command.pre_exec(follow_us) };
        let mut child = command.spawn().with_context(|| {
            format!("start {QEMU}: install qemu-system-x86 or your system's package of it")
        })?;
        let answers = child.stdin.take().context("QEMU has no stdin")?;
        let mut stdout = child.stdout.take().context("QEMU has no stdout")?;
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(length @ 1..) = stdout.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            answers,
            memory_mib: hardware.memory_mib,
            output,
            console,
            errors,
        })
    }

    /// Follows the guest to its exit record and returns the code in it.
    pub(crate) fn follow(
        mut self,
        deadlines: Deadlines,
        mut on_piece: impl FnMut(Piece),
    ) -> Result<i32> {
        let start = Instant::now();
        let mut heard = None;
        let mut splitter = Splitter::default();
        loop {
            match self.output.recv_timeout(LOOK) {
                Ok(bytes) => {
                    heard = Some(Instant::now());
                    for piece in splitter.feed(&bytes) {
                        if let Piece::Record(Record::Exit { code }) = piece {
                            self.let_power_off();
                            return Ok(code);
                        }
                        if let Piece::Record(Record::HostMemory) = piece {
                            self.tell_resident()?;
                            continue;
                        }
                        on_piece(piece);
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().context("wait for QEMU")?;
                    // A panic ends QEMU before the console is looked at.
                    if let Some(line) = self.fatal_line() {
                        bail!("the guest broke off: {line}{}", self.tail());
                    }
                    bail!(
                        "QEMU ended ({status}) before the guest was done{}",
                        self.tail()
                    );
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(line) = self.fatal_line() {
                bail!("the guest broke off: {line}{}", self.tail());
            }
            let silence = heard.unwrap_or(start).elapsed();
            let limit = if heard.is_some() {
                deadlines.idle
            } else {
                deadlines.boot
            };
            if silence > limit {
                let what = if heard.is_some() {
                    "no sign of life"
                } else {
                    "no boot"
                };
                // With all CPUs stuck there are fewer of these before init is missed.
                if let Some(line) = self
                    .console_text()
                    .lines()
                    .find(|line| line.contains(STUCK))
                {
                    bail!("the guest broke off: {line}{}", self.tail());
                }
                bail!("{what} for {limit:?}{}", self.tail());
            }
            if start.elapsed() > deadlines.total {
                bail!("not done after {:?}{}", deadlines.total, self.tail());
            }
        }
    }

    /// What the guest takes of this machine, told to the guest itself: its tests judge it.
    fn tell_resident(&mut self) -> Result<()> {
        let resident = resident::of(self.child.id(), u64::from(self.memory_mib) << 20)
            .context("measure QEMU")?;
        let line = serde_json::to_string(&resident).context("tell what QEMU takes")?;
        writeln!(self.answers, "{line}")
            .and_then(|()| self.answers.flush())
            .context("answer the guest")
    }

    /// The exit record is out; a guest that then hangs in its shutdown has no more to tell.
    fn let_power_off(&mut self) {
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn console_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    fn fatal_line(&self) -> Option<String> {
        let text = self.console_text();
        let fatal = |line: &&str| FATAL.iter().any(|mark| line.contains(mark));
        let stuck = || {
            let mut stuck = text.lines().filter(|line| line.contains(STUCK));
            stuck.nth(STUCK_FOR_GOOD - 1)
        };
        text.lines().find(fatal).or_else(stuck).map(str::to_owned)
    }

    /// The end of the console and of QEMU's own messages.
    fn tail(&self) -> String {
        let mut tail = String::new();
        let errors = fs::read_to_string(&self.errors).unwrap_or_default();
        for (name, text) in [("QEMU", errors), ("console", self.console_text())] {
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(25)..] {
                tail.push_str(&format!("\n  {name}: {line}"));
            }
        }
        tail
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It has ended already where all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
