//! From the configuration file to the bounds. Every key has bounds of its own, so that no file can make an action
//! unbounded.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use grey_core::act::protection::Pattern;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::act::session::refused;
use crate::cli::Failure;

use super::document::{ConfigError, Document, Table};
use super::{CONFIG, Safety};

/// A configuration is never larger.
const MAX_BYTES: u64 = 1 << 20;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The bounds of this file, or of the usual one where that is there.
///
/// # Errors
/// It cannot be read or used (exit 2), or somebody else than root can write to it (exit 4).
pub fn load(file: Option<&Path>) -> Result<Safety, Failure> {
    let (path, asked) = match file {
        Some(path) => (path, true),
        None => (Path::new(CONFIG), false),
    };
    match read(path)? {
        Some(text) => parse(&path.display().to_string(), &text)
            .map_err(|error| Failure::usage(error.to_string())),
        None if asked => Err(Failure::usage(format!(
            "{}: there is no such file; name another one with --config, or leave it out for the defaults",
            path.display()
        ))),
        None => Ok(Safety::default()),
    }
}

/// The file's text; `None` where it is not there.
fn read(path: &Path) -> Result<Option<String>, Failure> {
    let name = path.display();
    // A fifo in its place would hold us up.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => {
            return Err(Failure::usage(format!(
                "{name}: {}; make it readable, or name another file with --config",
                std::io::Error::from(error)
            )));
        }
    };
    let facts = file
        .metadata()
        .map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    if !facts.is_file() {
        return Err(Failure::usage(format!(
            "{name}: is no file; name another one with --config"
        )));
    }
    trusted(&facts).map_err(|what| {
        refused(format!(
            "{name}: {what}, and whoever can change it decides what is protected; chown root:root and chmod 644 it"
        ))
    })?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Failure::usage(format!(
            "{name}: is larger than 1M, which no configuration is"
        )));
    }
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| Failure::usage(format!("{name}: is no UTF-8 text")))
}

/// Only root (or who runs this, who could name any other file as well) may be able to write to it.
fn trusted(facts: &std::fs::Metadata) -> Result<(), String> {
    let own = rustix::process::geteuid().as_raw();
    if facts.uid() != 0 && facts.uid() != own {
        return Err(format!("it belongs to user {}", facts.uid()));
    }
    if facts.mode() & 0o002 != 0 {
        return Err("everybody can write to it".to_owned());
    }
    if facts.mode() & 0o020 != 0 && facts.gid() != 0 {
        return Err(format!("group {} can write to it", facts.gid()));
    }
    Ok(())
}

/// The bounds that this text of `file` sets.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn parse(file: &str, text: &str) -> Result<Safety, ConfigError> {
    let document = Document::parse(file, text)?;
    document.only(&["safety", "watchdog"])?;
    let mut safety = Safety::default();
    bounds(&document.table("safety")?, &mut safety)?;
    let table = document.table("watchdog")?;
    thresholds(&table, &mut safety)?;
    table.finish()?;
    Ok(safety)
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn bounds(table: &Table<'_>, safety: &mut Safety) -> Result<(), ConfigError> {
    let ms = Duration::from_millis;
    set(&mut safety.protect, patterns(table, "protect")?);
    set(&mut safety.critical, patterns(table, "critical")?);
    set(&mut safety.step, table.size("step", MIB..=GIB)?);
    set(&mut safety.cap, table.size("cap", MIB..=64 * GIB)?);
    // The floor itself is not for sale.
    set(
        &mut safety.least_limit,
        table.size("least_limit", 64 * MIB..=1024 * GIB)?,
    );
    set(
        &mut safety.write_timeout,
        table.duration("write_timeout", ms(100)..=ms(60_000))?,
    );
    set(
        &mut safety.hang,
        table.duration("hang", ms(500)..=ms(30_000))?,
    );
    set(
        &mut safety.cooldown,
        table.duration("cooldown", ms(1_000)..=DAY)?,
    );
    set(
        &mut safety.cooldown_max,
        table.duration("cooldown_max", ms(1_000)..=30 * DAY)?,
    );
    set(
        &mut safety.drop_caches_every,
        table.duration("drop_caches_every", ms(1_000)..=30 * DAY)?,
    );
    set(&mut safety.state_dir, table.path("state_dir")?);
    if safety.step > safety.cap {
        let (key, why) = match table.has("step") {
            true => ("step", "is more than `cap`; a write is a part of a request"),
            false => ("cap", "is less than `step`; a write is a part of a request"),
        };
        return Err(table.error(key, why));
    }
    if safety.cooldown > safety.cooldown_max {
        let (key, why) = match table.has("cooldown_max") {
            true => ("cooldown_max", "is less than `cooldown`, the first one"),
            false => ("cooldown", "is more than `cooldown_max`, the longest one"),
        };
        return Err(table.error(key, why));
    }
    table.finish()
}

fn thresholds(table: &Table<'_>, safety: &mut Safety) -> Result<(), ConfigError> {
    let watchdog = &mut safety.watchdog;
    set(&mut watchdog.psi_some_pct, table.percent("psi_some_pct")?);
    set(&mut watchdog.psi_full_pct, table.percent("psi_full_pct")?);
    set(
        &mut watchdog.min_available,
        table.size("min_available", 32 * MIB..=1024 * GIB)?,
    );
    set(
        &mut watchdog.refaults_per_s,
        table.count("refaults_per_s", 1..=1_000_000_000)?,
    );
    let every = Duration::from_millis(50)..=Duration::from_millis(1_000);
    set(&mut watchdog.every, table.duration("every", every)?);
    Ok(())
}

fn patterns(table: &Table<'_>, key: &'static str) -> Result<Option<Vec<String>>, ConfigError> {
    let patterns = table.strings(key)?;
    for pattern in patterns.iter().flatten() {
        // Where the tree is mounted changes what it matches, not whether it is one.
        Pattern::new(pattern, "").map_err(|error| table.error(key, &error.to_string()))?;
    }
    Ok(patterns)
}
