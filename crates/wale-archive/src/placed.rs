//! Where in the log a base backup lies, as its record says: from which segment on, up to which position, in segments of
//! which size.

use std::collections::BTreeSet;

use wale_format::{BackupName, Sentinel};
use wale_pg::{ArchiveFileName, Lsn, TimelineId, WalSegmentSize};

use crate::error::{Kind, Result};
use crate::lineage::{EndPosition, Leg, Lineage, own_leg};
use crate::{Archive, BackupEntry};

impl Archive {
    /// Position at which the backup is consistent; the beginning of its first segment where nobody recorded more. `None`
    /// where even that is not known.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn consistent_at(
        &self,
        name: &BackupName,
        sentinel: &Sentinel,
    ) -> Result<Option<Lsn>> {
        if let Some(lsn) = sentinel.stop_lsn() {
            return Ok(Some(lsn));
        }
        if is_offline(name, sentinel) {
            return Ok(sentinel.start_lsn());
        }
        let size = self.segment_size_of(name, sentinel).await?;
        let first = || name.segment().start_lsn(size).ok();
        Ok(stop_by_segment(sentinel, size)
            .or(sentinel.start_lsn())
            .or_else(first))
    }

    /// The WAL that makes the backup consistent, all of which the archive must have. `None` where the backup holds it itself,
    /// or where that is not known.
    ///
    /// # Errors
    /// The store's failures; [`Kind::CorruptData`] when the backup's record lies outside the log.
    pub async fn own_wal(&self, name: &BackupName, sentinel: &Sentinel) -> Result<Option<Leg>> {
        let record = sentinel.wale.as_ref();
        if record.is_some_and(|record| record.holds_its_wal) || is_offline(name, sentinel) {
            return Ok(None);
        }
        let Some(consistent_at) = self.consistent_at(name, sentinel).await? else {
            return Ok(None);
        };
        let size = self.segment_size_of(name, sentinel).await?;
        own_leg(name.segment(), consistent_at, size).map(Some)
    }

    /// The cluster's WAL segment size; PostgreSQL's default where nobody recorded it.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn segment_size_of(
        &self,
        name: &BackupName,
        sentinel: &Sentinel,
    ) -> Result<WalSegmentSize> {
        let recorded = if let Some(wale) = &sentinel.wale {
            Some(wale.wal_segment_size)
        } else if let Some(identity) = self.identity().await? {
            Some(identity.cluster.wal_segment_size.bytes())
        } else {
            self.size_by_first_segment(name).await?
        };
        let size = recorded.and_then(|bytes| WalSegmentSize::new(bytes).ok());
        Ok(size.unwrap_or(WalSegmentSize::DEFAULT))
    }

    /// The size of a WAL segment, read from the segment in which the backup starts. `None` where that one is not there
    /// or cannot be read. Only an archive that wale has never written to has no better record.
    async fn size_by_first_segment(&self, name: &BackupName) -> Result<Option<u64>> {
        let first = ArchiveFileName::Segment(name.segment());
        let Some(stored) = self.find_wal(&first).await? else {
            return Ok(None);
        };
        match self.read_wal_header(&stored).await {
            Ok(header) => Ok(Some(u64::from(header.segment_size))),
            Err(error) if matches!(error.kind, Kind::CorruptData | Kind::Configuration) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where each of the backups ends, in their order. `None` where not even the timeline is known.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn endings(&self, backups: &[BackupEntry]) -> Result<Vec<Option<EndPosition>>> {
        // A cluster that recorded none has one size, whichever backup shows it.
        let mut size = None;
        let mut endings = Vec::with_capacity(backups.len());
        for entry in backups {
            endings.push(self.ending(entry, &mut size).await?);
        }
        Ok(endings)
    }

    /// The timelines around these backups, and where each backup ends.
    ///
    /// # Errors
    /// The store's failures.
    pub(crate) async fn lineage_of(
        &self,
        backups: &[BackupEntry],
    ) -> Result<(Lineage, Vec<Option<EndPosition>>)> {
        let endings = self.endings(backups).await?;
        let timelines: BTreeSet<TimelineId> = endings
            .iter()
            .flatten()
            .map(|ending| ending.timeline)
            .collect();
        let histories = self.histories_around(&timelines).await?;
        Ok((Lineage::new(histories, timelines), endings))
    }

    async fn ending(
        &self,
        entry: &BackupEntry,
        size: &mut Option<WalSegmentSize>,
    ) -> Result<Option<EndPosition>> {
        let Some(sentinel) = entry.readable() else {
            return Ok(None);
        };
        let timeline = entry.name.segment().timeline();
        if is_offline(&entry.name, sentinel) {
            // WAL-E writes the timeline of a stopped server in decimal: up to 9 the digits are the same.
            let at = None;
            return Ok((timeline.get() < 10).then_some(EndPosition { timeline, at }));
        }
        if let Some(at) = sentinel.stop_lsn() {
            let at = Some(at);
            return Ok(Some(EndPosition { timeline, at }));
        }
        let known = match *size {
            Some(size) => size,
            None => *size.insert(self.segment_size_of(&entry.name, sentinel).await?),
        };
        let first = || entry.name.segment().start_lsn(known).ok();
        let at = stop_by_segment(sentinel, known)
            .or(sentinel.start_lsn())
            .or_else(first);
        Ok(Some(EndPosition { timeline, at }))
    }
}

/// The stop position as WAL-E records it: the segment that holds it and the offset there. On a boundary that is the
/// segment before, with offset 0 (`pg_walfile_name_offset`).
fn stop_by_segment(sentinel: &Sentinel, size: WalSegmentSize) -> Option<Lsn> {
    let offset: u64 = sentinel
        .wal_segment_offset_backup_stop
        .as_deref()?
        .parse()
        .ok()?;
    let begins = sentinel.stop_segment()?.start_lsn(size).ok()?.as_u64();
    let offset = if offset == 0 { size.bytes() } else { offset };
    (offset <= size.bytes()).then(|| Lsn::new(begins.saturating_add(offset)))
}

/// WAL-E's backup of a stopped server: it records the start also as the end, and both wrongly, because it reads the wrong
/// digits of the position. So nothing may be concluded from its name.
pub fn is_offline(name: &BackupName, sentinel: &Sentinel) -> bool {
    sentinel.wale.is_none()
        && sentinel.stop_segment() == Some(name.segment())
        && sentinel.wal_segment_offset_backup_stop.as_deref() == name.offset()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_of_a_stopped_server_is_known_by_its_end() {
        let name = BackupName::parse("base_000000010000000000000015_00000015").unwrap();
        let sentinel = |segment: &str, offset: &str| {
            let text = format!(
                r#"{{"wal_segment_backup_stop": "{segment}", "wal_segment_offset_backup_stop": "{offset}"}}"#
            );
            Sentinel::parse(text.as_bytes()).unwrap()
        };
        let cases = [
            ("000000010000000000000015", "00000015", true),
            ("000000010000000000000015", "00000256", false),
            ("000000010000000000000016", "00000015", false),
        ];
        for (segment, offset, expected) in cases {
            assert_eq!(
                is_offline(&name, &sentinel(segment, offset)),
                expected,
                "{segment} {offset}"
            );
        }
        assert!(!is_offline(&name, &Sentinel::default()));
    }

    #[test]
    fn wal_es_stop_is_a_segment_and_an_offset() {
        let size = WalSegmentSize::DEFAULT;
        for (offset, expected) in [
            ("00000256", Some("0/3000100")),
            ("00000000", Some("0/4000000")),
            ("99999999", None),
            ("x", None),
        ] {
            let text = format!(
                r#"{{"wal_segment_backup_stop": "000000010000000000000003", "wal_segment_offset_backup_stop": "{offset}"}}"#
            );
            let sentinel = Sentinel::parse(text.as_bytes()).unwrap();
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(stop_by_segment(&sentinel, size), expected, "{offset}");
        }
    }
}
