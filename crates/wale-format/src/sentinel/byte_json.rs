//! Names that are not UTF-8 in JSON, as Python writes them: a byte as a lone surrogate, `\udce9` for 0xe9 (PEP 383).
//! WAL-E's sentinels have them so, and it reads ours so; JSON itself knows no bytes.

use std::fmt::Write as _;

use wale_pg::byte_text;

/// Writes the characters of [`byte_text`] in a JSON text as Python's escapes.
pub(super) fn escape(json: Vec<u8>) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(&json) else {
        return json;
    };
    if !byte_text::has_escapes(text) {
        return json;
    }
    let mut escaped = String::with_capacity(text.len() * 2);
    for character in text.chars() {
        match byte_text::byte_of(character) {
            Some(byte) => {
                let _ = write!(escaped, "\\udc{byte:02x}");
            }
            None => escaped.push(character),
        }
    }
    escaped.into_bytes()
}

/// Reads Python's escapes as the characters of [`byte_text`]. Every other escape stays, pairs of surrogates too.
pub(super) fn unescape(json: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(json.len());
    let mut rest = json;
    while let Some((&first, after)) = rest.split_first() {
        let length = match (first, unit(rest)) {
            (b'\\', Some(0xD800..=0xDBFF)) => 12,
            (b'\\', Some(code @ 0xDC80..=0xDCFF)) => {
                let byte = code.to_le_bytes()[0];
                let mut buffer = [0; 4];
                let character = byte_text::character_of(byte).encode_utf8(&mut buffer);
                plain.extend_from_slice(character.as_bytes());
                rest = rest.get(6..).unwrap_or_default();
                continue;
            }
            // The character behind a backslash is part of it, whatever it is.
            (b'\\', None) if !after.is_empty() => 2,
            (b'\\', Some(_)) => 6,
            _ => 1,
        };
        let (taken, later) = rest.split_at(length.min(rest.len()));
        plain.extend_from_slice(taken);
        rest = later;
    }
    plain
}

/// The code unit of an escape `\uXXXX` at the beginning.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_escapes_are_bytes_and_nothing_else_changes() {
        let cases: [(&str, &[u8]); 6] = [
            (r#""/srv/ts\udce9/""#, b"\"/srv/ts\xe9/\""),
            (r#""\uDCFF\udc80""#, b"\"\xff\x80\""),
            (r#""\\udce9""#, br#""\\udce9""#),
            (r#""\ud83d\ude00\n\u00e9""#, br#""\ud83d\ude00\n\u00e9""#),
            (r#""\ud83d\udce9""#, br#""\ud83d\udce9""#),
            ("\"é\\", "\"é\\".as_bytes()),
        ];
        for (json, expected) in cases {
            let text = String::from_utf8(unescape(json.as_bytes())).unwrap();
            assert_eq!(byte_text::to_bytes(&text).as_ref(), expected, "{json}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = byte_text::from_bytes(b"/srv/\xe9/\xff").into_owned();
        let json = escape(serde_json::to_vec(&text).unwrap());
        assert_eq!(json, br#""/srv/\udce9/\udcff""#);
        let again: String = serde_json::from_slice(&unescape(&json)).unwrap();
        assert_eq!(again, text);
    }
}
