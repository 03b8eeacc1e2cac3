//! The last request of an upload, with which the object appears: whose object is there, and whether it is whole.
//!
//! The request carries the condition that none of the name exists. Every object carries a mark of the upload that made
//! it: when in doubt, a look at the name says whose object is there. In doubt are
//!
//! * an answer that does not show by itself that it is the store's and that the object is there (each store says which);
//! * any success of a store that does not keep conditions. Such a name is looked at before each attempt, too;
//! * a refusal after an answer that was lost;
//! * a refusal because the parts are gone: an earlier attempt, or another writer, has made an object.
//!
//! Success is reported of an object of ours that is whole only: its length and the store's sum are compared with what was
//! sent, and where there is no sum to compare the object is read back, if nobody else vouches for it. One that is garbled
//! is taken back before the next attempt.

use futures_util::TryStreamExt;

use super::failure::{Failure, Refusal};
use super::part::{Passing, Whole};
use super::writes::{Condition, LastRequest, NamedObject, NewObject, Stored, UploadStore, Way};
use crate::retry::Attempts;
use crate::{ObjectKey, ObjectMeta, StoreError};

/// What the object must be.
struct Expected<'a> {
    object: NewObject<'a>,
    bytes: u64,
    sum: Option<&'a str>,
    whole: Option<Whole>,
}

/// Makes the last request, again as long as that may help. `bytes` is the object's length. `whole` is what it must be when
/// it is read back, where nothing else shows it.
pub(crate) async fn commit<S: UploadStore>(
    store: &S,
    object: NewObject<'_>,
    last: &LastRequest<S::Request<'_>>,
    (bytes, whole): (u64, Option<Whole>),
) -> Result<Stored, StoreError> {
    let mut expected = Expected {
        object,
        bytes,
        sum: last.sum.as_deref(),
        whole,
    };
    let mut attempts = Attempts::from_failure(&store.uploads().retry);
    let mut is_doubtful = false;
    loop {
        let failure = match attempt(store, &expected, &last.request).await? {
            Ok(stored) => return Ok(stored),
            Err(failure) => failure,
        };
        let is_refused = |check: fn(&Refusal) -> bool| failure.refusal().is_some_and(check);
        if expected.object.condition == Condition::Create
            && is_refused(Refusal::is_unsupported)
            && store.does_without_conditions()
        {
            expected.object.condition = Condition::CreateUnguarded;
            continue;
        }
        let exists = is_refused(Refusal::is_existence);
        let are_parts_gone = object.way == Way::InParts && is_refused(S::are_parts_gone);
        let failure = if are_parts_gone || is_doubtful && (exists || !failure.is_transient()) {
            match judge(store, &expected, found_at(store, object.key).await?).await? {
                Ok(stored) => return Ok(stored),
                Err(Failure::Garbled) => Failure::Garbled,
                Err(_) => failure,
            }
        } else {
            failure
        };
        let is_garbled = matches!(failure, Failure::Garbled);
        if is_garbled {
            if !take_back(store, &object).await? {
                return Ok(Stored::Others);
            }
        } else if exists {
            return Ok(Stored::Others);
        }
        is_doubtful = !is_garbled && (is_doubtful || failure.is_transient());
        let is_unkept = matches!(failure, Failure::Unkept) && !S::PARTS_STAY;
        let is_over = object.way == Way::InParts && (is_garbled || is_unkept || are_parts_gone);
        let error = store.not_stored(object.key, failure);
        if is_over {
            return Err(error);
        }
        attempts.pause(error).await?;
    }
}

/// One attempt, with looks at the name where they are needed.
async fn attempt<S: UploadStore>(
    store: &S,
    expected: &Expected<'_>,
    request: &S::Request<'_>,
) -> Result<Result<Stored, Failure>, StoreError> {
    let object = &expected.object;
    let is_unguarded = object.condition == Condition::CreateUnguarded;
    // The look of before is as old as the body took to come, or the attempt before.
    if is_unguarded && let Some(found) = found_at(store, object.key).await? {
        return judge(store, expected, Some(found)).await;
    }
    match store.make(object, request).await {
        Ok(Some(told)) if !is_unguarded => check(store, expected, &told).await,
        // The writer that stored last before this look has won.
        Ok(_) => judge(store, expected, found_at(store, object.key).await?).await,
        Err(failure) => Ok(Err(failure)),
    }
}

/// What a look at the name shows.
async fn judge<S: UploadStore>(
    store: &S,
    expected: &Expected<'_>,
    found: Option<NamedObject>,
) -> Result<Result<Stored, Failure>, StoreError> {
    match found {
        Some(found) if found.mark == expected.object.mark => check(store, expected, &found).await,
        Some(_) if expected.object.condition != Condition::Replace => Ok(Ok(Stored::Others)),
        _ => Ok(Err(Failure::Unkept)),
    }
}

/// Compares an object of ours with what was sent.
async fn check<S: UploadStore>(
    store: &S,
    expected: &Expected<'_>,
    found: &NamedObject,
) -> Result<Result<Stored, Failure>, StoreError> {
    let key = expected.object.key;
    let is_whole = match (expected.sum, &found.sum, &expected.whole) {
        _ if found.bytes.is_some_and(|bytes| bytes != expected.bytes) => false,
        (Some(sum), Some(found), _) => sum == found,
        (_, _, Some(whole)) => read_back(store, key).await? == *whole,
        _ => true,
    };
    if !is_whole {
        return Ok(Err(Failure::Garbled));
    }
    Ok(Ok(Stored::Ours(ObjectMeta {
        key: key.clone(),
        size: expected.bytes,
        modified: found.modified,
    })))
}

/// Reads an object, piece by piece.
async fn read_back<S: UploadStore>(store: &S, key: &ObjectKey) -> Result<Whole, StoreError> {
    let mut body = match store.get(key).await {
        Ok(object) => object.body,
        Err(StoreError::NotFound { .. }) => {
            let reason = format!("object {key} was stored, and is not there");
            return Err(StoreError::unavailable(store.location(), reason));
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
async fn take_back<S: UploadStore>(store: &S, object: &NewObject<'_>) -> Result<bool, StoreError> {
    if object.condition == Condition::Replace {
        return Ok(true);
    }
    match found_at(store, object.key).await? {
        Some(found) if found.mark == object.mark => store.remove(object.key, &found).await,
        Some(_) => Ok(false),
        None => Ok(true),
    }
}

/// What is there under a name, asked again as long as that may help.
async fn found_at<S: UploadStore>(
    store: &S,
    key: &ObjectKey,
) -> Result<Option<NamedObject>, StoreError> {
    let mut attempts = Attempts::from_failure(&store.uploads().retry);
    loop {
        match store.look(key).await {
            Ok(found) => return Ok(found),
            Err(error) => attempts.pause(error).await?,
        }
    }
}
