//! Snapshots as files: written whole or not at all, and read with one line that says what is wrong with a bad one.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde_json::error::Category;

use super::document::{FAMILY, SCHEMA, Snapshot};
use crate::cli::{self, Exit, Failure};

/// More than the snapshot of any machine: 200 000 processes are 60 MB.
const MOST_BYTES: u64 = 512 << 20;

/// Standard input or output.
pub(super) fn is_stdio(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Whether a file may be written there; before anything is measured.
pub(super) fn check_target(path: &Path, force: bool) -> Result<(), Failure> {
    if is_stdio(path) {
        return Ok(());
    }
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(Failure::usage(format!(
            "{}: is a directory; name a file in it, such as {}",
            path.display(),
            path.join("before.json").display()
        ))),
        Ok(found) if found.is_file() && !force => Err(exists(path)),
        _ => Ok(()),
    }
}

fn exists(path: &Path) -> Failure {
    Failure {
        exit: Exit::Refused,
        message: format!(
            "{}: is there already; add --force to replace it, or choose another name",
            path.display()
        ),
    }
}

/// Writes it, gzip'd where the name ends in `.gz`.
pub(super) fn write(path: &Path, snapshot: &Snapshot, force: bool) -> Result<(), Failure> {
    let mut text = serde_json::to_vec(snapshot)
        .map_err(|error| Failure::failed(format!("snapshot: {error}")))?;
    text.push(b'\n');
    if is_stdio(path) {
        return cli::print(&String::from_utf8_lossy(&text)).map(drop);
    }
    let failed = |error: io::Error| {
        Failure::failed(format!(
            "{}: {error}; make room there or write somewhere else",
            path.display()
        ))
    };
    let bytes = if path.extension().is_some_and(|extension| extension == "gz") {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&text)
            .and_then(|()| gzip.finish())
            .map_err(failed)?
    } else {
        text
    };
    // A device or pipe is written to: it must not be replaced by a file.
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return File::options()
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(&bytes))
            .map_err(failed);
    }
    // Through a symbolic link, so that it still points there afterwards.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match replace(&target, &bytes, force) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(path)),
        result => result.map_err(failed),
    }
}

/// A file beside it takes its name when it is complete.
fn replace(target: &Path, bytes: &[u8], force: bool) -> io::Result<()> {
    let temporary = beside(target);
    let written = File::options()
        .write(true)
        .create_new(true)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| rename(&temporary, target, force));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn beside(target: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", std::process::id()));
    target.with_file_name(name)
}

/// Without `force` a file that came there meanwhile stays.
fn rename(from: &Path, to: &Path, force: bool) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    if force {
        return fs::rename(from, to);
    }
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems (NFS, some FUSE) do not know the flag.
        Err(Errno::INVAL | Errno::NOSYS) if !to.exists() => fs::rename(from, to),
        Err(Errno::INVAL | Errno::NOSYS) => Err(io::ErrorKind::AlreadyExists.into()),
        result => result.map_err(io::Error::from),
    }
}

/// Reads one, gzip'd or not.
///
/// # Errors
/// Usage (2): what is wrong with the file and what to do.
pub(super) fn read(path: &Path) -> Result<Snapshot, Failure> {
    let name = if is_stdio(path) {
        "stdin".to_owned()
    } else {
        path.display().to_string()
    };
    let bad = |why: String| Failure::usage(format!("{name}: {why}"));
    let bytes = bytes(path).map_err(|error| {
        bad(match error.kind() {
            io::ErrorKind::NotFound => {
                "no such file; make one with `grey-ebpf snapshot save FILE`".to_owned()
            }
            io::ErrorKind::IsADirectory => "is a directory, not a snapshot".to_owned(),
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::InvalidData => {
                format!("is cut off or damaged ({error}); save it again")
            }
            io::ErrorKind::FileTooLarge => {
                "is larger than any snapshot; is it the right file?".to_owned()
            }
            _ => format!("{error}; check the name and the permissions"),
        })
    })?;
    parse(&bytes).map_err(bad)
}

fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let source: Box<dyn Read> = if is_stdio(path) {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path)?)
    };
    let packed = limited(source)?;
    // By its content: a name says little about what is in a pipe or a download.
    if packed.starts_with(&[0x1f, 0x8b]) {
        limited(MultiGzDecoder::new(packed.as_slice()))
    } else {
        Ok(packed)
    }
}

fn limited(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// The head of any document of ours.
#[derive(serde::Deserialize)]
struct Head {
    schema: Option<serde_json::Value>,
}

/// Reads the content; the error says what is wrong and what to do.
pub(super) fn parse(bytes: &[u8]) -> Result<Snapshot, String> {
    const HOW: &str = "make one with `grey-ebpf snapshot save FILE`";
    if bytes.trim_ascii().is_empty() {
        return Err(format!("is empty; {HOW}"));
    }
    let mut documents = serde_json::Deserializer::from_slice(bytes).into_iter::<Head>();
    let head = match documents.next() {
        Some(Ok(head)) => head,
        Some(Err(error)) if error.classify() == Category::Eof => {
            return Err(format!("is cut off ({error}); save it again"));
        }
        Some(Err(_)) | None => return Err(format!("is not a snapshot; {HOW}")),
    };
    let schema = head.schema.as_ref().and_then(serde_json::Value::as_str);
    match schema {
        Some(SCHEMA) => {}
        Some(schema) if schema.starts_with(FAMILY) => {
            return Err(format!(
                "has schema {}, this program knows {SCHEMA}; use the program that wrote it, or a newer one",
                printable(schema)
            ));
        }
        Some(schema) if schema.starts_with("grey-ebpf/") => {
            return Err(format!("is a recording of events, not a snapshot; {HOW}"));
        }
        _ => return Err(format!("is JSON but not a snapshot; {HOW}")),
    }
    serde_json::from_slice(bytes).map_err(|error| {
        format!(
            "is a snapshot that was changed ({}); save it again",
            printable(&error.to_string())
        )
    })
}

/// What a file says about itself, fit for one line.
fn printable(text: &str) -> String {
    let text: String = text.chars().take(120).collect();
    grey_core::view::printable(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            schema: SCHEMA.to_owned(),
            host: "n1".to_owned(),
            ..Snapshot::default()
        }
    }

    struct Dir(PathBuf);

    impl Dir {
        fn new(label: &str) -> Dir {
            let path =
                std::env::temp_dir().join(format!("grey-snapshot-{label}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Dir(path)
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<String> = fs::read_dir(&self.0)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_written_is_read_again_packed_or_not() {
        let dir = Dir::new("written");
        for name in ["a.json", "a.json.gz"] {
            let path = dir.0.join(name);
            write(&path, &snapshot(), false).unwrap();
            assert_eq!(read(&path).unwrap(), snapshot(), "{name}");
        }
        assert!(
            fs::read(dir.0.join("a.json.gz"))
                .unwrap()
                .starts_with(&[0x1f, 0x8b])
        );
        // By content, not by name.
        fs::rename(dir.0.join("a.json.gz"), dir.0.join("b")).unwrap();
        assert_eq!(read(&dir.0.join("b")).unwrap(), snapshot());
        assert_eq!(dir.names(), ["a.json", "b"], "nothing temporary is left");
    }

    #[test]
    fn a_file_is_replaced_only_by_force_and_a_link_stays_one() {
        let dir = Dir::new("force");
        let path = dir.0.join("a.json");
        fs::write(&path, "mine").unwrap();
        for refused in [check_target(&path, false), write(&path, &snapshot(), false)] {
            let failure = refused.unwrap_err();
            assert_eq!(failure.exit, Exit::Refused);
            assert!(failure.message.contains("--force"), "{}", failure.message);
        }
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        let link = dir.0.join("link.json");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        check_target(&link, true).unwrap();
        write(&link, &snapshot(), true).unwrap();
        assert_eq!(read(&path).unwrap(), snapshot());
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(dir.names(), ["a.json", "link.json"]);
    }

    #[test]
    fn a_device_is_written_to_and_stays_a_device() {
        let null = Path::new("/dev/null");
        write(null, &snapshot(), false).unwrap();
        assert!(!fs::metadata(null).unwrap().is_file());
        let failure = write(Path::new("/dev/full"), &snapshot(), false).unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        let failure = write(Path::new("/grey-none/a"), &snapshot(), false).unwrap_err();
        assert!(
            failure.message.starts_with("/grey-none/a: "),
            "{}",
            failure.message
        );
        assert_eq!(
            check_target(Path::new("/"), false).unwrap_err().exit,
            Exit::Usage
        );
    }

    #[test]
    fn what_is_no_snapshot_is_told_by_what_it_is() {
        let whole = serde_json::to_string(&snapshot()).unwrap();
        let cases = [
            ("", "is empty"),
            (" \n", "is empty"),
            ("hello", "is not a snapshot"),
            ("[1]", "is JSON but not a snapshot"),
            ("7", "is not a snapshot"),
            ("{}", "is JSON but not a snapshot"),
            ("{\"schema\":7}", "is JSON but not a snapshot"),
            (
                "{\"schema\":\"grey-ebpf/1\",\"type\":\"sample\"}\n{\"schema\":\"grey-ebpf/1\"}",
                "is a recording",
            ),
            (
                "{\"schema\":\"grey-ebpf-snapshot/2\"}",
                "grey-ebpf-snapshot/2",
            ),
            (
                "{\"schema\":\"grey-ebpf-snapshot/1\"}",
                "was changed (missing field `ts`",
            ),
            (&whole[..whole.len() / 2], "is cut off"),
            (&whole[..whole.len() - 1], "is cut off"),
            (&whole.replace("\"n1\"", "7"), "was changed"),
            (&format!("{whole}{whole}"), "was changed"),
        ];
        for (content, says) in cases {
            let error = parse(content.as_bytes()).unwrap_err();
            assert!(
                error.contains(says) && error.contains("; "),
                "{content:?}: {error}"
            );
            assert!(!error.contains('\n'), "{error:?}");
        }
        assert!(
            parse(b"{\"schema\":\"grey-ebpf-snapshot/\\u001b[31m\"}")
                .unwrap_err()
                .chars()
                .all(|c| !c.is_control())
        );
    }

    #[test]
    fn a_cut_gzip_is_told_and_not_half_read() {
        let dir = Dir::new("cut");
        let path = dir.0.join("a.gz");
        write(&path, &snapshot(), false).unwrap();
        let whole = fs::read(&path).unwrap();
        for len in [2, 10, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..len]).unwrap();
            let failure = read(&path).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(
                failure.message.contains("is cut off or damaged"),
                "{len}: {}",
                failure.message
            );
        }
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 0xff;
        fs::write(&path, &damaged).unwrap();
        assert_eq!(read(&path).unwrap_err().exit, Exit::Usage);
        // A field that newer versions of the schema add is passed over.
        let text = serde_json::to_string(&snapshot())
            .unwrap()
            .replacen('{', "{\"later\":[1],", 1);
        assert_eq!(parse(text.as_bytes()).unwrap(), snapshot());
    }

    proptest::proptest! {
        #[test]
        fn no_content_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_document_cut_anywhere_is_refused(at in 0_usize..200) {
            let whole = serde_json::to_string(&snapshot()).unwrap();
            proptest::prop_assert!(parse(&whole.as_bytes()[..at.min(whole.len() - 1)]).is_err());
        }
    }
}
