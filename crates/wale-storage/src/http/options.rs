//! What every store behind HTTP may be told: secrets, proxies, limits on silence.

use std::time::Duration;

/// A text that is never shown: its `Debug` prints nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the code that signs or sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// Proxies for requests to the store and to the services that give credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://`. May hold a password.
    pub http: Option<Secret>,
    /// For `https://`. May hold a password.
    pub https: Option<Secret>,
    /// Hosts, domains and networks that are reached directly, separated by commas.
    pub except: Option<String>,
}

/// Limits on silence. None of them bounds the length of a transfer: what moves may take as long as it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTimeouts {
    /// Until a connection stands, TLS included. 10 s: three retransmissions of a lost first packet.
    pub connect: Duration,
    /// Until the server answers a request whose body, if any, it was handed in whole. 15 s: half of the time for
    /// which a request is repeated, so that a silent server is asked a second time. [`HttpTimeouts::answer_to_upload`]
    /// adds what the operating system still holds of a body.
    pub answer: Duration,
    /// Between two movements of a body, either way. 30 s: a link that is dead for so long has lost the connection.
    pub stall: Duration,
    /// Until an upload in parts is put together. 5 minutes: Amazon documents "several minutes" for large ones.
    pub assembly: Duration,
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            assembly: Duration::from_mins(5),
        }
    }
}

impl HttpTimeouts {
    /// Bytes of a body that buffers of the system may hold when the last was handed over: Linux lets a socket's
    /// buffer grow to 4 MiB (`tcp_wmem`).
    const SYSTEM_BUFFER_BYTES: u64 = 4 << 20;
    /// The slowest link that is worth waiting for: 64 KiB/s, half a megabit.
    const SLOWEST_BYTES_PER_SECOND: u64 = 64 << 10;

    /// Until the server answers, counted from the moment the last byte of a body of this length was handed over: the
    /// usual limit and what the slowest link needs for what is still in the system's buffers, at most 64 s.
    #[must_use]
    pub(crate) fn answer_to_upload(&self, body_bytes: u64) -> Duration {
        let waiting = body_bytes.min(Self::SYSTEM_BUFFER_BYTES);
        self.answer + Duration::from_secs(waiting / Self::SLOWEST_BYTES_PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_an_upload_comes_from_its_size() {
        let timeouts = HttpTimeouts::default();
        for (bytes, seconds) in [(0, 15), (1 << 20, 31), (4 << 20, 79), (u64::MAX, 79)] {
            let limit = timeouts.answer_to_upload(bytes);
            assert_eq!(limit, Duration::from_secs(seconds), "{bytes}");
        }
    }
}
