//! The tests that run on this machine itself.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::again::alone;
use super::report::Suite;
use crate::vm::{Piece, Record, Splitter, TestResult};
use crate::vm_command::show;

pub(super) fn run(root: &Path, program: &Path, filter: &[String]) -> Suite {
    println!("== native tests");
    let start = Instant::now();
    let mut suite = match crate::release_agent::build(root) {
        Ok(agent) => with_agent(program, &agent, filter),
        Err(error) => Suite::failed(format!("{error:#}")),
    };
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    suite.kernel = release.ok().map(|release| release.trim().to_owned());
    suite.seconds = start.elapsed().as_secs_f64();
    suite
}

fn with_agent(program: &Path, agent: &Path, filter: &[String]) -> Suite {
    let (results, ended) = match follow(program, agent, filter) {
        Ok(run) => run,
        Err(error) => return Suite::failed(format!("{error:#}")),
    };
    let mut suite = Suite::of(results);
    suite.judge_end(ended);
    suite.try_again(|test| Ok(follow(program, agent, &alone(test))?.0));
    suite
}

fn follow(
    program: &Path,
    agent: &Path,
    filter: &[String],
) -> Result<(Vec<TestResult>, Result<i32>)> {
    let mut child = Command::new(program)
        .arg("native")
        .args(filter)
        .env("GREY_RESULTS", "/dev/stdout")
        .env("GREY_RELEASE_LIB", agent)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {}", program.display()))?;
    let mut stdout = child
        .stdout
        .take()
        .context("the native tests have no stdout")?;
    let mut splitter = Splitter::default();
    let mut results = Vec::new();
    let mut planned = None;
    let mut buffer = [0; 16 * 1024];
    while let length @ 1.. = stdout
        .read(&mut buffer)
        .context("read the native results")?
    {
        for piece in splitter.feed(&buffer[..length]) {
            match &piece {
                Piece::Record(Record::Plan { tests }) => planned = Some(*tests),
                Piece::Record(Record::Result(result)) => {
                    show(&piece);
                    results.push(result.clone());
                }
                // libtest's own lines say the same again.
                _ => {}
            }
        }
    }
    let status = child.wait().context("wait for the native tests")?;
    let count = results.len();
    let complete = planned == Some(count);
    let ended = complete
        .then(|| status.code().unwrap_or(-1))
        .with_context(|| {
            format!("{count} results of native tests, {planned:?} planned ({status})")
        });
    Ok((results, ended))
}
