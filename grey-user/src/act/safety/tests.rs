use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::load::parse;
use super::*;
use crate::cli::Exit;
use crate::host::fixture::Tree;

fn fails(text: &str) -> String {
    parse("c.toml", text).unwrap_err().to_string()
}

#[test]
fn every_key_is_read() {
    let safety = parse(
        "c.toml",
        r#"
        [safety]
        protect = ["/db.slice", "web*"]
        critical = []
        step = "16M"
        cap = "1GiB"
        least_limit = "128M"
        write_timeout = "5s"
        hang = "1s"
        cooldown = "2m"
        cooldown_max = "1h"
        drop_caches_every = "10m"
        state_dir = "/srv/grey"

        [watchdog]
        psi_some_pct = 12.5
        psi_full_pct = 100
        min_available = "256M"
        refaults_per_s = 1_000
        every = "100ms"
        "#,
    )
    .unwrap();
    let want = Safety {
        protect: vec!["/db.slice".to_owned(), "web*".to_owned()],
        critical: vec![],
        step: 16 << 20,
        cap: 1 << 30,
        least_limit: 128 << 20,
        write_timeout: Duration::from_secs(5),
        hang: Duration::from_secs(1),
        watchdog: Thresholds {
            psi_some_pct: 12.5,
            psi_full_pct: 100.0,
            min_available: 256 << 20,
            refaults_per_s: 1000,
            every: Duration::from_millis(100),
        },
        cooldown: Duration::from_secs(120),
        cooldown_max: Duration::from_secs(3600),
        drop_caches_every: Duration::from_secs(600),
        state_dir: "/srv/grey".into(),
    };
    assert_eq!(safety, want);
}

#[test]
fn what_is_left_out_keeps_its_default() {
    for text in ["", "# nothing\n", "[safety]\n", "[watchdog]\n[safety]\n"] {
        assert_eq!(parse("c.toml", text).unwrap(), Safety::default());
    }
}

#[test]
fn what_is_wrong_is_told_with_its_line_its_key_and_the_remedy() {
    let table: &[(&str, &str)] = &[
        (
            "\n[safety]\nstepp = \"1M\"",
            "c.toml:3: safety.stepp: is not known; known are `protect`, `critical`, `step`, ",
        ),
        (
            "[safty]\n",
            "c.toml:1: safty: is not known; known are the tables `safety`, `watchdog`",
        ),
        ("step = \"1M\"\n", "c.toml:1: step: is not known; "),
        (
            "safety = 3",
            "c.toml:1: safety: is no table; write [safety] on a line of its own",
        ),
        (
            "[safety]\nleast_limit = \"32M\"",
            "c.toml:2: safety.least_limit: 32M is out of bounds; write 64M to 1.0T",
        ),
        (
            "[safety]\ncap = \"65G\"",
            "c.toml:2: safety.cap: 65G is out of bounds; write 1.0M to 64G",
        ),
        (
            "[safety]\n\n\nstep = 33554432",
            "c.toml:4: safety.step: is written as a string, such as \"64M\"",
        ),
        (
            "[safety]\nstep = \"-1M\"",
            "c.toml:2: safety.step: `-1M`: a size cannot be negative",
        ),
        (
            "[safety]\nstep = \"18446744073709551616\"",
            "c.toml:2: safety.step: `18446744073709551616`: is more than 64 bits hold",
        ),
        (
            "[safety]\nstep = \"10%\"",
            "c.toml:2: safety.step: is a size in bytes, such as \"64M\"",
        ),
        (
            "[safety]\nhang = \"5\"",
            "c.toml:2: safety.hang: `5`: has no unit; write 5s for seconds",
        ),
        (
            "[safety]\nhang = \"1ms\"",
            "c.toml:2: safety.hang: 1.0ms is out of bounds; write 500ms to 30.0s",
        ),
        (
            "[safety]\nprotect = \"web\"",
            "c.toml:2: safety.protect: is a list of strings, such as [\"web.service\"]",
        ),
        (
            "[safety]\nprotect = [1]",
            "c.toml:2: safety.protect: is a list of strings, ",
        ),
        (
            "[safety]\nprotect = [\"a[\"]",
            "c.toml:2: safety.protect: cgroup pattern `a[`: ",
        ),
        (
            "[safety]\ncritical = [\"\"]",
            "c.toml:2: safety.critical: cgroup pattern ``: is empty",
        ),
        (
            "[safety]\nstate_dir = \"var\"",
            "c.toml:2: safety.state_dir: is an absolute path, ",
        ),
        (
            "[safety]\ncap = \"16M\"",
            "c.toml:2: safety.cap: is less than `step`; ",
        ),
        (
            "[safety]\ncooldown = \"2h\"\ncooldown_max = \"1h\"",
            "c.toml:3: safety.cooldown_max: is less than `cooldown`, the first one",
        ),
        (
            "[watchdog]\npsi_some_pct = 0",
            "c.toml:2: watchdog.psi_some_pct: is a percentage over 0 and up to 100",
        ),
        (
            "[watchdog]\npsi_some_pct = nan",
            "c.toml:2: watchdog.psi_some_pct: is a percentage over 0 and up to 100",
        ),
        (
            "[watchdog]\npsi_full_pct = \"20\"",
            "c.toml:2: watchdog.psi_full_pct: is a number without quotes, such as 40",
        ),
        (
            "[watchdog]\nmin_available = \"1M\"",
            "c.toml:2: watchdog.min_available: 1.0M is out of bounds; write 32M to 1.0T",
        ),
        (
            "[watchdog]\nrefaults_per_s = 0",
            "c.toml:2: watchdog.refaults_per_s: 0 is out of bounds; write 1 to 1000000000",
        ),
        (
            "[watchdog]\nrefaults_per_s = -5",
            "c.toml:2: watchdog.refaults_per_s: -5 is out of bounds; ",
        ),
        (
            "[watchdog]\nrefaults_per_s = 99999999999999999999",
            "c.toml:2: watchdog.refaults_per_s: 99999999999999999999 is out of bounds; ",
        ),
        (
            "[watchdog]\nevery = \"2s\"",
            "c.toml:2: watchdog.every: 2.0s is out of bounds; write 50ms to 1.0s",
        ),
        (
            "[watchdog]\nevery = true",
            "c.toml:2: watchdog.every: is written as a string, such as \"30s\"",
        ),
        ("[safety]\nstep = \n", "c.toml:2: "),
        ("[safety", "c.toml:1: "),
        ("\n\n[safety]\nstep = \"1M\"\nstep = \"2M\"\n", "c.toml:5: "),
    ];
    for (text, want) in table {
        let got = fails(text);
        assert!(
            got.starts_with(want) && !got.contains('\n'),
            "{text:?}: {got}"
        );
    }
}

#[test]
fn only_a_file_that_nobody_else_can_write_to_is_used() {
    let tree = Tree::new();
    tree.file("/c.toml", "[safety]\nprotect = [\"/a\"]\n");
    let path = tree.path("/c.toml");
    let mode = |mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        load(Some(&path))
    };
    assert_eq!(mode(0o644).unwrap().protect, ["/a"]);
    assert!(mode(0o600).is_ok());
    let failure = mode(0o666).unwrap_err();
    assert_eq!(failure.exit, Exit::Refused);
    assert!(
        failure.message.contains("everybody can write to it")
            && failure.message.contains("chmod 644"),
        "{}",
        failure.message
    );
}

#[test]
fn a_missing_file_is_an_error_only_where_it_was_named() {
    let tree = Tree::new();
    let failure = load(Some(&tree.path("/none.toml"))).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.message.contains("there is no such file"));
    let folder = load(Some(tree.path("/").as_path())).unwrap_err();
    assert_eq!(folder.exit, Exit::Usage);
    tree.file("/odd.toml", "[safety]\n");
    std::fs::write(tree.path("/odd.toml"), [0xff, 0xfe]).unwrap();
    let odd = load(Some(&tree.path("/odd.toml"))).unwrap_err();
    assert_eq!(odd.exit, Exit::Usage);
    assert!(odd.message.contains("UTF-8"), "{}", odd.message);
}
