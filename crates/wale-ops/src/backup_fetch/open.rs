//! The first writes of a restore: its marker, then the removal of what an earlier one left, then what comes before the files.

use std::path::Path;

use wale_cluster::{RestoreMarker, RestoreTree, restore_marker};

use super::held::HeldDirectory;
use super::options::RestoreOptions;
use super::plan::{self, Begin};
use super::prepare::{Prepared, check_space, lock_file_name};
use super::target::Target;
use super::{facts, wipe};
use crate::error::{Kind, OpError, Result};
use wale_pipeline::blocking;

/// Marks the target as half done, wipes it where it was that before, and makes what comes before the files.
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
    let target = blocking(move || {
        RestoreTree::create(&path, 0o700, Some(owner)).map_err(|error| could_not(error, &path))?;
        let held = HeldDirectory::take(&path)?;
        // Another restore may have come and gone since the first look.
        let (state, found) = facts::target(&path, &lock_file)?;
        if plan::judge_target(&path, &state)? != begin || found != earlier {
            return Err(OpError::new(
                Kind::Busy,
                format!("another restore began in \"{}\" meanwhile", path.display()),
            )
            .hint("check what it left, and begin this one anew"));
        }
        restore_marker::write(&path, &marker).map_err(|error| could_not(error, &path))?;
        if begin == Begin::AfterWiping {
            wipe::wipe(&path, &wiped, &lock_file, owner)?;
        } else {
            wipe::remove_temporary(&path, owner)?;
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
        check_space(options, &prepared.sources, places)?;
    }
    Ok(target)
}

fn could_not(error: wale_cluster::ClusterError, path: &Path) -> OpError {
    OpError::from_cluster(error, format_args!("write {}", path.display()))
}
