//! Runtimes with heaps of their own are not harmed: they do the same work with the agent in them, asked again and again.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use grey_user::act::agent::Question;

use crate::harness::{Outcome, Trial};

use super::guest::{Bench, Guest, absent, library, runs};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        Trial::new("native_release_node_does_its_work_all_the_same", node),
        Trial::new("native_release_java_does_its_work_all_the_same", java),
        Trial::new("native_release_a_shell_pipeline_says_the_same", shell),
    ]
}

/// Fills maps and buffers until its input ends, and says whether they were whole.
const NODE: &str = "let stop = false, whole = true;
process.stdin.on('end', () => { stop = true; }).resume();
function turn(n) {
  const map = new Map(), buffers = [];
  for (let i = 0; i < 20000; i++) map.set(i, 'v' + i);
  for (let i = 0; i < 50; i++) buffers.push(Buffer.alloc(40000, i));
  for (let i = 0; i < 20000; i++) whole &&= map.get(i) === 'v' + i;
  for (let i = 0; i < 50; i++) whole &&= buffers[i].every((byte) => byte === i);
  if (n === 0) console.log('ready');
  if (stop) console.log(whole ? 'whole' : 'changed'); else setImmediate(turn, n + 1);
}
turn(0);";

fn trimmed_at_work(command: Command) -> Result<Outcome> {
    let guest = Guest::start(command)?;
    for _ in 0..100 {
        let answer = guest.ask(Question::Trim {
            collector: true,
            wait: Duration::from_millis(500),
        })?;
        ensure!(!answer.busy && answer.collector == "none", "{answer:?}");
    }
    guest.finish_whole()?;
    Ok(Outcome::Passed)
}

fn node() -> Result<Outcome> {
    if !runs("node") {
        return absent("node");
    }
    let mut command = Command::new("node");
    command.args(["-e", NODE]);
    trimmed_at_work(command)
}

fn java() -> Result<Outcome> {
    if !runs("java") {
        return absent("java");
    }
    if !runs("javac") {
        // Without a compiler `java` runs no source.
        return absent("javac");
    }
    let bench = Bench::new("java")?;
    let mut command = Command::new("java");
    // Heaps of many machines would not fit on this one.
    command
        .args(["-Xmx128m", "-XX:MaxDirectMemorySize=64m"])
        .arg(bench.scratch.join("Churn.java"));
    trimmed_at_work(command)
}

fn shell() -> Result<Outcome> {
    let script = "for i in 1 2 3; do (echo $i; cat /proc/$$/comm; ls /proc/self/fd | wc -l; \
        sh -c 'kill -TERM $$; echo never'; echo $?) 2>&1; done; \
        yes | head -1000 | sort -u; trap 'echo caught' USR1; kill -USR1 $$; ulimit -n 64; echo last $?; exit 5";
    let said = |preload: Option<&Path>| -> Result<(Option<i32>, String)> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        if let Some(library) = preload {
            command.env("LD_PRELOAD", library);
        }
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((
            output.status.code(),
            text + &String::from_utf8_lossy(&output.stderr),
        ))
    };
    let (plain, with) = (said(None)?, said(Some(&library()?))?);
    ensure!(plain.0 == Some(5), "{plain:?}");
    ensure!(plain == with, "{plain:?}, with the agent {with:?}");
    Ok(Outcome::Passed)
}
