//! Whether the archive's newest timeline is another server's: a copy that was promoted against the same archive takes
//! `LATEST` away from the original, whose backups go on to succeed. Reads only.
//!
//! That the highest timeline is the present is a decision of the archive's ([`wale_archive::lineage`]); only a server
//! that goes on beside it can notice that this may be wrong. Its people must hear of it before they need a restore.

use std::path::Path;

use wale_archive::Archive;
use wale_format::BackupName;
use wale_pg::{ArchiveFileName, Lsn, TimelineHistory, TimelineId};
use wale_pipeline::blocking;

use crate::error::Result;
use crate::role::{self, ServerState};

/// A newer timeline, to which something does not lead.
#[derive(Clone, Debug)]
pub struct Rival {
    /// The newest timeline of the archive.
    pub timeline: TimelineId,
    /// The timeline that is passed over.
    pub own: TimelineId,
    /// The history of the newest, where the archive has it.
    history: Option<TimelineHistory>,
}

/// What can be done about it.
pub const HINT: &str = "after a failover this is the old server: stop it. If the newest timeline is a copy's (a drill, \
                        a restore beside production), docs/guide/point-in-time.md, \"Beside production\", describes \
                        how LATEST comes back to this server";

impl Rival {
    fn left(&self) -> String {
        let left_at = self.history.as_ref().and_then(|it| it.left_at(self.own));
        match left_at {
            Some(at) => format!(", which timeline {} left at {at}", self.timeline),
            None => String::new(),
        }
    }

    /// Whether what ends there, on the timeline that is passed over, leads to the newest all the same.
    fn is_led_to_from(&self, at: Lsn) -> bool {
        let history = self.history.as_ref();
        history.is_some_and(|history| history.contains_until(self.own, at))
    }

    /// What it means for the server, as a sentence without a full stop.
    #[must_use]
    pub fn of_server(&self) -> String {
        let (newest, own) = (self.timeline, self.own);
        format!(
            "another server of this cluster went on in this archive as timeline {newest}; this one is on timeline {own}{}. LATEST, so a \
             restore that names nothing, takes timeline {newest} and not what this server writes now",
            self.left()
        )
    }

    /// What it means for a base backup, as a sentence without a full stop.
    fn of_backup(&self) -> String {
        let (newest, own) = (self.timeline, self.own);
        format!(
            "LATEST will not choose this backup: it is on timeline {own}{}, and timeline {newest}, another server's, is the newest of \
             this archive; {HINT}",
            self.left()
        )
    }
}

/// Checks whether the archive's newest timeline is not that of the primary on this data directory. `None` for every
/// other server: a standby may still follow, and a server in recovery is neither primary nor standby yet.
///
/// It costs a listing of the base backups and eight look-ups under each codec's name; no sentinel is read.
///
/// # Errors
/// The store's, and those of a history that cannot be read.
pub async fn look(
    archive: &Archive,
    data_directory: &Path,
    wal_directory: &Path,
) -> Result<Option<Rival>> {
    let (data, wal) = (data_directory.to_path_buf(), wal_directory.to_path_buf());
    let own = blocking(move || {
        let standing = role::look(&data).ok()?;
        // Right after a promotion the control file has the old timeline until the first checkpoint is done; pg_wal has
        // the new one's files at once.
        let own = written(&wal).max(Some(standing.timeline))?;
        (standing.state == ServerState::Primary).then_some(own)
    })
    .await?;
    match own {
        Some(own) => newer(archive, own).await,
        None => Ok(None),
    }
}

/// The highest timeline that a file of the WAL directory is on.
fn written(wal_directory: &Path) -> Option<TimelineId> {
    let entries = std::fs::read_dir(wal_directory).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter_map(|name| ArchiveFileName::parse(&name).ok())
        .map(|name| name.timeline())
        .max()
}

/// Warnings about a base backup that is complete: that `LATEST` does not choose it, or that it takes `LATEST` away.
pub(crate) async fn warnings(
    archive: &Archive,
    name: &BackupName,
    timeline: TimelineId,
    ends_at: Lsn,
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    if let Some(rival) = newer(archive, timeline).await?
        && !rival.is_led_to_from(ends_at)
    {
        warnings.push(rival.of_backup());
    }
    // A server archives its timeline's history before its WAL: one that did not is a copy whose archiving is off. An
    // archive that begins on this timeline never saw it, and has nothing earlier.
    let earlier = archive.backup_timelines().await?;
    if earlier.first().is_some_and(|&first| first < timeline)
        && archive.timeline_history(timeline).await?.is_none()
    {
        warnings.push(format!(
            "the archive has no history of timeline {timeline}, on which this backup is, and has backups of earlier timelines: LATEST \
             takes this one from now on. If it is a copy's, undo it with `wale delete target {name} --confirm`, and give the copy \
             an archive of its own"
        ));
    }
    Ok(warnings)
}

/// The newest timeline of the archive where that is after `own`.
async fn newer(archive: &Archive, own: TimelineId) -> Result<Option<Rival>> {
    let mut histories = archive.later_histories(own).await?;
    let backups = archive.backup_timelines().await?;
    let of_backups = backups.last().copied().filter(|&newest| newest > own);
    let of_histories = histories.newest();
    let found = of_backups.max(of_histories).map(|timeline| Rival {
        timeline,
        own,
        history: histories.remove(timeline),
    });
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use wale_format::{Codec, layout};

    use super::*;
    use crate::testing::Bench;

    async fn bench(backups: &[&str], histories: &[(&str, &str)]) -> Bench {
        let bench = Bench::new();
        bench.claim().await;
        for segment in backups {
            let key = Archive::key(&layout::sentinel(&named(segment))).expect("a key");
            bench.memory.insert(&key, b"{}".to_vec());
        }
        for (name, text) in histories {
            bench.store_wal(name, Codec::Zstd, text.as_bytes());
        }
        bench
    }

    fn named(segment: &str) -> BackupName {
        BackupName::parse(&format!("base_{segment}_00000040")).expect("a name")
    }

    fn lsn(text: &str) -> Lsn {
        text.parse().expect("a position")
    }

    async fn warned(bench: &Bench, timeline: u32, at: &str) -> Vec<String> {
        let (name, timeline) = (
            named("000000010000000000000006"),
            TimelineId::new(timeline).expect("a timeline"),
        );
        warnings(&bench.archive, &name, timeline, lsn(at))
            .await
            .expect("looked")
    }

    const ONE: &str = "000000010000000000000002";
    const FOUR: &str = "000000040000000000000006";
    const LEFT: (&str, &str) = ("00000002.history", "1\t0/400100\tx\n");

    #[tokio::test]
    async fn fault_105_a_backup_says_when_latest_will_not_choose_it() {
        let alone = bench(&[ONE], &[]).await;
        assert_eq!(warned(&alone, 1, "0/600100").await, Vec::<String>::new());
        let stray = bench(&[ONE], &[LEFT]).await;
        // A backup that ends before the fork leads to the newest timeline.
        assert_eq!(warned(&stray, 1, "0/300100").await, Vec::<String>::new());
        let said = warned(&stray, 1, "0/600100").await;
        assert!(
            said.len() == 1
                && said[0].contains("LATEST will not choose")
                && said[0].contains("0/400100"),
            "{said:?}"
        );
        // The stray one itself is the newest, and known.
        assert_eq!(warned(&stray, 2, "0/600100").await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn fault_105_a_copy_whose_timeline_the_archive_does_not_know_is_told() {
        let copy = bench(&[ONE, FOUR], &[]).await;
        let said = warned(&copy, 4, "0/600100").await;
        assert!(
            said.len() == 1 && said[0].contains("delete target"),
            "{said:?}"
        );
        let said = warned(&copy, 1, "0/600100").await;
        assert!(
            said.len() == 1 && said[0].contains("timeline 4"),
            "{said:?}"
        );
        // An archive that begins on a later timeline has nothing that could be taken away.
        let fresh = bench(&[FOUR], &[]).await;
        assert_eq!(warned(&fresh, 4, "0/600100").await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn the_files_of_the_wal_directory_tell_a_promotion_before_the_checkpoint_does() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(written(&folder.path().join("none")), None);
        for name in ["000000010000000000000004", "archive_status", "xlogtemp.1"] {
            fs::write(folder.path().join(name), "").expect("written");
        }
        assert_eq!(written(folder.path()), TimelineId::new(1));
        fs::write(folder.path().join("00000002.history"), "").expect("written");
        assert_eq!(written(folder.path()), TimelineId::new(2));
        // No cluster, nothing to say.
        let stray = bench(&[ONE], &[LEFT]).await;
        let looked = look(&stray.archive, folder.path(), folder.path()).await;
        assert!(looked.expect("looked").is_none());
    }
}
