//! One object: out of one store, into the other, and back once more to see that it is the same.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use wale_archive::Archive;
use wale_format::layout::{self, ArchiveKey};
use wale_pipeline::{CHUNK_BYTES, Progress, Urgency};
use wale_storage::{BodyError, ObjectKey, ObjectMeta, PutOutcome, StoreError};

use super::options::Present;
use super::plan::{Marks, Step, marks, step};
use crate::error::{Kind, OpError, Result};
use crate::retry::RetryBudget;

/// What one object that moves holds in memory: a piece of the source, two of the put and what the store's client holds
/// of each; of a comparison a piece of each side. 4 × 1 MiB.
const OBJECT_MEMORY: u64 = 4 * CHUNK_BYTES as u64;

/// How often an object that was stored is read back before it is called garbled: the way back may garble, too.
const READ_BACKS: usize = 2;

/// A SHA-256.
pub(super) type Sum256 = [u8; 32];

/// From where to where, and how.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) source: Archive,
    pub(super) copy: Archive,
    pub(super) progress: Progress,
    pub(super) present: Present,
    pub(super) retry: RetryBudget,
    /// Whether what is put waits for the line to the destination.
    pub(super) urgency: Urgency,
}

/// What became of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Brought {
    /// It was put, and came back as it was.
    Copied,
    /// The destination has the same bytes, durably.
    There,
    /// The destination has the same but for the mark to be kept.
    Marked {
        /// Whether the source's backup is marked.
        source_has_it: bool,
    },
    /// The source does not have it any more.
    Vanished,
    /// It is not as it should be, in words that follow the key.
    Trouble(Kind, String),
}

impl Route {
    /// Brings an object of the source to the destination, which has one of `there` bytes under the same key, or none that
    /// is known of.
    ///
    /// # Errors
    /// The stores' failures, when they last.
    pub(super) async fn bring(&self, object: &ObjectMeta, there: Option<u64>) -> Result<Brought> {
        let mut attempts = self.retry.begin();
        let counted = Counted::new(&self.progress);
        let brought = loop {
            let error = match self.attempt(object, there, &counted).await {
                Ok(brought) => break brought,
                Err(error) => error,
            };
            if let Some(why) = self.withheld(&object.key, &error).await {
                break Brought::Trouble(
                    why.kind,
                    format!("cannot be read at the source: {}", why.chain()),
                );
            }
            let again = attempts.after(error)?;
            tracing::warn!(key = %object.key, attempt = again.failed, "{}; it is copied again", again.error.chain());
            again.wait().await;
        };
        counted.up_to(object.size);
        self.progress.add_files(1);
        Ok(brought)
    }

    /// Why the source will not give this one object, while it gives others: it lies in a class of storage that is not read
    /// at once, or somebody has taken the right to it away. `None` where another try may help, or nothing can be read at all.
    async fn withheld(&self, key: &ObjectKey, error: &OpError) -> Option<OpError> {
        if error.kind.retryable() {
            return None;
        }
        let opened = match self.source.store().get(key).await {
            Ok(mut opened) => opened.body.try_next().await.err(),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => Some(error),
        };
        let why = opened.filter(|error| !error.is_transient())?;
        // Whatever it says of it: it could be read.
        self.source.read_identity().await.ok()?;
        Some(reading(why, key, &self.source))
    }

    async fn attempt(
        &self,
        object: &ObjectMeta,
        there: Option<u64>,
        counted: &Counted,
    ) -> Result<Brought> {
        let step = step(object.size, there, self.present);
        if step == Step::Done {
            return Ok(Brought::There);
        }
        let _memory = self.copy.budget().acquire(OBJECT_MEMORY).await;
        match step {
            Step::Put => self.put(object, counted).await,
            Step::Compare => match self.compare(&object.key).await? {
                Some(brought) => Ok(brought),
                None => self.put(object, counted).await,
            },
            Step::Conflict | Step::Done => self.differs(&object.key).await,
        }
    }

    /// Puts what the destination does not have.
    async fn put(&self, object: &ObjectMeta, counted: &Counted) -> Result<Brought> {
        let key = &object.key;
        let opened = match self.source.store().get(key).await {
            Ok(opened) => opened,
            Err(StoreError::NotFound { .. }) => return Ok(Brought::Vanished),
            Err(error) => return Err(reading(error, key, &self.source)),
        };
        let expected = if may_change(key) {
            opened.meta.size
        } else {
            object.size
        };
        let tally = PassedSoFar::new(expected, counted);
        let (pieces, end) = (tally.clone(), tally.clone());
        let body = opened.body.map(move |piece| pieces.take(piece));
        let end = stream::once(async move { end.check().err() });
        let end = end.filter_map(|short| async { short.map(Err) });
        // Fused: a store that asks once more after the end must hear "end" again.
        let body = body.chain(end).fuse();
        let body = self.copy.line().paced(body, self.urgency).boxed();
        match self.copy.store().put_if_absent(key, body).await {
            Ok(PutOutcome::Created(_)) => self.read_back(key, tally.sum()).await,
            Ok(PutOutcome::Exists) => match self.compare(key).await? {
                Some(brought) => Ok(brought),
                None => Err(OpError::new(
                    Kind::StorageUnavailable,
                    format!("object {key} comes and goes at {}", self.copy.location()),
                )
                .hint("find out who deletes there while the copy runs")),
            },
            Err(error) => self.put_failed(key, error, &tally).await,
        }
    }

    /// Why a put failed: the source's reason says more than "the body failed".
    async fn put_failed(
        &self,
        key: &ObjectKey,
        error: StoreError,
        tally: &PassedSoFar,
    ) -> Result<Brought> {
        let Some(cause) = tally.failed() else {
            let place = self.copy.location();
            return Err(OpError::from_store(
                error,
                format_args!("store {key} at {place}"),
            ));
        };
        let head = self.source.store().head(key).await;
        if head
            .map_err(|error| reading(error, key, &self.source))?
            .is_none()
        {
            return Ok(Brought::Vanished);
        }
        match cause {
            Broken::Store(error) => Err(reading(error, key, &self.source)),
            Broken::Length(found) => Ok(Brought::Trouble(
                Kind::CorruptData,
                format!(
                    "has {} bytes in the listing of the source, and gives {found}",
                    tally.expected
                ),
            )),
        }
    }

    /// Reads back what was put: only then it counts.
    async fn read_back(&self, key: &ObjectKey, sent: Sum256) -> Result<Brought> {
        for _ in 0..READ_BACKS {
            match sum_of(&self.copy, key).await? {
                Some(found) if found == sent => return Ok(Brought::Copied),
                Some(_) => {}
                None => {
                    let place = self.copy.location();
                    return Err(OpError::new(
                        Kind::StorageUnavailable,
                        format!("object {key} was stored at {place}, and is not there"),
                    )
                    .hint("find out who deletes there while the copy runs"));
                }
            }
        }
        Ok(Brought::Trouble(
            Kind::CorruptData,
            "was stored, and the destination gives back other bytes; delete it there and run the copy again".to_owned(),
        ))
    }

    /// Compares what both sides have; `None` where the destination does not have it after all.
    async fn compare(&self, key: &ObjectKey) -> Result<Option<Brought>> {
        let (source, copy) = tokio::try_join!(sum_of(&self.source, key), sum_of(&self.copy, key))?;
        match (source, copy) {
            (None, _) => Ok(Some(Brought::Vanished)),
            (_, None) => Ok(None),
            (Some(source), Some(copy)) if source == copy => {
                // Its writer may have been killed before it was durable.
                let there = self.copy.store().confirm(key).await;
                let place = self.copy.location();
                let there = there.map_err(|error| {
                    OpError::from_store(error, format_args!("confirm {key} at {place}"))
                })?;
                Ok(there.map(|_| Brought::There))
            }
            _ => self.differs(key).await.map(Some),
        }
    }

    /// What an object is whose bytes differ: a conflict, unless only the mark to be kept does.
    async fn differs(&self, key: &ObjectKey) -> Result<Brought> {
        const WORDS: &str = "is at the destination with other bytes";
        if !matches!(layout::parse(key.as_str()), ArchiveKey::Metadata(_)) {
            return Ok(Brought::Trouble(Kind::ArchiveConflict, WORDS.to_owned()));
        }
        let Some(source) = self.source.read_small(key).await? else {
            return Ok(Brought::Vanished);
        };
        let copy = self.copy.read_small(key).await?.unwrap_or_default();
        Ok(match marks(&source, &copy) {
            Marks::Differ { source_has_it } => Brought::Marked { source_has_it },
            Marks::Same => Brought::There,
            Marks::Unlike => Brought::Trouble(Kind::ArchiveConflict, WORDS.to_owned()),
        })
    }
}

/// The SHA-256 of an object as it is stored; `None` where there is none.
pub(super) async fn sum_of(archive: &Archive, key: &ObjectKey) -> Result<Option<Sum256>> {
    let mut object = match archive.store().get(key).await {
        Ok(object) => object,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(reading(error, key, archive)),
    };
    let mut hasher = Sha256::new();
    let mut read = object.body.try_next().await;
    while let Some(piece) = read.map_err(|error| reading(error, key, archive))? {
        hasher.update(&piece);
        read = object.body.try_next().await;
    }
    Ok(Some(hasher.finalize().into()))
}

fn reading(error: StoreError, key: &ObjectKey, from: &Archive) -> OpError {
    OpError::from_store(error, format_args!("read {key} of {}", from.location()))
}

/// Whether an object is rewritten in the life of an archive, so that its size in a listing may be a former one.
fn may_change(key: &ObjectKey) -> bool {
    matches!(
        layout::parse(key.as_str()),
        ArchiveKey::Metadata(_) | ArchiveKey::Identity
    )
}

/// What of an object was told to the progress: no byte twice, whatever is repeated.
#[derive(Clone)]
struct Counted(Arc<(Progress, Mutex<u64>)>);

impl Counted {
    fn new(progress: &Progress) -> Self {
        Self(Arc::new((progress.clone(), Mutex::new(0))))
    }

    fn up_to(&self, bytes: u64) {
        let (progress, told) = &*self.0;
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes > *told {
            progress.add(bytes - *told);
            *told = bytes;
        }
    }
}

/// What has gone through a body so far.
#[derive(Clone)]
struct PassedSoFar {
    shared: Arc<Mutex<Passed>>,
    expected: u64,
    counted: Counted,
}

#[derive(Default)]
struct Passed {
    hasher: Sha256,
    bytes: u64,
    broken: Option<Broken>,
}

/// Why a body broke.
enum Broken {
    /// The source's store failed.
    Store(StoreError),
    /// It ended after so many bytes.
    Length(u64),
}

impl PassedSoFar {
    fn new(expected: u64, counted: &Counted) -> Self {
        Self {
            shared: Arc::default(),
            expected,
            counted: counted.clone(),
        }
    }

    fn take(&self, piece: Result<bytes::Bytes, StoreError>) -> Result<bytes::Bytes, BodyError> {
        let mut passed = self.passed();
        match piece {
            Ok(piece) => {
                passed.hasher.update(&piece);
                passed.bytes += piece.len() as u64;
                self.counted.up_to(passed.bytes);
                Ok(piece)
            }
            Err(error) => {
                let told = error.to_string();
                passed.broken = Some(Broken::Store(error));
                Err(BodyError::new(told))
            }
        }
    }

    /// At the end of the body: it must have its length, or nothing may appear under the name.
    fn check(&self) -> Result<(), BodyError> {
        let mut passed = self.passed();
        let found = passed.bytes;
        if found == self.expected || passed.broken.is_some() {
            return Ok(());
        }
        passed.broken = Some(Broken::Length(found));
        Err(BodyError::new(format!(
            "it has {found} bytes instead of {}",
            self.expected
        )))
    }

    fn sum(&self) -> Sum256 {
        self.passed().hasher.clone().finalize().into()
    }

    fn failed(&self) -> Option<Broken> {
        self.passed().broken.take()
    }

    fn passed(&self) -> MutexGuard<'_, Passed> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
