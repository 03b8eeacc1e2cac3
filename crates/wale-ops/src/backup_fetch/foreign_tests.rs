//! Backups of other tools: no manifest says what must come, and there are links in them.

use std::fs;
use std::path::Path;

use wale_format::tar::{Meta, TarWriter};
use wale_format::{Codec, layout};
use wale_pg::ControlFile;
use wale_storage::ObjectKey;

use crate::backup_content::testing::{Bench, CONTROL_FILE, name};
use crate::error::Kind;
use crate::testing;

/// A foreign backup says of no file that it must come. Without its label it would start, and be corrupt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_backup_without_its_label_is_refused() {
    let bench = Bench::new().await;
    bench.make_foreign();
    bench.restore(&bench.options()).await.unwrap();
    fs::remove_dir_all(bench.path("target")).unwrap();
    fs::remove_dir_all(bench.path("elsewhere")).unwrap();

    let last = bench.partition_keys().pop().unwrap();
    let content = testing::encode(Codec::Zstd, &control_tar());
    bench.insert(last.as_str(), content);
    let error = bench.restore(&bench.options()).await.unwrap_err();
    assert!(error.message.contains("backup_label"), "{error:?}");
    assert_eq!(error.kind, Kind::CorruptData);
    bench.assert_half_done();
}

/// A tar with the control file alone.
fn control_tar() -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    let (path, size) = (ControlFile::PATH, CONTROL_FILE.len() as u64);
    tar.file_header(path, size, &META).unwrap();
    std::io::Write::write_all(&mut tar, CONTROL_FILE).unwrap();
    tar.finish().unwrap()
}

const META: Meta = Meta {
    mode: 0o600,
    uid: 0,
    gid: 0,
    mtime: 0,
};

/// Adds a partition to the bench's backup, which is WAL-E's from now on.
fn add_partition(bench: &Bench, make: &dyn Fn(&mut TarWriter<Vec<u8>>)) {
    bench.make_foreign();
    let mut tar = TarWriter::new(Vec::new());
    make(&mut tar);
    let stored = testing::encode(Codec::Lzo, &as_hard_links(tar.finish().unwrap()));
    bench.put_partition(90, Codec::Lzo, stored, 0);
}

/// WAL-E archives a file's second name as a hard link, links to files as they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_and_leftovers_of_a_foreign_backup() {
    let bench = Bench::new().await;
    add_partition(&bench, &|tar| {
        tar.file_header("extra/one", 5, &META).unwrap();
        std::io::Write::write_all(tar, b"bytes").unwrap();
        tar.symlink("extra/HARD", "extra/one", &META).unwrap();
        tar.symlink("extra/inside", "one", &META).unwrap();
        tar.symlink("extra/outside", "/etc/passwd", &META).unwrap();
        tar.symlink("base/1/1", "2", &META).unwrap();
        tar.symlink("pg_wal", "/srv/wal", &META).unwrap();
        tar.file_header("backup_manifest", 1, &META).unwrap();
        tar.pad().unwrap();
    });
    let report = bench.restore(&bench.options()).await.unwrap();
    let target = bench.path("target");
    let read = |name: &str| fs::read(target.join(name)).unwrap();
    assert_eq!(read("extra/HARD"), b"bytes");
    assert!(
        target
            .join("extra/HARD")
            .symlink_metadata()
            .unwrap()
            .is_file()
    );
    assert_eq!(
        fs::read_link(target.join("extra/inside")).unwrap(),
        Path::new("one")
    );
    assert!(target.join("extra/outside").symlink_metadata().is_err());
    assert!(
        target
            .join("base/1/1")
            .symlink_metadata()
            .unwrap()
            .is_file()
    );
    assert!(!target.join("backup_manifest").exists());
    assert!(!report.verified);
    let told = report.warnings.join("\n");
    for expected in [
        "\"extra/outside\" to \"/etc/passwd\" leads out",
        "\"base/1/1\" to \"2\" was not restored: something else has its name",
        "pg_wal was a link to \"/srv/wal\"",
        "has no manifest",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hard_link_that_leads_to_no_file_is_refused() {
    let bench = Bench::new().await;
    for to in ["extra/never", "extra/HARD", ControlFile::PATH] {
        add_partition(&bench, &|tar| tar.symlink("extra/HARD", to, &META).unwrap());
        let error = bench.restore(&bench.options()).await.unwrap_err();
        assert_eq!(error.kind, Kind::CorruptData, "{to}: {error:?}");
        bench.assert_half_done();
    }
}

/// The file and its second names in partitions of their own, in every order and with a name of a name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hard_link_may_lead_into_another_partition() {
    let large = vec![7; 4 << 20];
    for order in [[90, 91], [91, 90]] {
        let bench = Bench::new().await;
        bench.make_foreign();
        let mut file = TarWriter::new(Vec::new());
        file.file_header("extra/one", large.len() as u64, &META)
            .unwrap();
        std::io::Write::write_all(&mut file, &large).unwrap();
        file.pad().unwrap();
        let mut links = TarWriter::new(Vec::new());
        links.symlink("extra/HARD", "extra/HARD2", &META).unwrap();
        links.symlink("extra/HARD2", "extra/one", &META).unwrap();
        let parts = [
            file.finish().unwrap(),
            as_hard_links(links.finish().unwrap()),
        ];
        for (number, part) in order.into_iter().zip(parts) {
            bench.put_partition(number, Codec::Lzo, testing::encode(Codec::Lzo, &part), 0);
        }
        for workers in [1, 2] {
            let mut options = bench.options();
            options.workers = workers;
            bench.restore(&options).await.unwrap();
            for file in ["one", "HARD", "HARD2"] {
                let path = bench.path("target/extra").join(file);
                assert!(fs::read(path).unwrap() == large, "{order:?}: {file}");
            }
            fs::remove_dir_all(bench.path("target")).unwrap();
            fs::remove_dir_all(bench.path("elsewhere")).unwrap();
        }
    }
}

/// Makes hard links of the symbolic links whose name says so: our own writer writes none.
fn as_hard_links(mut archive: Vec<u8>) -> Vec<u8> {
    for header in archive.chunks_exact_mut(512) {
        if header.starts_with(b"extra/HARD") && header[156] == b'2' {
            header[156] = b'1';
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().copied().map(u32::from).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    archive
}

/// WAL-G lists what its backup holds. Without the list nobody would notice what is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_117_what_wal_g_lists_and_no_part_holds_fails_the_restore_by_name() {
    let parts = |bench: &Bench| -> Vec<String> {
        let names = bench.partition_keys().into_iter();
        let name = |key: ObjectKey| key.as_str().rsplit('/').next().unwrap().to_owned();
        names.map(name).collect()
    };
    for (case, lacking) in [
        ("whole", None),
        ("member", Some("base/5/99999")),
        ("part", Some("part_00000001.tar.zst")),
        ("copy", Some("copy_0.tar.7z")),
        ("list", Some("files_metadata.json")),
        ("unchanged", Some("names files as unchanged")),
    ] {
        let bench = Bench::new().await;
        bench.one_frame_each();
        bench.change_sentinel(|sentinel| {
            sentinel.wale = None;
            sentinel.files_metadata_disabled = None;
        });
        let mut files =
            serde_json::json!({"/": {}, "/base/5": {}, "/base/5/16390": {"IsSkipped": false}});
        if case == "unchanged" {
            files["/base/5/16391"] = serde_json::json!({"IsSkipped": true});
        }
        if case == "member" {
            files["/base/5/99999"] = serde_json::json!({});
        }
        let sets: serde_json::Map<String, serde_json::Value> = parts(&bench)
            .into_iter()
            .map(|part| (part, serde_json::json!(["backup_label", "/gone/meanwhile"])))
            .collect();
        let list = serde_json::json!({"Files": files, "TarFileSets": sets});
        if case != "list" {
            bench.insert(&layout::files_metadata(&name()), list.to_string().into());
        }
        // WAL-G has a partition of its own for it; a streamed backup has it beside the other files, too.
        let folder = layout::partitions_prefix(&name());
        bench.insert(&format!("{folder}pg_control.tar"), control_tar());
        if case == "part" {
            let gone = bench.partition_keys().remove(1);
            bench.remove(&gone);
        }
        if case == "copy" {
            bench.insert(&format!("{folder}copy_0.tar.7z"), vec![0u8; 1024]);
        }
        let restored = bench.restore(&bench.options()).await;
        let Some(lacking) = lacking else {
            restored.unwrap();
            continue;
        };
        let error = restored.unwrap_err();
        let kind = if case == "copy" {
            Kind::Configuration
        } else {
            Kind::CorruptData
        };
        assert_eq!(error.kind, kind, "{case}: {}", error.chain());
        assert!(error.message.contains(lacking), "{case}: {}", error.message);
        let begun = bench.path("target").exists();
        assert_eq!(begun, case == "member", "{case}");
        assert!(!bench.path("target/global/pg_control").exists(), "{case}");
    }
}
