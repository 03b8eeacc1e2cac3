//! Writes `zones.bin` of wale-pg out of chrono-tz. Its form stands in `wale-pg/src/zone.rs`, whose tests hold the two to the
//! same answers.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::Tz;

/// Before the first change of any zone, and after the last that chrono-tz knows.
const YEARS: (i64, i64) = (1800, 2200);
const DAY: i64 = 24 * 60 * 60;

/// Makes the file anew.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write(root: &Path) -> Result<String, String> {
    let mut zones: Vec<Tz> = chrono_tz::TZ_VARIANTS.to_vec();
    zones.sort_by_key(|zone| zone.name());
    let directory: usize = zones.iter().map(|zone| 1 + zone.name().len() + 4).sum();
    let count = u16::try_from(zones.len()).map_err(|error| error.to_string())?;
    let mut file = count.to_le_bytes().to_vec();
    let mut spans: Vec<u8> = Vec::new();
    // Zones of several names are there once.
    let mut known: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for zone in zones {
        let own = spans_of(zone);
        let at = *known.entry(own).or_insert_with_key(|own| {
            spans.extend(own);
            2 + directory + spans.len() - own.len()
        });
        let name = zone.name();
        file.push(u8::try_from(name.len()).map_err(|error| error.to_string())?);
        file.extend(name.as_bytes());
        let at = u32::try_from(at).map_err(|error| error.to_string())?;
        file.extend(at.to_le_bytes());
    }
    file.extend(spans);
    let path = root.join("crates/wale-pg/src/zones.bin");
    std::fs::write(&path, &file).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(format!(
        "{}: {count} zones, {} bytes",
        path.display(),
        file.len()
    ))
}

/// A day at a time, and the second of each change by halving: no zone has changed twice within a day.
fn spans_of(zone: Tz) -> Vec<u8> {
    let (first, last) = (days_of(YEARS.0), days_of(YEARS.1));
    let mut offset = offset_at(zone, first * DAY);
    let (mut changes, mut count, mut before) = (Vec::new(), 0, 0);
    put_signed(&mut changes, i64::from(offset));
    for day in first..last {
        let next = offset_at(zone, (day + 1) * DAY);
        if next == offset {
            continue;
        }
        let (mut old, mut new) = (day * DAY, (day + 1) * DAY);
        while new - old > 1 {
            let middle = i64::midpoint(old, new);
            let is_old = offset_at(zone, middle) == offset;
            *(if is_old { &mut old } else { &mut new }) = middle;
        }
        put_signed(&mut changes, new - before);
        put_signed(&mut changes, i64::from(next));
        (offset, before, count) = (next, new, count + 1);
    }
    let mut spans = Vec::new();
    put(&mut spans, count);
    spans.extend(changes);
    spans
}

fn days_of(year: i64) -> i64 {
    // 1970 is near enough to count from: the first and the last day need not be New Year's.
    (year - 1970) * 365
}

fn offset_at(zone: Tz, seconds: i64) -> i32 {
    let at = DateTime::from_timestamp(seconds, 0).expect("within four centuries");
    let offset = zone.offset_from_utc_datetime(&at.naive_utc());
    offset.fix().local_minus_utc()
}

fn put_signed(into: &mut Vec<u8>, number: i64) {
    put(into, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

fn put(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    into.push(number.to_le_bytes()[0]);
}
