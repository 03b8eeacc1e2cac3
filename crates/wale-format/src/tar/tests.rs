//! Writer against reader, both against real programs' archives, and everything that must be refused.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;

const META: Meta = Meta {
    mode: 0o600,
    uid: 999,
    gid: 998,
    mtime: 1_577_934_245,
};

fn read_all(archive: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, TarError> {
    let mut reader = TarReader::new(archive);
    let mut members = Vec::new();
    while let Some(member) = reader.next() {
        let member = member?;
        let mut body = Vec::new();
        reader.read_to_end(&mut body)?;
        members.push((member, body));
    }
    Ok(members)
}

/// An archive with one of each: root, directory, file, empty file, long name, links.
fn sample() -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    let directory = Meta {
        mode: 0o700,
        ..META
    };
    tar.directory("", &directory).unwrap();
    tar.directory("base/1", &directory).unwrap();
    tar.file_header("PG_VERSION", 3, &META).unwrap();
    tar.write_all(b"15\n").unwrap();
    tar.finish_body().unwrap();
    tar.file_header("base/1/empty", 0, &META).unwrap();
    tar.finish_body().unwrap();
    tar.file_header(&"d/".repeat(90), 600, &META).unwrap();
    tar.write_all(&[b'x'; 600]).unwrap();
    tar.symlink("pg_wal", &format!("/mnt/{}", "t".repeat(120)), &META)
        .unwrap();
    tar.directory(&"naïve/".repeat(30), &directory).unwrap();
    tar.finish().unwrap()
}

fn names(archive: &[u8]) -> Vec<String> {
    read_all(archive)
        .unwrap()
        .into_iter()
        .map(|(member, _)| member.path.into_string())
        .collect()
}

#[test]
fn what_is_written_is_read() {
    let members = read_all(&sample()).expect("whole");
    let kinds: Vec<(&str, &MemberKind, usize)> = members
        .iter()
        .map(|(member, body)| (member.path.as_str(), &member.kind, body.len()))
        .collect();
    let long = ["d"; 90].join("/");
    let target = format!("/mnt/{}", "t".repeat(120));
    let naive = ["naïve"; 30].join("/");
    let expected = [
        ("", &MemberKind::Directory, 0),
        ("base/1", &MemberKind::Directory, 0),
        ("PG_VERSION", &MemberKind::File { size: 3 }, 3),
        ("base/1/empty", &MemberKind::File { size: 0 }, 0),
        (long.as_str(), &MemberKind::File { size: 600 }, 600),
        ("pg_wal", &MemberKind::Symlink { target }, 0),
        (naive.as_str(), &MemberKind::Directory, 0),
    ];
    assert_eq!(kinds, expected);
    let (version, _) = &members[2];
    assert_eq!(
        (version.mode, version.uid, version.gid, version.mtime),
        (0o600, 999, 998, META.mtime)
    );
}

#[test]
fn layout_of_the_first_blocks() {
    let archive = sample();
    assert_eq!(archive.len() % RECORD_BYTES, 0);
    assert_eq!(archive, sample(), "deterministic");
    assert_eq!(&archive[..2], b"/\0", "WAL-E's name of the data directory");
    assert_eq!(&archive[257..265], b"ustar  \0", "GNU");
    assert_eq!(archive[156], b'5');
    assert_eq!(&archive[512..520], b"base/1/\0");
    assert_eq!(&archive[1536..1539], b"15\n");
}

#[test]
fn the_length_is_a_multiple_of_a_record() {
    for bodies in [0, 1, 16, 17, 18, 19, 20, 21] {
        let mut tar = TarWriter::new(Vec::new());
        tar.file_header("x", bodies * 512, &META).unwrap();
        assert_eq!(tar.pad().unwrap(), bodies * 512);
        let archive = tar.finish().unwrap();
        assert_eq!(archive.len() % RECORD_BYTES, 0);
        assert!(archive.len() as u64 >= (bodies + 3) * 512);
        assert_eq!(read_all(&archive).unwrap().len(), 1);
    }
}

#[test]
fn the_declared_length_is_kept() {
    let mut tar = TarWriter::new(Vec::new());
    tar.file_header("short", 10, &META).unwrap();
    tar.write_all(b"12345").unwrap();
    assert_eq!(
        tar.finish_body().unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    assert!(
        tar.directory("next", &META).is_err(),
        "the body is not complete"
    );
    assert_eq!(
        tar.write_all(b"123456").unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    assert_eq!(tar.pad().unwrap(), 5);
    assert!(tar.write_all(b"x").is_err(), "no body is open");
    let members = read_all(&tar.finish().unwrap()).unwrap();
    assert_eq!(members[0].1, b"12345\0\0\0\0\0");

    let mut tar = TarWriter::new(Vec::new());
    tar.file_header("short", 10, &META).unwrap();
    assert!(tar.finish().is_err());
}

#[test]
fn names_that_are_not_written() {
    let mut tar = TarWriter::new(Vec::new());
    for name in ["/etc", "../x", "a/../b", "a\0b", "//"] {
        assert!(tar.directory(name, &META).is_err(), "{name:?}");
        assert!(tar.file_header(name, 0, &META).is_err(), "{name:?}");
    }
    assert!(
        tar.file_header("", 0, &META).is_err(),
        "the root is no file"
    );
    assert!(tar.symlink("", "x", &META).is_err());
    assert!(tar.symlink("x", "", &META).is_err());
    assert!(tar.symlink("x", "a\0b", &META).is_err());
    assert_eq!(tar.written(), 0);
}

#[test]
fn golden_archives_of_other_programs() {
    let long = format!("base/16384/{}/16385", "long".repeat(30));
    let target = MemberKind::Symlink {
        target: format!("/mnt/{}", "target".repeat(20)),
    };
    let cases: [(&str, &[u8]); 4] = [
        (
            "python gnu",
            include_bytes!("../../testdata/python-3.11/gnu.tar"),
        ),
        (
            "python pax",
            include_bytes!("../../testdata/python-3.11/pax.tar"),
        ),
        (
            "gnu tar gnu",
            include_bytes!("../../testdata/gnu-tar-1.34/gnu.tar"),
        ),
        (
            "gnu tar posix",
            include_bytes!("../../testdata/gnu-tar-1.34/posix.tar"),
        ),
    ];
    for (case, archive) in cases {
        let members = read_all(archive).expect(case);
        let find = |path: &str| {
            members
                .iter()
                .find(|(member, _)| member.path.as_str() == path)
                .unwrap_or_else(|| panic!("{case}: {path}"))
        };
        assert_eq!(find("").0.kind, MemberKind::Directory, "{case}");
        assert_eq!(find("PG_VERSION").1, b"15\n", "{case}");
        let (file, body) = find(&long);
        assert_eq!(file.kind, MemberKind::File { size: 600 }, "{case}");
        assert_eq!(body, &[b'x'; 600], "{case}");
        assert_eq!(
            (file.mode, file.uid, file.gid, file.mtime),
            (0o600, 999, 998, META.mtime),
            "{case}"
        );
        assert_eq!(find("pg_wal").0.kind, target, "{case}");
        assert_eq!(find("base/naïve").1, b"", "{case}");
        let target = MemberPath::parse("PG_VERSION").unwrap();
        assert_eq!(
            find("base/linked").0.kind,
            MemberKind::HardLink { target },
            "{case}"
        );
    }
    let ustar = names(include_bytes!("../../testdata/python-3.11/ustar.tar"));
    assert!(
        ustar.contains(&format!("{}/{}", "d".repeat(90), "e".repeat(90))),
        "{ustar:?}"
    );
}

#[test]
fn golden_partitions_of_wal_e() {
    let cases: [(&[u8], u64, &[u8]); 2] = [
        (
            include_bytes!("../../testdata/wal-e-1.1.1/partition-gnu.tar"),
            233,
            b"10\n",
        ),
        (
            include_bytes!("../../testdata/wal-e-1.1.1/partition-pax.tar"),
            252,
            b"14\n",
        ),
    ];
    for (archive, label_bytes, version) in cases {
        let members = read_all(archive).expect("whole");
        let find = |path: &str| {
            members
                .iter()
                .find(|(member, _)| member.path.as_str() == path)
                .expect(path)
        };
        assert_eq!(find("").0.kind, MemberKind::Directory);
        assert_eq!(find("").0.mode, 0o700);
        assert_eq!(find("PG_VERSION").1, version);
        assert_eq!(
            find("backup_label").0.kind,
            MemberKind::File { size: label_bytes }
        );
        assert!(find("pg_wal").0.mtime > 1_790_000_000);
    }
}

#[test]
fn a_cut_archive_is_never_whole() {
    let archive = sample();
    let end = archive.len() - archive.iter().rev().take_while(|&&byte| byte == 0).count();
    let marks = end.next_multiple_of(BLOCK_BYTES) + 2 * BLOCK_BYTES;
    for cut in 0..marks {
        let error = read_all(&archive[..cut]).expect_err("truncated");
        let kind = io::Error::from(error).kind();
        assert_eq!(kind, io::ErrorKind::UnexpectedEof, "cut at {cut}");
    }
    for cut in marks..archive.len() {
        assert!(
            read_all(&archive[..cut]).is_ok(),
            "padding after the end marks is optional, cut at {cut}"
        );
    }
}

/// Only where a member ends, and only where that is allowed.
#[test]
fn an_archive_may_end_without_its_marks_where_that_is_allowed() {
    let archive = sample();
    let mut whole = TarReader::new(archive.as_slice());
    let mut ends = vec![0];
    while let Some(member) = whole.next() {
        member.expect("whole");
        io::copy(&mut whole, &mut io::sink()).expect("whole");
        let rest = whole.get_ref().len();
        ends.push((archive.len() - rest).next_multiple_of(BLOCK_BYTES));
    }
    let count = |bytes: &[u8]| {
        let mut reader = TarReader::new(bytes).ending(TarEnd::Bare);
        let mut members = 0;
        while let Some(member) = reader.next() {
            member?;
            members += 1;
        }
        Ok::<_, TarError>(members)
    };
    let last = ends[ends.len() - 1];
    for cut in 0..=last {
        let found = count(&archive[..cut]);
        if let Some(members) = ends.iter().position(|end| *end == cut) {
            assert_eq!(found.expect("it may end"), members, "cut at {cut}");
        } else {
            let kind = io::Error::from(found.expect_err("cut")).kind();
            assert_eq!(kind, io::ErrorKind::UnexpectedEof, "cut at {cut}");
        }
    }
    for cut in [last + 1, last + BLOCK_BYTES, last + BLOCK_BYTES + 1] {
        assert!(count(&archive[..cut]).is_err(), "half of the marks");
    }
    assert_eq!(count(&archive).expect("whole"), ends.len() - 1);
}

#[test]
fn a_changed_header_is_noticed() {
    let archive = sample();
    for at in 0..BLOCK_BYTES {
        let mut changed = archive.clone();
        changed[at] ^= 1;
        // The checksum field itself may be padded in more than one way, but not say another number.
        if changed[at] == b' ' || (148..156).contains(&at) {
            continue;
        }
        assert!(
            matches!(read_all(&changed), Err(TarError::Damaged { .. })),
            "byte {at}"
        );
    }
}

#[test]
fn bytes_around_the_end_marks() {
    let archive = sample();
    let mut zeros = archive.clone();
    zeros.resize(archive.len() + 100_001, 0);
    assert_eq!(read_all(&zeros).unwrap().len(), 7);
    for position in [archive.len(), archive.len() + 5000] {
        let mut trailing = archive.clone();
        trailing.resize(position, 0);
        trailing.push(1);
        assert!(matches!(read_all(&trailing), Err(TarError::Damaged { .. })));
    }
    let mut two = archive.clone();
    two.extend_from_slice(&archive);
    assert!(read_all(&two).is_err(), "two archives in one stream");

    let mut single = archive[..BLOCK_BYTES].to_vec();
    single.resize(2 * BLOCK_BYTES, 0);
    single.extend_from_slice(&archive[..BLOCK_BYTES]);
    assert!(read_all(&single).is_err(), "one zero block before a member");

    assert!(
        matches!(read_all(&vec![0; 17 << 20]), Err(TarError::Damaged { .. })),
        "a bomb of zero bytes"
    );
}

/// An archive of raw members: name, type, link, size field, body.
fn raw(members: &[(&str, u8, &str, u64, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, kind, link, size, body) in members {
        let mut header = ::tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.as_old_mut().linkflag = [*kind];
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(*size);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(body);
        out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
    }
    out.resize(out.len() + 2 * BLOCK_BYTES, 0);
    out
}

#[test]
fn members_that_are_refused() {
    let cases: [(&str, u8, &str, u64); 20] = [
        ("/dev/sda", b'4', "", 0),
        ("dev", b'3', "", 0),
        ("fifo", b'6', "", 0),
        ("sparse", b'S', "", 0),
        ("volume", b'V', "", 0),
        ("multi", b'M', "", 0),
        ("dump", b'D', "", 0),
        ("star", b'Z', "", 0),
        ("../escape", b'0', "", 0),
        ("a/../../b", b'5', "", 0),
        ("//etc/passwd", b'0', "", 0),
        ("/", b'0', "", 0),
        (".", b'2', "x", 0),
        ("empty-link", b'2', "", 0),
        ("hard", b'1', "../../etc/shadow", 0),
        ("hard", b'1', "//etc/shadow", 0),
        ("hard", b'1', "/", 0),
        ("link-with-body", b'2', "x", 5),
        ("directory-with-body/", b'5', "", 512),
        ("huge", b'0', "", u64::MAX),
    ];
    for (name, kind, link, size) in cases {
        let archive = raw(&[(name, kind, link, size.min(7), b"")]);
        let archive = if size == u64::MAX {
            let mut header = ::tar::Header::new_gnu();
            header.as_old_mut().name[0] = b'h';
            header.set_entry_type(::tar::EntryType::Regular);
            header.set_size(size);
            header.set_mode(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_cksum();
            header.as_bytes().to_vec()
        } else {
            archive
        };
        let result = read_all(&archive);
        assert!(
            matches!(result, Err(TarError::Refused { .. })),
            "{name} {}: {result:?}",
            char::from(kind)
        );
    }
}

#[test]
fn names_are_relative_whoever_wrote_them() {
    let archive = raw(&[
        ("/", b'5', "", 0, b""),
        ("/base/5//16384", b'0', "", 0, b""),
        ("./global/", b'5', "", 0, b""),
        ("old-directory/", b'\0', "", 0, b""),
        ("contiguous", b'7', "", 1, b"x"),
    ]);
    assert_eq!(
        names(&archive),
        ["", "base/5/16384", "global", "old-directory", "contiguous"]
    );
    assert_eq!(read_all(&archive).unwrap()[3].0.kind, MemberKind::Directory);
}

#[test]
fn extended_headers() {
    let path = b"16 path=new/abc\n" as &[u8];
    let taken = raw(&[("pax", b'x', "", 16, path), ("old", b'0', "", 0, b"")]);
    assert_eq!(names(&taken), ["new/abc"]);
    let only_once = raw(&[
        ("pax", b'x', "", 16, path),
        ("old", b'0', "", 0, b""),
        ("second", b'0', "", 0, b""),
    ]);
    assert_eq!(names(&only_once), ["new/abc", "second"]);
    let sized = raw(&[
        ("pax", b'x', "", 9, b"9 size=3\n"),
        ("f", b'0', "", 0, b"abc"),
    ]);
    assert_eq!(read_all(&sized).unwrap()[0].1, b"abc");
    let global = raw(&[
        ("g", b'g', "", 12, b"12 mtime=42\n"),
        ("f", b'0', "", 0, b""),
    ]);
    assert_eq!(read_all(&global).unwrap()[0].0.mtime, 42);

    let long = "x".repeat(5000);
    let bad: [Vec<u8>; 7] = [
        raw(&[("pax", b'x', "", 16, path)]),
        raw(&[
            ("pax", b'x', "", 16, b"16 path=../../x\n"),
            ("f", b'0', "", 0, b""),
        ]),
        raw(&[("g", b'g', "", 16, path), ("f", b'0', "", 0, b"")]),
        raw(&[
            ("pax", b'x', "", (1 << 20) + 1, b""),
            ("f", b'0', "", 0, b""),
        ]),
        raw(&[
            ("././@LongLink", b'L', "", 1 << 30, b""),
            ("f", b'0', "", 0, b""),
        ]),
        raw(&[
            ("././@LongLink", b'L', "", 5000, long.as_bytes()),
            ("f", b'0', "", 0, b""),
        ]),
        raw(&[
            ("././@LongLink", b'L', "", 4, b"a\0b\0"),
            ("f", b'0', "", 0, b""),
        ]),
    ];
    for (index, archive) in bad.iter().enumerate() {
        assert!(read_all(archive).is_err(), "case {index}");
    }
}

#[test]
fn an_unread_body_is_skipped_and_an_error_is_final() {
    let archive = sample();
    let mut reader = TarReader::new(archive.as_slice());
    let members: Result<Vec<Member>, TarError> = std::iter::from_fn(|| reader.next()).collect();
    assert_eq!(members.unwrap().len(), 7);
    assert!(reader.next().is_none());
    let mut reader = TarReader::new(&archive[..700]);
    assert!(reader.next().unwrap().is_ok());
    assert!(reader.next().unwrap().is_err());
    assert!(reader.next().is_none());
}

#[test]
fn the_source_is_read_to_its_end_before_none() {
    // A decoder below reports a wrong checksum only there.
    struct FailsAtEnd<'a>(&'a [u8]);
    impl Read for FailsAtEnd<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            match self.0.read(out)? {
                0 => Err(io::Error::new(io::ErrorKind::InvalidData, "checksum")),
                count => Ok(count),
            }
        }
    }
    let archive = sample();
    let mut reader = TarReader::new(FailsAtEnd(&archive));
    let results: Vec<_> = std::iter::from_fn(|| reader.next()).collect();
    assert_eq!(results.len(), 8);
    assert!(
        matches!(&results[7], Err(TarError::Io(error)) if error.kind() == io::ErrorKind::InvalidData)
    );
}

#[test]
fn the_header_of_a_very_large_file() {
    let mut tar = TarWriter::new(Vec::new());
    tar.file_header(
        "large",
        9 << 30,
        &Meta {
            uid: 3_000_000,
            ..META
        },
    )
    .unwrap();
    let archive = tar.get_ref().clone();
    let member = TarReader::new(archive.as_slice()).next().unwrap().unwrap();
    assert_eq!(member.kind, MemberKind::File { size: 9 << 30 });
    assert_eq!(member.uid, 3_000_000);
}

/// Runs the real `tar`; a machine without it skips aloud.
fn gnu_tar(arguments: &[&str], directory: &Path) -> Option<String> {
    let output = match Command::new("tar")
        .args(arguments)
        .current_dir(directory)
        .output()
    {
        Ok(output) => output,
        Err(error) => {
            let why = format!("the program tar cannot be run: {error}");
            wale_testkit::skip("tar against the real program", &why);
            return None;
        }
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(String::from_utf8(output.stdout).expect("utf-8"))
}

#[test]
fn gnu_tar_lists_and_extracts_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.tar"), sample()).unwrap();
    let Some(listing) = gnu_tar(
        &["--utc", "--numeric-owner", "-tvf", "a.tar"],
        folder.path(),
    ) else {
        return;
    };
    let lines: Vec<&str> = listing.lines().collect();
    assert_eq!(lines.len(), 7);
    assert!(
        lines[0].starts_with("drwx------ 999/998") && lines[0].ends_with(" /"),
        "{listing}"
    );
    assert!(
        lines[2].contains("3 2020-01-02 03:04 PG_VERSION"),
        "{listing}"
    );
    assert!(
        lines[5].contains(&format!("pg_wal -> /mnt/{}", "t".repeat(120))),
        "{listing}"
    );

    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    gnu_tar(&["--no-same-owner", "-xf", "../a.tar"], &out);
    assert_eq!(std::fs::read(out.join("PG_VERSION")).unwrap(), b"15\n");
    assert_eq!(
        std::fs::read(out.join(["d"; 90].join("/"))).unwrap(),
        [b'x'; 600]
    );
    assert!(out.join(["naïve"; 30].join("/")).is_dir());
}

#[test]
fn gnu_tar_reads_a_size_above_8_gib() {
    use std::io::{Seek, SeekFrom};
    let folder = tempfile::tempdir().unwrap();
    let mut tar = TarWriter::new(Vec::new());
    tar.file_header("large", 9 << 30, &META).unwrap();
    // A hole stands for the body: nine gibibytes that no disk has to hold.
    let mut file = std::fs::File::create(folder.path().join("a.tar")).unwrap();
    file.write_all(tar.get_ref()).unwrap();
    file.seek(SeekFrom::Current(9 << 30)).unwrap();
    file.write_all(&[0; RECORD_BYTES]).unwrap();
    drop(file);
    let Some(listing) = gnu_tar(&["-tvf", "a.tar"], folder.path()) else {
        return;
    };
    assert!(listing.contains(" 9663676416 "), "{listing}");
}

fn any_member() -> impl Strategy<Value = (String, MemberKind, Vec<u8>, Meta)> {
    let path = prop::collection::vec("[a-zé0-9_. -]{1,60}", 1..5)
        .prop_map(|parts| parts.join("/"))
        .prop_filter("stays below", |path| {
            path.split('/').all(|part| part != "." && part != "..")
        });
    let meta = (0u32..0o10000, 0u64..1 << 40, any::<u64>(), 0u64..1 << 40).prop_map(
        |(mode, uid, gid, mtime)| Meta {
            mode,
            uid: uid >> 8,
            gid: gid >> 32,
            mtime: mtime >> 4,
        },
    );
    let kind = prop_oneof![
        Just(None),
        prop::collection::vec(any::<u8>(), 0..2000).prop_map(|body| Some((None, body))),
        "/?[a-z./]{1,200}".prop_map(|target| Some((Some(target), Vec::new()))),
    ];
    (path, kind, meta).prop_map(|(path, kind, meta)| match kind {
        None => (path, MemberKind::Directory, Vec::new(), meta),
        Some((None, body)) => (
            path,
            MemberKind::File {
                size: body.len() as u64,
            },
            body,
            meta,
        ),
        Some((Some(target), _)) => (path, MemberKind::Symlink { target }, Vec::new(), meta),
    })
}

proptest! {
    #[test]
    fn decode_after_encode_is_identity(members in prop::collection::vec(any_member(), 0..8)) {
        let mut tar = TarWriter::new(Vec::new());
        for (path, kind, body, meta) in &members {
            match kind {
                MemberKind::Directory => tar.directory(path, meta).unwrap(),
                MemberKind::File { size } => {
                    tar.file_header(path, *size, meta).unwrap();
                    tar.write_all(body).unwrap();
                    tar.finish_body().unwrap();
                }
                MemberKind::Symlink { target } => tar.symlink(path, target, meta).unwrap(),
                MemberKind::HardLink { .. } => unreachable!("not generated"),
            }
        }
        let archive = tar.finish().unwrap();
        let read = read_all(&archive).unwrap();
        prop_assert_eq!(read.len(), members.len());
        for ((member, got), (path, kind, body, meta)) in read.iter().zip(&members) {
            prop_assert_eq!(member.path.as_str(), path.as_str());
            prop_assert_eq!(&member.kind, kind);
            prop_assert_eq!(got, body);
            let read_meta = Meta { mode: member.mode, uid: member.uid, gid: member.gid, mtime: member.mtime };
            prop_assert_eq!(&read_meta, meta);
        }
    }

    #[test]
    fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..3000), at in 0usize..3000, fix: bool) {
        // Random bytes seldom pass the checksum, so some inputs are a damaged sample instead.
        if fix {
            let mut archive = sample();
            let at = at.min(archive.len() - bytes.len());
            archive[at..at + bytes.len()].copy_from_slice(&bytes);
            bytes = archive;
        }
        let _ = read_all(&bytes);
    }
}
