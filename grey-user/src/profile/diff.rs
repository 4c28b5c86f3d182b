//! `profile diff`: what one profile has more than another, from their JSON or folded files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use grey_core::units::format_bytes;
use grey_core::view::printable;
use serde_json::json;

use super::document::{Profile, SCHEMA};
use super::fold::{self, Folded};
use super::{Format, Value, flame, write};
use crate::cli::{self, Exit, Failure};

/// More than any profile: 16384 stacks of 127 frames with long names.
const MOST_BYTES: u64 = 512 << 20;
/// Stacks in a text.
const TOP: usize = 15;
/// Frames shown of each.
const FRAMES: usize = 4;

pub(crate) const EXAMPLES: &str = "Examples:
  grey-ebpf profile diff before.json after.json                 what grew most, as a table
  grey-ebpf profile diff before.json after.json -o diff.svg     red grew, blue shrank
  grey-ebpf profile diff a.folded b.folded --format folded      `STACK BEFORE AFTER` lines for other tools";

/// Arguments of `profile diff`.
#[derive(Clone, Debug, clap::Args)]
pub struct DiffArgs {
    /// The first profile: JSON or folded
    #[arg(value_name = "BEFORE")]
    pub before: PathBuf,
    /// The second profile
    #[arg(value_name = "AFTER")]
    pub after: PathBuf,
    /// Where to; its ending says what: .svg, .folded, .json
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What to write, whatever the file's name
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Which bytes, where a profile is JSON
    #[arg(long, value_enum, default_value_t = Value::Kept)]
    pub bytes: Value,
}

/// Bytes before and after, by stack.
type Difference = BTreeMap<String, (u64, u64)>;

/// Runs it.
///
/// # Errors
/// A file is no profile (exit 2), or one cannot be read or written (exit 1).
pub(super) fn run(args: &DiffArgs) -> Result<Exit, Failure> {
    let format = Format::chosen(args.format, args.output.as_deref())?;
    if format == Some(Format::Pprof) {
        return Err(Failure::usage(
            "a difference has no pprof form; `pprof -diff_base A B` makes it from two files",
        ));
    }
    let difference = difference(
        &read(&args.before, args.bytes)?,
        &read(&args.after, args.bytes)?,
    );
    let text = match format {
        None => table(&difference).into_bytes(),
        Some(Format::Json) => json(&difference),
        Some(Format::Folded) => lines(&difference).join("\n").into_bytes(),
        Some(Format::Svg | Format::Pprof) => {
            let title = format!(
                "{} bytes: {} to {}",
                args.bytes.word(),
                args.before.display(),
                args.after.display()
            );
            flame::svg(&title, "red grew, blue shrank", &lines(&difference))?
        }
    };
    match &args.output {
        Some(path) => {
            write(path, &text)?;
            cli::print(&table(&difference))
        }
        None => write(Path::new("-"), &text).map(|()| Exit::Done),
    }
}

fn difference(before: &Folded, after: &Folded) -> Difference {
    let mut difference = Difference::new();
    for (stack, bytes) in before {
        difference.entry(stack.clone()).or_default().0 = *bytes;
    }
    for (stack, bytes) in after {
        difference.entry(stack.clone()).or_default().1 = *bytes;
    }
    difference
}

fn lines(difference: &Difference) -> Vec<String> {
    difference
        .iter()
        .map(|(stack, (before, after))| format!("{stack} {before} {after}"))
        .collect()
}

/// Stacks with what changed, the largest growth first.
fn sorted(difference: &Difference) -> Vec<(&str, u64, u64, i128)> {
    let mut all: Vec<_> = difference
        .iter()
        .map(|(stack, (before, after))| {
            let change = i128::from(*after) - i128::from(*before);
            (stack.as_str(), *before, *after, change)
        })
        .collect();
    all.sort_by_key(|(stack, _, _, change)| (-change, *stack));
    all
}

fn json(difference: &Difference) -> Vec<u8> {
    let stacks: Vec<_> = sorted(difference)
        .into_iter()
        .map(|(stack, before, after, change)| {
            json!({"stack": stack.split(';').collect::<Vec<_>>(), "before": before, "after": after, "change": change as i64})
        })
        .collect();
    let mut text = json!({"schema": "grey-ebpf-profile-diff/1", "stacks": stacks})
        .to_string()
        .into_bytes();
    text.push(b'\n');
    text
}

fn table(difference: &Difference) -> String {
    let all = sorted(difference);
    let sum = |of: fn(&(u64, u64)) -> u64| -> u64 { difference.values().map(of).sum() };
    let mut text = format!(
        "{} before, {} after\n\n{:>8} {:>7} {:>7}  STACK\n",
        format_bytes(sum(|pair| pair.0)),
        format_bytes(sum(|pair| pair.1)),
        "CHANGE",
        "BEFORE",
        "AFTER"
    );
    for (stack, before, after, change) in all.iter().filter(|entry| entry.3 != 0).take(TOP) {
        let sign = if *change < 0 { '-' } else { '+' };
        let size = u64::try_from(change.unsigned_abs()).unwrap_or(u64::MAX);
        let names: Vec<&str> = stack.rsplit(';').take(FRAMES).collect();
        text.push_str(&format!(
            "{:>8} {:>7} {:>7}  {}\n",
            format!("{sign}{}", format_bytes(size)),
            format_bytes(*before),
            format_bytes(*after),
            printable(&names.join(" < "))
        ));
    }
    text
}

/// A profile of either form.
fn read(path: &Path, value: Value) -> Result<Folded, Failure> {
    let shown = path.display();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| {
            Failure::failed(format!("{shown}: {error}; name a profile that can be read"))
        })?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Failure::usage(format!(
            "{shown}: is larger than any profile"
        )));
    }
    let wrong = |why: String| {
        Failure::usage(format!(
            "{shown}: {why}; it takes what `grey-ebpf profile -o FILE.json` or `.folded` writes"
        ))
    };
    if bytes.trim_ascii_start().first() == Some(&b'{') {
        let profile: Profile = serde_json::from_slice(&bytes)
            .map_err(|error| wrong(format!("is no profile: {error}")))?;
        if profile.schema != SCHEMA {
            return Err(wrong(format!(
                "has the schema {:?}",
                printable(&profile.schema)
            )));
        }
        return Ok(fold::of_profile(&profile, value));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("is no text".to_owned()))?;
    fold::parse(text).map_err(|(line, why)| wrong(format!("line {line} {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grew_comes_first_and_what_is_on_one_side_only_counts_from_nothing() {
        let folded = |lines: &str| fold::parse(lines).unwrap();
        let difference = difference(&folded("a;b 10\na;c 5\n"), &folded("a;b 4\na;d 7\n"));
        assert_eq!(lines(&difference), ["a;b 10 4", "a;c 5 0", "a;d 0 7"]);
        let order: Vec<_> = sorted(&difference)
            .into_iter()
            .map(|(stack, _, _, change)| (stack, change))
            .collect();
        assert_eq!(order, [("a;d", 7), ("a;c", -5), ("a;b", -6)]);
    }
}
