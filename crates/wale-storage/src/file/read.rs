//! An object on its way out of the file store, piece by piece.

use std::ops::Range;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::errno::object;
use super::folder::Root;
use super::walk::object_meta;
use crate::store::reaches;
use crate::{ObjectKey, ObjectMeta, PIECE_BYTES, StoreError};

/// An open file and what is left to read of it.
#[derive(Debug)]
pub(super) struct Reading {
    file: OwnedFd,
    key: ObjectKey,
    /// Where in it the reading ends.
    end: u64,
    left: u64,
}

impl Reading {
    /// Opens an object, or these bytes of one. Its descriptor stays good when the object is replaced or deleted.
    pub(super) fn open(
        root: &Root,
        key: &ObjectKey,
        range: Option<Range<u64>>,
    ) -> Result<(Self, ObjectMeta), StoreError> {
        let not_found = || StoreError::NotFound { key: key.clone() };
        let failed = |errno| root.failed(object(key), errno);
        let (folders, name) = key.split();
        let folder = root.folder(&folders)?.ok_or_else(not_found)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&folder, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Err(not_found()),
            Err(errno) => return Err(failed(errno)),
        };
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(not_found());
        }
        let meta = object_meta(key.clone(), &stat);
        let range = range.unwrap_or(0..meta.size);
        reaches(&meta, &range)?;
        let reading = Self {
            file,
            key: key.clone(),
            end: range.end,
            left: range.end.saturating_sub(range.start),
        };
        Ok((reading, meta))
    }

    pub(super) fn is_over(&self) -> bool {
        self.left == 0
    }

    /// The next bytes, a full piece unless they are the last.
    pub(super) fn next_piece(&mut self, root: &Root) -> Result<Bytes, StoreError> {
        let wanted = usize::try_from(self.left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let start = self.end - self.left;
        let mut piece = Vec::with_capacity(wanted);
        while piece.len() < wanted {
            // By position: the allocator may give more room than was asked for, and what is read too
            // much into it is read again with the next piece.
            let position = start + piece.len() as u64;
            match rustix::io::pread(&self.file, spare_capacity(&mut piece), position) {
                Ok(0) => {
                    return Err(StoreError::Damaged {
                        key: self.key.clone(),
                        reason: format!("it ended after {position} of {} bytes", self.end),
                    });
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(root.failed(object(&self.key), errno)),
            }
        }
        piece.truncate(wanted);
        self.left -= wanted as u64;
        Ok(piece.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_shrinks_is_damaged_and_one_that_grows_is_cut() {
        let folder = tempfile::tempdir().expect("made");
        let file = folder.path().join("a");
        std::fs::write(&file, vec![7; PIECE_BYTES + 10]).expect("written");
        let root = Root::new(folder.path().to_owned());
        let key = ObjectKey::new("a").expect("valid");
        let open = || Reading::open(&root, &key, None).expect("opens").0;
        let (mut shrinks, mut grows) = (open(), open());
        assert_eq!(shrinks.next_piece(&root).expect("whole").len(), PIECE_BYTES);
        let writer = std::fs::File::options()
            .write(true)
            .open(&file)
            .expect("opens");
        writer.set_len(PIECE_BYTES as u64 + 9).expect("cut");
        let error = shrinks.next_piece(&root).expect_err("cut");
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("1048585 of 1048586"), "{error}");
        writer.set_len(3 * PIECE_BYTES as u64).expect("grown");
        assert_eq!(grows.next_piece(&root).expect("whole").len(), PIECE_BYTES);
        assert_eq!(grows.next_piece(&root).expect("rest").len(), 10);
        assert!(grows.is_over());
    }
}
