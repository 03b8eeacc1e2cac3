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
use wale_storage::{
    FaultyStore, FileStore, FileStoreOptions, HttpTimeouts, RetryPolicy, RetryStore, S3Options,
    S3Store, Store,
};

use crate::config::{self, Place, Settings};

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
            memory_bytes: settings.memory_bytes,
            store: RetryPolicy::default(),
        }
    }

    /// Those of a single fetch, which must answer by its deadline.
    pub(crate) fn of_fetch(settings: &Settings) -> Self {
        let store = RetryPolicy::default();
        let deadline = store.deadline.min(settings.fetch_deadline);
        Self {
            memory_bytes: settings.memory_bytes,
            store: RetryPolicy { deadline, ..store },
        }
    }

    /// Those of the sidecar: prefetched segments have memory of their own, out of the same budget.
    pub(crate) fn of_sidecar(settings: &Settings) -> Self {
        let memory_bytes = settings.memory_bytes - prefetch_memory(settings);
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
                timeouts: HttpTimeouts::default(),
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
    let codec = match settings.compression {
        "lz4" => Codec::Lz4,
        "lzo" => Codec::Lzo,
        "none" => Codec::None,
        _ => Codec::Zstd,
    };
    CodecSettings::new(codec, settings.compression_level)
        .map_err(|e| OpError::new(Kind::Configuration, "the compression cannot be used").source(e))
}

/// What prefetched segments may take of the sidecar's budget, bytes.
fn prefetch_memory(settings: &Settings) -> u64 {
    if settings.fetch_prefetch == 0 {
        0
    } else {
        settings.memory_bytes / PREFETCH_SHARE
    }
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
        look_ahead: look_ahead(
            settings,
            &Bounds::of_sidecar(settings),
            settings.push_look_ahead,
        ),
        data_directory: Some(settings.data_directory.clone()),
        ..PusherOptions::default()
    };
    let fetcher = FetcherOptions {
        prefetch: settings.fetch_prefetch,
        prefetch_bytes: prefetch_memory(settings),
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
