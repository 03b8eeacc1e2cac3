//! Where the files go: the data directory, the tablespaces elsewhere and the WAL directory elsewhere, each a tree that
//! nothing leaves. Sync; for blocking threads.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use wale_archive::Remedy;
use wale_cluster::{ClusterError, Owner, RestoreTree, WriteOut, durable, path_of_text, recovery};
use wale_pg::{MajorVersion, byte_text, exclusion};

use super::held::HeldDirectory;
use super::tablespaces::PlannedTablespace;
use crate::backup_content::Sink;
use crate::error::{Kind, OpError, Result};

/// The WAL directory, when it is not simply a directory in the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WalPlace {
    /// A link to this directory is to be made.
    Link(PathBuf),
    /// A link to this directory is there already: an image made it.
    LinkThere(PathBuf),
}

impl WalPlace {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Link(path) | Self::LinkThere(path) => path,
        }
    }
}

/// Everything a restore writes into.
#[derive(Debug)]
pub(super) struct Target {
    main: RestoreTree,
    /// `pg_tblspc/<oid>` and its tree.
    tablespaces: Vec<(String, RestoreTree)>,
    wal: Option<RestoreTree>,
    group_access: bool,
    /// Configuration files that will be read when all files are there, and so have a bound.
    read_later: Vec<&'static str>,
    /// Let go when the last thread that writes has ended, for each of them has the target.
    _held: Option<HeldDirectory>,
}

impl Target {
    /// Opens the trees and makes the links to those outside. The data directory must exist.
    pub(super) fn open(
        path: &Path,
        tablespaces: &[PlannedTablespace],
        wal: Option<&WalPlace>,
        major: Option<MajorVersion>,
        owner: Owner,
    ) -> Result<Self> {
        let group_access = major.is_some_and(MajorVersion::has_group_access);
        let open = || -> Result<Self, ClusterError> {
            let main = RestoreTree::open(path, Some(owner))?;
            let mut outside = Vec::new();
            for space in tablespaces {
                let link = format!("pg_tblspc/{}", space.oid);
                let tree = RestoreTree::create(&space.target, 0o700, Some(owner))?;
                main.symlink(&link, &space.target)?;
                outside.push((link, tree));
            }
            let wal = match wal {
                None => None,
                Some(place) => {
                    if let WalPlace::Link(path) = place {
                        main.symlink("pg_wal", path)?;
                    }
                    Some(RestoreTree::create(place.path(), 0o700, Some(owner))?)
                }
            };
            Ok(Self {
                main,
                tablespaces: outside,
                wal,
                group_access,
                read_later: Vec::new(),
                _held: None,
            })
        };
        open().map_err(|error| {
            OpError::from_cluster(error, format_args!("prepare {}", path.display()))
        })
    }

    /// The same, which keeps other restores out for as long as it lives.
    pub(super) fn held_by(self, held: HeldDirectory) -> Self {
        Self {
            _held: Some(held),
            ..self
        }
    }

    /// The same, which refuses these configuration files where they are too large to be read.
    pub(super) fn reading_later(self, read_later: Vec<&'static str>) -> Self {
        Self { read_later, ..self }
    }

    /// The data directory.
    pub(super) fn path(&self) -> &Path {
        self.main.path()
    }

    /// Where a path of the data directory is.
    pub(super) fn place(&self, path: &str) -> PathBuf {
        self.path().join(path_of_text(path))
    }

    /// Permission bits of a file that is made here, as the server would make it: readable for the group where the
    /// restored data directory is.
    pub(super) fn file_mode(&self) -> u32 {
        durable::mode_beside(&self.path().join("backup_label"))
    }

    /// Gives a file that a member brought the bits of one that is made here: older backups have their label without
    /// the group's.
    pub(super) fn share(&self, path: &str) -> Result<()> {
        let (tree, relative) = self.route(path);
        let file = match tree.open_file(relative) {
            Ok(file) => file,
            Err(ClusterError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(could_not_write(error, path)),
        };
        let mode = std::os::unix::fs::PermissionsExt::from_mode(self.file_mode());
        file.set_permissions(mode)
            .map_err(|error| OpError::from_io(error, format_args!("write \"{path}\"")))
    }

    /// Makes the directories that a server needs and a backup may lack.
    pub(super) fn make_skeleton(&self, major: Option<MajorVersion>) -> Result<()> {
        let own = ["pg_wal", "pg_wal/archive_status", "pg_tblspc", "global"];
        let needed = major.into_iter().flat_map(exclusion::emptied_directories);
        for directory in own.into_iter().chain(needed) {
            self.directory(directory, 0o700)?;
        }
        Ok(())
    }

    /// Makes a directory with the group bits that the recorded mode has and the version allows.
    pub(super) fn directory(&self, path: &str, mode: u32) -> Result<()> {
        let (tree, relative) = self.route(path);
        tree.create_directory(relative, self.kept(mode, 0o700, 0o050))
            .map_err(|error| could_not_write(error, path))
    }

    /// Makes an empty file, likewise.
    pub(super) fn file(&self, path: &str, mode: u32) -> Result<File> {
        let (tree, relative) = self.route(path);
        tree.create_file(relative, self.kept(mode, 0o600, 0o040))
            .map_err(|error| could_not_write(error, path))
    }

    /// Makes a symbolic link in the data directory; `false` when something has its name.
    pub(super) fn link_inside(&self, path: &str, to: &str) -> Result<bool> {
        if self.place(path).symlink_metadata().is_ok() {
            return Ok(false);
        }
        self.main
            .symlink(path, &path_of_text(to))
            .map_err(|error| could_not_write(error, path))?;
        Ok(true)
    }

    /// Makes a whole small file.
    pub(super) fn small_file(&self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        use std::io::Write as _;
        let mut file = self.file(path, mode)?;
        file.write_all(content)
            .map_err(|error| OpError::from_io(error, format_args!("write \"{path}\"")))
    }

    /// Flushes every file system written to.
    pub(super) fn flush(&self) -> Result<()> {
        let outside = self
            .tablespaces
            .iter()
            .map(|(_, tree)| tree)
            .chain(&self.wal);
        let mounted = self.mounted_wal();
        let paths = outside.chain([&self.main]).map(RestoreTree::path);
        for path in paths.chain(mounted.as_deref()) {
            durable::sync_tree(path).map_err(|error| {
                OpError::from_io(error, format_args!("flush {}", path.display()))
            })?;
        }
        Ok(())
    }

    /// A `pg_wal` that is a volume of its own, mounted in the data directory.
    fn mounted_wal(&self) -> Option<PathBuf> {
        let path = self.path().join("pg_wal");
        let device = |path: &Path| std::fs::symlink_metadata(path).map(|meta| meta.dev()).ok();
        (device(&path)? != device(self.path())?).then_some(path)
    }

    /// What a mode keeps of a recorded one: never more than PostgreSQL accepts.
    fn kept(&self, mode: u32, always: u32, group: u32) -> u32 {
        if self.group_access {
            always | (mode & group)
        } else {
            always
        }
    }

    fn route<'p>(&self, path: &'p str) -> (&RestoreTree, &'p str) {
        if let Some(wal) = &self.wal
            && let Some(rest) = below(path, "pg_wal")
        {
            return (wal, rest);
        }
        for (link, tree) in &self.tablespaces {
            if let Some(rest) = below(path, link) {
                return (tree, rest);
            }
        }
        (&self.main, path)
    }
}

impl Sink for Target {
    type File = WriteOut;
    type Body = File;
    type Pages = File;

    fn judge(&self, path: &str, size: u64) -> Result<()> {
        if self.read_later.contains(&path) {
            check_configuration(path, size)?;
        }
        Ok(())
    }

    fn directory(&self, path: &str, mode: u32) -> Result<()> {
        self.directory(path, mode)
    }

    fn file(&self, path: &str, mode: u32) -> Result<WriteOut> {
        self.file(path, mode).map(WriteOut::new)
    }

    fn reopen(&self, path: &str) -> Result<(File, u64)> {
        let (tree, relative) = self.route(path);
        let failed = |error| OpError::from_io(error, format_args!("read \"{path}\""));
        let file = tree.open_file(relative).map_err(|error| {
            OpError::from_cluster(error, format_args!("read \"{}\"", byte_text::shown(path)))
        })?;
        let size = file.metadata().map_err(failed)?.len();
        Ok((file, size))
    }

    fn change(&self, path: &str) -> Result<File> {
        let (tree, relative) = self.route(path);
        tree.change_file(relative)
            .map_err(|error| could_not_write(error, path))
    }
}

/// Refuses a configuration file that is beyond all bounds: a restore could not write its settings beside it.
pub(super) fn check_configuration(path: &str, size: u64) -> Result<()> {
    if size <= recovery::FILE_BYTES_MAX {
        return Ok(());
    }
    Err(OpError::new(
        Kind::Configuration,
        format!("\"{path}\" in the backup has {size} bytes: no configuration file of PostgreSQL's is so large"),
    )
    .detail(format!("At most {} are read.", recovery::FILE_BYTES_MAX))
    .hint(format!(
        "restore with backup-fetch, and write the recovery settings yourself; or put a {path} of yours, which takes its \
         place, into the folder of your configuration files"
    ))
    .remedy(Remedy::ConfigurationFolder))
}

/// The rest of `path` at or below `folder`.
fn below<'p>(path: &'p str, folder: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(folder)?;
    if rest.is_empty() {
        Some(rest)
    } else {
        rest.strip_prefix('/')
    }
}

fn could_not_write(error: ClusterError, path: &str) -> OpError {
    OpError::from_cluster(error, format_args!("write \"{}\"", byte_text::shown(path)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_of_tablespaces_and_wal_go_outside_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let (data, space, wal) = (place("data"), place("space"), place("wal"));
        let spaces = [PlannedTablespace {
            oid: 7,
            origin: "/old".into(),
            target: space.clone(),
            named_by: super::super::tablespaces::NamedBy::Request,
        }];
        let link = WalPlace::Link(wal.clone());
        let major = MajorVersion::parse("15").unwrap();
        let owner = Owner::of_process();
        let target = Target::open(&data, &spaces, Some(&link), Some(major), owner).unwrap();
        target.make_skeleton(Some(major)).unwrap();
        target
            .small_file("pg_tblspc/7/PG_15_1/5/6", 0o644, b"x")
            .unwrap();
        target.small_file("base/1/2", 0o600, b"y").unwrap();
        target.directory("", 0o755).unwrap();
        assert_eq!(std::fs::read(space.join("PG_15_1/5/6")).unwrap(), b"x");
        assert_eq!(std::fs::read_link(data.join("pg_tblspc/7")).unwrap(), space);
        assert_eq!(std::fs::read_link(data.join("pg_wal")).unwrap(), wal);
        assert!(wal.join("archive_status").is_dir() && data.join("pg_notify").is_dir());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&data), 0o750);
        assert_eq!(mode(&space.join("PG_15_1/5/6")), 0o640);
        assert_eq!(mode(&data.join("base/1/2")), 0o600);
        // Another oid is no way out, and a link that is in the way is not followed.
        std::os::unix::fs::symlink("/tmp", data.join("pg_tblspc/8")).unwrap();
        assert!(target.small_file("pg_tblspc/8/x", 0o600, b"").is_err());
        assert!(
            target
                .small_file("pg_tblspc/7/../../x", 0o600, b"")
                .is_err()
        );
        target.flush().unwrap();
    }
}
