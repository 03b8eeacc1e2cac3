//! LZMA-alone, the format before xz: 13 bytes of header, then one stream with an end mark, as WAL-G writes it.
//!
//! The format has no checksum: what is damaged inside of it shows in what it holds, a segment's pages or a tar's headers. A
//! stream that breaks off is noticed, because its end is marked, or its length stands in the header.

use std::io::{self, Chain, Cursor, Read};

use lzma_rust2::LzmaReader;

use super::strict::{FrameDecoder, Source, Strict};

/// The usual properties, and the low half of the dictionary's size: every dictionary in use has some multiple of 64 KiB.
const MAGIC: [u8; 3] = [0x5D, 0, 0];

/// The header: a byte of properties, four of the dictionary's size, eight of the content's length, the lowest first. A length
/// of all ones is none; the end is marked then.
const HEADER_BYTES: usize = 13;
const DICTIONARY_AT: usize = 1;
const LENGTH_AT: usize = 5;

/// The header, and five bytes with which the stream begins.
const BEGINNING_BYTES: usize = HEADER_BYTES + 5;

/// The memory of the dictionary, in bytes; none where the header is not whole.
pub(super) fn window_bytes(head: &[u8]) -> Option<u64> {
    let size = head.get(DICTIONARY_AT..DICTIONARY_AT + 4)?;
    Some(u64::from(u32::from_le_bytes(size.try_into().ok()?)))
}

pub(super) fn decoder<R: Read + Send + 'static>(source: R, window_max: u64) -> Strict<LzmaStream> {
    Strict::new(LzmaStream {
        source: Source::new(source),
        reader: None,
        beginning: Vec::with_capacity(BEGINNING_BYTES),
        window_max,
        is_complete: false,
    })
}

/// What the library reads when it begins: from memory first, so that no failure of the source is lost in it.
type Rest = Chain<Cursor<Vec<u8>>, Source>;

pub(super) struct LzmaStream {
    /// The source, while the library does not have it.
    source: Source,
    reader: Option<Box<LzmaReader<Rest>>>,
    beginning: Vec<u8>,
    window_max: u64,
    is_complete: bool,
}

impl LzmaStream {
    /// Reads the header, and hands the source to the library.
    fn open(&mut self) -> io::Result<()> {
        let missing = BEGINNING_BYTES - self.beginning.len();
        let mut beginning = (&mut self.source).take(missing as u64);
        beginning.read_to_end(&mut self.beginning)?;
        if self.beginning.len() < BEGINNING_BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let window = window_bytes(&self.beginning).unwrap_or(u64::MAX);
        if window > self.window_max {
            return Err(io::Error::new(
                io::ErrorKind::OutOfMemory,
                format!(
                    "its dictionary of {} MiB is larger than allowed",
                    window >> 20
                ),
            ));
        }
        let (properties, length) = (self.beginning[0], &self.beginning[LENGTH_AT..HEADER_BYTES]);
        let length = length
            .iter()
            .rev()
            .fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
        let rest = Cursor::new(self.beginning[HEADER_BYTES..].to_vec());
        let source = std::mem::replace(&mut self.source, Source::new(io::empty()));
        let dictionary = u32::try_from(window).unwrap_or(u32::MAX);
        let rest = rest.chain(source);
        let mut reader = LzmaReader::new_with_props(rest, length, properties, dictionary, None)?;
        reader.set_relaxed_end_condition(false);
        self.reader = Some(Box::new(reader));
        Ok(())
    }

    /// Takes the source back after the end of the stream.
    fn close(&mut self) -> io::Result<()> {
        let Some(reader) = self.reader.take() else {
            return Ok(());
        };
        let (rest, unused) = reader.into_parts();
        self.source = rest.into_inner().1;
        self.is_complete = true;
        if unused.is_empty() {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is followed by other bytes",
        ))
    }
}

impl FrameDecoder for LzmaStream {
    const NAME: &'static str = "lzma";
    const MAGIC: &'static [u8] = &MAGIC;

    fn decode(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.reader.is_none() {
            self.open()?;
        }
        let count = match &mut self.reader {
            Some(reader) => reader.read(out)?,
            None => 0,
        };
        if count == 0 {
            self.close()?;
        }
        Ok(count)
    }

    fn is_complete(&self) -> bool {
        self.is_complete
    }

    fn source(&mut self) -> &mut Source {
        match &mut self.reader {
            Some(reader) => reader.inner_mut().get_mut().1,
            None => &mut self.source,
        }
    }
}
