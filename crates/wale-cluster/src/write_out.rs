//! A file that goes to the disk while others are written.

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroU64;

use rustix::fs::Advice;

/// After so many bytes the disk is given what was written. 8 MiB: large enough for one long write, and small beside what the kernel
/// would gather by itself, a tenth of the memory, before it begins.
const WRITE_OUT_BYTES: u64 = 8 << 20;

/// With its end a file is given to the disk when so much of it was not yet. 1 MiB: half of what most clusters are lies in files of 1 to
/// 8 MiB, and left to the kernel they are a burst of gigabytes at the end, when a flush waits for them. Smaller files are left to it:
/// one at a time they would cost a write each.
const LAST_BYTES_MIN: u64 = 1 << 20;

/// A new file, written from its beginning. What was written is on its way to the disk soon, so that a flush at the end has little
/// left to wait for. Nothing is durable by it.
#[derive(Debug)]
pub struct WriteOut {
    file: File,
    written: u64,
    given: u64,
}

impl WriteOut {
    /// Over an empty file.
    #[must_use]
    pub const fn new(file: File) -> Self {
        Self {
            file,
            written: 0,
            given: 0,
        }
    }

    /// Gives the disk what was written since the last time, where that is so much.
    fn give(&mut self, at_least: u64) {
        let waiting = self.written - self.given;
        if waiting < at_least {
            return;
        }
        let from = std::mem::replace(&mut self.given, self.written);
        if is_in_memory(&self.file) {
            return;
        }
        // Linux begins to write dirty pages that are no longer needed, and keeps them in the cache until it has. Where it does
        // not, nothing is lost but the head start.
        let _ = rustix::fs::fadvise(&self.file, from, NonZeroU64::new(waiting), Advice::DontNeed);
    }
}

/// `TMPFS_MAGIC` of Linux (`include/uapi/linux/magic.h`).
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// Whether no disk waits for the file. The advice would do nothing there but make each processor give up its list of new pages, and
/// wait for it.
fn is_in_memory(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|place| place.f_type == TMPFS)
}

impl Write for WriteOut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.written += count as u64;
        self.give(WRITE_OUT_BYTES);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for WriteOut {
    fn drop(&mut self) {
        self.give(LAST_BYTES_MIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_arrives_and_large_files_are_given_to_the_disk_on_the_way() {
        let folder = tempfile::tempdir().expect("made");
        let path = folder.path().join("file");
        let mut file = WriteOut::new(File::create(&path).expect("created"));
        let piece: Vec<u8> = (0..3 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
        for (pieces, given) in [(1_u64, 0), (2, 0), (3, 9 << 20), (4, 9 << 20)] {
            file.write_all(&piece).expect("written");
            assert_eq!((file.written, file.given), (pieces * (3 << 20), given));
        }
        assert_eq!(std::fs::read(&path).expect("read"), piece.repeat(4));
        file.give(LAST_BYTES_MIN);
        assert_eq!(file.given, 12 << 20, "the rest, with its end");
        let mut small = WriteOut::new(File::create(&path).expect("created"));
        small.write_all(&piece[1..1 << 20]).expect("written");
        small.give(LAST_BYTES_MIN);
        assert_eq!(small.given, 0, "it is not worth a write of its own");
    }
}
