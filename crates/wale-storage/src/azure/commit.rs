//! The last request of an upload, with which the object appears.
//!
//! It carries the condition that none of the name exists. Every object carries a mark of the upload that made it: when
//! in doubt, a check of the mark says whose object is there. These answers are in doubt: one without the store's own
//! mark (`ETag`), for anybody can send one; the success of a list of blocks; and any success of a store that ignores
//! conditions. A list is taken once: repeated after a lost reply it finds its blocks gone, as it does when another writer
//! was faster. Where the store does not compare checksums, the object is read back before success is reported.

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use http::Method;

use super::checksum::BodySum;
use super::client::BlobCall;
use super::download;
use super::state::AzureStore;
use crate::http::failure::{Asked, Failure, Meaning, Refusal};
use crate::http::part::{Passing, Whole};
use crate::http::text::moment;
use crate::retry::Attempts;
use crate::{ObjectKey, ObjectMeta, StoreError};

/// The header in which an object remembers the upload that made it. Azure's names of such headers are identifiers, without
/// a dash.
pub(super) const MARK_HEADER: &str = "x-ms-meta-waleupload";

/// How an object may come to its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Whatever is there.
    Replace,
    /// If nothing is there, and the store makes sure of that.
    Create,
    /// If nothing is there, and the store does not make sure of that: the caller checked, and checks again.
    CreateUnguarded,
}

/// What became of an upload.
#[derive(Debug)]
pub(super) enum UploadEnd {
    /// The object is there and ours.
    Ours(ObjectMeta),
    /// Somebody else's object is there.
    Others,
}

/// The request that lets the object appear, ready to be made more than once.
pub(super) struct LastRequest<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) call: BlobCall<'a>,
    pub(super) condition: Manner,
    /// What the object carries.
    pub(super) mark: &'a str,
    /// The object's length.
    pub(super) bytes: u64,
    /// Whether it is a list of blocks. Such a request succeeds once.
    pub(super) assembles: bool,
    /// What the answer's sum must be, where it has one.
    pub(super) sum: Option<BodySum>,
    /// What the object must be when it is read back, where nothing else shows it.
    pub(super) whole: Option<Whole>,
}

/// What a check of a name finds.
pub(super) struct FoundBlob {
    /// Empty when the object has none.
    mark: String,
    etag: String,
    /// Where it is reported.
    bytes: Option<u64>,
}

/// An answer of success.
struct Acknowledged {
    modified: DateTime<Utc>,
    /// Whether it has what only a store knows, the object's `ETag`.
    is_the_stores: bool,
}

/// What an answer of success is worth.
enum SuccessWorth {
    UploadEnd(UploadEnd),
    /// The object is there, with other bytes than were sent.
    Garbled,
    /// The object is not there.
    Nothing,
}

impl AzureStore {
    /// Makes the last request, again as long as that may help. Whether an earlier attempt has stored the object is
    /// then told by its mark.
    pub(super) async fn commit(&self, commit: &LastRequest<'_>) -> Result<UploadEnd, StoreError> {
        let mut attempts = Attempts::from_failure(&self.inner.retry);
        let mut is_doubtful = false;
        loop {
            let failure = match self.commit_once(commit).await {
                Ok(told) => match self.worth(commit, &told).await? {
                    SuccessWorth::UploadEnd(stored) => return Ok(stored),
                    SuccessWorth::Garbled => Failure::Garbled,
                    SuccessWorth::Nothing => Failure::Unkept,
                },
                Err(failure) => failure,
            };
            let exists = failure.refusal().is_some_and(Refusal::is_existence);
            let are_blocks_gone = is_of_gone_blocks(&failure);
            // Whose object is there says what became of an earlier attempt, or of the blocks.
            let is_to_be_looked_at =
                are_blocks_gone || is_doubtful && (exists || !failure.is_transient());
            let failure = if is_to_be_looked_at {
                match self.found_at(commit.key).await? {
                    Some(found) if found.mark == commit.mark => {
                        match self.check(commit, &found, Utc::now()).await? {
                            Some(stored) => return Ok(stored),
                            None => Failure::Garbled,
                        }
                    }
                    Some(_) if commit.condition != Manner::Replace => return Ok(UploadEnd::Others),
                    _ => failure,
                }
            } else {
                failure
            };
            if matches!(failure, Failure::Garbled) {
                if !self.take_back(commit).await? {
                    return Ok(UploadEnd::Others);
                }
                is_doubtful = false;
            } else if exists {
                return Ok(UploadEnd::Others);
            }
            is_doubtful |= failure.is_transient() && !matches!(failure, Failure::Garbled);
            // A list is taken once.
            let is_over = commit.assembles
                && (matches!(failure, Failure::Garbled | Failure::Unkept) || are_blocks_gone);
            let error = self.inner.client.error(failure, Asked::Object(commit.key));
            if is_over {
                return Err(error);
            }
            attempts.pause(error).await?;
        }
    }

    async fn commit_once(&self, commit: &LastRequest<'_>) -> Result<Acknowledged, Failure> {
        let answer = self.inner.client.call(&commit.call).await?;
        if commit
            .sum
            .as_ref()
            .is_some_and(|sum| sum.contradicts(&answer))
        {
            return Err(Failure::Garbled);
        }
        let modified = answer.header("last-modified").or(answer.header("date"));
        Ok(Acknowledged {
            modified: moment(modified).unwrap_or_else(Utc::now),
            is_the_stores: answer.header("etag").is_some_and(|etag| !etag.is_empty()),
        })
    }

    /// What an answer of success is worth, after a check where it is in doubt.
    async fn worth(
        &self,
        commit: &LastRequest<'_>,
        told: &Acknowledged,
    ) -> Result<SuccessWorth, StoreError> {
        let in_doubt =
            commit.condition == Manner::CreateUnguarded || !told.is_the_stores || commit.assembles;
        let worth = |stored: Option<UploadEnd>| {
            stored.map_or(SuccessWorth::Garbled, SuccessWorth::UploadEnd)
        };
        if !in_doubt {
            return self.read_back(commit, told.modified).await.map(worth);
        }
        // The writer that stored last before this check has won.
        match self.found_at(commit.key).await? {
            Some(found) if found.mark == commit.mark => {
                self.check(commit, &found, told.modified).await.map(worth)
            }
            Some(_) if commit.condition != Manner::Replace => {
                Ok(SuccessWorth::UploadEnd(UploadEnd::Others))
            }
            _ => Ok(SuccessWorth::Nothing),
        }
    }

    /// Compares an object of ours with what was sent; none when it is garbled.
    async fn check(
        &self,
        commit: &LastRequest<'_>,
        found: &FoundBlob,
        modified: DateTime<Utc>,
    ) -> Result<Option<UploadEnd>, StoreError> {
        if found.bytes.is_some_and(|bytes| bytes != commit.bytes) {
            return Ok(None);
        }
        self.read_back(commit, modified).await
    }

    /// Reads the object back, piece by piece, where nothing else shows whether it is what was sent; none when it is
    /// garbled.
    async fn read_back(
        &self,
        commit: &LastRequest<'_>,
        modified: DateTime<Utc>,
    ) -> Result<Option<UploadEnd>, StoreError> {
        let LastRequest { key, bytes, .. } = *commit;
        if let Some(expected) = commit.whole {
            let inner = &*self.inner;
            let object = download::open(&inner.client, key, &inner.retry).await;
            let mut body = match object {
                Ok(object) => object.body,
                Err(StoreError::NotFound { .. }) => {
                    let reason = format!("object {key} was stored, and is not there");
                    return Err(StoreError::unavailable(inner.client.location(), reason));
                }
                Err(error) => return Err(error),
            };
            let mut read = Passing::new();
            while let Some(piece) = body.try_next().await? {
                read.update(&piece);
            }
            if read.whole() != expected {
                return Ok(None);
            }
        }
        Ok(Some(UploadEnd::Ours(ObjectMeta {
            key: key.clone(),
            size: bytes,
            modified,
        })))
    }

    /// Makes room for another attempt after our object was found garbled: a name that is to be created must be free.
    /// An object that replaces another is replaced again, so that there is one at every moment. `false` when somebody
    /// else's object is there.
    async fn take_back(&self, commit: &LastRequest<'_>) -> Result<bool, StoreError> {
        if commit.condition == Manner::Replace {
            return Ok(true);
        }
        match self.found_at(commit.key).await? {
            Some(found) if found.mark == commit.mark => {
                let client = &self.inner.client;
                // Only while it is the one that was looked at.
                let call =
                    BlobCall::blob(Method::DELETE, commit.key).header("if-match", &found.etag);
                match client.call(&call).await {
                    Ok(_) => Ok(true),
                    Err(Failure::Refused(refusal)) if refusal.is_absence() => Ok(true),
                    Err(Failure::Refused(refusal)) if refusal.is_existence() => Ok(false),
                    Err(failure) => Err(client.error(failure, Asked::Object(commit.key))),
                }
            }
            Some(_) => Ok(false),
            None => Ok(true),
        }
    }

    /// The mark of the object under a name; none when there is no object.
    pub(super) async fn found_at(&self, key: &ObjectKey) -> Result<Option<FoundBlob>, StoreError> {
        let client = &self.inner.client;
        let call = BlobCall::blob(Method::HEAD, key);
        let mut attempts = Attempts::from_failure(&self.inner.retry);
        loop {
            match client.call(&call).await {
                Ok(answer) => {
                    let text = |name| answer.header(name).unwrap_or_default().to_owned();
                    return Ok(Some(FoundBlob {
                        mark: text(MARK_HEADER),
                        etag: text("etag"),
                        bytes: answer
                            .header("content-length")
                            .and_then(|text| text.parse().ok()),
                    }));
                }
                Err(Failure::Refused(refusal)) if refusal.is_absence() => return Ok(None),
                Err(failure) => {
                    let error = client.explain(key, failure).await;
                    attempts.pause(error).await?;
                }
            }
        }
    }
}

/// Whether the blocks of a list are not there any more.
fn is_of_gone_blocks(failure: &Failure) -> bool {
    failure
        .refusal()
        .is_some_and(|refusal| refusal.meaning == Meaning::UploadGone)
}
