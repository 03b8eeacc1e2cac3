//! Settings become the rooms' options. Nothing is decided here; nothing is opened but the store.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use wale_cluster::ConnectOptions;
use wale_cluster::recovery::{
    RecoveryMode, Rehearsal, RestoreClient, RestoreCommand, RestoreEndpoint, RestoreTls,
    direct_restore_command, restore_command,
};
use wale_format::{CodecSettings, Seal};
use wale_ops::backup_fetch::{
    self, BackupSelector, RestoreAs, RestoreClusterOptions, TablespaceSource, WalSource,
};
use wale_ops::backup_push;
use wale_ops::readers::Readers;
use wale_ops::wal_fetch::FetcherOptions;
use wale_ops::wal_push::PusherOptions;
use wale_ops::{Archive, ArchiveOptions, Clock, Kind, OpError};
use wale_pipeline::{Line, MemoryBudget};
use wale_service::{
    FurtherArchive as Further, HttpToken, NoticeOptions, Notifier, ServiceOptions, StartMode, Tls,
    advice,
};
use wale_storage::{FaultyStore, RetryStore, Store, UnusableStore};

use crate::bounds::{self, Bounds};
use crate::cli::WalFrom;
use crate::config::{CompressionLevel, FurtherArchive, Loaded, Settings, declared};
use crate::goal::{self, GoalItem};
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
    archive_within(settings, bounds, None)
}

/// As [`archive`], with the memory of another archive, where there is one: two that one verb uses share it.
///
/// # Errors
/// As [`archive`].
pub(crate) fn archive_within(
    settings: &Settings,
    bounds: Bounds,
    shared: Option<&MemoryBudget>,
) -> Result<Opened, OpError> {
    let (store, memory_bytes) = store(settings, bounds)?;
    let options = ArchiveOptions {
        store,
        seal: seal(settings)?,
        clock: Clock::System,
        budget: shared
            .cloned()
            .unwrap_or_else(|| MemoryBudget::new(memory_bytes)),
        created_by: format!("wale {VERSION}"),
    };
    let archive = Archive::open_changing(options, settings.encryption.accepted.clone());
    let archive = archive.behind(line(settings));
    let archive = match settings.get(&declared::WALE_COMPRESSION_LEVEL) {
        Some(CompressionLevel::Auto) => archive.adapting(),
        _ => archive,
    };
    Ok(Opened { archive })
}

/// The line to the stores. All archives of a process have one.
fn line(settings: &Settings) -> Line {
    let limit = settings.get(&declared::WALE_UPLOAD_RATE);
    let limit = limit.and_then(NonZeroU64::new);
    limit.map_or_else(Line::default, Line::limited)
}

/// Opens the store as it is used, and says how much memory is left beside it.
fn store(settings: &Settings, bounds: Bounds) -> Result<(Arc<dyn Store>, u64), OpError> {
    let (mut store, bounds) = stores::open(settings, bounds)?;
    if let Some(control) = settings.get(&declared::WALE_FAULT_CONTROL) {
        tracing::warn!(path = %control.display(), "faults are injected into the store: for tests only");
        store = Arc::new(FaultyStore::with_control_file(store, control));
    }
    let store = RetryStore::new(store, bounds.store);
    Ok((Arc::new(store), bounds.memory_bytes))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the archive's seal is made here, of the settings"
)]
fn seal(settings: &Settings) -> Result<Seal, OpError> {
    let codec = settings.get(&declared::WALE_COMPRESSION);
    let level = settings.get(&declared::WALE_COMPRESSION_LEVEL);
    let codec = match level {
        Some(CompressionLevel::Auto) => Ok(CodecSettings::adaptive()),
        Some(CompressionLevel::Fixed(level)) => CodecSettings::new(codec, Some(level)),
        None => CodecSettings::new(codec, None),
    };
    let codec = codec.map_err(|e| {
        OpError::new(Kind::Configuration, "the compression cannot be used").source(e)
    })?;
    let (write_key, key_ring) = settings.encryption.keys(Utc::now())?;
    Ok(Seal::new(codec, write_key, key_ring))
}

/// How the control connection is made.
pub(crate) fn connect(settings: &Settings) -> ConnectOptions {
    let password_file = settings.secret_file(&declared::PGPASSWORD);
    ConnectOptions {
        host: settings.get(&declared::PGHOST),
        port: settings.get(&declared::PGPORT),
        user: settings.get(&declared::PGUSER),
        // One from a file is read anew for each session.
        password: settings
            .get(&declared::PGPASSWORD)
            .filter(|_| password_file.is_none()),
        password_file: password_file.map(Path::to_path_buf),
        database: settings.get(&declared::PGDATABASE),
        sslmode: settings.get(&declared::PGSSLMODE),
        sslrootcert: settings.get(&declared::PGSSLROOTCERT),
        sslcert: settings.get(&declared::PGSSLCERT),
        sslkey: settings.get(&declared::PGSSLKEY),
        passfile: settings.get(&declared::PGPASSFILE),
        application_name: "wale".to_owned(),
        connect_timeout: match settings.get(&declared::PGCONNECT_TIMEOUT) {
            // libpq's 0 waits for ever; nothing of ours does.
            Duration::ZERO => LONGEST_CONNECT,
            limit => limit,
        },
    }
}

/// A base backup of the cluster in `directory`.
pub(crate) fn backup(settings: &Settings, directory: &Path) -> backup_push::BackupOptions {
    let mut options = backup_push::BackupOptions::new(directory.to_path_buf(), connect(settings));
    if directory == settings.get(&declared::PGDATA) {
        options.wal_directory = settings.get(&declared::PGWAL);
    }
    options.workers = settings.get(&declared::WALE_BACKUP_WORKERS);
    options.checkpoint = settings.get(&declared::WALE_BACKUP_CHECKPOINT);
    options.wal_wait_limit = settings.get(&declared::WALE_BACKUP_WAL_TIMEOUT);
    options.damaged_pages = settings.get(&declared::WALE_DAMAGED_PAGES);
    options.read_rate = settings.get(&declared::WALE_BACKUP_READ_RATE);
    options.processors = settings.get(&declared::WALE_BACKUP_CPUS);
    options.priority = settings.get(&declared::WALE_BACKUP_PRIORITY);
    options.ignore = lock_file_name(settings, directory).into_iter().collect();
    options
}

/// How long nothing may have been stored for a backup before it is taken for dead. While its end waits for WAL a
/// backup that is alive stores nothing.
pub(crate) fn sweep_grace(settings: &Settings) -> Duration {
    let waiting = settings.get(&declared::WALE_BACKUP_WAL_TIMEOUT) + Duration::from_hours(1);
    settings.get(&declared::WALE_SWEEP_GRACE).max(waiting)
}

/// A restore of the files of `selector` into `target`, of a recovery that ends where `goal` says.
///
/// # Errors
/// When the end of the recovery is said twice.
pub(crate) fn fetch(
    settings: &Settings,
    target: &Path,
    selector: BackupSelector,
    goal: &[GoalItem],
) -> Result<backup_fetch::RestoreOptions, OpError> {
    let mut options = backup_fetch::RestoreOptions::new(target.to_path_buf());
    // Another archive may stand in for the first: what is asked for stays the same.
    options.asked_of = (settings.further() > 0).then(|| stores::location(settings));
    options.selector = selector;
    options.workers = settings.get(&declared::WALE_RESTORE_WORKERS);
    options.tablespace_mapping = mappings(
        &settings
            .get(&declared::WALE_TABLESPACE_MAPPING)
            .unwrap_or_default(),
    );
    options.lock_file_name = lock_file_name(settings, target);
    options.missing_libraries = settings.get(&declared::WALE_RESTORE_LIBRARIES);
    let addition = settings.get(&declared::RECOVERY_ADDITION);
    options.recovery_addition = goal::lines(goal, &addition.unwrap_or_default())?;
    let wal_directory = settings.get(&declared::PGWAL);
    if target == settings.get(&declared::PGDATA) && !wal_directory.starts_with(target) {
        options.pg_wal_link = Some(wal_directory);
    }
    Ok(options)
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
    let lock_file = settings.get(&declared::WALE_INIT_LOCKFILE);
    if lock_file.parent() != Some(directory) {
        return None;
    }
    Some(lock_file.file_name()?.to_str()?.to_owned())
}

/// A cluster to be restored, as the settings of the sidecar or the arguments of a verb say.
pub(crate) struct ClusterRequest {
    /// The data directory to be.
    pub(crate) directory: PathBuf,
    /// Which backup.
    pub(crate) selector: BackupSelector,
    /// What the cluster becomes.
    pub(crate) restore_as: RestoreAs,
    /// Where its recovery ends.
    pub(crate) goal: Vec<GoalItem>,
    /// Where it gets its WAL.
    pub(crate) wal_from: WalFrom,
    /// The command by which it gets it, where that is not ours to write.
    pub(crate) restore_command: Option<String>,
    /// It is a copy beside production.
    pub(crate) rehearsal: Option<Rehearsal>,
}

impl ClusterRequest {
    /// What the settings say: the sidecar's RESTORE.
    pub(crate) fn of_settings(settings: &Settings) -> Self {
        Self {
            directory: settings.get(&declared::PGDATA),
            selector: settings.get(&declared::WALE_RESTORE_LABEL),
            restore_as: settings.get(&declared::WALE_RESTORE_AS),
            goal: goal::of_settings(settings),
            wal_from: WalFrom::Sidecar,
            restore_command: settings.get(&declared::WALE_RESTORE_COMMAND),
            rehearsal: None,
        }
    }
}

/// A restore of a cluster.
///
/// # Errors
/// When settings do not fit together.
pub(crate) fn restore_cluster(
    settings: &Settings,
    request: ClusterRequest,
) -> Result<RestoreClusterOptions, OpError> {
    let (restore_as, directory) = (request.restore_as, request.directory);
    let given = request.restore_command;
    let mut archive_settings = None;
    let command = match (&given, request.wal_from) {
        (Some(command), _) => RestoreCommand {
            // A YAML block ends with a line break; one within is refused.
            text: command.trim_end().to_owned(),
            authorization: None,
        },
        (None, WalFrom::Sidecar) => generated_restore_command(settings, restore_as)?,
        (None, WalFrom::Archive) => {
            archive_settings = Some(settings.archive_file()?);
            direct_command(&directory)?
        }
    };
    let client_note = match request.wal_from {
        WalFrom::Sidecar => client_note(settings, command.authorization.is_some()),
        WalFrom::Archive => None,
    };
    let fetch = fetch(settings, &directory, request.selector, &request.goal)?;
    // Backups and restores name this host alike.
    let host_name = backup(settings, &directory).host_name;
    Ok(RestoreClusterOptions {
        fetch,
        restore_command: command.text,
        wal_source: match given {
            Some(_) => WalSource::Elsewhere,
            None => WalSource::Archive,
        },
        client_note,
        authorization: command.authorization,
        restore_as,
        configuration_directory: settings.get(&declared::PGCONF_BACKUP_DIR),
        host_name,
        archive_settings,
        rehearsal: request.rehearsal,
    })
}

/// The command with which the server fetches by this program, without a sidecar.
fn direct_command(data_directory: &Path) -> Result<RestoreCommand, OpError> {
    let program = std::env::current_exe()
        .map_err(|error| OpError::from_io(error, "find the program's own path"))?;
    let text = direct_restore_command(&program, data_directory)
        .map_err(|error| OpError::from_cluster(error, "compose restore_command"))?;
    Ok(RestoreCommand {
        text,
        authorization: None,
    })
}

/// Which program the database's image needs for the `restore_command`. A server without it stops in its recovery.
fn client_note(settings: &Settings, hides_a_token: bool) -> Option<String> {
    if settings.get(&declared::WALE_RESTORE_COMMAND).is_some() {
        return None;
    }
    let client = settings.get(&declared::WALE_RESTORE_CLIENT);
    Some(match client {
        RestoreClient::Wget if hides_a_token || settings.tls_files().is_some() => {
            "restore_command wants GNU Wget in the database's image; where that has BusyBox's (Alpine), set \
             WALE_RESTORE_CLIENT=busybox, with TLS wale or curl, and restore into an empty directory again"
                .to_owned()
        }
        RestoreClient::Wget => "restore_command wants wget in the database's image, GNU's or BusyBox's".to_owned(),
        RestoreClient::Busybox => "restore_command wants BusyBox's wget in the database's image".to_owned(),
        RestoreClient::Curl | RestoreClient::Wale => {
            let name = client.name();
            format!("restore_command wants {name} in the database's image")
        }
    })
}

fn generated_restore_command(
    settings: &Settings,
    restore_as: RestoreAs,
) -> Result<RestoreCommand, OpError> {
    let client = settings.get(&declared::WALE_RESTORE_CLIENT);
    let endpoint = RestoreEndpoint {
        host: settings.get(&declared::WALE_SIDECAR_HOSTNAME),
        port: settings.get(&declared::WALE_LISTEN_PORT),
        token: settings.get(&declared::WALE_HTTP_TOKEN),
        tls: settings.tls_files().is_some().then(|| RestoreTls {
            ca_file: settings.get(&declared::WALE_CLIENT_CA_FILE),
        }),
    };
    let mode = match restore_as {
        RestoreAs::Primary => RecoveryMode::Recover,
        RestoreAs::Standby => RecoveryMode::Standby,
    };
    restore_command(client, &endpoint, mode)
        .map_err(|e| OpError::from_cluster(e, "compose restore_command"))
}

/// The archives after the first, each with memory of its own. They are sealed as the first is. One whose settings cannot be
/// used is there and answers nothing: it lags behind and is told like one that is away, and stops nothing of the first's.
pub(crate) fn further(first: &Archive, archives: &[FurtherArchive]) -> Vec<Further> {
    let open = |one: &FurtherArchive| {
        let settings = &one.settings;
        let bounds = Bounds::of_further(settings, archives.len());
        let memory = bounds.memory_bytes;
        let opened = if one.is_sound() {
            store(settings, bounds)
        } else {
            Err(one.mistake())
        };
        let (store, memory_bytes) =
            opened.unwrap_or_else(|error| (unusable(one.number, &error), memory));
        Further {
            number: one.number,
            archive: first.over(store, MemoryBudget::new(memory_bytes)),
            housekeeping: housekeeping(settings),
        }
    };
    archives.iter().map(open).collect()
}

/// What stands for an archive whose settings cannot be used.
fn unusable(number: u8, error: &OpError) -> Arc<dyn Store> {
    tracing::error!(
        archive = number,
        detail = error.detail.as_deref(),
        hint = advice(error),
        "archive {number} gets nothing until its settings are corrected and the sidecar is started again: {}",
        error.chain()
    );
    let reason = match &error.detail {
        None => error.chain(),
        Some(detail) => format!("{}: {}", error.chain(), detail.replace('\n', "; ")),
    };
    let location = format!("archive {number}");
    Arc::new(UnusableStore::new(location, reason))
}

/// All archives to be read, in the memory of the first. Where there are several, none of them is waited for long. One whose
/// settings cannot be used is left out: a mistake in them stops nothing that the others can do.
///
/// # Errors
/// As [`archive`].
pub(crate) fn readers(loaded: &Loaded, first: &Archive) -> Result<Readers, OpError> {
    if loaded.further.is_empty() {
        return Ok(Readers::of_one(first.clone()));
    }
    let open = |settings: &Settings| {
        let (store, _) = store(settings, Bounds::of_reader(settings))?;
        Ok::<_, OpError>(first.over(store, first.budget().clone()))
    };
    let mut others = Vec::with_capacity(loaded.further.len());
    for one in &loaded.further {
        let opened = if one.is_sound() {
            open(&one.settings)
        } else {
            Err(one.mistake())
        };
        match opened {
            Ok(archive) => others.push((one.number, archive)),
            Err(error) => tracing::warn!(
                archive = one.number,
                detail = error.detail.as_deref(),
                hint = advice(&error),
                "archive {} is not read: {}",
                one.number,
                error.chain()
            ),
        }
    }
    if others.is_empty() {
        return Ok(Readers::of_one(first.clone()));
    }
    Ok(Readers::new(open(&loaded.settings)?, others))
}

/// Whom the sidecar tells of what.
fn notices(settings: &Settings) -> NoticeOptions {
    let proxy = |secret: Option<wale_storage::Secret>| {
        secret.map(|secret| wale_cluster::Secret::new(secret.expose()))
    };
    NoticeOptions {
        ping: settings.get(&declared::WALE_PING_URL),
        webhook: settings.get(&declared::WALE_WEBHOOK_URL),
        webhook_key: settings.get(&declared::WALE_WEBHOOK_KEY),
        http_proxy: proxy(settings.get(&declared::HTTP_PROXY)),
        https_proxy: proxy(settings.get(&declared::HTTPS_PROXY)),
        no_proxy: settings.get(&declared::NO_PROXY),
    }
}

/// What is kept in an archive.
fn housekeeping(settings: &Settings) -> wale_service::Housekeeping {
    wale_service::Housekeeping {
        policy: settings.retention(),
        grace: sweep_grace(settings),
        request_interval: settings.get(&declared::WALE_RETAIN_REQUEST_INTERVAL),
    }
}

/// What it does first.
fn start_mode(settings: &Settings) -> Result<StartMode, OpError> {
    use declared::StartMode as Start;
    match settings.get(&declared::START_MODE) {
        Start::ContinousBackup | Start::ContinuousBackup => Ok(StartMode::ContinuousBackup),
        Start::BackupPush => Ok(StartMode::BackupPush),
        Start::Restore => {
            let request = ClusterRequest::of_settings(settings);
            Ok(StartMode::Restore(restore_cluster(settings, request)?))
        }
    }
}

/// The sidecar.
///
/// # Errors
/// When settings do not fit together.
pub(crate) fn service(
    settings: &Settings,
    archive: Archive,
    readers: Readers,
    further: Vec<Further>,
) -> Result<ServiceOptions, OpError> {
    let token_file = settings.secret_file(&declared::WALE_HTTP_TOKEN);
    let token = match settings.get(&declared::WALE_HTTP_TOKEN) {
        None => None,
        Some(token) => Some(
            HttpToken::new(token.expose().to_owned())
                .map(|token| token.kept_in(token_file.map(Path::to_path_buf)))
                .map_err(|problem| OpError::new(Kind::Configuration, problem))?,
        ),
    };
    let tls = match settings.tls_files() {
        Some((certificate, key)) => Some(Tls::load(certificate, key)?),
        None => None,
    };
    let pusher = PusherOptions {
        look_ahead: stores::look_ahead(
            settings,
            &Bounds::of_sidecar(settings),
            settings.get(&declared::WALE_PUSH_LOOK_AHEAD),
        ),
        data_directory: Some(settings.get(&declared::PGDATA)),
        ..PusherOptions::default()
    };
    let fetcher = FetcherOptions {
        prefetch: settings.get(&declared::WALE_FETCH_PREFETCH),
        prefetch_bytes: bounds::prefetch_memory(settings),
        deadline: settings.get(&declared::WALE_FETCH_DEADLINE),
        ..FetcherOptions::default()
    };
    Ok(ServiceOptions {
        housekeeping: housekeeping(settings),
        readers,
        further,
        max_archive_lag: settings.get(&declared::WALE_MAX_ARCHIVE_LAG),
        retain_wait: settings.get(&declared::WALE_RETAIN_WAIT),
        backup_request_interval: settings.get(&declared::WALE_BACKUP_REQUEST_INTERVAL),
        listen: SocketAddr::new(
            settings.get(&declared::WALE_LISTEN_ADDRESS),
            settings.get(&declared::WALE_LISTEN_PORT),
        ),
        mode: start_mode(settings)?,
        lock_file: settings.get(&declared::WALE_INIT_LOCKFILE),
        notifier: Notifier::new(settings.get(&declared::NOTIFY_SOCKET)),
        notices: notices(settings),
        schedule: settings.schedule(),
        verification: settings.verification(),
        backup_role: settings.get(&declared::WALE_BACKUP_ROLE),
        grace: settings.get(&declared::WALE_SHUTDOWN_GRACE),
        token,
        token_for: settings.get(&declared::WALE_HTTP_TOKEN_FOR),
        hosts: std::iter::once(settings.get(&declared::WALE_SIDECAR_HOSTNAME))
            .chain(settings.get(&declared::WALE_HTTP_HOSTS).unwrap_or_default())
            .collect(),
        tls,
        archive,
        pusher,
        fetcher,
        backup: backup(settings, &settings.get(&declared::PGDATA)),
        wal_directory: settings.get(&declared::PGWAL),
        data_directory: settings.get(&declared::PGDATA),
        limits: bounds::limits(settings),
        version: VERSION,
    })
}
