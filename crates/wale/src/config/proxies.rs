//! The proxies that lead to a store behind HTTP, and to the services that give credentials for it.

use wale_storage::{Proxies, Secret};

use super::declared::{HTTP_PROXY, HTTPS_PROXY, NO_PROXY};
use super::group::Group;
use super::mistake::Mistake;
use super::reader::Reader;
use super::s3::value::host;
use super::setting::Setting;
use super::value;

/// Reads them. What is wrong is kept as a mistake of the reader.
pub(super) fn read(reader: &mut Reader) -> Proxies {
    Proxies {
        http: proxy(reader, &HTTP_PROXY),
        https: proxy(reader, &HTTPS_PROXY),
        except: reader.get(&NO_PROXY),
    }
}

/// A proxy: `[scheme://][user:password@]host[:port]`, as curl takes it, written out. It may hold a password and is
/// never quoted.
fn proxy(reader: &mut Reader, setting: &Setting<Option<Secret>>) -> Option<Secret> {
    let text = reader.get(setting)?;
    if text.expose().is_empty() {
        return None;
    }
    let url = proxy_url(text.expose());
    if url.is_none() {
        let text = format!("{}: the value is not the URL of a proxy", setting.name());
        let mistake = Mistake::new(Group::Proxies, text).hint(
            "write http://host:port, or socks5h://host:port; user, colon, password and @ stand before the host",
        );
        reader.mistakes.push(mistake);
    }
    url.map(Secret::new)
}

/// A proxy's URL, written out; none when it is no such URL.
fn proxy_url(text: &str) -> Option<String> {
    const SCHEMES: [&str; 6] = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let scheme = scheme.to_ascii_lowercase();
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (user, place) = match rest.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, rest),
    };
    let port = match place.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => value::port(port).is_ok(),
        _ => true,
    };
    let is_host = host(place).is_some_and(|host| {
        host.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte))
    });
    let is_user = user.is_none_or(|user| {
        user.bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"/?#@\\".contains(&byte))
    });
    let is_good = SCHEMES.contains(&scheme.as_str()) && is_host && port && is_user;
    is_good.then(|| format!("{scheme}://{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_101_a_proxy_that_cannot_be_used_is_a_mistake() {
        for (text, expected) in [
            ("proxy.example.org:3128", "http://proxy.example.org:3128"),
            (
                "HTTP://user:pass@10.0.0.1:3128/",
                "http://user:pass@10.0.0.1:3128",
            ),
            ("socks5h://[::1]:1080", "socks5h://[::1]:1080"),
            ("https://proxy", "https://proxy"),
        ] {
            assert_eq!(proxy_url(text).as_deref(), Some(expected), "{text}");
        }
        for text in [
            "http://",
            "ftp://proxy:21",
            "proxy:port",
            "http://proxy:0",
            "http://proxy:70000",
            "http://pro xy:80",
            "http://proxy:80/path",
            "\"http://proxy:80\"",
            "http://can/ary:x@proxy",
        ] {
            assert_eq!(proxy_url(text), None, "{text}");
            let told = mistakes(text);
            assert!(told.contains("HTTPS_PROXY: the value is not"), "{told}");
            assert!(!told.contains("ary"), "{told}");
        }
        assert_eq!(mistakes(""), "");
    }

    /// What is said of this proxy for an archive in S3.
    fn mistakes(proxy: &str) -> String {
        let set = [
            ("WALE_S3_PREFIX", "s3://data/p"),
            ("WALE_S3_ENDPOINT", "http://h"),
            ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMIexample"),
            ("HTTPS_PROXY", proxy),
        ];
        let loaded = crate::config::Loaded::for_test(&set, "");
        match loaded.require(&[Group::Archive]) {
            Ok(_) => String::new(),
            Err(error) => format!("{error}\n{:?}\n{:?}", error.detail, error.hint),
        }
    }
}
