//! The decisions of a restore about the places that it writes to, without I/O: everything that can be refused before the
//! first write.

use std::path::{Path, PathBuf};

use wale_archive::Remedy;

use crate::backup_content::DiskNeed;
use crate::error::{Kind, OpError, Result};

/// Left free on the volume of the data directory: the first WAL segments of recovery go there. 4 × 16 MiB.
const RESERVE_BYTES: u64 = 64 << 20;

/// What the data directory to be was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TargetState {
    /// It does not exist; its parent does.
    Missing,
    /// Nothing is in it (a lock file and `lost+found` do not count).
    Empty,
    /// A restore of ours began in it and did not end; nobody has started a server on it.
    HalfDone {
        /// The backup of that restore.
        backup: String,
    },
    /// The same of a restore that keeps files: not all that is in it is that restore's own.
    HalfKept {
        /// The backup of that restore.
        backup: String,
    },
    /// A restore of ours ended in it.
    Done {
        /// The backup of that restore.
        backup: String,
    },
    /// Something else is in it; the text says what.
    Occupied(String),
    /// A server runs on it; the text says how we know.
    Running(String),
}

/// How a restore begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// Into nothing.
    Fresh,
    /// What an earlier attempt wrote is removed first.
    AfterWiping,
    /// Into a stopped cluster, of which what is the backup's is kept.
    Keeping,
}

/// Decides whether the target may be written to.
///
/// # Errors
///
/// [`Kind::NotEmpty`] when anything is there that a restore would destroy.
pub(super) fn judge_target(target: &Path, state: &TargetState) -> Result<Begin> {
    let shown = target.display();
    let refuse = |message: String| Err(OpError::new(Kind::NotEmpty, message));
    match state {
        TargetState::Missing | TargetState::Empty => Ok(Begin::Fresh),
        TargetState::HalfDone { .. } => Ok(Begin::AfterWiping),
        TargetState::HalfKept { backup } => refuse(format!(
            "in \"{shown}\" a restore of {backup} has not ended that kept files which were there before"
        ))
        .map_err(|error| {
            error
                .hint("run it again: what it has is kept, and nothing is started before it is whole")
                .remedy(Remedy::KeepFiles)
        }),
        TargetState::Done { backup } => refuse(format!("\"{shown}\" holds a cluster that was restored from {backup}"))
            .map_err(|error| error.hint("start it, or name an empty directory to restore into")),
        TargetState::Occupied(what) => refuse(format!("\"{shown}\" is not empty: {what}")).map_err(|error| {
            error.hint("name an empty directory, or move this one away (mv) and keep it until the restore is proven: its pg_wal may hold WAL that the archive lacks")
        }),
        TargetState::Running(how) => refuse(format!("a server is running on \"{shown}\": {how}"))
            .map_err(|error| error.hint("stop the server and name an empty directory")),
    }
}

/// A directory outside of the data directory that the restore will write into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OutsideFacts {
    /// The directory.
    pub(super) path: PathBuf,
    /// What it is for: `tablespace 16384`, `the WAL directory`.
    pub(super) purpose: String,
    /// What is in the way: it does not exist, is no directory, or holds something. `None` is as it should be.
    pub(super) obstacle: Option<String>,
}

impl OutsideFacts {
    /// The same in a restore that keeps files: why it is not taken for the cluster's own.
    pub(super) fn unless_named(self) -> Self {
        let why = "; a copy of a data directory leads to the original's: what is really its own is named in the request, and linked there";
        Self {
            obstacle: self.obstacle.map(|obstacle| format!("{obstacle}{why}")),
            ..self
        }
    }
}

/// Refuses tablespace targets and WAL directories that do not exist or hold something.
///
/// # Errors
///
/// [`Kind::NotEmpty`], naming the directory.
pub(super) fn check_outside(directories: &[OutsideFacts]) -> Result<()> {
    for facts in directories {
        if let Some(obstacle) = &facts.obstacle {
            let (path, purpose) = (facts.path.display(), &facts.purpose);
            return Err(OpError::new(
                Kind::NotEmpty,
                format!("\"{path}\", meant for {purpose}, {obstacle}"),
            )
            .hint("make an empty directory for it, or map it to one (OID=/path or /old=/new)"));
        }
    }
    Ok(())
}

/// A file system that the restore will write to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Volume {
    /// A directory on it, for messages.
    pub(super) path: PathBuf,
    /// Bytes that may still be used.
    pub(super) free_bytes: u64,
    /// Files that may still be made; `None` where the file system has no such limit.
    pub(super) free_files: Option<u64>,
    /// Whether it is mounted read-only.
    pub(super) read_only: bool,
}

/// What a volume must have free for a need.
pub(super) fn wanted(need: DiskNeed) -> u64 {
    need.bytes.saturating_add(RESERVE_BYTES)
}

/// Refuses volumes that are read-only or too small.
///
/// # Errors
///
/// [`Kind::DiskFull`] or [`Kind::PermissionDenied`], naming the volume and the numbers.
pub(super) fn check_space(volumes: &[(Volume, DiskNeed)]) -> Result<()> {
    for (volume, need) in volumes {
        let path = volume.path.display();
        if volume.read_only {
            return Err(OpError::new(
                Kind::PermissionDenied,
                format!("the file system of \"{path}\" is read-only"),
            )
            .hint("mount it for writing"));
        }
        let wanted = wanted(*need);
        if wanted > volume.free_bytes {
            return Err(OpError::new(
                Kind::DiskFull,
                format!("the file system of \"{path}\" is too small for the backup"),
            )
            .detail(format!(
                "It needs {wanted} bytes and has {} free.",
                volume.free_bytes
            ))
            .hint("free or add space; nothing was written"));
        }
        if volume.free_files.is_some_and(|free| need.files > free) {
            return Err(OpError::new(
                Kind::DiskFull,
                format!("the file system of \"{path}\" has too few free inodes"),
            )
            .detail(format!("{} files are to be made.", need.files))
            .hint("make the file system with more inodes; nothing was written"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_or_half_done_target_is_written_to() {
        let cases = [
            (TargetState::Missing, Ok(Begin::Fresh)),
            (TargetState::Empty, Ok(Begin::Fresh)),
            (
                TargetState::HalfDone { backup: "b".into() },
                Ok(Begin::AfterWiping),
            ),
            (
                TargetState::HalfKept { backup: "b".into() },
                Err(Kind::NotEmpty),
            ),
            (
                TargetState::Done { backup: "b".into() },
                Err(Kind::NotEmpty),
            ),
            (
                TargetState::Occupied("it holds \"x\"".into()),
                Err(Kind::NotEmpty),
            ),
            (TargetState::Running("pid 1".into()), Err(Kind::NotEmpty)),
        ];
        for (state, expected) in cases {
            let found = judge_target(Path::new("/data"), &state).map_err(|error| error.kind);
            assert_eq!(found, expected, "{state:?}");
        }
    }

    #[test]
    fn a_volume_must_have_room_for_bytes_reserve_and_files() {
        let need = DiskNeed {
            bytes: 4 * 4096,
            files: 4,
        };
        let enough = need.bytes + RESERVE_BYTES;
        let volume = |free_bytes, free_files, read_only| Volume {
            path: "/v".into(),
            free_bytes,
            free_files,
            read_only,
        };
        let cases = [
            (volume(enough, None, false), None),
            (volume(enough, Some(4), false), None),
            (volume(enough - 1, None, false), Some(Kind::DiskFull)),
            (volume(enough, Some(3), false), Some(Kind::DiskFull)),
            (volume(enough, None, true), Some(Kind::PermissionDenied)),
        ];
        for (volume, expected) in cases {
            let found = check_space(&[(volume.clone(), need)])
                .err()
                .map(|error| error.kind);
            assert_eq!(found, expected, "{volume:?}");
        }
    }
}
