//! The last request of an upload, with which the object appears.
//!
//! It carries the condition that none of the name exists. Every object carries a mark of the upload that made it: when
//! in doubt, a check of the mark says whose object is there. These answers are in doubt: one without the store's own
//! mark (`ETag`), for anybody can send one; the success of the end of an upload, which some servers report although
//! they have assembled nothing, when a former end was lost; and any success of a store that ignores conditions. Where
//! the store does not compare checksums, what it stored is compared with what was sent before success is reported: its
//! digest, or, where the store gives none, the object itself.

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use http::Method;

use super::checksum::contradicts;
use super::client::{Call, SHORT_BYTES_MAX};
use super::download;
use super::headers::MARK_HEADER;
use super::state::S3Store;
use super::xml::{self, Assembled};
use crate::http::failure::{Asked, Failure, Refusal};
use crate::http::part::{Passing, Whole};
use crate::http::text::moment;
use crate::retry::Attempts;
use crate::{ObjectKey, ObjectMeta, StoreError};

/// How an object may come to its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// Whatever is there.
    Replace,
    /// If nothing is there, and the store makes sure of that.
    Create,
    /// If nothing is there, and the store does not make sure of that: the caller checked, and checks again.
    CreateUnguarded,
}

/// What became of an upload.
#[derive(Debug)]
pub(super) enum Stored {
    /// The object is there and ours.
    Ours(ObjectMeta),
    /// Somebody else's object is there.
    Others,
}

/// The request that lets the object appear, ready to be made more than once.
pub(super) struct Commit<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) call: Call<'a>,
    pub(super) condition: Condition,
    /// What the object carries.
    pub(super) mark: &'a str,
    /// The object's length.
    pub(super) bytes: u64,
    /// Whether its answer is an assembled object, or an error, in XML. Such a request succeeds once.
    pub(super) assembles: bool,
    /// What the object's `ETag` must be, where that is known.
    pub(super) etag: Option<String>,
    /// What the object must be when it is read back, where nothing else shows it.
    pub(super) whole: Option<Whole>,
}

/// What a check of a name finds.
pub(super) struct NamedObject {
    /// Empty when the object has none.
    mark: String,
    etag: Option<String>,
    /// Where it is reported.
    bytes: Option<u64>,
}

/// An answer of success.
struct Acknowledgement {
    modified: DateTime<Utc>,
    /// Whether it has what only a store knows, the object's `ETag`.
    is_the_stores: bool,
}

/// What an answer of success is worth.
enum Worth {
    Stored(Stored),
    /// The object is there, with other bytes than were sent.
    Garbled,
    /// The object is not there.
    Nothing,
}

impl S3Store {
    /// Makes the last request, again as long as that may help. Whether an earlier attempt has stored the object is
    /// then told by its mark.
    pub(super) async fn commit(&self, commit: &Commit<'_>) -> Result<Stored, StoreError> {
        let mut attempts = Attempts::from_failure(&self.inner.retry);
        let mut is_doubtful = false;
        loop {
            let failure = match self.commit_once(commit).await {
                Ok(told) => match self.worth(commit, &told).await? {
                    Worth::Stored(stored) => return Ok(stored),
                    Worth::Garbled => Failure::Garbled,
                    Worth::Nothing => Failure::Unkept,
                },
                Err(failure) => failure,
            };
            let exists = failure.refusal().is_some_and(Refusal::is_existence);
            let failure = if is_doubtful && (exists || !failure.is_transient()) {
                match self.found_at(commit.key).await? {
                    Some(found) if found.mark == commit.mark => {
                        match self.check(commit, &found, Utc::now()).await? {
                            Some(stored) => return Ok(stored),
                            None => Failure::Garbled,
                        }
                    }
                    _ => failure,
                }
            } else {
                failure
            };
            if matches!(failure, Failure::Garbled) {
                if !self.take_back(commit).await? {
                    return Ok(Stored::Others);
                }
                is_doubtful = false;
            } else if exists {
                return Ok(Stored::Others);
            }
            is_doubtful |= failure.is_transient() && !matches!(failure, Failure::Garbled);
            // An upload ends once.
            let is_over = commit.assembles
                && (matches!(failure, Failure::Garbled | Failure::Unkept)
                    || failure
                        .refusal()
                        .is_some_and(|refusal| refusal.is(&["NoSuchUpload"])));
            let error = self.inner.client.error(failure, Asked::Object(commit.key));
            if is_over {
                return Err(error);
            }
            attempts.pause(error).await?;
        }
    }

    async fn commit_once(&self, commit: &Commit<'_>) -> Result<Acknowledgement, Failure> {
        let mut answer = self.inner.client.call(&commit.call).await?;
        let modified = moment(answer.header("date")).unwrap_or_else(Utc::now);
        let etag = answer.header("etag").unwrap_or_default();
        if !etag.is_empty() && contradicts(etag, commit.etag.as_deref()) {
            return Err(Failure::Garbled);
        }
        let mut is_the_stores = !etag.is_empty();
        if commit.assembles {
            let body = answer.read(SHORT_BYTES_MAX).await?;
            let Assembled { etag } = xml::read(&body)?;
            if etag.is_empty() {
                return Err(Failure::Nonsense("an object without an ETag".to_owned()));
            }
            is_the_stores = true;
        }
        Ok(Acknowledgement {
            modified,
            is_the_stores,
        })
    }

    /// What an answer of success is worth, after a check where it is in doubt.
    async fn worth(
        &self,
        commit: &Commit<'_>,
        told: &Acknowledgement,
    ) -> Result<Worth, StoreError> {
        // The lost end may have been that of another process's upload: every end is checked.
        let in_doubt = commit.condition == Condition::CreateUnguarded
            || !told.is_the_stores
            || commit.assembles;
        let worth = |stored: Option<Stored>| stored.map_or(Worth::Garbled, Worth::Stored);
        if !in_doubt {
            return self.read_back(commit, told.modified).await.map(worth);
        }
        // The writer that stored last before this check has won.
        match self.found_at(commit.key).await? {
            Some(found) if found.mark == commit.mark => {
                self.check(commit, &found, told.modified).await.map(worth)
            }
            Some(_) if commit.condition != Condition::Replace => Ok(Worth::Stored(Stored::Others)),
            _ => Ok(Worth::Nothing),
        }
    }

    /// Compares an object of ours with what was sent; none when it is garbled.
    async fn check(
        &self,
        commit: &Commit<'_>,
        found: &NamedObject,
        modified: DateTime<Utc>,
    ) -> Result<Option<Stored>, StoreError> {
        let etag = found.etag.as_deref();
        if etag.is_some_and(|etag| contradicts(etag, commit.etag.as_deref()))
            || found.bytes.is_some_and(|bytes| bytes != commit.bytes)
        {
            return Ok(None);
        }
        self.read_back(commit, modified).await
    }

    /// Reads the object back, piece by piece, where nothing else shows whether it is what was sent; none when it is
    /// garbled.
    async fn read_back(
        &self,
        commit: &Commit<'_>,
        modified: DateTime<Utc>,
    ) -> Result<Option<Stored>, StoreError> {
        let Commit { key, bytes, .. } = *commit;
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
        Ok(Some(Stored::Ours(ObjectMeta {
            key: key.clone(),
            size: bytes,
            modified,
        })))
    }

    /// Makes room for another attempt after our object was found garbled: a name that is to be created must be free.
    /// An object that replaces another is replaced again, so that there is one at every moment. `false` when somebody
    /// else's object is there.
    async fn take_back(&self, commit: &Commit<'_>) -> Result<bool, StoreError> {
        if commit.condition == Condition::Replace {
            return Ok(true);
        }
        match self.found_at(commit.key).await? {
            Some(found) if found.mark == commit.mark => {
                self.delete_one(commit.key).await.map(|()| true)
            }
            Some(_) => Ok(false),
            None => Ok(true),
        }
    }

    /// The mark and the digest of the object under a name; none when there is no object.
    pub(super) async fn found_at(
        &self,
        key: &ObjectKey,
    ) -> Result<Option<NamedObject>, StoreError> {
        let client = &self.inner.client;
        let call = Call::object(Method::HEAD, key).headers(&client.customer_key());
        let mut attempts = Attempts::from_failure(&self.inner.retry);
        loop {
            match client.call(&call).await {
                Ok(answer) => {
                    let mark = answer.header(MARK_HEADER).unwrap_or_default();
                    return Ok(Some(NamedObject {
                        mark: mark.to_owned(),
                        etag: answer.header("etag").map(str::to_owned),
                        bytes: answer
                            .header("content-length")
                            .and_then(|text| text.parse().ok()),
                    }));
                }
                Err(Failure::Refused(refusal)) if refusal.may_be_absence() => {
                    match client.confirm_absence(key).await {
                        Ok(()) => return Ok(None),
                        Err(error) => attempts.pause(error).await?,
                    }
                }
                Err(failure) => {
                    let error = client.explain(key, failure).await;
                    attempts.pause(error).await?;
                }
            }
        }
    }
}
