//! The thread that listens: a socket in the abstract namespace, one question a connection.
//!
//! It has a table of descriptors of its own (CLOSE_RANGE_UNSHARE): the program never sees our socket, does not inherit it
//! to its children, cannot close it by accident, and its own descriptors are not held open by us.

use core::fmt::Write as _;

use linux_raw_sys::{errno, general, net};

use crate::own_accord::Watch;
use crate::protocol::{self, Request};
use crate::sys::{self, Errno, Fd};
use crate::text::Line;
use crate::work;

/// Connections that wait for their turn.
const BACKLOG: usize = 16;
/// How long somebody who is connected may take to ask, microseconds.
const ASK_WITHIN_US: i64 = 200_000;
/// A predecessor of this process (before exec) may still be on its way out.
const TRIES: u32 = 50;
const ADDRINUSE: Errno = Errno(errno::EADDRINUSE as i32);
const AGAIN_US: u64 = 10_000;
/// Of `close_range`: the table becomes the caller's own first.
const CLOSE_RANGE_UNSHARE: usize = 1 << 1;
/// As O_CLOEXEC (include/linux/net.h).
const SOCK_CLOEXEC: u32 = general::O_CLOEXEC;

/// The address of a process's socket: `grey-release/1/` its pid namespace's inode `/` its pid in there. Both, since one
/// network namespace may hold processes of several pid namespaces.
fn address() -> Option<(net::sockaddr_un, usize)> {
    let namespace = sys::stat(b"/proc/self/ns/pid\0")?.st_ino;
    let mut name = Line::<100>::new();
    write!(name, "{}/{namespace}/{}", protocol::VERSION, sys::pid()).ok()?;
    let mut address = net::sockaddr_un {
        sun_family: net::AF_UNIX as net::__kernel_sa_family_t,
        sun_path: [0; 108],
    };
    // A zero in front makes it abstract.
    let room = address.sun_path.get_mut(1..)?;
    for (to, from) in room.iter_mut().zip(name.bytes()) {
        *to = *from as core::ffi::c_char;
    }
    let size = size_of::<net::__kernel_sa_family_t>() + 1 + name.bytes().len();
    Some((address, size))
}

fn socket() -> Result<Fd, Errno> {
    let kind = net::SOCK_SEQPACKET | SOCK_CLOEXEC;
    let args = [net::AF_UNIX as usize, kind as usize, 0, 0, 0, 0];
    // SAFETY: takes numbers.
    unsafe { sys::call(general::__NR_socket, args) }.map(|fd| Fd(fd as i32))
}

fn listener() -> Option<Fd> {
    let (address, size) = address()?;
    let fd = socket().ok()?;
    let bind = [fd.0 as usize, (&raw const address) as usize, size, 0, 0, 0];
    for _ in 0..TRIES {
        // SAFETY: the address is as long as told.
        match unsafe { sys::call(general::__NR_bind, bind) } {
            Ok(_) => {
                let listen = [fd.0 as usize, BACKLOG, 0, 0, 0, 0];
                // SAFETY: takes numbers.
                return unsafe { sys::call(general::__NR_listen, listen) }
                    .ok()
                    .map(|_| fd);
            }
            Err(ADDRINUSE) => sys::sleep_us(AGAIN_US),
            Err(_) => return None,
        }
    }
    None
}

/// Leaves the program's table of descriptors.
fn own_descriptors() -> bool {
    let args = [0, u32::MAX as usize, CLOSE_RANGE_UNSHARE, 0, 0, 0];
    // SAFETY: closes descriptors of a copy of the table that only this thread has.
    unsafe { sys::call(general::__NR_close_range, args) }.is_ok()
}

/// Answers until it is told to end, or cannot listen.
pub(crate) fn serve(mut watch: Option<Watch>) {
    if !own_descriptors() {
        // In the program's table our socket could be closed and its number be another's: rather not at all.
        return;
    }
    let listener = listener();
    if listener.is_none() && watch.is_none() {
        return;
    }
    loop {
        match (wait(listener.as_ref(), watch.as_ref()), &listener) {
            (Ok(true), Some(listener)) => {
                if let Ok(peer) = accept(listener)
                    && answer(&peer) == Next::End
                {
                    return;
                }
            }
            (Ok(_), _) => {
                if let Some(watch) = &mut watch {
                    watch.look();
                }
            }
            (Err(sys::INTR), _) => {}
            // Nothing that waiting longer would change; do not spin.
            (Err(_), _) => sys::sleep_us(1_000_000),
        }
    }
}

/// Waits for a connection, or for the time of the next look; whether there is a connection.
fn wait(listener: Option<&Fd>, watch: Option<&Watch>) -> Result<bool, Errno> {
    let mut poll = general::pollfd {
        fd: listener.map_or(-1, |fd| fd.0),
        events: general::POLLIN as i16,
        revents: 0,
    };
    let time = watch.map(|watch| {
        let ms = watch.settings.interval_ms;
        [(ms / 1000) as i64, (ms % 1000 * 1_000_000) as i64]
    });
    let timeout = time.as_ref().map_or(0, |time| time.as_ptr() as usize);
    let args = [(&raw mut poll) as usize, 1, timeout, 0, 0, 0];
    // SAFETY: one entry, and a time of two 64-bit numbers or none.
    unsafe { sys::call(general::__NR_ppoll, args) }.map(|ready| ready > 0)
}

fn accept(listener: &Fd) -> Result<Fd, Errno> {
    let args = [listener.0 as usize, 0, 0, SOCK_CLOEXEC as usize, 0, 0];
    // SAFETY: nobody's address is asked for.
    unsafe { sys::call(general::__NR_accept4, args) }.map(|fd| Fd(fd as i32))
}

/// Whether to go on listening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Listen,
    End,
}

/// Hears one question and answers it. Strangers and what is no question get nothing.
fn answer(peer: &Fd) -> Next {
    let Some(asker) = credentials(peer) else {
        return Next::Listen;
    };
    if asker.uid != 0 && asker.uid != sys::euid() {
        return Next::Listen;
    }
    let mut buf = [0; protocol::LONGEST + 1];
    let Some(request) = hear(peer, &mut buf).and_then(protocol::parse) else {
        return Next::Listen;
    };
    let answer = match request {
        Request::Stat { wait_ms } => work::stat(wait_ms),
        Request::Trim { collector, wait_ms } => work::trim(collector, wait_ms),
        Request::End if asker.pid == sys::pid() => return Next::End,
        Request::End => return Next::Listen,
    };
    send(peer, answer.bytes());
    Next::Listen
}

fn credentials(peer: &Fd) -> Option<net::ucred> {
    let mut of = net::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut size = size_of::<net::ucred>() as u32;
    let args = [
        peer.0 as usize,
        net::SOL_SOCKET as usize,
        net::SO_PEERCRED as usize,
        (&raw mut of) as usize,
        (&raw mut size) as usize,
        0,
    ];
    // SAFETY: the struct is as long as told.
    unsafe { sys::call(general::__NR_getsockopt, args) }.ok()?;
    Some(of)
}

/// One message, if it is no longer than a question.
fn hear<'a>(peer: &Fd, buf: &'a mut [u8]) -> Option<&'a [u8]> {
    let time = [0_i64, ASK_WITHIN_US];
    let limit = [
        peer.0 as usize,
        net::SOL_SOCKET as usize,
        net::SO_RCVTIMEO as usize,
        time.as_ptr() as usize,
        size_of_val(&time),
        0,
    ];
    let receive = [
        peer.0 as usize,
        buf.as_mut_ptr() as usize,
        buf.len(),
        0,
        0,
        0,
    ];
    // SAFETY: a time of two 64-bit numbers, and a buffer as long as told.
    let got = unsafe {
        sys::call(general::__NR_setsockopt, limit).ok()?;
        sys::call(general::__NR_recvfrom, receive).ok()?
    };
    buf.get(..got).filter(|got| got.len() <= protocol::LONGEST)
}

fn send(peer: &Fd, bytes: &[u8]) {
    let flags = (net::MSG_NOSIGNAL | net::MSG_DONTWAIT) as usize;
    let args = [
        peer.0 as usize,
        bytes.as_ptr() as usize,
        bytes.len(),
        flags,
        0,
        0,
    ];
    // Whoever does not wait for the answer does not get it.
    // SAFETY: the buffer is as long as told.
    let _ = unsafe { sys::call(general::__NR_sendto, args) };
}

/// From a thread of the program: tells our thread to end. Its descriptor is in the program's table for a moment.
pub(crate) fn tell_to_end() -> bool {
    let Some((address, size)) = address() else {
        return false;
    };
    let Ok(fd) = socket() else {
        return false;
    };
    let args = [fd.0 as usize, (&raw const address) as usize, size, 0, 0, 0];
    // SAFETY: the address is as long as told.
    if unsafe { sys::call(general::__NR_connect, args) }.is_err() {
        return false;
    }
    send(&fd, b"grey-release/1 end\n");
    true
}
