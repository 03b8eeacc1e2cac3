//! Objects on their way in, to any store.
//!
//! ```text
//!   body ─▶ first part ── ends there ──▶ one request
//!                 └─ goes on ─▶ part 1 ∥ gathering of part 2, …, the request that makes an object of them
//! ```
//!
//! A body comes without its length, and one that goes out as it comes could not be sent again when the connection breaks or
//! the credentials end: so it goes in parts that are held in memory. The object appears with the last request of either way
//! (`commit`).

use super::commit::commit;
use super::marks::random_mark;
use super::part::Cutter;
use super::probe::is_guarded;
use super::slots::PartMemory;
use super::writes::{Condition, Limit, NewObject, PlacedPart, Stored, UploadStore, Way};
use crate::{Body, ObjectKey, ObjectMeta, PutOutcome, StoreError};

/// A body that is being cut.
struct CutBody<'a> {
    key: &'a ObjectKey,
    cutter: Cutter,
    number: u32,
    start: u64,
}

impl CutBody<'_> {
    /// Gathers the next part.
    async fn next(&mut self, memory: PartMemory) -> Result<PlacedPart, StoreError> {
        let part = self.cutter.next(memory).await;
        let part = part.map_err(|source| StoreError::BodyFailed {
            key: self.key.clone(),
            source,
        })?;
        self.number += 1;
        let piece = PlacedPart {
            number: self.number,
            start: self.start,
            end: self.cutter.whole().filter(|_| part.is_last),
            part,
        };
        self.start = piece.end_bytes();
        Ok(piece)
    }
}

/// [`crate::Store::put_if_absent`].
pub(crate) async fn put_if_absent<S: UploadStore>(
    store: &S,
    key: &ObjectKey,
    body: Body,
) -> Result<PutOutcome, StoreError> {
    let _name = store.uploads().names.lock(key).await;
    if store.head(key).await?.is_some() {
        return Ok(PutOutcome::Exists);
    }
    create(store, key, body).await
}

/// [`crate::Store::put_unseen`].
pub(crate) async fn put_unseen<S: UploadStore>(
    store: &S,
    key: &ObjectKey,
    body: Body,
) -> Result<PutOutcome, StoreError> {
    let _name = store.uploads().names.lock(key).await;
    create(store, key, body).await
}

/// The write itself guards the name, or is made between two looks at it.
async fn create<S: UploadStore>(
    store: &S,
    key: &ObjectKey,
    body: Body,
) -> Result<PutOutcome, StoreError> {
    let condition = if is_guarded(store, Way::AtOnce).await? {
        Condition::Create
    } else {
        Condition::CreateUnguarded
    };
    match upload(store, key, body, condition).await? {
        Stored::Ours(meta) => Ok(PutOutcome::Created(meta)),
        Stored::Others => Ok(PutOutcome::Exists),
    }
}

/// [`crate::Store::put`].
pub(crate) async fn put<S: UploadStore>(
    store: &S,
    key: &ObjectKey,
    body: Body,
) -> Result<ObjectMeta, StoreError> {
    match upload(store, key, body, Condition::Replace).await? {
        Stored::Ours(meta) => Ok(meta),
        Stored::Others => Err(StoreError::unavailable(
            store.location(),
            "it refused to replace an object, without being asked to",
        )),
    }
}

async fn upload<S: UploadStore>(
    store: &S,
    key: &ObjectKey,
    body: Body,
    condition: Condition,
) -> Result<Stored, StoreError> {
    store.discard_leftovers().await;
    let mut body = CutBody {
        key,
        cutter: store.cutter(body).await?,
        number: 0,
        start: 0,
    };
    let first = body.next(store.uploads().slots.hold(1).await).await?;
    let mark = random_mark();
    let mut object = NewObject {
        key,
        mark: &mark,
        condition,
        way: Way::AtOnce,
    };
    if first.part.is_last {
        let last = store.at_once(&object, &first);
        return commit(store, object, &last, (first.end_bytes(), first.end)).await;
    }
    object.way = Way::InParts;
    if condition == Condition::Create && !is_guarded(store, Way::InParts).await? {
        object.condition = Condition::CreateUnguarded;
    }
    let stored = upload_in_parts(store, object, first, body).await;
    // A verb may have no next upload. This does not wait once more for a store that does not answer.
    let is_unfinished = match &stored {
        Ok(Stored::Ours(_)) => false,
        Ok(Stored::Others) => true,
        Err(error) => !error.is_transient(),
    };
    if is_unfinished {
        store.discard_leftovers().await;
    }
    stored
}

async fn upload_in_parts<S: UploadStore>(
    store: &S,
    object: NewObject<'_>,
    first: PlacedPart,
    mut body: CutBody<'_>,
) -> Result<Stored, StoreError> {
    let Some(mut parts) = store.begin(&object).await? else {
        return Ok(Stored::Others);
    };
    let mut piece = first;
    while !piece.part.is_last {
        check_length::<S>(object.key, &piece)?;
        let number = piece.number + 1;
        let gather = async {
            let memory = store.uploads().slots.hold(number).await;
            body.next(memory).await
        };
        let parts = &mut parts;
        // The part goes out while the next is gathered, and its memory is free as soon as it is out: a task that
        // waits for memory holds none that it does not need.
        let send = async move {
            let sent = store.put_part(parts, &piece).await;
            drop(piece);
            sent
        };
        // A body that fails waits for the part that is under way: a server may keep one that comes after the upload was aborted.
        let gathered = async { Ok(gather.await) };
        let ((), next) = tokio::try_join!(send, gathered)?;
        piece = next?;
    }
    let length = (piece.end_bytes(), piece.end);
    let stored = {
        let last = store.last(&object, &mut parts, piece).await?;
        commit(store, object, &last, length).await?
    };
    S::ended(parts, &stored);
    Ok(stored)
}

/// Makes sure that another part may follow.
fn check_length<S: UploadStore>(key: &ObjectKey, piece: &PlacedPart) -> Result<(), StoreError> {
    let reason = match S::LIMIT {
        Limit::Parts(most, parts) if piece.number >= most => format!(
            "it is longer than {} bytes, the most that {most} {parts} hold with the memory that uploads have; give wale \
             more memory",
            piece.end_bytes(),
        ),
        Limit::Bytes(most, whose) if piece.end_bytes() > most => {
            format!("it is longer than {most} bytes, the most that {whose} stores in one")
        }
        Limit::Parts(..) | Limit::Bytes(..) => return Ok(()),
    };
    Err(StoreError::Io {
        what: format!("object {key}"),
        source: reason.into(),
    })
}
