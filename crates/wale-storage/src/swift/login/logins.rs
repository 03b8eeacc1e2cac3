//! The token in use: asked for in the way of its protocol, and kept until it ends.

use std::sync::Arc;

use http::StatusCode;

use super::catalog::WantedEndpoint;
use super::exchange::Admitted;
use super::method::{SwiftLogin, SwiftMethod};
use super::{v1, v2, v3};
use crate::http::failure::{Failure, Meaning, NoAnswer};
use crate::http::keeper::{Granted, Keeper};
use crate::http::transport::Transport;
use crate::swift::options::SwiftOptions;
use crate::{CredentialEnd, Misconfiguration, Renewal};

/// The login, and the token in use.
#[derive(Debug)]
pub(in crate::swift) struct Logins {
    login: SwiftLogin,
    storage_url: Option<String>,
    transport: Transport,
    keeper: Keeper<Admitted>,
}

impl Logins {
    pub(in crate::swift) fn new(options: &SwiftOptions, transport: Transport) -> Self {
        Self {
            login: options.login.clone(),
            storage_url: options.storage_url.clone(),
            transport,
            keeper: Keeper::default(),
        }
    }

    /// The token to use.
    pub(in crate::swift) async fn get(&self) -> Result<Arc<Admitted>, Failure> {
        self.keeper.get(self.grant()).await
    }

    /// When the one in use ends, where that is said.
    pub(in crate::swift) fn ends(&self) -> Vec<CredentialEnd> {
        let kept = self.keeper.expires();
        let kept = kept.map(|end| CredentialEnd::new("the login's token", end, Renewal::Own));
        kept.into_iter().collect()
    }

    /// Another token than this, which was refused; `None` when there is none.
    pub(in crate::swift) async fn other_than(
        &self,
        refused: &Arc<Admitted>,
    ) -> Result<Option<Arc<Admitted>>, Failure> {
        self.keeper.other_than(refused, self.grant()).await
    }

    async fn grant(&self) -> Result<Granted<Admitted>, Failure> {
        let SwiftLogin { url, .. } = &self.login;
        let granted = self.ask().await.map_err(|failure| of_login(failure, url))?;
        let storage_url = &granted.credentials.storage_url;
        if url.starts_with("https://") && storage_url.starts_with("http://") {
            tracing::warn!(
                storage_url,
                "the login speaks TLS and names an account without it: tokens and data go over the network in clear. Set \
                 the account's URL if it can be had with https"
            );
        }
        Ok(granted)
    }

    async fn ask(&self) -> Result<Granted<Admitted>, Failure> {
        let Self {
            login,
            storage_url,
            transport,
            ..
        } = self;
        let place = WantedEndpoint {
            region: login.region.as_deref(),
            interface: login.interface,
            instead: storage_url.as_deref(),
        };
        match &login.method {
            SwiftMethod::V1 { user, key } => {
                let key = key.read().await?;
                v1::grant(&login.url, user, &key, &place, transport).await
            }
            SwiftMethod::V2 {
                user,
                password,
                tenant,
            } => {
                let password = password.read().await?;
                let body = v2::request(user, &password, tenant);
                v2::grant(&login.url, &body, &place, transport).await
            }
            SwiftMethod::V3Password {
                user,
                user_domain,
                password,
                project,
                project_domain,
            } => {
                let password = password.read().await?;
                let body =
                    v3::with_password((user, user_domain), &password, (project, project_domain));
                v3::grant(&login.url, &body, &place, transport).await
            }
            SwiftMethod::V3Application { credential, secret } => {
                let secret = secret.read().await?;
                let body = v3::with_application_credential(credential, &secret);
                v3::grant(&login.url, &body, &place, transport).await
            }
        }
    }
}

/// What a failure of the login means, with the service's address.
fn of_login(failure: Failure, url: &str) -> Failure {
    match failure {
        Failure::Refused(mut refusal) => {
            refusal.meaning = match (refusal.status, refusal.meaning.clone()) {
                (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => Meaning::Misconfigured(
                    Misconfiguration::LoginRefused,
                    format!("the login at {url} is refused"),
                ),
                // What was understood of it before counts.
                (_, Meaning::Misconfigured(problem, reason)) if reason.contains(url) => {
                    Meaning::Misconfigured(problem, reason)
                }
                (_, Meaning::Misconfigured(problem, reason)) => {
                    Meaning::Misconfigured(problem, format!("the login at {url}: {reason}"))
                }
                _ if refusal.is_transient() => {
                    let reason = format!("the login at {url}: {refusal}");
                    return Failure::NoAnswer(NoAnswer { reason });
                }
                _ => Meaning::Misconfigured(
                    Misconfiguration::BadOptions,
                    format!("what answers at {url} is no login service of this version"),
                ),
            };
            Failure::Refused(refusal)
        }
        Failure::Nonsense(_) | Failure::NoAnswer(_) => {
            let reason = format!("the login at {url}: {failure}");
            Failure::NoAnswer(NoAnswer { reason })
        }
        other => other,
    }
}
