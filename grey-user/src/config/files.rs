//! Which files are read, and that nobody but root could have written them.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::act::session::refused;
use crate::cli::Failure;

use super::CONFIG;

/// A configuration is never larger.
const MAX_BYTES: u64 = 1 << 20;
/// Beside `config.toml`.
const FOLDER: &str = "conf.d";

/// A file that was read.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Its path.
    pub(super) name: String,
    /// What it says.
    pub(super) text: String,
}

/// The file, or the usual one, and those of `conf.d` beside it: a file of another name than `config.toml` stands alone.
pub(super) fn read(file: Option<&Path>) -> Result<Vec<Source>, Failure> {
    let (path, asked) = match file {
        Some(path) => (path, true),
        None => (Path::new(CONFIG), false),
    };
    let mut sources = Vec::new();
    match text(path)? {
        Some(source) => sources.push(source),
        None if asked => {
            return Err(Failure::usage(format!(
                "{}: there is no such file; name another one with --config, or leave it out for the defaults",
                path.display()
            )));
        }
        None => {}
    }
    if path.file_name() == Path::new(CONFIG).file_name() {
        for path in parts(&path.with_file_name(FOLDER))? {
            // One that went away since the folder was listed is as good as none.
            sources.extend(text(&path)?);
        }
    }
    Ok(sources)
}

/// The `*.toml` files of the folder, in the order of their names.
fn parts(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let name = folder.display();
    let wrong = |error: std::io::Error| {
        Failure::usage(format!(
            "{name}: {error}; make it a folder that can be read, or remove it"
        ))
    };
    let listing = match std::fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(wrong(error)),
    };
    trusted(&std::fs::metadata(folder).map_err(wrong)?).map_err(|what| {
        refused(format!(
            "{name}: {what}, and whoever can add to it decides what is protected; chown root:root and chmod 755 it"
        ))
    })?;
    let mut paths = Vec::new();
    for entry in listing {
        let path = entry.map_err(wrong)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension().is_some_and(|end| end == "toml") && !hidden {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The file's text; `None` where it is not there.
fn text(path: &Path) -> Result<Option<Source>, Failure> {
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
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::usage(format!("{name}: is no UTF-8 text")))?;
    Ok(Some(Source {
        name: name.to_string(),
        text,
    }))
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
