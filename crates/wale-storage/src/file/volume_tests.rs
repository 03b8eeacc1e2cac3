//! The file store on volumes of its own: full, read-only, unmounted. They need the right to mount, and say
//! aloud where they are skipped.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

use super::tests::{body, key, store, tree};
use super::write::Placing;
use crate::{PutOutcome, Store, StoreError, read_all};

/// A small volume of its own. `None`, said aloud, where mounting is not permitted.
struct Volume {
    folder: TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// These tests run one at a time: a child between fork and exec holds every descriptor of this process,
/// and a volume with an open file can be neither unmounted nor made read-only.
static ALONE: Mutex<()> = Mutex::const_new(());

impl Volume {
    async fn mount(test: &str) -> Option<Self> {
        let volume = Self {
            folder: tempfile::tempdir().expect("made"),
            _alone: ALONE.lock().await,
        };
        if volume.remount() {
            return Some(volume);
        }
        wale_testkit::skip(test, "mounting a tmpfs is not permitted here");
        None
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn remount(&self) -> bool {
        let options = ["-t", "tmpfs", "-o", "size=1m,nr_inodes=64", "wale-test"];
        let status = Command::new("mount")
            .args(options)
            .arg(self.path())
            .status();
        status.is_ok_and(|status| status.success())
    }

    fn unmount(&self) -> bool {
        let status = Command::new("umount").arg(self.path()).status();
        status.is_ok_and(|status| status.success())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.unmount();
    }
}

#[tokio::test]
async fn row_16_a_full_volume_is_told_as_full_and_left_clean() {
    let Some(volume) = Volume::mount("row_16").await else {
        return;
    };
    let store = store(volume.path());
    for placing in [Placing::IfAbsent, Placing::Replace] {
        let error = store.store(&key("big"), body(4 << 20), placing).await;
        let error = error.expect_err("1 MiB cannot hold 4");
        assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
        assert!(error.to_string().contains("big"), "{error}");
        assert_eq!(tree(volume.path()), [""; 0], "the part is removed");
    }
    store
        .put(&key("small"), body(1000))
        .await
        .expect("there is room again");
}

#[tokio::test]
async fn row_21_inodes_may_run_out() {
    let Some(volume) = Volume::mount("row_21").await else {
        return;
    };
    let store = store(volume.path());
    let mut full = None;
    for n in 0..64 {
        let key = key(&format!("f{n}/o"));
        if let Err(error) = store.put(&key, body(1)).await {
            full = Some(error);
            break;
        }
    }
    let error = full.expect("64 inodes cannot hold 128 files");
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    store.delete(&key("f0/o")).await.expect("deleted");
    store
        .put(&key("again"), body(1))
        .await
        .expect("there is room again");
}

#[tokio::test]
async fn row_21_a_read_only_volume_denies() {
    let Some(volume) = Volume::mount("row_21").await else {
        return;
    };
    let store = store(volume.path());
    store.put(&key("a"), body(1)).await.expect("stored");
    let options = ["-o", "remount,ro"];
    let status = Command::new("mount")
        .args(options)
        .arg(volume.path())
        .status();
    assert!(status.expect("runs").success());
    for error in [
        store.put(&key("b"), body(1)).await.err(),
        store.put(&key("new/b"), body(1)).await.err(),
        store.delete(&key("a")).await.err(),
    ] {
        let error = error.expect("read-only");
        assert!(
            matches!(error, StoreError::PermissionDenied { .. }),
            "{error:?}"
        );
    }
    read_all(&store, &key("a"), 1).await.expect("reading works");
    let again = store.put_if_absent(&key("a"), body(1)).await;
    assert_eq!(again.expect("asked"), PutOutcome::Exists);
}

#[tokio::test]
async fn an_unmounted_volume_is_noticed_and_welcomed_back() {
    let Some(volume) = Volume::mount("unmounted volume").await else {
        return;
    };
    let store = store(volume.path());
    store.put(&key("a"), body(1)).await.expect("stored");
    assert!(volume.unmount(), "no descriptor keeps the volume busy");
    // The folder below the mount point exists and is empty: exactly not an empty archive.
    let error = store.head(&key("a")).await.expect_err("not mounted");
    assert!(error.to_string().contains("no longer mounted"), "{error}");
    assert!(error.is_transient());
    store
        .put(&key("b"), body(1))
        .await
        .expect_err("not mounted");
    assert!(volume.remount());
    store.put(&key("b"), body(1)).await.expect("mounted again");
}
