//! Asking the agent: one connection, one question, one answer, and the time it may take.
//!
//! Its socket is in the abstract namespace of the process's network namespace, which is entered for the time of the
//! connection where it is another than ours. The kernel tells who listens there (SO_PEERCRED), so that nobody else is
//! taken for the agent.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use thiserror::Error;

use crate::act::fork::readable;
use crate::host::Host;

use super::{Answer, VERSION};

/// How long it may take until somebody accepts: others may be asking.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks at whether the caller wants to go on.
const TICK: Duration = Duration::from_millis(50);
/// The longest answer.
const LONGEST: usize = 4096;

/// What the agent is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// What the allocator holds.
    Stat {
        /// How long a program of one thread is waited for to come to rest.
        wait: Duration,
    },
    /// To give back.
    Trim {
        /// Have the runtime's collector run first.
        collector: bool,
        /// How long the collector is waited for, and then as with `Stat`.
        wait: Duration,
    },
}

impl Question {
    fn line(self) -> String {
        match self {
            Question::Stat { wait } => format!("{VERSION} stat wait_ms={}\n", wait.as_millis()),
            Question::Trim { collector, wait } => format!(
                "{VERSION} trim collector={} wait_ms={}\n",
                if collector { "yes" } else { "no" },
                wait.as_millis()
            ),
        }
    }

    /// How long it may take until somebody accepts: who does not wait for the program does not wait for that either.
    fn patience(self) -> Duration {
        match self {
            Question::Stat { wait } if wait.is_zero() => TICK,
            Question::Stat { .. } | Question::Trim { .. } => CONNECT_WITHIN,
        }
    }

    /// After this time no answer is one. Trimming itself takes milliseconds a GiB, and longer on a loaded machine.
    fn within(self) -> Duration {
        let (Question::Stat { wait } | Question::Trim { wait, .. }) = self;
        wait * 2 + Duration::from_secs(30)
    }
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AgentError {
    /// Nobody listens.
    #[error(
        "no agent listens in it: it is switched off (GREY_RELEASE=off), or this is the forked child of a program with threads"
    )]
    Nobody,
    /// Somebody else listens at its address.
    #[error("pid {0} listens at its address, and is not taken for it")]
    Another(i32),
    /// Not root, nor the process's user.
    #[error("its namespaces cannot be read ({0}); run it as root or as its user")]
    Denied(io::Error),
    /// It hung up without an answer.
    #[error(
        "its agent takes no orders from this user; it does from root and its own user, each as its user namespace sees them"
    )]
    Refused,
    /// It said something else.
    #[error("its agent speaks another version of the protocol: {0:?}")]
    Version(String),
    /// No answer in time.
    #[error("its agent gave no answer within {} s; the process may be stopped or frozen", .0.as_secs())]
    Silent(Duration),
    /// The caller broke it off.
    #[error("broken off")]
    BrokenOff,
    /// Anything else.
    #[error("{0}: {1}")]
    Other(&'static str, io::Error),
}

/// Asks the agent of a process. `go_on` is asked about twenty times a second whether to wait any longer.
///
/// # Errors
/// There is no agent, it does not answer, or the caller does not want to wait.
pub fn ask(
    host: &Host,
    pid: u32,
    question: Question,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Answer, AgentError> {
    let socket = reach(host, pid, question.patience())?;
    let line = question.line();
    match send(&socket, line.as_bytes(), SendFlags::NOSIGNAL) {
        Ok(_) => {}
        Err(Errno::PIPE | Errno::CONNRESET) => return Err(AgentError::Refused),
        Err(error) => return Err(AgentError::Other("send", error.into())),
    }
    let end = Instant::now() + question.within();
    while !readable(&socket, TICK) {
        if !go_on() {
            return Err(AgentError::BrokenOff);
        }
        if Instant::now() >= end {
            return Err(AgentError::Silent(question.within()));
        }
    }
    let mut buf = [0; LONGEST];
    let length = match recv(&socket, &mut buf[..], RecvFlags::DONTWAIT) {
        Ok((0, _)) | Err(Errno::CONNRESET) => return Err(AgentError::Refused),
        Ok((length, _)) => length,
        Err(error) => return Err(AgentError::Other("receive", error.into())),
    };
    let text = String::from_utf8_lossy(&buf[..length.min(LONGEST)]).into_owned();
    Answer::parse(&text).ok_or(AgentError::Version(text))
}

/// Connects, and sees that it is the process itself that listens.
fn reach(host: &Host, pid: u32, patience: Duration) -> Result<OwnedFd, AgentError> {
    let inode = |of: &str, kind: &str| {
        let path = host.path(format!("/proc/{of}/ns/{kind}"));
        std::fs::metadata(path).map(|meta| meta.ino())
    };
    let target = pid.to_string();
    let name = format!(
        "{VERSION}/{}/{}",
        inode(&target, "pid").map_err(AgentError::Denied)?,
        pid_inside(host, pid).map_err(AgentError::Denied)?
    );
    let elsewhere = inode("self", "net").map_err(AgentError::Denied)?
        != inode(&target, "net").map_err(AgentError::Denied)?;
    let connected = if elsewhere {
        let path = host.path(format!("/proc/{pid}/ns/net"));
        let namespace = File::open(path).map_err(AgentError::Denied)?;
        // A network namespace is a thread's own; a socket keeps the one it was made in.
        let there = std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| AgentError::Denied(error.into()))?;
            connected(&name, patience)
        });
        there
            .join()
            .unwrap_or_else(|_| Err(AgentError::Other("thread", io::Error::other("panicked"))))
    } else {
        connected(&name, patience)
    }?;
    let peer = listener(&connected).map_err(|error| AgentError::Other("SO_PEERCRED", error))?;
    if i64::from(peer) != i64::from(pid) {
        return Err(AgentError::Another(peer));
    }
    Ok(connected)
}

/// Who listens at the other end; 0 for somebody whom our pid namespace does not have.
fn listener(socket: &OwnedFd) -> io::Result<i32> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut size = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the struct is as long as told.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut size,
        )
    };
    if failed == 0 {
        Ok(peer.pid)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn connected(name: &str, patience: Duration) -> Result<OwnedFd, AgentError> {
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes())
        .map_err(|error| AgentError::Other("address", error.into()))?;
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(|error| AgentError::Other("socket", error.into()))?;
    let end = Instant::now() + patience;
    loop {
        match connect(&socket, &address) {
            Ok(()) => return Ok(socket),
            // Its queue is full.
            Err(Errno::AGAIN) if Instant::now() < end => std::thread::sleep(TICK / 10),
            Err(Errno::AGAIN) => return Err(AgentError::Silent(patience)),
            Err(Errno::CONNREFUSED) => return Err(AgentError::Nobody),
            Err(error) => return Err(AgentError::Other("connect", error.into())),
        }
    }
}

/// The process's id in its own pid namespace: the last of `NSpid`.
fn pid_inside(host: &Host, pid: u32) -> io::Result<u32> {
    let status = std::fs::read_to_string(host.path(format!("/proc/{pid}/status")))?;
    let inner = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .and_then(|all| all.split_whitespace().last())
        .and_then(|pid| pid.parse().ok());
    // A kernel without pid namespaces has no such line.
    Ok(inner.unwrap_or(pid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Tree;

    #[test]
    fn a_process_in_a_container_is_addressed_by_its_pid_in_there() {
        let tree = Tree::new();
        tree.file("/proc/77/status", "Name:\tx\nNSpid:\t77\t5\t1\n");
        tree.file("/proc/78/status", "Name:\tx\n");
        assert_eq!(pid_inside(&tree.host(), 77).unwrap(), 1);
        assert_eq!(pid_inside(&tree.host(), 78).unwrap(), 78);
        assert!(pid_inside(&tree.host(), 79).is_err());
    }

    #[test]
    fn a_question_is_one_line_of_this_version() {
        let wait = Duration::from_millis(1500);
        assert_eq!(
            Question::Trim {
                collector: true,
                wait
            }
            .line(),
            "grey-release/1 trim collector=yes wait_ms=1500\n"
        );
        assert_eq!(
            Question::Stat { wait }.line(),
            "grey-release/1 stat wait_ms=1500\n"
        );
    }
}
