//! Objects on their way in.
//!
//! ```text
//!   body ─▶ first part ── ends there ──▶ one request with record and content
//!                 └─ goes on ─▶ a resumable upload: chunk 1 ∥ gathering of chunk 2, …, the last chunk
//! ```
//!
//! The object appears with the last request of either way (`insert`).

use serde_json::Value;

use super::creation::{Precondition, crc32c_text};
use super::insert::{Inserted, Insertion, Way};
use super::options::OBJECT_BYTES_MAX;
use super::session::{Chunk, Session};
use super::state::GcsStore;
use crate::http::marks::random_mark;
use crate::http::part::{Cutter, Part, SumsWanted, Whole};
use crate::http::slots::PartMemory;
use crate::{Body, ObjectKey, StoreError};

/// A body that is being cut.
struct BodySource<'a> {
    key: &'a ObjectKey,
    cutter: Cutter,
}

impl BodySource<'_> {
    /// Gathers the next part.
    async fn next(&mut self, memory: PartMemory) -> Result<Part, StoreError> {
        let part = self.cutter.next(memory).await;
        part.map_err(|source| StoreError::BodyFailed {
            key: self.key.clone(),
            source,
        })
    }

    /// What has gone by.
    fn whole(&self) -> Whole {
        self.cutter.whole().unwrap_or_else(Whole::of_nothing)
    }
}

impl GcsStore {
    /// Stores a body.
    pub(super) async fn upload(
        &self,
        key: &ObjectKey,
        body: Body,
        condition: Precondition,
    ) -> Result<Inserted, StoreError> {
        let mut source = BodySource {
            key,
            cutter: Cutter::new(body, SumsWanted::default()).with_whole(),
        };
        let first = source.next(self.inner.slots.hold(1).await).await?;
        let mark = random_mark();
        if first.is_last {
            return self
                .put_at_once(key, &first, source.whole(), condition, &mark)
                .await;
        }
        self.put_in_chunks(first, source, condition, &mark).await
    }

    async fn put_at_once(
        &self,
        key: &ObjectKey,
        part: &Part,
        whole: Whole,
        condition: Precondition,
        mark: &str,
    ) -> Result<Inserted, StoreError> {
        // The look of before is as old as the body took to come.
        if condition == Precondition::AbsentUnguarded && self.found_at(key).await?.is_some() {
            return Ok(Inserted::Others);
        }
        let mut record = self.new_record(key, mark);
        record["crc32c"] = Value::String(crc32c_text(&whole));
        let request = self.creation_at_once(key, &record, &part.payload, condition);
        let insertion = Insertion {
            key,
            way: Way::AtOnce(request),
            condition,
            mark,
            whole,
        };
        self.insert(&insertion).await
    }

    async fn put_in_chunks(
        &self,
        first: Part,
        mut source: BodySource<'_>,
        condition: Precondition,
        mark: &str,
    ) -> Result<Inserted, StoreError> {
        let key = source.key;
        let condition = match condition {
            Precondition::Absent if !self.session_is_guarded().await? => {
                Precondition::AbsentUnguarded
            }
            other => other,
        };
        let record = self.new_record(key, mark);
        let Some(session) = self.begin(key, &record, condition).await? else {
            return Ok(Inserted::Others);
        };
        let (last, start) = self.put_chunks(&session, first, &mut source).await?;
        let whole = source.whole();
        if condition == Precondition::AbsentUnguarded && self.found_at(key).await?.is_some() {
            return Ok(Inserted::Others);
        }
        let chunk = Chunk {
            start,
            payload: last.payload.clone(),
            end: Some(whole),
        };
        let insertion = Insertion {
            key,
            way: Way::Session(&session, chunk),
            condition,
            mark,
            whole,
        };
        self.insert(&insertion).await
    }

    /// Sends the parts of a body but the last one, which is given, and where it begins. It may be empty, when the body
    /// ended with the one before it.
    async fn put_chunks(
        &self,
        session: &Session,
        first: Part,
        source: &mut BodySource<'_>,
    ) -> Result<(Part, u64), StoreError> {
        let key = source.key;
        let (mut part, mut start, mut number) = (first, 0, 1);
        while !part.is_last {
            let next_start = start + part.payload.len();
            if next_start > OBJECT_BYTES_MAX {
                return Err(too_long(key));
            }
            let gather = async {
                let memory = self.inner.slots.hold(number + 1).await;
                source.next(memory).await
            };
            // The part goes out while the next is gathered, and its memory is free as soon as it is out: a task that
            // waits for memory holds none that it does not need.
            let send = async move {
                let chunk = Chunk {
                    start,
                    payload: part.payload.clone(),
                    end: None,
                };
                let sent = self.put_chunk(key, session, &chunk).await;
                drop(part);
                sent
            };
            let ((), next) = tokio::try_join!(send, gather)?;
            part = next;
            start = next_start;
            number += 1;
        }
        Ok((part, start))
    }
}

fn too_long(key: &ObjectKey) -> StoreError {
    StoreError::Io {
        what: format!("object {key}"),
        source: format!(
            "it is longer than {OBJECT_BYTES_MAX} bytes, the most that Google stores in one"
        )
        .into(),
    }
}
