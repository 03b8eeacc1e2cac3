//! A WAL file that changes hands beside a server's WAL: from the sidecar to the server's own client, without its bytes being sent.
//!
//! ```text
//! pg_wal/.wale/<nonce>/          made by a client that asks; it holds a lock on it as long as it lives
//! pg_wal/.wale/<nonce>/segment   put there by the sidecar: whole, checked and flushed; the client moves it to its destination
//! ```
//!
//! The client's place proves that both see one volume: the sidecar finds it by the nonce of the request, or sends the bytes. Until
//! then the file has no name at all (`O_TMPFILE`), so a sidecar that dies leaves nothing. What a client leaves that dies has
//! nobody's lock, and [`HandOver::sweep`] removes it. Whatever goes wrong, for either side, is no harm: the client asks for the bytes.
//!
//! The sidecar may be root in a folder that is the server's: below the WAL directory everything is opened by descriptors, no link
//! is followed, and only these two names are ever made or removed. Sync; for blocking threads.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use crate::durable::{folder_of, mode_beside, sync_folder};
use crate::owner::Owner;

/// The folder in the WAL directory. Base backups leave out all that is in there.
const FOLDER: &str = ".wale";
/// The file in a place. PostgreSQL knows no WAL of this name, nor of any in a folder.
const FILE: &str = "segment";
/// Random bytes of a nonce: nobody makes the same one twice.
const NONCE_BYTES: usize = 16;
/// How often a client makes its place when others take the folder above away at that moment.
const TRIES: usize = 3;

const FOLDER_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// The name of a client's place: 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    fn random() -> io::Result<Self> {
        let mut bytes = [0; NONCE_BYTES];
        let provider = rustls::crypto::ring::default_provider();
        let filled = provider.secure_random.fill(&mut bytes);
        filled.map_err(|_| io::Error::other("the system gives no random bytes"))?;
        Ok(Self(format!("{:032x}", u128::from_be_bytes(bytes))))
    }

    /// Reads one; anything else is `None`, for it becomes a path.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let fits = text.len() == 2 * NONCE_BYTES && text.bytes().all(is_digit);
        fits.then(|| Self(text.to_owned()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A client's place beside the destination of a WAL file. Dropping it removes it, with whatever lies there.
#[derive(Debug)]
pub struct TakingPlace {
    wal: OwnedFd,
    above: OwnedFd,
    /// Held for its lock, too.
    own: OwnedFd,
    nonce: Nonce,
    /// The destination's name in `wal`.
    name: OsString,
}

impl TakingPlace {
    /// Makes a place in the folder of `destination`.
    ///
    /// # Errors
    /// When it cannot be made or locked. Nothing is left then.
    pub fn beside(destination: &Path) -> io::Result<Self> {
        let name = destination.file_name().map(OsString::from);
        let name = name.ok_or_else(|| io::Error::other("the destination has no file name"))?;
        let wal = rustix::fs::open(folder_of(destination), FOLDER_FLAGS, Mode::empty())?;
        let nonce = Nonce::random()?;
        let (above, own) = make_place(&wal, &nonce)?;
        let place = Self {
            wal,
            above,
            own,
            nonce,
            name,
        };
        flock(&place.own, FlockOperation::NonBlockingLockExclusive)?;
        Ok(place)
    }

    /// What the sidecar finds it by.
    #[must_use]
    pub const fn nonce(&self) -> &Nonce {
        &self.nonce
    }

    /// Moves what was put there to its destination, durably, over whatever is there.
    ///
    /// # Errors
    /// When nothing was put there, or something else than a file of this size that this user owns, may write, and that has no
    /// other name; or the move fails.
    pub fn take(self, size: u64) -> io::Result<()> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.own, FILE, flags, Mode::empty())?);
        let found = file.metadata()?;
        let is_ours = found.uid() == rustix::process::geteuid().as_raw();
        if !found.is_file() || found.nlink() != 1 || !is_ours {
            return Err(io::Error::other(
                "what lies there is no file of this user's alone",
            ));
        }
        if found.len() != size {
            let message = format!("the file has {} bytes and not {size}", found.len());
            return Err(io::Error::other(message));
        }
        rustix::fs::renameat(&self.own, FILE, &self.wal, &self.name)?;
        let moved = rustix::fs::statat(&self.wal, &self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        if (moved.st_dev, moved.st_ino) != (found.dev(), found.ino()) {
            return Err(io::Error::other("another file was put there meanwhile"));
        }
        sync_folder(&self.wal)
    }
}

impl Drop for TakingPlace {
    fn drop(&mut self) {
        // What cannot be removed is the sidecar's to sweep, as what a client leaves that is killed.
        let _ = remove_place(&self.above, &self.own, self.nonce.as_str());
        let _ = rustix::fs::unlinkat(&self.wal, FOLDER, AtFlags::REMOVEDIR);
    }
}

/// The folder of all places, and the place.
fn make_place(wal: &OwnedFd, nonce: &Nonce) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut tries = TRIES;
    loop {
        let made = || -> rustix::io::Result<_> {
            match rustix::fs::mkdirat(wal, FOLDER, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            let above = open_folder(wal, FOLDER)?;
            rustix::fs::mkdirat(&above, nonce.as_str(), Mode::RWXU)?;
            let own = open_folder(&above, nonce.as_str())?;
            Ok((above, own))
        };
        match made() {
            // Somebody who left took the empty folder away.
            Err(Errno::NOENT) if tries > 1 => tries -= 1,
            made => return Ok(made?),
        }
    }
}

/// A folder in another, which is no link.
fn open_folder(above: impl AsFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = FOLDER_FLAGS | OFlags::NOFOLLOW;
    rustix::fs::openat(above, name, flags, Mode::empty())
}

fn remove_place(above: impl AsFd, place: impl AsFd, name: &str) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(place, FILE, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR)
}

/// The sidecar's side of a WAL directory. It is opened anew for every call, as it may appear later.
#[derive(Clone, Debug)]
pub struct HandOver {
    wal: PathBuf,
}

impl HandOver {
    /// Names the directory; touches nothing.
    #[must_use]
    pub fn at(wal: impl Into<PathBuf>) -> Self {
        Self { wal: wal.into() }
    }

    /// The WAL directory.
    #[must_use]
    pub fn wal_directory(&self) -> &Path {
        &self.wal
    }

    /// The place of a client that waits there, alive: it and the sidecar see one volume.
    ///
    /// # Errors
    /// When there is none, or nobody holds its lock.
    pub fn awaited(&self, nonce: &Nonce) -> io::Result<AwaitedPlace> {
        let above = open_folder(self.open()?, FOLDER)?;
        let own = open_folder(&above, nonce.as_str())?;
        let nonce = nonce.clone();
        let place = AwaitedPlace { above, own, nonce };
        place.check()?;
        Ok(place)
    }

    /// A file in the directory's file system, with the directory's owner and the rights of WAL, and without a name.
    ///
    /// # Errors
    /// When the directory is not there or not writable, its owner cannot be given, or its file system has no such files.
    pub fn file(&self) -> io::Result<UnnamedFile> {
        let owner = Owner::of(&self.wal)?;
        if !owner.is_within_reach() {
            let message = "the WAL directory is another user's";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        let mode = mode_beside(&self.wal.join(FILE));
        let rights = Mode::from_raw_mode(mode);
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&self.wal, flags, rights)?);
        // Whatever the umask is.
        rustix::fs::fchmod(&file, rights)?;
        owner.give(&file)?;
        Ok(UnnamedFile { file })
    }

    /// Removes the places of clients that are gone. Whether places are left, whose clients live.
    ///
    /// # Errors
    /// When the folder cannot be read. What cannot be removed is left.
    pub fn sweep(&self) -> io::Result<bool> {
        let wal = self.open()?;
        let above = match open_folder(&wal, FOLDER) {
            Ok(above) => above,
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let is_used = sweep_in(&above, None)?;
        // It goes when it is empty.
        let _ = rustix::fs::unlinkat(&wal, FOLDER, AtFlags::REMOVEDIR);
        Ok(is_used)
    }

    fn open(&self) -> rustix::io::Result<OwnedFd> {
        rustix::fs::open(&self.wal, FOLDER_FLAGS, Mode::empty())
    }
}

/// Removes the places whose clients are gone, but for the spared one, which is not looked at. Whether places are left, whose clients live.
fn sweep_in(above: &OwnedFd, spared: Option<&Nonce>) -> io::Result<bool> {
    let mut is_used = false;
    for entry in Dir::read_from(above)? {
        let entry = entry?;
        let Some(nonce) = entry.file_name().to_str().ok().and_then(Nonce::parse) else {
            continue;
        };
        if spared == Some(&nonce) {
            continue;
        }
        let Ok(place) = open_folder(above, nonce.as_str()) else {
            continue;
        };
        if flock(&place, FlockOperation::NonBlockingLockExclusive).is_err() {
            is_used = true;
        } else if let Err(error) = remove_place(above, &place, nonce.as_str()) {
            tracing::debug!(%nonce, %error, "what a client left beside the WAL cannot be removed");
        }
    }
    Ok(is_used)
}

/// The place of a client that waits for a file, as the sidecar sees it: opened once, from the question to the answer.
#[derive(Debug)]
pub struct AwaitedPlace {
    above: OwnedFd,
    own: OwnedFd,
    nonce: Nonce,
}

impl AwaitedPlace {
    /// Removes what other clients have left that are gone.
    ///
    /// # Errors
    /// When the folder cannot be read. What cannot be removed is left.
    pub fn sweep_others(&self) -> io::Result<()> {
        sweep_in(&self.above, Some(&self.nonce)).map(drop)
    }

    /// Puts a file into it that was flushed.
    ///
    /// # Errors
    /// When nobody waits there any more, or the place has a file already. A server whose command is alive is still in recovery.
    pub fn give(&self, file: &UnnamedFile) -> io::Result<()> {
        self.check()?;
        let unnamed = format!("/proc/self/fd/{}", file.file.as_raw_fd());
        rustix::fs::linkat(CWD, unnamed, &self.own, FILE, AtFlags::SYMLINK_FOLLOW)?;
        Ok(())
    }

    /// Whether its client holds the lock.
    fn check(&self) -> rustix::io::Result<()> {
        match flock(&self.own, FlockOperation::NonBlockingLockShared) {
            Err(Errno::WOULDBLOCK) => Ok(()),
            Ok(()) => Err(Errno::OWNERDEAD),
            Err(error) => Err(error),
        }
    }
}

/// A file without a name. It is gone when it is dropped, or its process ends, unless it was given away.
#[derive(Debug)]
pub struct UnnamedFile {
    file: File,
}

impl UnnamedFile {
    /// Flushes what was written.
    ///
    /// # Errors
    /// When a write that the kernel had accepted fails after all.
    pub fn flush_to_disk(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// The file itself.
    #[must_use]
    pub fn into_file(self) -> File {
        self.file
    }
}

impl Write for UnnamedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    struct Scene {
        wal: tempfile::TempDir,
        over: HandOver,
        destination: PathBuf,
    }

    fn scene() -> Scene {
        let wal = tempfile::tempdir().unwrap();
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(wal.path(), mode).unwrap();
        Scene {
            over: HandOver::at(wal.path()),
            destination: wal.path().join("RECOVERYXLOG"),
            wal,
        }
    }

    impl Scene {
        fn place(&self) -> TakingPlace {
            TakingPlace::beside(&self.destination).unwrap()
        }

        fn file(&self, bytes: &[u8]) -> UnnamedFile {
            let mut file = self.over.file().unwrap();
            file.write_all(bytes).unwrap();
            file.flush_to_disk().unwrap();
            file
        }

        fn is_awaited(&self, nonce: &Nonce) -> bool {
            self.over.awaited(nonce).is_ok()
        }

        fn give(&self, file: &UnnamedFile, nonce: &Nonce) -> io::Result<()> {
            self.over.awaited(nonce)?.give(file)
        }

        fn path_of(&self, nonce: &Nonce) -> PathBuf {
            self.wal.path().join(FOLDER).join(nonce.as_str())
        }

        fn left(&self) -> usize {
            fs::read_dir(self.wal.path()).unwrap().count()
        }
    }

    /// Ends a client as SIGKILL does: its lock goes, and nothing else.
    fn kill(place: TakingPlace) {
        flock(&place.own, FlockOperation::Unlock).unwrap();
        std::mem::forget(place);
    }

    #[test]
    fn a_file_that_had_no_name_gets_its_own_and_nothing_else_is_left() {
        let scene = scene();
        fs::write(&scene.destination, "left over").unwrap();
        let file = scene.file(b"segment");
        assert_eq!(scene.left(), 1, "it has no name");
        let place = scene.place();
        assert!(scene.is_awaited(place.nonce()));
        scene.give(&file, place.nonce()).unwrap();
        assert!(scene.give(&file, place.nonce()).is_err(), "once");
        let opened = scene.over.awaited(place.nonce()).unwrap();
        opened.sweep_others().unwrap();
        place.take(7).unwrap();
        let late = opened.give(&scene.file(b"segment"));
        assert!(late.is_err(), "the place is gone");
        assert_eq!(fs::read(&scene.destination).unwrap(), b"segment");
        let mode = fs::metadata(&scene.destination)
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(scene.left(), 1);
    }

    #[test]
    fn nothing_is_given_to_nobody() {
        let scene = scene();
        let file = scene.file(b"segment");
        let other = tempfile::tempdir().unwrap();
        let elsewhere = TakingPlace::beside(&other.path().join("RECOVERYXLOG")).unwrap();
        assert!(!scene.is_awaited(elsewhere.nonce()), "another volume");
        assert!(scene.give(&file, elsewhere.nonce()).is_err());
        assert!(elsewhere.take(7).is_err());
        let gone = scene.place();
        let nonce = gone.nonce().clone();
        drop(gone);
        assert!(scene.give(&file, &nonce).is_err());
        assert_eq!(
            (scene.left(), fs::read_dir(other.path()).unwrap().count()),
            (0, 0)
        );
        for text in [
            "",
            "..",
            "../../../../../../../../../etc/00",
            &"A".repeat(32),
            &"a".repeat(33),
        ] {
            assert!(Nonce::parse(text).is_none(), "{text}");
        }
        assert!(Nonce::parse(&"0a".repeat(16)).is_some());
    }

    #[test]
    fn what_was_swapped_is_not_taken() {
        let outside = tempfile::tempdir().unwrap();
        let secret = outside.path().join("secret");
        fs::write(&secret, b"segment").unwrap();
        let swaps: [&dyn Fn(&Path); 6] = [
            &|path| symlink(&secret, path).unwrap(),
            &|path| fs::hard_link(&secret, path).unwrap(),
            &|path| fs::create_dir(path).unwrap(),
            &|path| fs::write(path, b"short").unwrap(),
            &|path| {
                let kind = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(CWD, path, kind, Mode::RWXU, 0).unwrap();
            },
            &|_| {},
        ];
        for (number, swap) in swaps.into_iter().enumerate() {
            let scene = scene();
            let place = scene.place();
            let path = scene.path_of(place.nonce()).join(FILE);
            scene.give(&scene.file(b"segment"), place.nonce()).unwrap();
            fs::remove_file(&path).unwrap();
            swap(&path);
            assert!(place.take(7).is_err(), "{number}");
            assert!(!scene.destination.exists(), "{number}");
            assert_eq!(fs::read(&secret).unwrap(), b"segment");
        }
    }

    #[test]
    fn no_link_is_followed_by_the_sidecar() {
        let scene = scene();
        let outside = tempfile::tempdir().unwrap();
        let place = scene.place();
        let nonce = place.nonce().clone();
        let path = scene.path_of(&nonce);
        kill(place);
        // The place is a link, then the folder of all places.
        fs::remove_dir(&path).unwrap();
        symlink(outside.path(), &path).unwrap();
        let file = scene.file(b"segment");
        let refused = |folder: &Path| {
            // All but the link is as if a client waited.
            let lock = File::open(folder).unwrap();
            flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
            assert!(!scene.is_awaited(&nonce));
            assert!(scene.give(&file, &nonce).is_err());
        };
        refused(outside.path());
        scene.over.sweep().unwrap();
        fs::remove_dir_all(scene.wal.path().join(FOLDER)).unwrap();
        fs::create_dir(outside.path().join(nonce.as_str())).unwrap();
        fs::write(outside.path().join(nonce.as_str()).join(FILE), b"mine").unwrap();
        symlink(outside.path(), scene.wal.path().join(FOLDER)).unwrap();
        refused(&outside.path().join(nonce.as_str()));
        assert!(scene.over.sweep().is_err());
        assert!(outside.path().join(nonce.as_str()).join(FILE).exists());
        assert!(TakingPlace::beside(&scene.destination).is_err());
    }

    #[test]
    fn what_a_killed_client_leaves_is_swept_and_a_living_one_is_spared() {
        let scene = scene();
        assert!(!scene.over.sweep().unwrap(), "nothing is there");
        let (dead, living) = (scene.place(), scene.place());
        for place in [&dead, &living] {
            scene.give(&scene.file(b"segment"), place.nonce()).unwrap();
        }
        let late = scene.place();
        let nonce = late.nonce().clone();
        let opened = scene.over.awaited(&nonce).unwrap();
        kill(late);
        assert!(scene.give(&scene.file(b"segment"), &nonce).is_err());
        let given = opened.give(&scene.file(b"segment"));
        assert!(given.is_err(), "its client died meanwhile");
        drop(opened);
        kill(dead);
        let foreign = scene.wal.path().join(FOLDER).join("somebody's");
        fs::write(&foreign, "x").unwrap();
        let opened = scene.over.awaited(living.nonce()).unwrap();
        opened.sweep_others().unwrap();
        let left = || fs::read_dir(scene.wal.path().join(FOLDER)).unwrap().count();
        assert_eq!(left(), 2, "the living one's, and what is not understood");
        assert!(scene.over.sweep().unwrap());
        assert!(scene.is_awaited(living.nonce()));
        living.take(7).unwrap();
        assert!(!scene.over.sweep().unwrap());
        assert!(foreign.exists(), "what is not understood stays");
        fs::remove_file(&foreign).unwrap();
        scene.over.sweep().unwrap();
        assert_eq!(scene.left(), 1, "the segment");
        assert!(HandOver::at("/nowhere").sweep().is_err());
        assert!(HandOver::at("/nowhere").file().is_err());
    }
}
