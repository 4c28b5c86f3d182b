//! Paths as real machines have them, and strings that no machine has.

use proptest::prelude::*;

use super::unit::unescape;
use super::*;

const A: &str = "4f1c9a7be02d5836c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e9f00112233a";
const B: &str = "b0aa11bb22cc33dd44ee55ff66778899aabbccddeeff00112233445566778899";
const POD: &str = "2b4f8c1e-90ad-4b7e-8f51-6d2c3a1b0e9f";

/// The fields of an identity that are not the default, in one line, to keep the tables readable.
fn told(path: &str) -> String {
    let path = &expand(path);
    let id = identify(path);
    let mut out = format!("{} {}", id.kind, id.name);
    if let Some(runtime) = id.runtime {
        out += &format!(" by={runtime}");
    }
    if let Some(pod) = &id.pod_uid {
        out += &format!(" pod={pod}");
    }
    if let Some(container) = &id.container_id {
        out += &format!(" id={container}");
    }
    if let Some(unit) = &id.unit {
        out += &format!(" unit={unit}");
    }
    if let Some(uid) = id.uid {
        out += &format!(" uid={uid}");
    }
    out
}

/// `<A>`, `<B>` are container ids, `<a>`, `<b>` their first 12 digits, `<pod>` and `<p_o_d>` a pod uid.
fn expand(text: &str) -> String {
    text.replace("<A>", A)
        .replace("<B>", B)
        .replace("<a>", &A[..12])
        .replace("<b>", &B[..12])
        .replace("<pod>", POD)
        .replace("<p_o_d>", &POD.replace('-', "_"))
}

fn check(table: &[(&str, &str)]) {
    for (path, want) in table {
        assert_eq!(told(path), expand(want), "{path}");
    }
}

#[test]
fn root_and_plain_cgroups() {
    check(&[
        ("/", "root /"),
        ("", "root /"),
        ("/mygroup", "cgroup mygroup"),
        ("/a/b", "cgroup b"),
        ("/a/b/", "cgroup b"),
        ("/../../a", "cgroup a"),
        ("/a\\x2db", "cgroup a-b"),
        ("/.service", "cgroup .service"),
        ("/a\u{1b}[2Jb", "cgroup a\\u{1b}[2Jb"),
        (
            "/a\\x1b[2J.service",
            "service a\\u{1b}[2J.service unit=a\\x1b[2J.service",
        ),
        ("/kubepods", "cgroup kubepods"),
        ("/kubepods/besteffort", "cgroup besteffort"),
        ("/podracer", "cgroup podracer"),
    ]);
}

#[test]
fn systemd_units() {
    check(&[
        ("/init.scope", "scope init.scope unit=init.scope"),
        ("/system.slice", "slice system.slice unit=system.slice"),
        (
            "/system.slice/nginx.service",
            "service nginx.service unit=nginx.service",
        ),
        (
            "/system.slice/system-getty.slice/getty@tty1.service",
            "service getty@tty1.service unit=getty@tty1.service",
        ),
        (
            "/system.slice/system-serial\\x2dgetty.slice",
            "slice system-serial-getty.slice unit=system-serial\\x2dgetty.slice",
        ),
        (
            "/system.slice/dev-hugepages.mount",
            "cgroup dev-hugepages.mount unit=dev-hugepages.mount",
        ),
        (
            "/system.slice/run-u17.service",
            "service run-u17.service unit=run-u17.service",
        ),
        (
            "/system.slice/my.service/worker-1",
            "cgroup worker-1 unit=my.service",
        ),
        (
            "/system.slice/snap.lxd.daemon.service",
            "service lxd.daemon unit=snap.lxd.daemon.service",
        ),
    ]);
}

#[test]
fn users_sessions_and_applications() {
    let user = "/user.slice/user-1000.slice";
    let app = "/user.slice/user-1000.slice/user@1000.service/app.slice";
    for (path, want) in [
        ("/user.slice".to_owned(), "slice user.slice unit=user.slice"),
        (user.to_owned(), "user 1000 unit=user-1000.slice uid=1000"),
        (
            format!("{user}/session-3.scope"),
            "session session-3.scope unit=session-3.scope uid=1000",
        ),
        (
            format!("{user}/user@1000.service"),
            "service user@1000.service unit=user@1000.service uid=1000",
        ),
        (
            format!("{user}/user@1000.service/init.scope"),
            "scope init.scope unit=init.scope uid=1000",
        ),
        (app.to_owned(), "slice app.slice unit=app.slice uid=1000"),
        (
            format!("{app}/app-gnome-firefox-1234.scope"),
            "scope firefox unit=app-gnome-firefox-1234.scope uid=1000",
        ),
        (
            format!("{app}/app-org.gnome.Terminal-4711.scope"),
            "scope org.gnome.Terminal unit=app-org.gnome.Terminal-4711.scope uid=1000",
        ),
        (
            format!("{app}/app-gnome-google\\x2dchrome-31337.scope"),
            "scope google-chrome unit=app-gnome-google\\x2dchrome-31337.scope uid=1000",
        ),
        (
            format!("{app}/app-flatpak-org.mozilla.firefox-2208.scope"),
            "scope org.mozilla.firefox unit=app-flatpak-org.mozilla.firefox-2208.scope uid=1000",
        ),
        (
            format!("{app}/app-org.kde.konsole@d0cf24a5.service"),
            "service org.kde.konsole unit=app-org.kde.konsole@d0cf24a5.service uid=1000",
        ),
        (
            format!("{app}/app-code-7f3a0c21d9e84b56.service"),
            "service code unit=app-code-7f3a0c21d9e84b56.service uid=1000",
        ),
        (
            format!("{app}/app-gnome\\x2dsession\\x2dmanager.slice"),
            "slice app-gnome-session-manager.slice unit=app-gnome\\x2dsession\\x2dmanager.slice uid=1000",
        ),
        (
            format!("{app}/snap.firefox.firefox-0a1b2c3d-1111-2222-3333-444455556666.scope"),
            "scope firefox unit=snap.firefox.firefox-0a1b2c3d-1111-2222-3333-444455556666.scope uid=1000",
        ),
        (
            format!("{app}/snap.code.url-handler.0a1b2c3d-1111-2222-3333-444455556666.scope"),
            "scope code.url-handler unit=snap.code.url-handler.0a1b2c3d-1111-2222-3333-444455556666.scope uid=1000",
        ),
    ] {
        assert_eq!(told(&path), want, "{path}");
    }
}

#[test]
fn docker() {
    check(&[
        ("/docker", "cgroup docker"),
        ("/docker/<A>", "container <a> by=docker id=<A>"),
        (
            "/system.slice/docker-<A>.scope",
            "container <a> by=docker id=<A> unit=docker-<A>.scope",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-<A>.scope",
            "container <a> by=docker id=<A> unit=docker-<A>.scope uid=1000",
        ),
        ("/moby/<A>", "container <a> by=docker id=<A>"),
        (
            "/docker/<A>/init.scope",
            "scope init.scope by=docker id=<A> unit=init.scope",
        ),
        ("/docker/<A>/docker/<B>", "container <b> by=docker id=<B>"),
        ("/my-parent/<A>", "container <a> id=<A>"),
        (
            "/docker/buildkit/k3j2h1g4f5d6s7a8q9w0e1r2t",
            "container k3j2h1g4f5d6 by=buildkit id=k3j2h1g4f5d6s7a8q9w0e1r2t",
        ),
        (
            "/system.slice/docker.service",
            "service docker.service unit=docker.service",
        ),
    ]);
}

#[test]
fn kubernetes_with_the_systemd_driver() {
    check(&[
        (
            "/kubepods.slice",
            "slice kubepods.slice unit=kubepods.slice",
        ),
        (
            "/kubepods.slice/kubepods-burstable.slice",
            "slice kubepods-burstable.slice unit=kubepods-burstable.slice",
        ),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<p_o_d>.slice",
            "pod <pod> pod=<pod> unit=kubepods-burstable-pod<p_o_d>.slice",
        ),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<p_o_d>.slice/cri-containerd-<A>.scope",
            "container <a> by=containerd pod=<pod> id=<A> unit=cri-containerd-<A>.scope",
        ),
        (
            "/kubepods.slice/kubepods-pod<p_o_d>.slice/crio-<A>.scope",
            "container <a> by=cri-o pod=<pod> id=<A> unit=crio-<A>.scope",
        ),
        (
            "/kubepods.slice/kubepods-pod<p_o_d>.slice/crio-conmon-<A>.scope",
            "scope crio-conmon-<a> by=cri-o pod=<pod> id=<A> unit=crio-conmon-<A>.scope",
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod<p_o_d>.slice/docker-<A>.scope",
            "container <a> by=docker pod=<pod> id=<A> unit=docker-<A>.scope",
        ),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0123456789abcdef0123456789abcdef.slice",
            "pod 0123456789abcdef0123456789abcdef pod=0123456789abcdef0123456789abcdef unit=kubepods-burstable-pod0123456789abcdef0123456789abcdef.slice",
        ),
        (
            "/kubepods.slice/kubepods-pod<p_o_d>.slice/crio-<A>.scope/system.slice/nginx.service",
            "service nginx.service by=cri-o pod=<pod> id=<A> unit=nginx.service",
        ),
    ]);
}

#[test]
fn kubernetes_with_the_cgroupfs_driver() {
    check(&[
        ("/kubepods/besteffort/pod<pod>", "pod <pod> pod=<pod>"),
        (
            "/kubepods/besteffort/pod<pod>/<A>",
            "container <a> pod=<pod> id=<A>",
        ),
        ("/kubepods/pod<pod>/<A>", "container <a> pod=<pod> id=<A>"),
        (
            "/kubepods/burstable/pod<pod>/crio-<A>",
            "container <a> by=cri-o pod=<pod> id=<A>",
        ),
        (
            "/kubepods/burstable/pod<pod>/crio-conmon-<A>",
            "cgroup crio-conmon-<a> by=cri-o pod=<pod> id=<A>",
        ),
        // kubelet and containerd configured with different drivers.
        (
            "/system.slice/containerd.service/kubepods-burstable-pod<p_o_d>.slice:cri-containerd:<A>",
            "container <a> by=containerd pod=<pod> id=<A> unit=containerd.service",
        ),
        ("/system.slice:docker:<A>", "container <a> by=docker id=<A>"),
    ]);
}

#[test]
fn kind_and_minikube_nest_nodes_in_containers() {
    check(&[
        (
            "/docker/<A>/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod<p_o_d>.slice/cri-containerd-<B>.scope",
            "container <b> by=containerd pod=<pod> id=<B> unit=cri-containerd-<B>.scope",
        ),
        (
            "/system.slice/docker-<A>.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod<p_o_d>.slice",
            "pod <pod> pod=<pod> unit=kubelet-kubepods-pod<p_o_d>.slice",
        ),
        (
            "/docker/<A>/kubelet/kubepods/besteffort/pod<pod>/<B>",
            "container <b> pod=<pod> id=<B>",
        ),
        (
            "/docker/<A>/system.slice/kubelet.service",
            "service kubelet.service by=docker id=<A> unit=kubelet.service",
        ),
        (
            "/kubepods/burstable/pod<pod>/<A>/docker/<B>",
            "container <b> by=docker id=<B>",
        ),
    ]);
}

#[test]
fn podman() {
    let rootless = "/user.slice/user-1000.slice/user@1000.service/user.slice";
    check(&[
        (
            "/machine.slice/libpod-<A>.scope",
            "container <a> by=podman id=<A> unit=libpod-<A>.scope",
        ),
        (
            "/machine.slice/libpod-<A>.scope/container",
            "container <a> by=podman id=<A> unit=libpod-<A>.scope",
        ),
        (
            "/machine.slice/libpod-<A>.scope/container/init.scope",
            "scope init.scope by=podman id=<A> unit=init.scope",
        ),
        (
            "/machine.slice/libpod-conmon-<A>.scope",
            "scope libpod-conmon-<a> by=podman id=<A> unit=libpod-conmon-<A>.scope",
        ),
        ("/libpod_parent", "cgroup libpod_parent"),
        (
            "/libpod_parent/libpod-<A>",
            "container <a> by=podman id=<A>",
        ),
        ("/libpod_parent/<A>", "container <a> by=podman id=<A>"),
        (
            "/system.slice/web.service/libpod-payload-<A>",
            "container <a> by=podman id=<A> unit=web.service",
        ),
        (
            "/machine.slice/machine-libpod_pod_<B>.slice",
            "pod <b> by=podman unit=machine-libpod_pod_<B>.slice",
        ),
        (
            "/machine.slice/machine-libpod_pod_<B>.slice/libpod-<A>.scope",
            "container <a> by=podman id=<A> unit=libpod-<A>.scope",
        ),
        ("/libpod_parent/libpod_pod_<B>", "pod <b> by=podman"),
        (
            "/system.slice/podman.service",
            "service podman.service unit=podman.service",
        ),
    ]);
    assert_eq!(
        told(&format!("{rootless}/libpod-<A>.scope/container")),
        expand("container <a> by=podman id=<A> unit=libpod-<A>.scope uid=1000")
    );
    assert_eq!(
        told(&format!("{rootless}/user-libpod_pod_<B>.slice")),
        expand("pod <b> by=podman unit=user-libpod_pod_<B>.slice uid=1000")
    );
}

#[test]
fn containerd_and_nerdctl() {
    check(&[
        ("/default/<A>", "container <a> by=containerd id=<A>"),
        ("/default/redis", "container redis by=containerd id=redis"),
        ("/k8s.io/<A>", "container <a> by=containerd id=<A>"),
        ("/nerdctl/<A>", "container <a> by=containerd id=<A>"),
        (
            "/system.slice/nerdctl-<A>.scope",
            "container <a> by=nerdctl id=<A> unit=nerdctl-<A>.scope",
        ),
        ("/srv/default/redis", "cgroup redis"),
        ("/buildkit/abc123", "container abc123 by=buildkit id=abc123"),
        (
            "/system.slice/whatever-<A>.scope",
            "container <a> id=<A> unit=whatever-<A>.scope",
        ),
    ]);
}

#[test]
fn lxc_lxd_and_incus() {
    check(&[
        ("/lxc.payload.web", "container web by=lxc"),
        (
            "/lxc.payload.project_web-1",
            "container project_web-1 by=lxc",
        ),
        ("/lxc.monitor.web", "cgroup lxc.monitor.web by=lxc"),
        ("/lxc/101", "container 101 by=lxc"),
        ("/lxc/101/ns", "container 101 by=lxc"),
        ("/lxc.payload/web", "container web by=lxc"),
        (
            "/lxc.payload.web/system.slice/nginx.service",
            "service nginx.service by=lxc unit=nginx.service",
        ),
        (
            "/lxc/101/ns/system.slice/docker-<A>.scope",
            "container <a> by=docker id=<A> unit=docker-<A>.scope",
        ),
    ]);
}

#[test]
fn machines() {
    check(&[
        ("/machine.slice", "slice machine.slice unit=machine.slice"),
        (
            "/machine.slice/machine-deb\\x2dtest.scope",
            "container deb-test by=nspawn unit=machine-deb\\x2dtest.scope",
        ),
        (
            "/machine.slice/systemd-nspawn@web.service",
            "container web by=nspawn unit=systemd-nspawn@web.service",
        ),
        (
            "/machine.slice/systemd-nspawn@web.service/payload",
            "container web by=nspawn unit=systemd-nspawn@web.service",
        ),
        (
            "/machine.slice/systemd-nspawn@web.service/supervisor",
            "cgroup supervisor by=nspawn unit=systemd-nspawn@web.service",
        ),
        (
            "/machine.slice/systemd-nspawn@web.service/payload/system.slice/cron.service",
            "service cron.service by=nspawn unit=cron.service",
        ),
        (
            "/machine.slice/machine-qemu\\x2d1\\x2dname.scope",
            "vm name by=libvirt unit=machine-qemu\\x2d1\\x2dname.scope",
        ),
        (
            "/machine.slice/machine-qemu\\x2d12\\x2dweb\\x2dfront.scope",
            "vm web-front by=libvirt unit=machine-qemu\\x2d12\\x2dweb\\x2dfront.scope",
        ),
        (
            "/machine.slice/machine-qemu\\x2d1\\x2dname.scope/libvirt/vcpu0",
            "cgroup vcpu0 by=libvirt unit=machine-qemu\\x2d1\\x2dname.scope",
        ),
        (
            "/machine.slice/machine-lxc\\x2d7\\x2dbox.scope",
            "container box by=libvirt unit=machine-lxc\\x2d7\\x2dbox.scope",
        ),
        ("/machine/qemu-1-web.libvirt-qemu", "vm web by=libvirt"),
        ("/machine/odd.libvirt-qemu", "vm odd by=libvirt"),
        ("/qemu.slice/100.scope", "vm 100 by=proxmox unit=100.scope"),
        ("/firecracker/fc-1", "vm fc-1 by=firecracker"),
    ]);
}

#[test]
fn ecs_and_mesos() {
    check(&[
        (
            "/ecs/0123456789abcdef0123456789abcdef",
            "cgroup 0123456789abcdef0123456789abcdef",
        ),
        (
            "/ecs/0123456789abcdef0123456789abcdef/<A>",
            "container <a> by=ecs id=<A>",
        ),
        (
            "/ecs/0123456789abcdef0123456789abcdef/0123456789abcdef0123456789abcdef-4203378573",
            "container 0123456789ab by=ecs id=0123456789abcdef0123456789abcdef-4203378573",
        ),
        (
            "/ecstasks.slice/ecstasks-0123456789abcdef0123456789abcdef.slice/docker-<A>.scope",
            "container <a> by=docker id=<A> unit=docker-<A>.scope",
        ),
        (
            "/mesos/0d6a8b52-7d1e-4c2e-b2c1-b7d1d8c6a001",
            "container 0d6a8b52-7d1 by=mesos id=0d6a8b52-7d1e-4c2e-b2c1-b7d1d8c6a001",
        ),
    ]);
}

#[test]
fn unescape_leaves_what_is_no_escape() {
    for (text, want) in [
        ("a\\x2db", "a-b"),
        ("\\x2d\\x2d", "--"),
        ("\\x2", "\\x2"),
        ("\\xzz", "\\xzz"),
        ("\\x+1", "\\x+1"),
        ("a\\", "a\\"),
        ("\\xc3\\xa9", "é"),
        ("é\\x2d", "é-"),
    ] {
        assert_eq!(unescape(text), want);
    }
}

#[test]
fn the_event_object_carries_id_path_kind_and_name() {
    let path = "/system.slice/nginx.service";
    let cgroup = identify(path).cgroup(42, path);
    assert_eq!(cgroup.id, Some(42));
    assert_eq!(cgroup.path, path);
    assert_eq!(cgroup.kind, "service");
    assert_eq!(cgroup.name, "nginx.service");
    assert_eq!(identify(path).cgroup(None, path).id, None);
}

proptest! {
    #[test]
    fn any_string_has_an_identity_with_a_name(path in any::<String>()) {
        prop_assert!(!identify(&path).name.is_empty());
    }

    #[test]
    fn pieces_of_real_paths_in_any_order_never_panic(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "docker", "-", ".scope", ".slice", ".service", "pod", "kubepods", "lxc.payload.", "\\x2d", "\\x",
                "machine-", "qemu", "1", "app-", "@", ":", "ecs", "default", "libpod_pod_", "snap.", "user-", "é", A,
                POD, "/", "/", "/",
            ]),
            0..24,
        )
    ) {
        let path = parts.concat();
        let identity = identify(&path);
        prop_assert!(!identity.name.is_empty());
        if identity.kind == Kind::Root {
            prop_assert!(path.chars().all(|c| c == '/'));
        }
    }
}
