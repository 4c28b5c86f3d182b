//! The schema `grey-ebpf/1`: committed as generated, tolerant of newer lines, and true of what serde writes.

use std::path::Path;

use grey_core::event::{Body, Event, Limit, SCHEMA};
use grey_core::schema::json_schema;
use serde_json::{Value, json};

mod common;

use common::{TYPES, every_event, example, validator};

#[test]
fn the_committed_schema_is_the_one_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema/grey-ebpf-1.schema.json");
    let mut want = serde_json::to_string_pretty(&json_schema()).unwrap();
    want.push('\n');
    if std::env::var_os("UPDATE_SCHEMA").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &want).unwrap();
    }
    let have = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        have == want,
        "{} differs from the types: run the tests once with UPDATE_SCHEMA=1 and look at the difference",
        path.display()
    );
}

#[test]
fn the_schema_names_itself() {
    let schema = json_schema();
    assert_eq!(schema["$id"], SCHEMA);
    assert!(schema["title"].is_string());
    assert!(jsonschema::meta::is_valid(&schema));
}

#[test]
fn one_example_of_every_type_holds_and_reads_back() {
    let validator = validator();
    for name in TYPES {
        let line = example(name);
        if let Err(error) = validator.validate(&line) {
            panic!("{name}: {error}\n{line:#}");
        }
        let event: Event = serde_json::from_value(line.clone()).unwrap();
        assert_eq!(serde_json::to_value(&event).unwrap(), line, "{name}");
    }
}

#[test]
fn every_type_is_written_as_the_schema_says_and_reads_back_equal() {
    let validator = validator();
    let events = every_event();
    for name in TYPES {
        assert!(events.iter().any(|event| type_of(event) == name), "{name}");
    }
    for event in events {
        let text = serde_json::to_string(&event).unwrap();
        assert!(!text.contains('\n'));
        assert!(
            text.starts_with(r#"{"schema":"grey-ebpf/1","ts":""#),
            "{text}"
        );
        let line: Value = serde_json::from_str(&text).unwrap();
        if let Err(error) = validator.validate(&line) {
            panic!("{error}\n{line:#}");
        }
        assert_eq!(
            serde_json::from_str::<Event>(&text).unwrap(),
            event,
            "{text}"
        );
        assert_eq!(
            serde_json::from_value::<Event>(line).unwrap(),
            event,
            "{text}"
        );
    }
}

fn type_of(event: &Event) -> &'static str {
    match event.body {
        Body::Sample(_) => "sample",
        Body::Process { .. } => "process",
        Body::Growth { .. } => "growth",
        Body::Verdict { .. } => "verdict",
        Body::Oom { .. } => "oom",
        Body::Stall { .. } => "stall",
        Body::Pressure { .. } => "pressure",
        Body::Action { .. } => "action",
        Body::Outcome { .. } => "outcome",
        Body::Rollback { .. } => "rollback",
        Body::Health { .. } => "health",
    }
}

#[test]
fn a_wrong_line_is_rejected() {
    let validator = validator();
    let wrong = |name: &str, pointer: &str, value: Value| {
        let mut line = example(name);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        line.pointer_mut(parent).unwrap()[key] = value;
        assert!(!validator.is_valid(&line), "{pointer} of {line}");
        line
    };
    let unreadable = |line: Value| assert!(serde_json::from_value::<Event>(line).is_err());

    unreadable(wrong("sample", "/mem/current", json!("123")));
    unreadable(wrong("sample", "/mem/current", json!(-1)));
    unreadable(wrong("sample", "/mem/max", json!("max")));
    unreadable(wrong("sample", "/type", json!("smaple")));
    unreadable(wrong("sample", "/cgroup/path", Value::Null));
    unreadable(wrong("stall", "/stall/kind", json!("slow")));
    unreadable(wrong("oom", "/oom/constraint", json!("oops")));
    unreadable(wrong("growth", "/growth", Value::Null));
    // Left out when unknown; reading forgives it.
    wrong("sample", "/mem/anon", Value::Null);
    wrong("sample", "/psi", Value::Null);
    wrong("oom", "/oom/victim", Value::Null);
    wrong("sample", "/cgroup", Value::Null);
    wrong("sample", "/schema", json!("grey-ebpf/2"));
    wrong("sample", "/ts", json!("yesterday"));

    for key in ["schema", "type", "ts", "seq", "host"] {
        let mut line = example("sample");
        line.as_object_mut().unwrap().remove(key);
        assert!(!validator.is_valid(&line), "without {key}");
        unreadable(line);
    }
    let mut line = example("oom");
    line.as_object_mut().unwrap().remove("oom");
    assert!(!validator.is_valid(&line));
    unreadable(line);
    assert!(!validator.is_valid(&json!([])));
}

#[test]
fn no_limit_is_null_and_an_unknown_limit_is_left_out() {
    let validator = validator();
    for (mem, limit) in [
        (json!({}), Limit::Unknown),
        (json!({ "max": null }), Limit::None),
        (json!({ "max": 0 }), Limit::Bytes(0)),
        (json!({ "max": u64::MAX }), Limit::Bytes(u64::MAX)),
    ] {
        let mut line = example("sample");
        line["mem"] = mem.clone();
        assert!(validator.is_valid(&line), "{line}");
        // From text and from a value: serde buffers a flattened, tagged enum in different ways.
        for event in [
            serde_json::from_value::<Event>(line.clone()).unwrap(),
            serde_json::from_str::<Event>(&line.to_string()).unwrap(),
        ] {
            let Body::Sample(sample) = &event.body else {
                panic!("{event:?}");
            };
            assert_eq!((sample.mem.max, sample.mem.high), (limit, Limit::Unknown));
            assert_eq!(serde_json::to_value(&event).unwrap()["mem"], mem);
        }
    }
}

#[test]
fn lines_of_a_newer_version_can_be_read() {
    let validator = validator();
    for name in TYPES {
        let mut line = example(name);
        let plain: Event = serde_json::from_value(line.clone()).unwrap();
        line["future"] = json!({ "a": [1, 2, 3] });
        for object in [name, "cgroup", "mem", "psi"] {
            if let Some(object) = line.get_mut(object).and_then(Value::as_object_mut) {
                object.insert("future".to_owned(), json!("x"));
            }
        }
        assert!(validator.is_valid(&line), "{line}");
        assert_eq!(serde_json::from_value::<Event>(line).unwrap(), plain);
    }
}

#[test]
fn the_least_that_replay_needs_can_be_read() {
    let line = r#"{"schema":"grey-ebpf/1","type":"sample","ts":"2026-11-21T05:00:00Z","seq":0,"host":"",
        "cgroup":{"path":"/a","kind":"cgroup","name":"a"},"mem":{"anon":4096}}"#;
    let event: Event = serde_json::from_str(line).unwrap();
    let Body::Sample(sample) = event.body else {
        panic!("not a sample");
    };
    assert_eq!(sample.mem.anon, Some(4096));
    assert_eq!(event.cgroup.unwrap().id, None);
}
