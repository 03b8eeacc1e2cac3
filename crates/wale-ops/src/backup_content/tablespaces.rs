//! Tablespaces as a backup has them: where they were, and which of its members lie in them.
//!
//! In a tablespace only the folder of the cluster's version, `PG_<major>_<catalog version>`, is the cluster's. Whatever
//! else lies there is the host's.

use std::collections::BTreeSet;

use wale_pg::{ControlFile, MajorVersion};

use crate::error::{Kind, OpError, Result};

/// A tablespace as the backup records it; texts are [`wale_pg::byte_text`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordedTablespace {
    /// Its object identifier.
    pub(crate) oid: u32,
    /// Where it was.
    pub(crate) location: String,
    /// Where in the data directory it was, if it was in it: relative to it.
    pub(crate) inside: Option<String>,
}

/// Which of these tablespaces a path of the manifest lies in; `None` is the data directory itself.
#[must_use]
pub(super) fn tablespace_of(path: &str, oids: &[u32]) -> Option<u32> {
    let (oid, _) = path.strip_prefix("pg_tblspc/")?.split_once('/')?;
    let oid: u32 = oid.parse().ok()?;
    oids.contains(&oid).then_some(oid)
}

/// Whether a name is that of the folder that a server of this version (any, where it is not known) makes in a
/// tablespace: `PG_<major>_<catalog version>`.
pub(crate) fn is_version_folder(name: &str, major: Option<MajorVersion>) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.strip_prefix("PG_")
        .and_then(|rest| rest.split_once('_'))
        .is_some_and(|(version, catalog)| {
            digits(catalog)
                && match major {
                    Some(major) => version == major.to_string(),
                    None => digits(version),
                }
        })
}

/// What is asked of the members in tablespaces.
#[derive(Debug)]
pub(super) struct TablespaceRule {
    /// The names of the links in `pg_tblspc`.
    links: BTreeSet<String>,
    major: Option<MajorVersion>,
}

impl TablespaceRule {
    pub(super) fn new(oids: impl IntoIterator<Item = u32>, major: Option<MajorVersion>) -> Self {
        Self {
            links: oids.into_iter().map(|oid| oid.to_string()).collect(),
            major,
        }
    }

    /// The folder directly below a tablespace's link in which a path lies: its whole path, and its own name.
    fn folder<'p>(&self, path: &'p str) -> Option<(&'p str, &'p str)> {
        let (oid, below) = path.strip_prefix("pg_tblspc/")?.split_once('/')?;
        let name = below.split('/').next().unwrap_or(below);
        let whole = path.len() - below.len() + name.len();
        (self.links.contains(oid) && !name.is_empty()).then(|| (&path[..whole], name))
    }

    /// Whether a path lies in a tablespace and beside the folder of the cluster's version: nothing of the cluster is
    /// there, and everything of the host's.
    pub(super) fn is_beside_version_folder(&self, path: &str) -> bool {
        self.folder(path)
            .is_some_and(|(_, name)| !is_version_folder(name, self.major))
    }
}

/// The folders of versions that came. All of a cluster have one catalog version, so one folder of each of two shows
/// already that one of them is wrong: more are not kept.
#[derive(Debug, Default)]
pub(super) struct VersionFolders(Vec<String>);

impl VersionFolders {
    /// Notes the folder in which a path lies.
    pub(super) fn come(&mut self, rule: &TablespaceRule, path: &str) {
        let Some((folder, name)) = rule.folder(path) else {
            return;
        };
        let is_new = self.0.iter().all(|other| catalog(other) != catalog(name));
        if self.0.len() < 2 && is_new {
            self.0.push(folder.to_owned());
        }
    }

    /// Refuses a folder of another catalog version than the control file's.
    pub(super) fn check(&self, control_file: &ControlFile) -> Result<()> {
        let wanted = control_file.catalog_version.to_string();
        match self.0.iter().find(|folder| catalog(folder) != wanted) {
            None => Ok(()),
            Some(folder) => Err(OpError::new(
                Kind::CorruptData,
                format!(
                    "\"{folder}\" in the backup is not of the cluster's catalog version {wanted}"
                ),
            )),
        }
    }
}

/// The end of a version folder's name.
fn catalog(folder: &str) -> &str {
    folder.rsplit('_').next().unwrap_or(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_belong_to_the_tablespace_whose_link_they_go_through() {
        let cases = [
            ("base/1/2", None),
            ("pg_tblspc/7/PG_15_202209061/5/6", Some(7)),
            ("pg_tblspc/8/PG_15_202209061/5/6", None),
            ("pg_tblspc/7", None),
        ];
        for (path, expected) in cases {
            assert_eq!(tablespace_of(path, &[9, 7]), expected, "{path}");
        }
    }

    #[test]
    fn fault_93_only_the_folder_of_the_version_belongs_into_a_tablespace() {
        let major = MajorVersion::new(15).unwrap();
        let cases = [
            ("PG_15_202209061", true, true),
            ("PG_14_202107181", false, true),
            ("PG_15_", false, false),
            ("PG_15", false, false),
            ("PG__1", false, false),
            ("PG_15_1/..", false, false),
            ("authorized_keys", false, false),
            ("", false, false),
        ];
        for (name, of_15, of_any) in cases {
            assert_eq!(is_version_folder(name, Some(major)), of_15, "{name}");
            assert_eq!(is_version_folder(name, None), of_any, "{name}");
        }
    }

    #[test]
    fn what_lies_beside_the_folder_of_the_version_is_not_the_clusters() {
        let rule = TablespaceRule::new([7], MajorVersion::new(15).ok());
        for (path, beside) in [
            ("pg_tblspc/7", false),
            ("pg_tblspc/7/PG_15_1/5", false),
            ("pg_tblspc/7/PG_14_1/5", true),
            ("pg_tblspc/7/authorized_keys", true),
            ("pg_tblspc/9/authorized_keys", false),
            ("pg_tblspc/07/authorized_keys", false),
            ("base/1", false),
        ] {
            assert_eq!(rule.is_beside_version_folder(path), beside, "{path}");
        }
    }

    #[test]
    fn fault_93_of_two_catalog_versions_one_is_wrong_and_more_are_not_kept() {
        let bytes = include_bytes!("../../../wale-pg/testdata/control_file/15");
        let control_file = ControlFile::parse(bytes).unwrap();
        let own = format!("PG_15_{}", control_file.catalog_version);
        let rule = TablespaceRule::new([7, 8], MajorVersion::new(15).ok());
        let mut folders = VersionFolders::default();
        for path in [
            "base/1".to_owned(),
            format!("pg_tblspc/8/{own}"),
            format!("pg_tblspc/7/{own}/5/6"),
        ] {
            folders.come(&rule, &path);
        }
        folders.check(&control_file).unwrap();
        for number in 1..100 {
            folders.come(&rule, &format!("pg_tblspc/7/PG_15_{number}/5"));
        }
        assert_eq!(folders.0.len(), 2);
        let error = folders.check(&control_file).unwrap_err();
        assert_eq!(error.kind, Kind::CorruptData);
        assert!(error.message.contains("\"pg_tblspc/7/PG_15_1\""), "{error}");
    }
}
