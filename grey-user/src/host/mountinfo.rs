//! /proc/self/mountinfo (proc(5)): which file systems are mounted where.

use std::path::PathBuf;

use super::{Host, HostError};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The directory of the file system that is seen at the mount point; `/` unless it is a bind mount of a part.
    pub root: String,
    /// Where it is mounted.
    pub point: PathBuf,
    /// File system type.
    pub fstype: String,
    /// Options of the file system, as `rw,memory`.
    pub super_options: String,
}

/// All mounts this process sees, in the order they were made.
///
/// # Errors
/// Where mountinfo cannot be read.
pub fn mounts(host: &Host) -> Result<Vec<Mount>, HostError> {
    Ok(host
        .text("/proc/self/mountinfo")?
        .lines()
        .filter_map(parse_line)
        .collect())
}

fn parse_line(line: &str) -> Option<Mount> {
    // The optional fields in the middle vary in number and end with a lone dash.
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let mut right = right.split(' ');
    let root = unescape(left.next()?);
    let point = PathBuf::from(unescape(left.next()?));
    let fstype = right.next()?.to_owned();
    let super_options = right.nth(1).unwrap_or_default().to_owned();
    Some(Mount {
        root,
        point,
        fstype,
        super_options,
    })
}

/// Blanks, tabs, newlines and backslashes come as `\040`, `\011`, `\012` and `\134`.
fn unescape(field: &str) -> String {
    if !field.contains('\\') {
        return field.to_owned();
    }
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes
            .get(at + 1..at + 4)
            .filter(|_| bytes[at] == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = octal {
            out.push(byte);
            at += 4;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_fields_and_escapes_are_understood() {
        let none =
            parse_line("41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw")
                .unwrap();
        assert_eq!(
            (none.fstype.as_str(), none.super_options.as_str()),
            ("cgroup2", "rw")
        );
        let many = parse_line(
            "35 24 0:30 /a\\134b /mnt/my\\040disk rw,nosuid shared:9 master:2 - cgroup2 cgroup2 rw,nsdelegate",
        )
        .unwrap();
        assert_eq!(many.point, PathBuf::from("/mnt/my disk"));
        assert_eq!(many.root, "/a\\b");
        assert_eq!(many.super_options, "rw,nsdelegate");
    }

    #[test]
    fn a_cut_or_odd_line_is_skipped() {
        for line in [
            "",
            "41 31",
            "41 31 0:38 / /x rw",
            "41 31 0:38 / /x rw -",
            "a b c - d",
        ] {
            assert_eq!(parse_line(line), None, "{line}");
        }
        assert_eq!(unescape("a\\0"), "a\\0");
        assert_eq!(unescape("a\\9zz"), "a\\9zz");
    }
}
