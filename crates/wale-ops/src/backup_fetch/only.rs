//! Some files of a base backup, into an empty folder of the user's own: `backup-fetch --only`.
//!
//! What comes of it is a folder of files, never a cluster: no directory that a server needs is made, no recovery settings, and
//! `global/pg_control` has another name there. The files appear when all of them came and were checked: until then they
//! lie in a folder whose name says that they are not whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wale_archive::member_list::NameQuestion;
use wale_archive::{Archive, BackupSelector};
use wale_cluster::{ClusterError, Owner, RestoreTree, WriteOut, durable};
use wale_format::BackupName;
use wale_pg::{ControlFile, byte_text};
use wale_pipeline::{CancellationToken, Progress, blocking, default_workers};
use wale_storage::PacedStore;

use super::aim::{self, Aim};
use super::pattern::PathPattern;
use super::source::{Source, Sources};
use super::{facts, plan};
use crate::backup_content::{BackupReader, Sink, SomeFiles};
use crate::error::{Kind, OpError, Result};

/// Where files lie until all have come.
const INCOMPLETE: &str = "wale_incomplete";

/// What the control file is called there: with its own name, and with everything else, a server would start on files that need
/// their WAL first.
const CONTROL_FILE: &str = "global/pg_control.of_backup";

/// Bits of the files: the user's own.
const FILE_MODE: u32 = 0o600;
/// Bits of the folders.
const FOLDER_MODE: u32 = 0o700;

/// Which files are wanted, and where they go.
#[derive(Debug, Clone)]
pub struct SomeOptions {
    /// The folder: missing or empty.
    pub target: PathBuf,
    /// Which backup.
    pub selector: BackupSelector,
    /// Which of its files.
    pub patterns: Vec<PathPattern>,
    /// Partitions read at the same time.
    pub workers: usize,
    /// Owner of the files; `None` is the owner of the target (or of its parent).
    pub owner: Option<Owner>,
}

impl SomeOptions {
    /// These files of the latest backup.
    #[must_use]
    pub fn new(target: PathBuf, patterns: Vec<PathPattern>) -> Self {
        Self {
            target,
            selector: BackupSelector::Latest,
            patterns,
            workers: default_workers(),
            owner: None,
        }
    }
}

/// What was fetched.
#[derive(Debug)]
pub struct SomeReport {
    /// Of which backup.
    pub backup: BackupName,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the archive that were read for them, with what describes the backup.
    pub bytes_read: u64,
    /// Whether each was checked against a manifest.
    pub verified: bool,
    /// Sentences that say what was decided.
    pub notes: Vec<String>,
    /// How long it took.
    pub duration: Duration,
}

/// Fetches files of a base backup. What is in the folder in the end is whole.
///
/// # Errors
///
/// [`Kind::NotEmpty`], [`Kind::Usage`] and others before anything is written; [`Kind::NotFound`] when a pattern means no file of
/// the backup; `CorruptData` for what is damaged; those of the disk and of the store.
pub async fn fetch_some(
    archive: &Archive,
    options: &SomeOptions,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<SomeReport> {
    let begun = Instant::now();
    progress.set_phase("checking");
    let target = options.target.clone();
    blocking(move || check_empty(&target)).await??;
    let (owner, _) = facts::owner(options.owner, &options.target)?;
    let counted = Arc::new(PacedStore::new(Arc::clone(archive.store()), None));
    let archive = archive.over(counted.clone(), archive.budget().clone());
    let wanted = Arc::new(WantedFiles::new(&options.patterns));
    let (mut sources, mut notes) = choose(&archive, &options.selector, &wanted).await?;
    if sources.have_manifests() {
        let restored = sources.restored();
        wanted.check(&restored.name)?;
        let needs = restored.needs();
        plan::check_space(&facts::volumes(&options.target, &[], None, &needs)?)?;
        sources.spare_partitions(&archive).await;
    }
    notes.extend(what_is_read(sources.restored()));
    let target = options.target.clone();
    let folder = Arc::new(blocking(move || SomeFolder::open(&target, owner)).await??);
    let reading = Fetching {
        archive: &archive,
        options,
        progress,
        cancel,
    };
    let came = reading.read(&sources, &wanted, &folder).await;
    let (files, bytes) = match came {
        Ok(came) => came,
        Err(error) => {
            let _ = blocking(move || folder.remove()).await?;
            return Err(error);
        }
    };
    progress.set_phase("flushing");
    blocking(move || folder.finish()).await??;
    progress.set_phase("done");
    Ok(SomeReport {
        backup: sources.restored().name.clone(),
        files,
        bytes,
        bytes_read: counted.bytes_read(),
        verified: sources.have_manifests(),
        notes,
        duration: begun.elapsed(),
    })
}

/// The backup, with those files of it that are wanted, and sentences about it.
async fn choose(
    archive: &Archive,
    selector: &BackupSelector,
    wanted: &Arc<WantedFiles>,
) -> Result<(Sources, Vec<String>)> {
    let catalog = archive.catalog().await?;
    let aim = Aim::of("");
    let (chosen, notes) = aim::choose(archive, &catalog, selector, &aim).await?;
    let asked = Some(wanted.question());
    let sources = Sources::load_wanted(archive, &catalog, &chosen.entry, asked).await?;
    let told = chosen.passed_over.into_iter().chain(notes.notes);
    let told = told.chain(notes.warnings).chain(sources.chain_note());
    Ok((sources, told.collect()))
}

/// A sentence where whole partitions are read.
fn what_is_read(source: &Source) -> Option<String> {
    (!source.is_read_in_part()).then(|| {
        "all that the partitions hold is read: only a backup of wale's with zstd that is not encrypted can be read in part"
            .to_owned()
    })
}

/// The files that are wanted, and how many each pattern meant.
#[derive(Debug)]
struct WantedFiles {
    patterns: Vec<(PathPattern, AtomicU64)>,
}

impl WantedFiles {
    fn new(patterns: &[PathPattern]) -> Self {
        let patterns = patterns.iter().cloned();
        Self {
            patterns: patterns
                .map(|pattern| (pattern, AtomicU64::new(0)))
                .collect(),
        }
    }

    fn question(self: &Arc<Self>) -> NameQuestion {
        let wanted = Arc::clone(self);
        Arc::new(move |path| wanted.wants(path))
    }

    fn wants(&self, path: &str) -> bool {
        let mut is_wanted = false;
        for (pattern, count) in &self.patterns {
            if pattern.matches(path) {
                count.fetch_add(1, Ordering::Relaxed);
                is_wanted = true;
            }
        }
        is_wanted
    }

    /// Refuses a pattern that meant nothing.
    fn check(&self, backup: &BackupName) -> Result<()> {
        let mut patterns = self.patterns.iter();
        let idle = patterns.find(|(_, count)| count.load(Ordering::Relaxed) == 0);
        let Some((pattern, _)) = idle else {
            return Ok(());
        };
        Err(OpError::new(
            Kind::NotFound,
            format!("backup {backup} has no file that \"{pattern}\" means"),
        )
        .detail("Nothing was fetched.")
        .hint(
            "a pattern is of the whole path in the data directory: base/16384/* means all files of a database, \
             pg_relation_filepath() says the path of a table, and its further files have a suffix (16400*)",
        ))
    }
}

/// What reads them.
struct Fetching<'a> {
    archive: &'a Archive,
    options: &'a SomeOptions,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
}

impl Fetching<'_> {
    /// Gives how many files there are in the end, and their bytes.
    async fn read(
        &self,
        sources: &Sources,
        wanted: &Arc<WantedFiles>,
        folder: &Arc<SomeFolder>,
    ) -> Result<(u64, u64)> {
        self.progress.set_phase("restoring files");
        let reader = BackupReader {
            archive: self.archive,
            progress: self.progress,
            cancel: self.cancel,
            workers: self.options.workers,
            described: sources.held_bytes(),
            damages: None,
        };
        let (mut files, mut bytes) = (0, 0);
        let mut kept = BTreeMap::new();
        for source in sources.all() {
            let some: SomeFiles = reader.read_some(source, wanted.question(), folder).await?;
            files += some.files;
            bytes += some.bytes;
            kept.extend(some.kept);
        }
        wanted.check(&sources.restored().name)?;
        let folder = Arc::clone(folder);
        blocking(move || {
            let mut kept = kept.iter();
            kept.try_for_each(|(path, content)| folder.put(path, content))
        })
        .await??;
        Ok((files, bytes))
    }
}

fn check_empty(target: &Path) -> Result<()> {
    let shown = target.display();
    let mut entries = match std::fs::read_dir(target) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(OpError::from_io(error, format_args!("list {shown}"))),
    };
    match entries.next() {
        None => Ok(()),
        Some(entry) => {
            let name = entry.map(|entry| entry.file_name()).unwrap_or_default();
            Err(OpError::new(
                Kind::NotEmpty,
                format!("\"{shown}\" is not empty: it has \"{}\"", name.display()),
            )
            .hint("name an empty folder, or one that does not exist yet; what an interrupted fetch left may be removed"))
        }
    }
}

/// Where the files go.
#[derive(Debug)]
struct SomeFolder {
    target: PathBuf,
    outer: RestoreTree,
    tree: RestoreTree,
}

impl SomeFolder {
    fn open(target: &Path, owner: Owner) -> Result<Self> {
        let make = |path: &Path| {
            RestoreTree::create(path, FOLDER_MODE, Some(owner)).map_err(|error| {
                OpError::from_cluster(error, format_args!("write {}", path.display()))
            })
        };
        Ok(Self {
            outer: make(target)?,
            tree: make(&target.join(INCOMPLETE))?,
            target: target.to_owned(),
        })
    }

    /// Makes a whole file that no sink got.
    fn put(&self, path: &str, content: &[u8]) -> Result<()> {
        use std::io::Write as _;
        let path = if path == ControlFile::PATH {
            CONTROL_FILE
        } else {
            path
        };
        let mut file = self
            .tree
            .create_file(path, FILE_MODE)
            .map_err(|error| could_not_write(error, path))?;
        file.write_all(content)
            .map_err(|error| OpError::from_io(error, format_args!("write \"{path}\"")))
    }

    /// Gives the files their place, when all are durable.
    fn finish(&self) -> Result<()> {
        let failed =
            |error, path: &Path| OpError::from_io(error, format_args!("write {}", path.display()));
        let incomplete = self.tree.path();
        durable::sync_tree(incomplete).map_err(|error| failed(error, incomplete))?;
        let entries = std::fs::read_dir(incomplete).map_err(|error| failed(error, incomplete))?;
        for entry in entries {
            let entry = entry.map_err(|error| failed(error, incomplete))?;
            let to = self.target.join(entry.file_name());
            durable::rename(&entry.path(), &to).map_err(|error| failed(error, &to))?;
        }
        self.remove()
    }

    /// Removes what is not whole.
    fn remove(&self) -> Result<()> {
        self.outer
            .clear_where(|name| name == INCOMPLETE)
            .map_err(|error| could_not_write(error, INCOMPLETE))
    }
}

impl Sink for SomeFolder {
    type File = WriteOut;
    type Body = File;
    type Pages = File;

    fn judge(&self, _: &str, _: u64) -> Result<()> {
        Ok(())
    }

    /// Folders come with the files in them.
    fn directory(&self, _: &str, _: u32) -> Result<()> {
        Ok(())
    }

    fn file(&self, path: &str, _: u32) -> Result<WriteOut> {
        let file = self.tree.create_file(path, FILE_MODE);
        file.map(WriteOut::new)
            .map_err(|error| could_not_write(error, path))
    }

    fn reopen(&self, path: &str) -> Result<(File, u64)> {
        let failed = |error| OpError::from_io(error, format_args!("read \"{path}\""));
        let file = self.tree.open_file(path).map_err(|error| {
            OpError::from_cluster(error, format_args!("read \"{}\"", byte_text::shown(path)))
        })?;
        let size = file.metadata().map_err(failed)?.len();
        Ok((file, size))
    }

    fn change(&self, path: &str) -> Result<File> {
        let file = self.tree.change_file(path);
        file.map_err(|error| could_not_write(error, path))
    }
}

fn could_not_write(error: ClusterError, path: &str) -> OpError {
    OpError::from_cluster(error, format_args!("write \"{}\"", byte_text::shown(path)))
}
