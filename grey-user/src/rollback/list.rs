//! `rollback --list`: the journal's actions, what became of each file, and what the files hold now.

use std::fmt::Write as _;

use grey_core::act::{Action, Close, Ledger, Phase, Step};
use grey_core::time::Timestamp;
use grey_core::view::printable;
use serde::Serialize;

use super::tell::Tell;
use super::{RollbackArgs, dir, unknown};
use crate::act::journal::Journal;
use crate::act::session::journal_failed;
use crate::act::{Scene, files};
use crate::cli::{self, Exit, Failure};

/// Actions of which nothing is in force that a person is shown.
const OVER_SHOWN: usize = 20;

/// One action, as `--json` writes it.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// What `--id` takes.
    pub id: u64,
    pub state: State,
    /// When it began; absent where the journal has lost it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who acted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    pub files: Vec<File>,
}

/// What became of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// Another grey-ebpf is in the middle of it.
    UnderWay,
    /// It is complete, and its changes stay until they are undone.
    Kept,
    /// It was broken off, and its changes may be in force.
    BrokenOff,
    /// Its changes were taken back.
    Undone,
    /// Nothing of it is in force, for other reasons than an undoing.
    Over,
}

impl State {
    fn words(self) -> &'static str {
        match self {
            State::UnderWay => "in force",
            State::Kept => "kept",
            State::BrokenOff => "broken off",
            State::Undone => "undone",
            State::Over => "over",
        }
    }

    /// Whether `rollback` has something to do for it.
    fn open(self) -> bool {
        matches!(self, State::UnderWay | State::Kept | State::BrokenOff)
    }
}

/// One file of an action.
#[derive(Debug, Serialize)]
pub(super) struct File {
    pub file: String,
    /// What it held before.
    pub old: String,
    /// What was written.
    pub new: String,
    /// Whether `rollback` would look at it.
    pub open: bool,
    /// Why not: `restored`, `back`, `never`, `foreign`, `covered`, `gone`, `other_boot`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<Close>,
    /// The later action whose change of the same file lies over this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub under: Option<u64>,
    /// What it holds now; absent where that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
    /// Why that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

pub(super) fn run(scene: &Scene, args: &RollbackArgs, tell: &Tell<'_>) -> Result<Exit, Failure> {
    let found = Journal::look(&scene.state_dir).map_err(|error| journal_failed(&error))?;
    let Some((ledger, damage, controller)) = found else {
        return match args.id {
            Some(id) => Err(unknown(id, scene)),
            None if args.json => Ok(Exit::Done),
            None => cli::print(&format!(
                "no actions: there is no journal in {}\n",
                dir(scene)
            )),
        };
    };
    tell.damage(&damage);
    let boot = scene.host.text("/proc/sys/kernel/random/boot_id").ok();
    let mut rows = rows(
        &ledger,
        controller.is_some(),
        boot.as_deref().map(str::trim),
    );
    for (row, action) in rows.iter_mut().zip(ledger.actions().rev()) {
        for (file, step) in row.files.iter_mut().zip(&action.steps) {
            match files::read(&scene.host, &scene.cgroups, &step.knob) {
                Ok(now) => file.now = Some(now.to_string()),
                Err(fault) => file.error = Some(fault.to_string()),
            }
        }
    }
    if let Some(id) = args.id {
        rows.retain(|row| row.id == id);
        if rows.is_empty() {
            return Err(unknown(id, scene));
        }
    }
    if args.json {
        return json(&rows);
    }
    if rows.is_empty() {
        return cli::print("no actions: the journal is empty\n");
    }
    cli::print(&table(&rows))
}

/// The actions, newest first, without what the files hold now.
pub(super) fn rows(ledger: &Ledger, acting: bool, boot: Option<&str>) -> Vec<Row> {
    ledger
        .actions()
        .rev()
        .map(|action| Row {
            id: action.id,
            state: state(action, acting, boot),
            at: (action.at > 0).then(|| {
                let us = i64::try_from(action.at).unwrap_or(i64::MAX);
                Timestamp(us.saturating_mul(1000))
            }),
            kind: known(&action.kind),
            target: known(&action.target),
            reason: known(&action.reason),
            pid: (action.pid > 0).then_some(action.pid),
            boot_id: known(&action.boot),
            files: action
                .steps
                .iter()
                .map(|step| file(ledger, action.id, step))
                .collect(),
        })
        .collect()
}

fn known(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn file(ledger: &Ledger, id: u64, step: &Step) -> File {
    let open = step.closed.is_none();
    let over = ledger.covering(id, step).filter(|_| open);
    File {
        file: step.knob.to_string(),
        old: step.old.to_string(),
        new: step.new.to_string(),
        open,
        closed: step.closed,
        under: over.map(|over| over.id).filter(|over| *over != id),
        now: None,
        error: None,
    }
}

fn state(action: &Action, acting: bool, boot: Option<&str>) -> State {
    let here = action.boot.is_empty() || boot.is_none_or(|boot| boot == action.boot);
    let undone = |step: &Step| matches!(step.closed, Some(Close::Restored | Close::Back));
    let open = here && action.is_open();
    match action.phase {
        Phase::Running if here && acting => State::UnderWay,
        // Its guard may have taken everything back.
        Phase::Running if open => State::BrokenOff,
        _ if open => State::Kept,
        _ if action.steps.iter().any(undone) => State::Undone,
        _ => State::Over,
    }
}

fn json(rows: &[Row]) -> Result<Exit, Failure> {
    let mut text = String::new();
    for row in rows {
        let line = serde_json::to_string(row)
            .map_err(|error| Failure::failed(format!("action {}: {error}", row.id)))?;
        text.push_str(&line);
        text.push('\n');
    }
    cli::print(&text)
}

/// The table for people: all that is open, and the last of what is over.
pub(super) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:>4}  {:<20}  {:<10}  {}\n",
        "ID", "WHEN", "STATE", "ACTION"
    );
    let mut over = 0;
    let mut hidden = 0;
    for row in rows {
        if !row.state.open() {
            over += 1;
            if over > OVER_SHOWN {
                hidden += 1;
                continue;
            }
        }
        let when = row.at.map_or_else(|| "?".to_owned(), seconds);
        let what = match (&row.kind, &row.target) {
            (Some(kind), Some(target)) => format!("{} {}", printable(kind), printable(target)),
            _ => "?".to_owned(),
        };
        let reason = match row.reason.as_deref() {
            None | Some("by hand") => String::new(),
            Some(reason) => format!("  ({})", printable(reason)),
        };
        let _ = writeln!(
            text,
            "{:>4}  {when:<20}  {:<10}  {what}{reason}",
            row.id,
            row.state.words()
        );
        for file in &row.files {
            let _ = writeln!(
                text,
                "      {}  {} -> {}: {}",
                printable(&file.file),
                file.old,
                file.new,
                fate(file)
            );
        }
    }
    if hidden > 0 {
        let _ = writeln!(
            text,
            "and {hidden} older ones that are over; --json has all"
        );
    }
    text
}

/// What became of a file.
fn fate(file: &File) -> String {
    let now = match (&file.now, &file.error) {
        (Some(now), _) => format!("holds {now}"),
        (None, Some(error)) => error.clone(),
        (None, None) => "unknown".to_owned(),
    };
    if let (Some(under), Some(_)) = (file.under, &file.now) {
        return format!("{now}, by action {under}, which lies over it");
    }
    match (&file.closed, &file.now) {
        (Some(Close::Gone | Close::OtherBoot), _) => closed(file),
        (Some(_), _) => format!("{}; {now}", closed(file)),
        (None, Some(value)) if *value == file.new => "in force".to_owned(),
        (None, Some(value)) if *value == file.old => "holds the old value".to_owned(),
        (None, Some(_)) => format!("{now}, which somebody else wrote"),
        (None, None) => now,
    }
}

fn closed(file: &File) -> String {
    file.closed.map_or(String::new(), |how| how.to_string())
}

/// `2026-11-21 14:02:11Z`.
fn seconds(at: Timestamp) -> String {
    let text = at.to_string();
    match (text.get(..10), text.get(11..19)) {
        (Some(day), Some(time)) => format!("{day} {time}Z"),
        _ => text,
    }
}
