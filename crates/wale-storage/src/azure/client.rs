//! Signed requests of one container, and what their answers mean.

use std::sync::Arc;

use chrono::Utc;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method};

use super::address::ContainerAddress;
use super::checksum::BodySum;
use super::keys::AzureKeys;
use super::options::AzureOptions;
use super::refusal;
use super::sign::SharedKeyRequest;
use super::source::AzureCredentials;
use super::xml::{self, BlobPage};
use crate::http::call::HttpCall;
use crate::http::failure::{Asked, Failure};
use crate::http::text::query;
use crate::http::transport::{Answer, Outgoing, Transport};
use crate::{CredentialEnd, HttpTimeouts, ObjectKey, StoreError};

/// An error's body longer than this is not Azure's: theirs are some hundred bytes.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// An answer that lists one blob is some KiB long.
const SHORT_BYTES_MAX: usize = 64 << 10;

/// The version of the protocol that this code was written for: of December 2021, which has all that is used here, and
/// which what stands in people's own data centres has by now.
const API_VERSION: &str = "2021-12-02";

/// A container and who asks it.
#[derive(Debug)]
pub(super) struct Container {
    transport: Transport,
    address: ContainerAddress,
    account: String,
    prefix: String,
    location: String,
    api_version: HeaderValue,
    keys: AzureKeys,
}

/// A request, not signed yet, for a blob; for the container itself when there is none.
pub(super) type BlobCall<'a> = HttpCall<'a, Option<&'a ObjectKey>>;

impl<'a> BlobCall<'a> {
    /// A request for a blob.
    pub(super) fn blob(method: Method, key: &'a ObjectKey) -> Self {
        Self::new(method, Some(key))
    }

    /// A request for the container.
    pub(super) fn container(method: Method) -> Self {
        Self::new(method, None)
    }

    /// With the sum of its body, where there is one.
    pub(super) fn summed(self, sum: Option<&BodySum>) -> Self {
        match sum {
            Some(sum) => self.header(sum.header, &sum.value),
            None => self,
        }
    }
}

impl Container {
    /// When the right to ask ends.
    pub(super) async fn credential_ends(&self) -> Vec<CredentialEnd> {
        self.keys.ends().await
    }

    /// Reads the file of certificates; asks nobody.
    pub(super) fn new(options: &AzureOptions) -> Result<Self, String> {
        let transport = Transport::new(
            options.ca_file.as_deref(),
            &options.proxies,
            options.timeouts.clone(),
        )?;
        let version = options.api_version.as_deref().unwrap_or(API_VERSION);
        let api_version = HeaderValue::from_str(version)
            .map_err(|_| format!("\"{version}\" cannot stand in a header"))?;
        Ok(Self {
            keys: AzureKeys::new(options, transport.clone())?,
            transport,
            address: ContainerAddress::new(options),
            account: options.account.clone(),
            prefix: options.prefix.clone(),
            location: location(&options.container, &options.prefix),
            api_version,
        })
    }

    /// Where the store is, for messages.
    pub(super) fn location(&self) -> &str {
        &self.location
    }

    /// The path within the container below which everything lies.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The limits in force.
    pub(super) fn timeouts(&self) -> &HttpTimeouts {
        self.transport.timeouts()
    }

    /// The key of a blob of the container, if it is below the prefix and can be one of ours.
    pub(super) fn key_of(&self, name: &str) -> Option<ObjectKey> {
        ObjectKey::new(name.strip_prefix(&self.prefix)?).ok()
    }

    /// The failure as the room's error.
    pub(super) fn error(&self, failure: Failure, asked: Asked<'_>) -> StoreError {
        failure.into_store_error(&self.location, asked)
    }

    /// Makes a request. Credentials that are refused are renewed once.
    pub(super) async fn call(&self, call: &BlobCall<'_>) -> Result<Answer, Failure> {
        let credentials = self.keys.get().await?;
        let failure = match self.attempt(call, &credentials).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        let is_refused = failure.refusal().is_some_and(refusal::is_of_credentials);
        if is_refused && let Some(renewed) = self.keys.other_than(&credentials).await? {
            tracing::info!(location = %self.location, "the credentials were renewed");
            return self.attempt(call, &renewed).await;
        }
        Err(failure)
    }

    /// Makes a request whose answer is a text of at most that length.
    pub(super) async fn text<T: xml::AzureAnswer>(
        &self,
        call: &BlobCall<'_>,
        bytes_max: usize,
    ) -> Result<T, Failure> {
        let mut answer = self.call(call).await?;
        xml::read(&answer.read(bytes_max).await?)
    }

    async fn attempt(
        &self,
        call: &BlobCall<'_>,
        credentials: &AzureCredentials,
    ) -> Result<Answer, Failure> {
        let mut answer = self.transport.send(self.signed(call, credentials)?).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        // An error whose body cannot be read is still the error that its status and its header say.
        let body = answer.read(ERROR_BYTES_MAX).await.unwrap_or_default();
        Err(Failure::Refused(refusal::read(
            answer.status,
            &answer.headers,
            &body,
        )))
    }

    fn signed(
        &self,
        call: &BlobCall<'_>,
        credentials: &AzureCredentials,
    ) -> Result<Outgoing, Failure> {
        let path = match call.target {
            Some(key) => self.address.blob_path(&format!("{}{key}", self.prefix)),
            None => self.address.container_path().to_owned(),
        };
        let mut headers = call.headers.clone();
        headers.insert("x-ms-version", self.api_version.clone());
        let date = Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        headers.insert("x-ms-date", secret(&date)?);
        let mut query = query(&call.query);
        match credentials {
            AzureCredentials::Key(key) => {
                let to_sign = SharedKeyRequest {
                    method: &call.method,
                    path: &path,
                    query: &call.query,
                    headers: &headers,
                    bytes: call.payload.len(),
                };
                let text = to_sign.authorization(&self.account, key);
                headers.insert(AUTHORIZATION, secret(&text)?);
            }
            AzureCredentials::SharedAccess(signature) => {
                if !query.is_empty() {
                    query.push('&');
                }
                query.push_str(signature.expose());
            }
            AzureCredentials::Bearer(token) => {
                let text = format!("Bearer {}", token.expose());
                headers.insert(AUTHORIZATION, secret(&text)?);
            }
        }
        let url = self.address.url(&path, &query);
        Ok(call.outgoing(url, headers, self.transport.timeouts()))
    }

    /// Lists at most one blob: the smallest request whose refusal has a body with a reason.
    pub(super) async fn ask_container(&self) -> Result<(), StoreError> {
        let call = BlobCall::container(Method::GET).query(&[
            ("restype", "container"),
            ("comp", "list"),
            ("maxresults", "1"),
            ("prefix", &self.prefix),
        ]);
        let page = self.text::<BlobPage>(&call, SHORT_BYTES_MAX).await;
        page.map(drop)
            .map_err(|failure| self.error(failure, Asked::Bucket))
    }

    /// Asks for the reason of a refusal that had no body, because it was the answer to HEAD, where one code stands for
    /// several reasons: the same blob is opened with GET, and what that says counts.
    pub(super) async fn explain(&self, key: &ObjectKey, failure: Failure) -> StoreError {
        let is_mute = failure.refusal().is_some_and(|refusal| {
            refusal.reply.message.is_empty() && refusal::is_of_credentials(refusal)
        });
        if is_mute {
            let call = BlobCall::blob(Method::GET, key).header("range", "bytes=0-0");
            if let Err(reason) = self.call(&call).await
                && reason
                    .refusal()
                    .is_some_and(|refusal| !refusal.reply.message.is_empty())
            {
                return self.error(reason, Asked::Object(key));
            }
        }
        self.error(failure, Asked::Object(key))
    }
}

/// A header's value that is not shown.
fn secret(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        Failure::NoCredentials("what goes along with a request cannot stand in a header".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// A container and prefix as they are written.
pub(super) fn location(container: &str, prefix: &str) -> String {
    format!("wabs://{container}/{prefix}")
        .trim_end_matches('/')
        .to_owned()
}

/// What uploads, listings and open blobs share.
pub(super) type SharedContainer = Arc<Container>;
