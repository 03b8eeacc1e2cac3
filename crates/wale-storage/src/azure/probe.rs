//! What a server that is not Microsoft's really does: whether `If-None-Match: *` creates and never replaces, with `Put
//! Blob` and with `Put Block List`, and whether a body that does not match its checksum is refused.
//!
//! It is asked before the first write that depends on it: several writers at the same time create a blob of a name that
//! nobody else has. Azure's own servers document the promises and are not asked. What was found out is kept as long as the
//! store's value lives.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::try_join_all;
use http::{Method, StatusCode};

use super::blocks::BlockIds;
use super::checksum::{self, BodySum, BodySums, SummedPart};
use super::client::BlobCall;
use super::state::{AzureInner, AzureStore};
use super::xml;
use crate::http::failure::{Asked, Failure, Meaning};
use crate::http::marks::random_mark;
use crate::http::slots::PartMemory;
use crate::{Misconfiguration, ObjectKey, StoreError, body_from};

/// The body with which a store is tried.
const PROBE_BODY: &[u8] = b"wale";

/// Writers of one name at the same time. 4: a store that checks first and writes later lets a second one in as soon as
/// two of them have checked.
const WRITERS: usize = 4;

/// Blobs of trials that are remembered until somebody can delete them.
const TRIALS_MAX: usize = 100;

/// The beginning of the names of the blobs with which a store is tried. They live for some milliseconds; those of a
/// process that was killed are found by the sweep.
pub(super) const PROBE_PREFIX: &str = "wale_probe_";

impl AzureStore {
    /// Whether `Put Blob` makes sure that only one creates. `false` is logged once.
    pub(super) async fn creation_is_guarded(&self) -> Result<bool, StoreError> {
        let inner = &*self.inner;
        if inner.is_azure {
            return Ok(true);
        }
        let found = inner
            .creation_guarded
            .get_or_try_init(|| async {
                let trial = TrialBlob::new(inner)?;
                let found = self.probe_creation(&trial.key).await;
                drop(trial);
                self.discard_trials().await;
                let found = found?;
                if !found {
                    tracing::warn!(
                        location = inner.client.location(),
                        "the store does not keep conditions of a write (If-None-Match): two writers of one name in \
                         different processes can replace each other's object, although wale checks again after each \
                         write. Let only one sidecar at a time use this archive, or use a store that knows conditional \
                         writes",
                    );
                }
                Ok(found)
            })
            .await;
        found.copied()
    }

    /// Whether a list of blocks makes sure of it, too; asked when there is one for the first time.
    pub(super) async fn assembly_is_guarded(&self) -> Result<bool, StoreError> {
        let inner = &*self.inner;
        if inner.is_azure {
            return Ok(true);
        }
        let found = inner
            .assembly_guarded
            .get_or_try_init(|| async {
                let trial = TrialBlob::new(inner)?;
                let found = self.probe_assembly(&trial.key).await;
                drop(trial);
                self.discard_trials().await;
                let found = found?;
                if !found {
                    tracing::warn!(
                        location = inner.client.location(),
                        "the store does not keep conditions of a list of blocks: two writers of one large object in \
                         different processes can replace each other's, although wale checks before and after. Objects \
                         of up to {} MiB go in one request. Let only one sidecar at a time use this archive",
                        inner.slots.first_part_bytes() >> 20,
                    );
                }
                Ok(found)
            })
            .await;
        found.copied()
    }

    /// The sums that are taken of a body for this store.
    pub(super) async fn vouchers(&self) -> Result<BodySums, StoreError> {
        let inner = &*self.inner;
        let checksum = inner.checksum;
        if inner.is_azure {
            return Ok(BodySums {
                checksum,
                whole: false,
            });
        }
        let found = inner
            .sums_compared
            .get_or_try_init(|| async {
                let trial = TrialBlob::new(inner)?;
                let found = self.probe_sums(&trial.key).await;
                drop(trial);
                self.discard_trials().await;
                let found = found?;
                if !found {
                    tracing::warn!(
                        location = inner.client.location(),
                        "the store does not compare checksums: every object is read back after it was stored",
                    );
                }
                Ok::<_, StoreError>(found)
            })
            .await?;
        Ok(BodySums {
            checksum,
            whole: !found,
        })
    }

    /// Whether a body with a checksum that is not its own is refused, and the same with its own is taken.
    async fn probe_sums(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        let client = &self.inner.client;
        let wrong = checksum::wrong(self.inner.checksum);
        let refusal = match self.put_probe_body(key, Some(&wrong)).await {
            Ok(()) => return Ok(false),
            Err(Failure::Refused(refusal)) if refusal.meaning == Meaning::Garbled => {
                return Ok(true);
            }
            // Codes for this differ. This finds out what the store refuses: this sum, sums of this kind, or everything.
            Err(Failure::Refused(refusal))
                if refusal.status == StatusCode::BAD_REQUEST || refusal.is_unsupported() =>
            {
                refusal
            }
            Err(failure) => return Err(client.error(failure, Asked::Object(key))),
        };
        let part = self.probe_part(key).await?;
        match self.put_probe_body(key, part.sum.as_ref()).await {
            Ok(()) => return Ok(true),
            Err(Failure::Refused(_)) => {}
            Err(failure) => return Err(client.error(failure, Asked::Object(key))),
        }
        match self.put_probe_body(key, None).await {
            Ok(()) => Err(StoreError::Misconfigured {
                location: client.location().to_owned(),
                problem: Misconfiguration::UnknownChecksum,
                reason: "the server refuses the checksum that goes along with each object"
                    .to_owned(),
                source: Some(Box::new(refusal.reply)),
            }),
            Err(failure) => Err(client.error(failure, Asked::Object(key))),
        }
    }

    /// Writes the trial's body with this checksum.
    async fn put_probe_body(&self, key: &ObjectKey, sum: Option<&BodySum>) -> Result<(), Failure> {
        let mut call = put_blob(key).payload(Bytes::from_static(PROBE_BODY));
        if let Some(sum) = sum {
            call = call.header(sum.header, &sum.value);
        }
        self.inner.client.call(&call).await.map(drop)
    }

    async fn probe_creation(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        let writers = (0..WRITERS).map(|_| self.is_created(key));
        let created = try_join_all(writers).await?;
        match created.into_iter().filter(|created| *created).count() {
            1 => Ok(true),
            // Writers at the same time may all be refused. One alone is not, unless the store understands something else
            // by the header.
            0 => self.is_created(key).await,
            _ => Ok(false),
        }
    }

    /// Writes the blob if there is none, and returns whether the store did.
    async fn is_created(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        let call = put_blob(key).header("if-none-match", "*");
        self.answered(key, self.inner.client.call(&call).await.map(drop))
    }

    /// Two lists of blocks of one name at the same time, and one after them. The blocks of the slower one may be gone before
    /// its condition is looked at, so the last one counts, too.
    async fn probe_assembly(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        let sent = try_join_all((0..2).map(|_| self.send_probe_block(key))).await?;
        let lists = sent.iter().map(|id| self.is_assembled(key, id));
        let created = try_join_all(lists).await?;
        let created = created.into_iter().filter(|created| *created).count();
        let last = self.send_probe_block(key).await?;
        let is_last_created = self.is_assembled(key, &last).await?;
        Ok(created == 1 && !is_last_created)
    }

    /// Sends a block, and gives its identifier.
    async fn send_probe_block(&self, key: &ObjectKey) -> Result<String, StoreError> {
        let part = self.probe_part(key).await?;
        let id = BlockIds::new(&random_mark()).id(1);
        self.put_block(key, &id, &part).await?;
        Ok(id)
    }

    /// Makes a blob of a block if there is none, and returns whether the store did.
    async fn is_assembled(&self, key: &ObjectKey, id: &str) -> Result<bool, StoreError> {
        let call = BlobCall::blob(Method::PUT, key)
            .query(&[("comp", "blocklist")])
            .header("content-type", "application/xml")
            .header("if-none-match", "*")
            .payload(xml::block_list(std::iter::once(id)));
        self.answered(key, self.inner.client.call(&call).await.map(drop))
    }

    /// Whether a conditional write was carried out. A store that refuses the header as such carries nothing out and
    /// guards nothing: a write without the header, which comes next, shows that.
    fn answered(&self, key: &ObjectKey, result: Result<(), Failure>) -> Result<bool, StoreError> {
        match result {
            Ok(()) => Ok(true),
            Err(Failure::Refused(refusal))
                if matches!(
                    refusal.meaning,
                    Meaning::Exists | Meaning::UploadGone | Meaning::Unsupported
                ) || refusal.status == StatusCode::CONFLICT =>
            {
                Ok(false)
            }
            Err(failure) => Err(self.inner.client.error(failure, Asked::Object(key))),
        }
    }

    /// The trial's body as a part.
    async fn probe_part(&self, key: &ObjectKey) -> Result<SummedPart, StoreError> {
        let vouchers = BodySums {
            checksum: self.inner.checksum,
            whole: false,
        };
        let mut cutter = vouchers.cut(body_from(Bytes::from_static(PROBE_BODY)));
        let part = cutter.next(PartMemory::trifle(PROBE_BODY.len())).await;
        let part = part.map_err(|source| StoreError::BodyFailed {
            key: key.clone(),
            source,
        })?;
        Ok(vouchers.of(part))
    }
}

fn put_blob(key: &ObjectKey) -> BlobCall<'_> {
    BlobCall::blob(Method::PUT, key).header("x-ms-blob-type", "BlockBlob")
}

/// The name with which a store is tried. Whatever is there afterwards is deleted, also when nobody waits for the
/// outcome any more.
struct TrialBlob {
    key: ObjectKey,
    trials: Arc<Mutex<Vec<ObjectKey>>>,
}

impl TrialBlob {
    fn new(inner: &AzureInner) -> Result<Self, StoreError> {
        Ok(Self {
            key: ObjectKey::new(&format!("{PROBE_PREFIX}{}", random_mark()))?,
            trials: Arc::clone(&inner.trials),
        })
    }
}

impl Drop for TrialBlob {
    fn drop(&mut self) {
        let mut trials = self.trials.lock().unwrap_or_else(PoisonError::into_inner);
        if trials.len() < TRIALS_MAX {
            trials.push(self.key.clone());
        }
    }
}
