//! Which cgroups are never touched, and why acting on one is refused: what is protected is so with everything below
//! it and everything above it, since acting on a parent acts on its children.

use std::fmt;

use crate::glob::{CgroupFilter, GlobError};
use crate::identity::identify;

#[cfg(test)]
mod tests;

/// The guard's own cgroup.
pub const GUARD: &str = "/grey-ebpf-guard";

/// Who protects a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// This process runs in it.
    Own,
    /// The guard runs in it.
    Guard,
    /// The machine cannot do without it; as the configuration names it.
    Critical(String),
    /// Somebody asked for it; as given.
    Protect(String),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Own => f.write_str("this command runs in it"),
            Rule::Guard => f.write_str("the guard runs in it"),
            Rule::Critical(name) => write!(f, "`{name}` is a critical service"),
            Rule::Protect(pattern) => write!(f, "`{pattern}` is protected"),
        }
    }
}

/// One protected cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shield {
    /// Path below the v2 mount.
    pub path: String,
    /// Why.
    pub rule: Rule,
}

/// How a cgroup is related to the protected one that forbids to touch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It is that one.
    Itself,
    /// It lies inside of it.
    Inside,
    /// It holds it.
    Holds,
}

/// Why a cgroup must not be touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// The protected cgroup.
    pub shield: &'a Shield,
    /// What the refused one has to do with it.
    pub relation: Relation,
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shield { path, rule } = self.shield;
        match self.relation {
            Relation::Itself => write!(f, "it must not be touched: {rule}"),
            Relation::Inside => write!(f, "it is inside {path}, which must not be touched: {rule}"),
            Relation::Holds => write!(f, "it holds {path}, which must not be touched: {rule}"),
        }
    }
}

/// One argument of `protect` or `critical`.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    filter: CgroupFilter,
}

impl Pattern {
    /// A path, glob, unit or container name; `mount` is where the v2 tree is mounted.
    ///
    /// # Errors
    /// It is empty or no valid glob.
    pub fn new(text: &str, mount: &str) -> Result<Pattern, GlobError> {
        Ok(Pattern {
            text: text.to_owned(),
            filter: CgroupFilter::new(&[text.to_owned()], mount)?,
        })
    }

    /// As given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it names this cgroup.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.filter.matches(path, &identify(path).name)
    }

    /// As [`Pattern::matches`], for a service of this machine: a bare name does not mean the unit of that name in
    /// somebody's session or in a container, which come and go without harm to the machine.
    #[must_use]
    pub fn matches_service(&self, path: &str) -> bool {
        self.matches(path) && (self.text.contains('/') || !is_elsewhere(path))
    }
}

/// Inside a user's service manager or a container.
fn is_elsewhere(path: &str) -> bool {
    path.split('/')
        .any(|segment| segment.starts_with("user@") && segment.ends_with(".service"))
        || identify(path).container_id.is_some()
}

/// All protected cgroups of a tree.
#[derive(Clone, Debug, Default)]
pub struct Shields(Vec<Shield>);

impl Shields {
    /// Looks through the paths of all cgroups. `own` is the cgroup of this process, where that is known.
    #[must_use]
    pub fn survey<'a>(
        paths: impl IntoIterator<Item = &'a str>,
        own: Option<&str>,
        critical: &[Pattern],
        protect: &[Pattern],
    ) -> Shields {
        let mut shields: Vec<Shield> = own
            .into_iter()
            .map(|path| (path, Rule::Own))
            .chain([(GUARD, Rule::Guard)])
            .map(|(path, rule)| Shield {
                path: path.to_owned(),
                rule,
            })
            .collect();
        for path in paths {
            let by = |pattern: &Pattern, rule: fn(String) -> Rule| Shield {
                path: path.to_owned(),
                rule: rule(pattern.text.clone()),
            };
            if let Some(pattern) = critical
                .iter()
                .find(|pattern| pattern.matches_service(path))
            {
                shields.push(by(pattern, Rule::Critical));
            }
            if let Some(pattern) = protect.iter().find(|pattern| pattern.matches(path)) {
                shields.push(by(pattern, Rule::Protect));
            }
        }
        Shields(shields)
    }

    /// Why a cgroup must not be touched; `None` where it may be. The root is no exception for what it holds: whether
    /// it was asked for by name is for the caller to know ([`Shields::refuses_itself`]).
    #[must_use]
    pub fn refuses(&self, path: &str) -> Option<Refusal<'_>> {
        self.refusals(path)
            .min_by_key(|refusal| match refusal.relation {
                Relation::Itself => 0,
                Relation::Inside => 1,
                Relation::Holds => 2,
            })
    }

    /// Why a cgroup must not be touched even by one who knows what it holds: somebody named that very one.
    #[must_use]
    pub fn refuses_itself(&self, path: &str) -> Option<Refusal<'_>> {
        self.refusals(path).find(|refusal| {
            refusal.relation == Relation::Itself && refusal.shield.rule != Rule::Own
        })
    }

    fn refusals(&self, path: &str) -> impl Iterator<Item = Refusal<'_>> {
        self.0.iter().filter_map(move |shield| {
            let relation = if shield.path == path {
                Relation::Itself
            } else if is_below(path, &shield.path) {
                // What this process made below its own cgroup is not itself.
                (shield.rule != Rule::Own).then_some(Relation::Inside)?
            } else if is_below(&shield.path, path) {
                Relation::Holds
            } else {
                return None;
            };
            Some(Refusal { shield, relation })
        })
    }
}

/// Whether the first path is strictly inside the second one.
fn is_below(path: &str, above: &str) -> bool {
    let above = above.trim_end_matches('/');
    path.strip_prefix(above)
        .is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
}
