//! The libraries that the backup's server had loaded, and the versions of their extensions: named before a restore, and
//! compared with the libraries of a server that is installed here.
//!
//! A server without the library does not start; one with another version recovers, is promoted, and then fails every
//! statement in that database. So a restore is refused where every server of that version that is installed here lacks what
//! is needed. A sidecar's image has no server as a rule: then nothing is known, and it warns.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use wale_archive::Remedy;
use wale_cluster::recovery;
use wale_format::WaleSentinel;
use wale_format::sentinel::TimescaleRecord;
use wale_pg::{MajorVersion, RecoveryTargetKind};

use crate::error::{Kind, OpError, Result};

const SETTING: &str = "shared_preload_libraries";
/// Where a server looks for them, and what that is by default.
const PATH_SETTING: &str = "dynamic_library_path";
const LIBDIR: &str = "$libdir";
const TIMESCALEDB: &str = "timescaledb";

/// Files of a folder of libraries that are checked: a server has some hundred.
const FILES_MAX: usize = 100_000;

/// What a backup records of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    libraries: String,
    /// `dynamic_library_path`.
    path: Option<String>,
    /// Database → extension → version.
    extensions: BTreeMap<String, BTreeMap<String, String>>,
    /// Database → what TimescaleDB counted there.
    timescaledb: BTreeMap<String, TimescaleRecord>,
}

impl Record {
    pub(super) fn of(sentinel: &WaleSentinel) -> Self {
        Self {
            libraries: sentinel.settings.get(SETTING).cloned().unwrap_or_default(),
            path: sentinel.settings.get(PATH_SETTING).cloned(),
            extensions: sentinel.extensions.clone(),
            timescaledb: sentinel.timescaledb.clone(),
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
    notes.extend(
        record
            .timescaledb
            .iter()
            .map(|(database, counts)| counted(database, counts)),
    );
    notes
}

/// A sentence to hold the restored database against.
fn counted(database: &str, counts: &TimescaleRecord) -> String {
    let licence = counts.licence.as_ref().map_or_else(String::new, |licence| {
        format!("; its licence is '{licence}'")
    });
    format!(
        "in database \"{database}\" TimescaleDB counted {} hypertables, {} chunks, {} of them compressed, and {} jobs when the \
         backup was taken{licence}",
        counts.hypertables, counts.chunks, counts.compressed_chunks, counts.jobs
    )
}

/// A sentence about background jobs, which run within seconds of the promotion, perhaps the one that dropped what is to be
/// recovered.
pub(super) fn jobs_note(record: &Record, target: &RecoveryTargetKind) -> Option<String> {
    let is_loaded = recovery::libraries(&record.libraries)
        .any(|library| library.rsplit('/').next() == Some(TIMESCALEDB));
    (is_loaded && *target != RecoveryTargetKind::Latest).then(|| {
        format!(
            "with a recovery target TimescaleDB's background jobs must rest until you have checked the data: the \
             restore writes {} = 0 for that; after backup-fetch write it yourself, before the server is started",
            recovery::TIMESCALEDB_WORKERS
        )
    })
}

/// What a restore does about libraries that a server which is installed here lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissingLibraries {
    /// It is refused before the first write.
    #[default]
    Refuse,
    /// It warns: another server will run on the directory.
    Warn,
}

impl MissingLibraries {
    /// Every choice, the default first.
    pub const ALL: [Self; 2] = [Self::Refuse, Self::Warn];

    /// Its word in settings and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refuse => "require",
            Self::Warn => "warn",
        }
    }
}

/// What there is to decide with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) record: &'a Record,
    pub(super) major: MajorVersion,
    pub(super) policy: MissingLibraries,
    /// Where the server that will run has them, where that is known.
    pub(super) folder: Option<&'a Path>,
    /// Whether recovery ends where the backup does: no extension was updated on the way.
    pub(super) ends_with_backup: bool,
}

/// Looks at the servers of the backup's version that are installed here. Gives warnings.
///
/// # Errors
///
/// [`Kind::Configuration`] where none of them can work with the restored cluster, as far as is certain.
pub(super) fn check(question: &Question<'_>) -> Result<Vec<String>> {
    match question.folder {
        Some(folder) => judge(question, &[folder.to_owned()]),
        None => judge(question, &installed(Path::new("/"), question.major)),
    }
}

fn judge(question: &Question<'_>, folders: &[PathBuf]) -> Result<Vec<String>> {
    let (record, major) = (question.record, question.major);
    let list = &record.libraries;
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let looks = folders
        .iter()
        .map(|folder| missing_in(question, folder))
        .min_by_key(|missing| (missing.certain.len(), missing.possible.len()));
    let Some(missing) = looks else {
        return Ok(vec![format!(
            "no server of version {major} is installed here, so it cannot be checked whether it has the libraries that \
             the backup's server had loaded ({list}): make sure that the server which will run has them; it does not \
             start without them"
        )]);
    };
    // Libraries are looked for there, too; where nobody recorded it, they may be.
    let elsewhere = record.path.as_deref() != Some(LIBDIR);
    if missing.certain.is_empty() || elsewhere || question.policy == MissingLibraries::Warn {
        return Ok([missing.certain, missing.possible].concat());
    }
    Err(OpError::new(
        Kind::Configuration,
        format!("the server that is installed here cannot run the restored cluster: {}", missing.certain.join("; ")),
    )
    .hint(
        "install what is missing, then restore again; nothing was written. Where another server than the one here will run \
         on the directory, say so",
    )
    .remedy(Remedy::MissingLibrariesWarn))
}

/// Where the servers of a major version that are installed here have their libraries: Debian's packages, those of
/// postgresql.org for Red Hat, SUSE's, Alpine's, the distribution's own of Red Hat and others, a build from source, Docker's
/// images (TimescaleDB's too), Homebrew on Linux, and NixOS. A folder counts when `plpgsql`, which is in every server, lies
/// in it, and the catalogue's template, which only a server needs, says the version.
fn installed(root: &Path, major: MajorVersion) -> Vec<PathBuf> {
    let mut places: Vec<(String, String)> = [
        ("usr/lib/postgresql/#/lib", "usr/share/postgresql/#"),
        ("usr/pgsql-#/lib", "usr/pgsql-#/share"),
        ("usr/lib/postgresql#/lib64", "usr/share/postgresql#"),
        ("usr/lib/postgresql#", "usr/share/postgresql#"),
        ("usr/lib64/pgsql", "usr/share/pgsql"),
        ("usr/lib/pgsql", "usr/share/pgsql"),
        ("usr/lib/postgresql", "usr/share/postgresql"),
        ("usr/local/lib/postgresql", "usr/local/share/postgresql"),
        ("usr/local/pgsql/lib", "usr/local/pgsql/share"),
        (
            "home/linuxbrew/.linuxbrew/lib/postgresql@#",
            "home/linuxbrew/.linuxbrew/share/postgresql@#",
        ),
    ]
    .map(|(libraries, share)| {
        let of = |text: &str| text.replace('#', &major.to_string());
        (of(libraries), of(share))
    })
    .into();
    // A program that leads into a folder of its own.
    let program = root.join("run/current-system/sw/bin/postgres");
    if let Ok(program) = program.canonicalize()
        && let Some(prefix) = program
            .parent()
            .and_then(Path::parent)
            .and_then(Path::to_str)
    {
        places.push((
            format!("{prefix}/lib"),
            format!("{prefix}/share/postgresql"),
        ));
    }
    places
        .into_iter()
        .filter(|(_, share)| template_says(&root.join(share), major))
        .map(|(libraries, _)| root.join(libraries))
        .filter(|folder| has(folder, "plpgsql"))
        .collect()
}

/// The first line of `postgres.bki` is `# PostgreSQL 15`.
fn template_says(share: &Path, major: MajorVersion) -> bool {
    let mut head = String::new();
    let line = format!("# PostgreSQL {major}\n");
    let read = std::fs::File::open(share.join("postgres.bki"))
        .and_then(|file| file.take(line.len() as u64).read_to_string(&mut head));
    read.is_ok() && head == line
}

/// What one server lacks.
#[derive(Debug, Default)]
struct Missing {
    /// Sentences about what is missing whatever the recovery comes to.
    certain: Vec<String>,
    /// Sentences about what is perhaps not needed any more at the end of the recovery.
    possible: Vec<String>,
}

fn missing_in(question: &Question<'_>, folder: &Path) -> Missing {
    let list = &question.record.libraries;
    let shown = folder.display();
    let mut missing = Missing::default();
    for library in recovery::libraries(list) {
        let name = library.strip_prefix("$libdir/").unwrap_or(library);
        if !name.starts_with('/') && !has(folder, name) {
            missing.certain.push(format!(
                "{shown} has no library {name}, which the backup's server had loaded: a server that finds none does not start"
            ));
        }
    }
    for (database, extension, version) in preloaded(question.record, list) {
        // TimescaleDB has a library for each version, and one that loads it.
        if extension != TIMESCALEDB || !has(folder, extension) {
            continue;
        }
        if has(folder, &format!("{extension}-{version}")) {
            continue;
        }
        let sentence = format!(
            "{shown} has no {extension}-{version}.so, and database \"{database}\" had that version of {extension}: a server \
             without it starts, and then fails every statement in that database"
        );
        // There is no way back to an earlier version.
        if !question.ends_with_backup && has_later(folder, version) {
            missing.possible.push(format!(
                "{sentence}; install it, unless the extension was updated between the backup and the end of the recovery"
            ));
        } else {
            missing.certain.push(sentence);
        }
    }
    missing
}

/// Whether the folder has TimescaleDB in a later version, to which it may have been updated after the backup.
fn has_later(folder: &Path, version: &str) -> bool {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.take(FILES_MAX).any(|file| {
        let name = file.file_name();
        let found = name
            .to_str()
            .and_then(|name| name.strip_suffix(".so")?.strip_prefix("timescaledb-"));
        // timescaledb-tsl-2.22.1.so is the other half of one.
        found.is_some_and(|found| {
            found.starts_with(|first: char| first.is_ascii_digit())
                && numbers(found) > numbers(version)
        })
    })
}

fn numbers(version: &str) -> Vec<u64> {
    let parts = version.split(|c: char| !c.is_ascii_digit());
    parts.filter_map(|part| part.parse().ok()).collect()
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

    fn record() -> Record {
        let extensions = [("plpgsql", "1.0"), ("timescaledb", "2.22.1")]
            .map(|(name, version)| (name.to_owned(), version.to_owned()));
        Record {
            libraries: "timescaledb, pg_stat_statements".to_owned(),
            path: Some(LIBDIR.to_owned()),
            extensions: [("metrics".to_owned(), extensions.into())].into(),
            timescaledb: BTreeMap::new(),
        }
    }

    fn question(record: &Record) -> Question<'_> {
        Question {
            record,
            major: MajorVersion::new(15).unwrap(),
            policy: MissingLibraries::Refuse,
            folder: None,
            ends_with_backup: false,
        }
    }

    fn put(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn fault_56_the_versions_of_preloaded_extensions_are_named() {
        assert!(notes(&Record::default()).is_empty());
        let told = notes(&record());
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[1].contains("timescaledb 2.22.1") && told[1].contains("metrics"));
        let counts = TimescaleRecord {
            hypertables: 3,
            chunks: 2_161,
            compressed_chunks: 2_112,
            jobs: 9,
            licence: Some("timescale".to_owned()),
        };
        let with_counts = Record {
            timescaledb: [("metrics".to_owned(), counts)].into(),
            ..record()
        };
        let told = notes(&with_counts);
        for word in [
            "3 hypertables",
            "2161 chunks, 2112",
            "9 jobs",
            "'timescale'",
        ] {
            assert!(told[2].contains(word), "{told:?}");
        }
        let note = |kind| jobs_note(&record(), &kind);
        assert!(note(RecoveryTargetKind::Latest).is_none());
        assert!(
            note(RecoveryTargetKind::Immediate)
                .unwrap()
                .contains("backup-fetch")
        );
        assert!(jobs_note(&Record::default(), &RecoveryTargetKind::Immediate).is_none());
    }

    #[test]
    fn fault_56_what_the_server_here_lacks_refuses_the_restore_where_that_is_certain() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().to_owned()];
        let record = record();
        let ask = question(&record);
        let refused = |question: &Question<'_>| judge(question, &folders).unwrap_err().message;
        let warned = |question: &Question<'_>| judge(question, &folders).unwrap();

        let message = refused(&ask);
        assert!(message.contains("no library timescaledb"), "{message}");
        assert!(message.contains("pg_stat_statements"), "{message}");
        let error = judge(&ask, &folders).unwrap_err();
        assert_eq!(error.kind, Kind::Configuration);
        assert_eq!(error.remedy.as_deref(), Some(&Remedy::MissingLibrariesWarn));
        // Another server will run, or it looks elsewhere, or it is not known where it looks: reported, and not refused.
        let warn = Question {
            policy: MissingLibraries::Warn,
            ..ask
        };
        assert_eq!(warned(&warn).len(), 2);
        for path in [None, Some("/extensions/lib:$libdir".to_owned())] {
            let record = Record {
                path,
                ..record.clone()
            };
            assert_eq!(warned(&question(&record)).len(), 2);
        }
        // No server is to be seen.
        let told = judge(&ask, &[]).unwrap();
        assert!(
            told.len() == 1 && told[0].contains("timescaledb, pg_stat"),
            "{told:?}"
        );
        assert!(
            judge(&question(&Record::default()), &[])
                .unwrap()
                .is_empty()
        );

        // The version: an earlier one can never be right, a later one may be.
        put(folder.path(), "pg_stat_statements.so", "");
        put(folder.path(), "timescaledb.so", "");
        put(folder.path(), "timescaledb-2.9.3.so", "");
        put(folder.path(), "timescaledb-tsl-2.23.0.so", "");
        assert!(refused(&ask).contains("timescaledb-2.22.1.so"));
        put(folder.path(), "timescaledb-2.23.0.so", "");
        let told = warned(&ask);
        assert!(
            told.len() == 1 && told[0].contains("was updated"),
            "{told:?}"
        );
        let immediate = Question {
            ends_with_backup: true,
            ..ask
        };
        assert!(refused(&immediate).contains("timescaledb-2.22.1.so"));
        put(folder.path(), "timescaledb-2.22.1.so", "");
        assert!(warned(&immediate).is_empty());
        // One of two servers is enough.
        let other = tempfile::tempdir().unwrap();
        let both = [other.path().to_owned(), folder.path().to_owned()];
        assert!(judge(&immediate, &both).unwrap().is_empty());
    }

    #[test]
    fn fault_56_servers_are_found_where_packages_and_images_put_them() {
        let root = tempfile::tempdir().unwrap();
        let found = |major| installed(root.path(), MajorVersion::new(major).unwrap());
        assert!(found(15).is_empty());
        let layouts = [
            ("usr/lib/postgresql/15/lib", "usr/share/postgresql/15"),
            ("usr/pgsql-15/lib", "usr/pgsql-15/share"),
            ("usr/lib/postgresql15", "usr/share/postgresql15"),
            ("usr/local/lib/postgresql", "usr/local/share/postgresql"),
            ("nix/store/x/lib", "nix/store/x/share/postgresql"),
        ];
        for (count, (libraries, share)) in layouts.iter().enumerate() {
            put(root.path(), &format!("{libraries}/plpgsql.so"), "");
            if libraries.starts_with("nix") {
                put(root.path(), "nix/store/x/bin/postgres", "");
                let bin = root.path().join("run/current-system/sw/bin");
                std::fs::create_dir_all(&bin).unwrap();
                let program = root.path().join("nix/store/x/bin/postgres");
                std::os::unix::fs::symlink(program, bin.join("postgres")).unwrap();
            }
            // Libraries alone are no server, and one of another version says nothing.
            assert_eq!(found(15).len(), count, "{libraries}");
            put(
                root.path(),
                &format!("{share}/postgres.bki"),
                "# PostgreSQL 15\n",
            );
            assert_eq!(found(15).len(), count + 1, "{libraries}");
        }
        assert!(found(16).is_empty());
    }
}
