//! Whether the directories that a restore writes into are apart: a check, nothing is written.
//!
//! Two names may lead to one directory, through a link or a second mount. So places are compared by device and inode, each
//! with the directories above it; what does not exist yet, by its names below the nearest directory that does.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::facts::nearest_existing;
use super::tablespaces::{PlannedTablespace, is_where_it_was};
use super::target::WalPlace;
use crate::error::{Kind, OpError, Result};

/// A directory, which may not exist yet.
#[derive(Debug)]
struct RestorePlace {
    purpose: String,
    path: PathBuf,
    /// Whether the original ran with it at this place.
    as_it_was: bool,
    /// Device and inode of the nearest directory that exists, and of each one above it.
    existing: Vec<(u64, u64)>,
    /// The names below that one.
    missing: Vec<OsString>,
}

impl RestorePlace {
    fn look(path: &Path, purpose: String, as_it_was: bool) -> Result<Self> {
        let failed = |error| OpError::from_io(error, format_args!("look at {}", path.display()));
        let absolute = std::path::absolute(path).map_err(failed)?;
        let nearest = nearest_existing(&absolute);
        let real = fs::canonicalize(&nearest).map_err(failed)?;
        let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
        let existing = real
            .ancestors()
            .map(identity)
            .collect::<std::io::Result<_>>();
        let mut missing = Vec::new();
        for part in absolute
            .strip_prefix(&nearest)
            .into_iter()
            .flat_map(Path::components)
        {
            let Component::Normal(name) = part else {
                let shown = path.display();
                return Err(OpError::new(
                    Kind::Usage,
                    format!("\"{shown}\", meant for {purpose}, goes up from a directory that does not exist"),
                )
                .hint("name the directory without \"..\""));
            };
            missing.push(name.to_owned());
        }
        Ok(Self {
            purpose,
            path: path.to_owned(),
            as_it_was,
            existing: existing.map_err(failed)?,
            missing,
        })
    }

    fn is_same(&self, other: &Self) -> bool {
        self.existing.first() == other.existing.first() && self.missing == other.missing
    }

    fn is_below(&self, other: &Self) -> bool {
        let Some(there) = other.existing.first() else {
            return false;
        };
        if other.missing.is_empty() {
            self.existing.contains(there)
        } else {
            self.existing.first() == Some(there) && self.missing.starts_with(&other.missing)
        }
    }
}

/// Refuses directories that are one, or lie in one another, unless the original ran so.
///
/// # Errors
///
/// [`Kind::Usage`], naming both.
pub(super) fn check_apart(
    data: &Path,
    tablespaces: &[PlannedTablespace],
    wal: Option<&WalPlace>,
) -> Result<()> {
    let mut places = vec![RestorePlace::look(
        data,
        "the data directory".to_owned(),
        true,
    )?];
    if let Some(wal) = wal {
        places.push(RestorePlace::look(
            wal.path(),
            "the WAL directory".to_owned(),
            false,
        )?);
    }
    for space in tablespaces {
        let purpose = format!("tablespace {}", space.oid);
        places.push(RestorePlace::look(
            &space.target,
            purpose,
            is_where_it_was(space),
        )?);
    }
    for (index, one) in places.iter().enumerate() {
        for other in &places[index + 1..] {
            judge(one, other)?;
        }
    }
    Ok(())
}

/// Refuses an archive in a folder that lies in one of the directories, or is one: what is not the backup's is removed from them.
///
/// # Errors
///
/// [`Kind::Usage`], naming both.
pub(super) fn check_archive_apart(
    locations: &[String],
    data: &Path,
    tablespaces: &[PlannedTablespace],
    wal: Option<&WalPlace>,
) -> Result<()> {
    let spaces = tablespaces.iter().map(|space| space.target.as_path());
    let roots = spaces.chain([data]).chain(wal.map(WalPlace::path));
    let roots: Vec<_> = roots
        .map(|path| RestorePlace::look(path, String::new(), false))
        .collect::<Result<_>>()?;
    for location in locations {
        let Some(folder) = location.strip_prefix("file://") else {
            continue;
        };
        let folder = RestorePlace::look(Path::new(folder), "the archive".to_owned(), false)?;
        let is_in = |root: &&RestorePlace| folder.is_same(root) || folder.is_below(root);
        if let Some(root) = roots.iter().find(is_in) {
            return Err(OpError::new(
                Kind::Usage,
                format!(
                    "the archive \"{}\" lies in \"{}\", from which everything goes that is not the backup's",
                    folder.path.display(),
                    root.path.display()
                ),
            )
            .detail("Nothing was written.")
            .hint("move the archive out of it, or restore into an empty directory"));
        }
    }
    Ok(())
}

fn judge(one: &RestorePlace, other: &RestorePlace) -> Result<()> {
    let (inner, outer) = if one.is_below(other) {
        (one, other)
    } else {
        (other, one)
    };
    let is_same = one.is_same(other);
    if !is_same && (!inner.is_below(outer) || (one.as_it_was && other.as_it_was)) {
        return Ok(());
    }
    let how = if is_same {
        "is the same directory as"
    } else {
        "lies in"
    };
    Err(OpError::new(
        Kind::Usage,
        format!(
            "\"{}\", meant for {}, {how} \"{}\", meant for {}",
            inner.path.display(),
            inner.purpose,
            outer.path.display(),
            outer.purpose
        ),
    )
    .detail("Links are followed: two names may lead to one directory. Nothing was written.")
    .hint("give each tablespace and the WAL directory an empty directory of its own, outside of the data directory and of each other"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::tablespaces::NamedBy;
    use super::*;

    fn space(oid: u32, origin: &str, target: PathBuf, named_by: NamedBy) -> PlannedTablespace {
        PlannedTablespace {
            oid,
            origin: origin.into(),
            target,
            named_by,
        }
    }

    #[test]
    fn fault_93_places_that_are_one_or_lie_in_one_another_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["n/there", "data", "wal"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        symlink(at("n"), at("link")).unwrap();
        symlink(at("n/there"), at("other")).unwrap();
        // (first, second, acceptable)
        let cases = [
            ("n/a", "n/b", true),
            ("n/ab", "n/a", true),
            ("n/there", "n/b", true),
            ("n/a", "link/b", true),
            ("n/a", "n/../n/b", true),
            ("n/a", "link/a", false),
            ("n/a", "n/../n/a", false),
            ("n/there", "other", false),
            ("other/x", "n/there/x", false),
            ("n", "n/x", false),
            ("link/a/b", "n/a", false),
            ("n/x/../y", "n/a", false),
            ("n/a", "data", false),
            ("n/a", "data/base/1", false),
            ("n/a", "data/pg_wal", false),
            ("n/a", "wal", false),
            ("n/a", "wal/x", false),
            ("n/a", "", false),
        ];
        let wal = WalPlace::Link(at("wal"));
        for (first, second, acceptable) in cases {
            for swap in [false, true] {
                let mut places = [at(first), at(second)];
                if swap {
                    places.reverse();
                }
                let [one, two] = places;
                let spaces = [
                    space(1, "/old/1", one, NamedBy::Request),
                    space(2, "/old/2", two, NamedBy::Request),
                ];
                let judged = check_apart(&at("data"), &spaces, Some(&wal));
                let kind = judged.err().map(|error| error.kind);
                let expected = (!acceptable).then_some(Kind::Usage);
                assert_eq!(kind, expected, "{first} and {second}");
            }
        }
        let inside = WalPlace::LinkThere(at("data/x"));
        assert!(check_apart(&at("data"), &[], Some(&inside)).is_err());
        assert!(check_apart(&at("missing"), &[], Some(&wal)).is_ok());
    }

    #[test]
    fn an_archive_in_a_directory_that_is_cleared_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["data/archive", "space", "wal/a", "elsewhere"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        symlink(at("data/archive"), at("link")).unwrap();
        let spaces = [space(1, "/old/1", at("space"), NamedBy::Request)];
        let wal = WalPlace::LinkThere(at("wal"));
        let judged = |archive: String| {
            let locations = ["s3://bucket/data".to_owned(), archive];
            check_archive_apart(&locations, &at("data"), &spaces, Some(&wal))
        };
        for (name, acceptable) in [
            ("data", false),
            ("data/archive", false),
            ("link", false),
            ("space", false),
            ("space/x", false),
            ("wal/a", false),
            ("elsewhere", true),
            ("", true),
        ] {
            let found = judged(format!("file://{}", at(name).display()));
            let kind = found.err().map(|error| error.kind);
            assert_eq!(kind, (!acceptable).then_some(Kind::Usage), "{name}");
        }
    }

    #[test]
    fn fault_80_what_the_original_had_in_its_data_directory_stays_there() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let own = data.join("my space");
        let deeper = own.join("x");
        let origin = deeper.to_str().unwrap();
        let spaces = [
            space(1, "/old/data/my space", own.clone(), NamedBy::Itself),
            space(2, origin, deeper.clone(), NamedBy::Backup),
        ];
        check_apart(&data, &spaces, None).unwrap();
        let twice = [
            space(1, "/old/data/my space", own.clone(), NamedBy::Itself),
            space(2, "/old/data/x", own, NamedBy::Itself),
        ];
        assert!(check_apart(&data, &twice, None).is_err());
    }
}
