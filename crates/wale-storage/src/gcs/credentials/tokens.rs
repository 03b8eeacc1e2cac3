//! The token in use: each source is asked in its own way, and what it gives is kept until it ends.

use std::sync::Arc;
use std::time::Duration;

use super::source::{AccessToken, GrantedToken, Services};
use super::{file, metadata};
use crate::gcs::options::{GcsCredentials, GcsOptions};
use crate::http::failure::Failure;
use crate::http::keeper::Keeper;
use crate::http::transport::Transport;
use crate::{CredentialEnd, HttpTimeouts, Proxies, Renewal};

/// Services on the host or the link answer at once or are not there.
const LOCAL_LIMIT: Duration = Duration::from_secs(5);

/// A source of tokens, and the one of it that is in use.
#[derive(Debug)]
pub(in crate::gcs) struct Tokens {
    source: GcsCredentials,
    services: Services,
    keeper: Keeper<AccessToken>,
}

impl Tokens {
    pub(in crate::gcs) fn new(options: &GcsOptions, transport: Transport) -> Result<Self, String> {
        let timeouts = HttpTimeouts {
            connect: LOCAL_LIMIT,
            answer: LOCAL_LIMIT,
            ..HttpTimeouts::default()
        };
        let ca_file = options.ca_file.as_deref();
        Ok(Self {
            source: options.credentials.clone(),
            services: Services {
                near: Transport::new(ca_file, &Proxies::default(), timeouts)?,
                far: transport,
            },
            keeper: Keeper::default(),
        })
    }

    /// The token to send; none where none is wanted.
    pub(in crate::gcs) async fn get(&self) -> Result<Option<Arc<AccessToken>>, Failure> {
        match self.source {
            GcsCredentials::Anonymous => Ok(None),
            _ => self.keeper.get(self.grant()).await.map(Some),
        }
    }

    /// Another token of the same source than this one, which was refused; `None` when there is none.
    pub(in crate::gcs) async fn other_than(
        &self,
        refused: &Arc<AccessToken>,
    ) -> Result<Option<Arc<AccessToken>>, Failure> {
        self.keeper.other_than(refused, self.grant()).await
    }

    /// When they end, as far as that is known.
    pub(in crate::gcs) async fn ends(&self) -> Vec<CredentialEnd> {
        let shown = match &self.source {
            GcsCredentials::File(path) => match file::token_file(path).await {
                Some(token) => CredentialEnd::of_token_file(&token).await,
                None => None,
            },
            GcsCredentials::Anonymous | GcsCredentials::Metadata(_) => None,
        };
        let kept = self.keeper.expires();
        let kept = kept.map(|end| CredentialEnd::new("the access token", end, Renewal::Own));
        shown.into_iter().chain(kept).collect()
    }

    /// Asks the source; what lies in files is read now.
    async fn grant(&self) -> Result<GrantedToken, Failure> {
        match &self.source {
            GcsCredentials::Anonymous => Err(Failure::NoCredentials("none are set".to_owned())),
            GcsCredentials::File(path) => file::grant(path, &self.services).await,
            GcsCredentials::Metadata(host) => metadata::grant(host, &self.services.near).await,
        }
    }
}
