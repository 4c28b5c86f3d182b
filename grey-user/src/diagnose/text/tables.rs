//! The largest cgroups and processes, a line each.

use grey_core::event::Limit;
use grey_core::units::format_bytes as size;

use super::pen::{Ink, Pen, Side};
use crate::diagnose::facts::{CgroupUse, ProcessUse, Source};
use crate::diagnose::report::Report;
use crate::ui::figure;

/// Name and width of a column of figures.
type Column = (&'static str, usize);

/// A table's head and lines; the first column takes what is left, at most `longest`.
fn table(
    pen: &mut Pen,
    title: &str,
    longest: usize,
    columns: &[&'static str],
    rows: &[(String, Vec<(String, Ink)>)],
) {
    // As narrow as the cells allow, for the sake of the names.
    let columns: Vec<Column> = columns
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let cells = rows.iter().filter_map(|(_, cells)| cells.get(at));
            let widest = cells.map(|(cell, _)| figure::width(cell)).max();
            (*name, widest.unwrap_or(0).max(figure::width(name)))
        })
        .collect();
    let figures: usize = columns.iter().map(|(_, width)| width + 2).sum();
    let room = pen.width().saturating_sub(2 + figures).max(12);
    let wide = rows
        .iter()
        .map(|(name, _)| figure::width(name))
        .max()
        .unwrap_or(0)
        .max(figure::width(title))
        .min(longest)
        .min(room);
    let mut line = format!("  {}", pen.cell(title, wide, Side::Left, Ink::Dim));
    for (name, width) in &columns {
        line.push_str("  ");
        line.push_str(&pen.cell(name, *width, Side::Right, Ink::Dim));
    }
    pen.line(&line);
    for (name, cells) in rows {
        let mut line = format!(
            "  {}",
            pen.cell(&figure::fit(name, wide), wide, Side::Left, Ink::Plain)
        );
        for ((_, width), (cell, ink)) in columns.iter().zip(cells) {
            line.push_str("  ");
            line.push_str(&pen.cell(cell, *width, Side::Right, *ink));
        }
        pen.line(&line);
    }
}

fn plain(text: String) -> (String, Ink) {
    (text, Ink::Plain)
}

pub(super) fn cgroups(pen: &mut Pen, report: &Report) {
    let cgroups = &report.cgroups;
    let (about, files) = match cgroups.source {
        Source::Files => (
            "by memory.current + swap; a line includes what is below it",
            true,
        ),
        Source::Processes => (
            "summed from their processes, for there are no memory.* files here",
            false,
        ),
        Source::Nothing => {
            pen.section("CGROUPS", "none: there is no cgroup v2 tree");
            return;
        }
    };
    pen.section("CGROUPS", about);
    if cgroups.top.is_empty() {
        pen.line("  none holds memory");
        return;
    }
    let narrow = pen.width() < 90;
    let mut columns: Vec<&'static str> = Vec::new();
    if files {
        columns.push("CURRENT");
    }
    columns.push("ANON");
    if files {
        columns.push("FILE");
    }
    columns.push("SWAP");
    if files {
        columns.extend(["LIMIT", "USED"]);
    }
    if !narrow {
        columns.extend(["PSI10", "PSI60"]);
        if files {
            columns.push("EVENTS");
        } else {
            columns.push("PROCS");
        }
    }
    let rows: Vec<_> = cgroups
        .top
        .iter()
        .map(|cgroup| (cgroup.path.clone(), cgroup_cells(cgroup, files, narrow)))
        .collect();
    table(pen, "CGROUP", 60, &columns, &rows);
    if let Some(wanted) = cgroups
        .wanted
        .filter(|wanted| *wanted > cgroups.top.len() as u64)
    {
        let more = wanted - cgroups.top.len() as u64;
        pen.line(&pen.paint(&format!("  … and {more} more (--top)"), Ink::Dim));
    }
    if cgroups.incomplete {
        pen.line(&pen.paint("  not all: reading them took too long", Ink::Warning));
    }
}

fn cgroup_cells(cgroup: &CgroupUse, files: bool, narrow: bool) -> Vec<(String, Ink)> {
    let mut cells = Vec::new();
    if files {
        cells.push(plain(figure::bytes(cgroup.current)));
    }
    cells.push(plain(figure::bytes(cgroup.anon)));
    if files {
        cells.push(plain(figure::bytes(cgroup.file)));
    }
    cells.push(plain(figure::bytes(cgroup.swap)));
    if files {
        let limit = match (cgroup.max, &cgroup.limit) {
            (Limit::Bytes(bytes), _) => size(bytes),
            // A limit further up, in brackets.
            (_, Some(limit)) => format!("({})", size(limit.bytes)),
            (Limit::None, None) => "none".to_owned(),
            (Limit::Unknown, None) => figure::UNKNOWN.to_owned(),
        };
        let used = cgroup
            .limit
            .as_ref()
            .and_then(|limit| limit.used())
            .map(|used| used * 100.0);
        let ink = match used {
            Some(used) if used >= 95.0 => Ink::Critical,
            Some(used) if used >= 80.0 => Ink::Warning,
            _ => Ink::Plain,
        };
        cells.push(plain(limit));
        cells.push((figure::percent(used), ink));
    }
    if narrow {
        return cells;
    }
    let psi = |share: Option<f64>| {
        let ink = match share {
            Some(share) if share >= 10.0 => Ink::Critical,
            Some(share) if share >= 1.0 => Ink::Warning,
            _ => Ink::Plain,
        };
        (figure::percent(share), ink)
    };
    cells.push(psi(cgroup.pressure.map(|psi| psi.some.avg10)));
    cells.push(psi(cgroup.pressure.map(|psi| psi.some.avg60)));
    cells.push(if files {
        events(cgroup)
    } else {
        plain(figure::total(cgroup.processes))
    });
    cells
}

/// What happened, the worst first and alone where there is little room.
fn events(cgroup: &CgroupUse) -> (String, Ink) {
    let Some(events) = &cgroup.events else {
        return plain(figure::UNKNOWN.to_owned());
    };
    let kinds = [
        (events.oom_kill, "killed", Ink::Critical),
        (events.oom, "oom", Ink::Critical),
        (events.max, "max", Ink::Warning),
        (events.high, "high", Ink::Warning),
    ];
    let happened: Vec<_> = kinds
        .into_iter()
        .filter_map(|(count, name, ink)| Some((count.filter(|count| *count > 0)?, name, ink)))
        .collect();
    let text: Vec<String> = happened
        .iter()
        .take(2)
        .map(|(count, name, _)| format!("{} {name}", figure::count(Some(*count as f64))))
        .collect();
    (
        text.join(", "),
        happened.first().map_or(Ink::Plain, |(_, _, ink)| *ink),
    )
}

pub(super) fn processes(pen: &mut Pen, report: &Report) {
    let processes = &report.processes;
    pen.section(
        "PROCESSES",
        "PSS: shared pages divided by their users; USS: what its end gives back",
    );
    if processes.top.is_empty() {
        pen.line("  none can be seen");
        return;
    }
    let narrow = pen.width() < 90;
    let mut columns: Vec<&'static str> = vec!["RSS", "PSS", "USS", "SWAP"];
    if !narrow {
        columns.extend(["VIRTUAL", "HUGE"]);
    }
    let room = pen.width().saturating_sub(2 + 8 * columns.len());
    let rows: Vec<_> = processes
        .top
        .iter()
        .map(|process| (process_name(process, room), process_cells(process, narrow)))
        .collect();
    table(pen, "PROCESS", 80, &columns, &rows);
    if processes.denied > 0 {
        let text = format!(
            "  –: {} not readable (smaps_rollup needs CAP_SYS_PTRACE); RSS and swap from /proc/PID/status",
            processes.denied
        );
        let text = figure::cut(&text, pen.width()).into_owned();
        pen.line(&pen.paint(&text, Ink::Dim));
    }
    if processes.late > 0 {
        let text = format!("  –: {} not read in time", processes.late);
        pen.line(&pen.paint(&text, Ink::Warning));
    }
    if processes.incomplete {
        pen.line(&pen.paint("  not all: reading /proc took too long", Ink::Warning));
    }
}

/// pid, name, and as much of the cgroup as there is room for.
fn process_name(process: &ProcessUse, room: usize) -> String {
    let name = format!("{:>7} {}", process.pid, process.comm);
    let left = room.saturating_sub(figure::width(&name) + 2);
    match &process.cgroup {
        Some(cgroup) if cgroup != "/" && left >= 12 => {
            format!("{name}  {}", figure::fit(cgroup, left.min(48)))
        }
        _ => name,
    }
}

fn process_cells(process: &ProcessUse, narrow: bool) -> Vec<(String, Ink)> {
    let mut cells = vec![
        plain(figure::bytes(process.rss)),
        plain(figure::bytes(process.pss)),
        plain(figure::bytes(process.uss)),
        plain(figure::bytes(process.swap)),
    ];
    if !narrow {
        let huge = process
            .anon_huge
            .zip(process.anon)
            .filter(|(_, anon)| *anon > 0)
            .map(|(huge, anon)| huge as f64 * 100.0 / anon as f64);
        cells.push(plain(figure::bytes(process.virt)));
        cells.push(plain(figure::percent(huge)));
    }
    cells
}
