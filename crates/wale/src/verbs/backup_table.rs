//! `backup-list` on a terminal: what a person wants to know of each base backup. Programs get WAL-E's table or JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use chrono::{DateTime, Utc};
use wale_format::BackupName;
use wale_ops::backup_list::{BackupLook, BackupSummary, look};
use wale_ops::retention::{Policy, reasons};
use wale_ops::{Archive, OpError};

use super::backup_list::chosen;
use crate::cli::{BackupList, Face};
use crate::logging::escaped;
use crate::progress::{bytes, duration};

/// What to print.
///
/// # Errors
/// A query that is no backup's name, and the archive's errors.
pub(super) async fn run(
    archive: &Archive,
    arguments: &BackupList,
    policy: &Policy,
    request_interval: Duration,
) -> Result<String, OpError> {
    let found = chosen(archive, arguments, Face::Wale).await?;
    let looked = look(archive, found).await?;
    let reasons = match reasons(archive, policy, request_interval).await {
        Ok(reasons) => reasons,
        Err(error) => {
            tracing::warn!(
                hint = error.hint.as_deref(),
                "it is not known which of them retention keeps: {}",
                error.chain()
            );
            BTreeMap::new()
        }
    };
    Ok(table(&looked, &reasons, archive.clock().now()))
}

fn table(
    backups: &[BackupSummary],
    reasons: &BTreeMap<BackupName, Option<String>>,
    now: DateTime<Utc>,
) -> String {
    let mut text = format!(
        "{:<40}{:<14}{:<12}{:<12}{:<12}verified\n",
        "name", "ended", "took", "files", "stored"
    );
    for one in backups {
        let ended = one.stop_time.unwrap_or(one.modified);
        let size = |size: Option<u64>| size.map_or_else(|| "-".to_owned(), bytes);
        let took = one
            .start_time
            .and_then(|began| (ended - began).to_std().ok())
            .map_or_else(|| "-".to_owned(), duration);
        let row = format!(
            "{:<40}{:<14}{:<12}{:<12}{:<12}{}",
            one.name.to_string(),
            age(ended, now),
            took,
            size(one.expanded_size_bytes),
            size(one.stored_bytes),
            one.looked
                .as_ref()
                .map_or_else(String::new, |looked| verified(looked, now))
        );
        let _ = writeln!(text, "{}", row.trim_end());
        for line in below(one, reasons) {
            let _ = writeln!(text, "    {}", escaped(&line));
        }
    }
    if backups.is_empty() {
        "there are no base backups\n".clone_into(&mut text);
    }
    text
}

/// How long ago.
fn age(then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (now - then).num_seconds().max(0);
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60) {
        (0, 0, minutes) => format!("{minutes}min ago"),
        (0, hours, minutes) => format!("{hours}h {minutes}m ago"),
        (days @ 1..10, hours, _) => format!("{days}d {hours}h ago"),
        (days, ..) => format!("{days}d ago"),
    }
}

/// When all of it was last read and found good.
fn verified(looked: &BackupLook, now: DateTime<Utc>) -> String {
    match &looked.proof {
        None => "-".to_owned(),
        Some(proof) if proof.damage.is_some() => "DAMAGED".to_owned(),
        Some(proof) => age(proof.at, now),
    }
}

/// What does not fit into a column: why it cannot be used, what it builds on, why it stays.
fn below(one: &BackupSummary, reasons: &BTreeMap<BackupName, Option<String>>) -> Vec<String> {
    let mut lines = Vec::new();
    let looked = one.looked.as_ref();
    let cannot = one.damaged.as_deref();
    let cannot = cannot.or_else(|| looked.and_then(|looked| looked.cannot.as_deref()));
    if let Some(why) = cannot {
        lines.push(format!("cannot be restored: {why}"));
    }
    if let Some(parent) = &one.parent {
        lines.push(format!("holds the changes to {parent}"));
    }
    match reasons.get(&one.name) {
        Some(Some(reason)) => lines.push(format!("kept: {reason}")),
        Some(None) => lines.push("goes with the next retention".to_owned()),
        None => {}
    }
    if let Some(record) = looked.and_then(|looked| looked.rehearsed.as_ref()) {
        let outcome = if record.ok { "succeeded" } else { "FAILED" };
        let at = record.ended.format("%Y-%m-%d %H:%M");
        lines.push(format!("a rehearsal {outcome} at {at}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn ages_fit_their_column() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        for (seconds, told) in [
            (-5, "0min ago"),
            (59, "0min ago"),
            (3_600, "1h 0m ago"),
            (86_399, "23h 59m ago"),
            (9 * 86_400 + 23 * 3600, "9d 23h ago"),
            (4000 * 86_400, "4000d ago"),
        ] {
            let text = age(now - TimeDelta::seconds(seconds), now);
            assert_eq!(text, told);
            assert!(text.len() < 14);
        }
    }
}
