//! WAL-E's record, which monitoring reads: name and level padded, then what happened, and below it the details.
//!
//! ```text
//! wal_e.main   INFO     MSG: starting WAL-E
//!         DETAIL: The subcommand is "backup-push".
//!         STRUCTURED: time=2026-11-22T06:56:43.534900-00 pid=32599
//! ```
//!
//! The fields `detail` and `hint` of an event become those parts, `severity` replaces the level's name, all others
//! stand in STRUCTURED, sorted; what wale knows more of a file than WAL-E does is left out there. Line ends within a part are followed by eight spaces, so that no input of ours can
//! forge a record.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Write};

use chrono::{DateTime, Utc};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// Fields of records that WAL-E has too, which WAL-E's do not have.
const OURS: [&str; 2] = ["bytes", "outcome"];

/// WAL-E's format.
pub(super) struct Record;

impl<S, N> FormatEvent<S, N> for Record
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let metadata = event.metadata();
        let logger = metadata.target().split("::").next().unwrap_or_default();
        writer.write_str(&parts.text(logger, *metadata.level(), Utc::now()))
    }
}

/// What an event says.
#[derive(Default)]
struct Parts {
    fields: BTreeMap<&'static str, String>,
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}

impl Parts {
    fn text(mut self, logger: &str, level: Level, now: DateTime<Utc>) -> String {
        let severity = self.fields.remove("severity");
        let severity = severity.as_deref().unwrap_or(match level {
            Level::ERROR => "ERROR",
            Level::WARN => "WARNING",
            Level::INFO => "INFO",
            Level::DEBUG | Level::TRACE => "DEBUG",
        });
        let message = self.fields.remove("message").unwrap_or_default();
        let mut text = format!("{logger:<12} {severity:<8} MSG: {message}");
        for (part, field) in [("DETAIL", "detail"), ("HINT", "hint")] {
            if let Some(words) = self.fields.remove(field) {
                let _ = write!(text, "\n{part}: {words}");
            }
        }
        let (time, process) = (now.format("%Y-%m-%dT%H:%M:%S%.6f-00"), std::process::id());
        let _ = write!(text, "\nSTRUCTURED: time={time} pid={process}");
        let is_wal_es = |name: &&str| !(logger.starts_with("wal_e.") && OURS.contains(name));
        for (name, value) in self.fields.iter().filter(|(name, _)| is_wal_es(name)) {
            let _ = write!(text, " {name}={value}");
        }
        let mut indented = String::with_capacity(text.len() + 64);
        for character in text.chars() {
            match character {
                '\n' => indented.push_str("\n        "),
                control if control.is_control() => indented.extend(control.escape_default()),
                other => indented.push(other),
            }
        }
        indented.push('\n');
        indented
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_wal_es_to_the_byte() {
        let now = "2026-11-22T06:56:43.534900Z".parse().unwrap();
        let id = std::process::id();
        let parts = |fields: &[(&'static str, &str)]| Parts {
            fields: fields.iter().map(|(n, v)| (*n, (*v).to_owned())).collect(),
        };
        let said = parts(&[
            ("message", "starting WAL-E"),
            ("detail", "The subcommand is \"backup-push\"."),
        ]);
        let expected = format!(
            "wal_e.main   INFO     MSG: starting WAL-E\n        DETAIL: The subcommand is \"backup-push\".\n        \
             STRUCTURED: time=2026-11-22T06:56:43.534900-00 pid={id}\n"
        );
        assert_eq!(said.text("wal_e.main", Level::INFO, now), expected);
        let said = parts(&[
            ("message", "x\ny\u{1b}[31m"),
            ("hint", "look"),
            ("state", "begin"),
            ("action", "push-wal"),
            ("severity", "CRITICAL"),
        ]);
        let expected = format!(
            "wal_e.worker.upload CRITICAL MSG: x\n        y\\u{{1b}}[31m\n        HINT: look\n        \
             STRUCTURED: time=2026-11-22T06:56:43.534900-00 pid={id} action=push-wal state=begin\n"
        );
        assert_eq!(
            said.text("wal_e.worker.upload", Level::ERROR, now),
            expected
        );
    }

    /// The example of the upload's end: keys sorted, none that WAL-E does not have.
    #[test]
    fn what_only_wale_knows_is_not_in_wal_es_records() {
        let now = "2026-11-22T07:05:19.198765Z".parse().unwrap();
        let fields = [
            ("message", "completed archiving to a file"),
            ("bytes", "16777216"),
            ("outcome", "stored"),
            ("prefix", "pfx/"),
            ("action", "push-wal"),
            ("state", "complete"),
        ];
        let said = |logger: &str| {
            let fields = fields.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
            let text = Parts { fields }.text(logger, Level::INFO, now);
            text.split_once(" action=").unwrap().1.to_owned()
        };
        assert_eq!(
            said("wal_e.worker.upload"),
            "push-wal prefix=pfx/ state=complete\n"
        );
        let own = said("wale_ops");
        assert!(own.contains("bytes=16777216 outcome=stored"), "{own}");
    }
}
