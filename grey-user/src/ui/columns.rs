//! The table's columns: which there is room for, and what each shows.

use grey_core::event::{Cause, Limit, State};
use grey_core::view::{Judged, LimitUse, Model, Row, SortKey, seconds};
use ratatui::style::Style;

use super::figure;
use super::theme::Theme;

/// Growth below this is the noise of a living process, bytes/s.
const NOISE: f64 = 65_536.0;
const MIN_PATH: u16 = 24;
const MIN_SPARK: u16 = 8;
const MAX_SPARK: u16 = 60;
/// Wide enough for `reservation?`.
pub(super) const VERDICT: u16 = 12;

/// A column beside the cgroup's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Verdict,
    Kind,
    Processes,
    Memory,
    Anon,
    File,
    Swap,
    Growth,
    Spark,
    Faults,
    Major,
    Mapped,
    Stall,
    Psi,
    Limit,
    Max,
}

/// In the order in which they are given up from the end when there is no room.
const BY_WORTH: [Column; 16] = [
    Column::Verdict,
    Column::Memory,
    Column::Growth,
    Column::Faults,
    Column::Spark,
    Column::Limit,
    Column::Anon,
    Column::Psi,
    Column::Stall,
    Column::Mapped,
    Column::Kind,
    Column::Swap,
    Column::Max,
    Column::Processes,
    Column::File,
    Column::Major,
];

/// From left to right.
const BY_PLACE: [Column; 16] = [
    Column::Verdict,
    Column::Kind,
    Column::Processes,
    Column::Memory,
    Column::Anon,
    Column::File,
    Column::Swap,
    Column::Growth,
    Column::Spark,
    Column::Faults,
    Column::Major,
    Column::Mapped,
    Column::Stall,
    Column::Psi,
    Column::Limit,
    Column::Max,
];

/// The columns of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) path: u16,
    /// Column, width.
    pub(super) shown: Vec<(Column, u16)>,
}

impl Column {
    pub(super) fn title(self) -> &'static str {
        match self {
            Column::Verdict => "VERDICT",
            Column::Kind => "KIND",
            Column::Processes => "PROCS",
            Column::Memory => "MEMORY",
            Column::Anon => "ANON",
            Column::File => "FILE",
            Column::Swap => "SWAP",
            Column::Growth => "GROWTH/S",
            Column::Spark => "",
            Column::Faults => "FAULTS/S",
            Column::Major => "MAJOR/S",
            Column::Mapped => "MAPPED/S",
            Column::Stall => "STALL/S",
            Column::Psi => "PSI",
            Column::Limit => "LIMIT",
            Column::Max => "OF",
        }
    }

    pub(super) fn sort(self) -> Option<SortKey> {
        match self {
            Column::Verdict => Some(SortKey::Verdict),
            Column::Memory => Some(SortKey::Memory),
            Column::Anon => Some(SortKey::Anon),
            Column::Growth => Some(SortKey::Growth),
            Column::Faults => Some(SortKey::Faults),
            Column::Mapped => Some(SortKey::Mapped),
            Column::Stall => Some(SortKey::Stall),
            Column::Psi => Some(SortKey::Psi),
            Column::Limit => Some(SortKey::Limit),
            Column::Kind
            | Column::Processes
            | Column::File
            | Column::Swap
            | Column::Spark
            | Column::Major
            | Column::Max => None,
        }
    }

    pub(super) fn left_aligned(self) -> bool {
        matches!(self, Column::Verdict | Column::Kind | Column::Spark)
    }

    fn width(self) -> u16 {
        match self {
            Column::Verdict => VERDICT,
            Column::Kind => 9,
            Column::Spark => MIN_SPARK,
            Column::Growth | Column::Faults | Column::Mapped => 9,
            Column::Major | Column::Stall => 7,
            Column::Memory | Column::Limit => 6,
            Column::Processes
            | Column::Anon
            | Column::File
            | Column::Swap
            | Column::Psi
            | Column::Max => 5,
        }
    }

    /// Shown even where no cgroup has the figure, if there is room: its absence is news.
    fn is_core(self) -> bool {
        !matches!(
            self,
            Column::Verdict
                | Column::Processes
                | Column::File
                | Column::Swap
                | Column::Major
                | Column::Max
        )
    }
}

/// Chooses columns for `width` screen columns. `longest` is the width of the longest path.
pub(super) fn choose(width: u16, longest: usize, model: &Model, sort: SortKey) -> Columns {
    let known = known(model);
    let (with, without): (Vec<Column>, Vec<Column>) = BY_WORTH
        .iter()
        .filter(|column| known[**column as usize] || column.is_core())
        .partition(|column| known[**column as usize]);
    // What the user sorts by is kept, whatever it is worth.
    let first = BY_WORTH.iter().filter(|column| column.sort() == Some(sort));
    let wanted = u16::try_from(longest).unwrap_or(u16::MAX).max(MIN_PATH);
    let min_path = MIN_PATH
        .max(width * 3 / 10)
        .min(width / 3)
        .min(wanted)
        .max(8);
    let mut room = width.saturating_sub(min_path);
    let mut chosen: Vec<Column> = Vec::new();
    for column in first.copied().chain(with).chain(without) {
        let needs = column.width() + 1;
        if room >= needs && !chosen.contains(&column) {
            room -= needs;
            chosen.push(column);
        }
    }
    // What is left goes to the path as far as it needs it, half of it at least to the sparkline.
    let lacks = wanted.saturating_sub(min_path);
    let mut spark = MIN_SPARK;
    let mut path = min_path;
    if chosen.contains(&Column::Spark) {
        let more = room
            .saturating_sub(lacks)
            .max(room / 3)
            .min(MAX_SPARK - MIN_SPARK);
        spark += more;
        room -= more;
    }
    path += room.min(lacks);
    let shown = BY_PLACE
        .iter()
        .filter(|column| chosen.contains(column))
        .map(|column| {
            (
                *column,
                if *column == Column::Spark {
                    spark
                } else {
                    column.width()
                },
            )
        })
        .collect();
    Columns { path, shown }
}

/// Which columns have a figure of any cgroup.
fn known(model: &Model) -> [bool; 16] {
    let mut known = [false; 16];
    for entry in model.entries() {
        let sample = entry.sample();
        let mem = &sample.mem;
        for (column, has) in [
            (Column::Verdict, !model.verdicts(entry.path()).is_empty()),
            (Column::Kind, true),
            (Column::Spark, true),
            (Column::Processes, sample.processes.is_some()),
            (Column::Memory, mem.current.is_some()),
            (Column::Anon, mem.anon.is_some()),
            (Column::File, mem.file.is_some()),
            (Column::Swap, mem.swap.is_some()),
            (Column::Growth, mem.anon.is_some()),
            (
                Column::Faults,
                sample
                    .faults
                    .as_ref()
                    .is_some_and(|f| f.minor_total.is_some()),
            ),
            (
                Column::Major,
                sample
                    .faults
                    .as_ref()
                    .is_some_and(|f| f.major_total.is_some()),
            ),
            (
                Column::Mapped,
                sample
                    .vm
                    .as_ref()
                    .is_some_and(|vm| vm.mapped_total.is_some()),
            ),
            (
                Column::Stall,
                sample
                    .reclaim
                    .as_ref()
                    .is_some_and(|r| r.stall_us_total.is_some()),
            ),
            (Column::Psi, sample.psi.is_some()),
            (Column::Limit, !mem.max.is_unknown()),
            (Column::Max, mem.max.bytes().or(mem.high.bytes()).is_some()),
        ] {
            known[column as usize] |= has;
        }
    }
    known
}

/// The text of a cell and how it looks. The sparkline is drawn elsewhere.
pub(super) fn cell(
    column: Column,
    row: &Row<'_>,
    limit: Option<&LimitUse<'_>>,
    theme: Theme,
) -> (String, Style) {
    let sample = row.entry.sample();
    let (mem, rates) = (&sample.mem, row.rates);
    match column {
        Column::Verdict => row.verdict.map_or_else(
            || (String::new(), theme.dim()),
            |judged| verdict(judged, row.time_left, theme),
        ),
        Column::Kind => (row.entry.kind().to_owned(), theme.dim()),
        Column::Processes => gauge(figure::total(sample.processes), theme),
        Column::Memory => gauge(figure::bytes(mem.current), theme),
        Column::Anon => gauge(figure::bytes(mem.anon), theme),
        Column::File => gauge(figure::bytes(mem.file), theme),
        Column::Swap => gauge(figure::bytes(mem.swap), theme),
        Column::Growth => (
            figure::change(rates.growth),
            growth_style(rates.growth, limit, theme),
        ),
        Column::Spark => (String::new(), theme.text()),
        Column::Faults => counted(figure::count(rates.faults), row, theme),
        Column::Major => counted(figure::count(rates.major), row, theme),
        Column::Mapped => counted(figure::flow(rates.mapped), row, theme),
        Column::Stall => graded(figure::stall(rates.stall), rates.stall, 50.0, 500.0, theme),
        Column::Psi => graded(
            figure::percent(rates.psi_some),
            rates.psi_some,
            5.0,
            40.0,
            theme,
        ),
        Column::Limit => limit_cell(row, limit, theme),
        Column::Max => match limit {
            Some(limit) => (figure::bytes(Some(limit.bytes)), theme.dim()),
            None => (String::new(), theme.dim()),
        },
    }
}

/// What is said, in a word that is clear without its colour, and the time to the limit where there is room for it.
fn verdict(judged: &Judged, left: Option<f64>, theme: Theme) -> (String, Style) {
    let verdict = &judged.verdict;
    let word = match (verdict.state, verdict.cause) {
        (State::Normal, _) => String::new(),
        (State::Growing, _) => "growing".to_owned(),
        (State::Suspect, Cause::Unknown) => "suspect".to_owned(),
        (State::Suspect, cause) => format!("{cause}?"),
        (State::Confirmed, Cause::Unknown) => "GROWTH".to_owned(),
        (State::Confirmed, cause) => cause.word().to_uppercase(),
        (State::Recovered, _) => "recovered".to_owned(),
    };
    let text = match left {
        Some(left) if judged.is_open() => {
            let with = format!("{word} {}", seconds(left));
            if with.len() <= usize::from(VERDICT) {
                with
            } else {
                word
            }
        }
        _ => word,
    };
    (text, state_style(verdict.state, theme))
}

/// Growing dim, suspect yellow, confirmed red, recovered green.
pub(super) fn state_style(state: State, theme: Theme) -> Style {
    match state {
        State::Normal | State::Growing => theme.dim(),
        State::Suspect => theme.warning(),
        State::Confirmed => theme.critical(),
        State::Recovered => theme.good(),
    }
}

fn gauge(text: String, theme: Theme) -> (String, Style) {
    let style = if matches!(text.as_str(), "0" | "0%" | figure::UNKNOWN) {
        theme.dim()
    } else {
        theme.text()
    };
    (text, style)
}

/// A figure of the kernel side's counters: too low where events were lost.
fn counted(text: String, row: &Row<'_>, theme: Theme) -> (String, Style) {
    if row.entry.lossy() && text != figure::UNKNOWN {
        return (format!("≥{text}"), theme.warning());
    }
    gauge(text, theme)
}

fn graded(
    text: String,
    figure: Option<f64>,
    warning: f64,
    critical: f64,
    theme: Theme,
) -> (String, Style) {
    match figure {
        Some(value) if value >= critical => (text, theme.critical()),
        Some(value) if value >= warning => (text, theme.warning()),
        _ => gauge(text, theme),
    }
}

/// Growth that reaches the limit within a minute is critical, any above the noise a warning.
fn growth_style(growth: Option<f64>, limit: Option<&LimitUse<'_>>, theme: Theme) -> Style {
    match growth {
        None => theme.dim(),
        Some(growth) if growth >= NOISE => {
            let soon = limit
                .is_some_and(|limit| limit.bytes.saturating_sub(limit.used) as f64 / growth < 60.0);
            if soon {
                theme.critical()
            } else {
                theme.warning()
            }
        }
        Some(growth) if growth <= -NOISE => theme.good(),
        Some(0.0) => theme.dim(),
        Some(_) => theme.text(),
    }
}

fn limit_cell(row: &Row<'_>, limit: Option<&LimitUse<'_>>, theme: Theme) -> (String, Style) {
    let Some(limit) = limit else {
        let none = row.entry.sample().mem.max == Limit::None;
        return (
            (if none { "none" } else { figure::UNKNOWN }).to_owned(),
            theme.dim(),
        );
    };
    let percent = limit.ratio * 100.0;
    let inherited = limit.owner.path() != row.entry.path();
    let arrow = if inherited { "↑" } else { "" };
    let text = format!("{arrow}{}", figure::percent(Some(percent)));
    match percent {
        p if p >= 95.0 => (text, theme.critical()),
        p if p >= 80.0 => (text, theme.warning()),
        _ if inherited => (text, theme.dim()),
        _ => (text, theme.text()),
    }
}
