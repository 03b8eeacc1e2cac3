//! Just enough of HTTP/1.1 to pass requests and replies on, and to change them.

use std::io::{BufRead, Error, ErrorKind, Read, Result, Write};

/// Longest head. Real ones have some 2 KiB.
const HEAD_BYTES_MAX: u64 = 64 * 1024;

/// Pieces in which bodies are passed on.
const PIECE_BYTES: usize = 64 * 1024;

/// The first line and the headers of a request or a reply.
#[derive(Debug, Clone)]
pub(super) struct Head {
    /// The request line or the status line.
    pub(super) first: String,
    /// The headers as they came.
    pub(super) headers: Vec<(String, String)>,
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    /// In chunks that say their length.
    Chunked,
    /// Until the connection ends.
    UntilClose,
}

impl Head {
    /// Reads a head; `None` when the connection ended before its first byte.
    pub(super) fn read(from: &mut impl BufRead) -> Result<Option<Self>> {
        let mut limited = from.take(HEAD_BYTES_MAX);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if limited.read_line(&mut line)? == 0 {
                return if lines.is_empty() {
                    Ok(None)
                } else {
                    Err(Error::new(ErrorKind::UnexpectedEof, "half a head"))
                };
            }
            let line = line.trim_end_matches(['\r', '\n']).to_owned();
            match (line.is_empty(), lines.is_empty()) {
                (true, true) => {}
                (true, false) => break,
                (false, _) => lines.push(line),
            }
        }
        let mut lines = lines.into_iter();
        let first = lines.next().unwrap_or_default();
        let headers = lines
            .filter_map(|line| {
                let (name, value) = line.split_once(':')?;
                Some((name.to_owned(), value.trim().to_owned()))
            })
            .collect();
        Ok(Some(Self { first, headers }))
    }

    /// The value of a header.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Takes a header out.
    pub(super) fn remove(&mut self, name: &str) {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    /// Sets a header, in place of one of that name.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    /// Writes it, with the empty line.
    pub(super) fn write(&self, to: &mut impl Write) -> Result<()> {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in &self.headers {
            text.push_str(name);
            text.push_str(": ");
            text.push_str(value);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        to.write_all(text.as_bytes())?;
        to.flush()
    }

    /// The status of a reply, 0 when there is none.
    pub(super) fn status(&self) -> u16 {
        let word = self.first.split(' ').nth(1);
        word.and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    /// How the body of this request is framed.
    pub(super) fn request_framing(&self) -> Framing {
        self.declared_framing().unwrap_or(Framing::Length(0))
    }

    /// How the body of this reply to a request of `method` is framed.
    pub(super) fn reply_framing(&self, method: &str) -> Framing {
        if method == "HEAD" || matches!(self.status(), 204 | 304) {
            return Framing::Length(0);
        }
        self.declared_framing().unwrap_or(Framing::UntilClose)
    }

    fn declared_framing(&self) -> Option<Framing> {
        let encoding = self.get("transfer-encoding").unwrap_or_default();
        if encoding.eq_ignore_ascii_case("chunked") {
            return Some(Framing::Chunked);
        }
        let length = self.get("content-length")?.parse().ok()?;
        Some(Framing::Length(length))
    }
}

/// Passes a body on as it is framed, and gives the number of bytes of content. With `at_most` it stops
/// after so many of them.
pub(super) fn copy_body(
    from: &mut impl BufRead,
    to: &mut impl Write,
    framing: Framing,
    at_most: Option<u64>,
) -> Result<u64> {
    let at_most = at_most.unwrap_or(u64::MAX);
    match framing {
        Framing::Length(length) => {
            let copied = copy_exactly(from, to, length.min(at_most))?;
            to.flush()?;
            Ok(copied)
        }
        Framing::UntilClose => {
            let copied = std::io::copy(&mut from.take(at_most), to)?;
            to.flush()?;
            Ok(copied)
        }
        Framing::Chunked => copy_chunks(from, to, at_most),
    }
}

fn copy_chunks(from: &mut impl BufRead, to: &mut impl Write, at_most: u64) -> Result<u64> {
    let mut copied = 0;
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let size = line.trim_end().split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(size, 16)
            .map_err(|_| Error::new(ErrorKind::InvalidData, "a chunk without a size"))?;
        to.write_all(line.as_bytes())?;
        if size > 0 {
            copied += copy_exactly(from, to, size.min(at_most - copied))?;
            if copied >= at_most {
                to.flush()?;
                return Ok(copied);
            }
        }
        // The line end after the chunk; trailers are not sent by anybody here.
        let mut end = [0; 2];
        from.read_exact(&mut end)?;
        to.write_all(&end)?;
        if size == 0 {
            to.flush()?;
            return Ok(copied);
        }
    }
}

fn copy_exactly(from: &mut impl BufRead, to: &mut impl Write, length: u64) -> Result<u64> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = length;
    while left > 0 {
        let want = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
        let got = from.read(&mut piece[..want])?;
        if got == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        to.write_all(&piece[..got])?;
        left -= got as u64;
    }
    Ok(length)
}

/// Reads the content of a body whole.
pub(super) fn read_body(from: &mut impl BufRead, framing: Framing) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    if framing != Framing::Chunked {
        copy_body(from, &mut content, framing, None)?;
        return Ok(content);
    }
    let mut raw = Vec::new();
    copy_chunks(from, &mut raw, u64::MAX)?;
    let mut rest = raw.as_slice();
    loop {
        let mut line = String::new();
        rest.read_line(&mut line)?;
        let size = line.trim_end().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).expect("it was copied, so it has sizes");
        if size == 0 {
            return Ok(content);
        }
        content.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

/// A path or a query as it is meant: percent signs resolved.
pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = text
            .get(at + 1..at + 3)
            .filter(|_| bytes[at] == b'%')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        decoded.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_and_written_as_they_came() {
        let text = "PUT /b/k HTTP/1.1\r\nHost: h\r\nX-A:  b c\r\n\r\nbody";
        let mut from = text.as_bytes();
        let head = Head::read(&mut from).unwrap().unwrap();
        assert_eq!(head.get("x-a"), Some("b c"));
        assert_eq!(from, b"body");
        let mut written = Vec::new();
        head.write(&mut written).unwrap();
        assert_eq!(written, b"PUT /b/k HTTP/1.1\r\nHost: h\r\nX-A: b c\r\n\r\n");
        assert!(Head::read(&mut &b""[..]).unwrap().is_none());
        Head::read(&mut &b"GET / HTTP/1.1\r\nHo"[..]).unwrap_err();
    }

    #[test]
    fn bodies_are_passed_on_as_they_are_framed() {
        let chunked: &[u8] = b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\nnext";
        let mut from = chunked;
        assert_eq!(read_body(&mut from, Framing::Chunked).unwrap(), b"abcdefg");
        assert_eq!(from, b"next");
        let mut to = Vec::new();
        let copied = copy_body(&mut &*chunked, &mut to, Framing::Chunked, Some(5)).unwrap();
        assert_eq!((copied, to.as_slice()), (5, &b"3\r\nabc\r\n4\r\nde"[..]));
        let mut to = Vec::new();
        copy_body(&mut &b"abcdef"[..], &mut to, Framing::Length(4), None).unwrap();
        assert_eq!(to, b"abcd");
        copy_body(&mut &b"abc"[..], &mut to, Framing::Length(4), None).unwrap_err();
    }

    #[test]
    fn percent_signs() {
        for (text, meaning) in [
            ("a%20b", "a b"),
            ("%C3%BC%2F", "ü/"),
            ("100%", "100%"),
            ("%zz", "%zz"),
        ] {
            assert_eq!(percent_decode(text), meaning);
        }
    }
}
