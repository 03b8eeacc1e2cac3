//! What becomes of the listing of a data directory: directories, files, their partitions, and facts for the record.

use chrono::{DateTime, Utc};
use wale_cluster::{Entry, EntryKind, Listing, text_of_path};
use wale_format::sentinel::TablespaceRecord;
use wale_format::tar::Meta;
use wale_format::{PartitionPlan, PlanLimits, PlannedFile};
use wale_pg::byte_text;

use super::files::SourceFile;
use super::partitions::{PartitionJob, SourceDirectory};

/// What the listing says beside the files.
#[derive(Debug, Default)]
pub(super) struct ListingFacts {
    pub(super) tablespaces: Vec<TablespaceRecord>,
    pub(super) pg_wal_link: Option<String>,
    pub(super) warnings: Vec<String>,
    /// The directories with the times of their last change, as they are in partition 0.
    pub(super) directories: Vec<(String, DateTime<Utc>)>,
}

impl ListingFacts {
    /// Those of a listing.
    pub(super) fn of(listing: &Listing) -> Self {
        Self {
            tablespaces: listing
                .tablespaces
                .iter()
                .map(|space| TablespaceRecord {
                    oid: space.oid,
                    location: text_of_path(&space.location),
                    inside: space.inside.clone(),
                })
                .collect(),
            directories: std::iter::once(&listing.root)
                .chain(&listing.entries)
                .filter(|entry| entry.kind == EntryKind::Directory)
                .map(|entry| (entry.relative.clone(), entry.mtime.into()))
                .collect(),
            pg_wal_link: listing.pg_wal_link.as_deref().map(text_of_path),
            warnings: listing
                .warnings
                .iter()
                .map(|warning| {
                    format!(
                        "{}: {}",
                        byte_text::shown(&warning.relative),
                        warning.reason
                    )
                })
                .collect(),
        }
    }
}

/// Directories and regular files of the listing. It has no symbolic links, as in `pg_basebackup`: where they lead is not
/// part of the cluster, and on another host it is somebody else's file. A warning names each.
pub(super) fn sources(listing: Listing) -> (Vec<SourceDirectory>, Vec<SourceFile>) {
    let mut directories = vec![directory(listing.root)];
    let mut files = Vec::new();
    for entry in listing.entries {
        match entry.kind {
            EntryKind::Directory => directories.push(directory(entry)),
            EntryKind::File { size } => {
                files.push(SourceFile {
                    relative: entry.relative,
                    absolute: entry.absolute,
                    size,
                });
            }
        }
    }
    (directories, files)
}

/// Partition 0 has the directories, the following ones the files; the last one comes later.
pub(super) fn parts_of(files: &[SourceFile], workers: usize) -> Vec<PartitionJob> {
    let planned: Vec<PlannedFile<'_>> = files
        .iter()
        .map(|file| PlannedFile {
            path: &file.relative,
            size: file.size,
        })
        .collect();
    let total = files.iter().map(|file| file.size).sum();
    let plan = PartitionPlan::new(&planned, &PlanLimits::for_total(total, workers));
    let mut parts = vec![PartitionJob {
        number: 0,
        files: None,
    }];
    let files = plan.partitions().iter().cloned().map(Some);
    parts.extend(
        (1..)
            .zip(files)
            .map(|(number, files)| PartitionJob { number, files }),
    );
    parts
}

fn directory(entry: Entry) -> SourceDirectory {
    let meta = Meta {
        mode: entry.mode & 0o7777,
        uid: u64::from(entry.uid),
        gid: u64::from(entry.gid),
        mtime: u64::try_from(DateTime::<Utc>::from(entry.mtime).timestamp()).unwrap_or(0),
    };
    SourceDirectory {
        relative: entry.relative,
        meta,
    }
}

#[cfg(test)]
mod tests {
    use wale_cluster::{DataDirectory, WalkOptions};
    use wale_pg::MajorVersion;

    use super::*;

    #[test]
    fn a_link_that_is_left_out_is_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("data")).expect("made");
        let link = folder.path().join("data/postgresql.conf");
        std::os::unix::fs::symlink("../etc/postgresql.conf", link).expect("linked");
        let options = WalkOptions {
            major: MajorVersion::new(18).expect("known"),
            ignore: Vec::new(),
        };
        let directory = DataDirectory::at(folder.path().join("data"));
        let listing = directory.walk(&options).expect("listed");
        let facts = ListingFacts::of(&listing);
        assert_eq!(
            facts.warnings,
            [
                "postgresql.conf: it is a symbolic link; what it leads to, ../etc/postgresql.conf, is not in the backup"
            ]
        );
        assert!(sources(listing).1.is_empty());
    }
}
