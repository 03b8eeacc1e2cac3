//! Which backup a name means; above all, which one `LATEST` means, everywhere the same: the newest whole backup that leads
//! to the newest timeline. What is newer and passed over is said.

use std::fmt;
use std::str::FromStr;

use wale_format::BackupName;
use wale_pg::TimelineId;

use crate::condition::CheckDepth;
use crate::error::{Kind, OpError, Result};
use crate::lineage::{EndPosition, Lineage};
use crate::{Archive, BackupEntry, Catalog, SentinelRecord};

/// Backups that are named one by one when they are passed over; the others are only counted.
const TOLD_MAX: usize = 10;

/// Which backup is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupSelector {
    /// The newest whole backup that leads to the newest timeline.
    Latest,
    /// This one.
    Name(BackupName),
}

impl FromStr for BackupSelector {
    type Err = String;

    /// `LATEST` in any case, or a backup's full name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.eq_ignore_ascii_case("latest") {
            return Ok(Self::Latest);
        }
        BackupName::parse(text).map(Self::Name).map_err(|error| {
            format!("\"{text}\" is neither LATEST nor the name of a backup: {error}")
        })
    }
}

impl fmt::Display for BackupSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("LATEST"),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// What is asked of the newest backup.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The timeline that it must lead to; `None` for the newest one.
    pub timeline: Option<TimelineId>,
    /// How much of a backup is checked before it counts as whole.
    pub look: CheckDepth,
    /// Why a backup will not do, in words that follow its name; `None` where it will.
    pub unfit: &'a (dyn Fn(&BackupEntry) -> Option<String> + Sync),
}

impl fmt::Debug for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted")
            .field("timeline", &self.timeline)
            .field("look", &self.look)
            .finish_non_exhaustive()
    }
}

impl Default for Wanted<'_> {
    /// Whatever leads to the newest timeline.
    fn default() -> Self {
        Self {
            timeline: None,
            look: CheckDepth::Whole,
            unfit: &|_| None,
        }
    }
}

/// The backup that is meant.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The backup; its sentinel was read.
    pub entry: BackupEntry,
    /// Sentences for the user about newer backups that were passed over.
    pub passed_over: Vec<String>,
}

impl Archive {
    /// The backup that `selector` means.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`] when there is none; [`Kind::CorruptData`] when its sentinel cannot be read;
    /// also for a delta backup whose parents do not fit; [`Kind::ArchiveMismatch`] when no backup leads to the newest timeline;
    /// the store's.
    pub async fn choose(&self, catalog: &Catalog, selector: &BackupSelector) -> Result<Chosen> {
        let entry = match selector {
            BackupSelector::Latest => return self.latest(catalog, &Wanted::default()).await,
            BackupSelector::Name(name) => catalog
                .find(name)
                .ok_or_else(|| no_such_backup(catalog, name))?,
        };
        check_usable(entry)?;
        self.parents(catalog, entry).await?;
        Ok(Chosen {
            entry: entry.clone(),
            passed_over: Vec::new(),
        })
    }

    /// The newest whole backup that leads to the wanted timeline.
    ///
    /// # Errors
    ///
    /// As [`Archive::choose`].
    pub async fn latest(&self, catalog: &Catalog, wanted: &Wanted<'_>) -> Result<Chosen> {
        let Some(newest) = catalog.backups.last() else {
            return Err(
                OpError::new(Kind::NotFound, "the archive has no base backup")
                    .hint("take one with backup-push, or check the archive's prefix"),
            );
        };
        let family = Family::of(self, catalog).await?;
        let Some(to) = wanted.timeline.or(family.lineage.newest()) else {
            return Err(check_usable(newest)
                .err()
                .unwrap_or_else(|| none_usable(newest)));
        };
        let mut reasons: Vec<Option<String>> = vec![None; catalog.backups.len()];
        let mut leads_somewhere_else = false;
        let mut flawed = None;
        // What leads there for certain comes before what may.
        for certain in [Some(true), None] {
            for (index, entry) in catalog.backups.iter().enumerate().rev() {
                if let Err(error) = check_usable(entry) {
                    reasons[index] = Some(error.chain());
                    continue;
                }
                let ending = family.endings[index];
                let leads = ending.and_then(|ending| family.lineage.leads(ending, to));
                if leads != certain {
                    leads_somewhere_else |= leads == Some(false);
                    reasons[index].get_or_insert_with(|| family.why_not(index, to));
                    continue;
                }
                if let Some(why) = (wanted.unfit)(entry) {
                    reasons[index] = Some(why);
                    continue;
                }
                let looked = self.look_among(catalog, &family.lineage, entry, wanted.look);
                if let Some(flaw) = looked.await?.flaw {
                    flawed.get_or_insert(index);
                    reasons[index] = Some(flaw.words().to_owned());
                    continue;
                }
                return Ok(chosen(catalog, &reasons, index));
            }
        }
        // None is whole. What exactly is wrong with the newest a restore says, before it writes anything.
        if let Some(index) = flawed {
            return Ok(chosen(catalog, &reasons, index));
        }
        let all = told(catalog.backups.iter().zip(&reasons));
        Err(if leads_somewhere_else {
            nothing_leads(to, wanted.timeline, &all)
        } else {
            let error = check_usable(newest).err();
            error.unwrap_or_else(|| none_usable(newest).detail(sentences(&all)))
        })
    }
}

/// The catalog's backups among the timelines.
struct Family {
    lineage: Lineage,
    /// By position in the catalog.
    endings: Vec<Option<EndPosition>>,
}

impl Family {
    async fn of(archive: &Archive, catalog: &Catalog) -> Result<Self> {
        let (lineage, endings) = archive.lineage_of(&catalog.backups).await?;
        Ok(Self { lineage, endings })
    }

    fn why_not(&self, index: usize, to: TimelineId) -> String {
        match self.endings[index] {
            Some(ending) => self.lineage.why_not(ending, to),
            None => "WAL-E took it of a stopped server, and its name does not show its timeline"
                .to_owned(),
        }
    }
}

/// Whether the backup's record can be read at all.
fn check_usable(entry: &BackupEntry) -> Result<()> {
    if let SentinelRecord::Damaged(reason) = &entry.sentinel {
        return Err(OpError::new(
            Kind::CorruptData,
            // It may be damaged, or only somebody else's file: the reason says which.
            format!("the sentinel of backup {} cannot be used", entry.name),
        )
        .detail(format!("{reason}."))
        .hint("repair what the reason names (owner and mode, a disk), or restore another backup"));
    }
    Ok(())
}

fn chosen(catalog: &Catalog, reasons: &[Option<String>], index: usize) -> Chosen {
    let newer = catalog.backups.iter().zip(reasons).skip(index + 1);
    Chosen {
        entry: catalog.backups[index].clone(),
        passed_over: told(newer),
    }
}

/// A sentence for each backup, the newest first.
fn told<'a>(
    backups: impl DoubleEndedIterator<Item = (&'a BackupEntry, &'a Option<String>)>,
) -> Vec<String> {
    let mut sentences: Vec<String> = backups
        .rev()
        .map(|(entry, reason)| {
            let reason = reason.as_deref().unwrap_or("it does not lead there");
            format!("backup {} is passed over: {reason}", entry.name)
        })
        .collect();
    if let Some(more) = sentences
        .len()
        .checked_sub(TOLD_MAX)
        .filter(|&more| more > 0)
    {
        sentences.truncate(TOLD_MAX);
        sentences.push(format!("{more} more backups are passed over"));
    }
    sentences
}

fn sentences(all: &[String]) -> String {
    format!("{}.", all.join("; "))
}

fn none_usable(newest: &BackupEntry) -> OpError {
    OpError::new(
        Kind::NotFound,
        "the archive has no base backup that can be restored",
    )
    .hint(format!("take a new base backup, or check {}", newest.name))
}

fn nothing_leads(to: TimelineId, named: Option<TimelineId>, all: &[String]) -> OpError {
    let which = match named {
        Some(_) => "which recovery_target_timeline names",
        None => "the newest of the archive",
    };
    OpError::new(
        Kind::ArchiveMismatch,
        format!("no base backup that can be restored leads to timeline {to}, {which}"),
    )
    .detail(sentences(all))
    .hint(format!(
        "take a base backup of the server on timeline {to}; to restore a branch that was abandoned, name its backup"
    ))
}

fn no_such_backup(catalog: &Catalog, name: &BackupName) -> OpError {
    let detail = match catalog.backups.last() {
        Some(newest) => format!(
            "It has {} backups, the one that ended last is {}.",
            catalog.backups.len(),
            newest.name
        ),
        None => "It has no backup at all.".to_owned(),
    };
    OpError::new(Kind::NotFound, format!("the archive has no backup {name}"))
        .detail(detail)
        .hint("choose one that backup-list shows, or LATEST")
}

#[cfg(test)]
mod tests {
    use wale_format::{Codec, layout};

    use super::*;
    use crate::testing::Bench;

    /// An archive with these backups (segment, day on which it ended) and these histories.
    async fn bench(backups: &[(&str, u32)], histories: &[(&str, &str)]) -> Bench {
        let bench = Bench::new();
        bench.claim().await;
        for (segment, day) in backups {
            let name = named(segment);
            let sentinel = format!(
                r#"{{"wal_segment_backup_stop": "{segment}", "wal_segment_offset_backup_stop": "00000256",
                    "FinishTime": "2026-03-0{day}T00:00:00Z"}}"#
            );
            let key = Archive::key(&layout::sentinel(&name)).expect("a key");
            bench.memory.insert(&key, sentinel.into_bytes());
        }
        for (name, text) in histories {
            bench.store_wal(name, Codec::Zstd, text.as_bytes());
        }
        bench
    }

    fn named(segment: &str) -> BackupName {
        BackupName::parse(&format!("base_{segment}_00000040")).expect("a name")
    }

    async fn latest(bench: &Bench) -> Result<(String, Vec<String>)> {
        let catalog = bench.archive.catalog().await.expect("read");
        let chosen = bench.archive.latest(&catalog, &RECORD).await?;
        Ok((chosen.entry.name.segment().to_string(), chosen.passed_over))
    }

    /// These archives have records and no partitions.
    const RECORD: Wanted<'_> = Wanted {
        timeline: None,
        look: CheckDepth::Record,
        unfit: &|_| None,
    };

    const OLD: &str = "000000010000000000000002";
    const LEFT: [&str; 2] = ["000000010000000000000006", "000000010000000000000008"];
    const NEW: &str = "000000020000000000000007";

    #[tokio::test]
    async fn fault_105_latest_leads_to_the_newest_timeline_and_says_what_it_passes_over() {
        // 1 MiB a segment: timeline 2 leaves timeline 1 in segment 4.
        let left = ("00000002.history", "1\t0/400100\tx\n");
        let backups = [(OLD, 1), (LEFT[0], 2), (LEFT[1], 3)];
        let (found, passed_over) = latest(&bench(&backups, &[left]).await)
            .await
            .expect("found");
        assert_eq!(found, OLD);
        assert_eq!(passed_over.len(), 2);
        assert!(
            passed_over[0].contains(LEFT[1]) && passed_over[0].contains("abandoned"),
            "{passed_over:?}"
        );
        // A new backup of the new timeline is it, whatever ends on the old one afterwards.
        let backups = [(OLD, 1), (LEFT[0], 2), (NEW, 3), (LEFT[1], 4)];
        let (found, passed_over) = latest(&bench(&backups, &[left]).await)
            .await
            .expect("found");
        assert_eq!((found.as_str(), passed_over.len()), (NEW, 1));
        // Without a fork it is the one that ended last, and nothing is said.
        let (found, passed_over) = latest(&bench(&backups[..2], &[]).await)
            .await
            .expect("found");
        assert_eq!((found.as_str(), passed_over.len()), (LEFT[0], 0));
    }

    #[tokio::test]
    async fn fault_105_what_was_abandoned_is_not_brought_back_by_latest() {
        let left = ("00000002.history", "1\t0/400100\tx\n");
        let bench = bench(&[(LEFT[0], 2)], &[left]).await;
        let error = latest(&bench).await.unwrap_err();
        assert_eq!(error.kind, Kind::ArchiveMismatch);
        assert!(error.message.contains("timeline 2"), "{}", error.message);
        assert!(error.hint.is_some());
        let catalog = bench.archive.catalog().await.expect("read");
        let named = BackupSelector::Name(named(LEFT[0]));
        assert!(bench.archive.choose(&catalog, &named).await.is_ok());
        // A caller that wants the old timeline gets it.
        let wanted = Wanted {
            timeline: TimelineId::new(1),
            ..RECORD
        };
        let chosen = bench
            .archive
            .latest(&catalog, &wanted)
            .await
            .expect("found");
        assert_eq!(chosen.entry.name.segment().to_string(), LEFT[0]);
    }

    #[tokio::test]
    async fn a_history_that_cannot_be_read_hides_nothing() {
        // Only a backup that is on the timeline leads there for certain.
        let strange = ("00000002.history", "what?");
        let backups = [(NEW, 2), (LEFT[1], 3)];
        let (found, passed_over) = latest(&bench(&backups, &[strange]).await)
            .await
            .expect("found");
        assert_eq!((found.as_str(), passed_over.len()), (NEW, 1));
        // Where there is none, what may lead there does.
        let (found, _) = latest(&bench(&[(OLD, 1)], &[strange]).await)
            .await
            .expect("found");
        assert_eq!(found, OLD);
    }

    #[tokio::test]
    async fn what_is_unfit_is_passed_over_and_nothing_is_not_found() {
        let bench = bench(&[(OLD, 1), (LEFT[0], 2)], &[]).await;
        let catalog = bench.archive.catalog().await.expect("read");
        let unfit = |entry: &BackupEntry| {
            (entry.name.segment().to_string() == LEFT[0]).then(|| "it ends too late".to_owned())
        };
        let wanted = Wanted {
            unfit: &unfit,
            ..RECORD
        };
        let chosen = bench
            .archive
            .latest(&catalog, &wanted)
            .await
            .expect("found");
        assert_eq!(chosen.entry.name.segment().to_string(), OLD);
        assert!(chosen.passed_over[0].ends_with("it ends too late"));
        let wanted = Wanted {
            unfit: &|_| Some("it ends too late".to_owned()),
            ..RECORD
        };
        let error = bench.archive.latest(&catalog, &wanted).await.unwrap_err();
        assert_eq!(error.kind, Kind::NotFound);
        assert!(
            error
                .detail
                .is_some_and(|detail| detail.contains("too late"))
        );
        let empty = Catalog::default();
        let error = bench.archive.latest(&empty, &wanted).await.unwrap_err();
        assert_eq!(error.kind, Kind::NotFound);
    }
}
