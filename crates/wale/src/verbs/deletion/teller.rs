//! How deletions are reported: by log lines, line by line on standard output, or as one JSON document.

use std::fmt::Write;
use std::io;

use serde_json::json;
use tracing::Level;
use wale_format::BackupName;
use wale_ops::retention::{Line, Report, What};
use wale_ops::{Kind, OpError};

use crate::cli::{Deletion, Face};
use crate::progress::bytes;
use crate::report::Failure;
use crate::verbs::wal_record::path_prefix;

/// WAL-E's name for who deletes, in its log.
const WORKER: &str = "wal_e.worker.base";

/// The status of a run that could not delete everything, of both faces.
const RETAINED: u8 = 1;

/// How objects are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voice {
    /// WAL-E's log lines, of what goes.
    Log,
    /// A line for each object on standard output.
    Text,
    /// One JSON document on standard output.
    Json,
}

pub(super) struct Teller {
    voice: Voice,
    dry_run: bool,
    location: String,
    /// The command line that does what a dry run reports.
    line: String,
    told: u64,
    /// Standard output failed: its reader has seen enough, or the disk is full.
    closed: Option<io::Error>,
}

impl Teller {
    pub(super) fn new(arguments: Deletion, face: Face, location: &str, line: String) -> Self {
        let dry_run = arguments.is_dry_run();
        let voice = match face {
            _ if arguments.json => Voice::Json,
            Face::Wale if dry_run => Voice::Text,
            Face::Wale | Face::WalE => Voice::Log,
        };
        Self {
            voice,
            dry_run,
            location: location.trim_end_matches('/').to_owned(),
            line,
            told: 0,
            closed: None,
        }
    }

    pub(super) fn tell(&mut self, line: &Line) {
        match self.voice {
            Voice::Log => self.log(line),
            Voice::Text => {
                let fate = if line.goes { "delete" } else { "keep" };
                self.write(&format!(
                    "{fate:<6} {:>11} {}  ({})\n",
                    line.size, line.key, line.why
                ));
            }
            Voice::Json => {
                let value = json!({"key": line.key.as_str(), "size": line.size, "what": line.what.name(),
                    "fate": if line.goes { "delete" } else { "keep" }, "why": line.why});
                let before = if self.told == 0 {
                    "{\"objects\":[\n"
                } else {
                    ",\n"
                };
                self.write(&format!("{before}{value}"));
            }
        }
        self.told += 1;
    }

    /// WAL-E's words. With `--terse` a dry run would say nothing at all, so it is reported as a warning then.
    fn log(&self, line: &Line) {
        let key = format!("{}/{}", self.location, line.key);
        if !line.goes {
            if line.what == What::Unknown {
                let detail = format!(
                    "The unexpected key is \"{key}\", and it appears to be of no known kind."
                );
                tracing::warn!(target: WORKER, detail, "skipping non-qualifying key in 'delete before'");
            }
            return;
        }
        let message = log_words(line.what);
        let detail = format!("The key being deleted is {key}.");
        let hint = self
            .dry_run
            .then_some("This is only a dry run -- no actual data is being deleted");
        if self.dry_run && !tracing::enabled!(target: WORKER, Level::INFO) {
            tracing::warn!(target: WORKER, detail, hint, "{message}");
        } else {
            tracing::info!(target: WORKER, detail, hint, "{message}");
        }
    }

    fn write(&mut self, text: &str) {
        if self.closed.is_none() {
            self.closed = io::Write::write_all(&mut io::stdout(), text.as_bytes()).err();
        }
    }

    pub(super) fn end(mut self, report: &Report) -> Result<(), Failure> {
        for warning in &report.warnings {
            tracing::warn!("{warning}");
        }
        match self.voice {
            Voice::Json => {
                let line = self.dry_run.then_some(self.line.as_str());
                let text = json_end(report, self.told, line);
                self.write(&text);
            }
            Voice::Text => {
                for note in &report.notes {
                    self.write(&format!("{note}\n"));
                }
                for name in &report.deleted {
                    self.write(&format!("backup {name} would go\n"));
                }
                for (name, why) in &report.kept {
                    self.write(&format!("backup {name} stays: {why}\n"));
                }
                let line = format!("{}\nto do it: {}\n", summary(report, true), self.line);
                self.write(&line);
            }
            Voice::Log => {
                for note in &report.notes {
                    tracing::info!("{note}");
                }
                let hint = self.dry_run.then(|| format!("to do it: {}", self.line));
                tracing::info!(hint, "{}", summary(report, self.dry_run));
            }
        }
        if report.refused_count > 0 && self.voice != Voice::Json {
            let table = refused_table(report, &self.location);
            self.write(&table);
        }
        match self.closed {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(OpError::from_io(error, "write to standard output").into());
            }
            _ => {}
        }
        if report.refused_count == 0 {
            return Ok(());
        }
        let error = OpError::new(Kind::PermissionDenied, told_refused(report)).hint(
            "check object lock, retention periods and the permission to delete; what they hold back goes with a later \
             run",
        );
        Err(Failure::with_status(error, RETAINED))
    }
}

pub(super) fn told_refused(report: &Report) -> String {
    format!(
        "{} objects are retained by the store and could not be deleted",
        report.refused_count
    )
}

fn log_words(what: What) -> &'static str {
    match what {
        What::Sentinel => "deleting a base backup sentinel file",
        What::Volume => "deleting a base backup volume",
        What::ExtendedVersion => "deleting a extended version metadata file",
        What::BackupObject => "deleting a base backup metadata file",
        What::Wal => "deleting a wal file",
        What::BackupHistory => "deleting a backup history file",
        What::TimelineHistory => "deleting a timeline history file",
        What::Unknown => "deleting a file of no known kind",
    }
}

pub(super) fn summary(report: &Report, dry_run: bool) -> String {
    let would = if dry_run { "would be " } else { "" };
    format!(
        "{} base backups and {} objects ({}) {would}deleted, {} of them WAL; {} base backups stay",
        report.deleted.len(),
        report.objects,
        bytes(report.bytes),
        report.wal_objects,
        report.kept.len()
    )
}

/// WAL-E's table of what S3 would not delete: tabs, CR LF, as Python's `csv` writes it, each object by its whole name in
/// the store.
fn refused_table(report: &Report, location: &str) -> String {
    let prefix = if location.starts_with("file://") {
        String::new()
    } else {
        path_prefix(location)
    };
    let mut text = "key\terror_code\terror_message\r\n".to_owned();
    for refused in &report.refused {
        let (key, code) = (format!("{prefix}{}", refused.key), &refused.code);
        let message = quoted(&refused.message);
        let _ = write!(text, "{key}\t{code}\t{message}\r\n");
    }
    text
}

/// One line, in quotes where `csv` would set them.
fn quoted(message: &str) -> String {
    let clean: String = message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if clean.contains('"') {
        format!("\"{}\"", clean.replace('"', "\"\""))
    } else {
        clean
    }
}

fn json_end(report: &Report, told: u64, line: Option<&str>) -> String {
    let kept: Vec<_> = report
        .kept
        .iter()
        .map(|(name, why)| json!({"name": name.as_str(), "why": why}))
        .collect();
    let refused: Vec<_> = report
        .refused
        .iter()
        .map(|refused| json!({"key": refused.key.as_str(), "code": refused.code, "message": refused.message}))
        .collect();
    let deleted: Vec<&str> = report.deleted.iter().map(BackupName::as_str).collect();
    let rest = json!({
        "dry_run": line.is_some(),
        "to_do_it": line,
        "deleted_backups": deleted,
        "kept_backups": kept,
        "deleted_objects": report.objects,
        "deleted_bytes": report.bytes,
        "deleted_wal_objects": report.wal_objects,
        "retained_objects": report.refused_count,
        "retained": refused,
        "warnings": report.warnings,
        "notes": report.notes,
    });
    let before = if told == 0 { "{\"objects\":[" } else { "\n" };
    // The rest is an object of its own: its opening brace is not wanted.
    format!("{before}],\n{}\n", &rest.to_string()[1..])
}

#[cfg(test)]
mod tests {
    use wale_ops::retention::Refused;
    use wale_storage::ObjectKey;

    use super::*;

    #[test]
    fn the_refusals_are_wal_es_table() {
        let refused = |message: &str| Refused {
            key: ObjectKey::new("wal_005/x").unwrap(),
            code: "AccessDenied".to_owned(),
            message: message.to_owned(),
        };
        let report = Report {
            refused: vec![refused("locked"), refused("a \"b\"\nc")],
            refused_count: 2,
            ..Report::default()
        };
        assert_eq!(
            refused_table(&report, "file:///archive"),
            "key\terror_code\terror_message\r\nwal_005/x\tAccessDenied\tlocked\r\n\
             wal_005/x\tAccessDenied\t\"a \"\"b\"\" c\"\r\n"
        );
        for (location, key) in [
            ("s3://bkt/some/prefix", "some/prefix/wal_005/x"),
            ("s3://bkt", "wal_005/x"),
        ] {
            let table = refused_table(&report, location);
            assert_eq!(
                table.lines().nth(1),
                Some(&*format!("{key}\tAccessDenied\tlocked"))
            );
        }
    }

    #[test]
    fn the_json_is_one_document() {
        let report = Report::default();
        for begin in ["", "{\"objects\":[\n{}", "{\"objects\":[\n{},\n{}"] {
            let text = format!(
                "{begin}{}",
                json_end(&report, begin.len() as u64, Some("wale retain --confirm"))
            );
            let value: serde_json::Value = serde_json::from_str(&text).expect(&text);
            assert_eq!(value["dry_run"], true);
            assert_eq!(
                value["objects"].as_array().map(Vec::len),
                Some(begin.matches("{}").count())
            );
        }
    }
}
