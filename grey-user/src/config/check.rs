//! `check-config`: everything that is wrong with the configuration, or what holds.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::cli::{self, Exit, Failure};

use super::{Read, files, mount, print};

pub(crate) const EXAMPLES: &str = "Examples:
  grey-ebpf check-config                          /etc/grey-ebpf/config.toml and conf.d/*.toml beside it
  grey-ebpf check-config new.toml                 a file that is to become it
  grey-ebpf check-config --print > config.toml    all that can be set, with what holds now
  grey-ebpf check-config --json | jq '.errors[]'

Each mistake is one line: file, line, key, what is wrong, what to write.
Exits with 0 if all is well, 2 if not, 4 if somebody else than root can write to a file.";

/// Arguments of `check-config`.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// Configuration file [default: /etc/grey-ebpf/config.toml, if it is there]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// One JSON document on stdout
    #[arg(long)]
    pub json: bool,
    /// What holds, as TOML: every key, those that no file sets as comments with their default
    #[arg(long)]
    pub print: bool,
}

/// Runs `check-config`.
///
/// # Errors
/// A file cannot be read (exit 2), or somebody else than root can write to it (exit 4).
pub fn run(args: &CheckArgs) -> Result<Exit, Failure> {
    let sources = files::read(args.file.as_deref())?;
    let read = super::read(&sources, &mount());
    let exit = match read.errors.as_slice() {
        [] => Exit::Done,
        _ => Exit::Usage,
    };
    if args.json {
        cli::print(&format!("{}\n", document(&read, args.print)))?;
        return Ok(exit);
    }
    for error in &read.errors {
        cli::tell(&error.to_string());
    }
    if args.print {
        cli::print(&print::toml(&read.entries))?;
    } else if read.errors.is_empty() {
        cli::print(&summary(&read))?;
    }
    Ok(exit)
}

fn summary(read: &Read) -> String {
    let set = read
        .entries
        .iter()
        .filter(|entry| entry.set_by.is_some())
        .count();
    let files: Vec<String> = read
        .config
        .files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    let policy = read.config.govern.policy;
    match files.as_slice() {
        [] => format!("no configuration: every key has its default, policy {policy}\n"),
        files => format!("{}: {set} keys set, policy {policy}\n", files.join(", ")),
    }
}

fn document(read: &Read, keys: bool) -> Value {
    let errors: Vec<Value> = read
        .errors
        .iter()
        .map(|error| {
            let mut line = json!({"file": error.file, "line": error.line});
            // Absent where the file is no TOML.
            if let Some(key) = &error.key {
                line["key"] = json!(key);
            }
            line["message"] = json!(error.what);
            line
        })
        .collect();
    let mut document = json!({
        "files": read.config.files,
        "policy": read.config.govern.policy.name(),
        "errors": errors,
    });
    if keys {
        document["keys"] = read.entries.iter().map(key).collect();
    }
    document
}

fn key(entry: &super::Entry) -> Value {
    let mut line = json!({"table": entry.table, "key": entry.key});
    if let Some(element) = entry.element {
        line["element"] = json!(element);
    }
    line["value"] = json!(entry.value);
    line["default"] = json!(entry.default);
    line["bounds"] = json!(entry.bounds);
    if let Some((file, at)) = &entry.set_by {
        line["file"] = json!(file);
        line["line"] = json!(at);
    }
    line
}
