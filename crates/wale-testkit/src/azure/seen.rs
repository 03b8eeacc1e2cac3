//! What a request to Azure is, for the proxy.

use super::ROOT;
use crate::s3::kind::Kind;
use crate::s3::message::percent_decode;

/// Which verb a request is, in the words of S3, and the blob's name; none when it is not one to the account of the tests.
pub(crate) fn kind_and_key(method: &str, path: &str, query: &str) -> Option<(Kind, String)> {
    let decoded = percent_decode(path);
    let below = decoded.trim_start_matches('/').strip_prefix(ROOT)?;
    let key = match below {
        "" => "",
        below => below.strip_prefix('/')?,
    };
    let comp = query.split('&').find_map(|pair| pair.strip_prefix("comp="));
    let kind = match (method, key.is_empty(), comp) {
        ("PUT", false, Some("block")) => Kind::PutPart,
        ("PUT", false, Some("blocklist")) => Kind::CompleteUpload,
        ("PUT", false, None) => Kind::Put,
        ("GET", false, None) => Kind::Get,
        ("HEAD", false, None) => Kind::Head,
        ("DELETE", false, None) => Kind::Delete,
        ("GET", true, Some("list")) => Kind::List,
        _ => Kind::Other,
    };
    Some((kind, key.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_keys() {
        let below = |rest: &str| format!("/{ROOT}{rest}");
        for (method, path, query, kind, key) in [
            ("PUT", below("/a/b%20c"), "", Kind::Put, "a/b c"),
            (
                "PUT",
                below("/a"),
                "blockid=x%3D&comp=block",
                Kind::PutPart,
                "a",
            ),
            (
                "PUT",
                below("/a"),
                "comp=blocklist",
                Kind::CompleteUpload,
                "a",
            ),
            ("HEAD", below("/a"), "", Kind::Head, "a"),
            ("GET", below("/a"), "sv=1&sig=s", Kind::Get, "a"),
            (
                "GET",
                below(""),
                "comp=list&prefix=a&restype=container",
                Kind::List,
                "",
            ),
            ("GET", below("/a"), "comp=blocklist", Kind::Other, "a"),
        ] {
            let found = kind_and_key(method, &path, query).expect("it is one");
            assert_eq!(
                (found.0, found.1.as_str()),
                (kind, key),
                "{method} {path}?{query}"
            );
        }
        assert!(kind_and_key("PUT", "/bkt/a", "").is_none());
        assert!(kind_and_key("PUT", &below("2/a"), "").is_none());
    }
}
