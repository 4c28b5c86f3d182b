//! What was found, in words: head, answers, leaks, and what to try next.

use grey_core::event::{Cause, State};
use grey_core::units::{format_bytes, format_rate};

use super::pen::{Ink, Pen};
use crate::diagnose::answers::{Answer, Severity};
use crate::diagnose::leaks::{Leaks, Standing};
use crate::diagnose::report::Report;
use crate::ui::figure;

pub(super) fn head(pen: &mut Pen, report: &Report) {
    let mut parts = vec!["grey-ebpf diagnose".to_owned()];
    parts.extend(report.host.clone());
    if let Some(kernel) = &report.kernel {
        parts.push(format!("Linux {kernel}"));
    }
    if let Some(guest) = &report.guest {
        parts.push(format!("guest of {}", guest.hypervisor));
    }
    parts.push(format!("{} UTC", figure::time_of_day(report.ts)));
    pen.cut(&parts.join("  "), Ink::Dim);
}

fn mark(severity: Severity) -> (&'static str, Ink) {
    match severity {
        Severity::Critical => ("CRIT", Ink::Critical),
        Severity::Warning => ("WARN", Ink::Warning),
        Severity::Note => ("note", Ink::Heading),
        Severity::Ok => ("ok", Ink::Good),
    }
}

pub(super) fn findings(pen: &mut Pen, report: &Report, verbose: bool) {
    pen.section("FINDINGS", "answers to what people ask, the worst first");
    let shown: Vec<&Answer> = report
        .answers
        .iter()
        .filter(|answer| verbose || answer.applies)
        .collect();
    if shown.is_empty() {
        pen.lead(
            "  ok",
            8,
            "Nothing stands out: memory is to be had, nobody waits for it, nobody was killed.",
            Ink::Plain,
            Ink::Good,
        );
    }
    for answer in shown {
        let (word, ink) = mark(answer.severity);
        pen.lead(&format!("  {word}"), 8, answer.question, Ink::Plain, ink);
        pen.words("", &answer.answer, 8, Ink::Plain);
        for reason in &answer.reasons {
            if !answer.answer.contains(reason.text.as_str()) {
                pen.lead("        ·", 10, &reason.text, Ink::Dim, Ink::Dim);
            }
            if verbose {
                for figure in &reason.figures {
                    let text = format!("{} = {}  ({})", figure.name, figure.value, figure.source);
                    pen.words("", &text, 12, Ink::Dim);
                }
            }
        }
        for next in &answer.next {
            pen.lead("        →", 10, next, Ink::Plain, Ink::Good);
        }
    }
}

pub(super) fn leaks(pen: &mut Pen, leaks: &Leaks, verbose: bool) {
    let time = long(leaks.watched_s);
    let early = if leaks.interrupted {
        ", ended early"
    } else {
        ""
    };
    pen.section(
        "LEAKS",
        &format!(
            "what grew while {} cgroups were watched for {time}{early}",
            leaks.cgroups
        ),
    );
    if let Some(reason) = &leaks.without_probes {
        pen.words("", &format!("From files alone: {reason}."), 2, Ink::Dim);
    }
    if leaks.standing.is_empty() && leaks.unjudged.is_empty() {
        pen.lead("  ok", 8, "Nothing grows in the way of a leak. A slow one shows only over hours: leave `grey-ebpf watch` or `record` running.", Ink::Plain, Ink::Good);
    }
    for standing in &leaks.standing {
        one_leak(pen, standing, verbose);
    }
    for grown in &leaks.unjudged {
        let text = format!(
            "{}: {} to {} ({}): too short for a verdict, or a start or a burst of work; watch longer (--for 10m)",
            figure::fit(&grown.cgroup.path, pen.width().saturating_sub(30)),
            format_bytes(grown.from_bytes),
            format_bytes(grown.to_bytes),
            format_rate(grown.rate_bps),
        );
        pen.lead("  grew", 13, &text, Ink::Plain, Ink::Heading);
    }
    if verbose {
        for standing in &leaks.recovered {
            one_leak(pen, standing, verbose);
        }
    }
}

fn one_leak(pen: &mut Pen, standing: &Standing, verbose: bool) {
    let verdict = &standing.verdict;
    let ink = match verdict.state {
        State::Confirmed => Ink::Critical,
        State::Suspect => Ink::Warning,
        State::Growing => Ink::Heading,
        State::Normal | State::Recovered => Ink::Good,
    };
    let mut who = figure::fit(&standing.cgroup.path, pen.width().saturating_sub(30)).into_owned();
    if let Some(process) = &verdict.process {
        who = format!("{} (pid {}) in {who}", process.comm, process.pid);
    }
    let what = match verdict.cause {
        Cause::Unknown => format!("{} memory grows", verdict.memory),
        cause => format!("{cause} of {} memory", verdict.memory),
    };
    pen.lead(
        &format!("  {}", verdict.state),
        13,
        &format!("{who}: {what}"),
        Ink::Plain,
        ink,
    );
    let mut figures = Vec::new();
    if let Some(rate) = verdict.rate_bps {
        figures.push(match verdict.rate_ci95 {
            Some([low, high]) => format!(
                "{} (95 %: {} to {})",
                format_rate(rate),
                format_rate(low),
                format_rate(high)
            ),
            None => format_rate(rate),
        });
    }
    if let Some(grown) = verdict.growth_bytes {
        figures.push(match standing.level_bytes {
            Some(level) => format!(
                "{} by {}, at {} now",
                format_bytes(grown),
                figure::time_of_day(standing.ts),
                format_bytes(level)
            ),
            None => format!("{} so far", format_bytes(grown)),
        });
    }
    if let (Some(ttl), Some(limit)) = (verdict.ttl_s, verdict.limit_bytes) {
        let whose = match verdict.limit_cgroup.as_deref() {
            Some("/") | None => "the machine's memory".to_owned(),
            Some(path) => format!("the {} of {path}", format_bytes(limit)),
        };
        let between = verdict.ttl_ci95_s.map_or(String::new(), |[low, high]| {
            format!(" ({} to {})", long(low), long(high))
        });
        figures.push(format!("full in {}{between} by {whose}", long(ttl)));
    }
    figures.push(format!("confidence {:.0} %", verdict.confidence * 100.0));
    pen.words("", &figures.join(", "), 13, Ink::Plain);
    if !verdict.evidence.reason.is_empty() {
        pen.lead(
            "             ·",
            15,
            &verdict.evidence.reason,
            Ink::Dim,
            Ink::Dim,
        );
    }
    if let Some(grower) = verdict
        .evidence
        .grower
        .as_ref()
        .filter(|_| verbose || verdict.process.is_none())
    {
        let text = format!(
            "most of it in {} (pid {}): {}",
            grower.comm,
            grower.pid,
            format_bytes(grower.bytes)
        );
        pen.lead("             ·", 15, &text, Ink::Dim, Ink::Dim);
    }
    if !verdict.advice.is_empty() {
        pen.lead("             →", 15, &verdict.advice, Ink::Plain, Ink::Good);
    }
}

/// `45s`, `12min`, `3.4h`, `9d`.
fn long(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() || s < 0.0 => "–".to_owned(),
        s if s < 120.0 => format!("{s:.0}s"),
        s if s < 7_200.0 => format!("{:.0}min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1}h", s / 3600.0),
        s => format!("{:.0}d", s / 86_400.0),
    }
}

/// The next command.
pub(super) fn end(pen: &mut Pen, report: &Report) {
    pen.blank();
    let next = if report.leaks.is_none() {
        "grey-ebpf diagnose --detect-leaks    a minute of watching tells whether anything leaks"
    } else if report
        .leaks
        .as_ref()
        .is_some_and(|leaks| leaks.standing.is_empty())
    {
        "grey-ebpf record memory.ndjson.gz    keeps what happens over hours, for slow leaks"
    } else {
        "grey-ebpf watch    the same live, with alerts"
    };
    pen.lead("next", 6, next, Ink::Plain, Ink::Good);
}
