//! Whether this server had its archive in this very place before: an empty place is then a volume that is not mounted.
//!
//! PostgreSQL's own `.done` files prove too little: `archive_command = '/bin/true'`, another tool, `pg_basebackup` and a
//! recovery make them, too. What is sure is the label of a base backup of ours, which names the place, and which the
//! server keeps in `pg_wal` until its next base backup; and the marker of a restore from there. A user who moves to
//! another prefix, or adds wale to a running server, is not held up by either.

use std::io::Read;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use wale_cluster::{RestoreState, WalDirectory, restore_marker};
use wale_pg::ArchiveFileName;
use wale_pipeline::blocking;

use crate::error::Result;

/// The server takes 1,024 bytes with the final zero. A place that does not fit is left out.
const LABEL_MAX: usize = 1_000;

/// More than a backup's history file has: ten lines, the longest of them the label.
const HISTORY_MAX: u64 = 8 << 10;

/// What stands between the time and the place in a label.
const INTO: &str = " into ";

/// Where a new archive may be begun.
#[derive(Clone, Debug)]
pub enum Beginning {
    /// Wherever there is none: somebody asked for it in so many words.
    Anew,
    /// Where there is none, unless these directories show that this server's archive was there.
    UnlessKnown {
        /// The server's WAL directory.
        wal: WalDirectory,
        /// Its data directory, if it can be seen.
        data: Option<PathBuf>,
    },
}

impl Beginning {
    /// The sentence that says how `location` is known to have been this server's archive.
    ///
    /// # Errors
    /// [`Internal`](crate::error::Kind::Internal) when the thread that looks panicked.
    pub(crate) async fn known(&self, location: &str) -> Result<Option<String>> {
        let Self::UnlessKnown { wal, data } = self else {
            return Ok(None);
        };
        let (wal, data, location) = (wal.clone(), data.clone(), location.to_owned());
        let look =
            move || backed_up(&wal, &location).or_else(|| restored(data.as_deref()?, &location));
        Ok(blocking(look).await?)
    }
}

/// The label that a server records for a base backup into `location`.
pub fn label(prefix: &str, now: DateTime<Utc>, location: &str) -> String {
    let label = format!("{prefix} {}", now.format("%Y-%m-%dT%H:%M:%SZ"));
    if location.contains(char::is_control) || label.len() + INTO.len() + location.len() > LABEL_MAX
    {
        return label;
    }
    label + INTO + location
}

/// What cannot be read proves nothing.
fn backed_up(wal: &WalDirectory, location: &str) -> Option<String> {
    let entries = std::fs::read_dir(wal.path()).ok()?;
    entries.flatten().find_map(|entry| {
        let name = ArchiveFileName::parse(entry.file_name().to_str()?).ok()?;
        if !matches!(name, ArchiveFileName::BackupHistory { .. }) {
            return None;
        }
        let mut text = String::new();
        let file = wal.open_file(&name).ok()?.file;
        file.take(HISTORY_MAX).read_to_string(&mut text).ok()?;
        let mut labels = text.lines().filter_map(|line| line.strip_prefix("LABEL: "));
        labels
            .any(|label| {
                label
                    .split_once(INTO)
                    .is_some_and(|(_, place)| place == location)
            })
            .then(|| format!("A base backup of this server went there ({name} in pg_wal)."))
    })
}

fn restored(data: &Path, location: &str) -> Option<String> {
    let marker = restore_marker::read(data).ok()??;
    (marker.state == RestoreState::Done && marker.request.archive == location)
        .then(|| format!("This server was restored from there ({}).", marker.backup))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Archive;
    use crate::error::Kind;
    use crate::testing::{Bench, SYSTEM_IDENTIFIER, cluster};

    fn history(folder: &Path, label: &str) {
        fs::write(
            folder.join("000000010000000000000004.00000028.backup"),
            format!("START WAL LOCATION: 0/4000028 (file 000000010000000000000004)\nLABEL: {label}\nSTART TIMELINE: 1\n"),
        )
        .expect("written");
    }

    async fn begun(archive: &Archive, begin: &Beginning) -> std::result::Result<(), Kind> {
        let own = cluster(SYSTEM_IDENTIFIER);
        let result = archive.ensure_identity(&own, begin).await;
        result.map(|_| ()).map_err(|error| {
            assert!(error.hint.expect("a way").contains("--new-archive"));
            error.kind
        })
    }

    #[tokio::test]
    async fn fault_68_an_empty_place_that_was_this_servers_archive_is_not_begun_anew() {
        let bench = Bench::new();
        let folder = bench.folder().join("wal");
        fs::create_dir_all(&folder).expect("made");
        let begin = Beginning::UnlessKnown {
            wal: WalDirectory::at(&folder),
            data: None,
        };
        let here = label("wale", DateTime::UNIX_EPOCH, &bench.archive.location());
        history(&folder, &here);
        assert_eq!(
            begun(&bench.archive, &begin).await,
            Err(Kind::StorageUnavailable)
        );
        assert!(bench.memory.keys().is_empty(), "nothing was written");
        // Somebody says so.
        begun(&bench.archive, &Beginning::Anew)
            .await
            .expect("begun");
        begun(&bench.archive, &begin).await.expect("it is there");
    }

    /// The legitimate beginnings: wale is added to a server that ran for long, that another tool backed up, or that moves
    /// to a new prefix.
    #[tokio::test]
    async fn a_server_that_is_new_to_the_place_begins_an_archive_there() {
        for made in [
            None,
            Some("pg_basebackup base backup".to_owned()),
            Some("wale 2026-11-28T10:00:00Z".to_owned()),
            Some("wale 2026-11-28T10:00:00Z into file:///elsewhere".to_owned()),
        ] {
            let bench = Bench::new();
            let folder = bench.folder().join("wal");
            fs::create_dir_all(folder.join("archive_status")).expect("made");
            fs::write(
                folder.join("archive_status/000000030000000000000014.done"),
                b"",
            )
            .expect("written");
            if let Some(label) = &made {
                history(&folder, label);
            }
            let begin = Beginning::UnlessKnown {
                wal: WalDirectory::at(&folder),
                data: Some(bench.folder().to_path_buf()),
            };
            assert_eq!(begun(&bench.archive, &begin).await, Ok(()), "{made:?}");
        }
    }

    #[test]
    fn a_label_holds_the_place_where_the_server_takes_it() {
        let at = DateTime::UNIX_EPOCH;
        let plain = "wale 1970-01-01T00:00:00Z";
        assert_eq!(
            label("wale", at, "s3://bucket/pg"),
            format!("{plain} into s3://bucket/pg")
        );
        assert_eq!(label("wale", at, "file:///a\nb"), plain);
        assert_eq!(label("wale", at, &"x".repeat(1_000)), plain);
    }
}
