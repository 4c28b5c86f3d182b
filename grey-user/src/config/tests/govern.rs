//! `[govern]`.

use super::*;

#[test]
fn every_key_of_governing_is_read() {
    let config = parse(
        r#"
        [govern]
        policy = "proactive"
        floor = "64M"
        observe = "20s"
        contain_leaks = true
        learn = false

        [govern.conservative]
        available_pct = 4
        psi_some_pct = 25
        bytes = "32M"
        interval = "20s"

        [govern.dynamic]
        available_pct = 30
        interval = "1m"

        [govern.aggressive]
        used_pct = 70
        bytes = "2G"
        interval = "2m"

        [govern.scheduled]
        at = ["02:30", "Mon..Fri 22:00"]
        take_pct = 40
        file_only = true
        compact = true

        [govern.proactive]
        interval = "10s"
        psi_some_pct = 0.2
        step_pct = 2
        step = "16M"
        refault_pct = 3.5
        anon = false

        [govern.guest]
        fault_bytes_per_s = "1M"
        idle = "1m"
        interval = "5s"
        step = "128M"
        refault_pct = 2
        anon = false
        compact = false
        host_available_pct = 7
report_block = "off"

        [govern.host_pressure]
        command = ["/bin/ask", "-q"]
        every = "1m"
        timeout = "2s"
        total = "32G"

        [govern.emergency]
        available_pct = 2
        bytes = "512M"
        interval = "500ms"

        [govern.budget]
        bytes_per_s = "32M"
        actions_per_min = 6
        action_bytes = "128M"

        [govern.idle]
        after = "5m"
        cpu_pct = 1
        faults_per_s = 2.5
        thaw_on_demand = false

        [[govern.override]]
        match = "batch-*.service"
        policy = "aggressive"
        floor = "10M"
        ceiling = "1G"
        anon = false
        freeze = true

        [[govern.override]]
        match = "/sys/fs/cgroup/a.slice/**"
        "#,
    )
    .unwrap();
    let Settings {
        policy,
        conservative,
        dynamic,
        aggressive,
        scheduled,
        proactive,
        guest,
        emergency,
        budget,
        idle,
        overrides,
        floor,
        observe_us,
        contain_leaks,
        learn,
    } = config.govern;
    let want = pressure_source::Options {
        source: pressure_source::Source::Command(vec!["/bin/ask".into(), "-q".into()]),
        every: Duration::from_secs(60),
        timeout: Duration::from_secs(2),
        total: Some(32 << 30),
    };
    assert_eq!(config.host_pressure, Some(want));
    let s = 1_000_000;
    let m = 1 << 20;
    assert_eq!(policy, PolicyKind::Proactive);
    assert_eq!(
        (floor, observe_us, contain_leaks, learn),
        (64 * m, 20 * s, true, false)
    );
    let want = Conservative {
        available_pct: 4.0,
        psi_some_pct: 25.0,
        bytes: 32 * m,
        interval_us: 20 * s,
    };
    assert_eq!(conservative, want);
    let want = Dynamic {
        available_pct: 30.0,
        interval_us: 60 * s,
    };
    assert_eq!(dynamic, want);
    let want = Aggressive {
        used_pct: 70.0,
        bytes: 2048 * m,
        interval_us: 120 * s,
    };
    assert_eq!(aggressive, want);
    let want = Scheduled {
        at: vec!["02:30".parse().unwrap(), "Mon..Fri 22:00".parse().unwrap()],
        take_pct: 40.0,
        file_only: true,
        compact: true,
    };
    assert_eq!(scheduled, want);
    let want = Proactive {
        interval_us: 10 * s,
        psi_some_pct: 0.2,
        step_pct: 2.0,
        step: 16 * m,
        refault_pct: 3.5,
        anon: false,
    };
    assert_eq!(proactive, want);
    let want = Guest {
        fault_bytes_per_s: m,
        idle_us: 60 * s,
        interval_us: 5 * s,
        step: 128 * m,
        refault_pct: 2.0,
        anon: false,
        compact: false,
        host_available_pct: 7.0,
        report_block: None,
    };
    assert_eq!(guest, want);
    let want = Emergency {
        available_pct: 2.0,
        bytes: 512 * m,
        interval_us: s / 2,
    };
    assert_eq!(emergency, Some(want));
    let want = Budget {
        bytes_per_s: 32 * m,
        actions_per_min: 6,
        action_bytes: 128 * m,
    };
    assert_eq!(budget, want);
    let want = Idle {
        after_us: 300 * s,
        cpu_pct: 1.0,
        faults_per_s: 2.5,
        thaw_on_demand: false,
    };
    assert_eq!(idle, want);
    let [batch, slice] = overrides.as_slice() else {
        panic!("{overrides:?}")
    };
    assert!(batch.matches.matches("/system.slice/batch-1.service"));
    assert_eq!(batch.policy, Some(PolicyKind::Aggressive));
    assert_eq!((batch.floor, batch.ceiling), (Some(10 * m), Some(1024 * m)));
    assert_eq!((batch.anon, batch.freeze), (Some(false), true));
    // The absolute path is one below the mount.
    assert!(slice.matches.matches("/a.slice/b"));
    assert_eq!(
        (slice.policy, slice.floor, slice.ceiling),
        (None, None, None)
    );
    assert_eq!((slice.anon, slice.freeze), (None, false));
}

#[test]
fn an_emergency_can_be_switched_off() {
    let off = parse("[govern.emergency]\nenabled = false\nbytes = \"1M\"").unwrap();
    assert_eq!(off.govern.emergency, None);
    assert!(parse("").unwrap().govern.emergency.is_some());
}

#[test]
fn what_is_wrong_with_governing_is_told_with_its_line_its_key_and_the_remedy() {
    let table: &[(&str, &str)] = &[
        (
            "[govern]\npolicy = \"turbo\"",
            "c.toml:2: govern.policy: `turbo` is no policy; known are observe, conservative, ",
        ),
        (
            "[govern]\npolicy = 3",
            "c.toml:2: govern.policy: is written as a string, such as \"observe\"",
        ),
        (
            "[govern]\npolicy = \"scheduled\"",
            "c.toml:2: govern.policy: is `scheduled` without a time; write at = ",
        ),
        (
            "[govern.scheduled]\nat = [\"25:00\"]",
            "c.toml:2: govern.scheduled.at: is no time: ",
        ),
        (
            "[govern]\nlearn = \"yes\"",
            "c.toml:2: govern.learn: is true or false, without quotes",
        ),
        (
            "[govern]\nguest = 3",
            "c.toml:2: govern.guest: is no table; write [govern.guest] on a line of its own",
        ),
        (
            "[govern.guest]\n\nsteps = 3",
            "c.toml:3: govern.guest.steps: is not known; known are `fault_bytes_per_s`, ",
        ),
        (
            "[govern.turbo]\nstep = 3",
            "c.toml:1: govern.turbo: is not known; known are `policy`, ",
        ),
        (
            "[govern.budget]\nactions_per_min = 0",
            "c.toml:2: govern.budget.actions_per_min: 0 is out of bounds; write 1 to 6000",
        ),
        (
            "[govern.idle]\nfaults_per_s = inf",
            "c.toml:2: govern.idle.faults_per_s: is out of bounds; write 0.1 to 1000000",
        ),
        (
            "[govern.override]\nmatch = \"a\"",
            "c.toml:1: govern.override: is no list of tables; write [[govern.override]] on ",
        ),
        (
            "[[govern.override]]\nfloor = \"1G\"",
            "c.toml:2: govern.override.match: is missing; write match = ",
        ),
        (
            "[[govern.override]]\nmatch = \"a[\"",
            "c.toml:2: govern.override.match: cgroup pattern `a[`: ",
        ),
        (
            "[[govern.override]]\nmatch = \"a\"\nfloor = \"2G\"\nceiling = \"1G\"",
            "c.toml:4: govern.override.ceiling: is less than `floor`",
        ),
        (
            "[[govern.override]]\nmatch = \"a\"\nfreez = true",
            "c.toml:3: govern.override.freez: is not known; known are `match`, ",
        ),
    ];
    for (text, want) in table {
        let got = fails(text);
        assert!(
            got.starts_with(want) && !got.contains('\n'),
            "{text:?}: {got}"
        );
    }
}
