//! The cgroup of its own: made where this process may make one, limited, entered.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use grey_core::view::printable;

use crate::act::protect::own_cgroup;
use crate::cli::{Failure, tell};
use crate::host::{CgroupFs, Host, Mode};

use super::plain_name;
use super::tidy::{self, Tidy};

/// A file of the new cgroup and what is written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) file: &'static str,
    pub(super) bytes: u64,
}

/// Makes it, limits it, enters it, and has it removed at its end. Returns its path below the mount.
pub(super) fn enter(host: &Host, command: &OsStr, limits: &[Limit]) -> Result<String, Failure> {
    let cgroups = CgroupFs::discover(host);
    let Some(own) = own_cgroup(host, &cgroups) else {
        return Err(Failure::unsupported(match cgroups.mode() {
            Mode::V1Only => {
                "this machine has cgroup v1 only; boot it with systemd.unified_cgroup_hierarchy=1, or use --no-cgroup"
            }
            _ => {
                "no cgroup v2 tree with this process in it is mounted; mount -t cgroup2 none /sys/fs/cgroup, or use --no-cgroup"
            }
        }));
    };
    let pid = std::process::id();
    let name = format!("{}{pid}-{}.scope", tidy::PREFIX, plain_name(command));
    // Before anything is made: it stays outside of the cgroup that it removes.
    let tidy = Tidy::start().map_err(|error| {
        Failure::failed(format!(
            "starting a process: {error}; is there room for one?"
        ))
    })?;
    let mut refused = None;
    for (parent, with_memory) in places(&cgroups, &own) {
        if !with_memory && !limits.is_empty() {
            continue;
        }
        let path = format!("{}/{name}", parent.trim_end_matches('/'));
        tidy::sweep(&cgroups.reach(&parent));
        match make(&tidy, &cgroups.reach(&path), limits) {
            Ok(()) => return Ok(path),
            // With fewer rights the next one is no better; but its owner may be another.
            Err(Refused::Place(error)) => refused = refused.or(Some((parent, error))),
            Err(Refused::Limit(failure)) => return Err(failure),
        }
    }
    Err(match refused {
        Some((parent, error)) => {
            let wanted = if error.kind() == io::ErrorKind::PermissionDenied {
                "`systemd-run --user --scope grey-ebpf run …` starts it where a user may, or run it as root; --no-cgroup does without"
            } else {
                "--no-cgroup does without"
            };
            Failure::unsupported(format!(
                "no cgroup can be made in {}: {error}; {wanted}",
                printable(&parent)
            ))
        }
        None if cgroups.facts().v1_memory.is_some() => Failure::unsupported(
            "the memory controller of this machine is that of cgroup v1, so that nothing can be limited; boot it with systemd.unified_cgroup_hierarchy=1",
        ),
        None => Failure::unsupported(format!(
            "no cgroup above {} gives its children the memory controller, so that nothing can be limited; as root: echo +memory > {}",
            printable(&own),
            cgroups.reach("/cgroup.subtree_control").display()
        )),
    })
}

/// Where a cgroup beside or above our own can be made, and whether it would have the memory controller: those that
/// have it first, and among them the nearest. A cgroup with processes in it cannot have children with controllers, except for the root.
fn places(cgroups: &CgroupFs, own: &str) -> Vec<(String, bool)> {
    let mut places = Vec::new();
    let mut at = own;
    loop {
        let above = match at.rsplit_once('/') {
            _ if at == "/" => "/",
            Some(("", _)) | None => "/",
            Some((above, _)) => above,
        };
        let file = cgroups.reach(above).join("cgroup.subtree_control");
        let with_memory = fs::read_to_string(file)
            .is_ok_and(|all| all.split_whitespace().any(|name| name == "memory"));
        places.push((above.to_owned(), with_memory));
        if above == "/" {
            break;
        }
        at = above;
    }
    places.sort_by_key(|(_, with_memory)| !with_memory);
    places
}

/// Why it did not come about.
enum Refused {
    /// Nothing can be made or entered here.
    Place(io::Error),
    /// It can, but not limited so.
    Limit(Failure),
}

fn make(tidy: &Tidy, directory: &Path, limits: &[Limit]) -> Result<(), Refused> {
    fs::create_dir(directory).map_err(Refused::Place)?;
    let entered = limit(directory, limits).and_then(|()| {
        // 0 stands for who writes.
        fs::write(directory.join("cgroup.procs"), "0").map_err(Refused::Place)
    });
    if let Err(refused) = entered {
        let _ = fs::remove_dir(directory);
        return Err(refused);
    }
    if let Err(error) = tidy.removes(directory) {
        tell(&format!(
            "warning: {} will stay when the command has ended: {error}",
            directory.display()
        ));
    }
    Ok(())
}

fn limit(directory: &Path, limits: &[Limit]) -> Result<(), Refused> {
    for limit in limits {
        let file = directory.join(limit.file);
        fs::write(&file, limit.bytes.to_string()).map_err(|error| {
            let why = if error.kind() == io::ErrorKind::NotFound {
                "this kernel does not have it (memory.swap.max needs swap accounting)"
            } else {
                "it was not set"
            };
            Refused::Limit(Failure::unsupported(format!(
                "{}: {error}: {why}",
                file.display()
            )))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Tree;

    #[test]
    fn the_nearest_place_with_the_memory_controller_comes_first() {
        let tree = Tree::new();
        tree.file(
            "/proc/self/mountinfo",
            "30 23 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n",
        );
        tree.file("/sys/fs/cgroup/cgroup.controllers", "memory\n");
        for (path, controllers) in [
            ("", "cpu memory pids"),
            ("/user.slice", "memory"),
            ("/user.slice/app.slice", "cpu memory"),
            ("/user.slice/app.slice/my.service", ""),
            ("/user.slice/app.slice/my.service/part", ""),
        ] {
            tree.file(
                &format!("/sys/fs/cgroup{path}/cgroup.subtree_control"),
                controllers,
            );
        }
        let cgroups = CgroupFs::discover(&tree.host());
        let of = |own: &str| -> Vec<String> {
            places(&cgroups, own)
                .into_iter()
                .map(|(path, with_memory)| format!("{path}{}", if with_memory { "+" } else { "" }))
                .collect()
        };
        assert_eq!(
            of("/user.slice/app.slice/my.service/part"),
            [
                "/user.slice/app.slice+",
                "/user.slice+",
                "/+",
                "/user.slice/app.slice/my.service"
            ]
        );
        assert_eq!(of("/user.slice"), ["/+"]);
        assert_eq!(of("/"), ["/+"]);
    }
}
