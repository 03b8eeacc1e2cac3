//! The first writes of a restore: its marker, then the removal of what an earlier one left, or of what is not kept, then what comes
//! before the files.

use std::path::Path;

use wale_cluster::{Owner, RestoreMarker, RestoreTree, restore_marker};
use wale_pg::ControlFile;

use super::held::HeldDirectory;
use super::options::RestoreOptions;
use super::plan::Begin;
use super::prepare::{Prepared, check_space, lock_file_name};
use super::present::{self, TargetLook};
use super::target::Target;
use super::{keep, wipe};
use crate::error::{Kind, OpError, Result};
use wale_pipeline::blocking;

/// Marks the target as half done, wipes it where it was that before, or clears it of what is not kept, and makes what comes before the files.
///
/// # Errors
///
/// [`Kind::Busy`] when another restore is at work there, or was since the target was looked at; those of the disk.
pub(super) async fn open(
    options: &RestoreOptions,
    prepared: &Prepared,
    marker: RestoreMarker,
) -> Result<Target> {
    let path = options.target.clone();
    let lock_file = lock_file_name(options);
    let (found, places) = (&prepared.found, &prepared.places);
    let (owner, begin, earlier) = (found.owner, found.begin, found.earlier.clone());
    let (tablespaces, wal) = (places.tablespaces.clone(), places.wal.clone());
    let (wiped, major) = (places.wiped.clone(), prepared.sources.restored().major);
    let (existing, present) = (options.existing, found.present.clone());
    let (kept_places, kept) = (
        prepared.kept_places(options),
        prepared.sources.restored().kept(),
    );
    let kept_files = prepared
        .compared
        .as_ref()
        .map_or(0, |compared| compared.kept_files);
    let target = blocking(move || {
        // Nothing of a cluster that is there changes before it is known that nobody came.
        if begin != Begin::Keeping {
            make(&path, owner)?;
        }
        let held = HeldDirectory::take(&path)?;
        // Another restore, or a server, may have come and gone since the first look.
        let looked = present::look(&path, &lock_file, existing)?;
        let planned = TargetLook {
            begin,
            earlier,
            present,
        };
        if looked != planned {
            return Err(OpError::new(
                Kind::Busy,
                format!(
                    "another restore, or a server, was at work in \"{}\" meanwhile",
                    path.display()
                ),
            )
            .hint("check what it left, and begin this one anew"));
        }
        restore_marker::write(&path, &marker).map_err(|error| could_not(error, &path))?;
        match begin {
            Begin::AfterWiping => wipe::wipe(&path, &wiped, &lock_file, owner)?,
            Begin::Fresh => wipe::remove_temporary(&path, owner)?,
            Begin::Keeping => {
                prevent_start(&path, owner, planned.earlier.as_ref())?;
                keep::clear(&kept_places, &kept, kept_files, owner)?;
            }
        }
        let target = Target::open(&path, &tablespaces, wal.as_ref(), major, owner)?;
        let target = target.held_by(held);
        if let Some(major) = major {
            // An image that finds PG_VERSION does not run initdb.
            target.small_file("PG_VERSION", 0o600, format!("{major}\n").as_bytes())?;
        }
        target.make_skeleton(major)?;
        Ok(target)
    })
    .await??;
    if begin == Begin::AfterWiping {
        check_space(options, &prepared.needs(), places)?;
    }
    Ok(target)
}

/// Sees to it that nothing can be started in a directory that is kept in part. Where something was, all is as it was before.
fn prevent_start(path: &Path, owner: Owner, earlier: Option<&RestoreMarker>) -> Result<()> {
    if let Err(error) = keep::prevent_start(path, owner) {
        take_back(path, earlier)?;
        return Err(error);
    }
    make(path, owner)
}

/// Makes the data directory, or gives it its permissions and its owner.
fn make(path: &Path, owner: Owner) -> Result<()> {
    let made = RestoreTree::create(path, 0o700, Some(owner));
    made.map(drop).map_err(|error| could_not(error, path))
}

/// Takes the marker of a restore back that removed nothing. It stays where the control file is gone: nobody else would say why.
fn take_back(path: &Path, earlier: Option<&RestoreMarker>) -> Result<()> {
    let result = match earlier {
        Some(earlier) => restore_marker::write(path, earlier),
        None if path.join(ControlFile::PATH).exists() => restore_marker::remove(path).map(drop),
        None => Ok(()),
    };
    result.map_err(|error| could_not(error, path))
}

fn could_not(error: wale_cluster::ClusterError, path: &Path) -> OpError {
    OpError::from_cluster(error, format_args!("write {}", path.display()))
}
