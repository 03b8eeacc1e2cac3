//! Requests of one bucket with a token, and what their answers mean.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use super::credentials::{AccessToken, Tokens};
use super::headers;
use super::options::{GcsEndpoint, GcsOptions};
use super::refusal;
use super::resource::{self, ObjectPage, PAGE_FIELDS, RESOURCE_FIELDS, Resource};
use crate::http::call::HttpCall;
use crate::http::failure::{Asked, Failure};
use crate::http::seen::LastSeen;
use crate::http::text::{escape, query};
use crate::http::transport::{Answer, Outgoing, Transport};
use crate::{CredentialEnd, HttpTimeouts, Misconfiguration, ObjectKey, StoreError};

/// An error's body longer than this is not Google's: theirs are some hundred bytes.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// The record of an object is some hundred bytes long; metadata of others may make it 8 KiB.
const RECORD_BYTES_MAX: usize = 64 << 10;

/// Google's own server.
const GOOGLE: &str = "https://storage.googleapis.com";

/// A bucket and who asks it.
#[derive(Debug)]
pub(super) struct Bucket {
    transport: Transport,
    /// Protocol, host and port.
    server: String,
    /// The path of the server's own before every other.
    path: String,
    name: String,
    prefix: String,
    location: String,
    tokens: Tokens,
    /// For every request that touches content.
    customer_key: HeaderMap,
    seen: LastSeen,
    spelling_is_certain: bool,
    names_agree: OnceCell<()>,
}

/// What a request is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target<'a> {
    /// An object's record or content.
    Object(&'a ObjectKey),
    /// The objects of the bucket.
    Objects,
    /// A new object of this name.
    Upload(&'a ObjectKey),
    /// A resumable upload, by the path and query that the store gave it.
    Session(&'a str),
}

/// A request, without its token.
pub(super) type Request<'a> = HttpCall<'a, Target<'a>>;

impl Bucket {
    /// When the right to ask ends.
    pub(super) async fn credential_ends(&self) -> Vec<CredentialEnd> {
        self.tokens.ends().await
    }

    /// Reads the file of certificates; asks nobody.
    pub(super) fn new(options: &GcsOptions) -> Result<Self, String> {
        let transport = Transport::new(
            options.ca_file.as_deref(),
            &options.proxies,
            options.timeouts.clone(),
        )?;
        let (server, path) = match &options.endpoint {
            None => (GOOGLE.to_owned(), String::new()),
            Some(GcsEndpoint {
                secure,
                authority,
                path,
            }) => {
                let scheme = if *secure { "https" } else { "http" };
                (format!("{scheme}://{authority}"), path.clone())
            }
        };
        Ok(Self {
            tokens: Tokens::new(options, transport.clone())?,
            transport,
            server,
            path,
            name: options.bucket.clone(),
            prefix: options.prefix.clone(),
            location: location(&options.bucket, &options.prefix),
            customer_key: headers::customer_key(&options.encryption)?,
            seen: LastSeen::default(),
            spelling_is_certain: options.spelling_is_certain,
            names_agree: OnceCell::new(),
        })
    }

    /// Where the store is, for messages.
    pub(super) fn location(&self) -> &str {
        &self.location
    }

    /// What the name of everything begins with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The name of an object in the bucket.
    pub(super) fn name_of(&self, key: &ObjectKey) -> String {
        format!("{}{key}", self.prefix)
    }

    /// The key of an object of the bucket, if it is below the prefix and can be one of ours.
    pub(super) fn key_of(&self, name: &str) -> Option<ObjectKey> {
        ObjectKey::new(name.strip_prefix(&self.prefix)?).ok()
    }

    /// The headers of a key of the customer's; none without one.
    pub(super) fn customer_key(&self) -> &HeaderMap {
        &self.customer_key
    }

    /// The limits in force.
    pub(super) fn timeouts(&self) -> &HttpTimeouts {
        self.transport.timeouts()
    }

    /// The failure as the room's error.
    pub(super) fn error(&self, failure: Failure, asked: Asked<'_>) -> StoreError {
        failure.into_store_error(&self.location, asked)
    }

    /// Makes a request. A token that is refused is renewed once.
    pub(super) async fn call(&self, request: &Request<'_>) -> Result<Answer, Failure> {
        let token = self.tokens.get().await?;
        let failure = match self.attempt(request, token.as_deref()).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        if let Some(token) = token
            && failure.refusal().is_some_and(refusal::is_of_credentials)
            && let Some(renewed) = self.tokens.other_than(&token).await?
        {
            tracing::info!(location = %self.location, "the credentials were renewed");
            return self.attempt(request, Some(&renewed)).await;
        }
        Err(failure)
    }

    async fn attempt(
        &self,
        request: &Request<'_>,
        token: Option<&AccessToken>,
    ) -> Result<Answer, Failure> {
        let mut answer = self.transport.send(self.outgoing(request, token)?).await?;
        // The answer to a part of a resumable upload: it has arrived, and others are to follow.
        let is_part = matches!(request.target, Target::Session(_))
            && answer.status == StatusCode::PERMANENT_REDIRECT;
        if answer.status.is_success() || is_part {
            self.seen.note();
            return Ok(answer);
        }
        // An error whose body cannot be read is still the error that its status says.
        let body = answer.read(ERROR_BYTES_MAX).await.unwrap_or_default();
        Err(Failure::Refused(refusal::read(answer.status, &body)))
    }

    fn outgoing(
        &self,
        request: &Request<'_>,
        token: Option<&AccessToken>,
    ) -> Result<Outgoing, Failure> {
        let mut headers = request.headers.clone();
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
                .map_err(|_| Failure::NoCredentials("the token is no header".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(request.outgoing(self.url(request), headers, self.transport.timeouts()))
    }

    fn url(&self, request: &Request<'_>) -> String {
        let Self {
            server, path, name, ..
        } = self;
        let bucket = escape(name);
        let mut pairs = request.query.clone();
        let named;
        let path = match request.target {
            // It is the store's own text, and goes where everything goes, whatever host it names.
            Target::Session(path) => return format!("{server}{path}"),
            Target::Objects => format!("{path}/storage/v1/b/{bucket}/o"),
            Target::Object(key) => {
                let object = escape(&self.name_of(key));
                format!("{path}/storage/v1/b/{bucket}/o/{object}")
            }
            Target::Upload(key) => {
                named = self.name_of(key);
                pairs.push(("name", &named));
                format!("{path}/upload/storage/v1/b/{bucket}/o")
            }
        };
        let query = query(&pairs);
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{server}{path}{mark}{query}")
    }

    /// Makes a request whose answer is JSON of at most that length.
    pub(super) async fn answer<T: DeserializeOwned>(
        &self,
        request: &Request<'_>,
        bytes_max: usize,
    ) -> Result<T, Failure> {
        let mut answer = self.call(request).await?;
        resource::read(&answer.read(bytes_max).await?)
    }

    /// The record of an object.
    pub(super) async fn record(&self, key: &ObjectKey) -> Result<Resource, Failure> {
        let request = Request::new(Method::GET, Target::Object(key))
            .query(&[("fields", RESOURCE_FIELDS)])
            .headers(&self.customer_key);
        self.answer(&request, RECORD_BYTES_MAX).await
    }

    /// The record in the answer to an upload.
    pub(super) async fn record_in(&self, mut answer: Answer) -> Result<Resource, Failure> {
        resource::read(&answer.read(RECORD_BYTES_MAX).await?)
    }

    /// Makes sure that the bucket exists, after an object of it was not found: a server may say the same of a bucket
    /// that is not there.
    pub(super) async fn confirm_bucket(&self) -> Result<(), StoreError> {
        if self.seen.is_recent() {
            return Ok(());
        }
        self.ask().await
    }

    /// Makes sure that an object does not exist. Somebody said so, but perhaps not the store: the bucket's listing must
    /// not have it.
    pub(super) async fn confirm_absence(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let name = self.name_of(key);
        // The first name that begins so is the name itself, if it is there.
        let page = self.first_below(&name).await?;
        if page.items.iter().all(|listed| listed.name != name) {
            return Ok(());
        }
        let reason = format!("object {key} is listed, and does not exist when it is asked for");
        Err(self.error(Failure::Nonsense(reason), Asked::Object(key)))
    }

    /// Lists at most one object.
    pub(super) async fn ask(&self) -> Result<(), StoreError> {
        self.first_below(&self.prefix).await.map(drop)
    }

    async fn first_below(&self, prefix: &str) -> Result<ObjectPage, StoreError> {
        let request = Request::new(Method::GET, Target::Objects).query(&[
            ("maxResults", "1"),
            ("prefix", prefix),
            ("fields", PAGE_FIELDS),
        ]);
        let page = self.answer(&request, RECORD_BYTES_MAX).await;
        page.map_err(|failure| self.error(failure, Asked::Bucket))
    }

    /// Makes sure that an archive which seems to be empty is not there under the other spelling of its names: WAL-E's
    /// begin with a slash, and WAL-G's do not. Asked once, and only where nothing was found.
    pub(super) async fn confirm_spelling(&self) -> Result<(), StoreError> {
        let asked = self.names_agree.get_or_try_init(|| async {
            let other = match self.prefix.strip_prefix('/') {
                Some(rest) => rest.to_owned(),
                None => format!("/{}", self.prefix),
            };
            // The whole bucket holds everything, of others too.
            if other.is_empty() || self.prefix.is_empty() || self.spelling_is_certain {
                return Ok(());
            }
            let is_empty = self.first_below(&self.prefix).await?.items.is_empty();
            if !is_empty || self.first_below(&other).await?.items.is_empty() {
                return Ok(());
            }
            let (ours, theirs) = (&self.prefix, other);
            Err(StoreError::Misconfigured {
                location: self.location.clone(),
                problem: Misconfiguration::OtherNames,
                reason: format!(
                    "no name in the bucket begins with \"{ours}\", and some begin with \"{theirs}\": WAL-E's names begin \
                     with a slash, WAL-G's do not"
                ),
                source: None,
            })
        });
        asked.await.copied()
    }
}

/// A bucket and prefix as they are written.
pub(super) fn location(bucket: &str, prefix: &str) -> String {
    format!("gs://{bucket}/{}", prefix.trim_matches('/'))
        .trim_end_matches('/')
        .to_owned()
}

/// A bucket that uploads, listings and open objects share.
pub(super) type SharedBucket = Arc<Bucket>;

#[cfg(test)]
mod tests {
    use super::*;

    fn url(prefix: &str, endpoint: Option<GcsEndpoint>, target: Target<'_>) -> String {
        let options = GcsOptions {
            prefix: prefix.to_owned(),
            endpoint,
            ..GcsOptions::for_test(0)
        };
        let bucket = Bucket::new(&options).expect("good options");
        let request = Request::new(Method::GET, target).query(&[("alt", "media")]);
        bucket.url(&request)
    }

    #[test]
    fn addresses() {
        let key = ObjectKey::new("wal_005/a b").expect("valid");
        assert_eq!(
            url("/p/", None, Target::Object(&key)),
            "https://storage.googleapis.com/storage/v1/b/bkt/o/%2Fp%2Fwal_005%2Fa%20b?alt=media"
        );
        let endpoint = Some(GcsEndpoint {
            secure: false,
            authority: "h:1".into(),
            path: "/gw".into(),
        });
        assert_eq!(
            url("p/", endpoint.clone(), Target::Upload(&key)),
            "http://h:1/gw/upload/storage/v1/b/bkt/o?alt=media&name=p%2Fwal_005%2Fa%20b"
        );
        assert_eq!(
            url(
                "p/",
                endpoint.clone(),
                Target::Session("/upload/x?upload_id=u")
            ),
            "http://h:1/upload/x?upload_id=u"
        );
        assert_eq!(
            url("", endpoint, Target::Objects),
            "http://h:1/gw/storage/v1/b/bkt/o?alt=media"
        );
    }

    #[test]
    fn a_place_is_written_as_its_user_writes_it() {
        for (prefix, expected) in [
            ("", "gs://b"),
            ("/", "gs://b"),
            ("a/b/", "gs://b/a/b"),
            ("/a/b/", "gs://b/a/b"),
        ] {
            assert_eq!(location("b", prefix), expected);
        }
    }
}
