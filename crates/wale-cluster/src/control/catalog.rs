//! What the server says about itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use wale_pg::{
    ClusterIdentity, ControlFile, Lsn, MajorVersion, SystemIdentifier, WalSegmentSize, byte_text,
};

use super::connection::{Control, USUAL_LOCK_LIMIT, get, get_name, name_bytes};
use super::examine::{TimescaleFacts, TimescaleLook};
use super::options::ConnectOptions;
use crate::error::ClusterError;

/// Settings that recovery compares with the primary's or cannot do without. Recorded with a base backup.
const ENFORCED_SETTINGS: [&str; 9] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "wal_level",
    "track_commit_timestamp",
    "shared_preload_libraries",
    "dynamic_library_path",
];

/// For how long one database is asked for its extensions, and all of them together: they only serve a report, and
/// somebody may hold a lock on a catalogue for ever. 10 s are some hundred times what an idle database needs.
const REPORT_LIMIT: Duration = Duration::from_secs(10);
const REPORTS_LIMIT: Duration = Duration::from_mins(1);
/// For how long TimescaleDB is asked for its counts within that time, by the server's clock and by ours.
const COUNTS_LIMIT: Duration = Duration::from_secs(5);
const COUNTS_ALONE: &str = "SET statement_timeout = '4s'; SET default_transaction_read_only = on";
const TIMESCALEDB: &str = "timescaledb";
/// For how long such a question waits for a lock.
pub(super) const REPORT_LOCK_LIMIT: &str = "SET lock_timeout = '2s'";

/// What identifies a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// `server_version_num`, e.g. 150018.
    pub version_num: u32,
    /// The major version.
    pub major: MajorVersion,
    /// The cluster's identity, from its control file.
    pub system_identifier: SystemIdentifier,
    /// Size of a WAL segment.
    pub wal_segment_size: WalSegmentSize,
    /// Whether it is a standby (or in archive recovery).
    pub in_recovery: bool,
    /// PGDATA as the server sees it; `None` where the user has no right to know it. In a container of its own the
    /// server sees it under another path than we do.
    pub data_directory: Option<String>,
}

impl ServerFacts {
    /// The server's cluster.
    #[must_use]
    pub fn identity(&self) -> ClusterIdentity {
        ClusterIdentity {
            system_identifier: self.system_identifier,
            major: Some(self.major),
            wal_segment_size: self.wal_segment_size,
        }
    }
}

/// What distinguishes one server's control file from another's of the same cluster, and from itself at another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlStamp {
    /// Where a recovery would begin.
    pub redo: Lsn,
    /// When the file was written, in seconds since 1970 by the server's clock.
    pub written_unix_s: i64,
}

impl From<&ControlFile> for ControlStamp {
    fn from(file: &ControlFile) -> Self {
        Self {
            redo: file.redo,
            written_unix_s: file.time_unix_s,
        }
    }
}

/// The extensions of all databases of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtensionInventory {
    /// Database → extension → version. A database without extensions has an empty map.
    pub databases: BTreeMap<String, BTreeMap<String, String>>,
    /// Databases that could not be asked, and why.
    pub failures: BTreeMap<String, String>,
    /// Database → what TimescaleDB counts there, where it is.
    pub timescaledb: BTreeMap<String, TimescaleFacts>,
    /// Databases in which it did not answer, and why.
    pub uncounted: BTreeMap<String, String>,
}

/// What an archiver has done since its statistics were reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiverStats {
    /// Files that were archived.
    pub archived: u64,
    /// The last of them.
    pub last: Option<ArchiverDeed>,
    /// The last that could not be archived.
    pub last_failure: Option<ArchiverDeed>,
}

/// A file, and when it was archived or not, by the clock of the server's host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiverDeed {
    /// Its name.
    pub wal: String,
    /// When.
    pub at: DateTime<Utc>,
}

impl Control {
    /// Asks the server who it is. Needs no privileges.
    ///
    /// # Errors
    /// When the session is lost, or the server is of a version that wale does not know.
    pub async fn facts(&self) -> Result<ServerFacts, ClusterError> {
        let during = "asking the server for its facts";
        let sql = "SELECT pg_catalog.current_setting('server_version_num')::int,
                    (pg_catalog.pg_control_system()).system_identifier,
                    (pg_catalog.pg_control_init()).bytes_per_wal_segment,
                    pg_catalog.pg_is_in_recovery()";
        let row = self.query_one(during, sql, &[]).await?;
        let strange = |reason: String| ClusterError::UnexpectedAnswer { during, reason };
        let version_num = u32::try_from(get::<i32>(&row, 0, during)?).unwrap_or(0);
        let segment_bytes = u64::try_from(get::<i32>(&row, 2, during)?).unwrap_or(0);
        Ok(ServerFacts {
            version_num,
            major: MajorVersion::from_server_version_num(version_num).map_err(|_| {
                ClusterError::UnsupportedServer {
                    version_num: version_num.to_string(),
                }
            })?,
            system_identifier: SystemIdentifier::from_sql(get(&row, 1, during)?),
            wal_segment_size: WalSegmentSize::new(segment_bytes)
                .map_err(|error| strange(error.to_string()))?,
            in_recovery: get(&row, 3, during)?,
            data_directory: self.data_directory().await?,
        })
    }

    /// Only superusers and members of `pg_read_all_settings` may know it; for others it is not listed.
    async fn data_directory(&self) -> Result<Option<String>, ClusterError> {
        let settings = self.settings(&["data_directory"]).await?;
        Ok(settings.into_values().next())
    }

    /// Settings by name, as PostgreSQL prints them without units. Those that do not exist in this version, or
    /// that the user cannot see, are missing.
    ///
    /// # Errors
    /// When the session is lost.
    pub async fn settings(&self, names: &[&str]) -> Result<BTreeMap<String, String>, ClusterError> {
        let during = "reading settings";
        let setting = name_bytes("setting");
        let sql = format!(
            "SELECT name, {setting} FROM pg_catalog.pg_settings
             WHERE name = ANY ($1) AND setting IS NOT NULL"
        );
        let rows = self.query(during, &sql, &[&names]).await?;
        rows.iter()
            .map(|row| {
                let value = get_name(row, 1, during)?.unwrap_or_default();
                Ok((get(row, 0, during)?, value))
            })
            .collect()
    }

    /// The settings that a recovered server must not have smaller, or must have at all: recorded with a
    /// base backup.
    ///
    /// # Errors
    /// When the session is lost.
    pub async fn enforced_settings(&self) -> Result<BTreeMap<String, String>, ClusterError> {
        self.settings(&ENFORCED_SETTINGS).await
    }

    /// What the server reads in its own control file now. Needs no privileges.
    ///
    /// # Errors
    /// When the session is lost.
    pub async fn control_stamp(&self) -> Result<ControlStamp, ClusterError> {
        let during = "asking the server for its control file";
        let sql = "SELECT (pg_catalog.pg_control_checkpoint()).redo_lsn::text,
                    pg_catalog.date_part('epoch',
                        (pg_catalog.pg_control_system()).pg_control_last_modified)::bigint";
        let row = self.query_one(during, sql, &[]).await?;
        let redo: String = get(&row, 0, during)?;
        Ok(ControlStamp {
            redo: Lsn::parse(&redo).map_err(|error| ClusterError::UnexpectedAnswer {
                during,
                reason: error.to_string(),
            })?,
            written_unix_s: get(&row, 1, during)?,
        })
    }

    /// The files, as the server sees them, from which settings come that are in force. Empty for a role that has no
    /// right to know.
    ///
    /// # Errors
    /// When the session is lost.
    pub async fn setting_files(&self) -> Result<Vec<String>, ClusterError> {
        let during = "asking where the settings come from";
        let file = name_bytes("sourcefile");
        let sql = format!(
            "SELECT DISTINCT {file} FROM pg_catalog.pg_settings WHERE sourcefile IS NOT NULL ORDER BY 1"
        );
        let rows = self.query(during, &sql, &[]).await?;
        rows.iter()
            .map(|row| Ok(get_name(row, 0, during)?.unwrap_or_default()))
            .collect()
    }

    /// The statement that lets this session's role see what only superusers see otherwise: where the configuration lies, and
    /// which libraries are loaded.
    #[must_use]
    pub fn grant_of_settings(&self) -> String {
        super::backup::grant_of_settings(self.user())
    }

    /// When the server started, by the clock of its host.
    ///
    /// # Errors
    /// When the session is lost.
    pub async fn started(&self) -> Result<DateTime<Utc>, ClusterError> {
        let during = "asking the server when it started";
        let sql = "SELECT pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time())";
        let row = self.query_one(during, sql, &[]).await?;
        let seconds: f64 = get(&row, 0, during)?;
        // Whole seconds and below 2^53 for the next 285 million years.
        #[expect(clippy::cast_possible_truncation, reason = "a time in seconds")]
        let whole = seconds.floor() as i64;
        DateTime::from_timestamp(whole, 0).ok_or(ClusterError::UnexpectedAnswer {
            during,
            reason: format!("{seconds} is no time"),
        })
    }

    /// What the server's archiver has done (`pg_stat_archiver`). Needs no privileges.
    ///
    /// # Errors
    /// When the session is lost.
    pub async fn archiver(&self) -> Result<ArchiverStats, ClusterError> {
        let during = "asking the server what it has archived";
        let sql = "SELECT archived_count, last_archived_wal,
                    pg_catalog.date_part('epoch', last_archived_time)::bigint,
                    last_failed_wal, pg_catalog.date_part('epoch', last_failed_time)::bigint
                   FROM pg_catalog.pg_stat_archiver";
        let row = self.query_one(during, sql, &[]).await?;
        let deed = |name: usize| -> Result<Option<ArchiverDeed>, ClusterError> {
            let wal: Option<String> = get(&row, name, during)?;
            let at: Option<i64> = get(&row, name + 1, during)?;
            let at = at.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
            Ok(wal.zip(at).map(|(wal, at)| ArchiverDeed { wal, at }))
        };
        Ok(ArchiverStats {
            archived: get::<i64>(&row, 0, during)?.unsigned_abs(),
            last: deed(1)?,
            last_failure: deed(3)?,
        })
    }

    /// Takes a setting out of `postgresql.auto.conf`. Needs a superuser, or from 15 on the right to do so with this setting.
    ///
    /// # Errors
    /// When the role has no right to it, the server forbids it (`allow_alter_system`), or the session is lost.
    pub async fn reset_setting(&self, name: &str) -> Result<(), ClusterError> {
        let during = "ALTER SYSTEM RESET";
        let is_part = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        // A command takes no parameters; a name that is more than letters is none of PostgreSQL's.
        if !name.split('.').all(is_part) {
            return Err(ClusterError::Configuration {
                message: format!("{name:?} is no name of a setting"),
                hint: None,
            });
        }
        self.query(during, &format!("ALTER SYSTEM RESET {name}"), &[])
            .await
            .map(drop)
    }

    /// The databases that take connections, templates aside: their names as [`byte_text`], for the catalogue keeps
    /// them in the encoding of the database in which they were made.
    ///
    /// # Errors
    /// When the session is lost.
    pub async fn databases(&self) -> Result<Vec<String>, ClusterError> {
        let during = "listing the databases";
        let name = name_bytes("datname::text");
        let sql = format!(
            "SELECT {name} FROM pg_catalog.pg_database
             WHERE datallowconn AND NOT datistemplate ORDER BY 1"
        );
        let rows = self.query(during, &sql, &[]).await?;
        rows.iter()
            .map(|row| Ok(get_name(row, 0, during)?.unwrap_or_default()))
            .collect()
    }

    /// The extensions of every database, with versions: one short session for each, one after the other.
    /// `options` are those of this session; only the database is changed.
    ///
    /// # Errors
    /// When the databases cannot be listed. A database that cannot be asked, in time too, is recorded as a failure.
    pub async fn extensions(
        &self,
        options: &ConnectOptions,
    ) -> Result<ExtensionInventory, ClusterError> {
        let mut inventory = ExtensionInventory::default();
        let (begun, during) = (Instant::now(), "listing extensions");
        self.batch(during, REPORT_LOCK_LIMIT).await?;
        let databases = self.databases().await;
        self.batch(during, USUAL_LOCK_LIMIT).await?;
        for database in databases? {
            let outcome = if byte_text::has_escapes(&database) {
                Err("its name is not UTF-8".to_owned())
            } else if begun.elapsed() > REPORTS_LIMIT {
                Err("the other databases took too long to answer".to_owned())
            } else {
                let options = options.with_database(&database);
                match tokio::time::timeout(REPORT_LIMIT, extensions_of(&options)).await {
                    Ok(Ok(found)) => Ok(found),
                    Ok(Err(error)) => Err(in_words(&error)),
                    Err(_) => Err(format!("no answer within {} s", REPORT_LIMIT.as_secs())),
                }
            };
            match outcome {
                Ok((extensions, counts)) => {
                    match counts {
                        None => {}
                        Some(Ok(counts)) => {
                            inventory.timescaledb.insert(database.clone(), counts);
                        }
                        Some(Err(reason)) => {
                            inventory.uncounted.insert(database.clone(), reason);
                        }
                    }
                    inventory.databases.insert(database, extensions);
                }
                Err(reason) => {
                    let shown = byte_text::shown(&database).into_owned();
                    inventory.failures.insert(shown, reason);
                }
            }
        }
        Ok(inventory)
    }
}

/// The extensions of one database, and what TimescaleDB counts, or why it does not.
type ExtensionsAndCounts = (
    BTreeMap<String, String>,
    Option<Result<TimescaleFacts, String>>,
);

async fn extensions_of(options: &ConnectOptions) -> Result<ExtensionsAndCounts, ClusterError> {
    let during = "listing extensions";
    let control = Control::connect(options).await?;
    control.batch(during, REPORT_LOCK_LIMIT).await?;
    let sql = "SELECT extname::text, extversion FROM pg_catalog.pg_extension";
    let rows = control.query(during, sql, &[]).await?;
    let extensions = rows
        .iter()
        .map(|row| Ok((get(row, 0, during)?, get(row, 1, during)?)))
        .collect::<Result<BTreeMap<String, String>, ClusterError>>()?;
    let counts = if extensions.contains_key(TIMESCALEDB) {
        Some(counts(&control).await)
    } else {
        None
    };
    control.close().await;
    Ok((extensions, counts))
}

/// What TimescaleDB counts in this database. Whatever goes wrong is a sentence: the counts serve a report.
async fn counts(control: &Control) -> Result<TimescaleFacts, String> {
    let asked = async {
        control.batch("asking TimescaleDB", COUNTS_ALONE).await?;
        control.timescale().await
    };
    match tokio::time::timeout(COUNTS_LIMIT, asked).await {
        Ok(Ok(TimescaleLook::Counted(counts))) => Ok(counts),
        Ok(Ok(TimescaleLook::Absent | TimescaleLook::Unknown)) => {
            Err("it has not the views of 2.0 and later".to_owned())
        }
        Ok(Err(error)) => Err(in_words(&error)),
        Err(_) => Err(format!("no answer within {} s", COUNTS_LIMIT.as_secs())),
    }
}

fn in_words(error: &ClusterError) -> String {
    match error.detail() {
        Some(detail) => format!("{error}: {detail}"),
        None => error.to_string(),
    }
}
