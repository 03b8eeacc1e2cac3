//! `global/pg_control`, with its CRC made right wherever a version keeps it, so that the rest is reached.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wale_pg::ControlFile;

fuzz_target!(|data: &[u8]| {
    let _ = ControlFile::parse(data);
    let mut bytes = data.to_vec();
    // Every version's CRC lies on a multiple of four in this range.
    for at in (224..320).step_by(4) {
        if bytes.len() < at + 4 {
            break;
        }
        let before: [u8; 4] = bytes[at..at + 4].try_into().expect("four bytes");
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[..at]);
        let crc = u32::try_from(crc).expect("a CRC-32");
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        if let Ok(control) = ControlFile::parse(&bytes) {
            let _ = (control.major(), control.has_data_checksums());
            assert!(!control.major_versions().is_empty());
        }
        bytes[at..at + 4].copy_from_slice(&before);
    }
});
