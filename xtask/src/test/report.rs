//! What a test run adds up to: a file for the documentation's tables, and the lines a person reads.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::again;
use crate::vm::{Outcome, TestResult};

/// The results of one suite: unit tests, native tests, or one kernel.
#[derive(Debug, Default, Serialize)]
pub(super) struct Suite {
    /// The kernel's release, where the suite depends on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kernel: Option<String>,
    /// Where that kernel came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) origin: Option<String>,
    pub(super) seconds: f64,
    /// How often the guest was started again after a fault of the emulator's.
    pub(super) restarts: u32,
    /// Why the suite as a whole counts as skipped or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<Trouble>,
    tests: Vec<TestResult>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Trouble {
    Failed(String),
    Skipped(String),
}

impl Suite {
    pub(super) fn of(tests: Vec<TestResult>) -> Self {
        Self {
            tests,
            ..Self::default()
        }
    }

    pub(super) fn failed(reason: String) -> Self {
        Self {
            trouble: Some(Trouble::Failed(reason)),
            ..Self::default()
        }
    }

    pub(super) fn skipped(reason: String) -> Self {
        Self {
            trouble: Some(Trouble::Skipped(reason)),
            ..Self::default()
        }
    }

    /// A runner that broke off, or that failed without a failed test, is a failure of its own.
    pub(super) fn judge_end(&mut self, ended: Result<i32>) {
        let failed = self
            .tests
            .iter()
            .any(|test| test.outcome == Outcome::Failed);
        self.trouble = match ended {
            Err(error) => Some(Trouble::Failed(format!("{error:#}"))),
            Ok(0) => None,
            Ok(_) if failed => None,
            Ok(code) => Some(Trouble::Failed(format!(
                "ended with {code} although no test failed"
            ))),
        };
    }

    /// Gives what failed a second try by `run`; a runner that broke off has no second one.
    pub(super) fn try_again(&mut self, run: impl FnMut(&str) -> Result<Vec<TestResult>>) {
        if self.trouble.is_none() {
            again::try_again(&mut self.tests, run);
        }
    }

    fn count(&self, outcome: Outcome) -> usize {
        let trouble = match self.trouble {
            Some(Trouble::Failed(_)) => usize::from(outcome == Outcome::Failed),
            Some(Trouble::Skipped(_)) => usize::from(outcome == Outcome::Skipped),
            None => 0,
        };
        trouble
            + self
                .tests
                .iter()
                .filter(|test| test.outcome == outcome)
                .count()
    }
}

/// All suites in the order they ran.
#[derive(Debug, Default)]
pub(super) struct Report {
    suites: Vec<(String, Suite)>,
}

impl Report {
    pub(super) fn add(&mut self, name: &str, suite: Suite) {
        let [passed, failed, skipped] = OUTCOMES.map(|outcome| suite.count(outcome));
        println!(
            "   {name}: {passed} passed, {failed} failed, {skipped} skipped in {:.1} s",
            suite.seconds
        );
        self.suites.push((name.to_owned(), suite));
    }

    /// `{"unit": {…}, "native": {…}, "6.12": {"kernel", "origin", "seconds", "tests": [{test, outcome, seconds, detail}]}}`
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let suites: serde_json::Map<_, _> = self
            .suites
            .iter()
            .map(|(name, suite)| Ok((name.clone(), serde_json::to_value(suite)?)))
            .collect::<Result<_>>()?;
        let text = serde_json::to_string_pretty(&suites).context("write the results as JSON")?;
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }

    pub(super) fn has_failures(&self) -> bool {
        self.total(Outcome::Failed) > 0
    }

    fn total(&self, outcome: Outcome) -> usize {
        self.suites
            .iter()
            .map(|(_, suite)| suite.count(outcome))
            .sum()
    }

    /// Failures, skips with their reasons, and the sum as the last line.
    pub(super) fn print(&self) {
        for line in self.lines() {
            println!("{line}");
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, suite) in &self.suites {
            for test in suite
                .tests
                .iter()
                .filter(|test| test.outcome == Outcome::Failed)
            {
                lines.push(format!("failed: {} ({name})", test.test));
            }
            if let Some(Trouble::Failed(reason)) = &suite.trouble {
                lines.push(format!("failed: {name}: {reason}"));
            }
        }
        for (name, suite) in &self.suites {
            for test in &suite.tests {
                if let Some(why) = &test.first_failure {
                    let why = why.lines().next().unwrap_or_default();
                    lines.push(format!(
                        "unsteady: {} ({name}) failed once and passed alone: {why}",
                        test.test
                    ));
                }
            }
        }
        // One line for a skip of the same reason on several kernels.
        let mut skips: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for (name, suite) in &self.suites {
            for test in suite
                .tests
                .iter()
                .filter(|test| test.outcome == Outcome::Skipped)
            {
                skips
                    .entry((&test.test, test.detail.as_deref().unwrap_or_default()))
                    .or_default()
                    .push(name);
            }
            if let Some(Trouble::Skipped(reason)) = &suite.trouble {
                lines.push(format!("skipped: kernel {name}: {reason}"));
            }
        }
        for ((test, reason), suites) in skips {
            lines.push(format!("skipped: {test} ({}): {reason}", suites.join(", ")));
        }
        let [passed, failed, skipped] = OUTCOMES.map(|outcome| self.total(outcome));
        lines.push(format!(
            "{passed} passed, {failed} failed, {skipped} skipped"
        ));
        lines
    }
}

const OUTCOMES: [Outcome; 3] = [Outcome::Passed, Outcome::Failed, Outcome::Skipped];

#[cfg(test)]
mod tests {
    use super::*;

    fn result(test: &str, outcome: Outcome, detail: Option<&str>) -> TestResult {
        TestResult {
            test: test.to_owned(),
            outcome,
            seconds: 0.1,
            detail: detail.map(str::to_owned),
            first_failure: None,
        }
    }

    #[test]
    fn the_last_line_is_the_sum_and_skips_stand_before_it() {
        let mut report = Report::default();
        let skip = || result("swap", Outcome::Skipped, Some("no swap"));
        report.add("unit", Suite::of(vec![result("a", Outcome::Passed, None)]));
        report.add(
            "5.10",
            Suite::of(vec![skip(), result("b", Outcome::Passed, None)]),
        );
        report.add("6.1", Suite::of(vec![skip()]));
        report.add("7.2", Suite::skipped("no such package".to_owned()));
        assert_eq!(
            report.lines(),
            [
                "skipped: kernel 7.2: no such package",
                "skipped: swap (5.10, 6.1): no swap",
                "2 passed, 0 failed, 3 skipped",
            ]
        );
        assert!(!report.has_failures());
    }

    #[test]
    fn a_runner_that_breaks_off_is_a_failure() {
        let mut suite = Suite::of(vec![result("a", Outcome::Passed, None)]);
        suite.judge_end(Err(anyhow::anyhow!("kernel panic")));
        let mut report = Report::default();
        report.add("6.12", suite);
        assert_eq!(
            report.lines(),
            [
                "failed: 6.12: kernel panic",
                "1 passed, 1 failed, 0 skipped"
            ]
        );
    }

    #[test]
    fn a_failed_test_is_counted_once() {
        let mut suite = Suite::of(vec![result("a", Outcome::Failed, None)]);
        suite.judge_end(Ok(101));
        assert_eq!(suite.count(Outcome::Failed), 1);
        let mut crashed = Suite::of(Vec::new());
        crashed.judge_end(Ok(1));
        assert_eq!(crashed.count(Outcome::Failed), 1);
    }
}
