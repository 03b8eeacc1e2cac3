//! What the store really does: whether a write with `If-None-Match: *` creates and never replaces, and whether a body
//! that does not match its checksum is refused.
//!
//! A store that does not know the header may silently ignore it, and every archive on it could be overwritten.
//! Another checks first and writes later, so that the promise holds for writers that come one after the other. So it is
//! asked, before the first write that depends on it: several writers at the same time create an object of a name that
//! nobody else has. Amazon's own servers document the promise and are not asked. What was found out is kept as long as
//! the store's value lives.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::future::try_join_all;
use http::{Method, StatusCode};
use md5::{Digest as _, Md5};

use super::checksum::{Vouched, Vouchers};
use super::client::Call;
use super::leftovers::{Abandoned, Leftover, abandon};
use super::multipart::Upload;
use super::options::UploadChecksum;
use super::state::{BodyCheck, Inner, S3Store};
use super::xml::{self, PartRecord};
use crate::http::failure::{Asked, Failure, Meaning};
use crate::http::marks::random_mark;
use crate::http::slots::PartMemory;
use crate::http::text::hex;
use crate::{Misconfiguration, ObjectKey, StoreError, body_from};

/// The body with which a store is tried.
const PROBE_BODY: &[u8] = b"wale";

/// Writers of one name at the same time. 4: a store that checks first and writes later lets a second one in as soon as
/// two of them have checked, and a `wal-push` of one segment pays for no more connections than that.
const WRITERS: usize = 4;

/// The beginning of the names of the objects with which a store is tried. They live for some milliseconds; those of a
/// process that was killed are found by the sweep.
pub(super) const PROBE_PREFIX: &str = "wale_probe_";

impl S3Store {
    /// Whether `PUT` makes sure that only one creates. `false` is logged once.
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
                let found = found?;
                if found != Guard::Holds {
                    tracing::warn!(
                        location = inner.client.location(),
                        "the store {} conditions of a write (If-None-Match): two writers of one name in different \
                         processes can replace each other's object, although wale checks again after each write. Let \
                         only one sidecar at a time use this archive, or use a store that knows conditional writes",
                        found.words(),
                    );
                }
                Ok(found == Guard::Holds)
            })
            .await;
        found.copied()
    }

    /// Whether the end of a multipart upload makes sure of it, too; asked when there is one for the first time.
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
                let found = found?;
                if found != Guard::Holds {
                    tracing::warn!(
                        location = inner.client.location(),
                        "the store {} conditions at the end of a multipart upload: two writers of one large object in \
                         different processes can replace each other's, although wale checks before and after. Objects \
                         of up to {} MiB go in one request and are safe. Let only one sidecar at a time use this \
                         archive",
                        found.words(),
                        inner.slots.first_part_bytes() >> 20,
                    );
                }
                Ok(found == Guard::Holds)
            })
            .await;
        found.copied()
    }

    /// The sums that are taken of a body for this store.
    pub(super) async fn wanted_sums(&self) -> Result<Vouchers, StoreError> {
        let inner = &*self.inner;
        let check = self.body_check().await?;
        Ok(Vouchers {
            checksum: inner.checksum,
            signed: !inner.client.is_secure(),
            etag: check == BodyCheck::Answer,
            whole: check == BodyCheck::Nobody,
        })
    }

    /// The side that makes sure that a stored body is the one that was sent.
    async fn body_check(&self) -> Result<BodyCheck, StoreError> {
        let inner = &*self.inner;
        if inner.is_amazon && inner.checksum != UploadChecksum::None {
            return Ok(BodyCheck::Server);
        }
        let found = inner
            .body_check
            .get_or_try_init(|| async {
                let trial = Trial::new(inner)?;
                let tried = self.probe_body_check(&trial.key).await;
                if matches!(tried, Ok((BodyCheck::Server, Refused::ByItsCode))) {
                    trial.left_nothing();
                } else {
                    // Where a body was accepted the object is there.
                    drop(trial);
                    self.discard_abandoned().await;
                }
                let (check, _) = tried?;
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
    async fn probe_body_check(&self, key: &ObjectKey) -> Result<(BodyCheck, Refused), StoreError> {
        let inner = &*self.inner;
        let wrong = match inner.checksum {
            UploadChecksum::Crc32c => Some(("x-amz-checksum-crc32c", "AAAAAA==".to_owned())),
            UploadChecksum::Sha256 => {
                Some(("x-amz-checksum-sha256", BASE64_STANDARD.encode([0; 32])))
            }
            UploadChecksum::Md5 => Some(("content-md5", BASE64_STANDARD.encode([0; 16]))),
            UploadChecksum::None => None,
        };
        match self.put_probe_body(key, wrong).await {
            Ok(etag) => {
                let digest = hex(&Md5::digest(PROBE_BODY));
                let check = if etag.trim_matches('"').eq_ignore_ascii_case(&digest) {
                    BodyCheck::Answer
                } else {
                    BodyCheck::Nobody
                };
                Ok((check, Refused::No))
            }
            Err(Failure::Refused(refusal)) if refusal.meaning == Meaning::Garbled => {
                Ok((BodyCheck::Server, Refused::ByItsCode))
            }
            // Codes for this differ. This finds out what the store refuses: this sum, sums of this kind, or everything.
            Err(Failure::Refused(refusal))
                if refusal.status == StatusCode::BAD_REQUEST || refusal.is_unsupported() =>
            {
                self.confirm_right_sum(key).await?;
                Ok((BodyCheck::Server, Refused::UnlikeTheRight))
            }
            Err(failure) => Err(inner.client.error(failure, Asked::Object(key))),
        }
    }

    /// Makes sure that the store takes the same body with the sum that is its own.
    async fn confirm_right_sum(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let client = &self.inner.client;
        let vouchers = Vouchers::checksum_only(self.inner.checksum);
        let right = probe_part(key, vouchers).await?.checksum;
        let right = right.map(|sum| (sum.header, sum.value));
        let refusal = match self.put_probe_body(key, right).await {
            Ok(_) => return Ok(()),
            Err(Failure::Refused(refusal)) => refusal,
            Err(failure) => return Err(client.error(failure, Asked::Object(key))),
        };
        match self.put_probe_body(key, None).await {
            Ok(_) => Err(StoreError::Misconfigured {
                location: client.location().to_owned(),
                problem: Misconfiguration::UnknownChecksum,
                reason: "the server refuses the checksum that goes along with each object"
                    .to_owned(),
                source: Some(Box::new(refusal.reply)),
            }),
            Err(failure) => Err(client.error(failure, Asked::Object(key))),
        }
    }

    /// Writes the trial's body with this checksum. Gives the `ETag`, empty where there is none.
    async fn put_probe_body(
        &self,
        key: &ObjectKey,
        sum: Option<(&'static str, String)>,
    ) -> Result<String, Failure> {
        let inner = &*self.inner;
        let mut call = Call::object(Method::PUT, key)
            .headers(&inner.object_headers)
            .headers(&inner.client.customer_key())
            .payload(bytes::Bytes::from_static(PROBE_BODY));
        if let Some((header, value)) = sum {
            call = call.header(header, &value);
        }
        let answer = inner.client.call(&call).await?;
        Ok(answer.header("etag").unwrap_or_default().to_owned())
    }

    async fn probe_creation(&self, key: &ObjectKey) -> Result<Guard, StoreError> {
        let writers = (0..WRITERS).map(|_| self.is_created(key));
        let created = try_join_all(writers).await?;
        match created.into_iter().filter(|created| *created).count() {
            1 => Ok(Guard::Holds),
            WRITERS => Ok(Guard::Ignored),
            // Amazon's rules allow that writers at the same time are all refused (409). One alone is not, unless the
            // store understands something else by the header.
            0 if self.is_created(key).await? => Ok(Guard::Holds),
            0 => Ok(Guard::Ignored),
            _ => Ok(Guard::Races),
        }
    }

    /// Writes the object if there is none, and returns whether the store did.
    async fn is_created(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        let inner = &*self.inner;
        let call = Call::object(Method::PUT, key)
            .header("if-none-match", "*")
            .headers(&inner.object_headers)
            .headers(&inner.client.customer_key());
        answered(self, key, inner.client.call(&call).await.map(drop))
    }

    /// Two uploads of one name end at the same time.
    async fn probe_assembly(&self, key: &ObjectKey) -> Result<Guard, StoreError> {
        let part = probe_part(key, self.wanted_sums().await?).await?;
        let begun = try_join_all((0..2).map(|_| async {
            let upload = self.begin(key, &random_mark()).await?;
            let record = self.put_part(&upload, 1, &part).await?;
            Ok::<_, StoreError>((upload, record))
        }));
        let begun = begun.await?;
        let ends = begun
            .iter()
            .map(|(upload, record)| self.is_assembled(key, upload, record));
        let created = try_join_all(ends).await?;
        match created.into_iter().filter(|created| *created).count() {
            1 => Ok(Guard::Holds),
            2 => Ok(Guard::Ignored),
            // Both refused: because of each other (409), or because of the header.
            _ => {
                let upload = self.begin(key, &random_mark()).await?;
                let record = self.put_part(&upload, 1, &part).await?;
                let is_assembled = self.is_assembled(key, &upload, &record).await?;
                Ok(if is_assembled {
                    Guard::Holds
                } else {
                    Guard::Ignored
                })
            }
        }
    }

    /// Ends an upload if there is no object of the name, and returns whether the store did.
    async fn is_assembled(
        &self,
        key: &ObjectKey,
        upload: &Upload,
        record: &PartRecord,
    ) -> Result<bool, StoreError> {
        let inner = &*self.inner;
        let id = upload.id.clone();
        let call = Call::object(Method::POST, key)
            .query(&[("uploadId", &id)])
            .header("if-none-match", "*")
            .headers(&inner.client.customer_key())
            .payload(xml::complete(std::slice::from_ref(record)));
        let answer = inner.client.short_answer::<xml::Assembled>(&call).await;
        answered(self, key, answer.map(drop))
    }
}

/// What a store does about conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    /// One writer creates.
    Holds,
    /// Every writer does.
    Ignored,
    /// Several that write at the same time do, and one that comes later does not.
    Races,
}

impl Guard {
    fn words(self) -> &'static str {
        match self {
            Self::Holds => "keeps",
            Self::Ignored => "ignores",
            Self::Races => "checks first and writes later, and so does not keep",
        }
    }
}

/// How a body with a wrong checksum was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    No,
    /// With the code for this.
    ByItsCode,
    /// With another, while the same body with its own checksum was taken.
    UnlikeTheRight,
}

/// The trial's body as a part.
async fn probe_part(key: &ObjectKey, vouchers: Vouchers) -> Result<Vouched, StoreError> {
    let body = body_from(bytes::Bytes::from_static(PROBE_BODY));
    let mut cutter = vouchers.cut(body);
    let part = cutter.next(PartMemory::trifle(PROBE_BODY.len())).await;
    let part = part.map_err(|source| StoreError::BodyFailed {
        key: key.clone(),
        source,
    })?;
    Ok(vouchers.of(part))
}

/// Whether a conditional write was carried out. A store that refuses the header as such carries nothing out and
/// guards nothing: a write without the header, which comes next, shows that.
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
