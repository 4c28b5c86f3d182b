//! `grey-ebpf` stepped from one system call to the next. What it forks (its guard, the helpers that write) runs freely.
//!
//! Stepping is slow, above all in an emulated kernel. So it runs on its own from landmark to landmark: calls that only a
//! controller makes, told by a seccomp(2) filter, and that come in the same order in each run.

use std::collections::BTreeSet;
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

/// What the filter lets through, and what it stops at.
const ALLOW: u32 = 0x7fff_0000;
const TRACE: u32 = 0x7ff0_0000;

/// Stops at mkdir(2) (the folder of the journal), and at the opening of a knob, which is done by openat2(2), or without a
/// controlling terminal. Guard and helpers, who have the filter too, do none of that.
fn landmarks() -> [libc::sock_filter; 9] {
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const ANY_BIT: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const NUMBER: u32 = 0;
    const THIRD: u32 = 32;
    let line = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    [
        line(LOAD, NUMBER, 0, 0),
        line(EQUAL, libc::SYS_mkdir as u32, 6, 0),
        line(EQUAL, libc::SYS_mkdirat as u32, 5, 0),
        line(EQUAL, libc::SYS_openat2 as u32, 4, 0),
        line(EQUAL, libc::SYS_openat as u32, 0, 2),
        line(LOAD, THIRD, 0, 0),
        line(ANY_BIT, libc::O_NOCTTY as u32, 1, 0),
        line(RETURN, ALLOW, 0, 0),
        line(RETURN, TRACE, 0, 0),
    ]
}

/// Where it stands.
#[derive(Clone, Copy, Debug)]
enum Stop {
    /// Before a call that is a landmark.
    Landmark,
    /// Before the kernel does this call.
    Entry(Call),
    /// After one.
    Exit,
}

/// A system call with its arguments.
#[derive(Clone, Copy, Debug)]
struct Call {
    number: c_long,
    args: [u64; 4],
}

/// Calls that leave nothing behind outside the process and do not wait: a process that ends after one and a process that
/// ends before it leave the same.
const LOOKS: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_stat,
    libc::SYS_fstat,
    libc::SYS_lstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_geteuid,
    libc::SYS_getuid,
    libc::SYS_clock_gettime,
    libc::SYS_sched_getaffinity,
    libc::SYS_getrandom,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_pidfd_open,
];

/// As the filter has it.
fn is_landmark(call: Call) -> bool {
    match call.number {
        libc::SYS_mkdir | libc::SYS_mkdirat | libc::SYS_openat2 => true,
        libc::SYS_openat => call.args[2] & libc::O_NOCTTY as u64 != 0,
        _ => false,
    }
}

/// This thread, and whatever it starts, on one CPU. The tracer of a process on another one is put to sleep for a whole
/// tick of the kernel's clock at nearly each stop (`wait_task_inactive`).
pub(crate) fn pin(cpu: usize) -> Result<()> {
    // SAFETY: a set of bits; zero is the empty one.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    ensure!(
        result == 0,
        "CPU {cpu}: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A call that is no landmark.
    Call(c_long),
    Landmark,
    End,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    #[expect(dead_code, reason = "told where a test fails")]
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A `grey-ebpf` that stands at a system call. It is killed on drop and dies with the test.
pub(crate) struct Tracee {
    child: Child,
    /// Within a system call: the next stop is its exit.
    within: Option<Call>,
    /// Descriptors that were opened for nothing but looking: their closing changes nothing.
    looks: BTreeSet<u64>,
    /// Whether the last call may have changed anything outside the process, or let time pass.
    changed: bool,
    /// The signal it gets when it goes on.
    signal: c_int,
    status: Option<ExitStatus>,
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
        let filter = landmarks();
        let traced = move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // SAFETY: takes no pointers; its tracer is the thread that forks.
            let result = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
            if result < 0 {
                return Err(std::io::Error::last_os_error());
            }
            let filter = libc::sock_fprog {
                len: filter.len() as u16,
                filter: filter.as_ptr().cast_mut(),
            };
            // SAFETY: the kernel copies a filter of that length.
            let result = unsafe {
                libc::prctl(
                    libc::PR_SET_SECCOMP,
                    libc::SECCOMP_MODE_FILTER,
                    &raw const filter,
                )
            };
            if result < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes three system calls and does not allocate.
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
            looks: BTreeSet::new(),
            changed: true,
            signal: 0,
            status: None,
            out,
            err,
            _alive: alive,
        };
        let stopped = tracee.wait(libc::__WALL)?;
        ensure!(
            libc::WIFSTOPPED(stopped) && libc::WSTOPSIG(stopped) == libc::SIGTRAP,
            "no stop at its start: {stopped:#x}"
        );
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACESECCOMP;
        tracee.request(libc::PTRACE_SETOPTIONS, options as usize)?;
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
    fn step(&mut self, request: Request) -> Result<Option<Stop>> {
        loop {
            let signal = std::mem::take(&mut self.signal);
            self.request(request, signal as usize)?;
            let status = self.wait(libc::__WALL)?;
            if self.status.is_some() {
                return Ok(None);
            }
            match (libc::WSTOPSIG(status), status >> 16) {
                (AT_CALL, _) => {
                    let stop = match self.within.take() {
                        Some(call) => {
                            self.note(call)?;
                            Stop::Exit
                        }
                        None => {
                            let call = self.call()?;
                            self.within = Some(call);
                            Stop::Entry(call)
                        }
                    };
                    return Ok(Some(stop));
                }
                (_, libc::PTRACE_EVENT_SECCOMP) => {
                    self.within = Some(self.call()?);
                    return Ok(Some(Stop::Landmark));
                }
                (signal, _) => self.signal = signal,
            }
        }
    }

    /// Runs to the next landmark and stands before it; false at its end.
    pub(crate) fn run_to_landmark(&mut self) -> Result<bool> {
        // What was called on the way is not known.
        self.changed = true;
        Ok(self.step(libc::PTRACE_CONT)?.is_some())
    }

    /// On to the next call; it stands before it.
    pub(crate) fn next_call(&mut self) -> Result<Next> {
        loop {
            match self.step(libc::PTRACE_SYSCALL)? {
                None => return Ok(Next::End),
                Some(Stop::Exit) => {}
                Some(Stop::Entry(call)) if is_landmark(call) => {}
                Some(Stop::Entry(call)) => return Ok(Next::Call(call.number)),
                Some(Stop::Landmark) => return Ok(Next::Landmark),
            }
        }
    }

    fn call(&self) -> Result<Call> {
        let registers = self.registers()?;
        Ok(Call {
            number: registers.orig_rax as c_long,
            args: [registers.rdi, registers.rsi, registers.rdx, registers.r10],
        })
    }

    /// The call that it stands before.
    pub(crate) fn standing_before(&self) -> Result<c_long> {
        Ok(self.within.context("it stands before no call")?.number)
    }

    /// What a call that was made comes to.
    fn note(&mut self, call: Call) -> Result<()> {
        let made = libc::O_CREAT | libc::O_TRUNC;
        self.changed = match call.number {
            libc::SYS_openat2 => false,
            libc::SYS_open => call.args[1] & made as u64 != 0,
            libc::SYS_openat => call.args[2] & made as u64 != 0,
            libc::SYS_close => !self.looks.remove(&call.args[0]),
            number => !LOOKS.contains(&number),
        };
        match call.number {
            libc::SYS_open | libc::SYS_openat | libc::SYS_openat2 if !self.changed => {
                self.looks.insert(self.registers()?.rax);
            }
            // Its closing lets go of the lock.
            libc::SYS_flock => {
                self.looks.remove(&call.args[0]);
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the call before this point may have changed anything: else it is the same as the point before.
    pub(crate) fn is_new(&self) -> bool {
        self.changed
    }

    pub(crate) fn registers(&self) -> Result<libc::user_regs_struct> {
        // SAFETY: plain numbers; zero is a value of each.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        let place = &raw mut registers;
        // SAFETY: the request fills exactly one such struct.
        let result = unsafe { libc::ptrace(libc::PTRACE_GETREGS, self.raw(), 0_usize, place) };
        ensure!(
            result >= 0,
            "registers: {}",
            std::io::Error::last_os_error()
        );
        Ok(registers)
    }

    fn set_registers(&self, registers: &libc::user_regs_struct) -> Result<()> {
        let place = std::ptr::from_ref(registers);
        // SAFETY: the request reads exactly one such struct.
        let result = unsafe { libc::ptrace(libc::PTRACE_SETREGS, self.raw(), 0_usize, place) };
        ensure!(
            result >= 0,
            "registers: {}",
            std::io::Error::last_os_error()
        );
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
        let read =
            unsafe { libc::process_vm_readv(self.raw(), &raw const ours, 1, &raw const its, 1, 0) };
        Ok(read == text.len() as isize && text == dir.as_bytes())
    }

    /// Has the call that it stands before fail with `errno` instead of being made; it stands after it then.
    pub(crate) fn fail(&mut self, errno: c_int) -> Result<()> {
        let mut registers = self.registers()?;
        registers.orig_rax = u64::MAX;
        self.set_registers(&registers)?;
        let stop = self.step(libc::PTRACE_SYSCALL)?;
        ensure!(
            matches!(stop, Some(Stop::Exit)),
            "{stop:?} after a call that is left out"
        );
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

    /// Lets it go on, awaits its end and gives what it said. It is traced to the last: the filter needs a tracer.
    pub(crate) fn end(&mut self) -> Result<Ended> {
        let start = Instant::now();
        while self.status.is_none() {
            self.step(libc::PTRACE_CONT)?;
        }
        ensure!(
            start.elapsed() < HANGS,
            "hung and was killed: {}",
            self.said()?.1
        );
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
