//! When a base backup is due: a five-field cron line in a time zone.
//!
//! Pure: it is told what time it is. It refuses to know what is run at the slots.
//!
//! Invariants: a `Schedule` that exists has a next run (impossible dates such as 30 February are found when it is
//! parsed); seconds, years and `@daily`-like names are refused, because croner would silently take six fields and
//! read the first as seconds. Day of month and day of week combine as OR, as in cron.

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use wale_pg::Zone;

/// A cron line that will come due, and the zone whose wall clock it speaks of.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    cron: Cron,
    zone: Zone,
}

impl Schedule {
    /// Parses minute, hour, day of month, month, day of week.
    ///
    /// # Errors
    ///
    /// One line that says what is wrong: not five fields, a value out of range, or a date that never comes.
    ///
    /// ```
    /// use wale_pg::Zone;
    /// use wale_service::Schedule;
    /// assert!(Schedule::parse("30 3 * * *", Zone::named("Europe/Berlin").unwrap()).is_ok());
    /// assert!(Schedule::parse("0 30 3 * * *", Zone::UTC).is_err());
    /// ```
    pub fn parse(cron: &str, zone: Zone) -> Result<Self, String> {
        if cron.contains(['"', '\'']) {
            return Err(format!(
                "{} holds quotes, which no schedule has: only a shell takes them off",
                cron.escape_default()
            ));
        }
        let fields: Vec<&str> = cron.split_whitespace().collect();
        if fields.len() != 5 {
            return Err(format!(
                "\"{}\" has {} fields, a schedule has five: minute, hour, day of month, month, day of week",
                cron.escape_default(),
                fields.len()
            ));
        }
        let text = fields.join(" ");
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let parsed = parser.parse(&text).map_err(|error| {
            let shown = text.escape_default();
            out_of_range(&fields).unwrap_or_else(|| format!("\"{shown}\": {error}"))
        })?;
        let schedule = Self {
            text,
            cron: parsed,
            zone,
        };
        // A fixed instant, not the clock: a date that comes at all comes within the search limit from here.
        if schedule.next_after(DateTime::UNIX_EPOCH).is_none() {
            return Err(format!(
                "\"{}\" names a date that never comes",
                schedule.text
            ));
        }
        Ok(schedule)
    }

    /// The same in another zone.
    #[must_use]
    pub fn in_zone(self, zone: Zone) -> Self {
        Self { zone, ..self }
    }

    /// The first slot strictly after `after`; none only where the calendar of the library ends (year 5000).
    #[must_use]
    pub(crate) fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let local = after.with_timezone(&self.zone);
        let next = self.cron.find_next_occurrence(&local, false).ok()?;
        Some(next.with_timezone(&Utc))
    }

    /// The latest slot in `(last, now]`, when a run was missed: many missed slots are one run to catch up.
    #[must_use]
    pub(crate) fn missed_since(
        &self,
        last: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        if self.next_after(last)? > now {
            return None;
        }
        let local = now.with_timezone(&self.zone);
        let previous = self.cron.find_previous_occurrence(&local, true).ok()?;
        Some(previous.with_timezone(&Utc))
    }

    /// The five fields as they were understood, one space between them.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The zone's name.
    #[must_use]
    pub fn zone(&self) -> &'static str {
        self.zone.name()
    }
}

/// The first number of a field that is out of its range, in words.
fn out_of_range(fields: &[&str]) -> Option<String> {
    const RANGES: [(&str, u32, u32); 5] = [
        ("minute", 0, 59),
        ("hour", 0, 23),
        ("day of month", 1, 31),
        ("month", 1, 12),
        ("day of week", 0, 7),
    ];
    fields.iter().zip(RANGES).find_map(|(field, (name, least, most))| {
        let numbers = field.split(|character: char| !character.is_ascii_digit());
        let wrong = numbers
            .filter_map(|number| number.parse::<u32>().ok())
            .find(|number| !(least..=most).contains(number))?;
        Some(format!(
            "\"{}\": the {name} {wrong} is not within {least} and {most}; the order is minute, hour, day of month, month, day \
             of week",
            fields.join(" ").escape_default()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn fault_101_what_is_wrong_is_told_in_words() {
        for (text, told) in [
            ("\"0 0 * * *\"", "quotes"),
            ("'0 0 * * *'", "quotes"),
            ("0 25 * * *", "the hour 25 is not within 0 and 23"),
            ("60 0 * * *", "the minute 60"),
            ("0 0 1-32 * *", "the day of month 32"),
            ("0 0 * 0 *", "the month 0"),
            ("0 0 * * 8", "the day of week 8"),
            ("0 0 * *", "has 4 fields"),
        ] {
            let problem = Schedule::parse(text, Zone::UTC).unwrap_err();
            assert!(problem.contains(told), "{text}: {problem}");
        }
    }

    #[test]
    fn five_fields_only() {
        for good in [
            "0 0 * * *",
            " 0\t0 * * *  ",
            "*/15 * * * *",
            "0 3 1,15 * SUN",
            "59 23 31 12 *",
            "0 0 29 2 *",
        ] {
            assert!(Schedule::parse(good, Zone::UTC).is_ok(), "{good}");
        }
        let bad = [
            "",
            "off",
            "* * * *",
            "0 0 0 * * *",
            "0 0 * * * 2026",
            "@daily",
            "60 0 * * *",
            "0 24 * * *",
            "0 0 0 * *",
            "0 0 * 13 *",
            "a b c d e",
            "0 0 30 2 *",
            "0 0 31 4,6 *",
            "0 0 * * 8",
            "0 0 * * \u{1f600}",
        ];
        for text in bad {
            assert!(
                Schedule::parse(text, Zone::UTC).is_err(),
                "{text} was taken"
            );
        }
    }

    #[test]
    fn next_follows_the_zone() {
        let cases = [
            (
                "0 0 * * *",
                Zone::UTC,
                "2026-03-01T00:00:00Z",
                "2026-03-02T00:00:00Z",
            ),
            (
                "0 0 * * *",
                Zone::UTC,
                "2026-03-01T00:00:01Z",
                "2026-03-02T00:00:00Z",
            ),
            (
                "0 0 * * *",
                Zone::named("Europe/Berlin").unwrap(),
                "2026-01-10T22:59:59Z",
                "2026-01-10T23:00:00Z",
            ),
            (
                "0 0 * * *",
                Zone::named("Europe/Berlin").unwrap(),
                "2026-07-10T21:59:59Z",
                "2026-07-10T22:00:00Z",
            ),
            // Day of month or day of week: the 15th, or a Monday.
            (
                "0 0 15 * 1",
                Zone::UTC,
                "2026-06-09T00:00:00Z",
                "2026-06-15T00:00:00Z",
            ),
            (
                "0 0 13 * 1",
                Zone::UTC,
                "2026-06-09T00:00:00Z",
                "2026-06-13T00:00:00Z",
            ),
            // 02:30 does not exist on this night in Berlin: the run is not lost.
            (
                "30 2 * * *",
                Zone::named("Europe/Berlin").unwrap(),
                "2026-03-28T12:00:00Z",
                "2026-03-29T01:00:00Z",
            ),
        ];
        for (cron, zone, after, expected) in cases {
            let schedule = Schedule::parse(cron, zone).unwrap();
            assert_eq!(
                schedule.next_after(at(after)),
                Some(at(expected)),
                "{cron} {zone:?} {after}"
            );
        }
    }

    #[test]
    fn a_missed_run_is_found_once() {
        let schedule = Schedule::parse("0 0 * * *", Zone::UTC).unwrap();
        let cases = [
            ("2026-03-01T00:00:02Z", "2026-03-01T23:59:59Z", None),
            (
                "2026-03-01T00:00:02Z",
                "2026-03-02T00:00:00Z",
                Some("2026-03-02T00:00:00Z"),
            ),
            (
                "2026-03-01T00:00:02Z",
                "2026-03-09T12:00:00Z",
                Some("2026-03-09T00:00:00Z"),
            ),
            // A clock that was set back: nothing was missed.
            ("2026-03-09T00:00:00Z", "2026-03-01T00:00:00Z", None),
        ];
        for (last, now, expected) in cases {
            assert_eq!(
                schedule.missed_since(at(last), at(now)),
                expected.map(at),
                "{last} {now}"
            );
        }
    }
}
