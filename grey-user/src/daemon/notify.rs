//! What systemd wants to hear (sd_notify(3)): datagrams to `$NOTIFY_SOCKET`. Without one nobody is told.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

#[cfg(test)]
mod tests;

/// A line of status is cut to this.
const MOST_STATUS: usize = 512;

/// The way to the service manager.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// As the environment says.
    ///
    /// # Errors
    /// `$NOTIFY_SOCKET` leads nowhere, or is of a kind we do not speak.
    pub fn from_env() -> io::Result<Notify> {
        let socket = std::env::var_os("NOTIFY_SOCKET");
        let watchdog = std::env::var("WATCHDOG_USEC").ok();
        let pid = std::env::var("WATCHDOG_PID").ok();
        Notify::new(
            socket.as_deref(),
            period(watchdog.as_deref(), pid.as_deref(), std::process::id()),
        )
    }

    fn new(socket: Option<&OsStr>, watchdog: Option<Duration>) -> io::Result<Notify> {
        let Some(name) = socket.filter(|name| !name.is_empty()) else {
            return Ok(Notify::default());
        };
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::Error::other("is neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        // A manager that does not read must not hold us up.
        socket.set_nonblocking(true)?;
        Ok(Notify {
            socket: Some(socket),
            watchdog,
        })
    }

    /// How often it has to be said that we live: half of what the manager waits for.
    #[must_use]
    pub fn every(&self) -> Option<Duration> {
        self.watchdog.map(|period| period / 2)
    }

    /// We are up, or have reloaded; `systemctl status` shows the text.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", line(status)));
    }

    /// We read the configuration again; [`Notify::ready`] ends it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let us = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={us}"));
    }

    /// We end.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// We live.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// The next message says it again: one that is lost is no reason to end.
    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            tracing::warn!("the service manager was not told {message:?}: {error}");
        }
    }
}

/// The manager's time for the process `pid`; none where it means another one, or none at all.
fn period(us: Option<&str>, of: Option<&str>, pid: u32) -> Option<Duration> {
    let us: u64 = us?.parse().ok().filter(|us| *us > 0)?;
    match of {
        Some(of) if of.parse() != Ok(pid) => None,
        _ => Some(Duration::from_micros(us)),
    }
}

/// One line of a message: a line break would begin another field.
fn line(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let end = text.floor_char_boundary(MOST_STATUS);
    text[..end].to_owned()
}
