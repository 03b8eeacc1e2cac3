//! Zones of a time: offsets, names of the time zone database, and Greenwich.

use chrono::{DateTime, FixedOffset, LocalResult, NaiveDateTime, TimeDelta, TimeZone, Utc};
use wale_pg::Zone;

/// Words for Greenwich that no version refuses once they are written as an offset.
pub(super) const GREENWICH: [&str; 2] = ["z", "zulu"];

/// The moment that a local time in a zone means. `None` for a zone that is none of those here.
pub(super) fn in_zone(local: NaiveDateTime, zone: &str) -> Option<DateTime<Utc>> {
    if is_one_of(&GREENWICH, zone) {
        return Some(local.and_utc());
    }
    if zone.starts_with(['+', '-']) {
        let offset = FixedOffset::east_opt(offset_seconds(zone)?)?;
        return Some(offset.from_local_datetime(&local).single()?.to_utc());
    }
    let zone = named(zone)?;
    match zone.from_local_datetime(&local) {
        LocalResult::Single(time) => Some(time.to_utc()),
        LocalResult::Ambiguous(_, later) => Some(later.to_utc()),
        // A skipped hour: with the offset that held before (`DetermineTimeZoneOffset`).
        LocalResult::None => {
            let hour = TimeDelta::hours(1);
            let before = zone.from_local_datetime(&(local - hour)).latest()?;
            Some(before.to_utc() + hour)
        }
    }
}

/// `+02`, `-0330`, `+05:30`, `+02:30:15`.
pub(super) fn offset_seconds(text: &str) -> Option<i32> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let digits = &text[1..];
    let parts: Vec<&str> = if digits.contains(':') {
        digits.split(':').collect()
    } else if digits.len() > 2 {
        let (hours, minutes) = digits.split_at_checked(digits.len() - 2)?;
        vec![hours, minutes]
    } else {
        vec![digits]
    };
    if parts.len() > 3 {
        return None;
    }
    let mut seconds = 0;
    for (part, weight) in parts.into_iter().zip([3600, 60, 1]) {
        let is_number = part.len() <= 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        seconds += part.parse::<i32>().ok().filter(|_| is_number)? * weight;
    }
    Some(sign * seconds)
}

/// A zone of the time zone database, without regard to case, as PostgreSQL looks for it.
pub(super) fn named(zone: &str) -> Option<Zone> {
    Zone::named_in_any_case(zone)
}

/// Whether `word` is one of these, without regard to case.
pub(super) fn is_one_of(words: &[&str], word: &str) -> bool {
    words.iter().any(|known| known.eq_ignore_ascii_case(word))
}
