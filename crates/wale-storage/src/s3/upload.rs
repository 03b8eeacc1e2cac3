//! Objects on their way in.
//!
//! ```text
//!   body ─▶ first part ── ends there ──▶ PUT
//!                 └─ goes on ─▶ create, part 1 ∥ gathering of part 2, …, complete
//! ```
//!
//! The object appears with the last request of either way (`commit`).

use http::Method;

use super::checksum::{Vouched, Vouchers};
use super::client::Call;
use super::commit::{Commit, Condition, Stored};
use super::headers::MARK_HEADER;
use super::multipart::Upload;
use super::options::PARTS_MAX;
use super::state::S3Store;
use super::xml::{self, PartRecord};
use crate::http::marks::{content_type, random_mark};
use crate::http::part::{Cutter, Whole};
use crate::http::slots::PartMemory;
use crate::{Body, ObjectKey, StoreError};

/// A body that is being cut, with what vouches for its parts.
struct UploadSource<'a> {
    key: &'a ObjectKey,
    cutter: Cutter,
    vouchers: Vouchers,
}

impl UploadSource<'_> {
    /// Gathers the next part.
    async fn next(&mut self, memory: PartMemory) -> Result<Vouched, StoreError> {
        match self.cutter.next(memory).await {
            Ok(part) => Ok(self.vouchers.of(part)),
            Err(source) => Err(StoreError::BodyFailed {
                key: self.key.clone(),
                source,
            }),
        }
    }
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
        let vouchers = self.wanted_sums().await?;
        let mut source = UploadSource {
            key,
            cutter: vouchers.cut(body),
            vouchers,
        };
        let first = source.next(inner.slots.hold(1).await).await?;
        let mark = random_mark();
        if first.gathered.is_last {
            let whole = source.cutter.whole();
            return self.put_at_once(key, first, whole, condition, &mark).await;
        }
        let stored = self.put_in_parts(first, source, condition, &mark).await;
        // A verb may have no next upload. This does not wait once more for a store that does not answer.
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
        part: Vouched,
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
        call.payload = part.gathered.payload.clone();
        let commit = Commit {
            key,
            call,
            condition,
            mark,
            bytes: part.gathered.payload.len(),
            assembles: false,
            etag: part.etag.clone(),
            whole,
        };
        self.commit(&commit).await
    }

    async fn put_in_parts(
        &self,
        first: Vouched,
        mut source: UploadSource<'_>,
        condition: Condition,
        mark: &str,
    ) -> Result<Stored, StoreError> {
        let (inner, key) = (&*self.inner, source.key);
        let condition = match condition {
            Condition::Create if !self.assembly_is_guarded().await? => Condition::CreateUnguarded,
            other => other,
        };
        let upload = self.begin(key, mark).await?;
        let (records, bytes) = self.put_parts(&upload, first, &mut source).await?;
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
            whole: source.cutter.whole(),
        };
        let stored = self.commit(&commit).await?;
        if matches!(stored, Stored::Ours(_)) {
            upload.finished();
        }
        Ok(stored)
    }

    /// Sends the parts of a body. Gives what was stored of them, and the body's length.
    async fn put_parts(
        &self,
        upload: &Upload,
        first: Vouched,
        source: &mut UploadSource<'_>,
    ) -> Result<(Vec<PartRecord>, u64), StoreError> {
        let mut records = Vec::new();
        let (mut part, mut bytes, mut number) = (first, 0, 1);
        loop {
            bytes += part.gathered.payload.len();
            if part.gathered.is_last {
                // The last part may be empty, when the body ended with the one before it.
                if part.gathered.payload.len() > 0 {
                    records.push(self.put_part(upload, number, &part).await?);
                }
                return Ok((records, bytes));
            }
            if number == PARTS_MAX {
                return Err(too_long(source.key, bytes));
            }
            let gather = async {
                let memory = self.inner.slots.hold(number + 1).await;
                source.next(memory).await
            };
            // The part goes out while the next is gathered, and its memory is free as soon as it is out: a task that
            // waits for memory holds none that it does not need.
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
    }
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
