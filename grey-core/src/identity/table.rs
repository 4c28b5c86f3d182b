//! The naming habits of the container runtimes and machine managers, one rule each.

use super::unit::{is_uuid, unescape, unit};
use super::{Found, Identity, Kind, Runtime};

/// Prefixes of `<prefix>-<id>.scope` (systemd driver) and `<prefix>-<id>` (cgroupfs driver), with what they are.
/// A monitor (`conmon`) belongs to a container but is not in it.
const PREFIXES: [(&str, Runtime, bool); 9] = [
    ("docker", Runtime::Docker, false),
    ("cri-containerd", Runtime::Containerd, false),
    ("crio-conmon", Runtime::CriO, true),
    ("crio", Runtime::CriO, false),
    ("libpod-conmon", Runtime::Podman, true),
    ("libpod-payload", Runtime::Podman, false),
    ("libpod", Runtime::Podman, false),
    ("nerdctl", Runtime::Nerdctl, false),
    ("buildkit", Runtime::Buildkit, false),
];

/// Folders whose direct children are containers, whatever those are called.
const PARENTS: [(&str, Runtime, Kind); 7] = [
    ("buildkit", Runtime::Buildkit, Kind::Container),
    ("lxc", Runtime::Lxc, Kind::Container),
    ("lxc.payload", Runtime::Lxc, Kind::Container),
    ("mesos", Runtime::Mesos, Kind::Container),
    ("firecracker", Runtime::Firecracker, Kind::Vm),
    // containerd's namespaces of ctr and nerdctl, and of Docker's own containerd.
    ("default", Runtime::Containerd, Kind::Container),
    ("moby", Runtime::Docker, Kind::Container),
];

/// Runtimes known by a folder above a bare id.
const ABOVE_BARE_ID: [(&str, Runtime); 8] = [
    ("docker", Runtime::Docker),
    ("moby", Runtime::Docker),
    ("libpod_parent", Runtime::Podman),
    ("libpod_pod_", Runtime::Podman),
    ("default", Runtime::Containerd),
    ("k8s.io", Runtime::Containerd),
    ("nerdctl", Runtime::Containerd),
    ("ecs", Runtime::Ecs),
];

/// What a segment is, given those above it and what they told.
pub(super) fn classify(segment: &str, above: &[&str], outer: &Identity) -> Found {
    prefixed_container(segment)
        .or_else(|| colon_container(segment))
        .or_else(|| bare_id(segment, above))
        .or_else(|| pod(segment, above))
        .or_else(|| machine(segment).filter(|found| !found.name.is_empty()))
        .or_else(|| named_child(segment, above))
        .or_else(|| part_of_container(segment, outer))
        .or_else(|| unit(segment))
        .unwrap_or_else(|| Found {
            name: unescape(segment),
            ..Found::default()
        })
}

/// The 12 digits that runtimes print.
fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn container(id: &str, runtime: Option<Runtime>) -> Found {
    Found {
        kind: Some(Kind::Container),
        name: short(id),
        runtime,
        container_id: Some(id.to_owned()),
        ..Found::default()
    }
}

/// `docker-<id>.scope`, `crio-<id>`, `libpod-payload-<id>`; any other `<prefix>-<64 hex>.scope`.
fn prefixed_container(segment: &str) -> Option<Found> {
    let stem = segment.strip_suffix(".scope");
    let (prefix, id) = stem.unwrap_or(segment).rsplit_once('-')?;
    if !is_hex(id, 64) {
        return None;
    }
    let known = PREFIXES.iter().find(|(known, _, _)| *known == prefix);
    // Without the suffix an unknown prefix may be anything.
    if known.is_none() && stem.is_none() {
        return None;
    }
    let mut found = container(id, known.map(|(_, runtime, _)| *runtime));
    if known.is_some_and(|(_, _, monitor)| *monitor) {
        found.kind = Some(if stem.is_some() {
            Kind::Scope
        } else {
            Kind::Cgroup
        });
        found.name = format!("{prefix}-{}", short(id));
    }
    found.unit = stem.map(|_| segment.to_owned());
    Some(found)
}

/// `<slice>:<prefix>:<id>`: a systemd-style name given to the cgroupfs driver, as containerd does when the two
/// are configured differently.
fn colon_container(segment: &str) -> Option<Found> {
    let mut parts = segment.rsplitn(3, ':');
    let (id, prefix, slice) = (parts.next()?, parts.next()?, parts.next()?);
    if !is_hex(id, 64) {
        return None;
    }
    let runtime = PREFIXES
        .iter()
        .find(|(known, _, _)| *known == prefix)
        .map(|(_, runtime, _)| *runtime);
    Some(Found {
        pod_uid: slice.strip_suffix(".slice").and_then(pod_of_slice),
        ..container(id, runtime)
    })
}

/// 64 hex digits alone, below whatever; shorter ids below the folders of runtimes that make them.
fn bare_id(segment: &str, above: &[&str]) -> Option<Found> {
    let parent = above.last().copied().unwrap_or_default();
    let task = above.len() >= 2 && above.contains(&"ecs");
    if !is_hex(segment, 64) {
        // Fargate: `/ecs/<task>/<task>-<number>`.
        let fargate = task && segment.strip_prefix(parent)?.starts_with('-');
        return fargate.then(|| container(segment, Some(Runtime::Ecs)));
    }
    let runtime = ABOVE_BARE_ID
        .iter()
        .find(|(known, _)| parent == *known || (known.ends_with('_') && parent.starts_with(known)))
        .map(|(_, runtime)| *runtime)
        .or(task.then_some(Runtime::Ecs));
    Some(container(segment, runtime))
}

/// Kubernetes and podman pods.
fn pod(segment: &str, above: &[&str]) -> Option<Found> {
    if let Some(uid) = segment.strip_suffix(".slice").and_then(pod_of_slice) {
        return Some(Found {
            unit: Some(segment.to_owned()),
            ..kube_pod(uid)
        });
    }
    if above.iter().any(|segment| segment.contains("kubepods"))
        && let Some(uid) = segment.strip_prefix("pod").and_then(pod_uid)
    {
        return Some(kube_pod(uid));
    }
    let stem = segment.strip_suffix(".slice").unwrap_or(segment);
    let (before, id) = stem.split_once("libpod_pod_")?;
    if !is_hex(id, 64) || !(before.is_empty() || before.ends_with('-')) {
        return None;
    }
    Some(Found {
        kind: Some(Kind::Pod),
        name: short(id),
        runtime: Some(Runtime::Podman),
        unit: (stem != segment).then(|| segment.to_owned()),
        ..Found::default()
    })
}

fn kube_pod(uid: String) -> Found {
    Found {
        kind: Some(Kind::Pod),
        name: uid.clone(),
        pod_uid: Some(uid),
        ..Found::default()
    }
}

/// `kubepods-burstable-pod<uid>`, `kubepods-pod<uid>` (guaranteed), `kubelet-kubepods-…` (kind).
fn pod_of_slice(stem: &str) -> Option<String> {
    let (before, uid) = stem.rsplit_once("-pod")?;
    let known = before.split('-').any(|part| part == "kubepods");
    known.then(|| pod_uid(uid)).flatten()
}

/// A UUID with dashes or (systemd driver) underscores, or the 32 hex digits of a static pod's hash.
fn pod_uid(text: &str) -> Option<String> {
    let uid = text.replace('_', "-");
    (is_uuid(&uid) || is_hex(&uid, 32)).then_some(uid)
}

/// LXC, nspawn, libvirt and Proxmox, which put the machine's name into the segment.
fn machine(segment: &str) -> Option<Found> {
    let found = |kind, runtime, name: &str| Found {
        kind: Some(kind),
        name: unescape(name),
        runtime: Some(runtime),
        unit: [".scope", ".service"]
            .iter()
            .any(|suffix| segment.ends_with(suffix))
            .then(|| segment.to_owned()),
        ..Found::default()
    };
    let instance = |template: &str| {
        let name = segment.strip_prefix(template)?.strip_suffix(".service")?;
        (!name.is_empty()).then_some(name)
    };
    if let Some(name) = segment.strip_prefix("lxc.payload.") {
        return Some(found(Kind::Container, Runtime::Lxc, name));
    }
    if segment.starts_with("lxc.monitor.") {
        return Some(found(Kind::Cgroup, Runtime::Lxc, segment));
    }
    if let Some(name) = instance("systemd-nspawn@") {
        return Some(found(Kind::Container, Runtime::Nspawn, name));
    }
    if let Some(name) = instance("systemd-vmspawn@") {
        return Some(found(Kind::Vm, Runtime::Nspawn, name));
    }
    // libvirt without systemd: `/machine/qemu-1-web.libvirt-qemu`.
    if let Some(name) = segment.strip_suffix(".libvirt-qemu") {
        return Some(found(
            Kind::Vm,
            Runtime::Libvirt,
            libvirt(name).unwrap_or(name),
        ));
    }
    if let Some(name) = segment.strip_suffix(".libvirt-lxc") {
        return Some(found(
            Kind::Container,
            Runtime::Libvirt,
            libvirt(name).unwrap_or(name),
        ));
    }
    let name = segment.strip_prefix("machine-")?.strip_suffix(".scope")?;
    let plain = unescape(name);
    Some(match libvirt(&plain) {
        Some(guest) if plain.starts_with("qemu-") => found(Kind::Vm, Runtime::Libvirt, guest),
        Some(guest) => found(Kind::Container, Runtime::Libvirt, guest),
        None => found(Kind::Container, Runtime::Nspawn, name),
    })
}

/// libvirt's machine names: `<driver>-<number>-<name>`.
fn libvirt(name: &str) -> Option<&str> {
    let rest = name
        .strip_prefix("qemu-")
        .or_else(|| name.strip_prefix("lxc-"))?;
    let (number, guest) = rest.split_once('-')?;
    (number.parse::<u32>().is_ok() && !guest.is_empty()).then_some(guest)
}

/// Children of folders that hold nothing but containers.
fn named_child(segment: &str, above: &[&str]) -> Option<Found> {
    let parent = above.last().copied()?;
    // Proxmox: `/qemu.slice/100.scope`.
    if parent == "qemu.slice" {
        let number = segment.strip_suffix(".scope")?;
        number.parse::<u32>().ok()?;
        return Some(Found {
            kind: Some(Kind::Vm),
            name: number.to_owned(),
            runtime: Some(Runtime::Proxmox),
            unit: Some(segment.to_owned()),
            ..Found::default()
        });
    }
    let (_, runtime, kind) = PARENTS.iter().find(|(known, _, _)| *known == parent)?;
    // containerd's namespaces are folders of the root; deeper ones of the same name are somebody else's.
    if *runtime == Runtime::Containerd && above.len() != 1 {
        return None;
    }
    let id_like = matches!(runtime, Runtime::Buildkit | Runtime::Mesos);
    Some(Found {
        kind: Some(*kind),
        name: if id_like {
            short(segment)
        } else {
            unescape(segment)
        },
        runtime: Some(*runtime),
        container_id: (*kind == Kind::Container && *runtime != Runtime::Lxc)
            .then(|| segment.to_owned()),
        ..Found::default()
    })
}

/// Where a runtime puts a container's processes one level down: podman's `container`, Proxmox's `ns`, nspawn's
/// `payload`.
fn part_of_container(segment: &str, outer: &Identity) -> Option<Found> {
    let part = match outer.runtime? {
        Runtime::Podman => "container",
        Runtime::Lxc => "ns",
        Runtime::Nspawn => "payload",
        _ => return None,
    };
    (outer.kind == Kind::Container && segment == part).then(|| Found {
        inner: true,
        ..Found::default()
    })
}
