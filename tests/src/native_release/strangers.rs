//! Who may speak to the agent, and what comes of what is no question.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use grey_user::act::agent::{Question, VERSION};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with, sockopt,
};

use crate::harness::{Outcome, Trial};

use super::guest::{Bench, Guest, absent, status};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "native_release_ten_thousand_hostile_messages_change_nothing",
            hostile,
        ),
        Trial::new("native_release_a_foreign_user_gets_nothing", foreign),
    ]
}

/// Where a process's agent listens. Looking at the process takes its user's rights.
fn address(pid: u32) -> Result<SocketAddrUnix> {
    let namespace = std::fs::metadata(format!("/proc/{pid}/ns/pid"))?.ino();
    let name = format!("{VERSION}/{namespace}/{pid}");
    Ok(SocketAddrUnix::new_abstract_name(name.as_bytes())?)
}

fn connected(address: &SocketAddrUnix) -> Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sockopt::set_socket_timeout(
        &socket,
        sockopt::Timeout::Recv,
        Some(Duration::from_secs(5)),
    )?;
    connect(&socket, address).context("connect")?;
    Ok(socket)
}

fn connection(pid: u32) -> Result<OwnedFd> {
    connected(&address(pid)?)
}

/// What is answered to this message, an empty text for nothing.
fn told(pid: u32, message: &[u8]) -> Result<String> {
    let socket = connection(pid)?;
    match send(&socket, message, SendFlags::NOSIGNAL) {
        Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => {}
        Err(error) => return Err(error).context("send"),
    }
    let mut buf = [0; 4096];
    match recv(&socket, &mut buf[..], RecvFlags::empty()) {
        Ok((length, _)) => Ok(String::from_utf8_lossy(&buf[..length]).into_owned()),
        Err(Errno::CONNRESET | Errno::PIPE) => Ok(String::new()),
        Err(error) => Err(error).context("receive"),
    }
}

fn hostile() -> Result<Outcome> {
    let bench = Bench::new("release-hostile")?;
    let Some(program) = bench.c("fragment", &["4"])? else {
        return absent("cc");
    };
    let guest = Guest::start(program)?;
    let pid = guest.pid();
    guest.trim()?;
    let before = guest.resident()?;
    let good = format!("{VERSION} stat wait_ms=100\n");
    let mut number = 0x2545_f491_4f6c_dd1d_u64;
    for turn in 0..10_000_u32 {
        // A question of ours with bytes of it changed, cut, repeated, or none of it.
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        let mut message = good.clone().into_bytes();
        match turn % 5 {
            0 => message = number.to_le_bytes().repeat((number % 600) as usize),
            1 => message.truncate((number % 25) as usize),
            2 => message = message.repeat(2 + (number % 5) as usize),
            3 => message = vec![0; (number % 300) as usize],
            _ => {
                let at = (number as usize >> 8) % VERSION.len();
                message[at] = b'!';
            }
        }
        let answer = told(pid, &message).with_context(|| format!("turn {turn}"))?;
        ensure!(answer.is_empty(), "{message:?} was answered {answer:?}");
    }
    ensure!(
        told(pid, good.as_bytes())?.starts_with(VERSION),
        "it does not answer any more"
    );
    let after = guest.resident()?;
    ensure!(after < before + (256 << 10), "{before} -> {after}");
    ensure!(status(pid, "Threads:")? == 2, "another number of threads");
    guest.finish_whole()?;
    Ok(Outcome::Passed)
}

fn foreign() -> Result<Outcome> {
    if !rustix::process::geteuid().is_root() {
        return Outcome::skipped("only root can be somebody else");
    }
    let bench = Bench::new("release-foreign")?;
    let Some(program) = bench.c("fragment", &["4"])? else {
        return absent("cc");
    };
    let guest = Guest::start(program)?;
    // Root's process: nobody may not speak to it, root may.
    guest.ask(Question::Stat {
        wait: Duration::from_millis(200),
    })?;
    let pid = guest.pid();
    let answer = std::thread::spawn(move || -> Result<String> {
        // A thread of its own may have a user of its own.
        let (uid, gid) = (
            rustix::process::Uid::from_raw(65_534),
            rustix::process::Gid::from_raw(65_534),
        );
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        let address = address(pid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        let socket = connected(&address)?;
        let _ = send(
            &socket,
            format!("{VERSION} trim collector=no wait_ms=0\n").as_bytes(),
            SendFlags::NOSIGNAL,
        );
        let mut buf = [0; 4096];
        match recv(&socket, &mut buf[..], RecvFlags::empty()) {
            Ok((length, _)) => Ok(String::from_utf8_lossy(&buf[..length]).into_owned()),
            Err(Errno::CONNRESET | Errno::PIPE) => Ok(String::new()),
            Err(error) => Err(error).context("receive"),
        }
    })
    .join();
    let answer = answer.map_err(|_| anyhow::anyhow!("the thread panicked"))??;
    ensure!(answer.is_empty(), "{answer:?}");
    guest.finish_whole()?;
    Ok(Outcome::Passed)
}
