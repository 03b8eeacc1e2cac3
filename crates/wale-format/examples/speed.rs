//! Speed of codecs and tar over a file of your own: `cargo run --release -p wale-format --example speed -- FILE`.
//!
//! Take a tar of a data directory, or WAL segments: generated data says nothing about PostgreSQL's pages.

#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "an example prints, and seals without an archive"
)]

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::time::Duration;

use wale_format::crypt::{age, libsodium};
use wale_format::tar::{Meta, TarReader, TarWriter};
use wale_format::{
    Codec, CodecSettings, Crc32c, KeyRing, PartitionPlan, PlanLimits, Seal, WINDOW_MAX_BYTES,
    WriteKey,
};

/// Pieces as the pipeline makes them.
const PIECE_BYTES: usize = 1 << 20;
const ROUNDS: usize = 5;

/// Processor time of this thread, so that a busy machine does not blur the picture (Linux:
/// Documentation/scheduler/sched-stats, first field, nanoseconds).
fn processor_time() -> Duration {
    let text =
        std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with schedstat");
    let field = text.split(' ').next().unwrap_or_default();
    Duration::from_nanos(field.parse().expect("a number of nanoseconds"))
}

fn best(mut work: impl FnMut()) -> Duration {
    (0..ROUNDS)
        .map(|_| {
            let start = processor_time();
            work();
            processor_time().saturating_sub(start)
        })
        .min()
        .unwrap_or_default()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a speed is shown with two digits"
)]
fn show(what: &str, bytes: usize, time: Duration, stored: Option<usize>) {
    let speed = bytes as f64 / time.as_secs_f64() / 1e6;
    let ratio = stored.map_or_else(String::new, |stored| {
        format!(", ratio {:.2}", bytes as f64 / stored as f64)
    });
    println!("{what:<28} {speed:>8.0} MB/s{ratio}");
}

fn codecs(plain: &[u8]) {
    let settings = [
        CodecSettings::from(Codec::Zstd),
        CodecSettings {
            codec: Codec::Zstd,
            level: Some(2),
        },
        CodecSettings {
            codec: Codec::Zstd,
            level: Some(3),
        },
        CodecSettings::from(Codec::Lz4),
        CodecSettings::from(Codec::Lzo),
        CodecSettings::from(Codec::None),
    ];
    for settings in settings {
        let seal = Seal::new(settings, WriteKey::None, KeyRing::default());
        let name = format!(
            "{}{}",
            settings.codec,
            settings
                .level
                .map_or_else(String::new, |level| format!(" {level}"))
        );
        there_and_back(&name, &seal, plain);
        if settings.codec == Codec::Zstd {
            partition(&name, &seal, plain);
        }
    }
}

/// The same as partitions have it, in frames.
fn partition(name: &str, seal: &Seal, plain: &[u8]) {
    let mut stored = Vec::new();
    let time = best(|| {
        let mut sink = std::mem::take(&mut stored);
        sink.clear();
        let mut writer = seal.partition_writer(sink).expect("writable");
        for piece in plain.chunks(PIECE_BYTES) {
            writer.write_all(piece).expect("a vector takes everything");
        }
        stored = writer.finish().expect("a vector takes everything");
    });
    let what = format!("{name} in frames");
    show(
        &format!("{what}, encode"),
        plain.len(),
        time,
        Some(stored.len()),
    );
    let stored: &'static [u8] = stored.leak();
    let mut piece = vec![0; PIECE_BYTES];
    let time = best(|| {
        let reader = seal.reader(stored).expect("a slice is read");
        let mut plain = reader.partition(WINDOW_MAX_BYTES).expect("readable");
        while plain.read(&mut piece).expect("whole") > 0 {}
    });
    show(&format!("{what}, decode"), plain.len(), time, None);
}

/// zstd's own levels, as every other program has them: ours are set otherwise.
fn library(plain: &[u8]) {
    for level in [1, 3] {
        let mut stored = Vec::new();
        let time = best(|| {
            let mut sink = std::mem::take(&mut stored);
            sink.clear();
            let mut encoder = zstd::stream::write::Encoder::new(sink, level).expect("a level");
            encoder.include_checksum(true).expect("settable");
            for piece in plain.chunks(PIECE_BYTES) {
                encoder.write_all(piece).expect("a vector takes everything");
            }
            stored = encoder.finish().expect("a vector takes everything");
        });
        show(
            &format!("the library's zstd {level}"),
            plain.len(),
            time,
            Some(stored.len()),
        );
    }
}

/// The ciphers alone, over what does not compress, and behind zstd: what encryption adds is the difference.
fn ciphers(plain: &[u8]) {
    let key = libsodium::Key::parse(&"07".repeat(32), libsodium::KeyTransform::Hex).expect("a key");
    let identity = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
    let recipient = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
    let mut ring = KeyRing::default();
    ring.add_libsodium(key.clone());
    ring.add_age(age::Identities::parse(identity).expect("an identity"));
    let recipients = age::Recipients::parse(recipient).expect("a recipient");
    for key in [WriteKey::Libsodium(key), WriteKey::Age(recipients)] {
        for codec in [Codec::None, Codec::Zstd] {
            let seal = Seal::new(codec.into(), key.clone(), ring.clone());
            there_and_back(&format!("{} {codec}", key.method()), &seal, plain);
        }
    }
}

fn there_and_back(name: &str, seal: &Seal, plain: &[u8]) {
    let mut stored = Vec::new();
    let time = best(|| {
        let mut sink = std::mem::take(&mut stored);
        sink.clear();
        let mut writer = seal.writer(sink).expect("writable");
        for piece in plain.chunks(PIECE_BYTES) {
            writer.write_all(piece).expect("a vector takes everything");
        }
        stored = writer.finish().expect("a vector takes everything");
    });
    show(
        &format!("{name} encode"),
        plain.len(),
        time,
        Some(stored.len()),
    );
    // A decoder owns its source; the leak of one copy per codec ends with the program.
    let stored: &'static [u8] = stored.leak();
    let mut piece = vec![0; PIECE_BYTES];
    let time = best(|| {
        let reader = seal.reader(stored).expect("a slice is read");
        let mut plain = reader.plain(WINDOW_MAX_BYTES).expect("readable");
        while plain.read(&mut piece).expect("whole") > 0 {}
    });
    show(&format!("{name} decode"), plain.len(), time, None);
}

fn tars(plain: &[u8]) {
    let meta = Meta {
        mode: 0o600,
        uid: 999,
        gid: 999,
        mtime: 1_577_934_245,
    };
    for (what, bytes) in [
        ("tar, 8 KiB files", 8 << 10),
        ("tar, 16 MiB files", 16 << 20),
    ] {
        let mut archive = Vec::new();
        let time = best(|| {
            let mut sink = std::mem::take(&mut archive);
            sink.clear();
            let mut tar = TarWriter::new(sink);
            for (number, body) in plain.chunks(bytes).enumerate() {
                tar.file_header(&format!("base/16384/{number}"), body.len() as u64, &meta)
                    .expect("valid");
                for piece in body.chunks(PIECE_BYTES) {
                    tar.write_all(piece).expect("a vector takes everything");
                }
                tar.finish_body().expect("complete");
            }
            archive = tar.finish().expect("complete");
        });
        show(&format!("{what}, write"), plain.len(), time, None);
        let mut piece = vec![0; PIECE_BYTES];
        let time = best(|| {
            let mut reader = TarReader::new(archive.as_slice());
            while let Some(member) = reader.next() {
                black_box(member.expect("valid"));
                while reader.read(&mut piece).expect("whole") > 0 {}
            }
        });
        show(&format!("{what}, read"), plain.len(), time, None);
    }
}

/// Every byte that is stored or restored goes through it once.
fn checksum(plain: &[u8]) {
    let time = best(|| {
        black_box(Crc32c::of(plain));
    });
    show("crc32c", plain.len(), time, None);
}

fn plan() {
    let sizes = (0..100_000u64).map(|number| (number * 7919) % 300_000);
    let sizes: Vec<u64> = sizes.collect();
    let limits = PlanLimits::for_total(sizes.iter().sum(), 2);
    let time = best(|| {
        black_box(PartitionPlan::new(&sizes, &limits));
    });
    println!("plan of 100,000 files        {time:?}");
}

fn main() -> io::Result<()> {
    let Some(path) = std::env::args().nth(1) else {
        return Err(io::Error::other("name a file to measure with"));
    };
    let plain = std::fs::read(path)?;
    println!("{} bytes, processor time, best of {ROUNDS}", plain.len());
    codecs(&plain);
    library(&plain);
    ciphers(&plain);
    checksum(&plain);
    tars(&plain);
    plan();
    Ok(())
}
