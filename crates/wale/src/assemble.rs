//! Settings become the rooms' options. Nothing is decided here; nothing is opened but the store.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wale_cluster::ConnectOptions;
use wale_cluster::recovery::{
    RecoveryMode, RestoreClient, RestoreCommand, RestoreEndpoint, RestoreTls, restore_command,
};
use wale_format::CodecSettings;
use wale_ops::backup_fetch::{
    self, BackupSelector, RestoreAs, RestoreClusterOptions, TablespaceSource, WalSource,
};
use wale_ops::backup_push;
use wale_ops::wal_fetch::FetcherOptions;
use wale_ops::wal_push::PusherOptions;
use wale_ops::{Archive, ArchiveOptions, Clock, Kind, OpError};
use wale_pipeline::MemoryBudget;
use wale_service::{HttpLimits, HttpToken, ServiceOptions, StartMode, Tls};
use wale_storage::{
    FaultyStore, FileStore, FileStoreOptions, RetryPolicy, RetryStore, S3Options, S3Store,
    S3Timeouts, Store,
};

use crate::config::{Place, Settings, declared};

/// This program's version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What prefetched segments may take of the memory budget: a quarter, so that base backups and
/// pushes keep the rest.
const PREFETCH_SHARE: u64 = 4;

/// What parts of uploads to S3 may take of the memory budget: a quarter, 64 MiB of the default, which are eight
/// parts of 8 MiB.
const UPLOAD_SHARE: u64 = 4;

/// The least that uploads to S3 need: two parts of 5 MiB, one of which is sent while the other is gathered.
const LEAST_UPLOAD_BYTES: u64 = 10 << 20;

/// What stands for libpq's unlimited `connect_timeout`.
const LONGEST_CONNECT: Duration = Duration::from_mins(10);

/// What was opened.
pub(crate) struct Opened {
    /// The archive.
    pub(crate) archive: Archive,
}

/// Bounds within which a verb uses the archive.
pub(crate) struct Bounds {
    memory_bytes: u64,
    store: RetryPolicy,
}

impl Bounds {
    /// Those of a verb that has the whole memory to itself.
    pub(crate) fn of_verb(settings: &Settings) -> Self {
        Self {
            memory_bytes: settings.get(&declared::WALE_MEMORY),
            store: RetryPolicy::default(),
        }
    }

    /// Those of a single fetch, which must answer by its deadline.
    pub(crate) fn of_fetch(settings: &Settings) -> Self {
        let store = RetryPolicy::default();
        let deadline = store
            .deadline
            .min(settings.get(&declared::WALE_FETCH_DEADLINE));
        Self {
            memory_bytes: settings.get(&declared::WALE_MEMORY),
            store: RetryPolicy { deadline, ..store },
        }
    }

    /// Those of the sidecar: prefetched segments have memory of their own, out of the same budget.
    pub(crate) fn of_sidecar(settings: &Settings) -> Self {
        let memory_bytes = settings.get(&declared::WALE_MEMORY) - prefetch_memory(settings);
        Self {
            memory_bytes,
            ..Self::of_fetch(settings)
        }
    }
}

/// Opens the archive. The store is not asked yet.
///
/// # Errors
/// When the place cannot be a store.
pub(crate) fn archive(settings: &Settings, bounds: Bounds) -> Result<Opened, OpError> {
    let (mut store, bounds) = store(settings, bounds)?;
    if let Some(control) = settings.get(&declared::WALE_FAULT_CONTROL) {
        tracing::warn!(path = %control.display(), "faults are injected into the store: for tests only");
        store = Arc::new(FaultyStore::with_control_file(store, control));
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

/// Where the archive is, as its store would print it, without the cost of a store.
pub(crate) fn location(settings: &Settings) -> String {
    match &settings.place {
        Some(Place::Directory(root)) => format!("file://{}", root.display()),
        Some(Place::Bucket { bucket, prefix }) => format!("s3://{bucket}/{prefix}")
            .trim_end_matches('/')
            .to_owned(),
        None => String::new(),
    }
}

/// The store itself, and what is left of the bounds.
fn store(settings: &Settings, bounds: Bounds) -> Result<(Arc<dyn Store>, Bounds), OpError> {
    match (&settings.place, &settings.s3) {
        (Some(Place::Directory(root)), _) => {
            let options = FileStoreOptions {
                root: root.clone(),
                create: false,
            };
            let failed =
                |e| OpError::from_store(e, format_args!("open the archive at {}", root.display()));
            Ok((Arc::new(FileStore::open(options).map_err(failed)?), bounds))
        }
        (Some(Place::Bucket { bucket, prefix }), Some(s3)) => {
            let upload_memory_bytes = upload_memory(&bounds);
            let options = S3Options {
                bucket: bucket.clone(),
                prefix: prefix.clone(),
                endpoint: s3.endpoint.clone(),
                region: s3.region.clone(),
                credentials: s3.credentials.clone(),
                storage_class: s3.storage_class.clone(),
                encryption: s3.encryption.clone(),
                checksum: s3.checksum,
                ca_file: s3.ca_file.clone(),
                proxies: s3.proxies.clone(),
                timeouts: S3Timeouts::default(),
                retry: bounds.store.clone(),
                upload_memory_bytes,
            };
            let failed = |e| OpError::from_store(e, format_args!("set up the archive in S3"));
            let store = S3Store::open(&options).map_err(failed)?;
            let bounds = Bounds {
                memory_bytes: bounds.memory_bytes.saturating_sub(upload_memory_bytes),
                store: RetryPolicy {
                    stall_timeout: S3_SILENCE,
                    put_stall_timeout: S3_PUT_SILENCE,
                    ..bounds.store
                },
            };
            Ok((Arc::new(store), bounds))
        }
        _ => Err(OpError::new(
            Kind::Configuration,
            "no place for the archive is set",
        )),
    }
}

/// What parts of uploads to S3 may take, bytes.
fn upload_memory(bounds: &Bounds) -> u64 {
    (bounds.memory_bytes / UPLOAD_SHARE).max(LEAST_UPLOAD_BYTES)
}

/// How many WAL files may be pushed ahead, of those that are wanted. Each waits for those before it, and in S3 it holds
/// a part's memory meanwhile: so many that they take it all would keep the file waiting for which they wait.
pub(crate) fn look_ahead(settings: &Settings, bounds: &Bounds, wanted: usize) -> usize {
    match settings.place {
        Some(Place::Bucket { .. }) => {
            let most = S3Options::uploads_that_may_wait(upload_memory(bounds));
            wanted.min(most)
        }
        _ => wanted,
    }
}

/// Longest silence of a store in S3 as seen from outside. The store limits its own silence, request by request and by
/// the length of what it sends, and reads a broken body on; so this ends only what would be a fault of ours.
const S3_SILENCE: Duration = Duration::from_mins(2);

/// The same for a put, which may send parts for as long as a slow link takes.
const S3_PUT_SILENCE: Duration = Duration::from_mins(30);

fn codec(settings: &Settings) -> Result<CodecSettings, OpError> {
    let codec = settings.get(&declared::WALE_COMPRESSION);
    CodecSettings::new(codec, settings.get(&declared::WALE_COMPRESSION_LEVEL))
        .map_err(|e| OpError::new(Kind::Configuration, "the compression cannot be used").source(e))
}

/// What prefetched segments may take of the sidecar's budget, bytes.
fn prefetch_memory(settings: &Settings) -> u64 {
    if settings.get(&declared::WALE_FETCH_PREFETCH) == 0 {
        0
    } else {
        settings.get(&declared::WALE_MEMORY) / PREFETCH_SHARE
    }
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
pub(crate) fn backup(settings: &Settings, directory: &Path) -> backup_push::Options {
    let mut options = backup_push::Options::new(directory.to_path_buf(), connect(settings));
    if directory == settings.get(&declared::PGDATA) {
        options.wal_directory = settings.get(&declared::PGWAL);
    }
    options.workers = settings.get(&declared::WALE_BACKUP_WORKERS);
    options.checkpoint = settings.get(&declared::WALE_BACKUP_CHECKPOINT);
    options.wal_wait_limit = settings.get(&declared::WALE_BACKUP_WAL_TIMEOUT);
    options.damaged_pages = settings.get(&declared::WALE_DAMAGED_PAGES);
    options.read_rate = settings.get(&declared::WALE_BACKUP_READ_RATE);
    options.ignore = lock_file_name(settings, directory).into_iter().collect();
    options
}

/// How long nothing may have been stored for a backup before it is taken for dead. While its end waits for WAL a
/// backup that is alive stores nothing.
pub(crate) fn sweep_grace(settings: &Settings) -> Duration {
    let waiting = settings.get(&declared::WALE_BACKUP_WAL_TIMEOUT) + Duration::from_hours(1);
    settings.get(&declared::WALE_SWEEP_GRACE).max(waiting)
}

/// A restore of the files of `selector` into `target`.
pub(crate) fn fetch(
    settings: &Settings,
    target: &Path,
    selector: BackupSelector,
) -> backup_fetch::Options {
    let mut options = backup_fetch::Options::new(target.to_path_buf());
    options.selector = selector;
    options.workers = settings.get(&declared::WALE_RESTORE_WORKERS);
    options.tablespace_mapping = mappings(
        &settings
            .get(&declared::WALE_TABLESPACE_MAPPING)
            .unwrap_or_default(),
    );
    options.lock_file_name = lock_file_name(settings, target);
    options.missing_libraries = settings.get(&declared::WALE_RESTORE_LIBRARIES);
    options.recovery_addition = settings
        .get(&declared::RECOVERY_ADDITION)
        .unwrap_or_default();
    let wal_directory = settings.get(&declared::PGWAL);
    if target == settings.get(&declared::PGDATA) && !wal_directory.starts_with(target) {
        options.pg_wal_link = Some(wal_directory);
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
    let lock_file = settings.get(&declared::WALE_INIT_LOCKFILE);
    if lock_file.parent() != Some(directory) {
        return None;
    }
    Some(lock_file.file_name()?.to_str()?.to_owned())
}

fn restore_cluster(settings: &Settings) -> Result<RestoreClusterOptions, OpError> {
    let selector = settings.get(&declared::WALE_RESTORE_LABEL);
    let restore_as = settings.get(&declared::WALE_RESTORE_AS);
    let given = settings.get(&declared::WALE_RESTORE_COMMAND);
    let command = match &given {
        Some(command) => RestoreCommand {
            // A YAML block ends with a line break; one within is refused.
            text: command.trim_end().to_owned(),
            authorization: None,
        },
        None => generated_restore_command(settings, restore_as)?,
    };
    let data_directory = settings.get(&declared::PGDATA);
    let fetch = fetch(settings, &data_directory, selector);
    // Backups and restores name this host alike.
    let host_name = backup(settings, &data_directory).host_name;
    Ok(RestoreClusterOptions {
        fetch,
        restore_command: command.text,
        wal_source: match given {
            Some(_) => WalSource::Elsewhere,
            None => WalSource::Archive,
        },
        client_note: client_note(settings, command.authorization.is_some()),
        authorization: command.authorization,
        restore_as,
        configuration_directory: settings.get(&declared::PGCONF_BACKUP_DIR),
        host_name,
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

/// The sidecar.
///
/// # Errors
/// When settings do not fit together.
pub(crate) fn service(settings: &Settings, archive: Archive) -> Result<ServiceOptions, OpError> {
    use declared::StartMode as Start;
    let mode = match settings.get(&declared::START_MODE) {
        Start::ContinousBackup | Start::ContinuousBackup => StartMode::ContinuousBackup,
        Start::BackupPush => StartMode::BackupPush,
        Start::Restore => StartMode::Restore(restore_cluster(settings)?),
    };
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
        look_ahead: look_ahead(
            settings,
            &Bounds::of_sidecar(settings),
            settings.get(&declared::WALE_PUSH_LOOK_AHEAD),
        ),
        data_directory: Some(settings.get(&declared::PGDATA)),
        ..PusherOptions::default()
    };
    let fetcher = FetcherOptions {
        prefetch: settings.get(&declared::WALE_FETCH_PREFETCH),
        prefetch_bytes: prefetch_memory(settings),
        deadline: settings.get(&declared::WALE_FETCH_DEADLINE),
        ..FetcherOptions::default()
    };
    Ok(ServiceOptions {
        housekeeping: wale_service::Housekeeping {
            policy: settings.retention(),
            grace: sweep_grace(settings),
            request_interval: settings.get(&declared::WALE_RETAIN_REQUEST_INTERVAL),
        },
        backup_request_interval: settings.get(&declared::WALE_BACKUP_REQUEST_INTERVAL),
        listen: SocketAddr::new(
            settings.get(&declared::WALE_LISTEN_ADDRESS),
            settings.get(&declared::WALE_LISTEN_PORT),
        ),
        mode,
        lock_file: settings.get(&declared::WALE_INIT_LOCKFILE),
        schedule: settings.schedule(),
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
        limits: HttpLimits::default(),
        version: VERSION,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Group, Loaded};

    #[test]
    fn what_is_pushed_ahead_leaves_memory_to_the_file_that_it_waits_for() {
        let s3 = [
            ("WALE_S3_PREFIX", "s3://b/p"),
            ("AWS_REGION", "r"),
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
        ];
        let file = [("WALE_FILE_PREFIX", "file:///archive")];
        for (place, memory, wanted, verb, sidecar) in [
            (&s3[..], "256MiB", 63, 5, 5),
            (&s3, "256MiB", 3, 3, 3),
            // 8 MiB of a verb and 6 MiB of the sidecar: the least, two parts, one of which is for the file itself.
            (&s3, "32MiB", 15, 0, 0),
            (&s3, "64MiB", 15, 1, 0),
            (&s3, "1GiB", 63, 11, 8),
            (&file, "32MiB", 63, 63, 63),
        ] {
            let environment = [place, &[("WALE_MEMORY", memory)]].concat();
            let loaded = Loaded::for_test(&environment, "");
            let settings = loaded.require(&[Group::Archive]).expect("they are good");
            let of = |bounds: Bounds| look_ahead(settings, &bounds, wanted);
            assert_eq!(of(Bounds::of_verb(settings)), verb, "verb, {memory}");
            assert_eq!(of(Bounds::of_sidecar(settings)), sidecar, "{memory}");
        }
    }
}
