//! From an argument to the one cgroup it names.

use std::fmt::Write as _;

use grey_core::glob::{CgroupFilter, is_literal};
use grey_core::identity::identify;
use grey_core::view::printable;

use crate::cli::Failure;
use crate::host::{Host, mountinfo};

/// Longer than any path the kernel takes.
const MAX: usize = 4096;
/// Cgroups that a message lists.
const LISTED: usize = 5;

/// Refuses what names no single cgroup, and what tries to leave the tree.
///
/// # Errors
/// Exit 2.
pub(super) fn check(argument: &str) -> Result<(), Failure> {
    let wrong = |why: &str| Err(Failure::usage(format!("{}: {why}", printable(argument))));
    if argument.trim().is_empty() {
        return Err(Failure::usage(
            "the cgroup is empty; give its path, unit or container name",
        ));
    }
    if argument.len() > MAX {
        return Err(Failure::usage(format!(
            "the cgroup's path is longer than {MAX} bytes"
        )));
    }
    if argument.chars().any(char::is_control) {
        return wrong("has a control character in it, which no cgroup has");
    }
    if !is_literal(argument) {
        return wrong("is a pattern; an action takes one cgroup by its path or name");
    }
    if argument.contains("//") {
        return wrong("has an empty part; write one slash between two names");
    }
    if argument.split('/').any(|part| matches!(part, "." | "..")) {
        return wrong("has a `.` or `..` in it; give the path itself");
    }
    Ok(())
}

/// Refuses what lies in a v1 hierarchy.
///
/// # Errors
/// Exit 2.
pub(super) fn check_v1(host: &Host, argument: &str) -> Result<(), Failure> {
    let within = |point: &std::path::Path| std::path::Path::new(argument).starts_with(point);
    let mounts = mountinfo::mounts(host).unwrap_or_default();
    // The v2 tree of a hybrid machine may lie inside of a v1 mount's folder, never the other way round.
    let best = mounts
        .iter()
        .filter(|mount| mount.fstype.starts_with("cgroup") && within(&mount.point))
        .max_by_key(|mount| mount.point.as_os_str().len());
    match best {
        Some(mount) if mount.fstype == "cgroup" => Err(Failure::usage(format!(
            "{}: is in a cgroup v1 hierarchy; actions need cgroup v2: give a path below its mount",
            printable(argument)
        ))),
        _ => Ok(()),
    }
}

/// The path of the one cgroup that a checked argument names.
///
/// # Errors
/// There is none, or more than one: exit 2.
pub(super) fn resolve(argument: &str, mount: &str, paths: &[String]) -> Result<String, Failure> {
    let filter = CgroupFilter::new(&[argument.to_owned()], mount)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let mut found: Vec<&str> = paths
        .iter()
        .map(String::as_str)
        .filter(|path| filter.matches(path, &identify(path).name))
        .collect();
    found.sort_unstable();
    found.dedup();
    // A part of a container has the container's name; the container is what is meant.
    if let [first, rest @ ..] = found.as_slice()
        && let Some(id) = identify(first).container_id
        && rest.iter().all(|path| {
            path.strip_prefix(first)
                .is_some_and(|below| below.starts_with('/'))
                && identify(path).container_id.as_deref() == Some(&id)
        })
    {
        found.truncate(1);
    }
    match found.as_slice() {
        [path] => Ok((*path).to_owned()),
        [] => Err(missing(argument, mount, paths)),
        several => {
            let listed = several.iter().take(LISTED).copied().collect::<Vec<_>>();
            let mut list = listed.join(", ");
            if several.len() > LISTED {
                let _ = write!(list, " and {} more", several.len() - LISTED);
            }
            Err(Failure::usage(format!(
                "{}: is the name of {} cgroups: {}; give the path of one",
                printable(argument),
                several.len(),
                printable(&list)
            )))
        }
    }
}

fn missing(argument: &str, mount: &str, paths: &[String]) -> Failure {
    let near = nearest(argument, mount, paths);
    let hint = if near.is_empty() {
        "; `grey-ebpf watch --once` lists them".to_owned()
    } else {
        format!("; did you mean {}?", printable(&near.join(" or ")))
    };
    Failure::usage(format!(
        "{}: there is no such cgroup{hint}",
        printable(argument)
    ))
}

/// Cgroups whose last name is much like the argument's, the most alike first.
fn nearest<'a>(argument: &str, mount: &str, paths: &'a [String]) -> Vec<&'a str> {
    const ALIKE: f64 = 0.85;
    const SHOWN: usize = 2;
    let below = argument.strip_prefix(mount).unwrap_or(argument);
    let last = |path: &'a str| path.rsplit('/').next().unwrap_or_default();
    let wanted = below.trim_end_matches('/').rsplit('/').next();
    let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else {
        return Vec::new();
    };
    let mut near: Vec<(f64, &str)> = paths
        .iter()
        .filter(|path| *path != "/")
        .map(|path| {
            let name = last(path);
            // `nginz` is like `nginx`, and so it is like nginx.service.
            let bare = name.rsplit_once('.').map_or(name, |(bare, _)| bare);
            let alike = |name| strsim::jaro_winkler(wanted, name);
            (alike(name).max(alike(bare)), path.as_str())
        })
        .filter(|(alike, _)| *alike >= ALIKE)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    near.into_iter().take(SHOWN).map(|(_, path)| path).collect()
}
