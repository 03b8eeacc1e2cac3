//! `status`: what the archive holds, and from when to when it can be restored. Asks the archive, and no sidecar.

use std::fmt::Write;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use wale_ops::recoverable::{self, Growth, Holdings, Window};
use wale_ops::verify::{self, LastVerified};
use wale_ops::wal_volume::{self, Trend, WalVolume};
use wale_ops::{Archive, OpError, Rehearsals, WalDirectory};

use super::adopt::{gap_of, shown};
use crate::logging::escaped;
use crate::progress::{bytes, duration};

/// What to print.
///
/// # Errors
/// The store's.
pub(super) async fn run(
    archive: &Archive,
    wal: &WalDirectory,
    json: bool,
) -> Result<String, OpError> {
    let found = recoverable::holdings(archive).await?;
    let verified = verify::last(archive).await?;
    let (location, now) = (archive.location(), archive.clock().now());
    // On a host without the server there is no such directory, and nothing to say.
    let volume = wal_volume::look(wal, found.growth.wal_bytes_per_hour, now).ok();
    let report = Report {
        found: &found,
        verified: &verified,
        volume: volume.as_ref(),
        location: &location,
        now,
    };
    Ok(if json {
        format!("{:#}\n", as_json(&report))
    } else {
        as_text(&report)
    })
}

/// What is told.
struct Report<'a> {
    found: &'a Holdings,
    verified: &'a LastVerified,
    volume: Option<&'a WalVolume>,
    location: &'a str,
    now: DateTime<Utc>,
}

fn as_text(report: &Report<'_>) -> String {
    let Report { found, now, .. } = *report;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Names are the archive's: no control character of them may reach the terminal.
        let _ = writeln!(text, "{name:<12} {}", escaped(value));
    };
    line("archive", report.location);
    line(
        "stored",
        &format!("{} in {} objects", bytes(found.bytes), found.objects),
    );
    line("", &of_growth(&found.growth));
    match &found.newest_backup {
        Some((name, end)) => {
            line("backups", &format!("{}, newest {name}", found.backups));
            line("", &format!("ended {} ({})", shown(*end), age(now, *end)));
        }
        None => line("backups", "none"),
    }
    for window in &found.windows {
        line("recoverable", &of_window(window, now));
        if let Some(until) = window.stretch.until {
            line(
                "",
                &format!("from {} to segment {until}", window.stretch.backup),
            );
        }
        if let Some(gap) = gap_of(&window.stretch) {
            line("", &gap);
        }
    }
    for window in &found.left {
        let timeline = window
            .stretch
            .until
            .unwrap_or(window.stretch.from)
            .timeline();
        line("left", &of_window(window, now));
        line(
            "",
            &format!("on timeline {timeline}: restore with --timeline {timeline}"),
        );
    }
    for (name, value) in of_rehearsals(&found.rehearsals, now) {
        line(name, &value);
    }
    if found.windows.is_empty() {
        line("recoverable", "nothing: there is no base backup; take one");
    }
    for (name, said) in ["verified", "", ""]
        .into_iter()
        .zip(of_verified(report.verified, now))
    {
        line(name, &said);
    }
    if let Some(volume) = report.volume {
        line("WAL volume", &format!("{} free", bytes(volume.free_bytes)));
        line("", &of_volume(volume));
    }
    text
}

/// What came of late.
fn of_growth(growth: &Growth) -> String {
    format!(
        "{} came in the last day, {} in the last 7 days",
        bytes(growth.last_day),
        bytes(growth.last_week)
    )
}

/// What becomes of the room for WAL.
fn of_volume(volume: &WalVolume) -> String {
    let waiting = volume.waiting;
    match volume.trend {
        Trend::Steady => match volume.lasts {
            Some(lasts) => format!(
                "not growing; it would last {} if nothing were archived any more",
                long(lasts)
            ),
            None => "not growing".to_owned(),
        },
        Trend::CatchesUp => {
            format!("not growing: {waiting} segments wait, and more are archived than come")
        }
        Trend::Unknown => format!(
            "not known: {waiting} segments wait, and it was seen for less than a minute how many go"
        ),
        Trend::Fills {
            bytes_per_hour,
            full_in: Some(full_in),
        } => format!(
            "FULL in {}: {waiting} segments wait, and {} come in an hour",
            long(full_in),
            bytes(bytes_per_hour)
        ),
        Trend::Fills { full_in: None, .. } => {
            format!("growing: {waiting} segments wait; how fast they come is not known")
        }
    }
}

/// A length of time that may be months.
fn long(length: Duration) -> String {
    match length.as_secs() / 86400 {
        0 => duration(length),
        days => format!("{days} d {} h", length.as_secs() / 3600 % 24),
    }
}

/// What was read of the archive to verify it, and what was found.
fn of_verified(verified: &LastVerified, now: DateTime<Utc>) -> Vec<String> {
    let Some(at) = verified.at else {
        return vec!["never: wale verify --content reads every object".to_owned()];
    };
    let oldest = verified
        .oldest_backup
        .into_iter()
        .chain(verified.oldest_segment);
    let since = oldest.min().map_or_else(String::new, |oldest| {
        format!(", the oldest of this {}", age(now, oldest))
    });
    let mut told = vec![
        format!("{} ({})", shown(at), age(now, at)),
        format!(
            "{} of {} backups and {} segments were found good{since}",
            verified.proven_backups, verified.backups, verified.proven_segments
        ),
    ];
    if verified.damaged > 0 {
        let count = verified.damaged;
        told.push(format!(
            "{count} damaged or missing: wale verify says what that means"
        ));
    }
    told
}

/// What the last rehearsal found, and where that was nothing good, the last good one.
fn of_rehearsals(found: &Rehearsals, now: DateTime<Utc>) -> Vec<(&'static str, String)> {
    let Some((backup, last)) = &found.last else {
        return vec![(
            "rehearsed",
            "never: wale rehearse proves a restore".to_owned(),
        )];
    };
    let when = format!("{} ({})", shown(last.ended), age(now, last.ended));
    let mut lines = vec![match last.failure() {
        None if last.ok => ("rehearsed", format!("ok, {when}")),
        failure => {
            let what = failure.map_or("it", |check| check.name.as_str());
            ("rehearsed", format!("FAILED ({what}), {when}"))
        }
    }];
    // An encrypted archive's record does not say where to.
    let to = match last.target.as_str() {
        "" => String::new(),
        target => format!(", to {target}"),
    };
    lines.push(("", format!("with {backup}{to}")));
    if !last.ok {
        let good = match &found.last_good {
            Some((backup, good)) => {
                format!("the last good one {}, with {backup}", shown(good.ended))
            }
            None => "no good one is known".to_owned(),
        };
        lines.push(("", good));
    }
    lines
}

/// From when to when.
fn of_window(window: &Window, now: DateTime<Utc>) -> String {
    match window.until {
        Some(until) => format!(
            "{} to {} ({})",
            shown(window.from),
            shown(until),
            age(now, until)
        ),
        None => format!(
            "nothing from {} on: the backup's own WAL is missing",
            shown(window.from)
        ),
    }
}

/// How long ago, for a person.
fn age(now: DateTime<Utc>, then: DateTime<Utc>) -> String {
    match (now - then).to_std() {
        Ok(age) => format!("{} ago", duration(age)),
        // The store's clock is ahead of ours.
        Err(_) => "just now".to_owned(),
    }
}

fn as_json(report: &Report<'_>) -> Value {
    let Report {
        found, verified, ..
    } = *report;
    let told = |window: &Window| {
        let stretch = &window.stretch;
        json!({
            "backup": stretch.backup.to_string(),
            "timeline": stretch.until.unwrap_or(stretch.from).timeline().get(),
            "from": window.from,
            "until": window.until,
            "until_segment": stretch.until.map(|segment| segment.to_string()),
            "gap": stretch.gap.map(|gap| json!({
                "from": gap.from.to_string(),
                "to": gap.to.to_string(),
                "segments": stretch.missing,
                "sealed": stretch.unreadable,
            })),
            "lost_history": stretch.lost_history.as_ref().map(|lost| lost.name().to_string()),
        })
    };
    json!({
        "archive": report.location,
        "bytes": found.bytes,
        "objects": found.objects,
        "growth": {
            "last_day_bytes": found.growth.last_day,
            "last_week_bytes": found.growth.last_week,
            "wal_bytes_per_hour": found.growth.wal_bytes_per_hour,
        },
        "wal_volume": report.volume.map(|volume| json!({
            "free_bytes": volume.free_bytes,
            "waiting": volume.waiting,
            "trend": volume.trend.name(),
            "full_in_seconds": volume.full_in().map(|time| time.as_secs()),
            "lasts_seconds": volume.lasts.map(|time| time.as_secs()),
        })),
        "backups": found.backups,
        "newest_backup": found.newest_backup.as_ref().map(|(name, end)| json!({
            "name": name.to_string(),
            "ended": end,
        })),
        "windows": found.windows.iter().map(told).collect::<Vec<Value>>(),
        "left": found.left.iter().map(told).collect::<Vec<Value>>(),
        "verified": {
            "at": verified.at,
            "proven_backups": verified.proven_backups,
            "oldest_backup_proof": verified.oldest_backup,
            "proven_segments": verified.proven_segments,
            "oldest_segment_proof": verified.oldest_segment,
            "damaged": verified.damaged,
            "examples": verified.examples.iter().map(|damage| json!({
                "object": damage.object,
                "found": damage.found,
            })).collect::<Vec<Value>>(),
        },
        "last_rehearsal": found.rehearsals.last.as_ref().map(|(backup, record)| json!({
            "backup": backup.to_string(),
            "record": record,
        })),
        "last_good_rehearsal": found.rehearsals.last_good.as_ref().map(|(backup, record)| json!({
            "backup": backup.to_string(),
            "ended": record.ended,
        })),
    })
}
