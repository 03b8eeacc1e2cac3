//! Where requests go: the host and the path, escaped once and for all.
//!
//! A signature covers the escaped text, so there is one spelling of each: everything but letters, digits and `-._~`
//! is escaped, in upper-case hexadecimal (Amazon S3, "Signature calculations", `UriEncode`).

use super::options::{Addressing, S3Endpoint};
use crate::http::text::{escape, escape_path};

/// A bucket as its server is addressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// `http` or `https`.
    scheme: &'static str,
    /// Host and port.
    pub(super) authority: String,
    /// `/`, or `/bucket/`, behind the endpoint's own path.
    root: String,
    /// Whether the root ends with the bucket.
    names_bucket: bool,
}

impl Address {
    /// Of a bucket at Amazon (`endpoint` none) or elsewhere.
    pub(super) fn new(bucket: &str, region: &str, endpoint: Option<&S3Endpoint>) -> Self {
        let S3Endpoint {
            secure,
            authority,
            path,
            addressing,
        } = endpoint.map_or_else(|| amazon(bucket, region), Clone::clone);
        let path = escape_path(&path);
        let (authority, root) = match addressing {
            Addressing::Path => (authority, format!("{path}/{}/", escape(bucket))),
            Addressing::Subdomain => (format!("{bucket}.{authority}"), format!("{path}/")),
            Addressing::BucketIsHost => (host_of_bucket(bucket, &authority), format!("{path}/")),
        };
        let scheme = if secure { "https" } else { "http" };
        Self {
            scheme,
            authority,
            root,
            names_bucket: addressing == Addressing::Path,
        }
    }

    /// Whether requests go over TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.scheme == "https"
    }

    /// The escaped path of an object.
    pub(super) fn object_path(&self, name: &str) -> String {
        format!("{}{}", self.root, escape_path(name))
    }

    /// The escaped path of the bucket itself.
    pub(super) fn bucket_path(&self) -> &str {
        match self.root.strip_suffix('/') {
            None | Some("") => "/",
            // An endpoint's path without the bucket is no name of one: it keeps its slash.
            Some(_) if !self.names_bucket => &self.root,
            Some(bucket) => bucket,
        }
    }

    /// The URL of an escaped path and query.
    pub(super) fn url(&self, path: &str, query: &str) -> String {
        let Self {
            scheme, authority, ..
        } = self;
        if query.is_empty() {
            format!("{scheme}://{authority}{path}")
        } else {
            format!("{scheme}://{authority}{path}?{query}")
        }
    }
}

/// Amazon's own server. The bucket is part of the host name where its certificate allows that, and of the path
/// otherwise: a dot in the bucket's name does not match `*.s3.region.amazonaws.com`.
fn amazon(bucket: &str, region: &str) -> S3Endpoint {
    let domain = if region.starts_with("cn-") {
        "amazonaws.com.cn"
    } else {
        "amazonaws.com"
    };
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(fits)
        && !bucket.starts_with('-')
        && !bucket.ends_with('-');
    S3Endpoint {
        secure: true,
        authority: format!("s3.{region}.{domain}"),
        path: String::new(),
        addressing: if is_label {
            Addressing::Subdomain
        } else {
            Addressing::Path
        },
    }
}

/// The bucket as host, with the endpoint's port.
fn host_of_bucket(bucket: &str, authority: &str) -> String {
    // What follows the last colon is a port only if no bracket of an IPv6 address comes after it.
    match authority.rsplit_once(':') {
        Some((_, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{bucket}:{port}")
        }
        _ => bucket.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(bucket: &str, endpoint: Option<(bool, &str, Addressing)>) -> String {
        let endpoint = endpoint.map(|(secure, authority, addressing)| S3Endpoint {
            secure,
            authority: authority.into(),
            path: String::new(),
            addressing,
        });
        let address = Address::new(bucket, "eu-west-1", endpoint.as_ref());
        address.url(&address.object_path("a/b"), "")
    }

    #[test]
    fn styles() {
        use Addressing::{BucketIsHost, Path, Subdomain};
        for (bucket, endpoint, expected) in [
            ("data", None, "https://data.s3.eu-west-1.amazonaws.com/a/b"),
            (
                "d.ata",
                None,
                "https://s3.eu-west-1.amazonaws.com/d.ata/a/b",
            ),
            ("Data", None, "https://s3.eu-west-1.amazonaws.com/Data/a/b"),
            (
                "data",
                Some((false, "h:9000", Path)),
                "http://h:9000/data/a/b",
            ),
            ("data", Some((true, "h", Subdomain)), "https://data.h/a/b"),
            (
                "s3.example.org",
                Some((true, "h", BucketIsHost)),
                "https://s3.example.org/a/b",
            ),
            (
                "s3.example.org",
                Some((false, "h:80", BucketIsHost)),
                "http://s3.example.org:80/a/b",
            ),
        ] {
            assert_eq!(url(bucket, endpoint), expected);
        }
        let china = Address::new("data", "cn-north-1", None);
        assert_eq!(china.authority, "data.s3.cn-north-1.amazonaws.com.cn");
    }

    #[test]
    fn the_bucket_itself() {
        let endpoint = |addressing| S3Endpoint {
            secure: false,
            authority: "h".into(),
            path: String::new(),
            addressing,
        };
        let path = Address::new("data", "r", Some(&endpoint(Addressing::Path)));
        assert_eq!(path.url(path.bucket_path(), "a=b"), "http://h/data?a=b");
        let host = Address::new("data", "r", Some(&endpoint(Addressing::Subdomain)));
        assert_eq!(host.url(host.bucket_path(), ""), "http://data.h/");
    }

    #[test]
    fn fault_98_an_endpoint_with_a_path() {
        for (addressing, bucket, object) in [
            (
                Addressing::Path,
                "/storage/v1/s3/data",
                "/storage/v1/s3/data/a%20b",
            ),
            (
                Addressing::Subdomain,
                "/storage/v1/s3/",
                "/storage/v1/s3/a%20b",
            ),
        ] {
            let endpoint = S3Endpoint {
                secure: true,
                authority: "h".into(),
                path: "/storage/v1/s3".into(),
                addressing,
            };
            let address = Address::new("data", "r", Some(&endpoint));
            assert_eq!(address.bucket_path(), bucket);
            assert_eq!(address.object_path("a b"), object);
        }
    }
}
