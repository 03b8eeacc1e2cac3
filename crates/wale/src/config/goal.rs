//! Where a recovery ends, as settings and flags say it. What PostgreSQL would refuse is refused when it is read.

use wale_cluster::recovery;

use super::value::BadValue;

/// An end of a recovery that needs no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestoreTo {
    /// At the end of the archive.
    Latest,
    /// At the end of the base backup.
    Immediate,
}

impl RestoreTo {
    pub(crate) const ALL: [Self; 2] = [Self::Latest, Self::Immediate];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Immediate => "immediate",
        }
    }
}

/// What the server does at its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetAction {
    /// Wait, read-only, to be looked at
    Pause,
    /// End the recovery and take writes
    Promote,
    /// Stop
    Shutdown,
}

impl TargetAction {
    pub(crate) const ALL: [Self; 3] = [Self::Pause, Self::Promote, Self::Shutdown];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Promote => "promote",
            Self::Shutdown => "shutdown",
        }
    }
}

/// A time, with its zone.
pub(crate) fn time(text: &str) -> Result<String, BadValue> {
    checked("recovery_target_time", text)
}

/// A WAL position.
pub(crate) fn position(text: &str) -> Result<String, BadValue> {
    checked("recovery_target_lsn", text)
}

/// The name of a restore point.
pub(crate) fn point(text: &str) -> Result<String, BadValue> {
    checked("recovery_target_name", text)
}

/// A transaction's number.
pub(crate) fn transaction(text: &str) -> Result<String, BadValue> {
    checked("recovery_target_xid", text)
}

/// `latest`, `current` or a timeline's number.
pub(crate) fn timeline(text: &str) -> Result<String, BadValue> {
    checked("recovery_target_timeline", text)
}

/// PostgreSQL's name of the setting does not matter to who wrote the value elsewhere.
fn checked(name: &str, text: &str) -> Result<String, BadValue> {
    match recovery::check_value(name, text) {
        Ok(()) => Ok(text.to_owned()),
        Err((problem, hint)) => {
            let problem = problem.replace(&format!(" in {name}"), "");
            let bad = BadValue::new(problem.replace(name, "it"));
            Err(match hint {
                None => bad,
                Some(hint) => {
                    let hint = hint.replace(&format!("{name} = "), "");
                    let hint = hint.trim_end_matches('.').replacen("Write", "write", 1);
                    bad.hint(hint)
                }
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postgresql_would_refuse_is_refused_with_what_to_write() {
        assert!(time("2026-11-23 14:00:00+00").is_ok());
        // 10 and 11 take it.
        assert!(time("2026-07-23 14:00:00 CEST").is_ok());
        let bad = time("2026-11-23 14:00:00").unwrap_err();
        assert_eq!(bad.problem, "it has no time zone: \"2026-11-23 14:00:00\"");
        assert!(bad.hint.unwrap().starts_with("write for example '2026-"));
        for bad in ["now", "2026-13-23 14:00+00", "11/23/2026 14:00+00", ""] {
            assert!(time(bad).is_err(), "{bad}");
        }
        assert!(position("0/3000148").is_ok() && position("3000148").is_err());
        assert!(transaction("742").is_ok() && transaction("x").is_err());
        assert!(timeline("2").is_ok() && timeline("current").is_ok());
        assert!(timeline("newest").is_err());
        assert!(point("before the update").is_ok() && point(&"x".repeat(64)).is_err());
    }
}
