//! An archive that follows another one: what it lacks, and each new WAL file as it comes.
//!
//! The whole of what it lacks is brought by [`run`](super::run()) with [`Which::Lacking`](super::Which::Lacking). What is here
//! comes after that: it is quick, and believes that the archive is the right one because a whole run has seen it.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use wale_archive::Archive;
use wale_archive::lineage::Histories;
use wale_format::{ArchiveIdentity, layout};
use wale_pg::ArchiveFileName;
use wale_pipeline::{Progress, Urgency};

use super::options::{CopyMode, Present, WalWish};
use super::pairs::Pairs;
use super::plan::WalChoice;
use super::report::{CopyReport, Trouble};
use super::transfer::Route;
use super::wal::{copy_file, rivals_in};
use super::whose;
use crate::error::{Kind, Result};
use crate::retry::RetryBudget;

/// How long an archive may take to say that it is there, 10 s.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// How far an archive lags behind the one that it follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// WAL segments that it lacks.
    pub segments: u64,
    /// When the oldest WAL file that it lacks was stored, by the clock of the other's store.
    pub oldest: Option<DateTime<Utc>>,
}

/// What `copy` lacks of the WAL of `source` that it wants, by their listings.
///
/// # Errors
/// The stores' failures.
pub async fn lag(source: &Archive, copy: &Archive, wish: &WalWish) -> Result<Lag> {
    let mut lag = Lag::default();
    let mut pairs = Pairs::open(source, copy, layout::WAL_PREFIX).await?;
    while let Some(group) = pairs.next().await? {
        for object in &group.source {
            let Some(name) = layout::wal_claim(object.key.as_str()) else {
                continue;
            };
            let is_there = group.there(object).is_some() || !rivals_in(&group, object).is_empty();
            if is_there || !wish.takes(&name, object.modified) {
                continue;
            }
            lag.segments += u64::from(name.is_segment());
            lag.oldest = Some(
                lag.oldest
                    .map_or(object.modified, |oldest| oldest.min(object.modified)),
            );
        }
    }
    Ok(lag)
}

/// Brings one WAL file that `source` has to `copy`, which a whole run has found to be the right place. Gives what is not as
/// it should be: nothing is overwritten.
///
/// # Errors
/// As [`run`](super::run()).
pub async fn bring(
    source: &Archive,
    copy: &Archive,
    name: &ArchiveFileName,
) -> Result<Vec<Trouble>> {
    let route = Arc::new(Route {
        source: source.clone(),
        copy: copy.clone(),
        progress: Progress::new(),
        present: Present::Compared,
        retry: RetryBudget::ONCE,
        urgency: Urgency::PassesAtOnce,
    });
    if !knows(
        copy.identity().await?.as_ref(),
        source.identity().await?.as_ref(),
    ) {
        whose::settle(&route, CopyMode::Copy).await?;
        copy.read_identity().await?;
    }
    let choice = WalChoice {
        needs: None,
        histories: Histories::default(),
        wish: WalWish::default(),
    };
    let mut report = CopyReport::default();
    copy_file(&route, &choice, name, &mut report).await?;
    let mut troubles = report.troubles;
    // It was acknowledged, and the source has it no more: retention, or a hand. Nothing is left to be copied.
    if troubles.is_empty() && report.wal.objects == 0 && copy.find_wal(name).await?.is_none() {
        troubles.push(Trouble {
            key: format!("{}{name}", layout::WAL_PREFIX),
            kind: Kind::CorruptData,
            why: "is in the first archive no more, and was not copied before: a recovery from here stops at it".to_owned(),
        });
    }
    Ok(troubles)
}

/// Whether the identity of a copy says all that the source's says of how objects are stored.
fn knows(copy: Option<&ArchiveIdentity>, source: Option<&ArchiveIdentity>) -> bool {
    match (copy, source) {
        (Some(copy), Some(source)) => {
            source.codecs.is_subset(&copy.codecs)
                && source.encryption == copy.encryption
                && source.encryptions == copy.encryptions
        }
        (None, Some(_)) => false,
        (_, None) => true,
    }
}

/// Whether an archive's store answers at all.
pub async fn answers(archive: &Archive) -> bool {
    let asked = tokio::time::timeout(ANSWERS_WITHIN, archive.store().check()).await;
    matches!(asked, Ok(Ok(())))
}
