//! What a restore reports to its user.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use wale_format::{BackupName, RehearsalRecord, Sentinel};
use wale_pg::{Lsn, MajorVersion, RecoveryTargetKind, TimelineId};

use super::facts;
use super::options::RestoreOptions;
use super::outlook::PlannedWal;
use super::plan::{self, Begin, Volume};
use super::prepare::Prepared;
use super::tablespaces::PlannedTablespace;
use super::target::WalPlace;
use crate::backup_content::{DiskNeed, WholeBackup};
use crate::error::Result;

/// A data directory that is whole.
#[derive(Debug, Clone)]
pub struct RestoreReport {
    /// The backup it was made from.
    pub backup: BackupName,
    /// The data directory.
    pub target: PathBuf,
    /// Major version that can start it.
    pub major: MajorVersion,
    /// Timeline of the backup.
    pub timeline: TimelineId,
    /// Position from which recovery replays, where the backup says.
    pub start_lsn: Option<Lsn>,
    /// Position that recovery must reach, where the backup says.
    pub stop_lsn: Option<Lsn>,
    /// What was kept of the cluster that was there before.
    pub kept: Option<KeptCluster>,
    /// Files written.
    pub files: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Bytes read from the archive.
    pub bytes_stored: u64,
    /// Whether every file was checked against the backup's manifest.
    pub verified: bool,
    /// Pages that were damaged already when the backup was made.
    pub damaged_pages: u64,
    /// Where each tablespace went.
    pub tablespaces: Vec<(u32, PathBuf)>,
    /// Time of the whole operation.
    pub duration: Duration,
    /// Whether TimescaleDB's background jobs are held until somebody releases them.
    pub jobs_held: bool,
    /// Sentences for the user: what was decided, and why.
    pub notes: Vec<String>,
    /// Sentences for the user: what to check although the restore succeeded.
    pub warnings: Vec<String>,
}

/// What a restore would do.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The backup.
    pub backup: BackupName,
    /// When it ended, or its record was stored.
    pub ended: DateTime<Utc>,
    /// Its record.
    pub sentinel: Sentinel,
    /// Major version that can start it, where recorded.
    pub major: Option<MajorVersion>,
    /// Timeline of the backup.
    pub timeline: TimelineId,
    /// Partitions in the archive.
    pub partitions: u64,
    /// Where each tablespace goes.
    pub tablespaces: Vec<PlannedTablespace>,
    /// Whether what an interrupted restore wrote is removed first.
    pub begins_anew: bool,
    /// Sentences that say what was decided, and why.
    pub notes: Vec<String>,
    /// Sentences about what the user should check.
    pub warnings: Vec<String>,
}

/// What the restore of a cluster will do: everything that was found before the first write.
#[derive(Debug, Clone)]
pub struct RestorePlan {
    /// The files.
    pub files: Preview,
    /// Why it is this backup, as a sentence.
    pub why: String,
    /// Sentences about newer backups that were passed over.
    pub passed_over: Vec<String>,
    /// Where recovery ends.
    pub target: RecoveryTargetKind,
    /// The timelines; `None` where nobody recorded what is needed to judge them.
    pub timelines: Option<FollowedTimelines>,
    /// The WAL; `None` as for the timelines.
    pub wal: Option<PlannedWal>,
    /// The file systems that are written to.
    pub volumes: Vec<PlannedVolume>,
    /// Bytes to be read for the files.
    pub bytes_stored: u64,
    /// What is kept of the cluster that is there already.
    pub kept: Option<KeptCluster>,
    /// How long the files will take, where a rate is known.
    pub estimate: Option<Estimate>,
    /// Where `pg_wal` leads to, when it is not simply a directory.
    pub wal_directory: Option<PathBuf>,
    /// What will be written for the recovery.
    pub recovery: PlannedRecovery,
}

/// What becomes of a cluster that lies where a restore goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeptCluster {
    /// Files that are the backup's to the byte, and stay.
    pub kept_files: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Files that are not, and go; the control file and those of `pg_wal` are not counted.
    pub removed_files: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Whether its control file is there, and goes.
    pub control_goes: bool,
    /// Partitions that are not read, because every file in them is there.
    pub spared_partitions: u64,
}

/// The timelines of a recovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowedTimelines {
    /// The one that recovery follows.
    pub followed: TimelineId,
    /// Every one that the archive knows.
    pub known: Vec<TimelineId>,
}

/// A file system that is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedVolume {
    /// A directory on it.
    pub path: PathBuf,
    /// What it must have free, some room for WAL included.
    pub need_bytes: u64,
    /// What it has free.
    pub free_bytes: u64,
}

/// How long the files of a restore will take, at a rate that was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// The time.
    pub duration: Duration,
    /// The rate.
    pub bytes_per_second: u64,
    /// What it was measured at.
    pub measured: Measured,
}

/// What a rate was measured at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measured {
    /// The reading of the files when the backup was taken.
    Backup,
    /// The last rehearsal of a restore from this backup.
    Rehearsal {
        /// When it began.
        at: DateTime<Utc>,
        /// How long the recovery took, to its own target.
        recovery: Option<Duration>,
    },
}

/// What will be written for the recovery.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlannedRecovery {
    /// The settings that steer it; those that only take back what a configuration file may hold are left out.
    pub steering: Vec<(String, String)>,
    /// The settings of a copy beside production.
    pub besides: Vec<(String, String)>,
    /// The files in the data directory that hold them, or ask for them.
    pub files: Vec<&'static str>,
}

/// What RESTORE found or did.
#[derive(Debug, Clone)]
pub enum RestoreClusterOutcome {
    /// The cluster was restored now.
    Restored(Box<RestoreReport>),
    /// An earlier run of the same request had finished: nothing was touched.
    AlreadyRestored {
        /// The backup that run restored.
        backup: String,
        /// Sentences about what is still as the restore left it.
        notes: Vec<String>,
    },
}

/// The report of a restore whose files are there. What its last step said is added by the caller.
pub(super) fn restored(
    prepared: Prepared,
    options: &RestoreOptions,
    major: MajorVersion,
    whole: &WholeBackup,
) -> RestoreReport {
    let sources = &prepared.sources;
    let source = sources.restored();
    let damaged = source.wale().map_or(0, |wale| wale.damaged_pages.len());
    let (_, bytes_stored) = sources.parts();
    let kept = kept(&prepared);
    let spaces = prepared.places.tablespaces.into_iter();
    RestoreReport {
        backup: source.name.clone(),
        target: options.target.clone(),
        major,
        timeline: source.timeline,
        start_lsn: source.sentinel.start_lsn(),
        stop_lsn: source.sentinel.stop_lsn(),
        kept,
        files: whole.files,
        bytes: whole.bytes,
        bytes_stored,
        verified: sources.have_manifests(),
        damaged_pages: damaged as u64,
        tablespaces: spaces.map(|space| (space.oid, space.target)).collect(),
        duration: Duration::ZERO,
        jobs_held: false,
        notes: prepared.notes,
        warnings: prepared.warnings,
    }
}

/// What a prepared restore of a cluster to this target will do, as far as the files are concerned.
///
/// # Errors
///
/// When a file system cannot be asked.
pub(super) fn plan(
    prepared: &Prepared,
    options: &RestoreOptions,
    target: RecoveryTargetKind,
    rehearsed: Option<&RehearsalRecord>,
) -> Result<RestorePlan> {
    let sources = &prepared.sources;
    let wal = prepared.places.wal.as_ref();
    let needs = prepared.needs();
    let spaces = &prepared.places.tablespaces;
    let volumes = facts::volumes(&options.target, spaces, wal.map(WalPlace::path), &needs)?;
    let (_, bytes_stored) = sources.parts();
    let passed_over = prepared.passed_over.clone();
    let mut files = preview(prepared);
    files.warnings.retain(|told| !passed_over.contains(told));
    Ok(RestorePlan {
        files,
        why: String::new(),
        passed_over,
        target,
        timelines: None,
        wal: None,
        volumes: volumes.iter().map(planned_volume).collect(),
        bytes_stored,
        kept: kept(prepared),
        estimate: estimate(
            &sources.restored().sentinel,
            sources.bytes(),
            bytes_of_time(prepared),
            rehearsed,
        ),
        wal_directory: wal.map(|wal| wal.path().to_owned()),
        recovery: PlannedRecovery::default(),
    })
}

/// What is kept of the cluster that is there.
fn kept(prepared: &Prepared) -> Option<KeptCluster> {
    let compared = prepared.compared.as_ref()?;
    Some(KeptCluster {
        kept_files: compared.kept_files,
        kept_bytes: compared.kept_bytes,
        removed_files: compared.removed_files,
        removed_bytes: compared.removed_bytes,
        control_goes: compared.control_goes,
        spared_partitions: prepared.sources.spared(),
    })
}

/// Bytes of all files that come, where every backup says how many it has.
pub(super) fn bytes_to_write(prepared: &Prepared) -> Option<u64> {
    let kept = prepared
        .compared
        .as_ref()
        .map_or(0, |compared| compared.kept_bytes);
    Some(prepared.sources.bytes()?.saturating_sub(kept))
}

/// Bytes of files whose time the restore will take: of those that are written, or, where partitions are read for less, those that are
/// in what is read.
fn bytes_of_time(prepared: &Prepared) -> Option<u64> {
    let sources = &prepared.sources;
    let (written, all) = (bytes_to_write(prepared)?, sources.bytes()?);
    let (_, read) = sources.parts();
    Some(written.max(share(all, read, sources.spared_bytes())))
}

/// The part of `all` that what is read has, beside what is spared.
fn share(all: u64, read: u64, spared: u64) -> u64 {
    let stored = u128::from(read) + u128::from(spared);
    let part = (u128::from(all) * u128::from(read)).checked_div(stored);
    part.and_then(|part| u64::try_from(part).ok()).unwrap_or(0)
}

fn planned_volume((volume, need): &(Volume, DiskNeed)) -> PlannedVolume {
    PlannedVolume {
        path: volume.path.clone(),
        need_bytes: plan::wanted(*need),
        free_bytes: volume.free_bytes,
    }
}

/// What was measured says how long the files will take: a rehearsal of this very restore before the taking of the backup, which
/// read from another disk. What took less than a second says nothing.
///
/// `whole` is what all backups of the restore hold: a rehearsal reads each of them, the taking of one only its own.
fn estimate(
    sentinel: &Sentinel,
    whole: Option<u64>,
    bytes: Option<u64>,
    rehearsed: Option<&RehearsalRecord>,
) -> Option<Estimate> {
    let of_rehearsal = rehearsed.and_then(|record| {
        let millis = record.restore_milliseconds?;
        let recovery = record.recovery_milliseconds.map(Duration::from_millis);
        let at = record.began;
        Some((whole?, millis, Measured::Rehearsal { at, recovery }))
    });
    let of_backup = || {
        let taken = sentinel.stopped_at()? - sentinel.started_at()?;
        let millis = u64::try_from(taken.num_milliseconds()).ok()?;
        Some((sentinel.bytes()?, millis, Measured::Backup))
    };
    let says_something = |(_, millis, _): &(u64, u64, Measured)| *millis >= 1000;
    let of_rehearsal = of_rehearsal.filter(says_something);
    let (whole, millis, measured) = of_rehearsal.or_else(|| of_backup().filter(says_something))?;
    let rate = whole.checked_mul(1000)? / millis;
    let all = bytes?.checked_mul(1000)?.checked_div(rate)?;
    Some(Estimate {
        duration: Duration::from_millis(all),
        bytes_per_second: rate,
        measured,
    })
}

/// What a prepared restore would do.
pub(super) fn preview(prepared: &Prepared) -> Preview {
    let source = prepared.sources.restored();
    let (partitions, _) = prepared.sources.parts();
    Preview {
        backup: source.name.clone(),
        ended: source.ended,
        sentinel: source.sentinel.clone(),
        major: source.major,
        timeline: source.timeline,
        partitions,
        tablespaces: prepared.places.tablespaces.clone(),
        begins_anew: prepared.found.begin == Begin::AfterWiping,
        notes: prepared.notes.clone(),
        warnings: prepared.warnings.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_for_nothing_takes_its_time() {
        let cases = [((100, 10, 0), 100), ((100, 10, 30), 25), ((100, 0, 0), 0)];
        for ((all, read, spared), expected) in cases {
            assert_eq!(share(all, read, spared), expected);
        }
    }

    #[test]
    fn a_backup_that_took_some_time_says_how_long_its_files_take() {
        let sentinel = |stop: &str| {
            let text = format!(
                r#"{{"StartTime": "2026-03-01T12:00:00Z", "FinishTime": "{stop}", "UncompressedSize": 10485760}}"#
            );
            Sentinel::parse(text.as_bytes()).unwrap()
        };
        let slow = sentinel("2026-03-01T12:00:10Z");
        let expected = Estimate {
            duration: Duration::from_secs(20),
            bytes_per_second: 1 << 20,
            measured: Measured::Backup,
        };
        assert_eq!(
            estimate(&slow, Some(10 << 20), Some(20 << 20), None),
            Some(expected)
        );
        assert_eq!(estimate(&slow, Some(10 << 20), None, None), None);
        // A rehearsal from this backup knows better, also where the backup says nothing; one that was too short does not.
        let at = DateTime::UNIX_EPOCH;
        let rehearsed = |restore_milliseconds| RehearsalRecord {
            restore_milliseconds,
            recovery_milliseconds: Some(4_000),
            ..RehearsalRecord::begun(at, "the end".to_owned())
        };
        let of_rehearsal = Estimate {
            duration: Duration::from_secs(4),
            bytes_per_second: 5 << 20,
            measured: Measured::Rehearsal {
                at,
                recovery: Some(Duration::from_secs(4)),
            },
        };
        let quick = sentinel("2026-03-01T12:00:00.5Z");
        for taken in [&slow, &quick] {
            let found = estimate(
                taken,
                Some(10 << 20),
                Some(20 << 20),
                Some(&rehearsed(Some(2_000))),
            );
            assert_eq!(found, Some(of_rehearsal));
        }
        for said in [Some(999), None] {
            let found = estimate(
                &slow,
                Some(10 << 20),
                Some(20 << 20),
                Some(&rehearsed(said)),
            );
            assert_eq!(found, Some(expected));
        }
        // The rehearsal of a delta read what it builds on, too.
        let found = estimate(
            &slow,
            Some(40 << 20),
            Some(40 << 20),
            Some(&rehearsed(Some(2_000))),
        );
        assert_eq!(found.map(|found| found.bytes_per_second), Some(20 << 20));
        // Too short, or no time at all: nothing is made up.
        for stop in ["2026-03-01T12:00:00.5Z", "2026-03-01T11:59:00Z"] {
            assert_eq!(
                estimate(&sentinel(stop), Some(10 << 20), Some(1), None),
                None,
                "{stop}"
            );
        }
    }
}
