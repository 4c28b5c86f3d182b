//! Which limits a cgroup may be given, and what is to be said of them: rules over what is known, no I/O.

use grey_core::act::KnobFile;
use grey_core::units::format_bytes;

use crate::act::session::refused;
use crate::cli::Failure;

/// What is known of the cgroup and the machine; limits as they will be, `None` for none.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// memory.current.
    pub used: Option<u64>,
    /// MemTotal.
    pub total: Option<u64>,
    /// Whether the machine has swap.
    pub swap: bool,
    /// The least a limit may be.
    pub least: u64,
    /// memory.max may call the OOM killer.
    pub force: bool,
    /// Afterwards.
    pub after: Limits,
    /// The nearest cgroup above that protects less, by memory.min and by memory.low: its path and how much.
    pub above: [Option<(String, u64)>; 2],
}

/// The limits of a cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub min: u64,
    pub low: u64,
    pub high: Option<u64>,
    pub max: Option<u64>,
}

/// Whether this file may be set to so many bytes (`None` for `max`).
///
/// # Errors
/// It may not (exit 4).
pub(super) fn allowed(facts: &Facts, file: KnobFile, bytes: Option<u64>) -> Result<(), Failure> {
    let name = file.name();
    match (file, bytes) {
        (KnobFile::MemoryHigh | KnobFile::MemoryMax, Some(bytes)) if bytes < facts.least => {
            Err(refused(format!(
                "{name}: {} is under {}, the least a limit may be",
                format_bytes(bytes),
                format_bytes(facts.least)
            )))
        }
        (KnobFile::MemoryMax, Some(bytes)) => under_use(facts.used, bytes, facts.force),
        (KnobFile::MemoryMin | KnobFile::MemoryLow, bytes) => match facts.total {
            Some(total) if bytes.is_none_or(|bytes| bytes > total) => Err(refused(format!(
                "{name}: {} is more than the machine has ({}): reclaim would find nothing anywhere, and the OOM killer would come instead",
                bytes.map_or_else(|| "max".to_owned(), format_bytes),
                format_bytes(total)
            ))),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Whether memory.max may be this with so much in use.
///
/// # Errors
/// It is under current use (exit 4).
pub(super) fn under_use(used: Option<u64>, max: u64, force: bool) -> Result<(), Failure> {
    match used {
        Some(used) if max < used && !force => Err(refused(format!(
            "memory.max: {} is under the {} in use, which calls the OOM killer; lower memory.high first, or --force",
            format_bytes(max),
            format_bytes(used)
        ))),
        _ => Ok(()),
    }
}

/// What the limits do to each other, as far as it concerns those that are set.
pub(super) fn notes(facts: &Facts, set: &[KnobFile]) -> Vec<String> {
    let Limits {
        min,
        low,
        high,
        max,
    } = facts.after;
    let any = |files: &[KnobFile]| set.iter().any(|file| files.contains(file));
    let mut notes = Vec::new();
    if any(&[KnobFile::MemoryHigh, KnobFile::MemoryMax])
        && let Some((high, max)) = high.zip(max)
        && high > max
    {
        notes.push(format!(
            "memory.high ({}) is above memory.max ({}): nothing slows it down before the OOM killer comes",
            format_bytes(high),
            format_bytes(max)
        ));
    }
    for (file, protected, above) in [
        (KnobFile::MemoryMin, min, &facts.above[0]),
        (KnobFile::MemoryLow, low, &facts.above[1]),
    ] {
        let upper = [(KnobFile::MemoryHigh, high), (KnobFile::MemoryMax, max)];
        for (limit, bytes) in upper {
            if any(&[file, limit])
                && let Some(bytes) = bytes
                && protected > bytes
            {
                notes.push(format!(
                    "{} ({}) is above {} ({}): what it protects cannot be reclaimed to keep that limit",
                    file.name(),
                    format_bytes(protected),
                    limit.name(),
                    format_bytes(bytes)
                ));
            }
        }
        if any(&[file])
            && let Some((path, bytes)) = above
            && *bytes < protected
        {
            notes.push(format!(
                "{} of {path} is {}: no more than that is protected against the rest of the machine",
                file.name(),
                format_bytes(*bytes)
            ));
        }
    }
    if any(&[KnobFile::SwapMax]) && !facts.swap {
        notes.push("the machine has no swap: memory.swap.max has no effect for now".to_owned());
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;
    const G: u64 = 1 << 30;

    fn facts() -> Facts {
        Facts {
            used: Some(300 * M),
            total: Some(8 * G),
            swap: true,
            least: 64 * M,
            ..Facts::default()
        }
    }

    fn why(facts: &Facts, file: KnobFile, bytes: Option<u64>) -> Option<String> {
        let failure = allowed(facts, file, bytes).err()?;
        assert_eq!(failure.exit, crate::cli::Exit::Refused);
        Some(failure.message)
    }

    #[test]
    fn no_limit_is_under_the_least_and_memory_max_not_under_current_use() {
        let facts = facts();
        for file in [KnobFile::MemoryHigh, KnobFile::MemoryMax] {
            assert!(why(&facts, file, Some(64 * M - 1)).unwrap().contains("64M"));
            assert_eq!(why(&facts, file, None), None);
        }
        assert_eq!(why(&facts, KnobFile::MemoryHigh, Some(64 * M)), None);
        assert!(
            why(&facts, KnobFile::MemoryMax, Some(299 * M))
                .unwrap()
                .contains("300M in use")
        );
        assert_eq!(why(&facts, KnobFile::MemoryMax, Some(300 * M)), None);
        let forced = Facts {
            force: true,
            ..facts
        };
        assert_eq!(why(&forced, KnobFile::MemoryMax, Some(299 * M)), None);
        // Not even by force.
        assert!(why(&forced, KnobFile::MemoryMax, Some(M)).is_some());
    }

    #[test]
    fn nothing_protects_more_than_the_machine_has() {
        for file in [KnobFile::MemoryMin, KnobFile::MemoryLow] {
            assert_eq!(why(&facts(), file, Some(8 * G)), None);
            assert!(why(&facts(), file, Some(8 * G + 1)).is_some());
            assert!(why(&facts(), file, None).is_some());
        }
        assert_eq!(why(&facts(), KnobFile::SwapMax, Some(100 * G)), None);
    }

    #[test]
    fn limits_that_work_against_each_other_are_told_when_one_of_them_is_set() {
        let mut facts = facts();
        facts.after = Limits {
            min: 600 * M,
            low: 0,
            high: Some(500 * M),
            max: Some(400 * M),
        };
        facts.above[0] = Some(("/a".to_owned(), 10 * M));
        let told = notes(&facts, &[KnobFile::MemoryMax]);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("memory.high (500M) is above memory.max (400M)"));
        assert!(told[1].contains("memory.min (600M) is above memory.max"));
        let told = notes(&facts, &[KnobFile::MemoryMin]);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[2].contains("memory.min of /a is 10M"));
        assert_eq!(notes(&facts, &[KnobFile::MemoryLow]), Vec::<String>::new());
        facts.swap = false;
        assert_eq!(notes(&facts, &[KnobFile::SwapMax]).len(), 1);
    }
}
