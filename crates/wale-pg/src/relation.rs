//! The files of relations: their names, and which paths of a data directory hold pages.
//!
//! A pure classification of texts, after `src/common/relpath.c` and `src/backend/storage/file/reinit.c` (10 to 19).
//! A path is relative to the data directory, with slashes; a tablespace is reached as `pg_tblspc/<oid>/…`.

use crate::text_form::parse_plain_decimal;

/// One relation, as a server's catalogue has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueRelation {
    /// Its OID.
    pub oid: u32,
    /// What its files are called; 0 for one that has none.
    pub file_node: u32,
    /// Schema and name, with a dot between them.
    pub name: String,
    /// The OIDs of what it is a partition or a child of.
    pub parents: Vec<u32>,
}

/// A part of a relation that has files of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fork {
    /// The data itself.
    Main,
    /// The free space map, `_fsm`.
    FreeSpaceMap,
    /// The visibility map, `_vm`.
    VisibilityMap,
    /// The empty form of an unlogged relation, `_init`.
    Init,
}

impl Fork {
    fn parse(suffix: &str) -> Option<Self> {
        match suffix {
            "fsm" => Some(Self::FreeSpaceMap),
            "vm" => Some(Self::VisibilityMap),
            "init" => Some(Self::Init),
            _ => None,
        }
    }
}

/// What the name of a relation's file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationFile {
    /// The relation's file number (`relfilenode`): often, but not always, its object identifier.
    pub oid: u32,
    /// The fork.
    pub fork: Fork,
    /// Which file of the fork, counted from 0; each but the last is full.
    pub segment: u32,
    /// Whether the relation is a session's temporary one: then it is worthless after a restart.
    pub temporary: bool,
}

impl RelationFile {
    /// Reads a file name: `<oid>[_<fork>][.<segment>]`, and `t<backend>_<oid>…` for a temporary relation.
    ///
    /// ```
    /// use wale_pg::relation::{Fork, RelationFile};
    /// let file = RelationFile::parse("16384_fsm.2").unwrap();
    /// assert_eq!((file.oid, file.fork, file.segment), (16384, Fork::FreeSpaceMap, 2));
    /// assert_eq!(RelationFile::parse("pg_filenode.map"), None);
    /// ```
    pub fn parse(file_name: &str) -> Option<Self> {
        let (temporary, name) = match file_name.strip_prefix('t') {
            Some(rest) => {
                let (backend, name) = rest.split_once('_')?;
                parse_plain_decimal::<u32>(backend)?;
                (true, name)
            }
            None => (false, file_name),
        };
        let (name, segment) = match name.split_once('.') {
            // The first file has no number.
            Some((name, segment)) => (
                name,
                parse_plain_decimal(segment).filter(|segment| *segment != 0)?,
            ),
            None => (name, 0),
        };
        let (oid, fork) = match name.split_once('_') {
            Some((oid, fork)) => (oid, Fork::parse(fork)?),
            None => (name, Fork::Main),
        };
        let oid = parse_plain_decimal(oid).filter(|oid| *oid != 0)?;
        Some(Self {
            oid,
            fork,
            segment,
            temporary,
        })
    }

    /// The number, in the whole fork, of the file's first page. `blocks_per_segment` is the control file's. `None` for
    /// a file that no relation can have, beyond 2^32 pages.
    pub fn first_block(&self, blocks_per_segment: u32) -> Option<u32> {
        self.segment.checked_mul(blocks_per_segment)
    }
}

/// Whether a directory is one in which a database, or the cluster, keeps relations: `global`, `base/<oid>` or
/// `pg_tblspc/<oid>/PG_…/<oid>`.
fn is_relation_directory(relative_path: &str) -> bool {
    relative_path == "global" || is_database_directory(relative_path)
}

/// Whether a directory is one of a database: `base/<oid>` or `pg_tblspc/<oid>/PG_…/<oid>`.
pub fn is_database_directory(relative_path: &str) -> bool {
    let mut parts = relative_path.split('/');
    let numbered = |part: Option<&str>| part.is_some_and(is_oid);
    let found = match parts.next() {
        Some("base") => numbered(parts.next()),
        Some("pg_tblspc") => {
            numbered(parts.next())
                && parts
                    .next()
                    .is_some_and(|version| version.starts_with("PG_"))
                && numbered(parts.next())
        }
        _ => false,
    };
    found && parts.next().is_none()
}

/// Whether a file consists of pages that carry checksums where a cluster has them: the files of permanent relations,
/// and no other file beside them.
pub fn has_page_checksums(relative_path: &str) -> bool {
    let Some((directory, name)) = relative_path.rsplit_once('/') else {
        return false;
    };
    is_relation_directory(directory)
        && RelationFile::parse(name).is_some_and(|file| !file.temporary)
}

pub(crate) fn is_oid(text: &str) -> bool {
    parse_plain_decimal::<u32>(text).is_some_and(|oid| oid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(oid: u32, fork: Fork, segment: u32, temporary: bool) -> RelationFile {
        RelationFile {
            oid,
            fork,
            segment,
            temporary,
        }
    }

    #[test]
    fn file_names() {
        for (name, expected) in [
            ("1259", file(1259, Fork::Main, 0, false)),
            ("16384.1", file(16384, Fork::Main, 1, false)),
            ("16384_fsm", file(16384, Fork::FreeSpaceMap, 0, false)),
            ("16384_vm.12", file(16384, Fork::VisibilityMap, 12, false)),
            ("4294967295_init", file(u32::MAX, Fork::Init, 0, false)),
            ("t3_16384", file(16384, Fork::Main, 0, true)),
            ("t0_16384_fsm.1", file(16384, Fork::FreeSpaceMap, 1, true)),
        ] {
            assert_eq!(RelationFile::parse(name), Some(expected), "{name:?}");
        }
        for name in [
            "",
            "0",
            "01",
            "4294967296",
            "16384.",
            "16384.0",
            "16384.01",
            "16384.1.2",
            "16384_",
            "16384_main",
            "16384_fsm_vm",
            "16384.1_fsm",
            "_fsm",
            ".1",
            "t",
            "t3",
            "t3_",
            "t_16384",
            "tx_16384",
            "T3_16384",
            "16384 ",
            "PG_VERSION",
            "pg_filenode.map",
            "pg_internal.init",
            "16384\n",
            "+1",
        ] {
            assert_eq!(RelationFile::parse(name), None, "{name:?}");
        }
    }

    #[test]
    fn blocks_count_over_the_whole_relation() {
        for (segment, block) in [
            (0, Some(0)),
            (1, Some(131_072)),
            (32_767, Some(4_294_836_224)),
            (32_768, None),
        ] {
            assert_eq!(
                file(1, Fork::Main, segment, false).first_block(131_072),
                block
            );
        }
    }

    #[test]
    fn paths_with_checksums() {
        for (path, expected) in [
            ("base/5/16384", true),
            ("base/5/16384_fsm.1", true),
            ("base/5/16384_init", true),
            ("global/1260", true),
            ("global/1260_vm", true),
            ("pg_tblspc/16384/PG_15_202209061/5/16385", true),
            ("base/5/t3_16384", false),
            ("base/5/PG_VERSION", false),
            ("base/5/pg_filenode.map", false),
            ("base/5/pg_internal.init", false),
            ("global/pg_control", false),
            ("base/16384", false),
            ("base/pgsql_tmp/1", false),
            ("base/5/6/7", false),
            ("base/five/1", false),
            ("16384", false),
            ("/base/5/16384", false),
            ("pg_xact/0000", false),
            ("pg_multixact/offsets/1", false),
            ("pg_wal/000000010000000000000001", false),
            ("pg_tblspc/16384/5/16385", false),
            ("pg_tblspc/16384/PG_15_202209061/16385", false),
            ("pg_tblspc/x/PG_15_202209061/5/16385", false),
            ("my_folder/base/5/16384", false),
        ] {
            assert_eq!(has_page_checksums(path), expected, "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn names_of_every_form_are_read(oid in 1..=u32::MAX, fork in 0_usize..4, segment: u32, backend: Option<u16>) {
            let forks = [Fork::Main, Fork::FreeSpaceMap, Fork::VisibilityMap, Fork::Init];
            let prefix = backend.map_or(String::new(), |backend| format!("t{backend}_"));
            let suffix = ["", "_fsm", "_vm", "_init"][fork];
            let number = if segment == 0 { String::new() } else { format!(".{segment}") };
            let name = format!("{prefix}{oid}{suffix}{number}");
            prop_assert_eq!(RelationFile::parse(&name), Some(file(oid, forks[fork], segment, backend.is_some())));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = (RelationFile::parse(&text), has_page_checksums(&text));
        }
    }
}
