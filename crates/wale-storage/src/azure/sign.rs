//! The signature of a request with the account's key ("Authorize with Shared Key", Azure Storage REST API, the form for
//! version 2015-02-21 and later).
//!
//! Pure: a key and a request go in, a header's text comes out.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, Method};
use ring::hmac;

/// A request as it is signed.
pub(super) struct SharedKeyRequest<'a> {
    pub(super) method: &'a Method,
    /// Escaped, as it is sent.
    pub(super) path: &'a str,
    /// Names and values, not escaped.
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) headers: &'a HeaderMap,
    /// The body's length.
    pub(super) bytes: u64,
}

/// The headers that are signed by their places, `x-ms-date` standing for `Date`.
const BY_PLACE: [&str; 8] = [
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

impl SharedKeyRequest<'_> {
    /// The value of the header `Authorization`.
    pub(super) fn authorization(&self, account: &str, key: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let tag = hmac::sign(&key, self.text(account).as_bytes());
        format!("SharedKey {account}:{}", BASE64_STANDARD.encode(tag))
    }

    /// What is signed.
    fn text(&self, account: &str) -> String {
        let length = match self.bytes {
            0 => String::new(),
            bytes => bytes.to_string(),
        };
        // Content-Encoding and Content-Language are never sent.
        let mut text = format!("{}\n\n\n{length}\n", self.method);
        for name in BY_PLACE {
            text.push_str(&self.header(name));
            text.push('\n');
        }
        let mut own: Vec<&str> = self
            .headers
            .keys()
            .map(http::HeaderName::as_str)
            .filter(|name| name.starts_with("x-ms-"))
            .collect();
        own.sort_unstable();
        for name in own {
            // A String takes everything.
            let _ = writeln!(text, "{name}:{}", self.header(name));
        }
        let _ = write!(text, "/{account}{}", self.path);
        let mut query = self.query.to_vec();
        query.sort_unstable();
        for (name, value) in query {
            let _ = write!(text, "\n{name}:{value}");
        }
        text
    }

    fn header(&self, name: &str) -> String {
        let value = self.headers.get(name);
        value.map_or_else(String::new, |value| {
            String::from_utf8_lossy(value.as_bytes()).trim().to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request that Microsoft's page spells out, with the changes of version 2015-02-21: no length for nothing.
    #[test]
    fn the_text_of_microsofts_page() {
        let mut headers = HeaderMap::new();
        headers.insert(
            "x-ms-date",
            "Fri, 26 Jun 2015 23:39:12 GMT".parse().expect("a value"),
        );
        headers.insert("x-ms-version", "2015-02-21".parse().expect("a value"));
        let request = SharedKeyRequest {
            method: &Method::GET,
            path: "/mycontainer",
            query: &[
                ("restype", "container"),
                ("comp", "metadata"),
                ("timeout", "20"),
            ],
            headers: &headers,
            bytes: 0,
        };
        assert_eq!(
            request.text("myaccount"),
            "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
             /myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
        );
    }

    /// A request that Azurite 3.35.0 took, signed by another program.
    #[test]
    fn a_signature_that_an_emulator_took() {
        let key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
        let key = BASE64_STANDARD.decode(key).expect("the emulator's key");
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-ms-date", "Sun, 29 Nov 2026 07:45:39 GMT"),
            ("x-ms-version", "2021-12-02"),
            ("x-ms-blob-type", "BlockBlob"),
            ("x-ms-meta-waleupload", "m1"),
            ("if-none-match", "*"),
            ("content-type", "application/octet-stream"),
            ("content-md5", "XUFAKrxLKna5cZ2REBfFkg=="),
        ] {
            headers.insert(name, value.parse().expect("a value"));
        }
        let request = SharedKeyRequest {
            method: &Method::PUT,
            path: "/devstoreaccount1/bkt/a%20b/c",
            query: &[],
            headers: &headers,
            bytes: 5,
        };
        assert_eq!(
            request.authorization("devstoreaccount1", &key),
            "SharedKey devstoreaccount1:dlh8JtonwqeCqg7D6VJ7Ey8gOB7Z+w/EJyB7n+y8hLo="
        );
    }
}
