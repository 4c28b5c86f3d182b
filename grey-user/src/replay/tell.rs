//! Where verdicts and decisions go: NDJSON or lines as they are reached, and for a person a summary at the end.

use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};

use grey_core::event::{Body, Event};
use grey_core::replay::{Decide, Replay};

use super::decide;
use super::input::Input;
use super::report::{Report, Style};
use crate::cli::{self, Failure};
use crate::export::Ndjson;

/// The output on stdout.
pub(super) struct Tell {
    to: To,
    count: u64,
}

enum To {
    Json(Ndjson<BufWriter<Stdout>>),
    Text(BufWriter<Stdout>, Style, Report),
}

impl Tell {
    pub(super) fn new(json: bool) -> Self {
        let out = BufWriter::with_capacity(1 << 16, io::stdout());
        Tell {
            to: if json {
                To::Json(Ndjson::new(out))
            } else {
                To::Text(out, style(), Report::default())
            },
            count: 0,
        }
    }

    /// Verdicts told so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Tells verdicts at once: the input may be a pipe that goes on for hours. False when the reader is gone.
    pub(super) fn verdicts(
        &mut self,
        events: impl Iterator<Item = Event>,
    ) -> Result<bool, Failure> {
        let write = || -> io::Result<()> {
            for mut event in events {
                event.seq = self.count;
                self.count += 1;
                match &mut self.to {
                    To::Json(out) => out.write(&event)?,
                    To::Text(out, style, report) => {
                        let line = match &event.body {
                            Body::Action { action } => decide::line(&event, action),
                            _ => report.line(&event, *style),
                        };
                        writeln!(out, "{line}")?;
                        report.add(event);
                    }
                }
            }
            match &mut self.to {
                To::Json(out) => out.flush(),
                To::Text(out, ..) => out.flush(),
            }
        };
        ended(write())
    }

    /// The summary, if it is for a person. False when the reader is gone.
    pub(super) fn end(
        &mut self,
        inputs: &[Input],
        replay: &Replay,
        decide: Option<&Decide>,
    ) -> Result<bool, Failure> {
        let To::Text(out, style, report) = &mut self.to else {
            return Ok(true);
        };
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        let hosts: Vec<&str> = replay.hosts().collect();
        let mut text = report.summary(&names, &hosts, replay.stats(), replay.cgroups(), *style);
        if let Some(decide) = decide {
            text.push_str(&decide::summary(decide));
        }
        ended(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
    }
}

fn style() -> Style {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return Style::default();
    }
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    Style {
        colour: !plain,
        width: rustix::termios::tcgetwinsize(&stdout)
            .ok()
            .map(|size| usize::from(size.ws_col))
            .filter(|width| *width > 0),
    }
}

/// A reader that went away (`| head`) is a normal end; any other error is not.
fn ended(result: io::Result<()>) -> Result<bool, Failure> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(cli::stdout_failed(&error)),
    }
}
