//! From a backup that is whole to a cluster that can be started: links, map, manifest, the caller's settings, one flush, and
//! `global/pg_control` last. Sync; for blocking threads.

use std::fs;

use wale_cluster::recovery::WrittenSetting;
use wale_cluster::{RestoreMarker, durable, text_of_path};
use wale_pg::{ControlFile, TablespaceMap, byte_text};

use super::held::check_own;
use super::prepare::Prepared;
use super::source::Source;
use super::tablespaces::PlannedTablespace;
use super::target::Target;
use super::{links, manifest};
use crate::backup_content::{TABLESPACE_MAP, WholeBackup, lacks_label};
use crate::error::{Kind, OpError, Result};

/// What is done to the whole directory before `global/pg_control` makes it startable.
pub(super) type Finish = Box<dyn FnOnce(&Target, &ControlFile) -> Result<Finished> + Send>;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Finished {
    /// The settings that were written, for the marker.
    pub(super) written: Vec<WrittenSetting>,
    /// Sentences that say what was decided.
    pub(super) notes: Vec<String>,
    /// Sentences about what the user should check.
    pub(super) warnings: Vec<String>,
    /// Whether background jobs are held.
    pub(super) jobs_held: bool,
}

/// Does all of it. When this returns, a server can start.
///
/// # Errors
///
/// [`Kind::Busy`] when the directory is another restore's by now; [`Kind::CorruptData`] for a tablespace map that cannot
/// be read; those of the caller's own step and of the disk. Nothing can be started then.
pub(super) fn finish(
    prepared: &Prepared,
    whole: &WholeBackup,
    target: &Target,
    marker: &RestoreMarker,
    own: Finish,
) -> Result<Finished> {
    let source = prepared.sources.restored();
    let control_file = &whole.control_file;
    target.share("backup_label")?;
    let mut warnings = links::place(&whole.links, target)?;
    warnings.extend(whole.left_out.clone());
    let map = write_tablespace_map(source, &prepared.places.tablespaces, whole, target)?;
    if let Some(placed) = &source.manifest {
        manifest::settle(placed, target, map.as_deref())?;
    }
    let mut finished = own(target, control_file)?;
    warnings.append(&mut finished.warnings);
    finished.warnings = warnings;
    target.flush()?;
    // A flush may take minutes: the label must still be there, and the directory this restore's.
    check_label(source, control_file, target)?;
    check_own(target.path(), marker)?;
    // From this rename on a server can start.
    let path = target.path().join(ControlFile::PATH);
    let owner = Some(prepared.found.owner);
    durable::write_atomic(&path, &whole.control_bytes, target.file_mode(), owner)
        .map_err(|error| OpError::from_io(error, format_args!("write {}", path.display())))?;
    Ok(finished)
}

/// Whether the label that came is still there: without it the directory would start from the control file's checkpoint.
fn check_label(source: &Source, control_file: &ControlFile, target: &Target) -> Result<()> {
    let label = target.path().join("backup_label");
    let is_there = fs::symlink_metadata(label).is_ok_and(|label| label.is_file());
    if is_there || control_file.state.is_clean_shutdown() {
        return Ok(());
    }
    Err(lacks_label(&source.name))
}

/// Writes the map with the places of this restore, and gives it where they are others. The server makes the links from
/// it when recovery begins, so with the old places it would silently go to the original's tablespaces.
fn write_tablespace_map(
    source: &Source,
    tablespaces: &[PlannedTablespace],
    whole: &WholeBackup,
    target: &Target,
) -> Result<Option<Vec<u8>>> {
    let Some(came) = whole.tablespace_map.as_ref().filter(|map| !map.is_empty()) else {
        return Ok(None);
    };
    let damaged = |reason: String| {
        let name = &source.name;
        let what = format!("the tablespace map of backup {name} is damaged: {reason}");
        OpError::new(Kind::CorruptData, what)
    };
    let moved = |space: &PlannedTablespace| space.origin != space.target;
    let content = if tablespaces.iter().any(moved) {
        let major = source.major.or_else(|| whole.control_file.major());
        let major = major.ok_or_else(|| damaged("the server's version is not known".to_owned()))?;
        let text = byte_text::from_bytes(came);
        let mut map =
            TablespaceMap::parse(&text, major).map_err(|error| damaged(error.to_string()))?;
        for (oid, path) in &mut map.entries {
            if let Some(space) = tablespaces.iter().find(|space| space.oid == *oid) {
                *path = text_of_path(&space.target);
            }
        }
        byte_text::to_bytes(&map.to_text(major)).into_owned()
    } else {
        came.clone()
    };
    target.small_file(TABLESPACE_MAP, target.file_mode(), &content)?;
    Ok(Some(content).filter(|content| content != came))
}
