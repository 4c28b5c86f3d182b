//! Whether KSM pays, and if it merges nothing, why.

use grey_core::units::format_bytes as size;
use serde::Serialize;

use super::figures::{Users, profit, saved, tracked};
use super::rates::CPU_PCT;
use crate::host::Ksm;

/// Pages with an equal, of all KSM keeps track of, below which scanning them is for next to nothing.
const FEW: f64 = 0.05;

/// The judgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    /// Whether it pays; absent where that cannot be told (yet).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pays: Option<bool>,
    /// `pays`, `few_equals`, `no_equals`, `loss`, `changes_too_fast`, `not_scanned`, `nobody_offers`, `stopped`,
    /// `stopped_merged`, `unmerged`, `unknown`.
    pub id: &'static str,
    /// In words, with figures.
    pub text: String,
    /// What to do, where there is something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What is judged.
pub(super) struct Seen<'a> {
    pub ksm: &'a Ksm,
    pub users: &'a Users,
    /// Percent of a core that ksmd took while it was watched.
    pub cpu_pct: Option<f64>,
    /// Whole scans: since it was turned on if that was seen, else since boot.
    pub scans: Option<u64>,
    /// Whether it was seen being turned on.
    pub seen_on: bool,
    /// Whether the smart scan passed pages over while it was watched, as it does with those that would not merge.
    pub skipping: bool,
}

/// Bytes with a sign.
pub(super) fn signed(bytes: i64) -> String {
    let sign = if bytes < 0 { "-" } else { "" };
    format!("{sign}{}", size(bytes.unsigned_abs()))
}

/// Judges.
pub(super) fn judge(seen: &Seen<'_>) -> Verdict {
    let ksm = seen.ksm;
    let verdict = |pays, id, text: String| Verdict {
        pays,
        id,
        text,
        next: None,
    };
    let (Some(run), Some(saved), Some(tracked), Some((profit, _))) =
        (ksm.run, saved(ksm), tracked(ksm), profit(ksm))
    else {
        return verdict(
            None,
            "unknown",
            "not all of KSM's figures can be read".to_owned(),
        );
    };
    let cpu = seen.cpu_pct.map_or(String::new(), |pct| {
        format!(", at {pct:.1} % of a core for scanning")
    });
    let page = rustix::param::page_size() as u64;
    let kept = size(tracked.saturating_mul(page));
    let offering = match seen.users.offering {
        Some(1) => " by 1 process".to_owned(),
        Some(count) if count > 0 => format!(" by {count} processes"),
        _ => String::new(),
    };
    match run {
        0 if saved == 0 => {
            return Verdict {
                next: Some(
                    "grey-ebpf enforce ksm on --lease 60s    turns it on for a minute and judges"
                        .to_owned(),
                ),
                ..verdict(
                    None,
                    "stopped",
                    "KSM is off: it saves nothing and costs nothing".to_owned(),
                )
            };
        }
        0 => {
            return verdict(
                Some(profit > 0),
                "stopped_merged",
                format!(
                    "KSM is off and costs no CPU; what was merged before stays so and still saves {} (net {}), less with each write to it",
                    size(saved),
                    signed(profit)
                ),
            );
        }
        2 => {
            return verdict(
                None,
                "unmerged",
                "KSM is off and everything is unmerged (run is 2)".to_owned(),
            );
        }
        _ => {}
    }
    if saved > 0 {
        let share = saved as f64 / page as f64 / (tracked.max(1) as f64);
        let text = format!(
            "{} saved of {kept} offered{offering}, net {} after KSM's own memory{cpu}",
            size(saved),
            signed(profit)
        );
        return if profit <= 0 {
            Verdict {
                next: off(),
                ..verdict(Some(false), "loss", format!("it does not pay: {text}"))
            }
        } else if share < FEW {
            Verdict {
                next: off(),
                ..verdict(
                    Some(false),
                    "few_equals",
                    format!("it does not pay: next to all of the scanning is for nothing: {text}"),
                )
            }
        } else {
            Verdict {
                next: seen.cpu_pct.filter(|pct| *pct > CPU_PCT as f64).map(|_| {
                    "it takes more CPU than need be once all is merged: raise sleep_millisecs, or use the advisor (6.8)".to_owned()
                }),
                ..verdict(Some(true), "pays", format!("it pays: {text}"))
            }
        };
    }
    if tracked == 0 && !(seen.users.tells_all && seen.users.offering > Some(0)) {
        return Verdict {
            next: Some("start the program so that it offers its memory: QEMU -machine mem-merge=on, systemd MemoryKSM=yes, or madvise(MADV_MERGEABLE)".to_owned()),
            ..verdict(
                None,
                "nobody_offers",
                format!("not merging because no process has offered memory with madvise(MADV_MERGEABLE) or prctl(PR_SET_MEMORY_MERGE){cpu}"),
            )
        };
    }
    // A page is only merged when a second scan finds it unchanged.
    if seen.scans.is_none_or(|scans| scans < 2) {
        return Verdict {
            next: Some(
                "wait until full_scans has risen by 2, or scan faster with --aggressive".to_owned(),
            ),
            ..verdict(
                None,
                "not_scanned",
                format!(
                    "not merging yet because all offered memory has to be scanned twice for it, and was {}{cpu}",
                    match seen.scans {
                        Some(1) => "once",
                        _ => "not once",
                    }
                ),
            )
        };
    }
    let (unshared, volatile) = (
        ksm.pages_unshared.unwrap_or(0),
        ksm.pages_volatile.unwrap_or(0),
    );
    // Pages that the smart scan passes over count as volatile.
    let smart = ksm.smart_scan == Some(true) && ksm.pages_skipped > Some(0);
    let (id, why) = if seen.skipping || (smart && unshared > 0) {
        (
            "no_equals",
            "the offered memory has no equal pages, or changes too fast to be merged",
        )
    } else if unshared == 0 && !seen.seen_on {
        // The scans since boot may all be from before this memory was offered.
        return verdict(
            None,
            "changes_too_fast",
            format!(
                "not merging because all of the offered memory ({kept}{offering}) changes faster than it is scanned, or was offered only just now{cpu}"
            ),
        );
    } else if volatile > unshared {
        (
            "changes_too_fast",
            "most of the offered memory changes faster than it is scanned",
        )
    } else {
        ("no_equals", "the offered memory has no equal pages")
    };
    Verdict {
        next: off(),
        ..verdict(
            Some(false),
            id,
            format!(
                "it does not pay: not merging because {why} ({kept} offered{offering}, net {}){cpu}",
                signed(profit)
            ),
        )
    }
}

fn off() -> Option<String> {
    Some("grey-ebpf enforce ksm off    ends the scanning".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ksm(run: u64, shared: u64, sharing: u64, unshared: u64, volatile: u64) -> Ksm {
        Ksm {
            run: Some(run),
            pages_shared: Some(shared),
            pages_sharing: Some(sharing),
            pages_unshared: Some(unshared),
            pages_volatile: Some(volatile),
            ..Ksm::default()
        }
    }

    fn id(ksm: &Ksm, users: &Users, scans: Option<u64>) -> (Option<bool>, &'static str) {
        let verdict = judge(&Seen {
            ksm,
            users,
            cpu_pct: Some(3.0),
            scans,
            seen_on: false,
            skipping: false,
        });
        (verdict.pays, verdict.id)
    }

    #[test]
    fn each_state_has_its_verdict() {
        let none = Users::default();
        let told = |offering| Users {
            looked_at: Some(9),
            offering: Some(offering),
            tells_all: true,
            ..Users::default()
        };
        let cases = [
            (ksm(0, 0, 0, 0, 0), &none, Some(0), (None, "stopped")),
            (
                ksm(0, 1, 99, 0, 0),
                &none,
                Some(9),
                (Some(true), "stopped_merged"),
            ),
            (ksm(2, 0, 0, 0, 0), &none, Some(9), (None, "unmerged")),
            (ksm(1, 0, 0, 0, 0), &none, Some(9), (None, "nobody_offers")),
            (
                ksm(1, 0, 0, 0, 0),
                &told(0),
                Some(9),
                (None, "nobody_offers"),
            ),
            (ksm(1, 0, 0, 0, 0), &told(1), Some(1), (None, "not_scanned")),
            (ksm(1, 0, 0, 0, 99), &none, Some(0), (None, "not_scanned")),
            (ksm(1, 0, 0, 0, 99), &none, None, (None, "not_scanned")),
            (
                ksm(1, 0, 0, 0, 99),
                &none,
                Some(2),
                (None, "changes_too_fast"),
            ),
            (
                ksm(1, 0, 0, 9, 99),
                &none,
                Some(2),
                (Some(false), "changes_too_fast"),
            ),
            (
                ksm(1, 0, 0, 99, 9),
                &none,
                Some(2),
                (Some(false), "no_equals"),
            ),
            (ksm(1, 1, 1, 9999, 0), &none, Some(2), (Some(false), "loss")),
            (
                ksm(1, 1, 40, 960, 0),
                &none,
                Some(2),
                (Some(false), "few_equals"),
            ),
            (ksm(1, 1, 60, 940, 0), &none, Some(2), (Some(true), "pays")),
            // Merged pages are proof enough that there were scans.
            (ksm(1, 1, 60, 0, 0), &none, Some(0), (Some(true), "pays")),
            (Ksm::default(), &none, Some(2), (None, "unknown")),
        ];
        for (ksm, users, scans, want) in cases {
            assert_eq!(id(&ksm, users, scans), want, "{ksm:?}");
        }
    }

    #[test]
    fn pages_that_the_smart_scan_passes_over_are_not_taken_for_volatile_ones() {
        let unlike = ksm(1, 0, 0, 0, 99);
        let seen = Seen {
            ksm: &unlike,
            users: &Users::default(),
            cpu_pct: None,
            scans: Some(9),
            seen_on: false,
            skipping: true,
        };
        assert_eq!(judge(&seen).id, "no_equals");
        assert_eq!(judge(&seen).pays, Some(false));
        // Between two such scans.
        let between = Ksm {
            smart_scan: Some(true),
            pages_skipped: Some(7),
            ..ksm(1, 0, 0, 9, 99)
        };
        let seen = Seen {
            ksm: &between,
            skipping: false,
            ..seen
        };
        assert_eq!(judge(&seen).id, "no_equals");
    }

    #[test]
    fn the_kernels_own_profit_decides_where_it_tells_one() {
        let own = ksm(1, 1, 60, 0, 0);
        let told = Ksm {
            general_profit: Some(-1),
            ..own
        };
        assert_eq!(id(&told, &Users::default(), Some(2)), (Some(false), "loss"));
    }

    #[test]
    fn the_words_carry_the_figures() {
        let ksm = ksm(1, 256, 256 * 99, 0, 0);
        let users = Users {
            offering: Some(2),
            ..Users::default()
        };
        let verdict = judge(&Seen {
            ksm: &ksm,
            users: &users,
            cpu_pct: Some(4.25),
            scans: Some(3),
            seen_on: true,
            skipping: false,
        });
        if rustix::param::page_size() == 4096 {
            assert_eq!(
                verdict.text,
                "it pays: 99M saved of 100M offered by 2 processes, net 97M after KSM's own memory, at 4.2 % of a core for scanning"
            );
        }
    }
}
