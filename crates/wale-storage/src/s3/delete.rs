//! Deleting: one object, a thousand in a request, or what was abandoned.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt;
use futures_util::stream;
use http::{Method, StatusCode};
use md5::{Digest as _, Md5};

use super::client::Call;
use super::leftovers::{Leftover, noted};
use super::refusal;
use super::state::S3Store;
use super::xml::{self, DeleteResult, NotDeleted};
use crate::http::failure::{Asked, Failure, Refusal};
use crate::{ObjectKey, StoreError};

/// Names in one request (Amazon S3, `DeleteObjects`).
const KEYS_MAX: usize = 1000;

/// Requests at a time to a store that deletes one object in each.
const SINGLE_AT_A_TIME: usize = 8;

/// The answer names at most the objects of the request, with a message each: 1,000 of 3 KiB.
const RESULT_BYTES_MAX: usize = 4 << 20;

/// Objects that are asked for the end of their retention in one call; the others say only that they are retained.
const RETENTIONS_ASKED: usize = 20;

impl S3Store {
    /// Deletes one object.
    pub(super) async fn delete_one(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let client = &self.inner.client;
        match client.call(&Call::object(Method::DELETE, key)).await {
            Ok(_) => Ok(()),
            Err(Failure::Refused(refusal)) if refusal.is_absence() => Ok(()),
            Err(Failure::Refused(refusal)) if refusal.may_be_absence() => {
                client.confirm_absence(key).await
            }
            Err(failure) => {
                let error = client.error(failure, Asked::Object(key));
                Err(self.with_retention(error).await)
            }
        }
    }

    /// Deletes many, and reports which it could not and why.
    pub(super) async fn delete_all(&self, keys: &[ObjectKey]) -> Vec<(ObjectKey, StoreError)> {
        let mut failed = Vec::new();
        for keys in keys.chunks(KEYS_MAX) {
            if self.inner.deletes_singly.load(Ordering::Relaxed) {
                failed.extend(self.delete_singly(keys).await);
                continue;
            }
            match self.delete_together(keys).await {
                Ok(some) => failed.extend(some),
                Err(Failure::Refused(refusal)) if refusal.is_unsupported() => {
                    tracing::debug!(%refusal, "the store deletes one object at a time");
                    self.inner.deletes_singly.store(true, Ordering::Relaxed);
                    failed.extend(self.delete_singly(keys).await);
                }
                Err(failure) => failed.extend(keys.iter().map(|key| {
                    let error = self.inner.client.error(failure.clone(), Asked::Object(key));
                    (key.clone(), error)
                })),
            }
        }
        let mut asked = 0;
        for (_, error) in &mut failed {
            if asked < RETENTIONS_ASKED && matches!(error, StoreError::Retained { .. }) {
                asked += 1;
                let bare = std::mem::replace(error, StoreError::unavailable("", ""));
                *error = self.with_retention(bare).await;
            }
        }
        failed
    }

    async fn delete_singly(&self, keys: &[ObjectKey]) -> Vec<(ObjectKey, StoreError)> {
        let deletions = keys.iter().cloned().map(|key| {
            let store = self.clone();
            async move {
                let result = store.delete_one(&key).await;
                (key, result)
            }
        });
        let results: Vec<_> = stream::iter(deletions)
            .buffer_unordered(SINGLE_AT_A_TIME)
            .collect()
            .await;
        let failed = |(key, result): (ObjectKey, Result<(), _>)| Some((key, result.err()?));
        results.into_iter().filter_map(failed).collect()
    }

    async fn delete_together(
        &self,
        keys: &[ObjectKey],
    ) -> Result<Vec<(ObjectKey, StoreError)>, Failure> {
        let client = &self.inner.client;
        let names: HashMap<String, &ObjectKey> = keys
            .iter()
            .map(|key| (format!("{}{key}", client.prefix()), key))
            .collect();
        let body = xml::delete(names.keys().cloned());
        // The one check of this request that every store knows.
        let sum = BASE64_STANDARD.encode(Md5::digest(&body));
        let call = Call::bucket(Method::POST)
            .query(&[("delete", "")])
            .header("content-type", "application/xml")
            .header("content-md5", &sum)
            .payload(body);
        let result: DeleteResult = client.long_answer(&call, RESULT_BYTES_MAX).await?;
        let mut failed = Vec::new();
        for not_deleted in result.errors {
            let key = names.get(&not_deleted.key).copied();
            let refusal = refused(not_deleted);
            match key {
                Some(_) if refusal.is_absence() => {}
                Some(key) => {
                    let error = client.error(Failure::Refused(refusal), Asked::Object(key));
                    failed.push((key.clone(), error));
                }
                // An error without a known name may be about any of the objects, so none of them counts as deleted.
                None if refusal.is_absence() => {
                    let reason = format!("an error of an object that was not named: {refusal}");
                    return Err(Failure::Nonsense(reason));
                }
                None => return Err(Failure::Refused(refusal)),
            }
        }
        Ok(failed)
    }

    /// Discards the uploads whose futures were dropped. The sweep finds what cannot be discarded now.
    pub(super) async fn discard_abandoned(&self) {
        loop {
            // It stays noted until it is gone: this future may itself be dropped.
            let Some((key, what)) = noted(&self.inner.abandoned).last().cloned() else {
                return;
            };
            let discarded = match &what {
                Leftover::Upload(id) => self.abort(&key, id).await,
                Leftover::Object => self.delete_one(&key).await,
            };
            noted(&self.inner.abandoned).retain(|one| (&one.0, &one.1) != (&key, &what));
            if let Err(error) = discarded {
                // A store that refuses one would keep the upload at hand waiting for each of the others.
                tracing::debug!(%key, %error, "what was abandoned could not be discarded");
                return;
            }
        }
    }

    /// The same error; that an object is retained also says until when, if the store says it.
    async fn with_retention(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Retained {
                key,
                until: None,
                source,
            } => {
                let call =
                    Call::object(Method::HEAD, &key).headers(&self.inner.client.customer_key());
                let answer = self.inner.client.call(&call).await.ok();
                let until = answer
                    .as_ref()
                    .and_then(|answer| answer.header("x-amz-object-lock-retain-until-date"))
                    .and_then(|text| text.parse().ok());
                StoreError::Retained { key, until, source }
            }
            other => other,
        }
    }
}

/// The error of one object of many, with the status that it would have had alone.
fn refused(not_deleted: NotDeleted) -> Refusal {
    let NotDeleted { code, message, .. } = not_deleted;
    let status = match code.as_str() {
        "AccessDenied" => StatusCode::FORBIDDEN,
        "NoSuchKey" => StatusCode::NOT_FOUND,
        "InternalError" => StatusCode::INTERNAL_SERVER_ERROR,
        "SlowDown" | "ServiceUnavailable" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    refusal::with_code(status, &code, &message)
}
