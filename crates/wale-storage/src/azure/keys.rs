//! The right to ask that is in use: each source is asked in its own way, and what it gives is kept until it ends.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::options::AzureOptions;
use super::source::{AzureClient, AzureClientProof, AzureCredentialSource, AzureCredentials};
use super::tokens;
use crate::http::failure::Failure;
use crate::http::keeper::{Granted, Keeper};
use crate::http::named_file::read_secret;
use crate::http::text::fits_header;
use crate::http::transport::Transport;
use crate::{CredentialEnd, HttpTimeouts, Proxies, Renewal, Secret, ends};

/// Services on the host or the link answer at once or are not there.
const LOCAL_LIMIT: Duration = Duration::from_secs(5);

/// A source, and those of its credentials that are in use.
#[derive(Debug)]
pub(super) struct AzureKeys {
    source: AzureCredentialSource,
    /// For services of Microsoft's; the store's own.
    transport: Transport,
    /// For the service nearby, which no proxy reaches.
    nearby: Option<Transport>,
    keeper: Keeper<AzureCredentials>,
}

impl AzureKeys {
    pub(super) fn new(options: &AzureOptions, transport: Transport) -> Result<Self, String> {
        let source = options.credentials.clone();
        let nearby = match source {
            AzureCredentialSource::ManagedIdentity { .. } => {
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
            transport,
            nearby,
            keeper: Keeper::default(),
        })
    }

    /// What goes along with the next request.
    pub(super) async fn get(&self) -> Result<Arc<AzureCredentials>, Failure> {
        self.keeper.get(self.grant()).await
    }

    /// Other credentials of the same source than these, which were refused; `None` when there are none.
    pub(super) async fn other_than(
        &self,
        refused: &Arc<AzureCredentials>,
    ) -> Result<Option<Arc<AzureCredentials>>, Failure> {
        self.keeper.other_than(refused, self.grant()).await
    }

    /// When they end, as far as that is known.
    pub(super) async fn ends(&self) -> Vec<CredentialEnd> {
        let of_signature = |text: &Secret, renewal| {
            let end = ends::of_shared_access(text.expose())?;
            Some(CredentialEnd::new(
                "the shared access signature",
                end,
                renewal,
            ))
        };
        let given = match &self.source {
            AzureCredentialSource::SharedAccess(text) => of_signature(text, Renewal::Nobody),
            AzureCredentialSource::SharedAccessFile(path) => {
                let text = read_secret(path).await.ok();
                let end = text.and_then(|text| of_signature(&text, Renewal::Others));
                match end {
                    Some(end) => Some(end.in_file(path).await),
                    None => None,
                }
            }
            AzureCredentialSource::Client(AzureClient {
                proof: AzureClientProof::TokenFile(path),
                ..
            }) => CredentialEnd::of_token_file(path).await,
            _ => None,
        };
        let kept = match &self.source {
            AzureCredentialSource::SharedAccess(_) | AzureCredentialSource::SharedAccessFile(_) => {
                None
            }
            _ => self.keeper.expires(),
        };
        let kept = kept.map(|end| CredentialEnd::new("the token of Entra", end, Renewal::Own));
        given.into_iter().chain(kept).collect()
    }

    /// Asks the source; what lies in files is read now.
    pub(super) async fn grant(&self) -> Result<Granted<AzureCredentials>, Failure> {
        match &self.source {
            AzureCredentialSource::AccountKey(key) => account_key(key),
            AzureCredentialSource::AccountKeyFile(path) => account_key(&read_secret(path).await?),
            AzureCredentialSource::SharedAccess(query) => shared_access(query),
            AzureCredentialSource::SharedAccessFile(path) => {
                shared_access(&read_secret(path).await?)
            }
            AzureCredentialSource::ManagedIdentity { service, client_id } => {
                let nearby = self.nearby.as_ref().unwrap_or(&self.transport);
                tokens::of_identity(service, client_id.as_deref(), nearby).await
            }
            AzureCredentialSource::Client(client) => {
                tokens::of_client(client, &self.transport).await
            }
        }
    }
}

fn account_key(text: &Secret) -> Result<Granted<AzureCredentials>, Failure> {
    // The text is not quoted.
    let key = BASE64_STANDARD.decode(text.expose().trim());
    let key = key.map_err(|_| {
        Failure::NoCredentials("the key of the storage account is not base64".to_owned())
    })?;
    Ok(Granted {
        credentials: AzureCredentials::Key(key),
        expires: None,
    })
}

fn shared_access(text: &Secret) -> Result<Granted<AzureCredentials>, Failure> {
    let query = text.expose().trim().trim_start_matches('?');
    let is_one = fits_header(query) && query.split('&').any(|pair| pair.starts_with("sig="));
    if !is_one {
        let problem = "the shared access signature is no query with a signature (sig=…) in it";
        return Err(Failure::NoCredentials(problem.to_owned()));
    }
    Ok(Granted {
        credentials: AzureCredentials::SharedAccess(Secret::new(query)),
        expires: ends::of_shared_access(query),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_access_signature_is_a_query_and_says_when_it_ends() {
        for text in [
            "?sv=2021-12-02&se=2027-01-01T00%3A00%3A00Z&sig=can%2Bary",
            "sv=2021-12-02&se=2027-01-01T00:00:00Z&sig=can%2Bary\n",
        ] {
            let granted = shared_access(&Secret::new(text)).expect("it is one");
            let ends = granted.expires.expect("it says so").to_rfc3339();
            assert_eq!(ends, "2027-01-01T00:00:00+00:00");
            assert!(!format!("{granted:?}").contains("ary"));
            let AzureCredentials::SharedAccess(query) = granted.credentials else {
                panic!("it is a query");
            };
            assert!(query.expose().starts_with("sv=") && query.expose().ends_with("ary"));
        }
        for text in ["", "?", "canary", "sv=1&sig=can ary"] {
            let failure = shared_access(&Secret::new(text)).expect_err(text);
            assert!(!format!("{failure:?}").contains("ary"), "{failure:?}");
        }
        let policy = shared_access(&Secret::new("sv=1&si=policy&sig=s")).expect("it is one");
        assert_eq!(policy.expires, None);
    }

    /// A job writes a new one every day; nobody does that for one that lasts a year.
    #[tokio::test]
    async fn a_signature_in_a_file_that_ends_soon_after_it_was_written_is_renewed_by_others() {
        use chrono::{TimeDelta, Utc};
        let file = tempfile::NamedTempFile::new().unwrap();
        let options = |source| AzureKeys {
            source,
            transport: Transport::new(None, &Proxies::default(), HttpTimeouts::default()).unwrap(),
            nearby: None,
            keeper: Keeper::default(),
        };
        for (days, renewal) in [(1, Renewal::Others), (365, Renewal::Nobody)] {
            let end = (Utc::now() + TimeDelta::days(days)).format("%Y-%m-%dT%H:%M:%SZ");
            let text = format!("sv=1&se={end}&sig=canary");
            std::fs::write(file.path(), &text).unwrap();
            let source = AzureCredentialSource::SharedAccessFile(file.path().to_owned());
            let found = options(source).ends().await;
            assert_eq!(found[0].renewal, renewal, "{days}");
            let source = AzureCredentialSource::SharedAccess(Secret::new(text));
            assert_eq!(options(source).ends().await[0].renewal, Renewal::Nobody);
        }
    }

    #[test]
    fn a_key_is_base64_and_not_quoted() {
        assert!(account_key(&Secret::new(" Zm9v\n")).is_ok());
        let failure = account_key(&Secret::new("can ary")).expect_err("no key");
        assert!(!format!("{failure:?}").contains("ary"), "{failure:?}");
    }
}
