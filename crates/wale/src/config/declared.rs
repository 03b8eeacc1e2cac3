//! The declared list: every setting that wale knows, in one table.
//!
//! From this table come the parser, the flags and their help, the reference page
//! (`docs/reference/settings.md`) and `wale config show`. It refuses to know what a value means to
//! the rooms: that is `Settings`' business.
//!
//! Invariants (tested below): names are unique, flags are unique, defaults parse, documents are
//! sentences, secrets have no flag (command lines are visible to every user of the host).

use super::value::Unit;

/// The heading under which a setting is listed, and the unit in which mistakes are held against a
/// verb: a verb fails on a mistake only in a group that it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// Where the archive is and how it is written.
    Archive,
    /// An archive in S3. Its settings are read only when the archive is there, and count as the archive's.
    S3,
    /// The data directory and the WAL directory.
    Cluster,
    /// The control connection, libpq's variables.
    Server,
    /// The name, address and token under which the sidecar is reached.
    Endpoint,
    /// The sidecar: mode, schedule, lock, shutdown.
    Sidecar,
    /// Archiving and fetching of WAL.
    Wal,
    /// Base backups.
    Backup,
    /// What is kept, and what may be deleted.
    Retention,
    /// Restores and the recovery settings that they write.
    Restore,
    /// The program itself: log and configuration file.
    Program,
}

impl Group {
    /// Every group, in the order of the reference page.
    pub(crate) const ALL: [Group; 11] = [
        Group::Archive,
        Group::S3,
        Group::Cluster,
        Group::Server,
        Group::Endpoint,
        Group::Sidecar,
        Group::Wal,
        Group::Backup,
        Group::Retention,
        Group::Restore,
        Group::Program,
    ];

    /// The heading.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Group::Archive => "Archive",
            Group::S3 => "Archive in S3",
            Group::Cluster => "Database cluster",
            Group::Server => "Connection to the server",
            Group::Endpoint => "Endpoint",
            Group::Sidecar => "Sidecar",
            Group::Wal => "WAL",
            Group::Backup => "Base backups",
            Group::Retention => "Retention",
            Group::Restore => "Restore",
            Group::Program => "Program",
        }
    }
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Any text.
    Text,
    /// Several lines of text.
    Lines,
    /// An absolute path.
    Path,
    /// The URL of a place for an archive.
    Place,
    /// An IP address.
    Address,
    /// A TCP port, 1 to 65535.
    Port,
    /// A whole number within bounds, both included.
    Integer {
        /// The least value.
        min: i64,
        /// The greatest value.
        max: i64,
    },
    /// A number of bytes, with or without a unit.
    Size,
    /// A length of time; a plain number counts in this unit.
    Duration(Unit),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `on` or `off`.
    Switch,
    /// Five fields of a cron table, or `off`.
    Cron,
    /// A name of the IANA time zone database.
    Zone,
    /// A level, or levels per target.
    LogFilter,
    /// Known, and refused: the capability is not in this version.
    NotYet(&'static str),
}

impl Shape {
    /// The type as the reference page names it.
    pub(crate) fn describe(self) -> String {
        match self {
            Shape::Text => "text".into(),
            Shape::Lines => "lines".into(),
            Shape::Path => "absolute path".into(),
            Shape::Place => "URL".into(),
            Shape::Address => "IP address".into(),
            Shape::Port => "port".into(),
            Shape::Integer { min, max } => format!("number, {min} to {max}"),
            Shape::Size => "size".into(),
            Shape::Duration(unit) => format!("duration, a plain number counts {}", unit.plural()),
            Shape::Choice(words) => words
                .iter()
                .map(|w| format!("`{w}`"))
                .collect::<Vec<_>>()
                .join(", "),
            Shape::Switch => "`on`, `off`".into(),
            Shape::Cron => "cron, five fields, or `off`".into(),
            Shape::Zone => "time zone name".into(),
            Shape::LogFilter => "level, or `target=level` pairs".into(),
            Shape::NotYet(what) => format!("refused, {what} not built yet"),
        }
    }
}

/// What holds when nothing is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Default {
    /// Nothing.
    None,
    /// This text, parsed like any other.
    Fixed(&'static str),
    /// Derived from something else, in these words.
    Derived(&'static str),
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// The environment variable, and the key in a configuration file.
    pub(crate) name: &'static str,
    /// Its heading.
    pub(crate) group: Group,
    /// How its value is written.
    pub(crate) shape: Shape,
    /// What holds when it is not set.
    pub(crate) default: Default,
    /// One paragraph for the operator.
    pub(crate) doc: &'static str,
    /// The first version that knows it.
    pub(crate) since: &'static str,
    /// Other names that are read when this one is not set.
    pub(crate) aliases: &'static [&'static str],
    /// The long flag of `wale`, without the dashes.
    pub(crate) flag: Option<&'static str>,
    /// Never shown; `<name>_FILE` names a file that holds it.
    pub(crate) secret: bool,
    /// For tests only: not in the help, in a section of its own on the reference page.
    pub(crate) hidden: bool,
}

impl Setting {
    const fn new(name: &'static str, group: Group, shape: Shape, doc: &'static str) -> Self {
        let (default, since, aliases) = (Default::None, "0.1.0", &[] as &[&str]);
        let (flag, secret, hidden) = (None, false, false);
        Self {
            name,
            group,
            shape,
            default,
            doc,
            since,
            aliases,
            flag,
            secret,
            hidden,
        }
    }

    const fn default(mut self, text: &'static str) -> Self {
        self.default = Default::Fixed(text);
        self
    }

    const fn derived(mut self, words: &'static str) -> Self {
        self.default = Default::Derived(words);
        self
    }

    const fn flag(mut self, flag: &'static str) -> Self {
        self.flag = Some(flag);
        self
    }

    const fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// The variable that names a file with the value, for secrets.
    pub(crate) fn file_variable(&self) -> Option<String> {
        self.secret.then(|| format!("{}_FILE", self.name))
    }
}

/// The setting of that name.
///
/// # Panics
/// When the table has none: a spelling mistake in this program, found by the test that loads the
/// defaults.
pub(crate) fn setting(name: &str) -> &'static Setting {
    SETTINGS
        .iter()
        .find(|setting| setting.name == name)
        .unwrap_or_else(|| panic!("{name} is not in the declared list of settings"))
}

/// The levels that the codec takes: see `wale_format::CodecSettings`. A test holds the two together.
const ZSTD_LEVELS: (i64, i64) = (-7, 19);

const ENCRYPTION: Shape = Shape::NotYet("encryption");

use Group::{
    Archive, Backup, Cluster, Endpoint, Program, Restore, Retention, S3, Server, Sidecar, Wal,
};

/// The list, in the order of the reference page.
pub(crate) const SETTINGS: &[Setting] = &[
    // ------------------------------------------------------------------ archive
    Setting::new("WALE_FILE_PREFIX", Archive, Shape::Place,
        "The archive in a mounted directory, as file://localhost/absolute/path; the host is ignored, as by \
         WAL-E, and a plain absolute path means the same. The directory must exist. Exactly one prefix must be set.")
        .aliases(&["WALG_FILE_PREFIX"]).flag("file-prefix"),
    Setting::new("WALE_S3_PREFIX", Archive, Shape::Place,
        "The archive in S3 or a server that speaks like it, as s3://bucket/path. The bucket must exist.")
        .aliases(&["WALG_S3_PREFIX"]).flag("s3-prefix"),
    Setting::new("WALE_S3_BUCKET", Archive, Shape::Text,
        "With WALE_S3_PATH another way to write WALE_S3_PREFIX: s3://bucket/path."),
    Setting::new("WALE_S3_PATH", Archive, Shape::Text,
        "The path within WALE_S3_BUCKET."),
    Setting::new("WALE_GS_PREFIX", Archive, Shape::Place,
        "The archive in Google Cloud Storage, as gs://bucket/path. This version knows the setting and refuses it.")
        .flag("gs-prefix"),
    Setting::new("WALE_WABS_PREFIX", Archive, Shape::Place,
        "The archive in Azure Blob Storage, as wabs://container/path. This version knows the setting and refuses it.")
        .flag("wabs-prefix"),
    Setting::new("WALE_SWIFT_PREFIX", Archive, Shape::Place,
        "The archive in OpenStack Swift, as swift://container/path. This version knows the setting and refuses it.")
        .flag("swift-prefix"),
    Setting::new("WALE_COMPRESSION", Archive, Shape::Choice(&["zstd", "lz4", "none", "lzo"]),
        "How new objects are compressed. Objects that are already in the archive are read whatever they were \
         written with. Real WAL-E restores what was written with `lzo`; it reads nothing else.")
        .default("zstd").flag("compression"),
    Setting::new("WALE_COMPRESSION_LEVEL", Archive, Shape::Integer { min: ZSTD_LEVELS.0, max: ZSTD_LEVELS.1 },
        "The level of zstd. Level 1 is the default because higher levels were slower on PostgreSQL's pages \
         without being smaller. The other codecs have no levels.")
        .derived("1 for zstd").flag("compression-level"),
    Setting::new("WALE_MEMORY", Archive, Shape::Size,
        "The budget for buffers, whatever the size of the database. In a container with a memory limit the \
         default is half the limit where that is less.")
        .derived("256MiB, or half the memory limit of the container").flag("memory"),
    Setting::new("WALE_GPG_KEY_ID", Archive, ENCRYPTION,
        "WAL-E's OpenPGP key. Refused rather than ignored, so that nobody believes an archive to be encrypted \
         that is not. Called as wal-e, an empty value counts too, as in WAL-E."),
    Setting::new("WALE_AGE_RECIPIENTS", Archive, ENCRYPTION,
        "Public keys of age. Refused rather than ignored."),
    Setting::new("WALG_PGP_KEY", Archive, ENCRYPTION, "WAL-G's OpenPGP key. Refused rather than ignored.").secret(),
    Setting::new("WALG_PGP_KEY_PATH", Archive, ENCRYPTION, "WAL-G's OpenPGP key. Refused rather than ignored."),
    Setting::new("WALG_LIBSODIUM_KEY", Archive, ENCRYPTION, "WAL-G's libsodium key. Refused rather than ignored.")
        .secret(),
    Setting::new("WALG_LIBSODIUM_KEY_PATH", Archive, ENCRYPTION,
        "WAL-G's libsodium key. Refused rather than ignored."),
    Setting::new("WALE_FAULT_CONTROL", Archive, Shape::Path,
        "For tests only: a file from which a fault-injecting wrapper around the store takes its orders. \
         Never set it where data matters.")
        .hidden(),
    // ------------------------------------------------------------------ S3
    Setting::new("WALE_S3_ENDPOINT", S3, Shape::Text,
        "A server that is not Amazon's, as http[s]+style://host:port. The style says how it is told the bucket: path \
         (host/bucket), subdomain (bucket.host), or virtualhost (the bucket's name itself is the host). A plain URL \
         means path.")
        .aliases(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]).flag("s3-endpoint"),
    Setting::new("AWS_S3_FORCE_PATH_STYLE", S3, Shape::Switch,
        "WAL-G's way to choose the style of a plain URL: on is path, off is subdomain.")
        .derived("as WALE_S3_ENDPOINT says").aliases(&["WALG_S3_FORCE_PATH_STYLE"]),
    Setting::new("AWS_REGION", S3, Shape::Text,
        "The region of the bucket. It is part of every signature; without WALE_S3_ENDPOINT it must be set.")
        .derived("us-east-1 with WALE_S3_ENDPOINT").aliases(&["AWS_DEFAULT_REGION"]).flag("aws-region"),
    Setting::new("AWS_ACCESS_KEY_ID", S3, Shape::Text,
        "The name of a pair of keys. It needs AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN when the pair is temporary.")
        .aliases(&["AWS_ACCESS_KEY"]).flag("aws-access-key-id"),
    Setting::new("AWS_SECRET_ACCESS_KEY", S3, Shape::Text, "The secret of the pair.")
        .aliases(&["AWS_SECRET_KEY"]).secret(),
    Setting::new("AWS_SESSION_TOKEN", S3, Shape::Text, "The token of a temporary pair of keys.")
        .aliases(&["AWS_SECURITY_TOKEN"]).secret(),
    Setting::new("AWS_INSTANCE_PROFILE", S3, Shape::Switch,
        "Whether the keys are those of the instance's role, from its metadata service (version 2 only).")
        .default("off"),
    Setting::new("AWS_EC2_METADATA_SERVICE_ENDPOINT", S3, Shape::Text, "Where the metadata service is.")
        .default("http://169.254.169.254"),
    Setting::new("AWS_PROFILE", S3, Shape::Text,
        "The profile of Amazon's shared files from which the keys are taken: keys, or a role for the keys of another \
         profile or for a web identity. The files are read again when the store refuses the keys.")
        .derived("default").aliases(&["AWS_DEFAULT_PROFILE"]),
    Setting::new("AWS_SHARED_CREDENTIALS_FILE", S3, Shape::Path, "The file of profiles with keys.")
        .derived("~/.aws/credentials"),
    Setting::new("AWS_CONFIG_FILE", S3, Shape::Path, "The file of profiles with everything else.")
        .derived("~/.aws/config"),
    Setting::new("AWS_ROLE_ARN", S3, Shape::Text,
        "A role that is taken on, for the token in AWS_WEB_IDENTITY_TOKEN_FILE or for the keys that are set."),
    Setting::new("AWS_ROLE_SESSION_NAME", S3, Shape::Text, "How its session is named.").default("wale"),
    Setting::new("AWS_WEB_IDENTITY_TOKEN_FILE", S3, Shape::Path,
        "A file with a token for which Amazon gives the keys of a role, as Kubernetes mounts it. It is read again \
         for each renewal."),
    Setting::new("AWS_ENDPOINT_URL_STS", S3, Shape::Text, "The security token service that gives keys of roles.")
        .derived("the region's"),
    Setting::new("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", S3, Shape::Text,
        "Where ECS gives the keys of the task's role. ECS sets it."),
    Setting::new("AWS_CONTAINER_CREDENTIALS_FULL_URI", S3, Shape::Text,
        "Where an agent gives the keys of the pod's role. EKS sets it."),
    Setting::new("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", S3, Shape::Path,
        "A file with the token for that agent. It is read again for each renewal."),
    Setting::new("AWS_CONTAINER_AUTHORIZATION_TOKEN", S3, Shape::Text, "The same token as a value.")
        .secret(),
    Setting::new("WALE_S3_STORAGE_CLASS", S3, Shape::Text,
        "The storage class of new objects, as STANDARD_IA. Classes that must be restored before they are read, \
         as GLACIER, make an archive that cannot be read when it is needed.")
        .derived("the bucket's").aliases(&["WALG_S3_STORAGE_CLASS", "S3_STORAGE_CLASS"]),
    Setting::new("WALE_S3_SSE", S3, Shape::Choice(&["AES256", "aws:kms"]),
        "Encryption at rest with keys of the store (AES256) or of its key service (aws:kms). WAL-E asked for AES256 \
         with every object; wale does not unless told, because Amazon encrypts anyway since 2023 and other servers \
         refuse it.")
        .derived("the bucket's").aliases(&["WALG_S3_SSE", "S3_SSE"]),
    Setting::new("WALE_S3_SSE_KMS_KEY_ID", S3, Shape::Text,
        "The key of the key service; alone it means WALE_S3_SSE=aws:kms.")
        .derived("the account's").aliases(&["WALG_S3_SSE_KMS_ID", "S3_SSE_KMS_ID"]),
    Setting::new("WALE_S3_SSE_C_KEY", S3, Shape::Text,
        "A key of your own for encryption at rest: 32 bytes in base64. The store forgets it after each request; \
         without it the archive cannot be read by anybody.")
        .aliases(&["WALG_S3_SSE_C", "S3_SSE_C"]).secret(),
    Setting::new("WALE_S3_CHECKSUM", S3, Shape::Choice(&["crc32c", "sha256", "md5", "none"]),
        "What is sent along with each upload so that the store refuses a body that was garbled on its way. Old servers \
         know md5 only; a few refuse all.")
        .default("crc32c"),
    Setting::new("WALE_S3_CA_FILE", S3, Shape::Path,
        "Certificates, PEM, that are trusted besides the system's.")
        .aliases(&["WALG_S3_CA_CERT_FILE", "S3_CA_CERT_FILE", "AWS_CA_BUNDLE"]),
    Setting::new("HTTPS_PROXY", S3, Shape::Text,
        "The proxy for https:// requests to the store and to services that give credentials, as a URL. It may hold a \
         user and a password.")
        .aliases(&["https_proxy"]).secret(),
    Setting::new("HTTP_PROXY", S3, Shape::Text, "The same for http://.")
        .aliases(&["http_proxy"]).secret(),
    Setting::new("NO_PROXY", S3, Shape::Text,
        "Hosts, domains and networks that are reached without a proxy, separated by commas.")
        .aliases(&["no_proxy"]),
    // ------------------------------------------------------------------ cluster
    Setting::new("PGDATA", Cluster, Shape::Path,
        "The data directory, as the sidecar sees it.")
        .default("/var/lib/postgresql/data").flag("pgdata"),
    Setting::new("PGWAL", Cluster, Shape::Path,
        "The WAL directory, as the sidecar sees it. When it lies outside of the data directory, a restore makes pg_wal \
         a link to it, so it must have the same path for the server.")
        .derived("$PGDATA/pg_wal").flag("pgwal"),
    // ------------------------------------------------------------------ server
    Setting::new("PGHOST", Server, Shape::Text,
        "The server's host name, address, or the directory of its Unix socket.")
        .default("localhost"),
    Setting::new("PGPORT", Server, Shape::Port, "The server's port.").default("5432"),
    Setting::new("PGUSER", Server, Shape::Text,
        "The role of the control connection. It needs EXECUTE on the backup functions, and membership in pg_read_all_settings: \
         without that the backup lacks a configuration outside of the data directory and the names of the preloaded libraries. \
         A superuser has both.")
        .default("postgres"),
    Setting::new("PGPASSWORD", Server, Shape::Text, "The role's password.").secret(),
    Setting::new("PGPASSFILE", Server, Shape::Path, "libpq's password file.").derived("~/.pgpass"),
    Setting::new("PGDATABASE", Server, Shape::Text, "The database to connect to.").default("postgres"),
    Setting::new("PGSSLMODE", Server,
        Shape::Choice(&["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]),
        "Whether the connection is encrypted and the server's certificate checked, as in libpq.")
        .default("prefer"),
    Setting::new("PGSSLROOTCERT", Server, Shape::Path,
        "The certificates against which the server's is checked, PEM.")
        .derived("the system's"),
    Setting::new("PGSSLCERT", Server, Shape::Path, "The client's certificate, PEM. Needs PGSSLKEY."),
    Setting::new("PGSSLKEY", Server, Shape::Path, "The key of the client's certificate, PEM, not encrypted."),
    Setting::new("PGCONNECT_TIMEOUT", Server, Shape::Duration(Unit::Seconds),
        "How long one attempt to connect may take.")
        .default("10s"),
    // ------------------------------------------------------------------ endpoint
    Setting::new("WALE_SIDECAR_HOSTNAME", Endpoint, Shape::Text,
        "The name by which PostgreSQL reaches the sidecar. It goes into restore_command, and `wale client` \
         connects to it.")
        .default("localhost").flag("sidecar-hostname"),
    Setting::new("WALE_LISTEN_ADDRESS", Endpoint, Shape::Address,
        "The address on which the sidecar listens. All addresses by default: between containers nothing else works.")
        .default("0.0.0.0").flag("listen-address"),
    Setting::new("WALE_LISTEN_PORT", Endpoint, Shape::Port,
        "The port on which the sidecar listens.")
        .default("5000").flag("listen-port"),
    Setting::new("WALE_HTTP_TOKEN", Endpoint, Shape::Text,
        "When set, requests other than the probes must carry it, as a bearer token or as the password of basic \
         authentication.")
        .secret(),
    Setting::new("WALE_HTTP_TOKEN_FOR", Endpoint, Shape::Choice(&["everything", "reads"]),
        "Which requests must carry the token. `reads`: whatever reads data, starts work or tells of the cluster; a push \
         needs none then, so archive_command stays as it is and holds no secret. The probes never need it.")
        // No flag that begins with the secret's name: an abbreviation would be taken for it.
        .default("everything").flag("require-token-for"),
    Setting::new("WALE_HTTP_HOSTS", Endpoint, Shape::Text,
        "Further names by which the sidecar is asked, separated by commas; `*.example.org` stands for all below it. \
         Addresses, names without a dot, *.local, *.internal, *.svc, *.cluster.local and WALE_SIDECAR_HOSTNAME need \
         not be named. Under any other name nothing is read and no backup is begun (a web page can give itself such a \
         name); a push is served and told once.")
        .flag("http-hosts"),
    Setting::new("WALE_TLS_CERT_FILE", Endpoint, Shape::Path,
        "The sidecar's certificate, PEM, with intermediate ones after it. With WALE_TLS_KEY_FILE the endpoint speaks \
         TLS and nothing else on its port. Both files are looked at every 5 seconds: a new pair is taken over without \
         a restart.")
        .flag("tls-cert-file"),
    Setting::new("WALE_TLS_KEY_FILE", Endpoint, Shape::Path,
        "The key of WALE_TLS_CERT_FILE, PEM, not encrypted, readable by the sidecar's user alone.")
        .flag("tls-key-file"),
    Setting::new("WALE_CLIENT_CA_FILE", Endpoint, Shape::Path,
        "The certificates, PEM, against which clients check the sidecar's, at its path in the database's image. It \
         goes into restore_command, and `wale client` uses it, with https.")
        .derived("the system's").flag("client-ca-file"),
    // ------------------------------------------------------------------ sidecar
    Setting::new("START_MODE", Sidecar,
        Shape::Choice(&["CONTINOUS_BACKUP", "CONTINUOUS_BACKUP", "BACKUP_PUSH", "RESTORE"]),
        "What the sidecar does first: archive and back up on schedule; the same after a base backup at once; or \
         restore a base backup and then the same. The first spelling is the original's.")
        .default("CONTINOUS_BACKUP").flag("start-mode"),
    Setting::new("CRON_TIMING", Sidecar, Shape::Cron,
        "When base backups are taken, in the time zone TZ: minute, hour, day of month, month, day of week. \
         `off`, or an empty value, disables the schedule.")
        .default("0 0 * * *").flag("cron-timing"),
    Setting::new("WALE_BACKUP_ROLE", Sidecar, Shape::Choice(&["any", "primary", "standby"]),
        "Which servers the scheduled base backups are taken of. One is taken for each slot of the schedule, however \
         many sidecars share the archive. Backups that are asked for are taken of any.")
        .default("any").flag("backup-role"),
    Setting::new("WALE_BACKUP_REQUEST_INTERVAL", Sidecar, Shape::Duration(Unit::Seconds),
        "How long after the beginning of the newest base backup /backup-push may begin another one; before that it \
         answers 503. 0 takes one whenever it is asked for.")
        .default("0"),
    Setting::new("TZ", Sidecar, Shape::Zone, "The time zone of CRON_TIMING.").default("UTC"),
    Setting::new("WALE_INIT_LOCKFILE", Sidecar, Shape::Path,
        "The lock file for which the database container waits. The sidecar removes it when PostgreSQL may start.")
        .derived("$PGDATA/wale_init_lockfile").flag("init-lockfile"),
    Setting::new("WALE_SHUTDOWN_GRACE", Sidecar, Shape::Duration(Unit::Seconds),
        "How long the sidecar goes on archiving after SIGTERM while the server is still there. Give the \
         container a longer stop time-out than this.")
        .default("60s").flag("shutdown-grace"),
    // ------------------------------------------------------------------ wal
    Setting::new("WALE_PUSH_LOOK_AHEAD", Wal, Shape::Integer { min: 0, max: 64 },
        "How many segments that wait in archive_status are archived ahead of PostgreSQL's request. 0 disables it.")
        .default("2").flag("push-look-ahead"),
    Setting::new("WALE_FETCH_PREFETCH", Wal, Shape::Integer { min: 0, max: 64 },
        "How many segments are fetched ahead of recovery's request. 0 disables it.")
        .default("8").flag("fetch-prefetch"),
    Setting::new("WALE_FETCH_DEADLINE", Wal, Shape::Duration(Unit::Seconds),
        "How long a fetch tries to reach the store before it says that it cannot.")
        .default("60s").flag("fetch-deadline"),
    Setting::new("WALE_FETCH_STOPS_RECOVERY", Wal, Shape::Switch,
        "PostgreSQL takes an exit status of 1 to 125 of restore_command as the end of the WAL and promotes. So \
         wal-fetch ends with 250, which stops the recovery, when the archive cannot answer and the cluster is in \
         archive recovery and not a standby. `off` gives an ordinary status instead.")
        .default("on").flag("fetch-stops-recovery"),
    // ------------------------------------------------------------------ backup
    Setting::new("WALE_BACKUP_WORKERS", Backup, Shape::Integer { min: 1, max: 64 },
        "How many partitions of a base backup are written at a time.")
        .derived("the number of processors, 2 to 8").flag("backup-workers"),
    Setting::new("WALE_BACKUP_CHECKPOINT", Backup, Shape::Choice(&["fast", "spread"]),
        "Whether a base backup begins with an immediate checkpoint or waits for a spread one.")
        .default("fast").flag("backup-checkpoint"),
    Setting::new("WALE_BACKUP_WAL_TIMEOUT", Backup, Shape::Duration(Unit::Seconds),
        "How long the end of a base backup waits for its WAL to be in the archive. A backup without its WAL \
         cannot be restored and is not listed.")
        .default("1h").flag("backup-wal-timeout"),
    Setting::new("WALE_BACKUP_READ_RATE", Backup, Shape::Size,
        "The most bytes per second that a base backup reads from the data directory, all workers together.")
        .derived("unlimited").flag("backup-read-rate"),
    Setting::new("WALE_DAMAGED_PAGES", Backup, Shape::Choice(&["record", "fail"]),
        "What a page whose checksum does not match does to a base backup: `record` writes it into the backup's \
         record and the log, `fail` ends the backup.")
        .default("record").flag("damaged-pages"),
    // ------------------------------------------------------------------ retention
    Setting::new("WALE_RETAIN_BACKUPS", Retention, Shape::Integer { min: 1, max: 100_000 },
        "Keep so many of the newest base backups. The rules of this section are united: what any of them keeps \
         stays, with the WAL it needs. Without any rule nothing is ever deleted. They are applied after each \
         successful base backup, and by `wale retain`.")
        .flag("retain-backups"),
    Setting::new("WALE_RETAIN_DAYS", Retention, Shape::Integer { min: 1, max: 36_500 },
        "Keep every moment of the last so many days recoverable: the base backups that ended within them, and the \
         newest one before.")
        .flag("retain-days"),
    Setting::new("WALE_RETAIN_DAILY", Retention, Shape::Integer { min: 1, max: 36_500 },
        "Keep the last base backup of each of so many days that have one. Days begin at midnight in the time zone TZ.")
        .flag("retain-daily"),
    Setting::new("WALE_RETAIN_WEEKLY", Retention, Shape::Integer { min: 1, max: 5_200 },
        "Keep the last base backup of each of so many weeks that have one. Weeks begin on Monday.")
        .flag("retain-weekly"),
    Setting::new("WALE_RETAIN_MONTHLY", Retention, Shape::Integer { min: 1, max: 1_200 },
        "Keep the last base backup of each of so many months that have one.")
        .flag("retain-monthly"),
    Setting::new("WALE_RETAIN_WAL", Retention, Shape::Choice(&["all", "consistent"]),
        "How much WAL stays for base backups that only the calendar rules or a mark keep: `all` since their start, \
         so that every moment since can be recovered, or as much as makes them `consistent`, so that they can be \
         restored as of their own end (recovery_target = 'immediate').")
        .default("all").flag("retain-wal"),
    Setting::new("WALE_RETAIN_REQUEST_INTERVAL", Retention, Shape::Duration(Unit::Seconds),
        "How long after the base backup before it a base backup must have begun that was requested over HTTP, for the \
         rules to count it. One that came sooner is not counted and stays as long as the one before it: asking often \
         pushes no other backup out. 0 counts every one.")
        .default("20h"),
    Setting::new("WALE_SWEEP_GRACE", Retention, Shape::Duration(Unit::Seconds),
        "How long nothing may have been stored for an unfinished upload, or for a base backup without its final \
         record and without wale's claim on its name (another tool's), before it is taken for the remains of a crash \
         and removed. What a base backup of wale's left goes ten minutes after its claim was last refreshed. \
         At least 1h; the sidecar waits longer where WALE_BACKUP_WAL_TIMEOUT demands it.")
        .default("24h"),
    // ------------------------------------------------------------------ restore
    Setting::new("WALE_RESTORE_LABEL", Restore, Shape::Text,
        "The base backup to restore: a full name as `backup-list` prints it, or LATEST: with a time or a position as \
         recovery target the newest that ends before it.")
        .default("LATEST").flag("restore-label"),
    Setting::new("WALE_RESTORE_WORKERS", Restore, Shape::Integer { min: 1, max: 64 },
        "How many partitions are restored at a time.")
        .derived("the number of processors, 2 to 8").flag("restore-workers"),
    Setting::new("WALE_RESTORE_AS", Restore, Shape::Choice(&["primary", "standby"]),
        "What the restored cluster becomes: `primary` recovers and promotes, `standby` keeps asking for WAL.")
        .default("primary").flag("restore-as"),
    Setting::new("WALE_RESTORE_CLIENT", Restore, Shape::Choice(&["wget", "curl", "wale", "busybox"]),
        "The program in the database's image with which restore_command fetches WAL from the sidecar. `wget` is GNU \
         Wget, and BusyBox's where there is neither token nor TLS. `busybox` is BusyBox's with a token, which every \
         user of the host can then see in the list of processes; it cannot check a certificate and is refused with TLS.")
        .default("wget").flag("restore-client"),
    Setting::new("WALE_RESTORE_COMMAND", Restore, Shape::Text,
        "The whole restore_command, in place of the one that wale writes. One line. It must end with a status \
         above 125 when it cannot tell whether the archive has the file.")
        .flag("restore-command"),
    Setting::new("WALE_RESTORE_LIBRARIES", Restore, Shape::Choice(&["require", "warn"]),
        "What a restore does when a server of the backup's version is installed here, beside wale, and lacks a library \
         that the backup's server had loaded at its start, or TimescaleDB's version: `require` refuses before anything \
         is written, `warn` is for a server that runs elsewhere. Where no such server is to be seen, it warns.")
        .default("require").flag("restore-libraries"),
    Setting::new("RECOVERY_ADDITION", Restore, Shape::Lines,
        "Lines added to the recovery settings, typically a recovery target, as in \
         recovery_target_time = '2026-11-22 07:06:29+00'."),
    Setting::new("PGCONF_BACKUP_DIR", Restore, Shape::Path,
        "A directory whose configuration files (*.conf, conf.d, and what they include in it) are copied into the data \
         directory after a restore. Lines that lead to the original, such as data_directory, become comments."),
    Setting::new("WALE_TABLESPACE_MAPPING", Restore, Shape::Text,
        "Where tablespaces are restored to, as OLD=NEW pairs separated by commas. OLD is the directory that the \
         backup records or the tablespace's OID."),
    // ------------------------------------------------------------------ program
    Setting::new("WALE_LOG", Program, Shape::LogFilter,
        "What is logged: error, warn, info, debug or trace, or pairs as in info,wale_storage=debug.")
        .default("info").flag("log"),
    Setting::new("WALE_LOG_FORMAT", Program, Shape::Choice(&["text", "json"]),
        "One line of text or one JSON object for each event, on standard error.")
        .default("text").flag("log-format"),
    Setting::new("WALE_LOG_DESTINATION", Program, Shape::Text,
        "Where the log goes: `stderr`, `syslog` or both, separated by a comma. Other words are ignored; with no word \
         that is known only failures are told.")
        .derived("stderr; stderr,syslog when called as wal-e").flag("log-destination"),
    Setting::new("WALE_SYSLOG_FACILITY", Program, Shape::Text,
        "The facility of records in the system log: USER, LOCAL0 to LOCAL7, or another name of syslog's.")
        .default("USER").flag("syslog-facility"),
    Setting::new("WALE_SYSLOG_SOCKET", Program, Shape::Path,
        "For tests only: the socket of the system log.")
        .hidden(),
    Setting::new("WALE_CONFIG_FILE", Program, Shape::Path,
        "A file with lines NAME=value, read where neither a flag nor the environment has a value.")
        .flag("config-file"),
];

/// Variables of WAL-E and its relatives that have no effect here, and why. They are known so that
/// nobody is told about a misspelling.
pub(crate) const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("WALE_RETRIES", "retries are bounded by time, not by number"),
    (
        "PGOPTIONS",
        "the control connection passes no options to the server",
    ),
    ("PGSERVICE", "the service file is not read"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_levels_are_those_of_the_codec() {
        let takes = |level: i64| {
            let level = i32::try_from(level).unwrap();
            wale_format::CodecSettings::new(wale_format::Codec::Zstd, Some(level)).is_ok()
        };
        let (least, most) = ZSTD_LEVELS;
        assert!((least..=most).all(takes));
        assert!(!takes(least - 1) && !takes(most + 1));
    }

    #[test]
    fn the_table_is_sound() {
        let mut names = BTreeSet::new();
        let mut flags = BTreeSet::new();
        for setting in SETTINGS {
            assert!(
                names.insert(setting.name),
                "{} is declared twice",
                setting.name
            );
            for alias in setting.aliases {
                assert!(names.insert(alias), "{alias} is declared twice");
            }
            if let Some(flag) = setting.flag {
                assert!(flags.insert(flag), "--{flag} is declared twice");
            }
            assert!(
                setting.doc.ends_with('.'),
                "{}: the document is a sentence",
                setting.name
            );
            assert!(!setting.since.is_empty());
            assert!(
                !(setting.secret && setting.flag.is_some()),
                "{}: secrets have no flag",
                setting.name
            );
        }
        for (name, why) in WITHOUT_EFFECT {
            assert!(names.insert(name), "{name} is declared twice");
            assert!(!why.ends_with('.'));
        }
    }

    #[test]
    fn every_group_has_settings() {
        for group in Group::ALL {
            assert!(
                SETTINGS.iter().any(|s| s.group == group),
                "{group:?} is empty"
            );
        }
    }
}
