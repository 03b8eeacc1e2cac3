//! What becomes of the listing of a data directory: directories, files, their partitions, and facts for the record.

use chrono::{DateTime, Utc};
use wale_cluster::{
    ClusterError, DataDirectory, Entry, EntryKind, Listing, WalkOptions, text_of_path,
};
use wale_format::sentinel::TablespaceRecord;
use wale_format::tar::Meta;
use wale_format::{PartitionPlan, PlanLimits, partition};
use wale_pg::byte_text;

use super::packed::PackedSources;
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

/// What a listing comes to.
#[derive(Debug)]
pub(super) struct ListedSources {
    /// The directories, the data directory itself first.
    pub(super) directories: Vec<SourceDirectory>,
    /// The files, but for those that come last.
    pub(super) files: PackedSources,
    /// All else.
    pub(super) facts: ListingFacts,
}

/// Lists directories and regular files. Symbolic links are none of them, as in `pg_basebackup`: where they lead is not
/// part of the cluster, and on another host it is somebody else's file. A warning names each.
///
/// # Errors
///
/// Those of the walk.
pub(super) fn list(
    directory: &DataDirectory,
    options: &WalkOptions,
) -> Result<ListedSources, ClusterError> {
    let (mut directories, mut files) = (Vec::new(), PackedSources::default());
    let mut facts = ListingFacts::default();
    let walked = directory.walk(options, &mut |entry| match entry.kind {
        EntryKind::Directory => directories.push(entry),
        EntryKind::File { .. } if partition::comes_last(&entry.relative) => {}
        EntryKind::File { size } => files.push(&entry.relative, size),
    })?;
    facts.add(&walked);
    let directories = std::iter::once(walked.root).chain(directories);
    let mut sources = Vec::new();
    for entry in directories {
        facts
            .directories
            .push((entry.relative.clone(), entry.mtime.into()));
        sources.push(source(entry));
    }
    Ok(ListedSources {
        directories: sources,
        files,
        facts,
    })
}

impl ListingFacts {
    fn add(&mut self, listing: &Listing) {
        let spaces = listing.tablespaces.iter();
        self.tablespaces
            .extend(spaces.map(|space| TablespaceRecord {
                oid: space.oid,
                location: text_of_path(&space.location),
                inside: space.inside.clone(),
            }));
        self.pg_wal_link = listing.pg_wal_link.as_deref().map(text_of_path);
        let warnings = listing.warnings.iter();
        self.warnings.extend(warnings.map(|warning| {
            format!(
                "{}: {}",
                byte_text::shown(&warning.relative),
                warning.reason
            )
        }));
    }
}

/// Partition 0 has the directories, the following ones the files; the last one comes later.
pub(super) fn parts_of(files: &PackedSources, workers: usize) -> Vec<PartitionJob> {
    let sizes: Vec<u64> = files.iter().map(|file| file.size).collect();
    let plan = PartitionPlan::new(&sizes, &PlanLimits::for_total(files.bytes(), workers));
    drop(sizes);
    let mut parts = vec![PackedSources::default(); plan.count() as usize];
    for (file, &part) in files.iter().zip(plan.partitions()) {
        parts[part as usize].push(&file.relative, file.size);
    }
    let directories = std::iter::once(None);
    let files = parts.into_iter().map(|files| Some(files.fitted()));
    (0..)
        .zip(directories.chain(files))
        .map(|(number, files)| PartitionJob { number, files })
        .collect()
}

fn source(entry: Entry) -> SourceDirectory {
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
        let listed = list(&directory, &options).expect("listed");
        assert_eq!(
            listed.facts.warnings,
            [
                "postgresql.conf: it is a symbolic link; what it leads to, ../etc/postgresql.conf, is not in the backup"
            ]
        );
        assert_eq!(listed.files.files(), 0);
    }
}
