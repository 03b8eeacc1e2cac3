//! What is refused before anybody looks at what a request asks for.
//!
//! It refuses to know the routes' work. No upgrade, no chunked request (with one, a proxy and hyper may disagree where
//! the next request begins), no large body, no long address; a browser page of another origin causes nothing; the token
//! is asked for.

use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, TRANSFER_ENCODING, UPGRADE,
    USER_AGENT,
};
use hyper::http::request::Parts;
use hyper::{StatusCode, Version};

use super::reply::Failure;
use super::routes::Route;
use crate::options::{HttpLimits, HttpToken};

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Checks the head alone.
pub(crate) fn head(parts: &Parts, limits: &HttpLimits) -> Result<(), Failure> {
    let bad =
        |message: &str| Err(Failure::new(StatusCode::BAD_REQUEST, "usage", message).closing());
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

/// Refuses what a browser sends on behalf of a page. Our clients are no browsers: they send neither `Origin` nor
/// `Sec-Fetch-Site`, nor call themselves Mozilla.
///
/// Two dangers. A page of any site can make a browser send a request (an image's address is enough, and over plain HTTP
/// nothing tells it from a typed one), so nothing that changes something is done for a browser, unless it says that a
/// person typed the address. And a page whose own name was made to point here (DNS rebinding) can read the reply, WAL
/// included; for that the name must be one that its owner controls, so a browser must have come by another.
pub(crate) fn origin(route: Route<'_>, headers: &HeaderMap) -> Result<(), Failure> {
    if route.is_probe() {
        return Ok(());
    }
    let site = headers.get(FETCH_SITE).map(HeaderValue::as_bytes);
    let is_browser = site.is_some()
        || headers.contains_key(ORIGIN)
        || headers
            .get(USER_AGENT)
            .is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"));
    let served = match site {
        _ if !is_browser => true,
        _ if headers.contains_key(ORIGIN) && route.changes_something() => false,
        Some(b"none") => true,
        _ if route.changes_something() => false,
        // The browser shows the reply to nobody but the person.
        Some(b"cross-site" | b"same-site") => true,
        _ => headers.get(HOST).is_some_and(is_nobodys_name),
    };
    if served {
        return Ok(());
    }
    Err(Failure::new(
        StatusCode::FORBIDDEN,
        "forbidden",
        "a browser page may not ask for this",
    )
    .hint("use curl or wget, or in a browser the IP address of the sidecar"))
}

/// Whether nobody can make the name in a `Host` header point to another address: an IP address, or a name without a
/// dot, which no public domain name is.
fn is_nobodys_name(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else {
        return false;
    };
    if host.starts_with('[') {
        return true;
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    !name.contains('.') || name.parse::<std::net::Ipv4Addr>().is_ok()
}

/// Asks for the token, as a bearer token or as the password of basic authentication with any user name.
pub(crate) fn token(
    route: Route<'_>,
    headers: &HeaderMap,
    token: Option<&HttpToken>,
) -> Result<(), Failure> {
    let Some(token) = token.filter(|_| !route.is_probe()) else {
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
                token(Route::Status, &headers, Some(&token_set)).is_ok(),
                expected,
                "{header:?}"
            );
            assert_eq!(
                token(Route::WalPush("x"), &headers, Some(&token_set)).is_ok(),
                expected,
                "{header:?}"
            );
            for free in [Route::Ping, Route::Live, Route::Ready, Route::Startup] {
                assert!(token(free, &headers, Some(&token_set)).is_ok());
            }
            assert!(token(Route::Status, &headers, None).is_ok());
        }
    }

    type Headers<'a> = &'a [(&'static str, &'static str)];

    #[test]
    fn row62_a_page_in_a_browser_causes_nothing_and_reads_no_wal() {
        let (push, backup, wal) = (Route::WalPush("x"), Route::BackupPush, Route::Wal("x"));
        let evil = "evil.example:5000";
        let mozilla = ("user-agent", "Mozilla/5.0 (X11) Firefox/140.0");
        let cases: &[(Route<'_>, Headers<'_>, bool)] = &[
            // No browser.
            (backup, &[], true),
            (
                push,
                &[("user-agent", "Wget/1.21"), ("host", "db.example.org:5000")],
                true,
            ),
            (
                wal,
                &[("user-agent", "curl/8.5.0"), ("host", "db.example.org")],
                true,
            ),
            // A page of another site.
            (backup, &[("origin", "http://evil.example")], false),
            (push, &[("origin", "null")], false),
            (backup, &[("sec-fetch-site", "cross-site")], false),
            (backup, &[mozilla, ("host", "10.0.0.5:5000")], false),
            (push, &[mozilla, ("host", "localhost:5000")], false),
            // The browser does not show it the reply.
            (
                Route::Status,
                &[("sec-fetch-site", "cross-site"), mozilla],
                true,
            ),
            // A page whose name was made to point here.
            (
                backup,
                &[("sec-fetch-site", "same-origin"), ("host", evil)],
                false,
            ),
            (
                wal,
                &[("sec-fetch-site", "same-origin"), ("host", evil)],
                false,
            ),
            (wal, &[mozilla, ("host", evil)], false),
            (
                Route::Backups,
                &[mozilla, ("host", "127.0.0.1.evil.example")],
                false,
            ),
            (Route::Status, &[mozilla], false),
            // A person.
            (
                backup,
                &[
                    ("sec-fetch-site", "none"),
                    mozilla,
                    ("host", "db.example.org"),
                ],
                true,
            ),
            (Route::Status, &[mozilla, ("host", "10.0.0.5:5000")], true),
            (Route::Status, &[mozilla, ("host", "[::1]:5000")], true),
            (Route::Status, &[mozilla, ("host", "sidecar:5000")], true),
            (Route::Ready, &[mozilla, ("host", evil)], true),
        ];
        for (route, headers, served) in cases {
            let map = headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            let map: HeaderMap = map.collect();
            assert_eq!(
                origin(*route, &map).is_ok(),
                *served,
                "{route:?} {headers:?}"
            );
        }
    }
}
