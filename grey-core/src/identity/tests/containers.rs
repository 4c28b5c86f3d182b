//! Containers, pods and machines.

use super::{check, expand, told};

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
