//! The unit tests of the default members, counted from what libtest prints.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::report::Suite;
use crate::vm::{Outcome, TestResult};

pub(super) fn run(root: &Path, filter: &[String]) -> Suite {
    println!("== unit tests");
    let start = Instant::now();
    let mut suite = match cargo_test(root, filter) {
        Ok((results, ok)) => {
            let mut suite = Suite::of(results);
            // cargo also fails where nothing was run, as at a compile error.
            suite.judge_end(Ok(i32::from(!ok)));
            suite
        }
        Err(error) => Suite::failed(format!("{error:#}")),
    };
    suite.seconds = start.elapsed().as_secs_f64();
    suite
}

fn cargo_test(root: &Path, filter: &[String]) -> Result<(Vec<TestResult>, bool)> {
    let mut child = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["test", "--no-fail-fast"])
        .args(filter)
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("run cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no stdout")?;
    let mut results = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("read the output of cargo test")?;
        match result(&line) {
            Some(result) => {
                // A thousand passed tests are one figure at the end; the others are news.
                if result.outcome != Outcome::Passed {
                    println!("{line}");
                }
                results.push(result);
            }
            None if line.is_empty() || line == "running 0 tests" => {}
            None => println!("{line}"),
        }
    }
    let status = child.wait().context("wait for cargo test")?;
    Ok((results, status.success()))
}

/// `test NAME ... ok`, `FAILED` or `ignored[, REASON]`; a test that should panic says so between name and dots.
fn result(line: &str) -> Option<TestResult> {
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let (outcome, detail) = match verdict.split_once(", ").unwrap_or((verdict, "")) {
        ("ok", _) => (Outcome::Passed, ""),
        ("FAILED", _) => (Outcome::Failed, ""),
        ("ignored", "") => (Outcome::Skipped, "ignored"),
        ("ignored", reason) => (Outcome::Skipped, reason),
        _ => return None,
    };
    let detail = (!detail.is_empty()).then(|| detail.to_owned());
    Some(TestResult {
        test: name.to_owned(),
        outcome,
        seconds: 0.0,
        detail,
        first_failure: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_lines_are_read() {
        let outcome = |line| result(line).map(|result| (result.outcome, result.detail));
        assert_eq!(outcome("test a::b ... ok"), Some((Outcome::Passed, None)));
        assert_eq!(
            outcome("test a - should panic ... ok"),
            Some((Outcome::Passed, None))
        );
        assert_eq!(outcome("test a ... FAILED"), Some((Outcome::Failed, None)));
        let ignored = outcome("test a ... ignored, needs root");
        assert_eq!(
            ignored,
            Some((Outcome::Skipped, Some("needs root".to_owned())))
        );
        assert_eq!(outcome("test result: ok. 1 passed; 0 failed"), None);
        assert_eq!(outcome("running 3 tests"), None);
    }
}
