//! A tiny HTTP client: what the tests see is what is on the wire.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A reply as it came.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code; 0 when the connection ended without a status line.
    pub status: u16,
    /// The header block, lower-cased.
    pub head: String,
    /// The body as far as it came.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// `GET path` from the loopback `port`, 120 s at most.
///
/// # Errors
/// When the connection is refused or breaks before a byte came.
pub fn get(port: u16, path: &str) -> std::io::Result<Reply> {
    request(
        port,
        &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
    )
}

/// Sends `raw` and reads to the end of the connection.
///
/// # Errors
/// As [`get`].
pub fn request(port: u16, raw: &str) -> std::io::Result<Reply> {
    request_bytes(port, raw.as_bytes())
}

/// As [`request`], for what is not text.
pub(crate) fn request_bytes(port: u16, raw: &[u8]) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    stream.write_all(raw)?;
    let mut all = Vec::new();
    if let Err(error) = stream.read_to_end(&mut all)
        && all.is_empty()
    {
        return Err(error);
    }
    let split = all
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .unwrap_or(all.len());
    let head = String::from_utf8_lossy(&all[..split]).to_lowercase();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    let body = all.get(split + 4..).unwrap_or_default().to_vec();
    Ok(Reply { status, head, body })
}

/// A text as it stands in a URL and in a form.
pub(crate) fn escaped(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("a String takes everything");
        }
    }
    text
}
