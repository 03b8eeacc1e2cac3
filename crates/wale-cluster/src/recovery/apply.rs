//! Writing the recovery settings, the last step of a restore but one.

use std::fmt::Write as _;
use std::path::Path;

use wale_pg::{EnforcedSettings, MajorVersion, TARGET_SETTINGS};

use super::files::{AUTO_CONF, RECOVERY_CONF, RECOVERY_DONE, RECOVERY_SIGNAL, STANDBY_SIGNAL};
use super::mode::RecoveryMode;
use super::rehearsal::Rehearsal;
use super::settled::{self, WrittenSetting};
use super::{configuration, names, preload};
use crate::durable;
use crate::error::ClusterError;
use crate::owner::Owner;

/// The first major version whose recovery reads ahead of what it replays (`recovery_prefetch`). It asks for segments far
/// after its target, and stops for one that is missing there, although it would never have come to it.
const PREFETCHES_SINCE: u32 = 15;

/// The recovery settings of one restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoverySettings {
    /// The major version of the restored cluster.
    pub major: MajorVersion,
    /// Plain text of `restore_command` (not quoted, `%` already as PostgreSQL wants it), one line.
    pub restore_command: String,
    /// Further settings, names and plain values, as [`parse_addition`] gives them. They win.
    pub target_lines: Vec<(String, String)>,
    /// `recovery_target_timeline`; `latest` where neither this nor `target_lines` says otherwise.
    pub timeline: Option<String>,
    /// What the cluster becomes.
    pub mode: RecoveryMode,
    /// What the primary had, from the control file: a server with less refuses to recover.
    pub minimums: Option<EnforcedSettings>,
    /// `shared_preload_libraries` of the primary, where recorded.
    pub preload_libraries: Option<String>,
    /// The cluster is a copy that is started beside production.
    pub rehearsal: Option<Rehearsal>,
}

/// What was written, and why what is not recovery's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Every setting of the block, in the order of the file.
    pub written: Vec<WrittenSetting>,
    /// The libraries that the configuration lacked, as they are written now.
    pub preload_libraries: Option<String>,
    /// Whether TimescaleDB's background jobs are held.
    pub jobs_held: bool,
}

/// Writes the recovery settings into a restored data directory: the last step but the removal of the marker.
///
/// Whatever recovery settings and signal files are there are removed first, also in the mode
/// [`RecoveryMode::None`]. Every file is written whole and durably, with mode 0600.
///
/// # Errors
/// When settings are impossible (recovery without a `restore_command`), a configuration file is beyond all bounds, or a
/// file cannot be written.
pub fn apply(
    data_directory: &Path,
    settings: &RecoverySettings,
    owner: Option<Owner>,
) -> Result<Applied, ClusterError> {
    let recovery = recovery_lines(settings)?;
    for name in [
        RECOVERY_CONF,
        RECOVERY_DONE,
        RECOVERY_SIGNAL,
        STANDBY_SIGNAL,
    ] {
        let path = data_directory.join(name);
        durable::remove(&path).map_err(ClusterError::io("remove", &path))?;
    }
    let write = |name: &str, text: &[u8]| {
        let path = data_directory.join(name);
        durable::write_atomic(&path, text, durable::mode_beside(&path), owner)
            .map_err(ClusterError::io("write", &path))
    };
    let configured = configuration::configured(data_directory, &READ)?;
    let preload = preload::missing(&configured, settings.preload_libraries.as_deref());
    let jobs_held = (has_target(settings) || settings.rehearsal.is_some())
        && preload::has_timescaledb(&configured, settings.preload_libraries.as_deref());
    let mut block = Vec::new();
    if settings.major.has_recovery_signal() {
        block.extend(recovery.iter().cloned());
    }
    block.extend(configuration::missing_minimums(
        &configured,
        settings.minimums.as_ref(),
    ));
    block.extend(
        preload
            .clone()
            .map(|value| (preload::SETTING.to_owned(), value)),
    );
    if jobs_held {
        block.push((preload::TIMESCALEDB_WORKERS.to_owned(), "0".to_owned()));
    }
    block.extend(of_rehearsal(settings, &configured));
    let before = configuration::read_auto_conf(data_directory)?;
    let after = configuration::with_block(configuration::strip_bytes(&before), &text_of(&block));
    if after != before {
        write(AUTO_CONF, &after)?;
    }
    match (settings.mode, settings.major.has_recovery_signal()) {
        (RecoveryMode::None, _) => {}
        (RecoveryMode::Recover, true) => write(RECOVERY_SIGNAL, b"")?,
        (RecoveryMode::Standby, true) => write(STANDBY_SIGNAL, b"")?,
        (RecoveryMode::Recover | RecoveryMode::Standby, false) => {
            let text = format!("{}\n{}", settled::WRITTEN_BY_US, text_of(&recovery));
            write(RECOVERY_CONF, text.as_bytes())?;
        }
    }
    let written = block
        .into_iter()
        .map(|(name, value)| WrittenSetting { name, value })
        .collect();
    Ok(Applied {
        written,
        preload_libraries: preload,
        jobs_held,
    })
}

/// The settings of a copy beside production.
fn of_rehearsal(
    settings: &RecoverySettings,
    configured: &configuration::Configured,
) -> Vec<(String, String)> {
    let loaded = [
        configured.get(preload::SETTING),
        settings.preload_libraries.as_deref(),
    ];
    let of =
        |rehearsal: Rehearsal| rehearsal.settings(settings.major, loaded.into_iter().flatten());
    settings.rehearsal.map(of).unwrap_or_default()
}

/// The settings whose present values decide what is written: those that recovery enforces, and the libraries.
const READ: [&str; 6] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    preload::SETTING,
];

/// Whether recovery ends before the archive does.
fn has_target(settings: &RecoverySettings) -> bool {
    settings
        .target_lines
        .iter()
        .any(|(name, value)| TARGET_SETTINGS.contains(&name.as_str()) && !value.is_empty())
}

/// What a setting is where nobody says otherwise. From 12 on each one is written, because `postgresql.conf` or a file that
/// it includes may hold an old one, and `postgresql.auto.conf` is read last.
fn neutral(name: &str) -> &'static str {
    match name {
        "recovery_target_inclusive" => "on",
        "recovery_target_timeline" => "latest",
        "recovery_target_action" => "pause",
        "recovery_min_apply_delay" => "0",
        _ => "",
    }
}

/// The settings that steer recovery, in the order in which they are written.
fn recovery_lines(settings: &RecoverySettings) -> Result<Vec<(String, String)>, ClusterError> {
    let mut lines: Vec<(String, String)> = Vec::new();
    if settings.mode == RecoveryMode::None {
        return Ok(lines);
    }
    let given = |name: &str| settings.target_lines.iter().any(|(given, _)| given == name);
    let mut line = |name: &str, value: &str| lines.push((name.to_owned(), value.to_owned()));
    if !given("restore_command") {
        check_command(&settings.restore_command)?;
        if !settings.restore_command.is_empty() {
            line("restore_command", &settings.restore_command);
        } else if settings.mode == RecoveryMode::Recover {
            return Err(ClusterError::Configuration {
                message: "recovery needs a restore_command".to_owned(),
                hint: None,
            });
        }
    }
    if settings.major.has_recovery_signal() {
        let left = |name: &&str| {
            // How recovery reads ahead says nothing about where it ends; see below.
            !matches!(*name, "recovery_target_timeline" | "recovery_prefetch")
                && !given(name)
                && (*name != "restore_command" || settings.restore_command.is_empty())
        };
        for name in names::all(settings.major).filter(left) {
            line(name, neutral(name));
        }
    } else if settings.mode == RecoveryMode::Standby && !given("standby_mode") {
        line("standby_mode", "on");
    }
    if !given("recovery_target_timeline") {
        let timeline = settings.timeline.as_deref();
        let name = "recovery_target_timeline";
        line(name, timeline.unwrap_or(neutral(name)));
    }
    let names_target = |(name, value): &(String, String)| {
        !value.is_empty() && TARGET_SETTINGS.contains(&name.as_str())
    };
    if settings.major.get() >= PREFETCHES_SINCE
        && settings.target_lines.iter().any(names_target)
        && !given("recovery_prefetch")
    {
        line("recovery_prefetch", "off");
    }
    // An empty target is said before the one that is meant, as above.
    let is_empty = |(_, value): &&(String, String)| value.is_empty();
    for (name, value) in settings.target_lines.iter().filter(is_empty) {
        line(name, value);
    }
    for (name, value) in settings.target_lines.iter().filter(|l| !is_empty(l)) {
        line(name, value);
    }
    Ok(lines)
}

/// The settings that steer a recovery as [`apply`] writes them, without those that only take back what another file may
/// hold.
///
/// # Errors
/// As [`apply`], before it writes.
pub fn steering(
    restore_command: &str,
    target_lines: &[(String, String)],
    mode: RecoveryMode,
    major: MajorVersion,
) -> Result<Vec<(String, String)>, ClusterError> {
    let settings = RecoverySettings {
        major,
        restore_command: restore_command.to_owned(),
        target_lines: target_lines.to_vec(),
        timeline: None,
        mode,
        minimums: None,
        preload_libraries: None,
        rehearsal: None,
    };
    let mut lines = recovery_lines(&settings)?;
    lines.retain(|(name, value)| {
        name == "recovery_target_timeline" || neutral(name) != value || !major.has_recovery_signal()
    });
    Ok(lines)
}

/// The files that [`apply`] writes for it.
#[must_use]
pub fn written_files(mode: RecoveryMode, major: MajorVersion) -> Vec<&'static str> {
    match (mode, major.has_recovery_signal()) {
        (RecoveryMode::None, _) => vec![AUTO_CONF],
        (RecoveryMode::Recover, true) => vec![AUTO_CONF, RECOVERY_SIGNAL],
        (RecoveryMode::Standby, true) => vec![AUTO_CONF, STANDBY_SIGNAL],
        (RecoveryMode::Recover | RecoveryMode::Standby, false) => vec![AUTO_CONF, RECOVERY_CONF],
    }
}

/// Whether a `restore_command` can be written. A line break could be, as `\n`, but the next `ALTER SYSTEM` would write it as
/// it is, and no server would start from that file again.
///
/// # Errors
/// `Configuration`, when it holds a control character.
pub fn check_command(command: &str) -> Result<(), ClusterError> {
    if command.chars().any(char::is_control) {
        return Err(ClusterError::Configuration {
            message: "restore_command holds a line break or another control character".to_owned(),
            hint: Some("Write it in one line; `;` and `&&` divide commands.".to_owned()),
        });
    }
    Ok(())
}

/// Settings as lines of a configuration file.
fn text_of(settings: &[(String, String)]) -> String {
    let mut text = String::new();
    for (name, value) in settings {
        writeln!(text, "{name} = {}", configuration::quote(value)).expect("text grows");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use wale_pg::WalLevel;

    use super::*;

    fn settings(major: u32, mode: RecoveryMode, targets: &[(&str, &str)]) -> RecoverySettings {
        RecoverySettings {
            major: MajorVersion::new(major).unwrap(),
            restore_command: "fetch %f \"%p\" 'x'".to_owned(),
            target_lines: targets
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            timeline: None,
            mode,
            minimums: Some(EnforcedSettings {
                max_connections: 200,
                max_worker_processes: 8,
                max_wal_senders: Some(10),
                max_prepared_transactions: 0,
                max_locks_per_transaction: 64,
                wal_level: WalLevel::Replica,
            }),
            preload_libraries: None,
            rehearsal: None,
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn read(folder: &tempfile::TempDir, name: &str) -> String {
        std::fs::read_to_string(folder.path().join(name)).unwrap()
    }

    const ALL_STALE: [&str; 4] = [
        RECOVERY_CONF,
        RECOVERY_DONE,
        RECOVERY_SIGNAL,
        STANDBY_SIGNAL,
    ];

    #[test]
    fn each_version_and_mode_has_its_files() {
        use RecoveryMode::{None, Recover, Standby};
        let cases: [(u32, RecoveryMode, &[&str]); 8] = [
            (10, Recover, &[AUTO_CONF, RECOVERY_CONF]),
            (11, Standby, &[AUTO_CONF, RECOVERY_CONF]),
            (11, None, &[AUTO_CONF]),
            (12, Recover, &[AUTO_CONF, RECOVERY_SIGNAL]),
            (12, Standby, &[AUTO_CONF, STANDBY_SIGNAL]),
            (12, None, &[AUTO_CONF]),
            (18, Recover, &[AUTO_CONF, RECOVERY_SIGNAL]),
            (18, Standby, &[AUTO_CONF, STANDBY_SIGNAL]),
        ];
        for (major, mode, expected) in cases {
            let folder = tempfile::tempdir().unwrap();
            let private = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(folder.path(), private).unwrap();
            for name in ALL_STALE {
                std::fs::write(folder.path().join(name), "stale").unwrap();
            }
            apply(
                folder.path(),
                &settings(major, mode, &[]),
                Some(Owner::of_process()),
            )
            .unwrap();
            assert_eq!(names(folder.path()), expected, "{major} {mode:?}");
            for name in expected {
                let metadata = std::fs::metadata(folder.path().join(name)).unwrap();
                assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
                assert!(!read(&folder, name).contains("stale"));
            }
        }
    }

    #[test]
    fn from_12_on_the_block_is_replaced_and_the_target_comes_last() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join(AUTO_CONF),
            "# head\nwork_mem = '4MB'\nrecovery_target_xid = '5'\n",
        )
        .unwrap();
        let time = ("recovery_target_time", "2026-01-01 00:00:00 UTC");
        for _ in 0..2 {
            let settings = settings(15, RecoveryMode::Recover, &[time]);
            apply(folder.path(), &settings, None).unwrap();
            assert_eq!(
                read(&folder, AUTO_CONF),
                "# head\n\
                 work_mem = '4MB'\n\
                 # wale: recovery settings, replaced by the next restore\n\
                 restore_command = 'fetch %f \"%p\" ''x'''\n\
                 archive_cleanup_command = ''\n\
                 recovery_end_command = ''\n\
                 recovery_target = ''\n\
                 recovery_target_name = ''\n\
                 recovery_target_xid = ''\n\
                 recovery_target_lsn = ''\n\
                 recovery_target_inclusive = 'on'\n\
                 recovery_target_action = 'pause'\n\
                 recovery_min_apply_delay = '0'\n\
                 primary_conninfo = ''\n\
                 primary_slot_name = ''\n\
                 promote_trigger_file = ''\n\
                 recovery_target_timeline = 'latest'\n\
                 recovery_prefetch = 'off'\n\
                 recovery_target_time = '2026-01-01 00:00:00 UTC'\n\
                 max_connections = '200'\n\
                 # wale: end of recovery settings\n"
            );
        }
    }

    /// Row 72, the settings' part.
    #[test]
    fn fault_72_with_a_target_the_recovery_does_not_read_ahead_of_what_it_replays() {
        use RecoveryMode::{Recover, Standby};
        let prefetch = |major: u32, mode, targets: &[(&str, &str)]| -> Vec<String> {
            let text = text_of(&recovery_lines(&settings(major, mode, targets)).unwrap());
            let of_prefetch = text.lines().filter(|line| line.contains("prefetch"));
            of_prefetch.map(str::to_owned).collect()
        };
        let target = ("recovery_target", "immediate");
        assert_eq!(
            prefetch(15, Recover, &[target]),
            ["recovery_prefetch = 'off'"]
        );
        assert_eq!(
            prefetch(18, Standby, &[target]),
            ["recovery_prefetch = 'off'"]
        );
        assert!(prefetch(14, Recover, &[target]).is_empty());
        assert!(prefetch(15, Recover, &[("recovery_target_timeline", "1")]).is_empty());
        assert!(prefetch(15, Recover, &[("recovery_target_xid", "")]).is_empty());
        let own = ("recovery_prefetch", "try");
        assert_eq!(
            prefetch(15, Recover, &[target, own]),
            ["recovery_prefetch = 'try'"]
        );
    }

    #[test]
    fn before_12_everything_is_in_recovery_conf() {
        let folder = tempfile::tempdir().unwrap();
        let targets = [
            ("recovery_target_timeline", "3"),
            ("recovery_target_xid", "7"),
        ];
        apply(
            folder.path(),
            &settings(11, RecoveryMode::Standby, &targets),
            None,
        )
        .unwrap();
        assert_eq!(
            read(&folder, RECOVERY_CONF),
            "# Written by wale's restore.\n\
             restore_command = 'fetch %f \"%p\" ''x'''\n\
             standby_mode = 'on'\n\
             recovery_target_timeline = '3'\n\
             recovery_target_xid = '7'\n"
        );
        let auto = read(&folder, AUTO_CONF);
        assert!(auto.contains("max_connections = '200'"), "{auto}");
        assert!(!auto.contains("restore_command"), "{auto}");
    }

    #[test]
    fn recovery_without_a_command_is_refused_before_anything_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(STANDBY_SIGNAL), "").unwrap();
        let mut settings = settings(15, RecoveryMode::Recover, &[]);
        settings.restore_command.clear();
        assert!(apply(folder.path(), &settings, None).is_err());
        assert_eq!(names(folder.path()), [STANDBY_SIGNAL]);
        settings.mode = RecoveryMode::Standby;
        apply(folder.path(), &settings, None).unwrap();
    }

    #[test]
    fn fault_83_a_command_over_several_lines_is_refused_before_anything_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(STANDBY_SIGNAL), "").unwrap();
        let mut settings = settings(15, RecoveryMode::Recover, &[]);
        settings.restore_command = "test -e /x\nexit 255".to_owned();
        let error = apply(folder.path(), &settings, None).unwrap_err();
        assert!(error.to_string().contains("line break"), "{error}");
        assert_eq!(names(folder.path()), [STANDBY_SIGNAL]);
    }

    #[test]
    fn fault_75_every_setting_is_written_so_that_none_that_was_left_acts() {
        for (major, mode) in [(12, RecoveryMode::Recover), (18, RecoveryMode::Standby)] {
            let folder = tempfile::tempdir().unwrap();
            let settings = settings(major, mode, &[("recovery_target_xid", "7")]);
            let applied = apply(folder.path(), &settings, None).unwrap();
            for name in names::all(settings.major) {
                let lines = applied.written.iter().filter(|line| line.name == name);
                assert_eq!(lines.count(), 1, "{major}: {name}");
            }
            let text = read(&folder, AUTO_CONF);
            let first_target = text.find("recovery_target_time = ''").unwrap();
            assert!(first_target < text.find("recovery_target_xid = '7'").unwrap());
        }
    }

    #[test]
    fn fault_57_and_84_jobs_are_held_where_a_target_is_set_and_timescaledb_is_loaded() {
        type Case<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>, bool);
        let target = ("recovery_target_xid", "7");
        let cases: [Case<'_>; 4] = [
            (&[target], Some("timescaledb"), true),
            (&[target], Some("pg_stat_statements"), false),
            (&[], Some("timescaledb"), false),
            (&[("recovery_target_xid", "")], Some("timescaledb"), false),
        ];
        for (major, (targets, libraries, held)) in [11, 15]
            .into_iter()
            .flat_map(|major| cases.map(|case| (major, case)))
        {
            let folder = tempfile::tempdir().unwrap();
            let mut settings = settings(major, RecoveryMode::Recover, targets);
            settings.preload_libraries = libraries.map(str::to_owned);
            let applied = apply(folder.path(), &settings, None).unwrap();
            assert_eq!(applied.jobs_held, held);
            let text = read(&folder, AUTO_CONF);
            assert_eq!(
                text.contains("timescaledb.max_background_workers = '0'"),
                held,
                "{text}"
            );
            assert!(text.contains("shared_preload_libraries = '"), "{text}");
        }
    }
}
