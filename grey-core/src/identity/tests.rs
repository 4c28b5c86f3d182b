//! Paths as real machines have them, and strings that no machine has.

use proptest::prelude::*;

use super::unit::unescape;
use super::*;

mod containers;

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
