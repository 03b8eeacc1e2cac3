//! Objects as they come from the store, in every codec that wale reads: the first byte chooses it.
//!
//! Whatever the bytes are, the decoder ends with an error or with its output, in bounded memory; and what
//! our encoder makes of the same bytes, the decoder gives back.

#![no_main]

use std::io::{Read, Write};

use libfuzzer_sys::fuzz_target;
use wale_format::{Codec, CodecSettings, decoder, encoder};

/// A bomb may not decode to more than this within one run: 16 MiB, a segment.
const OUTPUT_MAX: u64 = 16 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else {
        return;
    };
    let codec = Codec::ALL[usize::from(first) % Codec::ALL.len()];
    let stream = rest.to_vec();
    if let Ok(plain) = decoder(codec, std::io::Cursor::new(stream)) {
        let mut scratch = [0; 4096];
        let mut plain = plain.take(OUTPUT_MAX);
        while plain.read(&mut scratch).is_ok_and(|count| count > 0) {}
    }
    if !codec.can_write() {
        return;
    }
    let settings = CodecSettings::new(codec, None).expect("every codec has a default level");
    let mut packing = encoder(settings, Vec::new()).expect("a vector takes everything");
    packing.write_all(rest).expect("a vector takes everything");
    let packed = packing.finish().expect("a vector takes everything");
    let mut back = Vec::new();
    decoder(codec, std::io::Cursor::new(packed))
        .expect("what is written is read")
        .read_to_end(&mut back)
        .expect("what is written is read");
    assert_eq!(back, rest, "{codec:?}");
});
