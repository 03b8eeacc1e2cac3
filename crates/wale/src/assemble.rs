//! Settings become the rooms' options. Nothing is decided here; nothing is opened but the store.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wale_cluster::recovery::{
    RecoveryMode, RestoreClient, RestoreCommand, RestoreEndpoint, RestoreTls, restore_command,
};
use wale_cluster::{Checkpoint, ConnectOptions, SslMode};
use wale_format::{Codec, CodecSettings};
use wale_ops::backup_fetch::{
    self, BackupSelector, MissingLibraries, RestoreAs, RestoreClusterOptions, TablespaceSource,
    WalSource,
};
use wale_ops::backup_push::{self, DamagedPagePolicy};
use wale_ops::wal_fetch::FetcherOptions;
use wale_ops::wal_push::PusherOptions;
use wale_ops::{Archive, ArchiveOptions, Clock, Kind, OpError};
use wale_pipeline::MemoryBudget;
use wale_service::{HttpLimits, HttpToken, ServiceOptions, StartMode, Tls};
use wale_storage::{FaultyStore, RetryStore, Store};

use crate::bounds::{self, Bounds};
use crate::config::{self, Settings};
use crate::stores;

/// This program's version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What stands for libpq's unlimited `connect_timeout`.
const LONGEST_CONNECT: Duration = Duration::from_mins(10);

/// What was opened.
pub(crate) struct Opened {
    /// The archive.
    pub(crate) archive: Archive,
}

/// Opens the archive. The store is not asked yet.
///
/// # Errors
/// When the place cannot be a store.
pub(crate) fn archive(settings: &Settings, bounds: Bounds) -> Result<Opened, OpError> {
    let (mut store, bounds) = stores::open(settings, bounds)?;
    if let Some(control) = &settings.fault_control {
        tracing::warn!(path = %control.display(), "faults are injected into the store: for tests only");
        store = Arc::new(FaultyStore::with_control_file(store, control.clone()));
    }
    let store: Arc<dyn Store> = Arc::new(RetryStore::new(store, bounds.store));
    let archive = Archive::open(ArchiveOptions {
        store,
        codec: codec(settings)?,
        clock: Clock::System,
        budget: MemoryBudget::new(bounds.memory_bytes),
        created_by: format!("wale {VERSION}"),
    });
    Ok(Opened { archive })
}

fn codec(settings: &Settings) -> Result<CodecSettings, OpError> {
    let codec = match settings.compression {
        "lz4" => Codec::Lz4,
        "lzo" => Codec::Lzo,
        "none" => Codec::None,
        _ => Codec::Zstd,
    };
    CodecSettings::new(codec, settings.compression_level)
        .map_err(|e| OpError::new(Kind::Configuration, "the compression cannot be used").source(e))
}

/// How the control connection is made.
pub(crate) fn connect(settings: &Settings) -> ConnectOptions {
    ConnectOptions {
        host: settings.host.clone(),
        port: settings.port,
        user: settings.user.clone(),
        password: settings.password.clone(),
        password_file: settings.password_file.clone(),
        database: settings.database.clone(),
        sslmode: settings
            .sslmode
            .parse::<SslMode>()
            .expect("the declared words are libpq's"),
        sslrootcert: settings.sslrootcert.clone(),
        sslcert: settings.sslcert.clone(),
        sslkey: settings.sslkey.clone(),
        passfile: settings.passfile.clone(),
        application_name: "wale".to_owned(),
        connect_timeout: match settings.connect_timeout {
            // libpq's 0 waits for ever; nothing of ours does.
            Duration::ZERO => LONGEST_CONNECT,
            limit => limit,
        },
    }
}

/// A base backup of the cluster in `directory`.
pub(crate) fn backup(settings: &Settings, directory: &Path) -> backup_push::Options {
    let mut options = backup_push::Options::new(directory.to_path_buf(), connect(settings));
    if directory == settings.data_directory {
        options.wal_directory.clone_from(&settings.wal_directory);
    }
    options.workers = settings.backup_workers;
    options.checkpoint = match settings.backup_checkpoint {
        "spread" => Checkpoint::Spread,
        _ => Checkpoint::Fast,
    };
    options.wal_wait_limit = settings.backup_wal_timeout;
    options.damaged_pages = match settings.damaged_pages {
        "fail" => DamagedPagePolicy::Fail,
        _ => DamagedPagePolicy::Record,
    };
    options.read_rate_limit = settings.backup_read_rate;
    options.ignore = lock_file_name(settings, directory).into_iter().collect();
    options
}

/// How long nothing may have been stored for a backup before it is taken for dead. While its end waits for WAL a
/// backup that is alive stores nothing.
pub(crate) fn sweep_grace(settings: &Settings) -> Duration {
    let waiting = settings.backup_wal_timeout + Duration::from_hours(1);
    settings.sweep_grace.max(waiting)
}

/// A restore of the files of `selector` into `target`.
pub(crate) fn fetch(
    settings: &Settings,
    target: &Path,
    selector: BackupSelector,
) -> backup_fetch::Options {
    let mut options = backup_fetch::Options::new(target.to_path_buf());
    options.selector = selector;
    options.workers = settings.restore_workers;
    options.tablespace_mapping = mappings(&settings.tablespace_mapping);
    options.lock_file_name = lock_file_name(settings, target);
    if settings.restore_libraries == "warn" {
        options.missing_libraries = MissingLibraries::Warn;
    }
    options
        .recovery_addition
        .clone_from(&settings.recovery_addition);
    if target == settings.data_directory && !settings.wal_directory.starts_with(target) {
        options.pg_wal_link = Some(settings.wal_directory.clone());
    }
    options
}

/// Mappings as the restore takes them.
pub(crate) fn mappings(pairs: &[(String, PathBuf)]) -> Vec<(TablespaceSource, PathBuf)> {
    let source = |old: &str| match old.parse() {
        Ok(oid) => TablespaceSource::Oid(oid),
        Err(_) => TablespaceSource::Location(PathBuf::from(old)),
    };
    pairs
        .iter()
        .map(|(old, new)| (source(old), new.clone()))
        .collect()
}

/// The lock file's name, if it lies in that directory.
fn lock_file_name(settings: &Settings, directory: &Path) -> Option<String> {
    if settings.lock_file.parent() != Some(directory) {
        return None;
    }
    Some(settings.lock_file.file_name()?.to_str()?.to_owned())
}

fn restore_cluster(settings: &Settings) -> Result<RestoreClusterOptions, OpError> {
    let selector: BackupSelector = settings
        .restore_label
        .parse()
        .map_err(|problem: String| OpError::new(Kind::Configuration, problem))?;
    let restore_as = match settings.restore_as {
        "standby" => RestoreAs::Standby,
        _ => RestoreAs::Primary,
    };
    let command = match &settings.restore_command {
        Some(command) => RestoreCommand {
            // A YAML block ends with a line break; one within is refused.
            text: command.trim_end().to_owned(),
            authorization: None,
        },
        None => generated_restore_command(settings, restore_as)?,
    };
    let fetch = fetch(settings, &settings.data_directory, selector);
    // Backups and restores name this host alike.
    let host_name = backup(settings, &settings.data_directory).host_name;
    Ok(RestoreClusterOptions {
        fetch,
        restore_command: command.text,
        wal_source: match settings.restore_command {
            Some(_) => WalSource::Elsewhere,
            None => WalSource::Archive,
        },
        client_note: client_note(settings, command.authorization.is_some()),
        authorization: command.authorization,
        restore_as,
        configuration_directory: settings.configuration_directory.clone(),
        host_name,
    })
}

/// Which program the database's image needs for the `restore_command`. A server without it stops in its recovery.
fn client_note(settings: &Settings, hides_a_token: bool) -> Option<String> {
    if settings.restore_command.is_some() {
        return None;
    }
    let client = settings.restore_client;
    Some(match client {
        "wget" if hides_a_token || settings.tls_files.is_some() => {
            "restore_command wants GNU Wget in the database's image; where that has BusyBox's (Alpine), set \
             WALE_RESTORE_CLIENT=busybox, with TLS wale or curl, and restore into an empty directory again"
                .to_owned()
        }
        "wget" => "restore_command wants wget in the database's image, GNU's or BusyBox's".to_owned(),
        "busybox" => "restore_command wants BusyBox's wget in the database's image".to_owned(),
        _ => format!("restore_command wants {client} in the database's image"),
    })
}

fn generated_restore_command(
    settings: &Settings,
    restore_as: RestoreAs,
) -> Result<RestoreCommand, OpError> {
    let client = match settings.restore_client {
        "curl" => RestoreClient::Curl,
        "busybox" => RestoreClient::Busybox,
        "wale" => RestoreClient::Wale,
        _ => RestoreClient::Wget,
    };
    let endpoint = RestoreEndpoint {
        host: settings.sidecar_hostname.clone(),
        port: settings.listen_port,
        token: settings.http_token.clone(),
        tls: settings.tls_files.is_some().then(|| RestoreTls {
            ca_file: settings.client_ca_file.clone(),
        }),
    };
    let mode = match restore_as {
        RestoreAs::Primary => RecoveryMode::Recover,
        RestoreAs::Standby => RecoveryMode::Standby,
    };
    restore_command(client, &endpoint, mode)
        .map_err(|e| OpError::from_cluster(e, "compose restore_command"))
}

/// The sidecar.
///
/// # Errors
/// When settings do not fit together.
pub(crate) fn service(settings: &Settings, archive: Archive) -> Result<ServiceOptions, OpError> {
    let mode = match settings.start_mode {
        config::StartMode::ContinuousBackup => StartMode::ContinuousBackup,
        config::StartMode::BackupPush => StartMode::BackupPush,
        config::StartMode::Restore => StartMode::Restore(restore_cluster(settings)?),
    };
    let token = match &settings.http_token {
        None => None,
        Some(token) => Some(
            HttpToken::new(token.expose().to_owned())
                .map(|token| token.kept_in(settings.http_token_file.clone()))
                .map_err(|problem| OpError::new(Kind::Configuration, problem))?,
        ),
    };
    let tls = match &settings.tls_files {
        Some((certificate, key)) => Some(Tls::load(certificate.clone(), key.clone())?),
        None => None,
    };
    let pusher = PusherOptions {
        look_ahead: stores::look_ahead(
            settings,
            &Bounds::of_sidecar(settings),
            settings.push_look_ahead,
        ),
        data_directory: Some(settings.data_directory.clone()),
        ..PusherOptions::default()
    };
    let fetcher = FetcherOptions {
        prefetch: settings.fetch_prefetch,
        prefetch_bytes: bounds::prefetch_memory(settings),
        deadline: settings.fetch_deadline,
        ..FetcherOptions::default()
    };
    Ok(ServiceOptions {
        housekeeping: wale_service::Housekeeping {
            policy: settings.retention.clone(),
            grace: sweep_grace(settings),
            request_interval: settings.retain_request_interval,
        },
        backup_request_interval: settings.backup_request_interval,
        listen: SocketAddr::new(settings.listen_address, settings.listen_port),
        mode,
        lock_file: settings.lock_file.clone(),
        schedule: settings.schedule.clone(),
        backup_role: settings.backup_role,
        grace: settings.shutdown_grace,
        token,
        token_for: settings.http_token_for,
        hosts: [
            std::slice::from_ref(&settings.sidecar_hostname),
            &settings.http_hosts,
        ]
        .concat(),
        tls,
        archive,
        pusher,
        fetcher,
        backup: backup(settings, &settings.data_directory),
        wal_directory: settings.wal_directory.clone(),
        data_directory: settings.data_directory.clone(),
        limits: HttpLimits::default(),
        version: VERSION,
    })
}
