//! Who is wanted while frozen: shells outside any container that get a signal or company, and a client in a container's
//! network.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::harness::{TempCgroup, wait_until};

const SOON: Duration = Duration::from_secs(30);

/// A shell that waits, alone in its cgroup.
pub(super) struct Standby {
    shell: Child,
    guest: Option<Child>,
    cgroup: TempCgroup,
}

impl Standby {
    pub(super) fn start(label: &str) -> Result<Standby> {
        let cgroup = TempCgroup::new(label)?;
        let mut shell = Command::new("/bin/busybox")
            .args(["sh", "-c", "trap : USR1; echo; while :; do read _; done"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = [0];
        let mut out = shell.stdout.take().context("no stdout")?;
        out.read_exact(&mut line).context("the shell ended")?;
        cgroup.adopt(shell.id())?;
        Ok(Standby {
            shell,
            guest: None,
            cgroup,
        })
    }

    pub(super) fn path(&self) -> &str {
        self.cgroup.path()
    }

    pub(super) fn is_frozen(&self) -> Result<bool> {
        Ok(self.cgroup.stat("cgroup.events", "frozen")? == 1)
    }

    pub(super) fn await_frozen(&self, wanted: bool) -> Result<()> {
        wait_until("cgroup.events", SOON, || {
            Ok((self.is_frozen()? == wanted).then_some(()))
        })
    }

    /// Its shell gets a signal that does it no harm.
    pub(super) fn signal(&self) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.shell.id())?).context("pid 0")?;
        Ok(kill_process(pid, Signal::USR1)?)
    }

    /// Another process is put into its cgroup.
    pub(super) fn join(&mut self) -> Result<()> {
        let guest = Command::new("/bin/busybox")
            .args(["sleep", "1000"])
            .spawn()?;
        let id = guest.id();
        self.guest = Some(guest);
        self.cgroup.adopt(id)
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        for child in [Some(&mut self.shell), self.guest.as_mut()]
            .into_iter()
            .flatten()
        {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Asks the web server in the network of that process, as somebody does who does not know that it stands still.
pub(super) fn ask(pid: u32, port: u16, file: &str) -> Result<JoinHandle<Result<String>>> {
    let network = fs::File::open(format!("/proc/{pid}/ns/net"))?;
    let request = format!("GET {file} HTTP/1.0\r\n\r\n");
    let client = move || -> Result<String> {
        // This thread alone.
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    Ok(std::thread::spawn(client))
}
