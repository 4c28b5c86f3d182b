use super::*;

const TREE: &[&str] = &[
    "/",
    "/init.scope",
    "/system.slice",
    "/system.slice/ssh.service",
    "/system.slice/nginx.service",
    "/system.slice/nginx.service/worker",
    "/system.slice/docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope",
    "/system.slice/docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope/system.slice/ssh.service",
    "/user.slice/user-1000.slice/user@1000.service/app.slice/dbus.service",
    "/user.slice/user-1000.slice/session-3.scope",
    "/user.slice/user-1000.slice/session-3.scope/child",
    "/batch.slice",
    "/batch.slice/db",
    "/batch.slice/dbx",
    "/grey-ebpf-guard",
];

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts
        .iter()
        .map(|text| Pattern::new(text, "/sys/fs/cgroup").unwrap())
        .collect()
}

fn shields(own: &str, critical: &[&str], protect: &[&str]) -> Shields {
    Shields::survey(
        TREE.iter().copied(),
        Some(own),
        &patterns(critical),
        &patterns(protect),
    )
}

const SESSION: &str = "/user.slice/user-1000.slice/session-3.scope";

#[test]
fn what_is_protected_is_so_with_all_below_and_above_it() {
    let shields = shields(
        SESSION,
        &["ssh.service", "dbus.service", "init.scope"],
        &["/batch.slice/db"],
    );
    let table: &[(&str, Option<(Relation, &str)>)] = &[
        ("/init.scope", Some((Relation::Itself, "/init.scope"))),
        (
            "/system.slice",
            Some((Relation::Holds, "/system.slice/ssh.service")),
        ),
        (
            "/system.slice/ssh.service",
            Some((Relation::Itself, "/system.slice/ssh.service")),
        ),
        (
            "/system.slice/ssh.service/sub",
            Some((Relation::Inside, "/system.slice/ssh.service")),
        ),
        ("/system.slice/nginx.service", None),
        (TREE[6], None),
        (TREE[7], None),
        (TREE[8], None),
        (SESSION, Some((Relation::Itself, SESSION))),
        (TREE[10], None),
        ("/user.slice", Some((Relation::Holds, SESSION))),
        (
            "/user.slice/user-1000.slice",
            Some((Relation::Holds, SESSION)),
        ),
        ("/batch.slice", Some((Relation::Holds, "/batch.slice/db"))),
        (
            "/batch.slice/db",
            Some((Relation::Itself, "/batch.slice/db")),
        ),
        (
            "/batch.slice/db/inner",
            Some((Relation::Inside, "/batch.slice/db")),
        ),
        ("/batch.slice/dbx", None),
        (GUARD, Some((Relation::Itself, GUARD))),
        ("/grey-ebpf-guard/x", Some((Relation::Inside, GUARD))),
        ("/grey-ebpf-guardian", None),
    ];
    for (path, want) in table {
        let got = shields
            .refuses(path)
            .map(|refusal| (refusal.relation, refusal.shield.path.as_str()));
        assert_eq!(got, *want, "{path}");
    }
}

#[test]
fn the_guards_cgroup_is_protected_before_it_exists() {
    let shields = Shields::survey([], None, &[], &[]);
    assert_eq!(shields.refuses(GUARD).unwrap().shield.rule, Rule::Guard);
    assert_eq!(shields.refuses("/a"), None);
}

#[test]
fn where_our_own_cgroup_is_the_root_only_the_root_is_our_own() {
    let shields = shields("/", &[], &[]);
    assert_eq!(shields.refuses("/batch.slice"), None);
    assert_eq!(shields.refuses("/").unwrap().shield.rule, Rule::Own);
    // Whoever names the root means the machine, which we are a part of anyway.
    assert_eq!(shields.refuses_itself("/"), None);
}

#[test]
fn the_root_can_be_protected_by_name_and_then_everything_is() {
    let shields = shields(SESSION, &[], &["/"]);
    assert_eq!(
        shields.refuses_itself("/").unwrap().shield.rule,
        Rule::Protect("/".to_owned())
    );
    assert_eq!(
        shields.refuses("/batch.slice").unwrap().relation,
        Relation::Inside
    );
    assert_eq!(
        self::shields(SESSION, &["ssh.service"], &[]).refuses_itself("/"),
        None
    );
}

#[test]
fn a_path_or_glob_means_every_cgroup_it_matches_and_a_bare_name_no_session_or_container() {
    let bare = &patterns(&["dbus.service"])[0];
    assert!(bare.matches(TREE[8]) && !bare.matches_service(TREE[8]));
    let path = &patterns(&["/user.slice/**/dbus.service"])[0];
    assert!(path.matches_service(TREE[8]));
    assert!(!patterns(&["ssh.service"])[0].matches_service(TREE[7]));
    assert!(patterns(&["ssh"])[0].matches_service(TREE[3]));
}

#[test]
fn a_refusal_names_what_protects() {
    let shields = shields("/own", &["ssh.service"], &["db*"]);
    let text = |path: &str| shields.refuses(path).unwrap().to_string();
    assert_eq!(
        text("/system.slice"),
        "it holds /system.slice/ssh.service, which must not be touched: `ssh.service` is a critical service"
    );
    assert_eq!(
        text("/batch.slice/dbx"),
        "it must not be touched: `db*` is protected"
    );
    assert_eq!(
        text("/own"),
        "it must not be touched: this command runs in it"
    );
}
