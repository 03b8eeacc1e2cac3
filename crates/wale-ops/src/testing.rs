//! What the tests of this room share: the archive's bench, and how WAL is pushed and read back.

use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;

pub(crate) use wale_archive::testing::{
    Bench, SEGMENT_BYTES, SYSTEM_IDENTIFIER, archive, cluster, encode, file_name, segment,
    segment_name, segment_of,
};

use crate::OpError;
use crate::retry::RetryBudget;
use crate::wal_fetch::FetchedWal;
use crate::wal_push::PushOptions;

/// One attempt only.
pub(crate) fn once() -> PushOptions {
    PushOptions {
        data_directory: None,
        retry: RetryBudget::ONCE,
    }
}

/// Some attempts, with short pauses.
pub(crate) fn patient() -> PushOptions {
    PushOptions {
        data_directory: None,
        retry: RetryBudget::within(Duration::from_secs(20)),
    }
}

/// All bytes of a fetched file.
pub(crate) async fn content(fetched: FetchedWal) -> Result<Vec<u8>, OpError> {
    let pieces: Vec<Bytes> = fetched.body.try_collect().await?;
    Ok(pieces.concat())
}
