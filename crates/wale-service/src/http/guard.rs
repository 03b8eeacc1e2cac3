//! What is refused before anybody checks what a request asks for.
//!
//! It refuses to know the routes' work. No upgrade, no chunked request (with one, a proxy and hyper may disagree where
//! the next request begins), no large body, no long address; the token is asked for.

use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{AUTHORIZATION, HeaderMap, TRANSFER_ENCODING, UPGRADE};
use hyper::http::request::Parts;
use hyper::{StatusCode, Version};
use wale_ops::Kind;

use super::reply::Failure;
use super::routes::Route;
use crate::options::{HttpLimits, HttpToken, TokenFor};

/// Checks the head alone.
pub(crate) fn head(parts: &Parts, limits: &HttpLimits) -> Result<(), Failure> {
    let bad = |message: &str| Err(Failure::of(Kind::Usage, message).closing());
    if !matches!(parts.version, Version::HTTP_10 | Version::HTTP_11) {
        return bad("this endpoint speaks HTTP/1.0 and HTTP/1.1");
    }
    if parts.headers.contains_key(TRANSFER_ENCODING) {
        return bad("a request with a transfer encoding is not taken: no route wants a body");
    }
    if parts.headers.contains_key(UPGRADE) {
        return bad("the protocol of a connection is not changed here");
    }
    let url = parts
        .uri
        .path_and_query()
        .map_or(0, |text| text.as_str().len());
    if url > limits.url_bytes {
        let message = format!("the address is longer than {} bytes", limits.url_bytes);
        return Err(Failure::new(StatusCode::URI_TOO_LONG, "usage", message).closing());
    }
    Ok(())
}

/// Reads a request's body to its end and forgets it, so that the next request on the connection begins where it should.
pub(crate) async fn body(body: Incoming, limits: &HttpLimits) -> Result<(), Failure> {
    if body.is_end_stream() {
        return Ok(());
    }
    let too_large = || {
        let message = format!(
            "the request's body is larger than {} bytes",
            limits.body_bytes
        );
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "usage", message).closing()
    };
    if body.size_hint().lower() > limits.body_bytes as u64 {
        return Err(too_large());
    }
    let mut body = Limited::new(body, limits.body_bytes);
    let drain = async {
        while let Some(frame) = body.frame().await {
            frame.map_err(|_| too_large())?;
        }
        Ok(())
    };
    tokio::time::timeout(limits.body_timeout, drain)
        .await
        .unwrap_or_else(|_| {
            Err(Failure::new(
                StatusCode::REQUEST_TIMEOUT,
                "usage",
                "the request's body did not arrive in time",
            )
            .closing())
        })
}

/// Asks for the token, as a bearer token or as the password of basic authentication with any user name.
pub(crate) fn token(
    route: Route<'_>,
    headers: &HeaderMap,
    token: Option<&HttpToken>,
    token_for: TokenFor,
) -> Result<(), Failure> {
    let is_open = match token_for {
        TokenFor::Everything => route.is_probe(),
        TokenFor::Reads => route.is_probe() || matches!(route, Route::WalPush(_)),
    };
    let Some(token) = token.filter(|_| !is_open) else {
        return Ok(());
    };
    let shown = headers
        .get(AUTHORIZATION)
        .and_then(|value| credentials(value.as_bytes()));
    if shown.is_some_and(|shown| token.matches(&shown)) {
        return Ok(());
    }
    Err(Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", "this endpoint asks for a token")
        .hint("send \"Authorization: Bearer <token>\", or the token as the password of basic authentication"))
}

fn credentials(header: &[u8]) -> Option<Vec<u8>> {
    let space = header.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = (&header[..space], header[space + 1..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(rest.to_vec());
    }
    if scheme.eq_ignore_ascii_case(b"basic") {
        let pair = base64(rest)?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        return Some(pair[colon + 1..].to_vec());
    }
    None
}

/// Decodes base64 (RFC 4648, section 4), padding optional.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let unpadded = text
        .iter()
        .rposition(|byte| *byte != b'=')
        .map_or(0, |last| last + 1);
    let mut decoded = Vec::with_capacity(unpadded * 3 / 4);
    for group in text[..unpadded].chunks(4) {
        let mut bits: u32 = 0;
        for byte in group {
            bits = bits << 6 | sextet(*byte)?;
        }
        // 4 letters are 3 bytes, 3 are 2, 2 are 1; a single letter is no byte at all.
        let bytes = (group.len() * 6) / 8;
        if bytes == 0 {
            return None;
        }
        bits <<= 6 * (4 - group.len());
        decoded.extend_from_slice(&bits.to_be_bytes()[1..=bytes]);
    }
    Some(decoded)
}

fn sextet(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_rfc() {
        let cases = [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg", "foob"),
            ("Zm9vYmFy", "foobar"),
        ];
        for (text, plain) in cases {
            assert_eq!(
                base64(text.as_bytes()).as_deref(),
                Some(plain.as_bytes()),
                "{text}"
            );
        }
        for bad in ["Z", "Zm9vZ", "Zm 9", "Zm\n9v", "Z=g="] {
            assert_eq!(base64(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn row62_the_token_is_asked_for_everywhere_but_on_probes() {
        let token_set = HttpToken::new("s3cret".into()).unwrap();
        let cases = [
            (Some("Bearer s3cret"), true),
            (Some("bearer  s3cret"), true),
            (Some("Basic d2FsZTpzM2NyZXQ="), true),
            (Some("Basic OnMzY3JldA=="), true),
            (Some("Bearer other"), false),
            (Some("Basic d2FsZTpvdGhlcg=="), false),
            (Some("Basic czNjcmV0"), false),
            (Some("s3cret"), false),
            (Some("Digest s3cret"), false),
            (None, false),
        ];
        for (header, expected) in cases {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert(AUTHORIZATION, header.parse().unwrap());
            }
            assert_eq!(
                token(
                    Route::Status,
                    &headers,
                    Some(&token_set),
                    TokenFor::Everything
                )
                .is_ok(),
                expected,
                "{header:?}"
            );
            assert_eq!(
                token(
                    Route::WalPush("x"),
                    &headers,
                    Some(&token_set),
                    TokenFor::Everything
                )
                .is_ok(),
                expected,
                "{header:?}"
            );
            for free in [Route::Ping, Route::Live, Route::Ready, Route::Startup] {
                assert!(token(free, &headers, Some(&token_set), TokenFor::Everything).is_ok());
            }
            assert!(token(Route::Status, &headers, None, TokenFor::Everything).is_ok());
        }
    }
    #[test]
    fn row62_reads_ask_for_the_token_while_pushes_stay_open() {
        let set = HttpToken::new("s3cret".into()).unwrap();
        let bare = HeaderMap::new();
        let is_open = |route| token(route, &bare, Some(&set), TokenFor::Reads).is_ok();
        for route in [Route::WalPush("x"), Route::Ping, Route::Ready] {
            assert!(is_open(route), "{route:?}");
        }
        for route in [
            Route::Wal("x"),
            Route::WalFetch("x"),
            Route::WalAbsent("x"),
            Route::BackupPush,
            Route::Backups,
            Route::Status,
            Route::Metrics,
            Route::Page,
        ] {
            assert!(!is_open(route), "{route:?}");
        }
    }
}
