//! What runs beside a load: nothing, an empty program, `grey-ebpf`, or what else counts the same.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use aya_obj::btf::Btf;

use crate::cgroup::Cgroup;
use crate::child::ends_with_us;
use crate::empty::{self, Empty};

/// How long one may take to begin.
const START: Duration = Duration::from_secs(30);
/// No more links for so long: all are attached.
const SETTLED: Duration = Duration::from_millis(300);
/// What starts has its start behind it after so long.
const AT_REST: Duration = Duration::from_secs(1);
/// Bytes of what one says to its stderr that are kept.
const SAID: u64 = 400;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beside {
    /// The base of all comparisons.
    Nothing,
    /// Empty programs on these BTF tracepoints.
    Empty(&'static [&'static str]),
    /// `grey-ebpf` with these arguments; ready with its first line.
    Ours(Vec<String>),
    /// `grey-ebpf profile` of the load's cgroup, or of another one.
    Profile(Whom),
    /// A script of bpftrace.
    Bpftrace(&'static str),
    /// A command of another maker: its words, what it says when it counts, and the Debian package it is in.
    Other(&'static [&'static str], &'static str, &'static str),
}

/// The words of a `daemon` as it comes, which keeps what it knows in this directory.
///
/// # Errors
/// The directory cannot be written to, or has no UTF-8 name.
pub fn daemon(state: &Path) -> Result<Vec<String>> {
    let config = state.join("config.toml");
    fs::write(&config, "").with_context(|| config.display().to_string())?;
    let text = |path: &Path| {
        let text = path.to_str();
        text.map(str::to_owned)
            .with_context(|| format!("{}: not UTF-8", path.display()))
    };
    Ok(vec![
        "daemon".to_owned(),
        "--config".to_owned(),
        text(&config)?,
        "--state-dir".to_owned(),
        text(state)?,
    ])
}

/// Who is profiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The load.
    Load,
    /// Somebody else, who sleeps.
    Another,
}

/// What it runs in.
#[derive(Debug)]
pub struct Around<'a> {
    /// The program under test.
    pub grey_ebpf: &'a Path,
    /// The load's cgroup.
    pub load: Cgroup,
    /// A cgroup of somebody else.
    pub another: Cgroup,
}

impl Around<'_> {
    /// New cgroups.
    ///
    /// # Errors
    /// There is no v2 tree in which cgroups can be made.
    pub fn new(grey_ebpf: &Path) -> Result<Around<'_>> {
        Ok(Around {
            grey_ebpf,
            load: Cgroup::new("load")?,
            another: Cgroup::new("another")?,
        })
    }
}

/// It runs as long as this.
#[derive(Debug, Default)]
pub struct Running {
    attached: Vec<Empty>,
    process: Option<Process>,
    /// Without anybody in it a cgroup has nothing to profile.
    _sleeper: Option<Sleeper>,
}

/// A process that does nothing.
#[derive(Debug)]
struct Sleeper(Child);

impl Sleeper {
    fn start(cgroup: &Cgroup) -> Result<Sleeper> {
        let mut command = Command::new("sleep");
        cgroup.hold(&mut command)?;
        let child = ends_with_us(command.arg("3600"))
            .stdin(Stdio::null())
            .spawn();
        Ok(Sleeper(child.context("sleep")?))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A child whose output is read and forgotten.
#[derive(Debug)]
pub struct Process(Child);

impl Beside {
    /// `grey-ebpf watch --json` with these arguments besides.
    #[must_use]
    pub fn watch(more: &[&str]) -> Beside {
        let words = ["watch", "--json"].iter().chain(more);
        Beside::Ours(words.map(|word| (*word).to_owned()).collect())
    }

    /// Begins it, and waits until it counts and does nothing else any more; as long with nothing, so that the load rests the
    /// same time before each of its runs.
    ///
    /// # Errors
    /// As [`Beside::start`].
    pub fn settled(&self, around: &Around<'_>) -> Result<Running> {
        let running = self.start(around)?;
        std::thread::sleep(AT_REST);
        Ok(running)
    }

    /// Begins it and waits until it counts.
    ///
    /// # Errors
    /// It cannot be begun here.
    pub fn start(&self, around: &Around<'_>) -> Result<Running> {
        let mut running = Running::default();
        match self {
            Beside::Nothing => {}
            Beside::Empty(names) => {
                let btf = Btf::from_sys_fs().context("the kernel's BTF")?;
                for name in *names {
                    running.attached.push(empty::on_tracepoint(&btf, name)?);
                }
            }
            Beside::Ours(words) => {
                let mut command = Command::new(around.grey_ebpf);
                command.args(words);
                running.process = Some(Process::start(command, "")?);
            }
            Beside::Profile(whom) => {
                let cgroup = match whom {
                    Whom::Load => &around.load,
                    Whom::Another => &around.another,
                };
                running._sleeper = Some(Sleeper::start(cgroup)?);
                let mut command = Command::new(around.grey_ebpf);
                command.args(["profile", "--for", "1h", "--cgroup"]);
                command.arg(cgroup.name());
                let process = Process::spawn(command)?.0;
                process.wait_for_links()?;
                running.process = Some(process);
            }
            Beside::Other(words, sign, package) => {
                let (program, rest) = words.split_first().context("no words")?;
                let mut command = Command::new(program);
                command.args(rest);
                let process = Process::start(command, sign);
                running.process =
                    Some(process.with_context(|| format!("it is in {package} of Debian"))?);
            }
            Beside::Bpftrace(script) => {
                let mut command = Command::new("bpftrace");
                // Its own buffer would keep the line until there are more.
                command
                    .args(["-B", "line", "-e"])
                    .arg(format!("BEGIN {{ printf(\"begun\\n\"); }} {script}"));
                running.process = Some(Process::start(command, "begun")?);
            }
        }
        Ok(running)
    }
}

impl Process {
    /// Ready with the first line that has this in it.
    ///
    /// # Errors
    /// It is not there, ends, or says nothing in half a minute.
    pub fn start(command: Command, sign: &'static str) -> Result<Process> {
        let program = command.get_program().to_string_lossy().into_owned();
        let (mut process, out, errors) = Process::spawn(command)?;
        let (sender, begun) = channel();
        std::thread::spawn(move || {
            let mut out = BufReader::new(out);
            let mut line = String::new();
            while out.read_line(&mut line).is_ok_and(|read| read > 0) {
                if line.contains(sign) {
                    let _ = sender.send(());
                    break;
                }
                line.clear();
            }
            drop(sender);
            let _ = std::io::copy(&mut out, &mut std::io::sink());
        });
        match begun.recv_timeout(START) {
            Ok(()) => Ok(process),
            Err(RecvTimeoutError::Timeout) => bail!("{program} did not begin within {START:?}"),
            Err(RecvTimeoutError::Disconnected) => {
                let status = process.0.wait()?;
                let said = errors.join().unwrap_or_default();
                bail!("{program} ended ({status}): {}", said.trim())
            }
        }
    }

    /// Started, with what it writes: stdout, and stderr's begin once it has ended.
    fn spawn(mut command: Command) -> Result<(Process, ChildStdout, JoinHandle<String>)> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = ends_with_us(&mut command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| program.clone())?;
        let out = child.stdout.take().context("no stdout")?;
        let errors = child.stderr.take().context("no stderr")?;
        let errors = std::thread::spawn(move || {
            let mut said = Vec::new();
            let mut errors = BufReader::new(errors);
            let _ = errors.by_ref().take(SAID).read_to_end(&mut said);
            let _ = std::io::copy(&mut errors, &mut std::io::sink());
            String::from_utf8_lossy(&said).trim().replace('\n', "; ")
        });
        Ok((Process(child), out, errors))
    }

    /// Waits until it has attached eBPF programs and attaches no more.
    fn wait_for_links(&self) -> Result<()> {
        let begun = Instant::now();
        let (mut seen, mut since) = (0, begun);
        while begun.elapsed() < START {
            let links = links(self.pid());
            if links != seen {
                (seen, since) = (links, Instant::now());
            } else if links > 0 && since.elapsed() > SETTLED {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("process {} attached nothing within {START:?}", self.pid())
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

/// How many of a process's descriptors are BPF links (`bpf_link_show_fdinfo`, kernel/bpf/syscall.c).
fn links(pid: u32) -> usize {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo"));
    let texts = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    texts.filter(|text| text.contains("link_type:")).count()
}

impl Drop for Process {
    fn drop(&mut self) {
        // As Ctrl-C does, which all of them take for an end; not all of them end at once.
        if let Some(pid) = i32::try_from(self.0.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        for _ in 0..500 {
            if matches!(self.0.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
