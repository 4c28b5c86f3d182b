//! `[govern.host_pressure]`: where a virtual machine learns how much memory its host has left.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::host::pressure_source::{
    LEAST_EVERY, LEAST_TIMEOUT, MOST_EVERY, MOST_TIMEOUT, Options, Source,
};

use super::document::Table;

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;
/// One source is enough.
const KEYS: [&str; 3] = ["file", "command", "windows"];

/// Where to ask; nowhere by default.
pub(super) fn read(govern: &mut Table<'_>) -> Option<Options> {
    let mut table = govern.table("host_pressure");
    let mut options = Options::of(Source::windows());
    let mut file: Option<PathBuf> = None;
    let mut command = Vec::new();
    let mut windows = false;
    let example = PathBuf::from("/run/host-memory");
    table.optional("file", example, &mut file, |table, field| {
        let about = "Something on the host keeps it up to date; docs/guest.md has its format.";
        table.path(("file", about), field);
    });
    table.strings(
        (
            "command",
            "Or a program, by its path, with its arguments; it is run without a shell.",
        ),
        "a list of strings, the first an absolute path; at most one of `file`, `command`, `windows`",
        "/usr/local/bin/host-memory",
        &mut command,
        |word| match word.contains('\0') {
            true => Err("holds a NUL, which no argument can".to_owned()),
            false => Ok(()),
        },
    );
    table.flag(
        ("windows", "Or Windows is asked, from inside WSL2."),
        &mut windows,
    );
    table.duration(
        ("every", "Between two readings."),
        LEAST_EVERY..=MOST_EVERY,
        &mut options.every,
    );
    table.duration(
        ("timeout", "A command that takes longer is ended."),
        LEAST_TIMEOUT..=MOST_TIMEOUT,
        &mut options.timeout,
    );
    table.optional("total", 16 << 30, &mut options.total, |table, field| {
        let about = "All memory of the host, for a source that only tells what is available.";
        table.size(("total", about), 64 * MIB..=64 * TIB, field);
    });
    if command.first().is_some_and(|path| !path.starts_with('/')) {
        table.wrong(
            "command",
            "begins with the program's absolute path, such as \"/usr/local/bin/host-memory\"",
        );
    }
    let given = [file.is_some(), !command.is_empty(), windows];
    if given.iter().filter(|given| **given).count() > 1 {
        let last = KEYS.iter().zip(given).rev().find(|(_, given)| *given);
        if let Some((key, _)) = last {
            table.wrong(
                key,
                "is one source too many; write one of `file`, `command` and `windows`",
            );
        }
    }
    table.finish();
    options.source = match (file, command.as_slice(), windows) {
        (Some(file), ..) => Source::File(file),
        (None, [_, ..], _) => Source::Command(command.into_iter().map(OsString::from).collect()),
        (None, [], true) => Source::windows(),
        (None, [], false) => return None,
    };
    Some(options)
}
