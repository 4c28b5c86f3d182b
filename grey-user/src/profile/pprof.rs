//! A profile in pprof's format: gzip'd protocol buffers, as written down in profile.proto of github.com/google/pprof. Its
//! few messages are encoded here.

use std::collections::HashMap;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::document::{Frame, Profile};

/// The whole file.
///
/// # Errors
/// None that memory does not have.
pub(super) fn encode(profile: &Profile) -> std::io::Result<Vec<u8>> {
    let mut tables = Tables::default();
    tables.string("");
    let mut out = Vec::new();
    let bytes = tables.string("bytes");
    let count = tables.string("count");
    for (name, unit) in [
        ("kept", bytes),
        ("faulted", bytes),
        ("file", bytes),
        ("faults", count),
    ] {
        let kind = tables.value_type(name, unit);
        message(&mut out, 1, &kind);
    }
    for stack in &profile.stacks {
        let mut sample = Vec::new();
        let locations: Vec<u64> = stack
            .frames
            .iter()
            .map(|frame| tables.location(frame))
            .collect();
        packed(&mut sample, 1, &locations);
        packed(
            &mut sample,
            2,
            &[
                stack.kept_bytes,
                stack.faulted_bytes,
                stack.file_bytes,
                stack.faults,
            ],
        );
        for label in [
            tables.text_label("comm", &stack.comm),
            tables.number_label("pid", u64::from(stack.pid)),
        ] {
            message(&mut sample, 3, &label);
        }
        message(&mut out, 2, &sample);
    }
    let fault = tables.value_type("faults", count);
    let comments: Vec<u64> = profile
        .notes
        .iter()
        .map(|note| tables.string(note))
        .collect();
    let kept = tables.string("kept");
    for (field, list) in [
        (3, &tables.mappings.list),
        (4, &tables.locations.list),
        (5, &tables.functions.list),
    ] {
        for entry in list {
            message(&mut out, field, entry);
        }
    }
    for text in &tables.strings.list {
        message(&mut out, 6, text);
    }
    number(
        &mut out,
        9,
        profile.ts.0.max(0).unsigned_abs().saturating_mul(1000),
    );
    number(&mut out, 10, profile.duration_ms.saturating_mul(1_000_000));
    message(&mut out, 11, &fault);
    number(&mut out, 12, profile.one_in);
    packed(&mut out, 13, &comments);
    number(&mut out, 14, kept);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&out)?;
    gzip.finish()
}

/// Entries that refer to each other by number: strings from 0, the others from 1.
#[derive(Default)]
struct Tables {
    strings: Table<String>,
    mappings: Table<(String, String)>,
    functions: Table<(String, String)>,
    locations: Table<Frame>,
}

/// Encoded entries and where each is.
struct Table<K> {
    list: Vec<Vec<u8>>,
    at: HashMap<K, u64>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Table {
            list: Vec::new(),
            at: HashMap::new(),
        }
    }
}

impl Tables {
    fn string(&mut self, text: &str) -> u64 {
        if let Some(at) = self.strings.at.get(text) {
            return *at;
        }
        let at = self.strings.list.len() as u64;
        self.strings.list.push(text.as_bytes().to_vec());
        self.strings.at.insert(text.to_owned(), at);
        at
    }

    fn value_type(&mut self, name: &str, unit: u64) -> Vec<u8> {
        let name = self.string(name);
        let mut out = Vec::new();
        number(&mut out, 1, name);
        number(&mut out, 2, unit);
        out
    }

    fn text_label(&mut self, key: &str, text: &str) -> Vec<u8> {
        let (key, text) = (self.string(key), self.string(text));
        let mut out = Vec::new();
        number(&mut out, 1, key);
        number(&mut out, 2, text);
        out
    }

    fn number_label(&mut self, key: &str, value: u64) -> Vec<u8> {
        let key = self.string(key);
        let mut out = Vec::new();
        number(&mut out, 1, key);
        number(&mut out, 3, value);
        out
    }

    fn mapping(&mut self, frame: &Frame) -> u64 {
        let Some(module) = &frame.module else {
            return 0;
        };
        let key = (module.clone(), frame.build_id.clone().unwrap_or_default());
        if let Some(at) = self.mappings.at.get(&key) {
            return *at;
        }
        let at = self.mappings.list.len() as u64 + 1;
        let (file, id) = (self.string(module), self.string(&key.1));
        let mut out = Vec::new();
        number(&mut out, 1, at);
        number(&mut out, 5, file);
        number(&mut out, 6, id);
        number(&mut out, 7, u64::from(frame.function.is_some()));
        self.mappings.list.push(out);
        self.mappings.at.insert(key, at);
        at
    }

    fn function(&mut self, frame: &Frame) -> u64 {
        let key = (frame.name(), frame.file.clone().unwrap_or_default());
        if let Some(at) = self.functions.at.get(&key) {
            return *at;
        }
        let at = self.functions.list.len() as u64 + 1;
        let (name, file) = (self.string(&key.0), self.string(&key.1));
        let mut out = Vec::new();
        number(&mut out, 1, at);
        number(&mut out, 2, name);
        number(&mut out, 3, name);
        number(&mut out, 4, file);
        self.functions.list.push(out);
        self.functions.at.insert(key, at);
        at
    }

    fn location(&mut self, frame: &Frame) -> u64 {
        if let Some(at) = self.locations.at.get(frame) {
            return *at;
        }
        let (mapping, function) = (self.mapping(frame), self.function(frame));
        let at = self.locations.list.len() as u64 + 1;
        let mut line = Vec::new();
        number(&mut line, 1, function);
        number(&mut line, 2, frame.line.map_or(0, u64::from));
        let mut out = Vec::new();
        number(&mut out, 1, at);
        number(&mut out, 2, mapping);
        number(&mut out, 3, frame.offset.unwrap_or(0));
        message(&mut out, 4, &line);
        self.locations.list.push(out);
        self.locations.at.insert(frame.clone(), at);
        at
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A varint field; 0 is the default and left out.
fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    if value != 0 {
        varint(out, field << 3);
        varint(out, value);
    }
}

/// A field of bytes: a message, a string, or packed numbers.
fn message(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn packed(out: &mut Vec<u8>, field: u64, values: &[u64]) {
    if values.is_empty() {
        return;
    }
    let mut bytes = Vec::new();
    for value in values {
        varint(&mut bytes, *value);
    }
    message(out, field, &bytes);
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::super::document::Stack;
    use super::*;

    /// Fields of a message: number, and varint or bytes.
    #[derive(Debug, PartialEq)]
    enum Field {
        Number(u64),
        Bytes(Vec<u8>),
    }

    fn take_varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    fn fields(mut bytes: &[u8]) -> Vec<(u64, Field)> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = take_varint(&mut bytes);
            let value = take_varint(&mut bytes);
            fields.push((
                key >> 3,
                if key & 7 == 2 {
                    let (content, rest) = bytes.split_at(value as usize);
                    bytes = rest;
                    Field::Bytes(content.to_vec())
                } else {
                    Field::Number(value)
                },
            ));
        }
        fields
    }

    fn bytes_of(fields: &[(u64, Field)], number: u64) -> Vec<Vec<u8>> {
        fields
            .iter()
            .filter_map(|(at, field)| match field {
                Field::Bytes(bytes) if *at == number => Some(bytes.clone()),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn every_sample_leads_to_its_functions_by_name() {
        let frame = |name: &str| Frame {
            function: Some(name.to_owned()),
            module: Some("/usr/bin/web".to_owned()),
            line: Some(300),
            ..Frame::default()
        };
        let profile = Profile {
            stacks: vec![Stack {
                pid: 300,
                comm: "web".to_owned(),
                kept_bytes: 1 << 20,
                faulted_bytes: 3 << 20,
                faults: 768,
                frames: vec![frame("memset"), frame("leak"), frame("main")],
                ..Stack::default()
            }],
            one_in: 4,
            ..Profile::default()
        };
        let file = encode(&profile).expect("it is written to memory");
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(file.as_slice())
            .read_to_end(&mut plain)
            .expect("gzip");
        let all = fields(&plain);
        let strings: Vec<String> = bytes_of(&all, 6)
            .into_iter()
            .map(|text| String::from_utf8(text).expect("UTF-8"))
            .collect();
        assert_eq!(strings[0], "", "the first string is empty");
        let string = |message: &[(u64, Field)], field: u64| {
            let at = message.iter().find_map(|(at, value)| match value {
                Field::Number(n) if *at == field => Some(*n as usize),
                _ => None,
            });
            strings[at.unwrap_or(0)].clone()
        };
        let kinds: Vec<String> = bytes_of(&all, 1)
            .iter()
            .map(|kind| string(&fields(kind), 1))
            .collect();
        assert_eq!(kinds, ["kept", "faulted", "file", "faults"]);
        let sample = fields(&bytes_of(&all, 2)[0]);
        let unpack = |bytes: &[u8]| {
            let mut bytes = bytes;
            let mut values = Vec::new();
            while !bytes.is_empty() {
                values.push(take_varint(&mut bytes));
            }
            values
        };
        assert_eq!(unpack(&bytes_of(&sample, 2)[0]), [1 << 20, 3 << 20, 0, 768]);
        let (locations, functions) = (bytes_of(&all, 4), bytes_of(&all, 5));
        let names: Vec<String> = unpack(&bytes_of(&sample, 1)[0])
            .into_iter()
            .map(|location| {
                let location = fields(&locations[location as usize - 1]);
                let line = fields(&bytes_of(&location, 4)[0]);
                let Some((1, Field::Number(function))) = line.first() else {
                    panic!("a line without a function: {line:?}");
                };
                string(&fields(&functions[*function as usize - 1]), 2)
            })
            .collect();
        assert_eq!(names, ["memset", "leak", "main"]);
        assert_eq!(bytes_of(&all, 3).len(), 1, "one mapping for one file");
    }
}
