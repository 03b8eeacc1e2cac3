//! A timeline's history that lies in `pg_wal` already, for a moment in which the archive does not answer.
//!
//! At the end of its recovery, when the signal file is gone, PostgreSQL asks once more for the history of the timeline
//! that it comes from, although it has it (`writeTimeLineHistory`). A server that is stopped there begins with crash
//! recovery when it is started again: beyond its target, and on the old timeline. Taking the file that lies there is what
//! PostgreSQL does itself when it hears that the archive does not have it, so it can be no worse than that answer. Where
//! the archive answers, its copy wins.

use std::io::Read as _;
use std::path::Path;

use wale_cluster::durable;
use wale_ops::{Kind, OpError};
use wale_pg::{ArchiveFileName, TimelineHistory, TimelineId};

/// Mode of WAL files, as PostgreSQL makes them.
const MODE: u32 = 0o600;

/// A history file has one line for each timeline: this is room for tens of thousands.
const HISTORY_BYTES_MAX: u64 = 1 << 20;

/// Puts the history in place of what the archive could not give. `error` says why it could not.
///
/// # Errors
/// That there is none, for timeline 1. Otherwise `error` itself: where it proves that the archive does not have the
/// file, where something else than a history was asked for, and where no whole history lies beside `destination`.
pub(crate) fn instead(error: OpError, name: &str, destination: &Path) -> Result<(), OpError> {
    if error.kind != Kind::NotFound && is_of_the_first_timeline(name) {
        tracing::warn!(error = %error.chain(), "the archive does not answer");
        let message = format!("{name} is not in the archive");
        return Err(OpError::new(Kind::NotFound, message)
            .detail("Timeline 1 has no history, so there is nothing to ask for."));
    }
    let Some(text) = at_hand(name, destination).filter(|_| error.kind != Kind::NotFound) else {
        return Err(error);
    };
    if let Err(failed) = durable::write_atomic(destination, text.as_bytes(), MODE, None) {
        tracing::warn!(%failed, "the history in pg_wal could not be copied to {}", destination.display());
        return Err(error);
    }
    tracing::warn!(
        error = %error.chain(),
        "the archive does not answer; {name} is taken from pg_wal, where it lies already"
    );
    Ok(())
}

/// PostgreSQL asks for the history of its parent also where that is timeline 1.
pub(crate) fn is_of_the_first_timeline(name: &str) -> bool {
    matches!(
        name.parse(),
        Ok(ArchiveFileName::TimelineHistory(TimelineId::FIRST))
    )
}

/// The whole history of that name beside `destination`, unless it is `destination` itself.
pub(crate) fn at_hand(name: &str, destination: &Path) -> Option<String> {
    let Ok(ArchiveFileName::TimelineHistory(timeline)) = name.parse() else {
        return None;
    };
    let path = destination.with_file_name(name);
    if path == destination {
        return None;
    }
    // PostgreSQL makes it under another name and renames it. What somebody else left half-written is not taken.
    let metadata = std::fs::symlink_metadata(&path).ok()?;
    if !metadata.is_file() || metadata.len() > HISTORY_BYTES_MAX {
        return None;
    }
    // It may grow after the look.
    let mut text = String::new();
    let file = std::fs::File::open(&path).ok()?;
    file.take(HISTORY_BYTES_MAX)
        .read_to_string(&mut text)
        .ok()?;
    let history = TimelineHistory::parse(timeline, &text).ok()?;
    (!history.parents.is_empty() && text.ends_with('\n')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "00000003.history";
    const WHOLE: &str =
        "1\t0/3000000\tno recovery target specified\n\n2\t0/5000000\tat restore point\n";

    #[test]
    fn fault_104_a_history_beside_stands_in_for_an_archive_that_does_not_answer() {
        let folder = tempfile::tempdir().unwrap();
        let destination = folder.path().join("RECOVERYHISTORY");
        let down = || OpError::new(Kind::StorageUnavailable, "down");
        let beside = folder.path().join(NAME);
        assert!(instead(down(), NAME, &destination).is_err(), "none there");
        // Empty, cut, of another timeline: no history of this name.
        for text in ["", "1\t0/30000", "1\t0/3000000\tx\n3\t0/4000000\ty\n", "\n"] {
            std::fs::write(&beside, text).unwrap();
            assert!(instead(down(), NAME, &destination).is_err(), "{text:?}");
        }
        std::fs::write(&beside, WHOLE).unwrap();
        // The archive's word counts where there is one.
        let absent = OpError::new(Kind::NotFound, "absent");
        assert!(instead(absent, NAME, &destination).is_err());
        assert!(instead(down(), NAME, &beside).is_err(), "onto itself");
        assert!(!destination.exists());
        instead(down(), NAME, &destination).unwrap();
        assert_eq!(std::fs::read_to_string(&destination).unwrap(), WHOLE);
        let first = instead(down(), "00000001.history", &destination).unwrap_err();
        assert_eq!(first.kind, Kind::NotFound);
        // Never a segment: the one in pg_wal may be recycled, or half of what the archive has.
        let segment = "000000010000000000000003";
        std::fs::write(folder.path().join(segment), "x").unwrap();
        assert!(instead(down(), segment, &destination).is_err());
    }
}
