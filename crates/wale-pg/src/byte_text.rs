//! Names that are bytes, carried in text.
//!
//! A file's name, a tablespace's place and a database's name are bytes to PostgreSQL and to the kernel; most of them
//! are UTF-8, and some are not (a log named by a Latin-1 script, a database made from one with another encoding). Here
//! they travel as `String`, losslessly: each byte that is not part of UTF-8 becomes one private character, and nothing
//! else does. It is the idea of Python's `surrogateescape` (PEP 383), which WAL-E uses; Rust's strings hold no
//! surrogates, so the characters are those of the last private plane.
//!
//! ```
//! use wale_pg::byte_text;
//! let text = byte_text::from_bytes(b"caf\xe9");
//! assert_eq!(byte_text::to_bytes(&text).as_ref(), b"caf\xe9");
//! assert_eq!(byte_text::shown(&text), "caf\\xe9");
//! assert_eq!(byte_text::from_bytes("café".as_bytes()), "café");
//! ```
//!
//! Invariants: [`to_bytes`] takes back what [`from_bytes`] did, whatever the bytes are (a name that holds one of these
//! characters itself has it escaped byte by byte); a character stands for a byte from 0x80 on, so no slash, dot or NUL
//! hides in one; ASCII stays as it is, so every rule about PostgreSQL's own names works on the text.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The character that stands for the byte 0x80; the next 127 stand for those up to 0xff. U+10FE80, in the private use
/// area of plane 16.
const FIRST: u32 = 0x10_FE80;

/// The text of a name.
#[must_use]
pub fn from_bytes(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && !has_escapes(text)
    {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if byte_of(character).is_some() {
                let mut buffer = [0; 4];
                let encoded = character.encode_utf8(&mut buffer);
                text.extend(encoded.bytes().map(character_of));
            } else {
                text.push(character);
            }
        }
        text.extend(chunk.invalid().iter().copied().map(character_of));
    }
    Cow::Owned(text)
}

/// The bytes of a name.
#[must_use]
pub fn to_bytes(text: &str) -> Cow<'_, [u8]> {
    if !has_escapes(text) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        if let Some(byte) = byte_of(character) {
            bytes.push(byte);
        } else {
            let mut buffer = [0; 4];
            bytes.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
        }
    }
    Cow::Owned(bytes)
}

/// Whether some of the bytes are not UTF-8.
#[must_use]
pub fn has_escapes(text: &str) -> bool {
    // Each of these characters begins with the same two bytes, which few others have.
    text.as_bytes().windows(2).any(|pair| pair == [0xF4, 0x8F])
        && text.chars().any(|character| byte_of(character).is_some())
}

/// The name for people: a byte that is no UTF-8 as `\xe9`.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    if !has_escapes(text) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match byte_of(character) {
            Some(byte) => {
                let _ = write!(shown, "\\x{byte:02x}");
            }
            None => shown.push(character),
        }
    }
    Cow::Owned(shown)
}

/// The byte that a character stands for.
#[must_use]
pub fn byte_of(character: char) -> Option<u8> {
    let place = u32::from(character).checked_sub(FIRST)?;
    u8::try_from(place)
        .ok()
        .filter(|place| *place < 0x80)
        .map(|place| place | 0x80)
}

/// The character that stands for a byte from 0x80 on.
#[must_use]
pub fn character_of(byte: u8) -> char {
    char::from_u32(FIRST + u32::from(byte & 0x7F)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_text_stays_as_it_is() {
        for text in ["", "base/1/2619", "naïve/ñ", "\u{10FE7F}", "\u{10FF00}"] {
            assert_eq!(from_bytes(text.as_bytes()), text);
            assert_eq!(to_bytes(text), text.as_bytes());
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn a_character_of_ours_in_a_name_is_its_bytes() {
        let name = "x\u{10FE80}y".as_bytes();
        let text = from_bytes(name);
        assert_eq!(text.chars().count(), 6);
        assert_eq!(to_bytes(&text), name);
        assert_eq!(shown(&text), "x\\xf4\\x8f\\xba\\x80y");
    }

    proptest! {
        #[test]
        fn every_name_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let text = from_bytes(&bytes);
            prop_assert_eq!(to_bytes(&text).into_owned(), bytes);
        }

        #[test]
        fn slashes_dots_and_nuls_are_those_of_the_bytes(bytes in prop::collection::vec(
            prop::sample::select(vec![b'/', b'.', 0, b'a', 0xE9, 0xC3, 0xA9, 0xF4, 0x8F, 0xBA, 0x80]), 0..20
        )) {
            let text = from_bytes(&bytes);
            for byte in [b'/', b'.', 0] {
                let count = |bytes: &[u8]| bytes.split(|other| *other == byte).count();
                prop_assert_eq!(count(text.as_bytes()), count(&bytes));
            }
        }
    }
}
