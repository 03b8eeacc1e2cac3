//! Whether the server that runs on a data directory recovers to a target, as far as that is beyond doubt.
//!
//! From 13 on a server that reaches the end of the WAL before its target stops; it never promotes. So a program that
//! knows that the server has a target may say "absent" of a segment after that target. Targets are fixed when the
//! server starts, so what the files say counts only where they have not been changed since. `false` is always a safe
//! answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use wale_pg::TARGET_SETTINGS;

use super::configuration::{Setting, parse_line};
use super::files::AUTO_CONF;
use crate::data_directory::DataDirectory;

/// A configuration file is below that by far: 4 MiB.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A command line is below that: 128 KiB is what the kernel takes for one argument.
const COMMAND_LINE_BYTES_MAX: usize = 128 << 10;

/// Whether the server that runs on `data_directory`, as a process of this very host, surely has a recovery target.
///
/// It reads the command line, `postgresql.auto.conf`, and `postgresql.conf` after its last include. A target that stands
/// elsewhere is not seen.
#[must_use]
pub fn surely_has_target(data_directory: &Path) -> bool {
    let directory = DataDirectory::at(data_directory);
    let Ok(state) = directory.postmaster() else {
        return false;
    };
    let Some((pid, started)) = state
        .file()
        .and_then(|file| Some((file.pid, file.started?)))
    else {
        return false;
    };
    let Ok(command_line) = fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let Ok(started) = u64::try_from(started.timestamp()) else {
        return false;
    };
    has_target(data_directory, &command_line, started)
}

/// `started`: when the server read its configuration, in seconds since 1970.
fn has_target(data_directory: &Path, command_line: &[u8], started: u64) -> bool {
    if command_line.len() > COMMAND_LINE_BYTES_MAX {
        return false;
    }
    let given = options(command_line);
    let mut values = [const { None }; TARGET_SETTINGS.len()];
    let main = given
        .iter()
        .rfind(|setting| setting.name == "config_file")
        .map_or_else(
            || data_directory.join("postgresql.conf"),
            |setting| PathBuf::from(&setting.value),
        );
    // Later files, and the command line, overrule what comes before them.
    for path in [main, data_directory.join(AUTO_CONF)] {
        let Some(settings) = settings_of(&path, started) else {
            return false;
        };
        note(&settings, &mut values);
    }
    note(&given, &mut values);
    values.iter().flatten().any(|value| !value.is_empty())
}

fn note(settings: &[Setting], values: &mut [Option<String>; TARGET_SETTINGS.len()]) {
    for setting in settings {
        let is_name = |name: &&str| name.eq_ignore_ascii_case(&setting.name);
        if let Some(index) = TARGET_SETTINGS.iter().position(is_name) {
            values[index] = Some(setting.value.clone());
        }
    }
}

/// The settings of one file after its last include, none where there is no such file; `None` where it is not what the
/// server read, or cannot be read.
fn settings_of(path: &Path, started: u64) -> Option<Vec<Setting>> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some(Vec::new()),
        Err(_) => return None,
    };
    let changed = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    // The server's clock has whole seconds.
    let is_as_read = changed < Duration::from_secs(started + 1);
    if !is_as_read || !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return None;
    }
    let text = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&text);
    let mut settings = Vec::new();
    for line in text.lines() {
        match parse_line(line) {
            Ok(Some(setting)) if setting.name.to_ascii_lowercase().starts_with("include") => {
                settings.clear();
            }
            Ok(setting) => settings.extend(setting),
            // The server would not have started with it.
            Err(_) => return None,
        }
    }
    Some(settings)
}

/// The settings of a server's command line: `-c name=value`, `-cname=value`, `--name=value`.
fn options(command_line: &[u8]) -> Vec<Setting> {
    let words: Vec<_> = command_line
        .split(|byte| *byte == 0)
        .map(String::from_utf8_lossy)
        .collect();
    let mut settings = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let assignment = match word.strip_prefix("-c").or_else(|| word.strip_prefix("--")) {
            Some("") => words.next().map(AsRef::as_ref),
            other => other,
        };
        if let Some((name, value)) = assignment.and_then(|text: &str| text.split_once('=')) {
            settings.push(Setting {
                name: name.replace('-', "_").to_ascii_lowercase(),
                value: value.to_owned(),
            });
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::*;

    const STARTED: u64 = 1_700_000_000;

    fn says(main: &str, auto: &str, command_line: &str, changed: u64) -> bool {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("postgresql.conf", main), (AUTO_CONF, auto)] {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(changed);
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
        let command_line = command_line.replace(' ', "\0");
        has_target(folder.path(), command_line.as_bytes(), STARTED)
    }

    #[test]
    fn fault_72_a_target_counts_where_the_server_must_have_read_it() {
        let target = "recovery_target_name = 'p3'\n";
        for (main, auto, command_line, expected) in [
            ("", target, "postgres -D /data", true),
            (target, "", "postgres", true),
            ("", "Recovery_Target_XID '77'\n", "postgres", true),
            ("", "", "postgres -c recovery_target=immediate", true),
            ("", "", "postgres --recovery-target-lsn=0/1", true),
            // Unset by what comes later.
            (target, "recovery_target_name = ''\n", "postgres", false),
            ("", target, "postgres -crecovery_target_name=", false),
            // Perhaps unset by what is included.
            (
                "recovery_target_name = 'p3'\ninclude_dir 'conf.d'\n",
                "",
                "postgres",
                false,
            ),
            (
                "include 'a.conf'\nrecovery_target_name = 'p3'\n",
                "",
                "postgres",
                true,
            ),
            // No target at all.
            (
                "recovery_target_timeline = '2'\nrecovery_target_action = 'promote'\n",
                "",
                "postgres",
                false,
            ),
            ("# recovery_target_name = 'p3'\n", "", "postgres", false),
            ("broken '\n", target, "postgres", false),
            ("", target, "postgres -c config_file=/nowhere", true),
        ] {
            assert_eq!(
                says(main, auto, command_line, STARTED),
                expected,
                "{main:?} {auto:?} {command_line}"
            );
            assert!(
                !says("work_mem = 1MB", target, command_line, STARTED + 1),
                "changed since"
            );
        }
    }

    #[test]
    fn without_a_server_nothing_is_sure() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join(AUTO_CONF),
            "recovery_target = 'immediate'\n",
        )
        .unwrap();
        assert!(!surely_has_target(folder.path()));
    }
}
