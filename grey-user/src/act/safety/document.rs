//! A TOML file as tables whose keys are taken one by one, so that what is wrong is told with its line, its key and the
//! remedy, and what nobody took is unknown.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use grey_core::units::{self, Size, format_bytes, format_duration_us};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {what}")]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// Counts from 1.
    pub line: usize,
    /// The key, what is wrong with it, and what to do.
    pub what: String,
}

/// A whole file.
#[derive(Debug)]
pub struct Document<'a> {
    file: &'a str,
    text: &'a str,
    root: Spanned<DeTable<'a>>,
}

impl<'a> Document<'a> {
    /// Reads the text of `file`.
    ///
    /// # Errors
    /// It is no TOML.
    pub fn parse(file: &'a str, text: &'a str) -> Result<Document<'a>, ConfigError> {
        let root = DeTable::parse(text).map_err(|error| ConfigError {
            file: file.to_owned(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            // The parser puts what it expected on a line of its own.
            what: error.message().lines().collect::<Vec<_>>().join(", "),
        })?;
        Ok(Document { file, text, root })
    }

    /// The table of this name, an empty one where it is not there.
    ///
    /// # Errors
    /// There is a value in its place.
    pub fn table<'b>(&'b self, name: &'b str) -> Result<Table<'b>, ConfigError> {
        let entry = self.root.get_ref().get(name);
        let values = match entry.map(|entry| (entry.get_ref(), entry.span())) {
            None => None,
            Some((DeValue::Table(table), _)) => Some(table),
            Some((_, span)) => {
                return Err(self.error(
                    &span,
                    format!("{name}: is no table; write [{name}] on a line of its own"),
                ));
            }
        };
        Ok(Table {
            document: self,
            name,
            values,
            asked: RefCell::default(),
        })
    }

    /// Fails at the first table that is not among these.
    ///
    /// # Errors
    /// See there.
    pub fn only(&self, tables: &[&str]) -> Result<(), ConfigError> {
        let names = self.root.get_ref().keys();
        match names
            .filter(|name| !tables.contains(&name.get_ref().as_ref()))
            .min_by_key(|name| name.span().start)
        {
            None => Ok(()),
            Some(name) => Err(self.error(
                &name.span(),
                format!(
                    "{}: is not known; known are the tables {}",
                    name.get_ref().escape_debug(),
                    list(tables)
                ),
            )),
        }
    }

    fn error(&self, span: &Range<usize>, what: String) -> ConfigError {
        ConfigError {
            file: self.file.to_owned(),
            line: line_of(self.text, span.start),
            what,
        }
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

/// One table. Each key that is asked for is known from then on.
#[derive(Debug)]
pub struct Table<'a> {
    document: &'a Document<'a>,
    name: &'a str,
    values: Option<&'a DeTable<'a>>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Table<'a> {
    fn value(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().push(key);
        self.values?.get(key)
    }

    /// Whether the key is there.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.values.is_some_and(|values| values.contains_key(key))
    }

    /// An error at a key's value.
    #[must_use]
    pub fn error(&self, key: &'static str, why: &str) -> ConfigError {
        let value = self.values.and_then(|values| values.get(key));
        let span = value.map_or(0..0, Spanned::span);
        self.document
            .error(&span, format!("{}.{key}: {why}", self.name))
    }

    fn string(&self, key: &'static str, example: &str) -> Result<Option<&'a str>, ConfigError> {
        match self.value(key).map(Spanned::get_ref) {
            None => Ok(None),
            Some(DeValue::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.error(
                key,
                &format!("is written as a string, such as \"{example}\""),
            )),
        }
    }

    /// A size in bytes.
    ///
    /// # Errors
    /// It is none, or out of bounds.
    pub fn size(
        &self,
        key: &'static str,
        bounds: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ConfigError> {
        let Some(text) = self.string(key, "64M")? else {
            return Ok(None);
        };
        match units::parse_size(text) {
            Ok(Size::Bytes(bytes)) if bounds.contains(&bytes) => Ok(Some(bytes)),
            Ok(Size::Bytes(bytes)) => Err(self.error(
                key,
                &format!(
                    "{} is out of bounds; write {} to {}",
                    format_bytes(bytes),
                    format_bytes(*bounds.start()),
                    format_bytes(*bounds.end())
                ),
            )),
            Ok(Size::Percent(_)) => Err(self.error(key, "is a size in bytes, such as \"64M\"")),
            Err(error) => Err(self.error(key, &error.to_string())),
        }
    }

    /// A time.
    ///
    /// # Errors
    /// It is none, or out of bounds.
    pub fn duration(
        &self,
        key: &'static str,
        bounds: RangeInclusive<Duration>,
    ) -> Result<Option<Duration>, ConfigError> {
        let Some(text) = self.string(key, "30s")? else {
            return Ok(None);
        };
        let told = |time: &Duration| format_duration_us(time.as_micros() as u64);
        match units::parse_duration(text) {
            Ok(time) if bounds.contains(&time) => Ok(Some(time)),
            Ok(time) => Err(self.error(
                key,
                &format!(
                    "{} is out of bounds; write {} to {}",
                    told(&time),
                    told(bounds.start()),
                    told(bounds.end())
                ),
            )),
            Err(error) => Err(self.error(key, &error.to_string())),
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// It is none, or out of bounds.
    pub fn count(
        &self,
        key: &'static str,
        bounds: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ConfigError> {
        match self.value(key).map(Spanned::get_ref) {
            None => Ok(None),
            Some(DeValue::Integer(number)) => {
                let digits = u64::from_str_radix(number.as_str(), number.radix());
                match digits.ok().filter(|number| bounds.contains(number)) {
                    Some(number) => Ok(Some(number)),
                    None => Err(self.error(
                        key,
                        &format!(
                            "{number} is out of bounds; write {} to {}",
                            bounds.start(),
                            bounds.end()
                        ),
                    )),
                }
            }
            Some(_) => Err(self.error(key, "is a whole number without quotes")),
        }
    }

    /// A percentage over 0 and up to 100.
    ///
    /// # Errors
    /// It is none, or out of bounds.
    pub fn percent(&self, key: &'static str) -> Result<Option<f64>, ConfigError> {
        let number: Option<f64> = match self.value(key).map(Spanned::get_ref) {
            None => return Ok(None),
            Some(DeValue::Integer(number)) => number.as_str().parse().ok(),
            Some(DeValue::Float(number)) => number.as_str().parse().ok(),
            Some(_) => return Err(self.error(key, "is a number without quotes, such as 40")),
        };
        match number.filter(|number| *number > 0.0 && *number <= 100.0) {
            Some(number) => Ok(Some(number)),
            None => Err(self.error(key, "is a percentage over 0 and up to 100")),
        }
    }

    /// A list of strings.
    ///
    /// # Errors
    /// It is none.
    pub fn strings(&self, key: &'static str) -> Result<Option<Vec<String>>, ConfigError> {
        let wrong = || self.error(key, "is a list of strings, such as [\"web.service\"]");
        match self.value(key).map(Spanned::get_ref) {
            None => Ok(None),
            Some(DeValue::Array(values)) => values
                .iter()
                .map(|value| Ok(value.get_ref().as_str().ok_or_else(wrong)?.to_owned()))
                .collect::<Result<_, _>>()
                .map(Some),
            Some(_) => Err(wrong()),
        }
    }

    /// An absolute path.
    ///
    /// # Errors
    /// It is none.
    pub fn path(&self, key: &'static str) -> Result<Option<std::path::PathBuf>, ConfigError> {
        match self.string(key, "/var/lib/grey-ebpf")? {
            None => Ok(None),
            Some(path) if path.starts_with('/') && !path.contains('\0') => Ok(Some(path.into())),
            Some(_) => Err(self.error(key, "is an absolute path, such as \"/var/lib/grey-ebpf\"")),
        }
    }

    /// Fails at the first key that nobody asked for.
    ///
    /// # Errors
    /// See there.
    pub fn finish(&self) -> Result<(), ConfigError> {
        let asked = self.asked.borrow();
        let keys = self.values.into_iter().flat_map(|values| values.keys());
        match keys
            .filter(|key| !asked.contains(&key.get_ref().as_ref()))
            .min_by_key(|key| key.span().start)
        {
            None => Ok(()),
            Some(key) => Err(self.document.error(
                &key.span(),
                format!(
                    "{}.{}: is not known; known are {}",
                    self.name,
                    key.get_ref().escape_debug(),
                    list(&asked)
                ),
            )),
        }
    }
}
