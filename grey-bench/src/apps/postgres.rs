//! PostgreSQL over a Unix socket, run by a user of its own, as it insists.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::server::Server;
use super::{Application, Scene, output};

/// Where Debian puts the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// In the order of preference.
const USERS: [&str; 2] = ["postgres", "nobody"];
/// Transactions of a burst: in one connection, and with one each.
const KEPT: u32 = 60_000;
const ANEW: u32 = 400;

struct Pgbench {
    client: Command,
    transactions: u32,
    _server: Server,
}

/// Transactions of one connection.
///
/// # Errors
/// The server does not start.
pub fn kept(scene: &Scene) -> Result<Box<dyn Application>> {
    prepare(scene, KEPT, &[])
}

/// A connection, that is a process of the server's, for each transaction.
///
/// # Errors
/// The server does not start.
pub fn anew(scene: &Scene) -> Result<Box<dyn Application>> {
    prepare(scene, ANEW, &["-C"])
}

fn prepare(scene: &Scene, transactions: u32, more: &[&str]) -> Result<Box<dyn Application>> {
    let bin = newest(Path::new(VERSIONS))
        .with_context(|| format!("no server in {VERSIONS}: apt-get install postgresql"))?;
    let user = User::of_system()?;
    let home = scene.path("postgres");
    fs::create_dir(&home)?;
    std::os::unix::fs::chown(&home, Some(user.uid), Some(user.gid))?;
    let data = home.join("data");
    let as_user = |program: PathBuf| -> Result<Command> {
        let mut command = scene.command(program)?;
        command.uid(user.uid).gid(user.gid).current_dir(&home);
        Ok(command)
    };
    let mut init = as_user(bin.join("initdb"))?;
    output(
        init.args(["--no-sync", "--auth=trust", "-U", "bench", "-D"])
            .arg(&data),
    )?;
    let mut server = as_user(bin.join("postgres"))?;
    server
        .arg("-D")
        .arg(&data)
        .arg("-k")
        .arg(&home)
        .args(["-c", "listen_addresses=", "-c", "fsync=off"])
        .args(["-c", "autovacuum=off"]);
    // Its "fast" shutdown.
    let server = Server::start(&mut server, Signal::INT, || {
        let mut asked = Command::new(bin.join("pg_isready"));
        asked.arg("-q").arg("-h").arg(&home);
        asked.status().is_ok_and(|status| status.success())
    })?;
    let client = |words: &[&str]| -> Result<Command> {
        let mut client = as_user(bin.join("pgbench"))?;
        client.args(words).args(["-U", "bench", "-h"]).arg(&home);
        client.arg("postgres");
        Ok(client)
    };
    output(&mut client(&["-i", "-q", "-s", "2"])?)?;
    let count = transactions.to_string();
    let words = [&["-S", "-n", "-c", "1", "-t", &count], more].concat();
    Ok(Box::new(Pgbench {
        client: client(&words)?,
        transactions,
        _server: server,
    }))
}

impl Application for Pgbench {
    fn burst(&mut self) -> Result<f64> {
        output(&mut self.client)?;
        Ok(f64::from(self.transactions))
    }
}

/// The programs of the newest version.
fn newest(versions: &Path) -> Option<PathBuf> {
    fs::read_dir(versions)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let bin = entry.path().join("bin");
            bin.join("initdb").exists().then_some((version, bin))
        })
        .max()
        .map(|(_, bin)| bin)
}

#[derive(Debug, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
}

impl User {
    fn of_system() -> Result<User> {
        let passwd = fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
        USERS
            .iter()
            .find_map(|name| User::find(&passwd, name))
            .context("neither a user postgres nor nobody")
    }

    fn find(passwd: &str, name: &str) -> Option<User> {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let found = fields.next()? == name;
            let mut number = || fields.nth(1)?.parse().ok();
            let uid = number()?;
            let gid = fields.next()?.parse().ok()?;
            found.then_some(User { uid, gid })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\npostgresql:x:7:8::/:/bin/sh\npostgres:x:108:116:,,,:/var:/bin/bash\n";
        let found = User::find(passwd, "postgres");
        assert_eq!(found, Some(User { uid: 108, gid: 116 }));
        assert_eq!(User::find(passwd, "nobody"), None);
    }
}
