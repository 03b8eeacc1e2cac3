//! Settings: the only code that reads the environment, the configuration file and flags.
//!
//! [`declared`] is the list; everything else follows from it. [`Loaded::of_process`] reads all of it and
//! keeps all mistakes; a verb then asks with [`Loaded::require`] for the groups that it uses and gets
//! either typed values or every mistake together. A wrong schedule never stops a restore at night.
//!
//! What the values do is the rooms' business: they receive typed options and never a setting's name.

pub(crate) mod allocator;
mod declared;
mod mistake;
mod prefix;
mod reader;
mod redact;
mod reference;
mod s3;
mod show;
mod source;
mod value;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use wale_cluster::Secret;
use wale_ops::backup_push::Role;
use wale_ops::retention::{Policy, WalRetention};
use wale_ops::{Kind, OpError};
use wale_service::{Schedule, TokenFor};

pub(crate) use declared::{Group, SETTINGS, Setting};
pub(crate) use prefix::Place;
pub(crate) use reference::settings_page;
pub(crate) use show::{Shown, show_json, show_text};
pub(crate) use source::Several;
pub(crate) use value::{mapping, size};

use mistake::Mistake;
use prefix::Candidate;
use reader::Reader;
use s3::S3Settings;
use source::Sources;
use value::BadValue;

/// Values given by flags, by the settings' names.
pub(crate) type Flags = BTreeMap<String, String>;

/// What the sidecar does first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartMode {
    /// Archive and back up on schedule.
    ContinuousBackup,
    /// The same after a base backup at once.
    BackupPush,
    /// Restore first.
    Restore,
}

/// Every setting, parsed. Words stand in their declared spelling.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) place: Option<Place>,
    /// Set when the place is a bucket.
    pub(crate) s3: Option<S3Settings>,
    pub(crate) compression: &'static str,
    pub(crate) compression_level: Option<i32>,
    pub(crate) memory_bytes: u64,
    pub(crate) fault_control: Option<PathBuf>,

    pub(crate) data_directory: PathBuf,
    pub(crate) wal_directory: PathBuf,

    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: Option<Secret>,
    /// Read anew for each session; `password` is none then.
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) passfile: Option<PathBuf>,
    pub(crate) database: String,
    pub(crate) sslmode: &'static str,
    pub(crate) sslrootcert: Option<PathBuf>,
    pub(crate) sslcert: Option<PathBuf>,
    pub(crate) sslkey: Option<PathBuf>,
    pub(crate) connect_timeout: Duration,

    pub(crate) sidecar_hostname: String,
    pub(crate) listen_address: IpAddr,
    pub(crate) listen_port: u16,
    pub(crate) http_token: Option<Secret>,
    pub(crate) http_token_for: TokenFor,
    /// Names under which the sidecar is asked, beside its own.
    pub(crate) http_hosts: Vec<String>,
    pub(crate) http_token_file: Option<PathBuf>,
    /// Certificate and key of the endpoint.
    pub(crate) tls_files: Option<(PathBuf, PathBuf)>,
    pub(crate) client_ca_file: Option<PathBuf>,

    pub(crate) start_mode: StartMode,
    pub(crate) schedule: Option<Schedule>,
    pub(crate) backup_role: Role,
    pub(crate) backup_request_interval: Duration,
    pub(crate) lock_file: PathBuf,
    pub(crate) shutdown_grace: Duration,

    pub(crate) push_look_ahead: usize,
    pub(crate) fetch_prefetch: usize,
    pub(crate) fetch_deadline: Duration,
    pub(crate) fetch_stops_recovery: bool,

    pub(crate) backup_workers: usize,
    pub(crate) backup_checkpoint: &'static str,
    pub(crate) backup_wal_timeout: Duration,
    pub(crate) backup_read_rate: Option<u64>,
    pub(crate) damaged_pages: &'static str,

    pub(crate) retention: Policy,
    pub(crate) retain_request_interval: Duration,
    pub(crate) sweep_grace: Duration,

    pub(crate) restore_label: String,
    pub(crate) restore_workers: usize,
    pub(crate) restore_as: &'static str,
    pub(crate) restore_client: &'static str,
    pub(crate) restore_libraries: &'static str,
    pub(crate) restore_command: Option<String>,
    pub(crate) recovery_addition: String,
    pub(crate) configuration_directory: Option<PathBuf>,
    pub(crate) tablespace_mapping: Vec<(String, PathBuf)>,

    pub(crate) log_filter: tracing_subscriber::filter::Targets,
    pub(crate) log_json: bool,
    /// The words of the list, if somebody set it.
    pub(crate) log_destination: Option<String>,
    pub(crate) syslog_facility: String,
    pub(crate) syslog_socket: Option<PathBuf>,
}

/// What was read: values, what is wrong with them, and what deserves a warning.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The values; those with mistakes are their defaults.
    pub(crate) settings: Settings,
    /// Everything that is wrong.
    mistakes: Vec<Mistake>,
    /// Names without effect.
    pub(crate) warnings: Vec<String>,
    /// Every setting as `config show` prints it.
    pub(crate) shown: Vec<Shown>,
}

impl Loaded {
    /// Reads the process's environment, the configuration file and these flags.
    pub(crate) fn of_process(flags: Flags, several: Several) -> Self {
        let mut sources = Sources::of_process(flags);
        sources.several = several;
        Self::from_sources(sources)
    }

    /// Reads this environment and this configuration file.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn for_test(environment: &[(&str, &str)], file: &str) -> Self {
        Self::from_sources(Sources::for_test(&[], environment, file))
    }

    fn from_sources(sources: Sources) -> Self {
        let mut reader = Reader::new(sources);
        let settings = Settings::read(&mut reader);
        reader.refuse_what_is_not_built();
        let mut mistakes: Vec<Mistake> = Vec::new();
        for mistake in std::mem::take(&mut reader.mistakes) {
            let mistake = reader.without_secrets(mistake);
            // A setting that several parts read is wrong once.
            if !mistakes.contains(&mistake) {
                mistakes.push(mistake);
            }
        }
        let shown = SETTINGS
            .iter()
            .map(|setting| Shown::of(setting, &mut reader, settings.derived(setting.name)))
            .collect();
        let mut warnings = reader.warnings();
        if matches!(settings.place, Some(Place::Directory(_))) {
            let prefixes = prefix::PREFIXES.into_iter();
            let told = prefixes.filter_map(|name| prefix::dropped_host(name, &reader.set(name)?.0));
            warnings.extend(told);
        }
        mistakes.sort_by_key(|mistake| mistake.group);
        Self {
            settings,
            mistakes,
            warnings,
            shown,
        }
    }

    /// The settings for a verb that uses these groups (and [`Group::Program`], which all use).
    ///
    /// # Errors
    /// All mistakes of these groups in one error of kind `Configuration`.
    pub(crate) fn require(&self, groups: &[Group]) -> Result<&Settings, OpError> {
        let used = |group| match group {
            Group::Program => true,
            Group::S3 => groups.contains(&Group::Archive),
            group => groups.contains(&group),
        };
        let matters = |m: &&Mistake| used(m.group);
        let mistakes: Vec<Mistake> = self.mistakes.iter().filter(matters).cloned().collect();
        if mistakes.is_empty() {
            Ok(&self.settings)
        } else {
            Err(error(&mistakes))
        }
    }

    /// Every mistake, whatever it concerns.
    ///
    /// # Errors
    /// All of them in one error of kind `Configuration`.
    pub(crate) fn require_all(&self) -> Result<&Settings, OpError> {
        self.require(&Group::ALL)
    }
}

fn error(mistakes: &[Mistake]) -> OpError {
    let (message, detail, hint) = mistake::render(mistakes);
    let mut error = OpError::new(Kind::Configuration, message);
    error.detail = detail;
    error.hint = hint;
    error
}

impl Settings {
    fn read(reader: &mut Reader) -> Self {
        let place = place(reader);
        let s3 = match &place {
            Some(Place::Bucket { bucket, .. }) => Some(s3::read(reader, bucket)),
            _ => None,
        };
        let compression = compression(reader);
        let data_directory = reader.path("PGDATA");
        let home = reader.home();
        let password_file = reader.secret_file("PGPASSWORD");
        let workers = default_workers();
        let format = reader.word("WALE_LOG_FORMAT");
        Self {
            place,
            s3,
            compression,
            compression_level: compression_level(reader, compression),
            memory_bytes: memory(reader),
            fault_control: reader.optional_path("WALE_FAULT_CONTROL"),
            wal_directory: reader
                .optional_path("PGWAL")
                .unwrap_or_else(|| data_directory.join("pg_wal")),
            host: reader.host("PGHOST"),
            port: reader.port("PGPORT"),
            user: reader.name("PGUSER"),
            password: reader
                .secret("PGPASSWORD")
                .filter(|_| password_file.is_none()),
            password_file,
            passfile: reader
                .optional_path("PGPASSFILE")
                .or_else(|| home.map(|home| home.join(".pgpass"))),
            database: reader.name("PGDATABASE"),
            sslmode: reader.word("PGSSLMODE"),
            sslrootcert: reader.optional_path("PGSSLROOTCERT"),
            sslcert: reader.optional_path("PGSSLCERT"),
            sslkey: reader.optional_path("PGSSLKEY"),
            connect_timeout: reader.duration("PGCONNECT_TIMEOUT"),
            sidecar_hostname: reader.text("WALE_SIDECAR_HOSTNAME"),
            listen_address: reader
                .parse("WALE_LISTEN_ADDRESS", value::address)
                .unwrap_or(IpAddr::from([0, 0, 0, 0])),
            listen_port: reader.port("WALE_LISTEN_PORT"),
            http_token: http_token(reader),
            http_token_for: http_token_for(reader),
            http_hosts: reader
                .parse("WALE_HTTP_HOSTS", value::host_names)
                .unwrap_or_default(),
            http_token_file: reader.secret_file("WALE_HTTP_TOKEN"),
            tls_files: tls_files(reader),
            client_ca_file: reader.optional_path("WALE_CLIENT_CA_FILE"),
            start_mode: start_mode(reader),
            schedule: schedule(reader),
            backup_role: backup_role(reader),
            lock_file: reader
                .optional_path("WALE_INIT_LOCKFILE")
                .unwrap_or_else(|| data_directory.join("wale_init_lockfile")),
            data_directory,
            shutdown_grace: reader.duration("WALE_SHUTDOWN_GRACE"),
            push_look_ahead: reader.integer("WALE_PUSH_LOOK_AHEAD"),
            fetch_prefetch: reader.integer("WALE_FETCH_PREFETCH"),
            fetch_deadline: reader.duration("WALE_FETCH_DEADLINE"),
            fetch_stops_recovery: reader.switch("WALE_FETCH_STOPS_RECOVERY"),
            backup_workers: reader
                .optional_integer("WALE_BACKUP_WORKERS")
                .unwrap_or(workers),
            backup_checkpoint: reader.word("WALE_BACKUP_CHECKPOINT"),
            backup_wal_timeout: reader.duration("WALE_BACKUP_WAL_TIMEOUT"),
            backup_read_rate: reader.optional_size("WALE_BACKUP_READ_RATE"),
            damaged_pages: reader.word("WALE_DAMAGED_PAGES"),
            retention: retention(reader),
            retain_request_interval: reader.duration("WALE_RETAIN_REQUEST_INTERVAL"),
            backup_request_interval: reader.duration("WALE_BACKUP_REQUEST_INTERVAL"),
            sweep_grace: sweep_grace(reader),
            restore_label: restore_label(reader),
            restore_workers: reader
                .optional_integer("WALE_RESTORE_WORKERS")
                .unwrap_or(workers),
            restore_as: reader.word("WALE_RESTORE_AS"),
            restore_client: reader.word("WALE_RESTORE_CLIENT"),
            restore_libraries: reader.word("WALE_RESTORE_LIBRARIES"),
            restore_command: reader.optional_text("WALE_RESTORE_COMMAND"),
            recovery_addition: reader
                .optional_text("RECOVERY_ADDITION")
                .unwrap_or_default(),
            configuration_directory: reader.optional_path("PGCONF_BACKUP_DIR"),
            tablespace_mapping: reader
                .parse("WALE_TABLESPACE_MAPPING", value::mappings)
                .unwrap_or_default(),
            log_filter: reader
                .parse("WALE_LOG", value::log_filter)
                .unwrap_or_default(),
            log_json: format == "json",
            log_destination: reader.optional_text("WALE_LOG_DESTINATION"),
            syslog_facility: reader.text("WALE_SYSLOG_FACILITY"),
            syslog_socket: reader.optional_path("WALE_SYSLOG_SOCKET"),
        }
    }
}

impl Settings {
    /// What a derived default came to.
    fn derived(&self, name: &str) -> Option<String> {
        Some(match name {
            "PGWAL" => self.wal_directory.display().to_string(),
            "WALE_INIT_LOCKFILE" => self.lock_file.display().to_string(),
            "PGPASSFILE" => self.passfile.as_ref()?.display().to_string(),
            "WALE_MEMORY" => format!("{}MiB", self.memory_bytes >> 20),
            "WALE_BACKUP_WORKERS" => self.backup_workers.to_string(),
            "WALE_RESTORE_WORKERS" => self.restore_workers.to_string(),
            _ => return None,
        })
    }
}

/// A worker per processor: it is busy with its codec nearly all of its time. Two at least, so that
/// one reads while the other waits for the disk.
fn default_workers() -> usize {
    processors().clamp(2, 8)
}

/// Processors that this process may use, cgroup limits included.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

fn place(reader: &mut Reader) -> Option<Place> {
    let names = [
        "WALE_FILE_PREFIX",
        "WALE_S3_PREFIX",
        "WALE_GS_PREFIX",
        "WALE_WABS_PREFIX",
    ];
    let mut candidates = Vec::new();
    for name in names.into_iter().chain(["WALE_SWIFT_PREFIX"]) {
        if let Some((text, origin)) = reader.set(name) {
            candidates.push(Candidate {
                name,
                text: text.trim().to_owned(),
                origin,
            });
        }
    }
    if !candidates
        .iter()
        .any(|candidate| candidate.name == "WALE_S3_PREFIX")
        && let Some((bucket, origin)) = reader.set("WALE_S3_BUCKET")
    {
        let path = reader.optional_text("WALE_S3_PATH").unwrap_or_default();
        let text = format!("s3://{}/{}", bucket.trim(), path.trim_start_matches('/'));
        candidates.push(Candidate {
            name: "WALE_S3_BUCKET",
            text,
            origin,
        });
    }
    prefix::choose(&candidates, reader.several())
        .map_err(|mistake| reader.mistakes.push(mistake))
        .ok()
}

fn compression(reader: &mut Reader) -> &'static str {
    reader.word("WALE_COMPRESSION")
}

fn compression_level(reader: &mut Reader, compression: &str) -> Option<i32> {
    let level = reader.optional_integer("WALE_COMPRESSION_LEVEL")?;
    if compression != "zstd" {
        reader.mistakes.push(
            Mistake::new(
                Group::Archive,
                format!("WALE_COMPRESSION_LEVEL: {compression} has no levels"),
            )
            .hint("unset it, or use WALE_COMPRESSION=zstd"),
        );
    }
    Some(level)
}

/// Below this a base backup with two workers has no buffers: 2 workers × (1 MiB chunk × 8).
const LEAST_MEMORY_BYTES: u64 = 16 << 20;
const DEFAULT_MEMORY_BYTES: u64 = 256 << 20;

fn memory(reader: &mut Reader) -> u64 {
    let least = |text: &str| match value::size(text)? {
        bytes if bytes < LEAST_MEMORY_BYTES => {
            Err(BadValue::new(format!("{text} is too little")).hint("give at least 16MiB"))
        }
        bytes => Ok(bytes),
    };
    reader
        .parse("WALE_MEMORY", least)
        .unwrap_or_else(|| default_memory(container_limit()))
}

fn default_memory(limit: Option<u64>) -> u64 {
    limit.map_or(DEFAULT_MEMORY_BYTES, |limit| {
        (limit / 2).clamp(LEAST_MEMORY_BYTES, DEFAULT_MEMORY_BYTES)
    })
}

/// The memory limit of the container, cgroup version 2 or 1. Version 1 writes a huge number for
/// "no limit", which the clamp above takes care of.
fn container_limit() -> Option<u64> {
    [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .iter()
    .find_map(|path| std::fs::read_to_string(path).ok())
    .and_then(|text| text.trim().parse().ok())
}

fn http_token(reader: &mut Reader) -> Option<Secret> {
    reader
        .parse("WALE_HTTP_TOKEN", value::token)
        .map(Secret::new)
}

fn http_token_for(reader: &mut Reader) -> TokenFor {
    if reader.word("WALE_HTTP_TOKEN_FOR") != "reads" {
        return TokenFor::Everything;
    }
    if !reader.is_set("WALE_HTTP_TOKEN") {
        let text = "WALE_HTTP_TOKEN_FOR is set, and WALE_HTTP_TOKEN is not";
        let hint = "set WALE_HTTP_TOKEN_FILE: without a token everything is open to everybody";
        reader
            .mistakes
            .push(Mistake::new(Group::Endpoint, text).hint(hint));
    }
    TokenFor::Reads
}

fn tls_files(reader: &mut Reader) -> Option<(PathBuf, PathBuf)> {
    let names = ["WALE_TLS_CERT_FILE", "WALE_TLS_KEY_FILE"];
    // One that is set and wrong has its own mistake; only one that is not set is missing.
    let [certificate_set, key_set] = names.map(|name| reader.set(name).is_some());
    let [certificate, key] = names.map(|name| reader.optional_path(name));
    if certificate_set != key_set {
        let [there, missing] = if certificate_set {
            names
        } else {
            [names[1], names[0]]
        };
        reader.mistakes.push(
            Mistake::new(
                Group::Endpoint,
                format!("{missing} is not set, and {there} is"),
            )
            .hint("set both for TLS, or neither"),
        );
    }
    certificate.zip(key)
}

fn start_mode(reader: &mut Reader) -> StartMode {
    match reader.word("START_MODE") {
        "RESTORE" => StartMode::Restore,
        "BACKUP_PUSH" => StartMode::BackupPush,
        _ => StartMode::ContinuousBackup,
    }
}

fn backup_role(reader: &mut Reader) -> Role {
    match reader.word("WALE_BACKUP_ROLE") {
        "primary" => Role::Primary,
        "standby" => Role::Standby,
        _ => Role::Any,
    }
}

fn schedule(reader: &mut Reader) -> Option<Schedule> {
    let zone = reader.parse("TZ", value::zone).unwrap_or_default();
    let parse = |text: &str| match text {
        "" => Ok(None),
        off if off.eq_ignore_ascii_case("off") => Ok(None),
        fields => Schedule::parse(fields, zone).map(Some).map_err(|problem| {
            BadValue::new(problem).hint("write five fields, as in 0 3 * * *, or off")
        }),
    };
    reader.parse("CRON_TIMING", parse).flatten()
}

fn retention(reader: &mut Reader) -> Policy {
    Policy {
        backups: reader.optional_integer("WALE_RETAIN_BACKUPS"),
        days: reader.optional_integer("WALE_RETAIN_DAYS"),
        daily: reader.optional_integer("WALE_RETAIN_DAILY"),
        weekly: reader.optional_integer("WALE_RETAIN_WEEKLY"),
        monthly: reader.optional_integer("WALE_RETAIN_MONTHLY"),
        // The schedule's: a backup of midnight belongs to the day that begins.
        zone: reader.parse("TZ", value::zone).unwrap_or_default(),
        wal: match reader.word("WALE_RETAIN_WAL") {
            "consistent" => WalRetention::Consistent,
            _ => WalRetention::All,
        },
    }
}

/// A backup or an upload that is alive stores something more often than this, whatever its size.
const LEAST_GRACE: Duration = Duration::from_hours(1);

fn sweep_grace(reader: &mut Reader) -> Duration {
    let grace = reader.duration("WALE_SWEEP_GRACE");
    if grace < LEAST_GRACE {
        reader.mistakes.push(
            Mistake::new(
                Group::Retention,
                "WALE_SWEEP_GRACE: less than 1h would remove uploads that are alive",
            )
            .hint("write 1h or more"),
        );
    }
    grace.max(LEAST_GRACE)
}

fn restore_label(reader: &mut Reader) -> String {
    let parse = |text: &str| match text.parse::<wale_ops::backup_fetch::BackupSelector>() {
        Ok(selector) => Ok(selector.to_string()),
        Err(problem) => {
            Err(BadValue::new(problem).hint("write LATEST, or a name that backup-list prints"))
        }
    };
    reader
        .parse("WALE_RESTORE_LABEL", parse)
        .unwrap_or_else(|| "LATEST".to_owned())
}

#[cfg(test)]
mod tests;
