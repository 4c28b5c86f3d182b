use super::*;
use serde_json::json;

fn event(value: Value) -> Event {
    let mut line = json!({
        "schema": "grey-ebpf/1", "seq": 0, "host": "n1", "ts": "2026-11-21T05:00:00.000Z",
        "cgroup": { "id": 7, "path": "/a/b", "kind": "cgroup", "name": "b" },
    });
    for (key, value) in value.as_object().unwrap() {
        line[key] = value.clone();
    }
    serde_json::from_value(line).unwrap()
}

fn sample(path: &str, at: &str, anon: u64) -> Event {
    event(json!({
        "type": "sample", "ts": at, "mem": { "anon": anon },
        "cgroup": { "id": 7, "path": path, "kind": "cgroup", "name": "b" },
    }))
}

fn oom(at: &str) -> Event {
    event(json!({ "type": "oom", "ts": at, "oom": { "kills": 1 } }))
}

fn nobody(_: &str, _: usize) -> Vec<Value> {
    vec![json!({ "pid": 1, "comm": "init" })]
}

#[test]
fn where_memory_is_short_it_goes_back_one_minute() {
    let mut recorder = Recorder::new(&std::env::temp_dir());
    let points = |recorder: &Recorder, path: &str| recorder.series[path].points().count();
    for minute in 55..60 {
        let at = format!("2026-11-21T04:{minute}:00.000Z");
        assert!(recorder.observe(&sample("/a", &at, 1), &nobody).is_none());
    }
    let idle = sample("/idle", "2026-11-21T04:50:00.000Z", 1);
    assert!(recorder.observe(&idle, &nobody).is_none());
    assert_eq!(points(&recorder, "/a"), 5);
    recorder.go_back_less(true);
    assert_eq!(
        (points(&recorder, "/a"), points(&recorder, "/idle")),
        (3, 1)
    );
    for second in [30, 59] {
        let at = format!("2026-11-21T05:00:{second}.000Z");
        assert!(recorder.observe(&sample("/a", &at, 1), &nobody).is_none());
    }
    // The last point before the minute, and those in it.
    assert_eq!(points(&recorder, "/a"), 3);
    recorder.go_back_less(false);
    let late = sample("/a", "2026-11-21T05:04:00.000Z", 1);
    assert!(recorder.observe(&late, &nobody).is_none());
    assert_eq!(points(&recorder, "/a"), 4);
}

#[test]
fn a_kill_keeps_the_last_five_minutes_of_what_has_to_do_with_it() {
    let dir = std::env::temp_dir().join(format!("grey-incident-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let mut recorder = Recorder::new(&dir);
    for (path, at, anon) in [
        ("/a/b", "2026-11-21T04:50:00.000Z", 1),
        ("/a/b", "2026-11-21T04:54:00.000Z", 2),
        ("/a/b", "2026-11-21T04:59:59.000Z", 3),
        ("/a", "2026-11-21T04:59:59.000Z", 4),
        ("/", "2026-11-21T04:59:59.000Z", 5),
        ("/a/b/c", "2026-11-21T04:59:59.000Z", 6),
        ("/a/bc", "2026-11-21T04:59:59.000Z", 7),
    ] {
        assert!(recorder.observe(&sample(path, at, anon), &nobody).is_none());
    }
    let path = recorder
        .observe(&oom("2026-11-21T05:00:00.000Z"), &nobody)
        .unwrap()
        .unwrap();
    let document: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let series = document["series"].as_object().unwrap();
    let paths: Vec<&String> = series.keys().collect();
    assert_eq!(paths, ["/", "/a", "/a/b", "/a/b/c"]);
    let anon = document["columns"]
        .as_array()
        .unwrap()
        .iter()
        .position(|name| name == "anon")
        .unwrap();
    // The last point before the five minutes is kept: it tells where they began.
    let points: Vec<&Value> = series["/a/b"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row[anon])
        .collect();
    assert_eq!(points, [&json!(2), &json!(3)]);
    assert_eq!(document["processes"][0]["comm"], "init");
    assert_eq!(document["events"].as_array().unwrap().len(), 1);
    // A storm is one incident.
    assert!(
        recorder
            .observe(&oom("2026-11-21T05:00:03.000Z"), &nobody)
            .is_none()
    );
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn documents_are_bounded_in_number_and_size() {
    let dir = std::env::temp_dir().join(format!("grey-incidents-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let mut recorder = Recorder::new(&dir);
    for minute in 0..50 {
        let at = format!("2026-11-21T05:{minute:02}:00.000Z");
        recorder.observe(&oom(&at), &nobody).unwrap().unwrap();
    }
    let mut names: Vec<String> = std::fs::read_dir(dir.join("incidents"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names.len(), MOST_FILES);
    assert!(names[MOST_FILES - 1].contains("T0549"), "{names:?}");
    for cgroup in 0..MOST_SERIES + 100 {
        let path = format!("/many/{cgroup}");
        recorder.observe(&sample(&path, "2026-11-21T06:00:00.000Z", 1), &nobody);
    }
    assert_eq!(recorder.series.len(), MOST_SERIES);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn an_incident_has_the_stacks_of_the_last_verdict_about_its_cgroup() {
    let dir = std::env::temp_dir().join(format!("grey-incident-stacks-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let mut recorder = Recorder::new(&dir);
    for (path, function) in [("/a/b", "leak"), ("/other", "another")] {
        let verdict = event(json!({
            "type": "verdict", "ts": "2026-11-21T04:59:00.000Z",
            "cgroup": { "id": 7, "path": path, "kind": "cgroup", "name": "b" },
            "verdict": {
                "state": "confirmed", "cause": "leak", "confidence": 0.9, "evidence": { "reason": "grew" }, "advice": "",
                "stacks": [{
                    "pid": 1, "comm": "b", "function": function, "kept_bytes": 2, "faulted_bytes": 3, "frames": ["memset"],
                }],
            },
        }));
        assert!(recorder.observe(&verdict, &nobody).is_none());
    }
    let path = recorder
        .observe(&oom("2026-11-21T05:00:00.000Z"), &nobody)
        .unwrap()
        .unwrap();
    let document: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(document["stacks"].as_array().unwrap().len(), 1);
    assert_eq!(document["stacks"][0]["function"], "leak");
    std::fs::remove_dir_all(&dir).unwrap();
}
