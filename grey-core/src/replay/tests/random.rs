//! Properties of whole replays.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::detect::Point;
use crate::event::{
    Body, Cgroup, Event, Faults, Growth, GrowthScope, Limit, Mem, Process, SCHEMA, Sample, Vm,
};
use crate::replay::Options;
use crate::replay::tests::{Run, replay};
use crate::time::Timestamp;

const START: i64 = 1_795_237_200_000_000;
const MS: i64 = 1000;

fn figure() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![
        Just(None),
        any::<u64>().prop_map(Some),
        (0_u64..5).prop_map(Some)
    ]
}

prop_compose! {
    fn sample()(
        figures in vec(figure(), 12),
        max in prop_oneof![Just(Limit::Unknown), Just(Limit::None), any::<u64>().prop_map(Limit::Bytes)],
        groups in any::<[bool; 2]>(),
    ) -> Sample {
        Sample {
            mem: Mem {
                current: figures[0],
                anon: figures[1],
                swap: figures[2],
                file: figures[3],
                shmem: figures[4],
                kernel: figures[5],
                slab: figures[6],
                pagetables: figures[7],
                sock: figures[8],
                available: figures[9],
                max,
                high: Limit::None,
                ..Mem::default()
            },
            faults: groups[0].then(|| Faults { minor_total: figures[10], ..Faults::default() }),
            vm: groups[1].then(|| Vm { r#virtual: figures[11], ..Vm::default() }),
            processes: figures[10],
            ..Sample::default()
        }
    }
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        8 => sample().prop_map(|sample| Body::Sample(Box::new(sample))),
        1 => (1_u32..4, figure()).prop_map(|(pid, rss)| Body::Process {
            process: Process { pid, comm: "x\"\u{1b}é".to_owned(), rss, ..Process::default() },
        }),
        1 => (1_u32..4, any::<u64>()).prop_map(|(pid, bytes)| Body::Growth {
            growth: Growth {
                scope: GrowthScope::Process,
                pid,
                comm: "x".to_owned(),
                bytes,
                since_ms: 5,
                rss: None,
                r#virtual: None,
            },
        }),
    ]
}

prop_compose! {
    /// Of few cgroups and close together in time, so that ties are common.
    fn event()(
        at in 0_i64..60,
        host in prop_oneof!["n1", "n\u{e9}2"],
        path in prop_oneof!["/", "/a", "/a/b", "/c\\\\x2d.slice/d", "/\u{1b}日本"],
        id in 0_u64..3,
        boot in prop_oneof![Just(None), Just(Some("b1".to_owned()))],
        body in body(),
    ) -> Event {
        Event {
            schema: SCHEMA.to_owned(),
            ts: Timestamp(START + at * 500 * MS),
            seq: 0,
            host,
            boot_id: boot,
            cgroup: Some(Cgroup {
                id: (id > 0).then_some(id),
                path,
                kind: "cgroup".to_owned(),
                name: "a".to_owned(),
            }),
            lossy: false,
            body,
        }
    }
}

prop_compose! {
    /// A recording: in order of time, with numbers.
    fn recording()(mut events in vec(event(), 1..40)) -> Vec<Event> {
        events.sort_by_key(|event| event.ts);
        for (seq, event) in (0..).zip(&mut events) {
            event.seq = seq;
        }
        events
    }
}

fn lines(events: &[Event]) -> Vec<Vec<u8>> {
    let line = |event: &Event| serde_json::to_vec(event).unwrap();
    events.iter().map(line).collect()
}

/// A bad line would hide behind an equally bad one.
fn all_taken(run: &Run, events: usize) -> Result<(), TestCaseError> {
    let stats = &run.stats;
    prop_assert_eq!(stats.bad + stats.late + stats.other, 0, "{:?}", stats);
    let taken = stats.samples + stats.processes + stats.events + stats.repeated;
    prop_assert_eq!(taken, events as u64);
    Ok(())
}

fn wide() -> Options {
    Options {
        window_us: 30_000 * MS,
        ..Options::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_sample_is_what_the_event_says(mut event in event(), sample in sample()) {
        let cgroup = event.cgroup.clone().unwrap();
        let point = Point::of_sample(event.ts, &cgroup, &sample);
        event.body = Body::Sample(Box::new(sample));
        let run = replay(&[lines(std::slice::from_ref(&event))], Options::default(), 1);
        let want = format!("{} {} {} {:?}", event.ts, event.host, cgroup.path, point);
        prop_assert_eq!(run.given, [want]);
    }

    #[test]
    fn lines_shuffled_within_the_window_give_the_same(
        (events, shuffled) in recording().prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle())),
        block in 1_usize..9,
    ) {
        let run = replay(&[lines(&events)], wide(), 1);
        all_taken(&run, events.len())?;
        prop_assert_eq!(replay(&[lines(&shuffled)], wide(), block), run);
    }

    #[test]
    fn files_split_anywhere_and_named_in_any_order_give_the_same(
        events in recording(), at in any::<prop::sample::Index>(), block in 1_usize..9,
    ) {
        let run = replay(&[lines(&events)], Options::default(), 1);
        let (first, second) = events.split_at(at.index(events.len()));
        for halves in [[first, second], [second, first]] {
            let split = replay(&halves.map(lines), Options::default(), block);
            prop_assert_eq!(&split.given, &run.given);
            prop_assert_eq!(&split.verdicts, &run.verdicts);
            prop_assert_eq!(split.stats.late, 0);
        }
        // Every second line in another file: they are merged by time.
        let turns = [0, 1].map(|turn| {
            let half: Vec<Event> = events.iter().skip(turn).step_by(2).cloned().collect();
            lines(&half)
        });
        prop_assert_eq!(replay(&turns, Options::default(), block).given, run.given);
    }

    #[test]
    fn a_file_given_twice_is_taken_once(events in recording()) {
        let run = replay(&[lines(&events)], Options::default(), 3);
        let twice = replay(&[lines(&events), lines(&events)], Options::default(), 3);
        prop_assert_eq!(twice.given, run.given);
        prop_assert!(twice.stats.repeated > 0);
    }

    #[test]
    fn what_a_cut_file_gives_is_the_beginning_of_what_the_whole_gives(
        events in recording(), at in any::<prop::sample::Index>(),
    ) {
        let whole = replay(&[lines(&events)], Options::default(), 4);
        let text: Vec<u8> = lines(&events).join(&b'\n');
        let cut: Vec<Vec<u8>> = text[..at.index(text.len() + 1)]
            .split(|byte| *byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect();
        let run = replay(&[cut], Options::default(), 4);
        prop_assert!(run.stats.bad <= 1);
        // Of the last instant there may be less, and what there is may stand in another order.
        let last = run.given.last().map_or("", |given| &given[..24]).to_owned();
        let before = |run: &Run| -> Vec<String> {
            run.given.iter().filter(|given| **given < last).cloned().collect()
        };
        prop_assert_eq!(before(&run), before(&whole));
        prop_assert!(run.given.iter().all(|given| whole.given.contains(given)));
        let told = |run: &Run| -> Vec<Event> {
            run.verdicts.iter().filter(|event| event.ts.to_string() < last).cloned().collect()
        };
        let verdicts = |events: Vec<Event>| -> Vec<Body> { events.into_iter().map(|event| event.body).collect() };
        prop_assert_eq!(verdicts(told(&run)), verdicts(told(&whole)));
    }

    #[test]
    fn no_bytes_panic_and_every_line_is_counted(
        inputs in vec(vec(vec(any::<u8>(), 0..60), 0..20), 1..4), block in 1_usize..4,
    ) {
        let run = replay(&inputs, Options::default(), block);
        prop_assert_eq!(run.stats.lines, inputs.iter().map(Vec::len).sum::<usize>() as u64);
    }

    #[test]
    fn no_damage_to_good_lines_panics(
        events in recording(),
        damage in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..20),
        window_us in prop_oneof![Just(0), Just(i64::MAX), 0_i64..20_000_000],
    ) {
        let mut text = lines(&events);
        for (line, at, byte) in damage {
            let line = &mut text[line.index(events.len())];
            let at = at.index(line.len());
            line[at] = byte;
        }
        let options = Options { window_us, processes: true };
        let run = replay(&[text.clone(), lines(&events)], options, 3);
        prop_assert_eq!(run.stats.lines, 2 * events.len() as u64);
        prop_assert_eq!(replay(&[text, lines(&events)], options, 3), run);
    }
}
