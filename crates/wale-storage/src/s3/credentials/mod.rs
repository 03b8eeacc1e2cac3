//! Keys, where they come from, and when they are asked for again.
//!
//! Temporary keys are renewed five minutes before they expire; any keys are asked for again when the store refuses
//! them, because a file may have been rotated. Nothing here is ever printed.

mod container;
mod document;
mod instance;
mod profile;
mod sts;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::failure::{Failure, NoAnswer};
use super::options::{Proxies, S3Options, S3Timeouts, Secret};
use super::settings_file;
use super::transport::Transport;

/// Temporary keys are renewed when less than this is left of them: a request may take minutes.
const RENEW_BEFORE: Duration = Duration::from_mins(5);

/// Keys that the store refuses are not asked for again sooner than this, so that a store which refuses everything
/// makes no storm at their source.
const PAUSE_REFUSED: Duration = Duration::from_secs(1);

/// Keys that are about to end and could not be renewed are asked for again after this.
const PAUSE_RENEWAL: Duration = Duration::from_secs(10);

/// Services on the host or the link answer at once or are not there.
const LOCAL_LIMIT: Duration = Duration::from_secs(5);

/// A pair of keys, with the token of a temporary one.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Names the keys; sent in clear with every request.
    pub access_key_id: String,
    /// Signs.
    pub secret_access_key: Secret,
    /// Sent along with temporary keys.
    pub session_token: Option<Secret>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(secret)")
    }
}

/// Where keys come from.
#[derive(Debug, Clone)]
pub enum CredentialSource {
    /// These.
    Static(Credentials),
    /// These, whose secret parts lie in files.
    Files(FileSource),
    /// A role, for keys.
    Role(RoleSource),
    /// A profile of Amazon's shared files.
    Profile(ProfileSource),
    /// The role of the instance, from its metadata service (version 2), whose URL this is.
    Instance(String),
    /// The role of a task or pod.
    Container(ContainerSource),
    /// A role, for a token that somebody else has signed.
    WebIdentity(WebIdentitySource),
}

/// A pair of keys whose secret parts lie in files of their own, which are rotated. What has no file is as it is in `keys`.
#[derive(Debug, Clone)]
pub struct FileSource {
    /// The pair as it was at the start.
    pub keys: Credentials,
    /// The file of the secret key.
    pub secret_access_key: Option<PathBuf>,
    /// The file of the token.
    pub session_token: Option<PathBuf>,
}

/// A role, for keys.
#[derive(Debug, Clone)]
pub struct RoleSource {
    /// Keys that may assume it, read anew for each session where they lie in files.
    pub keys: FileSource,
    /// The role.
    pub role_arn: String,
    /// The name of the session, which Amazon's log shows.
    pub session_name: String,
    /// The security token service; `None` is the region's.
    pub sts_endpoint: Option<String>,
}

/// A profile of Amazon's shared files.
#[derive(Debug, Clone)]
pub struct ProfileSource {
    /// Its name.
    pub name: String,
    /// The file of keys.
    pub credentials_file: PathBuf,
    /// The file of everything else, roles among it.
    pub config_file: PathBuf,
    /// The security token service; `None` is the region's.
    pub sts_endpoint: Option<String>,
}

/// The role of a task or pod, from a service in its neighbourhood.
#[derive(Debug, Clone)]
pub struct ContainerSource {
    /// The service.
    pub url: String,
    /// What lets us in.
    pub token: Option<ContainerToken>,
}

/// What a container shows to the service that gives it keys.
#[derive(Debug, Clone)]
pub enum ContainerToken {
    /// This.
    Text(Secret),
    /// The content of this file, which is rotated.
    File(PathBuf),
}

/// A role, for a token that somebody else has signed.
#[derive(Debug, Clone)]
pub struct WebIdentitySource {
    /// The file with the token, which is rotated.
    pub token_file: PathBuf,
    /// The role.
    pub role_arn: String,
    /// The name of the session, which Amazon's log shows.
    pub session_name: String,
    /// The security token service; `None` is the region's.
    pub sts_endpoint: Option<String>,
}

/// Keys, and when they end.
#[derive(Debug, Clone)]
pub(super) struct Granted {
    pub(super) credentials: Credentials,
    pub(super) expires: Option<DateTime<Utc>>,
}

/// Keeps the keys that are in use.
#[derive(Debug)]
pub(super) struct Keeper {
    source: CredentialSource,
    region: String,
    /// For services of Amazon's; the store's own.
    transport: Transport,
    /// For services nearby, which no proxy reaches.
    nearby: Option<Transport>,
    held: Mutex<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    credentials: Arc<Credentials>,
    expires: Option<DateTime<Utc>>,
    asked: Instant,
}

impl Held {
    /// Whether less than this is left of the keys.
    fn ends_within(&self, time: Duration) -> bool {
        self.expires
            .is_some_and(|expires| expires <= Utc::now() + time)
    }
}

impl Keeper {
    pub(super) fn new(options: &S3Options, transport: Transport) -> Result<Self, String> {
        let source = options.credentials.clone();
        let nearby = match source {
            CredentialSource::Instance(_) | CredentialSource::Container(_) => {
                let timeouts = S3Timeouts {
                    connect: LOCAL_LIMIT,
                    answer: LOCAL_LIMIT,
                    ..S3Timeouts::default()
                };
                let ca_file = options.ca_file.as_deref();
                Some(Transport::new(ca_file, &Proxies::default(), timeouts)?)
            }
            _ => None,
        };
        Ok(Self {
            source,
            region: options.region.clone(),
            transport,
            nearby,
            held: Mutex::new(None),
        })
    }

    /// The keys to sign with.
    pub(super) async fn get(&self) -> Result<Arc<Credentials>, Failure> {
        let mut held = self.held.lock().await;
        if let Some(held) = &*held
            && (!held.ends_within(RENEW_BEFORE) || held.asked.elapsed() < PAUSE_RENEWAL)
        {
            return Ok(Arc::clone(&held.credentials));
        }
        let failure = match self.grant().await {
            Ok(granted) => return Ok(hold(&mut held, granted)),
            Err(failure) => failure,
        };
        match &mut *held {
            Some(held) if !held.ends_within(Duration::ZERO) => {
                tracing::warn!(reason = %failure, "the credentials could not be renewed yet");
                held.asked = Instant::now();
                Ok(Arc::clone(&held.credentials))
            }
            _ => Err(failure),
        }
    }

    /// Other keys of the same source than these, which were refused; `None` when there are none.
    pub(super) async fn other_than(
        &self,
        refused: &Arc<Credentials>,
    ) -> Result<Option<Arc<Credentials>>, Failure> {
        if matches!(self.source, CredentialSource::Static(_)) {
            return Ok(None);
        }
        let mut held = self.held.lock().await;
        if let Some(held) = &*held {
            if held.credentials != *refused {
                return Ok(Some(Arc::clone(&held.credentials)));
            }
            if held.asked.elapsed() < PAUSE_REFUSED {
                return Ok(None);
            }
        }
        let credentials = hold(&mut held, self.grant().await?);
        Ok((credentials != *refused).then_some(credentials))
    }

    /// Asks the source; what lies in files is read now.
    pub(super) async fn grant(&self) -> Result<Granted, Failure> {
        let nearby = self.nearby.as_ref().unwrap_or(&self.transport);
        match &self.source {
            CredentialSource::Static(credentials) => Ok(Granted {
                credentials: credentials.clone(),
                expires: None,
            }),
            CredentialSource::Files(source) => from_files(source).await,
            CredentialSource::Role(source) => {
                let keys = from_files(&source.keys).await?;
                sts::with_keys(
                    &keys.credentials,
                    &source.role_arn,
                    &source.session_name,
                    None,
                    source.sts_endpoint.as_deref(),
                    (&self.transport, &self.region),
                )
                .await
            }
            CredentialSource::Profile(source) => {
                profile::grant(source, &self.transport, &self.region).await
            }
            CredentialSource::Instance(endpoint) => instance::grant(endpoint, nearby).await,
            CredentialSource::Container(source) => container::grant(source, nearby).await,
            CredentialSource::WebIdentity(source) => {
                sts::with_web_identity(source, &self.transport, &self.region).await
            }
        }
    }
}

fn hold(held: &mut Option<Held>, granted: Granted) -> Arc<Credentials> {
    let credentials = Arc::new(granted.credentials);
    *held = Some(Held {
        credentials: Arc::clone(&credentials),
        expires: granted.expires,
        asked: Instant::now(),
    });
    credentials
}

/// The pair as its files have it now.
async fn from_files(source: &FileSource) -> Result<Granted, Failure> {
    let mut credentials = source.keys.clone();
    if let Some(path) = &source.secret_access_key {
        credentials.secret_access_key = read_secret(path).await?;
    }
    if let Some(path) = &source.session_token {
        credentials.session_token = Some(read_secret(path).await?);
    }
    Ok(Granted {
        credentials,
        expires: None,
    })
}

/// A file that holds one secret for a header.
async fn read_secret(path: &std::path::Path) -> Result<Secret, Failure> {
    let text = read_file(path).await?;
    let text = text.trim();
    if fits_header(text) {
        return Ok(Secret::new(text));
    }
    let path = path.display();
    Err(Failure::NoCredentials(format!(
        "file {path} does not hold a secret that can stand in an HTTP header"
    )))
}

/// A failure of a source, with its name. What may pass stays something that may pass.
fn failure_of(source: &str, failure: &Failure) -> Failure {
    let reason = format!("{source}: {failure}");
    if failure.is_transient() {
        Failure::NoAnswer(NoAnswer { reason })
    } else {
        Failure::NoCredentials(reason)
    }
}

/// A small file, whose content may be secret and is not quoted.
async fn read_file(path: &std::path::Path) -> Result<String, Failure> {
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || settings_file::read_text(&owned)).await;
    let problem = match read {
        Ok(Ok(text)) => return Ok(text),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the process is shutting down".to_owned(),
    };
    Err(Failure::NoCredentials(format!(
        "file {} cannot be read: {problem}",
        path.display()
    )))
}

/// Whether a text can stand in a header.
fn fits_header(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fault_97_keys_in_files_are_read_anew() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let source = FileSource {
            keys: Credentials {
                access_key_id: "id".to_owned(),
                secret_access_key: Secret::new("first"),
                session_token: None,
            },
            secret_access_key: Some(file.path().to_owned()),
            session_token: None,
        };
        for secret in ["first", "second"] {
            std::fs::write(file.path(), format!("{secret}\n")).unwrap();
            let granted = from_files(&source).await.unwrap();
            assert_eq!(granted.credentials.secret_access_key.expose(), secret);
            assert_eq!(granted.credentials.access_key_id, "id");
        }
        std::fs::write(file.path(), "can ary").unwrap();
        let failure = from_files(&source).await.unwrap_err().to_string();
        assert!(!failure.contains("ary"), "{failure}");
    }
}
