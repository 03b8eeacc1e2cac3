//! The one interface of the room, and the values that pass through it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};

use crate::{BodyError, CredentialEnd, ObjectKey, StoreError};

/// The content of an object on its way into a store. Ending without an error means that it is complete;
/// an error means that nothing may appear under the object's name.
pub type Body = BoxStream<'static, Result<Bytes, BodyError>>;

/// The content of an object on its way out of a store.
pub type ObjectStream = BoxStream<'static, Result<Bytes, StoreError>>;

/// A body of one piece.
#[must_use]
pub fn body_from(bytes: Bytes) -> Body {
    futures_util::stream::once(std::future::ready(Ok(bytes))).boxed()
}

/// What a store knows of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its name.
    pub key: ObjectKey,
    /// Its length in bytes.
    pub size: u64,
    /// When it was stored, by the store's clock.
    pub modified: DateTime<Utc>,
}

/// What became of a [`Store::put_if_absent`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object did not exist, and is now stored.
    Created(ObjectMeta),
    /// An object of this name exists, durably, and was left as it is. Its content may or may not be the
    /// same: the caller compares.
    Exists,
}

/// An object that is being read.
pub struct Object {
    /// What it is. The body yields exactly `meta.size` bytes, or those of the range that was asked for, or an error.
    pub meta: ObjectMeta,
    /// Its content.
    pub body: ObjectStream,
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object")
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}

/// How a store is best asked which of a few names that begin alike are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looking {
    /// By one listing. It shows every object whose write was answered before the listing began, and begins behind any key
    /// at no greater cost ([`Store::list_after`]).
    FromAnyKey,
    /// By one listing, which shows as much and begins where its prefix does.
    ByPrefix,
    /// By each name. A listing may lag behind, or costs more than the names do, or nobody knows.
    ByName,
}

/// Whether an object of this key, or an unfinished one, can be the caller's own.
pub type Ours = fn(&str) -> bool;

/// Object storage.
///
/// Every error is a [`StoreError`]; each verb names those that are its own. Any verb may fail with
/// [`StoreError::Unavailable`], [`StoreError::PermissionDenied`] and [`StoreError::Io`]. Futures may be
/// dropped at any point: an unfinished put then leaves nothing behind under its name.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Stores an object unless one of that name exists. An object that exists before the call is reported
    /// without reading the body. The answer is given when the object, or the one that was there, is durable.
    ///
    /// # Errors
    ///
    /// [`StoreError::BodyFailed`] when the body ends in an error, [`StoreError::Full`] when there is no
    /// room. In both cases nothing is visible under the name. After any other error the outcome is
    /// unknown, and the caller asks again.
    async fn put_if_absent(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError>;

    /// As [`Store::put_if_absent`], for a caller that has just seen that there is no object of that name. One that has
    /// appeared since is found when the body is written, and not before it is read.
    ///
    /// # Errors
    ///
    /// As [`Store::put_if_absent`].
    async fn put_unseen(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        self.put_if_absent(key, body).await
    }

    /// Stores an object, in place of one of that name if there is any. The answer is given when the
    /// object is durable; until then readers see the former object.
    ///
    /// # Errors
    ///
    /// As [`Store::put_if_absent`].
    async fn put(&self, key: &ObjectKey, body: Body) -> Result<ObjectMeta, StoreError>;

    /// Opens an object for reading. An object that is replaced or deleted while it is read stays
    /// readable as it was, or its body ends in an error.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`]; from the body [`StoreError::Damaged`] when it is shorter than announced.
    async fn get(&self, key: &ObjectKey) -> Result<Object, StoreError>;

    /// As [`Store::get`], of these bytes of the object; what it says of the object is said of the whole. Here the whole is opened
    /// and the rest of it passed over: a store that can do better does.
    ///
    /// # Errors
    ///
    /// As [`Store::get`]; [`StoreError::Damaged`] when the object does not reach so far.
    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Object, StoreError> {
        cut(self.get(key).await?, range)
    }

    /// What is known of an object, `None` when it does not exist.
    ///
    /// # Errors
    ///
    /// Only those of every verb.
    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError>;

    /// Makes sure that an object which can be read is durable, no matter who wrote it: its writer may have
    /// been killed before its fsync, or be a tool that never calls it. The answer is that of [`Store::head`].
    /// In a store that shows an object only when it is durable, [`Store::head`] is enough. There is no default:
    /// a push is acknowledged on the strength of this, and a wrapper that forgot it would promise too much.
    ///
    /// # Errors
    ///
    /// Only those of every verb. After any of them nothing is known of the object.
    async fn confirm(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError>;

    /// The objects whose key starts with `prefix`, at any depth, in the order of the keys' bytes. The
    /// prefix is text and may end in the middle of a component; the empty one lists everything. Objects
    /// stored or deleted meanwhile may or may not be listed. After an error the list ends.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidKey`] when no key could start with this prefix.
    async fn list(
        &self,
        prefix: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError>;

    /// As [`Store::list`], but only the keys after `after`, which need not exist. A store that can begin there at
    /// little cost overrides this. A caller that wants the next few keys uses it.
    ///
    /// # Errors
    ///
    /// As [`Store::list`].
    async fn list_after(
        &self,
        prefix: &str,
        after: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        let after = after.to_owned();
        let is_behind =
            move |meta: &ObjectMeta| std::future::ready(meta.key.as_str() > after.as_str());
        Ok(self.list(prefix).await?.try_filter(is_behind).boxed())
    }

    /// Deletes an object, durably. A missing object is no error.
    ///
    /// # Errors
    ///
    /// Only those of every verb.
    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// Deletes many objects, in any order, and reports which could not be deleted and why; the others
    /// are gone. A store that takes several names in one request overrides this.
    async fn delete_many(&self, keys: &[ObjectKey]) -> Vec<(ObjectKey, StoreError)> {
        let mut failed = Vec::new();
        for key in keys {
            if let Err(error) = self.delete(key).await {
                failed.push((key.clone(), error));
            }
        }
        failed
    }

    /// Removes the remains of unfinished writes that were last touched `older_than` ago: temporary files, multipart
    /// uploads. None of them was ever visible. Returns their number. Others may keep theirs below the same root: only
    /// remains go whose object's name was to be one that is `ours`.
    ///
    /// # Errors
    ///
    /// Only those of every verb.
    async fn discard_unfinished(&self, older_than: Duration, ours: Ours)
    -> Result<u64, StoreError>;

    /// How it is best asked for a few names. There is no default: a wrapper that forgot it would be asked in a way that
    /// its store does not answer truly.
    fn looking(&self) -> Looking;

    /// Where the store is, for messages; no secret.
    fn location(&self) -> String;

    /// The stores that are read as this one, each alone, in their order: what one of them has damaged, another may have whole. None
    /// where it is one store, or where its reader wants to know of that one only.
    fn copies(&self) -> Vec<Arc<dyn Store>> {
        Vec::new()
    }

    /// When the right to ask it ends, as far as that is known now. Nobody is asked for it. A store whose rights do not end says
    /// nothing.
    async fn credential_ends(&self) -> Vec<CredentialEnd> {
        Vec::new()
    }

    /// Whether the store can be asked at all, at the cost of one small request.
    ///
    /// # Errors
    ///
    /// What any verb would say of a store out of reach.
    async fn check(&self) -> Result<(), StoreError>;

    /// Finds out by writing whether the store does what writes depend on, and warns in the log of what it does not
    /// do. Writes find it out by themselves; this is for a program that reports it at its start.
    ///
    /// # Errors
    ///
    /// Those of [`Store::put_if_absent`].
    async fn try_out(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A shared store is a store.
#[async_trait]
impl<S: Store + ?Sized> Store for Arc<S> {
    async fn put_if_absent(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        (**self).put_if_absent(key, body).await
    }

    async fn put_unseen(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        (**self).put_unseen(key, body).await
    }

    async fn put(&self, key: &ObjectKey, body: Body) -> Result<ObjectMeta, StoreError> {
        (**self).put(key, body).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Object, StoreError> {
        (**self).get(key).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Object, StoreError> {
        (**self).get_range(key, range).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        (**self).head(key).await
    }

    async fn confirm(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        (**self).confirm(key).await
    }

    async fn list(
        &self,
        prefix: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        (**self).list(prefix).await
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        (**self).list_after(prefix, after).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        (**self).delete(key).await
    }

    async fn delete_many(&self, keys: &[ObjectKey]) -> Vec<(ObjectKey, StoreError)> {
        (**self).delete_many(keys).await
    }

    async fn discard_unfinished(
        &self,
        older_than: Duration,
        ours: Ours,
    ) -> Result<u64, StoreError> {
        (**self).discard_unfinished(older_than, ours).await
    }

    fn looking(&self) -> Looking {
        (**self).looking()
    }

    fn copies(&self) -> Vec<Arc<dyn Store>> {
        (**self).copies()
    }

    fn location(&self) -> String {
        (**self).location()
    }

    async fn credential_ends(&self) -> Vec<CredentialEnd> {
        (**self).credential_ends().await
    }

    async fn check(&self) -> Result<(), StoreError> {
        (**self).check().await
    }

    async fn try_out(&self) -> Result<(), StoreError> {
        (**self).try_out().await
    }
}

/// These bytes of an object that was opened whole.
///
/// # Errors
///
/// [`StoreError::Damaged`] when it does not reach so far.
pub(crate) fn cut(object: Object, range: Range<u64>) -> Result<Object, StoreError> {
    let Object { meta, body } = object;
    reaches(&meta, &range)?;
    let start = (body, range.start, range.end.saturating_sub(range.start));
    let pieces =
        futures_util::stream::try_unfold(start, |(mut body, mut before, mut left)| async move {
            while left > 0 {
                let Some(mut piece) = body.try_next().await? else {
                    return Ok(None);
                };
                let passed =
                    usize::try_from(before).map_or(piece.len(), |before| before.min(piece.len()));
                before -= passed as u64;
                piece.advance(passed);
                piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                left -= piece.len() as u64;
                if !piece.is_empty() {
                    return Ok(Some((piece, (body, before, left))));
                }
            }
            Ok(None)
        });
    Ok(Object {
        meta,
        body: pieces.boxed(),
    })
}

/// Refuses a range that reaches beyond the object.
///
/// # Errors
///
/// [`StoreError::Damaged`].
pub(crate) fn reaches(meta: &ObjectMeta, range: &Range<u64>) -> Result<(), StoreError> {
    if range.end <= meta.size {
        return Ok(());
    }
    Err(StoreError::Damaged {
        key: meta.key.clone(),
        reason: format!(
            "it has {} bytes, and those up to {} were asked for",
            meta.size, range.end
        ),
    })
}

/// Reads a small object whole: a sentinel, an identity, a manifest.
///
/// # Errors
///
/// Those of [`Store::get`], and [`StoreError::Damaged`] when the object is longer than `bytes_max`, so
/// that a wrong object under a known name cannot fill the memory.
pub async fn read_all<S: Store + ?Sized>(
    store: &S,
    key: &ObjectKey,
    bytes_max: u64,
) -> Result<Bytes, StoreError> {
    let (_, content) = read_known(store, key, bytes_max).await?;
    Ok(content)
}

/// As [`read_all`], with what the store says of the object that was read.
///
/// # Errors
///
/// As [`read_all`].
pub async fn read_known<S: Store + ?Sized>(
    store: &S,
    key: &ObjectKey,
    bytes_max: u64,
) -> Result<(ObjectMeta, Bytes), StoreError> {
    let too_long = |found: u64| StoreError::Damaged {
        key: key.clone(),
        reason: format!("it has {found} bytes or more, and at most {bytes_max} were expected"),
    };
    let mut object = store.get(key).await?;
    if object.meta.size > bytes_max {
        return Err(too_long(object.meta.size));
    }
    let mut content = BytesMut::new();
    while let Some(piece) = object.body.try_next().await? {
        content.extend_from_slice(&piece);
        if content.len() as u64 > bytes_max {
            return Err(too_long(content.len() as u64));
        }
    }
    Ok((object.meta, content.freeze()))
}

/// The moment that lies so long before `now`; none when there is no such moment.
pub(crate) fn moment_before(now: DateTime<Utc>, time: Duration) -> Option<DateTime<Utc>> {
    now.checked_sub_signed(chrono::Duration::from_std(time).ok()?)
}

/// Checks that a key could start with this text.
pub(crate) fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    if prefix.is_empty() {
        return Ok(());
    }
    // The text after the last slash may be the start of anything, so it is judged with a letter after it.
    ObjectKey::new(&format!("{prefix}x"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStore;

    #[test]
    fn prefixes() {
        for prefix in ["", "a", "a/", "a/b", ".", "a/.", "a/.."] {
            check_prefix(prefix).expect(prefix);
        }
        for prefix in ["/", "/a", "a//", "../", "./a", "a/../b", "\n"] {
            check_prefix(prefix).expect_err(prefix);
        }
    }

    #[tokio::test]
    async fn read_all_is_bounded() {
        let store = MemoryStore::new();
        let key = ObjectKey::new("a").expect("valid");
        store.insert(&key, "12345");
        assert_eq!(read_all(&store, &key, 5).await.expect("fits"), "12345");
        let error = read_all(&store, &key, 4).await.expect_err("too long");
        assert!(matches!(error, StoreError::Damaged { .. }));
    }
}
