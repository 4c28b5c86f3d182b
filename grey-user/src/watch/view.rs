//! Where the notices of `watch` go: NDJSON, plain lines or the live table, and the record file beside them.

use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};
use std::path::Path;
use std::time::Instant;

use crossterm::event::Event as Key;
use grey_core::event::Event;
use grey_core::view::{Model, Query};

use crate::alert::Alerts;
use crate::cli::{self, Exit, Failure, WatchArgs};
use crate::export::{Ndjson, Recording};
use crate::host::{Host, MemInfo};
use crate::record::Progress;
use crate::source::{Clock, Notice};
use crate::ui::plain::{Plain, alert_line};
use crate::ui::{Info, Outcome, Tui};

pub(super) struct View {
    picture: Picture,
    model: Model,
    record: Option<Recording>,
    /// The option that named the record file, for messages.
    option: &'static str,
    info: Info,
    start: Instant,
    once: bool,
    alerts: Option<Alerts>,
}

enum Picture {
    /// `record`: what was written so far.
    Progress(Box<Progress>),
    Json(Ndjson<BufWriter<Stdout>>),
    Plain(Plain, BufWriter<Stdout>),
    Tui(Box<Tui>),
    /// A terminal that is taken over when everything else is ready.
    TuiLater,
}

impl View {
    /// Opens the outputs; the first thing `watch` does, so that a bad one costs nothing.
    pub(super) fn new(args: &WatchArgs) -> Result<View, Failure> {
        Self::open(args, None)
    }

    /// Only the record file, and a line of progress.
    pub(super) fn recording(args: &WatchArgs) -> Result<View, Failure> {
        Self::open(args, Some(Progress::new(args.duration)))
    }

    fn open(args: &WatchArgs, progress: Option<Progress>) -> Result<View, Failure> {
        let option = match progress {
            Some(_) => "",
            None => "--record ",
        };
        let record = match &args.record {
            Some(path) => {
                Some(Recording::open(path).map_err(|error| unwritable(option, path, &error))?)
            }
            None => None,
        };
        let out = || BufWriter::with_capacity(1 << 16, io::stdout());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let picture = if let Some(progress) = progress {
            Picture::Progress(Box::new(progress))
        } else if args.json {
            Picture::Json(Ndjson::new(out()))
        } else if args.once
            || args.plain
            || dumb
            || !io::stdout().is_terminal()
            || !io::stdin().is_terminal()
        {
            Picture::Plain(
                Plain::new(
                    if args.once { usize::MAX } else { args.top },
                    Query::default(),
                ),
                out(),
            )
        } else {
            Picture::TuiLater
        };
        let host = Host::live();
        let info = Info {
            host: String::new(),
            kernel: host
                .text("/proc/sys/kernel/osrelease")
                .map(|text| text.trim().to_owned())
                .unwrap_or_default(),
            interval: args.interval,
            ..Info::default()
        };
        Ok(View {
            picture,
            model: Model::new(args.interval),
            record,
            option,
            info,
            start: Instant::now(),
            once: args.once,
            alerts: None,
        })
    }

    /// Runs a command at each alert.
    pub(super) fn run_at_alerts(&mut self, alerts: Option<Alerts>) {
        self.alerts = alerts;
    }

    /// A verdict that stood before the start: shown, but not told again.
    pub(super) fn recall(&mut self, event: &Event) {
        self.model.recall(event);
        if let Some(alerts) = &mut self.alerts {
            alerts.recall(event);
        }
    }

    /// A line about the watch itself: to stderr, or into the picture where one would spoil it.
    pub(super) fn tell(&mut self, line: &str) {
        match &mut self.picture {
            Picture::Tui(_) => self.model.note(line, Clock::wall()),
            Picture::Progress(progress) => {
                progress.clear();
                cli::tell(line);
            }
            Picture::Json(_) | Picture::Plain(..) | Picture::TuiLater => cli::tell(line),
        }
    }

    /// Everything is attached and asked for rightly: an earlier recording may be emptied and a terminal taken over now.
    pub(super) fn begin(&mut self) -> Result<(), Failure> {
        if let Some(record) = &mut self.record {
            record
                .begin()
                .map_err(|error| unwritable(self.option, record.path(), &error))?;
        }
        if let Picture::Progress(progress) = &mut self.picture {
            progress.begin();
        }
        if matches!(self.picture, Picture::TuiLater) {
            self.picture = match Tui::new() {
                Ok(tui) => {
                    if let Some(alerts) = &self.alerts
                        && io::stderr().is_terminal()
                    {
                        alerts.silence();
                    }
                    Picture::Tui(Box::new(tui))
                }
                Err(error) => {
                    tracing::warn!("terminal: {error}; plain lines instead");
                    let out = BufWriter::with_capacity(1 << 16, io::stdout());
                    Picture::Plain(Plain::new(crate::ui::plain::TOP, Query::default()), out)
                }
            };
        }
        Ok(())
    }

    pub(super) fn wants_keys(&self) -> bool {
        matches!(self.picture, Picture::Tui(_))
    }

    /// Shows what came. False when the reader is gone and there is nothing left to do.
    pub(super) fn show(&mut self, notices: &mut Vec<Notice>) -> Result<bool, Failure> {
        let mut wrote = false;
        for notice in notices.drain(..) {
            match notice {
                Notice::Event(event) => {
                    wrote = true;
                    if let Some(record) = &mut self.record {
                        record
                            .write(&event)
                            .map_err(|error| unwritable(self.option, record.path(), &error))?;
                    }
                    let end = ended(self.picture.event(&event, &mut self.model))?;
                    if let Some(line) = self.alerts.as_mut().and_then(|alerts| alerts.offer(&event))
                    {
                        self.tell(&line);
                    }
                    if let Some(end) = end {
                        return Ok(end);
                    }
                }
                Notice::Gone(path) => self.model.remove(&path),
            }
        }
        if wrote {
            if let Some(record) = &mut self.record {
                record
                    .flush()
                    .map_err(|error| unwritable(self.option, record.path(), &error))?;
            }
            if let Some(end) = ended(self.picture.flush(&self.model, &mut self.info, self.start))? {
                return Ok(end);
            }
        }
        Ok(true)
    }

    /// A tick is over: tables are drawn.
    pub(super) fn tick(&mut self, last: bool) -> Result<bool, Failure> {
        self.refresh_info();
        let reports: Vec<String> = self.alerts.iter().flat_map(Alerts::reports).collect();
        for report in reports {
            self.tell(&report);
        }
        let once = self.once || last;
        let result = match &mut self.picture {
            Picture::Json(_) | Picture::TuiLater => Ok(()),
            Picture::Plain(plain, out) => {
                let drawn = if once {
                    plain.once(out, &self.model, &self.info)
                } else {
                    plain.tick(out, &self.model, &self.info)
                };
                drawn.and_then(|()| out.flush())
            }
            Picture::Tui(tui) => tui.draw(&self.model, &self.info),
            Picture::Progress(progress) => {
                progress.draw(self.record.as_ref().and_then(Recording::size));
                Ok(())
            }
        };
        Ok(ended(result)?.unwrap_or(true))
    }

    fn refresh_info(&mut self) {
        self.info.elapsed = self.start.elapsed();
        if matches!(self.picture, Picture::Json(_) | Picture::Progress(_)) {
            return;
        }
        if let Ok(memory) = MemInfo::read(&Host::live()) {
            self.info.mem_total = memory.total;
            self.info.mem_available = memory.available;
        }
    }

    pub(super) fn key(&mut self, key: Key) -> Result<Outcome, Failure> {
        let Picture::Tui(tui) = &mut self.picture else {
            return Ok(Outcome::Continue);
        };
        let outcome = tui.on_input(key);
        if outcome == Outcome::Redraw && ended(tui.draw(&self.model, &self.info))?.is_some() {
            return Ok(Outcome::Quit);
        }
        Ok(outcome)
    }

    /// Ends the outputs.
    pub(super) fn finish(&mut self) -> Result<Exit, Failure> {
        if let Some(record) = self.record.take() {
            let path = record.path().to_owned();
            let size = record
                .finish()
                .map_err(|error| unwritable(self.option, &path, &error))?;
            if let Picture::Progress(progress) = &mut self.picture {
                progress.finish(&path, size);
            }
        }
        Ok(Exit::Done)
    }

    /// Gives the terminal back. What is left is whom to wait for.
    pub(super) fn close(self) -> Option<Alerts> {
        self.alerts
    }
}

impl Picture {
    fn event(&mut self, event: &Event, model: &mut Model) -> io::Result<()> {
        match self {
            Picture::Json(out) => out.write(event),
            Picture::Plain(_, out) => {
                model.apply(event);
                match alert_line(event) {
                    Some(line) => writeln!(out, "{line}"),
                    None => Ok(()),
                }
            }
            Picture::Tui(_) | Picture::TuiLater => {
                model.apply(event);
                Ok(())
            }
            Picture::Progress(progress) => {
                progress.event(event);
                Ok(())
            }
        }
    }

    fn flush(&mut self, model: &Model, info: &mut Info, start: Instant) -> io::Result<()> {
        match self {
            Picture::Json(out) => out.flush(),
            Picture::Plain(_, out) => out.flush(),
            Picture::Tui(tui) if tui.due() => {
                info.elapsed = start.elapsed();
                tui.draw(model, info)
            }
            Picture::Tui(_) | Picture::TuiLater | Picture::Progress(_) => Ok(()),
        }
    }
}

fn unwritable(option: &str, path: &Path, error: &io::Error) -> Failure {
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "make room there or record somewhere else"
        }
        _ => "name a file in a folder you may write to",
    };
    Failure::failed(format!("{option}{}: {error}; {remedy}", path.display()))
}

/// A reader that went away (`| head`) is a normal end; any other error is not.
fn ended(result: io::Result<()>) -> Result<Option<bool>, Failure> {
    match result {
        Ok(()) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Some(false)),
        Err(error) => Err(cli::stdout_failed(&error)),
    }
}
