//! The settings of a copy that is started beside production, and of which production must notice nothing.
//!
//! The copy has production's configuration, so it would archive into production's archive, listen at production's port, write
//! into production's log and pid file, and take up its subscriptions and scheduled jobs. What is written here stands in
//! `postgresql.auto.conf`, which is read last; only options on the server's command line beat it.
//!
//! `max_wal_senders` and the other settings that recovery enforces stay as they are: a server with less than the primary had
//! does not recover. Nothing is lost by it: replication slots are no part of a base backup, and nobody knows the copy's port.

use wale_pg::MajorVersion;

use super::preload::{base, libraries};

/// The first major version with `archive_library`, and without `stats_temp_directory`.
const ARCHIVE_LIBRARY_SINCE: u32 = 15;
/// The first major version that can copy logical slots from its primary by itself.
const SYNC_SLOTS_SINCE: u32 = 17;

/// Libraries that start jobs by themselves, and the setting that keeps each of them from it. TimescaleDB has its own place.
/// `pg_cron` has the second of its two from 1.6 on, and its jobs go by default to the host and port that stand in their rows:
/// production's.
const JOBS: [(&str, &str, &str); 3] = [
    ("pg_cron", "cron.max_running_jobs", "0"),
    ("pg_cron", "cron.launch_active_jobs", "off"),
    ("pg_partman_bgw", "pg_partman_bgw.dbname", ""),
];

/// `shared_buffers` of a copy unless somebody says otherwise: PostgreSQL's own default.
pub const SHARED_BUFFERS: u64 = 128 << 20;
/// The least that every server takes: 128 kB.
pub const SHARED_BUFFERS_MIN: u64 = 128 << 10;

/// A number of bytes as a setting of memory has it.
pub(crate) fn in_kilobytes(bytes: u64) -> String {
    format!("{}kB", bytes.max(SHARED_BUFFERS_MIN) >> 10)
}

/// A copy beside production.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// The port at which it listens, on this machine alone.
    pub port: u16,
    /// Its `shared_buffers`, in bytes: production's may be most of a machine.
    pub shared_buffers: u64,
}

impl Rehearsal {
    /// What is written for it, beside the recovery settings. `loaded` are lists of libraries that the server loads at its
    /// start.
    #[must_use]
    pub fn settings<'l>(
        self,
        major: MajorVersion,
        loaded: impl IntoIterator<Item = &'l str>,
    ) -> Vec<(String, String)> {
        let port = self.port.to_string();
        let shared_buffers = in_kilobytes(self.shared_buffers);
        let mut settings = vec![
            ("archive_mode", "off"),
            // Whoever turns archiving on again still pushes nothing.
            ("archive_command", "/bin/false"),
            ("port", port.as_str()),
            ("listen_addresses", "localhost"),
            ("max_logical_replication_workers", "0"),
            // A commit would wait for production's standbys.
            ("synchronous_standby_names", ""),
            ("external_pid_file", ""),
            ("log_directory", "log"),
            // Production has taken its share of the machine.
            ("shared_buffers", shared_buffers.as_str()),
            ("huge_pages", "off"),
        ];
        if major.get() >= ARCHIVE_LIBRARY_SINCE {
            settings.push(("archive_library", ""));
        } else {
            // Debian's lies outside of the data directory, and the copy would remove and write production's files in it.
            settings.push(("stats_temp_directory", "pg_stat_tmp"));
        }
        if major.get() >= SYNC_SLOTS_SINCE {
            settings.push(("sync_replication_slots", "off"));
        }
        let names: Vec<&str> = loaded.into_iter().flat_map(libraries).collect();
        for (library, setting, value) in JOBS {
            if names.iter().any(|name| base(name) == library) {
                settings.push((setting, value));
            }
        }
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        settings.into_iter().map(owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rehearsal_cannot_archive_reach_out_or_run_jobs() {
        let rehearsal = Rehearsal {
            port: 5433,
            shared_buffers: SHARED_BUFFERS,
        };
        let settings = |major, loaded: &str| {
            let major = MajorVersion::new(major).unwrap();
            rehearsal.settings(major, [loaded])
        };
        let value = |settings: &[(String, String)], wanted: &str| {
            let found = settings.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.clone())
        };
        for major in [10, 15, 18] {
            let plain = settings(major, "");
            for (name, expected) in [
                ("archive_mode", "off"),
                ("port", "5433"),
                ("listen_addresses", "localhost"),
                ("max_logical_replication_workers", "0"),
                ("shared_buffers", "131072kB"),
                ("huge_pages", "off"),
            ] {
                assert_eq!(value(&plain, name).as_deref(), Some(expected), "{major}");
            }
            // A server refuses names that it does not know.
            assert_eq!(value(&plain, "archive_library").is_some(), major >= 15);
            assert_eq!(
                value(&plain, "sync_replication_slots").is_some(),
                major >= 17
            );
            assert_eq!(value(&plain, "cron.launch_active_jobs"), None);
            assert_eq!(value(&plain, "max_wal_senders"), None);
        }
        let jobs = settings(15, "$libdir/pg_cron.so, \"pg_partman_bgw\"");
        assert_eq!(
            value(&jobs, "cron.launch_active_jobs").as_deref(),
            Some("off")
        );
        assert_eq!(value(&jobs, "pg_partman_bgw.dbname").as_deref(), Some(""));
    }
}
