//! All WAL of the copy, in the order of the listing: each timeline from its beginning, as it was archived.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wale_archive::Archive;
use wale_format::layout::{self, ArchiveKey};
use wale_pg::{ArchiveFileName, TimelineId, WalSegmentName};
use wale_storage::{ObjectKey, ObjectMeta};

use super::options::CopyMode;
use super::pairs::{Group, Pairs};
use super::plan::{WalChoice, rivals};
use super::report::{CopyReport, Trouble};
use super::transfer::{Brought, Route, Sum256};
use super::workers::Workers;
use crate::error::{Kind, OpError, Result};

/// Bytes of plain WAL that are read at a time to be compared. 64 KiB.
const READ_BYTES: usize = 64 << 10;

/// Files that are remembered one by one because the copy lacks them; beyond, everything counts as lacking. 40 bytes each.
const LACKING_MAX: usize = 100_000;

/// What the copy lacks of the WAL that the source had in its listing.
#[derive(Debug, Default)]
pub(super) struct Lacking {
    files: Vec<(ArchiveFileName, Kind)>,
}

impl Lacking {
    /// A file that the copy lacks and for which this holds, and what kind of trouble it is.
    pub(super) fn find(
        &self,
        may_read: impl Fn(&ArchiveFileName) -> bool,
    ) -> Option<(ArchiveFileName, Kind)> {
        self.files.iter().find(|(name, _)| may_read(name)).copied()
    }

    fn add(&mut self, name: ArchiveFileName, kind: Kind) -> Result<()> {
        if self.files.len() == LACKING_MAX {
            let message = format!("more than {LACKING_MAX} WAL files could not be copied");
            return Err(OpError::new(Kind::StorageUnavailable, message).hint(
                "find out who changes or deletes the WAL of either archive, and run the copy again",
            ));
        }
        self.files.push((name, kind));
        Ok(())
    }
}

/// Copies the WAL that is chosen, or only counts it.
///
/// # Errors
/// The stores' failures.
pub(super) async fn copy(
    route: &Arc<Route>,
    choice: &WalChoice,
    act: CopyMode,
    workers: usize,
    report: &mut CopyReport,
) -> Result<Lacking> {
    let mut walk = Walk {
        route,
        choice,
        act,
        workers,
        lacking: Lacking::default(),
        last: BTreeMap::new(),
    };
    walk.along(layout::WAL_PREFIX, Pass::All, report).await?;
    if act == CopyMode::Copy {
        walk.along(layout::WAL_PREFIX, Pass::Holes, report).await?;
    }
    Ok(walk.lacking)
}

/// Copies the objects of one file, under whatever codecs the source has it.
///
/// # Errors
/// The stores' failures.
pub(super) async fn copy_file(
    route: &Arc<Route>,
    choice: &WalChoice,
    name: &ArchiveFileName,
    report: &mut CopyReport,
) -> Result<()> {
    let mut walk = Walk {
        route,
        choice,
        act: CopyMode::Copy,
        workers: 1,
        lacking: Lacking::default(),
        last: BTreeMap::new(),
    };
    let prefix = format!("{}{name}", layout::WAL_PREFIX);
    walk.along(&prefix, Pass::All, report).await
}

/// What a walk along the listings takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Everything.
    All,
    /// What the destination lacks before the last segment of the first walk. A listing is no picture of one moment: of two
    /// segments that were stored while it was read it may have the second alone.
    Holes,
}

struct Walk<'a> {
    route: &'a Arc<Route>,
    choice: &'a WalChoice,
    act: CopyMode,
    workers: usize,
    lacking: Lacking,
    /// The last segment that was seen of each timeline.
    last: BTreeMap<TimelineId, WalSegmentName>,
}

impl Walk<'_> {
    async fn along(&mut self, prefix: &str, pass: Pass, report: &mut CopyReport) -> Result<()> {
        let route = self.route;
        let mut pairs = Pairs::open(&route.source, &route.copy, prefix).await?;
        let mut workers = Workers::new(self.workers);
        while let Some(group) = pairs.next().await? {
            for object in &group.source {
                let there = group.there(object);
                let key = object.key.as_str();
                if !self.choice.takes_stored(key, object.modified)
                    || !self.is_due(object, there, pass)
                {
                    continue;
                }
                if let Some(task) = self.task(&group, object, there, report)
                    && let Some(ended) = workers.begin(task).await?
                {
                    note(ended, report, &mut self.lacking)?;
                }
            }
        }
        while let Some(ended) = workers.end().await? {
            note(ended, report, &mut self.lacking)?;
        }
        Ok(())
    }

    fn is_due(&mut self, object: &ObjectMeta, there: Option<u64>, pass: Pass) -> bool {
        let segment = match layout::wal_claim(object.key.as_str()) {
            Some(ArchiveFileName::Segment(segment)) => Some(segment),
            _ => None,
        };
        match (pass, segment) {
            (Pass::All, Some(segment)) => {
                // The listing goes upwards.
                self.last.insert(segment.timeline(), segment);
                true
            }
            (Pass::All, None) => true,
            (Pass::Holes, None) => false,
            (Pass::Holes, Some(segment)) => {
                let last = self.last.get(&segment.timeline());
                let is_known = |name: &ArchiveFileName| *name == ArchiveFileName::Segment(segment);
                there.is_none()
                    && last.is_some_and(|last| segment <= *last)
                    && self.lacking.find(is_known).is_none()
            }
        }
    }

    /// The work for an object; none where it is only counted.
    fn task(
        &self,
        group: &Group,
        object: &ObjectMeta,
        there: Option<u64>,
        report: &mut CopyReport,
    ) -> Option<impl Future<Output = Result<(ObjectMeta, Brought)>> + Send + use<>> {
        let rivals = match there {
            None => rivals_in(group, object),
            Some(_) => Vec::new(),
        };
        if self.act == CopyMode::Show {
            report.wal.add(object.size);
            let is_there = there.is_some() || !rivals.is_empty();
            let sum = if is_there {
                &mut report.there
            } else {
                &mut report.copied
            };
            sum.add(object.size);
            return None;
        }
        let (route, object) = (Arc::clone(self.route), object.clone());
        Some(async move {
            let brought = if rivals.is_empty() {
                route.bring(&object, there).await?
            } else {
                beside(&route, &object, &rivals).await?
            };
            Ok((object, brought))
        })
    }
}

pub(super) fn rivals_in(group: &Group, object: &ObjectMeta) -> Vec<String> {
    let keys = |metas: &[ObjectMeta]| -> BTreeSet<String> {
        metas.iter().map(|meta| meta.key.to_string()).collect()
    };
    let (ours, theirs) = (keys(&group.source), keys(&group.copy));
    let ours = ours.iter().map(String::as_str).collect();
    let theirs = theirs.iter().map(String::as_str).collect();
    rivals(object.key.as_str(), &ours, &theirs)
}

fn note(
    (object, brought): (ObjectMeta, Brought),
    report: &mut CopyReport,
    lacking: &mut Lacking,
) -> Result<()> {
    let lacks = match brought {
        Brought::Copied => {
            report.copied.add(object.size);
            None
        }
        Brought::There | Brought::Marked { .. } => {
            report.there.add(object.size);
            None
        }
        Brought::Vanished => {
            report.vanished += 1;
            Some(Kind::CorruptData)
        }
        Brought::Trouble(kind, why) => {
            let key = object.key.to_string();
            report.trouble(Trouble { key, kind, why });
            Some(kind)
        }
    };
    match (lacks, layout::wal_claim(object.key.as_str())) {
        (Some(kind), Some(name)) => lacking.add(name, kind),
        (Some(_), None) => Ok(()),
        (None, _) => {
            report.wal.add(object.size);
            Ok(())
        }
    }
}

/// A file that the destination has under other codecs, which somebody else has stored. The same content is as good; with
/// another one beside it, no fetch could tell which is right.
async fn beside(route: &Route, object: &ObjectMeta, rivals: &[String]) -> Result<Brought> {
    let mut brought = Brought::There;
    for rival in rivals {
        let key = Archive::key(rival)?;
        let [own, other] = [(&route.source, &object.key), (&route.copy, &key)];
        let (own, other) = match tokio::try_join!(plain_sum(own), plain_sum(other)) {
            Ok(sums) => sums,
            Err(error) if error.kind == Kind::NotFound => continue,
            Err(error) if matches!(error.kind, Kind::CorruptData | Kind::Configuration) => {
                let why = format!(
                    "is at the destination as {rival}, and they cannot be compared: {}",
                    error.chain()
                );
                brought = Brought::Trouble(Kind::ArchiveConflict, why);
                break;
            }
            Err(error) => return Err(error),
        };
        if own != other {
            let why = format!("is at the destination as {rival}, with other content");
            brought = Brought::Trouble(Kind::ArchiveConflict, why);
            break;
        }
    }
    route.progress.add(object.size);
    route.progress.add_files(1);
    Ok(brought)
}

/// The SHA-256 of what an object holds.
async fn plain_sum((archive, key): (&Archive, &ObjectKey)) -> Result<Sum256> {
    let ArchiveKey::Wal { codec, .. } = layout::parse(key.as_str()) else {
        let message = format!("object {key} has an extension that this version does not know");
        return Err(OpError::new(Kind::Configuration, message));
    };
    archive
        .decode(key, codec, |plain| {
            let (mut hasher, mut buffer) = (Sha256::new(), vec![0; READ_BYTES]);
            loop {
                match plain.read(&mut buffer)? {
                    0 => return Ok(hasher.finalize().into()),
                    count => hasher.update(&buffer[..count]),
                }
            }
        })
        .await
}
