//! Names and numbers in text form, and keys of objects: what parses prints as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wale_format::{BackupName, layout};
use wale_pg::{
    ArchiveFileName, Lsn, MajorVersion, SystemIdentifier, TimelineId, WalSegmentName,
};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(name) = ArchiveFileName::parse(text) {
        assert_eq!(name.to_string(), text);
        assert!(layout::wal_claim(&format!("wal_005/{text}.any")).is_some());
    }
    if let Ok(name) = WalSegmentName::parse(text) {
        assert_eq!(name.to_string(), text);
    }
    if let Ok(name) = BackupName::parse(text) {
        assert_eq!(name.to_string(), text);
    }
    let key = layout::parse(text);
    if let Some(printed) = key.to_key() {
        assert_eq!(printed, text);
    }
    if let Ok(lsn) = Lsn::parse(text) {
        assert_eq!(Lsn::parse(&lsn.to_string()), Ok(lsn));
    }
    let _ = MajorVersion::parse(text);
    let _ = text.parse::<SystemIdentifier>();
    let _ = text.parse::<TimelineId>();
});
