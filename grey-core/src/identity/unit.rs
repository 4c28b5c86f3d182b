//! systemd's unit names: escaping, users, sessions and desktop applications.

use super::{Found, Kind};

/// Undoes systemd's escaping of unit names (systemd.unit(5)): `\x2d` is a dash. What is not a valid escape stays.
pub(super) fn unescape(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes[at..]
            .strip_prefix(b"\\x")
            .and_then(|rest| rest.get(..2))
            // from_str_radix would take a sign.
            .filter(|hex| hex.iter().all(u8::is_ascii_hexdigit))
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex {
            Some(value) => {
                out.push(value);
                at += 4;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A segment that is a unit, or `None`.
pub(super) fn unit(segment: &str) -> Option<Found> {
    let (stem, suffix) = segment.rsplit_once('.')?;
    if stem.is_empty() {
        return None;
    }
    let kind = match suffix {
        "service" => Some(Kind::Service),
        "scope" => Some(Kind::Scope),
        "slice" => Some(Kind::Slice),
        // They have cgroups for the commands they run, and no kind of their own.
        "mount" | "socket" | "swap" => None,
        _ => return None,
    };
    let mut found = Found {
        kind,
        name: unescape(segment),
        unit: Some(segment.to_owned()),
        ..Found::default()
    };
    match kind {
        Some(Kind::Slice) => {
            if let Some(uid) = stem.strip_prefix("user-").and_then(|uid| uid.parse().ok()) {
                found.kind = Some(Kind::User);
                found.uid = Some(uid);
                found.name = uid.to_string();
            }
        }
        Some(Kind::Scope) => {
            if stem.starts_with("session-") {
                found.kind = Some(Kind::Session);
            } else if let Some(app) = app_of_scope(stem) {
                found.name = app;
            }
        }
        Some(Kind::Service) => {
            if let Some(uid) = stem.strip_prefix("user@").and_then(|uid| uid.parse().ok()) {
                found.uid = Some(uid);
            } else if let Some(app) = app_of_service(stem) {
                found.name = app;
            }
        }
        _ => {}
    }
    Some(found)
}

/// `app[-<launcher>]-<ApplicationID>-<random>.scope` (systemd's "Desktop Environment Integration"), and snap's
/// `snap.<snap>.<app>[-.]<uuid>.scope`.
fn app_of_scope(stem: &str) -> Option<String> {
    if let Some(rest) = stem.strip_prefix("snap.") {
        return snap(rest);
    }
    let rest = stem.strip_prefix("app-")?;
    // The random part is mandatory in a scope.
    let (rest, _random) = rest.rsplit_once('-')?;
    application(rest)
}

/// `app[-<launcher>]-<ApplicationID>[@<random>].service`; older desktops wrote `-<random>`.
fn app_of_service(stem: &str) -> Option<String> {
    if let Some(rest) = stem.strip_prefix("snap.") {
        return snap(rest);
    }
    let rest = stem.strip_prefix("app-")?;
    let rest = match rest.split_once('@') {
        Some((rest, _random)) => rest,
        None => match rest.rsplit_once('-') {
            Some((before, random)) if is_random(random) => before,
            _ => rest,
        },
    };
    application(rest)
}

/// The last part: dashes inside an application id are escaped.
fn application(rest: &str) -> Option<String> {
    let id = rest.rsplit('-').next().filter(|id| !id.is_empty())?;
    Some(unescape(id))
}

fn is_random(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
        || (text.len() >= 16 && text.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// `firefox.firefox-<uuid>` → `firefox`; `lxd.daemon` → `lxd.daemon`.
fn snap(rest: &str) -> Option<String> {
    const UUID: usize = 36;
    let name = match rest.len().checked_sub(UUID + 1) {
        Some(cut) if rest.get(cut + 1..).is_some_and(is_uuid) => rest.get(..cut)?,
        _ => rest,
    };
    let (snap, app) = name.split_once('.')?;
    if snap.is_empty() || app.is_empty() {
        return None;
    }
    Some(if snap == app {
        snap.to_owned()
    } else {
        name.to_owned()
    })
}

/// 8-4-4-4-12 hex digits.
pub(super) fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}
