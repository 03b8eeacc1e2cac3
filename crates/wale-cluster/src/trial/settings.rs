//! The options of a trial's server. They stand on its command line, so no file, no `ALTER SYSTEM` and no include beats them.

use std::path::PathBuf;

use wale_pg::MajorVersion;

use crate::recovery::in_kilobytes;

/// The first major versions that know a setting.
const SHARED_MEMORY_SINCE: u32 = 14;
const ARCHIVE_LIBRARY_SINCE: u32 = 15;
const SYNC_SLOTS_SINCE: u32 = 17;
const EVENT_TRIGGERS_SINCE: u32 = 17;
const IGNORED_PAGES_SINCE: u32 = 13;
const IO_METHOD_SINCE: u32 = 18;
/// The first whose recovery settings are settings as all others.
const RECOVERY_SETTINGS_SINCE: u32 = 12;

/// Where a trial's server lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialPlaces {
    /// Its data directory.
    pub data: PathBuf,
    /// The folder of its socket, which is this user's alone.
    pub socket: PathBuf,
    /// Its `pg_hba.conf`.
    pub hba: PathBuf,
    /// Its `pg_ident.conf`.
    pub ident: PathBuf,
}

/// The number in the name of the socket. No TCP port is opened.
pub(super) const PORT: u16 = 5432;

/// Lines of `pg_hba.conf`: whoever gets at the socket, this user, may log in.
pub(super) const HBA: &str = "local all all trust\n";

/// The settings.
pub(super) fn settings(
    major: MajorVersion,
    places: &TrialPlaces,
    shared_buffers: u64,
) -> Vec<(&'static str, String)> {
    let path = |path: &PathBuf| path.display().to_string();
    let mut settings = vec![
        // Where it is.
        ("data_directory", path(&places.data)),
        ("hba_file", path(&places.hba)),
        ("ident_file", path(&places.ident)),
        ("external_pid_file", String::new()),
        // Whom it hears: nobody but us.
        ("listen_addresses", String::new()),
        ("unix_socket_directories", path(&places.socket)),
        ("unix_socket_permissions", "0700".to_owned()),
        ("unix_socket_group", String::new()),
        ("port", PORT.to_string()),
        ("ssl", "off".to_owned()),
        ("bonjour", "off".to_owned()),
        // Whom it tells: nobody.
        ("archive_mode", "off".to_owned()),
        ("archive_command", "/bin/false".to_owned()),
        ("max_logical_replication_workers", "0".to_owned()),
        // Whatever library wants one gets none, and its jobs do not reach production. Recovery asks for the primary's number
        // only where `hot_standby` is on; what would run in parallel runs alone.
        ("max_worker_processes", "0".to_owned()),
        ("synchronous_standby_names", String::new()),
        // How large it is.
        ("shared_buffers", in_kilobytes(shared_buffers)),
        ("huge_pages", "off".to_owned()),
        // No session before the end of recovery, so recovery does not insist on the primary's connections and workers.
        ("hot_standby", "off".to_owned()),
        // A crash is a finding.
        ("restart_after_crash", "off".to_owned()),
        ("autovacuum", "off".to_owned()),
        ("default_transaction_read_only", "off".to_owned()),
        // Damage that production looks away from is a finding, too.
        ("zero_damaged_pages", "off".to_owned()),
        ("ignore_checksum_failure", "off".to_owned()),
        // What it says is read by us.
        ("logging_collector", "off".to_owned()),
        ("log_destination", "stderr".to_owned()),
        ("log_line_prefix", String::new()),
        ("log_min_messages", "warning".to_owned()),
        // With "verbose" a code stands before each message.
        ("log_error_verbosity", "default".to_owned()),
        ("log_statement", "none".to_owned()),
        ("log_min_duration_statement", "-1".to_owned()),
        ("lc_messages", "C".to_owned()),
        ("cluster_name", "wale rehearsal".to_owned()),
    ];
    let mut since = |version: u32, name: &'static str, value: &str| {
        if major.get() >= version {
            settings.push((name, value.to_owned()));
        }
    };
    since(RECOVERY_SETTINGS_SINCE, "primary_conninfo", "");
    since(RECOVERY_SETTINGS_SINCE, "primary_slot_name", "");
    since(RECOVERY_SETTINGS_SINCE, "archive_cleanup_command", "");
    since(RECOVERY_SETTINGS_SINCE, "recovery_end_command", "");
    since(SHARED_MEMORY_SINCE, "min_dynamic_shared_memory", "0");
    since(ARCHIVE_LIBRARY_SINCE, "archive_library", "");
    since(SYNC_SLOTS_SINCE, "sync_replication_slots", "off");
    since(EVENT_TRIGGERS_SINCE, "event_triggers", "off");
    since(IGNORED_PAGES_SINCE, "ignore_invalid_pages", "off");
    // What production takes may be forbidden in the container of a rehearsal.
    since(IO_METHOD_SINCE, "io_method", "worker");
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_reaches_nobody_and_names_no_setting_that_its_server_does_not_know() {
        let places = TrialPlaces {
            data: "/s/data".into(),
            socket: "/s/socket".into(),
            hba: "/s/pg_hba.conf".into(),
            ident: "/s/pg_ident.conf".into(),
        };
        let of = |major: u32| settings(MajorVersion::new(major).unwrap(), &places, 1 << 20);
        for major in [10, 15, 18] {
            let settings = of(major);
            let value = |name: &str| {
                let found = settings.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| value.as_str())
            };
            for (name, expected) in [
                ("listen_addresses", ""),
                ("archive_mode", "off"),
                ("max_logical_replication_workers", "0"),
                ("max_worker_processes", "0"),
                ("log_error_verbosity", "default"),
                ("shared_buffers", "1024kB"),
                ("unix_socket_directories", "/s/socket"),
            ] {
                assert_eq!(value(name), Some(expected), "{major}");
            }
            assert_eq!(value("primary_conninfo").is_some(), major >= 12);
            assert_eq!(value("archive_library").is_some(), major >= 15);
            assert_eq!(value("event_triggers").is_some(), major >= 17);
            assert_eq!(value("io_method").is_some(), major >= 18);
        }
    }
}
