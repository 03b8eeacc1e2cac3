//! Signed requests of one bucket, and what their answers mean.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use chrono::Utc;
use http::{HeaderMap, Method, StatusCode};

use super::address::Address;
use super::credentials::{Credentials, Keys};
use super::customer_key::CustomerKey;
use super::options::S3Options;
use super::refusal;
use super::sign::{Signer, ToSign, UNSIGNED_PAYLOAD, sha256_hex};
use super::xml::{self, ListPage};
use crate::http::call::HttpCall;
use crate::http::failure::{Asked, Failure, Refusal};
use crate::http::seen::LastSeen;
use crate::http::text::query;
use crate::http::transport::{Answer, Outgoing, Transport};
use crate::{CredentialEnd, HttpTimeouts, ObjectKey, StoreError};

/// An error's body longer than this is not S3's: theirs are some hundred bytes.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// An answer that names an upload or an object is some hundred bytes long.
pub(super) const SHORT_BYTES_MAX: usize = 64 << 10;

/// What OpenStack Swift puts into its answers, those in the words of S3 too, and no other server does.
const SWIFT_HEADERS: [&str; 2] = ["x-trans-id", "x-openstack-request-id"];

/// A bucket and who asks it.
#[derive(Debug)]
pub(super) struct Client {
    transport: Transport,
    address: Address,
    region: String,
    prefix: String,
    location: String,
    keys: Keys,
    /// For every request that touches content.
    customer_key: CustomerKey,
    bucket_seen: LastSeen,
    lists_at_once: OnceLock<bool>,
    begins_anywhere: AtomicBool,
}

/// What a request is for.
#[derive(Debug, Clone)]
pub(crate) struct AskedFor<'a> {
    /// The object; the bucket itself when there is none.
    key: Option<&'a ObjectKey>,
    /// The payload's SHA-256, where it is known; otherwise the payload is small and is hashed here.
    sha256: Option<String>,
}

/// A request, not signed yet.
pub(super) type Call<'a> = HttpCall<'a, AskedFor<'a>>;

impl<'a> Call<'a> {
    /// A request for an object.
    pub(super) fn object(method: Method, key: &'a ObjectKey) -> Self {
        let (key, sha256) = (Some(key), None);
        Self::new(method, AskedFor { key, sha256 })
    }

    /// A request for the bucket.
    pub(super) fn bucket(method: Method) -> Self {
        let (key, sha256) = (None, None);
        Self::new(method, AskedFor { key, sha256 })
    }

    /// With the payload's SHA-256, where it is known.
    pub(super) fn sha256(mut self, sum: Option<String>) -> Self {
        self.target.sha256 = sum;
        self
    }
}

impl Client {
    /// When the right to ask ends.
    pub(super) async fn credential_ends(&self) -> Vec<CredentialEnd> {
        self.keys.ends().await
    }

    /// Reads the file of certificates; asks nobody.
    pub(super) fn new(options: &S3Options) -> Result<Self, String> {
        let S3Options {
            bucket,
            prefix,
            endpoint,
            region,
            ..
        } = options;
        let transport = Transport::new(
            options.ca_file.as_deref(),
            &options.proxies,
            options.timeouts.clone(),
        )?;
        let keys = Keys::new(options, transport.clone())?;
        Ok(Self {
            transport,
            address: Address::new(bucket, region, endpoint.as_ref()),
            region: region.clone(),
            prefix: prefix.clone(),
            location: location(bucket, prefix),
            keys,
            customer_key: CustomerKey::new(&options.encryption)?,
            bucket_seen: LastSeen::default(),
            lists_at_once: match endpoint {
                None => OnceLock::from(true),
                Some(_) => OnceLock::new(),
            },
            begins_anywhere: AtomicBool::new(true),
        })
    }

    /// Where the store is, for messages.
    pub(super) fn location(&self) -> &str {
        &self.location
    }

    /// The path within the bucket below which everything lies.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether bodies go through TLS, which vouches for them.
    pub(super) fn is_secure(&self) -> bool {
        self.address.is_secure()
    }

    /// The headers with which content is encrypted and decrypted by the customer's key; none without one.
    pub(super) fn customer_key(&self) -> HeaderMap {
        self.customer_key.headers()
    }

    /// Whether a listing shows what was written before it: Amazon's does, and so do those of the servers that follow it,
    /// except for Swift's, whose listings may lag behind. A server that has not answered yet is not known.
    pub(super) fn lists_at_once(&self) -> bool {
        self.lists_at_once.get().copied().unwrap_or(false)
    }

    /// Whether a listing begins where it is asked to, as far as is known.
    pub(super) fn begins_anywhere(&self) -> bool {
        self.begins_anywhere.load(Ordering::Relaxed)
    }

    /// A listing began before the key behind which it was to begin.
    pub(super) fn note_early_beginning(&self) {
        if self.begins_anywhere.swap(false, Ordering::Relaxed) {
            tracing::debug!(location = %self.location, "the server does not know start-after");
        }
    }

    /// The limits in force.
    pub(super) fn timeouts(&self) -> &HttpTimeouts {
        self.transport.timeouts()
    }

    /// The key of an object of the bucket, if it is below the prefix and can be one of ours.
    pub(super) fn key_of(&self, name: &str) -> Option<ObjectKey> {
        ObjectKey::new(name.strip_prefix(&self.prefix)?).ok()
    }

    /// The failure as the room's error.
    pub(super) fn error(&self, failure: Failure, asked: Asked<'_>) -> StoreError {
        failure.into_store_error(&self.location, asked)
    }

    /// Makes a request. Credentials that are refused are renewed once.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let credentials = self.keys.get().await?;
        let failure = match self.attempt(call, &credentials).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        let is_refused = failure
            .refusal()
            .is_some_and(|refused| refusal::is_of_credentials(refused) || has_no_reason(refused));
        if is_refused && let Some(renewed) = self.keys.other_than(&credentials).await? {
            tracing::info!(location = %self.location, "the credentials were renewed");
            return self.attempt(call, &renewed).await;
        }
        Err(failure)
    }

    /// Makes a request whose answer is a short text.
    pub(super) async fn short_answer<T: xml::AnswerBody>(
        &self,
        call: &Call<'_>,
    ) -> Result<T, Failure> {
        self.long_answer(call, SHORT_BYTES_MAX).await
    }

    /// Makes a request whose answer is a text of at most that length.
    pub(super) async fn long_answer<T: xml::AnswerBody>(
        &self,
        call: &Call<'_>,
        bytes_max: usize,
    ) -> Result<T, Failure> {
        let mut answer = self.call(call).await?;
        xml::read(&answer.read(bytes_max).await?)
    }

    async fn attempt(&self, call: &Call<'_>, credentials: &Credentials) -> Result<Answer, Failure> {
        let mut answer = self.transport.send(self.signed(call, credentials)).await?;
        self.lists_at_once.get_or_init(|| {
            SWIFT_HEADERS
                .iter()
                .all(|name| answer.header(*name).is_none())
        });
        if answer.status.is_success() {
            self.bucket_seen.note();
            return Ok(answer);
        }
        // An error whose body cannot be read is still the error that its status says.
        let body = answer.read(ERROR_BYTES_MAX).await.unwrap_or_default();
        Err(Failure::Refused(refusal::read(
            answer.status,
            &answer.headers,
            &body,
        )))
    }

    fn signed(&self, call: &Call<'_>, credentials: &Credentials) -> Outgoing {
        let path = match call.target.key {
            Some(key) => self.address.object_path(&format!("{}{key}", self.prefix)),
            None => self.address.bucket_path().to_owned(),
        };
        let query = query(&call.query);
        let digest;
        let payload = match &call.target.sha256 {
            Some(known) => known.as_str(),
            // TLS protects the bodies whose digest nobody computed beforehand, or they are short.
            None if call.payload.len() > 0 && self.is_secure() => UNSIGNED_PAYLOAD,
            None => {
                digest = sha256_hex(&call.payload.chunks().concat());
                &digest
            }
        };
        let mut headers = call.headers.clone();
        let signer = Signer {
            credentials,
            region: &self.region,
            service: "s3",
            now: Utc::now(),
        };
        let to_sign = ToSign {
            method: &call.method,
            authority: &self.address.authority,
            path: &path,
            query: &query,
            payload,
        };
        signer.sign(&to_sign, &mut headers);
        let url = self.address.url(&path, &query);
        call.outgoing(url, headers, self.transport.timeouts())
    }

    /// Makes sure that the bucket exists, after an object of it was not found: the answer to HEAD does not say
    /// which of the two is missing.
    pub(super) async fn confirm_bucket(&self) -> Result<(), StoreError> {
        if self.bucket_seen.is_recent() {
            return Ok(());
        }
        self.ask_bucket().await
    }

    /// Makes sure that an object does not exist. Somebody said so, but perhaps not the store: the bucket's
    /// listing must not have it.
    pub(super) async fn confirm_absence(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let name = format!("{}{key}", self.prefix);
        // The first name that begins so is the name itself, if it is there.
        let page = self.first_below(&name).await?;
        if page.contents.iter().all(|listed| listed.key != name) {
            return Ok(());
        }
        let reason = format!("object {key} is listed, and does not exist when it is asked for");
        Err(self.error(Failure::Nonsense(reason), Asked::Object(key)))
    }

    /// Lists at most one object: the smallest request whose refusal has a body with a reason.
    pub(super) async fn ask_bucket(&self) -> Result<(), StoreError> {
        self.first_below(&self.prefix).await.map(drop)
    }

    async fn first_below(&self, prefix: &str) -> Result<ListPage, StoreError> {
        let call = Call::bucket(Method::GET).query(&[
            ("list-type", "2"),
            ("max-keys", "1"),
            ("prefix", prefix),
        ]);
        let page = self.short_answer(&call).await;
        page.map_err(|failure| self.error(failure, Asked::Bucket))
    }

    /// Asks for the reason of a refusal that had no body, because it was the answer to HEAD: the same object is
    /// opened with GET, and what that says counts.
    pub(super) async fn explain(&self, key: &ObjectKey, failure: Failure) -> StoreError {
        let is_mute = failure.refusal().is_some_and(|refusal| {
            refusal.reply.code.is_empty()
                && !refusal.status.is_server_error()
                && !refusal.may_be_absence()
        });
        if is_mute {
            let call = Call::object(Method::GET, key)
                .headers(&self.customer_key.headers())
                .header("range", "bytes=0-0");
            if let Err(reason) = self.call(&call).await
                && reason.refusal().is_some_and(|refusal| {
                    !refusal.reply.code.is_empty() || !refusal.reply.message.is_empty()
                })
            {
                return self.error(reason, Asked::Object(key));
            }
        }
        self.error(failure, Asked::Object(key))
    }
}

/// A bucket and prefix as they are written.
pub(super) fn location(bucket: &str, prefix: &str) -> String {
    format!("s3://{bucket}/{prefix}")
        .trim_end_matches('/')
        .to_owned()
}

/// Whether the answer may hide that the credentials are no longer good: HEAD gives a status without a reason.
fn has_no_reason(refusal: &Refusal) -> bool {
    refusal.reply.code.is_empty()
        && matches!(
            refusal.status,
            StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED
        )
}

/// A client that uploads, listings and open objects share.
pub(super) type SharedClient = Arc<Client>;
