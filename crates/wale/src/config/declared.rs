//! The declared list: every setting that wale knows, each in one place.
//!
//! A setting's type, name, parser, bounds, default and paragraph stand here; the words of a choice, and bounds that a room
//! enforces, come from the room. From the list come the parser, the flags and their help, the reference page
//! (`docs/reference/settings.md`) and `wale config show`. It refuses to know what a value does: the code that asks for
//! it says that, `settings.get(&WALE_BACKUP_READ_RATE)`.
//!
//! Invariants (tested below): names are unique, flags are unique and follow from the names, defaults parse, documents are
//! sentences, secrets have no flag (command lines are visible to every user of the host).

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing_subscriber::filter::Targets;
use wale_cluster::recovery::RestoreClient;
use wale_cluster::{Checkpoint, Secret, SslMode};
use wale_format::Codec;
use wale_format::crypt::age;
use wale_format::crypt::libsodium::KeyTransform;
use wale_ops::backup_fetch::{BackupSelector, MissingLibraries, RestoreAs};
use wale_ops::backup_push::{
    DEFAULT_WAL_WAIT_LIMIT, DamagedPagePolicy, Priority, Processors, Role,
};
use wale_ops::retention::{DEFAULT_REQUEST_INTERVAL, WalRetention};
use wale_ops::verify::Share;
use wale_ops::wal_fetch::folder::WINDOW_MAX;
use wale_ops::wal_push::LOOK_AHEAD_MAX;
use wale_pg::Zone;
use wale_service::{Schedule, TokenFor};
use wale_storage::{
    AzureChecksum, AzureEndpoint, GcsEndpoint, S3Endpoint, SwiftInterface, UploadChecksum,
};

use super::azure::value::{self as azure, Cloud};
use super::encryption::value as encryption;
use super::gcs::value::{self as gcs, GcsNames};
use super::goal::{self, RestoreTo, TargetAction};
use super::group::Group::{
    Archive, Azure, Backup, Cluster, Endpoint, Gcs, Program, Proxies, Restore, Retention, S3,
    Server, Several, Sidecar, Swift, Wal,
};
use super::machine;
use super::s3::value::{self as s3, Sse};
use super::setting::{Declared, Setting, Values, settings};
use super::shape::{
    ADDRESS, Choice, Cron, DURATION, LEVEL, LINES, NotYet, Number, Opt, PATH, PLACE, PORT, Parsed,
    SECRET, SIZE, SWITCH, TEXT, Text, ZONE,
};
use super::swift::value::{self as swift, AuthVersion, SwiftNames};
use super::value::{self, CompressionLevel};

/// What the sidecar does first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartMode {
    /// Archive and back up on schedule; as the original spelled it.
    ContinousBackup,
    /// The same.
    ContinuousBackup,
    /// The same after a base backup at once.
    BackupPush,
    /// Restore first.
    Restore,
}

impl StartMode {
    const ALL: [Self; 4] = [
        Self::ContinousBackup,
        Self::ContinuousBackup,
        Self::BackupPush,
        Self::Restore,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::ContinousBackup => "CONTINOUS_BACKUP",
            Self::ContinuousBackup => "CONTINUOUS_BACKUP",
            Self::BackupPush => "BACKUP_PUSH",
            Self::Restore => "RESTORE",
        }
    }
}

/// How an event of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// A line of text.
    Text,
    /// A JSON object.
    Json,
}

impl LogFormat {
    const ALL: [Self; 2] = [Self::Text, Self::Json];

    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Partitions that are moved at a time. Beyond 64 they only share the disk and the network.
const WORKERS: RangeInclusive<usize> = 1..=64;

/// The numbers of archives: one digit.
pub(super) const ARCHIVES: RangeInclusive<u8> = 1..=9;

/// As many workers as a verb is told to use, within [`WORKERS`].
pub(crate) fn workers(count: u16) -> usize {
    usize::from(count).clamp(*WORKERS.start(), *WORKERS.end())
}

const AMAZON_KMS: NotYet = NotYet("encryption with a key of Amazon's key service");
const YANDEX_KMS: NotYet = NotYet("encryption with a key of Yandex's key service");
const ENVELOPE: NotYet = NotYet("encryption with an OpenPGP key that a key service encrypts");
const RECIPIENTS: Text<age::Recipients> = Text("public keys", encryption::recipients);
const GRACE: Parsed<Duration> = Parsed(DURATION.0, value::grace);
const SHARE: Parsed<Share> = Parsed("share, as in 5%", value::share);
/// One that is not absolute is taken, too.
const ANY_PATH: Parsed<String> = Parsed(PATH.0, value::text);

fn below_pgdata(values: &Values, name: &str) -> Option<String> {
    text_of(&values.get(&PGDATA).join(name))
}

fn text_of(path: &Path) -> Option<String> {
    Some(path.to_str()?.to_owned())
}

#[rustfmt::skip]
settings! {
    // ------------------------------------------------------------------ archive
    WALE_FILE_PREFIX: Option<String> = Setting::new(Archive, &Opt(PLACE),
        "The archive in a mounted directory, as file://localhost/absolute/path; the host is ignored, as by \
         WAL-E, and a plain absolute path means the same. The directory must exist. Exactly one prefix must be set.")
        .aliases(&["WALG_FILE_PREFIX"]).flag("file-prefix");
    WALE_S3_PREFIX: Option<String> = Setting::new(Archive, &Opt(PLACE),
        "The archive in S3 or a server that speaks like it, as s3://bucket/path. The bucket must exist.")
        .aliases(&["WALG_S3_PREFIX"]).flag("s3-prefix");
    WALE_S3_BUCKET: Option<String> = Setting::new(Archive, &Opt(TEXT),
        "With WALE_S3_PATH another way to write WALE_S3_PREFIX: s3://bucket/path.");
    WALE_S3_PATH: Option<String> = Setting::new(Archive, &Opt(TEXT),
        "The path within WALE_S3_BUCKET.");
    WALE_GS_PREFIX: Option<String> = Setting::new(Archive, &Opt(PLACE),
        "The archive in Google Cloud Storage, as gs://bucket/path. The bucket must exist.")
        .aliases(&["WALG_GS_PREFIX"]).flag("gs-prefix");
    WALE_WABS_PREFIX: Option<String> = Setting::new(Archive, &Opt(PLACE),
        "The archive in Azure Blob Storage, as wabs://container/path. The container must exist.")
        .aliases(&["WALG_AZ_PREFIX"]).flag("wabs-prefix");
    WALE_SWIFT_PREFIX: Option<String> = Setting::new(Archive, &Opt(PLACE),
        "The archive in OpenStack Swift, as swift://container/path. The container must exist.")
        .aliases(&["WALG_SWIFT_PREFIX"]).flag("swift-prefix");
    WALE_PREFIX: Option<String> = Setting::new(Archive, &Opt(PLACE),
        "The archive in any of these stores, by its URL: file, s3, gs, wabs or swift.").flag("prefix");
    WALG_STORAGE_PREFIX: Option<String> = Setting::new(Archive, &Opt(TEXT),
        "WAL-G's: a folder below the prefix in which the archive lies, whichever prefix is set.");
    WALE_COMPRESSION: Codec = Setting::new(Archive, &Choice(&Codec::ALL_WRITABLE, Codec::name),
        "How new objects are compressed. Objects that are already in the archive are read whatever they were \
         written with. Real WAL-E restores what was written with `lzo`; it reads nothing else.")
        .default("zstd").aliases(&["WALG_COMPRESSION_METHOD"]).flag("compression");
    WALE_COMPRESSION_LEVEL: Option<CompressionLevel> = Setting::new(Archive, &Opt(LEVEL),
        "The level of zstd. Levels 1, 2 and 3 are not zstd's own: they are set for PostgreSQL's pages and WAL, where each is nearly as \
         small as zstd's level 3 in half of its time. Text is smaller with 3 than with 1. Level 1 does not code what no match covers where \
         that saves less than a twentieth, as in numbers. The others are zstd's: below 0 \
         faster and larger, from 4 on slower and mostly smaller. The other codecs have no levels. With `auto` zstd tries as hard as \
         the store leaves time for: level 1 while the processor is the limit; while the store is, a search for longer matches, \
         at five and then at twenty-five times the processor time. That takes up to a tenth off WAL and pages, and off some nothing. It \
         is decided for each WAL segment and each part of a base backup, by how long codec and store waited for each other with those \
         before it; a `wal-push` without the sidecar knows none before it and takes level 1.")
        .otherwise("1 for zstd").aliases(&["WALG_ZSTD_LEVEL"]).flag("compression-level");
    WALE_UPLOAD_RATE: Option<u64> = Setting::new(Archive, &Opt(SIZE),
        "The most bytes per second that base backups and copies send to the stores, all together. Archived WAL goes first: it never \
         waits for the limit, and what it takes is left to the others less, down to a piece of 1 MiB a second. A small limit gives a \
         base backup fewer workers.")
        .otherwise("unlimited").aliases(&["WALG_NETWORK_RATE_LIMIT"]).flag("upload-rate");
    WALE_MEMORY: u64 = Setting::new(Archive, &Parsed("size", machine::budget),
        "The memory of the process, whatever the size of the database. 32 MiB of it are for the program, the rest for buffers, \
         of which 16 MiB stay in any case: below 48MiB the process takes more than is set. In a container with a memory limit the \
         default is half the limit where that is less. A restore keeps 24 bytes for each file of the backup, 64 \
         where another tool made it, in a quarter of the buffers; a million files always fit. So many WAL files are sent at a time as it holds.")
        .derived("256MiB, or half the memory limit of the container", |_| Some(machine::default_budget())).flag("memory");
    WALE_GPG_KEY_ID: Option<String> = Setting::new(Archive, &Opt(TEXT),
        "The OpenPGP key that new objects are encrypted to, in the key ring of GNUPGHOME: a key id, a fingerprint or a \
         mail address, as `gpg -r` takes it. Called as wal-e, an empty value counts too, as in WAL-E.")
        .aliases(&["WALG_GPG_KEY_ID"]);
    GNUPGHOME: Option<PathBuf> = Setting::new(Archive, &Opt(PATH),
        "The home of GnuPG, in which `pubring.kbx` or `pubring.gpg` holds the key of WALE_GPG_KEY_ID.")
        .otherwise("~/.gnupg");
    WALE_GPG_SECRET_KEY_FILE: Option<PathBuf> = Setting::new(Archive, &Opt(PATH),
        "A file with the secret OpenPGP key that opens the archive, as `gpg --export-secret-keys` makes it. Without it \
         the gpg program is asked for the key, where it is installed.");
    WALG_PGP_KEY: Option<Secret> = Setting::new(Archive, &Opt(SECRET),
        "The OpenPGP key itself, armoured, public or secret; `\\n` in two characters is the end of a line, too. New objects \
         are encrypted to it, and a secret one opens them.").secret();
    WALG_PGP_KEY_PATH: Option<PathBuf> = Setting::new(Archive, &Opt(PATH),
        "A file with such a key, or several, armoured or not.");
    WALG_PGP_KEY_PASSPHRASE: Option<Secret> = Setting::new(Archive, &Opt(SECRET),
        "The passphrase of the secret OpenPGP key.").secret();
    WALE_AGE_RECIPIENTS: Option<age::Recipients> = Setting::new(Archive, &Opt(RECIPIENTS),
        "Public keys of age, to which new objects are encrypted: age1… or ssh-ed25519 and ssh-rsa of OpenSSH, several \
         separated by commas or in lines of their own. Any one of their owners can read, and this host cannot unless \
         WALE_AGE_IDENTITY_FILE is set, too. It is not shown, in case that somebody sets a secret key here.")
        .secret();
    WALE_AGE_IDENTITY_FILE: Option<PathBuf> = Setting::new(Archive, &Opt(PATH),
        "A file with secret keys of age, as age-keygen writes it, or one private key of OpenSSH without a passphrase, with \
         which objects are read. Restores need it; a host that only archives should not have it.");
    WALG_LIBSODIUM_KEY: Option<Secret> = Setting::new(Archive, &Opt(SECRET),
        "WAL-G's libsodium key, with which new objects are encrypted and old ones read.")
        .secret();
    WALG_LIBSODIUM_KEY_PATH: Option<PathBuf> = Setting::new(Archive, &Opt(PATH),
        "A file with that key. Spaces and ends of lines around the key are taken off.");
    WALG_LIBSODIUM_KEY_TRANSFORM: KeyTransform = Setting::new(Archive, &Choice(&KeyTransform::ALL, KeyTransform::name),
        "How libsodium's keys are written. `none` takes the characters themselves, 25 at least and the first 32 of more, as \
         WAL-G does.")
        .default("none");
    WALE_LIBSODIUM_OLD_KEYS: Option<Secret> = Setting::new(Archive, &Opt(SECRET),
        "Keys of libsodium with which objects are only read, one in each line, written as WALG_LIBSODIUM_KEY_TRANSFORM says: \
         those from before a rotation, or from before another method.")
        .secret();
    WALE_ENCRYPTION_CHANGE: Option<String> = Setting::new(Archive, &Opt(TEXT),
        "What the encryption of the archive may become, in the word with which a change is refused: `none`, or a method with \
         8 digits that stand for its keys. It allows that change and no other, so it may stay.")
        .flag("encryption-change");
    WALG_CSE_KMS_ID: () = Setting::new(Archive, &AMAZON_KMS,
        "WAL-G's key of Amazon's key service. Refused rather than ignored.");
    WALG_CSE_KMS_REGION: () = Setting::new(Archive, &AMAZON_KMS,
        "Its region. Refused rather than ignored.");
    YC_CSE_KMS_KEY_ID: () = Setting::new(Archive, &YANDEX_KMS,
        "WAL-G's key of Yandex's key service. Refused rather than ignored.");
    WALG_ENVELOPE_PGP_KEY: () = Setting::new(Archive, &ENVELOPE,
        "WAL-G's OpenPGP key that a key service encrypts. Refused rather than ignored.").secret();
    WALG_ENVELOPE_PGP_KEY_PATH: () = Setting::new(Archive, &ENVELOPE,
        "The same from a file. Refused rather than ignored.");
    WALG_ENVELOPE_PGP_YC_CSE_KMS_KEY_ID: () = Setting::new(Archive, &ENVELOPE,
        "The key service's key for it. Refused rather than ignored.");
    WALE_FAULT_CONTROL: Option<PathBuf> = Setting::new(Archive, &Opt(PATH),
        "For tests only: a file from which a fault-injecting wrapper around the store takes its orders. \
         Never set it where data matters.")
        .hidden();
    // ------------------------------------------------------------------ S3
    WALE_S3_ENDPOINT: Option<S3Endpoint> = Setting::new(S3, &Opt(Text("text", s3::endpoint)),
        "A server that is not Amazon's, as http[s]+style://host:port. The style says how a request names the bucket: \
         path (host/bucket), subdomain (bucket.host), or virtualhost (the bucket's name itself is the host). A plain \
         URL means path.")
        .aliases(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]).flag("s3-endpoint");
    AWS_S3_FORCE_PATH_STYLE: Option<bool> = Setting::new(S3, &Opt(SWITCH),
        "WAL-G's way to choose the style of a plain URL: on is path, off is subdomain.")
        .otherwise("as WALE_S3_ENDPOINT says").aliases(&["WALG_S3_FORCE_PATH_STYLE"]);
    AWS_REGION: Option<String> = Setting::new(S3, &Opt(Text("text", s3::region)),
        "The region of the bucket. It is part of every signature; without WALE_S3_ENDPOINT it must be set.")
        .otherwise("us-east-1 with WALE_S3_ENDPOINT").aliases(&["AWS_DEFAULT_REGION"]).flag("aws-region");
    AWS_ACCESS_KEY_ID: Option<String> = Setting::new(S3, &Opt(Text("text", s3::header_word)),
        "The name of a pair of keys. It needs AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN when the pair is temporary.")
        .aliases(&["AWS_ACCESS_KEY"]).flag("aws-access-key-id");
    AWS_SECRET_ACCESS_KEY: Option<s3::Secret> = Setting::new(S3, &Opt(Text("text", s3::secret)),
        "The secret of the pair.")
        .aliases(&["AWS_SECRET_KEY"]).secret();
    AWS_SESSION_TOKEN: Option<s3::Secret> = Setting::new(S3, &Opt(Text("text", s3::secret)),
        "The token of a temporary pair of keys.")
        .aliases(&["AWS_SECURITY_TOKEN"]).secret();
    AWS_CREDENTIAL_EXPIRATION: Option<String> = Setting::new(S3, &Opt(TEXT),
        "When a temporary pair of keys ends, as Amazon's tools export it beside them. wale check, /status and an alert warn before; \
         what is no time in RFC 3339 is passed over.");
    AWS_INSTANCE_PROFILE: bool = Setting::new(S3, &SWITCH,
        "Whether the keys are those of the instance's role, from its metadata service (version 2 only).")
        .default("off");
    AWS_EC2_METADATA_SERVICE_ENDPOINT: String = Setting::new(S3, &Text("text", s3::service_url),
        "Where the metadata service is.")
        .default("http://169.254.169.254");
    AWS_PROFILE: Option<String> = Setting::new(S3, &Opt(TEXT),
        "The profile of Amazon's shared files from which the keys are taken: keys, or a role for the keys of another \
         profile or for a web identity. The files are read again when the store refuses the keys.")
        .otherwise("default").aliases(&["AWS_DEFAULT_PROFILE"]);
    AWS_SHARED_CREDENTIALS_FILE: Option<PathBuf> = Setting::new(S3, &Opt(PATH),
        "The file of profiles with keys.")
        .otherwise("~/.aws/credentials");
    AWS_CONFIG_FILE: Option<PathBuf> = Setting::new(S3, &Opt(PATH),
        "The file of profiles with everything else.")
        .otherwise("~/.aws/config");
    AWS_ROLE_ARN: Option<String> = Setting::new(S3, &Opt(Text("text", s3::header_word)),
        "A role that is taken on, for the token in AWS_WEB_IDENTITY_TOKEN_FILE or for the keys that are set.");
    AWS_ROLE_SESSION_NAME: String = Setting::new(S3, &TEXT,
        "How its session is named.").default("wale");
    AWS_WEB_IDENTITY_TOKEN_FILE: Option<PathBuf> = Setting::new(S3, &Opt(PATH),
        "A file with a token for which Amazon gives the keys of a role, as Kubernetes mounts it. It is read again \
         for each renewal.");
    AWS_ENDPOINT_URL_STS: Option<String> = Setting::new(S3, &Opt(Text("text", s3::service_url)),
        "The security token service that gives keys of roles.")
        .otherwise("the region's");
    AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: Option<String> = Setting::new(S3, &Opt(Text("text", s3::task_url)),
        "Where ECS gives the keys of the task's role. ECS sets it.");
    AWS_CONTAINER_CREDENTIALS_FULL_URI: Option<String> = Setting::new(S3, &Opt(Text("text", s3::nearby_url)),
        "Where an agent gives the keys of the pod's role. EKS sets it.");
    AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: Option<PathBuf> = Setting::new(S3, &Opt(PATH),
        "A file with the token for that agent. It is read again for each renewal.");
    AWS_CONTAINER_AUTHORIZATION_TOKEN: Option<s3::Secret> = Setting::new(S3, &Opt(Text("text", s3::secret)),
        "The same token as a value.")
        .secret();
    WALE_S3_STORAGE_CLASS: Option<String> = Setting::new(S3, &Opt(Text("text", s3::header_word)),
        "The storage class of new objects, as STANDARD_IA. Classes that must be restored before they are read, \
         as GLACIER, make an archive that cannot be read when it is needed.")
        .otherwise("the bucket's").aliases(&["WALG_S3_STORAGE_CLASS", "S3_STORAGE_CLASS"]);
    WALE_S3_SSE: Option<Sse> = Setting::new(S3, &Opt(Choice(&Sse::ALL, Sse::name)),
        "Encryption at rest with keys of the store (AES256) or of its key service (aws:kms). WAL-E asked for AES256 \
         with every object; wale does so only when this is set, because Amazon encrypts anyway since 2023 and other \
         servers refuse it.")
        .otherwise("the bucket's").aliases(&["WALG_S3_SSE", "S3_SSE"]);
    WALE_S3_SSE_KMS_KEY_ID: Option<String> = Setting::new(S3, &Opt(Text("text", s3::header_word)),
        "The key of the key service; alone it means WALE_S3_SSE=aws:kms.")
        .otherwise("the account's").aliases(&["WALG_S3_SSE_KMS_ID", "S3_SSE_KMS_ID"]);
    WALE_S3_SSE_C_KEY: Option<s3::Secret> = Setting::new(S3, &Opt(Text("text", s3::secret)),
        "A key of your own for encryption at rest: 32 bytes in base64. The store forgets it after each request; \
         without it the archive cannot be read by anybody.")
        .aliases(&["WALG_S3_SSE_C", "S3_SSE_C"]).secret();
    WALE_S3_CHECKSUM: UploadChecksum = Setting::new(S3, &Choice(&UploadChecksum::ALL, UploadChecksum::name),
        "What is sent along with each upload so that the store refuses a body that was garbled on its way. Old servers \
         know md5 only; a few refuse all.")
        .default("crc32c");
    WALE_S3_CA_FILE: Option<PathBuf> = Setting::new(S3, &Opt(PATH),
        "Certificates, PEM, that are trusted besides the system's.")
        .aliases(&["WALG_S3_CA_CERT_FILE", "S3_CA_CERT_FILE", "AWS_CA_BUNDLE"]);
    // ------------------------------------------------------------------ Swift
    SWIFT_AUTHURL: Option<String> = Setting::new(Swift, &Opt(Text("text", s3::service_url)),
        "The login service, as https://host:5000/v3. A version at its end may be left out. It must be set.")
        .aliases(&["OS_AUTH_URL", "ST_AUTH"]);
    SWIFT_AUTH_VERSION: Option<AuthVersion> = Setting::new(Swift, &Opt(Text("1, 2 or 3", AuthVersion::parse)),
        "The protocol of the login: 1 is Swift's own and Ceph's, 2 and 3 are Keystone's.")
        .otherwise("what SWIFT_AUTHURL ends with, or 2, as for WAL-E")
        .aliases(&["OS_IDENTITY_API_VERSION", "OS_AUTH_VERSION", "ST_AUTH_VERSION"]);
    SWIFT_USER: Option<String> = Setting::new(Swift, &Opt(TEXT),
        "The user's name; with version 1 account:user, with version 2 tenant:user where no tenant is set.")
        .aliases(&["OS_USERNAME", "ST_USER"]);
    SWIFT_USER_ID: Option<String> = Setting::new(Swift, &Opt(TEXT),
        "The user's identifier, in place of the name, with version 3.")
        .aliases(&["OS_USER_ID"]);
    SWIFT_PASSWORD: Option<s3::Secret> = Setting::new(Swift, &Opt(Text("text", s3::secret)),
        "The user's password; with version 1 the key.")
        .aliases(&["OS_PASSWORD", "ST_KEY"]).secret();
    SWIFT_TENANT: Option<String> = Setting::new(Swift, &Opt(TEXT),
        "The tenant's name, which version 3 calls a project.")
        .aliases(&["OS_TENANT_NAME"]);
    SWIFT_TENANT_ID: Option<String> = Setting::new(Swift, &Opt(TEXT),
        "The tenant's identifier, in place of the name.")
        .aliases(&["OS_TENANT_ID"]);
    SWIFT_PROJECT_NAME: Option<String> = Setting::new(Swift, &Opt(TEXT),
        "The project's name; the same as SWIFT_TENANT, and counts before it.")
        .aliases(&["OS_PROJECT_NAME"]);
    SWIFT_PROJECT_ID: Option<String> = Setting::new(Swift, &Opt(TEXT),
        "The project's identifier; the same as SWIFT_TENANT_ID, and counts before it.")
        .aliases(&["OS_PROJECT_ID"]);
    SWIFT_DOMAIN_NAME: Option<String> = Setting::new(Swift, &Opt(TEXT),
        "The name of the domain of user and project, with version 3, where neither has a domain of its own set.")
        .aliases(&["OS_DEFAULT_DOMAIN_NAME"]);
    SWIFT_DOMAIN_ID: Option<String> = Setting::new(Swift, &Opt(TEXT),
        "The same as an identifier.")
        .otherwise("default").aliases(&["OS_DEFAULT_DOMAIN", "OS_DEFAULT_DOMAIN_ID"]);
    SWIFT_USER_DOMAIN_NAME: Option<String> = Setting::new(Swift, &Opt(TEXT),
        "The name of the user's domain.")
        .otherwise("SWIFT_DOMAIN_NAME").aliases(&["OS_USER_DOMAIN_NAME"]);
    SWIFT_USER_DOMAIN_ID: Option<String> = Setting::new(Swift, &Opt(TEXT),
        "The identifier of the user's domain.")
        .otherwise("SWIFT_DOMAIN_ID").aliases(&["OS_USER_DOMAIN_ID"]);
    SWIFT_PROJECT_DOMAIN_NAME: Option<String> = Setting::new(Swift, &Opt(TEXT),
        "The name of the project's domain.")
        .otherwise("SWIFT_DOMAIN_NAME").aliases(&["OS_PROJECT_DOMAIN_NAME"]);
    SWIFT_PROJECT_DOMAIN_ID: Option<String> = Setting::new(Swift, &Opt(TEXT),
        "The identifier of the project's domain.")
        .otherwise("SWIFT_DOMAIN_ID").aliases(&["OS_PROJECT_DOMAIN_ID"]);
    SWIFT_APPLICATION_CREDENTIAL_ID: Option<String> = Setting::new(Swift, &Opt(TEXT),
        "An application credential of Keystone's, in place of user, password and project. It means version 3.")
        .aliases(&["OS_APPLICATION_CREDENTIAL_ID"]);
    SWIFT_APPLICATION_CREDENTIAL_NAME: Option<String> = Setting::new(Swift, &Opt(TEXT),
        "The same by its name; it belongs to the user that is set, without a password.")
        .aliases(&["OS_APPLICATION_CREDENTIAL_NAME"]);
    SWIFT_APPLICATION_CREDENTIAL_SECRET: Option<s3::Secret> = Setting::new(Swift, &Opt(Text("text", s3::secret)),
        "The secret of the application credential.")
        .aliases(&["OS_APPLICATION_CREDENTIAL_SECRET"]).secret();
    SWIFT_REGION: Option<String> = Setting::new(Swift, &Opt(TEXT),
        "The region of the account, as the login's catalog names it.")
        .otherwise("the first in the catalog").aliases(&["OS_REGION_NAME"]);
    SWIFT_ENDPOINT_TYPE: SwiftInterface = Setting::new(Swift, &Text("publicURL, internalURL or adminURL", swift::interface),
        "The network from which the account is reached, as the login's catalog names it.")
        .default("publicURL").aliases(&["OS_ENDPOINT_TYPE", "OS_INTERFACE"]);
    SWIFT_STORAGE_URL: Option<String> = Setting::new(Swift, &Opt(Text("text", s3::service_url)),
        "The account's URL, as https://host/v1/AUTH_project, in place of the one that the login gives.")
        .otherwise("the login's").aliases(&["OS_STORAGE_URL"]);
    WALE_SWIFT_NAMES: Option<SwiftNames> = Setting::new(Swift, &Opt(Choice(&SwiftNames::ALL, SwiftNames::name)),
        "The tool whose spelling names in the container have: WAL-E's begin with a slash, WAL-G's do not. While it is \
         not set, an archive that is there under the other spelling is an error, and not an empty archive.")
        .otherwise("wal-e");
    WALE_SWIFT_CA_FILE: Option<PathBuf> = Setting::new(Swift, &Opt(PATH),
        "Certificates, PEM, that are trusted besides the system's.")
        .aliases(&["OS_CACERT"]);
    // ------------------------------------------------------------------ Google Cloud Storage
    GOOGLE_APPLICATION_CREDENTIALS: Option<PathBuf> = Setting::new(Gcs, &Opt(PATH),
        "The file of an account: the key of a service account, a user's own, a workload that another issuer vouches for \
         (workload identity federation), or an account that one of these stands in for. It is read for each token.")
        .otherwise("~/.config/gcloud/application_default_credentials.json, and without it the metadata server");
    GCE_METADATA_HOST: String = Setting::new(Gcs, &Text("text", gcs::metadata_host),
        "The metadata server that gives tokens of a machine's or a pod's own account, as host or host:port.")
        .default("169.254.169.254");
    WALE_GS_ANONYMOUS: bool = Setting::new(Gcs, &SWITCH,
        "Whether requests carry no token, for an emulator.")
        .default("off");
    WALE_GS_ENDPOINT: Option<GcsEndpoint> = Setting::new(Gcs, &Opt(Text("text", gcs::endpoint)),
        "A server that is not at Google's usual address, as a URL: a private endpoint of Google's, or another program \
         that speaks the JSON API. It is tried before the first write.")
        .otherwise("https://storage.googleapis.com").flag("gs-endpoint");
    STORAGE_EMULATOR_HOST: Option<GcsEndpoint> = Setting::new(Gcs, &Opt(Text("text", gcs::emulator)),
        "An emulator, as Google's libraries take it: host:port or a URL. Requests to it carry no token.");
    WALE_GS_NAMES: Option<GcsNames> = Setting::new(Gcs, &Opt(Choice(&GcsNames::ALL, GcsNames::name)),
        "The tool whose spelling names of objects have: WAL-E's begin with a slash (/path/wal_005/…), WAL-G's do not \
         (path/wal_005/…). Without it an archive that seems to be empty is looked for under the other spelling too, and \
         refused when it is there.")
        .otherwise("wal-g with WALG_GS_PREFIX, otherwise wal-e");
    GCS_NORMALIZE_PREFIX: Option<bool> = Setting::new(Gcs, &Opt(SWITCH),
        "WAL-G's way to say it: on is wal-g, and off takes what follows the bucket and a slash as it is, so that \
         gs://bucket//path is an archive of WAL-E's.")
        .otherwise("as WALE_GS_NAMES says").aliases(&["WALG_GCS_NORMALIZE_PREFIX", "WALE_GCS_NORMALIZE_PREFIX"]);
    WALE_GS_STORAGE_CLASS: Option<String> = Setting::new(Gcs, &Opt(Text("text", s3::header_word)),
        "The storage class of new objects, as NEARLINE. All can be read at once; the colder ones bill each reading and at \
         least 30 days or more of each object.")
        .otherwise("the bucket's");
    WALE_GS_KMS_KEY: Option<String> = Setting::new(Gcs, &Opt(Text("text", s3::header_word)),
        "The key of the key service with which new objects are encrypted at rest, as \
         projects/P/locations/L/keyRings/R/cryptoKeys/K.")
        .otherwise("the bucket's");
    WALE_GS_ENCRYPTION_KEY: Option<s3::Secret> = Setting::new(Gcs, &Opt(Text("text", s3::secret)),
        "A key of your own for encryption at rest: 32 bytes in base64. The store forgets it after each request; \
         without it the archive cannot be read by anybody.")
        .aliases(&["GCS_ENCRYPTION_KEY", "WALG_GCS_ENCRYPTION_KEY", "WALE_GCS_ENCRYPTION_KEY"]).secret();
    WALE_GS_CA_FILE: Option<PathBuf> = Setting::new(Gcs, &Opt(PATH),
        "Certificates, PEM, that are trusted besides the system's.");
    // ------------------------------------------------------------------ proxies
    HTTPS_PROXY: Option<s3::Secret> = Setting::new(Proxies, &Opt(Text("text", s3::secret)),
        "The proxy for https:// requests to the store and to services that give credentials, as a URL. It may hold a \
         user and a password.")
        .aliases(&["https_proxy"]).secret();
    HTTP_PROXY: Option<s3::Secret> = Setting::new(Proxies, &Opt(Text("text", s3::secret)),
        "The same for http://.")
        .aliases(&["http_proxy"]).secret();
    NO_PROXY: Option<String> = Setting::new(Proxies, &Opt(TEXT),
        "Hosts, domains and networks that are reached without a proxy, separated by commas.")
        .aliases(&["no_proxy"]);
    // ------------------------------------------------------------------ Azure
    WABS_ACCOUNT_NAME: Option<String> = Setting::new(Azure, &Opt(Text("text", azure::account)),
        "The storage account. It must be set.")
        .aliases(&["AZURE_STORAGE_ACCOUNT", "WALG_AZURE_STORAGE_ACCOUNT"]).flag("wabs-account-name");
    WABS_ACCESS_KEY: Option<s3::Secret> = Setting::new(Azure, &Opt(Text("text", azure::access_key)),
        "The key of the account, base64. It signs every request and is never sent.")
        .aliases(&["AZURE_STORAGE_ACCESS_KEY", "WALG_AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_KEY"]).secret();
    WABS_SAS_TOKEN: Option<s3::Secret> = Setting::new(Azure, &Opt(Text("text", azure::shared_access)),
        "A shared access signature: the query, with or without the question mark before it. It needs the rights to read, \
         write, create, delete and list.")
        .aliases(&["AZURE_STORAGE_SAS_TOKEN", "WALG_AZURE_STORAGE_SAS_TOKEN"]).secret();
    AZURE_TENANT_ID: Option<String> = Setting::new(Azure, &Opt(Text("text", azure::identifier)),
        "The tenant of Entra in which the application AZURE_CLIENT_ID is.");
    AZURE_CLIENT_ID: Option<String> = Setting::new(Azure, &Opt(Text("text", azure::identifier)),
        "The application for which tokens are asked; without a secret and a token file the managed identity that is \
         meant, where the host has several.");
    AZURE_CLIENT_SECRET: Option<s3::Secret> = Setting::new(Azure, &Opt(Text("text", s3::secret)),
        "A secret of that application.")
        .secret();
    AZURE_FEDERATED_TOKEN_FILE: Option<PathBuf> = Setting::new(Azure, &Opt(PATH),
        "A file with a token for which Entra gives one of the application, as Kubernetes mounts it for a workload identity. \
         It is read again for each renewal.");
    AZURE_AUTHORITY_HOST: Option<String> = Setting::new(Azure, &Opt(Text("text", s3::nearby_url)),
        "Where Entra gives tokens.")
        .otherwise("the cloud's");
    AZURE_POD_IDENTITY_AUTHORITY_HOST: String = Setting::new(Azure, &Text("text", s3::nearby_url),
        "The metadata service that gives tokens of the host's managed identity, which is used when neither a key nor a \
         shared access signature nor an application is set.")
        .default("http://169.254.169.254");
    AZURE_ENVIRONMENT_NAME: Cloud = Setting::new(Azure, &Choice(&Cloud::ALL, Cloud::name),
        "Microsoft's cloud in which the account is.")
        .default("AzurePublicCloud").aliases(&["WALG_AZURE_ENVIRONMENT_NAME"]);
    AZURE_ENDPOINT_SUFFIX: Option<String> = Setting::new(Azure, &Opt(Text("text", azure::domain)),
        "The domain of the cloud: the account is at account.blob. and this.")
        .otherwise("the cloud's, core.windows.net").aliases(&["WALG_AZURE_ENDPOINT_SUFFIX"]);
    WALE_WABS_ENDPOINT: Option<AzureEndpoint> = Setting::new(Azure, &Opt(Text("text", azure::endpoint)),
        "A server at another address, as http[s]://host[:port][/path]: a private endpoint, an emulator. The path is what \
         stands before the container, with Azurite the account.")
        .flag("wabs-endpoint");
    WALE_WABS_CHECKSUM: Option<AzureChecksum> = Setting::new(Azure, &Opt(Choice(&AzureChecksum::ALL, AzureChecksum::name)),
        "What is sent along with each upload so that the store refuses a body that was garbled on its way.")
        .otherwise("crc64; md5 with WALE_WABS_ENDPOINT");
    AZURE_BLOB_STORE_API_VERSION: Option<String> = Setting::new(Azure, &Opt(Text("text", s3::header_word)),
        "The version of the protocol that is spoken (x-ms-version), for servers that know no newer one.")
        .otherwise("2021-12-02").aliases(&["WALG_AZURE_BLOB_STORE_API_VERSION"]);
    WALE_WABS_CA_FILE: Option<PathBuf> = Setting::new(Azure, &Opt(PATH),
        "Certificates, PEM, that are trusted besides the system's.");
    // ------------------------------------------------------------------ cluster
    PGDATA: PathBuf = Setting::new(Cluster, &PATH,
        "The data directory, as the sidecar sees it.")
        .default("/var/lib/postgresql/data").flag("pgdata");
    PGWAL: PathBuf = Setting::new(Cluster, &PATH,
        "The WAL directory, as the sidecar sees it. When it lies outside of the data directory, a restore makes pg_wal \
         a link to it, so it must have the same path for the server.")
        .derived("$PGDATA/pg_wal", |values| below_pgdata(values, "pg_wal")).flag("pgwal");
    // ------------------------------------------------------------------ server
    PGHOST: String = Setting::new(Server, &Text("text", value::host),
        "The server's host name, address, or the directory of its Unix socket.")
        .default("localhost");
    PGPORT: u16 = Setting::new(Server, &PORT,
        "The server's port.").default("5432");
    PGUSER: String = Setting::new(Server, &Text("text", value::name),
        "The role of the control connection. It needs EXECUTE on the backup functions, and membership in pg_read_all_settings: \
         without that the backup lacks a configuration outside of the data directory and the names of the preloaded libraries. \
         A superuser has both.")
        .default("postgres");
    PGPASSWORD: Option<Secret> = Setting::new(Server, &Opt(SECRET),
        "The role's password.").secret();
    PGPASSFILE: Option<PathBuf> = Setting::new(Server, &Opt(PATH),
        "libpq's password file.").derived("~/.pgpass", |values| text_of(&values.home()?.join(".pgpass")));
    PGDATABASE: String = Setting::new(Server, &Text("text", value::name),
        "The database to connect to.").default("postgres");
    PGSSLMODE: SslMode = Setting::new(Server, &Choice(&SslMode::ALL, SslMode::name),
        "Whether the connection is encrypted and the server's certificate checked, as in libpq.")
        .default("prefer");
    PGSSLROOTCERT: Option<PathBuf> = Setting::new(Server, &Opt(PATH),
        "The certificates against which the server's is checked, PEM.")
        .otherwise("the system's");
    PGSSLCERT: Option<PathBuf> = Setting::new(Server, &Opt(PATH),
        "The client's certificate, PEM. Needs PGSSLKEY.");
    PGSSLKEY: Option<PathBuf> = Setting::new(Server, &Opt(PATH),
        "The key of the client's certificate, PEM, not encrypted.");
    PGCONNECT_TIMEOUT: Duration = Setting::new(Server, &DURATION,
        "How long one attempt to connect may take.")
        .default("10s");
    // ------------------------------------------------------------------ endpoint
    WALE_SIDECAR_HOSTNAME: String = Setting::new(Endpoint, &TEXT,
        "The name by which PostgreSQL reaches the sidecar. It goes into restore_command, and `wale client` \
         connects to it.")
        .default("localhost").flag("sidecar-hostname");
    WALE_LISTEN_ADDRESS: IpAddr = Setting::new(Endpoint, &ADDRESS,
        "The address on which the sidecar listens. All addresses by default: between containers nothing else works.")
        .default("0.0.0.0").flag("listen-address");
    WALE_LISTEN_PORT: u16 = Setting::new(Endpoint, &PORT,
        "The port on which the sidecar listens.")
        .default("5000").flag("listen-port");
    WALE_HTTP_TOKEN: Option<Secret> = Setting::new(Endpoint, &Opt(Text("text", value::token)),
        "When set, requests other than the probes must carry it, as a bearer token or as the password of basic \
         authentication.")
        .secret();
    WALE_PING_URL: Option<Secret> = Setting::new(Sidecar, &Opt(Text("text", value::web_address)),
        "An address that the sidecar asks for after each base backup that it has taken, with `/start` at the end when one begins \
         and `/fail` when one has failed, as healthchecks.io and others take it.")
        .secret();
    WALE_WEBHOOK_URL: Option<Secret> = Setting::new(Sidecar, &Opt(Text("text", value::web_address)),
        "An address to which the sidecar posts a message of JSON for each thing that a person must know, and when it is so no \
         more: a failed backup, a gap, a conflict, retention that is stuck, a store that stays away.")
        .secret();
    WALE_WEBHOOK_KEY: Option<Secret> = Setting::new(Sidecar, &Opt(Text("text", value::secret)),
        "What the messages to WALE_WEBHOOK_URL are signed with: the header `wale-signature` is `sha256=` and the HMAC-SHA256 of \
         the header `wale-timestamp`, a full stop and the body, in hexadecimal digits.")
        .secret();
    WALE_HTTP_TOKEN_FOR: TokenFor = Setting::new(Endpoint, &Choice(&TokenFor::ALL, TokenFor::name),
        "Which requests must carry the token. `reads`: everything that reads data, starts work or shows the cluster; a \
         push needs none then, so archive_command stays as it is and holds no secret. The probes never need it.")
        // No flag that begins with the secret's name: an abbreviation would be taken for it.
        .default("everything").flag("require-token-for");
    WALE_HTTP_HOSTS: Option<Vec<String>> = Setting::new(Endpoint, &Opt(Text("text", value::host_names)),
        "Further names by which the sidecar is asked, separated by commas; `*.example.org` stands for all below it. \
         Addresses, names without a dot, *.local, *.internal, *.svc, *.cluster.local and WALE_SIDECAR_HOSTNAME need \
         not be named. Under any other name nothing is read and no backup is begun (a web page can give itself such a \
         name); a push is served and reported once.")
        .flag("http-hosts");
    WALE_TLS_CERT_FILE: Option<PathBuf> = Setting::new(Endpoint, &Opt(PATH),
        "The sidecar's certificate, PEM, with intermediate ones after it. With WALE_TLS_KEY_FILE the endpoint speaks \
         TLS and nothing else on its port. Both files are checked every 5 seconds: a new pair is taken over without a \
         restart.")
        .flag("tls-cert-file");
    WALE_TLS_KEY_FILE: Option<PathBuf> = Setting::new(Endpoint, &Opt(PATH),
        "The key of WALE_TLS_CERT_FILE, PEM, not encrypted, readable by the sidecar's user alone.")
        .flag("tls-key-file");
    WALE_CLIENT_CA_FILE: Option<PathBuf> = Setting::new(Endpoint, &Opt(PATH),
        "The certificates, PEM, against which clients check the sidecar's, at its path in the database's image. It \
         goes into restore_command, and `wale client` uses it, with https.")
        .otherwise("the system's").flag("client-ca-file");
    // ------------------------------------------------------------------ sidecar
    START_MODE: StartMode = Setting::new(Sidecar, &Choice(&StartMode::ALL, StartMode::name),
        "What the sidecar does first: archive and back up on schedule; the same after a base backup at once; or \
         restore a base backup and then the same. The first spelling is the original's.")
        .default("CONTINOUS_BACKUP").flag("start-mode");
    CRON_TIMING: Option<Schedule> = Setting::new(Sidecar, &Cron,
        "When base backups are taken, in the time zone TZ: minute, hour, day of month, month, day of week. \
         `off`, or an empty value, disables the schedule.")
        .default("0 0 * * *").flag("cron-timing");
    WALE_BACKUP_ROLE: Role = Setting::new(Sidecar, &Choice(&Role::ALL, Role::name),
        "Which servers the scheduled base backups are taken of. One is taken for each slot of the schedule, however \
         many sidecars share the archive. Backups that are asked for are taken of any.")
        .default("any").flag("backup-role");
    WALE_BACKUP_REQUEST_INTERVAL: Duration = Setting::new(Sidecar, &DURATION,
        "How long after the beginning of the newest base backup /backup-push may begin another one; before that it \
         answers 503. 0 takes one whenever it is asked for.")
        .default("0");
    TZ: Zone = Setting::new(Sidecar, &ZONE,
        "The time zone of CRON_TIMING.").default("UTC");
    WALE_INIT_LOCKFILE: PathBuf = Setting::new(Sidecar, &PATH,
        "The lock file for which the database container waits. The sidecar removes it when PostgreSQL may start.")
        .derived("$PGDATA/wale_init_lockfile", |values| below_pgdata(values, "wale_init_lockfile")).flag("init-lockfile");
    NOTIFY_SOCKET: Option<String> = Setting::new(Sidecar, &Opt(TEXT),
        "Where the sidecar says that PostgreSQL may start, and that it stops itself. systemd sets it (sd_notify).");
    WALE_SHUTDOWN_GRACE: Duration = Setting::new(Sidecar, &DURATION,
        "How long the sidecar goes on archiving after SIGTERM while the server is still there. Give the \
         container a longer stop time-out than this.")
        .default("60s").flag("shutdown-grace");
    // ------------------------------------------------------------------ wal
    WALE_PUSH_LOOK_AHEAD: usize = Setting::new(Wal, &Number(0..=LOOK_AHEAD_MAX),
        "How many segments that wait in archive_status are archived ahead of PostgreSQL's request. 0 disables it.")
        .default("2").flag("push-look-ahead");
    WALE_FETCH_PREFETCH: usize = Setting::new(Wal, &Number(0..=WINDOW_MAX),
        "How many segments are fetched ahead of recovery's request. 0 disables it.")
        .default("8").flag("fetch-prefetch");
    WALE_FETCH_DEADLINE: Duration = Setting::new(Wal, &DURATION,
        "How long a fetch tries to reach the store before it reports that it cannot.")
        .default("60s").flag("fetch-deadline");
    WALE_FETCH_STOPS_RECOVERY: bool = Setting::new(Wal, &SWITCH,
        "PostgreSQL takes an exit status of 1 to 125 of restore_command as the end of the WAL and promotes. So \
         wal-fetch ends with 250, which stops the recovery, when the archive cannot answer and the cluster is in \
         archive recovery and not a standby. `off` gives an ordinary status instead.")
        .default("on").flag("fetch-stops-recovery");
    // ------------------------------------------------------------------ backup
    WALE_BACKUP_WORKERS: usize = Setting::new(Backup, &Number(WORKERS),
        "How many partitions of a base backup are made at a time. The uploads of as many more may be ending meanwhile.")
        .derived("the number of processors, 2 to 8", |_| Some(machine::workers().to_string()))
        .aliases(&["WALG_UPLOAD_DISK_CONCURRENCY"]).flag("backup-workers");
    WALE_BACKUP_CHECKPOINT: Checkpoint = Setting::new(Backup, &Choice(&Checkpoint::ALL, Checkpoint::name),
        "Whether a base backup begins with an immediate checkpoint or waits for a spread one.")
        .default("fast").flag("backup-checkpoint");
    WALE_BACKUP_WAL_TIMEOUT: Duration = Setting::new(Backup, &DURATION,
        "How long the end of a base backup waits for its WAL to be in the archive. A backup without its WAL \
         cannot be restored and is not listed.")
        .default_time(DEFAULT_WAL_WAIT_LIMIT).flag("backup-wal-timeout");
    WALE_BACKUP_READ_RATE: Option<u64> = Setting::new(Backup, &Opt(SIZE),
        "The most bytes per second that a base backup reads from the data directory, all workers together.")
        .otherwise("unlimited").aliases(&["WALG_DISK_RATE_LIMIT"]).flag("backup-read-rate");
    WALE_BACKUP_CPUS: Option<Processors> = Setting::new(Backup, &Opt(Parsed("number of processors", value::processors)),
        "The most processors that the workers of a base backup take, all together, as in `0.5`: reading, checking and compressing. \
         It holds whoever else wants them, and the backup takes longer.")
        .otherwise("unlimited").flag("backup-cpus");
    WALE_BACKUP_PRIORITY: Priority = Setting::new(Backup, &Choice(&Priority::ALL, Priority::name),
        "What the system gives the workers of a base backup where others want it too. `low` gives their threads nice 19, and with \
         it the lowest best-effort priority of I/O, if the disk's scheduler knows priorities. It counts only among what runs in the \
         same control group: in a container of its own give that one a small weight instead. Archiving of WAL keeps its priority.")
        .default("normal").flag("backup-priority");
    WALE_DAMAGED_PAGES: DamagedPagePolicy = Setting::new(Backup, &Choice(&DamagedPagePolicy::ALL, DamagedPagePolicy::name),
        "What a page whose checksum does not match does to a base backup: `record` writes it into the backup's \
         record and the log, `fail` ends the backup.")
        .default("record").flag("damaged-pages");
    // ------------------------------------------------------------------ verification
    WALE_VERIFY_SCHEDULE: Option<Schedule> = Setting::new(Sidecar, &Cron,
        "When the sidecar reads the archive to its last byte to verify it, as `wale verify --content` does, in the time zone \
         TZ: five fields as CRON_TIMING's. What is damaged is in `/status`, in the log and in a metric.")
        .default("off").flag("verify-schedule");
    WALE_VERIFY_OLDER_THAN: Duration = Setting::new(Sidecar, &DURATION,
        "What a scheduled verification found good within this time is not read again.")
        .default("30d").flag("verify-older-than");
    WALE_VERIFY_SAMPLE: Option<Share> = Setting::new(Sidecar, &Opt(SHARE),
        "About how much of what is stored a scheduled verification reads, as in `5%`. What was read longest ago, or never, comes \
         first, so that samples cover everything in turn.")
        .otherwise("all that is due").flag("verify-sample");
    WALE_VERIFY_RATE: u64 = Setting::new(Sidecar, &Parsed(SIZE.0, value::rate),
        "The most stored bytes per second that a scheduled verification reads, 1MiB or more.")
        .default("16MiB").flag("verify-rate");
    // ------------------------------------------------------------------ retention
    WALE_RETAIN_BACKUPS: Option<u32> = Setting::new(Retention, &Opt(Number(1..=100_000)),
        "Keep so many of the newest base backups. The rules of this section are united: what any of them keeps \
         stays, with the WAL it needs. Without any rule nothing is ever deleted. They are applied after each \
         successful base backup, and by `wale retain`.")
        .flag("retain-backups");
    WALE_RETAIN_DAYS: Option<u32> = Setting::new(Retention, &Opt(Number(1..=36_500)),
        "Keep every moment of the last so many days recoverable: the base backups that ended within them, and the \
         newest one before.")
        .flag("retain-days");
    WALE_RETAIN_DAILY: Option<u32> = Setting::new(Retention, &Opt(Number(1..=36_500)),
        "Keep the last base backup of each of so many days that have one. Days begin at midnight in the time zone TZ.")
        .flag("retain-daily");
    WALE_RETAIN_WEEKLY: Option<u32> = Setting::new(Retention, &Opt(Number(1..=5_200)),
        "Keep the last base backup of each of so many weeks that have one. Weeks begin on Monday.")
        .flag("retain-weekly");
    WALE_RETAIN_MONTHLY: Option<u32> = Setting::new(Retention, &Opt(Number(1..=1_200)),
        "Keep the last base backup of each of so many months that have one.")
        .flag("retain-monthly");
    WALE_RETAIN_WAL: WalRetention = Setting::new(Retention, &Choice(&WalRetention::ALL, WalRetention::name),
        "How much WAL stays for base backups that only the calendar rules or a mark keep: `all` since their start, \
         so that every moment since can be recovered, or as much as makes them `consistent`, so that they can be \
         restored as of their own end (recovery_target = 'immediate').")
        .default("all").flag("retain-wal");
    WALE_RETAIN_REQUEST_INTERVAL: Duration = Setting::new(Retention, &DURATION,
        "The rules count a base backup that was requested over HTTP only when it began so long after the one before \
         it. One that came sooner is not counted and stays as long as the one before it: asking often pushes no other \
         backup out. 0 counts every one.")
        .default_time(DEFAULT_REQUEST_INTERVAL);
    WALE_SWEEP_GRACE: Duration = Setting::new(Retention, &GRACE,
        "An unfinished upload for which nothing was stored for so long is taken for the remains of a crash and \
         removed. So is a base backup without its final record and without wale's claim on its name (another tool's). \
         What a base backup of wale's left goes ten minutes after its claim was last refreshed. At least 1h; the \
         sidecar waits longer where WALE_BACKUP_WAL_TIMEOUT demands it.")
        .default("24h");
    // ------------------------------------------------------------------ several archives
    WALE_MAX_ARCHIVE_LAG: Option<Duration> = Setting::new(Several, &Opt(DURATION),
        "The most that a further archive may lag behind the first. While one lags more, a push through the sidecar answers \
         503 and PostgreSQL keeps its WAL. Without it the lag is reported, and has no bound.").flag("max-archive-lag");
    WALE_RETAIN_WAIT: Duration = Setting::new(Several, &DURATION,
        "How long the sidecar's retention of the first archive waits for a further one that lags behind, from when it began to. \
         After that the first deletes what its rules do not keep, although the further one may never get it. 0 does not wait.")
        .default("72h").flag("retain-wait");
    WALE_ARCHIVE: Option<u8> = Setting::new(Several, &Opt(Number(ARCHIVES)),
        "Use the archive of this number alone, as if there were no other: to read one of several, or when the first is lost. \
         1 is the one whose settings have no number.").flag("archive");
    // ------------------------------------------------------------------ restore
    WALE_RESTORE_LABEL: BackupSelector = Setting::new(Restore, &Text("text", value::selector),
        "The base backup to restore: a full name as `backup-list` prints it, or LATEST: with a time or a position as \
         recovery target the newest that ends before it.")
        .default("LATEST").flag("restore-label");
    WALE_RESTORE_WORKERS: usize = Setting::new(Restore, &Number(WORKERS),
        "How many partitions are restored at a time.")
        .derived("the number of processors, 2 to 8", |_| Some(machine::workers().to_string()))
        .aliases(&["WALG_DOWNLOAD_CONCURRENCY"]).flag("restore-workers");
    WALE_RESTORE_AS: RestoreAs = Setting::new(Restore, &Choice(&RestoreAs::ALL, RestoreAs::name),
        "What the restored cluster becomes: `primary` recovers and promotes, `standby` keeps asking for WAL.")
        .default("primary").flag("restore-as");
    WALE_RESTORE_CLIENT: RestoreClient = Setting::new(Restore, &Choice(&RestoreClient::ALL, RestoreClient::name),
        "The program in the database's image with which restore_command fetches WAL from the sidecar. `wget` is GNU \
         Wget, and BusyBox's where there is neither token nor TLS. `busybox` is BusyBox's with a token, which every \
         user of the host can then see in the list of processes; it cannot check a certificate and is refused with TLS.")
        .default("wget").flag("restore-client");
    WALE_RESTORE_COMMAND: Option<String> = Setting::new(Restore, &Opt(TEXT),
        "The whole restore_command, in place of the one that wale writes. One line. It must end with a status \
         above 125 when it cannot tell whether the archive has the file.")
        .flag("restore-command");
    WALE_RESTORE_LIBRARIES: MissingLibraries = Setting::new(Restore, &Choice(&MissingLibraries::ALL, MissingLibraries::name),
        "What a restore does when a server of the backup's version is installed here, beside wale, and lacks a library \
         that the backup's server had loaded at its start, or TimescaleDB's version: `require` refuses before anything \
         is written, `warn` is for a server that runs elsewhere. Where no such server is found, it warns.")
        .default("require").flag("restore-libraries");
    WALE_RESTORE_TO: RestoreTo = Setting::new(Restore, &Choice(&RestoreTo::ALL, RestoreTo::name),
        "Where recovery ends: `latest` at the end of the archive, `immediate` at the end of the base backup.")
        .default("latest");
    WALE_RESTORE_TO_TIME: Option<String> = Setting::new(Restore, &Opt(Parsed("time with its zone", goal::time)),
        "Recovery ends before the first commit after this time, as in 2026-11-22 07:06:29+00.");
    WALE_RESTORE_TO_LSN: Option<String> = Setting::new(Restore, &Opt(Parsed("WAL position", goal::position)),
        "Recovery ends at this position, as in 0/3000148.");
    WALE_RESTORE_TO_NAME: Option<String> = Setting::new(Restore, &Opt(Text("text", goal::point)),
        "Recovery ends at this restore point (`pg_create_restore_point`).");
    WALE_RESTORE_TO_XID: Option<String> = Setting::new(Restore, &Opt(Parsed("transaction number", goal::transaction)),
        "Recovery ends with this transaction.");
    WALE_RESTORE_EXCLUSIVE: bool = Setting::new(Restore, &SWITCH,
        "Recovery ends before its target: without the commit that has the time, the position or the number.")
        .default("off");
    WALE_RESTORE_TIMELINE: Option<String> = Setting::new(Restore, &Opt(Parsed("`latest`, `current` or a number", goal::timeline)),
        "The timeline that recovery follows. PostgreSQL 10 and 11 do not know `current`.")
        .otherwise("latest");
    WALE_RESTORE_ACTION: Option<TargetAction> = Setting::new(Restore, &Opt(Choice(&TargetAction::ALL, TargetAction::name)),
        "What the server does at its target: wait read-only to be looked at, take writes, or stop.")
        .otherwise("pause");
    RECOVERY_ADDITION: Option<String> = Setting::new(Restore, &Opt(LINES),
        "Lines added to the recovery settings, PostgreSQL's own, as in primary_conninfo = 'host=primary'. A target stands here or \
         in one of the settings above.");
    PGCONF_BACKUP_DIR: Option<PathBuf> = Setting::new(Restore, &Opt(PATH),
        "A directory whose configuration files (*.conf, conf.d, and what they include in it) are copied into the data \
         directory after a restore. Lines that lead to the original, such as data_directory, become comments.");
    WALE_TABLESPACE_MAPPING: Option<Vec<(String, PathBuf)>> = Setting::new(Restore, &Opt(Text("text", value::mappings)),
        "Where tablespaces are restored to, as OLD=NEW pairs separated by commas. OLD is the directory that the \
         backup records or the tablespace's OID.");
    // ------------------------------------------------------------------ program
    WALE_LOG: Targets = Setting::new(Program, &Parsed("level, or `target=level` pairs", value::log_filter),
        "What is logged: error, warn, info, debug or trace, or pairs as in info,wale_storage=debug.")
        .default("info").aliases(&["WALG_LOG_LEVEL"]).flag("log");
    WALE_LOG_FORMAT: LogFormat = Setting::new(Program, &Choice(&LogFormat::ALL, LogFormat::name),
        "One line of text or one JSON object for each event, on standard error.")
        .default("text").flag("log-format");
    WALE_LOG_DESTINATION: Option<String> = Setting::new(Program, &Opt(TEXT),
        "Where the log goes: `stderr`, `syslog` or both, separated by a comma. Other words are ignored; with no word \
         that is known only failures are reported.")
        .otherwise("stderr; stderr,syslog when called as wal-e").flag("log-destination");
    WALE_SYSLOG_FACILITY: String = Setting::new(Program, &TEXT,
        "The facility of records in the system log: USER, LOCAL0 to LOCAL7, or another name of syslog's.")
        .default("USER").flag("syslog-facility");
    WALE_SYSLOG_SOCKET: Option<PathBuf> = Setting::new(Program, &Opt(PATH),
        "For tests only: the socket of the system log.")
        .hidden();
    WALE_CONFIG_FILE: Option<String> = Setting::new(Program, &Opt(ANY_PATH),
        "A file with lines NAME=value, read where neither a flag nor the environment has a value.")
        .flag("config-file");
}

/// Variables of WAL-E and its relatives that have no effect here, and why. They are known so that
/// nobody is told about a misspelling.
pub(crate) const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("WALE_RETRIES", "retries are bounded by time, not by number"),
    (
        "PGOPTIONS",
        "the control connection passes no options to the server",
    ),
    ("PGSERVICE", "the service file is not read"),
    ("AZURE_BUFFER_SIZE", "uploads share WALE_MEMORY"),
    ("AZURE_MAX_BUFFERS", "uploads share WALE_MEMORY"),
    (
        "AZURE_TRY_TIMEOUT",
        "silence is limited, and not the length of a transfer",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::group::Group;
    use super::super::raw::{Origin, Raw};
    use super::*;

    #[test]
    fn the_table_is_sound() {
        let mut names = BTreeSet::new();
        let mut flags = BTreeSet::new();
        for setting in SETTINGS {
            let facts = setting.facts();
            let name = facts.name;
            assert!(names.insert(name), "{name} is declared twice");
            for alias in facts.aliases {
                assert!(names.insert(alias), "{alias} is declared twice");
            }
            if let Some(flag) = facts.flag {
                assert!(flags.insert(flag), "--{flag} is declared twice");
                let said = name.to_ascii_lowercase().replace('_', "-");
                let said = said.strip_prefix("wale-").unwrap_or(&said);
                assert!(flag == said || name == "WALE_HTTP_TOKEN_FOR", "--{flag}");
            }
            assert!(
                facts.doc.ends_with('.'),
                "{name}: the document is a sentence"
            );
            assert!(!facts.since.is_empty());
            assert!(
                !(facts.secret && facts.flag.is_some()),
                "{name}: secrets have no flag"
            );
        }
        for (name, why) in WITHOUT_EFFECT {
            assert!(names.insert(name), "{name} is declared twice");
            assert!(!why.ends_with('.'));
        }
    }

    /// Whatever is set: `of` makes the text of a setting from its default's.
    fn all_set(of: impl Fn(Option<String>) -> Raw) -> Values {
        let unset = SETTINGS.iter().map(|s| (s.facts().name, Raw::unset()));
        let unset = Values::new(unset.collect(), Some(PathBuf::from("/root")));
        let text = |setting: &&dyn Declared| unset.default_text(setting.facts());
        let raw = SETTINGS.iter().map(|s| (s.facts().name, of(text(s))));
        Values::new(raw.collect::<BTreeMap<_, _>>(), None)
    }

    #[test]
    fn a_setting_has_a_default_that_parses_or_may_be_unset() {
        let unset = all_set(|_| Raw::unset());
        let set = all_set(|text| text.map_or_else(Raw::unset, |text| Raw::set(text, Origin::Flag)));
        for setting in SETTINGS {
            assert_eq!(setting.mistake(&unset), None);
            assert_eq!(setting.mistake(&set), None, "the default, if it is set");
        }
    }

    #[test]
    fn every_group_has_settings() {
        for group in Group::ALL {
            assert!(
                SETTINGS.iter().any(|s| s.facts().group == group),
                "{group:?} is empty"
            );
        }
    }
}
