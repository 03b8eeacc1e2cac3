//! The keys in use: each source is asked in its own way, and what it gives is kept until it ends.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::source::{CredentialSource, Credentials, FileSource, GrantedKeys};
use super::{container, instance, profile, sts};
use crate::http::failure::Failure;
use crate::http::keeper::{Granted, Keeper};
use crate::http::named_file::read_secret;
use crate::http::transport::Transport;
use crate::s3::options::S3Options;
use crate::{CredentialEnd, HttpTimeouts, Proxies, Renewal};

/// Services on the host or the link answer at once or are not there.
const LOCAL_LIMIT: Duration = Duration::from_secs(5);

/// A source of keys, and those of it that are in use.
#[derive(Debug)]
pub(in crate::s3) struct Keys {
    source: CredentialSource,
    region: String,
    /// When keys end that were given with their end.
    expire: Option<DateTime<Utc>>,
    /// For services of Amazon's; the store's own.
    transport: Transport,
    /// For services nearby, which no proxy reaches.
    nearby: Option<Transport>,
    keeper: Keeper<Credentials>,
}

impl Keys {
    pub(in crate::s3) fn new(options: &S3Options, transport: Transport) -> Result<Self, String> {
        let source = options.credentials.clone();
        let nearby = match source {
            CredentialSource::Instance(_) | CredentialSource::Container(_) => {
                let timeouts = HttpTimeouts {
                    connect: LOCAL_LIMIT,
                    answer: LOCAL_LIMIT,
                    ..HttpTimeouts::default()
                };
                let ca_file = options.ca_file.as_deref();
                Some(Transport::new(ca_file, &Proxies::default(), timeouts)?)
            }
            _ => None,
        };
        Ok(Self {
            source,
            region: options.region.clone(),
            expire: options.keys_expire,
            transport,
            nearby,
            keeper: Keeper::default(),
        })
    }

    /// The keys to sign with.
    pub(in crate::s3) async fn get(&self) -> Result<Arc<Credentials>, Failure> {
        self.keeper.get(self.grant()).await
    }

    /// Other keys of the same source than these, which were refused; `None` when there are none.
    pub(in crate::s3) async fn other_than(
        &self,
        refused: &Arc<Credentials>,
    ) -> Result<Option<Arc<Credentials>>, Failure> {
        if matches!(self.source, CredentialSource::Static(_)) {
            return Ok(None);
        }
        self.keeper.other_than(refused, self.grant()).await
    }

    /// When they end, as far as that is known.
    pub(in crate::s3) async fn ends(&self) -> Vec<CredentialEnd> {
        let given = match &self.source {
            // Whoever gave them said it; those in files are rotated.
            CredentialSource::Static(_) => self
                .expire
                .map(|expires| CredentialEnd::new("the temporary keys", expires, Renewal::Nobody)),
            CredentialSource::WebIdentity(source) => {
                CredentialEnd::of_token_file(&source.token_file).await
            }
            _ => None,
        };
        let kept = self.keeper.expires();
        let kept = kept.map(|end| CredentialEnd::new("the session's keys", end, Renewal::Own));
        given.into_iter().chain(kept).collect()
    }

    /// Asks the source; what lies in files is read now.
    pub(in crate::s3) async fn grant(&self) -> Result<GrantedKeys, Failure> {
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

/// The pair as its files have it now.
async fn from_files(source: &FileSource) -> Result<GrantedKeys, Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

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
