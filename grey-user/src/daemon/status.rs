//! Questions to a running daemon: one line of JSON in, one document out, over a socket in the state folder. Root and the
//! daemon's own user are answered, nobody else.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use grey_core::govern::{Governor, Rung, Settled};
use grey_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

/// A question is never longer.
const MOST: usize = 4096;
/// Whoever does not ask or read within this time is left.
const PATIENCE: Duration = Duration::from_secs(2);
/// Lines of history in an answer.
const HISTORY: usize = 50;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Question {
    /// All that there is to say.
    Status {},
    /// The lesson of the operator: what was done (there) of late was bad.
    Bad { cgroup: Option<String> },
    /// Forget what was learned.
    Forget {},
    /// Take back what is held on a cgroup: a limit, a frozen container.
    Release { cgroup: String },
}

/// A question and where its answer goes.
pub(super) type Asked = (Question, oneshot::Sender<Value>);

/// The socket. It is removed at the end.
pub(super) struct Socket(PathBuf);

impl Socket {
    /// Listens below the state folder. Where a daemon answers there already, it is that one's.
    pub(super) fn listen(dir: &Path) -> io::Result<(Socket, mpsc::Receiver<Asked>)> {
        let path = dir.join("daemon.sock");
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            return Err(io::Error::other("another daemon listens there"));
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let (sender, questions) = mpsc::channel(8);
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let sender = sender.clone();
                        tokio::spawn(async move {
                            let _ = tokio::time::timeout(PATIENCE, serve(stream, sender)).await;
                        });
                    }
                    // Out of descriptors: those of others are given back some time.
                    Err(_) => tokio::time::sleep(PATIENCE).await,
                }
            }
        });
        Ok((Socket(path), questions))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn serve(mut stream: UnixStream, sender: mpsc::Sender<Asked>) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let answer = if peer != 0 && peer != rustix::process::geteuid().as_raw() {
        json!({ "error": "only root is answered" })
    } else {
        match question(&mut stream).await {
            Ok(question) => {
                let (answer, coming) = oneshot::channel();
                if sender.send((question, answer)).await.is_err() {
                    return Ok(());
                }
                coming.await.unwrap_or(Value::Null)
            }
            Err(why) => json!({ "error": why }),
        }
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.shutdown().await
}

async fn question(stream: &mut UnixStream) -> Result<Question, String> {
    let mut line = Vec::new();
    let mut part = [0; 1024];
    while !line.contains(&b'\n') {
        match stream.read(&mut part).await {
            Ok(0) => break,
            Ok(read) => line.extend_from_slice(&part[..read]),
            Err(error) => return Err(error.to_string()),
        }
        if line.len() > MOST {
            return Err("the question is too long".to_owned());
        }
    }
    serde_json::from_slice(&line).map_err(|error| format!("not understood: {error}"))
}

/// The state of the daemon that is not the governor's.
pub(super) struct About<'a> {
    pub(super) since: Timestamp,
    pub(super) now: Timestamp,
    pub(super) shadow: bool,
    pub(super) config: &'a [PathBuf],
    pub(super) reload_failed: Option<&'a str>,
    pub(super) incidents: u64,
    pub(super) notes: &'a std::collections::VecDeque<(Timestamp, String)>,
    pub(super) budget: Option<grey_core::event::Budget>,
}

/// All that there is to say.
pub(super) fn status(governor: &Governor, about: &About<'_>) -> Value {
    let now = about.now;
    let settings = governor.settings();
    let view = governor.view(now);
    let groups: Vec<Value> = view
        .groups
        .iter()
        .map(|group| {
            json!({
                "path": group.path,
                "policy": group.policy.name(),
                "current": group.current,
                "reclaimable": group.gap(),
                "cold_cache": group.cold_gap(),
                "floor": group.floor,
                "ceiling": group.ceiling,
                "idle_s": group.idle_us / 1_000_000,
                "idle": group.is_idle(settings),
                "busy": group.busy,
                "frozen": group.frozen,
                "leak_bps": group.leak.map(|leak| leak.rate_bps.round()),
            })
        })
        .collect();
    let idle: Vec<&str> = view
        .groups
        .iter()
        .filter(|group| group.container && group.is_idle(settings))
        .map(|group| group.path.as_str())
        .collect();
    let history: Vec<Value> = governor
        .history()
        .rev()
        .take(HISTORY)
        .map(settled)
        .collect();
    let held: Vec<Value> = governor
        .held()
        .rev()
        .take(HISTORY)
        .map(|(at, held)| {
            json!({
                "ts": at, "path": held.intent.path, "kind": held.intent.rung.kind(),
                "bytes": held.intent.bytes, "why": held.why.name(), "reason": held.intent.reason,
            })
        })
        .collect();
    let model = governor.model();
    let weights: serde_json::Map<String, Value> = model
        .weights()
        .map(|(name, weight)| (name.to_owned(), json!((weight * 1e3).round() / 1e3)))
        .collect();
    let notes: Vec<Value> = about
        .notes
        .iter()
        .map(|(at, text)| json!({ "ts": at, "text": text }))
        .collect();
    json!({
        "schema": "grey-ebpf-status/1",
        "ts": now,
        "since": about.since,
        "shadow": about.shadow,
        "policy": settings.policy.name(),
        "config": about.config,
        "reload_failed": about.reload_failed,
        "machine": {
            "total": view.machine.total, "available": view.machine.available,
            "swap_free": view.machine.swap_free, "quiet_s": view.machine.quiet_us / 1_000_000,
        },
        "groups": groups,
        "idle_containers": idle,
        "history": history,
        "held_back": held,
        "cooling_down": governor.bounds().cooling(now).collect::<Vec<_>>(),
        "learned": { "outcomes": model.outcomes, "bad": model.bad, "weights": weights },
        "incidents": about.incidents,
        "budget": about.budget,
        "notes": notes,
    })
}

fn settled(settled: &Settled) -> Value {
    let decision = &settled.decision;
    let bytes = (decision.rung != Rung::Compact).then_some(decision.bytes);
    json!({
        "ts": decision.at, "policy": decision.policy.name(), "path": decision.path,
        "kind": decision.rung.kind(), "bytes": bytes, "reason": decision.reason,
        "urgent": decision.urgent, "expected_harm": (decision.expected_harm * 1e3).round() / 1e3,
        "outcome": settled.outcome.map(|outcome| json!({
            "freed": outcome.freed, "kept": outcome.kept, "refaults": outcome.refaults,
            "psi_some_us": outcome.psi_some_us, "reverted": outcome.reverted,
            "wanted": outcome.wanted,
        })),
        "bad": settled.bad.map(|bad| bad.told()),
    })
}
