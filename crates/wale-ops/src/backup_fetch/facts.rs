//! What the plan must know about the place of the restore: a check, nothing is written.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use std::os::unix::fs::MetadataExt;

use wale_archive::Remedy;
use wale_cluster::{
    ClusterError, DataDirectory, DirectoryContent, Owner, RestoreMarker, RestoreState,
};
use wale_format::BackupName;
use wale_pg::{BackupLabel, ControlFile};

use super::options::TablespaceSource;
use super::plan::{OutsideFacts, TargetState, Volume};
use super::tablespaces::PlannedTablespace;
use super::target::WalPlace;
use super::wipe::{self, WAL_SKELETON, Wiped};
use crate::backup_content::{DiskNeed, DiskNeeds};
use crate::error::{Kind, OpError, Result};

/// Bytes of a backup label that are read; it has some ten lines.
const LABEL_MAX: u64 = 64 << 10;

/// What the data directory to be is, with the marker of an earlier restore where there is one.
pub(super) fn target(
    path: &Path,
    lock_file_name: &str,
) -> Result<(TargetState, Option<RestoreMarker>)> {
    let failed = |error: ClusterError| {
        OpError::from_cluster(error, format_args!("look at {}", path.display()))
    };
    let directory = DataDirectory::open(path).map_err(failed)?;
    let postmaster = directory.postmaster().map_err(failed)?;
    if let Some(file) = postmaster.file().filter(|_| postmaster.may_run()) {
        return Ok((
            TargetState::Running(format!("its postmaster.pid names process {}", file.pid)),
            None,
        ));
    }
    Ok(match directory.content(lock_file_name).map_err(failed)? {
        DirectoryContent::Missing => (TargetState::Missing, None),
        DirectoryContent::Empty => (TargetState::Empty, None),
        DirectoryContent::Foreign { first } => {
            (TargetState::Occupied(format!("it holds \"{first}\"")), None)
        }
        DirectoryContent::Cluster {
            system_identifier: Some(id),
            ..
        } => (
            TargetState::Occupied(format!(
                "it holds the cluster with the system identifier {id}"
            )),
            None,
        ),
        DirectoryContent::Cluster { .. } => {
            (TargetState::Occupied("it holds a cluster".to_owned()), None)
        }
        DirectoryContent::Marked(marker) => (marked(path, &marker), Some(*marker)),
    })
}

/// A restore that says it is half done is only wiped while all that is there can be its own. It writes the control
/// file as its very last step, beside the label of its backup; a server renames or removes that label when it has
/// recovered from it. So a control file without that label is that of a cluster which somebody uses.
fn marked(path: &Path, marker: &RestoreMarker) -> TargetState {
    let backup = marker.backup.clone();
    match marker.state {
        RestoreState::Done => TargetState::Done { backup },
        RestoreState::Running if marker.is_delta => TargetState::HalfKept { backup },
        RestoreState::Running if path.join(ControlFile::PATH).symlink_metadata().is_err() => {
            TargetState::HalfDone { backup }
        }
        RestoreState::Running => match label_of(path) {
            None => TargetState::Occupied(
                "a server was started on a restore that had not ended".to_owned(),
            ),
            Some(label) if is_of_backup(&label, &backup) => TargetState::HalfDone { backup },
            Some(_) => TargetState::Occupied(format!(
                "a restore of {backup} had not ended in it, and now it holds another cluster"
            )),
        },
    }
}

/// The text of `backup_label`; empty where it cannot be read, `None` where it is not there.
fn label_of(path: &Path) -> Option<String> {
    let label = path.join("backup_label");
    let metadata = label.symlink_metadata().ok()?;
    let mut text = String::new();
    if metadata.is_file()
        && let Ok(file) = fs::File::open(label)
    {
        // What is longer is cut, and then no label.
        let _ = file.take(LABEL_MAX).read_to_string(&mut text);
    }
    Some(text)
}

fn is_of_backup(label: &str, backup: &str) -> bool {
    let (Ok(label), Ok(name)) = (BackupLabel::parse(label), BackupName::parse(backup)) else {
        return false;
    };
    label.start_segment == name.segment()
}

/// The nearest directory that exists, at or above `path`: where the file system can be asked.
pub(super) fn nearest_existing(path: &Path) -> PathBuf {
    path.ancestors()
        .find(|ancestor| ancestor.is_dir())
        .unwrap_or(Path::new("/"))
        .to_owned()
}

/// The owner that the files are to have, with a sentence where that is perhaps not the user that will run the server;
/// and whether this process can give it to them.
///
/// # Errors
///
/// [`Kind::PermissionDenied`] when it cannot: PostgreSQL refuses a data directory of another user.
pub(super) fn owner(wanted: Option<Owner>, target: &Path) -> Result<(Owner, Option<String>)> {
    let place = nearest_existing(target);
    let is_root = rustix::process::geteuid().is_root();
    let owner = match wanted {
        Some(owner) => owner,
        // A parent such as / or /var/lib says nothing about the server's user, unless root has to guess.
        None if place != target && !is_root => Owner::of_process(),
        None => Owner::of(&place).map_err(|error| {
            OpError::from_io(error, format_args!("look at {}", place.display()))
        })?,
    };
    if owner.is_within_reach() {
        let doubt = is_root && wanted.is_none();
        return Ok((
            owner,
            doubt.then(|| doubt_about(owner, target, &place)).flatten(),
        ));
    }
    Err(OpError::new(
        Kind::PermissionDenied,
        format!("\"{}\" belongs to another user", target.display()),
    )
    .detail(format!(
        "Its owner is uid {}, this process is uid {}.",
        owner.uid,
        Owner::of_process().uid
    ))
    .hint("run the restore as that user or as root"))
}

/// What root should know about the owner that it found: PostgreSQL does not run as root, nor on another user's files.
fn doubt_about(owner: Owner, target: &Path, place: &Path) -> Option<String> {
    let (shown, place_shown) = (target.display(), place.display());
    if owner.uid == 0 {
        return Some(format!(
            "the restored cluster will belong to root, the owner of \"{place_shown}\", and PostgreSQL refuses to run as \
             root: give \"{shown}\" to the server's user before it is started (chown -R), or make it for that user \
             before the restore"
        ));
    }
    (place != target).then(|| {
        format!(
            "\"{shown}\" does not exist yet: the restored cluster will belong to uid {}, the owner of \"{place_shown}\"",
            owner.uid
        )
    })
}

/// Where the WAL directory goes, when it is not simply a directory in the target.
pub(super) fn wal_place(target: &Path, wanted: Option<&Path>) -> Option<WalPlace> {
    let own = target.join("pg_wal");
    let there = fs::read_link(&own).ok().map(|link| target.join(link));
    match (wanted, there) {
        (None, there) => there.map(WalPlace::LinkThere),
        (Some(wanted), Some(there)) if wanted == there || wanted == own => {
            Some(WalPlace::LinkThere(there))
        }
        (Some(wanted), None) if wanted == own => None,
        (Some(wanted), _) => Some(WalPlace::Link(wanted.to_owned())),
    }
}

/// Whether the link of a tablespace in the target leads to where it goes.
pub(super) fn is_linked(target: &Path, space: &PlannedTablespace) -> bool {
    let link = target.join(format!("pg_tblspc/{}", space.oid));
    let real = |path: &Path| fs::canonicalize(path).ok();
    link.is_symlink() && real(&link).is_some_and(|there| real(&space.target) == Some(there))
}

/// Sentences about links in `pg_tblspc` that no tablespace of the backup has; `fate` says what becomes of them.
pub(super) fn links_of_nobody(
    target: &Path,
    tablespaces: &[PlannedTablespace],
    fate: &str,
) -> Vec<String> {
    let links = tablespace_links(target).into_iter();
    let of_nobody = links.filter(|(source, _)| {
        !tablespaces
            .iter()
            .any(|space| *source == TablespaceSource::Oid(space.oid))
    });
    of_nobody
        .map(|(source, location)| {
            let location = location.display();
            format!(
                "pg_tblspc/{source} leads to \"{location}\", and the backup has no such tablespace: nothing there is touched, \
                 and the link {fate}"
            )
        })
        .collect()
}

/// Where links that are already there send tablespaces. WAL-E wants them before a restore and has no other mapping; a
/// restore of ours that was interrupted left its own.
pub(super) fn tablespace_links(target: &Path) -> Vec<(TablespaceSource, PathBuf)> {
    let folder = target.join("pg_tblspc");
    let Ok(entries) = fs::read_dir(&folder) else {
        return Vec::new();
    };
    let mut links: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let oid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let location = folder.join(fs::read_link(entry.path()).ok()?);
            Some((oid, location))
        })
        .collect();
    links.sort();
    links
        .into_iter()
        .map(|(oid, location)| (TablespaceSource::Oid(oid), location))
        .collect()
}

/// A directory outside of the target that must be there, and empty unless it is among those that are `wiped` first.
pub(super) fn outside(path: &Path, purpose: String, is_wal: bool, wiped: &Wiped) -> OutsideFacts {
    let will_be_empty = path.is_dir() && wiped.tablespaces.iter().any(|wiped| wiped == path);
    let obstacle = if is_wal {
        let is_wiped = wiped.wal.as_deref() == Some(path);
        obstacle(path, |name, entry| {
            (is_wiped && wipe::is_of_wal(name))
                || (WAL_SKELETON.contains(&name) && obstacle(entry, |_, _| false).is_none())
        })
    } else if will_be_empty {
        None
    } else {
        obstacle(path, |_, _| false)
    };
    OutsideFacts {
        path: path.to_owned(),
        purpose,
        obstacle,
    }
}

/// The WAL directory of a cluster that is kept in part: nothing but WAL may be in it.
pub(super) fn outside_of_wal(path: &Path) -> OutsideFacts {
    OutsideFacts {
        path: path.to_owned(),
        purpose: "the WAL directory".to_owned(),
        obstacle: obstacle(path, |name, _| wipe::is_of_server_wal(name)),
    }
}

/// Whether the directory does not exist and can be made, with those above it.
pub(super) fn can_be_made(path: &Path) -> bool {
    let is_missing = |path: &Path| {
        path.symlink_metadata()
            .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    let above = path.ancestors().find(|ancestor| !is_missing(ancestor));
    is_missing(path)
        && above.is_some_and(|above| {
            above.is_dir() && rustix::fs::access(above, rustix::fs::Access::WRITE_OK).is_ok()
        })
}

/// Refuses a place that only the backup names and that is not the cluster's owner's: an empty folder of somebody else.
///
/// # Errors
///
/// [`Kind::PermissionDenied`], naming it.
pub(super) fn check_owner(space: &PlannedTablespace, owner: Owner) -> Result<()> {
    // Of one that is to be made, the directory above.
    let path = &nearest_existing(&space.target);
    let found = Owner::of(path)
        .map_err(|error| OpError::from_io(error, format_args!("look at {}", path.display())))?;
    if found.uid == owner.uid {
        return Ok(());
    }
    let (oid, shown) = (space.oid, space.target.display());
    Err(OpError::new(
        Kind::PermissionDenied,
        format!(
            "\"{shown}\", which the backup names for tablespace {oid}, belongs to another user"
        ),
    )
    .detail(format!(
        "The owner of \"{}\" is uid {}, the cluster's is uid {}.",
        path.display(),
        found.uid,
        owner.uid
    ))
    .hint("if the tablespace should go there, say so")
    .remedy(Remedy::TablespacePlace {
        oid,
        place: Some(shown.to_string()),
    }))
}

/// What is in the way in a directory, but for what is `harmless` by its name and its path.
fn obstacle(path: &Path, harmless: impl Fn(&str, &Path) -> bool) -> Option<String> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Some("does not exist".to_owned());
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Some("is not a directory".to_owned());
        }
        Err(error) => return Some(format!("cannot be read: {error}")),
    };
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return Some(format!("cannot be read: {error}")),
        };
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "lost+found" && !harmless(&name, &entry.path()) {
            return Some(format!("is not empty, it holds \"{name}\""));
        }
    }
    None
}

/// The volumes that will be written to, with what goes to each: two directories on one file system share its space.
pub(super) fn volumes(
    target: &Path,
    tablespaces: &[PlannedTablespace],
    wal: Option<&Path>,
    needs: &DiskNeeds,
) -> Result<Vec<(Volume, DiskNeed)>> {
    let mut by_device: BTreeMap<u64, (Volume, DiskNeed)> = BTreeMap::new();
    let place = nearest_existing(target);
    let main = device(&place)?;
    let mut devices = BTreeMap::from([(None, main)]);
    by_device.insert(main, (volume(&place)?, DiskNeed::default()));
    for space in tablespaces {
        let place = nearest_existing(&space.target);
        let number = device(&place)?;
        devices.insert(Some(space.oid), number);
        if let std::collections::btree_map::Entry::Vacant(entry) = by_device.entry(number) {
            entry.insert((volume(&place)?, DiskNeed::default()));
        }
    }
    if let Some(wal) = wal {
        let place = nearest_existing(wal);
        let number = device(&place)?;
        if let std::collections::btree_map::Entry::Vacant(entry) = by_device.entry(number) {
            entry.insert((volume(&place)?, DiskNeed::default()));
        }
    }
    for (space, more) in needs {
        let number = devices.get(space).copied().unwrap_or(main);
        if let Some((_, need)) = by_device.get_mut(&number) {
            need.merge(*more);
        }
    }
    Ok(by_device.into_values().collect())
}

fn device(path: &Path) -> Result<u64> {
    let metadata = fs::metadata(path)
        .map_err(|error| OpError::from_io(error, format_args!("look at {}", path.display())))?;
    Ok(metadata.dev())
}

fn volume(path: &Path) -> Result<Volume> {
    let facts = rustix::fs::statvfs(path).map_err(|error| {
        OpError::from_io(
            error.into(),
            format_args!("ask for the free space of {}", path.display()),
        )
    })?;
    Ok(Volume {
        path: path.to_owned(),
        free_bytes: facts.f_bavail.saturating_mul(facts.f_frsize),
        // Some file systems make inodes as they need them and say 0 of 0.
        free_files: (facts.f_files > 0).then_some(facts.f_favail),
        read_only: facts.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_took_the_place_of_a_half_done_restore_is_not_wiped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let marker = RestoreMarker {
            format: wale_cluster::restore_marker::FORMAT,
            state: RestoreState::Running,
            request: wale_cluster::RestoreRequest::default(),
            backup: "base_000000010000000000000002_00000040".to_owned(),
            started_at: chrono::DateTime::UNIX_EPOCH,
            finished_at: None,
            host: String::new(),
            wale_version: String::new(),
            written: Vec::new(),
            settled_at: None,
            attempt: String::new(),
            outside: Vec::new(),
            wal_directory: None,
            is_delta: false,
            delta_directory: None,
            system_identifier: None,
        };
        let label = |segment: &str| {
            format!(
                "START WAL LOCATION: 0/{}000028 (file {segment})\nCHECKPOINT LOCATION: 0/2000060\n\
                 BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-11-23 10:00:00 UTC\nLABEL: x\n",
                &segment[23..]
            )
        };
        let is_half_done = || matches!(marked(path, &marker), TargetState::HalfDone { .. });
        fs::create_dir(path.join("global")).unwrap();
        assert!(is_half_done());
        fs::write(path.join("backup_label"), label("000000010000000000000007")).unwrap();
        assert!(is_half_done(), "nothing can be started");
        let keeping = RestoreMarker {
            is_delta: true,
            delta_directory: None,
            ..marker.clone()
        };
        let found = marked(path, &keeping);
        assert!(
            matches!(found, TargetState::HalfKept { .. }),
            "not all is its own"
        );
        fs::write(path.join("global/pg_control"), "x").unwrap();
        assert!(!is_half_done(), "the label of another backup");
        fs::write(path.join("backup_label"), label("000000010000000000000002")).unwrap();
        assert!(is_half_done());
        fs::remove_file(path.join("backup_label")).unwrap();
        assert!(!is_half_done(), "a server has recovered");
    }

    #[test]
    fn directories_outside_must_exist_and_be_empty() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        make("lost/lost+found");
        make("full/x");
        make("wal/archive_status");
        make("old/archive_status/000000010000000000000001.ready");
        fs::write(folder.path().join("file"), "").unwrap();
        // (name, is the WAL directory, acceptable)
        let cases = [
            ("missing", false, false),
            ("file", false, false),
            ("lost", false, true),
            ("full", false, false),
            ("wal", true, true),
            ("wal", false, false),
            ("old", true, false),
        ];
        for (name, is_wal, acceptable) in cases {
            let path = folder.path().join(name);
            let facts = outside(&path, "x".to_owned(), is_wal, &Wiped::default());
            assert_eq!(
                facts.obstacle.is_none(),
                acceptable,
                "{name}: {:?}",
                facts.obstacle
            );
        }
        // One that a half-done restore named holds what it brought, and nothing else.
        let path = folder.path().join("old");
        let wiped = Wiped {
            wal: Some(path.clone()),
            ..Wiped::default()
        };
        let in_the_way = || outside(&path, "x".to_owned(), true, &wiped).obstacle;
        fs::write(path.join("000000010000000000000002"), "").unwrap();
        assert_eq!(in_the_way(), None);
        fs::write(path.join("notes"), "").unwrap();
        assert!(in_the_way().is_some_and(|found| found.contains("notes")));
    }

    #[test]
    fn needs_are_counted_per_file_system() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a/b");
        let spaces = [PlannedTablespace {
            oid: 7,
            origin: "/x".into(),
            target: folder.path().to_owned(),
            named_by: super::super::tablespaces::NamedBy::Request,
        }];
        let mut needs = DiskNeeds::new();
        for (space, size) in [(None, 10), (Some(7), 5000)] {
            needs.entry(space).or_default().add(size);
        }
        let wal = folder.path().join("wal");
        let volumes = volumes(&target, &spaces, Some(&wal), &needs).unwrap();
        assert_eq!(volumes.len(), 1);
        assert_eq!(
            volumes[0].1,
            DiskNeed {
                bytes: 3 * 4096,
                files: 2
            }
        );
    }
}
