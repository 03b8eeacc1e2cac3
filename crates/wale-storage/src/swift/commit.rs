//! The last request of an upload, with which the object appears.
//!
//! It carries the condition that none of the name exists, its digest, and a mark of the upload that made it: when in
//! doubt, a check of the mark says whose object is there. These answers are in doubt: one without the store's own digest
//! (`ETag`), for anybody can send one; one that says that a later write is there; and any success of a creation, because
//! Swift looks at conditions when a write begins: another may have begun, too.

use chrono::{DateTime, Utc};
use http::{Method, StatusCode};

use super::client::SwiftCall;
use super::download;
use super::names::{MARK_HEADER, is_same};
use super::state::SwiftStore;
use crate::http::failure::{Asked, Failure, Meaning, Refusal};
use crate::http::text::moment;
use crate::retry::Attempts;
use crate::{ObjectKey, ObjectMeta, StoreError};

/// The header of a condition.
const CONDITION: &str = "if-none-match";

/// How an object may come to its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Creation {
    /// Whatever is there.
    Replaces,
    /// If nothing is there.
    IfAbsent,
}

/// What became of an upload.
#[derive(Debug)]
pub(super) enum Whose {
    /// The object is there and ours.
    Ours(ObjectMeta),
    /// Somebody else's object is there.
    Others,
}

/// What is to appear.
pub(super) struct Appearance<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) creation: Creation,
    /// What the object carries.
    pub(super) mark: &'a str,
    /// The object's length.
    pub(super) bytes: u64,
    /// What its `ETag` must be.
    pub(super) etag: String,
    /// Whether it is a list of segments.
    pub(super) is_large: bool,
}

/// What a check of a name finds.
pub(super) struct Held {
    meta: ObjectMeta,
    /// Empty when the object has none.
    mark: String,
    etag: String,
}

/// What an answer of success is worth.
enum Verdict {
    Stored(Whose),
    /// The object is there, with other bytes than were sent.
    Garbled,
    /// The object is not there.
    Nothing,
}

impl SwiftStore {
    /// Makes the last request, again as long as that may help. Whether an earlier attempt has stored the object is
    /// then told by its mark.
    pub(super) async fn commit(
        &self,
        wanted: &Appearance<'_>,
        call: SwiftCall<'_>,
    ) -> Result<Whose, StoreError> {
        let Some(mut call) = self.conditional(wanted, call).await? else {
            return Ok(Whose::Others);
        };
        let mut attempts = Attempts::from_failure(&self.inner.retry);
        let mut is_doubtful = false;
        loop {
            let failure = match self.commit_once(wanted, &call).await {
                Ok(told) => match self.worth(wanted, told).await? {
                    Verdict::Stored(whose) => return Ok(whose),
                    Verdict::Garbled => Failure::Garbled,
                    Verdict::Nothing => Failure::Unkept,
                },
                Err(failure) => failure,
            };
            if self.refuses_condition(wanted, &failure) {
                match self.conditional(wanted, call.without(CONDITION)).await? {
                    Some(bare) => call = bare,
                    None => return Ok(Whose::Others),
                }
                continue;
            }
            let exists = failure.refusal().is_some_and(Refusal::is_existence);
            let failure = if is_doubtful && (exists || !failure.is_transient()) {
                match self.found_at(wanted.key).await? {
                    Some(found) if found.mark == wanted.mark => match wanted.stored_as(&found) {
                        Some(whose) => return Ok(whose),
                        None => Failure::Garbled,
                    },
                    _ => failure,
                }
            } else {
                failure
            };
            let is_garbled = matches!(failure, Failure::Garbled);
            if is_garbled {
                if !self.take_back(wanted).await? {
                    return Ok(Whose::Others);
                }
                is_doubtful = false;
            } else if exists {
                return Ok(Whose::Others);
            }
            is_doubtful |= failure.is_transient() && !is_garbled;
            let error = self.not_put(wanted.key, failure);
            // The segments went with the object.
            if is_garbled && wanted.is_large {
                return Err(error);
            }
            attempts.pause(error).await?;
        }
    }

    /// The same request with its condition; none when somebody else's object is there already.
    async fn conditional<'c>(
        &self,
        wanted: &Appearance<'_>,
        call: SwiftCall<'c>,
    ) -> Result<Option<SwiftCall<'c>>, StoreError> {
        if wanted.creation == Creation::Replaces {
            return Ok(Some(call));
        }
        if self.inner.looks_first.get().copied().unwrap_or(true) {
            return Ok(Some(call.header(CONDITION, "*")));
        }
        // The look of before is as old as the body took to come.
        let found = self.found_at(wanted.key).await?;
        Ok(found.is_none().then_some(call))
    }

    /// Whether the server does not take the condition as such, which nobody knew yet.
    fn refuses_condition(&self, wanted: &Appearance<'_>, failure: &Failure) -> bool {
        wanted.creation == Creation::IfAbsent
            && failure.refusal().is_some_and(Refusal::is_unsupported)
            && self.inner.looks_first.set(false).is_ok()
    }

    /// When the object was stored, if the answer has what only the store knows, the object's digest.
    async fn commit_once(
        &self,
        wanted: &Appearance<'_>,
        call: &SwiftCall<'_>,
    ) -> Result<Option<DateTime<Utc>>, Failure> {
        let answer = match self.inner.client.call(call).await {
            Ok(answer) => answer,
            Err(Failure::Refused(refusal)) => {
                return Err(Failure::Refused(judged(wanted, refusal)));
            }
            Err(failure) => return Err(failure),
        };
        let etag = answer.header("etag").unwrap_or_default();
        // Accepted, but a write that is later is there.
        if etag.is_empty() || answer.status == StatusCode::ACCEPTED {
            return Ok(None);
        }
        if !is_same(etag, &wanted.etag) {
            return Err(Failure::Garbled);
        }
        Ok(Some(moment(answer.header("date")).unwrap_or_else(Utc::now)))
    }

    /// What an answer of success is worth, after a check where it is in doubt.
    async fn worth(
        &self,
        wanted: &Appearance<'_>,
        stored: Option<DateTime<Utc>>,
    ) -> Result<Verdict, StoreError> {
        if let (Some(modified), Creation::Replaces) = (stored, wanted.creation) {
            return Ok(Verdict::Stored(Whose::Ours(ObjectMeta {
                key: wanted.key.clone(),
                size: wanted.bytes,
                modified,
            })));
        }
        // The writer that stored last before this check has won.
        Ok(match self.found_at(wanted.key).await? {
            Some(found) if found.mark == wanted.mark => wanted
                .stored_as(&found)
                .map_or(Verdict::Garbled, Verdict::Stored),
            Some(_) if wanted.creation == Creation::IfAbsent => Verdict::Stored(Whose::Others),
            _ => Verdict::Nothing,
        })
    }

    /// Makes room for another attempt after our object was found garbled: a name that is to be created must be free.
    /// An object that replaces another is replaced again, so that there is one at every moment. `false` when somebody
    /// else's object is there.
    async fn take_back(&self, wanted: &Appearance<'_>) -> Result<bool, StoreError> {
        if wanted.creation == Creation::Replaces {
            return Ok(true);
        }
        match self.found_at(wanted.key).await? {
            Some(found) if found.mark == wanted.mark => {
                self.delete_one(wanted.key).await.map(|()| true)
            }
            Some(_) => Ok(false),
            None => Ok(true),
        }
    }

    /// The mark and the digest of the object under a name; none when there is no object.
    pub(super) async fn found_at(&self, key: &ObjectKey) -> Result<Option<Held>, StoreError> {
        let client = &self.inner.client;
        let call = client.object(Method::HEAD, key).newest();
        let mut attempts = Attempts::from_failure(&self.inner.retry);
        loop {
            let failure = match client.call(&call).await {
                Ok(answer) => match download::meta(key, &answer) {
                    Ok(meta) => {
                        let text = |name| answer.header(name).unwrap_or_default().to_owned();
                        return Ok(Some(Held {
                            meta,
                            mark: text(MARK_HEADER),
                            etag: text("etag"),
                        }));
                    }
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            let error = match failure.refusal() {
                Some(refusal) if refusal.may_be_absence() => {
                    match client.confirm_absence(key, &failure).await {
                        Ok(()) => return Ok(None),
                        Err(error) => error,
                    }
                }
                _ => client.error(failure, Asked::Object(key)),
            };
            attempts.pause(error).await?;
        }
    }
}

impl Appearance<'_> {
    /// An object of ours, compared with what was sent; none when it is garbled.
    fn stored_as(&self, found: &Held) -> Option<Whose> {
        let is_whole = found.meta.size == self.bytes && is_same(&found.etag, &self.etag);
        is_whole.then(|| Whose::Ours(found.meta.clone()))
    }
}

/// What a refusal of the last request means. One of a list names the segments that are not found; all of them were
/// stored.
fn judged(wanted: &Appearance<'_>, refusal: Refusal) -> Refusal {
    let names_segments = refusal.reply.message.contains("Errors:");
    if wanted.is_large && refusal.status == StatusCode::BAD_REQUEST && names_segments {
        return Refusal {
            meaning: Meaning::Passing("it does not find the segments of the object yet"),
            ..refusal
        };
    }
    refusal
}
