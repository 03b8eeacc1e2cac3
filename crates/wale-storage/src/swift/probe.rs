//! What the server really does with `If-None-Match: *`, found out by writing an object of a name that nobody else has.
//!
//! Swift looks at it when a write begins, so every creation is looked at again after it, whatever is found here. A server
//! that ignores the header, or refuses it, is looked at before the write, too. It is tried when the sidecar starts. A
//! verb saves the requests: an object that comes to be between its first look and its write is all that the header
//! would tell besides, and Swift does not promise that either for a write that has begun.

use http::Method;

use super::leftovers::{Remnant, note};
use super::state::{State, SwiftStore};
use crate::http::failure::{Asked, Failure, Refusal};
use crate::http::marks::random_mark;
use crate::{ObjectKey, StoreError};

/// The body with which a store is tried.
const TRIAL_BODY: &[u8] = b"wale";

/// The beginning of the names of the objects with which a store is tried. They live for some milliseconds; those of a
/// process that was killed are found by the sweep.
pub(super) const TRIAL_PREFIX: &str = "wale_probe_";

impl SwiftStore {
    /// Whether a second write with the condition is refused. `false` is logged once.
    pub(super) async fn looks_first(&self) -> Result<bool, StoreError> {
        let inner = &*self.inner;
        let found = inner
            .looks_first
            .get_or_try_init(|| async {
                let trial = Tried::new(inner)?;
                let found = self.try_condition(&trial.key).await;
                drop(trial);
                self.discard_remains().await;
                let found = found?;
                if !found {
                    tracing::warn!(
                        location = inner.client.location(),
                        "the store ignores conditions of a write (If-None-Match): two writers of one name in different \
                         processes can replace each other's object, although wale checks before and after each write. \
                         Let only one sidecar at a time use this archive",
                    );
                }
                Ok(found)
            })
            .await;
        found.copied()
    }

    async fn try_condition(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        let client = &self.inner.client;
        for is_first in [true, false] {
            let call = client
                .object(Method::PUT, key)
                .header("if-none-match", "*")
                .payload(bytes::Bytes::from_static(TRIAL_BODY));
            match client.call(&call).await {
                Ok(_) if is_first => {}
                Ok(_) => return Ok(false),
                Err(Failure::Refused(refusal)) if refusal.is_existence() && !is_first => {
                    return Ok(true);
                }
                // What refuses the header as such guards nothing.
                Err(Failure::Refused(refusal))
                    if refusal.is_unsupported()
                        || refusal.status == http::StatusCode::BAD_REQUEST =>
                {
                    return Ok(false);
                }
                Err(failure) if failure.refusal().is_some_and(Refusal::is_absence) => {
                    return Err(client.error(failure, Asked::Bucket));
                }
                Err(failure) => return Err(client.error(failure, Asked::Object(key))),
            }
        }
        Ok(false)
    }
}

/// The name with which a store is tried. Whatever is there afterwards is discarded, also when nobody waits for the
/// outcome any more.
struct Tried<'a> {
    key: ObjectKey,
    inner: &'a State,
}

impl<'a> Tried<'a> {
    fn new(inner: &'a State) -> Result<Self, StoreError> {
        Ok(Self {
            key: ObjectKey::new(&format!("{TRIAL_PREFIX}{}", random_mark()))?,
            inner,
        })
    }
}

impl Drop for Tried<'_> {
    fn drop(&mut self) {
        note(&self.inner.remains, Remnant::Trial(self.key.clone()));
    }
}
