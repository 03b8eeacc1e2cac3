//! Whether an archive and a data directory belong together, asked before anything is pushed or restored. Reads only.
//!
//! It refuses nothing by itself: every push, fetch and base backup compares what it handles.

use std::path::Path;

use wale_archive::control::read_control;
use wale_archive::{Archive, Beginning};
use wale_cluster::WalDirectory;
use wale_pipeline::blocking;

use crate::error::Result;

/// What is known of the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The archive is this cluster's.
    Own,
    /// One of the two says nothing yet: the archive has no identity, or there is no `pg_control` to be read.
    Open,
    /// The cluster's archive was here, and the place is empty now. The sentence says how that is known, and what to do.
    Lost(String),
}

/// Compares `pg_control` with the archive's identity as it is now. One small request, none without `pg_control`,
/// and a listing where a server that had its archive here finds none.
///
/// # Errors
///
/// [`Kind::ArchiveMismatch`](crate::Kind::ArchiveMismatch) when the archive belongs to another cluster; the store's.
pub async fn check(
    archive: &Archive,
    data_directory: &Path,
    wal_directory: &WalDirectory,
) -> Result<Ownership> {
    let begin = Beginning::UnlessKnown {
        wal: wal_directory.clone(),
        data: Some(data_directory.to_path_buf()),
    };
    let data_directory = data_directory.to_path_buf();
    let Some(cluster) = blocking(move || read_control(&data_directory)).await? else {
        return Ok(Ownership::Open);
    };
    if archive.belongs_to(&cluster).await? {
        return Ok(Ownership::Own);
    }
    let lost = archive.lost_before(&begin).await?;
    Ok(lost.map_or(Ownership::Open, |error| Ownership::Lost(error.chain())))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use wale_archive::former::label;
    use wale_format::layout;
    use wale_pg::ControlFile;
    use wale_storage::{Fault, FaultPlan, Occurrence, Verb};

    use super::*;
    use crate::error::Kind;
    use crate::testing::Bench;

    const CONTROL: &[u8] = include_bytes!("../../wale-pg/testdata/control_file/15");

    #[tokio::test]
    async fn row_39_another_clusters_archive_is_told_before_anything_is_pushed() {
        let bench = Bench::new();
        let data = bench.folder().join("data");
        let look = async || {
            let wal = WalDirectory::at(data.join("pg_wal"));
            let looked = check(&bench.archive, &data, &wal).await;
            looked.map_err(|error| error.kind)
        };
        fs::create_dir_all(data.join("global")).expect("made");
        assert_eq!(look().await, Ok(Ownership::Open), "there is no pg_control");
        fs::write(data.join(ControlFile::PATH), CONTROL).expect("written");
        assert_eq!(look().await, Ok(Ownership::Open), "there is no identity");
        assert!(
            bench.memory.keys().is_empty(),
            "a look must not claim the archive"
        );
        // Its archive was here.
        fs::create_dir_all(data.join("pg_wal")).expect("made");
        let history = data.join("pg_wal/000000010000000000000004.00000028.backup");
        let here = label(
            "wale",
            chrono::DateTime::UNIX_EPOCH,
            &bench.archive.location(),
        );
        fs::write(&history, format!("LABEL: {here}\n")).expect("written");
        let told = look().await;
        assert!(
            matches!(&told, Ok(Ownership::Lost(told)) if told.contains("was there and is gone")),
            "{told:?}"
        );
        assert!(bench.memory.keys().is_empty());
        bench.claim().await;
        assert_eq!(look().await, Err(Kind::ArchiveMismatch));
        // Silence of the store is no mismatch.
        let silence = FaultPlan::new().fail(Verb::Get, Occurrence::Always, Fault::Unavailable);
        bench.faulty.set_plan(silence);
        assert_eq!(look().await, Err(Kind::StorageUnavailable));
        bench.faulty.set_plan(FaultPlan::new());
        // The prefix is put right: what is compared is what the store has now.
        let own = ControlFile::parse(CONTROL).expect("parses").identity();
        let right = Bench::new();
        right
            .archive
            .ensure_identity(&own, &Beginning::Anew)
            .await
            .expect("claimed");
        let key = Archive::key(layout::IDENTITY).expect("a key");
        let identity = right.memory.content(&key).expect("claimed");
        bench.memory.insert(&key, identity);
        assert_eq!(look().await, Ok(Ownership::Own));
    }
}
