//! `backup-list`: WAL-E's table to the byte, or everything that is known as JSON.
//!
//! WAL-E writes with Python's `csv` module: tabs between columns, CR LF at the end of lines, quotes
//! only where a value needs them, the header always. The times are each store's own: S3's as its listing
//! has them, those of files without a zone, and without a fraction when that is zero. The order is the store's as
//! well: S3, Azure and Google list by key, a folder in no order at all. `wale` lists what ended first first, and `wal-e` too where no
//! store promises another order.

use std::fmt::Write;

use chrono::{DateTime, SecondsFormat, Timelike, Utc};
use serde_json::{Value, json};
use wale_format::{BackupName, Encryption, ShownEncryption};
use wale_ops::backup_list::{BackupSummary, Tool};
use wale_ops::{Archive, Kind, OpError};

use crate::cli::{BackupList, Face};

/// What `wale` tells beside WAL-E's columns with `--detail`.
const OWN_HEADER: [&str; 5] = ["encryption", "keys", "can_decrypt", "verified", "rehearsed"];

const HEADER: [&str; 7] = [
    "name",
    "last_modified",
    "expanded_size_bytes",
    "wal_segment_backup_start",
    "wal_segment_offset_backup_start",
    "wal_segment_backup_stop",
    "wal_segment_offset_backup_stop",
];

/// Whether a person reads the list: then it is another table.
pub(crate) fn is_for_a_person(arguments: &BackupList, face: Face) -> bool {
    use std::io::IsTerminal as _;
    face == Face::Wale && !arguments.json && !arguments.detail && std::io::stdout().is_terminal()
}

/// What to print.
///
/// # Errors
/// A query that is neither LATEST nor a backup's name, and the archive's errors.
pub(crate) async fn run(
    archive: &Archive,
    arguments: &BackupList,
    face: Face,
) -> Result<String, OpError> {
    let mut chosen = chosen(archive, arguments, face).await?;
    if arguments.json {
        let looked = wale_ops::backup_list::look(archive, chosen).await?;
        return Ok(as_json(&looked));
    }
    let times = Times::of(&archive.location());
    if face == Face::WalE && times != Times::File {
        chosen.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
    }
    if face == Face::Wale && arguments.detail {
        chosen = wale_ops::backup_list::look(archive, chosen).await?;
    }
    Ok(table(&chosen, arguments.detail, face, times))
}

/// The backups that are asked for.
///
/// # Errors
/// As [`run`].
pub(super) async fn chosen(
    archive: &Archive,
    arguments: &BackupList,
    face: Face,
) -> Result<Vec<BackupSummary>, OpError> {
    let query = arguments.query.as_deref().map(Query::parse).transpose()?;
    let chosen = match &query {
        Some(Query::Latest) => {
            let (latest, passed_over) = wale_ops::backup_list::latest(archive).await?;
            for sentence in &passed_over {
                tracing::warn!("{sentence}");
            }
            latest.into_iter().collect()
        }
        Some(Query::Name(name)) => {
            let mut all = wale_ops::backup_list::run(archive).await?;
            all.retain(|summary| summary.name == *name);
            all
        }
        None => wale_ops::backup_list::run(archive).await?,
    };
    if chosen.is_empty() && face == Face::Wale && archive.holds_nothing().await? {
        tracing::warn!(
            hint = "check the prefix, and that the archive's volume is mounted",
            "{} holds no archive: neither wale.json nor base backups nor WAL",
            archive.location()
        );
    }
    Ok(chosen)
}

/// How a store's times look in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Times {
    /// As S3 writes them in a listing: `2026-11-22T07:06:24.000Z`.
    S3,
    /// As Python writes those with a zone: `2026-11-22 07:06:24+00:00`.
    Zoned,
    /// As Python writes those of a file: `2026-11-22T06:56:47.867021`.
    File,
}

impl Times {
    fn of(location: &str) -> Self {
        if location.starts_with("s3://") {
            Self::S3
        } else if ["wabs://", "gs://"]
            .iter()
            .any(|scheme| location.starts_with(scheme))
        {
            Self::Zoned
        } else {
            Self::File
        }
    }

    fn text(self, time: DateTime<Utc>) -> String {
        match self {
            Self::S3 => time.to_rfc3339_opts(SecondsFormat::Millis, true),
            Self::Zoned => time.format("%Y-%m-%d %H:%M:%S+00:00").to_string(),
            Self::File => of_a_file(time),
        }
    }
}

#[derive(Debug)]
enum Query {
    Latest,
    Name(BackupName),
}

impl Query {
    fn parse(text: &str) -> Result<Self, OpError> {
        if text == "LATEST" {
            return Ok(Query::Latest);
        }
        BackupName::parse(text).map(Query::Name).map_err(|error| {
            OpError::new(Kind::Usage, "invalid backup query submitted")
                .detail(format!(
                    "The submitted query operator was \"{}\".",
                    text.escape_default()
                ))
                .hint("write LATEST or the full name of a backup")
                .source(error)
        })
    }
}

fn table(summaries: &[BackupSummary], detail: bool, face: Face, times: Times) -> String {
    let has_own = detail && face == Face::Wale;
    let own_header: &[&str] = if has_own { &OWN_HEADER } else { &[] };
    let mut text = [&HEADER, own_header].concat().join("\t") + "\r\n";
    for summary in summaries {
        let only_with_detail = |value: String| if detail { value } else { String::new() };
        let row = [
            summary.name.to_string(),
            times.text(summary.modified),
            only_with_detail(
                summary
                    .expanded_size_bytes
                    .map_or_else(String::new, |b| b.to_string()),
            ),
            summary.start_segment.clone(),
            summary.start_offset.clone(),
            only_with_detail(summary.stop_segment.clone()),
            only_with_detail(summary.stop_offset.clone()),
        ];
        text.push_str(&row.map(quoted).join("\t"));
        if has_own {
            text.push('\t');
            text.push_str(&own_columns(summary).map(quoted).join("\t"));
        }
        text.push_str("\r\n");
    }
    text
}

/// How a backup is encrypted, for which keys, and whether it can be decrypted as wale is set up now; empty where it is in the
/// clear. Then when all of it was last read and found good; `damaged` where it was not good, empty where it was not read. Then what its last rehearsal
/// found, and when.
fn own_columns(summary: &BackupSummary) -> [String; 5] {
    let looked = summary.looked.as_ref();
    let proof = looked.and_then(|looked| looked.proof.as_ref());
    let verified = proof.map_or_else(String::new, |proof| match &proof.damage {
        None => proof.at.to_rfc3339_opts(SecondsFormat::Secs, true),
        Some(_) => "damaged".to_owned(),
    });
    let rehearsed = looked.and_then(|looked| looked.rehearsed.as_ref());
    let rehearsed = rehearsed.map_or_else(String::new, |record| {
        let outcome = if record.ok { "ok" } else { "failed" };
        let ended = record.ended.to_rfc3339_opts(SecondsFormat::Secs, true);
        format!("{outcome} {ended}")
    });
    let Some(shown) = looked.and_then(|looked| looked.encryption.as_ref()) else {
        return [
            String::new(),
            String::new(),
            String::new(),
            verified,
            rehearsed,
        ];
    };
    let can = if shown.locked.is_none() { "yes" } else { "no" };
    // Names of keys are the archive's: they have no control characters (`wale_format::crypt`).
    let (method, keys) = (method_of(shown), shown.keys.join(","));
    [method.to_owned(), keys, can.to_owned(), verified, rehearsed]
}

/// What objects that show nothing of themselves are encrypted with, nobody knows who has no key: of libsodium's.
fn method_of(shown: &ShownEncryption) -> &'static str {
    shown.method.map_or("unknown", Encryption::name)
}

/// Python's `datetime.isoformat` of a UTC time without zone, and of a file's time as `os.stat` gives it: seconds in a
/// double, which knows a time of today to a quarter of a microsecond, rounded to the nearest microsecond.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "Python loses the same digits, and what is cast back lies between 0 and 1,000,000"
)]
fn of_a_file(time: DateTime<Utc>) -> String {
    let seconds = time.timestamp() as f64 + f64::from(time.nanosecond()) * 1e-9;
    let rounded = (seconds.fract() * 1e6).round_ties_even() as u32;
    let whole = seconds as i64 + i64::from(rounded / 1_000_000);
    let whole = DateTime::from_timestamp(whole, 0).unwrap_or(time);
    let microseconds = rounded % 1_000_000;
    let mut text = whole.format("%Y-%m-%dT%H:%M:%S").to_string();
    if microseconds != 0 {
        let _ = write!(text, ".{microseconds:06}");
    }
    text
}

/// `csv.QUOTE_MINIMAL`.
fn quoted(value: String) -> String {
    if value.contains(['\t', '"', '\r', '\n']) {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value
    }
}

fn as_json(summaries: &[BackupSummary]) -> String {
    let list: Vec<Value> = summaries.iter().map(summary_json).collect();
    let mut text = serde_json::to_string_pretty(&list).expect("plain values serialise");
    text.push('\n');
    text
}

fn summary_json(summary: &BackupSummary) -> Value {
    let time = |t: Option<DateTime<Utc>>| t.map(|t| t.to_rfc3339());
    let looked = summary.looked.as_ref();
    let shown = looked.and_then(|looked| looked.encryption.as_ref());
    let encryption = shown.map(|shown| {
        json!({
            "method": method_of(shown),
            "keys": shown.keys,
            "can_decrypt": shown.locked.is_none(),
        })
    });
    json!({
        "name": summary.name.to_string(),
        "last_modified": summary.modified.to_rfc3339(),
        "expanded_size_bytes": summary.expanded_size_bytes,
        "wal_segment_backup_start": summary.start_segment,
        "wal_segment_offset_backup_start": summary.start_offset,
        "wal_segment_backup_stop": summary.stop_segment,
        "wal_segment_offset_backup_stop": summary.stop_offset,
        "start_time": time(summary.start_time),
        "stop_time": time(summary.stop_time),
        "start_lsn": summary.start_lsn.map(|lsn| lsn.to_string()),
        "stop_lsn": summary.stop_lsn.map(|lsn| lsn.to_string()),
        "timeline": summary.timeline.get(),
        "major": summary.major.map(wale_pg::MajorVersion::get),
        "files": summary.files,
        "stored_bytes": summary.stored_bytes,
        "damaged_pages": summary.damaged_pages,
        "shared_preload_libraries": summary.preload_libraries,
        "extensions": summary.extensions,
        "timescaledb": summary.timescaledb,
        "made_by_wale": summary.wale,
        "made_by": summary.tool.map(Tool::name),
        "delta_of": summary.parent,
        "codecs": looked.map(|looked| &looked.codecs),
        "encryption": encryption,
        "rehearsed": looked.and_then(|looked| looked.rehearsed.as_ref()),
        "restorable": looked.map(|looked| looked.cannot.is_none()),
        "not_restorable_because": looked.and_then(|looked| looked.cannot.as_ref()),
        "damaged": summary.damaged,
        "verified": looked.and_then(|looked| looked.proof.as_ref()).map(|proof| json!({
            "at": proof.at.to_rfc3339(),
            "by": proof.by,
            "good": proof.damage.is_none(),
            "found": proof.damage.as_ref().map(|damage| &damage.found),
        })),
    })
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use wale_format::{Codec, Locked};
    use wale_ops::backup_list::BackupLook;
    use wale_pg::TimelineId;

    use super::*;

    fn summary(name: &str, second: u32) -> BackupSummary {
        BackupSummary {
            name: BackupName::parse(name).unwrap(),
            modified: Utc.with_ymd_and_hms(2026, 11, 22, 6, 56, second).unwrap(),
            expanded_size_bytes: Some(24_123_513),
            start_segment: "00000001000000000000000B".into(),
            start_offset: "00000040".into(),
            stop_segment: "00000001000000000000000B".into(),
            stop_offset: "00000248".into(),
            start_time: None,
            stop_time: None,
            start_lsn: None,
            stop_lsn: None,
            timeline: TimelineId::new(1).unwrap(),
            major: None,
            files: Some(3),
            stored_bytes: None,
            damaged_pages: 0,
            preload_libraries: None,
            extensions: std::collections::BTreeMap::new(),
            timescaledb: std::collections::BTreeMap::new(),
            wale: true,
            tool: Some(Tool::Wale),
            system_identifier: None,
            parent: None,
            looked: None,
            damaged: None,
        }
    }

    const A: &str = "base_00000001000000000000000B_00000040";

    #[test]
    fn the_table_is_wal_es() {
        let header = "name\tlast_modified\texpanded_size_bytes\twal_segment_backup_start\t\
                      wal_segment_offset_backup_start\twal_segment_backup_stop\t\
                      wal_segment_offset_backup_stop\r\n";
        assert_eq!(table(&[], true, Face::WalE, Times::File), header);
        let rows = [summary(A, 29)];
        let plain = "\t2026-11-22T06:56:29\t\t00000001000000000000000B\t00000040\t\t\r\n";
        assert_eq!(
            table(&rows, false, Face::Wale, Times::File),
            format!("{header}{A}{plain}")
        );
        let detail = "\t2026-11-22T06:56:29\t24123513\t00000001000000000000000B\t00000040\t\
                      00000001000000000000000B\t00000248\r\n";
        assert_eq!(
            table(&rows, true, Face::WalE, Times::File),
            format!("{header}{A}{detail}")
        );
        let on_s3 = "\t2026-11-22T06:56:29.000Z\t\t00000001000000000000000B\t00000040\t\t\r\n";
        assert_eq!(
            table(&rows, false, Face::WalE, Times::S3),
            format!("{header}{A}{on_s3}")
        );
    }

    #[test]
    fn with_detail_wale_tells_how_a_backup_is_encrypted() {
        let shown = |keys: &[&str], method, locked| ShownEncryption {
            method,
            keys: keys.iter().map(ToString::to_string).collect(),
            locked,
        };
        let locked = Some(Locked {
            method: None,
            has_key: false,
        });
        let cases = [
            (None, "\t\t\t\t\t\r\n", Value::Null),
            (
                Some(shown(
                    &["X25519", "ssh-rsa abcd"],
                    Some(Encryption::Age),
                    None,
                )),
                "\tage\tX25519,ssh-rsa abcd\tyes\t\t\r\n",
                json!({"method": "age", "keys": ["X25519", "ssh-rsa abcd"], "can_decrypt": true}),
            ),
            (
                Some(shown(&[], None, locked)),
                "\tunknown\t\tno\t\t\r\n",
                json!({"method": "unknown", "keys": [], "can_decrypt": false}),
            ),
        ];
        for (encryption, end, value) in cases {
            let mut row = summary(A, 29);
            row.looked = Some(BackupLook {
                codecs: [Codec::Zstd].into(),
                cannot: None,
                encryption,
                proof: None,
                rehearsed: None,
            });
            let text = table(std::slice::from_ref(&row), true, Face::Wale, Times::File);
            assert!(
                text.contains("\tencryption\tkeys\tcan_decrypt\tverified\trehearsed\r\n"),
                "{text}"
            );
            assert!(text.ends_with(end), "{text}");
            assert_eq!(summary_json(&row)["encryption"], value);
        }
    }

    #[test]
    fn each_store_has_its_own_times() {
        let time = Utc.with_ymd_and_hms(2026, 11, 22, 7, 6, 24).unwrap();
        assert_eq!(
            Times::of("s3://bkt/pfx").text(time),
            "2026-11-22T07:06:24.000Z"
        );
        assert_eq!(
            Times::of("wabs://cont/pfx").text(time),
            "2026-11-22 07:06:24+00:00"
        );
        assert_eq!(
            Times::of("file:///archive").text(time),
            "2026-11-22T07:06:24"
        );
    }

    #[test]
    fn times_and_quotes_are_pythons() {
        let time = Utc.with_ymd_and_hms(2026, 11, 22, 6, 56, 47).unwrap();
        assert_eq!(of_a_file(time), "2026-11-22T06:56:47");
        let time = time + chrono::TimeDelta::nanoseconds(867_021_999);
        assert_eq!(of_a_file(time), "2026-11-22T06:56:47.867022");
        let time = time - chrono::TimeDelta::nanoseconds(867_021_999 - 999_999_900);
        assert_eq!(of_a_file(time), "2026-11-22T06:56:48");
        assert_eq!(quoted("a\"b".into()), "\"a\"\"b\"");
        assert_eq!(quoted("a b".into()), "a b");
    }

    #[test]
    fn queries() {
        assert!(matches!(Query::parse("LATEST"), Ok(Query::Latest)));
        assert!(matches!(Query::parse(A), Ok(Query::Name(name)) if name.as_str() == A));
        for text in ["nonsense", "base_", ""] {
            let error = Query::parse(text).unwrap_err();
            assert_eq!(error.message, "invalid backup query submitted");
        }
    }

    #[test]
    fn json_is_an_array() {
        let value: Value = serde_json::from_str(&as_json(&[summary(A, 1)])).unwrap();
        assert_eq!(value[0]["name"], A);
        assert_eq!(value[0]["expanded_size_bytes"], 24_123_513);
        assert_eq!(as_json(&[]), "[]\n");
    }
}
