//! Packets of OpenPGP: a header, and a body in one piece or in several (RFC 4880, section 4; the same in RFC 9580).
//!
//! Refuses to know: what is in a body.
//!
//! Invariants: a body ends (`Ok(0)`) only where its lengths say so; a source that ends before is `UnexpectedEof`. Nothing is
//! kept of a body but what the source keeps.

use std::io::{self, BufRead, Read};

use super::error::{cut, damaged};

/// A public-key encrypted session key.
pub(super) const SESSION_KEY: u8 = 1;
/// A signature.
pub(super) const SIGNATURE: u8 = 2;
/// A session key that a passphrase opens.
pub(super) const PASSPHRASE_KEY: u8 = 3;
/// The announcement of a signature that follows the content.
pub(super) const ONE_PASS_SIGNATURE: u8 = 4;
/// A secret key, the first of its certificate.
pub(super) const SECRET_KEY: u8 = 5;
/// A public key, the first of its certificate.
pub(super) const PUBLIC_KEY: u8 = 6;
/// Compressed packets.
pub(super) const COMPRESSED: u8 = 8;
/// Encrypted packets without any check of their integrity.
pub(super) const UNPROTECTED: u8 = 9;
/// To be ignored.
pub(super) const MARKER: u8 = 10;
/// Content.
pub(super) const LITERAL: u8 = 11;
/// `GnuPG`'s notes about trust, in its own key rings.
pub(super) const TRUST: u8 = 12;
/// A picture of a key's owner.
pub(super) const ATTRIBUTE: u8 = 17;
/// Encrypted packets whose integrity is checked.
pub(super) const PROTECTED: u8 = 18;
/// The same as `GnuPG` 2.3 and later writes it for keys that ask for it, in the mode OCB.
pub(super) const GNUPG_OCB: u8 = 20;
/// To be ignored.
pub(super) const PADDING: u8 = 21;

/// How many bytes of a body come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// These are the last.
    Last(u64),
    /// Another length follows them.
    Partial(u64),
    /// All that the source has.
    ToTheEnd,
}

/// The header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heading {
    /// What the packet is.
    pub(super) tag: u8,
    /// How long its body is, or the first piece of it.
    pub(super) length: Length,
}

impl Heading {
    /// Reads a header; nothing where the source ends before its first byte.
    ///
    /// # Errors
    /// Those of the source, `UnexpectedEof` within the header, `InvalidData` where a packet cannot begin like this.
    pub(super) fn read(source: &mut impl BufRead) -> io::Result<Option<Self>> {
        if at_end(source)? {
            return Ok(None);
        }
        let first = byte(source)?;
        if first & 0x80 == 0 {
            return Err(damaged("no packet of OpenPGP begins like this"));
        }
        let (tag, length) = if first & 0x40 == 0 {
            ((first >> 2) & 0x0f, old_length(source, first & 3)?)
        } else {
            (first & 0x3f, new_length(source)?)
        };
        // RFC 4880, 4.2.2.4: only data may come in pieces, and the first has 512 bytes or more.
        let may_be_open = matches!(
            tag,
            COMPRESSED | UNPROTECTED | LITERAL | PROTECTED | GNUPG_OCB
        );
        match length {
            Length::Last(_) => {}
            Length::Partial(count) if may_be_open && count >= 512 => {}
            Length::ToTheEnd if may_be_open => {}
            Length::Partial(_) | Length::ToTheEnd => {
                return Err(damaged("the length of a packet of OpenPGP is not allowed"));
            }
        }
        Ok(Some(Self { tag, length }))
    }
}

/// RFC 4880, 4.2.1.
fn old_length(source: &mut impl BufRead, kind: u8) -> io::Result<Length> {
    Ok(match kind {
        0 => Length::Last(number(source, 1)?),
        1 => Length::Last(number(source, 2)?),
        2 => Length::Last(number(source, 4)?),
        _ => Length::ToTheEnd,
    })
}

/// RFC 4880, 4.2.2.
fn new_length(source: &mut impl BufRead) -> io::Result<Length> {
    let first = byte(source)?;
    Ok(match first {
        0..=191 => Length::Last(u64::from(first)),
        192..=223 => {
            let second = number(source, 1)?;
            Length::Last(((u64::from(first) - 192) << 8) + second + 192)
        }
        224..=254 => Length::Partial(1 << (first & 0x1f)),
        255 => Length::Last(number(source, 4)?),
    })
}

/// Whether nothing comes any more.
pub(super) fn at_end(source: &mut impl BufRead) -> io::Result<bool> {
    loop {
        match source.fill_buf() {
            Ok(bytes) => return Ok(bytes.is_empty()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The next byte.
pub(super) fn byte(source: &mut impl Read) -> io::Result<u8> {
    let mut one = [0];
    exact(source, &mut one)?;
    Ok(one[0])
}

/// The next number, of up to eight bytes.
fn number(source: &mut impl Read, count: usize) -> io::Result<u64> {
    let mut value = 0;
    for _ in 0..count {
        value = (value << 8) | u64::from(byte(source)?);
    }
    Ok(value)
}

/// As many bytes as fit.
///
/// # Errors
/// `UnexpectedEof` in our words where the source ends, and those of the source.
pub(super) fn exact(source: &mut impl Read, out: &mut [u8]) -> io::Result<()> {
    source.read_exact(out).map_err(|error| match error.kind() {
        // Only the standard library says it without words.
        io::ErrorKind::UnexpectedEof if error.get_ref().is_none() => cut(),
        _ => error,
    })
}

/// The body of a packet, and what comes after it in the source.
#[derive(Debug)]
pub(super) struct Body<B> {
    source: B,
    length: Length,
}

impl<B: BufRead> Body<B> {
    /// The body of the packet whose header was just read from the source.
    pub(super) fn new(header: Heading, source: B) -> Self {
        Self {
            source,
            length: header.length,
        }
    }

    /// How many bytes of the source may be taken now, 0 at the end of the body.
    fn available(&mut self) -> io::Result<u64> {
        loop {
            match self.length {
                Length::Partial(0) => self.length = new_length(&mut self.source)?,
                Length::Partial(count) | Length::Last(count) => return Ok(count),
                Length::ToTheEnd => return Ok(u64::MAX),
            }
        }
    }
}

impl<B: BufRead> BufRead for Body<B> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let available = self.available()?;
        if available == 0 {
            return Ok(&[]);
        }
        if at_end(&mut self.source)? {
            return match self.length {
                Length::ToTheEnd => Ok(&[]),
                Length::Last(_) | Length::Partial(_) => Err(cut()),
            };
        }
        let bytes = self.source.fill_buf()?;
        let count = usize::try_from(available).map_or(bytes.len(), |count| count.min(bytes.len()));
        Ok(&bytes[..count])
    }

    fn consume(&mut self, count: usize) {
        match &mut self.length {
            Length::Last(left) | Length::Partial(left) => *left -= count as u64,
            Length::ToTheEnd => {}
        }
        self.source.consume(count);
    }
}

impl<B: BufRead> Read for Body<B> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(out.len());
        out[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// The body of the only packet that its source has, or the last: it ends only where the source ends, too.
#[derive(Debug)]
pub(super) struct OnlyBody<B>(Body<B>);

impl<B: BufRead> OnlyBody<B> {
    /// The body of the packet whose header was just read from the source.
    pub(super) fn new(header: Heading, source: B) -> Self {
        Self(Body::new(header, source))
    }
}

impl<B: BufRead> BufRead for OnlyBody<B> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.0.fill_buf()?.is_empty() && !at_end(&mut self.0.source)? {
            return Err(damaged("it is followed by other bytes"));
        }
        self.0.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.0.consume(count);
    }
}

impl<B: BufRead> Read for OnlyBody<B> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(out.len());
        out[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// The length of a body in one piece, or of its last piece, in the new form.
pub(super) fn last_length(count: usize) -> Vec<u8> {
    match count {
        0..=191 => vec![u8::try_from(count).expect("below 192")],
        192..=8383 => {
            let above = count - 192;
            let first = 192 + (above >> 8);
            vec![
                u8::try_from(first).expect("223 at most"),
                u8::try_from(above & 0xff).expect("a byte"),
            ]
        }
        _ => {
            let count = u32::try_from(count).expect("a piece has less than 4 GiB");
            [&[255][..], &count.to_be_bytes()].concat()
        }
    }
}

/// The first byte of a packet in the new form.
pub(super) const fn first_byte(tag: u8) -> u8 {
    0xc0 | tag
}

/// The length of a piece of 2 to the power of `bits` bytes that others follow.
pub(super) const fn partial_length(bits: u8) -> u8 {
    0xe0 | bits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(mut bytes: &[u8]) -> io::Result<Option<Heading>> {
        Heading::read(&mut bytes)
    }

    #[test]
    fn headers_of_both_forms() {
        let cases: &[(&[u8], u8, Length)] = &[
            (&[0x84, 3], 1, Length::Last(3)),
            (&[0x85, 1, 0x0c], 1, Length::Last(268)),
            (&[0x86, 0, 1, 0, 0], 1, Length::Last(65_536)),
            (&[0xa3], 8, Length::ToTheEnd),
            (&[0xaf], 11, Length::ToTheEnd),
            (&[0xc1, 191], 1, Length::Last(191)),
            (&[0xc1, 192, 0], 1, Length::Last(192)),
            (&[0xc1, 223, 255], 1, Length::Last(8_383)),
            (&[0xcb, 255, 0, 0, 0x20, 0xc0], 11, Length::Last(8_384)),
            (&[0xd2, 0xe9], 18, Length::Partial(512)),
            (&[0xd2, 0xf0], 18, Length::Partial(65_536)),
            (&[0xd2, 0xfe], 18, Length::Partial(1 << 30)),
        ];
        for &(bytes, tag, length) in cases {
            assert_eq!(
                header(bytes).expect("a header"),
                Some(Heading { tag, length }),
                "{bytes:x?}"
            );
            for cut in 1..bytes.len() {
                let error = header(&bytes[..cut]).expect_err("cut");
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{bytes:x?}");
            }
        }
        assert_eq!(header(&[]).expect("nothing"), None);
        // Text; a session key in pieces or without an end; a first piece that is too short.
        for bytes in [&[0x7f, 1][..], &[0xc1, 0xf0], &[0x87], &[0xd2, 0xe8]] {
            let error = header(bytes).expect_err("none");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:x?}");
        }
    }

    #[test]
    fn lengths_are_read_as_they_are_written() {
        for count in [0, 1, 191, 192, 8_383, 8_384, 65_535, 65_536, 1 << 20] {
            let bytes = [vec![first_byte(LITERAL)], last_length(count)].concat();
            let length = Length::Last(count as u64);
            let tag = LITERAL;
            assert_eq!(
                header(&bytes).expect("valid"),
                Some(Heading { tag, length })
            );
        }
    }

    #[test]
    fn a_body_in_pieces_ends_with_its_last_length() {
        let mut bytes = vec![0xd2, 0xe9];
        bytes.extend(vec![1; 512]);
        bytes.extend([0xe0, 2, 0xe1, 3, 3, 1, 4]);
        let whole = bytes.clone();
        bytes.extend(b"behind");
        let mut source = bytes.as_slice();
        let found = Heading::read(&mut source).expect("valid").expect("one");
        let mut body = Body::new(found, &mut source);
        let mut plain = Vec::new();
        body.read_to_end(&mut plain).expect("whole");
        assert_eq!(plain, [vec![1; 512], vec![2, 3, 3, 4]].concat());
        assert_eq!(source, b"behind");
        for cut in 2..whole.len() {
            let mut source = &whole[..cut];
            let found = Heading::read(&mut source).expect("valid").expect("one");
            let mut body = OnlyBody::new(found, source);
            let error = body.read_to_end(&mut Vec::new()).expect_err("cut");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        }
        let mut source = bytes.as_slice();
        let found = Heading::read(&mut source).expect("valid").expect("one");
        let mut body = OnlyBody::new(found, source);
        let error = body.read_to_end(&mut Vec::new()).expect_err("more");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
