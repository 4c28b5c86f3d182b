//! Whether a library can be preloaded into a program, as its file tells.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use object::elf::{FileHeader32, FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader as _};
use object::{Endianness, ReadCache};

/// What a preloaded library comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It is loaded.
    Yes,
    /// Not here, but in programs that this one starts; and why.
    ItsChildren(&'static str),
    /// It must not be tried; and why.
    No(&'static str),
}

/// Interpreters of interpreters: as many as the kernel follows.
const DEPTH: usize = 4;
/// As much of a first line as the kernel reads.
const LINE: u64 = 256;

/// What the dynamic loader of `program` does with `library`.
pub(super) fn fits(program: &Path, library: &Path) -> Fit {
    let Some(wanted) = Image::read(library) else {
        // Cannot be compared; the dynamic loader will tell.
        return Fit::Yes;
    };
    let mut file = program.to_owned();
    for _ in 0..=DEPTH {
        if gains_privileges(&file) {
            return Fit::ItsChildren(
                "it takes on another user's privileges, which is why the dynamic loader ignores what is preloaded",
            );
        }
        match interpreter(&file) {
            Some(next) => file = next,
            None => break,
        }
    }
    match Image::read(&file) {
        // A script for the shell, or nothing that runs.
        None => Fit::Yes,
        Some(image) => image.fit(&wanted),
    }
}

/// What of an ELF file matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Image {
    bits: u8,
    machine: u16,
    /// The dynamic loader that it names.
    loader: Option<Vec<u8>>,
}

impl Image {
    fn read(path: &Path) -> Option<Image> {
        let cache = ReadCache::new(File::open(path).ok()?);
        match object::FileKind::parse(&cache).ok()? {
            object::FileKind::Elf64 => Image::of::<FileHeader64<Endianness>>(&cache, 64),
            object::FileKind::Elf32 => Image::of::<FileHeader32<Endianness>>(&cache, 32),
            _ => None,
        }
    }

    fn of<H: FileHeader<Endian = Endianness>>(cache: &ReadCache<File>, bits: u8) -> Option<Image> {
        let header = H::parse(cache).ok()?;
        let endian = header.endian().ok()?;
        let loader = header
            .program_headers(endian, cache)
            .ok()?
            .iter()
            .find(|segment| segment.p_type(endian) == PT_INTERP)
            .and_then(|segment| segment.data(endian, cache).ok())
            .map(<[u8]>::to_vec);
        Some(Image {
            bits,
            machine: header.e_machine(endian),
            loader,
        })
    }

    fn fit(&self, library: &Image) -> Fit {
        if (self.bits, self.machine) != (library.bits, library.machine) {
            return Fit::No("it is built for another kind of processor than the release agent");
        }
        match &self.loader {
            None => Fit::ItsChildren("it is linked statically"),
            Some(loader) if memchr::memmem::find(loader, b"/ld-musl-").is_some() => {
                Fit::ItsChildren("it is linked against musl, whose malloc has nothing to be told")
            }
            Some(_) => Fit::Yes,
        }
    }
}

/// Setuid, setgid, or with file capabilities.
fn gains_privileges(path: &Path) -> bool {
    const SET_ID: u32 = 0o6000;
    let by_mode = path
        .metadata()
        .is_ok_and(|data| data.is_file() && data.mode() & SET_ID != 0);
    let mut space = [0_u8; 64];
    by_mode || rustix::fs::getxattr(path, "security.capability", &mut space).is_ok()
}

/// What the first line of a script names.
fn interpreter(path: &Path) -> Option<PathBuf> {
    let mut line = Vec::new();
    let file = File::open(path).ok()?;
    let mut start = BufReader::new(file.take(LINE));
    start.read_until(b'\n', &mut line).ok()?;
    let words = line.strip_prefix(b"#!")?.trim_ascii();
    let mut words = words
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let name = Path::new(std::ffi::OsStr::from_bytes(words.next()?));
    if name.file_name().is_some_and(|name| name == "env") {
        // `env` finds the program by PATH; options and variables before it are its own business.
        let program = words.find(|word| !word.starts_with(b"-") && !word.contains(&b'='))?;
        let path = std::env::var_os("PATH");
        return super::command::find(std::ffi::OsStr::from_bytes(program), path.as_deref()).ok();
    }
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const X86_64: u16 = object::elf::EM_X86_64;

    fn image(bits: u8, machine: u16, loader: Option<&str>) -> Image {
        Image {
            bits,
            machine,
            loader: loader.map(|loader| loader.as_bytes().to_vec()),
        }
    }

    #[test]
    fn a_library_fits_programs_of_its_own_kind() {
        let library = image(64, X86_64, None);
        let fit = |image: Image| match image.fit(&library) {
            Fit::Yes => "yes",
            Fit::ItsChildren(_) => "children",
            Fit::No(_) => "no",
        };
        let glibc = "/lib64/ld-linux-x86-64.so.2\0";
        assert_eq!(fit(image(64, X86_64, Some(glibc))), "yes");
        assert_eq!(fit(image(64, X86_64, None)), "children");
        assert_eq!(
            fit(image(64, X86_64, Some("/lib/ld-musl-x86_64.so.1\0"))),
            "children"
        );
        assert_eq!(fit(image(32, object::elf::EM_386, Some(glibc))), "no");
        assert_eq!(fit(image(64, object::elf::EM_AARCH64, Some(glibc))), "no");
    }

    #[test]
    fn this_test_is_an_image_and_a_text_is_none() {
        let own = Image::read(&std::env::current_exe().unwrap()).unwrap();
        assert_eq!(
            own.bits,
            if cfg!(target_pointer_width = "64") {
                64
            } else {
                32
            }
        );
        assert_eq!(Image::read(Path::new("/proc/self/status")), None);
        assert_eq!(Image::read(Path::new("/nowhere")), None);
    }

    #[test]
    fn the_interpreter_of_a_script_is_what_runs() {
        let folder = std::env::temp_dir().join(format!("grey-image-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let script = |text: &[u8]| {
            let path = folder.join("script");
            std::fs::write(&path, text).unwrap();
            interpreter(&path)
        };
        assert_eq!(script(b"#!/bin/sh\necho"), Some("/bin/sh".into()));
        assert_eq!(script(b"#! /bin/sh -e\n"), Some("/bin/sh".into()));
        let env = script(b"#!/usr/bin/env -S A=b sh -e\n").unwrap();
        assert!(env.ends_with("sh") && env.exists(), "{env:?}");
        assert_eq!(script(b"#!"), None);
        assert_eq!(script(b"echo\n"), None);
        assert_eq!(
            script(b"#!\xff\xfe"),
            Some(std::ffi::OsStr::from_bytes(b"\xff\xfe").into())
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
