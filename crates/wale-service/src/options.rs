//! What the binary hands over. No names of settings, no environment: typed values only.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wale_ops::backup_fetch::RestoreClusterOptions;
use wale_ops::backup_push::{self, Role};
use wale_ops::readers::Readers;
use wale_ops::retention::Policy;
use wale_ops::verify::Share;
use wale_ops::wal_fetch::FetcherOptions;
use wale_ops::wal_push::PusherOptions;
use wale_ops::{Archive, Secret};

use crate::{Notifier, Schedule, Tls};

/// Everything one sidecar needs to run.
pub struct ServiceOptions {
    /// Address and port to listen on. Port 0 lets the system choose (tests).
    pub listen: SocketAddr,
    /// What happens before the database may start.
    pub mode: StartMode,
    /// The file whose removal tells the database container to go on. It need not exist, now or ever.
    pub lock_file: PathBuf,
    /// The service manager that waits to hear when the database may start.
    pub notifier: Notifier,
    /// Whom to tell of base backups and of what is wrong.
    pub notices: NoticeOptions,
    /// When base backups are taken; `None` takes none by itself.
    pub schedule: Option<Schedule>,
    /// When the archive is verified, and how; `None` never by itself.
    pub verification: Option<Verification>,
    /// Which servers serve the slots of the schedule.
    pub backup_role: Role,
    /// How long a shutdown goes on serving pushes while the database is still stopping.
    pub grace: Duration,
    /// Asked for on every route but `/ping` and the probes, when set.
    pub token: Option<HttpToken>,
    /// Which routes ask for it.
    pub token_for: TokenFor,
    /// Names under which the sidecar is reached, beside those that nobody can make point here.
    pub hosts: Vec<String>,
    /// Certificate and key; without them the endpoint speaks plain HTTP.
    pub tls: Option<Tls>,
    /// The archive, opened.
    pub archive: Archive,
    /// The same and those that follow it, to be read.
    pub readers: Readers,
    /// The archives that follow it.
    pub further: Vec<FurtherArchive>,
    /// The most that one of them may lag behind before pushes have to wait; no bound without.
    pub max_archive_lag: Option<Duration>,
    /// How long retention waits for one of them that lags behind.
    pub retain_wait: Duration,
    /// Options of the long-lived pusher.
    pub pusher: PusherOptions,
    /// Options of the long-lived fetcher.
    pub fetcher: FetcherOptions,
    /// How long after the beginning of the newest base backup another one may be requested over HTTP; zero is at once.
    pub backup_request_interval: Duration,
    /// What is deleted, and when.
    pub housekeeping: Housekeeping,
    /// Options of every base backup, scheduled or asked for.
    pub backup: backup_push::BackupOptions,
    /// The WAL directory as this process sees it.
    pub wal_directory: PathBuf,
    /// The data directory as this process sees it; its `postmaster.pid` is read while stopping.
    pub data_directory: PathBuf,
    /// Limits of the HTTP endpoint.
    pub limits: HttpLimits,
    /// wale's own version, for `/status` and `/metrics`.
    pub version: &'static str,
}

/// Whom to tell.
#[derive(Debug, Clone, Default)]
pub struct NoticeOptions {
    /// Asked for after each base backup; with `/start` at its end before one, with `/fail` after one that failed.
    pub ping: Option<Secret>,
    /// Gets a message for each thing that is wrong, and when it is so no more.
    pub webhook: Option<Secret>,
    /// What the messages are signed with.
    pub webhook_key: Option<Secret>,
    /// The proxy for `http://`.
    pub http_proxy: Option<Secret>,
    /// The proxy for `https://`.
    pub https_proxy: Option<Secret>,
    /// Hosts that are reached without one.
    pub no_proxy: Option<String>,
}

/// An archive that follows the first one.
#[derive(Debug, Clone)]
pub struct FurtherArchive {
    /// Its number, 2 or more.
    pub number: u8,
    /// The archive, opened.
    pub archive: Archive,
    /// What is kept in it.
    pub housekeeping: Housekeeping,
}

/// What the sidecar deletes by itself.
#[derive(Debug, Clone)]
pub struct Housekeeping {
    /// What is kept after each successful base backup. Without a rule nothing is deleted.
    pub policy: Policy,
    /// A base backup or an upload is taken for dead when nothing was stored for it for so long.
    pub grace: Duration,
    /// A backup that was requested over HTTP is counted when it began this long after the one before it.
    pub request_interval: Duration,
}

/// How the sidecar verifies the archive: every byte of what is due.
#[derive(Debug, Clone)]
pub struct Verification {
    /// When.
    pub schedule: Schedule,
    /// Only about so much of what is stored at a time.
    pub share: Option<Share>,
    /// What was found good within this time is not read again.
    pub older_than: Duration,
    /// The most stored bytes that are read per second.
    pub rate: Option<NonZeroU64>,
}

/// What happens before the database may start. The original's `START_MODE`.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one of these in a process"
)]
pub enum StartMode {
    /// Listen, then let the database go on.
    ContinuousBackup,
    /// As above, and take a base backup as soon as the server accepts connections.
    BackupPush,
    /// Restore first; the database goes on when the cluster is whole.
    Restore(RestoreClusterOptions),
}

impl StartMode {
    /// The name used in `/status` and in logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::ContinuousBackup => "continuous-backup",
            Self::BackupPush => "backup-push",
            Self::Restore(_) => "restore",
        }
    }
}

/// Limits of the HTTP endpoint. Every queue and buffer has its bound here.
#[derive(Debug, Clone)]
pub struct HttpLimits {
    /// Time for a whole request head, counted from the connection's start or the end of the reply before; so it is
    /// also the time an idle connection is kept. A TLS handshake has as much again. 10 s.
    pub head_timeout: Duration,
    /// Bytes of one request head, 16 KiB; more is 431. Not below 8 KiB.
    pub head_bytes: usize,
    /// Bytes of path and query, 8 KiB; more is 414.
    pub url_bytes: usize,
    /// Bytes of a request body, which no route wants, 64 KiB; more is 413.
    pub body_bytes: usize,
    /// Time for a request body, 10 s; later is 408.
    pub body_timeout: Duration,
    /// Time a client may take without reading anything of a reply, 60 s.
    pub write_stall: Duration,
    /// What a client must read on average while it keeps us waiting, 64 KiB/s; the stall time comes on top.
    pub least_bytes_per_second: u64,
    /// WAL files that are sent at a time, 16; more wait. Slow readers hold these, and nothing that a push needs. Beyond
    /// the memory budget each takes 1.5 MiB at most: 16 × 1.5 MiB = 24 MiB.
    pub files_at_once: usize,
    /// Requests for WAL files that wait for their turn, 128; of more, the address that has the most loses its oldest. With
    /// the files that are sent that is 144 of the 256 connections that recoveries have.
    pub files_waiting: usize,
    /// Proofs of absence that are made at a time, 4; more wait. Each reads the archive's listing a few times, for which
    /// the file store keeps 1,000 names of 100 bytes, and S3 a page: 4 × 0.5 MiB = 2 MiB. They leave a core and the store
    /// to pushes.
    pub proofs_at_once: usize,
    /// Requests for a proof that wait for their turn, 64; of more, as above. With the files that are sent or wait (144) and
    /// the proofs that are made (4) that is 212 of the 256 connections that recoveries have.
    pub proofs_waiting: usize,
    /// Connections up to here are served alike, 256. Above it the connection that waited longest without a request
    /// makes room, and only the archive's routes, `/ping` and the probes are answered.
    pub soft_connections: usize,
    /// No more connections than this, 512. Beyond it the kernel's queue holds new ones until one of ours ends. Half of
    /// them, 256, are answered a recovery's requests at most, and a quarter, 128, anything else but a push.
    /// Memory of connections: 512 × (16 KiB read + 32 KiB write) = 24 MiB; with TLS 24 MiB more.
    pub hard_connections: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(10),
            head_bytes: 16 << 10,
            url_bytes: 8 << 10,
            body_bytes: 64 << 10,
            body_timeout: Duration::from_secs(10),
            write_stall: Duration::from_mins(1),
            least_bytes_per_second: 64 << 10,
            files_at_once: 16,
            files_waiting: 128,
            proofs_at_once: 4,
            proofs_waiting: 64,
            soft_connections: 256,
            hard_connections: 512,
        }
    }
}

/// Which routes ask for the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFor {
    /// All but the probes.
    Everything,
    /// All but the probes and pushes: everything that reads data, starts work or shows the cluster.
    Reads,
}

impl TokenFor {
    /// Every choice, the default first.
    pub const ALL: [Self; 2] = [Self::Everything, Self::Reads];

    /// Its word in settings and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Everything => "everything",
            Self::Reads => "reads",
        }
    }
}

/// The token a client must show, as a bearer token or as the password of basic authentication (which wget can do).
#[derive(Clone)]
pub struct HttpToken {
    token: Arc<Mutex<String>>,
    file: Option<Arc<PathBuf>>,
}

impl HttpToken {
    /// Takes a token of visible ASCII characters.
    ///
    /// # Errors
    ///
    /// When the token is empty or holds a space, a control or a non-ASCII character: it could not be sent.
    pub fn new(token: String) -> Result<Self, String> {
        if token.is_empty() {
            return Err("the HTTP token is empty".to_owned());
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the HTTP token holds a character that is not visible ASCII".to_owned());
        }
        Ok(Self {
            token: Arc::new(Mutex::new(token)),
            file: None,
        })
    }

    /// The same, read anew from `file` when it has another one: a rotated one is used without a restart.
    #[must_use]
    pub fn kept_in(mut self, file: Option<PathBuf>) -> Self {
        self.file = file.map(Arc::new);
        self
    }

    /// The token now, where it lies in a file; `None` where it cannot change.
    pub(crate) fn in_file(&self) -> Option<String> {
        self.file.as_deref().and_then(|file| read_token(file))
    }

    /// Whether `shown` is the token. Takes the same time wherever the two differ. The file, if there is one, decides at
    /// each request: a token that was taken back is not served a moment longer. One that cannot be read, or holds no token,
    /// changes nothing.
    pub(crate) fn matches(&self, shown: &[u8]) -> bool {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fresh) = self.file.as_deref().and_then(|file| read_token(file)) {
            *token = fresh;
        }
        let expected = token.as_bytes();
        // The length is not the secret; every byte of the expected token is compared in any case.
        let mut difference = u8::from(expected.len() != shown.len());
        for (index, byte) in expected.iter().enumerate() {
            difference |= byte ^ shown.get(index).copied().unwrap_or(0);
        }
        std::hint::black_box(difference) == 0
    }
}

/// The token that a file of a few hundred bytes holds now.
fn read_token(file: &Path) -> Option<String> {
    const TOKEN_MAX: u64 = 64 << 10;
    let text = wale_ops::read_bounded_text(file, TOKEN_MAX).ok()?;
    HttpToken::new(text.trim().to_owned()).ok()?;
    Some(text.trim().to_owned())
}

impl fmt::Debug for HttpToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HttpToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_97_the_token_is_compared_whole_never_printed_and_read_anew() {
        let token = HttpToken::new("s3cret".to_owned()).unwrap();
        let cases = [
            ("s3cret", true),
            ("s3cre", false),
            ("s3crets", false),
            ("", false),
            ("S3CRET", false),
        ];
        for (shown, expected) in cases {
            assert_eq!(token.matches(shown.as_bytes()), expected, "{shown}");
        }
        assert!(!format!("{token:?}").contains("s3cret"));
        // Rotated in its file, while it is there and holds a token.
        let file = tempfile::NamedTempFile::new().unwrap();
        let kept = token.clone().kept_in(Some(file.path().to_owned()));
        for (content, now) in [
            ("", "s3cret"),
            ("second\n", "second"),
            ("no token", "second"),
        ] {
            std::fs::write(file.path(), content).unwrap();
            assert!(kept.matches(now.as_bytes()), "{content}");
            assert!(!kept.matches(b"first"));
        }
        drop(file);
        assert!(kept.matches(b"second"));
        for bad in ["", "a b", "a\n", "ü"] {
            assert!(HttpToken::new(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
