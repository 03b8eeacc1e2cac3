//! Requests of Google's JSON API in the words of the fault proxy.

use crate::s3::kind::Kind;
use crate::s3::message::percent_decode;

/// Verb and object of a request; none when it is no request of this API. `range` is the header `Content-Range`.
pub(crate) fn kind_and_key(
    method: &str,
    path: &str,
    query: &str,
    range: &str,
) -> Option<(Kind, String)> {
    let named = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.find(|(found, _)| *found == name)?.1;
        Some(percent_decode(value))
    };
    if path.contains("/upload/storage/v1/b/") {
        let kind = match (method, named("uploadType").as_deref()) {
            ("PUT", _) if range.ends_with("/*") => Kind::PutPart,
            ("PUT", _) => Kind::CompleteUpload,
            ("POST", Some("resumable")) => Kind::CreateUpload,
            ("POST", _) => Kind::Put,
            _ => Kind::Other,
        };
        return Some((kind, named("name").unwrap_or_default()));
    }
    let (_, rest) = path.split_once("/storage/v1/b/")?;
    let (_, objects) = rest.split_once("/o")?;
    let key = percent_decode(objects.strip_prefix('/').unwrap_or_default());
    let kind = match (method, key.is_empty()) {
        ("GET", true) => Kind::List,
        ("GET", false) if named("alt").as_deref() == Some("media") => Kind::Get,
        ("GET", false) => Kind::Head,
        ("DELETE", false) => Kind::Delete,
        _ => Kind::Other,
    };
    Some((kind, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_keys() {
        const UPLOAD: &str = "/upload/storage/v1/b/bkt/o";
        for (method, path, query, range, kind, key) in [
            (
                "POST",
                UPLOAD,
                "name=%2Fa%2Fb&uploadType=multipart",
                "",
                Kind::Put,
                "/a/b",
            ),
            (
                "POST",
                UPLOAD,
                "name=a&uploadType=resumable",
                "",
                Kind::CreateUpload,
                "a",
            ),
            (
                "PUT",
                UPLOAD,
                "name=a&upload_id=u",
                "bytes 0-9/*",
                Kind::PutPart,
                "a",
            ),
            (
                "PUT",
                UPLOAD,
                "name=a&upload_id=u",
                "bytes 10-19/20",
                Kind::CompleteUpload,
                "a",
            ),
            (
                "GET",
                "/storage/v1/b/bkt/o/%2Fa%2Fb",
                "fields=x",
                "",
                Kind::Head,
                "/a/b",
            ),
            (
                "GET",
                "/storage/v1/b/bkt/o/a",
                "alt=media",
                "",
                Kind::Get,
                "a",
            ),
            ("DELETE", "/storage/v1/b/bkt/o/a", "", "", Kind::Delete, "a"),
            ("GET", "/storage/v1/b/bkt/o", "prefix=a", "", Kind::List, ""),
        ] {
            let found = kind_and_key(method, path, query, range).expect("it is one");
            assert_eq!(found, (kind, key.to_owned()), "{method} {path}?{query}");
        }
        assert_eq!(kind_and_key("GET", "/bkt/a", "", ""), None);
    }
}
