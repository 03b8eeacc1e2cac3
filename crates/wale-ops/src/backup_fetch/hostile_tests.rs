//! Row 64 of the fault battery: backups that somebody made to do harm. They are refused before they cost memory or disk,
//! and nothing of them lands outside of the directories of the restore.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use wale_archive::Remedy;
use wale_format::sentinel::TablespaceSpec;
use wale_format::{Codec, Seal};
use wale_pipeline::{CancellationToken, Progress};
use wale_storage::Store;

use super::options::RestoreOptions;
use crate::backup_content::FOREIGN_DIRECTORIES_MAX;
use crate::backup_content::testing::Bench;
use crate::error::{Kind, OpError};
use crate::testing;

/// Whose backup it says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    /// wale's, with a manifest.
    Wale,
    /// WAL-E's, without one: more is let in.
    Other,
}

/// What becomes of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Refused,
    /// The restore goes on without it.
    LeftOut,
}

/// A header as only a hostile writer makes it: name, type, size and link are taken as they are.
fn header(name: &[u8], kind: u8, size: &[u8; 12], link: &[u8]) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000600\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(size);
    block[136..148].copy_from_slice(b"00000000000\0");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn octal(size: u64) -> [u8; 12] {
    let text = format!("{size:011o}\0");
    text.as_bytes().try_into().expect("12 characters")
}

/// Adds a partition to the bench's backup, and takes the manifest from it if another tool is to have made it.
fn tamper(bench: &Bench, maker: Maker, stored: Vec<u8>, members: u64) {
    if maker == Maker::Other {
        bench.make_foreign();
    }
    bench.put_partition(90, Codec::Zstd, stored, members);
}

async fn restore(maker: Maker, plain: &[u8]) -> (Bench, Result<(), OpError>) {
    let bench = Bench::new().await;
    tamper(&bench, maker, testing::encode(Codec::Zstd, plain), 1);
    let result = bench.restore(&bench.options()).await.map(drop);
    (bench, result)
}

/// Everything in the bench's folder that is neither source nor target of the restore.
fn strangers(bench: &Bench) -> Vec<String> {
    let ours = ["source", "space", "target", "elsewhere"];
    let names = fs::read_dir(bench.path("")).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !ours.contains(&name.as_str()))
        .collect()
}

/// Bytes of the files below a folder, and how many files and folders there are.
fn used(folder: &Path) -> (u64, usize) {
    let mut sum = (0, 0);
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.path().symlink_metadata().unwrap();
            sum.1 += 1;
            if meta.is_dir() {
                waiting.push(entry.path());
            } else {
                sum.0 += meta.len();
            }
        }
    }
    sum
}

use Fate::{LeftOut, Refused};

const NONE: [u8; 12] = *b"00000000000\0";
const SOME: [u8; 12] = *b"00000000764\0";
const HUGE: [u8; 12] = *b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff";

/// What is hostile about a member, its name, type, size and link, and what becomes of it.
type HostileMember = (
    &'static str,
    &'static [u8],
    u8,
    [u8; 12],
    &'static [u8],
    Fate,
);

const HOSTILE_MEMBERS: [HostileMember; 14] = [
    (
        "an absolute name",
        b"//tmp/wale-escaped",
        b'0',
        NONE,
        b"",
        Refused,
    ),
    (
        "a name that goes up",
        b"../escaped",
        b'0',
        NONE,
        b"",
        Refused,
    ),
    (
        "a name that goes up later",
        b"base/1/../../../escaped",
        b'0',
        NONE,
        b"",
        Refused,
    ),
    (
        "a directory that goes up",
        b"../escaped/",
        b'5',
        NONE,
        b"",
        Refused,
    ),
    ("a link to the root", b"base/9", b'2', NONE, b"/", LeftOut),
    (
        "a link that goes up",
        b"base/9",
        b'2',
        NONE,
        b"../../..",
        LeftOut,
    ),
    (
        "a hard link that goes up",
        b"base/9",
        b'1',
        NONE,
        b"../../escaped",
        Refused,
    ),
    (
        "a hard link to pg_control",
        b"base/9",
        b'1',
        NONE,
        b"global/pg_control",
        Refused,
    ),
    ("a character device", b"base/9", b'3', NONE, b"", Refused),
    ("a block device", b"base/9", b'4', NONE, b"", Refused),
    ("a named pipe", b"base/9", b'6', NONE, b"", Refused),
    ("something unknown", b"base/9", b'Z', NONE, b"", Refused),
    ("a second copy", b"base/1/1", b'0', SOME, b"", Refused),
    ("an impossible size", b"base/9", b'0', HUGE, b"", Refused),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_64_members_that_lead_out_or_are_no_files_are_refused() {
    for maker in [Maker::Wale, Maker::Other] {
        for (what, name, kind, size, link, fate) in &HOSTILE_MEMBERS {
            let mut plain = header(name, *kind, size, link).to_vec();
            plain.resize(512 + 512 + 1024, 0);
            let (bench, result) = restore(maker, &plain).await;
            assert_eq!(strangers(&bench), [""; 0], "{maker:?}, {what}");
            if maker == Maker::Other && *fate == Fate::LeftOut {
                result.unwrap_or_else(|error| panic!("{what}: {error:?}"));
                assert!(
                    bench.path("target/base/9").symlink_metadata().is_err(),
                    "{what}"
                );
                continue;
            }
            let error = result.expect_err(what);
            assert_eq!(
                error.kind,
                Kind::CorruptData,
                "{maker:?}, {what}: {error:?}"
            );
            bench.assert_half_done();
        }
    }
}

/// What is longer or shorter than it says, and small archives that become large.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_64_wrong_lengths_and_bombs_are_refused_before_they_cost_anything() {
    let large = 4 << 30;
    let mut cut = header(b"base/1/99999", b'0', &octal(5000), b"").to_vec();
    cut.extend_from_slice(&[7; 1000]);
    let mut after_the_end = vec![0; 1024];
    after_the_end.resize(64 << 20, 0);
    let cases = [
        (
            "another size than the manifest's",
            header(b"base/1/1", b'0', &octal(7), b"").to_vec(),
        ),
        ("a body that is cut", cut),
        (
            "4 GiB that nobody announced",
            header(b"base/1/99999", b'0', &octal(large), b"").to_vec(),
        ),
        ("64 MiB of nothing after the end", after_the_end),
    ];
    for maker in [Maker::Wale, Maker::Other] {
        for (what, plain) in &cases {
            let (bench, result) = restore(maker, plain).await;
            let error = result.expect_err(what);
            assert_eq!(
                error.kind,
                Kind::CorruptData,
                "{maker:?}, {what}: {error:?}"
            );
            bench.assert_half_done();
            let (bytes, _) = used(&bench.path("target"));
            assert!(
                bytes < 8 << 20,
                "{maker:?}, {what}: {bytes} bytes were written"
            );
        }
    }
}

/// A partition of a million members with different names.
fn a_million(kind: u8) -> Vec<u8> {
    let mut stored = Seal::unencrypted(Codec::Zstd).writer(Vec::new()).unwrap();
    let mut many = Vec::new();
    for number in 0..100 {
        many.extend_from_slice(&header(
            format!("base/x/0000/{number:03}").as_bytes(),
            kind,
            &octal(0),
            b"",
        ));
    }
    for number in 0..10_000u32 {
        let digits = format!("{number:04}");
        let more: u32 = digits.bytes().map(|digit| u32::from(digit - b'0')).sum();
        let mut these = many.clone();
        for block in these.chunks_exact_mut(512) {
            let sum = str::from_utf8(&block[148..154]).unwrap();
            let sum = u32::from_str_radix(sum, 8).unwrap() + more;
            block[7..11].copy_from_slice(digits.as_bytes());
            block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        }
        stored.write_all(&these).unwrap();
    }
    stored.finish().unwrap()
}

/// A million entries: of files none is let in that the manifest does not have, and directories have an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_64_a_million_entries_are_refused_with_bounded_memory_and_disk() {
    for (maker, kind) in [(Maker::Wale, b'0'), (Maker::Other, b'5')] {
        let bench = Bench::new().await;
        tamper(&bench, maker, a_million(kind), 1_000_000);
        let error = bench
            .restore(&bench.options())
            .await
            .map(drop)
            .expect_err("a million");
        assert_eq!(error.kind, Kind::CorruptData, "{maker:?}: {error:?}");
        bench.assert_half_done();
        let (_, entries) = used(&bench.path("target"));
        assert!(
            entries as u64 <= FOREIGN_DIRECTORIES_MAX + 2000,
            "{maker:?}: {entries} entries"
        );
    }
}

/// Rewrites what the backup's sentinel says of its tablespace.
fn place_tablespace(bench: &Bench, maker: Maker, location: &str) {
    let entry = |spec: &mut Option<TablespaceSpec>| {
        let entry = spec.as_mut().unwrap().entries.get_mut("16384").unwrap();
        entry.loc = Some(location.to_owned());
    };
    if matches!(maker, Maker::Other) {
        bench.one_frame_each();
    }
    bench.change_sentinel(|sentinel| {
        entry(&mut sentinel.spec);
        entry(&mut sentinel.wal_g_spec);
        match maker {
            Maker::Wale => {
                sentinel.wale.as_mut().unwrap().tablespaces[0].location = location.to_owned();
            }
            Maker::Other => sentinel.wale = None,
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_93_a_place_that_only_the_sentinel_names_is_not_written_to() {
    for maker in [Maker::Wale, Maker::Other] {
        let bench = Bench::new().await;
        let options = RestoreOptions {
            tablespace_mapping: Vec::new(),
            ..bench.options()
        };
        let victim = bench.path("victim");
        fs::create_dir(&victim).unwrap();
        let before = fs::metadata(&victim).unwrap().permissions();
        place_tablespace(&bench, maker, &victim.display().to_string());
        let error = bench.restore(&options).await.unwrap_err();
        assert_eq!(error.kind, Kind::NotEmpty, "{maker:?}: {error:?}");
        assert!(matches!(
            error.remedy.as_deref(),
            Some(Remedy::TablespacePlace { .. })
        ));
        assert!(!bench.path("target").exists());
        assert_eq!(fs::metadata(&victim).unwrap().permissions(), before);

        // Both records name the same place, which is there and empty: no setting is needed.
        let space = bench.path("space");
        fs::rename(&space, bench.path("victim/old")).unwrap();
        place_tablespace(&bench, maker, &space.display().to_string());
        let error = bench.restore(&options).await.unwrap_err();
        assert!(error.message.contains("does not exist"), "{error:?}");
        fs::create_dir(&space).unwrap();
        bench.restore(&options).await.unwrap();
        assert!(space.join("PG_15_202209061/5/16400").is_file());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_93_nothing_but_the_folder_of_the_version_is_written_into_a_tablespace() {
    for maker in [Maker::Wale, Maker::Other] {
        for name in [
            "authorized_keys",
            "PG_14_202107181/1",
            ".ssh/rc",
            "PG_15_202209061x/y",
        ] {
            let path = format!("pg_tblspc/16384/{name}");
            let mut plain = header(path.as_bytes(), b'0', &octal(0), b"").to_vec();
            plain.extend([0; 1024]);
            let (bench, result) = restore(maker, &plain).await;
            if maker == Maker::Wale {
                assert_eq!(result.unwrap_err().kind, Kind::CorruptData, "{name}");
                bench.assert_half_done();
            } else {
                result.unwrap();
            }
            let found: Vec<_> = fs::read_dir(bench.path("elsewhere"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert!(
                found.iter().all(|name| name == "PG_15_202209061"),
                "{found:?}"
            );
        }
    }
}

/// A folder of another catalog version is seen at the latest when the control file is there, and before a server can start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_93_a_folder_of_another_catalog_version_fails_the_restore() {
    let mut plain = header(b"pg_tblspc/16384/PG_15_1/x", b'0', &octal(0), b"").to_vec();
    plain.extend([0; 1024]);
    let (bench, result) = restore(Maker::Other, &plain).await;
    assert_eq!(result.unwrap_err().kind, Kind::CorruptData);
    bench.assert_half_done();
}

/// More folders than any bound that was written down: as many as the backup itself counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_81_as_many_folders_as_were_backed_up_are_restored() {
    let count = FOREIGN_DIRECTORIES_MAX + 100;
    let mut plain = Vec::new();
    for number in 0..count {
        plain.extend(header(
            format!("many/{number}").as_bytes(),
            b'5',
            &octal(0),
            b"",
        ));
    }
    plain.extend([0; 1024]);
    let bench = Bench::new().await;
    let stored = testing::encode(Codec::Zstd, &plain);
    tamper(&bench, Maker::Wale, stored, count);
    bench.restore(&bench.options()).await.unwrap();
    let made = fs::read_dir(bench.path("target/many")).unwrap().count();
    assert_eq!(made as u64, count);
}

/// zstd's largest window, in a budget that has no room for it and in one that has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_92_a_window_for_which_there_is_no_memory_is_refused_by_name() {
    // Magic number, a window of 128 MiB, and one raw block that is the end of a tar.
    let mut stored = vec![0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x88, 0x01, 0x20, 0x00];
    stored.extend([0; 1024]);
    for (memory, fits) in [(64 << 20, false), (256 << 20, true)] {
        let bench = Bench::new().await;
        tamper(&bench, Maker::Wale, stored.clone(), 0);
        let store = Arc::clone(&bench.faulty) as Arc<dyn Store>;
        let archive = testing::archive(store, Codec::Zstd, memory);
        let (progress, cancel) = (Progress::new(), CancellationToken::new());
        let result = super::run(&archive, &bench.options(), &progress, &cancel).await;
        if fits {
            result.unwrap();
            continue;
        }
        let error = result.unwrap_err();
        assert_eq!(error.kind, Kind::Configuration, "{error:?}");
        assert!(error.message.contains("part_00000090"), "{error:?}");
        assert_eq!(
            error.remedy.as_deref(),
            Some(&Remedy::MemoryOrWorkers { mib: 145 })
        );
        bench.assert_half_done();
    }
}
