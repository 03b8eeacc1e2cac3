//! A configuration outside of the data directory, as Debian's: no file of it is among those that are copied. It is named when
//! the backup is taken, not at the restore, and stored beside the backup where it can be read here.
//!
//! Only superusers and members of `pg_read_all_settings` see where the files lie and which libraries are loaded. What the role
//! cannot see is never taken for "inside" or "none": the log says so, with the statement that cures it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wale_cluster::recovery::{self, ConfigurationSet};
use wale_cluster::{Control, ServerFacts};
use wale_pipeline::blocking;

use crate::error::{OpError, Result};

/// The settings that name the files, the main one first.
const FILES: [&str; 3] = ["config_file", "hba_file", "ident_file"];

/// The setting without which a restored server perhaps does not find what its extensions need.
const LIBRARIES: &str = "shared_preload_libraries";

/// The file without which no server starts.
const MAIN: &str = "postgresql.conf";

/// What a person has to do who wants to restore a backup without its configuration.
const KEEP_COPIES: &str = "keep copies of them in a folder, and name it when you restore";

/// A configuration that is stored.
#[derive(Debug, Clone)]
pub(super) struct Outside {
    /// The folder in which it lies.
    pub(super) origin: String,
    pub(super) set: ConfigurationSet,
}

/// Looks where the configuration lies; warns where it is not in the data directory, and where that cannot be known.
/// `directory` is the data directory as it is seen here, `recorded` the settings that go into the backup's record.
pub(super) async fn look(
    control: &Control,
    facts: &ServerFacts,
    directory: &Path,
    recorded: &BTreeMap<String, String>,
) -> Result<Option<Outside>> {
    let failed = |error| OpError::from_cluster(error, "ask the server for its configuration files");
    let settings = control.settings(&FILES).await.map_err(failed)?;
    let hidden = hidden(facts, &settings, recorded);
    if !hidden.is_empty() {
        say_hidden(control, &hidden, directory.join(MAIN).exists());
    }
    let Some(data_directory) = facts.data_directory.as_ref().map(PathBuf::from) else {
        return Ok(None);
    };
    let mut outside: Vec<String> = settings
        .values()
        .filter(|path| !Path::new(path).starts_with(&data_directory))
        .cloned()
        .collect();
    let main = settings.get(FILES[0]).map(PathBuf::from);
    let folder = main
        .as_deref()
        .filter(|main| main.file_name().is_some_and(|name| name == MAIN))
        .and_then(Path::parent)
        .filter(|folder| !folder.starts_with(&data_directory))
        .map(Path::to_owned);
    // Files that are included from elsewhere.
    let included = control.setting_files().await.map_err(failed)?;
    let is_covered = |file: &str| {
        let file = Path::new(file);
        file.starts_with(&data_directory)
            || folder
                .as_deref()
                .is_some_and(|folder| file.starts_with(folder))
    };
    let elsewhere: Vec<String> = included
        .into_iter()
        .filter(|file| !is_covered(file) && !outside.contains(file))
        .collect();
    if folder.is_some() && !elsewhere.is_empty() {
        tracing::warn!(
            files = elsewhere.join(" "),
            hint = KEEP_COPIES,
            "the server's configuration includes files from elsewhere: they are no part of the backup"
        );
    }
    let Some(folder) = folder else {
        outside.extend(elsewhere);
        if !outside.is_empty() {
            tracing::warn!(
                files = outside.join(" "),
                hint = KEEP_COPIES,
                "configuration files lie outside of the data directory and are no part of the backup"
            );
        }
        return Ok(None);
    };
    store(&folder, facts, &outside.join(" ")).await
}

/// Reads the folder where the configuration lies, for the backup.
async fn store(folder: &Path, facts: &ServerFacts, files: &str) -> Result<Option<Outside>> {
    let (from, major) = (folder.to_owned(), facts.major);
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
        Ok(_) => format!("there is no {MAIN} in it"),
        Err(error) => error.to_string(),
    };
    tracing::warn!(
        files,
        problem,
        hint = "mount the folder into the sidecar's container read-only, or keep copies in a folder, and name it when you restore",
        "the server's configuration lies outside of the data directory and cannot be read here: it is no part of the backup"
    );
    Ok(None)
}

/// The settings that every server has, and that the role was not shown.
fn hidden(
    facts: &ServerFacts,
    settings: &BTreeMap<String, String>,
    recorded: &BTreeMap<String, String>,
) -> Vec<&'static str> {
    let mut hidden: Vec<&str> = FILES
        .into_iter()
        .filter(|name| !settings.contains_key(*name))
        .collect();
    if facts.data_directory.is_none() {
        hidden.push("data_directory");
    }
    if !recorded.contains_key(LIBRARIES) {
        hidden.push(LIBRARIES);
    }
    hidden
}

fn say_hidden(control: &Control, hidden: &[&str], has_main: bool) {
    let settings = hidden.join(" ");
    let hint = format!("run as a superuser: {}", control.grant_of_settings());
    if has_main {
        tracing::warn!(
            settings,
            hint,
            "the role {:?} has no right to see where the server's configuration lies, nor its libraries: files outside \
             of the data directory, and {LIBRARIES}, are not in this backup",
            control.user()
        );
    } else {
        tracing::warn!(
            settings,
            hint,
            "the server's configuration lies outside of the data directory, and the role {:?} has no right to see \
             where: neither it nor {LIBRARIES} is in this backup; its restore has PostgreSQL's defaults",
            control.user()
        );
    }
}

/// Of a stopped server: there is nobody to ask, but a data directory without the main file has its configuration elsewhere.
pub(super) fn look_offline(directory: &Path) {
    if !directory.join(MAIN).exists() {
        tracing::warn!(
            hint = KEEP_COPIES,
            "the data directory has no {MAIN}: the server's configuration lies elsewhere and is no part of the backup of a \
             stopped server"
        );
    }
}

#[cfg(test)]
mod tests {
    use wale_pg::{MajorVersion, SystemIdentifier, WalSegmentSize};

    use super::*;

    #[test]
    fn fault_79_what_is_not_shown_is_named_and_an_empty_list_of_libraries_is_shown() {
        let facts = |data_directory: Option<&str>| ServerFacts {
            version_num: 150_000,
            major: MajorVersion::new(15).unwrap(),
            system_identifier: SystemIdentifier::new(7),
            wal_segment_size: WalSegmentSize::DEFAULT,
            in_recovery: false,
            data_directory: data_directory.map(str::to_owned),
        };
        let map = |names: &[&str]| -> BTreeMap<String, String> {
            names
                .iter()
                .map(|name| ((*name).to_owned(), String::new()))
                .collect()
        };
        let nothing = map(&[]);
        assert_eq!(
            hidden(&facts(None), &nothing, &map(&["max_connections"])),
            [
                "config_file",
                "hba_file",
                "ident_file",
                "data_directory",
                LIBRARIES
            ]
        );
        let all = hidden(&facts(Some("/data")), &map(&FILES), &map(&[LIBRARIES]));
        assert!(all.is_empty(), "{all:?}");
    }
}
