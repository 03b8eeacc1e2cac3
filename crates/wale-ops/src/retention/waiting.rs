//! Since when the retention of an archive waits for one that follows it. The time must outlive this process, or an archive that is
//! gone for good would be waited for anew after each restart, while the first fills up. So a small object says it, by the store's
//! clock.

use chrono::{DateTime, Utc};
use wale_archive::Archive;
use wale_format::layout;
use wale_storage::{ObjectKey, body_from};

use crate::error::{OpError, Result};

/// Since when archive `number` is waited for; begins now where it was not.
///
/// # Errors
/// The store's failures.
pub async fn waits_since(archive: &Archive, number: u8) -> Result<DateTime<Utc>> {
    let key = key(number)?;
    let failed = |error| OpError::from_store(error, format_args!("note {key}"));
    let store = archive.store();
    let body = body_from(b"\n".as_slice().into());
    store.put_if_absent(&key, body).await.map_err(failed)?;
    let found = store.head(&key).await.map_err(failed)?;
    Ok(found.map_or_else(|| archive.clock().now(), |meta| meta.modified))
}

/// It is waited for no more.
///
/// # Errors
/// The store's failures.
pub async fn waits_no_more(archive: &Archive, number: u8) -> Result<()> {
    let key = key(number)?;
    let failed = |error| OpError::from_store(error, format_args!("delete {key}"));
    if archive.store().head(&key).await.map_err(failed)?.is_some() {
        archive.store().delete(&key).await.map_err(failed)?;
    }
    Ok(())
}

fn key(number: u8) -> Result<ObjectKey> {
    Archive::key(&format!("{}{number}", layout::WAITS_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;

    #[tokio::test]
    async fn the_time_stays_until_it_is_waited_for_no_more() {
        let bench = Bench::new();
        let at = |seconds| DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(seconds);
        bench.memory.set_now(at(10));
        assert_eq!(waits_since(&bench.archive, 2).await.unwrap(), at(10));
        bench.memory.set_now(at(20));
        assert_eq!(waits_since(&bench.archive, 2).await.unwrap(), at(10));
        waits_no_more(&bench.archive, 2).await.unwrap();
        waits_no_more(&bench.archive, 2).await.unwrap();
        assert_eq!(waits_since(&bench.archive, 2).await.unwrap(), at(20));
    }
}
