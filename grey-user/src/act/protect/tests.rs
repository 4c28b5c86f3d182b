use std::os::unix::fs::symlink;

use super::*;
use crate::cli::Exit;
use crate::host::fixture::Tree;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn tree() -> Tree {
    let tree = Tree::new();
    tree.file(
        "/proc/self/mountinfo",
        "31 23 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
         32 23 0:30 / /sys/fs/cgroup-v1/memory rw - cgroup cgroup rw,memory\n",
    );
    tree.file(
        "/proc/self/cgroup",
        "1:name=systemd:/x\n0::/user.slice/session-1.scope\n",
    );
    for path in [
        "system.slice/ssh.service",
        "system.slice/nginx.service",
        "system.slice/web.service",
        "batch.slice/web.service",
        "user.slice/session-1.scope",
        "odd name",
    ] {
        tree.dir(&format!("/sys/fs/cgroup/{path}"));
    }
    tree.dir(&format!(
        "/sys/fs/cgroup/machine.slice/libpod-{ID}.scope/container"
    ));
    tree
}

fn scene(tree: &Tree, protect: &[&str]) -> Scene {
    let (host, safety) = (tree.host(), Safety::default());
    let cgroups = CgroupFs::discover(&host);
    let protect: Vec<String> = protect.iter().map(ToString::to_string).collect();
    Scene {
        protection: Protection::new(&host, &cgroups, &safety, &protect).unwrap(),
        state_dir: safety.state_dir.clone(),
        host,
        cgroups,
        safety,
    }
}

fn refusal(scene: &Scene, argument: &str) -> (Exit, String) {
    let failure = scene.target(argument, Touch::Change).unwrap_err();
    assert!(!failure.message.contains('\n'), "{}", failure.message);
    (failure.exit, failure.message)
}

#[test]
fn a_cgroup_is_found_by_path_absolute_path_and_name() {
    let tree = tree();
    let scene = scene(&tree, &[]);
    let nginx = "/system.slice/nginx.service";
    let id = scene.cgroups.id_of(nginx).unwrap();
    for argument in [
        nginx,
        "system.slice/nginx.service",
        "/system.slice/nginx.service/",
        "/sys/fs/cgroup/system.slice/nginx.service",
        "nginx.service",
        "nginx",
    ] {
        let target = scene.target(argument, Touch::Change).unwrap();
        assert_eq!((target.path.as_str(), target.id), (nginx, id), "{argument}");
        assert_eq!(rustix::fs::fstat(&target.dir).unwrap().st_ino, id);
    }
    assert_eq!(
        scene.target("odd name", Touch::Change).unwrap().path,
        "/odd name"
    );
}

#[test]
fn a_container_is_found_by_its_id_and_is_not_the_part_inside_it() {
    let tree = tree();
    let scene = scene(&tree, &[]);
    let path = format!("/machine.slice/libpod-{ID}.scope");
    for argument in [ID, &ID[..12], &ID[..8]] {
        let target = scene.target(argument, Touch::Change).unwrap();
        assert_eq!(target.path, path, "{argument}");
    }
    assert_eq!(refusal(&scene, &ID[..7]).0, Exit::Usage);
}

#[test]
fn what_names_no_single_cgroup_is_a_usage_error_that_helps() {
    let tree = tree();
    let scene = scene(&tree, &[]);
    let long = "a".repeat(5000);
    let table: &[(&str, &str)] = &[
        ("", "the cgroup is empty"),
        ("  ", "the cgroup is empty"),
        (
            "nginz",
            "there is no such cgroup; did you mean /system.slice/nginx.service?",
        ),
        (
            "/system.slice/nginx.servicee",
            "did you mean /system.slice/nginx.service?",
        ),
        (
            "/no/such/thing",
            "there is no such cgroup; `grey-ebpf watch --once` lists them",
        ),
        (
            "web",
            "is the name of 2 cgroups: /batch.slice/web.service, /system.slice/web.service; give the path of one",
        ),
        ("web*", "is a pattern"),
        ("/system.slice/{a,b}", "is a pattern"),
        ("/system.slice/../batch.slice", "has a `.` or `..` in it"),
        ("..", "has a `.` or `..` in it"),
        ("./nginx.service", "has a `.` or `..` in it"),
        ("/system.slice//nginx.service", "has an empty part"),
        ("//", "has an empty part"),
        ("nginx\n.service", "has a control character"),
        ("nginx\0", "has a control character"),
        ("nginx\x1b[31m", "has a control character"),
        ("/sys/fs/cgroup-v1/memory/x", "needs cgroup v2"),
        ("/tmp", "there is no such cgroup"),
        ("/proc/self", "there is no such cgroup"),
        (&long, "is longer than 4096 bytes"),
    ];
    for (argument, want) in table {
        let want = want.replace("needs cgroup v2", "actions need cgroup v2");
        let (exit, message) = refusal(&scene, argument);
        assert_eq!(exit, Exit::Usage, "{argument:?}: {message}");
        assert!(message.contains(&want), "{argument:?}: {message}");
        assert!(!message.contains('\x1b'), "{message:?}");
    }
}

#[test]
fn links_are_not_followed() {
    let tree = tree();
    symlink(
        tree.path("/sys/fs/cgroup/system.slice/nginx.service"),
        tree.path("/sys/fs/cgroup/link"),
    )
    .unwrap();
    symlink("system.slice", tree.path("/sys/fs/cgroup/slink")).unwrap();
    let scene = scene(&tree, &[]);
    for argument in ["/link", "link", "/slink/nginx.service"] {
        let (exit, message) = refusal(&scene, argument);
        assert_eq!(exit, Exit::Usage, "{argument}: {message}");
    }
    // One that takes the place of a cgroup between the look and the opening.
    let (exit, message) = open(&scene, "/slink/nginx.service")
        .map_err(|failure| (failure.exit, failure.message))
        .unwrap_err();
    assert_eq!(exit, Exit::Usage);
    assert!(message.contains("symbolic link"), "{message}");
    assert!(open(&scene, "/../../..").is_err());
}

#[test]
fn what_is_protected_is_refused_with_the_name_of_what_protects_it() {
    let tree = tree();
    let scene = scene(&tree, &["/batch.slice/**", "odd*"]);
    let table: &[(&str, &str)] = &[
        ("ssh", "`ssh.service` is a critical service"),
        (
            "/system.slice",
            "it holds /system.slice/ssh.service, which must not be touched: `ssh.service` is a critical service; \
             name another one below it: /system.slice/nginx.service, /system.slice/web.service",
        ),
        ("session-1.scope", "this command runs in it"),
        ("/user.slice", "it holds /user.slice/session-1.scope"),
        ("/batch.slice", "it holds /batch.slice/web.service"),
        ("/batch.slice/web.service", "`/batch.slice/**` is protected"),
        ("odd name", "`odd*` is protected"),
        ("/", "is the whole machine and is not changed"),
    ];
    for (argument, want) in table {
        let (exit, message) = refusal(&scene, argument);
        assert_eq!(exit, Exit::Refused, "{argument:?}: {message}");
        assert!(message.contains(want), "{argument:?}: {message}");
    }
    tree.dir("/sys/fs/cgroup/grey-ebpf-guard");
    let (exit, message) = refusal(&scene, "grey-ebpf-guard");
    assert_eq!(exit, Exit::Refused);
    assert!(message.contains("the guard runs in it"), "{message}");
}

#[test]
fn the_root_is_reclaimed_from_only_when_it_is_named_as_it_is() {
    let tree = tree();
    let open = scene(&tree, &[]);
    assert_eq!(open.target("/", Touch::Reclaim).unwrap().path, "/");
    for argument in ["/sys/fs/cgroup", "/sys/fs/cgroup/"] {
        let failure = open.target(argument, Touch::Reclaim).unwrap_err();
        assert_eq!(failure.exit, Exit::Refused, "{}", failure.message);
    }
    let closed = scene(&tree, &["/"]);
    let failure = closed.target("/", Touch::Reclaim).unwrap_err();
    assert!(
        failure.message.contains("`/` is protected"),
        "{}",
        failure.message
    );
    assert_eq!(
        closed.target("nginx", Touch::Reclaim).unwrap_err().exit,
        Exit::Refused
    );
}

#[test]
fn without_a_v2_tree_there_is_nothing_to_act_on() {
    for (mounts, want) in [
        ("", "no cgroup v2 tree is mounted; mount"),
        (
            "32 23 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
            "cgroup v1 only",
        ),
    ] {
        let tree = Tree::new();
        tree.file("/proc/self/mountinfo", mounts);
        let (exit, message) = refusal(&scene(&tree, &[]), "nginx");
        assert_eq!(exit, Exit::Unsupported, "{message}");
        assert!(message.contains(want), "{message}");
    }
}

#[test]
fn our_own_cgroup_is_told_below_the_part_that_is_mounted() {
    let own = |cgroup: &str, root: &str| {
        let tree = Tree::new();
        tree.file("/proc/self/cgroup", &format!("0::{cgroup}\n"));
        tree.file(
            "/proc/self/mountinfo",
            &format!("31 23 0:29 {root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
        );
        tree.dir("/sys/fs/cgroup");
        own_cgroup(&tree.host(), &CgroupFs::discover(&tree.host()))
    };
    assert_eq!(own("/", "/").as_deref(), Some("/"));
    assert_eq!(own("/a/b", "/").as_deref(), Some("/a/b"));
    assert_eq!(own("/docker/1/a", "/docker/1").as_deref(), Some("/a"));
    assert_eq!(own("/docker/1", "/docker/1").as_deref(), Some("/"));
    assert_eq!(own("/other", "/docker/1"), None);
    assert_eq!(own("/../x", "/"), None);
}

#[test]
fn a_pattern_of_the_command_line_that_is_none_is_told() {
    let tree = tree();
    let host = tree.host();
    let cgroups = CgroupFs::discover(&host);
    for bad in ["", "a["] {
        let failure =
            Protection::new(&host, &cgroups, &Safety::default(), &[bad.to_owned()]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(
            failure.message.starts_with("--protect: "),
            "{}",
            failure.message
        );
    }
}
