//! Reading `global/pg_control` while the server may be writing it.

use std::io::Read;
use std::time::Duration;

use wale_pg::{ControlFile, ControlFileError};

use super::DataDirectory;
use crate::error::ClusterError;
use crate::regular_file::open_regular;

/// The server rewrites the file in place, in one write of some hundred bytes: a half-written one is whole
/// again within this time, many times over. 10 tries, 9 pauses, 90 ms in all.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(10);

/// The numbers that layouts of control files have had, and will have for long: the major version times a hundred.
const LAYOUTS: std::ops::Range<u32> = 900..10_000;

impl DataDirectory {
    /// The control file, decoded.
    ///
    /// # Errors
    /// When it is missing, still damaged after some tries, or of a layout that is not known.
    pub fn control_file(&self) -> Result<ControlFile, ClusterError> {
        self.control_bytes().map(|(control, _)| control)
    }

    /// The control file, decoded, and the very bytes that passed the check: those are what a backup stores.
    ///
    /// # Errors
    /// When it is missing, or still damaged after some tries.
    pub fn control_bytes(&self) -> Result<(ControlFile, Vec<u8>), ClusterError> {
        let path = self.path.join(ControlFile::PATH);
        let mut tries = 1;
        loop {
            let mut bytes = Vec::with_capacity(ControlFile::FILE_SIZE);
            open_regular(&path)
                .and_then(|file| {
                    file.take(ControlFile::FILE_SIZE as u64)
                        .read_to_end(&mut bytes)
                })
                .map_err(ClusterError::io("read", &path))?;
            match ControlFile::parse(&bytes) {
                Ok(control) => return Ok((control, bytes)),
                Err(ControlFileError::CrcMismatch { .. } | ControlFileError::TooShort { .. })
                    if tries < TRIES =>
                {
                    tries += 1;
                    std::thread::sleep(PAUSE);
                }
                Err(ControlFileError::UnsupportedVersion { version })
                    if LAYOUTS.contains(&version) =>
                {
                    return Err(ClusterError::UnsupportedControlFile { path, version });
                }
                Err(error) => {
                    return Err(ClusterError::Damaged {
                        path,
                        reason: error.to_string(),
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_control_file_is_told_from_a_damaged_one() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDirectory::at(folder.path());
        let error = directory.control_file().unwrap_err();
        assert!(matches!(error, ClusterError::NotFound { .. }), "{error:?}");
        std::fs::create_dir(folder.path().join("global")).unwrap();
        for bytes in [vec![], vec![0; 8192], vec![0xff; 100]] {
            std::fs::write(folder.path().join(ControlFile::PATH), bytes).unwrap();
            let error = directory.control_file().unwrap_err();
            assert!(matches!(error, ClusterError::Damaged { .. }), "{error:?}");
        }
    }

    #[test]
    fn fault_102_a_layout_that_is_not_known_is_no_damage() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDirectory::at(folder.path());
        std::fs::create_dir(folder.path().join("global")).unwrap();
        let mut bytes = vec![0; ControlFile::FILE_SIZE];
        bytes[8..12].copy_from_slice(&2000_u32.to_le_bytes());
        std::fs::write(folder.path().join(ControlFile::PATH), bytes).unwrap();
        let error = directory.control_file().unwrap_err();
        assert!(
            matches!(
                error,
                ClusterError::UnsupportedControlFile { version: 2000, .. }
            ),
            "{error:?}"
        );
        assert_eq!(directory.newer_version(), None);
        for (text, expected) in [
            ("20\n", Some(20)),
            ("19\n", None),
            ("9.6\n", None),
            ("x", None),
        ] {
            std::fs::write(folder.path().join("PG_VERSION"), text).unwrap();
            assert_eq!(directory.newer_version(), expected, "{text:?}");
        }
    }
}
