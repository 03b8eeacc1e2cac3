//! Objects on their way in.
//!
//! ```text
//!   body ─▶ first part ── ends there ──▶ PUT
//!                 └─ goes on ─▶ create, part 1 ∥ gathering of part 2, …, complete
//! ```
//!
//! The object appears with the last request of either way (`commit`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, HeaderValue, Method};
use ring::rand::SecureRandom;
use tokio::sync::OwnedMutexGuard;

use super::S3Store;
use super::client::{Call, Client};
use super::commit::{Commit, contradicts};
use super::failure::{Asked, Failure};
use super::options::{S3Options, ServerEncryption, UploadChecksum};
use super::part::{Cutter, Part, Whole};
use super::sign::hex;
use super::slots::PARTS_MAX;
use super::xml::{self, Begun, PartRecord};
use crate::retry::Attempts;
use crate::{Body, ObjectKey, ObjectMeta, StoreError};

/// An answer that names an upload or an object is some hundred bytes long.
pub(super) const SHORT_BYTES_MAX: usize = 64 << 10;

/// The header in which an object remembers the upload that made it.
pub(super) const MARK_HEADER: &str = "x-amz-meta-wale-upload";

/// Abandoned uploads that are remembered until somebody can discard them: with names of at most 1 KiB some 100 KiB.
const ABANDONED_MAX: usize = 100;

/// How an object may come to its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// Whatever is there.
    Replace,
    /// If nothing is there, and the store sees to it.
    Create,
    /// If nothing is there, and the store does not see to it: the caller looked, and looks again.
    CreateUnguarded,
}

/// What became of an upload.
#[derive(Debug)]
pub(super) enum Stored {
    /// The object is there and ours.
    Ours(ObjectMeta),
    /// Somebody else's object is there.
    Others,
}

/// What every new object is told.
pub(super) fn object_headers(options: &S3Options) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let mut add = |name: &'static str, text: &str| {
        let value = HeaderValue::from_str(text)
            .map_err(|_| format!("\"{text}\" cannot stand in a header"))?;
        headers.insert(name, value);
        Ok::<_, String>(())
    };
    if let Some(class) = &options.storage_class {
        add("x-amz-storage-class", class)?;
    }
    match &options.encryption {
        ServerEncryption::BucketDefault
        | ServerEncryption::CustomerKey(_)
        | ServerEncryption::CustomerKeyFile { .. } => {}
        ServerEncryption::S3 => add("x-amz-server-side-encryption", "AES256")?,
        ServerEncryption::Kms(key) => {
            add("x-amz-server-side-encryption", "aws:kms")?;
            if let Some(key) = key {
                add("x-amz-server-side-encryption-aws-kms-key-id", key)?;
            }
        }
    }
    Ok(headers)
}

/// WAL-E's content types.
fn content_type(key: &ObjectKey) -> &'static str {
    match key.as_str().rsplit_once('.') {
        Some((_, "json")) => "application/json",
        Some((_, "txt")) => "text/plain",
        _ => "application/octet-stream",
    }
}

/// A name that no other upload has.
pub(super) fn random_mark() -> String {
    let mut bytes = [0; 12];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system gives random numbers");
    hex(&bytes)
}

impl S3Store {
    /// Stores a body.
    pub(super) async fn upload(
        &self,
        key: &ObjectKey,
        body: Body,
        condition: Condition,
    ) -> Result<Stored, StoreError> {
        self.discard_abandoned().await;
        let inner = &*self.inner;
        let mut cutter = Cutter::new(body, self.wanted_sums().await?);
        let failed = |source| StoreError::BodyFailed {
            key: key.clone(),
            source,
        };
        let first = cutter
            .next(inner.slots.hold(1).await)
            .await
            .map_err(failed)?;
        let mark = random_mark();
        if first.is_last {
            let whole = cutter.whole();
            return self.put_at_once(key, first, whole, condition, &mark).await;
        }
        let stored = self
            .put_in_parts(key, first, cutter, condition, &mark)
            .await;
        // A verb may have no next upload. A store that does not answer is not waited for once more.
        let is_unfinished = match &stored {
            Ok(Stored::Ours(_)) => false,
            Ok(Stored::Others) => true,
            Err(error) => !error.is_transient(),
        };
        if is_unfinished {
            self.discard_abandoned().await;
        }
        stored
    }

    async fn put_at_once(
        &self,
        key: &ObjectKey,
        part: Part,
        whole: Option<Whole>,
        condition: Condition,
        mark: &str,
    ) -> Result<Stored, StoreError> {
        let inner = &*self.inner;
        let mut call = Call::object(Method::PUT, key)
            .header("content-type", content_type(key))
            .header(MARK_HEADER, mark)
            .headers(&inner.object_headers)
            .headers(&inner.client.customer_key());
        if let Some(sum) = &part.checksum {
            call = call.header(sum.header, &sum.value);
        }
        if condition == Condition::Create {
            call = call.header("if-none-match", "*");
        }
        // The look of before is as old as the body took to come.
        if condition == Condition::CreateUnguarded && self.found_at(key).await?.is_some() {
            return Ok(Stored::Others);
        }
        call.sha256.clone_from(&part.sha256);
        call.payload = part.payload.clone();
        let commit = Commit {
            key,
            call,
            condition,
            mark,
            bytes: part.payload.len(),
            assembles: false,
            etag: part.etag.clone(),
            whole,
        };
        self.commit(&commit).await
    }

    async fn put_in_parts(
        &self,
        key: &ObjectKey,
        first: Part,
        mut cutter: Cutter,
        condition: Condition,
        mark: &str,
    ) -> Result<Stored, StoreError> {
        let inner = &*self.inner;
        let condition = match condition {
            Condition::Create if !self.assembly_is_guarded().await? => Condition::CreateUnguarded,
            other => other,
        };
        let upload = self.begin(key, mark).await?;
        let mut records = Vec::new();
        let (mut part, mut bytes, mut number) = (first, 0, 1);
        loop {
            bytes += part.payload.len();
            if part.is_last {
                // The last part may be empty, when the body ended with the one before it.
                if part.payload.len() > 0 {
                    records.push(self.put_part(&upload, number, &part).await?);
                }
                break;
            }
            if number == PARTS_MAX {
                return Err(too_long(key, bytes));
            }
            let gather = async {
                let held = inner.slots.hold(number + 1).await;
                cutter
                    .next(held)
                    .await
                    .map_err(|source| StoreError::BodyFailed {
                        key: key.clone(),
                        source,
                    })
            };
            // The part goes out while the next is gathered, and its memory is free as soon as it is out: whoever waits
            // for memory holds none that he does not need.
            let upload = &upload;
            let send = async move {
                let record = self.put_part(upload, number, &part).await;
                drop(part);
                record
            };
            let (record, next) = tokio::try_join!(send, gather)?;
            records.push(record);
            part = next;
            number += 1;
        }
        drop(part);
        let id = upload.id.clone();
        let mut call = Call::object(Method::POST, key)
            .query(&[("uploadId", &id)])
            .headers(&inner.client.customer_key())
            .payload(xml::complete(&records));
        call.answer_limit = Some(inner.client.timeouts().assembly);
        if condition == Condition::Create {
            call = call.header("if-none-match", "*");
        } else if condition == Condition::CreateUnguarded && self.found_at(key).await?.is_some() {
            return Ok(Stored::Others);
        }
        let commit = Commit {
            key,
            call,
            condition,
            mark,
            bytes,
            assembles: true,
            etag: None,
            whole: cutter.whole(),
        };
        let stored = self.commit(&commit).await?;
        if matches!(stored, Stored::Ours(_)) {
            upload.finished();
        }
        Ok(stored)
    }

    /// Begins a multipart upload, which is discarded unless it comes to its end.
    pub(super) async fn begin(&self, key: &ObjectKey, mark: &str) -> Result<Upload, StoreError> {
        let inner = &*self.inner;
        let mut call = Call::object(Method::POST, key)
            .query(&[("uploads", "")])
            .header("content-type", content_type(key))
            .header(MARK_HEADER, mark)
            .headers(&inner.object_headers)
            .headers(&inner.client.customer_key());
        match inner.checksum {
            UploadChecksum::Crc32c => call = call.header("x-amz-checksum-algorithm", "CRC32C"),
            UploadChecksum::Sha256 => call = call.header("x-amz-checksum-algorithm", "SHA256"),
            UploadChecksum::Md5 | UploadChecksum::None => {}
        }
        let mut attempts = Attempts::from_failure(&inner.retry);
        loop {
            match short_answer::<Begun>(&inner.client, &call).await {
                Ok(Begun { upload_id }) => {
                    return Ok(Upload {
                        key: key.clone(),
                        id: upload_id,
                        abandoned: Some(Arc::clone(&inner.abandoned)),
                    });
                }
                Err(failure) => {
                    let error = inner.client.error(failure, Asked::Object(key));
                    attempts.pause(error).await?;
                }
            }
        }
    }

    /// Sends a part, again as long as that may help: the part is in memory, and sending it twice stores it once.
    pub(super) async fn put_part(
        &self,
        upload: &Upload,
        number: u32,
        part: &Part,
    ) -> Result<PartRecord, StoreError> {
        let client = &self.inner.client;
        let number_text = number.to_string();
        let mut call = Call::object(Method::PUT, &upload.key)
            .query(&[("partNumber", &number_text), ("uploadId", &upload.id)])
            .headers(&client.customer_key());
        if let Some(sum) = &part.checksum {
            call = call.header(sum.header, &sum.value);
        }
        call.sha256.clone_from(&part.sha256);
        call.payload = part.payload.clone();
        let mut attempts = Attempts::from_failure(&self.inner.retry);
        loop {
            let failure = match client.call(&call).await {
                Ok(answer) => match answer.header("etag") {
                    Some(etag) if contradicts(etag, part.etag.as_deref()) => Failure::Garbled,
                    Some(etag) => {
                        let checksum = part
                            .checksum
                            .as_ref()
                            .and_then(|sum| Some((sum.element?, sum.value.clone())));
                        return Ok(PartRecord {
                            number,
                            etag: etag.to_owned(),
                            checksum,
                        });
                    }
                    None => Failure::Nonsense("a part without an ETag".to_owned()),
                },
                Err(failure) => failure,
            };
            let error = client.error(failure, Asked::Object(&upload.key));
            attempts.pause(error).await?;
        }
    }

    /// Discards the uploads whose futures were dropped. What cannot be discarded now is found by the sweep.
    pub(super) async fn discard_abandoned(&self) {
        loop {
            // It stays noted until it is gone: whoever discards it may himself be dropped.
            let Some((key, what)) = lock(&self.inner.abandoned).last().cloned() else {
                return;
            };
            let discarded = match &what {
                Leftover::Upload(id) => self.abort(&key, id).await,
                Leftover::Object => self.delete_one(&key).await,
            };
            lock(&self.inner.abandoned).retain(|noted| (&noted.0, &noted.1) != (&key, &what));
            if let Err(error) = discarded {
                // A store that refuses one would keep the upload at hand waiting for each of the others.
                tracing::debug!(%key, %error, "what was abandoned could not be discarded");
                return;
            }
        }
    }

    /// Discards an unfinished upload. That it does not exist is no error.
    pub(super) async fn abort(&self, key: &ObjectKey, id: &str) -> Result<(), StoreError> {
        let client = &self.inner.client;
        let call = Call::object(Method::DELETE, key).query(&[("uploadId", id)]);
        match client.call(&call).await {
            Ok(_) => Ok(()),
            Err(Failure::Refused(refusal)) if refusal.status == http::StatusCode::NOT_FOUND => {
                Ok(())
            }
            Err(failure) => Err(client.error(failure, Asked::Object(key))),
        }
    }
}

/// Makes a request whose answer is a short text.
pub(super) async fn short_answer<T: xml::Told>(
    client: &Client,
    call: &Call<'_>,
) -> Result<T, Failure> {
    long_answer(client, call, SHORT_BYTES_MAX).await
}

/// Makes a request whose answer is a text of at most that length.
pub(super) async fn long_answer<T: xml::Told>(
    client: &Client,
    call: &Call<'_>,
    bytes_max: usize,
) -> Result<T, Failure> {
    let mut answer = client.call(call).await?;
    xml::read(&answer.read(bytes_max).await?)
}

fn too_long(key: &ObjectKey, bytes: u64) -> StoreError {
    StoreError::Io {
        what: format!("object {key}"),
        source: format!(
            "it is longer than {bytes} bytes, the most that {PARTS_MAX} parts hold with the memory that uploads have; \
             give wale more memory"
        )
        .into(),
    }
}

/// What futures that were dropped half-way have left behind.
pub(super) type Abandoned = Arc<Mutex<Vec<(ObjectKey, Leftover)>>>;

/// What is to be discarded under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leftover {
    /// The multipart upload with this identifier.
    Upload(String),
    /// The object, with which the store was tried.
    Object,
}

/// Notes what is to be discarded; what finds no room is found by the sweep.
pub(super) fn abandon(abandoned: &Abandoned, key: &ObjectKey, what: Leftover) {
    let mut abandoned = lock(abandoned);
    if abandoned.len() < ABANDONED_MAX {
        abandoned.push((key.clone(), what));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A multipart upload that has begun. Dropped before its end it is noted as abandoned: a drop cannot wait for the
/// store, so the next upload discards it.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) key: ObjectKey,
    pub(super) id: String,
    abandoned: Option<Abandoned>,
}

impl Upload {
    /// There is nothing left to discard.
    pub(super) fn finished(mut self) {
        self.abandoned = None;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(abandoned) = self.abandoned.take() {
            let id = std::mem::take(&mut self.id);
            abandon(&abandoned, &self.key, Leftover::Upload(id));
        }
    }
}

/// Names that are being created by this process, when the store itself does not see to it that one creates.
#[derive(Debug, Default)]
pub(super) struct NameLocks {
    locks: Mutex<HashMap<ObjectKey, Arc<tokio::sync::Mutex<()>>>>,
}

impl NameLocks {
    /// Waits until nobody else of this process creates the name.
    pub(super) async fn lock(&self, key: &ObjectKey) -> OwnedMutexGuard<()> {
        let name = {
            let mut locks = lock(&self.locks);
            // Names that nobody holds or waits for are forgotten, so the map is as long as the work at hand.
            locks.retain(|_, name| Arc::strong_count(name) > 1);
            Arc::clone(locks.entry(key.clone()).or_default())
        };
        name.lock_owned().await
    }
}
