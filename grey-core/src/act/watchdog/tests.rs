use super::*;

const MS: u64 = 1_000;
const M: u64 = 1 << 20;

fn subject() -> Subject {
    Subject {
        name: "/a/b".to_owned(),
        kills: vec!["/a/b".to_owned(), "/a".to_owned()],
        services: vec!["/system.slice/ssh.service".to_owned()],
    }
}

/// A machine at rest, `ms` after the beginning.
fn quiet(ms: u64) -> Reading {
    let kills = |at_limit| Some(Kills { total: 3, at_limit });
    Reading {
        at_us: ms * MS,
        kills: vec![kills(None), kills(Some(1))],
        psi: psi(500, 100),
        available: Some(400 * M),
        refaults: Some(1_000_000),
        services: vec![Some(Service::Runs)],
    }
}

fn psi(some_ms: u64, full_ms: u64) -> Option<Psi> {
    Some(Psi {
        some_us_total: some_ms * MS,
        full_us_total: Some(full_ms * MS),
    })
}

fn watch() -> Watch {
    Watch::new(subject(), quiet(0))
}

/// The first trip of a run of readings every 250 ms, with its time.
fn run(ms: u64, mut reading: impl FnMut(u64) -> Reading) -> Option<(u64, Trip)> {
    run_with(&Thresholds::default(), watch(), ms, &mut reading)
}

fn run_with(
    thresholds: &Thresholds,
    mut watch: Watch,
    ms: u64,
    reading: &mut dyn FnMut(u64) -> Reading,
) -> Option<(u64, Trip)> {
    (250..=ms)
        .step_by(250)
        .find_map(|ms| Some((ms, watch.look(&reading(ms), thresholds)?)))
}

fn cause(found: Option<(u64, Trip)>) -> Option<(u64, &'static str)> {
    found.map(|(ms, trip)| (ms, trip.cause))
}

#[test]
fn a_quiet_machine_trips_nothing() {
    assert_eq!(run(60_000, quiet), None);
}

#[test]
fn what_cannot_be_read_trips_nothing() {
    let blind = |ms| Reading {
        at_us: ms * MS,
        ..Reading::default()
    };
    assert_eq!(run(5_000, blind), None);
    let mut from_blind = Watch::new(subject(), blind(0));
    assert_eq!(
        run_with(
            &Thresholds::default(),
            from_blind.clone(),
            5_000,
            &mut quiet
        ),
        None
    );
    assert_eq!(from_blind.look(&quiet(250), &Thresholds::default()), None);
}

#[test]
fn a_kill_in_the_target_trips_at_the_next_look() {
    let (ms, trip) = run(2_000, |ms| {
        let mut reading = quiet(ms);
        reading.kills[0] = Some(Kills {
            total: 3 + u64::from(ms >= 600),
            at_limit: None,
        });
        reading
    })
    .unwrap();
    assert_eq!((ms, trip.cause), (750, "oom_kill"));
    assert_eq!(trip.text, "the OOM killer ran in /a/b (oom_kill 3 -> 4)");
}

#[test]
fn a_kill_above_trips_only_where_that_cgroups_own_limit_was_reached() {
    let above = |total, at_limit| {
        run(1_000, move |ms| {
            let mut reading = quiet(ms);
            reading.kills[1] = Some(Kills {
                total,
                at_limit: Some(at_limit),
            });
            reading
        })
    };
    // A sibling with a limit of its own.
    assert_eq!(above(4, 1), None);
    // The limit was reached and reclaim helped in the end.
    assert_eq!(above(3, 2), None);
    let (_, trip) = above(4, 2).unwrap();
    assert!(
        trip.text
            .contains("in /a (oom_kill 3 -> 4), which reached its limit"),
        "{}",
        trip.text
    );
}

#[test]
fn pressure_trips_by_its_share_of_the_last_second_not_of_all_time() {
    // Half of the time, from 2 s on: over 40 % within a second.
    let stall = |pct: u64| move |ms: u64| 500 + ms.saturating_sub(2_000) * pct / 100;
    let some = |pct| {
        cause(run(20_000, move |ms| Reading {
            psi: psi(stall(pct)(ms), 100),
            ..quiet(ms)
        }))
    };
    let full = |pct| {
        cause(run(20_000, move |ms| Reading {
            psi: psi(stall(pct)(ms), stall(pct)(ms) - 400),
            ..quiet(ms)
        }))
    };
    assert_eq!(some(50), Some((3_000, "pressure")));
    assert_eq!(some(100), Some((2_500, "pressure")));
    assert_eq!(some(39), None);
    assert_eq!(full(25), Some((3_000, "pressure")));
    assert_eq!(full(19), None);
}

#[test]
fn a_stall_right_at_the_beginning_is_measured_against_a_whole_second() {
    let after = |stalled: u64| {
        watch().look(
            &Reading {
                psi: psi(500 + stalled, 100),
                ..quiet(250)
            },
            &Thresholds::default(),
        )
    };
    assert_eq!(after(250), None);
    let text = after(450).unwrap().text;
    assert_eq!(
        text,
        "some task of /a/b stalled on memory for 45 % of the last second, over 40 %"
    );
}

#[test]
fn pressure_without_a_full_line_is_judged_by_some_and_a_hundred_percent_is_never_reached() {
    let all = |ms: u64| Reading {
        psi: Some(Psi {
            some_us_total: ms * MS * 2,
            full_us_total: None,
        }),
        ..quiet(ms)
    };
    let from = Watch::new(subject(), all(0));
    let found = run_with(&Thresholds::default(), from.clone(), 2_000, &mut { all });
    assert_eq!(cause(found), Some((250, "pressure")));
    let never = Thresholds {
        psi_some_pct: 100.0,
        psi_full_pct: 100.0,
        ..Thresholds::default()
    };
    assert_eq!(run_with(&never, from, 9_000, &mut { all }), None);
}

#[test]
fn little_available_trips_if_there_was_more_before_or_it_falls_much_further() {
    let look = |start: u64, now: u64| {
        let from = Reading {
            available: Some(start * M),
            ..quiet(0)
        };
        Watch::new(subject(), from)
            .look(
                &Reading {
                    available: Some(now * M),
                    ..quiet(250)
                },
                &Thresholds::default(),
            )
            .map(|trip| trip.text)
    };
    assert_eq!(
        look(400, 127).as_deref(),
        Some("MemAvailable is 127M, under 128M (400M before)")
    );
    assert_eq!(look(400, 128), None);
    assert_eq!(look(128, 128), None);
    assert_eq!(look(100, 99), None);
    assert_eq!(look(100, 84), None);
    assert!(look(100, 83).is_some());
    assert_eq!(look(5, 0), None);
}

#[test]
fn refaults_trip_when_they_last_and_not_by_one_burst() {
    let refaults = |count: fn(u64) -> u64| {
        cause(run(10_000, move |ms| Reading {
            refaults: Some(1_000_000 + count(ms)),
            ..quiet(ms)
        }))
    };
    // 10000 a second from 1 s on.
    assert_eq!(
        refaults(|ms| ms.saturating_sub(1_000) * 10),
        Some((1_750, "refaults"))
    );
    assert_eq!(refaults(|ms| ms * 8), None);
    // A hundred thousand at once.
    assert_eq!(refaults(|ms| if ms > 2_000 { 100_000 } else { 0 }), None);
    // One burst every second.
    assert_eq!(refaults(|ms| ms / 1_000 * 100_000), None);
}

#[test]
fn a_look_that_was_held_up_is_judged_by_the_time_that_went_by() {
    let mut watch = watch();
    let late = Reading {
        psi: psi(500 + 1_500, 100),
        refaults: Some(1_000_000 + 8_000 * 5),
        ..quiet(5_000)
    };
    assert_eq!(watch.look(&late, &Thresholds::default()), None);
}

#[test]
fn a_critical_service_that_ran_trips_when_it_ends_or_its_cgroup_goes() {
    let look = |start, now| {
        let reading = |ms, state| Reading {
            services: vec![state],
            ..quiet(ms)
        };
        Watch::new(subject(), reading(0, start))
            .look(&reading(250, now), &Thresholds::default())
            .map(|trip| (trip.cause, trip.text))
    };
    let told = |text: &str| Some(("critical_service", text.to_owned()));
    assert_eq!(
        look(Some(Service::Runs), Some(Service::Empty)),
        told("/system.slice/ssh.service has no process any more")
    );
    assert_eq!(
        look(Some(Service::Runs), Some(Service::Gone)),
        told("/system.slice/ssh.service is gone")
    );
    for (start, now) in [
        (Some(Service::Runs), Some(Service::Runs)),
        (Some(Service::Empty), Some(Service::Gone)),
        (Some(Service::Runs), None),
        (None, Some(Service::Gone)),
    ] {
        assert_eq!(look(start, now), None, "{start:?} {now:?}");
    }
}

#[test]
fn the_window_is_bounded() {
    let mut watch = watch();
    for ms in (50..100_000).step_by(50) {
        watch.look(&quiet(ms), &Thresholds::default());
    }
    assert!(watch.recent.len() <= 22, "{}", watch.recent.len());
}
