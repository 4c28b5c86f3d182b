//! Every event shown in the docs holds against the schema, and docs/events.md shows one of every type.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use grey_core::event::Event;
use serde_json::Value;

mod common;

use common::{TYPES, validator};

/// A line of an example: where it stands and what it says.
struct Line {
    file: String,
    number: usize,
    text: String,
}

/// The lines of the fenced `json` blocks (or `ndjson`, `jsonl`) that hold events. A pretty-printed event is one line.
fn examples(file: &str, text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut block: Option<(usize, Vec<&str>)> = None;
    for (number, line) in text.lines().enumerate() {
        let fence = line.trim_start();
        match &mut block {
            None if matches!(fence.trim_end(), "```json" | "```ndjson" | "```jsonl") => {
                block = Some((number + 2, Vec::new()));
            }
            None => {}
            Some(_) if fence.starts_with("```") => {
                if let Some((first, body)) = block.take() {
                    lines.extend(events(file, first, &body));
                }
            }
            Some((_, body)) => body.push(line),
        }
    }
    assert!(block.is_none(), "{file}: a ```json block without an end");
    lines
}

fn events(file: &str, first: usize, body: &[&str]) -> Vec<Line> {
    let whole = body.join("\n");
    let squeezed: String = whole.split_whitespace().collect();
    if !squeezed.contains(r#""schema":"grey-ebpf/1""#) {
        return Vec::new();
    }
    let line = |number: usize, text: &str| Line {
        file: file.to_owned(),
        number,
        text: text.to_owned(),
    };
    if serde_json::from_str::<Value>(&whole).is_ok() {
        return vec![line(first, &whole)];
    }
    body.iter()
        .enumerate()
        .filter(|(_, text)| !text.trim().is_empty())
        .map(|(number, text)| line(first + number, text))
        .collect()
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec![root.join("README.md")];
    if let Ok(folder) = std::fs::read_dir(root.join("docs")) {
        pages.extend(
            folder
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| path.extension().is_some_and(|kind| kind == "md")),
        );
    }
    pages.sort();
    pages
}

#[test]
fn every_event_in_the_docs_holds_against_the_schema() {
    let validator = validator();
    for page in pages() {
        let name = page
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let Ok(text) = std::fs::read_to_string(&page) else {
            continue;
        };
        let mut seen = BTreeSet::new();
        for Line { file, number, text } in examples(&name, &text) {
            let value: Value = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{file}:{number}: {error}\n{text}"));
            if let Err(error) = validator.validate(&value) {
                panic!("{file}:{number}: {error}\n{text}");
            }
            if let Err(error) = serde_json::from_value::<Event>(value.clone()) {
                panic!("{file}:{number}: {error}\n{text}");
            }
            seen.insert(value["type"].as_str().unwrap_or_default().to_owned());
        }
        if name == "events.md" {
            for wanted in TYPES {
                assert!(seen.contains(wanted), "{name} has no example of `{wanted}`");
            }
        }
    }
}

#[test]
fn examples_are_found_line_by_line_or_pretty_printed() {
    let page = r#"
```json
{"schema":"grey-ebpf/1","seq":1}

{"schema":"grey-ebpf/1","seq":2}
```
```json
{ "other": 1 }
```
  ```json
  {
    "schema": "grey-ebpf/1",
    "seq": 3
  }
  ```
```sh
echo '{"schema":"grey-ebpf/1"}'
```
"#;
    let found: Vec<(usize, u64)> = examples("page.md", page)
        .iter()
        .map(|line| {
            let value: Value = serde_json::from_str(&line.text).unwrap();
            (line.number, value["seq"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(found, [(3, 1), (5, 2), (11, 3)]);
}
