//! The JSON Schema of the events, made from their types.

use serde_json::Value;

use crate::event::{Event, SCHEMA};

/// The schema that every line of `grey-ebpf/1` holds against.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(Event);
    schema.insert("$id".to_owned(), SCHEMA.into());
    schema.insert(
        "title".to_owned(),
        "An event of grey-ebpf, one line of NDJSON".into(),
    );
    schema.to_value()
}
