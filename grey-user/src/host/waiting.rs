//! What waits for processes that stand still: connections and data at their sockets, signals, other processes that were
//! put among them. From /proc alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use grey_core::view::printable;

use super::{Host, figure};

/// Processes whose signals and sockets are looked at; all are counted.
const PROCESSES: usize = 256;
/// Descriptors of one process that are looked at, and of all.
const FDS: usize = 512;
const ALL_FDS: usize = 32 * FDS;
/// Bytes of one table of sockets that are read (those of 40,000 sockets), and of all tables: whoever looks must not be
/// held up by it for long.
const TABLE: u64 = 6 << 20;
const ALL_TABLES: u64 = 4 * TABLE;
/// Tables of sockets of a network namespace.
const TABLES: [(&str, bool); 4] = [
    ("tcp", true),
    ("tcp6", true),
    ("udp", false),
    ("udp6", false),
];
/// A TCP socket that listens: what waits are connections.
const LISTENS: &str = "0A";
/// The classic signals from 1 on, as x86, ARM and RISC-V number them.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// What came while they stood still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Connections that nobody has accepted.
    Connections {
        /// Of the listening socket.
        port: u16,
        /// So many more.
        count: u64,
    },
    /// Data, or the end of a connection, that nobody has read.
    Data {
        /// A connection, or datagrams.
        tcp: bool,
        /// Of our side.
        port: u16,
    },
    /// A signal.
    Signal {
        /// Whom it waits for.
        pid: u32,
        /// Its command name.
        comm: String,
        /// Its number.
        signal: u32,
    },
    /// A process that was not there before.
    Joined {
        /// That one.
        pid: u32,
        /// Its command name.
        comm: String,
    },
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Connections { port, count: 1 } => {
                write!(f, "a connection waits at TCP port {port}")
            }
            Call::Connections { port, count } => {
                write!(f, "{count} connections wait at TCP port {port}")
            }
            Call::Data { tcp: true, port } => {
                write!(f, "data waits on a connection of TCP port {port}")
            }
            Call::Data { tcp: false, port } => write!(f, "a datagram waits at UDP port {port}"),
            Call::Signal { pid, comm, signal } => {
                match SIGNALS.get((*signal as usize).wrapping_sub(1)) {
                    Some(name) => write!(f, "SIG{name}")?,
                    None => write!(f, "signal {signal}")?,
                }
                write!(f, " waits for {} ({pid})", printable(comm))
            }
            Call::Joined { pid, comm } => {
                write!(f, "{} ({pid}) was put into it", printable(comm))
            }
        }
    }
}

/// A socket, by its network namespace and inode.
type Socket = (u64, u64);

/// What waits at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    processes: BTreeMap<u32, Process>,
    queues: BTreeMap<Socket, Queue>,
    blind: BTreeSet<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Process {
    /// Together with the pid it names one process. A clock tick of its start; `None` where it cannot be read.
    started: Option<u64>,
    comm: String,
    /// One bit a signal; `None` where it cannot be read or was not looked at.
    pending: Option<u64>,
    /// Its network namespace.
    namespace: u64,
    /// Inodes of its sockets.
    sockets: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Queue {
    tcp: bool,
    listens: bool,
    port: u16,
    /// Connections where it listens, else bytes.
    length: u64,
}

impl Waiting {
    /// What waits for these processes. `earlier` spares the search for sockets: who stands still opens none.
    #[must_use]
    pub fn read(host: &Host, pids: &[u32], earlier: Option<&Waiting>) -> Waiting {
        let mut waiting = Waiting::default();
        let mut fds = ALL_FDS;
        if pids.len() > PROCESSES {
            let why = format!("of {} processes only {PROCESSES} are looked at", pids.len());
            waiting.blind.insert(why);
        }
        for (number, pid) in pids.iter().enumerate() {
            let known = earlier.and_then(|earlier| earlier.processes.get(pid));
            let closely = (number < PROCESSES).then_some(&mut fds);
            if let Some(process) = waiting.process(host, *pid, known, closely) {
                waiting.processes.insert(*pid, process);
            }
        }
        waiting.read_queues(host);
        waiting
    }

    /// This instant as what is not to be told again: the processes that stand still now, with what already waited
    /// `before` they did. What came in between came while they were being stopped.
    #[must_use]
    pub fn since(mut self, before: &Waiting) -> Waiting {
        for (pid, process) in &mut self.processes {
            let same = before
                .processes
                .get(pid)
                .filter(|then| then.started == process.started);
            process.pending = match (same, process.pending) {
                (Some(then), Some(_)) => then.pending,
                (None, Some(_)) => Some(0),
                (_, None) => None,
            };
        }
        for (socket, queue) in &mut self.queues {
            queue.length = before.queues.get(socket).map_or(0, |then| then.length);
        }
        self
    }

    /// The first thing that waits now and did not at this instant.
    #[must_use]
    pub fn call(&self, now: &Waiting) -> Option<Call> {
        for (pid, process) in &now.processes {
            let (pid, comm) = (*pid, process.comm.clone());
            let known = self
                .processes
                .get(&pid)
                .filter(|known| known.started == process.started);
            let Some(known) = known else {
                return Some(Call::Joined { pid, comm });
            };
            let came = process
                .pending
                .zip(known.pending)
                .map_or(0, |(now, then)| now & !then);
            if came != 0 {
                let signal = came.trailing_zeros() + 1;
                return Some(Call::Signal { pid, comm, signal });
            }
        }
        now.queues.iter().find_map(|(socket, queue)| {
            let then = self.queues.get(socket).map_or(0, |then| then.length);
            let count = queue.length.checked_sub(then).filter(|more| *more > 0)?;
            let (tcp, port) = (queue.tcp, queue.port);
            Some(if queue.listens {
                Call::Connections { port, count }
            } else {
                Call::Data { tcp, port }
            })
        })
    }

    /// What could not be seen, and why.
    pub fn blind(&self) -> impl Iterator<Item = &str> {
        self.blind.iter().map(String::as_str)
    }

    /// `None` where it is gone. Where so many descriptors may be looked at, it is looked at closely.
    fn process(
        &mut self,
        host: &Host,
        pid: u32,
        known: Option<&Process>,
        closely: Option<&mut usize>,
    ) -> Option<Process> {
        let folder = host.path(format!("/proc/{pid}"));
        let started = match fs::read(folder.join("stat")) {
            Ok(stat) => super::process::start_time(&stat),
            Err(error) if is_gone(&error) => return None,
            Err(_) => None,
        };
        let known = known.filter(|known| known.started == started);
        let Some(fds) = closely else {
            return Some(Process {
                started,
                ..known.cloned().unwrap_or_default()
            });
        };
        let mut process = match known {
            Some(known) => known.clone(),
            None => {
                let comm = fs::read(folder.join("comm")).unwrap_or_default();
                let mut new = Process {
                    started,
                    comm: String::from_utf8_lossy(comm.trim_ascii_end()).into_owned(),
                    // Where it cannot be told, nobody shares it: its tables are read for it alone.
                    namespace: fs::metadata(folder.join("ns/net"))
                        .map_or(u64::from(pid), |meta| meta.ino()),
                    ..Process::default()
                };
                let most = FDS.min(*fds);
                match sockets(&folder.join("fd"), most, &mut new.sockets) {
                    Ok(Some(looked)) => *fds -= looked,
                    Ok(None) => {
                        *fds -= most;
                        let why = format!("of {pid}'s open files only {most} are looked at");
                        self.blind.insert(why);
                    }
                    Err(error) if is_gone(&error) => return None,
                    Err(error) => self.cannot("open files of processes", &error),
                }
                new
            }
        };
        process.pending = match fs::read(folder.join("status")) {
            Ok(status) => pending(&status),
            Err(error) if is_gone(&error) => return None,
            Err(error) => {
                self.cannot("signals", &error);
                None
            }
        };
        Some(process)
    }

    fn cannot(&mut self, what: &str, error: &io::Error) {
        self.blind.insert(format!("{what}: {error}"));
    }

    /// The queues of all sockets, each namespace's once.
    fn read_queues(&mut self, host: &Host) {
        let mut namespaces: BTreeMap<u64, (u32, BTreeSet<u64>)> = BTreeMap::new();
        for (pid, process) in &self.processes {
            if !process.sockets.is_empty() {
                let of = namespaces
                    .entry(process.namespace)
                    .or_insert_with(|| (*pid, BTreeSet::new()));
                of.1.extend(&process.sockets);
            }
        }
        let mut room = ALL_TABLES;
        for (namespace, (pid, sockets)) in namespaces {
            for (table, tcp) in TABLES {
                let path = format!("/proc/{pid}/net/{table}");
                let most = TABLE.min(room);
                let read = File::open(host.path(&path)).and_then(|file| {
                    self.table(file.take(most), tcp, |inode| {
                        sockets.contains(&inode).then_some((namespace, inode))
                    })
                });
                match read {
                    Ok(left @ 1..) => room -= most - left,
                    Ok(0) => {
                        room -= most;
                        let why = format!(
                            "of tables of sockets only {} MiB are read, of all {}",
                            TABLE >> 20,
                            ALL_TABLES >> 20
                        );
                        self.blind.insert(why);
                    }
                    // Without IPv6, or it has just gone.
                    Err(error) if is_gone(&error) => {}
                    Err(error) => self.cannot(table, &error),
                }
            }
        }
    }

    /// One table of sockets; how much more of it could have been read.
    fn table(
        &mut self,
        file: io::Take<File>,
        tcp: bool,
        ours: impl Fn(u64) -> Option<Socket>,
    ) -> io::Result<u64> {
        let mut lines = BufReader::with_capacity(64 << 10, file);
        let mut line = String::new();
        loop {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                return Ok(lines.get_ref().limit());
            }
            if let Some((inode, queue)) = row(&line, tcp)
                && let Some(socket) = ours(inode)
            {
                self.queues.insert(socket, queue);
            }
        }
    }
}

/// Gone, also in the middle of reading.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Inodes of the sockets among a process's descriptors; how many those are, `None` for more than so many.
fn sockets(folder: &Path, most: usize, into: &mut BTreeSet<u64>) -> io::Result<Option<usize>> {
    let mut looked = 0;
    for entry in fs::read_dir(folder)? {
        if looked == most {
            return Ok(None);
        }
        looked += 1;
        // Closed meanwhile: it is no socket of anybody.
        let link = match fs::read_link(entry?.path()) {
            Err(error) if is_gone(&error) => continue,
            link => link?,
        };
        let inode = link
            .to_str()
            .and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']'))
            .and_then(|inode| figure(inode.as_bytes()));
        into.extend(inode);
    }
    Ok(Some(looked))
}

/// Signals that wait, of the process and of its first thread.
fn pending(status: &[u8]) -> Option<u64> {
    let mut all = None;
    for line in status.split(|byte| *byte == b'\n') {
        let mask = [b"SigPnd:".as_slice(), b"ShdPnd:"]
            .iter()
            .find_map(|name| line.strip_prefix(*name))
            .and_then(|mask| std::str::from_utf8(mask.trim_ascii()).ok())
            .and_then(|mask| u64::from_str_radix(mask, 16).ok());
        if let Some(mask) = mask {
            *all.get_or_insert(0) |= mask;
        }
    }
    all
}

/// A line of /proc/net/{tcp,udp}: the socket's inode and its queue. `None` for the heading, and for a connection that no
/// descriptor has.
fn row(line: &str, tcp: bool) -> Option<(u64, Queue)> {
    let mut fields = line.split_ascii_whitespace();
    let port = fields.nth(1)?.rsplit_once(':')?.1;
    let state = fields.nth(1)?;
    let received = fields.next()?.split_once(':')?.1;
    // tr:tm->when, retrnsmt, uid, timeout, inode
    let inode = figure(fields.nth(4)?.as_bytes()).filter(|inode| *inode != 0)?;
    let queue = Queue {
        tcp,
        listens: tcp && state == LISTENS,
        port: u16::from_str_radix(port, 16).ok()?,
        length: u64::from_str_radix(received, 16).ok()?,
    };
    Some((inode, queue))
}

#[cfg(test)]
mod tests;
