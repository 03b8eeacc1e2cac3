//! An upload in blocks: the names of the blocks, and how each is sent. The list that makes a blob of them is in `upload`.
//!
//! Blocks of all writers of one name lie in one place until somebody makes a blob of the name; then all others vanish. So
//! an identifier holds the mark of its upload. All identifiers at one name must have one length: where another program has
//! left blocks of another length, ours take that.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Method;

use super::checksum;
use super::client::BlobCall;
use super::state::AzureStore;
use super::xml::BlockPage;
use crate::http::failure::{Asked, Failure};
use crate::http::part::Part;
use crate::retry::Attempts;
use crate::{ObjectKey, StoreError};

/// Length of an identifier before its encoding: four of number and the twelve of a mark.
const ID_BYTES: usize = 16;
/// The least that tells uploads apart: the number, and four bytes of the mark, of which four billion differ.
const ID_BYTES_MIN: usize = 8;
/// The most ("Put Block").
const ID_BYTES_MAX: usize = 64;
/// A list of 100,000 blocks, the most that can wait, with identifiers of 88 characters: 15 MiB.
const BLOCK_LIST_BYTES_MAX: usize = 16 << 20;

/// The names of an upload's blocks.
#[derive(Debug, Clone)]
pub(super) struct BlockIds {
    mark: String,
    bytes: usize,
}

impl BlockIds {
    /// For the upload with this mark.
    pub(super) fn new(mark: &str) -> Self {
        Self {
            mark: mark.to_owned(),
            bytes: ID_BYTES,
        }
    }

    /// The identifier of a block, counted from 1, base64.
    pub(super) fn id(&self, number: u32) -> String {
        let mark = (0..self.mark.len() / 2)
            .filter_map(|at| u8::from_str_radix(self.mark.get(2 * at..2 * at + 2)?, 16).ok());
        let id: Vec<u8> = number
            .to_be_bytes()
            .into_iter()
            .chain(mark)
            .chain(std::iter::repeat(0))
            .take(self.bytes)
            .collect();
        BASE64_STANDARD.encode(id)
    }
}

impl AzureStore {
    /// Sends a block, again as long as that may help: it is in memory, and sending it twice stores it once.
    pub(super) async fn put_block(
        &self,
        key: &ObjectKey,
        id: &str,
        block: &Part,
    ) -> Result<(), StoreError> {
        let mut attempts = Attempts::from_failure(&self.inner.uploads.retry);
        loop {
            match self.put_block_once(key, id, block).await {
                Ok(()) => return Ok(()),
                Err(failure) => {
                    let error = self.inner.client.error(failure, Asked::Object(key));
                    attempts.pause(error).await?;
                }
            }
        }
    }

    async fn put_block_once(&self, key: &ObjectKey, id: &str, block: &Part) -> Result<(), Failure> {
        let sum = checksum::of(self.inner.checksum, &block.sums);
        let call = BlobCall::blob(Method::PUT, key)
            .query(&[("comp", "block"), ("blockid", id)])
            .header("content-type", "application/octet-stream")
            .summed(sum.as_ref())
            .payload(block.payload.clone());
        let answer = self.inner.client.call(&call).await?;
        if sum.is_some_and(|sum| sum.contradicts(&answer)) {
            return Err(Failure::Garbled);
        }
        // Anybody can say that it succeeded; only the store numbers its requests.
        match answer.header("x-ms-request-id") {
            Some(_) => Ok(()),
            None => Err(Failure::Nonsense(
                "a block without a request's number".to_owned(),
            )),
        }
    }

    /// Sends the first block, and gives the names of this and of the others.
    pub(super) async fn put_first_block(
        &self,
        key: &ObjectKey,
        mark: &str,
        block: &Part,
    ) -> Result<BlockIds, StoreError> {
        let client = &self.inner.client;
        let mut ids = BlockIds::new(mark);
        let error = match self.put_block(key, &ids.id(1), block).await {
            Ok(()) => return Ok(ids),
            Err(error) => error,
        };
        let is_of_other_length = error
            .server_reply()
            .is_some_and(|reply| reply.code == "InvalidBlobOrBlock");
        if !is_of_other_length {
            return Err(error);
        }
        let call = BlobCall::blob(Method::GET, key)
            .query(&[("comp", "blocklist"), ("blocklisttype", "uncommitted")]);
        let waiting = client.text::<BlockPage>(&call, BLOCK_LIST_BYTES_MAX).await;
        let waiting = waiting.map_err(|failure| client.error(failure, Asked::Object(key)))?;
        let length = waiting
            .uncommitted_blocks
            .block
            .first()
            .and_then(|block| BASE64_STANDARD.decode(&block.name).ok())
            .map(|id| id.len())
            .filter(|length| {
                (ID_BYTES_MIN..=ID_BYTES_MAX).contains(length) && *length != ids.bytes
            });
        let Some(length) = length else {
            return Err(error);
        };
        tracing::debug!(%key, length, "blocks that another program left decide the length of their names");
        ids.bytes = length;
        self.put_block(key, &ids.id(1), block).await?;
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::marks::random_mark;

    #[test]
    fn identifiers_have_one_length_and_differ() {
        for bytes in [ID_BYTES_MIN, ID_BYTES, ID_BYTES_MAX] {
            let of = |mark: &str| BlockIds {
                mark: mark.to_owned(),
                bytes,
            };
            let (one, other) = (of(&random_mark()), of(&random_mark()));
            let ids = [one.id(1), one.id(50_000), other.id(1)];
            for id in &ids {
                assert_eq!(BASE64_STANDARD.decode(id).expect("base64").len(), bytes);
            }
            assert!(ids[0] != ids[1] && ids[0] != ids[2]);
        }
    }
}
