//! How a token is had: one request to a login service, which also says where the account is.
//!
//! ```text
//!   version 1    GET  url                    headers in, headers out (tempauth, swauth, Ceph)
//!   version 2    POST url/v2.0/tokens        Keystone: a token and a catalog of services, in JSON
//!   version 3    POST url/v3/auth/tokens     the same, with domains, or with an application credential
//! ```

mod catalog;
mod v1;
mod v2;
mod v3;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::refusal;
use crate::http::failure::{Failure, Meaning, NoAnswer};
use crate::http::keeper::{Granted, Keeper};
use crate::http::named_file;
use crate::http::transport::{Answer, Outgoing, Payload, Transport};
use crate::swift::options::SwiftOptions;
use crate::{Misconfiguration, Secret};

/// A login.
#[derive(Debug, Clone)]
pub struct SwiftLogin {
    /// The login service. A version at its end may be there or not.
    pub url: String,
    /// The protocol, and who logs in.
    pub method: SwiftMethod,
    /// The region of the account; without it the first that the catalog has.
    pub region: Option<String>,
    /// The network from which the account is reached.
    pub interface: SwiftInterface,
}

/// The protocol, and who logs in.
#[derive(Debug, Clone)]
pub enum SwiftMethod {
    /// Version 1.
    V1 {
        /// The user, as `account:user`.
        user: String,
        /// The key.
        key: LoginSecret,
    },
    /// Keystone's version 2.
    V2 {
        /// The user's name.
        user: String,
        /// The password.
        password: LoginSecret,
        /// The tenant.
        tenant: KeystoneName,
    },
    /// Keystone's version 3 with a password.
    V3Password {
        /// The user.
        user: KeystoneName,
        /// The domain in which the user's name is unique; an identifier needs none.
        user_domain: KeystoneName,
        /// The password.
        password: LoginSecret,
        /// The project.
        project: KeystoneName,
        /// The domain in which the project's name is unique; an identifier needs none.
        project_domain: KeystoneName,
    },
    /// Keystone's version 3 with an application credential, which knows its project.
    V3Application {
        /// Which one.
        credential: ApplicationCredential,
        /// Its secret.
        secret: LoginSecret,
    },
}

/// How Keystone is told what is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeystoneName {
    /// By an identifier.
    Id(String),
    /// By a name.
    Name(String),
}

/// An application credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplicationCredential {
    /// By its identifier.
    Id(String),
    /// By its name, which is unique among those of its user.
    OfUser {
        /// Its name.
        name: String,
        /// Whose it is.
        user: KeystoneName,
        /// The domain in which the user's name is unique.
        user_domain: KeystoneName,
    },
}

/// A secret as it is, or in a file that is read for each login.
#[derive(Debug, Clone)]
pub enum LoginSecret {
    /// The secret.
    Text(Secret),
    /// The file. White space at its end does not count.
    File(PathBuf),
}

/// The network from which the account is reached: most clouds list one URL for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwiftInterface {
    /// From everywhere.
    Public,
    /// From within the cloud.
    Internal,
    /// For operators of the cloud.
    Admin,
}

impl SwiftInterface {
    /// Version 3's word.
    fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Admin => "admin",
        }
    }
}

/// A token, and the account that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Admitted {
    pub(super) token: Secret,
    /// Without a slash at its end.
    pub(super) storage_url: String,
}

/// The login, and the token in use.
#[derive(Debug)]
pub(super) struct Logins {
    login: SwiftLogin,
    storage_url: Option<String>,
    transport: Transport,
    keeper: Keeper<Admitted>,
}

impl Logins {
    pub(super) fn new(options: &SwiftOptions, transport: Transport) -> Self {
        Self {
            login: options.login.clone(),
            storage_url: options.storage_url.clone(),
            transport,
            keeper: Keeper::default(),
        }
    }

    /// The token to use.
    pub(super) async fn get(&self) -> Result<Arc<Admitted>, Failure> {
        self.keeper.get(self.grant()).await
    }

    /// Another token than this, which was refused; `None` when there is none.
    pub(super) async fn other_than(
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
        let place = catalog::Wanted {
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
                v2::grant(&login.url, body, &place, transport).await
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
                v3::grant(&login.url, body, &place, transport).await
            }
            SwiftMethod::V3Application { credential, secret } => {
                let secret = secret.read().await?;
                let body = v3::with_application_credential(credential, &secret);
                v3::grant(&login.url, body, &place, transport).await
            }
        }
    }
}

impl LoginSecret {
    async fn read(&self) -> Result<Secret, Failure> {
        match self {
            Self::Text(secret) => Ok(secret.clone()),
            Self::File(path) => {
                let text = named_file::read_secret_text(path).await?;
                Ok(Secret::new(text.trim_end()))
            }
        }
    }
}

/// What a failure of the login means, with the service's address.
fn of_login(failure: Failure, url: &str) -> Failure {
    match failure {
        Failure::Refused(mut refusal) => {
            refusal.meaning = match refusal.status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Meaning::Misconfigured(
                    Misconfiguration::LoginRefused,
                    format!("the login at {url} is refused"),
                ),
                // What was understood of it before counts.
                _ if matches!(refusal.meaning, Meaning::Misconfigured(..)) => refusal.meaning,
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

/// A login service's answer, when it is a success.
async fn exchange(
    transport: &Transport,
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Answer, Failure> {
    let outgoing = Outgoing {
        method,
        url,
        headers,
        payload: match body.len() {
            0 => Payload::default(),
            _ => Payload::from(body),
        },
        answer_limit: transport.timeouts().answer,
    };
    let mut answer = transport.send(outgoing).await?;
    if answer.status.is_success() {
        return Ok(answer);
    }
    let body = answer.read(refusal::BYTES_MAX).await.unwrap_or_default();
    Err(Failure::Refused(refusal::read(
        answer.status,
        &answer.headers,
        &body,
    )))
}

/// A text of the user's in a header: any but control characters, as other programs send it.
fn header_value(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| {
        Failure::NoCredentials(
            "the user or the key holds a character that cannot stand in an HTTP header".to_owned(),
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The login service without a version, which its protocol adds.
fn service(url: &str) -> &str {
    let mut rest = url.trim_end_matches('/');
    for end in ["/auth/tokens", "/tokens", "/v2.0", "/v3"] {
        rest = rest.strip_suffix(end).unwrap_or(rest).trim_end_matches('/');
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_at_the_end_is_there_or_not() {
        for url in [
            "https://h:5000",
            "https://h:5000/",
            "https://h:5000/v3",
            "https://h:5000/v2.0/",
            "https://h:5000/v3/auth/tokens",
            "https://h:5000/v2.0/tokens",
        ] {
            assert_eq!(service(url), "https://h:5000", "{url}");
        }
        assert_eq!(service("http://h/identity/v3/"), "http://h/identity");
    }

    #[test]
    fn secrets_of_logins_are_not_shown() {
        let login = SwiftLogin {
            url: "http://h".into(),
            method: SwiftMethod::V1 {
                user: "u".into(),
                key: LoginSecret::Text(Secret::new("canary")),
            },
            region: None,
            interface: SwiftInterface::Public,
        };
        let session = Admitted {
            token: Secret::new("canary"),
            storage_url: "http://h".into(),
        };
        let shown = format!("{login:?} {session:?} {:?}", header_value("canary"));
        assert!(!shown.contains("canary"), "{shown}");
    }
}
