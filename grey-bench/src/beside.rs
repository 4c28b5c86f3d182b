//! What runs beside a load: nothing, an empty program, `grey-ebpf`, or what else counts the same.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use aya_obj::btf::Btf;

use crate::empty::{self, Empty};

/// How long one may take to begin.
const START: Duration = Duration::from_secs(30);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beside {
    /// The base of all comparisons.
    Nothing,
    /// Empty programs on these BTF tracepoints.
    Empty(&'static [&'static str]),
    /// `grey-ebpf` with these arguments; ready with its first line.
    Ours(Vec<String>),
    /// A script of bpftrace.
    Bpftrace(&'static str),
}

/// It runs as long as this.
#[derive(Debug, Default)]
pub struct Running {
    attached: Vec<Empty>,
    process: Option<Process>,
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

    /// Begins it and waits until it counts.
    ///
    /// # Errors
    /// It cannot be begun here.
    pub fn start(&self, grey_ebpf: &Path) -> Result<Running> {
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
                let mut command = Command::new(grey_ebpf);
                command.args(words);
                running.process = Some(Process::start(command, "")?);
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
    pub fn start(mut command: Command, sign: &'static str) -> Result<Process> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| program.clone())?;
        let out = child.stdout.take().context("no stdout")?;
        let process = Process(child);
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
            let mut space = [0; 65536];
            while out.read(&mut space).is_ok_and(|read| read > 0) {}
        });
        if begun.recv_timeout(START).is_err() {
            bail!("{program} did not begin within {START:?}");
        }
        Ok(process)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
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
