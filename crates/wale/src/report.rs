//! How a failure is reported: once, at the top, in PostgreSQL's three voices.

use std::io::Write;

use wale_ops::{Kind, OpError};
use wale_service::advice;

use crate::verbs::WalObject;

/// WAL-E's name for who fetches WAL, in its log.
pub(crate) const RESTORER: &str = "wal_e.operator.backup";

/// A failed verb.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What happened.
    pub(crate) error: OpError,
    /// The exit status, where it is not the one that follows from the error's kind.
    pub(crate) status: Option<u8>,
    /// The WAL file that was looked for, and WAL-E's word for what looked for it.
    pub(crate) looked_for: Option<Box<(&'static str, WalObject)>>,
}

impl Failure {
    /// A failure with a status of its own.
    pub(crate) fn with_status(error: OpError, status: u8) -> Self {
        Self {
            error,
            status: Some(status),
            looked_for: None,
        }
    }

    /// The same, of an action on a WAL file.
    pub(crate) fn of(self, action: &'static str, object: WalObject) -> Self {
        Self {
            looked_for: Some(Box::new((action, object))),
            ..self
        }
    }
}

impl From<OpError> for Failure {
    fn from(error: OpError) -> Self {
        Self {
            error,
            status: None,
            looked_for: None,
        }
    }
}

/// Whether a verb's caller expects to hear that something is not in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absence {
    /// A standby asks every few seconds until it is there: not worth a line in its server's log.
    Awaited,
    /// PostgreSQL asks until it hears so: no error.
    Normal,
    /// A person named something that is not there.
    Wrong,
}

/// How a failure is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As lines on standard error.
    Lines,
    /// As one event of the log.
    Event,
    /// As a record of WAL-E's log, in the words that are watched for.
    WalE,
}

/// Tells the failure, once.
pub(crate) fn tell(failure: &Failure, absence: Absence, manner: Manner) {
    let error = &failure.error;
    let normal = is_normal(error, absence);
    match manner {
        Manner::Event if normal && absence == Absence::Awaited => {
            tracing::debug!(kind = error.kind.name(), "{}", error.chain());
        }
        Manner::Event if normal => {
            tracing::info!(kind = error.kind.name(), "{}", error.chain());
        }
        Manner::Event => {
            tracing::error!(
                kind = error.kind.name(),
                detail = error.detail.as_deref(),
                hint = advice(error),
                "{}",
                error.chain()
            );
        }
        Manner::WalE if normal => tell_absence_as_wal_e(failure),
        Manner::WalE => tell_as_wal_e(error),
        Manner::Lines if normal && absence == Absence::Awaited => {}
        // Nobody is left to hear that standard error is closed.
        Manner::Lines => drop(std::io::stderr().write_all(text(error, absence).as_bytes())),
    }
}

/// The end of the WAL, in the words and with the keys that are watched for.
fn tell_absence_as_wal_e(failure: &Failure) {
    let object = failure.looked_for.as_deref();
    let detail = object.map_or_else(
        || format!("{}.", failure.error.chain()),
        |(_, object)| {
            let key = &object.key;
            format!("The absolute URI that could not be located is {key}, under any extension.")
        },
    );
    tracing::info!(
        target: RESTORER,
        detail,
        hint = "PostgreSQL asks for files until one is absent: at the end of the WAL this is as it should be.",
        action = object.map(|(action, _)| *action),
        key = object.map(|(_, object)| object.key.as_str()),
        prefix = object.map(|(_, object)| object.prefix.as_str()),
        seg = object.map(|(_, object)| object.seg.as_str()),
        "could no longer locate object while performing wal restore"
    );
}

fn tell_as_wal_e(error: &OpError) {
    let (detail, hint) = (error.detail.as_deref(), advice(error));
    if error.kind == Kind::Internal {
        let detail = [Some(error.chain().as_str()), detail]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join("\n");
        tracing::error!(
            target: "wal_e.main",
            severity = "CRITICAL",
            detail,
            hint,
            "An unprocessed exception has avoided all error handling"
        );
    } else {
        tracing::error!(target: "wal_e.main", detail, hint, "{}", error.chain());
    }
}

/// The lines: message with its causes, DETAIL, HINT. Further lines of a voice are indented.
pub(crate) fn text(error: &OpError, absence: Absence) -> String {
    let severity = if is_normal(error, absence) {
        "INFO"
    } else {
        "ERROR"
    };
    let mut text = voice(severity, &error.chain());
    if let Some(detail) = &error.detail {
        text.push_str(&voice("DETAIL", detail));
    }
    if let Some(hint) = advice(error) {
        text.push_str(&voice("HINT", &hint));
    }
    text
}

fn is_normal(error: &OpError, absence: Absence) -> bool {
    error.kind == Kind::NotFound && absence != Absence::Wrong
}

fn voice(name: &str, words: &str) -> String {
    let clean: String = words
        .chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    format!("{name}: {}\n", clean.trim_end().replace('\n', "\n    "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_voices() {
        let cause = std::io::Error::other("connection refused");
        let error = OpError::new(Kind::StorageUnavailable, "could not read x").source(cause);
        assert_eq!(
            text(&error, Absence::Wrong),
            "ERROR: could not read x: connection refused\n"
        );
        let error = error.detail("One.\nTwo.\u{1b}[31m").hint("look at y");
        let expected = "ERROR: could not read x: connection refused\n\
                        DETAIL: One.\n    Two.\u{fffd}[31m\nHINT: look at y\n";
        assert_eq!(text(&error, Absence::Wrong), expected);
        let absent = OpError::new(Kind::NotFound, "no z");
        assert_eq!(text(&absent, Absence::Normal), "INFO: no z\n");
        assert_eq!(text(&absent, Absence::Wrong), "ERROR: no z\n");
    }
}
