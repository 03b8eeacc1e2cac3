//! Texts of the settings of S3 to values: pure functions, as in the `value` of all settings.

pub(crate) use wale_storage::Secret;
use wale_storage::{Addressing, S3Endpoint};

use super::super::value::{self, BadValue};

/// Encryption at rest with keys of the store, by Amazon's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sse {
    /// Keys of S3.
    S3,
    /// Keys of the key management service.
    Kms,
}

impl Sse {
    pub(crate) const ALL: [Self; 2] = [Self::S3, Self::Kms];

    /// Amazon's word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::S3 => "AES256",
            Self::Kms => "aws:kms",
        }
    }
}

/// A secret without the space around it.
#[expect(clippy::unnecessary_wraps, reason = "it is one parser among others")]
pub(crate) fn secret(text: &str) -> Result<Secret, BadValue> {
    Ok(Secret::new(text.trim()))
}

/// A word that can stand in an HTTP header.
pub(crate) fn header_word(text: &str) -> Result<String, BadValue> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err(BadValue::new(format!("\"{text}\" is not a word")).hint("write it without spaces"))
}

/// A region's name.
pub(crate) fn region(text: &str) -> Result<String, BadValue> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !text.is_empty() && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err(BadValue::new(format!("\"{text}\" is not a region"))
            .hint("write its name, as in eu-central-1"))
    }
}

/// WAL-E's `http[s]+{path,virtualhost,subdomain}://host[:port]`, or a plain URL; a path that follows is the gateway's
/// own. WAL-E refused a slash at the end; one is harmless.
pub(crate) fn endpoint(text: &str) -> Result<S3Endpoint, BadValue> {
    without_user(text)?;
    let bad = |problem: &str| {
        BadValue::new(format!("\"{text}\" {problem}")).hint(
            "write https+path://host:port, with path, virtualhost or subdomain, or a plain URL",
        )
    };
    let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("is not a URL"))?;
    let (protocol, style) = scheme.split_once('+').unwrap_or((scheme, "path"));
    let secure = match protocol.to_ascii_lowercase().as_str() {
        "https" => true,
        "http" => false,
        _ => return Err(bad("is neither http nor https")),
    };
    let addressing = match style.to_ascii_lowercase().as_str() {
        "path" => Addressing::Path,
        "subdomain" => Addressing::Subdomain,
        "virtualhost" => Addressing::BucketIsHost,
        _ => return Err(bad("has an unknown style")),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = path.trim_end_matches('/');
    let is_path = path
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte))
        && !path.split('/').any(|part| part == "." || part == "..");
    let authority = authority.to_ascii_lowercase();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority.as_str(), None),
    };
    let is_host = !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte));
    if !is_host || !is_path {
        return Err(
            BadValue::new("the endpoint is more than a host, a port and a plain path")
                .hint("write no user and no query; keys are settings of their own"),
        );
    }
    // The protocol's own port is not part of the Host header, and so not of a signature.
    let port = match port.map(value::port).transpose()? {
        Some(443) if secure => None,
        Some(80) if !secure => None,
        port => port,
    };
    let authority = port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    Ok(S3Endpoint {
        secure,
        authority,
        path: path.to_owned(),
        addressing,
    })
}

/// Where ECS serves the keys of tasks.
const TASK_SERVICE: &str = "http://169.254.170.2";

/// Where ECS gives keys, from the path that it sets.
pub(crate) fn task_url(text: &str) -> Result<String, BadValue> {
    if text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(format!("{TASK_SERVICE}{text}"));
    }
    Err(BadValue::new("it does not begin with a slash").hint("leave it as ECS has set it"))
}

/// Refuses a URL with a user and a password, which would stand before an `@`, and one that is read in two ways: some
/// take `\` for `/`. The value is not quoted.
fn without_user(text: &str) -> Result<(), BadValue> {
    if !text.contains(['@', '\\']) {
        return Ok(());
    }
    Err(
        BadValue::new("a URL with a user, or with one of the characters @ and \\, is not used")
            .hint("write no user and no password; keys are settings of their own"),
    )
}

/// Where a service is.
pub(crate) fn service_url(text: &str) -> Result<String, BadValue> {
    without_user(text)?;
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    match rest {
        Some(rest)
            if host(authority(rest)).is_some()
                && text.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            Ok(text.to_owned())
        }
        _ => Err(BadValue::new(format!("\"{text}\" is not a URL")).hint("write http://host:port")),
    }
}

/// Host and port of what follows the scheme of a URL.
fn authority(rest: &str) -> &str {
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// The host of `host[:port]`, an address of IPv6 without its brackets; none when it is not of that form.
pub(crate) fn host(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let is_port = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    (!host.is_empty() && is_port).then_some(host)
}

pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// A service on the host or its link, or one that speaks TLS: keys are not asked for in clear across a network.
pub(crate) fn nearby_url(text: &str) -> Result<String, BadValue> {
    let url = service_url(text)?;
    let Some(rest) = url.strip_prefix("http://") else {
        return Ok(url);
    };
    let host = host(authority(rest)).unwrap_or_default();
    let is_near = is_loopback(host)
        || host
            .parse()
            .is_ok_and(|address: std::net::IpAddr| match address {
                std::net::IpAddr::V4(address) => address.is_link_local(),
                std::net::IpAddr::V6(address) => {
                    address.is_unique_local() || address.is_unicast_link_local()
                }
            });
    if is_near {
        return Ok(url);
    }
    Err(
        BadValue::new(format!("\"{text}\" is neither nearby nor https"))
            .hint("use an address of the host or its link, or https"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        use Addressing::{BucketIsHost, Path, Subdomain};
        for (text, secure, authority, addressing) in [
            ("http+path://localhost:9000", false, "localhost:9000", Path),
            (
                "https+virtualhost://s3.example.org",
                true,
                "s3.example.org",
                BucketIsHost,
            ),
            (
                "https+subdomain://S3.example.org:443",
                true,
                "s3.example.org",
                Subdomain,
            ),
            ("http+path://h:80", false, "h", Path),
            ("https://h:80/", true, "h:80", Path),
            ("http://[::1]:9000", false, "[::1]:9000", Path),
            ("http://[::1]", false, "[::1]", Path),
        ] {
            let expected = S3Endpoint {
                secure,
                authority: authority.into(),
                path: String::new(),
                addressing,
            };
            assert_eq!(endpoint(text), Ok(expected), "{text}");
        }
        for (text, authority, path) in [
            (
                "https://H.example/storage/v1/s3",
                "h.example",
                "/storage/v1/s3",
            ),
            ("https+subdomain://h:9000/S3/", "h:9000", "/S3"),
        ] {
            let found = endpoint(text).expect("a path is taken");
            assert_eq!(
                (found.authority.as_str(), found.path.as_str()),
                (authority, path)
            );
        }
        for text in [
            "",
            "localhost:9000",
            "ftp://h",
            "http+dots://h",
            "http://",
            "http://h:0",
            "http://h:x",
            "http://h?x=y",
            "http://h/a?x=y",
            "http://h/a/../b",
            "http://h/a b",
            "http://h/a%20b",
        ] {
            assert!(endpoint(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_quoted() {
        for text in [
            "https://user:canary@h",
            "ftp://user:canary@h",
            "http+dots://user:canary@h",
            "user:canary@h",
            "http://127.0.0.1:80@evil/canary",
            "http://127.0.0.1\\@evil/canary",
            "http://localhost\\canary",
        ] {
            for refused in [
                endpoint(text).map(drop).unwrap_err(),
                service_url(text).map(drop).unwrap_err(),
                nearby_url(text).map(drop).unwrap_err(),
            ] {
                assert!(!format!("{refused:?}").contains("canary"), "{refused:?}");
            }
        }
    }

    #[test]
    fn keys_are_not_asked_for_in_clear_across_a_network() {
        for text in [
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
            "http://127.0.0.1:80/x",
            "http://localhost:80",
            "https://example.org/x",
        ] {
            assert!(nearby_url(text).is_ok(), "{text}");
        }
        for text in [
            "http://example.org/x",
            "http://10.0.0.1",
            "http:///x",
            "http://[::1].example.org/x",
            "http://localhost:80.example.org/x",
            "http://example.org?http://localhost/",
            "ftp://localhost",
            "",
        ] {
            assert!(nearby_url(text).is_err(), "{text}");
        }
    }
}
