//! A disk that forgets what was not made durable, for tests of a loss of power.
//!
//! It is a file system in memory, mounted through FUSE without libfuse: `/dev/fuse` and root are all it needs. It
//! keeps what was written and, apart from that, what `fsync` of files and of folders made durable. When its power is
//! cut, every call fails from that moment on; when it comes back, the disk holds what was durable, and of the rest
//! nothing or some ([`Loss`]).
//!
//! ```text
//! mount ─▶ programs write, fsync, rename ─▶ cut_power ─▶ (kill the programs) ─▶ restore_power ─▶ look
//! ```

mod serve;
mod tree;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fuser::{BackgroundSession, Config, MountOption, SessionACL};

use self::serve::Disk;
pub use self::tree::Loss;
use self::tree::{Node, Tree, folder};
use crate::wait_until;

/// How the mounts of this module begin in the kernel's table; the process id follows.
const SOURCE: &str = "wale-volatile-";

/// A mounted disk. Dropping it unmounts it.
#[derive(Debug)]
pub struct VolatileDisk {
    path: PathBuf,
    disk: Disk,
    session: Option<BackgroundSession>,
    survivors: Option<Tree>,
}

impl VolatileDisk {
    /// Mounts an empty disk on a folder, whose owner and mode it takes over.
    ///
    /// # Panics
    /// When it cannot be mounted: that needs root and `/dev/fuse`.
    #[must_use]
    pub fn mount(path: &Path) -> Self {
        unmount_left_behind();
        let like = path.metadata().expect("the folder to mount on");
        let mode = u16::try_from(like.mode() & 0o7777).expect("12 bits");
        let root = Node::new(folder(), mode, like.uid(), like.gid());
        let mut disk = Self {
            path: path.to_owned(),
            disk: Disk(Arc::new(Mutex::new(Tree::new(root)))),
            session: None,
            survivors: None,
        };
        disk.attach();
        disk
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The power is gone: what is durable at this moment is kept aside, and every call fails from now on.
    pub fn cut_power(&mut self, loss: Loss) {
        let mut tree = self.disk.tree();
        self.survivors = Some(tree.survivors(loss));
        tree.is_dead = true;
    }

    /// The power is back: the disk is mounted anew with what survived.
    ///
    /// # Panics
    /// When the power was not cut, or the disk cannot be mounted again.
    pub fn restore_power(&mut self) {
        let tree = self.survivors.take().expect("the power was cut before");
        self.detach();
        self.disk = Disk(Arc::new(Mutex::new(tree)));
        self.attach();
    }

    fn attach(&mut self) {
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName(format!("{SOURCE}{}", std::process::id())),
            MountOption::DefaultPermissions,
            MountOption::NoAtime,
        ];
        config.acl = SessionACL::All;
        let session = fuser::spawn_mount(self.disk.clone(), &self.path, &config);
        self.session = Some(session.expect("a FUSE mount: root and /dev/fuse"));
    }

    fn detach(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        unmount(&self.path);
        if !std::thread::panicking() {
            wait_until("the disk to be let go", Duration::from_secs(20), || {
                session.guard.is_finished().then_some(())
            });
        }
    }
}

impl Drop for VolatileDisk {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Takes a mount off its folder at once; it ends when nobody has a file of it open any more.
fn unmount(path: &Path) {
    let _ = Command::new("umount").arg("-l").arg(path).status();
}

/// Unmounts the disks of test runs that were killed.
fn unmount_left_behind() {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let pid = words.next().and_then(|source| source.strip_prefix(SOURCE));
        if let (Some(pid), Some(path)) = (pid, words.next())
            && !Path::new("/proc").join(pid).exists()
        {
            unmount(Path::new(path));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;

    use super::*;
    use crate::skip;

    /// Through the kernel: what a program has not synced is gone, what it has is there.
    #[test]
    fn what_was_not_synced_is_really_dropped() {
        if !rustix::process::geteuid().is_root() {
            return skip(
                "what_was_not_synced_is_really_dropped",
                "only root can mount",
            );
        }
        let place = tempfile::tempdir().expect("a folder");
        let mut disk = VolatileDisk::mount(place.path());
        let path = |name: &str| place.path().join(name);
        let write = |name: &str| {
            let mut file = File::create(path(name)).expect("made");
            file.write_all(&vec![b'x'; 300_000]).expect("written");
            file
        };
        write("nothing synced");
        write("content synced").sync_data().expect("synced");
        write("both synced").sync_all().expect("synced");
        write("renamed later").sync_all().expect("synced");
        fs::create_dir(path("folder")).expect("made");
        File::open(place.path())
            .expect("opened")
            .sync_all()
            .expect("synced");
        fs::rename(path("renamed later"), path("renamed")).expect("renamed");
        write("too late").sync_all().expect("synced");
        assert_eq!(
            fs::read(path("nothing synced")).expect("there").len(),
            300_000
        );

        disk.cut_power(Loss::AllUnsynced);
        File::create(path("dead")).expect_err("no power");
        disk.restore_power();

        let size = |name: &str| fs::metadata(path(name)).ok().map(|found| found.len());
        assert_eq!(size("both synced"), Some(300_000));
        assert_eq!(size("content synced"), Some(300_000));
        assert_eq!(
            size("nothing synced"),
            Some(0),
            "its name was synced, its content was not"
        );
        assert_eq!(
            (size("renamed later"), size("renamed")),
            (Some(300_000), None)
        );
        assert_eq!(size("too late"), None);
        assert!(path("folder").is_dir());
        // It is a disk again.
        fs::rename(path("renamed later"), path("renamed")).expect("renamed");
        fs::hard_link(path("renamed"), path("folder/linked")).expect("linked");
        fs::remove_file(path("renamed")).expect("removed");
        assert_eq!(size("folder/linked"), Some(300_000));
        std::os::unix::fs::symlink("/there", path("link")).expect("made");
        assert_eq!(
            fs::read_link(path("link")).expect("read"),
            Path::new("/there")
        );
        fs::remove_dir(path("folder")).expect_err("not empty");
        assert_eq!(fs::read_dir(place.path()).expect("read").count(), 5);
    }
}
