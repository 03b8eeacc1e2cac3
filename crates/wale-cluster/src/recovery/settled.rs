//! Recovery settings after the promotion: what a restore wrote goes again, and nothing else.
//!
//! From PostgreSQL 12 on the settings outlive the promotion. A standby that is cloned afterwards inherits them, reaches the
//! target with the first commit that it replays, and promotes itself: two primaries. So the lines that steer recovery go.
//! They are known by name and value, which the restore's marker keeps, because `ALTER SYSTEM` writes the file anew without
//! comments and with them without the marks of the block.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::configuration::{self, BLOCK_BEGIN, BLOCK_END, parse_line};
use super::files::{AUTO_CONF, RECOVERY_CONF, RECOVERY_DONE, RECOVERY_SIGNAL, STANDBY_SIGNAL};
use super::names;
use crate::data_directory::DataDirectory;
use crate::durable;
use crate::error::ClusterError;
use crate::owner::Owner;
use wale_pg::ClusterState;

/// How often the file is edited anew because somebody else wrote it meanwhile. Each try takes milliseconds, and a server
/// writes it only for an `ALTER SYSTEM`.
const TRIES: u32 = 20;

/// The first line of a `recovery.conf` of ours, which PostgreSQL 10 and 11 rename to `recovery.done`.
pub(super) const WRITTEN_BY_US: &str = "# Written by wale's restore.";

/// A setting that a restore wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenSetting {
    /// Its name.
    pub name: String,
    /// Its plain value.
    pub value: String,
}

impl WrittenSetting {
    /// Whether it says how a recovery goes or ends. Anything else that a restore wrote is the running server's too.
    #[must_use]
    pub fn steers_recovery(&self) -> bool {
        steers(&self.name)
    }
}

fn steers(name: &str) -> bool {
    names::find(name).is_some() || name.to_ascii_lowercase().starts_with("recovery_")
}

/// Whether the server of this directory has ended its recovery: no file asks for one, and the control file says that the
/// server runs, or was shut down, as a primary.
///
/// # Errors
/// When the directory cannot be looked at, or its control file not be read.
pub fn has_ended(data_directory: &Path) -> Result<bool, ClusterError> {
    for name in [
        RECOVERY_SIGNAL,
        STANDBY_SIGNAL,
        RECOVERY_CONF,
        "backup_label",
    ] {
        let path = data_directory.join(name);
        match std::fs::symlink_metadata(&path) {
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ClusterError::io("look at", &path)(error)),
        }
    }
    let state = DataDirectory::at(data_directory).control_file()?.state;
    Ok(matches!(
        state,
        ClusterState::InProduction | ClusterState::ShutDown
    ))
}

/// Whether a setting stands in `postgresql.auto.conf` as it was written; `false` where that cannot be read.
#[must_use]
pub fn is_written(data_directory: &Path, setting: &WrittenSetting) -> bool {
    configuration::read_auto_conf(data_directory)
        .is_ok_and(|text| settings_of(&text).any(|line| line == *setting))
}

/// The names of the settings that stand in `postgresql.auto.conf` as they were written and steer recovery, without those
/// that another line sets to another value: `ALTER SYSTEM RESET` takes every line of a name.
///
/// # Errors
/// When the file cannot be read.
pub fn only_ours(
    data_directory: &Path,
    written: &[WrittenSetting],
) -> Result<Vec<String>, ClusterError> {
    let text = configuration::read_auto_conf(data_directory)?;
    let mut names: Vec<String> = Vec::new();
    let mut others: Vec<String> = Vec::new();
    for setting in settings_of(&text) {
        let list = if is_ours(&setting, written) {
            &mut names
        } else {
            &mut others
        };
        list.push(setting.name.to_ascii_lowercase());
    }
    names.sort();
    names.dedup();
    names.retain(|name| !others.contains(name));
    Ok(names)
}

/// The settings of the marked block: what an older version's restore wrote, whose marker does not keep them.
///
/// # Errors
/// When the file cannot be read.
pub fn block_settings(data_directory: &Path) -> Result<Vec<WrittenSetting>, ClusterError> {
    let text = configuration::read_auto_conf(data_directory)?;
    let mut in_block = false;
    let mut block = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let trimmed = line.trim_ascii();
        if trimmed == BLOCK_BEGIN.as_bytes() {
            in_block = true;
        } else if trimmed == BLOCK_END.as_bytes() {
            in_block = false;
        } else if in_block {
            block.extend_from_slice(line);
        }
    }
    Ok(settings_of(&block).collect())
}

/// Takes the lines that steer recovery out of `postgresql.auto.conf`, those alone that are as they were written; the marks
/// go with the last line between them. A `recovery.done` of ours goes as a whole. Returns the names that went.
///
/// The file is written beside and renamed. When it changed meanwhile, as an `ALTER SYSTEM` changes it, the edit is begun
/// anew.
///
/// # Errors
/// When the file cannot be read or written, or somebody else writes it all the time.
pub fn take_back(
    data_directory: &Path,
    written: &[WrittenSetting],
) -> Result<Vec<String>, ClusterError> {
    remove_recovery_done(data_directory)?;
    let path = data_directory.join(AUTO_CONF);
    for _ in 0..TRIES {
        let stamp = stamp(&path)?;
        let before = configuration::read_auto_conf(data_directory)?;
        let (after, names) = without(&before, written);
        if names.is_empty() {
            return Ok(names);
        }
        let Some((_, _, _, mode, owner)) = stamp else {
            return Ok(Vec::new());
        };
        let pending = durable::PendingFile::create(&path, mode & 0o777, Some(owner))
            .map_err(ClusterError::io("write", &path))?;
        let mut pending = pending;
        io::Write::write_all(&mut pending, &after).map_err(ClusterError::io("write", &path))?;
        if self::stamp(&path)? == stamp && configuration::read_auto_conf(data_directory)? == before
        {
            pending.commit().map_err(ClusterError::io("write", &path))?;
            return Ok(names);
        }
    }
    Err(ClusterError::Configuration {
        message: format!("{} changes all the time", path.display()),
        hint: Some("Remove the recovery settings in it by ALTER SYSTEM RESET.".to_owned()),
    })
}

/// What distinguishes one version of the file from the next: inode, size, time of change.
type Stamp = (u64, u64, (i64, i64), u32, Owner);

fn stamp(path: &Path) -> Result<Option<Stamp>, ClusterError> {
    match std::fs::metadata(path) {
        Ok(meta) => Ok(Some((
            meta.ino(),
            meta.size(),
            (meta.ctime(), meta.ctime_nsec()),
            meta.mode(),
            Owner {
                uid: meta.uid(),
                gid: meta.gid(),
            },
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ClusterError::io("look at", path)(error)),
    }
}

fn remove_recovery_done(data_directory: &Path) -> Result<(), ClusterError> {
    let path = data_directory.join(RECOVERY_DONE);
    let is_ours = configuration::read_bounded(&path)?
        .is_some_and(|bytes| bytes.starts_with(WRITTEN_BY_US.as_bytes()));
    if is_ours {
        durable::remove(&path).map_err(ClusterError::io("remove", &path))?;
    }
    Ok(())
}

/// The file without our lines that steer recovery, and their names.
fn without(text: &[u8], written: &[WrittenSetting]) -> (Vec<u8>, Vec<String>) {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut names = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        match setting_of(line).filter(|setting| is_ours(setting, written)) {
            Some(setting) => names.push(setting.name),
            None if line.trim_ascii() == BLOCK_END.as_bytes()
                && kept
                    .last()
                    .is_some_and(|line| line.trim_ascii() == BLOCK_BEGIN.as_bytes()) =>
            {
                kept.pop();
            }
            None => kept.push(line),
        }
    }
    (kept.concat(), names)
}

fn is_ours(setting: &WrittenSetting, written: &[WrittenSetting]) -> bool {
    steers(&setting.name)
        && written.iter().any(|known| {
            known.name.eq_ignore_ascii_case(&setting.name) && known.value == setting.value
        })
}

fn settings_of(text: &[u8]) -> impl Iterator<Item = WrittenSetting> {
    text.split(|byte| *byte == b'\n').filter_map(setting_of)
}

/// A line in another encoding is none of ours, which are checked text.
fn setting_of(line: &[u8]) -> Option<WrittenSetting> {
    let setting = parse_line(str::from_utf8(line).ok()?.trim_end_matches('\n')).ok()??;
    Some(WrittenSetting {
        name: setting.name,
        value: setting.value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(settings: &[(&str, &str)]) -> Vec<WrittenSetting> {
        let own = |(name, value): &(&str, &str)| WrittenSetting {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        settings.iter().map(own).collect()
    }

    fn after(text: &str, settings: &[(&str, &str)]) -> (String, Vec<String>) {
        let (bytes, names) = without(text.as_bytes(), &written(settings));
        (String::from_utf8(bytes).unwrap(), names)
    }

    #[test]
    fn fault_74_only_lines_that_steer_recovery_and_are_as_written_go() {
        let settings = [
            ("restore_command", "fetch 'x'"),
            ("recovery_target_time", "2026-01-01 00:00:00 UTC"),
            ("recovery_prefetch", "off"),
            ("primary_conninfo", ""),
            ("max_connections", "200"),
            ("shared_preload_libraries", "timescaledb"),
        ];
        let block = format!(
            "a = 1\n{BLOCK_BEGIN}\nrestore_command = 'fetch ''x'''\nrecovery_target_time = '2026-01-01 00:00:00 UTC'\n\
             recovery_prefetch = 'off'\nprimary_conninfo = ''\nmax_connections = '200'\n{BLOCK_END}\n"
        );
        let (text, names) = after(&block, &settings);
        let expected = format!("a = 1\n{BLOCK_BEGIN}\nmax_connections = '200'\n{BLOCK_END}\n");
        assert_eq!((text.as_str(), names.len()), (expected.as_str(), 4));
        // The marks go with the last line between them.
        let (text, _) = after(&block.replace("max_connections = '200'\n", ""), &settings);
        assert_eq!(text, "a = 1\n");
        // After an ALTER SYSTEM there are no marks, and the settings of others stand among ours.
        let rewritten = "# Do not edit this file manually!\nrestore_command = 'fetch ''x'''\nwork_mem = '4MB'\n\
                         recovery_target_time = '2026-01-01 00:00:00 UTC'\nshared_preload_libraries = 'timescaledb'\n";
        let (text, names) = after(rewritten, &settings);
        assert_eq!(
            text,
            "# Do not edit this file manually!\nwork_mem = '4MB'\nshared_preload_libraries = 'timescaledb'\n"
        );
        assert_eq!(names, ["restore_command", "recovery_target_time"]);
        // Another value is somebody's own.
        let (text, names) = after(
            "restore_command = 'mine'\nprimary_conninfo = 'host=p'\n",
            &settings,
        );
        assert_eq!(names, Vec::<String>::new());
        assert_eq!(
            text,
            "restore_command = 'mine'\nprimary_conninfo = 'host=p'\n"
        );
    }

    #[test]
    fn a_name_that_others_set_too_is_not_reset_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(AUTO_CONF);
        let own = written(&[("restore_command", "x"), ("recovery_target_xid", "")]);
        std::fs::write(
            &path,
            "restore_command = 'x'\nrecovery_target_xid = ''\nRestore_Command = 'y'\n",
        )
        .unwrap();
        assert_eq!(
            only_ours(folder.path(), &own).unwrap(),
            ["recovery_target_xid"]
        );
        let gone = take_back(folder.path(), &own).unwrap();
        assert_eq!(gone, ["restore_command", "recovery_target_xid"]);
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "Restore_Command = 'y'\n"
        );
        assert!(take_back(folder.path(), &own).unwrap().is_empty());
        std::fs::remove_file(&path).unwrap();
        assert!(take_back(folder.path(), &own).unwrap().is_empty());
    }

    #[test]
    fn a_recovery_done_goes_only_when_it_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(RECOVERY_DONE);
        std::fs::write(&path, "restore_command = 'mine'\n").unwrap();
        take_back(folder.path(), &[]).unwrap();
        assert!(path.exists());
        std::fs::write(&path, format!("{WRITTEN_BY_US}\nrestore_command = 'x'\n")).unwrap();
        take_back(folder.path(), &[]).unwrap();
        assert!(!path.exists());
    }
}
