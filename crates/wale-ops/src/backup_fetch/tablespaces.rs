//! Where the tablespaces of a backup go, without I/O.
//!
//! The archive is not trusted with that: anybody who can write into it could name any empty directory of this host, and
//! files of any name in it. So a place that only the backup names is used only when its two records agree (sentinel and
//! tablespace map), the directory is there, is empty, and belongs to the owner of the cluster; and nothing but the
//! folder of the cluster's version is written into a tablespace.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use wale_archive::Remedy;
use wale_cluster::path_of_text;
use wale_format::tar::MemberPath;
use wale_pg::{TablespaceMap, byte_text};

use super::options::TablespaceSource;
use crate::backup_content::RecordedTablespace;
use crate::error::{Kind, OpError, Result};

/// What says where a tablespace goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// The request, by a mapping or a restore specification: the directory is made if need be.
    Request,
    /// A link that stands in the target's `pg_tblspc` already.
    Link,
    /// Nobody needs to: it lay in the data directory and does so again.
    Itself,
    /// Only the backup.
    Backup,
}

impl std::fmt::Display for NamedBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Request => "the request",
            Self::Link => "a link in the target",
            Self::Itself => "its place in the data directory",
            Self::Backup => "the backup alone",
        })
    }
}

/// A tablespace of the backup and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTablespace {
    /// Its object identifier, also the name of its link.
    pub oid: u32,
    /// Where it was.
    pub origin: PathBuf,
    /// Where it goes.
    pub target: PathBuf,
    /// What says so.
    pub named_by: NamedBy,
}

/// Decides where each tablespace goes: by the request's `mapping`, by `links` that are there, into the data directory
/// `data` where it was in the original's, otherwise to where it was. Also returns sentences about mappings that mean
/// nothing.
///
/// # Errors
///
/// [`Kind::Usage`] when a target is not absolute, or two tablespaces would share one; [`Kind::CorruptData`] for a place in
/// the data directory that is none.
pub(super) fn place_tablespaces(
    recorded: &[RecordedTablespace],
    mapping: &[(TablespaceSource, PathBuf)],
    links: &[(TablespaceSource, PathBuf)],
    data: &Path,
) -> Result<(Vec<PlannedTablespace>, Vec<String>)> {
    let mut used = vec![false; mapping.len()];
    let mut planned = Vec::new();
    let mut targets = BTreeSet::new();
    for space in recorded {
        let oid = space.oid;
        let origin = path_of_text(&space.location);
        let names = |(source, _): &(TablespaceSource, PathBuf)| match source {
            TablespaceSource::Oid(wanted) => *wanted == oid,
            TablespaceSource::Location(wanted) => same_path(wanted, &origin),
        };
        let inside = space
            .inside
            .as_deref()
            .map(|inside| checked(oid, inside))
            .transpose()?;
        let own = inside.map(|inside| data.join(path_of_text(&inside)));
        let (target, named_by) = if let Some(index) = mapping.iter().position(names) {
            used[index] = true;
            (mapping[index].1.clone(), NamedBy::Request)
        } else if let Some((_, target)) = links.iter().find(|link| names(link)) {
            (target.clone(), NamedBy::Link)
        } else if let Some(own) = &own {
            (own.clone(), NamedBy::Itself)
        } else {
            (origin.clone(), NamedBy::Backup)
        };
        let is_own = own.is_some_and(|own| same_path(&own, &target));
        let named_by = if is_own { NamedBy::Itself } else { named_by };
        if !target.is_absolute() {
            return Err(OpError::new(
                Kind::Usage,
                format!("tablespace {oid} cannot go to \"{}\"", target.display()),
            )
            .hint("name the directory by its absolute path"));
        }
        if !targets.insert(target.components().collect::<PathBuf>()) {
            return Err(OpError::new(
                Kind::Usage,
                format!("two tablespaces would go to \"{}\"", target.display()),
            )
            .hint("give each tablespace an empty directory of its own"));
        }
        planned.push(PlannedTablespace {
            oid,
            origin,
            target,
            named_by,
        });
    }
    let idle = mapping.iter().zip(used).filter(|(_, used)| !used);
    let warnings = idle
        .map(|((source, _), _)| format!("the backup has no tablespace {}", describe(source)))
        .collect();
    Ok((planned, warnings))
}

/// Mappings that send each tablespace below a folder, but for those that lay in the data directory. They come last: the first
/// mapping that names a tablespace decides.
pub(super) fn below<'a>(
    folder: Option<&'a Path>,
    recorded: &'a [RecordedTablespace],
) -> impl Iterator<Item = (TablespaceSource, PathBuf)> + 'a {
    let outside = recorded.iter().filter(|space| space.inside.is_none());
    folder.into_iter().flat_map(move |folder| {
        let place = |space: &RecordedTablespace| {
            let oid = space.oid;
            (TablespaceSource::Oid(oid), folder.join(oid.to_string()))
        };
        outside.clone().map(place)
    })
}

/// A place in the data directory that is none of the server's own.
fn checked(oid: u32, inside: &str) -> Result<String> {
    let path = MemberPath::parse(inside).ok().map(MemberPath::into_string);
    path.filter(|path| {
        path == inside && !matches!(path.split('/').next(), Some("pg_wal" | "pg_tblspc"))
    })
    .ok_or_else(|| {
        OpError::new(
            Kind::CorruptData,
            format!("the backup places tablespace {oid} at \"{}\" in the data directory, which cannot be", byte_text::shown(inside)),
        )
    })
}

/// Refuses places that only the backup names and of which its own tablespace map says something else, or nothing.
///
/// # Errors
///
/// [`Kind::NotEmpty`] with the way to name the place, as for a directory that is not as it should be.
pub(super) fn check_named_alike(
    tablespaces: &[PlannedTablespace],
    map: Option<&TablespaceMap>,
) -> Result<()> {
    let entries = map.map_or(&[][..], |map| &map.entries);
    let unnamed = tablespaces
        .iter()
        .filter(|space| space.named_by == NamedBy::Backup);
    for space in unnamed {
        let told = entries.iter().find(|(oid, _)| *oid == space.oid);
        if told.is_some_and(|(_, path)| same_path(&path_of_text(path), &space.origin)) {
            continue;
        }
        let (oid, place) = (space.oid, space.origin.display());
        let detail = match told {
            Some((_, path)) => format!(
                "The sentinel says \"{place}\", the tablespace map of the backup says \"{}\".",
                byte_text::shown(path)
            ),
            None => format!(
                "The sentinel says \"{place}\", and the tablespace map of the backup does not have it."
            ),
        };
        return Err(OpError::new(
            Kind::NotEmpty,
            format!("the records of the backup do not agree where tablespace {oid} was: no place is taken from them"),
        )
        .detail(detail)
        .hint("if the archive can be trusted, say where it goes")
        .remedy(Remedy::TablespacePlace { oid, place: None }));
    }
    Ok(())
}

/// Whether a tablespace goes to where the original had it, in its data directory or at the same path.
#[must_use]
pub(super) fn is_where_it_was(space: &PlannedTablespace) -> bool {
    space.named_by == NamedBy::Itself || same_path(&space.target, &space.origin)
}

/// A trailing slash makes no difference.
fn same_path(one: &Path, other: &Path) -> bool {
    one.components().eq(other.components())
}

fn describe(source: &TablespaceSource) -> String {
    match source {
        TablespaceSource::Oid(oid) => oid.to_string(),
        TablespaceSource::Location(path) => format!("at \"{}\"", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(oid: u32, location: &str, inside: Option<&str>) -> RecordedTablespace {
        RecordedTablespace {
            oid,
            location: location.to_owned(),
            inside: inside.map(str::to_owned),
        }
    }

    #[test]
    fn tablespaces_go_where_the_mapping_says_by_oid_or_by_place() {
        let spaces = [
            recorded(1, "/a", None),
            recorded(2, "/b/", None),
            recorded(3, "/c", None),
            recorded(4, "/old/my/ts", Some("my/ts")),
            recorded(5, "/e", None),
            recorded(6, "/old/x", Some("x")),
        ];
        let by = |oid: u32, path: &str| (TablespaceSource::Oid(oid), PathBuf::from(path));
        let mapping = [
            by(1, "/x"),
            (TablespaceSource::Location("/b".into()), PathBuf::from("/y")),
            by(9, "/z"),
        ];
        let links = [by(1, "/link"), by(5, "/linked"), by(6, "/data/x")];
        let (planned, warnings) =
            place_tablespaces(&spaces, &mapping, &links, Path::new("/data")).unwrap();
        let targets: Vec<_> = planned
            .iter()
            .map(|space| (space.oid, space.target.to_str().unwrap(), space.named_by))
            .collect();
        assert_eq!(
            targets,
            [
                (1, "/x", NamedBy::Request),
                (2, "/y", NamedBy::Request),
                (3, "/c", NamedBy::Backup),
                (4, "/data/my/ts", NamedBy::Itself),
                (5, "/linked", NamedBy::Link),
                (6, "/data/x", NamedBy::Itself),
            ]
        );
        assert_eq!(warnings.len(), 1);
        // Those that no mapping names and that lay outside.
        let mut all = mapping.to_vec();
        all.extend(below(Some(Path::new("/s")), &spaces));
        let (planned, _) = place_tablespaces(&spaces, &all, &[], Path::new("/data")).unwrap();
        let targets: Vec<_> = planned
            .iter()
            .map(|space| space.target.to_str().unwrap())
            .collect();
        assert_eq!(
            targets,
            ["/x", "/y", "/s/3", "/data/my/ts", "/s/5", "/data/x"]
        );
        assert_eq!(below(None, &spaces).count(), 0);
        for bad in ["relative", "/c", "/c/"] {
            let mapping = [by(1, bad)];
            let error = place_tablespaces(&spaces, &mapping, &[], Path::new("/data")).unwrap_err();
            assert_eq!(error.kind, Kind::Usage, "{bad}");
        }
        for bad in ["../x", "/x", "a//b", "pg_wal/x", "pg_tblspc/1"] {
            let spaces = [recorded(1, "/a", Some(bad))];
            let error = place_tablespaces(&spaces, &[], &[], Path::new("/data")).unwrap_err();
            assert_eq!(error.kind, Kind::CorruptData, "{bad}");
        }
    }

    #[test]
    fn fault_93_a_place_that_only_one_record_names_is_refused() {
        let spaces = [recorded(1, "/a/", None), recorded(2, "/b", None)];
        let mapping = [(TablespaceSource::Oid(2), PathBuf::from("/x"))];
        let (planned, _) = place_tablespaces(&spaces, &mapping, &[], Path::new("/data")).unwrap();
        let map = |oid: u32, path: &str| TablespaceMap {
            entries: vec![(oid, path.to_owned())],
        };
        // The second place is the request's: what the map says of it does not matter.
        check_named_alike(&planned, Some(&map(1, "/a"))).unwrap();
        for told in [None, Some(map(1, "/root/.ssh")), Some(map(2, "/a"))] {
            let error = check_named_alike(&planned, told.as_ref()).unwrap_err();
            assert_eq!(error.kind, Kind::NotEmpty);
            let expected = Remedy::TablespacePlace {
                oid: 1,
                place: None,
            };
            assert_eq!(error.remedy.as_deref(), Some(&expected));
        }
    }
}
