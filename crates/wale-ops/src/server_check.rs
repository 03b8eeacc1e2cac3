//! What a server says of itself as far as archiving and base backups depend on it. Asks, and changes nothing.

use std::collections::BTreeMap;

use wale_cluster::{ArchiverStats, ConnectOptions, Control};
use wale_pg::ClusterIdentity;

use crate::error::{OpError, Result};

/// What was found.
#[derive(Debug)]
pub struct ServerCheck {
    /// Its version, as PostgreSQL writes it.
    pub version: String,
    /// Whose server it is.
    pub cluster: ClusterIdentity,
    /// Whether it recovers: a standby.
    pub in_recovery: bool,
    /// The role of the session.
    pub role: String,
    /// Why that role cannot take a base backup.
    pub no_backup: Option<OpError>,
    /// The settings that matter, as far as the role may see them.
    pub settings: BTreeMap<String, String>,
    /// What its archiver has done.
    pub archiver: ArchiverStats,
}

/// The settings that are looked at.
const SETTINGS: [&str; 10] = [
    "server_version",
    "archive_mode",
    "archive_command",
    "archive_library",
    "archive_timeout",
    "full_page_writes",
    "data_directory",
    "config_file",
    "hba_file",
    "ident_file",
];

/// Asks the server.
///
/// # Errors
///
/// [`Kind::PostgresUnavailable`](crate::Kind::PostgresUnavailable) and the others of a connection.
pub async fn run(connect: &ConnectOptions) -> Result<ServerCheck> {
    let failed = |error| OpError::from_cluster(error, "ask the server about itself");
    let control = Control::connect(connect).await.map_err(failed)?;
    let facts = control.facts().await.map_err(failed)?;
    let privileges = control.check_backup_privileges(facts.major).await;
    let no_backup = privileges
        .err()
        .map(|error| OpError::from_cluster(error, "take a base backup"));
    let mut settings = control.settings(&SETTINGS).await.map_err(failed)?;
    let archiver = control.archiver().await.map_err(failed)?;
    let role = control.user().to_owned();
    control.close().await;
    Ok(ServerCheck {
        version: settings.remove("server_version").unwrap_or_default(),
        cluster: facts.identity(),
        in_recovery: facts.in_recovery,
        role,
        no_backup,
        settings,
        archiver,
    })
}
