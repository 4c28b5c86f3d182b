//! Folded stacks: one line a stack, the outermost frame first, `;` between frames, then a blank and the bytes. What flame
//! graph tools read.

use std::collections::BTreeMap;

use super::Value;
use super::document::{Profile, Stack};

/// Bytes by stack.
pub(super) type Folded = BTreeMap<String, u64>;

/// The stacks of a profile with what `value` says of them; those without any are left out.
pub(super) fn of_profile(profile: &Profile, value: Value) -> Folded {
    let mut folded = Folded::new();
    for stack in &profile.stacks {
        let bytes = value.of(stack);
        if bytes > 0 {
            *folded.entry(line(stack)).or_default() += bytes;
        }
    }
    folded
}

/// The text.
pub(super) fn text(folded: &Folded) -> String {
    folded
        .iter()
        .map(|(stack, bytes)| format!("{stack} {bytes}\n"))
        .collect()
}

/// Reads folded text. Lines of a stack that comes twice are added up.
///
/// # Errors
/// The number of the first line that is none, and why.
pub(super) fn parse(text: &str) -> Result<Folded, (usize, &'static str)> {
    let mut folded = Folded::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with("# ") {
            continue;
        }
        let (stack, bytes) = line
            .rsplit_once(' ')
            .ok_or((number + 1, "has no blank before its figure"))?;
        let bytes: u64 = bytes
            .parse()
            .map_err(|_| (number + 1, "does not end in a whole number"))?;
        let sum = folded.entry(stack.trim_end().to_owned()).or_default();
        *sum = sum.saturating_add(bytes);
    }
    Ok(folded)
}

fn line(stack: &Stack) -> String {
    let mut line = clean(&stack.comm);
    for frame in stack.frames.iter().rev() {
        line.push(';');
        line.push_str(&clean(&frame.name()));
        if frame.kernel {
            // As perf's tools mark them, and as flame graphs colour them.
            line.push_str("_[k]");
        }
    }
    line
}

/// Names come from other people's files: neither the separator nor a line's end may be in one.
fn clean(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            ';' => ':',
            c if c.is_control() => '?',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::document::Frame;
    use super::*;

    fn stack(comm: &str, kept_bytes: u64, names: &[&str]) -> Stack {
        Stack {
            comm: comm.to_owned(),
            kept_bytes,
            frames: names
                .iter()
                .map(|name| Frame {
                    function: Some((*name).to_owned()),
                    ..Frame::default()
                })
                .collect(),
            ..Stack::default()
        }
    }

    #[test]
    fn a_line_has_the_outermost_frame_first_and_is_read_again_as_it_was() {
        let profile = Profile {
            stacks: vec![
                stack("web", 8192, &["memset", "leak(int, char)", "main"]),
                stack("web", 4096, &["memset", "leak(int, char)", "main"]),
                stack("web", 0, &["gone"]),
            ],
            ..Profile::default()
        };
        let folded = of_profile(&profile, Value::Kept);
        let text = text(&folded);
        assert_eq!(text, "web;main;leak(int, char);memset 12288\n");
        assert_eq!(parse(&text), Ok(folded));
    }

    #[test]
    fn a_hostile_name_stays_on_its_line_and_in_its_frame() {
        let profile = Profile {
            stacks: vec![stack("a;b\nc", 1, &["x;y 7\n"])],
            ..Profile::default()
        };
        assert_eq!(text(&of_profile(&profile, Value::Kept)), "a:b?c;x:y 7? 1\n");
    }

    #[test]
    fn a_line_that_is_none_is_told_by_its_number() {
        assert_eq!(
            parse("a;b 1\n\nnothing\n"),
            Err((3, "has no blank before its figure"))
        );
        assert_eq!(parse("a;b -1"), Err((1, "does not end in a whole number")));
    }
}
