//! What each store behind HTTP gives, so that objects come to be by the same rules in all of them.
//!
//! ```text
//!   upload ─▶ commit      an object comes to be: from its body to an answer that can be believed
//!      └────▶ probe       what the store's conditions and checksums are worth
//!                └─▶ writes (here) ◀─ s3, gcs, azure, swift
//! ```
//!
//! Here stand the requests and the facts of a store. What follows from them stands in the three files above.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use http::StatusCode;
use tokio::sync::OnceCell;

use super::failure::{Failure, Meaning, Refusal};
use super::leftovers::{Leftover, Leftovers};
use super::name_locks::NameLocks;
use super::part::{Cutter, Part, Whole};
use super::slots::Slots;
use crate::{Body, ObjectKey, ObjectMeta, RetryPolicy, Store, StoreError};

/// How an object may come to its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Whatever is there.
    Replace,
    /// If nothing is there, and the store makes sure of that.
    Create,
    /// If nothing is there, and the store does not make sure of that: the name is checked before and after.
    CreateUnguarded,
}

/// How its content comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// In the request that lets it appear.
    AtOnce,
    /// In parts, of which the last request makes an object.
    InParts,
}

/// What became of an upload.
#[derive(Debug)]
pub(crate) enum Stored {
    /// The object is there and ours.
    Ours(ObjectMeta),
    /// Somebody else's object is there.
    Others,
}

/// An object that is to appear.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewObject<'a> {
    pub(crate) key: &'a ObjectKey,
    /// What the object carries, and no other: the mark of the upload that makes it.
    pub(crate) mark: &'a str,
    pub(crate) condition: Condition,
    pub(crate) way: Way,
}

/// A part of a body, and where it stands in it.
#[derive(Debug)]
pub(crate) struct PlacedPart {
    /// Counted from 1.
    pub(crate) number: u32,
    /// Where in the object it begins.
    pub(crate) start: u64,
    pub(crate) part: Part,
    /// The whole body, with its last part, where it is wanted.
    pub(crate) end: Option<Whole>,
}

impl PlacedPart {
    /// Where in the object it ends.
    pub(crate) fn end_bytes(&self) -> u64 {
        self.start + self.part.payload.len()
    }
}

/// The request that lets an object appear, ready to be made more than once.
pub(crate) struct LastRequest<R> {
    pub(crate) request: R,
    /// What the store's sum of the object must be, where that is compared.
    pub(crate) sum: Option<String>,
}

/// What is there under a name.
#[derive(Debug)]
pub(crate) struct NamedObject {
    /// Empty when the object has none.
    pub(crate) mark: String,
    /// Where it is reported.
    pub(crate) bytes: Option<u64>,
    /// The store's sum of the content, where it is reported, written as [`LastRequest::sum`] is.
    pub(crate) sum: Option<String>,
    /// What tells it from another object of the name, where the store has such a thing.
    pub(crate) version: Option<String>,
    pub(crate) modified: DateTime<Utc>,
}

/// The most that an object may have.
pub(crate) enum Limit {
    /// So many parts, and what they are called.
    Parts(u32, &'static str),
    /// So many bytes, and whose limit that is.
    Bytes(u64, &'static str),
}

/// What all uploads of a store share.
#[derive(Debug)]
pub(crate) struct Uploads {
    pub(crate) slots: Slots,
    pub(crate) retry: RetryPolicy,
    pub(crate) names: NameLocks,
    pub(crate) leftovers: Leftovers,
    at_once_guarded: OnceCell<bool>,
    in_parts_guarded: OnceCell<bool>,
}

impl Uploads {
    pub(crate) fn new(slots: Slots, retry: &RetryPolicy) -> Self {
        Self {
            slots,
            retry: retry.clone(),
            names: NameLocks::default(),
            leftovers: Leftovers::default(),
            at_once_guarded: OnceCell::new(),
            in_parts_guarded: OnceCell::new(),
        }
    }

    /// Whether conditions of such writes are kept, as far as somebody has found out.
    pub(crate) fn guarded(&self, way: Way) -> &OnceCell<bool> {
        match way {
            Way::AtOnce => &self.at_once_guarded,
            Way::InParts => &self.in_parts_guarded,
        }
    }
}

/// A store to which objects are uploaded.
#[async_trait]
pub(crate) trait UploadStore: Store {
    /// A request that lets an object appear.
    type Request<'a>: Send + Sync
    where
        Self: 'a;

    /// An upload in parts that has begun.
    type Parts: Send + Sync;

    /// The most that an object may have.
    const LIMIT: Limit;

    /// Writers of one name at the same time with which conditions are tried. 4: a store that checks first and writes later
    /// lets a second one in as soon as two of them have checked, and a `wal-push` of one segment pays for no more
    /// connections than that.
    const WRITERS_TRIED: usize = 4;

    /// Whether the request that makes an object of parts can be repeated after it was answered. Where it cannot, an upload
    /// ends once.
    const PARTS_STAY: bool = false;

    /// What all uploads share.
    fn uploads(&self) -> &Uploads;

    /// Whether such writes are guarded, where nobody has to be asked; none where the store is to be tried.
    fn known_guard(&self, way: Way) -> Option<bool>;

    /// What is said of conditions of such writes, for a warning.
    fn conditions(way: Way) -> &'static str;

    /// Cuts a body, with the sums that the store wants of it.
    async fn cutter(&self, body: Body) -> Result<Cutter, StoreError>;

    /// The request that stores an object of one part.
    fn at_once<'a>(
        &'a self,
        object: &NewObject<'a>,
        only: &PlacedPart,
    ) -> LastRequest<Self::Request<'a>>;

    /// Begins an upload in parts; none when the store says at once that an object is there which the condition forbids.
    async fn begin(&self, object: &NewObject<'_>) -> Result<Option<Self::Parts>, StoreError>;

    /// Sends a part that others follow, again as long as that may help.
    async fn put_part(&self, parts: &mut Self::Parts, piece: &PlacedPart)
    -> Result<(), StoreError>;

    /// The request that makes an object of the parts. Sends the last one before, where it does not go along. That one may
    /// be empty, when the body ended with the one before it.
    async fn last<'a>(
        &'a self,
        object: &NewObject<'a>,
        parts: &'a mut Self::Parts,
        last: PlacedPart,
    ) -> Result<LastRequest<Self::Request<'a>>, StoreError>;

    /// The upload is over, and somebody knows whose object is there.
    fn ended(parts: Self::Parts, stored: &Stored);

    /// Makes a last request once, with the object's condition. Gives what the store itself says of the object, where its
    /// answer shows that it is there and ours; none where a look must show that.
    async fn make(
        &self,
        object: &NewObject<'_>,
        request: &Self::Request<'_>,
    ) -> Result<Option<NamedObject>, Failure>;

    /// What is there under a name. Absence is confirmed, as each store can.
    async fn look(&self, key: &ObjectKey) -> Result<Option<NamedObject>, StoreError>;

    /// Removes an object of ours, if it is still there; `false` when it is known that another has taken its place.
    async fn remove(&self, key: &ObjectKey, found: &NamedObject) -> Result<bool, StoreError>;

    /// A write's failure as the room's error.
    fn not_stored(&self, key: &ObjectKey, failure: Failure) -> StoreError;

    /// Discards what a future that was dropped has left.
    async fn discard(&self, left: &Leftover) -> Result<(), StoreError>;

    /// Whether a last request was refused because its parts are not there any more.
    fn are_parts_gone(refusal: &Refusal) -> bool {
        refusal.meaning == Meaning::UploadGone
    }

    /// Whether a conditional write was refused for a reason that may be the condition itself, or another writer. A store
    /// that refuses the header as such carries nothing out and guards nothing: a write without the header, which comes
    /// next, shows that.
    fn may_refuse_condition(refusal: &Refusal) -> bool {
        matches!(refusal.meaning, Meaning::Unsupported | Meaning::UploadGone)
            || refusal.status == StatusCode::CONFLICT
    }

    /// Notes that the store does not do conditional writes, which nobody knew; `false` where that is an error.
    fn does_without_conditions(&self) -> bool {
        false
    }

    /// Discards what futures left that were dropped. The sweep finds what cannot be discarded now.
    async fn discard_leftovers(&self) {
        let leftovers = &self.uploads().leftovers;
        // It stays noted until it is gone: this future may itself be dropped.
        while let Some(left) = leftovers.last() {
            let discarded = self.discard(&left).await;
            leftovers.forget(&left);
            if let Err(error) = discarded {
                // A store that refuses one would keep the upload at hand waiting for each of the others.
                tracing::debug!(?left, %error, "what was abandoned could not be discarded");
                return;
            }
        }
    }
}
