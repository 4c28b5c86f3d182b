//! The kinds of values: how each is read, kept within its bounds, and written again.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use grey_core::units::{self, Size, format_bytes, format_duration_us};
use toml::de::DeValue;

use super::{Entry, Table};

type Value<'a> = DeValue<'a>;

impl Table<'_> {
    /// Takes a key: every file's value is looked at, the last one holds.
    fn take<T>(
        &mut self,
        (key, about): (&'static str, &'static str),
        bounds: String,
        field: &mut T,
        show: impl Fn(&T) -> String,
        read: impl Fn(&Value<'_>) -> Result<T, String>,
    ) {
        self.asked.push(key);
        let default = show(field);
        let mut set_by = None;
        for (layer, value) in self.values(key) {
            match read(value.get_ref()) {
                Ok(read) => {
                    *field = read;
                    set_by = Some((layer.file.to_owned(), layer.line(&value.span())));
                }
                Err(why) => self.fail(layer, &value.span(), key, why),
            }
        }
        self.document.entries.borrow_mut().push(Entry {
            table: self.name.clone(),
            element: self.element,
            key,
            about,
            bounds,
            default,
            value: show(field),
            set_by,
        });
    }

    /// A key that may be left out: `example` is what it could be.
    pub(in crate::config) fn optional<T: Clone>(
        &mut self,
        key: &'static str,
        example: T,
        field: &mut Option<T>,
        take: impl FnOnce(&mut Self, &mut T),
    ) {
        let there = self.has(key);
        let errors = self.document.errors.borrow().len();
        let mut value = example;
        take(self, &mut value);
        if there && self.document.errors.borrow().len() == errors {
            *field = Some(value);
        }
    }

    /// A size in bytes.
    pub(in crate::config) fn size(
        &mut self,
        key: (&'static str, &'static str),
        bounds: RangeInclusive<u64>,
        field: &mut u64,
    ) {
        let told = format!(
            "a size, {} to {}",
            exact_size(*bounds.start()),
            exact_size(*bounds.end())
        );
        let show = |bytes: &u64| quoted(&exact_size(*bytes));
        self.take(key, told, field, show, |value| {
            let text = string(value, "64M")?;
            match units::parse_size(text).map_err(|error| error.to_string())? {
                Size::Bytes(bytes) if bounds.contains(&bytes) => Ok(bytes),
                Size::Bytes(bytes) => Err(format!(
                    "{} is out of bounds; write {} to {}",
                    format_bytes(bytes),
                    format_bytes(*bounds.start()),
                    format_bytes(*bounds.end())
                )),
                Size::Percent(_) => Err("is a size in bytes, such as \"64M\"".to_owned()),
            }
        });
    }

    /// A time.
    pub(in crate::config) fn duration(
        &mut self,
        key: (&'static str, &'static str),
        bounds: RangeInclusive<Duration>,
        field: &mut Duration,
    ) {
        let told = format!(
            "a time, {} to {}",
            exact_time(*bounds.start()),
            exact_time(*bounds.end())
        );
        let show = |time: &Duration| quoted(&exact_time(*time));
        self.take(key, told, field, show, |value| {
            let text = string(value, "30s")?;
            let time = units::parse_duration(text).map_err(|error| error.to_string())?;
            if bounds.contains(&time) {
                return Ok(time);
            }
            let told = |time: &Duration| format_duration_us(time.as_micros() as u64);
            Err(format!(
                "{} is out of bounds; write {} to {}",
                told(&time),
                told(bounds.start()),
                told(bounds.end())
            ))
        });
    }

    /// A time that is kept in microseconds.
    pub(in crate::config) fn micros(
        &mut self,
        key: (&'static str, &'static str),
        bounds: RangeInclusive<Duration>,
        field: &mut i64,
    ) {
        let mut time = Duration::from_micros((*field).unsigned_abs());
        self.duration(key, bounds, &mut time);
        // The bounds are far below 2^63 µs.
        *field = time.as_micros() as i64;
    }

    /// A whole number.
    pub(in crate::config) fn count(
        &mut self,
        key: (&'static str, &'static str),
        bounds: RangeInclusive<u64>,
        field: &mut u64,
    ) {
        let told = format!("a whole number, {} to {}", bounds.start(), bounds.end());
        self.take(key, told, field, u64::to_string, |value| {
            let DeValue::Integer(number) = value else {
                return Err("is a whole number without quotes".to_owned());
            };
            let digits = u64::from_str_radix(number.as_str(), number.radix());
            digits
                .ok()
                .filter(|number| bounds.contains(number))
                .ok_or_else(|| {
                    format!(
                        "{number} is out of bounds; write {} to {}",
                        bounds.start(),
                        bounds.end()
                    )
                })
        });
    }

    /// A percentage over 0 and up to 100.
    pub(in crate::config) fn percent(
        &mut self,
        key: (&'static str, &'static str),
        field: &mut f64,
    ) {
        let told = "a percentage over 0 and up to 100".to_owned();
        self.take(key, told, field, f64::to_string, |value| {
            number(value)?
                .filter(|number| *number > 0.0 && *number <= 100.0)
                .ok_or_else(|| "is a percentage over 0 and up to 100".to_owned())
        });
    }

    /// A number with or without a fraction.
    pub(in crate::config) fn number(
        &mut self,
        key: (&'static str, &'static str),
        bounds: RangeInclusive<f64>,
        field: &mut f64,
    ) {
        let told = format!("a number, {} to {}", bounds.start(), bounds.end());
        self.take(key, told, field, f64::to_string, |value| {
            number(value)?
                .filter(|number| bounds.contains(number))
                .ok_or_else(|| {
                    format!(
                        "is out of bounds; write {} to {}",
                        bounds.start(),
                        bounds.end()
                    )
                })
        });
    }

    /// Yes or no.
    pub(in crate::config) fn flag(&mut self, key: (&'static str, &'static str), field: &mut bool) {
        let told = "true or false".to_owned();
        self.take(key, told, field, bool::to_string, |value| {
            value
                .as_bool()
                .ok_or_else(|| "is true or false, without quotes".to_owned())
        });
    }

    /// A list of strings, each of which `check` lets pass.
    pub(in crate::config) fn strings(
        &mut self,
        key: (&'static str, &'static str),
        bounds: &str,
        example: &str,
        field: &mut Vec<String>,
        check: impl Fn(&str) -> Result<(), String>,
    ) {
        let show = |items: &Vec<String>| quoted_list(items);
        self.take(key, bounds.to_owned(), field, show, |value| {
            let items = strings(value, example)?;
            items.iter().try_for_each(|item| check(item))?;
            Ok(items)
        });
    }

    /// A list of things that have a text of their own.
    pub(in crate::config) fn list<T>(
        &mut self,
        key: (&'static str, &'static str),
        bounds: &str,
        example: &str,
        field: &mut Vec<T>,
    ) where
        T: FromStr + Display,
        T::Err: Display,
    {
        let show = |items: &Vec<T>| {
            let texts: Vec<String> = items.iter().map(ToString::to_string).collect();
            quoted_list(&texts)
        };
        self.take(key, bounds.to_owned(), field, show, |value| {
            strings(value, example)?
                .iter()
                .map(|item| item.parse().map_err(|error: T::Err| error.to_string()))
                .collect()
        });
    }

    /// A string that says what it is.
    pub(in crate::config) fn text<T>(
        &mut self,
        key: (&'static str, &'static str),
        bounds: &str,
        field: &mut T,
        show: impl Fn(&T) -> String,
        read: impl Fn(&str) -> Result<T, String>,
    ) {
        let example = show(field);
        let shown = |value: &T| quoted(&show(value));
        self.take(key, bounds.to_owned(), field, shown, |value| {
            read(string(value, &example)?)
        });
    }

    /// An absolute path.
    pub(in crate::config) fn path(
        &mut self,
        key: (&'static str, &'static str),
        field: &mut PathBuf,
    ) {
        let example = field.display().to_string();
        let show = |path: &PathBuf| path.display().to_string();
        self.text(key, "an absolute path", field, show, |text| {
            if text.starts_with('/') && !text.contains('\0') {
                Ok(text.into())
            } else {
                Err(format!("is an absolute path, such as \"{example}\""))
            }
        });
    }
}

fn string<'a>(value: &'a Value<'_>, example: &str) -> Result<&'a str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("is written as a string, such as \"{example}\""))
}

fn strings(value: &Value<'_>, example: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("is a list of strings, such as [\"{example}\"]");
    let items = value.as_array().ok_or_else(wrong)?;
    items
        .iter()
        .map(|item| Ok(item.get_ref().as_str().ok_or_else(wrong)?.to_owned()))
        .collect()
}

fn number(value: &Value<'_>) -> Result<Option<f64>, String> {
    match value {
        DeValue::Integer(number) => Ok(number.as_str().parse().ok()),
        DeValue::Float(number) => Ok(number.as_str().parse().ok()),
        _ => Err("is a number without quotes, such as 40".to_owned()),
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "\""
}

fn quoted_list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

/// The largest unit that divides it, so that nothing is rounded.
fn exact_size(bytes: u64) -> String {
    [(40, "T"), (30, "G"), (20, "M"), (10, "K")]
        .into_iter()
        .find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift)
        .map_or_else(
            || bytes.to_string(),
            |(shift, unit)| format!("{}{unit}", bytes >> shift),
        )
}

/// As [`exact_size`].
fn exact_time(time: Duration) -> String {
    let us = time.as_micros();
    [
        (86_400_000_000, "d"),
        (3_600_000_000, "h"),
        (60_000_000, "m"),
        (1_000_000, "s"),
        (1_000, "ms"),
    ]
    .into_iter()
    .find(|(unit, _)| us != 0 && us.is_multiple_of(*unit))
    .map_or_else(
        || format!("{us}us"),
        |(unit, name)| format!("{}{name}", us / unit),
    )
}
