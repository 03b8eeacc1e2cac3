//! A time as PostgreSQL reads it, as far as it means one moment whatever the server's settings are.
//!
//! Follows `ParseDateTime` and `DecodeDateTime` (src/backend/utils/adt/datetime.c, the same in 10 to 18 for what is here):
//! fields of digits, words and offsets in any order. What PostgreSQL surely refuses is [`Meaning::Wrong`]; `31.01.2026`, which
//! the server's `DateStyle` decides, is [`Meaning::Ambiguous`]; rare forms are left to the server.

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};

use super::zone::{in_zone, is_one_of, offset_seconds};

/// What a text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// One moment, no matter who reads it.
    Moment(DateTime<Utc>),
    /// PostgreSQL refuses it; what is wrong.
    Wrong(String),
    /// Another moment, or none, with another `DateStyle`; the part that it decides.
    Ambiguous(String),
    /// Only the server knows.
    Server,
}

/// One field, in the server's division.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field<'a> {
    /// Digits alone.
    Number(&'a str),
    /// Parts with `-`, `/` or `.` between them.
    Date(&'a str),
    /// Parts with `:` between them.
    Time(&'a str),
    /// A sign and what belongs to it.
    Offset(&'a str),
    /// Letters, and what goes on after them.
    Word(&'a str),
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const LONG_MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
/// Days of the week, which PostgreSQL passes over, and other words without a meaning.
const PASSED_OVER: [&str; 19] = [
    "mon",
    "monday",
    "tue",
    "tues",
    "tuesday",
    "wed",
    "wednesday",
    "thu",
    "thur",
    "thurs",
    "thursday",
    "fri",
    "friday",
    "sat",
    "saturday",
    "sun",
    "sunday",
    "at",
    "on",
];

/// The largest offset, in seconds, exclusive: PostgreSQL takes up to 15:59:59 (`MAX_TZDISP_HOUR`).
const OFFSET_MAX: i32 = 16 * 3600;

/// What has been read so far.
#[derive(Default)]
struct Parts<'a> {
    date: Option<NaiveDate>,
    month: Option<u32>,
    day: Option<u32>,
    year: Option<i32>,
    /// Since midnight.
    time: Option<TimeDelta>,
    is_pm: Option<bool>,
    zone: Option<&'a str>,
    wants_time: bool,
}

/// A field that ends the reading.
type Stop = Meaning;

pub(super) fn read(value: &str) -> Meaning {
    let Some(fields) = fields(value) else {
        return Meaning::Server;
    };
    let mut parts = Parts::default();
    for field in fields {
        if let Err(stop) = parts.take(field) {
            return stop;
        }
    }
    parts.moment().unwrap_or_else(|stop| stop)
}

/// Divides as `ParseDateTime` does. `None` where there is something that is not here.
fn fields(value: &str) -> Option<Vec<Field<'_>>> {
    let mut fields = Vec::new();
    let mut rest = value.trim();
    while let Some(first) = rest.chars().next() {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let run =
            |text: &str, is_in: fn(u8) -> bool| text.bytes().take_while(|b| is_in(*b)).count();
        let (field, end) = match first {
            ' ' | ',' => {
                rest = &rest[1..];
                continue;
            }
            '0'..='9' => {
                let end = digits(rest);
                match rest.as_bytes().get(end) {
                    Some(b':') => {
                        let end = run(rest, |b| b.is_ascii_digit() || matches!(b, b':' | b'.'));
                        (Field::Time(&rest[..end]), end)
                    }
                    Some(delimiter @ (b'-' | b'/' | b'.')) => {
                        let end = end_of_date(rest, end, *delimiter);
                        (Field::Date(&rest[..end]), end)
                    }
                    _ => (Field::Number(&rest[..end]), end),
                }
            }
            'a'..='z' | 'A'..='Z' => {
                let letters = run(rest, |b| b.is_ascii_alphabetic());
                let goes_on = match rest.as_bytes().get(letters) {
                    Some(b'-' | b'/' | b'.' | b'_' | b'+') => true,
                    // `T070712` is the T of ISO 8601 and a time; `EST5EDT` is one word.
                    Some(b'0'..=b'9') => letters > 1,
                    _ => false,
                };
                let end = if goes_on {
                    run(rest, |b| {
                        b.is_ascii_alphanumeric()
                            || matches!(b, b'-' | b'/' | b'.' | b'_' | b'+' | b':')
                    })
                } else {
                    letters
                };
                (Field::Word(&rest[..end]), end)
            }
            '+' | '-' => {
                let end = 1 + run(&rest[1..], |b| b.is_ascii_digit() || b == b':');
                if end == 1 {
                    return None;
                }
                (Field::Offset(&rest[..end]), end)
            }
            _ => return None,
        };
        fields.push(field);
        rest = &rest[end..];
    }
    Some(fields)
}

/// Where a date ends whose first delimiter is at `first`.
fn end_of_date(text: &str, first: usize, delimiter: u8) -> usize {
    let bytes = text.as_bytes();
    let after = first + 1;
    let all = |is_in: &dyn Fn(u8) -> bool, from: usize| {
        from + bytes[from..].iter().take_while(|b| is_in(**b)).count()
    };
    if !bytes.get(after).is_some_and(u8::is_ascii_digit) {
        return all(&|b| b.is_ascii_alphanumeric() || b == delimiter, after);
    }
    let second = all(&|b| b.is_ascii_digit(), after);
    if bytes.get(second) == Some(&delimiter) {
        all(&|b| b.is_ascii_digit() || b == delimiter, second)
    } else {
        second
    }
}

impl<'a> Parts<'a> {
    fn take(&mut self, field: Field<'a>) -> Result<(), Stop> {
        match field {
            Field::Date(text) => self.take_date(text),
            Field::Time(text) => self.set_time(clock(text)?),
            Field::Number(text) => self.take_number(text),
            Field::Offset(text) => {
                let seconds = offset_seconds(text)
                    .ok_or_else(|| Meaning::Wrong(format!("{text:?} is no offset from UTC")))?;
                if seconds.abs() >= OFFSET_MAX || has_sixty(text) {
                    return Err(Meaning::Wrong(format!("no zone is {text} from UTC")));
                }
                self.set_zone(text)
            }
            Field::Word(text) => self.take_word(text),
        }
    }

    fn take_date(&mut self, text: &str) -> Result<(), Stop> {
        let parts: Vec<&str> = text.split(['-', '/', '.']).collect();
        let [first, second, third] = parts[..] else {
            return Err(Meaning::Server);
        };
        let number = |text: &str| text.parse::<u32>().ok();
        let wrong = || Meaning::Wrong(format!("there is no day {text}"));
        let (year, month, day) = if let Some(month) = month(second) {
            // A month in words: the year is the part with four digits.
            match (first.len(), third.len()) {
                (4, 1 | 2) => (first, Some(month), third),
                (1 | 2, 4) => (third, Some(month), first),
                _ => return Err(Meaning::Server),
            }
        } else if first.len() == 4 {
            if second.len() > 2 || third.len() > 2 || second.is_empty() || third.is_empty() {
                return Err(Meaning::Server);
            }
            (first, number(second), third)
        } else if first.len() <= 2 && second.len() <= 2 && [2, 4].contains(&third.len()) {
            return Err(Meaning::Ambiguous(text.to_owned()));
        } else {
            return Err(Meaning::Server);
        };
        let year = year.parse::<i32>().map_err(|_| Meaning::Server)?;
        let (Some(month), Some(day)) = (month, number(day)) else {
            return Err(Meaning::Server);
        };
        if year == 0 {
            return Err(wrong());
        }
        let date = NaiveDate::from_ymd_opt(year, month, day).ok_or_else(wrong)?;
        self.set_date(date)
    }

    fn take_number(&mut self, text: &str) -> Result<(), Stop> {
        let part = |from: usize, to: usize| text[from..to].parse::<u32>().unwrap_or(u32::MAX);
        let has_date = self.date.is_some() || self.year.is_some() && self.day.is_some();
        match text.len() {
            8 if !has_date && self.month.is_none() => {
                let year = part(0, 4).cast_signed();
                let date = NaiveDate::from_ymd_opt(year, part(4, 6), part(6, 8));
                let wrong = || Meaning::Wrong(format!("there is no day {text}"));
                self.set_date(date.filter(|_| year > 0).ok_or_else(wrong)?)
            }
            4 | 6 if has_date => {
                let seconds = if text.len() == 6 { part(4, 6) } else { 0 };
                // PostgreSQL counts on beyond the day here: `T250000` is one o'clock of the next.
                let time = since_midnight(text, part(0, 2), part(2, 4), seconds);
                self.set_time(time.map_err(|_| Meaning::Server)?)
            }
            4 if self.date.is_none() && self.year.is_none() && self.month.is_some() => {
                self.year = Some(part(0, 4).cast_signed());
                Ok(())
            }
            1 | 2 if self.date.is_none() && self.day.is_none() => {
                self.day = Some(part(0, text.len()));
                Ok(())
            }
            _ => Err(Meaning::Server),
        }
    }

    fn take_word(&mut self, text: &'a str) -> Result<(), Stop> {
        let lower = text.to_ascii_lowercase();
        if let Some(number) = month(&lower) {
            if self.month.replace(number).is_some() || self.date.is_some() {
                return Err(Meaning::Server);
            }
            return Ok(());
        }
        match lower.as_str() {
            "t" if self.date.is_some() && self.time.is_none() => self.wants_time = true,
            "am" | "pm" if self.is_pm.is_none() => self.is_pm = Some(lower == "pm"),
            "ad" => {}
            word if is_one_of(&PASSED_OVER, word) => {}
            word if word.starts_with(|c: char| c.is_ascii_alphabetic())
                && has_month_first(word) =>
            {
                return Err(Meaning::Server);
            }
            "t" | "am" | "pm" | "bc" => return Err(Meaning::Server),
            _ => return self.set_zone(text),
        }
        Ok(())
    }

    fn set_date(&mut self, date: NaiveDate) -> Result<(), Stop> {
        if self.date.replace(date).is_some() {
            return Err(Meaning::Wrong("it holds two days".to_owned()));
        }
        Ok(())
    }

    fn set_time(&mut self, time: TimeDelta) -> Result<(), Stop> {
        if self.time.replace(time).is_some() {
            return Err(Meaning::Wrong("it holds two times of day".to_owned()));
        }
        Ok(())
    }

    /// A second one is the server's to understand: some of them are.
    fn set_zone(&mut self, zone: &'a str) -> Result<(), Stop> {
        match self.zone.replace(zone) {
            Some(_) => Err(Meaning::Server),
            None => Ok(()),
        }
    }

    fn moment(self) -> Result<Meaning, Stop> {
        let wrong = |what: &str| Meaning::Wrong(what.to_owned());
        let date = match (self.date, self.year, self.month, self.day) {
            (Some(date), None, None, None) => date,
            (None, Some(year), Some(month), Some(day)) => NaiveDate::from_ymd_opt(year, month, day)
                .filter(|_| year > 0)
                .ok_or_else(|| wrong("there is no such day"))?,
            (None, None, None, None) => return Err(wrong("it holds no day")),
            _ => return Err(Meaning::Server),
        };
        if self.wants_time && self.time.is_none() {
            return Err(Meaning::Server);
        }
        let mut time = self.time.unwrap_or_default();
        if let Some(is_pm) = self.is_pm {
            if self.time.is_none() {
                return Err(Meaning::Server);
            }
            if time.num_hours() > 12 {
                return Err(wrong("an hour after 12 has neither AM nor PM"));
            }
            match (is_pm, time.num_hours()) {
                (true, ..12) => time += TimeDelta::hours(12),
                (false, 12) => time -= TimeDelta::hours(12),
                _ => {}
            }
        }
        let local = date.and_time(NaiveTime::MIN).checked_add_signed(time);
        let zone = self.zone.unwrap_or_default();
        let moment = local.and_then(|local| in_zone(local, zone));
        moment.map(Meaning::Moment).ok_or(Meaning::Server)
    }
}

/// `17:00`, `17:00:00.25`; 24:00:00 is the end of the day and :60 the next minute, as PostgreSQL has it.
fn clock(text: &str) -> Result<TimeDelta, Stop> {
    let wrong = || Meaning::Wrong(format!("there is no time of day {text}"));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let parts: Vec<&str> = whole.split(':').collect();
    let is_plain = parts
        .iter()
        .all(|part| (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit()));
    if !is_plain || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Meaning::Server);
    }
    let number = |part: &str| part.parse::<u32>().map_err(|_| wrong());
    let (hours, minutes, seconds) = match parts[..] {
        [hours, minutes] if fraction.is_empty() => (hours, minutes, "0"),
        [hours, minutes, seconds] => (hours, minutes, seconds),
        // `17:00.5` are minutes and seconds to PostgreSQL.
        _ => return Err(Meaning::Server),
    };
    let whole = since_midnight(text, number(hours)?, number(minutes)?, number(seconds)?)?;
    // Microseconds, rounded as PostgreSQL rounds; more than nine digits say nothing more.
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanos: i64 = digits.parse().map_err(|_| wrong())?;
    let whole = whole + TimeDelta::microseconds((nanos + 500) / 1000);
    if whole > TimeDelta::days(1) {
        return Err(wrong());
    }
    Ok(whole)
}

fn since_midnight(text: &str, hours: u32, minutes: u32, seconds: u32) -> Result<TimeDelta, Stop> {
    let is_end = hours == 24 && minutes == 0 && seconds == 0;
    if (hours > 23 && !is_end) || minutes > 59 || seconds > 60 {
        return Err(Meaning::Wrong(format!("there is no time of day {text}")));
    }
    let seconds = i64::from(hours) * 3600 + i64::from(minutes) * 60 + i64::from(seconds);
    Ok(TimeDelta::seconds(seconds))
}

/// The number of a month in words.
fn month(word: &str) -> Option<u32> {
    let at = |names: &[&str]| {
        names
            .iter()
            .position(|name| name.eq_ignore_ascii_case(word))
    };
    let index = at(&MONTHS)
        .or_else(|| at(&LONG_MONTHS))
        .or_else(|| word.eq_ignore_ascii_case("sept").then_some(8))?;
    u32::try_from(index + 1).ok()
}

/// `Jan-31-2026`: a date that begins with its month.
fn has_month_first(word: &str) -> bool {
    let first = word.split(['-', '/', '.']).next().unwrap_or_default();
    first.len() < word.len() && month(first).is_some()
}

/// Whether minutes or seconds of an offset are beyond 59: they are the parts after the first two digits.
fn has_sixty(offset: &str) -> bool {
    let digits = &offset[1..];
    let parts: Vec<&str> = if digits.contains(':') {
        digits.split(':').skip(1).collect()
    } else if digits.len() > 2 {
        vec![&digits[digits.len() - 2..]]
    } else {
        Vec::new()
    };
    parts
        .iter()
        .any(|part| part.parse::<u32>().is_ok_and(|number| number > 59))
}
