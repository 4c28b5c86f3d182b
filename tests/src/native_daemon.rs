//! The daemon on the machine itself: it observes, answers questions, and withstands nonsense.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Observer, Outcome, Trial, run, wait_until};
use crate::invocation::Scratch;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new("native_daemon_without_one_status_says_so", without_one),
        Trial::new(
            "native_daemon_answers_questions_and_withstands_nonsense",
            answers,
        ),
        Trial::new(
            "native_daemon_refuses_a_wrong_configuration_and_keeps_the_old_one",
            configuration,
        ),
    ]
}

const SOON: Duration = Duration::from_secs(20);

struct Desk {
    scratch: Scratch,
    state: String,
}

impl Desk {
    fn new(label: &str) -> Result<Desk> {
        let scratch = Scratch::new(label)?;
        let state = scratch.argument("state")?;
        Ok(Desk { scratch, state })
    }

    fn config(&self, text: &str) -> Result<String> {
        let path = self.scratch.join("config.toml");
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        self.scratch.argument("config.toml")
    }

    fn start(&self, config: &str) -> Result<Observer> {
        let observer = Observer::start(&[
            "daemon",
            "--shadow",
            "--config",
            config,
            "--state-dir",
            &self.state,
        ])?;
        wait_until("the socket", SOON, || {
            Ok(UnixStream::connect(self.socket()).ok())
        })?;
        Ok(observer)
    }

    fn socket(&self) -> std::path::PathBuf {
        self.scratch.join("state/daemon.sock")
    }

    fn status(&self) -> Result<Value> {
        let done = run(&["status", "--json", "--state-dir", &self.state], SOON)?;
        ensure!(done.code() == Some(0), "{done:?}");
        Ok(serde_json::from_str(&done.stdout)?)
    }

    /// What is answered to these bytes.
    fn ask(&self, bytes: &[u8]) -> Result<Value> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(SOON))?;
        // It may answer before it has read all of a long question.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = String::new();
        match stream.read_to_string(&mut answer) {
            // Whoever says too much is hung up on.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return Ok(json!({ "error": "hung up" }));
            }
            read => read?,
        };
        serde_json::from_str(&answer).with_context(|| answer)
    }
}

fn without_one() -> Result<Outcome> {
    let desk = Desk::new("no-daemon")?;
    for args in [
        &["status"][..],
        &["status", "--json", "--learned"],
        &["feedback", "bad"],
        &["feedback", "forget"],
    ] {
        let mut args = args.to_vec();
        args.extend(["--state-dir", &desk.state]);
        let done = run(&args, SOON)?;
        ensure!(
            done.code() == Some(1)
                && done.stdout.is_empty()
                && done.stderr.lines().count() == 1
                && done.stderr.contains("no daemon answers"),
            "{args:?}: {done:?}"
        );
    }
    Ok(Outcome::Passed)
}

fn answers() -> Result<Outcome> {
    let desk = Desk::new("daemon")?;
    let config = desk.config("[govern]\npolicy = \"proactive\"\n")?;
    let mut daemon = desk.start(&config)?;
    let status = desk.status()?;
    ensure!(
        status["schema"] == "grey-ebpf-status/1"
            && status["policy"] == "proactive"
            && status["shadow"] == true
            && status["machine"]["total"].as_u64() > Some(0),
        "{status}"
    );
    let text = run(&["status", "--state-dir", &desk.state], SOON)?;
    ensure!(
        text.stdout
            .starts_with("policy proactive (shadow: nothing is written), "),
        "{text:?}"
    );
    let learned = run(&["status", "--learned", "--state-dir", &desk.state], SOON)?;
    ensure!(learned.stdout.contains("refault_history"), "{learned:?}");
    let bad = run(&["feedback", "bad", "--state-dir", &desk.state], SOON)?;
    ensure!(bad.stdout.contains("0 actions"), "{bad:?}");

    let long = vec![b'x'; 100_000];
    for nonsense in [
        &b""[..],
        b"\n",
        b"{}\n",
        b"\xff\xfe\x00\n",
        b"{\"ask\":\"reboot\"}\n",
        b"{\"ask\":\"status\",\"more\":1}\n",
        b"{\"ask\":\"release\"}\n",
        &long,
    ] {
        let answer = desk.ask(nonsense)?;
        ensure!(answer["error"].is_string(), "{nonsense:?}: {answer}");
    }
    // Those who ask nothing hold nobody up.
    let silent: Vec<UnixStream> = (0..20)
        .map(|_| Ok(UnixStream::connect(desk.socket())?))
        .collect::<Result<_>>()?;
    ensure!(desk.status()?["policy"] == "proactive", "no answer");
    drop(silent);
    let mode = fs::metadata(desk.socket())?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "{mode:o}");

    // A second one has no socket, and says so.
    let second = run(
        &[
            "daemon",
            "--shadow",
            "--config",
            &config,
            "--state-dir",
            &desk.state,
            "--duration",
            "100ms",
        ],
        SOON,
    )?;
    ensure!(
        second.code() == Some(0) && second.stderr.contains("another daemon listens there"),
        "{second:?}"
    );
    ensure!(
        desk.status()?["policy"] == "proactive",
        "the second took it"
    );

    daemon.signal(Signal::TERM)?;
    for event in daemon.events()? {
        ensure!(event["schema"] == "grey-ebpf/1", "{event}");
        ensure!(event["type"] != "sample", "{event}");
    }
    let finished = daemon.finish(SOON)?;
    ensure!(finished.code() == Some(0), "{finished:?}");
    ensure!(!desk.socket().exists(), "the socket is still there");
    ensure!(
        !desk.scratch.join("state/journal").exists(),
        "a journal in shadow"
    );
    Ok(Outcome::Passed)
}

fn configuration() -> Result<Outcome> {
    let desk = Desk::new("daemon-config")?;
    for (text, word) in [
        ("[govern]\npolicy = \"bold\"\n", "config.toml:2"),
        ("[govern\n", "config.toml:1"),
        ("[govern.proactive]\nstep_pct = 1000\n", "step_pct"),
        ("[goven]\n", "goven"),
    ] {
        let config = desk.config(text)?;
        let done = run(
            &["daemon", "--config", &config, "--state-dir", &desk.state],
            SOON,
        )?;
        ensure!(
            done.code() == Some(2)
                && done.stdout.is_empty()
                && done.stderr.lines().count() == 1
                && done.stderr.contains(word),
            "{text}: {done:?}"
        );
    }
    let config = desk.config("[govern]\npolicy = \"dynamic\"\n")?;
    let daemon = desk.start(&config)?;
    desk.config("[govern]\npolicy = \"bold\"\n")?;
    daemon.signal(Signal::HUP)?;
    let failed = wait_until("the failed reload", SOON, || {
        Ok(desk.status()?["reload_failed"].as_str().map(str::to_owned))
    })?;
    ensure!(failed.contains("config.toml:2"), "{failed}");
    ensure!(desk.status()?["policy"] == "dynamic", "not the old one");
    desk.config("[govern]\npolicy = \"conservative\"\n")?;
    daemon.signal(Signal::HUP)?;
    wait_until("the reload", SOON, || {
        let status = desk.status()?;
        Ok((status["policy"] == "conservative" && status["reload_failed"].is_null()).then_some(()))
    })?;
    daemon.signal(Signal::INT)?;
    let finished = daemon.finish(SOON)?;
    ensure!(finished.code() == Some(0), "{finished:?}");
    Ok(Outcome::Passed)
}
