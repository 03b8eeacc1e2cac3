//! Against PostgreSQL's own manifests, and its own `pg_verifybackup` against ours.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use std::collections::BTreeMap;

use proptest::prelude::*;

use wale_pg::{SystemIdentifier, byte_text};

use super::read::{ManifestItem, ManifestReader, copy_with_changed_file};
use super::*;

const PLAIN: &[u8] = include_bytes!("../../testdata/postgresql-15/backup_manifest-crc32c");
const ENCODED: &[u8] =
    include_bytes!("../../testdata/postgresql-15/backup_manifest-sha256-encoded");

/// All that a manifest says.
#[derive(Debug, Default)]
struct Manifest {
    version: u32,
    system_identifier: Option<SystemIdentifier>,
    files: BTreeMap<String, ManifestFile>,
    wal_ranges: Vec<WalRange>,
}

fn parse(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let mut manifest = Manifest::default();
    let mut reader = ManifestReader::new(bytes);
    let mut lines = Vec::new();
    while let Some(item) = reader.next_item()? {
        lines.extend_from_slice(reader.line());
        match item {
            ManifestItem::Version(version) => manifest.version = version,
            ManifestItem::SystemIdentifier(id) => manifest.system_identifier = Some(id),
            ManifestItem::File(file) => {
                manifest.files.insert(file.path.clone(), file);
            }
            ManifestItem::WalRange(range) => manifest.wal_ranges.push(range),
            ManifestItem::Frame | ManifestItem::End => {}
        }
    }
    assert_eq!(lines, bytes, "no line is left out");
    assert_eq!(reader.sha256()[..], Sha256::digest(bytes)[..]);
    Ok(manifest)
}

fn time(text: &str) -> DateTime<Utc> {
    text.parse().expect(text)
}

fn crc32c(bytes: &[u8]) -> u32 {
    u32::try_from(crc_fast::checksum(
        crc_fast::CrcAlgorithm::Crc32Iscsi,
        bytes,
    ))
    .expect("32 bits")
}

fn finish(builder: ManifestBuilder) -> Vec<u8> {
    builder.finish(
        TimelineId::FIRST,
        Lsn::new(0x200_0028),
        Lsn::new(0x200_0100),
    )
}

/// A manifest around given lines of files, with the right checksum.
fn with_files(version: &str, files: &str) -> Vec<u8> {
    let mut text = format!(
        "{{ \"PostgreSQL-Backup-Manifest-Version\": {version},\n\"Files\": [\n{files}\n],\n\"WAL-Ranges\": [\n\
         {{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }}\n],\n"
    );
    let digest = Sha256::digest(text.as_bytes());
    text.push_str(&checksum_line(&digest));
    text.into_bytes()
}

#[test]
fn a_real_manifest_is_read_and_printed_again_byte_for_byte() {
    let manifest = parse(PLAIN).expect("PostgreSQL's own");
    assert_eq!((manifest.version, manifest.files.len()), (1, 15));
    assert_eq!(manifest.system_identifier, None);
    let version = &manifest.files["PG_VERSION"];
    assert_eq!((version.size, version.crc32c), (3, Some(crc32c(b"15\n"))));
    assert_eq!(version.mtime, time("2026-11-23T16:01:11Z"));
    let range = WalRange {
        timeline: TimelineId::FIRST,
        start: Lsn::new(0x200_0028),
        end: Lsn::new(0x200_0100),
    };
    assert_eq!(manifest.wal_ranges, [range]);

    let mut builder = ManifestBuilder::new();
    // The map is sorted, PostgreSQL's list is in directory order: take the order from the text.
    let text = std::str::from_utf8(PLAIN).unwrap();
    for line in text
        .lines()
        .filter_map(|line| line.strip_prefix("{ \"Path\": \""))
    {
        let path = &line[..line.find('"').unwrap()];
        let file = &manifest.files[path];
        builder.add_file(path, file.size, file.mtime, file.crc32c.unwrap());
    }
    let printed = builder.finish(range.timeline, range.start, range.end);
    assert_eq!(String::from_utf8(printed).unwrap(), text);
}

#[test]
fn a_real_manifest_with_other_checksums_and_encoded_paths() {
    let manifest = parse(ENCODED).expect("PostgreSQL's own");
    let version = &manifest.files["PG_VERSION"];
    let expected = Sha256::digest(b"15\n");
    assert_eq!(
        version.checksum,
        ManifestChecksum::Sha256(expected.to_vec().into_boxed_slice())
    );
    assert_eq!(version.crc32c, None);
}

#[test]
fn version_2_names_the_cluster() {
    let entry = r#"{ "Path": "a", "Size": 1, "Last-Modified": "2026-01-02 03:04:05 GMT" }"#;
    let manifest = parse(&with_files(
        "2,\n\"System-Identifier\": 7447234573249283074",
        entry,
    ))
    .unwrap();
    assert_eq!(
        manifest.system_identifier,
        Some(SystemIdentifier::new(7_447_234_573_249_283_074))
    );
    assert_eq!(manifest.files["a"].checksum, ManifestChecksum::None);
    for version in ["0", "3"] {
        let result = parse(&with_files(version, entry));
        assert!(
            matches!(result, Err(ManifestError::UnknownVersion { .. })),
            "{version}"
        );
    }
}

#[test]
fn an_empty_manifest_and_two_timelines() {
    let ranges = [
        WalRange {
            timeline: TimelineId::new(2).unwrap(),
            start: Lsn::new(0x300),
            end: Lsn::new(0x400),
        },
        WalRange {
            timeline: TimelineId::FIRST,
            start: Lsn::new(0x200),
            end: Lsn::new(0x300),
        },
    ];
    let manifest = parse(&ManifestBuilder::new().finish_with_ranges(&ranges)).unwrap();
    assert!(manifest.files.is_empty());
    assert_eq!(manifest.wal_ranges, ranges);
}

#[test]
fn the_digest_of_a_written_manifest_is_that_of_its_text() {
    let mut writer = ManifestWriter::new(Vec::new()).unwrap();
    for path in ["a", "b"] {
        let modified = time("2026-01-02T03:04:05Z");
        writer.add_file(path, 1, modified, 7).unwrap();
    }
    let (text, sha256) = writer.finish(&[]).unwrap();
    assert_eq!(sha256[..], Sha256::digest(&text)[..]);
    assert_eq!(parse(&text).unwrap().files.len(), 2);
}

#[test]
fn names_are_escaped_or_encoded() {
    let mut builder = ManifestBuilder::new();
    let names: [&[u8]; 6] = [
        b"a\"b",
        b"a\\b",
        b"a\n\t\x01\x7f",
        "naïve".as_bytes(),
        b"caf\xe9",
        b"\xff/\xfe",
    ];
    for name in names {
        builder.add_file(
            &byte_text::from_bytes(name),
            0,
            time("2026-01-02T03:04:05Z"),
            0,
        );
    }
    let bytes = finish(builder);
    let text = String::from_utf8(bytes.clone()).unwrap();
    for printed in [
        r#""a\"b""#,
        r#""a\\b""#,
        "\"a\\n\\t\\u0001\u{7f}\"",
        "\"naïve\"",
        r#""Encoded-Path": "636166e9""#,
    ] {
        assert!(text.contains(printed), "{printed} in {text}");
    }
    let manifest = parse(&bytes).unwrap();
    for name in names {
        let text = byte_text::from_bytes(name);
        assert!(
            manifest.files.contains_key(&*text),
            "{}",
            name.escape_ascii()
        );
    }
}

#[test]
fn every_cut_and_every_changed_byte_is_noticed() {
    for cut in 0..PLAIN.len() {
        assert!(parse(&PLAIN[..cut]).is_err(), "cut at {cut}");
    }
    for at in 0..PLAIN.len() {
        let mut changed = PLAIN.to_vec();
        changed[at] ^= 1;
        assert!(parse(&changed).is_err(), "byte {at}");
    }
    assert!(matches!(
        parse(&[PLAIN, b"\n"].concat()),
        Err(ManifestError::Truncated)
    ));
}

#[test]
fn entries_that_are_refused() {
    let good = r#"{ "Path": "a", "Size": 1, "Last-Modified": "2026-01-02 03:04:05 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "00000000" }"#;
    assert!(parse(&with_files("1", good)).is_ok());
    let cases = [
        // A comma too few, too many, or none of a file; two files in a line, one in two.
        format!("{good}\n{good}"),
        format!("{good},"),
        format!("{good},\n"),
        format!("\n{good}"),
        format!("{good}, {good}"),
        good.replace(", \"Size\"", ",\n\"Size\""),
        good.replace("\"Path\": \"a\", ", ""),
        good.replace(
            "\"Path\": \"a\"",
            "\"Path\": \"a\", \"Encoded-Path\": \"61\"",
        ),
        good.replace("\"Path\": \"a\"", "\"Encoded-Path\": \"6\""),
        good.replace("\"Path\": \"a\"", "\"Encoded-Path\": \"6g\""),
        good.replace("\"Size\": 1", "\"Size\": -1"),
        good.replace("\"Size\": 1, ", ""),
        good.replace("GMT", "CET"),
        good.replace("2026-01-02", "2026-13-02"),
        good.replace("CRC32C", "CRC32"),
        good.replace("00000000", "0000000"),
        good.replace("00000000", "000000"),
        good.replace("00000000", "0000000g"),
        good.replace(", \"Checksum\": \"00000000\"", ""),
        good.replace("CRC32C", "SHA256"),
        good.replace("\"Size\"", "\"Unknown\": 1, \"Size\""),
    ];
    for entry in cases {
        let result = parse(&with_files("1", &entry));
        assert!(
            matches!(result, Err(ManifestError::Invalid(_))),
            "{entry}: {result:?}"
        );
    }
}

#[test]
fn lines_and_manifests_that_do_not_end_are_refused_without_being_kept() {
    let good = with_files("1", "");
    parse(&good).expect("a list of nothing, as wale writes it");
    let text = String::from_utf8(good).unwrap();
    parse(&remade(&text.replace("[\n\n]", "[\n]"))).expect("and as PostgreSQL does");
    let endless = ["{ \"Path\": \"", &"a".repeat(100_000)].concat();
    let result = parse(&with_files("1", &endless));
    assert!(
        matches!(result, Err(ManifestError::LineTooLong)),
        "{result:?}"
    );
    let mut reader = ManifestReader::new(std::io::BufReader::new(std::io::repeat(b'a')));
    assert!(matches!(
        reader.next_item(),
        Err(ManifestError::LineTooLong)
    ));
    // The longest path that a file system has, where every byte is escaped.
    let longest = "\u{1}".repeat(4096);
    let mut builder = ManifestBuilder::new();
    builder.add_file(&longest, 1, time("2026-01-02T03:04:05Z"), 7);
    assert!(
        parse(&finish(builder))
            .unwrap()
            .files
            .contains_key(&longest)
    );
    for (from, to) in [
        ("\"Files\": [", "\"Files\":["),
        ("\"WAL-Ranges\"", "\"Ranges\""),
        ("\"Timeline\": 1", "\"Timeline\": 0"),
        (" 1,\n", " one,\n"),
    ] {
        let result = parse(&remade(&text.replacen(from, to, 1)));
        assert!(
            matches!(result, Err(ManifestError::Invalid(_))),
            "{to}: {result:?}"
        );
    }
    let version = parse(&remade(&text.replacen(" 1,", " 18446744073709551615,", 1)));
    assert!(matches!(
        version,
        Err(ManifestError::UnknownVersion { found: u64::MAX })
    ));
}

/// The text with the checksum that it should have.
fn remade(text: &str) -> Vec<u8> {
    let covered = &text[..text.rfind("\"Manifest-Checksum\"").unwrap()];
    let line = checksum_line(&Sha256::digest(covered.as_bytes()));
    [covered, &line].concat().into_bytes()
}

#[test]
fn a_copy_has_another_entry_and_its_own_checksum() {
    let version_2 = String::from_utf8(PLAIN.to_vec()).unwrap().replacen(
        " 1,\n",
        " 2,\n\"System-Identifier\": 7,\n",
        1,
    );
    for original in [PLAIN.to_vec(), remade(&version_2)] {
        let before = parse(&original).unwrap();
        // The first of the list, one amid it, the last: the commas stay right.
        for path in before.files.keys() {
            let mut copy = Vec::new();
            let read =
                copy_with_changed_file(&original[..], &mut copy, path, (u64::MAX, 0x0102_0304));
            assert_eq!(read.unwrap()[..], Sha256::digest(&original)[..]);
            let mut after = parse(&copy).unwrap();
            let changed = after.files.get_mut(path).unwrap();
            assert_eq!(
                (changed.size, changed.crc32c),
                (u64::MAX, Some(0x0102_0304))
            );
            *changed = before.files[path].clone();
            assert_eq!(after.files, before.files);
            assert_eq!(after.wal_ranges, before.wal_ranges);
            assert_eq!(after.system_identifier, before.system_identifier);
            let lines = |bytes: &[u8]| bytes.split(|&byte| byte == b'\n').count();
            assert_eq!(lines(&copy), lines(&original));
        }
    }
    let mut same = Vec::new();
    copy_with_changed_file(PLAIN, &mut same, "no such file", (1, 1)).unwrap();
    assert_eq!(same, PLAIN, "every other line is kept byte for byte");
    assert!(copy_with_changed_file(&PLAIN[..900], &mut same, "x", (1, 1)).is_err());
}

/// Runs the real `pg_verifybackup`; a machine without it skips aloud.
fn pg_verifybackup(directory: &Path) -> Option<std::process::Output> {
    let program = Path::new("/usr/lib/postgresql/15/bin/pg_verifybackup");
    match Command::new(program).arg("-n").arg(directory).output() {
        Ok(output) => Some(output),
        Err(error) => {
            let why = format!("{} cannot be run: {error}", program.display());
            wale_testkit::skip("manifests against pg_verifybackup", &why);
            None
        }
    }
}

#[test]
fn pg_verifybackup_accepts_ours() {
    let folder = tempfile::tempdir().unwrap();
    let mut builder = ManifestBuilder::new();
    let names: [&[u8]; 8] = [
        b"PG_VERSION",
        b"base/5/16384",
        b"base/5/empty",
        b"a\"quote",
        b"back\\slash",
        b"control\n\x01\x1f\x7f",
        "naïve ñ 表".as_bytes(),
        b"latin-\xe9",
    ];
    for (index, name) in names.into_iter().enumerate() {
        let path = folder.path().join(OsStr::from_bytes(name));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let body = if name.ends_with(b"empty") {
            Vec::new()
        } else {
            vec![b'x'; index * 5000 + 1]
        };
        std::fs::write(&path, &body).unwrap();
        builder.add_file(
            &byte_text::from_bytes(name),
            body.len() as u64,
            time("2026-01-02T03:04:05.9Z"),
            crc32c(&body),
        );
    }
    std::fs::write(folder.path().join("backup_manifest"), finish(builder)).unwrap();

    let Some(output) = pg_verifybackup(folder.path()) else {
        return;
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    // The test would prove nothing if a wrong file were accepted too.
    std::fs::write(folder.path().join("PG_VERSION"), b"y").unwrap();
    let output = pg_verifybackup(folder.path()).expect("it ran before");
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("checksum mismatch for file \"PG_VERSION\"")
    );
}

proptest! {
    #[test]
    fn decode_after_encode_is_identity(
        files in prop::collection::btree_map(
            prop::collection::vec(any::<u8>(), 1..20),
            (any::<u64>(), 0i64..200_000_000_000, any::<u32>()),
            0..20,
        ),
        timeline in 1u32..,
        start: u64,
        end: u64,
    ) {
        let mut builder = ManifestBuilder::new();
        for (path, &(size, seconds, crc)) in &files {
            builder.add_file(&byte_text::from_bytes(path), size, DateTime::from_timestamp(seconds, 0).unwrap(), crc);
        }
        let timeline = TimelineId::new(timeline).unwrap();
        let manifest = parse(&builder.finish(timeline, Lsn::new(start), Lsn::new(end))).unwrap();
        prop_assert_eq!(&manifest.wal_ranges, &[WalRange { timeline, start: Lsn::new(start), end: Lsn::new(end) }]);
        prop_assert_eq!(manifest.files.len(), files.len());
        for (path, &(size, seconds, crc)) in &files {
            let file = &manifest.files[&*byte_text::from_bytes(path)];
            prop_assert_eq!((file.size, file.crc32c, file.mtime.timestamp()), (size, Some(crc), seconds));
        }
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, text in "\\PC{0,80}") {
        let _ = parse(&bytes);
        let _ = parse(&with_files("1", &text));
    }
}
