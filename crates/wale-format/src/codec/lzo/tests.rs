//! The container against real streams, their worked example, and headers that no program of today writes.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Seek, Write};
use std::process::{Command, Stdio};

use super::{LzopEncoder, MAGIC, adler32, crc32, decoder, flag, header};
use crate::Codec;
use crate::tar::{MemberKind, TarReader};

const HELLO: &[u8] = b"hello hello hello hello hello hello\n";

/// What `lzop -c` 1.04 writes for [`HELLO`] out of a file of mode 0644 of 2020-01-02 03:04:05 UTC.
const HELLO_STREAM: &[u8] =
    b"\x89LZO\x00\r\n\x1a\n\x10\x40\x20\xa0\x09\x40\x01\x05\x03\x00\x00\x0d\
    \x00\x00\x81\xa4\x5e\x0d\x5d\xa5\x00\x00\x00\x00\x00\x35\x6e\x04\x02\
    \x00\x00\x00\x24\x00\x00\x00\x20\xf8\x78\x0d\x23\
    \x03hello *\x14\x00\x0fhello hello hello\n\x11\x00\x00\x00\x00\x00\x00";

fn decode(stored: &[u8]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    decoder(Cursor::new(stored.to_vec()), crate::codec::WINDOW_MAX_BYTES)
        .read_to_end(&mut plain)?;
    Ok(plain)
}

fn encode(plain: &[u8]) -> Vec<u8> {
    let mut encoder = LzopEncoder::new(Vec::new());
    encoder.write_all(plain).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

fn refusal(stored: &[u8]) -> String {
    decode(stored).expect_err("refused").to_string()
}

/// The samples of the real programs, by name.
fn samples() -> BTreeMap<String, Vec<u8>> {
    let archive = include_bytes!("../../../testdata/lzop-1.04/samples.tar.zst");
    let mut tar = TarReader::new(crate::decoder(Codec::Zstd, &archive[..]).expect("zstd"));
    let mut samples = BTreeMap::new();
    while let Some(member) = tar.next() {
        let member = member.expect("a whole archive");
        if let MemberKind::File { .. } = member.kind {
            let name = member.path.components().last().expect("a name").to_owned();
            let mut body = Vec::new();
            tar.read_to_end(&mut body).expect("a whole member");
            samples.insert(name, body);
        }
    }
    samples
}

#[test]
fn every_stream_of_the_real_programs_decodes_and_every_bad_one_is_refused() {
    let samples = samples();
    let (mut good, mut bad) = (0, 0);
    for (name, stored) in &samples {
        let Some(stem) = name.strip_suffix(".lzo") else {
            continue;
        };
        if stem.starts_with("bad-") {
            let error = decode(stored).expect_err(name);
            let expected = match stem {
                "bad-truncated-no-eof" => "truncated",
                "bad-header-checksum" => "the checksum of its header",
                "bad-data-checksum" => "the Adler-32 of a block is wrong",
                _ => "followed by other bytes",
            };
            assert!(error.to_string().contains(expected), "{name}: {error}");
            bad += 1;
        } else {
            let plain = &samples[&format!("{stem}.plain")];
            assert!(decode(stored).expect(name) == *plain, "{name}");
            assert!(decode(&encode(plain)).expect(name) == *plain, "{name}");
            good += 1;
        }
    }
    assert_eq!((good, bad), (20, 5));
}

#[test]
fn the_worked_example() {
    assert_eq!(decode(HELLO_STREAM).expect("valid"), HELLO);
    let ours = encode(HELLO);
    // Versions, method, level and flags are lzop's own; mode, time and their checksum are not.
    assert_eq!(ours[..21], HELLO_STREAM[..21]);
    assert_eq!(ours[21..34], [0; 13]);
    assert_eq!(ours[38..42], HELLO_STREAM[38..42]);
    assert_eq!(
        ours[46..50],
        HELLO_STREAM[46..50],
        "Adler-32 of the plain bytes"
    );
    assert!(ours.ends_with(b"\x11\0\0\0\0\0\0"));
    assert_eq!(encode(b"").len(), 42);
    let noise = samples()
        .remove("stored-600-random.plain")
        .expect("a sample");
    let stored = encode(&noise);
    assert_eq!(stored[38..46], [0, 0, 2, 0x58, 0, 0, 2, 0x58]);
    assert_eq!(stored[50..650], noise);
}

/// A header field by field, so that each can be another one.
struct Fields {
    version: u16,
    needed: u16,
    method: u8,
    flags: u32,
    filter: Option<u32>,
    name: &'static [u8],
    extra: Option<&'static [u8]>,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            version: 0x1040,
            needed: 0x0940,
            method: 1,
            flags: 0x0300_000D,
            filter: None,
            name: b"",
            extra: None,
        }
    }
}

impl Fields {
    fn bytes(&self) -> Vec<u8> {
        let is_recent = self.version >= 0x0940;
        let sum = |bytes: &[u8]| {
            if self.flags & flag::HEADER_CRC32 == 0 {
                adler32(bytes)
            } else {
                crc32(bytes)
            }
        };
        let mut fields = [self.version.to_be_bytes(), [0x20, 0x30]].concat();
        if is_recent {
            fields.extend(self.needed.to_be_bytes());
        }
        fields.push(self.method);
        if is_recent {
            fields.push(5);
        }
        fields.extend(self.flags.to_be_bytes());
        fields.extend(self.filter.into_iter().flat_map(u32::to_be_bytes));
        fields.extend([7; 8]);
        if is_recent {
            fields.extend([0; 4]);
        }
        fields.push(u8::try_from(self.name.len()).expect("short"));
        fields.extend(self.name);
        let mut bytes = [&MAGIC[..], &fields, &sum(&fields).to_be_bytes()].concat();
        if let Some(extra) = self.extra {
            let length = u32::try_from(extra.len()).expect("short");
            let field = [&length.to_be_bytes()[..], extra].concat();
            bytes.extend(&field);
            bytes.extend(sum(&field).to_be_bytes());
        }
        bytes
    }

    /// With the one block of the worked example and the end mark.
    fn stream(&self) -> Vec<u8> {
        [&self.bytes()[..], &HELLO_STREAM[38..]].concat()
    }
}

#[test]
fn headers_that_other_versions_write() {
    let accepted = [
        Fields {
            version: 0x1010,
            ..Fields::default()
        },
        Fields {
            version: 0x0900,
            ..Fields::default()
        },
        Fields {
            version: 0x093F,
            ..Fields::default()
        },
        Fields {
            method: 3,
            ..Fields::default()
        },
        Fields {
            flags: 0x0100_0801,
            filter: Some(0),
            ..Fields::default()
        },
        Fields {
            flags: 0x0000_1001,
            name: b"dir/name",
            ..Fields::default()
        },
        Fields {
            flags: 0x0000_0041,
            extra: Some(b"extra"),
            ..Fields::default()
        },
        Fields {
            flags: 0x0000_1041,
            extra: Some(b""),
            ..Fields::default()
        },
    ];
    for fields in accepted {
        let stream = fields.stream();
        assert_eq!(decode(&stream).expect("a stream"), HELLO);
        if fields.extra.is_some() {
            assert_eq!(
                decoded_by(&LZOP, &stream, HELLO).as_deref(),
                Some(HELLO),
                "lzop itself"
            );
        }
        for at in MAGIC.len()..fields.bytes().len() {
            let mut changed = stream.clone();
            changed[at] ^= 0x04;
            assert!(decode(&changed).is_err(), "byte {at} of the header");
        }
    }
}

#[test]
fn headers_that_no_decoder_of_lzo1x_can_serve_are_refused() {
    let refused = [
        (
            Fields {
                version: 0x0800,
                ..Fields::default()
            },
            "too old",
        ),
        (
            Fields {
                needed: 0x1050,
                ..Fields::default()
            },
            "needs version 0x1050",
        ),
        (
            Fields {
                method: 0x80,
                ..Fields::default()
            },
            "method 128",
        ),
        (
            Fields {
                method: 0,
                ..Fields::default()
            },
            "method 0",
        ),
        (
            Fields {
                flags: 0x0000_0801,
                filter: Some(2),
                ..Fields::default()
            },
            "filtered",
        ),
        (
            Fields {
                flags: 0x0000_0401,
                ..Fields::default()
            },
            "one part of several",
        ),
    ];
    for (fields, expected) in refused {
        let error = refusal(&fields.stream());
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_encrypted_object_is_not_called_damaged() {
    for first in [0x84, 0x85, 0x86, 0xC1] {
        let mut message = vec![first, 0x01, 0x0C, 0x03];
        message.extend([7; 300]);
        let error = decode(&message).expect_err("encrypted");
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("OpenPGP"), "{error}");
    }
}

/// What a real program makes of a stream, `None` when it fails; a machine without it skips aloud.
fn decoded_by(program: &[&str], stream: &[u8], expected: &[u8]) -> Option<Vec<u8>> {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(stream).expect("the disk takes it");
    file.rewind().expect("a file can be read again");
    let run = Command::new(program[0])
        .args(&program[1..])
        .stdin(Stdio::from(file))
        .output();
    match run {
        Ok(output) => output.status.success().then_some(output.stdout),
        Err(error) => {
            let why = format!("the program {} cannot be run: {error}", program[0]);
            wale_testkit::skip("LZO against real programs", &why);
            Some(expected.to_vec())
        }
    }
}

const LZOP: [&str; 4] = ["lzop", "-q", "-d", "-c"];
const BUSYBOX: [&str; 4] = ["busybox", "lzop", "-d", "-c"];

#[test]
fn the_real_programs_decode_ours() {
    for (name, plain) in samples() {
        if name.ends_with(".plain") {
            let ours = encode(&plain);
            for program in [&LZOP, &BUSYBOX] {
                let theirs = decoded_by(program, &ours, &plain);
                assert!(theirs.as_deref() == Some(&plain[..]), "{name}: {program:?}");
            }
        }
    }
}

/// A stream of the given blocks.
fn stream(flags: u32, blocks: &[Vec<u8>]) -> Vec<u8> {
    let header = Fields {
        flags,
        ..Fields::default()
    }
    .bytes();
    [header, blocks.concat(), vec![0; 4]].concat()
}

fn block(numbers: &[u32], data: &[u8]) -> Vec<u8> {
    let numbers: Vec<u8> = numbers
        .iter()
        .flat_map(|number| number.to_be_bytes())
        .collect();
    [numbers, data.to_vec()].concat()
}

#[test]
fn all_four_checksums_of_a_block_are_read_in_their_order_and_held_against_the_bytes() {
    let data = &HELLO_STREAM[50..82];
    let flags = flag::ADLER32_PLAIN | flag::CRC32_PLAIN | flag::ADLER32_STORED | flag::CRC32_STORED;
    let sums = [adler32(HELLO), crc32(HELLO), adler32(data), crc32(data)];
    let numbers = |sums: [u32; 4]| [&[36, 32][..], &sums].concat();
    let compressed = block(&numbers(sums), data);
    // Stored bytes are plain bytes: theirs are the only checksums.
    let plain = block(&[36, 36, sums[0], sums[1]], HELLO);
    let both = stream(flags, &[compressed, plain]);
    assert_eq!(decode(&both).expect("valid"), [HELLO, HELLO].concat());
    for wrong in 0..4 {
        let mut sums = sums;
        sums[wrong] ^= 1;
        let error = refusal(&stream(flags, &[block(&numbers(sums), data)]));
        assert!(error.contains("of a block is wrong"), "{wrong}: {error}");
    }
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    let data = &HELLO_STREAM[50..82];
    let cases = [
        (block(&[0x0400_0001, 32], data), "lzop's limit"),
        (block(&[36, 0], data), "stored in 0"),
        (block(&[36, 37], data), "stored in 37"),
        (block(&[37, 32], data), "decodes to 36"),
        (block(&[35, 32], data), "not LZO1X"),
        (
            block(&[0x0400_0000, 32], data),
            "more bytes than its data can stand for",
        ),
        (block(&[36, 31], &data[..31]), "not LZO1X"),
        (block(&[36, 33], &[data, b"x"].concat()), "not LZO1X"),
    ];
    for (block, expected) in cases {
        let error = refusal(&stream(0, &[block]));
        assert!(error.contains(expected), "{error}, not {expected}");
    }
}

#[test]
fn no_byte_of_a_block_goes_out_before_it_is_checked() {
    let plain = samples().remove("mixed-3-blocks.plain").expect("a sample");
    let mut stored = encode(&plain);
    let end = stored.len() - 20;
    stored[end] ^= 1;
    let mut reader = decoder(Cursor::new(stored), crate::codec::WINDOW_MAX_BYTES);
    let mut given = Vec::new();
    assert!(reader.read_to_end(&mut given).is_err());
    assert_eq!(given.len() % (256 << 10), 0, "whole blocks only");
    assert!(plain.starts_with(&given) && given.len() < plain.len());
}

#[test]
fn our_header_never_changes() {
    let expected = b"\x89LZO\x00\r\n\x1a\n\x10\x40\x20\xa0\x09\x40\x01\x05\x03\x00\x00\x0d\
        \0\0\0\0\0\0\0\0\0\0\0\0\0";
    let bytes = header::bytes();
    assert_eq!(bytes[..34], expected[..]);
    assert_eq!(bytes[34..], adler32(&expected[9..]).to_be_bytes());
}
