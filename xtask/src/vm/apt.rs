//! Debian packages of any suite, without touching the machine's own apt lists: apt with directories of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Where Debian is when the machine's own sources do not say.
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// A suite of the main or of the security archive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Suite {
    name: &'static str,
    security: bool,
}

impl Suite {
    pub(crate) const fn main(name: &'static str) -> Self {
        Self {
            name,
            security: false,
        }
    }

    pub(crate) const fn security(name: &'static str) -> Self {
        Self {
            name,
            security: true,
        }
    }
}

/// A package at the version that the suites offer.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    sha256: String,
    depends: Vec<String>,
}

/// An apt of its own over some suites.
pub(crate) struct Archive {
    directory: PathBuf,
}

impl Archive {
    /// Fetches the indexes of `suites` into `directory`.
    pub(crate) fn open(directory: &Path, suites: &[Suite]) -> Result<Self> {
        if Command::new("apt-get").arg("--version").output().is_err() {
            bail!("this is no Debian system: there is no apt-get to fetch the kernel with");
        }
        for part in ["lists/partial", "cache/archives/partial"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        let directory = directory
            .canonicalize()
            .context("resolve apt's directory")?;
        let archive = Self { directory };
        let list = archive.directory.join("sources.list");
        let sources = Sources::of_this_machine();
        let lines: String = suites.iter().map(|suite| sources.line(*suite)).collect();
        fs::write(&list, lines).with_context(|| format!("write {}", list.display()))?;
        archive
            .run("apt-get", &["update", "--error-on=any"])
            .context("fetch and verify the package indexes")?;
        Ok(archive)
    }

    /// `meta` and those of its dependencies, direct or not, that `wanted` names. Dependencies come last.
    pub(crate) fn resolve(
        &self,
        meta: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<Package>> {
        let mut packages = vec![self.show(meta)?];
        let mut next = 0;
        while let Some(package) = packages.get(next) {
            next += 1;
            let fresh: Vec<String> = package
                .depends
                .iter()
                .filter(|name| wanted(name) && packages.iter().all(|known| known.name != **name))
                .cloned()
                .collect();
            for name in fresh {
                packages.push(self.show(&name)?);
            }
        }
        Ok(packages)
    }

    fn show(&self, name: &str) -> Result<Package> {
        let text = self
            .run("apt-cache", &["show", "--no-all-versions", name])
            .with_context(|| format!("look up the package {name}"))?;
        let field = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
                .map(str::to_owned)
        };
        let depends = field("Depends").unwrap_or_default();
        Ok(Package {
            name: name.to_owned(),
            version: field("Version").with_context(|| format!("{name} has no version"))?,
            sha256: field("SHA256").with_context(|| format!("{name} has no hash"))?,
            depends: depends
                .split(", ")
                .filter_map(|clause| clause.split_whitespace().next())
                .map(str::to_owned)
                .collect(),
        })
    }

    /// The package's files below `cache`, in a directory named by its hash: there is no second download.
    pub(crate) fn unpack(&self, package: &Package, cache: &Path) -> Result<PathBuf> {
        let Package {
            name,
            version,
            sha256,
            ..
        } = package;
        let hash = sha256.get(..16).context("the hash is too short")?;
        let tree = cache.join(format!("{name}_{}_{hash}", version.replace(':', "%3a")));
        if tree.is_dir() {
            return Ok(tree);
        }
        println!("fetching {name} {version}");
        let partial = cache.join(format!(".{name}.{}", std::process::id()));
        let unpacked = partial.join("files");
        fs::create_dir_all(&unpacked).with_context(|| format!("create {}", unpacked.display()))?;
        // apt checks the hash against the signed index.
        self.run_in(
            &partial,
            "apt-get",
            &["download", &format!("{name}={version}")],
        )
        .with_context(|| format!("download {name}"))?;
        let deb = fs::read_dir(&partial)
            .context("list the download")?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("the download of {name} left no file"))?;
        output(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&unpacked))
            .with_context(|| format!("unpack {}", deb.display()))?;
        // A rename makes the cache entry whole or absent.
        fs::rename(&unpacked, &tree).with_context(|| format!("move {name} into the cache"))?;
        fs::remove_dir_all(&partial).context("remove the download")?;
        Ok(tree)
    }

    fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        self.run_in(&self.directory, program, args)
    }

    fn run_in(&self, directory: &Path, program: &str, args: &[&str]) -> Result<String> {
        let at = |part: &str| self.directory.join(part).display().to_string();
        let mut command = Command::new(program);
        for (key, value) in [
            ("Dir::Etc::sourcelist", at("sources.list")),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
            // The machine's pins are about the machine.
            ("Dir::Etc::preferences", "/dev/null".into()),
            ("Dir::Etc::preferencesparts", "/dev/null".into()),
            ("Dir::State::Lists", at("lists")),
            ("Dir::State::status", "/dev/null".into()),
            ("Dir::Cache", at("cache")),
            ("APT::Architecture", "amd64".into()),
            ("APT::Architectures", "amd64".into()),
            ("APT::Sandbox::User", String::new()),
            ("Acquire::Languages", "none".into()),
            (
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled",
                "false".into(),
            ),
            ("Acquire::Retries", "3".into()),
            ("Acquire::http::Timeout", "30".into()),
            // An old suite's index is past its date and still signed.
            ("Acquire::Check-Valid-Until", "false".into()),
        ] {
            command.arg("-o").arg(format!("{key}={value}"));
        }
        output(command.args(args).current_dir(directory).env("LC_ALL", "C"))
    }
}

/// Stdout of a command that succeeded; its last error line if it did not.
fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("run {program}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let line = stderr
        .lines()
        .find(|line| line.starts_with("E: "))
        .or(stderr.lines().last())
        .unwrap_or("no message");
    bail!("{program}: {line}")
}

/// The mirrors and the keyring that the machine itself uses.
#[derive(Debug, PartialEq, Eq)]
struct Sources {
    main: String,
    security: String,
    keyring: Option<String>,
}

impl Sources {
    fn of_this_machine() -> Self {
        let mut texts: Vec<String> = fs::read_to_string("/etc/apt/sources.list")
            .into_iter()
            .collect();
        for entry in fs::read_dir("/etc/apt/sources.list.d")
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = entry.path();
            // apt itself reads these two endings only.
            if path
                .extension()
                .is_some_and(|extension| extension == "list" || extension == "sources")
            {
                texts.extend(fs::read_to_string(path));
            }
        }
        let keyring = KEYRINGS.into_iter().find(|path| Path::new(path).exists());
        Self::of(texts.iter().flat_map(|text| entries(text)), keyring)
    }

    fn of(entries: impl Iterator<Item = Entry>, keyring: Option<&str>) -> Self {
        let entries: Vec<Entry> = entries.collect();
        let is_security = |entry: &Entry| {
            entry
                .suites
                .iter()
                .any(|suite| suite.ends_with("-security"))
        };
        let is_debian = |entry: &Entry| entry.uri.trim_end_matches('/').ends_with("/debian");
        let main = entries
            .iter()
            .find(|entry| is_debian(entry) && !is_security(entry));
        let base = main.map_or(DEFAULT_MIRROR, |entry| entry.uri.trim_end_matches('/'));
        let security = entries
            .iter()
            .find(|entry| {
                is_security(entry)
                    && entry
                        .uri
                        .trim_end_matches('/')
                        .ends_with("/debian-security")
            })
            .map_or_else(
                || format!("{base}-security"),
                |entry| entry.uri.trim_end_matches('/').to_owned(),
            );
        Self {
            main: base.to_owned(),
            security,
            keyring: keyring.map(str::to_owned),
        }
    }

    fn line(&self, suite: Suite) -> String {
        // Without a keyring file apt falls back to the keys that the machine trusts, never to none.
        let options = self
            .keyring
            .as_ref()
            .map(|path| format!("[signed-by={path}] "))
            .unwrap_or_default();
        let uri = if suite.security {
            &self.security
        } else {
            &self.main
        };
        format!("deb {options}{uri} {} main\n", suite.name)
    }
}

/// One source of binary packages.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    uri: String,
    suites: Vec<String>,
}

/// The entries of a sources file in either format.
fn entries(text: &str) -> Vec<Entry> {
    let words = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let one_line = text.lines().filter_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = words(rest).into_iter();
        Some(Entry {
            uri: words.next()?,
            suites: words.take(1).collect(),
        })
    });
    let stanzas = text.split("\n\n").flat_map(|stanza| {
        let field = |key: &str| {
            stanza
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
                .map(words)
                .unwrap_or_default()
        };
        let suites = field("Suites");
        let off = field("Enabled").first().is_some_and(|value| value == "no");
        let uris = if off { Vec::new() } else { field("URIs") };
        uris.into_iter()
            .map(move |uri| Entry {
                uri,
                suites: suites.clone(),
            })
            .collect::<Vec<_>>()
    });
    one_line.chain(stanzas).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
Types: deb
# a comment
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
";

    fn sources(text: &str) -> Sources {
        Sources::of(entries(text).into_iter(), None)
    }

    #[test]
    fn mirrors_are_read_from_deb822_sources() {
        let sources = sources(DEB822);
        assert_eq!(sources.main, "http://mirror.example/debian");
        assert_eq!(sources.security, "http://mirror.example/debian-security");
    }

    #[test]
    fn mirrors_are_read_from_one_line_sources() {
        let sources = sources(
            "# x\ndeb [arch=amd64 signed-by=/k] https://m.example/debian trixie main contrib\n",
        );
        assert_eq!(sources.main, "https://m.example/debian");
        assert_eq!(sources.security, "https://m.example/debian-security");
    }

    #[test]
    fn foreign_archives_are_not_taken_for_debian() {
        assert_eq!(
            sources("deb https://packages.example/apt stable main\n").main,
            DEFAULT_MIRROR
        );
        assert_eq!(
            sources(&DEB822.replace("Types: deb", "Enabled: no\nTypes: deb")).main,
            DEFAULT_MIRROR
        );
    }

    #[test]
    fn a_source_line_names_the_keyring_and_the_right_archive() {
        let mut sources = sources(DEB822);
        sources.keyring = Some("/k.gpg".to_owned());
        let line = sources.line(Suite::security("bullseye-security"));
        assert_eq!(
            line,
            "deb [signed-by=/k.gpg] http://mirror.example/debian-security bullseye-security main\n"
        );
    }
}
