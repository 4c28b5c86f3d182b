//! TOML files laid over one another as tables whose keys are taken one by one, so that what is wrong is told with its
//! file, line, key and remedy, what nobody took is unknown, and every key is listed with its default.

use std::cell::RefCell;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::files::Source;

mod keys;

/// What is wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {}{what}", key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default())]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// Counts from 1.
    pub line: usize,
    /// The key with its table; absent where the file is no TOML.
    pub key: Option<String>,
    /// What is wrong with it, and what to do.
    pub what: String,
}

/// A key as it was taken.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The table, such as `govern.guest`.
    pub table: String,
    /// Which of the tables of an array; absent for an ordinary one.
    pub element: Option<usize>,
    /// Its name.
    pub key: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// What may be written.
    pub bounds: String,
    /// The default as it would be written; an example where there is none.
    pub default: String,
    /// What holds, as it would be written.
    pub value: String,
    /// File and line that set it; absent for the default.
    pub set_by: Option<(String, usize)>,
}

/// The files, those later in the list over those before.
#[derive(Debug)]
pub struct Document<'a> {
    sources: &'a [Source],
    /// Those that are TOML.
    layers: Vec<Layer<'a>>,
    errors: RefCell<Vec<ConfigError>>,
    entries: RefCell<Vec<Entry>>,
}

#[derive(Debug)]
struct Layer<'a> {
    file: &'a str,
    text: &'a str,
    root: DeTable<'a>,
}

impl Layer<'_> {
    fn line(&self, span: &Range<usize>) -> usize {
        line_of(self.text, span.start)
    }
}

fn line_of(text: &str, at: usize) -> usize {
    let before = &text.as_bytes()[..at.min(text.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

fn list(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

impl<'a> Document<'a> {
    /// Reads the files; one that is no TOML is left out and told.
    pub(super) fn parse(sources: &'a [Source]) -> Document<'a> {
        let mut layers = Vec::new();
        let mut errors = Vec::new();
        for Source { name: file, text } in sources {
            match DeTable::parse(text) {
                Ok(root) => layers.push(Layer {
                    file,
                    text,
                    root: root.into_inner(),
                }),
                Err(error) => errors.push(ConfigError {
                    file: file.clone(),
                    line: line_of(text, error.span().map_or(0, |span| span.start)),
                    key: None,
                    // The parser puts what it expected on a line of its own.
                    what: error.message().lines().collect::<Vec<_>>().join(", "),
                }),
            }
        }
        Document {
            sources,
            layers,
            errors: RefCell::new(errors),
            entries: RefCell::default(),
        }
    }

    /// The table that holds all others.
    pub(super) fn root(&self) -> Table<'_> {
        Table {
            document: self,
            name: String::new(),
            element: None,
            layers: self
                .layers
                .iter()
                .map(|layer| (layer, &layer.root))
                .collect(),
            asked: Vec::new(),
        }
    }

    /// What was found wrong, in the order of files and lines, and every key that was asked for.
    pub(super) fn end(self) -> (Vec<ConfigError>, Vec<Entry>) {
        let mut errors = self.errors.into_inner();
        let place = |file: &str| self.sources.iter().position(|source| source.name == file);
        errors.sort_by_key(|error| (place(&error.file), error.line));
        errors.dedup();
        (errors, self.entries.into_inner())
    }
}

/// One table in all files. Each key that is asked for is known from then on.
#[derive(Debug)]
pub struct Table<'d> {
    document: &'d Document<'d>,
    name: String,
    element: Option<usize>,
    layers: Vec<(&'d Layer<'d>, &'d DeTable<'d>)>,
    asked: Vec<&'static str>,
}

impl<'d> Table<'d> {
    fn full(&self, key: &str) -> String {
        match self.name.as_str() {
            "" => key.to_owned(),
            name => format!("{name}.{key}"),
        }
    }

    fn fail(&self, layer: &Layer<'_>, span: &Range<usize>, key: &str, what: String) {
        self.document.errors.borrow_mut().push(ConfigError {
            file: layer.file.to_owned(),
            line: layer.line(span),
            key: Some(self.full(key)),
            what,
        });
    }

    /// The key's values, the one that holds last.
    fn values(&self, key: &str) -> Vec<(&'d Layer<'d>, &'d Spanned<DeValue<'d>>)> {
        self.layers
            .iter()
            .filter_map(|(layer, table)| Some((*layer, table.get(key)?)))
            .collect()
    }

    /// Whether the key is in any file.
    pub(super) fn has(&self, key: &str) -> bool {
        !self.values(key).is_empty()
    }

    /// An error at the value of a key that holds; nothing where no file has it.
    pub(super) fn wrong(&self, key: &'static str, why: &str) {
        if let Some((layer, value)) = self.values(key).last() {
            self.fail(layer, &value.span(), key, why.to_owned());
        }
    }

    /// The table of this name in this one.
    pub(super) fn table(&mut self, key: &'static str) -> Table<'d> {
        self.asked.push(key);
        let mut layers = Vec::new();
        for (layer, value) in self.values(key) {
            match value.get_ref() {
                DeValue::Table(table) => layers.push((layer, table)),
                _ => self.fail(
                    layer,
                    &value.span(),
                    key,
                    format!(
                        "is no table; write [{}] on a line of its own",
                        self.full(key)
                    ),
                ),
            }
        }
        Table {
            document: self.document,
            name: self.full(key),
            element: None,
            layers,
            asked: Vec::new(),
        }
    }

    /// The tables of an array, those of all files one after the other.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Table<'d>> {
        self.asked.push(key);
        let mut tables = Vec::new();
        for (layer, value) in self.values(key) {
            let elements = value.get_ref().as_array().map(|array| {
                array
                    .iter()
                    .map(|element| element.get_ref().as_table())
                    .collect::<Option<Vec<_>>>()
            });
            match elements.flatten() {
                Some(elements) => tables.extend(elements.into_iter().map(|table| (layer, table))),
                None => self.fail(
                    layer,
                    &value.span(),
                    key,
                    format!(
                        "is no list of tables; write [[{}]] on a line of its own",
                        self.full(key)
                    ),
                ),
            }
        }
        tables
            .into_iter()
            .enumerate()
            .map(|(element, table)| self.element(key, element, vec![table]))
            .collect()
    }

    /// A table of an array that is in no file: what its keys would be.
    pub(super) fn sample(&self, key: &'static str) -> Table<'d> {
        self.element(key, 0, Vec::new())
    }

    fn element(
        &self,
        key: &'static str,
        element: usize,
        layers: Vec<(&'d Layer<'d>, &'d DeTable<'d>)>,
    ) -> Table<'d> {
        Table {
            document: self.document,
            name: self.full(key),
            element: Some(element),
            layers,
            asked: Vec::new(),
        }
    }

    /// An error at the table itself.
    pub(super) fn lacks(&self, key: &'static str, why: &str) {
        for (layer, table) in &self.layers {
            let at = table.keys().map(|key| key.span().start).min();
            let at = at.unwrap_or_default();
            self.fail(layer, &(at..at), key, why.to_owned());
        }
    }

    /// Tells of every key that nobody asked for.
    pub(super) fn finish(self) {
        let what = match self.name.as_str() {
            "" => "the tables ",
            _ => "",
        };
        for (layer, table) in &self.layers {
            for key in table.keys() {
                let name = key.get_ref().as_ref();
                if !self.asked.contains(&name) {
                    self.fail(
                        layer,
                        &key.span(),
                        &name.escape_debug().to_string(),
                        format!("is not known; known are {what}{}", list(&self.asked)),
                    );
                }
            }
        }
    }
}
