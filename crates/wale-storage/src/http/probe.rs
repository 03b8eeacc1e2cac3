//! What a store really does: whether a write with a condition creates and never replaces, and whether a body that does not
//! match its checksum is refused.
//!
//! A store that does not know a condition may silently ignore it, and every archive on it could be overwritten. Another
//! checks first and writes later, so that the promise holds for writers that come one after the other. So a store is asked,
//! before the first write that depends on it: several writers at the same time create an object of a name that nobody else
//! has. A store whose documents promise it is not asked. What was found out is kept as long as the store's value lives.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use http::StatusCode;

use super::failure::{Failure, Meaning};
use super::leftovers::{Leftover, NotedOnDrop, Remains};
use super::marks::random_mark;
use super::part::{Sums, SumsWanted};
use super::slots::PartMemory;
use super::transport::Answer;
use super::writes::{Condition, NewObject, PlacedPart, UploadStore, Uploads, Way};
use crate::store::moment_before;
use crate::{Misconfiguration, ObjectKey, Store, StoreError, body_from};

/// The body with which a store is tried.
pub(crate) const TRIAL_BODY: &[u8] = b"wale";

/// Uploads in parts that end at the same time.
const ENDS_TRIED: usize = 2;

/// The beginning of the names of the objects with which a store is tried. They live for some milliseconds; those of a
/// process that was killed are found by the sweep.
pub(crate) const TRIAL_PREFIX: &str = "wale_probe_";

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
    fn words(self) -> &'static str {
        match self {
            Self::Always => "keeps",
            Self::Never => "ignores",
            Self::OneByOne => "checks first and writes later, and so does not keep",
        }
    }
}

/// What became of a conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tried {
    Created,
    /// Refused, because the object is there.
    Exists,
    /// Refused for a reason that may be the condition itself, or another writer.
    Refused,
}

/// Whether such writes make sure that only one creates. `false` is logged once.
pub(crate) async fn is_guarded<S: UploadStore>(store: &S, way: Way) -> Result<bool, StoreError> {
    match store.known_guard(way) {
        Some(known) => Ok(known),
        None => try_conditions(store, way).await,
    }
}

/// The same, and the store is tried in any case, once.
pub(crate) async fn try_conditions<S: UploadStore>(
    store: &S,
    way: Way,
) -> Result<bool, StoreError> {
    let found = store.uploads().guarded(way).get_or_try_init(|| async {
        let trial = Trial::new(store.uploads())?;
        let kept = conditions(store, way, &trial.key).await;
        drop(trial);
        store.discard_leftovers().await;
        let kept = kept?;
        if kept != Conditions::Always {
            warn(store, way, kept);
        }
        Ok::<_, StoreError>(kept == Conditions::Always)
    });
    found.await.copied()
}

fn warn<S: UploadStore>(store: &S, way: Way, kept: Conditions) {
    let (location, words, conditions) = (store.location(), kept.words(), S::conditions(way));
    match way {
        Way::AtOnce => tracing::warn!(
            location,
            "the store {words} {conditions}: two writers of one name in different processes can replace each other's \
             object, although wale checks again after each write. Let only one sidecar at a time use this archive, \
             or use a store that knows conditional writes",
        ),
        Way::InParts => tracing::warn!(
            location,
            "the store {words} {conditions}: two writers of one large object in different processes can replace each \
             other's, although wale checks before and after. Objects of up to {} MiB go in one request. Let only one \
             sidecar at a time use this archive",
            store.uploads().slots.first_part_bytes() >> 20,
        ),
    }
}

/// Several writers at the same time, and one alone where that leaves a doubt.
async fn conditions<S: UploadStore>(
    store: &S,
    way: Way,
    key: &ObjectKey,
) -> Result<Conditions, StoreError> {
    let writers = match way {
        Way::AtOnce => S::WRITERS_TRIED,
        Way::InParts => ENDS_TRIED,
    };
    let tried = write_together(store, way, key, writers).await?;
    let created = tried.iter().filter(|tried| **tried == Tried::Created);
    let proof = match created.count() {
        // Writers at the same time may all be refused, because of each other. One alone is not, unless the store
        // understands something else by the condition.
        0 => Tried::Created,
        1 if tried.contains(&Tried::Exists) => return Ok(Conditions::Always),
        // The others were refused for something else, such as parts that went with the first one's object.
        1 => Tried::Exists,
        all if all == writers => return Ok(Conditions::Never),
        _ => return Ok(Conditions::OneByOne),
    };
    let alone = write_together(store, way, key, 1).await?;
    Ok(if alone.contains(&proof) {
        Conditions::Always
    } else {
        Conditions::Never
    })
}

/// So many writers create the object at the same time.
async fn write_together<S: UploadStore>(
    store: &S,
    way: Way,
    key: &ObjectKey,
    writers: usize,
) -> Result<Vec<Tried>, StoreError> {
    let object = NewObject {
        key,
        mark: &random_mark(),
        condition: Condition::Create,
        way,
    };
    if way == Way::AtOnce {
        let last = store.at_once(&object, &trial_piece(store).await?);
        let made = (0..writers).map(|_| write(store, object, &last.request));
        return try_join_all(made).await;
    }
    let begun = try_join_all((0..writers).map(|_| store.begin(&object))).await?;
    let mut begun: Vec<S::Parts> = begun.into_iter().flatten().collect();
    let mut tried = vec![Tried::Exists; writers - begun.len()];
    let mut pieces = Vec::new();
    for _ in &begun {
        pieces.push(trial_piece(store).await?);
    }
    let lasts = begun.iter_mut().zip(pieces);
    let lasts = lasts.map(|(parts, piece)| store.last(&object, parts, piece));
    let lasts = try_join_all(lasts).await?;
    let made = lasts.iter().map(|last| write(store, object, &last.request));
    tried.extend(try_join_all(made).await?);
    Ok(tried)
}

/// Makes a conditional write.
async fn write<S: UploadStore>(
    store: &S,
    object: NewObject<'_>,
    request: &S::Request<'_>,
) -> Result<Tried, StoreError> {
    match store.make(&object, request).await {
        Ok(_) => Ok(Tried::Created),
        Err(Failure::Refused(refusal)) if refusal.is_existence() => Ok(Tried::Exists),
        Err(Failure::Refused(refusal)) if S::may_refuse_condition(&refusal) => Ok(Tried::Refused),
        Err(failure) => Err(store.not_stored(object.key, failure)),
    }
}

/// The trial's body, cut as the store wants it.
async fn trial_piece<S: UploadStore>(store: &S) -> Result<PlacedPart, StoreError> {
    let mut cutter = store
        .cutter(body_from(Bytes::from_static(TRIAL_BODY)))
        .await?;
    let part = cutter.next(PartMemory::trifle(TRIAL_BODY.len())).await;
    Ok(PlacedPart {
        number: 1,
        start: 0,
        part: part.expect("a body in memory does not fail"),
        end: cutter.whole(),
    })
}

/// Sums that no short body has.
const WRONG_SUMS: Sums = Sums {
    sha256: Some([0; 32]),
    crc32c: Some([0; 4]),
    crc64: Some(1),
    md5: Some([0; 16]),
};

/// A store that compares a body with a checksum that goes along.
#[async_trait]
pub(crate) trait ComparesSums: UploadStore {
    /// The sum that goes along.
    fn sum_sent(&self) -> SumsWanted;

    /// Stores the trial's body with that one of these, without a condition; with none where it is not among them.
    async fn put_trial(&self, key: &ObjectKey, sums: &Sums) -> Result<Answer, Failure>;
}

/// Sends a body with a checksum that is not its own. None when it is refused, and the same body with its own is not;
/// otherwise the answer that says that it was stored.
pub(crate) async fn try_sums<S: ComparesSums>(store: &S) -> Result<Option<Answer>, StoreError> {
    let mut trial = Trial::new(store.uploads())?;
    let found = sums(store, &mut trial).await;
    drop(trial);
    store.discard_leftovers().await;
    found
}

async fn sums<S: ComparesSums>(store: &S, trial: &mut Trial) -> Result<Option<Answer>, StoreError> {
    let key = trial.key.clone();
    match store.put_trial(&key, &WRONG_SUMS).await {
        Ok(answer) => return Ok(Some(answer)),
        Err(Failure::Refused(refusal)) if refusal.meaning == Meaning::Garbled => {
            // The store has refused everything.
            trial.left.let_go();
            return Ok(None);
        }
        // Codes for this differ. This finds out what the store refuses: this sum, sums of this kind, or everything.
        Err(Failure::Refused(refusal))
            if refusal.status == StatusCode::BAD_REQUEST || refusal.is_unsupported() => {}
        Err(failure) => return Err(store.not_stored(&key, failure)),
    }
    let right = Sums::of(TRIAL_BODY, store.sum_sent());
    let refusal = match store.put_trial(&key, &right).await {
        Ok(_) => return Ok(None),
        Err(Failure::Refused(refusal)) => refusal,
        Err(failure) => return Err(store.not_stored(&key, failure)),
    };
    match store.put_trial(&key, &Sums::default()).await {
        Ok(_) => Err(StoreError::Misconfigured {
            location: store.location(),
            problem: Misconfiguration::UnknownChecksum,
            reason: "the server refuses the checksum that goes along with each object".to_owned(),
            source: Some(Box::new(refusal.reply)),
        }),
        Err(failure) => Err(store.not_stored(&key, failure)),
    }
}

/// Deletes the objects of trials that were killed. Gives their number.
pub(crate) async fn discard_stale_trials<S: Store>(
    store: &S,
    older_than: Duration,
) -> Result<u64, StoreError> {
    let Some(before) = moment_before(Utc::now(), older_than) else {
        return Ok(0);
    };
    let mut listed = store.list(TRIAL_PREFIX).await?;
    let mut discarded = 0;
    while let Some(trial) = listed.try_next().await? {
        if trial.modified <= before {
            store.delete(&trial.key).await?;
            discarded += 1;
        }
    }
    Ok(discarded)
}

/// The name with which a store is tried. Whatever is there afterwards is discarded, also when nobody waits for the
/// outcome any more.
struct Trial {
    key: ObjectKey,
    left: NotedOnDrop,
}

impl Trial {
    fn new(uploads: &Uploads) -> Result<Self, StoreError> {
        let key = ObjectKey::new(&format!("{TRIAL_PREFIX}{}", random_mark()))?;
        let mut left = NotedOnDrop::new(&uploads.leftovers);
        left.hold(Leftover {
            key: key.clone(),
            what: Remains::Trial,
        });
        Ok(Self { key, left })
    }
}
