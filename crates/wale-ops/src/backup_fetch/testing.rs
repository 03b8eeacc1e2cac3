//! The bench of `backup_content`, with restores of its backup.

use std::fs;

use wale_cluster::{RestoreState, restore_marker};
use wale_format::Crc32c;
use wale_pg::ControlFile;
use wale_pipeline::{CancellationToken, Progress};

use super::{RestoreOptions, RestoreReport, TablespaceSource};
use crate::backup_content::testing::{Bench, read_manifest};
use crate::error::OpError;

impl Bench {
    pub(crate) fn options(&self) -> RestoreOptions {
        let elsewhere = self.path("elsewhere");
        fs::create_dir_all(&elsewhere).unwrap();
        RestoreOptions {
            workers: 2,
            tablespace_mapping: vec![(TablespaceSource::Oid(16384), elsewhere)],
            ..RestoreOptions::new(self.path("target"))
        }
    }

    pub(crate) async fn restore(&self, options: &RestoreOptions) -> Result<RestoreReport, OpError> {
        super::run(
            &self.archive,
            options,
            &Progress::new(),
            &CancellationToken::new(),
        )
        .await
    }

    pub(crate) fn assert_restored(&self) {
        let (source, target) = (self.path("source"), self.path("target"));
        let same = [
            "PG_VERSION",
            "postgresql.conf",
            "global/pg_control",
            "base/5/16390",
            "base/1/1",
            "base/1/39",
        ];
        for file in same {
            assert_eq!(
                fs::read(source.join(file)).unwrap(),
                fs::read(target.join(file)).unwrap(),
                "{file}"
            );
        }
        assert_eq!(
            fs::read(self.path("elsewhere/PG_15_202209061/5/16400")).unwrap(),
            vec![9u8; 10_000]
        );
        assert_eq!(
            fs::read_link(target.join("pg_tblspc/16384")).unwrap(),
            self.path("elsewhere")
        );
        let map = fs::read_to_string(target.join("tablespace_map")).unwrap();
        assert_eq!(map, format!("16384 {}\n", self.path("elsewhere").display()));
        assert!(!target.join("pg_wal/000000010000000000000002").exists());
        assert!(target.join("pg_wal/archive_status").is_dir() && target.join("pg_notify").is_dir());
        let (files, _) = read_manifest(&fs::read(target.join("backup_manifest")).unwrap());
        let of_map = &files["tablespace_map"];
        assert_eq!(of_map.size, map.len() as u64);
        assert_eq!(of_map.crc32c, Some(Crc32c::of(map.as_bytes())));
    }

    /// No server could start here, and the directory says why.
    pub(crate) fn assert_half_done(&self) {
        let target = self.path("target");
        assert!(!target.join(ControlFile::PATH).exists());
        assert_eq!(
            restore_marker::read(&target).unwrap().unwrap().state,
            RestoreState::Running
        );
    }
}
