//! A comparison as text: totals first, then the largest changes. Colours, arrows and bars on a terminal only; in a
//! pipe a minus says that it went down.

use std::fmt::Write as _;

use grey_core::units::{format_bytes, format_duration_us};
use grey_core::view::printable;

use super::compare::{CgroupChange, Change, Comparison, Figures, Head, ProcessChange, Status};
use table::{Cell, Table};

mod table;

/// An unknown figure.
const UNKNOWN: &str = "–";
/// Columns of a path.
const PATH: usize = 44;
/// Columns of a bar.
const BAR: u64 = 10;

/// The machine's figures in the table, their names, and whether less of it is what one wants.
const MACHINE: [(&str, &str, bool); 10] = [
    ("in_use", "in use", true),
    ("held", "with page cache", true),
    ("available", "available", false),
    ("free", "free", false),
    ("anon", "anonymous", true),
    ("swap", "swap", true),
    ("cache", "page cache", true),
    ("shmem", "shared memory", true),
    ("slab", "slab", true),
    ("pagetables", "page tables", true),
];

/// How to draw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// On a terminal: arrows and bars.
    pub(super) terminal: bool,
    /// Escape sequences.
    pub(super) color: bool,
}

/// The whole text; at most `top` rows a list.
pub(super) fn text(comparison: &Comparison, top: usize, look: Look) -> String {
    let mut out = String::new();
    heads(&mut out, comparison, look);
    summary(&mut out, comparison);
    machine(&mut out, &comparison.machine, look);
    cgroups(&mut out, comparison, top, look);
    processes(&mut out, comparison, top, look);
    out
}

fn heads(out: &mut String, comparison: &Comparison, look: Look) {
    let head = |head: &Head| {
        let kernel = head.kernel.as_deref().unwrap_or_default();
        let line = format!(
            "{}  {}  {}",
            head.ts,
            printable(&head.host),
            printable(kernel)
        );
        line.trim_end().to_owned()
    };
    let us = (comparison.elapsed_s.abs() * 1e6) as u64;
    let word = if comparison.elapsed_s < 0.0 {
        "earlier"
    } else {
        "later"
    };
    let _ = writeln!(out, "before  {}", head(&comparison.before));
    let _ = writeln!(
        out,
        "after   {}  ({} {word})",
        head(&comparison.after),
        format_duration_us(us)
    );
    for note in &comparison.notes {
        let label = look.paint("note", "33");
        let _ = writeln!(out, "{label}    {}", printable(&note.text));
    }
    out.push('\n');
}

fn summary(out: &mut String, comparison: &Comparison) {
    let figures = &comparison.machine;
    if let Some(change) = figures.get("in_use")
        && let (Some(before), Some(after), Some(reduction)) =
            (change.before, change.after, change.reduction_bytes)
    {
        let (before, after) = (format_bytes(before), format_bytes(after));
        let share = match change.reduction_pct.unwrap_or(0.0).abs() {
            0.0 => "under 0.1".to_owned(),
            share => share.to_string(),
        };
        let size = format_bytes(reduction.unsigned_abs());
        let _ = match reduction {
            0 => writeln!(out, "Memory in use did not change: {after}."),
            1.. => writeln!(
                out,
                "Memory in use fell by {size} ({share}%): {before} before, {after} after."
            ),
            _ => writeln!(
                out,
                "Memory in use rose by {size} ({share}%): {before} before, {after} after."
            ),
        };
    }
    let accounted = &comparison.accounted;
    if let Some(bytes) = accounted.cgroups_bytes {
        let (own, whole) = match accounted.figure {
            "held" => ("memory.current", "all memory that is not free"),
            _ => ("anonymous memory and swap", "anonymous memory and swap"),
        };
        let _ = write!(out, "Cgroups account for {} of {own}", words(bytes));
        let _ = match (accounted.machine_bytes, accounted.cgroups_pct) {
            // More than the whole is no share: the machine's figure lags, or something else grew meanwhile.
            (Some(machine), Some(share)) if (0.0..=100.5).contains(&share) => {
                writeln!(
                    out,
                    ", {share}% of the machine's {} of {whole}.",
                    words(machine)
                )
            }
            (Some(machine), _) => writeln!(out, "; the machine has {} of {whole}.", words(machine)),
            (None, _) => writeln!(out, "."),
        };
    }
    if let Some(bytes) = accounted.processes_bytes {
        let _ = write!(out, "Processes account for {}", words(bytes));
        let _ = match (accounted.processes_by_rss, comparison.processes.len()) {
            (0, _) => writeln!(out, " of PSS."),
            (some, all) if some >= all => {
                writeln!(out, " of RSS, which counts shared memory in each.")
            }
            (some, _) => writeln!(out, " of PSS ({some} of them by RSS)."),
        };
    }
    out.push('\n');
}

/// `64M less`, `3.0M more`, `no change`.
fn words(reduction: i64) -> String {
    let size = format_bytes(reduction.unsigned_abs());
    match reduction {
        0 => "no change".to_owned(),
        1.. => format!("{size} less"),
        _ => format!("{size} more"),
    }
}

fn machine(out: &mut String, figures: &Figures, look: Look) {
    let mut table = Table::new(&["MACHINE", "BEFORE", "AFTER", "CHANGE", "%"], 1);
    for (name, label, less_is_good) in MACHINE {
        if let Some(change) = figures.get(name) {
            let mut row = vec![Cell::plain(label)];
            row.extend(look.figures(change, less_is_good));
            table.row(row);
        }
    }
    table.write(out, look);
}

fn cgroups(out: &mut String, comparison: &Comparison, top: usize, look: Look) {
    let changed: Vec<&CgroupChange> = comparison
        .cgroups
        .iter()
        // The root's figures are those of the machine, above.
        .filter(|change| change.path != "/")
        .filter(|change| change.status != Status::Same || moved(&change.figures))
        .collect();
    let all = comparison
        .cgroups
        .iter()
        .filter(|change| change.path != "/");
    let most = largest(changed.iter().map(|change| &change.change));
    let mut heads = vec!["CGROUP", "BEFORE", "AFTER", "CHANGE", "%"];
    heads.extend(look.terminal.then_some(""));
    heads.extend(["ANON", "FILE", "SWAP", ""]);
    let mut table = Table::new(&heads, 1);
    for change in changed.iter().take(top) {
        let mut row = vec![Cell::plain(shorten(&printable(&change.path)))];
        row.extend(look.figures(&change.change, true));
        row.extend(look.bar(&change.change, most));
        for name in ["anon", "file", "swap"] {
            row.push(look.change(change.figures.get(name), true));
        }
        row.push(Cell::plain(remarks(change)));
        table.row(row);
    }
    let by = match changed.first().and_then(|change| change.figure) {
        Some("anon_swap") => "by anonymous memory and swap",
        _ => "by memory.current, which includes page cache and the cgroups below",
    };
    list(
        out,
        "cgroup",
        by,
        &table,
        changed.len(),
        top,
        all.count(),
        look,
    );
}

fn remarks(change: &CgroupChange) -> String {
    let mut parts: Vec<String> = Vec::new();
    parts.extend(status(change.status).map(str::to_owned));
    for (name, count) in &change.happened {
        let (one, more) = match *name {
            "oom_kills" => ("OOM kill", "OOM kills"),
            "max_breaches" => ("time at memory.max", "times at memory.max"),
            "high_breaches" => ("time over memory.high", "times over memory.high"),
            _ => continue,
        };
        parts.push(format!("{count} {}", if *count == 1 { one } else { more }));
    }
    parts.join(", ")
}

fn status(status: Status) -> Option<&'static str> {
    match status {
        Status::Same => None,
        Status::Recreated => Some("made again"),
        Status::New => Some("new"),
        Status::Gone => Some("gone"),
    }
}

fn processes(out: &mut String, comparison: &Comparison, top: usize, look: Look) {
    let changed: Vec<&ProcessChange> = comparison
        .processes
        .iter()
        .filter(|change| change.status != Status::Same || moved(&change.figures))
        .collect();
    let most = largest(changed.iter().map(|change| &change.change));
    let mut heads = vec!["PROCESS", "PID", "BY", "BEFORE", "AFTER", "CHANGE", "%"];
    heads.extend(look.terminal.then_some(""));
    heads.extend(["RSS", "USS", "SWAP", ""]);
    let mut table = Table::new(&heads, 1);
    for change in changed.iter().take(top) {
        let mut row = vec![
            Cell::plain(shorten(&printable(&change.comm))),
            Cell::plain(change.pid.to_string()),
            Cell::plain(change.figure.map_or(UNKNOWN.to_owned(), str::to_uppercase)),
        ];
        row.extend(look.figures(&change.change, true));
        row.extend(look.bar(&change.change, most));
        for name in ["rss", "uss", "swap"] {
            row.push(look.change(change.figures.get(name), true));
        }
        let mut remark = status(change.status).unwrap_or_default().to_owned();
        if change.pid_reused {
            remark.push_str(", pid reused");
        }
        if let Some(before) = &change.comm_before {
            let _ = write!(remark, "was {}", printable(before));
        }
        row.push(Cell::plain(remark));
        table.row(row);
    }
    let by = "PSS counts shared memory once, USS is what a process alone has";
    list(
        out,
        "process",
        by,
        &table,
        changed.len(),
        top,
        comparison.processes.len(),
        look,
    );
}

#[allow(
    clippy::too_many_arguments,
    reason = "one place for the frame of both lists"
)]
fn list(
    out: &mut String,
    what: &str,
    by: &str,
    table: &Table,
    changed: usize,
    top: usize,
    all: usize,
    look: Look,
) {
    if all == 0 {
        return;
    }
    let plural = match (what, all) {
        (what, 1) => what.to_owned(),
        ("process", _) => "processes".to_owned(),
        (what, _) => format!("{what}s"),
    };
    if changed == 0 {
        let _ = writeln!(out, "\nNothing changed in {all} {plural}.");
        return;
    }
    let line = format!("{changed} of {all} {plural} changed; {by}");
    let _ = writeln!(out, "\n{}", look.paint(&line, "2"));
    table.write(out, look);
    if changed > top {
        let _ = writeln!(out, "… and {} more (--top)", changed - top);
    }
}

/// Whether any figure is another one than before.
fn moved(figures: &Figures) -> bool {
    figures
        .iter()
        .any(|(_, change)| change.reduction_bytes.is_some_and(|bytes| bytes != 0))
}

fn largest<'a>(changes: impl Iterator<Item = &'a Change>) -> u64 {
    changes.map(Change::size).max().unwrap_or(0)
}

/// A path in [`PATH`] columns: its end says what it is.
fn shorten(path: &str) -> String {
    let length = path.chars().count();
    if length <= PATH {
        return path.to_owned();
    }
    let tail: String = path.chars().skip(length - (PATH - 1)).collect();
    format!("…{tail}")
}

impl Look {
    fn paint(self, text: &str, code: &str) -> String {
        match self.color {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    /// Before, after, change and percent.
    fn figures(self, change: &Change, less_is_good: bool) -> [Cell; 4] {
        let bytes = |figure: Option<u64>| {
            Cell::plain(figure.map_or_else(|| UNKNOWN.to_owned(), format_bytes))
        };
        let percent = match change.reduction_pct {
            None => Cell::plain(UNKNOWN),
            Some(0.0) => Cell::plain("0%"),
            // What grew from next to nothing has no telling share.
            Some(share) if share < -99_950.0 => Cell::plain(">999×"),
            Some(share) if share.abs() < 10.0 => Cell::plain(format!("{:+.1}%", -share)),
            Some(share) => Cell::plain(format!("{:+.0}%", -share)),
        };
        [
            bytes(change.before),
            bytes(change.after),
            self.change(Some(change), less_is_good),
            percent.colored(color(change, less_is_good)),
        ]
    }

    /// The change alone: `▼ 64M` on a terminal, `-64M` in a pipe.
    fn change(self, change: Option<&Change>, less_is_good: bool) -> Cell {
        let Some((change, reduction)) =
            change.and_then(|change| Some((change, change.reduction_bytes?)))
        else {
            return Cell::plain(UNKNOWN);
        };
        let size = format_bytes(reduction.unsigned_abs());
        let text = match (reduction, self.terminal) {
            (0, _) => "0".to_owned(),
            (1.., true) => format!("▼ {size}"),
            (1.., false) => format!("-{size}"),
            (_, true) => format!("▲ {size}"),
            (_, false) => format!("+{size}"),
        };
        Cell::plain(text).colored(color(change, less_is_good))
    }

    fn bar(self, change: &Change, most: u64) -> Option<Cell> {
        const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        if !self.terminal {
            return None;
        }
        let eighths = match change.size() {
            0 => 0,
            // Something that changed shows something.
            size => (u128::from(size) * u128::from(BAR * 8) / u128::from(most.max(1))).max(1),
        };
        let eighths = usize::try_from(eighths).unwrap_or_default();
        let bar = format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8]);
        Some(Cell::left(bar).colored(color(change, true)))
    }
}

/// Green for what got better, yellow for what got worse.
fn color(change: &Change, less_is_good: bool) -> Option<&'static str> {
    match change.reduction_bytes? {
        0 => Some("2"),
        reduction if (reduction > 0) == less_is_good => Some("32"),
        _ => Some("33"),
    }
}

#[cfg(test)]
mod tests;
