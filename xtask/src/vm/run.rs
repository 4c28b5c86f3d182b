//! One guest from its kernel to its results, with the parts that several runs share prepared once.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::kernel::{Bootable, Kernel};
use super::programs::{self, Extras};
use super::qemu::{Accelerator, Deadlines, Drive, Guest, Hardware, STUCK};
use super::results::{Outcome, Piece, Record, TestResult};
use super::scratch::Scratch;
use super::userland::{Disk, Userland};
use super::{REQUIRED, VmOptions, build, files, initramfs, kernel, modules};

/// What the guest does once it is up.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    /// A shell command; its output is the run's.
    Command(String),
    /// The tests that these arguments of libtest select.
    Tests(Vec<String>),
}

impl Payload {
    /// The same without the tests that have ended. A command is done from its start again.
    fn without(&self, done: &[TestResult]) -> Payload {
        match self {
            Payload::Command(command) => Payload::Command(command.clone()),
            Payload::Tests(args) => {
                let mut args = args.clone();
                for result in done {
                    args.extend(["--skip".to_owned(), result.test.clone()]);
                }
                Payload::Tests(args)
            }
        }
    }
}

/// What a guest has shown.
#[derive(Debug)]
pub(crate) struct VmRun {
    pub(crate) release: String,
    pub(crate) results: Vec<TestResult>,
    /// The exit code of the command or of the test runner, or why the guest did not come to its end.
    pub(crate) ended: Result<i32>,
    /// How often the guest was started again after a fault of the emulator's.
    pub(crate) restarts: u32,
}

/// Starts after faults of the emulator's, in one run.
const MOST_RESTARTS: u32 = 4;

/// QEMU's TCG with several CPU threads can run a breakpoint that the kernel has already patched away again (static
/// keys, ftrace and kprobes change code by way of int3). The kernel then finds no owner for it and oopses. Real
/// hardware and KVM have no such window; nothing but this very oops is taken for it, and a guest that never came up,
/// in which nothing of ours has run. Twice, on 5.10, CPUs were stuck in the kernel for good, once while syscall tracepoints were attached;
/// why is not known: the test that was under way is run again and the restart is told; what comes again fails when no more
/// restarts are left.
fn is_emulator_fault(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    text.lines().next().is_some_and(|line| {
        line.contains("Oops: int3")
            || line.contains("int3: 0000")
            || line.contains(STUCK)
            || line.starts_with("no boot for")
    })
}

/// All that guests are made of.
pub(crate) struct Machines {
    cache: PathBuf,
    programs: initramfs::Programs,
    /// Programs of other makers, for tests that watch them.
    extras: Extras,
    /// The disk with programs of Debian's.
    userland: Option<Disk>,
    hardware: Hardware,
    options: VmOptions,
    accelerator: Option<Accelerator>,
}

/// What a guest has unless more is asked for.
const MEMORY_MIB: u32 = 1024;

impl Machines {
    /// Builds the programs. Guests live below `root/target/vm`.
    pub(crate) fn prepare(root: &Path, options: &VmOptions) -> Result<Self> {
        let cache = root.join("target/vm");
        fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
        let programs = build::programs(root, options.no_build)?;
        let extras = programs::build(root, &cache);
        let hardware = Hardware {
            memory_mib: MEMORY_MIB,
            disks: Vec::new(),
            balloon: false,
        };
        Ok(Self {
            cache,
            programs,
            extras,
            userland: None,
            hardware,
            options: options.clone(),
            accelerator: None,
        })
    }

    /// The kernel of that name, fetched if need be. An error here is a kernel that cannot be had.
    pub(crate) fn kernel(&self, name: &str) -> Result<Bootable> {
        if let Some(image) = &self.options.kernel_image {
            return kernel::provided(image.clone(), self.options.modules.clone());
        }
        let _lock = self.lock()?;
        Kernel::find(name)?.obtain(&self.cache, self.options.refresh)
    }

    /// Runs at the same time share the cache; the lock ends with the file.
    fn lock(&self) -> Result<fs::File> {
        let lock = self.cache.join("fetch.lock");
        let file = fs::File::create(&lock).with_context(|| format!("create {}", lock.display()))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
            .context("lock the kernel cache")?;
        Ok(file)
    }

    /// Gives the guests a disk with real programs. Where they cannot be had, the tests that need them say so.
    pub(crate) fn equip(&mut self, userland: Userland) -> Result<()> {
        if self.userland.is_some() {
            return Ok(());
        }
        let _lock = self.lock()?;
        match userland.obtain(&self.cache, self.options.refresh) {
            Ok(disk) => {
                self.hardware.disks.insert(
                    0,
                    Drive {
                        image: disk.image.clone(),
                        writable: false,
                        serial: None,
                    },
                );
                self.userland = Some(disk);
            }
            Err(error) => self
                .extras
                .lacks("programs of Debian's", &format!("{error:#}")),
        }
        Ok(())
    }

    /// Gives the guests files to read, on a disk of its own behind all others.
    fn add_files(&mut self) -> Result<()> {
        let known = |drive: &Drive| drive.serial == Some(files::SERIAL);
        if self.hardware.disks.iter().any(known) {
            return Ok(());
        }
        let _lock = self.lock()?;
        self.hardware.disks.push(Drive {
            image: files::obtain(&self.cache)?,
            writable: false,
            serial: Some(files::SERIAL),
        });
        Ok(())
    }

    /// What is on the disk: packages and versions.
    pub(crate) fn packages(&self) -> &[(String, String)] {
        self.userland
            .as_ref()
            .map_or(&[], |disk| disk.packages.as_slice())
    }

    /// What the guests lack, and why.
    pub(crate) fn missing(&self) -> &str {
        self.extras.missing()
    }

    /// Gives the guests a program of the workspace, linked statically, in `/programs`.
    pub(crate) fn add_package(&mut self, root: &Path, name: &str) -> Result<()> {
        let program = build::program(root, self.options.no_build, name)?;
        self.add_file(program);
        Ok(())
    }

    /// Gives the guests a file in `/programs`.
    pub(crate) fn add_file(&mut self, path: PathBuf) {
        self.extras.add(path);
    }

    /// Guests of that much memory.
    pub(crate) fn with_memory(&mut self, memory_mib: u32) {
        self.hardware.memory_mib = memory_mib;
    }

    /// Guests of that much memory with `output` as their second disk, for what they have to hand over.
    pub(crate) fn enlarge(&mut self, memory_mib: u32, output: PathBuf) {
        self.with_memory(memory_mib);
        self.hardware.disks.push(Drive {
            image: output,
            writable: true,
            serial: None,
        });
    }

    /// The static test binary.
    pub(crate) fn tests(&self) -> &Path {
        &self.programs.tests
    }

    /// Boots `kernel`, does `payload`, and hands each piece of output to `on_piece` as it comes.
    pub(crate) fn run(
        &mut self,
        name: &str,
        kernel: &Bootable,
        payload: &Payload,
        total: Duration,
        mut on_piece: impl FnMut(&Piece),
    ) -> Result<VmRun> {
        self.equip(Userland::Tests)?;
        self.add_files()?;
        // What it does is shown on one kernel; the others stay the machines that they were.
        self.hardware.balloon = name == REQUIRED;
        let accelerator = self.accelerator(kernel)?;
        let scratch = Scratch::new(&self.cache, name)?;
        let mut release = String::new();
        let mut results: Vec<TestResult> = Vec::new();
        let mut planned = None;
        let mut restarts = 0;
        let mut rest = payload.clone();
        let ended = loop {
            let ended = self.boot(
                kernel,
                &rest,
                &scratch,
                accelerator,
                Deadlines::usual(total),
                |piece| {
                    match &piece {
                        Piece::Record(Record::Boot { kernel }) => release.clone_from(kernel),
                        Piece::Record(Record::Plan { tests }) => {
                            planned.get_or_insert(*tests);
                        }
                        Piece::Record(Record::Result(result)) => results.push(result.clone()),
                        _ => {}
                    }
                    on_piece(&piece);
                },
            );
            let Err(error) = &ended else { break ended };
            if accelerator != Accelerator::Tcg
                || !is_emulator_fault(error)
                || restarts == MOST_RESTARTS
            {
                break ended;
            }
            restarts += 1;
            eprintln!(
                "kernel {name}: the emulator failed ({}); started again, {} tests are done",
                error.to_string().lines().next().unwrap_or_default(),
                results.len()
            );
            rest = payload.without(&results);
        };
        let console = scratch.keep_console(&self.cache.join(name))?;
        if self.options.keep_console {
            eprintln!("{}", fs::read_to_string(&console).unwrap_or_default());
        }
        let failed = results
            .iter()
            .any(|result| result.outcome == Outcome::Failed);
        let ended = ended
            .with_context(|| format!("kernel {name} (console: {})", console.display()))
            .and_then(|code| {
                let complete =
                    planned == Some(results.len()) || matches!(payload, Payload::Command(_));
                let count = results.len();
                complete
                    .then_some(code)
                    .with_context(|| format!("kernel {name}: {count} results, {planned:?} planned"))
            })
            // The last guest knows of its own tests only.
            .map(|code| if failed && code == 0 { 1 } else { code });
        Ok(VmRun {
            release,
            results,
            ended,
            restarts,
        })
    }

    fn boot(
        &self,
        kernel: &Bootable,
        payload: &Payload,
        scratch: &Scratch,
        accelerator: Accelerator,
        deadlines: Deadlines,
        on_piece: impl FnMut(Piece),
    ) -> Result<i32> {
        let modules = kernel
            .modules
            .as_deref()
            .map(modules::load_order)
            .transpose()?
            .unwrap_or_default();
        let image = scratch.0.join("initramfs.gz");
        initramfs::write(&image, &self.programs, &self.extras, &modules, payload)?;
        Guest::boot(kernel, &image, &scratch.0, accelerator, &self.hardware)?
            .follow(deadlines, on_piece)
    }

    /// KVM only after a guest has come up under it: `/dev/kvm` may exist and still fail, or hang.
    fn accelerator(&mut self, kernel: &Bootable) -> Result<Accelerator> {
        if let Some(known) = self.accelerator {
            return Ok(known);
        }
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let record = self.cache.join("kvm-probe");
        // The answer holds until the machine boots again.
        let told = fs::read_to_string(&record).unwrap_or_default();
        let works = match told.split_once(' ') {
            Some((answer, id)) if id == boot_id => answer == "works",
            _ => {
                let usable = fs::OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open("/dev/kvm")
                    .is_ok();
                let works = usable && self.kvm_boots(kernel)?;
                let answer = if works { "works" } else { "fails" };
                fs::write(&record, format!("{answer} {boot_id}"))
                    .context("record whether KVM works")?;
                works
            }
        };
        let accelerator = if works {
            Accelerator::Kvm
        } else {
            Accelerator::Tcg
        };
        self.accelerator = Some(accelerator);
        Ok(accelerator)
    }

    fn kvm_boots(&self, kernel: &Bootable) -> Result<bool> {
        let scratch = Scratch::new(&self.cache, "kvm-probe")?;
        let payload = Payload::Command("true".to_owned());
        let code = self.boot(
            kernel,
            &payload,
            &scratch,
            Accelerator::Kvm,
            Deadlines::PROBE,
            |_| {},
        );
        Ok(matches!(code, Ok(0)))
    }
}

/// Time since a start, for progress lines.
pub(crate) fn seconds(start: Instant) -> String {
    format!("{:.1} s", start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_start_leaves_out_what_has_ended() {
        let done = TestResult {
            test: "vm_first".to_owned(),
            outcome: Outcome::Passed,
            seconds: 1.0,
            detail: None,
            first_failure: None,
        };
        let Payload::Tests(args) = Payload::Tests(vec!["vm".to_owned()]).without(&[done]) else {
            unreachable!("tests stay tests")
        };
        assert_eq!(args, ["vm", "--skip", "vm_first"]);
    }

    #[test]
    fn only_the_oops_of_a_lost_breakpoint_is_the_emulators() {
        let fault =
            |line: &str| is_emulator_fault(&anyhow::anyhow!("{line}\n  console: Oops: int3"));
        assert!(fault(
            "the guest broke off: [    9.1] Oops: int3: 0000 [#1] PREEMPT SMP"
        ));
        assert!(fault("the guest broke off: [    9.1] int3: 0000 [#1] SMP"));
        assert!(fault("no boot for 60s"));
        assert!(!fault("no sign of life for 60s"));
        assert!(!fault("the guest broke off: [    9.1] Oops: 0002 [#1] SMP"));
        assert!(!fault(
            "the guest broke off: Kernel panic - not syncing: Fatal exception"
        ));
    }
}
