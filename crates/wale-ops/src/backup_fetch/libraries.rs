//! The libraries that the backup's server had loaded, and the versions of their extensions: named before a restore, and
//! compared with the libraries of a server that is installed here.
//!
//! A server without the library does not start; one with another version recovers, is promoted, and then fails every
//! statement in that database. The server may be in another image than this process, so what is missing here is a warning.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wale_cluster::recovery;
use wale_format::WaleSentinel;
use wale_pg::MajorVersion;

const SETTING: &str = "shared_preload_libraries";

/// What a backup records of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    libraries: String,
    /// Database → extension → version.
    extensions: BTreeMap<String, BTreeMap<String, String>>,
}

impl Record {
    pub(super) fn of(sentinel: &WaleSentinel) -> Self {
        Self {
            libraries: sentinel.settings.get(SETTING).cloned().unwrap_or_default(),
            extensions: sentinel.extensions.clone(),
        }
    }
}

/// Sentences about the libraries of a backup.
pub(super) fn notes(record: &Record) -> Vec<String> {
    let list = &record.libraries;
    if list.is_empty() {
        return Vec::new();
    }
    let mut notes = vec![format!(
        "the backup's server had loaded {SETTING} = '{list}'"
    )];
    for (database, extension, version) in preloaded(record, list) {
        notes.push(format!(
            "database \"{database}\" has the extension {extension} {version}: the server needs the library of that version"
        ));
    }
    notes
}

/// Sentences about libraries that a server of the backup's version, which is installed here, lacks.
pub(super) fn missing(record: &Record, major: MajorVersion) -> Vec<String> {
    folders(major)
        .into_iter()
        .find(|folder| folder.join("plpgsql.so").is_file())
        .map_or_else(Vec::new, |folder| missing_in(record, &folder))
}

/// Where Debian's, Red Hat's and Alpine's packages have the libraries of a major version.
fn folders(major: MajorVersion) -> [PathBuf; 3] {
    [
        PathBuf::from(format!("/usr/lib/postgresql/{major}/lib")),
        PathBuf::from(format!("/usr/pgsql-{major}/lib")),
        PathBuf::from(format!("/usr/lib/postgresql{major}")),
    ]
}

fn missing_in(record: &Record, folder: &Path) -> Vec<String> {
    let list = &record.libraries;
    let shown = folder.display();
    let mut sentences = Vec::new();
    for library in recovery::libraries(list) {
        let name = library.strip_prefix("$libdir/").unwrap_or(library);
        if !name.contains('/') && !has(folder, name) {
            sentences.push(format!(
                "{shown} has no library {name}, which the backup's server had loaded: a server that finds none does not start"
            ));
        }
    }
    for (database, extension, version) in preloaded(record, list) {
        // TimescaleDB has a library for each version, and one that loads it.
        let versioned = format!("{extension}-{version}");
        if extension == "timescaledb" && has(folder, extension) && !has(folder, &versioned) {
            sentences.push(format!(
                "{shown} has no {versioned}.so, and database \"{database}\" had that version of {extension}: install it, unless \
                 the extension was updated between the backup and the target; the server starts without it and then fails \
                 every statement in that database"
            ));
        }
    }
    sentences
}

fn has(folder: &Path, library: &str) -> bool {
    folder.join(format!("{library}.so")).is_file() || folder.join(library).is_file()
}

/// Database, extension and version of those whose library is loaded at the start.
fn preloaded<'a>(record: &'a Record, list: &'a str) -> Vec<(&'a str, &'a str, &'a str)> {
    let mut found = Vec::new();
    for (database, extensions) in &record.extensions {
        for (extension, version) in extensions {
            let is_loaded = recovery::libraries(list)
                .any(|library| library.rsplit('/').next() == Some(extension.as_str()));
            if is_loaded {
                found.push((database.as_str(), extension.as_str(), version.as_str()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_56_the_versions_of_preloaded_extensions_are_named_and_missed() {
        let mut record = Record::default();
        assert!(notes(&record).is_empty());
        record.libraries = "timescaledb, pg_stat_statements".to_owned();
        let extensions = [("plpgsql", "1.0"), ("timescaledb", "2.22.1")]
            .map(|(name, version)| (name.to_owned(), version.to_owned()));
        record
            .extensions
            .insert("metrics".to_owned(), extensions.into());
        let told = notes(&record);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[1].contains("timescaledb 2.22.1") && told[1].contains("metrics"));

        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str| std::fs::write(folder.path().join(name), "").unwrap();
        assert_eq!(missing_in(&record, folder.path()).len(), 2);
        put("pg_stat_statements.so");
        put("timescaledb.so");
        put("timescaledb-2.23.0.so");
        let told = missing_in(&record, folder.path());
        assert!(
            told.len() == 1 && told[0].contains("timescaledb-2.22.1.so"),
            "{told:?}"
        );
        put("timescaledb-2.22.1.so");
        assert!(missing_in(&record, folder.path()).is_empty());
    }
}
