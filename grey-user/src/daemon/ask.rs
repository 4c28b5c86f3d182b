//! `status` and `feedback`: questions to a running daemon.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use clap::Subcommand;
use grey_core::event::Budget;
use grey_core::units::{format_bytes, format_duration_us};
use grey_core::view::printable;
use serde_json::Value;

use crate::cli::{self, Exit, Failure};
use crate::config;
use crate::enforce::Place;

use super::status::Question;

pub(crate) const STATUS_EXAMPLES: &str = "Examples:
  grey-ebpf status             policy, what can be reclaimed, what was done and what came of it
  grey-ebpf status --learned   what was learned of harm, weight by weight
  grey-ebpf status --json | jq .history";

pub(crate) const FEEDBACK_EXAMPLES: &str = "Examples:
  grey-ebpf feedback bad              what was done in the last five minutes was bad
  grey-ebpf feedback bad web.service  what was done to it
  grey-ebpf feedback release web.service   take back what is held on it: a limit, a container that stands still
  grey-ebpf feedback forget           begin learning anew";

/// Arguments of `status`.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// One JSON document
    #[arg(long)]
    pub json: bool,
    /// What was learned
    #[arg(long)]
    pub learned: bool,
    /// Where the daemon's state is.
    #[command(flatten)]
    pub place: Place,
}

/// Arguments of `feedback`.
#[derive(Clone, Debug, clap::Args)]
pub struct FeedbackArgs {
    /// What to say
    #[command(subcommand)]
    pub what: Feedback,
    /// Where the daemon's state is.
    #[command(flatten)]
    pub place: Place,
}

/// What an operator can say.
#[derive(Clone, Debug, Subcommand)]
pub enum Feedback {
    /// What was done in the last five minutes did harm
    Bad {
        /// Only what was done to this cgroup, by its path
        cgroup: Option<String>,
    },
    /// Forget what was learned: the fixed behaviour comes back
    Forget,
    /// Take back what is held on a cgroup
    Release {
        /// Its path
        cgroup: String,
    },
}

/// Runs `status`.
///
/// # Errors
/// No daemon answers (exit 1), or nobody may ask (exit 3).
pub fn status(args: &StatusArgs) -> Result<Exit, Failure> {
    let answer = ask(&args.place, &Question::Status {})?;
    if args.json {
        let shown = if args.learned {
            &answer["learned"]
        } else {
            &answer
        };
        return cli::print(&format!("{shown}\n"));
    }
    let text = if args.learned {
        learned(&answer["learned"])
    } else {
        overview(&answer)
    };
    cli::print(&text)
}

/// Runs `feedback`.
///
/// # Errors
/// As [`status`].
pub fn feedback(args: &FeedbackArgs) -> Result<Exit, Failure> {
    let question = match &args.what {
        Feedback::Bad { cgroup } => Question::Bad {
            cgroup: cgroup.clone(),
        },
        Feedback::Forget => Question::Forget {},
        Feedback::Release { cgroup } => Question::Release {
            cgroup: cgroup.clone(),
        },
    };
    let answer = ask(&args.place, &question)?;
    let text = answer["said"].as_str().unwrap_or_default();
    cli::print(&format!("{text}\n"))
}

fn ask(place: &Place, question: &Question) -> Result<Value, Failure> {
    let dir = match &place.state_dir {
        Some(dir) => dir.clone(),
        None => {
            config::load_leniently(place.config.as_deref())?
                .0
                .safety
                .state_dir
        }
    };
    let path = dir.join("daemon.sock");
    let shown = path.display();
    let mut stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            Failure::unsupported(format!("{shown}: {error}; run it as root"))
        }
        _ => Failure::failed(format!(
            "{shown}: no daemon answers ({error}); start `grey-ebpf daemon`, or name its folder with --state-dir"
        )),
    })?;
    let failed = |error: std::io::Error| {
        Failure::failed(format!("{shown}: {error}; is the daemon held up?"))
    };
    let patience = Some(Duration::from_secs(10));
    stream.set_read_timeout(patience).map_err(failed)?;
    stream.set_write_timeout(patience).map_err(failed)?;
    let mut line = serde_json::to_vec(question).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(failed)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(failed)?;
    let answer: Value = serde_json::from_slice(&answer).map_err(|error| failed(error.into()))?;
    match answer["error"].as_str() {
        Some(why) => Err(Failure::failed(format!("{shown}: {why}"))),
        None => Ok(answer),
    }
}

fn bytes(value: &Value) -> String {
    value.as_u64().map_or("–".to_owned(), format_bytes)
}

fn seconds(value: &Value) -> String {
    value.as_u64().map_or("–".to_owned(), |s| {
        format_duration_us(s.saturating_mul(1_000_000))
    })
}

fn text(value: &Value) -> String {
    printable(value.as_str().unwrap_or("–")).to_string()
}

/// The time of day.
fn clock(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    text.get(11..19).unwrap_or(text).to_owned()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn overview(status: &Value) -> String {
    let machine = &status["machine"];
    let mut out = format!(
        "policy {}{}, {} of {} available, swap free {}\n",
        text(&status["policy"]),
        if status["shadow"] == true {
            " (shadow: nothing is written)"
        } else {
            ""
        },
        bytes(&machine["available"]),
        bytes(&machine["total"]),
        bytes(&machine["swap_free"]),
    );
    if let Some(why) = status["reload_failed"].as_str() {
        out.push_str(&format!(
            "the configuration was not reloaded: {}\n",
            printable(why)
        ));
    }
    if let Ok(budget) = serde_json::from_value::<Budget>(status["budget"].clone()) {
        let without = budget.told().map_or(String::new(), |it| format!("; {it}"));
        out.push_str(&format!("watching costs {}{without}\n", budget.cost()));
    }
    out.push_str(&format!(
        "\n{:>8} {:>8} {:>8} {:>8} {:>8}  {:<13} CGROUP\n",
        "MEMORY", "CAN GO", "COLD", "FLOOR", "IDLE", "POLICY"
    ));
    let mut groups: Vec<&Value> = list(&status["groups"]).collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group["reclaimable"].as_u64()));
    for group in groups.into_iter().take(20) {
        let mut marks = String::new();
        for mark in ["busy", "frozen"] {
            if group[mark] == true {
                marks.push_str(&format!("  [{mark}]"));
            }
        }
        out.push_str(&format!(
            "{:>8} {:>8} {:>8} {:>8} {:>8}  {:<13} {}{marks}\n",
            bytes(&group["current"]),
            bytes(&group["reclaimable"]),
            bytes(&group["cold_cache"]),
            bytes(&group["floor"]),
            seconds(&group["idle_s"]),
            text(&group["policy"]),
            text(&group["path"]),
        ));
    }
    let idle: Vec<String> = list(&status["idle_containers"]).map(text).collect();
    if !idle.is_empty() {
        out.push_str(&format!("\nidle containers: {}\n", idle.join(", ")));
    }
    let mut title = "\nwhat was done\n";
    for done in list(&status["history"]).take(15) {
        out.push_str(std::mem::take(&mut title));
        let outcome = &done["outcome"];
        let came = if outcome.is_null() {
            "under way, or not done".to_owned()
        } else if outcome["wanted"] == true {
            "taken back: it was wanted".to_owned()
        } else {
            format!(
                "freed {}, kept {}, {} refaults",
                bytes(&outcome["freed"]),
                bytes(&outcome["kept"]),
                outcome["refaults"]
            )
        };
        let bad = done["bad"]
            .as_str()
            .map_or(String::new(), |bad| format!("  BAD: {bad}"));
        out.push_str(&format!(
            "  {} {} {} {} ({}): {came}{bad}\n",
            clock(&done["ts"]),
            text(&done["kind"]),
            text(&done["path"]),
            bytes(&done["bytes"]),
            text(&done["reason"]),
        ));
    }
    let mut title = "\nheld back\n";
    for held in list(&status["held_back"]).take(5) {
        out.push_str(std::mem::take(&mut title));
        out.push_str(&format!(
            "  {} {} {} {}: {}\n",
            clock(&held["ts"]),
            text(&held["kind"]),
            text(&held["path"]),
            bytes(&held["bytes"]),
            text(&held["why"]),
        ));
    }
    let mut title = "\ncooling down\n";
    for cooling in list(&status["cooling_down"]) {
        out.push_str(std::mem::take(&mut title));
        out.push_str(&format!("  {}\n", text(cooling)));
    }
    let learned = &status["learned"];
    out.push_str(&format!(
        "\nlearned from {} outcomes, {} of them bad; {} incidents recorded\n",
        learned["outcomes"], learned["bad"], status["incidents"]
    ));
    let mut title = "\nnotes\n";
    for note in list(&status["notes"]) {
        out.push_str(std::mem::take(&mut title));
        out.push_str(&format!(
            "  {} {}\n",
            clock(&note["ts"]),
            text(&note["text"])
        ));
    }
    out
}

fn learned(learned: &Value) -> String {
    let mut out = format!(
        "{} outcomes, {} of them bad\nharm is more likely with a figure whose weight is over 0:\n",
        learned["outcomes"], learned["bad"]
    );
    for (name, weight) in learned["weights"].as_object().into_iter().flatten() {
        let weight = weight.as_f64().unwrap_or(0.0);
        out.push_str(&format!("  {name:<16} {weight:>8.3}\n"));
    }
    out
}
