//! Where the library of the release agent is.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Its file name.
pub const FILE: &str = "libgrey_release.so";
/// Names the file itself; before everything else.
pub const VARIABLE: &str = "GREY_RELEASE_LIB";
/// Where a package puts it.
const PACKAGED: &str = "/usr/lib/grey-ebpf";

/// It is not where it is looked for, or no program can load it from there.
#[derive(Debug, Error)]
pub enum LibraryError {
    /// `$GREY_RELEASE_LIB` names something else than a file with an absolute path that LD_PRELOAD can take.
    #[error("{VARIABLE}: {}: {why}", path.display())]
    Named {
        /// What it names.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It is nowhere.
    #[error(
        "{FILE}: not in {}; `cargo xtask release-agent` builds it, and {VARIABLE} names it where it is elsewhere",
        list(.0)
    )]
    Nowhere(Vec<PathBuf>),
}

fn list(folders: &[PathBuf]) -> String {
    let all: Vec<String> = folders
        .iter()
        .map(|folder| folder.display().to_string())
        .collect();
    all.join(", ")
}

/// The library of the release agent: `$GREY_RELEASE_LIB`, else beside this program, in `../lib` or `../lib/grey-ebpf` of
/// it, beside a cargo build of it, or in /usr/lib/grey-ebpf. The path is absolute and fit for LD_PRELOAD.
///
/// # Errors
/// It is not there; the text says where it was looked for.
pub fn agent_library() -> Result<PathBuf, LibraryError> {
    if let Some(named) = env::var_os(VARIABLE).filter(|named| !named.is_empty()) {
        let path = PathBuf::from(named);
        return match fit(&path) {
            Ok(()) => Ok(path),
            Err(why) => Err(LibraryError::Named { path, why }),
        };
    }
    let folders = folders(env::current_exe().ok().as_deref());
    folders
        .iter()
        .map(|folder| folder.join(FILE))
        .find(|path| fit(path).is_ok())
        .ok_or(LibraryError::Nowhere(folders))
}

/// The folders that are looked into, for a program at this path.
fn folders(program: Option<&Path>) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Some(own) = program.and_then(Path::parent) {
        folders.push(own.to_owned());
        if let Some(above) = own.parent() {
            folders.push(above.join("lib"));
            folders.push(above.join("lib/grey-ebpf"));
            // target/debug/grey-ebpf, target/agent/libgrey_release.so.
            folders.push(above.join("agent"));
        }
    }
    folders.push(PathBuf::from(PACKAGED));
    folders
}

/// Whether LD_PRELOAD can take it: its entries end at a colon or a space, and a relative one means another file in
/// another folder.
fn fit(path: &Path) -> Result<(), String> {
    if !path.is_absolute() {
        return Err("is not an absolute path".to_owned());
    }
    let text = path.as_os_str().as_encoded_bytes();
    if text.iter().any(|byte| matches!(byte, b':' | b' ' | b'$')) {
        return Err(
            "has a colon, a space or a dollar sign, which LD_PRELOAD cannot take".to_owned(),
        );
    }
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() => Ok(()),
        Ok(_) => Err("is no file".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_for_beside_the_program_and_where_packages_put_it() {
        let found = folders(Some(Path::new("/opt/grey/bin/grey-ebpf")));
        let want = [
            "/opt/grey/bin",
            "/opt/grey/lib",
            "/opt/grey/lib/grey-ebpf",
            "/opt/grey/agent",
            "/usr/lib/grey-ebpf",
        ];
        assert_eq!(found, want.map(PathBuf::from));
        assert_eq!(folders(None), [PathBuf::from("/usr/lib/grey-ebpf")]);
    }

    #[test]
    fn what_ld_preload_cannot_take_is_refused_with_a_reason() {
        for (path, why) in [
            ("libgrey_release.so", "absolute"),
            ("/a b/libgrey_release.so", "space"),
            ("/a:b/libgrey_release.so", "colon"),
            ("/nowhere/at/all/libgrey_release.so", "No such file"),
            ("/usr", "no file"),
        ] {
            let said = fit(Path::new(path)).unwrap_err();
            assert!(said.contains(why), "{path}: {said}");
        }
    }
}
