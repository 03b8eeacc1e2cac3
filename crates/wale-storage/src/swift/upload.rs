//! Objects on their way in.
//!
//! ```text
//!   body ─▶ first part ── ends there ──▶ PUT
//!                 └─ goes on ─▶ segment 1 ∥ gathering of segment 2, …, the list of segments
//! ```
//!
//! A body comes without its length, and one that goes out as it comes could not be sent again when the connection
//! breaks or the token ends: so it goes in pieces that are held in memory. The object appears with the last request of
//! either way (`commit`).

use http::Method;

use super::client::{About, SwiftCall};
use super::commit::{Appearance, Creation, Whose};
use super::leftovers::{Remains, Remnant, note};
use super::names::{MARK_HEADER, is_same};
use super::options::SEGMENTS_MAX;
use super::segments::{self, SegmentRecord};
use super::state::SwiftStore;
use crate::http::failure::{Asked, Failure};
use crate::http::marks::{content_type, random_mark};
use crate::http::part::{Cutter, Part, SumsWanted};
use crate::http::slots::PartMemory;
use crate::http::text::hex;
use crate::retry::Attempts;
use crate::{Body, ObjectKey, StoreError};

/// Segments that are being stored. If it is dropped before its end, they are noted as remains: a drop cannot wait for
/// the store, so the next upload discards them.
#[derive(Debug)]
struct Storing {
    key: ObjectKey,
    mark: String,
    begun: u32,
    remains: Option<Remains>,
}

impl Storing {
    /// From here on nobody but the sweep may discard them: they may be those of an object.
    fn may_be_an_object(&mut self) {
        self.remains = None;
    }
}

impl Drop for Storing {
    fn drop(&mut self) {
        if let Some(remains) = self.remains.take() {
            let what = Remnant::Segments {
                key: self.key.clone(),
                mark: std::mem::take(&mut self.mark),
                begun: self.begun,
            };
            note(&remains, what);
        }
    }
}

/// A body that is being cut.
struct Source<'a> {
    key: &'a ObjectKey,
    cutter: Cutter,
}

impl Source<'_> {
    async fn next(&mut self, memory: PartMemory) -> Result<Part, StoreError> {
        self.cutter
            .next(memory)
            .await
            .map_err(|source| StoreError::BodyFailed {
                key: self.key.clone(),
                source,
            })
    }
}

impl SwiftStore {
    /// Stores a body.
    pub(super) async fn upload(
        &self,
        key: &ObjectKey,
        body: Body,
        creation: Creation,
    ) -> Result<Whose, StoreError> {
        self.discard_remains().await;
        let wanted = SumsWanted {
            md5: true,
            ..SumsWanted::default()
        };
        let mut source = Source {
            key,
            cutter: Cutter::new(body, wanted),
        };
        let first = source.next(self.inner.slots.hold(1).await).await?;
        let mark = random_mark();
        if first.is_last {
            return self.put_whole(key, &first, creation, &mark).await;
        }
        let stored = self.put_in_segments(first, source, creation, &mark).await;
        // A verb may have no next upload. This does not wait once more for a store that does not answer.
        let is_unfinished = match &stored {
            Ok(Whose::Ours(_)) => false,
            Ok(Whose::Others) => true,
            Err(error) => !error.is_transient(),
        };
        if is_unfinished {
            self.discard_remains().await;
        }
        stored
    }

    async fn put_whole(
        &self,
        key: &ObjectKey,
        part: &Part,
        creation: Creation,
        mark: &str,
    ) -> Result<Whose, StoreError> {
        let etag = etag(part);
        let call = self
            .inner
            .client
            .object(Method::PUT, key)
            .header("content-type", content_type(key))
            .header("etag", &etag)
            .header(MARK_HEADER, mark)
            .payload(part.payload.clone());
        let appearance = Appearance {
            key,
            creation,
            mark,
            bytes: part.payload.len(),
            etag,
            is_large: false,
        };
        self.commit(&appearance, call).await
    }

    async fn put_in_segments(
        &self,
        first: Part,
        mut source: Source<'_>,
        creation: Creation,
        mark: &str,
    ) -> Result<Whose, StoreError> {
        let (inner, key) = (&*self.inner, source.key);
        let mut begun = Storing {
            key: key.clone(),
            mark: mark.to_owned(),
            begun: 0,
            remains: Some(inner.remains.clone()),
        };
        let (records, bytes) = self.put_segments(&mut begun, first, &mut source).await?;
        let etag = segments::digest_of(&records);
        let list = segments::list(&records).map_err(|error| {
            let reason = format!("the list of segments cannot be written: {error}");
            StoreError::unavailable(inner.client.location(), reason)
        })?;
        let mut call = inner
            .client
            .object(Method::PUT, key)
            .query(&[("multipart-manifest", "put")])
            .header("content-type", content_type(key))
            .header("etag", &etag)
            .header(MARK_HEADER, mark)
            .payload(bytes::Bytes::from(list));
        // The server looks at every segment before it answers.
        call.answer_limit = Some(inner.client.timeouts().assembly);
        let appearance = Appearance {
            key,
            creation,
            mark,
            bytes,
            etag,
            is_large: true,
        };
        let remains = begun.remains.clone();
        begun.may_be_an_object();
        let whose = self.commit(&appearance, call).await?;
        if matches!(whose, Whose::Others) {
            begun.remains = remains;
        }
        Ok(whose)
    }

    /// Sends the segments of a body. Gives what was stored of them, and the body's length.
    async fn put_segments(
        &self,
        upload: &mut Storing,
        first: Part,
        source: &mut Source<'_>,
    ) -> Result<(Vec<SegmentRecord>, u64), StoreError> {
        let mut records = Vec::new();
        let (mut part, mut bytes, mut number) = (first, 0, 1);
        loop {
            bytes += part.payload.len();
            upload.begun = number;
            let (key, mark) = (upload.key.clone(), upload.mark.clone());
            if part.is_last {
                // The last may be empty, when the body ended with the one before it.
                if part.payload.len() > 0 {
                    records.push(self.put_segment(&key, &mark, number, &part).await?);
                }
                return Ok((records, bytes));
            }
            if number == SEGMENTS_MAX {
                return Err(too_long(&key, bytes));
            }
            let gather = async {
                let memory = self.inner.slots.hold(number + 1).await;
                source.next(memory).await
            };
            // The segment goes out while the next is gathered, and its memory is free as soon as it is out: a task that
            // waits for memory holds none that it does not need.
            let send = async move {
                let record = self.put_segment(&key, &mark, number, &part).await;
                drop(part);
                record
            };
            let (record, next) = tokio::try_join!(send, gather)?;
            records.push(record);
            part = next;
            number += 1;
        }
    }

    /// Sends a segment, again as long as that may help: it is in memory, and sending it twice stores it once.
    async fn put_segment(
        &self,
        key: &ObjectKey,
        mark: &str,
        number: u32,
        part: &Part,
    ) -> Result<SegmentRecord, StoreError> {
        let client = &self.inner.client;
        let etag = etag(part);
        let name = segments::name(client, key, mark, number);
        let call = SwiftCall::new(Method::PUT, About::Named(name.clone()))
            .header("content-type", "application/octet-stream")
            .header("etag", &etag)
            .payload(part.payload.clone());
        let mut attempts = Attempts::from_failure(&self.inner.retry);
        loop {
            let failure = match client.call(&call).await {
                Ok(answer) => match answer.header("etag") {
                    Some(found) if !is_same(found, &etag) => Failure::Garbled,
                    Some(_) => {
                        let bytes = part.payload.len();
                        return Ok(SegmentRecord::new(client.container(), &name, &etag, bytes));
                    }
                    None => Failure::Nonsense("a segment without an ETag".to_owned()),
                },
                Err(failure) => failure,
            };
            let error = self.not_put(key, failure);
            attempts.pause(error).await?;
        }
    }

    /// A write's failure as the room's error. That something is not there can only mean the container.
    pub(super) fn not_put(&self, key: &ObjectKey, failure: Failure) -> StoreError {
        let client = &self.inner.client;
        match failure.refusal() {
            Some(refusal) if refusal.is_absence() => client.error(failure, Asked::Bucket),
            _ => client.error(failure, Asked::Object(key)),
        }
    }
}

/// What the store must answer.
fn etag(part: &Part) -> String {
    part.sums.md5.map(|sum| hex(&sum)).unwrap_or_default()
}

fn too_long(key: &ObjectKey, bytes: u64) -> StoreError {
    StoreError::Io {
        what: format!("object {key}"),
        source: format!(
            "it is longer than {bytes} bytes, the most that {SEGMENTS_MAX} segments hold with the memory that uploads \
             have; give wale more memory"
        )
        .into(),
    }
}
