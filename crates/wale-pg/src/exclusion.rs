//! What of a data directory belongs into a base backup.
//!
//! The rules are those of `pg_basebackup` (`src/backend/backup/basebackup.c`, before 15 in `replication`), the same on
//! every version: what a later version leaves out is worthless on an earlier one too. Added are the files of recovery
//! settings and our own. Whatever no rule names is kept: dot files, a log folder, files of extensions. One thing is
//! narrower: `pg_basebackup` leaves out a file called `backup_label` or the content of a folder called `pg_notify`
//! wherever it is, we do so only where a server keeps them.
//!
//! A path is relative to the data directory, with slashes, without a leading one; `""` is the data directory itself.
//! Rules about relations are for the folders of databases only, so that a user's file is never taken for one.

use std::collections::HashSet;

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
    EMPTIED
        .into_iter()
        .filter(move |path| is_known(path, major))
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
    if is_inside_skipped(relative, major) || is_skipped_directory(relative, major) {
        Rule::Skip
    } else {
        Rule::Keep
    }
}

/// What to do with anything that is not a directory.
pub fn file(relative: &str, major: MajorVersion) -> Rule {
    let (parent, name) = relative.rsplit_once('/').unwrap_or(("", relative));
    let skipped = is_inside_skipped(relative, major)
        || SKIPPED_FILES.contains(&relative)
        || name.starts_with("pgsql_tmp")
        // Beside the folder of this version nothing in a tablespace is the cluster's.
        || is_tablespace(parent)
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
    name.strip_prefix("PG_")
        .and_then(|rest| rest.split_once('_'))
        .is_some_and(|(version, catalog)| version == major.to_string() && is_oid(catalog))
}

/// The relation whose initialisation fork a file name is, `<oid>_init`: an unlogged relation, of which recovery makes
/// everything else anew.
fn unlogged_init_oid(file_name: &str) -> Option<u32> {
    RelationFile::parse(file_name)
        .filter(|file| file.fork == Fork::Init && file.segment == 0 && !file.temporary)
        .map(|file| file.oid)
}

/// The unlogged relations of one database's directory. Their files are left out, but for the initialisation forks.
///
/// Ask for database directories only, see [`is_database_directory`].
#[derive(Clone, Debug, Default)]
pub struct UnloggedRelations(HashSet<u32>);

impl UnloggedRelations {
    /// Those among the files of a directory, by their names.
    pub fn among<'a>(file_names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(
            file_names
                .into_iter()
                .filter_map(unlogged_init_oid)
                .collect(),
        )
    }

    /// Whether a file is left out.
    #[must_use]
    pub fn have(&self, file_name: &str) -> bool {
        !self.0.is_empty()
            && RelationFile::parse(file_name).is_some_and(|file| {
                !file.temporary && file.fork != Fork::Init && self.0.contains(&file.oid)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn major(number: u32) -> MajorVersion {
        MajorVersion::new(number).unwrap()
    }

    #[test]
    fn directories() {
        for (path, rule) in [
            ("", Rule::Keep),
            ("base", Rule::Keep),
            ("base/5", Rule::Keep),
            ("global", Rule::Keep),
            ("log", Rule::Keep),
            ("pg_log", Rule::Keep),
            ("my_folder", Rule::Keep),
            (".hidden", Rule::Keep),
            ("pg_xact", Rule::Keep),
            ("pg_multixact/members", Rule::Keep),
            ("pg_logical/mappings", Rule::Keep),
            ("pg_commit_ts", Rule::Keep),
            ("pg_twophase", Rule::Keep),
            ("pg_stat", Rule::Keep),
            ("pg_dynshmem", Rule::EmptyDirectory),
            ("pg_notify", Rule::EmptyDirectory),
            ("pg_replslot", Rule::EmptyDirectory),
            ("pg_serial", Rule::EmptyDirectory),
            ("pg_snapshots", Rule::EmptyDirectory),
            ("pg_stat_tmp", Rule::EmptyDirectory),
            ("pg_subtrans", Rule::EmptyDirectory),
            ("pg_wal", Rule::EmptyDirectory),
            ("pg_wal/archive_status", Rule::EmptyDirectory),
            ("pg_wal/.wal-e", Rule::Skip),
            ("pg_wal/other", Rule::Skip),
            ("pg_replslot/a_slot", Rule::Skip),
            ("base/pgsql_tmp", Rule::Skip),
            ("base/pgsql_tmp/pgsql_tmp1.0.sharedfileset", Rule::Skip),
            ("base/pgsql_tmp/inner", Rule::Skip),
            ("pg_tblspc/16384/PG_15_202209061/pgsql_tmp", Rule::Skip),
            (".wal-e", Rule::Skip),
            (".wal-e/prefetch", Rule::Skip),
            ("lost+found", Rule::Skip),
            ("my_folder/lost+found", Rule::Keep),
            ("my_folder/pg_notify", Rule::Keep),
            ("base/5/pg_wal", Rule::Keep),
            ("pg_tblspc", Rule::Keep),
            ("pg_tblspc/16384", Rule::Keep),
            ("pg_tblspc/16384/PG_15_202209061", Rule::Keep),
            ("pg_tblspc/16384/PG_15_202209061/5", Rule::Keep),
            ("pg_tblspc/16384/PG_14_202107181", Rule::Skip),
            ("pg_tblspc/16384/PG_14_202107181/5", Rule::Skip),
            ("pg_tblspc/16384/PG_15", Rule::Skip),
            ("pg_tblspc/16384/PG_15_", Rule::Skip),
            ("pg_tblspc/16384/lost+found", Rule::Skip),
            ("pg_tblspc/not_a_number/anything", Rule::Keep),
        ] {
            assert_eq!(directory(path, major(15)), rule, "{path:?}");
        }
    }

    #[test]
    fn files() {
        for (path, rule) in [
            ("PG_VERSION", Rule::Keep),
            ("postgresql.conf", Rule::Keep),
            ("postgresql.auto.conf", Rule::Keep),
            ("pg_hba.conf", Rule::Keep),
            ("current_logfiles", Rule::Keep),
            ("recovery.done", Rule::Keep),
            ("backup_label.old", Rule::Keep),
            ("tablespace_map.old", Rule::Keep),
            (".dot_file", Rule::Keep),
            ("unknown file", Rule::Keep),
            ("log/postgresql.log", Rule::Keep),
            ("global/pg_control", Rule::Keep),
            ("global/pg_filenode.map", Rule::Keep),
            ("postmaster.pid", Rule::Skip),
            ("postmaster.opts", Rule::Skip),
            ("postgresql.auto.conf.tmp", Rule::Skip),
            ("current_logfiles.tmp", Rule::Skip),
            ("backup_label", Rule::Skip),
            ("tablespace_map", Rule::Skip),
            ("backup_manifest", Rule::Skip),
            ("recovery.conf", Rule::Skip),
            ("recovery.signal", Rule::Skip),
            ("standby.signal", Rule::Skip),
            ("wale_init_lockfile", Rule::Skip),
            ("wale_restore.json", Rule::Skip),
            (".postgresql.auto.conf.17.3.wale-tmp", Rule::Skip),
            ("a.wale-tmp", Rule::Keep),
            ("my_folder/postmaster.pid", Rule::Keep),
            ("my_folder/backup_label", Rule::Keep),
            ("pg_wal/000000010000000000000001", Rule::Skip),
            (
                "pg_wal/archive_status/000000010000000000000001.ready",
                Rule::Skip,
            ),
            ("pg_notify/0000", Rule::Skip),
            ("pg_replslot/a_slot/state", Rule::Skip),
            (".wal-e/prefetch/000000010000000000000001", Rule::Skip),
            ("base/5/16384", Rule::Keep),
            ("base/5/16384_init", Rule::Keep),
            ("base/5/PG_VERSION", Rule::Keep),
            ("base/5/pg_internal.init", Rule::Skip),
            ("base/5/pg_internal.init.1234", Rule::Skip),
            ("global/pg_internal.init", Rule::Skip),
            ("pg_internal.initial", Rule::Keep),
            ("base/5/t3_16384", Rule::Skip),
            ("base/5/t21_16384_fsm.1", Rule::Skip),
            ("base/5/table", Rule::Keep),
            ("base/5/t3_16384_other", Rule::Keep),
            ("my_folder/t3_16384", Rule::Keep),
            ("global/t3_16384", Rule::Keep),
            ("pg_tblspc/16384/PG_15_202209061/5/t3_16385", Rule::Skip),
            ("pg_tblspc/16384/PG_15_202209061/5/16385", Rule::Keep),
            ("pg_tblspc/16384/PG_14_202107181/5/16385", Rule::Skip),
            ("pg_tblspc/16384", Rule::Keep),
            ("pg_tblspc/16384/stray", Rule::Skip),
            ("base/pgsql_tmp/pgsql_tmp123.0", Rule::Skip),
            ("base/5/pgsql_tmp123.0", Rule::Skip),
            ("my_folder/pgsql_tmp", Rule::Skip),
            ("my_folder/.wal-e", Rule::Keep),
        ] {
            assert_eq!(file(path, major(15)), rule, "{path:?}");
        }
    }

    #[test]
    fn wal_summaries_are_a_folder_from_17_on() {
        assert_eq!(directory("pg_wal/summaries", major(16)), Rule::Skip);
        assert_eq!(
            directory("pg_wal/summaries", major(17)),
            Rule::EmptyDirectory
        );
        assert_eq!(emptied_directories(major(16)).count(), 9);
        assert_eq!(emptied_directories(major(17)).count(), 10);
        for major in MajorVersion::all() {
            for path in emptied_directories(major) {
                assert_eq!(
                    directory(path, major),
                    Rule::EmptyDirectory,
                    "{path} of {major}"
                );
                assert_eq!(
                    file(&format!("{path}/x"), major),
                    Rule::Skip,
                    "{path} of {major}"
                );
                assert_eq!(
                    directory(&format!("{path}/x"), major),
                    Rule::Skip,
                    "{path} of {major}"
                );
            }
        }
    }

    #[test]
    fn of_an_unlogged_relation_only_the_init_fork_is_kept() {
        let names = [
            "16384",
            "16384.1",
            "16384_fsm",
            "16384_vm",
            "16384_init",
            "16385",
            "16385_fsm",
            "16386_init",
            "t3_16384",
            "PG_VERSION",
            "pg_filenode.map",
            "163840",
            "16384_other",
            "16387_init.1",
            "16387",
            "t4_16388_init",
            "16388",
        ];
        let unlogged = UnloggedRelations::among(names);
        let left_out = names.into_iter().filter(|name| unlogged.have(name));
        assert_eq!(
            left_out.collect::<Vec<_>>(),
            ["16384", "16384.1", "16384_fsm", "16384_vm"]
        );
        assert!(!UnloggedRelations::among(["1", "2_fsm"]).have("1"));
    }

    #[test]
    fn init_forks() {
        for (name, oid) in [
            ("16384_init", Some(16384)),
            ("16384", None),
            ("16384_init.1", None),
            ("t3_16384_init", None),
            ("_init", None),
            ("4294967296_init", None),
        ] {
            assert_eq!(unlogged_init_oid(name), oid, "{name:?}");
        }
    }
}
