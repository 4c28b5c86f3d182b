//! `grey-ebpf` stepped from one system call to the next. What it forks (its guard, the helpers that write) runs freely.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use libc::{c_int, c_long};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::grey_ebpf;

/// One run takes less than a second even under emulation; what takes this long hangs.
const HANGS: Duration = Duration::from_secs(40);
/// Set by PTRACE_O_TRACESYSGOOD in the signal of a stop at a system call.
const AT_CALL: c_int = libc::SIGTRAP | 0x80;
#[cfg(target_env = "musl")]
type Request = c_int;
#[cfg(not(target_env = "musl"))]
type Request = libc::c_uint;

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Before the kernel does this call.
    Entry(c_long),
    /// After it.
    Exit(c_long),
}

impl Stop {
    pub(crate) fn call(self) -> c_long {
        match self {
            Stop::Entry(call) | Stop::Exit(call) => call,
        }
    }
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A `grey-ebpf` that stands at a system call. It is killed on drop and dies with the test.
pub(crate) struct Tracee {
    child: Child,
    /// Within a system call: the next stop is its exit.
    within: Option<c_long>,
    /// The signal it gets when it goes on.
    signal: c_int,
    status: Option<ExitStatus>,
    traced: bool,
    out: File,
    err: File,
    /// Whoever waits at the other end kills what hangs.
    _alive: Sender<()>,
}

impl Tracee {
    /// Starts it; it stands before its first instruction.
    pub(crate) fn start(args: &[String]) -> Result<Tracee> {
        let (out, err) = (memory()?, memory()?);
        let mut command = Command::new(grey_ebpf());
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(err.try_clone()?);
        let traced = || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // SAFETY: takes no pointers; its tracer is the thread that forks.
            let result = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
            if result < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes two system calls and does not allocate.
        unsafe { command.pre_exec(traced) };
        let child = command.spawn().context("start grey-ebpf")?;
        let pid = Pid::from_child(&child);
        let (alive, ended) = channel::<()>();
        std::thread::spawn(move || {
            if ended.recv_timeout(HANGS) == Err(RecvTimeoutError::Timeout) {
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        let mut tracee = Tracee {
            child,
            within: None,
            signal: 0,
            status: None,
            traced: true,
            out,
            err,
            _alive: alive,
        };
        let stopped = tracee.wait(libc::__WALL)?;
        ensure!(
            libc::WIFSTOPPED(stopped) && libc::WSTOPSIG(stopped) == libc::SIGTRAP,
            "no stop at its start: {stopped:#x}"
        );
        tracee.request(libc::PTRACE_SETOPTIONS, libc::PTRACE_O_TRACESYSGOOD as usize)?;
        Ok(tracee)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn raw(&self) -> c_int {
        self.child.id() as c_int
    }

    fn request(&self, request: Request, data: usize) -> Result<()> {
        // SAFETY: these requests take no address, and a number as data.
        let result = unsafe { libc::ptrace(request, self.raw(), 0_usize, data) };
        if result < 0 {
            let error = std::io::Error::last_os_error();
            bail!("ptrace request {request}: {error}");
        }
        Ok(())
    }

    fn wait(&mut self, flags: c_int) -> Result<c_int> {
        let mut status = 0;
        loop {
            // SAFETY: `status` is a valid place for one.
            let pid = unsafe { libc::waitpid(self.raw(), &raw mut status, flags) };
            if pid == self.raw() {
                break;
            }
            let error = std::io::Error::last_os_error();
            ensure!(
                error.kind() == std::io::ErrorKind::Interrupted,
                "wait for grey-ebpf: {error}"
            );
        }
        if !libc::WIFSTOPPED(status) {
            self.status = Some(ExitStatus::from_raw(status));
        }
        Ok(status)
    }

    /// On to the next stop; `None` at its end.
    pub(crate) fn step(&mut self) -> Result<Option<Stop>> {
        loop {
            let signal = std::mem::take(&mut self.signal);
            self.request(libc::PTRACE_SYSCALL, signal as usize)?;
            let status = self.wait(libc::__WALL)?;
            if self.status.is_some() {
                return Ok(None);
            }
            match libc::WSTOPSIG(status) {
                AT_CALL => {
                    let stop = match self.within.take() {
                        Some(call) => Stop::Exit(call),
                        None => {
                            let call = self.registers()?.orig_rax as c_long;
                            self.within = Some(call);
                            Stop::Entry(call)
                        }
                    };
                    return Ok(Some(stop));
                }
                signal => self.signal = signal,
            }
        }
    }

    pub(crate) fn registers(&self) -> Result<libc::user_regs_struct> {
        // SAFETY: plain numbers; zero is a value of each.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        let place = &raw mut registers;
        // SAFETY: the request fills exactly one such struct.
        let result = unsafe { libc::ptrace(libc::PTRACE_GETREGS, self.raw(), 0_usize, place) };
        ensure!(result >= 0, "registers: {}", std::io::Error::last_os_error());
        Ok(registers)
    }

    fn set_registers(&self, registers: &libc::user_regs_struct) -> Result<()> {
        let place = std::ptr::from_ref(registers);
        // SAFETY: the request reads exactly one such struct.
        let result = unsafe { libc::ptrace(libc::PTRACE_SETREGS, self.raw(), 0_usize, place) };
        ensure!(result >= 0, "registers: {}", std::io::Error::last_os_error());
        Ok(())
    }

    /// Whether the call it is about to make names a file at or below `dir`.
    pub(crate) fn names(&self, dir: &str) -> Result<bool> {
        let registers = self.registers()?;
        let at = match registers.orig_rax as c_long {
            libc::SYS_open | libc::SYS_mkdir | libc::SYS_stat | libc::SYS_lstat => registers.rdi,
            libc::SYS_openat
            | libc::SYS_openat2
            | libc::SYS_mkdirat
            | libc::SYS_newfstatat
            | libc::SYS_statx => registers.rsi,
            _ => return Ok(false),
        };
        let mut text = vec![0_u8; dir.len()];
        let ours = libc::iovec {
            iov_base: text.as_mut_ptr().cast(),
            iov_len: text.len(),
        };
        let its = libc::iovec {
            iov_base: at as *mut libc::c_void,
            iov_len: text.len(),
        };
        // SAFETY: one place of ours of that length; the other address is not dereferenced by us.
        let read = unsafe {
            libc::process_vm_readv(self.raw(), &raw const ours, 1, &raw const its, 1, 0)
        };
        Ok(read == text.len() as isize && text == dir.as_bytes())
    }

    /// Has the call that it stands before fail with `errno` instead of being made; it stands after it then.
    pub(crate) fn fail(&mut self, errno: c_int) -> Result<()> {
        let mut registers = self.registers()?;
        registers.orig_rax = u64::MAX;
        self.set_registers(&registers)?;
        let stop = self.step()?;
        ensure!(matches!(stop, Some(Stop::Exit(_))), "{stop:?} after a call that is left out");
        let mut registers = self.registers()?;
        registers.rax = i64::from(-errno) as u64;
        self.set_registers(&registers)
    }

    /// SIGKILL where it stands; it is gone when this returns.
    pub(crate) fn kill(&mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::KILL)?;
        while self.status.is_none() {
            self.wait(libc::__WALL)?;
        }
        Ok(())
    }

    /// Lets it go on by itself, or, with a signal, as that has it.
    pub(crate) fn release(&mut self, signal: c_int) -> Result<()> {
        self.traced = false;
        self.request(libc::PTRACE_DETACH, signal as usize)
    }

    pub(crate) fn go_on(&self) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::CONT)?)
    }

    /// Awaits its end and gives what it said.
    pub(crate) fn end(&mut self) -> Result<Ended> {
        let start = Instant::now();
        while self.status.is_none() {
            if self.traced {
                self.step()?;
            } else {
                self.wait(libc::__WALL)?;
            }
        }
        ensure!(start.elapsed() < HANGS, "hung and was killed: {}", self.said()?.1);
        let status = self.status.context("no status")?;
        let (stdout, stderr) = self.said()?;
        Ok(Ended {
            status,
            stdout,
            stderr,
        })
    }

    fn said(&mut self) -> Result<(String, String)> {
        Ok((text(&mut self.out)?, text(&mut self.err)?))
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = self.kill();
        }
    }
}

fn memory() -> Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    Ok(memfd_create("output", MemfdFlags::CLOEXEC)?.into())
}

fn text(file: &mut File) -> Result<String> {
    file.rewind()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}
