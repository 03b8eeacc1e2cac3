//! Keys, where they come from, and when they are asked for again.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::failure::Failure;
use super::options::Secret;

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
}

/// Keeps the keys that are in use.
#[derive(Debug)]
pub(super) struct Keeper {
    source: CredentialSource,
    current: Mutex<Option<Arc<Credentials>>>,
}

impl Keeper {
    pub(super) fn new(source: CredentialSource) -> Self {
        Self {
            source,
            current: Mutex::new(None),
        }
    }

    /// The keys to sign with.
    pub(super) async fn get(&self) -> Result<Arc<Credentials>, Failure> {
        let mut current = self.current.lock().await;
        if let Some(credentials) = &*current {
            return Ok(Arc::clone(credentials));
        }
        let CredentialSource::Static(credentials) = &self.source;
        if credentials.access_key_id.is_empty() {
            return Err(Failure::NoCredentials("there is no access key".to_owned()));
        }
        let credentials = Arc::new(credentials.clone());
        *current = Some(Arc::clone(&credentials));
        Ok(credentials)
    }

    /// Other keys of the same source than these, which were refused; `None` when there are none.
    pub(super) fn other_than(&self, refused: &Arc<Credentials>) -> Option<Arc<Credentials>> {
        let CredentialSource::Static(credentials) = &self.source;
        (credentials != &**refused).then(|| Arc::new(credentials.clone()))
    }
}
