//! Texts of HTTP: what may stand in a URL, in a header and in a log, and moments as HTTP writes them.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};

/// Escapes a text for a query: everything but letters, digits and `-._~` (RFC 3986, 2.3), in upper-case hexadecimal.
pub(crate) fn escape(text: &str) -> String {
    escape_except(text, b"")
}

/// Escapes a path, whose slashes stay.
pub(crate) fn escape_path(text: &str) -> String {
    escape_except(text, b"/")
}

fn escape_except(text: &str, kept: &[u8]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").expect("a String takes everything");
        }
    }
    escaped
}

/// A query: escaped, and in the order of the escaped names.
pub(crate) fn query(pairs: &[(&str, &str)]) -> String {
    let mut pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", escape(name), escape(value)))
        .collect();
    pairs.sort_unstable();
    pairs.join("&")
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}

/// Whether a text can stand in a header.
pub(crate) fn fits_header(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A moment in a header, as HTTP writes it.
pub(crate) fn moment(text: Option<&str>) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc2822(text?)
        .ok()
        .map(|moment| moment.to_utc())
}

/// What somebody else wrote, on one line and not endless.
pub(crate) fn one_line(text: &str) -> String {
    const SHOWN_CHARS: usize = 300;
    text.chars()
        .take(SHOWN_CHARS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// The words of a page, without its tags.
pub(crate) fn words_of_page(body: &[u8]) -> String {
    /// Of a page only its beginning says what it is about.
    const READ_BYTES: usize = 4096;
    let text = String::from_utf8_lossy(&body[..body.len().min(READ_BYTES)]);
    let mut words = String::new();
    for (n, piece) in text.split('<').enumerate() {
        let word = match piece.split_once('>') {
            Some((_, word)) if n > 0 => word,
            _ if n > 0 => "",
            _ => piece,
        };
        for word in word.split_whitespace() {
            if !words.is_empty() {
                words.push(' ');
            }
            words.push_str(word);
        }
    }
    one_line(&words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling() {
        assert_eq!(escape_path("a b/ü+%~*#?"), "a%20b/%C3%BC%2B%25~%2A%23%3F");
        assert_eq!(
            query(&[("prefix", "a/b"), ("list-type", "2"), ("uploads", "")]),
            "list-type=2&prefix=a%2Fb&uploads="
        );
    }
}
