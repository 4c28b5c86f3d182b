//! Redis over a Unix socket, without persistence.

use std::os::unix::net::UnixStream;
use std::process::Command;

use anyhow::Result;
use rustix::process::Signal;

use super::server::Server;
use super::{Application, Scene, output};

/// Of each kind in a burst.
const REQUESTS: u32 = 60_000;

struct Redis {
    client: Command,
    _server: Server,
}

/// Server and client.
///
/// # Errors
/// The server does not start.
pub fn prepare(scene: &Scene) -> Result<Box<dyn Application>> {
    let socket = scene.path("redis.sock");
    let mut server = scene.command("redis-server")?;
    server
        .args(["--port", "0", "--save", "", "--appendonly", "no"])
        .arg("--unixsocket")
        .arg(&socket)
        .arg("--dir")
        .arg(scene.path(""));
    let server = Server::start(&mut server, Signal::TERM, || {
        UnixStream::connect(&socket).is_ok()
    })?;
    let mut client = scene.command("redis-benchmark")?;
    client
        .arg("-s")
        .arg(&socket)
        .args(["-t", "set,get", "-q", "-c", "20", "-d", "64", "-r", "50000"])
        .args(["-n", &REQUESTS.to_string()]);
    Ok(Box::new(Redis {
        client,
        _server: server,
    }))
}

impl Application for Redis {
    fn burst(&mut self) -> Result<f64> {
        output(&mut self.client)?;
        Ok(f64::from(2 * REQUESTS))
    }
}
