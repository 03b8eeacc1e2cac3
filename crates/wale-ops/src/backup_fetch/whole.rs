//! From files that are all there to a cluster that can be started: map, manifest, the caller's settings, one flush, and
//! `global/pg_control` last. Sync; for blocking threads.

use std::fs;

use wale_cluster::{Owner, RestoreMarker, durable, text_of_path};
use wale_pg::{ControlFile, TablespaceMap, byte_text};

use super::extract::{Extraction, Kept};
use super::finish::{Finish, Finished};
use super::held::check_own;
use super::ledger::lacks;
use super::links;
use super::manifest;
use super::source::Source;
use super::tablespaces::PlannedTablespace;
use crate::error::{Kind, OpError, Result};

/// A restore whose partitions have all been read.
pub(super) struct Whole<'a> {
    pub(super) extraction: &'a Extraction,
    pub(super) source: &'a Source,
    pub(super) tablespaces: &'a [PlannedTablespace],
    pub(super) owner: Owner,
    /// As this restore wrote it.
    pub(super) marker: &'a RestoreMarker,
}

impl Whole<'_> {
    /// Does all of it. When this returns, a server can start.
    pub(super) fn complete(&self, finish: Finish) -> Result<(ControlFile, Finished)> {
        let target = &self.extraction.target;
        self.extraction.copy_second_names()?;
        self.check_complete()?;
        let kept = self.extraction.take_control_file().ok_or_else(|| {
            OpError::new(
                Kind::CorruptData,
                format!("backup {} has no global/pg_control", self.source.name),
            )
        })?;
        let control_file = self.check_control_file(&kept)?;
        self.check_label(&control_file)?;
        target.check_version_folders(&control_file)?;
        target.share("backup_label")?;
        let mut warnings = links::place(&self.extraction.take_links(), target)?;
        warnings.extend(self.extraction.left_out());
        let map = self.write_tablespace_map(&control_file)?;
        self.settle_manifest(map.as_deref())?;
        let mut finished = finish(target, &control_file)?;
        warnings.append(&mut finished.warnings);
        finished.warnings = warnings;
        target.flush()?;
        // A flush may take minutes: the label must still be there, and the directory this restore's.
        self.check_label(&control_file)?;
        check_own(target.path(), self.marker)?;
        // From this rename on a server can start.
        let path = target.path().join(ControlFile::PATH);
        durable::write_atomic(&path, &kept.content, target.file_mode(), Some(self.owner))
            .map_err(|error| OpError::from_io(error, format_args!("write {}", path.display())))?;
        Ok((control_file, finished))
    }

    /// Whether every file of the manifest has arrived.
    fn check_complete(&self) -> Result<()> {
        let ledger = &self.extraction.ledger;
        match ledger.missing() {
            0 => Ok(()),
            missing => {
                let first = manifest::first_missing(&self.extraction.target, ledger);
                Err(lacks(first.as_deref(), missing, "The manifest"))
            }
        }
    }

    fn check_control_file(&self, kept: &Kept) -> Result<ControlFile> {
        let control_file = ControlFile::parse(&kept.content).map_err(|error| {
            OpError::new(
                Kind::CorruptData,
                format!(
                    "global/pg_control in backup {} is damaged",
                    self.source.name
                ),
            )
            .source(error)
        })?;
        match self.source.sentinel.system_identifier {
            Some(expected) if expected != control_file.system_identifier.as_u64() => {
                Err(OpError::new(
                    Kind::CorruptData,
                    format!("backup {} holds another cluster's files", self.source.name),
                )
                .detail(format!(
                    "Its sentinel says system identifier {expected}, its control file {}.",
                    control_file.system_identifier
                )))
            }
            _ => Ok(control_file),
        }
    }

    /// Without its label the directory would start from the control file's checkpoint, and be silently corrupt.
    /// A copy of a server that was shut down has none and needs none.
    fn check_label(&self, control_file: &ControlFile) -> Result<()> {
        let label = self.extraction.target.path().join("backup_label");
        let is_there = fs::symlink_metadata(label).is_ok_and(|label| label.is_file());
        if is_there || control_file.state.is_clean_shutdown() {
            return Ok(());
        }
        Err(OpError::new(
            Kind::CorruptData,
            format!("backup {} has no backup_label", self.source.name),
        )
        .detail("It was taken of a running server: without the label nobody knows where its recovery begins.")
        .hint("restore another backup; objects of this one are missing in the archive"))
    }

    /// Writes the map with the places of this restore, and gives it where they are others. The server makes the links from
    /// it when recovery begins, so with the old places it would silently go to the original's tablespaces.
    fn write_tablespace_map(&self, control_file: &ControlFile) -> Result<Option<Vec<u8>>> {
        let Some(kept) = self
            .extraction
            .take_tablespace_map()
            .filter(|kept| !kept.content.is_empty())
        else {
            return Ok(None);
        };
        let damaged = |reason: String| {
            OpError::new(
                Kind::CorruptData,
                format!(
                    "the tablespace map of backup {} is damaged: {reason}",
                    self.source.name
                ),
            )
        };
        let target = &self.extraction.target;
        let moved = |space: &PlannedTablespace| space.origin != space.target;
        let content = if self.tablespaces.iter().any(moved) {
            let major = self.source.major.or_else(|| control_file.major());
            let major =
                major.ok_or_else(|| damaged("the server's version is not known".to_owned()))?;
            let text = byte_text::from_bytes(&kept.content);
            let mut map =
                TablespaceMap::parse(&text, major).map_err(|error| damaged(error.to_string()))?;
            for (oid, path) in &mut map.entries {
                if let Some(space) = self.tablespaces.iter().find(|space| space.oid == *oid) {
                    *path = text_of_path(&space.target);
                }
            }
            byte_text::to_bytes(&map.to_text(major)).into_owned()
        } else {
            kept.content.clone()
        };
        target.small_file("tablespace_map", target.file_mode(), &content)?;
        Ok(Some(content).filter(|content| *content != kept.content))
    }

    /// Gives the manifest in the directory the bits that it has there, and the entry of the map as it is now.
    fn settle_manifest(&self, map: Option<&[u8]>) -> Result<()> {
        let Some(manifest) = &self.source.manifest else {
            return Ok(());
        };
        let target = &self.extraction.target;
        if let Some(map) = map {
            manifest.change_map(target, map)?;
        }
        target.share("backup_manifest")
    }
}
