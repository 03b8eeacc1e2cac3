//! The time of `recovery_target_time`: its zone, and the moment that it means.
//!
//! From PostgreSQL 12 on the setting is read before the server knows its table of abbreviations: `EDT`, `CEST` and even
//! the `Z` of ISO 8601 stop it at its start (seen on 12, 15 and 18). Names of the time zone database, `EST` and `CET`
//! among them, and offsets are taken. 10 and 11 take abbreviations too.

mod reading;
mod zone;

use chrono::{DateTime, Utc};
use wale_pg::MajorVersion;

use self::reading::{Meaning, read};
use self::zone::{GREENWICH, is_one_of, named};
use super::mistake::Problem;

/// Words in a time that are no zones.
const NOT_ZONES: [&str; 26] = [
    "am", "pm", "ad", "bc", "t", "at", "on", "jan", "feb", "mar", "apr", "may", "jun", "jul",
    "aug", "sep", "oct", "nov", "dec", "mon", "tue", "wed", "thu", "fri", "sat", "sun",
];

/// Their long forms: what PostgreSQL's own table has.
const LONG_FORMS: [&str; 22] = [
    "january",
    "february",
    "march",
    "april",
    "june",
    "july",
    "august",
    "sept",
    "september",
    "october",
    "november",
    "december",
    "monday",
    "tues",
    "tuesday",
    "wednesday",
    "thur",
    "thurs",
    "thursday",
    "friday",
    "saturday",
    "sunday",
];

/// A target time needs a zone: without one it is the server's, and nobody remembers that one at night. The server
/// must accept the zone: otherwise it would refuse to start, after the whole restore.
pub(super) fn check(name: &str, value: &str, major: MajorVersion) -> Result<(), Problem> {
    let hint = || {
        Some(format!(
            "Write for example {name} = '2026-01-31 17:00:00 UTC'."
        ))
    };
    if ["now", "today", "tomorrow", "yesterday"]
        .contains(&value.trim().to_ascii_lowercase().as_str())
    {
        return Err((format!("{name} cannot be {value:?}"), hint()));
    }
    if !value.chars().any(|c| c.is_ascii_digit()) {
        return Err((format!("{name} holds no time: {value:?}"), hint()));
    }
    let zones = zones(value);
    if zones.is_empty() && !has_offset(value) {
        return Err((format!("{name} has no time zone: {value:?}"), hint()));
    }
    let refused = zones.into_iter().find(|(_, word)| !is_taken(word, major));
    match refused {
        None => understood(name, value),
        Some((_, word)) => Err((
            format!("PostgreSQL {major} refuses the time zone {word:?} in {name}"),
            Some(format!(
                "Write the offset from UTC instead, as in {name} = '2026-01-31 17:00:00+02', or the name of a place, \
                 as in '2026-01-31 17:00:00 Europe/Berlin'."
            )),
        )),
    }
}

/// A day or hour that does not exist would stop the server at its start, after the whole restore; one that depends on the
/// server's `DateStyle` cannot be compared with the ends of the backups.
fn understood(name: &str, value: &str) -> Result<(), Problem> {
    let hint = || {
        Some(format!(
            "Write year, month and day, the time of day and its zone, as in {name} = '2026-01-31 17:00:00+00'."
        ))
    };
    match read(value) {
        Meaning::Moment(_) | Meaning::Server => Ok(()),
        Meaning::Wrong(problem) => Err((
            format!("PostgreSQL refuses the time {value:?} in {name}: {problem}"),
            hint(),
        )),
        Meaning::Ambiguous(part) => Err((
            format!("{part:?} in {name} depends on the server's DateStyle, or is refused by it"),
            hint(),
        )),
    }
}

/// The time as it is written into the configuration: `Z` as `+00`, all else as it is.
pub(super) fn written(value: &str) -> String {
    let mut text = value.to_owned();
    for (start, word) in zones(value).into_iter().rev() {
        if is_one_of(&GREENWICH, word) {
            text.replace_range(start..start + word.len(), "+00");
        }
    }
    text
}

/// The moment that a target time means. `None` where only the server knows: rare forms, and zones that are rules such as
/// `UTC+2`. Of an hour that comes twice, the later; of one that the zone skips, as PostgreSQL counts on.
#[must_use]
pub fn instant(value: &str) -> Option<DateTime<Utc>> {
    match read(value) {
        Meaning::Moment(moment) => Some(moment),
        Meaning::Wrong(_) | Meaning::Ambiguous(_) | Meaning::Server => None,
    }
}

fn is_taken(word: &str, major: MajorVersion) -> bool {
    // What holds more than letters is a zone's whole name or a rule such as EST5EDT: only the server knows all of them.
    !major.has_recovery_signal()
        || !word.bytes().all(|byte| byte.is_ascii_alphabetic())
        || is_one_of(&GREENWICH, word)
        || named(word).is_some()
}

/// A sign after the time of day. The time of day holds the first colon; a sign before it is the date's.
fn has_offset(value: &str) -> bool {
    value
        .split_once(':')
        .is_some_and(|(_, rest)| rest.contains(['+', '-']))
}

/// The words that name a zone, each with its place in the text: all but months, days, AM, PM, AD, BC, the T of ISO 8601
/// and the words that PostgreSQL passes over. A word goes on as PostgreSQL reads it: with digits and `/ _ + - .` where
/// one of these follows its letters.
fn zones(value: &str) -> Vec<(usize, &str)> {
    let mut zones = Vec::new();
    let mut start = 0;
    while let Some(begin) = value[start..].find(|c: char| c.is_ascii_alphabetic()) {
        let begin = start + begin;
        let of_letters = |c: char| !c.is_ascii_alphabetic();
        let letters = value[begin..]
            .find(of_letters)
            .map_or(value.len(), |end| begin + end);
        let goes_on = value[letters..].starts_with(['/', '_', '+', '-', '.'])
            || value[letters..].starts_with(|c: char| c.is_ascii_digit())
                && !is_one_of(&NOT_ZONES, &value[begin..letters]);
        let end = if goes_on {
            let inside = |c: char| c.is_ascii_alphanumeric() || "/_+-.".contains(c);
            value[letters..]
                .find(|c| !inside(c))
                .map_or(value.len(), |end| letters + end)
        } else {
            letters
        };
        let first = &value[begin..letters];
        if !is_one_of(&NOT_ZONES, first) && !is_one_of(&LONG_FORMS, first) {
            zones.push((begin, &value[begin..end]));
        }
        start = end;
    }
    zones
}

#[cfg(test)]
mod tests {
    use super::*;

    fn major(number: u32) -> MajorVersion {
        MajorVersion::new(number).unwrap()
    }

    /// Zones that every version takes.
    const TAKEN: [&str; 22] = [
        " UTC",
        " utc",
        " GMT",
        " Zulu",
        "Z",
        " z",
        " EST",
        " CET",
        " MET",
        " HST",
        " Japan",
        " Europe/Berlin",
        " US/Eastern",
        " EST5EDT",
        " PST8PDT",
        " Etc/GMT-2",
        " GMT0",
        "+02",
        "+02:00",
        "-0330",
        " +2",
        " UTC+2",
    ];

    /// What real servers of 12, 15 and 18 take and refuse, each tried with `postgres -C`.
    #[test]
    fn fault_77_zones_that_the_version_refuses_are_refused_and_z_is_written_as_an_offset() {
        let name = "recovery_target_time";
        for zone in TAKEN {
            for date in [
                "2026-01-31 17:00:00",
                "2026-01-31T17:00:00.25",
                "31 Jan 2026 17:00:00",
            ] {
                let value = format!("{date}{zone}");
                for number in [10, 12, 18] {
                    assert_eq!(check(name, &value, major(number)), Ok(()), "{value}");
                }
            }
        }
        for zone in [" EDT", " CEST", " MSK", " +02 CEST", " PDT", " Nowhere"] {
            let value = format!("2026-07-31 17:00:00{zone}");
            for number in [10, 11] {
                assert_eq!(check(name, &value, major(number)), Ok(()), "{value}");
            }
            for number in [12, 15, 18] {
                let (problem, hint) = check(name, &value, major(number)).unwrap_err();
                assert!(problem.contains("refuses the time zone"), "{problem}");
                assert!(hint.unwrap().contains("17:00:00+02"));
            }
        }
        for (value, expected) in [
            ("2026-01-31T17:00:00Z", "2026-01-31T17:00:00+00"),
            ("2026-01-31 17:00:00 z", "2026-01-31 17:00:00 +00"),
            ("2026-01-31 17:00:00 Zulu", "2026-01-31 17:00:00 +00"),
            ("2026-01-31 17:00:00 UTC", "2026-01-31 17:00:00 UTC"),
            (
                "2026-01-31 17:00:00 Europe/Zurich",
                "2026-01-31 17:00:00 Europe/Zurich",
            ),
        ] {
            assert_eq!(written(value), expected);
        }
        for without in [
            "2026-01-31 17:00:00",
            "31 January 2026 5:00 pm",
            "2026-01-31T17:00:00",
            "Tues 2026-01-31 at 17:00",
        ] {
            let (problem, _) = check(name, without, major(15)).unwrap_err();
            assert!(problem.contains("no time zone"), "{problem}");
        }
    }

    #[test]
    fn a_moment_is_told_where_its_form_is_plain() {
        for (value, expected) in [
            ("2026-01-31 17:00:00+00", Some("2026-01-31T17:00:00Z")),
            ("2026-01-31T17:00:00.5Z", Some("2026-01-31T17:00:00.5Z")),
            ("2026-01-31 17:00 UTC", Some("2026-01-31T17:00:00Z")),
            (
                "2026-01-31 17:00:00.123456-03:30",
                Some("2026-01-31T20:30:00.123456Z"),
            ),
            ("2026-01-31 17:00:00+0530", Some("2026-01-31T11:30:00Z")),
            (
                "2026-07-31 17:00:00 europe/berlin",
                Some("2026-07-31T15:00:00Z"),
            ),
            // Twice in that night: the later, which no backup that ended before it can be refused for.
            (
                "2026-10-25 02:30:00 Europe/Berlin",
                Some("2026-10-25T01:30:00Z"),
            ),
            // Never in that night: PostgreSQL counts on from before.
            (
                "2026-03-29 02:30:00 Europe/Berlin",
                Some("2026-03-29T01:30:00Z"),
            ),
            ("20260131T170000Z", Some("2026-01-31T17:00:00Z")),
            // The next day, to PostgreSQL.
            ("20260131T250000Z", None),
            ("2026-1-5 7:05+00", Some("2026-01-05T07:05:00Z")),
            ("2026/01/31 17:00:00 +00", Some("2026-01-31T17:00:00Z")),
            ("31 January 2026 5:00 pm UTC", Some("2026-01-31T17:00:00Z")),
            (
                "Sat Jan 31 12:00:00.0000004 AM 2026 UTC",
                Some("2026-01-31T00:00:00Z"),
            ),
            ("31-Jan-2026, 24:00 -01", Some("2026-02-01T01:00:00Z")),
            ("2026-01-31 UTC", Some("2026-01-31T00:00:00Z")),
            ("2026-11-28 20:49:60+00", Some("2026-11-28T20:50:00Z")),
            ("2026-11-28 20:49:55+00 BC", None),
            ("2026-11-28 20:49.5+00", None),
            ("2026-01-31 17:00:00 EDT", None),
            ("2026-01-31 17:00:00 UTC+2", None),
            ("2026-01-31 17:00:00", None),
            ("31.01.2026 17:00:00+00", None),
            ("2026-01-31", None),
            ("", None),
            ("ä", None),
        ] {
            let expected = expected.map(|text| text.parse::<DateTime<Utc>>().unwrap());
            assert_eq!(instant(value), expected, "{value}");
        }
    }

    /// Each was refused by servers of 10, 15 and 18, or depends on their `DateStyle`.
    #[test]
    fn fault_77_a_time_that_no_server_takes_is_refused_and_so_is_an_order_that_it_decides() {
        for value in [
            "2026-11-28 25:49:55+00",
            "2026-13-28 20:49:55+00",
            "2026-02-29 20:49:55+00",
            "2026-11-28 20:60:00+00",
            "2026-11-28 20:49:61+00",
            "2026-11-28 24:00:01+00",
            "2026-11-28 20:49:55+16",
            "2026-11-28 20:49:55+02:60",
            "20261328T204955Z",
            "31 Feb 2026 20:49:55 UTC",
            "2026-11-28 13:00 pm UTC",
            "2026-11-28 2026-11-29 13:00 UTC",
            "0000-11-28 13:00 UTC",
            "20:49:55+00",
        ] {
            let (problem, hint) = check("recovery_target_time", value, major(15)).expect_err(value);
            assert!(problem.contains("PostgreSQL refuses the time"), "{problem}");
            assert!(hint.unwrap().contains("'2026-01-31 17:00:00+00'"));
        }
        for value in [
            "11/28/2026 20:49:55+00",
            "28.11.2026 20:49:55+00",
            "01-02-2026 20:49:55 UTC",
            "26-11-28 20:49:55 UTC",
        ] {
            let (problem, _) = check("recovery_target_time", value, major(15)).expect_err(value);
            assert!(problem.contains("DateStyle"), "{problem}");
        }
    }

    #[test]
    fn zones_are_told_from_other_words() {
        let cases = [
            ("2026-11-22 07:07:12.2+00", true),
            ("2026-11-22 07:07:12 +02:00", true),
            ("2026-11-22T07:07:12Z", true),
            ("2026-11-22T07:07:12", false),
            ("2026-11-22 07:07:12-08", true),
            ("2026-11-22 07:07:12 UTC", true),
            ("2026-11-22 07:07:12 Europe/Berlin", true),
            ("Nov 22 07:07:12 2026 CET", true),
            ("Sunday November 22 07:07:12 2026", false),
            ("2026-11-22 07:07:12 PM", false),
            ("2026-11-22 7:07:12 PM PST", true),
            ("2026-11-22", false),
            ("22 November 2026", false),
            ("20261122T070712", false),
        ];
        for (value, expected) in cases {
            let found = check("recovery_target_time", value, major(11));
            assert_eq!(found.is_ok(), expected, "{value}");
        }
    }
}
