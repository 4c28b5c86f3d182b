//! A second try for tests that failed once: clocks of an emulated guest jump, and a machine of two cores has other work.
//! Who passes at the second try has passed, and the report tells of both.

use anyhow::Result;

use crate::vm::{Outcome, TestResult};

/// More failures than this are no accident.
const MOST: usize = 3;

/// What looks for races and crashes has to hold each time; a counter-example that does not come again is still one.
const ONCE: [&str; 4] = ["vm_crash_", "vm_sequences_", "vm_rollback_", "vm_guard_"];

/// libtest's arguments for that test and no other.
pub(super) fn alone(test: &str) -> [String; 2] {
    ["--exact".to_owned(), test.to_owned()]
}

/// Runs what failed again, each by itself, and puts a success in the failure's place.
pub(super) fn try_again(
    results: &mut [TestResult],
    mut run: impl FnMut(&str) -> Result<Vec<TestResult>>,
) {
    let failed = results
        .iter_mut()
        .filter(|result| result.outcome == Outcome::Failed)
        .collect::<Vec<_>>();
    if failed.len() > MOST {
        return;
    }
    for first in failed {
        if ONCE.iter().any(|prefix| first.test.starts_with(prefix)) {
            continue;
        }
        println!("   again: {}", first.test);
        let second = match run(&first.test) {
            Ok(results) => results.into_iter().find(|other| other.test == first.test),
            Err(error) => {
                println!("   no second try of {}: {error:#}", first.test);
                None
            }
        };
        if let Some(mut second) = second.filter(|second| second.outcome == Outcome::Passed) {
            second.first_failure = Some(first.detail.take().unwrap_or_default());
            *first = second;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(test: &str, outcome: Outcome) -> TestResult {
        TestResult {
            test: test.to_owned(),
            outcome,
            seconds: 0.1,
            detail: (outcome == Outcome::Failed).then(|| "why".to_owned()),
            first_failure: None,
        }
    }

    fn outcomes(tests: &[&str], second: Outcome) -> (Vec<TestResult>, usize) {
        let mut results: Vec<_> = tests
            .iter()
            .map(|test| result(test, Outcome::Failed))
            .collect();
        let mut runs = 0;
        try_again(&mut results, |test| {
            runs += 1;
            Ok(vec![result(test, second)])
        });
        (results, runs)
    }

    #[test]
    fn a_second_try_that_passes_counts_and_keeps_the_first_failure() {
        let (results, runs) = outcomes(&["vm_a"], Outcome::Passed);
        assert_eq!((results[0].outcome, runs), (Outcome::Passed, 1));
        assert_eq!(results[0].first_failure.as_deref(), Some("why"));
    }

    #[test]
    fn what_fails_twice_has_failed() {
        let (results, runs) = outcomes(&["vm_a"], Outcome::Failed);
        assert_eq!((results[0].outcome, runs), (Outcome::Failed, 1));
        assert_eq!(results[0].detail.as_deref(), Some("why"));
    }

    #[test]
    fn many_failures_and_tests_of_races_have_one_try() {
        let (results, runs) = outcomes(&["a", "b", "c", "d"], Outcome::Passed);
        assert!(
            runs == 0
                && results
                    .iter()
                    .all(|result| result.outcome == Outcome::Failed)
        );
        let (results, runs) = outcomes(&["vm_crash_a", "vm_sequences_b"], Outcome::Passed);
        assert!(
            runs == 0
                && results
                    .iter()
                    .all(|result| result.outcome == Outcome::Failed)
        );
    }
}
