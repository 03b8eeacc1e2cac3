//! Objects in S3, or in a server that speaks like it.
//!
//! ```text
//!   S3Store ─▶ upload, download, listing, delete      what the six verbs mean
//!                   └─▶ client ─▶ sign                one bucket, signed requests
//!                         ├────▶ credentials          keys, and when they are renewed
//!                         └────▶ transport            HTTP, TLS, proxies, limits on silence
//! ```
//!
//! It refuses to know what the objects are. What it relies on of S3, and where that is not given:
//!
//! * a write is whole or not at all, and durable when it is answered;
//! * `If-None-Match: *` lets exactly one writer create an object, of several at the same time too. A store that ignores
//!   it, or keeps it for writers one after the other only, is found out before the first write (`probe`); then looks
//!   before and after the write, and a lock within the process, stand in;
//! * an answer of success comes from the store. One without an `ETag`, and one to the end of an upload, is looked at;
//! * a body that does not match its checksum is refused. Of a store that accepts it, the digest that it answers with
//!   (`ETag`) is compared, or, where that is none, the object is read back;
//! * an answer of status 200 may still hold an error, which counts.
//!
//! Requests that anybody can repeat are repeated by [`crate::RetryStore`]; parts of an upload, pages of a listing and
//! the rest of a body only here, by the same policy.

mod address;
mod client;
mod commit;
mod credentials;
mod customer_key;
mod delete;
mod download;
mod failure;
mod listing;
mod options;
mod part;
mod probe;
mod settings_file;
mod sign;
mod slots;
mod transport;
mod upload;
mod xml;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;
use http::{HeaderMap, Method};
use tokio::sync::OnceCell;

pub use self::credentials::{
    ContainerSource, ContainerToken, CredentialSource, Credentials, FileSource, ProfileSource,
    RoleSource, WebIdentitySource,
};
pub use self::options::{
    Addressing, Proxies, S3Endpoint, S3Options, S3Timeouts, Secret, ServerEncryption,
    UploadChecksum,
};

use self::client::{Call, Client};
use self::failure::{Asked, Failure, Refusal};
use self::probe::BodyCheck;
use self::slots::Slots;
use self::upload::{Abandoned, Condition, NameLocks, Stored};
use crate::store::check_prefix;
use crate::{
    Body, Misconfiguration, Object, ObjectKey, ObjectMeta, PutOutcome, RetryPolicy, Store,
    StoreError,
};

/// Objects in a bucket, below a prefix. Clones share connections, keys and memory.
#[derive(Debug, Clone)]
pub struct S3Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Arc<Client>,
    checksum: UploadChecksum,
    object_headers: HeaderMap,
    slots: Slots,
    retry: RetryPolicy,
    is_amazon: bool,
    creation_guarded: OnceCell<bool>,
    assembly_guarded: OnceCell<bool>,
    body_check: OnceCell<BodyCheck>,
    names: NameLocks,
    abandoned: Abandoned,
    deletes_singly: AtomicBool,
}

impl S3Store {
    /// Sets the store up. Reads the file of certificates, if there is one, and asks nobody.
    ///
    /// # Errors
    ///
    /// [`StoreError::Misconfigured`] when an option cannot be used.
    pub fn open(options: &S3Options) -> Result<Self, StoreError> {
        let unusable = |reason: String| StoreError::Misconfigured {
            location: client::location(&options.bucket, &options.prefix),
            problem: Misconfiguration::BadOptions,
            reason,
            source: None,
        };
        let inner = Inner {
            client: Arc::new(Client::new(options).map_err(unusable)?),
            checksum: options.checksum,
            object_headers: upload::object_headers(options).map_err(unusable)?,
            slots: Slots::new(options.upload_memory_bytes),
            retry: options.retry.clone(),
            is_amazon: options.endpoint.is_none(),
            creation_guarded: OnceCell::new(),
            assembly_guarded: OnceCell::new(),
            body_check: OnceCell::new(),
            names: NameLocks::default(),
            abandoned: Abandoned::default(),
            deletes_singly: AtomicBool::new(false),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}

#[async_trait]
impl Store for S3Store {
    async fn put_if_absent(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        let _name = self.inner.names.lock(key).await;
        if self.head(key).await?.is_some() {
            return Ok(PutOutcome::Exists);
        }
        let condition = if self.creation_is_guarded().await? {
            Condition::Create
        } else {
            // Nothing but the look keeps this write from another's object, so the listing must agree with it.
            self.inner.client.confirm_absence(key).await?;
            Condition::CreateUnguarded
        };
        match self.upload(key, body, condition).await? {
            Stored::Ours(meta) => Ok(PutOutcome::Created(meta)),
            Stored::Others => Ok(PutOutcome::Exists),
        }
    }

    async fn put(&self, key: &ObjectKey, body: Body) -> Result<ObjectMeta, StoreError> {
        match self.upload(key, body, Condition::Replace).await? {
            Stored::Ours(meta) => Ok(meta),
            Stored::Others => Err(StoreError::unavailable(
                self.location(),
                "it refused to replace an object, without being told to",
            )),
        }
    }

    async fn get(&self, key: &ObjectKey) -> Result<Object, StoreError> {
        download::open(&self.inner.client, key, &self.inner.retry).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        let client = &self.inner.client;
        let call = Call::object(Method::HEAD, key).headers(&client.customer_key());
        match client.call(&call).await {
            Ok(answer) => download::meta(key, &answer)
                .map(Some)
                .map_err(|failure| client.error(failure, Asked::Object(key))),
            Err(Failure::Refused(refusal)) if refusal.may_be_absence() => {
                client.confirm_bucket().await.map(|()| None)
            }
            Err(failure) => Err(client.explain(key, failure).await),
        }
    }

    async fn list(
        &self,
        prefix: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        check_prefix(prefix)?;
        listing::list(&self.inner.client, prefix, &self.inner.retry).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.delete_one(key).await
    }

    async fn delete_many(&self, keys: &[ObjectKey]) -> Vec<(ObjectKey, StoreError)> {
        self.delete_all(keys).await
    }

    async fn discard_unfinished(
        &self,
        older_than: Duration,
        ours: crate::Ours,
    ) -> Result<u64, StoreError> {
        self.discard_abandoned().await;
        let uploads = self.discard_stale_uploads(older_than, ours).await?;
        Ok(uploads + self.discard_stale_trials(older_than).await?)
    }

    fn location(&self) -> String {
        self.inner.client.location().to_owned()
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.inner.client.ask_bucket().await
    }

    async fn try_out(&self) -> Result<(), StoreError> {
        self.wanted_sums().await?;
        self.creation_is_guarded().await?;
        self.assembly_is_guarded().await.map(drop)
    }
}

impl StoreError {
    /// The code and the message with which S3 itself answered, if it was S3 and it did. The message may be empty.
    #[must_use]
    pub fn told_by_s3(&self) -> Option<(&str, &str)> {
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            if let Some(refusal) = error.downcast_ref::<Refusal>() {
                return Some((&refusal.code, &refusal.message));
            }
            cause = error.source();
        }
        None
    }
}

/// A moment in a header, as HTTP writes it.
fn moment(text: Option<&str>) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc2822(text?)
        .ok()
        .map(|moment| moment.to_utc())
}

#[cfg(test)]
mod tests;
