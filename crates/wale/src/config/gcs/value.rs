//! Texts of the settings of Google Cloud Storage to values: pure functions, as in the `value` of all settings.

use wale_storage::{GcsEndpoint, S3Endpoint};

use super::super::s3::value::{self as s3, host, is_loopback};
use super::super::value::BadValue;

/// The tool whose spelling names have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GcsNames {
    /// They begin with a slash.
    WalE,
    /// They do not.
    WalG,
}

impl GcsNames {
    pub(crate) const ALL: [Self; 2] = [Self::WalE, Self::WalG];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WalE => "wal-e",
            Self::WalG => "wal-g",
        }
    }
}

/// A server, as a plain URL.
pub(crate) fn endpoint(text: &str) -> Result<GcsEndpoint, BadValue> {
    let scheme = text.split("://").next().unwrap_or_default();
    if scheme.contains('+') {
        return Err(
            BadValue::new("the endpoint is not a plain URL").hint("write https://host:port")
        );
    }
    let S3Endpoint {
        secure,
        authority,
        path,
        ..
    } = s3::endpoint(text).map_err(|bad| bad.hint("write a plain URL, https://host:port"))?;
    Ok(GcsEndpoint {
        secure,
        authority,
        path,
    })
}

/// An emulator, as Google's libraries take it: with or without `http://`.
pub(crate) fn emulator(text: &str) -> Result<GcsEndpoint, BadValue> {
    if text.contains("://") {
        return endpoint(text);
    }
    endpoint(&format!("http://{text}"))
}

/// A metadata server: on this host or its link, where a token is not seen by others.
pub(crate) fn metadata_host(text: &str) -> Result<String, BadValue> {
    let is_near = host(text).is_some_and(|host| {
        is_loopback(host)
            || host == "metadata.google.internal"
            || host
                .parse()
                .is_ok_and(|address: std::net::Ipv4Addr| address.is_link_local())
    });
    if is_near && text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains(['/', '@']) {
        return Ok(text.to_owned());
    }
    Err(
        BadValue::new(format!("\"{text}\" is not the host of a nearby service"))
            .hint("write metadata.google.internal, or an address of the host or its link"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        for (text, expected) in [
            (
                "https://storage-x.p.googleapis.com",
                Some((true, "storage-x.p.googleapis.com", "")),
            ),
            ("http://h:4443/", Some((false, "h:4443", ""))),
            ("h:4443", Some((false, "h:4443", ""))),
            ("https://u:canary@h", None),
            ("", None),
        ] {
            let found = emulator(text).ok();
            let found = found
                .as_ref()
                .map(|e| (e.secure, e.authority.as_str(), e.path.as_str()));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn a_token_is_not_asked_for_across_a_network() {
        for text in [
            "169.254.169.254",
            "metadata.google.internal",
            "localhost:8080",
            "127.0.0.1:1",
        ] {
            assert!(metadata_host(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "10.0.0.1",
            "example.org",
            "localhost@example.org",
            "http://localhost",
        ] {
            assert!(metadata_host(text).is_err(), "{text}");
        }
    }
}
