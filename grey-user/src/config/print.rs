//! What holds, as TOML: a key that no file sets is a comment with its default.

use super::document::Entry;

/// The whole configuration; read again it gives the same.
pub(super) fn toml(entries: &[Entry]) -> String {
    let mut out = String::new();
    let mut last: Option<(&str, Option<usize>)> = None;
    for entry in entries {
        let table = (entry.table.as_str(), entry.element);
        if last != Some(table) {
            if last.is_some() {
                out.push('\n');
            }
            let there = entries.iter().any(|other| {
                (other.table.as_str(), other.element) == table && other.set_by.is_some()
            });
            out.push_str(&match entry.element {
                None => format!("[{}]\n", entry.table),
                // An empty one would be an error.
                Some(_) if !there => format!("#[[{}]]\n", entry.table),
                Some(_) => format!("[[{}]]\n", entry.table),
            });
            last = Some(table);
        }
        let Entry {
            key,
            about,
            bounds,
            default,
            value,
            ..
        } = entry;
        out.push_str(&match &entry.set_by {
            None => format!("# {about} ({bounds})\n#{key} = {default}\n"),
            Some((file, line)) => {
                format!("# {about} ({bounds}; default {default})\n# set by {file}:{line}\n{key} = {value}\n")
            }
        });
    }
    out
}
