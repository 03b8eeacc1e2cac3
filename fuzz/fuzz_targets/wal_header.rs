//! The header of a WAL segment's first page: one that is accepted belongs to the name it is checked against.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wale_pg::{HeaderExpectation, TimelineId, WalPageHeader, WalSegmentName, WalSegmentSize};

fuzz_target!(|data: &[u8]| {
    let Ok(header) = WalPageHeader::parse(data) else {
        return;
    };
    // A newer server's magic is read, too, and belongs to no known version.
    assert!(header.major().is_some() || header.magic > 0xD122);
    let (Some(timeline), Ok(size)) = (
        TimelineId::new(header.timeline),
        WalSegmentSize::new(header.segment_size.into()),
    ) else {
        return;
    };
    let name = WalSegmentName::from_lsn(timeline, header.page_address, size);
    let expectation = HeaderExpectation {
        file_size: size.bytes(),
        segment_size: Some(size),
        system_identifier: Some(header.system_identifier),
    };
    if header.check(&name, &expectation).is_ok() {
        assert_eq!(name.start_lsn(size), Ok(header.page_address));
        if let Ok(next) = name.next(size) {
            assert!(header.check(&next, &expectation).is_err());
        }
    }
});
