//! What one core does of the small steps: `cargo bench -p wale-format --bench micro [-- NAME]`.
//!
//! The pages are made here, rows of a time series; `WALE_BENCH_FILE=FILE` takes the codecs' bytes from a file of your own, such as a
//! tar of a data directory or WAL segments. `examples/speed.rs` is the same for a glance: without statistics, and quick.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark seals without an archive, and reads its own setting"
)]

use std::hint::black_box;
use std::io::{BufReader, Read, Write};

use chrono::DateTime;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wale_format::manifest::{ManifestBuilder, ManifestReader};
use wale_format::tar::{Meta, TarReader, TarWriter};
use wale_format::{
    Codec, CodecSettings, Crc32c, FrameStart, IndexReader, IndexedFile, IndexedPartition, KeyRing,
    PartitionPlan, PlanLimits, Seal, WINDOW_MAX_BYTES, WriteKey, frame_index,
};
use wale_pg::{ArchiveFileName, BackupLabel, Lsn, TimelineId, WalPageHeader, page};

/// Pieces as the pipeline makes them.
const PIECE_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = page::SIZE;
/// A few frames, and more than any cache of a core.
const PLAIN_BYTES: usize = 8 << 20;
const FILES: u32 = 1000;

/// Heap pages of a time series: a header, line pointers, and rows from the end down, each with a time, a device and a value.
fn pages() -> Vec<u8> {
    const ROW_BYTES: usize = 56;
    const ROWS: usize = 130;
    let mut plain = vec![0; PLAIN_BYTES];
    let mut state = 1_u64;
    for (number, page) in plain.chunks_exact_mut(PAGE_BYTES).enumerate() {
        page[4..8].copy_from_slice(&u32::try_from(number).unwrap_or(0).to_le_bytes());
        page[14..16].copy_from_slice(&8192_u16.to_le_bytes());
        for (device, row) in (0_u32..).zip(0..ROWS) {
            let at = PAGE_BYTES - (row + 1) * ROW_BYTES;
            let pointer = u32::try_from(at | ROW_BYTES << 17).unwrap_or(0) | 1 << 15;
            page[24 + row * 4..][..4].copy_from_slice(&pointer.to_le_bytes());
            // Knuth's multiplier for 64 bits.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let time = (number * ROWS + row) as u64 * 1_000_000 + 0x0002_9C3A_0000_0000;
            let tuple = &mut page[at..][..ROW_BYTES];
            tuple[..4].copy_from_slice(&730_u32.to_le_bytes());
            tuple[16..24].copy_from_slice(&[4, 0, 2, 9, 24, 0, 0, 0]);
            tuple[24..32].copy_from_slice(&time.to_le_bytes());
            tuple[32..36].copy_from_slice(&(device % 50).to_le_bytes());
            tuple[40..44].copy_from_slice(&(state >> 44).to_le_bytes()[..4]);
        }
        let whole: &mut [u8; PAGE_BYTES] = page.try_into().expect("a whole page");
        let sum = page::checksum(whole, u32::try_from(number).unwrap_or(0));
        whole[8..10].copy_from_slice(&sum.to_le_bytes());
    }
    plain
}

fn plain() -> Vec<u8> {
    match std::env::var("WALE_BENCH_FILE") {
        Ok(path) => std::fs::read(path).expect("WALE_BENCH_FILE names a file"),
        Err(_) => pages(),
    }
}

fn codecs(criterion: &mut Criterion) {
    let plain = plain();
    let settings = |codec, level| CodecSettings { codec, level };
    for (name, settings) in [
        ("zstd 1", settings(Codec::Zstd, Some(1))),
        ("zstd 3", settings(Codec::Zstd, Some(3))),
        ("lz4", settings(Codec::Lz4, None)),
    ] {
        let seal = Seal::new(settings, WriteKey::None, KeyRing::default());
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(plain.len() as u64));
        group.sample_size(20);
        let mut stored = Vec::new();
        group.bench_function("encode a partition", |bencher| {
            bencher.iter(|| {
                let mut sink = std::mem::take(&mut stored);
                sink.clear();
                let mut writer = seal.partition_writer(sink).expect("writable");
                for piece in plain.chunks(PIECE_BYTES) {
                    writer.write_all(piece).expect("a vector takes everything");
                }
                stored = writer.finish().expect("a vector takes everything");
            });
        });
        // A decoder owns its source; the leak of one copy per codec ends with the program.
        let stored: &'static [u8] = stored.leak();
        let mut piece = vec![0; PIECE_BYTES];
        group.bench_function("decode a partition", |bencher| {
            bencher.iter(|| {
                let reader = seal.reader(stored).expect("a slice is read");
                let mut plain = reader.partition(WINDOW_MAX_BYTES).expect("readable");
                while plain.read(&mut piece).expect("whole") > 0 {}
            });
        });
        group.finish();
    }
}

fn checksums(criterion: &mut Criterion) {
    let pages = pages();
    let mut group = criterion.benchmark_group("checksum");
    group.throughput(Throughput::Bytes(pages.len() as u64));
    group.bench_function("CRC-32C", |bencher| {
        bencher.iter(|| Crc32c::of(black_box(&pages)));
    });
    group.bench_function("pages", |bencher| {
        bencher.iter(|| {
            for (number, page) in (0..).zip(pages.chunks_exact(PAGE_BYTES)) {
                assert_eq!(page::check(black_box(page), number), page::PageState::Valid);
            }
        });
    });
    group.finish();
}

fn tars(criterion: &mut Criterion) {
    let pages = pages();
    let meta = Meta {
        mode: 0o600,
        uid: 999,
        gid: 999,
        mtime: 1_577_934_245,
    };
    let mut group = criterion.benchmark_group("tar");
    group.throughput(Throughput::Elements((pages.len() / PAGE_BYTES) as u64));
    let mut archive = Vec::new();
    group.bench_function("write files of a page", |bencher| {
        bencher.iter(|| {
            let mut sink = std::mem::take(&mut archive);
            sink.clear();
            let mut tar = TarWriter::new(sink);
            for (number, page) in pages.chunks_exact(PAGE_BYTES).enumerate() {
                tar.file_header(&format!("base/16384/{number}"), PAGE_BYTES as u64, &meta)
                    .expect("valid");
                tar.write_all(page).expect("a vector takes everything");
                tar.finish_body().expect("complete");
            }
            archive = tar.finish().expect("complete");
        });
    });
    let mut body = [0; PAGE_BYTES];
    group.bench_function("read files of a page", |bencher| {
        bencher.iter(|| {
            let mut reader = TarReader::new(archive.as_slice());
            while let Some(member) = reader.next() {
                black_box(member.expect("valid"));
                reader.read_exact(&mut body).expect("whole");
            }
        });
    });
    group.finish();
}

fn manifest() -> Vec<u8> {
    let mut manifest = ManifestBuilder::new();
    for number in 0..FILES {
        let path = format!("base/16384/{number}");
        manifest.add_file(&path, 8192, DateTime::UNIX_EPOCH, number);
    }
    manifest.finish(
        TimelineId::FIRST,
        Lsn::new(0x200_0028),
        Lsn::new(0x300_0000),
    )
}

fn index() -> Vec<u8> {
    let frame = |number: u64| FrameStart {
        plain: number << 21,
        stored: number << 18,
    };
    let partition = IndexedPartition {
        number: 1,
        plain_bytes: 1 << 30,
        stored_bytes: 1 << 27,
        frames: (0..512).map(frame).collect(),
    };
    let files = (0..FILES).map(|number| IndexedFile {
        path: format!("base/16384/{number}"),
        partition: 1,
        offset: u64::from(number) << 20,
        bytes: 1 << 20,
    });
    let mut text = Vec::new();
    frame_index::write([partition], files, &mut text).expect("a vector takes everything");
    text
}

fn lists(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a thousand files");
    group.throughput(Throughput::Elements(FILES.into()));
    group.bench_function("write a manifest", |bencher| bencher.iter(manifest));
    let text = manifest();
    group.bench_function("parse a manifest", |bencher| {
        bencher.iter(|| {
            let mut reader = ManifestReader::new(text.as_slice());
            while let Some(item) = reader.next_item().expect("whole") {
                black_box(item);
            }
        });
    });
    let text = index();
    group.bench_function("parse an index of frames", |bencher| {
        bencher.iter(|| {
            let mut reader = IndexReader::new(BufReader::new(text.as_slice())).expect("an index");
            while let Some(item) = reader.next_item().expect("whole") {
                black_box(item);
            }
        });
    });
    let sizes = (0..u64::from(FILES)).map(|number| (number * 7919) % 300_000);
    let sizes: Vec<u64> = sizes.collect();
    let limits = PlanLimits::for_total(sizes.iter().sum(), 2);
    group.bench_function("plan partitions", |bencher| {
        bencher.iter(|| PartitionPlan::new(black_box(&sizes), &limits));
    });
    group.finish();
}

fn names(criterion: &mut Criterion) {
    let mut header = [0_u8; 40];
    header[..2].copy_from_slice(&0xD110_u16.to_le_bytes());
    header[2..4].copy_from_slice(&2_u16.to_le_bytes());
    header[4..8].copy_from_slice(&1_u32.to_le_bytes());
    header[24..32].copy_from_slice(&7_447_234_573_249_283_074_u64.to_le_bytes());
    header[32..36].copy_from_slice(&(16_u32 << 20).to_le_bytes());
    header[36..].copy_from_slice(&8192_u32.to_le_bytes());
    let label = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
                 CHECKPOINT LOCATION: 0/2000080\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
                 START TIME: 2026-11-23 15:53:18 UTC\nLABEL: a label\nSTART TIMELINE: 1\n";
    let mut group = criterion.benchmark_group("parse");
    group.bench_function("a WAL header", |bencher| {
        bencher.iter(|| WalPageHeader::parse(black_box(&header)).expect("a header"));
    });
    group.bench_function("a WAL file's name", |bencher| {
        bencher.iter(|| ArchiveFileName::parse(black_box("00000001000000A2000000FE")));
    });
    group.bench_function("a backup label", |bencher| {
        bencher.iter(|| BackupLabel::parse(black_box(label)).expect("a label"));
    });
    group.finish();
}

criterion_group!(micro, codecs, checksums, tars, lists, names);
criterion_main!(micro);
