//! The codecs that are only read, against streams of the programs that made the formats. `testdata/README.md` says which.

use std::io::{Cursor, ErrorKind};

use super::tests::{decode, sample};
use super::*;

const STREAMS: [(Codec, &[u8]); 2] = [
    (
        Codec::Brotli,
        include_bytes!("../../testdata/brotli-1.0.9/sample.br"),
    ),
    (
        Codec::Lzma,
        include_bytes!("../../testdata/xz-5.4.1/sample.lzma"),
    ),
];

/// The bytes of each of them, once they are plain.
const PLAIN_BYTES: usize = 40_000;

fn fails(codec: Codec, stored: &[u8]) -> io::Error {
    decode(codec, stored).expect_err("no whole stream")
}

#[test]
fn streams_of_the_programs_are_read() {
    for (codec, stored) in STREAMS {
        let plain = decode(codec, stored).expect("whole");
        assert!(plain == sample(PLAIN_BYTES), "{codec}");
        assert!(!may_be_encrypted(codec, Content::Tar, stored), "{codec}");
    }
}

#[test]
fn every_cut_is_noticed_and_nothing_may_follow() {
    for (codec, stored) in STREAMS {
        let cuts = (0..40).chain((40..stored.len()).step_by(97));
        for cut in cuts.chain(stored.len() - 20..stored.len()) {
            let error = fails(codec, &stored[..cut]);
            assert_eq!(
                error.kind(),
                ErrorKind::UnexpectedEof,
                "{codec} {cut}: {error}"
            );
        }
        // As much as a decoder reads at once, and more.
        for more in [1, 100, 300_000] {
            let error = fails(codec, &[stored, &vec![0; more]].concat());
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{codec} {more}");
            assert!(error.to_string().contains("followed by other bytes"));
        }
    }
}

/// Neither format has a checksum, so a change may go unnoticed here; the content shows it.
#[test]
fn a_changed_byte_does_no_harm() {
    for (codec, stored) in STREAMS {
        for at in (0..stored.len()).step_by(61) {
            let mut changed = stored.to_vec();
            changed[at] ^= 0x55;
            let mut plain = Vec::new();
            let reader = decoder_within(codec, Cursor::new(changed), WINDOW_MAX_BYTES);
            let read = reader.and_then(|reader| reader.take(1 << 20).read_to_end(&mut plain));
            assert!(
                read.is_err() || plain != sample(PLAIN_BYTES),
                "{codec} {at}"
            );
        }
    }
}

/// Gives some bytes, and then fails.
struct Breaks(Cursor<Vec<u8>>);

impl Read for Breaks {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.0.read(out)? {
            0 => Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the store went away",
            )),
            count => Ok(count),
        }
    }
}

#[test]
fn an_error_of_the_source_stays_what_it_is() {
    for (codec, stored) in STREAMS {
        for at in [0, 1, 13, 17, 18, 19, 1000, stored.len() - 1, stored.len()] {
            let source = Breaks(Cursor::new(stored[..at].to_vec()));
            let reader = decoder_within(codec, source, WINDOW_MAX_BYTES);
            let error = reader
                .and_then(|mut reader| reader.read_to_end(&mut Vec::new()))
                .expect_err("it breaks");
            assert_eq!(error.to_string(), "the store went away", "{codec} {at}");
        }
    }
}

#[test]
fn a_window_above_what_is_allowed_is_no_damage() {
    for (codec, stored) in STREAMS {
        let window = window_bytes(codec, stored);
        assert!(window >= 1 << 16, "{codec}: {window}");
        let reader = decoder_within(codec, Cursor::new(stored), window);
        reader
            .and_then(|mut reader| reader.read_to_end(&mut Vec::new()))
            .expect("it is allowed");
        let reader = decoder_within(codec, Cursor::new(stored), window - 1);
        let error = reader
            .and_then(|mut reader| reader.read_to_end(&mut Vec::new()))
            .expect_err("it is too large");
        assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{codec}");
    }
}

#[test]
fn fault_118_what_is_encrypted_is_not_called_damaged() {
    let noise: Vec<u8> = (1..=2000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    let openpgp = [&[0x85, 0x01, 0x0C, 0x03][..], &noise].concat();
    for (codec, _) in STREAMS {
        for (stored, words) in [(&noise, "may be encrypted"), (&openpgp, "OpenPGP")] {
            assert!(may_be_encrypted(codec, Content::Wal, stored), "{codec}");
            let error = fails(codec, stored);
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{codec}: {error}");
            assert!(error.to_string().contains(words), "{codec}: {error}");
        }
        assert!(
            !may_be_encrypted(codec, Content::Wal, &[0; 2000]),
            "{codec}"
        );
    }
}
