//! Finding and starting the command, as execvp(3) does it.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::{NotRun, pipe_signal};

/// Where there is no PATH.
const USUAL: &str = "/usr/local/bin:/usr/bin:/bin";

/// The file of a command.
pub(super) fn find(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, NotRun> {
    if name.is_empty() {
        return Err(not_found(name, "is no name of a command"));
    }
    if name.as_bytes().contains(&b'/') {
        return match runnable(Path::new(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(not_found(name, "there is no such file")),
            Err(error) => Err(not_startable(name, error)),
        };
    }
    let mut denied = None;
    for folder in std::env::split_paths(path.unwrap_or(OsStr::new(USUAL))) {
        // An empty entry stands for the current folder.
        let file = Path::new(".").join(folder).join(name);
        match runnable(&file) {
            Ok(()) => return Ok(file),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => denied = denied.or(Some(error)),
        }
    }
    Err(match denied {
        Some(error) => not_startable(name, error),
        None => not_found(name, "is not in any folder of PATH"),
    })
}

fn runnable(file: &Path) -> Result<(), Errno> {
    access(file, Access::EXEC_OK)?;
    // A folder may be entered, which is another use of the same bit.
    if file.is_dir() {
        return Err(Errno::ACCESS);
    }
    Ok(())
}

fn not_found(name: &OsStr, why: &str) -> NotRun {
    NotRun {
        code: 127,
        message: format!("{}: {why}", shown(name)),
    }
}

fn not_startable(name: &OsStr, error: Errno) -> NotRun {
    NotRun {
        code: 126,
        message: format!("{}: cannot be started: {error}", shown(name)),
    }
}

fn shown(name: &OsStr) -> String {
    grey_core::view::printable(&name.to_string_lossy()).to_string()
}

/// The environment of the command: our own, and what was changed.
#[derive(Debug)]
pub(super) struct Environment {
    all: Vec<(OsString, OsString)>,
    changed: Vec<&'static str>,
}

impl Environment {
    pub(super) fn own() -> Self {
        Environment {
            all: std::env::vars_os().collect(),
            changed: Vec::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn of(all: &[(&str, &str)]) -> Self {
        let owned = |(key, value): &(&str, &str)| (OsString::from(key), OsString::from(value));
        Environment {
            all: all.iter().map(owned).collect(),
            changed: Vec::new(),
        }
    }

    pub(super) fn set(&mut self, key: &'static str, value: impl Into<OsString>) {
        self.all.retain(|(known, _)| known != key);
        self.all.push((OsString::from(key), value.into()));
        self.changed.push(key);
    }

    /// Behind what is preloaded already: an allocator among it stays the first.
    pub(super) fn preload(&mut self, library: &Path) {
        const KEY: &str = "LD_PRELOAD";
        let bytes = library.as_os_str().as_bytes();
        let before = self.all.iter().find(|(key, _)| key == KEY);
        let mut value = before.map(|(_, value)| value.clone()).unwrap_or_default();
        let there = value
            .as_bytes()
            .split(|byte| matches!(byte, b' ' | b':'))
            .any(|entry| entry == bytes);
        if there {
            return;
        }
        if !value.is_empty() {
            value.push(":");
        }
        value.push(library);
        self.set(KEY, value);
    }

    pub(super) fn changed(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.all
            .iter()
            .filter(|(key, _)| self.changed.iter().any(|changed| key == changed))
            .map(|(key, value)| (key.as_os_str(), value.as_os_str()))
    }

    fn c_strings(&self) -> Result<Vec<CString>, Errno> {
        self.all
            .iter()
            .map(|(key, value)| {
                let mut entry = key.clone();
                entry.push("=");
                entry.push(value);
                c_string(entry)
            })
            .collect()
    }
}

fn c_string(text: impl Into<OsString>) -> Result<CString, Errno> {
    CString::new(text.into().into_vec()).map_err(|_| Errno::INVAL)
}

/// Puts the command in our place; returns only where that fails.
pub(super) fn exec(
    program: &Path,
    name: &OsStr,
    rest: &[OsString],
    environment: &Environment,
) -> Errno {
    let (Ok(file), Ok(environment)) = (c_string(program), environment.c_strings()) else {
        return Errno::INVAL;
    };
    let mut words = Vec::with_capacity(rest.len() + 1);
    for word in std::iter::once(name).chain(rest.iter().map(OsString::as_os_str)) {
        match c_string(word) {
            Ok(word) => words.push(word),
            Err(error) => return error,
        }
    }
    pipe_signal::put_back();
    let error = execve(&file, &words, &environment);
    if error != Errno::NOEXEC {
        return error;
    }
    // A script without a first line that names its interpreter: execvp(3) gives it to the shell.
    let Some(first) = words.first_mut() else {
        return error;
    };
    *first = file;
    words.insert(0, c"/bin/sh".to_owned());
    execve(c"/bin/sh", &words, &environment)
}

fn execve(file: &std::ffi::CStr, words: &[CString], environment: &[CString]) -> Errno {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (words, environment) = (pointers(words), pointers(environment));
    // SAFETY: both lists end with a null pointer, and their strings live until the call returns.
    unsafe { libc::execve(file.as_ptr(), words.as_ptr(), environment.as_ptr()) };
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
