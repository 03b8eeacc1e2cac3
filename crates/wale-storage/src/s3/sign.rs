//! Signature version 4 of a request (Amazon S3 API reference, "Authenticating requests: using the Authorization
//! header").
//!
//! Pure: keys, a request and a moment go in, headers come out. The vectors of Amazon's own page are the tests.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ring::{digest, hmac};

use super::credentials::Credentials;
use crate::http::text::hex;

/// What stands in place of a body's digest when TLS vouches for the body.
pub(super) const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// A request as it is signed.
pub(super) struct ToSign<'a> {
    pub(super) method: &'a Method,
    /// Host and port, as the `Host` header will have them.
    pub(super) authority: &'a str,
    /// Escaped.
    pub(super) path: &'a str,
    /// Escaped and sorted.
    pub(super) query: &'a str,
    /// The body's SHA-256 in hexadecimal, or [`UNSIGNED_PAYLOAD`].
    pub(super) payload: &'a str,
}

/// Whose signature it is to be.
pub(super) struct Signer<'a> {
    pub(super) credentials: &'a Credentials,
    pub(super) region: &'a str,
    /// `s3`, or `sts`.
    pub(super) service: &'a str,
    pub(super) now: DateTime<Utc>,
}

impl Signer<'_> {
    /// Adds the headers that sign the request and every header that it has.
    pub(super) fn sign(&self, request: &ToSign<'_>, headers: &mut HeaderMap) {
        let moment = self.now.format("%Y%m%dT%H%M%SZ").to_string();
        let scope = format!(
            "{}/{}/{}/aws4_request",
            self.now.format("%Y%m%d"),
            self.region,
            self.service
        );
        headers.insert("x-amz-date", value(&moment));
        headers.insert("x-amz-content-sha256", value(request.payload));
        if let Some(token) = &self.credentials.session_token {
            let mut token = value(token.expose());
            token.set_sensitive(true);
            headers.insert("x-amz-security-token", token);
        }
        let (names, lines) = canonical_headers(request.authority, headers);
        let canonical = format!(
            "{}\n{}\n{}\n{lines}\n{names}\n{}",
            request.method, request.path, request.query, request.payload
        );
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{moment}\n{scope}\n{}",
            hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref())
        );
        let signature = hex(mac(self.key().as_ref(), &to_sign).as_ref());
        let mut authorization = value(&format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}",
            self.credentials.access_key_id
        ));
        authorization.set_sensitive(true);
        headers.insert(http::header::AUTHORIZATION, authorization);
    }

    /// The key of the day, region and service.
    fn key(&self) -> hmac::Tag {
        let secret = format!("AWS4{}", self.credentials.secret_access_key.expose());
        let day = mac(secret.as_bytes(), &self.now.format("%Y%m%d").to_string());
        let region = mac(day.as_ref(), self.region);
        let service = mac(region.as_ref(), self.service);
        mac(service.as_ref(), "aws4_request")
    }
}

fn mac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

/// The names of all headers, and their lines, in the order of the names.
fn canonical_headers(authority: &str, headers: &HeaderMap) -> (String, String) {
    let text = |name: &HeaderName| {
        let values: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned())
            .collect();
        values.join(",")
    };
    let mut entries: Vec<(&str, String)> = headers
        .keys()
        .map(|name| (name.as_str(), text(name)))
        .collect();
    entries.push(("host", authority.to_owned()));
    entries.sort_unstable();
    let names: Vec<&str> = entries.iter().map(|(name, _)| *name).collect();
    let mut lines = String::new();
    for (name, value) in &entries {
        writeln!(lines, "{name}:{value}").expect("a String takes everything");
    }
    (names.join(";"), lines)
}

/// A header's value. Settings are checked to be visible ASCII where they are read; what comes from a service that
/// gives credentials is checked there.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The SHA-256 of a small body, hexadecimal.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    /// The examples of Amazon's page "Signature calculations for the authorization header".
    fn signature(
        method: &Method,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> String {
        let credentials = Credentials {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_access_key: Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            session_token: None,
        };
        let signer = Signer {
            credentials: &credentials,
            region: "us-east-1",
            service: "s3",
            now: "2013-05-24T00:00:00Z".parse().expect("a moment"),
        };
        let mut map = HeaderMap::new();
        for (name, text) in headers {
            map.insert(HeaderName::try_from(*name).expect("a name"), value(text));
        }
        let request = ToSign {
            method,
            authority: "examplebucket.s3.amazonaws.com",
            path,
            query,
            payload: &sha256_hex(body),
        };
        signer.sign(&request, &mut map);
        let authorization = map["authorization"].to_str().expect("text").to_owned();
        assert!(
            !format!("{map:?}").contains("AKIA"),
            "headers are not shown"
        );
        authorization
            .rsplit_once('=')
            .expect("a signature")
            .1
            .to_owned()
    }

    #[test]
    fn amazons_examples() {
        assert_eq!(
            signature(
                &Method::GET,
                "/test.txt",
                "",
                &[("range", "bytes=0-9")],
                b""
            ),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let headers = [
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ];
        assert_eq!(
            signature(
                &Method::PUT,
                "/test%24file.text",
                "",
                &headers,
                b"Welcome to Amazon S3."
            ),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
        assert_eq!(
            signature(&Method::GET, "/", "lifecycle=", &[], b""),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        );
        assert_eq!(
            signature(&Method::GET, "/", "max-keys=2&prefix=J", &[], b""),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }
}
