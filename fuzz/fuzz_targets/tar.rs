//! Partitions of base backups, ours and strangers'.
//!
//! No member's path leads out of the restore root, whatever the stream says, and a member that was read
//! can be written and is read again as the same.

#![no_main]

use std::io::{Read, Write};

use libfuzzer_sys::fuzz_target;
use wale_format::tar::{Member, MemberKind, Meta, TarReader, TarWriter};

fuzz_target!(|data: &[u8]| {
    let mut reader = TarReader::new(data);
    let mut members: Vec<(Member, Vec<u8>)> = Vec::new();
    while let Some(next) = reader.next() {
        let Ok(member) = next else {
            return;
        };
        for part in member.path.components() {
            assert!(!matches!(part, "" | "." | "..") && !part.contains('/'), "{member:?}");
            assert!(!part.contains('\0'), "{member:?}");
        }
        let mut body = Vec::new();
        if reader.read_to_end(&mut body).is_err() {
            return;
        }
        assert!(body.len() <= data.len());
        members.push((member, body));
    }
    let mut writer = TarWriter::new(Vec::new());
    let mut written = Vec::new();
    for (member, body) in &members {
        let meta = Meta {
            mode: member.mode,
            mtime: member.mtime,
            uid: member.uid,
            gid: member.gid,
        };
        let path = member.path.as_str();
        let put = match &member.kind {
            MemberKind::File { .. } => writer
                .file_header(path, body.len() as u64, &meta)
                .and_then(|()| writer.write_all(body))
                .and_then(|()| writer.finish_body()),
            MemberKind::Directory => writer.directory(path, &meta),
            MemberKind::Symlink { target } => writer.symlink(path, target, &meta),
            MemberKind::HardLink { .. } => continue,
        };
        // Stricter than the reader is fine; then there is nothing to compare.
        if put.is_err() {
            return;
        }
        written.push((member, body));
    }
    let archive = writer.finish().expect("every body is complete");
    let mut again = TarReader::new(archive.as_slice());
    for (member, body) in written {
        let back = again.next().expect("as many").expect("whole");
        let mut content = Vec::new();
        again.read_to_end(&mut content).expect("whole");
        assert_eq!((&back.path, &content), (&member.path, body));
        assert_eq!(
            std::mem::discriminant(&back.kind),
            std::mem::discriminant(&member.kind)
        );
    }
    assert!(again.next().is_none());
});
