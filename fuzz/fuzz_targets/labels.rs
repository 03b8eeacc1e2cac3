//! `backup_label`, `tablespace_map` and timeline histories: text that came out of an archive.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wale_pg::{BackupLabel, Lsn, MajorVersion, TablespaceMap, TimelineHistory, TimelineId};

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(rest);
    if let Ok(label) = BackupLabel::parse(&text) {
        assert_eq!(label.timeline(), label.start_segment.timeline());
    }
    for major in MajorVersion::all() {
        if let Ok(map) = TablespaceMap::parse(&text, major) {
            let again = TablespaceMap::parse(&map.to_text(major), major);
            // Up to 13 a backslash before a line end cannot be told from an escape: PostgreSQL's own flaw.
            let is_plain = map.entries.iter().all(|(_, path)| !path.contains('\\'));
            if major.get() >= 14 || is_plain {
                assert_eq!(again.as_ref(), Ok(&map), "{major}");
            }
        }
    }
    let timeline = TimelineId::new(u32::from(first) + 1).expect("not zero");
    if let Ok(history) = TimelineHistory::parse(timeline, &text) {
        for lsn in [0, 1, u64::MAX] {
            let owner = history.timeline_at(Lsn::new(lsn));
            assert!(history.contains(owner, Lsn::new(lsn)));
        }
        for parent in &history.parents {
            assert!(parent.timeline < timeline);
            assert_eq!(history.switch_lsn(parent.timeline), Some(parent.switch_lsn));
        }
    }
});
