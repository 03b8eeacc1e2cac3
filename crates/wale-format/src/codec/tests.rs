//! Each codec against itself, against the real programs, and against damage.

use std::io::{Cursor, ErrorKind};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

const WRITABLE: [Codec; 4] = [Codec::None, Codec::Zstd, Codec::Lz4, Codec::Lzo];
const FRAMED: [Codec; 3] = [Codec::Zstd, Codec::Lz4, Codec::Lzo];

fn decoder<R: Read + Send + 'static>(codec: Codec, source: R) -> io::Result<Box<dyn Read + Send>> {
    decoder_within(codec, source, WINDOW_MAX_BYTES)
}

fn encode(codec: Codec, plain: &[u8]) -> Vec<u8> {
    encode_at(codec.into(), plain)
}

fn encode_at(settings: CodecSettings, plain: &[u8]) -> Vec<u8> {
    let mut encoder = encoder(settings, Vec::new()).expect("writable");
    encoder.write_all(plain).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

pub(super) fn decode(codec: Codec, stored: &[u8]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    decoder(codec, Cursor::new(stored.to_vec()))?.read_to_end(&mut plain)?;
    Ok(plain)
}

/// Half compressible, half not, longer than several blocks of every codec.
pub(super) fn sample(bytes: usize) -> Vec<u8> {
    let mut state = 1u32;
    (0..bytes)
        .map(|index| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if index & 4096 == 0 {
                b'a'
            } else {
                state.to_be_bytes()[0]
            }
        })
        .collect()
}

#[test]
fn names_and_extensions_are_bijective() {
    for codec in Codec::ALL {
        assert_eq!(Codec::from_extension(codec.extension()), Some(codec));
        assert_eq!(codec.name().parse(), Ok(codec));
        assert_eq!(codec.suffix().trim_start_matches('.'), codec.extension());
        assert_eq!(
            serde_json::to_string(&codec).unwrap(),
            format!("\"{codec}\"")
        );
        assert!(Codec::BY_USE.contains(&codec));
    }
    for unknown in ["gz", "ZST", ".zst", "zstd", "xz"] {
        assert_eq!(Codec::from_extension(unknown), None);
    }
    for unknown in ["", "zst", "ZSTD", "gzip"] {
        assert!(unknown.parse::<Codec>().is_err());
    }
}

#[test]
fn what_is_read_only_is_not_written() {
    for codec in [Codec::Brotli, Codec::Lzma] {
        let refused = encoder(codec.into(), io::sink()).expect_err("not writable");
        assert_eq!(refused, CodecError::NotWritable { codec });
    }
}

#[test]
fn levels() {
    let cases = [
        (Codec::Zstd, Some(-7), true),
        (Codec::Zstd, Some(19), true),
        (Codec::Zstd, Some(20), false),
        (Codec::Zstd, Some(-8), false),
        (Codec::Lz4, None, true),
        (Codec::Lz4, Some(1), false),
        (Codec::None, Some(1), false),
        (Codec::Lzo, None, true),
        (Codec::Lzo, Some(5), false),
        (Codec::Brotli, None, false),
    ];
    for (codec, level, accepted) in cases {
        assert_eq!(
            CodecSettings::new(codec, level).is_ok(),
            accepted,
            "{codec} {level:?}"
        );
        assert_eq!(
            encoder(CodecSettings { codec, level }, io::sink()).is_ok(),
            accepted
        );
    }
    let plain = sample(100_000);
    for level in [-7, 1, 3, 19] {
        let settings = CodecSettings::new(Codec::Zstd, Some(level)).expect("valid");
        assert_eq!(
            decode(Codec::Zstd, &encode_at(settings, &plain)).expect("whole"),
            plain
        );
    }
}

#[test]
fn round_trip_over_block_borders() {
    for codec in WRITABLE {
        for bytes in [0, 1, 65_536, 262_143, 262_144, 262_145, 3_000_000] {
            let plain = sample(bytes);
            assert_eq!(
                decode(codec, &encode(codec, &plain)).expect("whole"),
                plain,
                "{codec} {bytes}"
            );
        }
    }
}

#[test]
fn every_cut_is_noticed() {
    let plain = sample(300_000);
    for codec in FRAMED {
        for whole in [encode(codec, &plain), encode(codec, b"")] {
            let step = (whole.len() / 997).max(1);
            let near_the_ends = (0..40).chain(whole.len().saturating_sub(40)..whole.len());
            for cut in (0..whole.len())
                .step_by(step)
                .chain(near_the_ends)
                .filter(|&cut| cut < whole.len())
            {
                let error = decode(codec, &whole[..cut]).expect_err("truncated");
                let expected = [ErrorKind::UnexpectedEof, ErrorKind::InvalidData];
                assert!(
                    expected.contains(&error.kind()),
                    "{codec} cut at {cut}: {error}"
                );
            }
        }
    }
}

#[test]
fn every_changed_byte_is_noticed() {
    let plain = sample(20_000);
    for codec in FRAMED {
        let whole = encode(codec, &plain);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            if let Ok(decoded) = decode(codec, &changed) {
                // A frame header may say the same thing in another way (a larger window, for example).
                assert_eq!(decoded, plain, "{codec} byte {at}");
            }
        }
    }
}

#[test]
fn nothing_may_follow_the_frame() {
    for codec in FRAMED {
        let whole = encode(codec, &sample(1000));
        for tail in [&b"\0"[..], b"garbage", &whole, &encode(codec, b"")] {
            let error = decode(codec, &[&whole, tail].concat()).expect_err("trailing bytes");
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{codec}");
            assert!(
                error.to_string().contains("followed by other bytes"),
                "{error}"
            );
        }
    }
}

#[test]
fn skippable_and_legacy_frames_are_refused() {
    let skippable = b"\x50\x2a\x4d\x18\x04\0\0\0abcd";
    let legacy = b"\x02\x21\x4c\x18\x05\0\0\0\x40abcd";
    for codec in FRAMED {
        let whole = encode(codec, b"abc");
        for first in [&skippable[..], &legacy[..]] {
            assert!(decode(codec, &[first, &whole].concat()).is_err(), "{codec}");
        }
    }
}

#[test]
fn fault_118_what_does_not_begin_as_a_frame_may_be_encrypted_and_is_not_called_damaged() {
    for codec in FRAMED {
        // OpenPGP's session key, and a nonce of WAL-G's libsodium stream.
        for first in [&[0x85, 0x02, 0x0C, 0x03][..], &[0x17, 0xA0, 0x55, 0xE1]] {
            let stored = [first, &sample(3000)].concat();
            let error = decode(codec, &stored).expect_err("encrypted");
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{codec}: {error}");
            assert!(error.to_string().contains("encrypted"), "{codec}: {error}");
        }
        // A write that was lost leaves zeros.
        let error = decode(codec, &[0; 3000]).expect_err("zeros");
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{codec}: {error}");
    }
}

#[test]
fn an_lz4_block_of_nothing_does_not_end_the_stream() {
    // Descriptor without checksums, an empty stored block, a block "abc", end mark.
    let frame = b"\x04\x22\x4d\x18\x60\x40\x82\x00\x00\x00\x80\x03\x00\x00\x80abc\x00\x00\x00\x00";
    match decode(Codec::Lz4, frame) {
        Ok(plain) => assert_eq!(plain, b"abc"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::UnexpectedEof),
    }
}

/// Gives its bytes one by one, then fails.
struct Fails(Cursor<Vec<u8>>, ErrorKind);

impl Read for Fails {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let limit = out.len().min(1);
        match self.0.read(&mut out[..limit])? {
            0 => Err(io::Error::new(self.1, "the store is gone")),
            count => Ok(count),
        }
    }
}

#[test]
fn an_error_of_the_source_stays_what_it_is() {
    for codec in WRITABLE {
        let whole = encode(codec, &sample(5000));
        for bytes in [0, 3, 10, whole.len() / 2, whole.len()] {
            for kind in [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof] {
                let source = Fails(Cursor::new(whole[..bytes].to_vec()), kind);
                let mut plain = Vec::new();
                let error = decoder(codec, source)
                    .unwrap()
                    .read_to_end(&mut plain)
                    .expect_err("it fails");
                assert_eq!(
                    (error.kind(), error.to_string().as_str()),
                    (kind, "the store is gone"),
                    "{codec} {bytes}"
                );
            }
        }
    }
}

#[test]
fn a_failed_decoder_stays_failed() {
    for codec in FRAMED {
        let mut stored = encode(codec, &sample(5000));
        stored.truncate(500);
        let mut decoder = decoder(codec, Cursor::new(stored)).unwrap();
        assert!(decoder.read_to_end(&mut Vec::new()).is_err());
        assert!(decoder.read(&mut [0; 10]).is_err());
    }
}

#[test]
fn an_unfinished_stream_is_not_whole() {
    for codec in FRAMED {
        let mut encoder = encoder(codec.into(), Vec::new()).unwrap();
        encoder.write_all(&sample(600_000)).unwrap();
        encoder.flush().unwrap();
        let stored = encoder.get_ref().clone();
        assert!(decode(codec, &stored).is_err(), "{codec}");
    }
}

/// Pipes bytes through a real program; a machine without it skips aloud.
fn pipe(program: &str, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("input");
    std::fs::write(&path, input).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    match Command::new(program)
        .args(arguments)
        .stdin(Stdio::from(file))
        .output()
    {
        Ok(output) => {
            assert!(
                output.status.success(),
                "{program}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            Some(output.stdout)
        }
        Err(error) => {
            let why = format!("the program {program} cannot be run: {error}");
            wale_testkit::skip("codecs against real programs", &why);
            None
        }
    }
}

#[test]
fn the_real_programs_read_ours_and_we_read_theirs() {
    let cases: [(Codec, &str, &[&str]); 10] = [
        (Codec::Zstd, "zstd", &["-q", "-c", "-3"]),
        (Codec::Zstd, "zstd", &["-q", "-c", "-1", "--no-check"]),
        (Codec::Lz4, "lz4", &["-q", "-c"]),
        (Codec::Lz4, "lz4", &["-q", "-c", "-BD", "-B4"]),
        (
            Codec::Lz4,
            "lz4",
            &["-q", "-c", "-BX", "-B7", "--no-frame-crc"],
        ),
        (Codec::Lzo, "lzop", &["-q", "-c"]),
        (Codec::Lzo, "lzop", &["-q", "-c", "-1"]),
        (Codec::Lzo, "lzop", &["-q", "-c", "-9", "--crc32"]),
        (Codec::Lzo, "lzop", &["-q", "-c", "--no-checksum"]),
        (Codec::Lzo, "busybox", &["lzop", "-c"]),
    ];
    for bytes in [0, 1, 1_000_000] {
        let plain = sample(bytes);
        for (codec, program, arguments) in cases {
            let Some(theirs) = pipe(program, arguments, &plain) else {
                continue;
            };
            assert_eq!(
                decode(codec, &theirs).expect(program),
                plain,
                "{program} {arguments:?}"
            );
            let back: &[&str] = match program {
                "busybox" => &["lzop", "-d", "-c"],
                _ => &["-q", "-d", "-c"],
            };
            let ours = pipe(program, back, &encode(codec, &plain)).expect("it ran before");
            assert_eq!(ours, plain);
        }
    }
}

#[test]
fn the_real_zstd_reads_a_partition_of_several_frames() {
    let plain = sample(5_000_000);
    let mut encoder = partition_encoder(Codec::Zstd.into(), Vec::new()).expect("writable");
    for piece in plain.chunks(700_000) {
        encoder.begin_unit(piece.len() as u64).expect("a vector");
        encoder.write_all(piece).expect("a vector");
    }
    let (stored, frames) = encoder.finish_frames().expect("a vector");
    assert!(frames.len() > 3);
    if let Some(theirs) = pipe("zstd", &["-q", "-d", "-c"], &stored) {
        assert!(theirs == plain);
    }
    // What is no partition has one frame.
    let error = decode(Codec::Zstd, &stored).expect_err("several");
    assert!(
        error.to_string().contains("followed by other bytes"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn decode_after_encode_is_identity(
        pieces in prop::collection::vec(prop::collection::vec(0u8..4, 0..5000), 0..6),
        codec in prop::sample::select(WRITABLE.to_vec()),
    ) {
        let mut encoder = encoder(codec.into(), Vec::new()).unwrap();
        for piece in &pieces {
            encoder.write_all(piece).unwrap();
        }
        let stored = encoder.finish().unwrap();
        prop_assert_eq!(&stored, &encode(codec, &pieces.concat()), "deterministic");
        prop_assert_eq!(decode(codec, &stored).unwrap(), pieces.concat());
    }

    #[test]
    fn no_bytes_panic(
        stored in prop::collection::vec(any::<u8>(), 0..500),
        codec in prop::sample::select(FRAMED.to_vec()),
        at in 0usize..200,
    ) {
        let _ = decode(codec, &stored);
        let mut damaged = encode(codec, &sample(9000));
        let at = at.min(damaged.len());
        let end = (at + stored.len()).min(damaged.len());
        damaged[at..end].copy_from_slice(&stored[..end - at]);
        let _ = decode(codec, &damaged);
    }
}

/// From a segment of WAL-G's that libsodium encrypted.
const SODIUM: [u8; 26] = [
    0x64, 0x99, 0xd6, 0x86, 0x07, 0xf1, 0x8a, 0x04, 0xb9, 0xb1, 0x55, 0x2b, 0x2f, 0x0b, 0xd6, 0x14,
    0xbc, 0x61, 0x64, 0xdd, 0xe3, 0x14, 0x66, 0xbc, 0xc1, 0x88,
];

#[test]
fn fault_118_noise_may_be_encrypted_and_a_damaged_stream_is_not() {
    for codec in [Codec::Zstd, Codec::Lz4, Codec::Lzo] {
        let suspected = |head: &[u8]| may_be_encrypted(codec, Content::Wal, head);
        assert!(suspected(&SODIUM), "{codec}");
        assert!(!suspected(&SODIUM[..20]), "{codec}");
        assert!(!suspected(&[0; 64]), "{codec}");
        assert!(!suspected(&[b'x'; 64]), "{codec}");
        let page = b"<html><body>What you wanted</body></html>";
        assert!(!suspected(page), "{codec}");
    }
    let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD];
    frame.extend_from_slice(&SODIUM);
    let suspected = |codec, head: &[u8]| may_be_encrypted(codec, Content::Tar, head);
    assert!(!suspected(Codec::Zstd, &frame));
    assert!(!suspected(Codec::Lz4, &frame), "another codec's");
    frame[0] ^= 1;
    assert!(!suspected(Codec::Zstd, &frame), "a flipped bit");
    let mut tar = [7u8; 512];
    tar[0] = 8;
    assert!(suspected(Codec::None, &tar));
    tar[257..262].copy_from_slice(b"ustar");
    assert!(!suspected(Codec::None, &tar));
    assert!(!suspected(Codec::None, b"tar"));
}

#[test]
fn fault_118_plain_wal_and_text_are_told_from_noise_be_they_damaged() {
    let suspected = |content, head: &[u8]| may_be_encrypted(Codec::None, content, head);
    let noise: Vec<u8> = SODIUM.iter().chain(&SODIUM).copied().collect();
    assert!(suspected(Content::Wal, &noise));
    assert!(suspected(Content::Text, &noise));
    let history = b"1\t0/5000098\tno recovery target specified\n";
    assert!(!suspected(Content::Text, history));
    let mut flipped = history.to_vec();
    flipped[3] ^= 0x80;
    assert!(!suspected(Content::Text, &flipped));
    for content in [Content::Wal, Content::Text] {
        assert!(!suspected(content, &[0; 64]), "a lost write");
        assert!(!suspected(content, b""));
    }
}
