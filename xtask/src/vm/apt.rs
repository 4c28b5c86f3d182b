//! Debian packages of any suite, without touching the machine's own apt lists: apt with directories of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::sources::Sources;

/// A suite of the main or of the security archive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Suite {
    pub(super) name: &'static str,
    pub(super) security: bool,
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

impl Package {
    fn parse(name: &str, record: &str) -> Result<Self> {
        let field = |key: &str| {
            record
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
                .map(str::to_owned)
        };
        let depends = ["Pre-Depends", "Depends"].map(|key| field(key).unwrap_or_default());
        Ok(Self {
            name: name.to_owned(),
            version: field("Version").with_context(|| format!("{name} has no version"))?,
            sha256: field("SHA256").with_context(|| format!("{name} has no hash"))?,
            depends: depends
                .iter()
                .flat_map(|clauses| clauses.split(", "))
                .filter_map(|clause| clause.split_whitespace().next())
                .map(str::to_owned)
                .collect(),
        })
    }
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

    /// The versions of `name` that the suites offer, the newest first.
    pub(crate) fn versions(&self, name: &str) -> Result<Vec<Package>> {
        self.show(name, "--all-versions")
    }

    /// The dependencies of `package`, direct or not, that `wanted` names.
    pub(crate) fn dependencies(
        &self,
        package: &Package,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<Package>> {
        let mut names: Vec<String> = package
            .depends
            .iter()
            .filter(|name| wanted(name))
            .cloned()
            .collect();
        let mut packages: Vec<Package> = Vec::new();
        while let Some(name) = names.get(packages.len()) {
            let newest = self.show(name, "--no-all-versions")?.into_iter().next();
            let package = newest.with_context(|| format!("no suite has {name}"))?;
            for dependency in package.depends.iter().filter(|name| wanted(name)) {
                if !names.contains(dependency) {
                    names.push(dependency.clone());
                }
            }
            packages.push(package);
        }
        Ok(packages)
    }

    fn show(&self, name: &str, versions: &str) -> Result<Vec<Package>> {
        let text = self
            .run("apt-cache", &["show", versions, name])
            .with_context(|| format!("look up the package {name}"))?;
        text.split("\n\n")
            .filter(|record| !record.trim().is_empty())
            .map(|record| Package::parse(name, record))
            .collect()
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
