//! Objects as files below a folder: local disks, NFS, a volume shared between containers.
//!
//! ```text
//!   put: folder(s), each durable ─▶ .<name>.<pid>.<n>.wale-tmp ─▶ write, fdatasync
//!        ─▶ rename without replacing (or link) ─▶ fsync of the folder ─▶ answer
//! ```
//!
//! WAL may be deleted by the server the moment we answer, so the order above is the whole point of this
//! store. It refuses to know what the files hold.
//!
//! * A root that is missing, or was a mount point and is none now, is [`StoreError::Unavailable`]: an
//!   unmounted volume never looks like an empty archive.
//! * Links below the root are refused, not followed.
//! * Files are made with mode 0600 and folders with 0700, under whatever user the process runs as.
//! * Blocking calls run on the runtime's blocking threads, one piece of [`PIECE_BYTES`] at a time.

mod errno;
mod folder;
mod read;
mod walk;
mod write;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use futures_util::stream::{self, BoxStream, Fuse};
use futures_util::{StreamExt, TryStreamExt};
use rustix::fs::AtFlags;
use rustix::io::Errno;

use self::errno::{failed_io, object};
use self::folder::{Root, sync_folder};
use self::read::Reading;
use self::walk::{Walk, Wanted, object_meta, sweep};
use self::write::{Placed, Placing, make_durable, prepare};
use crate::store::{check_prefix, moment_before};
use crate::{
    Body, Looking, Object, ObjectKey, ObjectMeta, Ours, PIECE_BYTES, PutOutcome, Store, StoreError,
};

/// Where a file store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStoreOptions {
    /// Absolute path of the root folder.
    pub root: PathBuf,
    /// Whether the root folder is made, with the parents it lacks, when the store is opened. It is never
    /// made later: a folder that vanishes is a volume that was unmounted.
    pub create: bool,
}

/// Objects as files below a folder. Clones share what they know of it.
#[derive(Debug, Clone)]
pub struct FileStore {
    root: Arc<Root>,
}

impl FileStore {
    /// Opens the store. Blocks only when it creates folders.
    ///
    /// A root that does not exist is no error here, so that a service may start before its volume is
    /// mounted: every verb then says [`StoreError::Unavailable`], until it is there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] when the root is not an absolute path; when it is to be created, any
    /// error of that.
    pub fn open(options: FileStoreOptions) -> Result<Self, StoreError> {
        let FileStoreOptions { root, create } = options;
        let is_absolute = root.is_absolute();
        let root = Root::new(root);
        if !is_absolute {
            let reason = "the path of the folder is not absolute";
            return Err(StoreError::unavailable(root.location(), reason));
        }
        if create {
            root.create()?;
        }
        Ok(Self {
            root: Arc::new(root),
        })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Arc<Root>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let root = Arc::clone(&self.root);
        match tokio::task::spawn_blocking(move || work(root)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(payload) => std::panic::resume_unwind(payload),
                Err(_) => Err(StoreError::unavailable(
                    self.root.location(),
                    "the process is shutting down",
                )),
            },
        }
    }

    async fn store(
        &self,
        key: &ObjectKey,
        body: Body,
        placing: Placing,
    ) -> Result<PutOutcome, StoreError> {
        // The last piece ends with the body, and then the body is asked once more for a further piece.
        let mut body = body.fuse();
        let target = key.clone();
        let prepared = self
            .blocking(move |root| prepare(&root, &target, placing))
            .await?;
        let Some(mut pending) = prepared else {
            return Ok(PutOutcome::Exists);
        };
        loop {
            let pieces = match gather(key, &mut body).await {
                Ok(pieces) if pieces.is_empty() => break,
                Ok(pieces) => pieces,
                Err(error) => {
                    self.blocking(move |_| {
                        drop(pending);
                        Ok(())
                    })
                    .await?;
                    return Err(error);
                }
            };
            let target = key.clone();
            pending = self
                .blocking(move |root| match pending.write(&pieces) {
                    Ok(()) => Ok(pending),
                    Err(error) => Err(failed_io(root.location(), object(&target), error)),
                })
                .await?;
        }
        let target = key.clone();
        self.blocking(move |root| {
            let (_, name) = target.split();
            match pending.place(name, placing) {
                Ok(Placed::Created(stat)) => Ok(PutOutcome::Created(object_meta(target, &stat))),
                Ok(Placed::Exists) => Ok(PutOutcome::Exists),
                Err(errno) => Err(root.failed(object(&target), errno)),
            }
        })
        .await
    }
}

/// Chunks of a body up to a piece; none at its end.
async fn gather(key: &ObjectKey, body: &mut Fuse<Body>) -> Result<Vec<Bytes>, StoreError> {
    let mut pieces = Vec::new();
    let mut bytes = 0;
    while bytes < PIECE_BYTES {
        match body.try_next().await {
            Ok(Some(piece)) => {
                bytes += piece.len();
                pieces.extend((!piece.is_empty()).then_some(piece));
            }
            Ok(None) => break,
            Err(source) => {
                return Err(StoreError::BodyFailed {
                    key: key.clone(),
                    source,
                });
            }
        }
    }
    Ok(pieces)
}

fn delete(root: &Root, key: &ObjectKey) -> Result<(), StoreError> {
    let (folders, name) = key.split();
    let Some(folder) = root.folder(&folders)? else {
        return Ok(());
    };
    match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
        Ok(()) => {}
        // A folder of this name holds other objects; there is none of this name itself.
        Err(Errno::NOENT | Errno::ISDIR) => return Ok(()),
        Err(errno) => return Err(root.failed(object(key), errno)),
    }
    // Durable, because the caller may go on to delete what this object refers to.
    sync_folder(&folder).map_err(|errno| root.failed(object(key), errno))?;
    root.remove_empty(&folders);
    Ok(())
}

impl FileStore {
    /// An object, or these bytes of one.
    async fn opened(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
    ) -> Result<Object, StoreError> {
        let target = key.clone();
        let (reading, meta) = self
            .blocking(move |root| Reading::open(&root, &target, range))
            .await?;
        let start = (self.clone(), reading);
        let body = stream::try_unfold(start, |(store, mut reading)| async move {
            if reading.is_over() {
                return Ok(None);
            }
            let (piece, reading) = store
                .blocking(move |root| Ok((reading.next_piece(&root)?, reading)))
                .await?;
            Ok(Some((piece, (store, reading))))
        });
        Ok(Object {
            meta,
            body: body.boxed(),
        })
    }

    /// The objects of a walk, batch by batch.
    fn walked(&self, walk: Walk) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        let batches = stream::try_unfold((self.clone(), walk), |(store, mut walk)| async move {
            let (batch, walk) = store
                .blocking(move |_| Ok((walk.next_objects()?, walk)))
                .await?;
            let more = !batch.is_empty();
            let results = stream::iter(batch.into_iter().map(Ok));
            Ok::<_, StoreError>(more.then_some((results, (store, walk))))
        });
        batches.try_flatten().boxed()
    }
}

#[async_trait]
impl Store for FileStore {
    async fn put_if_absent(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        self.store(key, body, Placing::IfAbsent).await
    }

    async fn put(&self, key: &ObjectKey, body: Body) -> Result<ObjectMeta, StoreError> {
        match self.store(key, body, Placing::Replace).await? {
            PutOutcome::Created(meta) => Ok(meta),
            PutOutcome::Exists => unreachable!("a file that replaces never meets another"),
        }
    }

    async fn get(&self, key: &ObjectKey) -> Result<Object, StoreError> {
        self.opened(key, None).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Object, StoreError> {
        self.opened(key, Some(range)).await
    }
    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        let target = key.clone();
        self.blocking(move |root| match Reading::open(&root, &target, None) {
            Ok((_, meta)) => Ok(Some(meta)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    async fn confirm(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        let target = key.clone();
        self.blocking(move |root| {
            let stat = make_durable(&root, &target)?;
            Ok(stat.map(|stat| object_meta(target, &stat)))
        })
        .await
    }

    async fn list(
        &self,
        prefix: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        check_prefix(prefix)?;
        let prefix = prefix.to_owned();
        let walk = self
            .blocking(move |root| Walk::start(root, &prefix, Wanted::Objects))
            .await?;
        Ok(self.walked(walk))
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        check_prefix(prefix)?;
        let (prefix, after) = (prefix.to_owned(), after.to_owned());
        let walk = self
            .blocking(move |root| Walk::start_after(root, &prefix, &after))
            .await?;
        Ok(self.walked(walk))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let target = key.clone();
        self.blocking(move |root| delete(&root, &target)).await
    }

    /// Age alone decides. A process id says nothing about a file on a shared volume: in a container every
    /// process has the same one. So `older_than` must exceed any pause within an upload that is alive;
    /// an upload whose file is removed fails, and loses nothing.
    async fn discard_unfinished(
        &self,
        older_than: Duration,
        ours: Ours,
    ) -> Result<u64, StoreError> {
        let limit = moment_before(Utc::now(), older_than);
        self.blocking(move |root| match limit {
            None => Ok(0),
            Some(limit) => sweep(&root, limit, ours),
        })
        .await
    }

    /// A listing reads whole folders, of which that of WAL has a hundred thousand names; a name costs one call.
    fn looking(&self) -> Looking {
        Looking::ByName
    }

    fn location(&self) -> String {
        self.root.location().to_owned()
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.blocking(|root| root.open().map(drop)).await
    }
}

#[cfg(test)]
mod volume_tests;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;
    use crate::{BodyError, body_from};

    pub(super) fn store(root: &Path) -> FileStore {
        let options = FileStoreOptions {
            root: root.to_owned(),
            create: false,
        };
        FileStore::open(options).expect("opens")
    }

    fn temporary() -> (TempDir, FileStore) {
        let folder = tempfile::tempdir().expect("made");
        let store = store(folder.path());
        (folder, store)
    }

    pub(super) fn key(text: &str) -> ObjectKey {
        ObjectKey::new(text).expect("valid")
    }

    pub(super) fn body(bytes: usize) -> Body {
        body_from(Bytes::from(vec![b'x'; bytes]))
    }

    /// All files and folders below a folder, as paths from it.
    pub(super) fn tree(root: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("reads") {
                let path = entry.expect("reads").path();
                let relative = path.strip_prefix(root).expect("below");
                found.push(relative.display().to_string());
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                }
            }
        }
        found.sort();
        found
    }

    #[tokio::test]
    async fn conforms() {
        let (folder, store) = temporary();
        crate::conformance(Arc::new(store)).await;
        // A put whose future was dropped removes its file when the system call under way has ended.
        let is_file = |path: &String| folder.path().join(path).is_file();
        while tree(folder.path()).iter().any(is_file) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn objects_are_plain_private_files() {
        let (folder, store) = temporary();
        store.put(&key("wal/a b%c"), body(3)).await.expect("stored");
        assert_eq!(tree(folder.path()), ["wal", "wal/a b%c"]);
        for (path, mode) in [("wal", 0o700), ("wal/a b%c", 0o600)] {
            let metadata = std::fs::metadata(folder.path().join(path)).expect("stat");
            assert_eq!(metadata.permissions().mode() & 0o777, mode, "{path}");
        }
        assert_eq!(
            store.location(),
            format!("file://{}", folder.path().display())
        );
    }

    #[tokio::test]
    async fn a_missing_root_is_unavailable_and_never_empty() {
        let folder = tempfile::tempdir().expect("made");
        let root = folder.path().join("not/mounted");
        let store = store(&root);
        let a = key("a");
        for in_its_place in [None, Some("a file")] {
            if let Some(text) = in_its_place {
                std::fs::create_dir_all(root.parent().expect("has one")).expect("made");
                std::fs::write(&root, text).expect("written");
            }
            let errors = [
                store.put_if_absent(&a, body(1)).await.err(),
                store.put(&a, body(1)).await.err(),
                store.get(&a).await.err(),
                store.head(&a).await.err(),
                store.confirm(&a).await.err(),
                store.list("").await.err(),
                store.delete(&a).await.err(),
                store.check().await.err(),
                store
                    .discard_unfinished(Duration::ZERO, |_| true)
                    .await
                    .err(),
            ];
            for error in errors {
                assert!(error.expect("fails").is_transient());
            }
            assert!(!root.is_dir(), "no verb makes the root");
        }
        std::fs::remove_file(&root).expect("removed");
        std::fs::create_dir_all(&root).expect("mounted");
        store
            .put(&a, body(1))
            .await
            .expect("works without a restart");
    }

    #[tokio::test]
    async fn the_root_is_made_when_asked_for() {
        let folder = tempfile::tempdir().expect("made");
        let root = folder.path().join("a/b/c");
        let options = |root: &Path| FileStoreOptions {
            root: root.to_owned(),
            create: true,
        };
        for _ in 0..2 {
            let store = FileStore::open(options(&root)).expect("opens");
            store.check().await.expect("is there");
        }
        FileStore::open(options(Path::new("relative"))).expect_err("not absolute");
        FileStore::open(options(Path::new("/proc/wale"))).expect_err("cannot be made");
    }

    #[tokio::test]
    async fn links_are_not_followed() {
        let (folder, store) = temporary();
        let outside = tempfile::tempdir().expect("made");
        std::fs::write(outside.path().join("secret"), "secret").expect("written");
        symlink(outside.path(), folder.path().join("dir")).expect("linked");
        symlink(outside.path().join("secret"), folder.path().join("file")).expect("linked");
        symlink("nowhere", folder.path().join("dangling")).expect("linked");
        for name in ["dir/secret", "dir/deeper/secret", "file", "dangling"] {
            let key = key(name);
            let errors = [
                store.get(&key).await.err(),
                store.head(&key).await.err(),
                store.confirm(&key).await.err(),
                store.put(&key, body(1)).await.err(),
                store.put_if_absent(&key, body(1)).await.err(),
            ];
            for error in errors {
                let error = error.unwrap_or_else(|| panic!("{name} must fail"));
                assert!(matches!(error, StoreError::Io { .. }), "{name}: {error:?}");
            }
        }
        store.list("dir/").await.err().expect("must fail");
        let all: Result<Vec<_>, _> = store.list("").await.expect("starts").try_collect().await;
        all.expect_err("a link is not passed over in silence");
        store
            .delete(&key("dir/secret"))
            .await
            .expect_err("must fail");
        store
            .delete(&key("file"))
            .await
            .expect("removes the link only");
        let untouched = std::fs::read_to_string(outside.path().join("secret"));
        assert_eq!(untouched.expect("reads"), "secret");
        assert_eq!(tree(outside.path()), ["secret"]);
    }

    #[tokio::test]
    async fn files_and_folders_of_one_name() {
        let (folder, store) = temporary();
        store.put(&key("a/b"), body(1)).await.expect("stored");
        assert_eq!(store.head(&key("a")).await.expect("asked"), None);
        assert!(
            store
                .get(&key("a"))
                .await
                .expect_err("a folder")
                .is_not_found()
        );
        assert_eq!(store.head(&key("a/b/c")).await.expect("asked"), None);
        assert_eq!(store.confirm(&key("a")).await.expect("asked"), None);
        assert_eq!(store.confirm(&key("a/b/c")).await.expect("asked"), None);
        for name in ["a", "a/b/c"] {
            for placing in [Placing::IfAbsent, Placing::Replace] {
                let error = store.store(&key(name), body(1), placing).await;
                let error = error.expect_err("there is something in the way");
                assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
            }
        }
        store.delete(&key("a")).await.expect("there is no object a");
        store
            .delete(&key("a/b/c"))
            .await
            .expect("there is no object a/b/c");
        assert_eq!(tree(folder.path()), ["a", "a/b"]);
    }

    #[tokio::test]
    async fn row_2_a_failed_put_leaves_no_file() {
        let (folder, store) = temporary();
        let chunks = [Ok(Bytes::from(vec![0; 3 << 20])), Err(BodyError::new("no"))];
        let error = store.put(&key("a"), stream::iter(chunks).boxed()).await;
        assert!(matches!(error, Err(StoreError::BodyFailed { .. })));
        assert_eq!(tree(folder.path()), [""; 0]);
    }

    #[tokio::test]
    async fn row_37_a_known_object_costs_no_body() {
        let (_folder, store) = temporary();
        let a = key("wal/a");
        store.put_if_absent(&a, body(5)).await.expect("stored");
        for _ in 0..100 {
            let never = stream::poll_fn(|_| panic!("the body is not read")).boxed();
            let outcome = store.put_if_absent(&a, never).await.expect("asked");
            assert_eq!(outcome, PutOutcome::Exists);
        }
    }

    #[tokio::test]
    async fn an_ended_body_is_not_polled_again() {
        let (_folder, store) = temporary();
        for pieces in [0, 1, 3] {
            // `unfold` panics when it is polled after its end.
            let body = stream::unfold(0, move |sent| async move {
                (sent < pieces).then(|| (Ok(Bytes::from_static(b"x")), sent + 1))
            });
            let meta = store.put(&key("a"), body.boxed()).await.expect("stored");
            assert_eq!(meta.size, pieces);
        }
    }

    #[tokio::test]
    async fn temporary_files_are_hidden_and_swept_when_old() {
        let (folder, store) = temporary();
        let stale = folder.path().join("wal/.a.1.2f.wale-tmp");
        std::fs::create_dir(folder.path().join("wal")).expect("made");
        std::fs::write(&stale, "half").expect("written");
        store.put(&key("wal/a"), body(1)).await.expect("stored");
        let listed: Vec<_> = store.list("").await.expect("listed").collect().await;
        assert_eq!(listed.len(), 1);
        let hour = Duration::from_hours(1);
        assert_eq!(
            store
                .discard_unfinished(hour, |_| true)
                .await
                .expect("swept"),
            0
        );
        let old = std::time::SystemTime::now() - 2 * hour;
        let file = std::fs::File::options()
            .write(true)
            .open(&stale)
            .expect("opens");
        file.set_modified(old).expect("dated");
        let others = store.discard_unfinished(hour, |key| key != "wal/a").await;
        assert_eq!(others.expect("swept"), 0, "another program's");
        let ours = store.discard_unfinished(hour, |key| key == "wal/a").await;
        assert_eq!(ours.expect("swept"), 1);
        assert_eq!(
            store
                .discard_unfinished(Duration::MAX, |_| true)
                .await
                .expect("swept"),
            0
        );
        assert_eq!(tree(folder.path()), ["wal", "wal/a"]);
    }

    #[tokio::test]
    async fn folders_come_and_go_under_many_writers() {
        let (folder, store) = temporary();
        let tasks = (0..8).map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..20 {
                    let key = key(&format!("deep/er/{task}-{n}"));
                    store.put_if_absent(&key, body(1)).await.expect("stored");
                    store.delete(&key).await.expect("deleted");
                }
            })
        });
        for task in futures_util::future::join_all(tasks).await {
            task.expect("no panic");
        }
        assert_eq!(tree(folder.path()), [""; 0]);
    }
}
