//! What is configured: `config.toml` and the files of `conf.d` beside it, read into the bounds of acting and the settings
//! of governing. Every key has a default and bounds of its own, so that no file can make an action unbounded.

use std::path::{Path, PathBuf};

use grey_core::govern;

use crate::act::safety::Safety;
use crate::cli::Failure;
use crate::host::{CgroupFs, Host, pressure_source};
use crate::source::Budget;

mod budget_table;
pub mod check;
pub mod document;
mod files;
mod govern_tables;
mod host_pressure_table;
mod print;
mod profile_table;
mod safety_tables;
#[cfg(test)]
mod tests;

pub(crate) use budget_table::WINDOW;
pub use document::ConfigError;
use document::{Document, Entry};
use files::Source;
pub use profile_table::Profiling;

/// Where the configuration is.
pub const CONFIG: &str = "/etc/grey-ebpf/config.toml";

/// All that can be configured.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `[safety]` and `[watchdog]`: the bounds of every action.
    pub safety: Safety,
    /// `[govern]`: what the daemon does by itself.
    pub govern: govern::Settings,
    /// `[govern.host_pressure]`: where a virtual machine learns what its host has left.
    pub host_pressure: Option<pressure_source::Options>,
    /// `[profile]`: what is looked up about a suspect.
    pub profile: Profiling,
    /// `[budget]`: what watching may cost.
    pub budget: Budget,
    /// The files it comes from, in the order in which they were read.
    pub files: Vec<PathBuf>,
}

/// The configuration of this file, or of the usual one where that is there. `conf.d/*.toml` beside a `config.toml` is
/// read after it, in the order of the names.
///
/// # Errors
/// It cannot be read or used (exit 2), or somebody else than root can write to it (exit 4).
pub fn load(file: Option<&Path>) -> Result<Config, Failure> {
    let (config, errors) = load_leniently(file)?;
    match errors.as_slice() {
        [] => Ok(config),
        [first] => Err(Failure::usage(first.to_string())),
        [first, more @ ..] => Err(Failure::usage(format!(
            "{first} (and {} more: see `grey-ebpf check-config`)",
            more.len()
        ))),
    }
}

/// As [`load`], with what is wrong beside it: a key that cannot be used has its default.
///
/// # Errors
/// A file cannot be read (exit 2), or somebody else than root can write to it (exit 4).
pub fn load_leniently(file: Option<&Path>) -> Result<(Config, Vec<ConfigError>), Failure> {
    let sources = files::read(file)?;
    let read = read(&sources, &mount());
    Ok((read.config, read.errors))
}

/// Where the v2 tree is mounted: a pattern may be given as a path below it.
fn mount() -> String {
    CgroupFs::discover(&Host::live())
        .facts()
        .mount
        .as_ref()
        .map(|mount| mount.display().to_string())
        .unwrap_or_default()
}

/// A configuration with all that can be said of it.
struct Read {
    config: Config,
    errors: Vec<ConfigError>,
    /// Every key, in the order of the reference.
    entries: Vec<Entry>,
}

fn read(sources: &[Source], mount: &str) -> Read {
    let document = Document::parse(sources);
    let mut config = Config {
        files: sources
            .iter()
            .map(|source| PathBuf::from(&source.name))
            .collect(),
        ..Config::default()
    };
    let mut root = document.root();
    safety_tables::read(&mut root, &mut config.safety);
    config.host_pressure = govern_tables::read(&mut root, &mut config.govern, mount);
    profile_table::read(&mut root, &mut config.profile);
    budget_table::read(&mut root, &mut config.budget);
    root.finish();
    let (errors, entries) = document.end();
    Read {
        config,
        errors,
        entries,
    }
}
