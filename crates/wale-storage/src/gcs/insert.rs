//! The last request of an upload, with which the object appears.
//!
//! It carries the condition that none of the name exists, and every object carries a mark of the upload that made it.
//! The answer is the object's record. Three things are in doubt and are looked up: a lost answer, a refusal after one,
//! and any success of a store that ignores conditions. The mark says whose object is there, and its generation makes sure
//! that nothing but our own is taken back.

use futures_util::TryStreamExt;

use super::bucket::Request;
use super::creation::Precondition;
use super::download;
use super::resource::Resource;
use super::session::{Arrived, Chunk, Session};
use super::state::GcsStore;
use crate::http::failure::{Asked, Failure, Meaning, Refusal};
use crate::http::part::{Passing, Whole};
use crate::retry::Attempts;
use crate::{ObjectKey, ObjectMeta, StoreError};

/// What became of an upload.
#[derive(Debug)]
pub(super) enum Inserted {
    /// The object is there and ours.
    Ours(ObjectMeta),
    /// Somebody else's object is there.
    Others,
}

/// An object that is to appear, and the request that does it, ready to be made more than once.
pub(super) struct Insertion<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) way: Way<'a>,
    pub(super) condition: Precondition,
    /// What the object carries.
    pub(super) mark: &'a str,
    /// What it is.
    pub(super) whole: Whole,
}

/// How it appears.
pub(super) enum Way<'a> {
    /// In one request.
    AtOnce(Request<'a>),
    /// With the last chunk of a resumable upload. That ends once.
    Session(&'a Session, Chunk),
}

/// What a record of the object is worth.
enum Judged {
    Inserted(Inserted),
    /// The object is there, with other bytes than were sent.
    Garbled,
    /// The object is not there.
    Missing,
}

impl GcsStore {
    /// Makes the last request, again as long as that may help. Whether an earlier attempt has stored the object is
    /// then told by its mark.
    pub(super) async fn insert(&self, insertion: &Insertion<'_>) -> Result<Inserted, StoreError> {
        let mut attempts = Attempts::from_failure(&self.inner.retry);
        let mut is_doubtful = false;
        loop {
            let failure = match self.insert_once(insertion).await {
                Ok(record) => match self.judge(insertion, &record).await? {
                    Judged::Inserted(inserted) => return Ok(inserted),
                    Judged::Garbled => Failure::Garbled,
                    Judged::Missing => Failure::Unkept,
                },
                Err(failure) => failure,
            };
            let exists = failure.refusal().is_some_and(Refusal::is_existence);
            let failure = if is_doubtful && (exists || !failure.is_transient()) {
                match self.found_at(insertion.key).await? {
                    Some(found) if found.mark() == insertion.mark => {
                        match self.check(insertion, &found).await? {
                            Some(meta) => return Ok(Inserted::Ours(meta)),
                            None => Failure::Garbled,
                        }
                    }
                    _ => failure,
                }
            } else {
                failure
            };
            if matches!(failure, Failure::Garbled) {
                if !self.take_back(insertion).await? {
                    return Ok(Inserted::Others);
                }
                is_doubtful = false;
            } else if exists {
                return Ok(Inserted::Others);
            }
            is_doubtful |= failure.is_transient() && !matches!(failure, Failure::Garbled);
            let is_over = matches!(insertion.way, Way::Session(..)) && ends_a_session(&failure);
            let error = self
                .inner
                .bucket
                .error(failure, Asked::Object(insertion.key));
            if is_over {
                return Err(error);
            }
            attempts.pause(error).await?;
        }
    }

    async fn insert_once(&self, insertion: &Insertion<'_>) -> Result<Resource, Failure> {
        let bucket = &self.inner.bucket;
        let (session, chunk) = match &insertion.way {
            Way::AtOnce(request) => return bucket.record_in(bucket.call(request).await?).await,
            Way::Session(session, chunk) => (session, chunk),
        };
        let mut rest = chunk.clone();
        loop {
            match self.send(session, &rest).await? {
                Arrived::Object(record) => return Ok(*record),
                Arrived::Bytes(bytes) if bytes > rest.start && bytes <= insertion.whole.bytes() => {
                    rest = rest.left_at(bytes);
                }
                Arrived::Bytes(bytes) => {
                    return Err(Failure::Nonsense(format!(
                        "the store has {bytes} of {} bytes of object {}, and waits for others",
                        insertion.whole.bytes(),
                        insertion.key
                    )));
                }
            }
        }
    }

    /// What the record in an answer of success is worth, after a look where it is in doubt.
    async fn judge(
        &self,
        insertion: &Insertion<'_>,
        record: &Resource,
    ) -> Result<Judged, StoreError> {
        let Insertion {
            key,
            condition,
            mark,
            ..
        } = *insertion;
        let worth = |meta: Option<ObjectMeta>| match meta {
            Some(meta) => Judged::Inserted(Inserted::Ours(meta)),
            None => Judged::Garbled,
        };
        let is_ours = record.name == self.inner.bucket.name_of(key) && record.mark() == mark;
        if is_ours && condition != Precondition::AbsentUnguarded {
            return self.check(insertion, record).await.map(worth);
        }
        // The writer that stored last before this look has won.
        match self.found_at(key).await? {
            Some(found) if found.mark() == mark => self.check(insertion, &found).await.map(worth),
            Some(_) if condition != Precondition::None => Ok(Judged::Inserted(Inserted::Others)),
            _ => Ok(Judged::Missing),
        }
    }

    /// Compares a record of ours with what was sent; none when the object is garbled. Where the record has no sum, the
    /// object itself is read.
    async fn check(
        &self,
        insertion: &Insertion<'_>,
        record: &Resource,
    ) -> Result<Option<ObjectMeta>, StoreError> {
        let Insertion { key, whole, .. } = insertion;
        let is_whole = match record.crc32c() {
            Some(sum) => record.size == whole.bytes() && sum == whole.crc32c(),
            None => self.read_back(key).await? == *whole,
        };
        Ok(is_whole.then(|| record.meta(key)))
    }

    async fn read_back(&self, key: &ObjectKey) -> Result<Whole, StoreError> {
        let inner = &*self.inner;
        let mut body = match download::open(&inner.bucket, key, &inner.retry).await {
            Ok(object) => object.body,
            Err(StoreError::NotFound { .. }) => {
                let reason = format!("object {key} was stored, and is not there");
                return Err(StoreError::unavailable(inner.bucket.location(), reason));
            }
            Err(error) => return Err(error),
        };
        let mut read = Passing::new();
        while let Some(piece) = body.try_next().await? {
            read.update(&piece);
        }
        Ok(read.whole())
    }

    /// Makes room for another attempt after our object was found garbled: a name that is to be created must be free.
    /// An object that replaces another is replaced again, so that there is one at every moment. `false` when somebody
    /// else's object is there.
    async fn take_back(&self, insertion: &Insertion<'_>) -> Result<bool, StoreError> {
        if insertion.condition == Precondition::None {
            return Ok(true);
        }
        match self.found_at(insertion.key).await? {
            Some(found) if found.mark() == insertion.mark => {
                let generation = found.generation.as_deref();
                self.delete_request(insertion.key, generation)
                    .await
                    .map(|()| true)
            }
            Some(_) => Ok(false),
            None => Ok(true),
        }
    }

    /// The record of the object under a name; none when there is no object.
    pub(super) async fn found_at(&self, key: &ObjectKey) -> Result<Option<Resource>, StoreError> {
        let bucket = &self.inner.bucket;
        let mut attempts = Attempts::from_failure(&self.inner.retry);
        loop {
            match bucket.record(key).await {
                Ok(record) => return Ok(Some(record)),
                Err(Failure::Refused(refusal)) if refusal.may_be_absence() => {
                    match bucket.confirm_absence(key).await {
                        Ok(()) => return Ok(None),
                        Err(error) => attempts.pause(error).await?,
                    }
                }
                Err(failure) => {
                    let error = bucket.error(failure, Asked::Object(key));
                    attempts.pause(error).await?;
                }
            }
        }
    }
}

/// Whether a resumable upload has nothing left to end: its parts are gone, or have become another object.
fn ends_a_session(failure: &Failure) -> bool {
    let is_gone = |refusal: &Refusal| {
        refusal.may_be_absence()
            || matches!(refusal.meaning, Meaning::UploadGone | Meaning::Garbled)
    };
    matches!(failure, Failure::Garbled | Failure::Unkept) || failure.refusal().is_some_and(is_gone)
}
