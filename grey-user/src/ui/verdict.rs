//! What the detector says of one cgroup, in lines.

use grey_core::event::Verdict;
use grey_core::units::{format_bytes, format_rate};
use grey_core::view::{Model, headline, printable, seconds};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::columns::state_style;
use super::figure;
use super::panes::Line;
use super::theme::Theme;

/// Draws the gravest in full and of the others one line each. Returns the lines taken.
pub(super) fn draw(buf: &mut Buffer, area: Rect, model: &Model, path: &str, theme: Theme) -> u16 {
    let mut used = 0;
    for (at, judged) in model.verdicts(path).iter().enumerate() {
        let verdict = &judged.verdict;
        let style = state_style(verdict.state, theme);
        let mut words = vec![
            (headline(verdict), style),
            (
                format!("at {} UTC", figure::time_of_day(judged.ts)),
                theme.dim(),
            ),
        ];
        if at == 0 {
            words.extend(
                forecast(verdict, model.time_left(judged))
                    .into_iter()
                    .map(|text| (text, theme.text())),
            );
        }
        used += put_words(buf, area, used, &words);
        if at == 0 {
            for (text, style) in [
                (&verdict.evidence.reason, theme.dim()),
                (&verdict.advice, theme.text()),
            ] {
                let words: Vec<(String, Style)> = printable(text)
                    .split_whitespace()
                    .map(|word| (word.to_owned(), style))
                    .collect();
                used += put_words(buf, area, used, &words);
            }
        }
    }
    used
}

/// Rate, growth, limit, each with its confidence interval where there is one.
fn forecast(verdict: &Verdict, left: Option<f64>) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(rate) = verdict.rate_bps {
        let interval = verdict.rate_ci95.map_or(String::new(), |[low, high]| {
            format!(" ({} to {})", format_rate(low), format_rate(high))
        });
        words.push(format!("{}{interval}", format_rate(rate)));
    }
    if let Some(growth) = verdict.growth_bytes {
        let since = verdict.since.map_or(String::new(), |since| {
            format!(" since {}", figure::time_of_day(since))
        });
        words.push(format!("grew {}{since}", format_bytes(growth)));
    }
    if let Some(limit) = verdict.limit_bytes {
        let whose = match verdict.limit_cgroup.as_deref() {
            None => String::new(),
            Some("/") => " of the machine".to_owned(),
            Some(path) => format!(" of {}", figure::fit(&printable(path), 40)),
        };
        let when = verdict.ttl_s.map_or(String::new(), |ttl| {
            let interval = verdict.ttl_ci95_s.map_or(String::new(), |[low, high]| {
                format!(" ({} to {})", seconds(low), seconds(high))
            });
            match left {
                Some(left) if (ttl - left).round() >= 1.0 => {
                    format!(" in {}, {} then{interval}", seconds(left), seconds(ttl))
                }
                Some(_) => format!(" in {}{interval}", seconds(ttl)),
                // It did not go on like that, or the limit is reached.
                None => format!(" in {} from then{interval}", seconds(ttl)),
            }
        });
        words.push(format!("limit {}{whose}{when}", format_bytes(limit)));
    }
    words.push(format!(
        "{} sure",
        figure::percent(Some(verdict.confidence * 100.0))
    ));
    if let Some(grower) = &verdict.evidence.grower {
        words.push(format!(
            "most by {} {} ({})",
            grower.pid,
            printable(&grower.comm),
            format_bytes(grower.bytes)
        ));
    }
    words
}

/// Words one after the other, going on in the next line; as many lines as there is room for.
fn put_words(buf: &mut Buffer, area: Rect, from: u16, words: &[(String, Style)]) -> u16 {
    let start = area.x + 2;
    let mut at = from;
    let mut line = 0;
    let mut x = start;
    for (text, style) in words {
        let width = u16::try_from(figure::width(text)).unwrap_or(u16::MAX);
        if line == 0 || (x > start && x.saturating_add(width) > area.right()) {
            if from + line >= area.height {
                break;
            }
            at = area.y + from + line;
            line += 1;
            x = start;
        }
        let mut out = Line {
            buf,
            x,
            y: at,
            end: area.right(),
        };
        out.put(text, *style);
        x = out.x;
    }
    line
}
