//! Times at which something is due: `minute hour day-of-month month day-of-week` as cron has them, or a calendar time
//! such as `02:30`, `Mon..Fri 22:00` and `Sat,Sun 04:15`. Local time, to the minute.

use std::fmt;
use std::str::FromStr;

use crate::time::Timestamp;

const MINUTE_US: i64 = 60_000_000;
/// A look back further than this (a suspended machine) finds each time once at most.
const LOOK_BACK_MINUTES: i64 = 24 * 60;

/// A set of minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    minutes: u64,
    hours: u32,
    days: u32,
    months: u16,
    weekdays: u8,
    /// Both a day of the month and a day of the week are named: either will do, as in cron.
    either_day: bool,
}

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is no time: {0}; write \"02:30\", \"Mon..Fri 22:00\" or five fields of cron such as \"30 2 * * 1-5\""
)]
pub struct ScheduleError(String);

impl Schedule {
    /// Whether one of its minutes began after `from` and not after `to`.
    #[must_use]
    pub fn due(&self, from: Timestamp, to: Timestamp, utc_offset_s: i32) -> bool {
        let minute =
            |at: Timestamp| (at.0 + i64::from(utc_offset_s) * 1_000_000).div_euclid(MINUTE_US);
        let (from, to) = (minute(from), minute(to));
        let from = from.max(to - LOOK_BACK_MINUTES);
        (from + 1..=to).any(|minute| self.holds(minute))
    }

    /// Whether it names this minute since 1970, local time.
    fn holds(&self, minute: i64) -> bool {
        let (day, of_day) = (minute.div_euclid(1440), minute.rem_euclid(1440));
        let bit = |set: u64, at: u64| set >> at & 1 == 1;
        if !bit(self.minutes, (of_day % 60) as u64) || !bit(self.hours.into(), (of_day / 60) as u64)
        {
            return false;
        }
        let (month, day_of_month) = civil(day);
        if !bit(self.months.into(), month) {
            return false;
        }
        // 1970 began on a Thursday.
        let weekday = bit(self.weekdays.into(), (day + 4).rem_euclid(7) as u64);
        let day = bit(self.days.into(), day_of_month);
        if self.either_day {
            weekday || day
        } else {
            weekday && day
        }
    }
}

/// Month and day of month of a day since 1970 (Howard Hinnant's `civil_from_days`).
fn civil(day: i64) -> (u64, u64) {
    let z = day + 719_468;
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (month as u64, day as u64)
}

const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MONTHS: [&str; 13] = [
    "", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let fields = match words.as_slice() {
            [time] => calendar("*", time)?,
            [days, time] => calendar(days, time)?,
            [minute, hour, day, month, weekday] => Fields {
                minutes: field(minute, 0..=59, &[])?,
                hours: field(hour, 0..=23, &[])?,
                days: field(day, 1..=31, &[])?,
                months: field(month, 1..=12, &MONTHS)?,
                // 7 is Sunday, too.
                weekdays: fold_sunday(field(weekday, 0..=7, &WEEKDAYS)?),
                either_day: *day != "*" && *weekday != "*",
            },
            _ => return Err(ScheduleError(format!("{text:?} has {} words", words.len()))),
        };
        Ok(Schedule {
            text: words.join(" "),
            minutes: fields.minutes,
            hours: fields.hours as u32,
            days: fields.days as u32,
            months: fields.months as u16,
            weekdays: fields.weekdays as u8,
            either_day: fields.either_day,
        })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    either_day: bool,
}

fn fold_sunday(weekdays: u64) -> u64 {
    (weekdays | weekdays >> 7) & 0x7f
}

fn calendar(days: &str, time: &str) -> Result<Fields, ScheduleError> {
    let wrong = || ScheduleError(format!("{time:?} is no hour and minute"));
    let (hour, minute) = time.split_once(':').ok_or_else(wrong)?;
    // "2:3" is a slip of the pen more often than a time.
    if minute.len() != 2 {
        return Err(wrong());
    }
    Ok(Fields {
        minutes: field(minute, 0..=59, &[])?,
        hours: field(hour, 0..=23, &[])?,
        days: u64::MAX,
        months: u64::MAX,
        weekdays: fold_sunday(field(&days.replace("..", "-"), 0..=7, &WEEKDAYS)?),
        either_day: false,
    })
}

/// A set of numbers: `*`, `5`, `1-5`, `*/15`, `0-30/10`, and lists of these; with names where there are any.
fn field(
    text: &str,
    bounds: std::ops::RangeInclusive<u64>,
    names: &[&str],
) -> Result<u64, ScheduleError> {
    let wrong = |why: &str| ScheduleError(format!("{text:?} {why}"));
    let number = |word: &str| -> Result<u64, ScheduleError> {
        let lower = word.to_ascii_lowercase();
        // "Monday" as well as "Mon".
        let name = names
            .iter()
            .position(|name| !name.is_empty() && lower.starts_with(name));
        let number = match name {
            Some(at) => at as u64,
            None => word.parse().map_err(|_| wrong("is no number"))?,
        };
        if bounds.contains(&number) {
            Ok(number)
        } else {
            Err(wrong(&format!(
                "is not within {} and {}",
                bounds.start(),
                bounds.end()
            )))
        }
    };
    let mut set = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let step: usize = step.parse().map_err(|_| wrong("has no step"))?;
                if step == 0 || step > 59 {
                    return Err(wrong("has a step that leads nowhere"));
                }
                (range, step)
            }
            None => (part, 1),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (*bounds.start(), *bounds.end()),
            Some((first, last)) => (number(first)?, number(last)?),
            None if step > 1 => (number(range)?, *bounds.end()),
            None => (number(range)?, number(range)?),
        };
        // Friday to Monday goes over the end of the week.
        let wraps = first > last && !names.is_empty();
        if first > last && !wraps {
            return Err(wrong("ends before it begins"));
        }
        if wraps {
            for at in (first..=*bounds.end()).chain(*bounds.start()..=last) {
                set |= 1 << at;
            }
        } else {
            for at in (first..=last).step_by(step) {
                set |= 1 << at;
            }
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Whether it is due in the minute that begins at `text`.
    fn due(schedule: &str, text: &str) -> bool {
        let to = at(text);
        let from = Timestamp(to.0 - 1);
        schedule.parse::<Schedule>().unwrap().due(from, to, 0)
    }

    #[test]
    fn cron_fields_and_calendar_times_name_the_minutes_that_they_say() {
        // 2026-11-21 is a Saturday.
        for (schedule, time, want) in [
            ("02:30", "2026-11-21T02:30:00Z", true),
            ("02:30", "2026-11-21T02:31:00Z", false),
            ("02:30", "2026-11-21T14:30:00Z", false),
            ("Sat 02:30", "2026-11-21T02:30:00Z", true),
            ("Saturday 02:30", "2026-11-21T02:30:00Z", true),
            ("Mon..Fri 02:30", "2026-11-21T02:30:00Z", false),
            ("Fri..Mon 02:30", "2026-11-21T02:30:00Z", true),
            ("Fri..Mon 02:30", "2026-11-24T02:30:00Z", false),
            ("Sat,Sun 02:30", "2026-11-22T02:30:00Z", true),
            ("* * * * *", "2026-11-21T17:17:00Z", true),
            ("*/15 * * * *", "2026-11-21T17:45:00Z", true),
            ("*/15 * * * *", "2026-11-21T17:46:00Z", false),
            ("5-20/5 * * * *", "2026-11-21T17:20:00Z", true),
            ("5-20/5 * * * *", "2026-11-21T17:25:00Z", false),
            ("0 4 21 * *", "2026-11-21T04:00:00Z", true),
            ("0 4 21 nov *", "2026-11-21T04:00:00Z", true),
            ("0 4 21 dec *", "2026-11-21T04:00:00Z", false),
            ("0 4 * * 7", "2026-11-22T04:00:00Z", true),
            ("0 4 * * 0", "2026-11-22T04:00:00Z", true),
            // Either day will do where both are named.
            ("0 4 1 * sat", "2026-11-21T04:00:00Z", true),
            ("0 4 21 * mon", "2026-11-21T04:00:00Z", true),
            ("0 4 1 * mon", "2026-11-21T04:00:00Z", false),
            ("0 0 29 2 *", "2028-02-29T00:00:00Z", true),
            ("0 0 1 3 *", "2027-03-01T00:00:00Z", true),
            ("59 23 31 12 *", "1999-12-31T23:59:00Z", true),
        ] {
            assert_eq!(due(schedule, time), want, "{schedule} at {time}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_with_its_reason() {
        for text in [
            "",
            "noon",
            "25:00",
            "02:60",
            "2:3",
            "0230",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * 32 * *",
            "* * * 13 *",
            "* * * * 8",
            "*/0 * * * *",
            "*/x * * * *",
            "9-5 * * * *",
            "1 2 3",
            "* * * * * *",
            "-1 * * * *",
            "Nonday 02:30",
            "99999999999999999999 * * * *",
        ] {
            let error = text.parse::<Schedule>().unwrap_err().to_string();
            assert!(error.starts_with("is no time: "), "{text}: {error}");
        }
    }

    #[test]
    fn a_time_is_due_once_however_seldom_one_looks() {
        let schedule: Schedule = "02:30".parse().unwrap();
        for step_s in [1, 7, 59, 61, 600, 3600] {
            let mut now = at("2026-11-21T00:00:13Z");
            let end = at("2026-11-24T00:00:00Z");
            let mut count = 0;
            while now < end {
                let then = now;
                now = Timestamp(now.0 + step_s * 1_000_000);
                count += u32::from(schedule.due(then, now, 0));
            }
            assert_eq!(count, 3, "every {step_s} s");
        }
        // A machine that slept for a month does not do it thirty times.
        assert!(schedule.due(at("2026-10-01T00:00:00Z"), at("2026-11-24T00:00:00Z"), 0));
        // A clock that was set back.
        assert!(!schedule.due(at("2026-11-21T02:31:00Z"), at("2026-11-21T02:29:00Z"), 0));
    }

    #[test]
    fn times_are_local() {
        let schedule: Schedule = "02:30".parse().unwrap();
        let (from, to) = (at("2026-11-21T01:29:59Z"), at("2026-11-21T01:30:00Z"));
        assert!(schedule.due(from, to, 3600));
        assert!(!schedule.due(from, to, 0));
        let (from, to) = (at("2026-11-21T10:29:59Z"), at("2026-11-21T10:30:00Z"));
        assert!(schedule.due(from, to, -8 * 3600));
    }
}
