//! Arguments as people give them.

use proptest::prelude::*;

use super::*;
use crate::identity::identify;

const MOUNT: &str = "/sys/fs/cgroup";
const ID: &str = "4f1c9a7be02d5836c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e9f00112233a";

fn filter(patterns: &[&str]) -> CgroupFilter {
    let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
    CgroupFilter::new(&patterns, MOUNT).unwrap()
}

fn hits(pattern: &str, path: &str) -> bool {
    let path = path.replace("<ID>", ID);
    filter(&[pattern]).matches(&path, &identify(&path).name)
}

#[test]
fn an_empty_list_matches_all() {
    assert!(filter(&[]).matches("/a/b", "b"));
    assert!(filter(&[]).matches("/", "/"));
    assert!(CgroupFilter::default().matches("/a", "a"));
}

#[test]
fn an_argument_finds_what_it_names() {
    let docker = "/system.slice/docker-<ID>.scope";
    for (pattern, path, want) in [
        // Paths.
        ("/", "/", true),
        ("/", "/a", false),
        (
            "/system.slice/nginx.service",
            "/system.slice/nginx.service",
            true,
        ),
        (
            "/system.slice/nginx.service/",
            "/system.slice/nginx.service",
            true,
        ),
        (
            "system.slice/nginx.service",
            "/system.slice/nginx.service",
            true,
        ),
        ("/system.slice", "/system.slice/nginx.service", false),
        ("/sys/fs/cgroup/system.slice", "/system.slice", true),
        ("/sys/fs/cgroup", "/", true),
        ("/sys/fs/cgroup/", "/", true),
        ("/sys/fs/cgroupish", "/sys/fs/cgroupish", true),
        ("/a\\x2db.slice", "/a\\x2db.slice", true),
        // Path globs.
        ("/system.slice/*", "/system.slice/nginx.service", true),
        ("/system.slice/*", "/system.slice/a.service/b", false),
        ("/system.slice/*", "/system.slice", false),
        ("/system.slice/**", "/system.slice/a.service/b", true),
        ("/system.slice/**", "/system.slice/a.service", true),
        ("/system.slice/**", "/system.slice", false),
        ("/**", "/a/b", true),
        ("/**", "/", true),
        ("/**/b", "/a/x/b", true),
        ("**/nginx.service", "/system.slice/nginx.service", true),
        ("/sys/fs/cgroup/*.slice", "/user.slice", true),
        (
            "/system.slice/ngin?.service",
            "/system.slice/nginx.service",
            true,
        ),
        ("/a?b", "/a/b", false),
        ("/[ab]/x", "/b/x", true),
        ("/[!ab]/x", "/b/x", false),
        ("/{a,b}/x", "/b/x", true),
        ("/{a,b}/x", "/c/x", false),
        ("/a\\x2d*", "/a\\x2db.slice", true),
        // Names.
        ("nginx.service", "/system.slice/nginx.service", true),
        ("nginx", "/system.slice/nginx.service", true),
        ("nginx", "/system.slice/nginx.service/worker", false),
        ("nginx", "/system.slice/nginx2.service", false),
        ("ngin*", "/system.slice/nginx.service", true),
        ("{nginx,redis}", "/system.slice/redis.service", true),
        ("firefox", "/user.slice/app-gnome-firefox-12.scope", true),
        ("web", "/lxc.payload.web", true),
        (
            "web",
            "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope",
            true,
        ),
        ("*", "/a/b/c", true),
        // Container ids.
        (ID, docker, true),
        (&ID[..12], docker, true),
        (&ID[..8], docker, true),
        (&ID[..7], docker, false),
        (&ID[1..13], docker, false),
        (&ID[..20], "/docker/<ID>", true),
        (&ID[..20], "/docker/<ID>/init.scope", false),
        (
            &ID[..12],
            "/machine.slice/libpod-<ID>.scope/container",
            true,
        ),
        ("docker-*", docker, true),
    ] {
        assert_eq!(hits(pattern, path), want, "{pattern} on {path}");
    }
}

#[test]
fn one_of_many_arguments_is_enough() {
    let filter = filter(&["/a", "b", "/c/*"]);
    assert!(filter.matches("/a", "a"));
    assert!(filter.matches("/x/b.service", "b.service"));
    assert!(filter.matches("/c/d", "d"));
    assert!(!filter.matches("/d", "d"));
}

#[test]
fn a_literal_has_no_glob_characters() {
    for literal in ["/", "/a/b.service", "nginx", "/a\\x2db", ""] {
        assert!(is_literal(literal), "{literal}");
    }
    for glob in ["/*", "a?", "[ab]", "{a,b}", "**"] {
        assert!(!is_literal(glob), "{glob}");
    }
}

#[test]
fn a_bad_pattern_is_one_clear_line() {
    for (pattern, want) in [
        ("", "cgroup pattern ``: is empty"),
        ("/[a", "cgroup pattern `/[a`: unclosed character class"),
        ("{a", "cgroup pattern `{a`: unclosed alternate group"),
        ("/[b-a]", "cgroup pattern `/[b-a]`: invalid range"),
    ] {
        let error = CgroupFilter::new(&["/ok".to_owned(), pattern.to_owned()], MOUNT).unwrap_err();
        assert!(error.to_string().starts_with(want), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn a_mount_at_the_root_strips_nothing() {
    let filter = CgroupFilter::new(&["/a".to_owned()], "/").unwrap();
    assert!(filter.matches("/a", "a"));
}

proptest! {
    #[test]
    fn any_pattern_is_taken_or_refused(pattern in any::<String>(), path in any::<String>()) {
        if let Ok(filter) = CgroupFilter::new(&[pattern], MOUNT) {
            let _ = filter.matches(&path, "name");
        }
    }

    #[test]
    fn a_literal_path_matches_itself_alone(
        path in "(/[a-z0-9._@:\\\\-]{1,12}){1,5}",
        other in "(/[a-z0-9._@:\\\\-]{1,12}){1,5}",
    ) {
        let filter = CgroupFilter::new(std::slice::from_ref(&path), MOUNT).unwrap();
        prop_assert!(filter.matches(&path, ""));
        let through_mount = CgroupFilter::new(&[format!("{MOUNT}{path}")], MOUNT).unwrap();
        prop_assert!(through_mount.matches(&path, ""));
        prop_assert_eq!(filter.matches(&other, ""), path == other);
    }
}
