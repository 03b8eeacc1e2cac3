//! What the sentinel says of a backup.

use wale_format::sentinel::{SentinelOrigin, WaleSentinel};
use wale_format::{Codec, Sentinel};

use super::options::BackupOptions;
use super::stored::Stored;
use crate::error::{OpError, Result};

impl Stored {
    /// The sentinel of this backup, whose partitions are compressed with `codec`.
    ///
    /// # Errors
    ///
    /// `Internal`, a bug: it contradicts itself.
    pub(super) fn sentinel(&self, codec: Codec, options: &BackupOptions) -> Result<Sentinel> {
        let running = self.ended.ending.running();
        let data_directory = running
            .and_then(|end| end.server.data_directory.clone())
            .unwrap_or_else(|| options.data_directory.display().to_string());
        let origin = SentinelOrigin {
            server_version_num: self.ended.ready.version_num,
            hostname: options.host_name.clone(),
            data_directory,
            has_file_list: self.has_file_list,
        };
        Sentinel::new(self.record(codec, options), &origin)
            .map_err(|error| OpError::internal("the sentinel contradicts itself").source(error))
    }

    /// Our own record. Of a stopped server it has neither label nor extensions, and says that the WAL is part of the backup.
    fn record(&self, codec: Codec, options: &BackupOptions) -> WaleSentinel {
        let (ended, contents) = (&self.ended, &self.ended.contents);
        let (ready, started) = (&ended.ready, &ended.started);
        let running = ended.ending.running();
        WaleSentinel {
            format_version: WaleSentinel::FORMAT,
            wale_version: options.wale_version.clone(),
            backup_label: running.map_or_else(String::new, |end| end.stopped.label_text.clone()),
            start_lsn: started.start_lsn,
            stop_lsn: ended.ending.stop_lsn(),
            start_timeline: started.timeline,
            // A backup during which it changes is given up.
            stop_timeline: started.timeline,
            start_time: started.started_at,
            stop_time: ended.stopped_at,
            system_identifier: ready.control_file.system_identifier,
            major: ready.major,
            wal_segment_size: ready.control_file.wal_segment_size.bytes(),
            data_checksums: ended.has_checksums,
            codec,
            partitions: contents.partitions.clone(),
            tablespaces: ended.listing.tablespaces.clone(),
            manifest_sha256: Some(self.manifest.sha256.clone()),
            settings: ready.settings.clone(),
            extensions: running
                .map(|end| end.server.extensions.clone())
                .unwrap_or_default(),
            timescaledb: running
                .map(|end| end.server.timescaledb.clone())
                .unwrap_or_default(),
            damaged_pages: contents.damaged.clone(),
            files: contents.files.count(),
            bytes: contents.files.bytes(),
            from_standby: running.is_some_and(|end| end.stopped.from_standby),
            holds_its_wal: running.is_none(),
            requested_over_http: options.requested_over_http,
            pg_wal_link: ended.listing.pg_wal_link.clone(),
            configuration: self.configuration.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use wale_cluster::ConnectOptions;
    use wale_pg::TimelineId;

    use super::super::backup_end::BackupEnd;
    use super::super::testing::{running, stopped, stored};
    use super::*;

    /// Our own record, and where the data directory was.
    fn record(ending: BackupEnd) -> (WaleSentinel, Option<String>) {
        let options = BackupOptions::new("/here".into(), ConnectOptions::default());
        let sentinel = stored(ending).sentinel(Codec::Zstd, &options);
        let sentinel = sentinel.expect("no contradiction");
        (sentinel.wale.expect("ours"), sentinel.data_directory)
    }

    #[test]
    fn what_only_one_kind_of_server_has_is_in_its_record_only() {
        let (record_of_running, directory) = record(running(TimelineId::FIRST));
        assert!(!record_of_running.holds_its_wal);
        assert!(record_of_running.from_standby);
        assert_eq!(record_of_running.backup_label, "LABEL: wale\n");
        assert!(record_of_running.extensions.contains_key("app"));
        assert!(record_of_running.timescaledb.contains_key("app"));
        assert_eq!(directory.as_deref(), Some("/var/lib/postgresql/18/docker"));

        let (record_of_stopped, directory) = record(stopped(Vec::new()));
        assert!(record_of_stopped.holds_its_wal);
        assert!(!record_of_stopped.from_standby);
        assert_eq!(record_of_stopped.backup_label, "");
        assert!(record_of_stopped.extensions.is_empty());
        assert_eq!(directory.as_deref(), Some("/here"));
    }
}
