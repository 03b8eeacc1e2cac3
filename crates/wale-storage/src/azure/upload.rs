//! Objects on their way in.
//!
//! ```text
//!   body ─▶ first block ── ends there ──▶ Put Blob
//!                 └─ goes on ─▶ Put Block 1 ∥ gathering of block 2, …, Put Block List
//! ```
//!
//! The object appears with the last request of either way (`commit`).

use http::Method;

use super::blocks::BlockIds;
use super::checksum::{BodySums, SummedPart};
use super::client::BlobCall;
use super::commit::{LastRequest, MARK_HEADER, Manner, UploadEnd};
use super::options::BLOCKS_MAX;
use super::state::AzureStore;
use super::xml;
use crate::http::marks::{content_type, random_mark};
use crate::http::part::{Cutter, Whole};
use crate::http::slots::PartMemory;
use crate::{Body, ObjectKey, StoreError};

/// A body that is being cut, with what vouches for its blocks.
struct BlockSource<'a> {
    key: &'a ObjectKey,
    cutter: Cutter,
    vouchers: BodySums,
}

impl BlockSource<'_> {
    /// Gathers the next block.
    async fn next(&mut self, memory: PartMemory) -> Result<SummedPart, StoreError> {
        match self.cutter.next(memory).await {
            Ok(part) => Ok(self.vouchers.of(part)),
            Err(source) => Err(StoreError::BodyFailed {
                key: self.key.clone(),
                source,
            }),
        }
    }
}

impl AzureStore {
    /// Stores a body.
    pub(super) async fn upload(
        &self,
        key: &ObjectKey,
        body: Body,
        condition: Manner,
    ) -> Result<UploadEnd, StoreError> {
        let vouchers = self.vouchers().await?;
        let mut source = BlockSource {
            key,
            cutter: vouchers.cut(body),
            vouchers,
        };
        let first = source.next(self.inner.slots.hold(1).await).await?;
        let mark = random_mark();
        if first.gathered.is_last {
            let whole = source.cutter.whole();
            self.put_at_once(key, first, whole, condition, &mark).await
        } else {
            self.put_in_blocks(first, source, condition, &mark).await
        }
    }

    async fn put_at_once(
        &self,
        key: &ObjectKey,
        part: SummedPart,
        whole: Option<Whole>,
        condition: Manner,
        mark: &str,
    ) -> Result<UploadEnd, StoreError> {
        let mut call = BlobCall::blob(Method::PUT, key)
            .header("x-ms-blob-type", "BlockBlob")
            .header("content-type", content_type(key))
            .header(MARK_HEADER, mark);
        if let Some(sum) = &part.sum {
            call = call.header(sum.header, &sum.value);
        }
        if condition == Manner::Create {
            call = call.header("if-none-match", "*");
        }
        // The look of before is as old as the body took to come.
        if condition == Manner::CreateUnguarded && self.found_at(key).await?.is_some() {
            return Ok(UploadEnd::Others);
        }
        call.payload = part.gathered.payload.clone();
        let commit = LastRequest {
            key,
            call,
            condition,
            mark,
            bytes: part.gathered.payload.len(),
            assembles: false,
            sum: part.sum.clone(),
            whole,
        };
        self.commit(&commit).await
    }

    async fn put_in_blocks(
        &self,
        first: SummedPart,
        mut source: BlockSource<'_>,
        condition: Manner,
        mark: &str,
    ) -> Result<UploadEnd, StoreError> {
        let (inner, key) = (&*self.inner, source.key);
        let condition = match condition {
            Manner::Create if !self.assembly_is_guarded().await? => Manner::CreateUnguarded,
            other => other,
        };
        let (ids, bytes) = self.put_blocks(mark, first, &mut source).await?;
        let list = xml::block_list(ids.iter().map(String::as_str));
        let mut call = BlobCall::blob(Method::PUT, key)
            .query(&[("comp", "blocklist")])
            .header("content-type", "application/xml")
            .header("x-ms-blob-content-type", content_type(key))
            .header(MARK_HEADER, mark)
            .payload(list);
        call.answer_limit = Some(inner.client.timeouts().assembly);
        if condition == Manner::Create {
            call = call.header("if-none-match", "*");
        } else if condition == Manner::CreateUnguarded && self.found_at(key).await?.is_some() {
            return Ok(UploadEnd::Others);
        }
        let commit = LastRequest {
            key,
            call,
            condition,
            mark,
            bytes,
            assembles: true,
            sum: None,
            whole: source.cutter.whole(),
        };
        self.commit(&commit).await
    }

    /// Sends the blocks of a body. Gives their identifiers, and the body's length.
    async fn put_blocks(
        &self,
        mark: &str,
        first: SummedPart,
        source: &mut BlockSource<'_>,
    ) -> Result<(Vec<String>, u64), StoreError> {
        let key = source.key;
        let mut names: Option<BlockIds> = None;
        let (mut ids, mut bytes) = (Vec::new(), 0);
        let (mut block, mut number) = (first, 1);
        loop {
            bytes += block.gathered.payload.len();
            // The last block may be empty, when the body ended with the one before it.
            if block.gathered.payload.len() == 0 {
                return Ok((ids, bytes));
            }
            let is_last = block.gathered.is_last;
            if number == BLOCKS_MAX && !is_last {
                return Err(too_long(key, bytes));
            }
            let gather = async {
                if is_last {
                    return Ok(None);
                }
                let memory = self.inner.slots.hold(number + 1).await;
                source.next(memory).await.map(Some)
            };
            let known = names.take();
            // The block goes out while the next is gathered, and its memory is free as soon as it is out: a task that
            // waits for memory holds none that it does not need.
            let send = async move {
                let names = match known {
                    Some(names) => {
                        self.put_block(key, &names.id(number), &block).await?;
                        names
                    }
                    None => self.put_first_block(key, mark, &block).await?,
                };
                drop(block);
                Ok::<_, StoreError>(names)
            };
            let (known, next) = tokio::try_join!(send, gather)?;
            ids.push(known.id(number));
            names = Some(known);
            let Some(next) = next else {
                return Ok((ids, bytes));
            };
            block = next;
            number += 1;
        }
    }
}

fn too_long(key: &ObjectKey, bytes: u64) -> StoreError {
    StoreError::Io {
        what: format!("object {key}"),
        source: format!(
            "it is longer than {bytes} bytes, the most that {BLOCKS_MAX} blocks hold with the memory that uploads have; \
             give wale more memory"
        )
        .into(),
    }
}
