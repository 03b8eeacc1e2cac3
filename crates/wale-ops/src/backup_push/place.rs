//! The folder of one backup in the archive: taking its name, what is in it, and clearing it when nobody owns it.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use wale_archive::Archive;
use wale_archive::claim::{Claim, Purpose, Taken, store_now};
use wale_format::BackupName;
use wale_format::layout::{self, ArchiveKey};
use wale_storage::ObjectMeta;

use super::plan::{self, Occupancy, Vacancy};
use crate::error::{Kind, OpError, Result};

/// Takes the name: the claim on it is ours afterwards, and nothing else is in the folder.
///
/// # Errors
///
/// [`Kind::ArchiveConflict`] when such a backup exists; [`Kind::Busy`] when another one is being written; the store's.
pub(super) async fn occupy(archive: &Archive, name: &BackupName) -> Result<Claim> {
    if has_sentinel(archive, name).await? {
        return Err(plan::exists_already(name));
    }
    let (claim, from_the_dead) =
        match Claim::take(archive, &layout::attempt(name), Purpose::Write).await? {
            Taken::Ours {
                claim,
                from_the_dead,
            } => (claim, from_the_dead),
            Taken::Theirs(holder) => return Err(plan::written_elsewhere(name, &holder)),
        };
    let place = look(archive, name, from_the_dead).await;
    let cleared = match place {
        Ok(Vacancy::Free) => return Ok(claim),
        Ok(Vacancy::Leftover) => {
            tracing::info!(backup = %name, "removing what an unfinished backup of the same name left");
            clear(archive, name, &claim).await
        }
        Err(error) => {
            claim.release().await;
            return Err(error);
        }
    };
    // The claim is not given back when this fails: the remains belong to a claim that dies, and the next one finds
    // them.
    cleared.map(|()| claim)
}

/// Whether the holder of the claim on the name may use it.
async fn look(archive: &Archive, name: &BackupName, from_the_dead: bool) -> Result<Vacancy> {
    let sentinel = has_sentinel(archive, name).await?;
    let mut objects = objects(archive, name).await?;
    objects.retain(|key, _| !is_claim(key));
    let newest_object = objects.values().map(|meta| meta.modified).max();
    let deletion = objects
        .keys()
        .any(|key| matches!(layout::parse(key), ArchiveKey::Deletion(_)));
    let now = match newest_object {
        Some(_) if !from_the_dead => store_now(archive).await?,
        _ => archive.clock().now(),
    };
    let occupancy = Occupancy {
        sentinel,
        newest_object,
        deletion,
        from_the_dead,
    };
    plan::judge_vacancy(name, &occupancy, now)
}

async fn has_sentinel(archive: &Archive, name: &BackupName) -> Result<bool> {
    let sentinel = Archive::key(&layout::sentinel(name))?;
    let head = archive.store().head(&sentinel).await;
    head.map(|found| found.is_some())
        .map_err(|error| OpError::from_store(error, format_args!("look for {sentinel}")))
}

fn is_claim(key: &str) -> bool {
    matches!(layout::parse(key), ArchiveKey::Attempt(_))
}

/// Every object in the folder of the backup, by its key. The sentinel is not in it: it lies beside.
pub(crate) async fn objects(
    archive: &Archive,
    name: &BackupName,
) -> Result<BTreeMap<String, ObjectMeta>> {
    let prefix = layout::backup_folder(name);
    let failed = |error| OpError::from_store(error, format_args!("list {prefix}"));
    let listing = archive.store().list(&prefix).await.map_err(failed)?;
    listing
        .map_err(failed)
        .map_ok(|meta| (meta.key.to_string(), meta))
        .try_collect()
        .await
}

/// Removes every object in the folder of a backup that has no sentinel, except the claim, which is checked before each.
async fn clear(archive: &Archive, name: &BackupName, claim: &Claim) -> Result<()> {
    let objects = objects(archive, name).await?;
    for (key, meta) in objects {
        if is_claim(&key) {
            continue;
        }
        claim.check_or_refresh().await?;
        archive
            .store()
            .delete(&meta.key)
            .await
            .map_err(|error| OpError::from_store(error, format_args!("remove {key}")))?;
    }
    // An older version of wale, which knows no claims, may have finished it meanwhile: then the backup is damaged by us.
    // Its quiet time makes this all but impossible; it must not pass silently.
    if has_sentinel(archive, name).await? {
        return Err(OpError::new(
            Kind::ArchiveConflict,
            format!("backup {name} was completed by another writer meanwhile"),
        )
        .hint("delete this backup: its objects were taken for those of an attempt that died"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use chrono::{DateTime, TimeDelta, Utc};
    use wale_format::Codec;

    use super::super::uploads::Uploads;
    use super::*;
    use crate::testing::Bench;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn name() -> BackupName {
        BackupName::parse("base_000000010000000000000002_00000040").expect("a name")
    }

    fn part() -> String {
        layout::partition(&name(), 0, Codec::Zstd)
    }

    fn put(bench: &Bench, key: &str, content: &'static str) {
        let key = Archive::key(key).expect("a key");
        bench.memory.insert(&key, content);
    }

    fn content(bench: &Bench, key: &str) -> Option<Bytes> {
        bench.memory.content(&Archive::key(key).expect("a key"))
    }

    async fn begin(bench: &Bench) -> Result<Uploads> {
        let uploads = Uploads::new(Arc::clone(bench.archive.store()));
        uploads.claimed(occupy(&bench.archive, &name()).await?);
        Ok(uploads)
    }

    #[tokio::test]
    async fn fault_103_an_attempt_that_was_taken_for_dead_removes_nothing_of_the_next_one() {
        let bench = Bench::new();
        bench.memory.set_now(at(0));
        let first = begin(&bench).await.expect("free");
        let stored = |text: &'static str| Bytes::from_static(text.as_bytes());
        first
            .put_bytes(&part(), stored("first"))
            .await
            .expect("stored");
        bench.memory.set_now(at(599));
        let error = begin(&bench).await.expect_err("the first one is alive");
        assert_eq!(error.kind, Kind::Busy);
        assert_eq!(content(&bench, &part()), Some(stored("first")));

        bench.memory.set_now(at(600));
        let second = begin(&bench).await.expect("the first one is dead");
        assert_eq!(content(&bench, &part()), None, "its objects are gone");
        second
            .put_bytes(&part(), stored("second"))
            .await
            .expect("stored");
        first.remove_all().await;
        assert_eq!(content(&bench, &part()), Some(stored("second")));
        first.check_claim().await.expect_err("lost");
        second.check_claim().await.expect("ours");
        second.remove_all().await;
        assert_eq!(bench.memory.keys(), [], "nothing is left, nor the claim");
    }

    #[tokio::test]
    async fn fault_103_objects_without_a_claim_are_somebody_elses() {
        let bench = Bench::new();
        bench.memory.set_now(at(0));
        put(&bench, &part(), "an older wale's");
        bench.memory.set_now(at(24 * 3600 - 1));
        let error = begin(&bench).await.expect_err("its writer may live");
        assert_eq!(error.kind, Kind::Busy);
        assert_eq!(content(&bench, &layout::attempt(&name())), None, "released");
        assert!(content(&bench, &part()).is_some());
        bench.memory.set_now(at(24 * 3600));
        begin(&bench).await.expect("nobody's");
        assert_eq!(content(&bench, &part()), None);
        // What is being deleted goes on being deleted.
        let bench = Bench::new();
        put(&bench, &layout::deletion(&name()), "");
        let error = begin(&bench).await.expect_err("it is being deleted");
        assert_eq!(error.kind, Kind::Busy);
        // What is committed is left alone, without a claim.
        put(&bench, &layout::sentinel(&name()), "{}");
        let error = begin(&bench).await.expect_err("there");
        assert_eq!(error.kind, Kind::ArchiveConflict);
        assert_eq!(content(&bench, &layout::attempt(&name())), None);
    }
}
