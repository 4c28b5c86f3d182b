//! Whom an argument means: one process, or all of a cgroup and below; each held by a pidfd, so that nobody who got its
//! number later is taken for it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use grey_core::view::printable;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::act::scene::Touch;
use crate::act::session::refused;
use crate::act::{Scene, Target};
use crate::cli::{Exit, Failure};
use crate::host::{ProcFs, ProcMem};

/// Most processes of one request; each is a descriptor.
pub(crate) const MAX_PROCESSES: usize = 512;
/// The kernel's largest pid is below (include/linux/threads.h: `PID_MAX_LIMIT`).
const PID_LIMIT: u64 = 4 << 20;

/// A process to act on.
#[derive(Debug)]
pub(crate) struct Process {
    pub pid: u32,
    pub comm: String,
    pub pidfd: OwnedFd,
}

impl Process {
    /// Whether it has not ended. What was read from /proc/PID before this says so is its own.
    pub(crate) fn lives(&self) -> bool {
        lives(self.pidfd.as_fd())
    }
}

fn lives(pidfd: BorrowedFd<'_>) -> bool {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&now)),
        Ok(0)
    )
}

/// What the argument named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Process,
    Cgroup,
}

/// Processes and where they are.
#[derive(Debug)]
pub(crate) struct Found {
    pub wanted: Wanted,
    /// `pid 123`, or the cgroup's path.
    pub name: String,
    /// The cgroup, or that of the process.
    pub target: Target,
    pub processes: Vec<Process>,
    /// Processes that are left alone, and why.
    pub left_out: Vec<String>,
}

/// Finds them.
///
/// # Errors
/// No such process or cgroup, or one without memory of its own (exit 2), privileges (3), protected (4).
pub(crate) fn find(scene: &Scene, argument: &str) -> Result<Found, Failure> {
    let number = argument.strip_prefix(['-', '+']).unwrap_or(argument);
    if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
        return one(scene, argument);
    }
    let target = scene.target(argument, Touch::Reclaim)?;
    let inside = |path: &str| {
        target.path == "/"
            || path == target.path
            || path
                .strip_prefix(&target.path)
                .is_some_and(|rest| rest.starts_with('/'))
    };
    let walk = scene
        .cgroups
        .walk()
        .map_err(|error| Failure::unsupported(error.to_string()))?;
    let mut proc = open(scene)?;
    let (mut processes, mut left_out) = (Vec::new(), Vec::new());
    for cgroup in walk.cgroups.iter().filter(|cgroup| inside(&cgroup.path)) {
        let pids = scene.cgroups.pids(&cgroup.path).unwrap_or_default();
        if pids.is_empty() {
            continue;
        }
        if cgroup.path != target.path
            && let Err(failure) = scene.target(&cgroup.path, Touch::Reclaim)
        {
            left_out.push(format!("left out: {}", failure.message));
            continue;
        }
        for pid in pids {
            // It may have ended meanwhile, or be one that nobody may touch: the others are still meant.
            match hold(scene, &mut proc, pid) {
                Ok(process) if processes.len() < MAX_PROCESSES => processes.push(process),
                Ok(_) => {
                    left_out.push(format!(
                        "left out: more than {MAX_PROCESSES} processes; name a cgroup below"
                    ));
                    break;
                }
                Err(failure) if failure.exit == Exit::Usage => {}
                Err(failure) if failure.exit == Exit::Refused => {
                    left_out.push(format!("left out: {}", failure.message));
                }
                Err(failure) => return Err(failure),
            }
        }
    }
    Ok(Found {
        wanted: Wanted::Cgroup,
        name: target.path.clone(),
        target,
        processes,
        left_out,
    })
}

fn one(scene: &Scene, argument: &str) -> Result<Found, Failure> {
    let pid = match argument.parse::<u64>() {
        Ok(pid) if (1..PID_LIMIT).contains(&pid) => pid as u32,
        _ => {
            return Err(Failure::usage(format!(
                "pid {argument}: a process id is between 1 and {}; `ps` lists them",
                PID_LIMIT - 1
            )));
        }
    };
    let mut proc = open(scene)?;
    let process = hold(scene, &mut proc, pid)?;
    let path = proc
        .cgroup(pid)
        .map_err(|error| Failure::unsupported(error.to_string()))?
        .ok_or_else(|| gone(pid))?;
    let target = scene.target(&path, Touch::Reclaim)?;
    if !process.lives() {
        return Err(gone(pid));
    }
    Ok(Found {
        wanted: Wanted::Process,
        name: format!("pid {pid}"),
        target,
        processes: vec![process],
        left_out: Vec::new(),
    })
}

fn open(scene: &Scene) -> Result<ProcFs, Failure> {
    ProcFs::open(&scene.host).map_err(|error| Failure::unsupported(error.to_string()))
}

fn gone(pid: u32) -> Failure {
    Failure::usage(format!(
        "pid {pid}: there is no such process; `ps` lists them"
    ))
}

/// Takes hold of a process and sees whether it may be touched.
fn hold(scene: &Scene, proc: &mut ProcFs, pid: u32) -> Result<Process, Failure> {
    if pid == 1 {
        return Err(refused("pid 1: is init, which is never touched"));
    }
    let number = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| gone(pid))?;
    let pidfd = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Err(gone(pid)),
        // A thread that leads no process: EINVAL, ENOENT since 6.9.
        Err(Errno::INVAL | Errno::NOENT) => {
            return Err(match proc.memory(pid) {
                Ok(Some(memory)) if memory.pid != pid => Failure::usage(format!(
                    "pid {pid}: is a thread of process {}; name that one",
                    memory.pid
                )),
                _ => gone(pid),
            });
        }
        Err(Errno::NOSYS) => {
            return Err(Failure::unsupported(
                "pidfd_open: not in this kernel; processes can be paged out since Linux 5.10",
            ));
        }
        Err(error) => {
            return Err(Failure::failed(format!(
                "pid {pid}: pidfd_open: {}",
                std::io::Error::from(error)
            )));
        }
    };
    let memory = proc
        .memory(pid)
        .map_err(|error| Failure::unsupported(error.to_string()))?
        .filter(|_| lives(pidfd.as_fd()))
        .ok_or_else(|| gone(pid))?;
    if same_program(scene, pid) {
        return Err(refused(format!(
            "pid {pid}: is grey-ebpf itself, which is never touched"
        )));
    }
    let ProcMem { comm, rss, .. } = memory;
    if rss.is_none() {
        return Err(Failure::usage(format!(
            "pid {pid} ({}): has no memory of its own: it is a kernel thread or has ended",
            printable(&comm)
        )));
    }
    Ok(Process { pid, comm, pidfd })
}

/// Whether it runs the program that we are: ourselves, the guard, a helper, the daemon.
fn same_program(scene: &Scene, pid: u32) -> bool {
    let file = |who: &str| {
        rustix::fs::stat(scene.host.path(format!("/proc/{who}/exe")))
            .map(|stat| (stat.st_dev, stat.st_ino))
            .ok()
    };
    pid == std::process::id() || file("self").is_some_and(|own| file(&pid.to_string()) == Some(own))
}
