//! Where a recovery shall end, and which backups end before that.
//!
//! A server that recovers from a backup which ended after its target stops at the first commit after the backup, or at its
//! end, and silently promotes: a later state than was asked for. So such a backup is refused, and `LATEST` is the
//! newest that ends before the target. Only a time and a position can be compared; where a name or a transaction lies
//! stands in the WAL alone, and the user hears that.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use wale_archive::{Archive, BackupEntry, BackupSelector, Catalog, CheckDepth, Chosen, Wanted};
use wale_cluster::recovery;
use wale_format::BackupName;
use wale_pg::{Lsn, RecoveryTargetKind, TimelineId};

use crate::error::{Kind, OpError, Result};

/// Where a recovery shall end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aim {
    /// As PostgreSQL says it.
    pub kind: RecoveryTargetKind,
    /// The timeline that is named by its number.
    pub timeline: Option<TimelineId>,
    /// How much of a backup is checked before `LATEST` means it.
    pub look: CheckDepth,
}

/// What was decided about the backup, for the user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Sentences that say what was decided.
    pub notes: Vec<String>,
    /// Sentences about what the user should check.
    pub warnings: Vec<String>,
}

/// What can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparable {
    Time(DateTime<Utc>),
    Position(Lsn),
}

/// Whether a backup ended before the aim, and when or where it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ends {
    Before(String),
    After(String),
    NotKnown(String),
}

impl Aim {
    /// The aim of added recovery settings, which may be wrong in other places.
    #[must_use]
    pub fn of(recovery_addition: &str) -> Self {
        Self::of_lines(&recovery::read_addition(recovery_addition))
    }

    /// The aim of checked settings.
    pub(super) fn of_lines(lines: &[(String, String)]) -> Self {
        Self {
            kind: target_of(lines),
            timeline: setting(lines, "recovery_target_timeline").and_then(|text| text.parse().ok()),
            look: CheckDepth::Whole,
        }
    }

    fn bound(&self) -> Option<Comparable> {
        match &self.kind {
            RecoveryTargetKind::Time(text) => recovery::instant(text).map(Comparable::Time),
            RecoveryTargetKind::Lsn(lsn) => Some(Comparable::Position(*lsn)),
            _ => None,
        }
    }

    fn shown(&self) -> String {
        match &self.kind {
            RecoveryTargetKind::Time(text) => format!("the target time {text}"),
            RecoveryTargetKind::Lsn(lsn) => format!("the target position {lsn}"),
            RecoveryTargetKind::Xid(xid) => format!("transaction {xid}"),
            RecoveryTargetKind::Name(name) => format!("the restore point \"{name}\""),
            RecoveryTargetKind::Immediate | RecoveryTargetKind::Latest => "the target".to_owned(),
        }
    }

    /// The same for the user. A time can be written so that it is compared; where a name or a transaction lies, nobody can
    /// know here.
    fn told(&self, entry: &BackupEntry) -> Notes {
        let unknown = self.unknown(entry).into_iter().collect();
        let mut told = Notes::default();
        match self.kind {
            RecoveryTargetKind::Time(_) => told.warnings = unknown,
            _ => told.notes = unknown,
        }
        told
    }

    /// What is worth reporting of a backup whose end cannot be compared.
    fn unknown(&self, entry: &BackupEntry) -> Option<String> {
        let (name, ended) = (&entry.name, shown_time(entry.time));
        match &self.kind {
            RecoveryTargetKind::Immediate
            | RecoveryTargetKind::Latest
            | RecoveryTargetKind::Lsn(_) => None,
            RecoveryTargetKind::Time(_) => Some(format!(
                "only the server knows when {} is: if it lies before the end of backup {name} at {ended}, recovery \
                 ends after it; a time in the form 2026-01-31 17:00:00+00 is compared",
                self.shown()
            )),
            RecoveryTargetKind::Xid(_) | RecoveryTargetKind::Name(_) => Some(format!(
                "where {} lies is not known without reading the WAL: if it lies before the end of backup {name} at {ended}, \
                 recovery does not stop there; then name an older backup",
                self.shown()
            )),
        }
    }
}

/// The backup that is meant, with an aim that it can reach.
///
/// # Errors
///
/// As [`Archive::choose`]; [`Kind::Configuration`] when the backup ends after the aim, or every backup does.
pub(super) async fn choose(
    archive: &Archive,
    catalog: &Catalog,
    selector: &BackupSelector,
    aim: &Aim,
) -> Result<(Chosen, Notes)> {
    let Some(bound) = aim.bound() else {
        let chosen = match selector {
            BackupSelector::Latest => latest(archive, catalog, aim, &|_| None).await?,
            BackupSelector::Name(_) => archive.choose(catalog, selector).await?,
        };
        let notes = aim.told(&chosen.entry);
        return Ok((chosen, notes));
    };
    let ends = all_ends(archive, catalog, bound).await?;
    let not_before = |entry: &BackupEntry| match ends.get(&entry.name) {
        Some(Ends::Before(_)) => None,
        Some(Ends::After(end)) => Some(format!("it ends at {end}, after {}", aim.shown())),
        Some(Ends::NotKnown(_)) | None => Some(format!(
            "whether it ends before {} is not recorded",
            aim.shown()
        )),
    };
    if let BackupSelector::Name(_) = selector {
        let chosen = archive.choose(catalog, selector).await?;
        return match ends.get(&chosen.entry.name) {
            Some(Ends::After(end)) => {
                let better = latest(archive, catalog, aim, &not_before).await.ok();
                Err(refusal(
                    aim,
                    &chosen.entry,
                    end,
                    better.map(|better| better.entry.name),
                ))
            }
            Some(Ends::NotKnown(since)) => {
                let notes = warned(aim, &chosen.entry, since);
                Ok((chosen, notes))
            }
            Some(Ends::Before(_)) | None => Ok((chosen, Notes::default())),
        };
    }
    let error = match latest(archive, catalog, aim, &not_before).await {
        Ok(chosen) => return Ok((chosen, Notes::default())),
        Err(error) => error,
    };
    // None is known to end before the aim; perhaps one does.
    let after = |entry: &BackupEntry| match ends.get(&entry.name) {
        Some(Ends::After(_)) => not_before(entry),
        _ => None,
    };
    if let Ok(chosen) = latest(archive, catalog, aim, &after).await {
        let notes = match ends.get(&chosen.entry.name) {
            Some(Ends::NotKnown(since)) => warned(aim, &chosen.entry, since),
            _ => Notes::default(),
        };
        return Ok((chosen, notes));
    }
    // Without the aim, is there one? Then the aim is what is wrong.
    match latest(archive, catalog, aim, &|_| None).await {
        Ok(_) => Err(none_before(aim, catalog, &ends)),
        Err(_) => Err(error),
    }
}

async fn latest(
    archive: &Archive,
    catalog: &Catalog,
    aim: &Aim,
    unfit: &(dyn Fn(&BackupEntry) -> Option<String> + Sync),
) -> Result<Chosen> {
    let wanted = Wanted {
        timeline: aim.timeline,
        unfit,
        look: aim.look,
    };
    archive.latest(catalog, &wanted).await
}

async fn all_ends(
    archive: &Archive,
    catalog: &Catalog,
    bound: Comparable,
) -> Result<BTreeMap<BackupName, Ends>> {
    let positions = match bound {
        Comparable::Position(_) => archive.endings(&catalog.backups).await?,
        Comparable::Time(_) => vec![None; catalog.backups.len()],
    };
    let mut all = BTreeMap::new();
    for (entry, ending) in catalog.backups.iter().zip(positions) {
        let position = ending.and_then(|ending| ending.at);
        all.insert(entry.name.clone(), ends(entry, position, bound));
    }
    Ok(all)
}

fn ends(entry: &BackupEntry, position: Option<Lsn>, bound: Comparable) -> Ends {
    let time = shown_time(entry.time);
    match bound {
        Comparable::Time(target) if entry.time <= target => Ends::Before(time),
        Comparable::Time(_) if entry.recorded => Ends::After(time),
        // The record was stored after the backup's end: this is an upper bound and no more.
        Comparable::Time(_) => Ends::NotKnown(format!("the store has had its record since {time}")),
        Comparable::Position(target) => match position {
            Some(end) if end <= target => Ends::Before(end.to_string()),
            Some(end) => Ends::After(end.to_string()),
            None => Ends::NotKnown("its record has no position".to_owned()),
        },
    }
}

fn shown_time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn warned(aim: &Aim, entry: &BackupEntry, since: &str) -> Notes {
    let warning = format!(
        "where backup {} ended is not recorded ({since}): if {} lies before its end, recovery ends after the target",
        entry.name,
        aim.shown()
    );
    Notes {
        warnings: vec![warning],
        ..Notes::default()
    }
}

fn refusal(aim: &Aim, entry: &BackupEntry, end: &str, better: Option<BackupName>) -> OpError {
    let error = OpError::new(
        Kind::Configuration,
        format!("backup {} ends after {}", entry.name, aim.shown()),
    )
    .detail(format!(
        "It ended at {end}; a recovery from it would go beyond the target."
    ));
    match better {
        Some(better) => error.hint(format!(
            "restore {better}, the newest backup that ends before the target, or LATEST, which means that one with this target"
        )),
        None => error.hint("no other backup is known to end before the target: choose a later target"),
    }
}

fn none_before(aim: &Aim, catalog: &Catalog, ends: &BTreeMap<BackupName, Ends>) -> OpError {
    let error = OpError::new(
        Kind::Configuration,
        format!(
            "no base backup that leads there ends before {}",
            aim.shown()
        ),
    )
    .hint("choose a later target");
    let oldest = catalog
        .backups
        .first()
        .and_then(|entry| Some((entry, ends.get(&entry.name)?)));
    match oldest {
        Some((entry, Ends::Before(end) | Ends::After(end))) => error.detail(format!(
            "The oldest backup of the archive, {}, ended at {end}.",
            entry.name
        )),
        _ => error,
    }
}

/// The value of a setting, if it has one that is not empty.
pub(super) fn setting<'a>(lines: &'a [(String, String)], name: &str) -> Option<&'a str> {
    lines
        .iter()
        .rev()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
        .filter(|value| !value.is_empty())
}

fn target_of(lines: &[(String, String)]) -> RecoveryTargetKind {
    if let Some(time) = setting(lines, "recovery_target_time") {
        return RecoveryTargetKind::Time(time.to_owned());
    }
    if let Some(lsn) = setting(lines, "recovery_target_lsn").and_then(|text| text.parse().ok()) {
        return RecoveryTargetKind::Lsn(lsn);
    }
    if let Some(xid) = setting(lines, "recovery_target_xid").and_then(|text| text.parse().ok()) {
        return RecoveryTargetKind::Xid(xid);
    }
    if let Some(name) = setting(lines, "recovery_target_name") {
        return RecoveryTargetKind::Name(name.to_owned());
    }
    match setting(lines, "recovery_target") {
        Some(_) => RecoveryTargetKind::Immediate,
        None => RecoveryTargetKind::Latest,
    }
}

#[cfg(test)]
mod tests {
    use wale_format::{Codec, layout};

    use super::*;
    use crate::testing::Bench;

    const FIRST: &str = "base_000000010000000000000002_00000040";
    const SECOND: &str = "base_000000010000000000000006_00000040";
    const ABANDONED: &str = "base_000000010000000000000008_00000040";

    /// Backups that end on the 1st, 2nd and 3rd of March at noon, in segments of 1 MiB; the last behind a fork. `Recorded`
    /// is what WAL-G writes, the other what WAL-E does.
    async fn bench(is_recorded: bool) -> Bench {
        let bench = Bench::new();
        bench.claim().await;
        for (day, name) in (1..).zip([FIRST, SECOND, ABANDONED]) {
            let name = BackupName::parse(name).unwrap();
            let time = if is_recorded {
                format!(r#", "FinishTime": "2026-03-0{day}T12:00:00Z""#)
            } else {
                String::new()
            };
            let sentinel = format!(
                r#"{{"wal_segment_backup_stop": "{}", "wal_segment_offset_backup_stop": "00000256"{time}}}"#,
                name.segment()
            );
            let key = Archive::key(&layout::sentinel(&name)).unwrap();
            bench.memory.insert(&key, sentinel.into_bytes());
        }
        bench.store_wal("00000002.history", Codec::Zstd, b"1\t0/700100\tx\n");
        bench
    }

    async fn chosen(bench: &Bench, selector: &str, addition: &str) -> Result<(String, Notes)> {
        let catalog = bench.archive.catalog().await?;
        let selector: BackupSelector = selector.parse().unwrap();
        let aim = Aim {
            look: CheckDepth::Record,
            ..Aim::of(addition)
        };
        let (chosen, mut notes) = choose(&bench.archive, &catalog, &selector, &aim).await?;
        notes.warnings.extend(chosen.passed_over);
        Ok((chosen.entry.name.to_string(), notes))
    }

    fn time(text: &str) -> String {
        format!("recovery_target_time = '{text}'\nrecovery_target_action = 'promote'")
    }

    #[tokio::test]
    async fn fault_76_a_backup_that_ends_after_the_target_is_refused_and_latest_is_the_one_before()
    {
        let bench = bench(true).await;
        let cases = [
            (time("2026-03-02 12:00:00+00"), SECOND),
            (time("2026-03-02 13:59:59 Europe/Berlin"), SECOND),
            (time("2026-03-02 11:59:59Z"), FIRST),
            (time("2026-03-02 12:00:00+02"), FIRST),
            ("recovery_target_lsn = '0/600100'".to_owned(), SECOND),
            ("recovery_target_lsn = '0/6000FF'".to_owned(), FIRST),
            // The abandoned branch, by its timeline.
            (
                "recovery_target_lsn = '0/900000'\nrecovery_target_timeline = '1'".to_owned(),
                ABANDONED,
            ),
        ];
        for (addition, expected) in cases {
            let (found, notes) = chosen(&bench, "LATEST", &addition).await.unwrap();
            assert_eq!(found, expected, "{addition}");
            let says = notes
                .warnings
                .iter()
                .any(|text| text.contains("after the target"));
            assert_eq!(says, expected == FIRST, "{notes:?}");
            assert!(
                chosen(&bench, expected, &addition).await.is_ok(),
                "{addition}"
            );
        }
        for addition in [
            time("2026-03-02 11:59:59Z"),
            "recovery_target_lsn = '0/500000'".to_owned(),
        ] {
            let error = chosen(&bench, SECOND, &addition).await.unwrap_err();
            assert_eq!(error.kind, Kind::Configuration);
            assert!(error.message.contains(SECOND), "{error:?}");
            assert!(error.hint.unwrap().contains(FIRST));
        }
        for addition in [
            time("2026-02-28 12:00:00Z"),
            "recovery_target_lsn = '0/100'".to_owned(),
        ] {
            let error = chosen(&bench, "LATEST", &addition).await.unwrap_err();
            assert_eq!(error.kind, Kind::Configuration, "{error:?}");
            assert!(error.detail.unwrap().contains(FIRST));
        }
    }

    #[tokio::test]
    async fn fault_76_what_is_not_known_is_said() {
        let bench = bench(true).await;
        for addition in [
            "recovery_target_name = 'x'",
            "recovery_target_xid = '7'",
            "recovery_target_time = '2026-03-01 11:00 UTC+2'",
        ] {
            for selector in ["LATEST", SECOND] {
                let (found, notes) = chosen(&bench, selector, addition).await.unwrap();
                let is_told = |told: &[String]| {
                    let said = |told: &String| told.contains("recovery");
                    told.iter().filter(|told| said(told)).count()
                };
                assert_eq!(found, SECOND, "{addition}");
                let is_time = addition.contains("_time");
                assert_eq!(is_told(&notes.warnings) > 0, is_time, "{notes:?}");
                assert_eq!(is_told(&notes.notes) > 0, !is_time, "{notes:?}");
            }
        }
        for addition in ["", "recovery_target = 'immediate'"] {
            let (_, notes) = chosen(&bench, SECOND, addition).await.unwrap();
            assert_eq!(notes, Notes::default(), "{addition}");
        }
        // WAL-E records no time: the store's, which here is later than the target, is an upper bound.
        let bench = self::bench(false).await;
        let (_, notes) = chosen(&bench, "LATEST", &time("2001-01-01 00:00:00Z"))
            .await
            .unwrap();
        assert!(notes.warnings[0].contains("is not recorded"), "{notes:?}");
    }
}
