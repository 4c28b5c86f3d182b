//! Answers in words to what people ask about a machine's memory. Pure functions from facts; each tells the figures it
//! rests on and what to do next.

mod fragmentation;
mod ksm;
mod limits;
mod not_reducing;
mod oom;
mod permission;
mod pressure;
mod reclaim;
#[cfg(test)]
mod tests;

use grey_core::units::format_bytes;
use serde::Serialize;

pub(super) use fragmentation::HUGE_ORDER;
pub(super) use ksm::signed;

use super::breakdown::Breakdown;
use super::facts::Facts;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing is wrong.
    Ok,
    /// Worth knowing.
    Note,
    /// Costs something, or will.
    Warning,
    /// Costs somebody now: kills, stalls.
    Critical,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// Stable name.
    pub id: &'static str,
    /// The question as people ask it.
    pub question: &'static str,
    /// Whether this machine gives reason to ask it.
    pub applies: bool,
    /// How bad it is.
    pub severity: Severity,
    /// One or two sentences.
    pub answer: String,
    /// The causes found, the weightiest first.
    pub reasons: Vec<Reason>,
    /// What to do next, the most useful first.
    pub next: Vec<String>,
}

/// A cause, with what it rests on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reason {
    /// Stable name.
    pub id: &'static str,
    /// One sentence.
    pub text: String,
    /// The figures it rests on.
    pub figures: Vec<Figure>,
}

/// A figure and the file it is from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Stable name.
    pub name: &'static str,
    /// The figure.
    #[serde(flatten)]
    pub value: Value,
    /// Where it is from.
    pub source: String,
}

/// What kind of figure it is; its name is the key in JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// Bytes.
    Bytes(u64),
    /// A number of things.
    Count(u64),
    /// A share in percent.
    Percent(f64),
    /// A word.
    Text(String),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Bytes(bytes) => f.write_str(&format_bytes(*bytes)),
            Value::Count(count) => write!(f, "{count}"),
            Value::Percent(share) => write!(f, "{share:.1} %"),
            Value::Text(text) => f.write_str(text),
        }
    }
}

/// All answers, the worst first; those that do not apply come last.
#[must_use]
pub fn answers(facts: &Facts, breakdown: &Breakdown) -> Vec<Answer> {
    let mut all = vec![
        oom::why_killed(facts),
        pressure::short_of_memory(facts),
        limits::near_limit(facts),
        not_reducing::why(facts, breakdown),
        ksm::why_not_merging(facts),
        fragmentation::huge_pages(facts),
        reclaim::why_not_available(facts),
        permission::what_is_denied(facts),
    ];
    // Stable: the order above within a severity.
    all.sort_by_key(|answer| std::cmp::Reverse((answer.applies, answer.severity)));
    all
}

/// An answer that nothing has been added to.
fn answer(id: &'static str, question: &'static str) -> Answer {
    Answer {
        id,
        question,
        applies: false,
        severity: Severity::Ok,
        answer: String::new(),
        reasons: Vec::new(),
        next: Vec::new(),
    }
}

fn reason(id: &'static str, text: impl Into<String>) -> Reason {
    Reason {
        id,
        text: text.into(),
        figures: Vec::new(),
    }
}

impl Reason {
    fn figure(mut self, name: &'static str, value: Value, source: impl Into<String>) -> Self {
        self.figures.push(Figure {
            name,
            value,
            source: source.into(),
        });
        self
    }

    fn bytes(self, name: &'static str, bytes: u64, source: impl Into<String>) -> Self {
        self.figure(name, Value::Bytes(bytes), source)
    }

    fn count(self, name: &'static str, count: u64, source: impl Into<String>) -> Self {
        self.figure(name, Value::Count(count), source)
    }

    fn text(self, name: &'static str, text: impl Into<String>, source: impl Into<String>) -> Self {
        self.figure(name, Value::Text(text.into()), source)
    }

    fn percent(self, name: &'static str, share: f64, source: impl Into<String>) -> Self {
        self.figure(name, Value::Percent(share), source)
    }
}

/// Share of a whole, 0 to 1; 0 where there is no whole.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

/// `1 cgroup`, `2 cgroups`.
fn count(n: u64, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {what}{plural}")
}
