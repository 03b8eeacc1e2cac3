//! Deleting: one object, or a thousand in a request.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, Utc};
use http::{Method, StatusCode};
use md5::{Digest as _, Md5};

use super::client::Call;
use super::refusal;
use super::state::S3Store;
use super::xml::{self, DeleteResult, NotDeleted};
use crate::http::deletions::{Retains, each};
use crate::http::failure::{Asked, Failure, Refusal};
use crate::{ObjectKey, StoreError};

/// Names in one request (Amazon S3, `DeleteObjects`).
const KEYS_MAX: usize = 1000;

/// Requests at a time to a store that deletes one object in each.
const SINGLE_AT_A_TIME: usize = 8;

/// The answer names at most the objects of the request, with a message each: 1,000 of 3 KiB.
const RESULT_BYTES_MAX: usize = 4 << 20;

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
                Err(self.with_end(error).await)
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
        self.with_ends(failed).await
    }

    async fn delete_singly(&self, keys: &[ObjectKey]) -> Vec<(ObjectKey, StoreError)> {
        let delete = |key: ObjectKey| {
            let store = self.clone();
            async move { store.delete_one(&key).await }
        };
        each(keys.to_vec(), SINGLE_AT_A_TIME, delete).await
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
}

#[async_trait]
impl Retains for S3Store {
    async fn retained_until(&self, key: &ObjectKey) -> Option<DateTime<Utc>> {
        let client = &self.inner.client;
        let call = Call::object(Method::HEAD, key).headers(&client.customer_key());
        let answer = client.call(&call).await.ok()?;
        let until = answer.header("x-amz-object-lock-retain-until-date");
        until.and_then(|text| text.parse().ok())
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
