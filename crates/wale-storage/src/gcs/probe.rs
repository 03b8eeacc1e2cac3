//! What a server that is not Google's really does with `ifGenerationMatch=0`: whether a write with it creates and never
//! replaces.
//!
//! An emulator may ignore it, and every archive on it could be overwritten. So it is asked, before the first write that
//! depends on it: several writers at the same time create an object of a name that nobody else has. Google's own server
//! documents the promise and is not asked. What was found out is kept as long as the store's value lives. Sums of bodies
//! are not tried: the answer to each write has the store's own, which is compared.

use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use futures_util::TryStreamExt;
use futures_util::future::try_join_all;

use super::creation::Precondition;
use super::listing;
use super::session::{Arrived, Chunk, Session};
use super::state::GcsStore;
use crate::http::failure::{Asked, Failure};
use crate::http::marks::random_mark;
use crate::http::part::Passing;
use crate::http::transport::Payload;
use crate::store::moment_before;
use crate::{ObjectKey, StoreError};

/// The body with which a store is tried.
const TRIAL_BODY: &[u8] = b"wale";

/// Writers of one name at the same time. 4: a store that checks first and writes later lets a second one in as soon as
/// two of them have checked.
const WRITERS: usize = 4;

/// The beginning of the names of the objects with which a store is tried. They live for some milliseconds; those of a
/// process that was killed are found by the sweep.
const TRIAL_PREFIX: &str = "wale_probe_";

/// What a store does about conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conditions {
    /// One writer creates.
    Always,
    /// Every writer does.
    Never,
    /// Several that write at the same time do, and one that comes later does not.
    OneByOne,
}

impl Conditions {
    /// Of so many writers at the same time that created. Where all were refused, one alone was asked besides.
    fn of(created: usize, writers: usize) -> Self {
        match created {
            1 => Self::Always,
            // It understands something else by the condition.
            0 => Self::Never,
            all if all == writers => Self::Never,
            _ => Self::OneByOne,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Always => "keeps",
            Self::Never => "ignores",
            Self::OneByOne => "checks first and writes later, and so does not keep",
        }
    }
}

impl GcsStore {
    /// Whether a write in one request makes sure that only one creates. `false` is logged once.
    pub(super) async fn creation_is_guarded(&self) -> Result<bool, StoreError> {
        let inner = &*self.inner;
        if inner.is_google {
            return Ok(true);
        }
        let found = inner.creation_guarded.get_or_try_init(|| async {
            let key = trial()?;
            let created = self.try_creations(&key).await;
            self.delete_one(&key).await?;
            let kept = Conditions::of(created?, WRITERS);
            if kept != Conditions::Always {
                tracing::warn!(
                    location = inner.bucket.location(),
                    "the store {} conditions of a write (ifGenerationMatch): two writers of one name in different \
                     processes can replace each other's object, although wale checks again after each write. Let only \
                     one sidecar at a time use this archive",
                    kept.words(),
                );
            }
            Ok::<_, StoreError>(kept == Conditions::Always)
        });
        found.await.copied()
    }

    /// Whether the end of a resumable upload makes sure of it, too; asked when there is one for the first time.
    pub(super) async fn session_is_guarded(&self) -> Result<bool, StoreError> {
        let inner = &*self.inner;
        if inner.is_google {
            return Ok(true);
        }
        let found = inner.session_guarded.get_or_try_init(|| async {
            let key = trial()?;
            let created = self.try_sessions(&key).await;
            self.delete_one(&key).await?;
            let kept = Conditions::of(created?, 2);
            if kept != Conditions::Always {
                tracing::warn!(
                    location = inner.bucket.location(),
                    "the store {} conditions at the end of a resumable upload (ifGenerationMatch): two writers of one \
                     large object in different processes can replace each other's, although wale checks before and \
                     after. Objects of up to {} MiB go in one request. Let only one sidecar at a time use this \
                     archive",
                    kept.words(),
                    inner.slots.first_part_bytes() >> 20,
                );
            }
            Ok::<_, StoreError>(kept == Conditions::Always)
        });
        found.await.copied()
    }

    /// Several writers make an object at the same time; one alone, where all were refused. Gives how many made one.
    async fn try_creations(&self, key: &ObjectKey) -> Result<usize, StoreError> {
        let created = try_join_all((0..WRITERS).map(|_| self.is_created(key))).await?;
        match created.into_iter().filter(|created| *created).count() {
            0 => Ok(usize::from(self.is_created(key).await?)),
            count => Ok(count),
        }
    }

    /// Writes the object if there is none, and returns whether the store did.
    async fn is_created(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        let record = self.new_record(key, &random_mark());
        let content = Payload::from(Bytes::from_static(TRIAL_BODY));
        let request = self.creation_at_once(key, &record, &content, Precondition::Absent);
        self.was_done(key, self.inner.bucket.call(&request).await.map(drop))
    }

    /// Two resumable uploads of one name end at the same time. Gives how many of them made an object.
    async fn try_sessions(&self, key: &ObjectKey) -> Result<usize, StoreError> {
        let record = self.new_record(key, &random_mark());
        let begun = (0..2).map(|_| self.begin(key, &record, Precondition::Absent));
        let begun = try_join_all(begun).await?;
        let ends = begun
            .iter()
            .flatten()
            .map(|session| self.ends(key, session));
        let created = try_join_all(ends).await?;
        let count = created.into_iter().filter(|created| *created).count();
        if count == 0
            && let Some(alone) = self.begin(key, &record, Precondition::Absent).await?
        {
            return Ok(usize::from(self.ends(key, &alone).await?));
        }
        Ok(count)
    }

    async fn ends(&self, key: &ObjectKey, session: &Session) -> Result<bool, StoreError> {
        let mut passing = Passing::new();
        passing.update(TRIAL_BODY);
        let chunk = Chunk {
            start: 0,
            payload: Payload::from(Bytes::from_static(TRIAL_BODY)),
            end: Some(passing.whole()),
        };
        let sent = self.send(session, &chunk).await;
        let made = sent.map(|arrived| matches!(arrived, Arrived::Object(_)));
        match made {
            Ok(made) => Ok(made),
            Err(failure) => self.was_done(key, Err(failure)),
        }
    }

    /// Whether a conditional write was carried out.
    fn was_done(&self, key: &ObjectKey, result: Result<(), Failure>) -> Result<bool, StoreError> {
        match result {
            Ok(()) => Ok(true),
            Err(Failure::Refused(refusal)) if refusal.is_existence() => Ok(false),
            Err(failure) => Err(self.inner.bucket.error(failure, Asked::Object(key))),
        }
    }

    /// Deletes the objects of trials that were killed. Gives their number.
    pub(super) async fn discard_stale_trials(
        &self,
        older_than: Duration,
    ) -> Result<u64, StoreError> {
        let inner = &*self.inner;
        let Some(before) = moment_before(Utc::now(), older_than) else {
            return Ok(0);
        };
        let mut listed = listing::list(&inner.bucket, TRIAL_PREFIX, None, &inner.retry).await?;
        let mut discarded = 0;
        while let Some(trial) = listed.try_next().await? {
            if trial.modified <= before {
                self.delete_one(&trial.key).await?;
                discarded += 1;
            }
        }
        Ok(discarded)
    }
}

/// The name with which a store is tried.
fn trial() -> Result<ObjectKey, StoreError> {
    Ok(ObjectKey::new(&format!("{TRIAL_PREFIX}{}", random_mark()))?)
}
