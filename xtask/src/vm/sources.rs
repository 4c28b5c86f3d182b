//! The Debian mirrors that the machine's own apt sources name, in either of their formats.

use std::fs;
use std::path::Path;

use super::apt::Suite;

/// Where Debian is when the machine's own sources do not say.
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// The mirrors and the keyring that the machine itself uses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sources {
    main: String,
    security: String,
    keyring: Option<String>,
}

impl Sources {
    pub(super) fn of_this_machine() -> Self {
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

    pub(super) fn line(&self, suite: Suite) -> String {
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
