//! TLS on the endpoint's port: the server's certificate and key, read from two files and read again when they change.
//!
//! It refuses to know HTTP. Invariants: a connection is served plain or over TLS by the sidecar's settings, never by what
//! a client sends; a pair of files that cannot be used never replaces one that can; key material is in no log line and no error.
//!
//! Renewal needs no signal: cert-manager, certbot and Kubernetes replace files and signal nobody, so the files are
//! checked. A pair caught in the middle of its replacement does not fit together and is checked again.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use wale_ops::{Kind, OpError};

use super::validity::not_after;

/// How often the files are checked. They are a few KiB in the page cache.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A file larger than this holds no certificate chain and no key.
const FILE_MAX: u64 = 1 << 20;

/// To read and to write, of users that are neither the owner nor of the group.
const OTHERS: u32 = 0o006;

/// Plain bytes that rustls may hold for one connection while its client reads nothing: a record, 16 KiB. With as much
/// again for the record being read and written, 512 connections take 512 × 48 KiB = 24 MiB.
const BUFFERED_BYTES: usize = 16 << 10;

/// A certificate that ends sooner than this is reported when it is read.
const WARN_BEFORE: chrono::Duration = chrono::Duration::days(14);

/// The endpoint's certificate and key.
#[derive(Clone)]
pub struct Tls(Arc<WatchedPair>);

struct WatchedPair {
    certificate: PathBuf,
    key: PathBuf,
    look_every: Duration,
    current: Mutex<Pair>,
}

/// One pair of files that fit together.
#[derive(Clone)]
struct Pair {
    config: Arc<ServerConfig>,
    /// Of both files' bytes, to notice a change; says nothing about them to anybody.
    fingerprint: u64,
    expires: Option<DateTime<Utc>>,
}

impl Tls {
    /// Reads a certificate chain, the server's own certificate first, and its key, both PEM.
    ///
    /// # Errors
    ///
    /// `Configuration`, with the file's name, when one cannot be read or used, or they do not belong together.
    pub fn load(certificate: PathBuf, key: PathBuf) -> Result<Self, OpError> {
        Self::load_and_look(certificate, key, LOOK_EVERY)
    }

    pub(crate) fn load_and_look(
        certificate: PathBuf,
        key: PathBuf,
        look_every: Duration,
    ) -> Result<Self, OpError> {
        let pair = pair(&certificate, &key)?;
        Ok(Self(Arc::new(WatchedPair {
            certificate,
            key,
            look_every,
            current: Mutex::new(pair),
        })))
    }

    /// When the certificate in use ends, if it says so in a way that is understood.
    #[must_use]
    pub fn expires(&self) -> Option<DateTime<Utc>> {
        self.current().expires
    }

    /// The server's side of a handshake. No limit of time: the caller's.
    pub(crate) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.current().config);
        let bound = |connection: &mut rustls::ServerConnection| {
            connection.set_buffer_limit(Some(BUFFERED_BYTES));
        };
        TlsAcceptor::from(config).accept_with(stream, bound).await
    }

    /// Checks the files for ever and takes over what changed. Safe to drop at any time.
    pub(crate) async fn keep_fresh(self, now: impl Fn() -> DateTime<Utc>) {
        tell_of_expiry(self.expires(), now());
        tell_of_mode(&self.0.key);
        let mut refused = None;
        loop {
            tokio::time::sleep(self.0.look_every).await;
            let files = Arc::clone(&self.0);
            let looking = tokio::task::spawn_blocking(move || files.look());
            match looking.await {
                Ok(Ok(None)) => refused = None,
                Ok(Ok(Some(pair))) => {
                    tracing::info!(expires = ?pair.expires, "the endpoint's certificate was replaced");
                    tell_of_expiry(pair.expires, now());
                    tell_of_mode(&self.0.key);
                    *self.current() = pair;
                    refused = None;
                }
                Ok(Err(error)) => {
                    // Once for each reason: files that stay unusable would fill the log.
                    let reason = error.chain();
                    if refused.as_ref() != Some(&reason) {
                        tracing::warn!(
                            "the endpoint keeps its certificate; the files cannot be used: {reason}"
                        );
                        refused = Some(reason);
                    }
                }
                // Only at the end of the runtime.
                Err(_) => return,
            }
        }
    }

    fn current(&self) -> MutexGuard<'_, Pair> {
        self.0.current()
    }
}

/// Whether a connection that begins with this byte speaks a text protocol, HTTP most likely. TLS begins with the type of
/// its first record, 22, and SSL 2 with a byte above 127: neither is text.
pub(super) fn is_plain_text(first: u8) -> bool {
    first.is_ascii_graphic() || first.is_ascii_whitespace()
}

impl WatchedPair {
    fn current(&self) -> MutexGuard<'_, Pair> {
        // A change is one assignment: a panic elsewhere leaves the pair whole.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pair in the files when it is another than the one in use.
    fn look(&self) -> Result<Option<Pair>, OpError> {
        let (certificate, key) = (read(&self.certificate)?, read(&self.key)?);
        if fingerprint(&certificate, &key) == self.current().fingerprint {
            return Ok(None);
        }
        let inner = (&self.certificate, &self.key);
        pair_of(inner.0, inner.1, &certificate, &key).map(Some)
    }
}

fn pair(certificate: &Path, key: &Path) -> Result<Pair, OpError> {
    pair_of(certificate, key, &read(certificate)?, &read(key)?)
}

fn pair_of(
    certificate_file: &Path,
    key_file: &Path,
    certificate: &[u8],
    key: &[u8],
) -> Result<Pair, OpError> {
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(certificate_file, "is not PEM").source(error))?;
    let Some(first) = chain.first() else {
        return Err(unusable(certificate_file, "holds no certificate"));
    };
    let expires = not_after(first);
    // The parser's own words could quote the file, so they are not passed on.
    let private = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| unusable(key_file, "holds no private key that is not encrypted"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| OpError::internal("TLS cannot be used").source(error))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| {
            unusable(
                certificate_file,
                &format!("and {} do not fit together", key_file.display()),
            )
            .source(error)
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Every request of an archive_command is a new process: nobody comes back with a ticket.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Pair {
        config: Arc::new(config),
        fingerprint: fingerprint(certificate, key),
        expires,
    })
}

/// Warns of a key that every user of the host may read. A group is meant where it is there: Kubernetes gives the files
/// of a Secret to one.
fn tell_of_mode(key: &Path) {
    let Ok(about) = std::fs::metadata(key) else {
        return;
    };
    let mode = about.permissions().mode();
    if mode & OTHERS != 0 {
        tracing::warn!(
            file = %key.display(),
            mode = format!("{:04o}", mode & 0o7777),
            "other users may read the endpoint's TLS key, or replace it: let it belong to the sidecar's user, with \
             mode 0400 (defaultMode of a Secret in Kubernetes)"
        );
    }
}

fn fingerprint(certificate: &[u8], key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (certificate, key).hash(&mut hasher);
    hasher.finish()
}

fn read(path: &Path) -> Result<Vec<u8>, OpError> {
    wale_ops::read_bounded(path, FILE_MAX)
        .map_err(|error| unusable(path, "cannot be read").source(error))
}

fn unusable(path: &Path, why: &str) -> OpError {
    OpError::new(
        Kind::Configuration,
        format!("the endpoint's TLS file {} {why}", path.display()),
    )
    .hint("give a certificate chain, the server's own first, and its key, not encrypted, both as PEM files that the sidecar's user can read")
}

fn tell_of_expiry(expires: Option<DateTime<Utc>>, now: DateTime<Utc>) {
    match expires {
        Some(at) if at <= now => tracing::error!(
            expires = %at,
            "the endpoint's certificate has expired: clients that check it cannot archive"
        ),
        Some(at) if at - now < WARN_BEFORE => {
            tracing::warn!(expires = %at, "the endpoint's certificate expires soon");
        }
        Some(_) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_pair(folder: &Path, names: &[&str]) -> (PathBuf, PathBuf) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (certificate, key)
    }

    #[test]
    fn files_that_cannot_be_used_are_named_and_never_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = write_pair(folder.path(), &["sidecar"]);
        let tls = Tls::load(certificate.clone(), key.clone()).unwrap();
        assert!(tls.expires().is_some_and(|at| at > Utc::now()));
        let other = tempfile::tempdir().unwrap();
        let (_, foreign) = write_pair(other.path(), &["sidecar"]);
        let broken = folder.path().join("broken");
        std::fs::write(
            &broken,
            "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----",
        )
        .unwrap();
        let missing = folder.path().join("missing");
        for (certificate, key, named) in [
            (&missing, &key, &missing),
            (&certificate, &missing, &missing),
            (&certificate, &broken, &broken),
            (&key, &key, &key),
            (&certificate, &certificate, &certificate),
            (&certificate, &foreign, &foreign),
        ] {
            let error = Tls::load(certificate.clone(), key.clone()).err().unwrap();
            assert_eq!(error.kind, Kind::Configuration);
            let text = error.chain();
            assert!(text.contains(&named.display().to_string()), "{text}");
            assert!(!text.contains("canary"), "{text}");
        }
    }

    #[test]
    fn only_a_whole_new_pair_replaces_the_one_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = write_pair(folder.path(), &["old"]);
        let tls = Tls::load(certificate.clone(), key.clone()).unwrap();
        assert!(tls.0.look().unwrap().is_none(), "nothing changed");
        let old_key = std::fs::read(&key).unwrap();
        write_pair(folder.path(), &["new"]);
        let new_key = std::fs::read(&key).unwrap();
        std::fs::write(&key, old_key).unwrap();
        assert!(tls.0.look().is_err(), "half replaced");
        std::fs::write(&key, new_key).unwrap();
        assert!(tls.0.look().unwrap().is_some());
    }
}
