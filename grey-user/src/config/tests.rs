mod govern;

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use grey_core::govern::{
    Aggressive, Budget, Conservative, Dynamic, Emergency, Guest, Idle, PolicyKind, Proactive,
    Scheduled, Settings,
};

use super::*;
use crate::act::safety::Thresholds;
use crate::cli::Exit;
use crate::host::fixture::Tree;

fn layers(texts: &[(&str, &str)]) -> Read {
    let sources: Vec<Source> = texts
        .iter()
        .map(|(name, text)| Source {
            name: (*name).to_owned(),
            text: (*text).to_owned(),
        })
        .collect();
    read(&sources, "/sys/fs/cgroup")
}

fn parse(text: &str) -> Result<Config, String> {
    let read = layers(&[("c.toml", text)]);
    match read.errors.first() {
        None => Ok(read.config),
        Some(error) => Err(error.to_string()),
    }
}

fn fails(text: &str) -> String {
    parse(text).unwrap_err()
}

#[test]
fn every_key_is_read() {
    let config = parse(
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
    assert_eq!(config.safety, want);
}

#[test]
fn the_budget_is_read_and_0_is_no_limit() {
    let budget = |text: &str| parse(text).unwrap().budget;
    let second = Duration::from_secs(1);
    let usual = crate::source::Budget {
        cpu_pct: 1.0,
        memory: 64 << 20,
        window: 30 * second,
    };
    assert_eq!(budget(""), usual);
    let text = "[budget]\ncpu_pct = 2.5\nmemory = \"128M\"\nwindow = \"1m\"";
    let all = crate::source::Budget {
        cpu_pct: 2.5,
        memory: 128 << 20,
        window: 60 * second,
    };
    assert_eq!(budget(text), all);
    let none = budget("[budget]\ncpu_pct = 0\nmemory = \"0\"");
    assert_eq!((none.cpu_pct, none.memory), (0.0, 0));
}

#[test]
fn what_is_left_out_keeps_its_default() {
    for text in ["", "# nothing\n", "[safety]\n", "[watchdog]\n[safety]\n"] {
        assert_eq!(parse(text).unwrap().safety, Safety::default());
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
            "c.toml:1: safty: is not known; known are the tables `safety`, `watchdog`, `govern`",
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
        (
            "[budget]\ncpu_pct = \"1%\"",
            "c.toml:2: budget.cpu_pct: is a number without quotes, such as 40",
        ),
        (
            "[budget]\ncpu_pct = 101",
            "c.toml:2: budget.cpu_pct: is out of bounds; write 0 to 100",
        ),
        (
            "[budget]\ncpu_pct = -1",
            "c.toml:2: budget.cpu_pct: is out of bounds; write 0 to 100",
        ),
        (
            "[budget]\ncpu_pct = nan",
            "c.toml:2: budget.cpu_pct: is out of bounds; write 0 to 100",
        ),
        (
            "[budget]\nmemory = 64",
            "c.toml:2: budget.memory: is written as a string, such as \"64M\"",
        ),
        (
            "[budget]\nmemory = \"10%\"",
            "c.toml:2: budget.memory: is a size in bytes, such as \"64M\"",
        ),
        (
            "[budget]\nwindow = \"10ms\"",
            "c.toml:2: budget.window: 10ms is out of bounds; write 500ms to 10m",
        ),
        (
            "[budget]\ncpu = 1",
            "c.toml:2: budget.cpu: is not known; known are `cpu_pct`, `memory`, `window`",
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
    assert_eq!(mode(0o644).unwrap().safety.protect, ["/a"]);
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

#[test]
fn later_files_win_key_by_key_and_overrides_add_up() {
    let read = layers(&[
        (
            "config.toml",
            "[safety]\nstep = \"2M\"\nprotect = [\"a\", \"b\"]\n[govern]\nlearn = false\n[[govern.override]]\nmatch = \"a\"",
        ),
        (
            "10.toml",
            "[safety]\nprotect = [\"c\"]\n[[govern.override]]\nmatch = \"b\"",
        ),
    ]);
    assert!(read.errors.is_empty(), "{:?}", read.errors);
    assert_eq!(read.config.safety.step, 2 << 20);
    assert_eq!(read.config.safety.protect, ["c"]);
    assert!(!read.config.govern.learn);
    let matches: Vec<&str> = read
        .config
        .govern
        .overrides
        .iter()
        .map(|over| over.matches.as_str())
        .collect();
    assert_eq!(matches, ["a", "b"]);
    let protect = read.entries.iter().find(|entry| entry.key == "protect");
    assert_eq!(protect.unwrap().set_by, Some(("10.toml".to_owned(), 2)));
}

#[test]
fn everything_that_is_wrong_in_all_files_is_told_in_order() {
    let read = layers(&[
        ("a.toml", "[govern]\nlearn = 1\n[safety]\nstep = 1\nx = 2"),
        ("b.toml", "[safety"),
        (
            "c.toml",
            "[watchdog]\nevery = \"1h\"\n[safety]\nstep = \"1M\"",
        ),
    ]);
    let told: Vec<String> = read.errors.iter().map(ToString::to_string).collect();
    let starts = [
        "a.toml:2: govern.learn: ",
        // A later file that is right does not hide it.
        "a.toml:4: safety.step: ",
        "a.toml:5: safety.x: is not known",
        "b.toml:1: ",
        "c.toml:2: watchdog.every: ",
    ];
    assert_eq!(told.len(), starts.len(), "{told:#?}");
    for (told, start) in told.iter().zip(starts) {
        assert!(told.starts_with(start), "{told} for {start}");
    }
    assert_eq!(read.config.safety.step, 1 << 20);
}

/// The keys of a configuration and what holds for them.
fn values(read: &Read) -> Vec<(String, &'static str, String)> {
    assert!(read.errors.is_empty(), "{:?}", read.errors);
    let entries = read.entries.iter();
    entries
        .map(|entry| (entry.table.clone(), entry.key, entry.value.clone()))
        .collect()
}

#[test]
fn what_is_printed_is_what_holds() {
    let text = "[safety]\nstate_dir = \"/a\\\"b\"\nstep = \"1.5M\"\n[govern.guest]\nidle = \"1m30s\"\n[govern.scheduled]\nat = [\"02:30\"]\n\
                [[govern.override]]\nmatch = \"a\"\nfreeze = true\n[[govern.override]]\nmatch = \"b\"\nfloor = \"1G\"";
    let read = layers(&[("c.toml", text)]);
    let printed = print::toml(&read.entries);
    let again = layers(&[("p.toml", &printed)]);
    assert_eq!(values(&read), values(&again), "{printed}");
    let set = |read: &Read| {
        let entries = read.entries.iter();
        entries.filter(|entry| entry.set_by.is_some()).count()
    };
    assert_eq!(set(&read), set(&again), "{printed}");
}

#[test]
fn each_comment_of_the_reference_can_be_made_a_line() {
    let read = layers(&[]);
    let printed = print::toml(&read.entries);
    let uncommented: String = printed
        .lines()
        .map(|line| {
            let key = line.strip_prefix('#').filter(|key| !key.starts_with(' '));
            format!("{}\n", key.unwrap_or(line))
        })
        .collect();
    let again = layers(&[("p.toml", &uncommented)]);
    assert_eq!(values(&read), values(&again), "{uncommented}");
    assert!(again.entries.iter().all(|entry| entry.set_by.is_some()));
}

#[test]
fn the_parts_beside_a_config_toml_are_read_in_the_order_of_their_names() {
    let tree = Tree::new();
    tree.file("/config.toml", "[safety]\nstep = \"2M\"\n");
    tree.file("/other.toml", "[safety]\nstep = \"3M\"\n");
    tree.file("/conf.d/20-b.toml", "[safety]\nstep = \"5M\"\n");
    tree.file(
        "/conf.d/10-a.toml",
        "[safety]\nstep = \"4M\"\ncap = \"1G\"\n",
    );
    tree.file("/conf.d/30-c.toml.bak", "[");
    tree.file("/conf.d/.40-d.toml", "[");
    let config = load(Some(&tree.path("/config.toml"))).unwrap();
    assert_eq!((config.safety.step, config.safety.cap), (5 << 20, 1 << 30));
    let names = ["/config.toml", "/conf.d/10-a.toml", "/conf.d/20-b.toml"];
    assert_eq!(config.files, names.map(|name| tree.path(name)));
    // A file of another name stands alone.
    let other = load(Some(&tree.path("/other.toml"))).unwrap();
    assert_eq!((other.safety.step, other.files.len()), (3 << 20, 1));
    let mode = |path: &str, mode| {
        std::fs::set_permissions(tree.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
        load(Some(&tree.path("/config.toml")))
    };
    let refused = mode("/conf.d/10-a.toml", 0o666).unwrap_err();
    assert_eq!(refused.exit, Exit::Refused);
    assert!(refused.message.contains("10-a.toml"), "{}", refused.message);
    assert!(mode("/conf.d/10-a.toml", 0o644).is_ok());
    let refused = mode("/conf.d", 0o777).unwrap_err();
    assert_eq!(refused.exit, Exit::Refused);
    assert!(
        refused.message.contains("conf.d: everybody can write"),
        "{}",
        refused.message
    );
    assert!(mode("/conf.d", 0o755).is_ok());
}

#[test]
fn the_reference_in_the_docs_has_every_key_with_its_default() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let docs = std::fs::read_to_string(path).unwrap();
    let begin = docs.find("```toml\n[safety]\n# ").unwrap_or(docs.len());
    let reference = print::toml(&layers(&[]).entries);
    let wanted = format!("{}```toml\n{reference}```\n", &docs[..begin]);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(path, &wanted).unwrap();
    }
    assert!(
        std::fs::read_to_string(path).unwrap() == wanted,
        "docs/configuration.md is not what `check-config --print` says: UPDATE_REFERENCE=1 cargo test -p grey-user reference"
    );
}
