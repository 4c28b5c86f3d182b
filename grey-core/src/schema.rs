//! The JSON Schema of the events.
