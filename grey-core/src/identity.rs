//! What a cgroup path stands for: container, pod, unit, user, machine. Reads the path and nothing else.

use std::fmt;

use crate::decode::printable;
use crate::event;

mod packed;
mod table;
mod unit;

pub use packed::Packed;

#[cfg(test)]
mod tests;

/// What a cgroup is. [`Kind::as_str`] gives the strings of [`event::Cgroup::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The root of the hierarchy.
    Root,
    /// A systemd slice.
    Slice,
    /// A systemd service.
    Service,
    /// A systemd scope.
    Scope,
    /// Everything of one user.
    User,
    /// A login session.
    Session,
    /// A container.
    Container,
    /// A group of containers: a Kubernetes or podman pod.
    Pod,
    /// A virtual machine.
    Vm,
    /// Anything else.
    Cgroup,
}

impl Kind {
    /// The string that events carry.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Root => "root",
            Kind::Slice => "slice",
            Kind::Service => "service",
            Kind::Scope => "scope",
            Kind::User => "user",
            Kind::Session => "session",
            Kind::Container => "container",
            Kind::Pod => "pod",
            Kind::Vm => "vm",
            Kind::Cgroup => "cgroup",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Who made a container, pod or machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Runtime {
    /// Docker.
    Docker,
    /// containerd, through CRI, ctr or nerdctl's cgroupfs driver.
    Containerd,
    /// CRI-O.
    CriO,
    /// podman and other users of libpod.
    Podman,
    /// nerdctl with the systemd driver.
    Nerdctl,
    /// BuildKit.
    Buildkit,
    /// LXC, and LXD and Incus, which use its paths.
    Lxc,
    /// systemd-nspawn and other machines that registered with systemd-machined.
    Nspawn,
    /// libvirt.
    Libvirt,
    /// Proxmox VE's own QEMU guests.
    Proxmox,
    /// Firecracker's jailer.
    Firecracker,
    /// Amazon ECS.
    Ecs,
    /// Apache Mesos.
    Mesos,
}

impl Runtime {
    /// A short lower-case name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Runtime::Docker => "docker",
            Runtime::Containerd => "containerd",
            Runtime::CriO => "cri-o",
            Runtime::Podman => "podman",
            Runtime::Nerdctl => "nerdctl",
            Runtime::Buildkit => "buildkit",
            Runtime::Lxc => "lxc",
            Runtime::Nspawn => "nspawn",
            Runtime::Libvirt => "libvirt",
            Runtime::Proxmox => "proxmox",
            Runtime::Firecracker => "firecracker",
            Runtime::Ecs => "ecs",
            Runtime::Mesos => "mesos",
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a path stands for. `kind` and `name` are about its last segment; the rest is the innermost of its kind
/// anywhere on the path, so that a cgroup inside a container still tells which container that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What the cgroup is.
    pub kind: Kind,
    /// A name a person knows it by: the unit, the first 12 digits of a container id, the pod uid, the user id.
    pub name: String,
    /// Who made the container, pod or machine, where the path tells.
    pub runtime: Option<Runtime>,
    /// Kubernetes pod uid, with dashes.
    pub pod_uid: Option<String>,
    /// Full container id.
    pub container_id: Option<String>,
    /// systemd unit, as systemd writes it (escaped).
    pub unit: Option<String>,
    /// User id of the user slice it is in.
    pub uid: Option<u32>,
}

impl Identity {
    /// The object that events carry.
    #[must_use]
    pub fn cgroup(&self, id: impl Into<Option<u64>>, path: &str) -> event::Cgroup {
        event::Cgroup {
            id: id.into(),
            path: path.to_owned(),
            kind: self.kind.as_str().to_owned(),
            name: self.name.clone(),
        }
    }
}

/// What one segment adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    kind: Option<Kind>,
    name: String,
    runtime: Option<Runtime>,
    pod_uid: Option<String>,
    container_id: Option<String>,
    unit: Option<String>,
    uid: Option<u32>,
    /// A part of the container around it (`libpod-….scope/container`): the same name and kind.
    inner: bool,
}

/// Tells what a path below the v2 mount stands for. Any string will do.
#[must_use]
pub fn identify(path: &str) -> Identity {
    let mut identity = Identity {
        kind: Kind::Root,
        name: "/".to_owned(),
        runtime: None,
        pod_uid: None,
        container_id: None,
        unit: None,
        uid: None,
    };
    let mut above: Vec<&str> = Vec::new();
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        let found = table::classify(segment, &above, &identity);
        above.push(segment);
        if found.inner {
            continue;
        }
        // A container inside another one is in none of the outer one's pods, units' containers or runtimes.
        if found.container_id.is_some() || found.pod_uid.is_some() {
            let same_pod = identity.container_id.is_none() && found.pod_uid.is_none();
            if !same_pod {
                identity.pod_uid = None;
            }
            identity.container_id = None;
            identity.runtime = None;
        }
        identity.kind = found.kind.unwrap_or(Kind::Cgroup);
        identity.name = printable(&found.name);
        identity.runtime = found.runtime.or(identity.runtime);
        identity.pod_uid = found.pod_uid.or(identity.pod_uid);
        identity.container_id = found.container_id.or(identity.container_id);
        identity.unit = found.unit.or(identity.unit);
        identity.uid = found.uid.or(identity.uid);
    }
    identity
}
