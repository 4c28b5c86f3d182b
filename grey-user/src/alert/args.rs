//! The options of `--on-alert`, and whether there is such a command.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use grey_core::event::State;
use grey_core::units;

use super::Rate;

/// The command to run at alerts, and when.
#[derive(Clone, Debug, clap::Args)]
pub struct AlertArgs {
    /// Run this command at each alert, without a shell, the event on its stdin; ends the line, or at ';'
    #[arg(
        long,
        value_name = "CMD",
        num_args = 1..,
        allow_hyphen_values = true,
        value_terminator = ";",
        action = clap::ArgAction::Set
    )]
    pub on_alert: Vec<OsString>,
    /// From which verdict on (its recovery and OOM kills are alerts too)
    #[arg(long, value_name = "STATE", value_enum, default_value_t = AlertOn::Confirmed, requires = "on_alert")]
    pub alert_on: AlertOn,
    /// How many in what time; the ones beyond are counted and told with the next
    #[arg(long, value_name = "N/TIME", default_value = "6/1m", value_parser = rate, requires = "on_alert")]
    pub alert_rate: Rate,
    /// Time the command has before it is ended
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = timeout, requires = "on_alert")]
    pub alert_timeout: Duration,
}

/// From which state on a verdict is an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AlertOn {
    /// Already when it is suspect.
    Suspect,
    /// When it is confirmed.
    Confirmed,
}

impl AlertOn {
    pub(super) fn state(self) -> State {
        match self {
            AlertOn::Suspect => State::Suspect,
            AlertOn::Confirmed => State::Confirmed,
        }
    }
}

fn rate(text: &str) -> Result<Rate, String> {
    let bad = || "a rate is a number and a time, such as 6/1m".to_owned();
    let (number, window) = text.split_once('/').ok_or_else(bad)?;
    let number: u32 = number.trim().parse().map_err(|_| bad())?;
    let window = units::parse_duration(window.trim()).map_err(|error| error.to_string())?;
    if number == 0 || number > 10_000 {
        return Err("a rate is between 1 and 10000 in its time".to_owned());
    }
    if window < Duration::from_secs(1) || window > Duration::from_secs(86_400) {
        return Err("the time of a rate is between 1s and 24h".to_owned());
    }
    Ok(Rate { number, window })
}

fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = units::parse_duration(text).map_err(|error| error.to_string())?;
    if timeout < Duration::from_millis(100) || timeout > Duration::from_secs(3600) {
        return Err("a time-out is between 100ms and 1h".to_owned());
    }
    Ok(timeout)
}

/// The file to execute for a command's first word: itself if it has a slash, else the first of that name in PATH.
///
/// # Errors
/// Why there is none, for the user.
pub fn program(name: &OsStr) -> Result<PathBuf, String> {
    let shown = name.display();
    if name.as_encoded_bytes().contains(&b'/') {
        let path = Path::new(name);
        return match std::fs::metadata(path) {
            Err(error) => Err(format!("'{shown}': {error}; name a program there is")),
            Ok(_) if !is_executable(path) => Err(format!(
                "'{shown}' is not an executable file; name a program (chmod +x makes one of a script)"
            )),
            // The watch may be told to change its folder one day; a relative path must not change with it.
            Ok(_) => std::path::absolute(path).map_err(|error| format!("'{shown}': {error}")),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|folder| !folder.as_os_str().is_empty() && !name.is_empty())
        .map(|folder| folder.join(name))
        .find(|path| is_executable(path))
        .ok_or_else(|| {
            format!("no command '{shown}' in PATH; name a program there is, or its path")
        })
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}
