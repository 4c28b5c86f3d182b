//! Which cgroup an argument means, and whether it may be touched.

use std::os::fd::OwnedFd;

use grey_core::act::protection::{Pattern, Refusal, Relation, Shields};
use grey_core::view::printable;
use rustix::fs::{Access, AtFlags, Mode as FileMode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::cli::Failure;
use crate::host::{CgroupFs, Host, Mode, mountinfo};

use super::safety::Safety;
use super::scene::{Scene, Target, Touch};
use super::session::refused;

mod argument;
#[cfg(test)]
mod tests;

/// What must not be touched.
#[derive(Debug, Default)]
pub struct Protection {
    /// The cgroup of this process, where that is known.
    own: Option<String>,
    critical: Vec<Pattern>,
    protect: Vec<Pattern>,
}

impl Protection {
    /// What the configuration and the command line protect; `extra` are the values of `--protect`.
    ///
    /// # Errors
    /// One of them is no pattern (exit 2).
    pub fn new(
        host: &Host,
        cgroups: &CgroupFs,
        safety: &Safety,
        extra: &[String],
    ) -> Result<Protection, Failure> {
        let mount = cgroups.mount().map(|mount| mount.to_string_lossy());
        let mount = mount.as_deref().unwrap_or("");
        let patterns = |texts: &[String]| -> Result<Vec<Pattern>, Failure> {
            texts
                .iter()
                .map(|text| {
                    Pattern::new(text, mount)
                        .map_err(|error| Failure::usage(format!("--protect: {error}")))
                })
                .collect()
        };
        // Those of the configuration were looked at with their lines.
        let mut protect = patterns(&safety.protect)?;
        protect.extend(patterns(extra)?);
        Ok(Protection {
            own: own_cgroup(host, cgroups),
            critical: patterns(&safety.critical)?,
            protect,
        })
    }

    /// All protected cgroups among these.
    pub(crate) fn shields(&self, paths: &[String]) -> Shields {
        Shields::survey(
            paths.iter().map(String::as_str),
            self.own.as_deref(),
            &self.critical,
            &self.protect,
        )
    }

    /// Whether this is the cgroup of a critical service.
    pub(super) fn is_critical(&self, path: &str) -> bool {
        let by = |pattern: &Pattern| pattern.matches_service(path);
        self.critical.iter().any(by)
    }
}

/// The cgroup of this process below the mount; `None` where it lies outside of what is mounted.
pub(crate) fn own_cgroup(host: &Host, cgroups: &CgroupFs) -> Option<String> {
    let text = host.text("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mount = cgroups.mount()?;
    let root = mountinfo::mounts(host)
        .ok()?
        .into_iter()
        .rfind(|candidate| candidate.fstype == "cgroup2" && candidate.point == mount)?
        .root;
    let below = path.strip_prefix(root.trim_end_matches('/'))?;
    if below.starts_with("/..") {
        return None;
    }
    Some(format!("/{}", below.trim_matches('/')))
}

pub(super) fn target(scene: &Scene, argument: &str, touch: Touch) -> Result<Target, Failure> {
    let (path, paths) = named(&scene.host, &scene.cgroups, argument)?;
    permit(scene, &path, argument, touch, &paths)?;
    let dir = open(scene, &path)?;
    let id = rustix::fs::fstat(&dir)
        .map_err(|error| unreachable(&path, error))?
        .st_ino;
    writable(&dir, &path)?;
    Ok(Target { path, id, dir })
}

/// The path of the one cgroup that an argument names, and those of all there are.
///
/// # Errors
/// There is none, or more than one (exit 2), or no v2 tree (exit 3).
pub(crate) fn named(
    host: &Host,
    cgroups: &CgroupFs,
    argument: &str,
) -> Result<(String, Vec<String>), Failure> {
    let told = printable(argument);
    let mount = match (cgroups.mount(), cgroups.mode()) {
        (Some(mount), _) => mount.to_string_lossy(),
        (None, Mode::V1Only) => {
            return Err(Failure::unsupported(format!(
                "{told}: this machine has cgroup v1 only; boot it with systemd.unified_cgroup_hierarchy=1"
            )));
        }
        (None, _) => {
            return Err(Failure::unsupported(format!(
                "{told}: no cgroup v2 tree is mounted; mount -t cgroup2 none /sys/fs/cgroup"
            )));
        }
    };
    argument::check(argument)?;
    argument::check_v1(host, argument)?;
    let paths = all_paths(cgroups)?;
    let path = argument::resolve(argument, &mount, &paths)?;
    Ok((path, paths))
}

/// Paths of all cgroups.
fn all_paths(cgroups: &CgroupFs) -> Result<Vec<String>, Failure> {
    let walk = cgroups
        .walk()
        .map_err(|error| Failure::unsupported(format!("{error}; run it as root")))?;
    Ok(walk.cgroups.into_iter().map(|entry| entry.path).collect())
}

/// Whether a cgroup may be touched.
fn permit(
    scene: &Scene,
    path: &str,
    argument: &str,
    touch: Touch,
    paths: &[String],
) -> Result<(), Failure> {
    let shields = scene.protection.shields(paths);
    let refusal = if path == "/" {
        if touch != Touch::Reclaim {
            return Err(refused(
                "/: the root cgroup is the whole machine and is not changed; name a cgroup below it",
            ));
        }
        if argument != "/" {
            return Err(refused(
                "/: the root cgroup is the whole machine; name it as / if that is what you mean",
            ));
        }
        shields.refuses_itself(path)
    } else {
        shields.refuses(path)
    };
    match refusal {
        None => Ok(()),
        Some(refusal) => {
            let told = format!("{path}: {refusal}");
            let instead = instead(path, &refusal, &shields, paths);
            Err(refused(format!("{}{instead}", printable(&told))))
        }
    }
}

/// What to do instead.
fn instead(path: &str, refusal: &Refusal<'_>, shields: &Shields, paths: &[String]) -> String {
    const NAMED: usize = 3;
    if refusal.relation != Relation::Holds {
        return String::new();
    }
    let mut children: Vec<&str> = paths
        .iter()
        .filter(|child| {
            child
                .strip_prefix(path)
                .and_then(|rest| rest.strip_prefix('/'))
                .is_some_and(|name| !name.contains('/'))
        })
        .map(String::as_str)
        .filter(|child| shields.refuses(child).is_none())
        .collect();
    children.sort_unstable();
    let rest = children.len().saturating_sub(NAMED);
    if children.is_empty() {
        return String::new();
    }
    children.truncate(NAMED);
    let more = match rest {
        0 => String::new(),
        more => format!(" or one of {more} more"),
    };
    format!(
        "; name another one below it: {}{more}",
        printable(&children.join(", "))
    )
}

/// A cgroup's directory, without leaving the tree and without following links.
fn open(scene: &Scene, path: &str) -> Result<OwnedFd, Failure> {
    let root = scene
        .cgroups
        .dir()
        .map_err(|error| Failure::unsupported(format!("{error}; run it as root")))?;
    let below = match path.trim_matches('/') {
        "" => ".",
        below => below,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let beneath = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(root, below, flags, FileMode::empty(), beneath)
        .map_err(|error| unreachable(path, error))
}

fn unreachable(path: &str, error: Errno) -> Failure {
    let path = printable(path);
    match error {
        Errno::NOENT | Errno::NODEV | Errno::NOTDIR => {
            Failure::usage(format!("{path}: there is no such cgroup any more"))
        }
        Errno::LOOP => Failure::usage(format!(
            "{path}: goes through a symbolic link, which no cgroup is; give its own path"
        )),
        Errno::XDEV => Failure::usage(format!(
            "{path}: leaves the cgroup tree; give a path inside it"
        )),
        Errno::ACCESS | Errno::PERM => {
            Failure::unsupported(format!("{path}: permission denied; run it as root"))
        }
        error => Failure::unsupported(format!("{path}: {}", std::io::Error::from(error))),
    }
}

/// Whether this process may write to the cgroup's files. Every cgroup has this one.
fn writable(dir: &OwnedFd, path: &str) -> Result<(), Failure> {
    let ids = AtFlags::EACCESS;
    let path = printable(path);
    match rustix::fs::accessat(dir, c"cgroup.procs", Access::WRITE_OK, ids) {
        Err(Errno::ROFS) => Err(Failure::unsupported(format!(
            "{path}: the cgroup tree is mounted read-only here; run it on the host, or in a container with a writable one"
        ))),
        Err(Errno::ACCESS | Errno::PERM) => Err(Failure::unsupported(format!(
            "{path}: no permission to write to it; run it as root"
        ))),
        // Its absence and anything else is told by what is tried next.
        _ => Ok(()),
    }
}
