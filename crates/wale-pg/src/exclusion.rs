//! What of a data directory belongs into a base backup.
//!
//! The rules are those of `pg_basebackup` (`src/backend/backup/basebackup.c`, before 15 in `replication`), the same on
//! every version: what a later version leaves out is worthless on an earlier one too. Added are the files of recovery
//! settings and our own. Whatever no rule names is kept: dot files, a log folder, files of extensions.
//!
//! A path is relative to the data directory, with slashes, without a leading one; `""` is the data directory itself.
//! Rules about relations are for the folders of databases only, so that a user's file is never taken for one.

use std::collections::{BTreeSet, HashSet};

use crate::major_version::MajorVersion;
use crate::relation::{Fork, RelationFile, is_database_directory, is_oid};

/// What to do with a file or a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It belongs into the backup.
    Keep,
    /// It is left out, with everything in it.
    Skip,
    /// The directory belongs into the backup, its content does not: a server does not start without it.
    EmptyDirectory,
}

/// Directories whose content a server makes anew, but not the directory itself.
const EMPTIED: [&str; 10] = [
    "pg_dynshmem",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_wal",
    "pg_wal/archive_status",
    "pg_wal/summaries",
];

/// Files of the data directory itself that describe a run of the server, another backup, a recovery, or a restore.
const SKIPPED_FILES: [&str; 12] = [
    "postmaster.pid",
    "postmaster.opts",
    "postgresql.auto.conf.tmp",
    "current_logfiles.tmp",
    // Ours are added from what the server returned; these are of an exclusive backup, or of the restore before.
    "backup_label",
    "tablespace_map",
    "backup_manifest",
    // A backup is not a recovery: the restore decides, and the wrong one of these stops a server.
    "recovery.conf",
    "recovery.signal",
    "standby.signal",
    "wale_init_lockfile",
    "wale_restore.json",
];

/// The suffix of files that are being written by us and were not yet given their name.
const UNFINISHED_SUFFIX: &str = ".wale-tmp";

/// The directories that must exist in a restored cluster although a backup keeps none of their content.
pub fn emptied_directories(major: MajorVersion) -> impl Iterator<Item = &'static str> {
    EMPTIED.into_iter().filter(move |path| is_known(path, major))
}

/// The summaries are a folder of 17 and later.
fn is_known(emptied: &str, major: MajorVersion) -> bool {
    emptied != "pg_wal/summaries" || major.has_wal_summaries()
}

/// What to do with a directory. In one that is left out or emptied nothing needs to be asked any more.
pub fn directory(relative: &str, major: MajorVersion) -> Rule {
    if EMPTIED.contains(&relative) && is_known(relative, major) {
        return Rule::EmptyDirectory;
    }
    if is_inside_skipped(relative, major) || is_skipped_directory(relative, major) { Rule::Skip } else { Rule::Keep }
}

/// What to do with anything that is not a directory.
pub fn file(relative: &str, major: MajorVersion) -> Rule {
    let (parent, name) = relative.rsplit_once('/').unwrap_or(("", relative));
    let skipped = is_inside_skipped(relative, major)
        || SKIPPED_FILES.contains(&relative)
        || name.starts_with("pgsql_tmp")
        || name.ends_with(UNFINISHED_SUFFIX) && name.starts_with('.')
        // The relation cache is thrown away at every start of recovery.
        || name.starts_with("pg_internal.init") && (parent == "global" || is_database_directory(parent))
        || is_database_directory(parent) && RelationFile::parse(name).is_some_and(|file| file.temporary);
    if skipped { Rule::Skip } else { Rule::Keep }
}

/// Whether one of the directories above a path is left out or emptied.
fn is_inside_skipped(relative: &str, major: MajorVersion) -> bool {
    relative.match_indices('/').any(|(end, _)| {
        let ancestor = &relative[..end];
        EMPTIED.contains(&ancestor) || is_skipped_directory(ancestor, major)
    })
}

fn is_skipped_directory(relative: &str, major: MajorVersion) -> bool {
    let (parent, name) = relative.rsplit_once('/').unwrap_or(("", relative));
    name.starts_with("pgsql_tmp")
        // WAL-E's prefetched segments.
        || name == ".wal-e"
        // A file system's own, often unreadable.
        || relative == "lost+found"
        || is_tablespace(parent) && !is_tablespace_version(name, major)
}

/// `pg_tblspc/<oid>`: a link, or a directory where the tablespace is in place.
fn is_tablespace(relative: &str) -> bool {
    relative.strip_prefix("pg_tblspc/").is_some_and(is_oid)
}

/// `PG_<major>_<catalog version>`: beside it may be the folder of a cluster of another version.
fn is_tablespace_version(name: &str, major: MajorVersion) -> bool {
    name.strip_prefix("PG_").and_then(|rest| rest.split_once('_')).is_some_and(|(version, catalog)| {
        version == major.to_string() && is_oid(catalog)
    })
}

/// The relation whose initialisation fork a file name is, `<oid>_init`: an unlogged relation, of which recovery makes
/// everything else anew.
pub fn unlogged_init_oid(file_name: &str) -> Option<u32> {
    RelationFile::parse(file_name)
        .filter(|file| file.fork == Fork::Init && file.segment == 0 && !file.temporary)
        .map(|file| file.oid)
}

/// Which files of one database's directory are left out because their relation is unlogged, given the names of all
/// files in it. The initialisation forks themselves are kept.
///
/// Ask for database directories only, see [`is_database_directory`].
pub fn unlogged_files<'a, N: AsRef<str>>(file_names: &'a [N]) -> BTreeSet<&'a str> {
    let unlogged: HashSet<u32> = file_names.iter().filter_map(|name| unlogged_init_oid(name.as_ref())).collect();
    if unlogged.is_empty() {
        return BTreeSet::new();
    }
    let is_left_out = |name: &&str| {
        RelationFile::parse(name)
            .is_some_and(|file| !file.temporary && file.fork != Fork::Init && unlogged.contains(&file.oid))
    };
    file_names.iter().map(AsRef::as_ref).filter(is_left_out).collect()
}
