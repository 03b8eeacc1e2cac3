//! The page at `/` and `/ui`: one HTML file in the binary, for a person with a browser. It asks `/status` and `/backups`, shows them, and
//! causes nothing.
//!
//! It holds no data: what it shows comes from the two routes, with the browser's own rights. Invariants: no other host is asked, and
//! no script or style runs but its own two, which the policy names by their digests; all that comes from the sidecar reaches the
//! page as text, which the policy enforces too (Trusted Types). It is sent to who asks for HTML: to curl and wget, which take anything, `/`
//! is no address, so that a slip in somebody's `archive_command` does not look like success.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{
    CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY, X_FRAME_OPTIONS,
};
use sha2::{Digest as _, Sha256};

use super::reply::Reply;

/// The page.
const PAGE: &str = include_str!("page.html");

const HTML: &str = "text/html; charset=utf-8";

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const PERMISSIONS: HeaderName = HeaderName::from_static("permissions-policy");

/// What a browser may do with the page.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let (style, script) = (
        digest("<style>", "</style>"),
        digest("<script>", "</script>"),
    );
    HeaderValue::try_from(format!(
        "default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ))
    .expect("digests in base64 are letters of a header")
});

/// The page, as it is.
pub(super) fn reply() -> Reply {
    Reply::Whole {
        status: StatusCode::OK,
        media: HTML,
        body: Bytes::from_static(PAGE.as_bytes()),
    }
}

/// The headers of the page, beside those of every reply.
pub(super) fn guard(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(
        PERMISSIONS,
        HeaderValue::from_static("camera=(), geolocation=(), microphone=(), clipboard-read=()"),
    );
}

/// The digest of the one element of this kind, as a policy names it.
fn digest(begin: &str, end: &str) -> String {
    let content = PAGE
        .split_once(begin)
        .and_then(|(_, rest)| rest.split_once(end))
        .map_or("", |(content, _)| content);
    format!(
        "'sha256-{}'",
        BASE64_STANDARD.encode(Sha256::digest(content))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_file_that_asks_nobody_else() {
        for (element, count) in [("<style", 1), ("<script", 1), ("<iframe", 0), ("<form", 0)] {
            assert_eq!(PAGE.matches(element).count(), count, "{element}");
        }
        // Attributes that run, which the policy would refuse; sources elsewhere.
        for refused in [
            " onclick=",
            " onload=",
            " onerror=",
            " style=",
            " src=",
            "@import",
            "url(http",
            "//cdn",
        ] {
            assert!(!PAGE.contains(refused), "{refused}");
        }
        // What makes elements of text.
        for refused in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
        ] {
            assert!(!PAGE.contains(refused), "{refused}");
        }
        let elsewhere: Vec<&str> = PAGE
            .match_indices("http")
            .filter_map(|(at, _)| PAGE[at..].split(['\'', '"', '<', '…', ' ']).next())
            .filter(|found| found.starts_with("http://") || found.starts_with("https://"))
            .filter(|found| !found.starts_with("http://www.w3.org/2000/svg"))
            .collect();
        // One in a text about curl, one in a text about TLS.
        assert!(
            elsewhere
                .iter()
                .all(|found| matches!(*found, "http://" | "https://")),
            "{elsewhere:?}"
        );
    }

    #[test]
    fn the_policy_names_the_digests_of_the_content() {
        // As openssl makes it: `printf abc | openssl dgst -sha256 -binary | base64`.
        let known = BASE64_STANDARD.encode(Sha256::digest("abc"));
        assert_eq!(known, "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
        let mut headers = HeaderMap::new();
        guard(&mut headers);
        let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
        let script = PAGE.split("<script>").nth(1).unwrap();
        let script = script.split("</script>").next().unwrap();
        assert!(script.contains("'use strict'"));
        let expected = BASE64_STANDARD.encode(Sha256::digest(script));
        assert!(
            policy.contains(&format!("script-src 'sha256-{expected}';")),
            "{policy}"
        );
        let style = PAGE.split("<style>").nth(1).unwrap();
        let style = style.split("</style>").next().unwrap();
        let expected = BASE64_STANDARD.encode(Sha256::digest(style));
        assert!(
            policy.contains(&format!("style-src 'sha256-{expected}';")),
            "{policy}"
        );
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        for wide in ["unsafe", "*", "http", "blob:"] {
            assert!(!policy.contains(wide), "{policy}");
        }
    }

    #[test]
    fn the_runbook_has_every_page_that_the_page_names() {
        let runbook = include_str!("../../../../../docs/runbook.md");
        let named = PAGE.split("const RUNBOOK = {").nth(1).unwrap();
        let named = named.split("};").next().unwrap();
        let quoted = named.split('\'').skip(1).step_by(2);
        // A key in quotes is a reason of /readyz, which has no blank.
        let named: Vec<&str> = quoted.filter(|text| text.contains(' ')).collect();
        assert!(named.len() > 10, "{named:?}");
        for page in named {
            let heading = format!("\n## {}\n", page.replace('’', "'"));
            assert!(
                runbook.contains(&heading),
                "the runbook has no page {page:?}"
            );
        }
    }
}
