//! A configuration outside of the data directory, as Debian's: no file of it is among those that are copied. It is named when
//! the backup is taken, not at the restore, and stored beside the backup where it can be read here.

use std::path::{Path, PathBuf};

use wale_cluster::recovery::{self, ConfigurationSet};
use wale_cluster::{Control, ServerFacts};

use crate::blocking::blocking;
use crate::error::{OpError, Result};

/// The settings that name the files; only superusers and members of `pg_read_all_settings` see them.
const NAMES: [&str; 3] = ["config_file", "hba_file", "ident_file"];

/// A configuration that is stored.
#[derive(Debug, Clone)]
pub(super) struct Outside {
    /// The folder in which it lies.
    pub(super) origin: String,
    pub(super) set: ConfigurationSet,
}

/// Looks where the configuration lies; warns where it is not in the data directory.
pub(super) async fn look(control: &Control, facts: &ServerFacts) -> Result<Option<Outside>> {
    let settings = control.settings(&NAMES).await.map_err(|error| {
        OpError::from_cluster(error, "ask the server for its configuration files")
    })?;
    let Some(data_directory) = facts.data_directory.as_ref().map(PathBuf::from) else {
        return Ok(None);
    };
    let outside: Vec<&String> = settings
        .values()
        .filter(|path| !Path::new(path).starts_with(&data_directory))
        .collect();
    if outside.is_empty() {
        return Ok(None);
    }
    let files = outside
        .iter()
        .map(|path| path.as_str())
        .collect::<Vec<_>>()
        .join(" ");
    let main = settings.get(NAMES[0]).map(PathBuf::from);
    let folder = main
        .as_deref()
        .filter(|main| {
            main.file_name()
                .is_some_and(|name| name == "postgresql.conf")
        })
        .and_then(Path::parent)
        .filter(|folder| !folder.starts_with(&data_directory));
    let Some(folder) = folder.map(Path::to_owned) else {
        tracing::warn!(
            files,
            hint = "keep copies of them, in a folder that PGCONF_BACKUP_DIR names when you restore",
            "configuration files lie outside of the data directory and are no part of the backup"
        );
        return Ok(None);
    };
    let (from, major) = (folder.clone(), facts.major);
    let read = blocking(move || recovery::read_configuration(&from, major)).await?;
    let problem = match read {
        Ok(set) if set.has_main() => {
            tracing::info!(
                files,
                "the server's configuration lies outside of the data directory: it is stored beside the backup, and RESTORE \
                 writes it"
            );
            return Ok(Some(Outside {
                origin: folder.display().to_string(),
                set,
            }));
        }
        Ok(_) => "there is no postgresql.conf in it".to_owned(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(
        files,
        problem,
        hint = "mount the folder into the sidecar's container read-only, or keep copies for PGCONF_BACKUP_DIR",
        "the server's configuration lies outside of the data directory and cannot be read here: it is no part of the backup"
    );
    Ok(None)
}
