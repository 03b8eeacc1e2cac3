//! What the store really does: whether a write with `If-None-Match: *` creates and never replaces, and whether a body
//! that does not match its checksum is refused.
//!
//! A store that does not know the header may ignore it without a word, and every archive on it could be overwritten.
//! So it is asked, before the first write that depends on it: an object of a name that nobody else has is written
//! twice. Amazon's own servers document the promise and are not asked. What was found out is kept as long as the
//! store's value lives.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{Method, StatusCode};
use md5::{Digest as _, Md5};

use super::client::Call;
use super::failure::{Asked, Failure};
use super::options::UploadChecksum;
use super::part::{Cutter, Wanted};
use super::sign::hex;
use super::slots::Held;
use super::upload::{Abandoned, Leftover, abandon, random_mark};
use super::xml;
use super::{Inner, S3Store};
use crate::{ObjectKey, StoreError, body_from};

/// Who sees to it that a stored body is the one that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyCheck {
    /// The server, by the checksum that comes with it.
    Server,
    /// We, by the digest that the server answers with.
    Answer,
    /// Nobody, until the object is read back.
    Nobody,
}

/// The body with which a store is tried.
const PROBE_BODY: &[u8] = b"wale";

/// How names of the objects begin with which a store is tried. They live for some milliseconds; those of a process that
/// was killed are found by the sweep.
pub(super) const PROBE_PREFIX: &str = "wale_probe_";

impl S3Store {
    /// Whether `PUT` sees to it that one creates. `false` is told in the log, once.
    pub(super) async fn creation_is_guarded(&self) -> Result<bool, StoreError> {
        let inner = &*self.inner;
        if inner.is_amazon {
            return Ok(true);
        }
        let found = inner
            .creation_guarded
            .get_or_try_init(|| async {
                let trial = Trial::new(inner)?;
                let found = self.probe_creation(&trial.key).await;
                drop(trial);
                self.discard_abandoned().await;
                let is_guarded = found?;
                if !is_guarded {
                    tracing::warn!(
                        location = inner.client.location(),
                        "the store ignores conditions of a write (If-None-Match): two writers of one name in \
                         different processes can replace each other's object. Let only one sidecar at a time use \
                         this archive, or use a store that knows conditional writes",
                    );
                }
                Ok(is_guarded)
            })
            .await;
        found.copied()
    }

    /// Whether the end of a multipart upload sees to it too; asked when there is one for the first time.
    pub(super) async fn assembly_is_guarded(&self) -> Result<bool, StoreError> {
        let inner = &*self.inner;
        if inner.is_amazon {
            return Ok(true);
        }
        let found = inner
            .assembly_guarded
            .get_or_try_init(|| async {
                let trial = Trial::new(inner)?;
                let found = self.probe_assembly(&trial.key).await;
                drop(trial);
                self.discard_abandoned().await;
                let is_guarded = found?;
                if !is_guarded {
                    tracing::info!(
                        location = inner.client.location(),
                        "the store ignores conditions at the end of a multipart upload; wale looks before and after",
                    );
                }
                Ok(is_guarded)
            })
            .await;
        found.copied()
    }

    /// The sums that are taken of a body for this store.
    pub(super) async fn wanted_sums(&self) -> Result<Wanted, StoreError> {
        let inner = &*self.inner;
        let check = self.body_check().await?;
        Ok(Wanted {
            checksum: inner.checksum,
            sha256: !inner.client.is_secure(),
            etag: check == BodyCheck::Answer,
            whole: check == BodyCheck::Nobody,
        })
    }

    /// Who sees to it that a stored body is the one that was sent.
    async fn body_check(&self) -> Result<BodyCheck, StoreError> {
        let inner = &*self.inner;
        if inner.is_amazon && inner.checksum != UploadChecksum::None {
            return Ok(BodyCheck::Server);
        }
        let found = inner
            .body_check
            .get_or_try_init(|| async {
                let trial = Trial::new(inner)?;
                let check = self.probe_body_check(&trial.key).await?;
                if check == BodyCheck::Server {
                    trial.left_nothing();
                } else {
                    // Where the body was accepted the object is there.
                    drop(trial);
                    self.discard_abandoned().await;
                }
                if check == BodyCheck::Nobody {
                    tracing::warn!(
                        location = inner.client.location(),
                        "the store does not compare checksums, and its ETags are no digests: every object is read \
                         back after it was stored",
                    );
                }
                Ok(check)
            })
            .await;
        found.copied()
    }

    /// Sends a body with a checksum that is not its own.
    async fn probe_body_check(&self, key: &ObjectKey) -> Result<BodyCheck, StoreError> {
        let inner = &*self.inner;
        let mut call = Call::object(Method::PUT, key)
            .headers(&inner.object_headers)
            .headers(inner.client.customer_key())
            .payload(bytes::Bytes::from_static(PROBE_BODY));
        let wrong = match inner.checksum {
            UploadChecksum::Crc32c => Some(("x-amz-checksum-crc32c", "AAAAAA==".to_owned())),
            UploadChecksum::Sha256 => {
                Some(("x-amz-checksum-sha256", BASE64_STANDARD.encode([0; 32])))
            }
            UploadChecksum::Md5 => Some(("content-md5", BASE64_STANDARD.encode([0; 16]))),
            UploadChecksum::None => None,
        };
        if let Some((header, value)) = wrong {
            call = call.header(header, &value);
        }
        match inner.client.call(&call).await {
            Ok(answer) => {
                let digest = hex(&Md5::digest(PROBE_BODY));
                let etag = answer.header("etag").unwrap_or_default();
                Ok(if etag.trim_matches('"').eq_ignore_ascii_case(&digest) {
                    BodyCheck::Answer
                } else {
                    BodyCheck::Nobody
                })
            }
            // Codes for this differ; what would have refused the body itself is told by the body itself.
            Err(Failure::Refused(refusal))
                if refusal.is_garbled() || refusal.is(&["InvalidRequest", "InvalidArgument"]) =>
            {
                Ok(BodyCheck::Server)
            }
            Err(failure) => Err(inner.client.error(failure, Asked::Object(key))),
        }
    }

    async fn probe_creation(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        // A name that nobody has: a store that refuses this one understands something else by the header.
        if !self.is_created(key).await? {
            return Ok(false);
        }
        self.is_created(key).await.map(|created| !created)
    }

    /// Writes the object if there is none, and tells whether the store did.
    async fn is_created(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        let inner = &*self.inner;
        let call = Call::object(Method::PUT, key)
            .header("if-none-match", "*")
            .headers(&inner.object_headers)
            .headers(inner.client.customer_key());
        answered(self, key, inner.client.call(&call).await.map(drop))
    }

    async fn probe_assembly(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        let inner = &*self.inner;
        self.is_created(key).await?;
        let upload = self.begin(key, &random_mark()).await?;
        let body = body_from(bytes::Bytes::from_static(PROBE_BODY));
        let mut cutter = Cutter::new(body, self.wanted_sums().await?);
        let part = cutter.next(Held::trifle(PROBE_BODY.len())).await;
        let part = part.map_err(|source| StoreError::BodyFailed {
            key: key.clone(),
            source,
        })?;
        let record = self.put_part(&upload, 1, &part).await?;
        let id = upload.id.clone();
        let call = Call::object(Method::POST, key)
            .query(&[("uploadId", &id)])
            .header("if-none-match", "*")
            .headers(inner.client.customer_key())
            .payload(xml::complete(&[record]));
        let answer = super::upload::short_answer::<xml::Assembled>(&inner.client, &call).await;
        answered(self, key, answer.map(drop)).map(|created| !created)
    }
}

/// Whether a conditional write was carried out. A store that refuses the header as such carries nothing out and
/// guards nothing: it is told apart by writing without the header, which is what happens next.
fn answered(
    store: &S3Store,
    key: &ObjectKey,
    result: Result<(), Failure>,
) -> Result<bool, StoreError> {
    match result {
        Ok(()) => Ok(true),
        Err(Failure::Refused(refusal))
            if refusal.is_existence()
                || refusal.is_unsupported()
                || refusal.status == StatusCode::CONFLICT =>
        {
            Ok(false)
        }
        Err(failure) => Err(store.inner.client.error(failure, Asked::Object(key))),
    }
}

/// The name with which a store is tried. Whatever is there afterwards is discarded, also when nobody waits for the
/// outcome any more.
struct Trial {
    key: ObjectKey,
    abandoned: Option<Abandoned>,
}

impl Trial {
    fn new(inner: &Inner) -> Result<Self, StoreError> {
        Ok(Self {
            key: ObjectKey::new(&format!("{PROBE_PREFIX}{}", random_mark()))?,
            abandoned: Some(Arc::clone(&inner.abandoned)),
        })
    }

    /// The store has refused everything.
    fn left_nothing(mut self) {
        self.abandoned = None;
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(abandoned) = self.abandoned.take() {
            abandon(&abandoned, &self.key, Leftover::Object);
        }
    }
}
