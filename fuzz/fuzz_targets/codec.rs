//! Objects as they come from the store, in every codec that wale reads: the first byte chooses it, and whether the object is a
//! partition, which may have several frames.
//!
//! Whatever the bytes are, the decoder ends with an error or with its output, in bounded memory; and what
//! our encoder makes of the same bytes, the decoder gives back.

#![no_main]

use std::io::{Read, Write};

use libfuzzer_sys::fuzz_target;
use wale_format::codec::Content;
use wale_format::{Codec, Seal, WINDOW_MAX_BYTES};

/// A bomb may not decode to more than this within one run: 16 MiB, a segment.
const OUTPUT_MAX: u64 = 16 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else {
        return;
    };
    let codec = Codec::ALL[usize::from(first) % Codec::ALL.len()];
    let is_partition = first >= 128;
    let seal = Seal::unencrypted(codec);
    let opened = |stored: Vec<u8>| {
        let reader = seal.reader(std::io::Cursor::new(stored));
        let reader = reader.expect("a vector is read");
        // Whatever it is of.
        let _ = reader.locked(Content::Tar);
        let window = reader.window_bytes().clamp(8 << 20, WINDOW_MAX_BYTES);
        if is_partition {
            reader.partition(window)
        } else {
            reader.plain(window)
        }
    };
    if let Ok(plain) = opened(rest.to_vec()) {
        let mut scratch = [0; 4096];
        let mut plain = plain.take(OUTPUT_MAX);
        while plain.read(&mut scratch).is_ok_and(|count| count > 0) {}
    }
    if !codec.can_write() {
        return;
    }
    let packing = if is_partition {
        seal.partition_writer(Vec::new())
    } else {
        seal.writer(Vec::new())
    };
    let mut packing = packing.expect("every codec has a default level");
    for piece in rest.chunks(700) {
        let _ = packing.begin_member(piece.len() as u64);
        packing.write_all(piece).expect("a vector takes everything");
    }
    let packed = packing.finish().expect("a vector takes everything");
    let mut back = Vec::new();
    opened(packed)
        .expect("what is written is read")
        .read_to_end(&mut back)
        .expect("what is written is read");
    assert_eq!(back, rest, "{codec:?}");
});
