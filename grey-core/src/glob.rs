//! Which cgroups a user asked for: by path, by glob, by unit or container name.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

#[cfg(test)]
mod tests;

/// Shortest container id prefix that is taken as one: shorter hex words are ordinary names (`cafe`, `face`).
const MIN_ID_PREFIX: usize = 8;

/// Unit suffixes that a user may leave out.
const UNIT_SUFFIXES: [&str; 3] = [".service", ".scope", ".slice"];

/// A cgroup argument that is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cgroup pattern `{pattern}`: {reason}")]
pub struct GlobError {
    /// The argument as given.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The cgroups that at least one of a list of arguments names. An empty list names all.
///
/// An argument that contains a slash is a path below the v2 mount, or an absolute path through the mount; one
/// without is a unit name (its suffix may be left out), a container name or id, or at least 8 hex digits of an id.
/// `*` and `?` stay within a path's segment, `**` crosses segments, `[..]` and `{a,b}` are as in a shell.
/// A backslash is itself, because systemd puts it into names; write `[*]` for a literal star.
#[derive(Clone, Debug, Default)]
pub struct CgroupFilter {
    /// False, as by default: every cgroup.
    restricted: bool,
    paths: Vec<String>,
    names: Vec<String>,
    path_globs: GlobSet,
    name_globs: GlobSet,
}

impl CgroupFilter {
    /// Makes the filter; `mount` is where the v2 hierarchy is mounted (`/sys/fs/cgroup`).
    ///
    /// # Errors
    /// [`GlobError`] names the first argument that is empty or not a valid glob.
    pub fn new(patterns: &[String], mount: &str) -> Result<CgroupFilter, GlobError> {
        let mut filter = CgroupFilter {
            restricted: !patterns.is_empty(),
            ..CgroupFilter::default()
        };
        let mut path_globs = GlobSetBuilder::new();
        let mut name_globs = GlobSetBuilder::new();
        for pattern in patterns {
            let error = |reason: String| GlobError {
                pattern: pattern.clone(),
                reason,
            };
            if pattern.trim().is_empty() {
                return Err(error("is empty".to_owned()));
            }
            let is_path = pattern.contains('/');
            let text = if is_path {
                path_of(pattern, mount)
            } else {
                pattern.clone()
            };
            if is_literal(pattern) {
                if is_path {
                    filter.paths.push(text);
                } else {
                    filter.names.push(text);
                }
                continue;
            }
            let glob = GlobBuilder::new(&text)
                .literal_separator(true)
                .backslash_escape(false)
                .build()
                .map_err(|cause| error(cause.kind().to_string()))?;
            if is_path {
                path_globs.add(glob);
            } else {
                name_globs.add(glob);
            }
        }
        // Only the sum of all patterns can fail here, by its size.
        let set = |globs: GlobSetBuilder| {
            globs.build().map_err(|cause| GlobError {
                pattern: patterns.join(" "),
                reason: cause.kind().to_string(),
            })
        };
        filter.path_globs = set(path_globs)?;
        filter.name_globs = set(name_globs)?;
        Ok(filter)
    }

    /// Whether the cgroup with this path below the mount and this name ([`crate::identity`]) is asked for.
    #[must_use]
    pub fn matches(&self, path: &str, name: &str) -> bool {
        if !self.restricted {
            return true;
        }
        if self.paths.iter().any(|wanted| wanted == path) || self.path_globs.is_match(path) {
            return true;
        }
        if self.names.is_empty() && self.name_globs.is_empty() {
            return false;
        }
        let last = path.rsplit('/').next().unwrap_or_default();
        let bare = UNIT_SUFFIXES
            .iter()
            .find_map(|suffix| last.strip_suffix(suffix))
            .unwrap_or(last);
        let forms = [name, last, bare];
        self.names.iter().any(|wanted| {
            forms.contains(&wanted.as_str()) || (is_id_prefix(wanted) && holds_id(last, wanted))
        }) || forms
            .iter()
            .any(|form| !form.is_empty() && self.name_globs.is_match(form))
    }
}

/// Whether an argument names one thing rather than a set: if nothing matches it, that is an error of the user's.
#[must_use]
pub fn is_literal(pattern: &str) -> bool {
    !pattern.contains(['*', '?', '[', ']', '{', '}'])
}

/// The path below the mount: mount prefix and trailing slashes off, one leading slash on.
fn path_of(pattern: &str, mount: &str) -> String {
    let mount = mount.trim_end_matches('/');
    let below = match pattern.strip_prefix(mount) {
        Some(rest) if !mount.is_empty() && (rest.is_empty() || rest.starts_with('/')) => rest,
        _ => pattern,
    };
    format!("/{}", below.trim_matches('/'))
}

fn is_id_prefix(text: &str) -> bool {
    (MIN_ID_PREFIX..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether a path segment holds a 64-digit container id that begins with the prefix.
fn holds_id(segment: &str, prefix: &str) -> bool {
    segment
        .split(|c: char| !c.is_ascii_hexdigit())
        .any(|word| word.len() == 64 && word.starts_with(prefix))
}
