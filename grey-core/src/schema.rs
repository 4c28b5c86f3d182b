//! The JSON Schema of the events, made from their types.

use serde_json::{Map, Value};

use crate::event::{Event, SCHEMA};

/// The schema that every line of `grey-ebpf/1` holds against.
///
/// It is as strict as what is written: an unknown figure is left out and never `null`, which stands for "no limit"
/// alone. Fields and objects it does not know are allowed, because the schema grows.
#[must_use]
pub fn json_schema() -> Value {
    let generated = schemars::schema_for!(Event).to_value();
    let mut schema = Map::new();
    // First what it is, as a person expects it.
    if let Some(dialect) = generated.get("$schema") {
        schema.insert("$schema".to_owned(), dialect.clone());
    }
    schema.insert("$id".to_owned(), SCHEMA.into());
    schema.insert(
        "title".to_owned(),
        "An event of grey-ebpf: one line of NDJSON".into(),
    );
    if let Value::Object(rest) = generated {
        for (key, value) in rest {
            schema.entry(key).or_insert(value);
        }
    }
    let mut schema = Value::Object(schema);
    forbid_null(&mut schema);
    schema
}

/// Takes `null` out of the types of all properties. `max` and `high` keep it: theirs is behind a reference to `Limit`.
fn forbid_null(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Object(properties)) = object.get_mut("properties") {
                for property in properties.values_mut() {
                    without_null(property);
                }
            }
            object.values_mut().for_each(forbid_null);
        }
        Value::Array(values) => values.iter_mut().for_each(forbid_null),
        _ => {}
    }
}

fn without_null(property: &mut Value) {
    let Value::Object(property) = property else {
        return;
    };
    if let Some(Value::Array(types)) = property.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            property.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(options)) = property.get_mut("anyOf") {
        options.retain(|option| option.get("type").is_none_or(|kind| kind != "null"));
        if let [Value::Object(only)] = options.as_slice() {
            let only = only.clone();
            property.shift_remove("anyOf");
            for (key, value) in only {
                property.entry(key).or_insert(value);
            }
        }
    }
}
