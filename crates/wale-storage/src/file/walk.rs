//! A walk through the folders in the order of keys, with bounded memory.
//!
//! The system lists a folder in no order, and a folder of WAL may hold millions of names. A folder is
//! therefore read in passes: each pass keeps the next names in order and forgets the rest. The usual
//! folder takes one pass.
//!
//! A folder sorts as its name with a slash, for so its keys sort: `a.b` comes before `a/b`, and `a0` after.

use std::collections::{BinaryHeap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rustix::fs::{AtFlags, Dir, FileType, Stat};
use rustix::io::Errno;

use super::errno::in_the_way;
use super::folder::Root;
use crate::key::{TEMPORARY_SUFFIX, is_temporary};
use crate::{ObjectKey, ObjectMeta, Ours, StoreError};

/// Names kept by one pass over a folder: 65,536 WAL names of 38 bytes and as much bookkeeping are 5 MiB, and
/// a folder of a million takes 16 passes of about a quarter of a second.
const PASS_NAMES: usize = 1 << 16;

/// Objects handed over at a time: 1,000, as the clouds do, some 200 KiB.
const BATCH: usize = 1000;

/// Which files a walk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Objects,
    Temporary,
}

/// A file that was found.
#[derive(Debug)]
pub(super) struct Found {
    /// Its path from the root.
    pub(super) path: String,
    pub(super) stat: Stat,
}

impl Found {
    /// The file as an object; `None` when its name is no key.
    fn into_object(self) -> Option<ObjectMeta> {
        let key = ObjectKey::new(&self.path).ok()?;
        Some(object_meta(key, &self.stat))
    }
}

pub(super) fn object_meta(key: ObjectKey, stat: &Stat) -> ObjectMeta {
    ObjectMeta {
        key,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified: modified(stat),
    }
}

fn modified(stat: &Stat) -> DateTime<Utc> {
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    DateTime::from_timestamp(stat.st_mtime, nanoseconds).unwrap_or(DateTime::UNIX_EPOCH)
}

/// A walk, to be continued batch by batch.
#[derive(Debug)]
pub(super) struct Walk {
    root: Arc<Root>,
    wanted: Wanted,
    pass_names: usize,
    folders: Vec<Level>,
    /// Paths up to here are passed over.
    after: String,
    failed: Option<StoreError>,
}

/// A folder that is being walked.
#[derive(Debug)]
struct Level {
    folder: OwnedFd,
    /// Its path from the root, with a slash at the end unless it is the root.
    path: String,
    /// What the names in it must start with.
    prefix: String,
    names: VecDeque<String>,
    /// The last name handed out by the pass before.
    after: String,
    more: bool,
}

impl Walk {
    /// A walk over everything whose path starts with `prefix`, a prefix that a key may have.
    pub(super) fn start(root: Arc<Root>, prefix: &str, wanted: Wanted) -> Result<Self, StoreError> {
        let (path, name_prefix) = match prefix.rfind('/') {
            Some(slash) => prefix.split_at(slash + 1),
            None => ("", prefix),
        };
        let components: Vec<&str> = path.split_terminator('/').collect();
        let first = root.folder(&components)?;
        let mut walk = Self {
            root,
            wanted,
            pass_names: PASS_NAMES,
            folders: Vec::new(),
            after: String::new(),
            failed: None,
        };
        if let Some(folder) = first {
            walk.folders
                .push(Level::new(folder, path.to_owned(), name_prefix.to_owned()));
        }
        Ok(walk)
    }

    /// A walk over the objects whose path starts with `prefix` and is greater than `after`. Its first pass over a folder
    /// keeps a batch of names, because a caller that begins in the middle mostly wants the next few: memory and time
    /// for sorting do not depend on how many there are.
    pub(super) fn start_after(
        root: Arc<Root>,
        prefix: &str,
        after: &str,
    ) -> Result<Self, StoreError> {
        let mut walk = Self::start(root, prefix, Wanted::Objects)?;
        walk.pass_names = BATCH;
        if let Some(level) = walk.folders.last_mut() {
            match after.strip_prefix(level.path.as_str()) {
                // Every name that is not greater as a name is not greater as a path either, except for a folder of that
                // name.
                Some(name) if !name.contains('/') => name.clone_into(&mut level.after),
                _ => after.clone_into(&mut walk.after),
            }
        }
        Ok(walk)
    }

    /// The next objects; none when the walk is over.
    pub(super) fn next_objects(&mut self) -> Result<Vec<ObjectMeta>, StoreError> {
        let mut objects = Vec::new();
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        while objects.len() < BATCH {
            match self.next() {
                // A file whose name is no key was not put here by a store, and cannot be asked for.
                Ok(Some(found)) => objects.extend(found.into_object()),
                Ok(None) => break,
                Err(error) if objects.is_empty() => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        Ok(objects)
    }

    /// The next file; `None` when the walk is over. An error ends the walk.
    pub(super) fn next(&mut self) -> Result<Option<Found>, StoreError> {
        let step = self.step();
        if step.is_err() {
            self.folders.clear();
        }
        step
    }

    fn step(&mut self) -> Result<Option<Found>, StoreError> {
        while let Some(level) = self.folders.last_mut() {
            let Some(name) = level.names.pop_front() else {
                if level.more {
                    level.read_pass(&self.root, self.wanted, self.pass_names)?;
                    // A caller that wants more than a first short pass wants all of it.
                    self.pass_names = self.pass_names.saturating_mul(8).min(PASS_NAMES);
                } else {
                    self.folders.pop();
                }
                continue;
            };
            let path = format!("{}{name}", level.path);
            if !path.ends_with('/') && path <= self.after {
                continue;
            }
            if let Some(name) = name.strip_suffix('/') {
                // A folder that has vanished since the pass is empty.
                let inner = self.root.enter(&level.folder, name, &path)?;
                self.folders
                    .extend(inner.map(|folder| Level::new(folder, path, String::new())));
                continue;
            }
            match rustix::fs::statat(&level.folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => return Ok(Some(Found { path, stat })),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(self.root.failed(format!("object {path}"), errno)),
            }
        }
        Ok(None)
    }
}

impl Level {
    fn new(folder: OwnedFd, path: String, prefix: String) -> Self {
        Self {
            folder,
            path,
            prefix,
            names: VecDeque::new(),
            after: String::new(),
            more: true,
        }
    }

    /// Reads the next names in order. Folders have a slash at their end.
    fn read_pass(
        &mut self,
        root: &Root,
        wanted: Wanted,
        pass_names: usize,
    ) -> Result<(), StoreError> {
        let failed = |errno| root.failed(format!("folder {}", self.path), errno);
        let mut next: BinaryHeap<String> = BinaryHeap::new();
        let mut dropped = false;
        for entry in Dir::read_from(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // A name that is not UTF-8 is no key.
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if !self.is_of_interest(name, wanted) {
                continue;
            }
            let Some(name) = self.sort_name(name, entry.file_type(), wanted, root)? else {
                continue;
            };
            if name <= self.after {
                continue;
            }
            next.push(name);
            if next.len() > pass_names {
                next.pop();
                dropped = true;
            }
        }
        self.names = next.into_sorted_vec().into();
        self.more = dropped;
        if let Some(last) = self.names.back() {
            self.after.clone_from(last);
        }
        Ok(())
    }

    fn is_of_interest(&self, name: &str, wanted: Wanted) -> bool {
        if name == "." || name == ".." || !name.starts_with(&self.prefix) {
            return false;
        }
        // Every ext4 volume has it, and only root may look into it.
        if self.path.is_empty() && name == "lost+found" {
            return false;
        }
        wanted == Wanted::Temporary || !is_temporary(name)
    }

    /// The name as it sorts; `None` for what is neither a wanted file nor a folder.
    fn sort_name(
        &self,
        name: &str,
        kind: FileType,
        wanted: Wanted,
        root: &Root,
    ) -> Result<Option<String>, StoreError> {
        let kind = match kind {
            // Some file systems do not say it in the listing.
            FileType::Unknown => {
                match rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(Errno::NOENT) => return Ok(None),
                    Err(errno) => {
                        return Err(root.failed(format!("object {}{name}", self.path), errno));
                    }
                }
            }
            kind => kind,
        };
        match kind {
            FileType::Directory => Ok(Some(format!("{name}/"))),
            FileType::RegularFile => {
                let is_wanted = is_temporary(name) == (wanted == Wanted::Temporary);
                Ok(is_wanted.then(|| name.to_owned()))
            }
            // Left out it would make part of an archive look absent, which is worse than a failure.
            FileType::Symlink if wanted == Wanted::Objects => Err(in_the_way(
                format!("object {}{name}", self.path),
                "it is a symbolic link, which the file store does not follow",
            )),
            _ => Ok(None),
        }
    }
}

/// Removes the temporary files last written to before `limit` that were to become an object of ours, and answers their
/// number.
pub(super) fn sweep(root: &Arc<Root>, limit: DateTime<Utc>, ours: Ours) -> Result<u64, StoreError> {
    let mut walk = Walk::start(Arc::clone(root), "", Wanted::Temporary)?;
    let mut removed = 0;
    while let Some(found) = walk.next()? {
        if modified(&found.stat) >= limit || !target_of(&found.path).is_some_and(|key| ours(&key)) {
            continue;
        }
        let mut folders: Vec<&str> = found.path.split('/').collect();
        let name = folders.pop().expect("a path has a last component");
        let Some(folder) = root.folder(&folders)? else {
            continue;
        };
        match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
            Ok(()) => removed += 1,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(root.failed(found.path, errno)),
        }
    }
    Ok(removed)
}

/// The key of the object that a temporary file was to become: `a/.b.<process>.<number>.wale-tmp` → `a/b`.
fn target_of(path: &str) -> Option<String> {
    let (folder, name) = match path.rsplit_once('/') {
        Some((folder, name)) => (Some(folder), name),
        None => (None, path),
    };
    let stem = name.strip_prefix('.')?.strip_suffix(TEMPORARY_SUFFIX)?;
    let target = stem.rsplitn(3, '.').nth(2)?;
    Some(match folder {
        Some(folder) => format!("{folder}/{target}"),
        None => target.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_file_tells_what_it_was_to_become() {
        let cases = [
            ("a/.b.1.2f.wale-tmp", Some("a/b")),
            (".b.tar.zst.1.2.wale-tmp", Some("b.tar.zst")),
            ("a/.b.wale-tmp", None),
            ("a/b", None),
        ];
        for (path, expected) in cases {
            assert_eq!(target_of(path).as_deref(), expected, "{path}");
        }
    }

    fn listed(root: &std::path::Path, prefix: &str, pass_names: usize) -> Vec<String> {
        let root = Arc::new(Root::new(root.to_owned()));
        let mut walk = Walk::start(root, prefix, Wanted::Objects).expect("starts");
        walk.pass_names = pass_names;
        let mut keys = Vec::new();
        while let Some(found) = walk.next().expect("goes on") {
            keys.push(found.path);
        }
        keys
    }

    #[test]
    fn fault_88_a_walk_begins_behind_a_name_wherever_that_lies() {
        let root = tempfile::tempdir().expect("made");
        let mut keys = Vec::new();
        for folder in ["", "a/", "a/b/", "a.b/"] {
            std::fs::create_dir_all(root.path().join(folder)).expect("made");
            for n in 0..4 {
                let key = format!("{folder}f{n}");
                std::fs::write(root.path().join(&key), "").expect("written");
                keys.push(key);
            }
        }
        keys.sort();
        for prefix in ["", "a", "a/", "a/f", "f", "a/b/f1"] {
            for after in [
                "", "a", "a/", "a/b/f1", "a/f", "a/f2", "a/f2.zst", "a/g", "f1", "f1/x", "z",
            ] {
                let shared = Arc::new(Root::new(root.path().to_owned()));
                let mut walk = Walk::start_after(shared, prefix, after).expect("starts");
                walk.pass_names = 2;
                let mut found = Vec::new();
                while let Some(file) = walk.next().expect("goes on") {
                    found.push(file.path);
                }
                let wanted = |key: &&String| key.starts_with(prefix) && key.as_str() > after;
                let expected: Vec<_> = keys.iter().filter(wanted).cloned().collect();
                assert_eq!(found, expected, "{prefix:?} after {after:?}");
            }
        }
    }

    #[test]
    fn order_does_not_depend_on_the_length_of_a_pass() {
        let root = tempfile::tempdir().expect("made");
        let mut expected = Vec::new();
        for folder in ["", "a/", "a/b/", "a-/", "a.b/", "a0/"] {
            std::fs::create_dir_all(root.path().join(folder)).expect("made");
            for n in 0..7 {
                let key = format!("{folder}f{n}");
                std::fs::write(root.path().join(&key), "").expect("written");
                expected.push(key);
            }
        }
        expected.sort();
        for pass_names in [1, 2, 3, 100] {
            assert_eq!(listed(root.path(), "", pass_names), expected);
        }
        for prefix in [
            "a", "a/", "a/b", "a/b/f", "a/b/f3", "f", "x", "x/y", "a/f1/",
        ] {
            let selected: Vec<_> = expected
                .iter()
                .filter(|key| key.starts_with(prefix))
                .cloned()
                .collect();
            assert_eq!(listed(root.path(), prefix, 2), selected, "{prefix}");
        }
    }

    #[test]
    fn what_is_no_object_is_not_listed() {
        use std::os::unix::ffi::OsStrExt;
        let root = tempfile::tempdir().expect("made");
        std::fs::create_dir(root.path().join("lost+found")).expect("made");
        for name in ["a", ".a.1.2.wale-tmp", "lost+found/x", "line\nbreak"] {
            std::fs::write(root.path().join(name), "").expect("written");
        }
        let not_utf8 = std::ffi::OsStr::from_bytes(b"\xff");
        std::fs::write(root.path().join(not_utf8), "").expect("written");
        let root = Arc::new(Root::new(root.path().to_owned()));
        let mut walk = Walk::start(root, "", Wanted::Objects).expect("starts");
        let objects = walk.next_objects().expect("listed");
        let keys: Vec<_> = objects.iter().map(|meta| meta.key.as_str()).collect();
        assert_eq!(keys, ["a"]);
        assert!(walk.next_objects().expect("over").is_empty());
    }

    #[test]
    fn an_error_comes_after_what_was_found_before_it() {
        let root = tempfile::tempdir().expect("made");
        std::fs::write(root.path().join("a"), "").expect("written");
        std::fs::create_dir(root.path().join("b")).expect("made");
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("b/link")).expect("made");
        let root = Arc::new(Root::new(root.path().to_owned()));
        let mut walk = Walk::start(root, "", Wanted::Objects).expect("starts");
        assert_eq!(walk.next_objects().expect("a").len(), 1);
        let error = walk.next_objects().expect_err("the link");
        assert!(error.to_string().contains("b/link"), "{error}");
        assert!(walk.next_objects().expect("over").is_empty());
    }
}
