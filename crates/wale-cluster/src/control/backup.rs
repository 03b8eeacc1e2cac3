//! A base backup that the server knows of: from `pg_backup_start` to `pg_backup_stop`.
//!
//! Always the non-exclusive form: it writes nothing into the data directory, so a crash of the server during
//! the backup is an ordinary crash. Its price is that start and stop must come from the same session, which
//! this type holds: [`RunningBackup::stop`] consumes it, and dropping it closes the session, by which the
//! server abandons the backup. The server never waits for archiving here (`wait_for_archive` is false): the
//! caller is the archive and knows better what has arrived.

use wale_pg::{BackupFrom, BackupLabel, Lsn, MajorVersion, TimelineId};

use super::connection::{ConnectionWatch, Control, get, get_name, name_bytes};
use crate::error::ClusterError;

const STARTING: &str = "starting a base backup";
const RUNNING: &str = "running a base backup";
const STOPPING: &str = "stopping a base backup";

/// When the checkpoint at the start of a base backup is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// At once, at the price of a burst of writes.
    Fast,
    /// Spread out as the server's configuration says; takes minutes.
    Spread,
}

impl Checkpoint {
    /// Every choice, the default first.
    pub const ALL: [Self; 2] = [Self::Fast, Self::Spread];

    /// Its word in settings and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Spread => "spread",
        }
    }
}

/// An open base backup.
#[derive(Debug)]
pub struct RunningBackup {
    control: Control,
    major: MajorVersion,
    start_lsn: Lsn,
    label: String,
}

/// What the server says at the end of a base backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoppedBackup {
    /// Where replay begins.
    pub start_lsn: Lsn,
    /// Up to where WAL is needed. On a segment's first byte, the segment before is the last one needed.
    pub stop_lsn: Lsn,
    /// The timeline at the start.
    pub timeline: TimelineId,
    /// The timeline at the stop; another one only on a standby that followed a new primary meanwhile.
    pub stop_timeline: TimelineId,
    /// Whether the server was a standby.
    pub from_standby: bool,
    /// Content of the file `backup_label`, byte for byte.
    pub label_text: String,
    /// Content of the file `tablespace_map`, byte for byte ([`wale_pg::byte_text`]); empty where there are no
    /// tablespaces.
    pub tablespace_map: String,
}

impl RunningBackup {
    /// Starts a base backup and keeps the session for it.
    ///
    /// `label` is free text without line breaks, at most 1024 bytes. A spread checkpoint makes this take
    /// minutes.
    ///
    /// # Errors
    /// `Privileges` when the user has no right to it; `Query` when the server refuses, e.g. because WAL is not at
    /// the level `replica`; `ConnectionLost`.
    pub async fn start(
        control: Control,
        label: &str,
        checkpoint: Checkpoint,
    ) -> Result<Self, ClusterError> {
        let during = "asking for the server's version";
        let sql = "SELECT pg_catalog.current_setting('server_version_num')::int";
        let row = control.query_one(during, sql, &[]).await?;
        let number = u32::try_from(get::<i32>(&row, 0, during)?).unwrap_or(0);
        let major = MajorVersion::from_server_version_num(number).map_err(|_| {
            ClusterError::UnsupportedServer {
                version_num: number.to_string(),
            }
        })?;
        let fast = checkpoint == Checkpoint::Fast;
        let sql = if major.has_pg_backup_start() {
            "SELECT pg_catalog.pg_backup_start($1, $2)::text"
        } else {
            "SELECT pg_catalog.pg_start_backup($1, $2, false)::text"
        };
        let row = control
            .query_one(STARTING, sql, &[&label, &fast])
            .await
            .map_err(|error| with_grants(error, &control, major, "start a base backup"))?;
        let start_lsn = lsn(&get::<String>(&row, 0, STARTING)?, STARTING)?;
        Ok(Self {
            control,
            major,
            start_lsn,
            label: label.to_owned(),
        })
    }

    /// Where replay will begin.
    #[must_use]
    pub fn start_lsn(&self) -> Lsn {
        self.start_lsn
    }

    /// The server's major version.
    #[must_use]
    pub fn major(&self) -> MajorVersion {
        self.major
    }

    /// The label it was started with.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The session, for questions in between.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Something to wait on for the end of the session. Does not keep the backup open.
    #[must_use]
    pub fn watch(&self) -> ConnectionWatch {
        self.control.watch()
    }

    /// Waits until the session is lost, for use beside the copying of files. Never returns while all is well.
    /// Cancel-safe.
    pub async fn lost(&self) -> ClusterError {
        let reason = self.watch().lost().await;
        ClusterError::ConnectionLost {
            during: RUNNING,
            reason,
        }
    }

    /// Ends the backup. Does not wait for WAL to be archived; on a primary the server switches to the next
    /// segment, so the last one that is needed is complete at once.
    ///
    /// # Errors
    /// `ConnectionLost`; `BackupVoid` when the server says that the copy cannot be used, e.g. because a
    /// standby was promoted meanwhile; `Privileges`; `Query`. After any of them the backup is gone.
    pub async fn stop(self) -> Result<StoppedBackup, ClusterError> {
        let call = if self.major.has_pg_backup_start() {
            "pg_catalog.pg_backup_stop(false)"
        } else {
            "pg_catalog.pg_stop_backup(false, false)"
        };
        let map = name_bytes("spcmapfile");
        let sql = format!("SELECT lsn::text, labelfile, {map} FROM {call}");
        let row = self
            .control
            .query_one(STOPPING, &sql, &[])
            .await
            .map_err(|error| with_grants(error, &self.control, self.major, "stop a base backup"))
            .map_err(void)?;
        let stop_lsn = lsn(&get::<String>(&row, 0, STOPPING)?, STOPPING)?;
        let label_text: String = get(&row, 1, STOPPING)?;
        // Without tablespaces PostgreSQL gives an empty string; a null would mean the same.
        let tablespace_map = get_name(&row, 2, STOPPING)?;
        let label =
            BackupLabel::parse(&label_text).map_err(|error| ClusterError::UnexpectedAnswer {
                during: STOPPING,
                reason: format!("the backup label cannot be read: {error}"),
            })?;
        // PostgreSQL 10 has no START TIMELINE line, but the name of the start segment holds it.
        let timeline = label
            .start_timeline
            .unwrap_or_else(|| label.start_segment.timeline());
        let from_standby = label.backup_from == BackupFrom::Standby;
        let stop_timeline = if from_standby {
            self.standby_timeline().await?.unwrap_or(timeline)
        } else {
            timeline
        };
        self.control.close().await;
        Ok(StoppedBackup {
            start_lsn: self.start_lsn,
            stop_lsn,
            timeline,
            stop_timeline,
            from_standby,
            label_text,
            tablespace_map: tablespace_map.unwrap_or_default(),
        })
    }

    /// Gives the backup up, politely; dropping it does the same.
    pub async fn abort(self) {
        self.control.close().await;
    }

    /// The timeline that a standby has replayed up to.
    async fn standby_timeline(&self) -> Result<Option<TimelineId>, ClusterError> {
        let sql = "SELECT (pg_catalog.pg_control_recovery()).min_recovery_end_timeline";
        let row = self.control.query_one(STOPPING, sql, &[]).await?;
        let number: i32 = get(&row, 0, STOPPING)?;
        Ok(u32::try_from(number).ok().and_then(TimelineId::new))
    }
}

impl Control {
    /// Checks that the user may start and stop a base backup.
    ///
    /// # Errors
    /// `Privileges`, with the statement that grants them; `ConnectionLost`.
    pub async fn check_backup_privileges(&self, major: MajorVersion) -> Result<(), ClusterError> {
        let during = "checking the privileges for a base backup";
        let sql =
            "SELECT bool_and(pg_catalog.has_function_privilege('pg_catalog.' || f, 'EXECUTE'))
                   FROM pg_catalog.unnest($1::text[]) AS f";
        let row = self
            .query_one(during, sql, &[&&signatures(major)[..]])
            .await?;
        if get::<bool>(&row, 0, during)? {
            return Ok(());
        }
        Err(ClusterError::Privileges {
            user: self.user().to_owned(),
            action: "take a base backup",
            grants: grants(major, self.user()),
        })
    }
}

/// The functions that a base backup calls, as GRANT wants them.
fn signatures(major: MajorVersion) -> [&'static str; 2] {
    if major.has_pg_backup_start() {
        ["pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"]
    } else {
        [
            "pg_start_backup(text, boolean, boolean)",
            "pg_stop_backup(boolean, boolean)",
        ]
    }
}

/// What a role that is no superuser needs, for a backup that lacks nothing.
fn grants(major: MajorVersion, user: &str) -> String {
    let [start, stop] = signatures(major);
    let settings = grant_of_settings(user);
    let user = quoted(user);
    format!("GRANT EXECUTE ON FUNCTION {start}, {stop} TO {user}; {settings}")
}

/// The statement that lets a role see where the configuration lies and which libraries are loaded.
pub(super) fn grant_of_settings(user: &str) -> String {
    format!("GRANT pg_read_all_settings TO {};", quoted(user))
}

fn quoted(user: &str) -> String {
    format!("\"{}\"", user.replace('"', "\"\""))
}

/// 42501, insufficient privilege, becomes the statement that cures it.
fn with_grants(
    error: ClusterError,
    control: &Control,
    major: MajorVersion,
    action: &'static str,
) -> ClusterError {
    match error {
        ClusterError::Query { sqlstate, .. } if sqlstate == "42501" => ClusterError::Privileges {
            user: control.user().to_owned(),
            action,
            grants: grants(major, control.user()),
        },
        other => other,
    }
}

/// 55000, object not in prerequisite state, at the stop: promoted meanwhile, or full-page writes were off.
fn void(error: ClusterError) -> ClusterError {
    match error {
        ClusterError::Query {
            sqlstate, message, ..
        } if sqlstate == "55000" => ClusterError::BackupVoid { reason: message },
        other => other,
    }
}

fn lsn(text: &str, during: &'static str) -> Result<Lsn, ClusterError> {
    Lsn::parse(text).map_err(|error| ClusterError::UnexpectedAnswer {
        during,
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grants_are_those_of_the_version() {
        let cases = [
            (
                10,
                "GRANT EXECUTE ON FUNCTION pg_start_backup(text, boolean, boolean), \
                 pg_stop_backup(boolean, boolean) TO \"wale\"; GRANT pg_read_all_settings TO \"wale\";",
            ),
            (
                15,
                "GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), \
                 pg_backup_stop(boolean) TO \"wale\"; GRANT pg_read_all_settings TO \"wale\";",
            ),
        ];
        for (number, expected) in cases {
            let major = MajorVersion::new(number).unwrap();
            assert_eq!(grants(major, "wale"), expected);
        }
        assert!(grants(MajorVersion::NEWEST, "a\"b").contains("\"a\"\"b\""));
    }

    #[test]
    fn only_a_wrong_state_voids_the_backup() {
        let query = |sqlstate: &str| ClusterError::Query {
            during: STOPPING,
            sqlstate: sqlstate.to_owned(),
            message: "the standby was promoted during online backup".to_owned(),
        };
        assert!(matches!(
            void(query("55000")),
            ClusterError::BackupVoid { .. }
        ));
        assert!(matches!(void(query("57014")), ClusterError::Query { .. }));
    }
}
