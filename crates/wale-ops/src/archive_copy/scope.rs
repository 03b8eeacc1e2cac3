//! Taking stock of the source: what is to be copied, and how much that is.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt;
use wale_archive::lineage::Histories;
use wale_archive::listing::each_wal;
use wale_archive::{
    Archive, BackupEntry, BackupSelector, Catalog, HistoryBounds, Noted, is_offline,
};
use wale_format::BackupName;
use wale_format::layout::{self, ArchiveKey};
use wale_pg::{ArchiveFileName, WalSegmentSize};

use super::options::{WalWish, Which};
use super::plan::{Need, WalChoice, order, takes_of_backup};
use super::report::Sum;
use crate::error::{Kind, OpError, Result};

/// What is to be copied. 1 KiB for each backup, and its sentinel twice.
#[derive(Debug)]
pub(super) struct Scope {
    /// All backups of the source.
    pub(super) catalog: Catalog,
    /// The backups, parents before their deltas.
    pub(super) backups: Vec<Chosen>,
    /// Which WAL goes along.
    pub(super) wal: WalChoice,
    /// All objects of both, as listed.
    pub(super) total: Sum,
    /// Backups of the source without a sentinel.
    pub(super) unfinished: u64,
    /// Objects under names that no part of an archive has.
    pub(super) strange: u64,
}

/// A backup that is to be copied.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) entry: BackupEntry,
    /// What a restore of it may read.
    pub(super) need: Need,
    /// The backup that it only holds the changes to.
    pub(super) parent: Option<String>,
}

impl Scope {
    /// Takes stock. Backups come first: the WAL of one that is listed was stored before it.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for a backup that is named and not there; the store's failures.
    pub(super) async fn take(source: &Archive, which: &Which) -> Result<Self> {
        let catalog = source.catalog().await?;
        let chosen = chosen(source, &catalog, which).await?;
        let parents = parents(&catalog);
        let all: Vec<BackupName> = names(&catalog);
        let ordered = order(&all, &parents, &chosen).map_err(|name| no_such_backup(&name))?;
        let identity = source.identity().await?;
        let size = identity.map(|identity| identity.cluster.wal_segment_size);
        let mut backups = Vec::with_capacity(ordered.len());
        for name in &ordered {
            if let Some(entry) = catalog.find(name) {
                backups.push(Chosen::new(entry.clone(), size));
            }
        }
        let needs = backups.iter().map(|chosen| chosen.need.clone()).collect();
        let wal = WalChoice {
            needs: matches!(which, Which::These(_)).then_some(needs),
            histories: histories(source).await?,
            wish: match which {
                Which::Lacking(wishes) => wishes.wal.clone(),
                Which::All | Which::These(_) => WalWish::default(),
            },
        };
        let mut scope = Self {
            catalog,
            backups,
            wal,
            total: Sum::default(),
            unfinished: 0,
            strange: 0,
        };
        // Nobody watches an archive that follows, and counting costs two listings each time.
        if !matches!(which, Which::Lacking(_)) {
            scope.count_backups(source, &all).await?;
            scope.count_wal(source).await?;
        }
        Ok(scope)
    }

    async fn count_backups(&mut self, source: &Archive, listed: &[BackupName]) -> Result<()> {
        let prefix = layout::BACKUP_PREFIX;
        let failed = |error| OpError::from_store(error, format_args!("list {prefix}"));
        let wanted: BTreeSet<&BackupName> =
            self.backups.iter().map(|one| &one.entry.name).collect();
        let listed: BTreeSet<&BackupName> = listed.iter().collect();
        let mut unfinished = BTreeSet::new();
        let mut listing = source.store().list(prefix).await.map_err(failed)?;
        while let Some(meta) = listing.try_next().await.map_err(failed)? {
            let key = meta.key.as_str();
            let is_sentinel = matches!(layout::parse(key), ArchiveKey::Sentinel(_));
            match layout::backup_of(key) {
                None => self.strange += 1,
                Some(name) if wanted.contains(&name) => {
                    if is_sentinel || takes_of_backup(key) {
                        self.total.add(meta.size);
                    }
                }
                Some(name) if !listed.contains(&name) && !is_sentinel => {
                    unfinished.insert(name);
                }
                Some(_) => {}
            }
        }
        self.unfinished = unfinished.len() as u64;
        Ok(())
    }

    async fn count_wal(&mut self, source: &Archive) -> Result<()> {
        let prefix = layout::WAL_PREFIX;
        let failed = |error| OpError::from_store(error, format_args!("list {prefix}"));
        let mut listing = source.store().list(prefix).await.map_err(failed)?;
        while let Some(meta) = listing.try_next().await.map_err(failed)? {
            let key = meta.key.as_str();
            if self.wal.takes_stored(key, meta.modified) {
                self.total.add(meta.size);
            } else if layout::wal_claim(key).is_none() {
                self.strange += 1;
            }
        }
        Ok(())
    }
}

impl Chosen {
    fn new(entry: BackupEntry, size: Option<WalSegmentSize>) -> Self {
        let sentinel = entry.readable();
        let recorded = sentinel.and_then(|sentinel| sentinel.wale.as_ref());
        let recorded = recorded.and_then(|wale| WalSegmentSize::new(wale.wal_segment_size).ok());
        let is_known = sentinel.is_none_or(|sentinel| !is_offline(&entry.name, sentinel));
        Self {
            need: Need {
                backup: entry.name.clone(),
                start: is_known.then(|| entry.name.segment()),
                size: recorded.or(size),
            },
            parent: sentinel.and_then(|sentinel| sentinel.delta_from.clone()),
            entry,
        }
    }
}

fn names(catalog: &Catalog) -> Vec<BackupName> {
    let names = catalog.backups.iter().map(|entry| entry.name.clone());
    names.collect()
}

fn parents(catalog: &Catalog) -> BTreeMap<BackupName, BackupName> {
    let parent = |entry: &BackupEntry| {
        let parent = BackupName::parse(entry.readable()?.delta_from.as_deref()?).ok()?;
        Some((entry.name.clone(), parent))
    };
    catalog.backups.iter().filter_map(parent).collect()
}

async fn chosen(source: &Archive, catalog: &Catalog, which: &Which) -> Result<Vec<BackupName>> {
    let selectors = match which {
        Which::All => return Ok(names(catalog)),
        Which::These(selectors) => selectors,
        Which::Lacking(wishes) => {
            // One that was deleted since it was wished for is not missed.
            let is_there = |name: &&BackupName| catalog.find(name).is_some();
            return Ok(wishes.backups.iter().filter(is_there).cloned().collect());
        }
    };
    let mut chosen = Vec::with_capacity(selectors.len());
    for selector in selectors {
        chosen.push(match selector {
            BackupSelector::Name(name) => name.clone(),
            BackupSelector::Latest => source.choose(catalog, selector).await?.entry.name,
        });
    }
    Ok(chosen)
}

fn no_such_backup(name: &BackupName) -> OpError {
    OpError::new(Kind::NotFound, format!("no backup {name} in the archive"))
        .hint("backup-list prints the names of all backups")
}

/// All histories of the archive. One that cannot be read is noted as such: its timeline counts as needed.
async fn histories(archive: &Archive) -> Result<Histories> {
    let mut timelines = BTreeSet::new();
    each_wal(archive, "", |name, _| {
        if let ArchiveFileName::TimelineHistory(timeline) = name {
            timelines.insert(timeline);
        }
        false
    })
    .await?;
    let (mut histories, mut bounds) = (Histories::default(), HistoryBounds::default());
    for timeline in timelines {
        let noted = archive
            .note_history(timeline, &mut histories, &mut bounds)
            .await?;
        if matches!(noted, Noted::Absent) {
            histories.insert_unreadable(timeline);
        }
    }
    Ok(histories)
}
