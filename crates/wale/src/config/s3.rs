//! The settings of S3, read only when the archive is there.
//!
//! Names are WAL-E's, Amazon's own, or ours where neither has one; WAL-G's are aliases. Files of credentials are not
//! read here: their content may change while wale runs.

use std::path::PathBuf;

use wale_storage::{
    Addressing, ContainerSource, ContainerToken, CredentialSource, Credentials, FileSource,
    ProfileSource, Proxies, RoleSource, S3Endpoint, Secret, ServerEncryption, UploadChecksum,
    WebIdentitySource,
};

use super::declared::{Group, Shape, setting};
use super::mistake::Mistake;
use super::reader::Reader;
use super::value::{self, BadValue};

/// Everything about S3 but the bucket.
#[derive(Debug, Clone)]
pub(crate) struct S3Settings {
    pub(crate) endpoint: Option<S3Endpoint>,
    pub(crate) region: String,
    pub(crate) credentials: CredentialSource,
    pub(crate) storage_class: Option<String>,
    pub(crate) encryption: ServerEncryption,
    pub(crate) checksum: UploadChecksum,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) proxies: Proxies,
}

/// The region that a server which is not Amazon's is told when nobody says another: they expect it or ignore it.
const REGION_OF_OTHERS: &str = "us-east-1";

/// Reads them. What is wrong is kept as a mistake of the reader, and something harmless stands in its place.
pub(super) fn read(reader: &mut Reader, bucket: &str) -> S3Settings {
    let endpoint = endpoint(reader);
    if let Some(endpoint) = &endpoint {
        check_path(reader, endpoint, bucket);
    }
    // One that is set wrongly is one mistake, and not a missing region besides.
    let has_endpoint = reader.set("WALE_S3_ENDPOINT").is_some();
    let encryption = encryption(reader);
    if matches!(
        encryption,
        ServerEncryption::CustomerKey(_) | ServerEncryption::CustomerKeyFile { .. }
    ) && endpoint.as_ref().is_some_and(|endpoint| {
        !endpoint.secure && host(&endpoint.authority).is_none_or(|host| !is_loopback(host))
    }) {
        mistake(
            reader,
            "WALE_S3_SSE_C_KEY: the key would go over the network in clear",
            "use an endpoint that begins with https, or let the store keep the key (WALE_S3_SSE)",
        );
    }
    S3Settings {
        region: region(reader, has_endpoint),
        endpoint,
        credentials: credentials(reader),
        storage_class: reader.parse("WALE_S3_STORAGE_CLASS", header_word),
        encryption,
        checksum: checksum(reader),
        ca_file: reader.optional_path("WALE_S3_CA_FILE"),
        proxies: Proxies {
            http: proxy(reader, "HTTP_PROXY"),
            https: proxy(reader, "HTTPS_PROXY"),
            except: reader.optional_text("NO_PROXY"),
        },
    }
}

fn mistake(reader: &mut Reader, text: impl Into<String>, hint: &str) {
    let mistake = Mistake::new(Group::S3, text).hint(hint);
    reader.mistakes.push(mistake);
}

fn secret(reader: &mut Reader, name: &str) -> Option<Secret> {
    let text = reader.secret(name)?;
    Some(Secret::new(text.expose().trim()))
}

/// A secret that goes into a header.
fn header_secret(reader: &mut Reader, name: &str) -> Option<Secret> {
    let secret = secret(reader, name)?;
    if secret.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(secret);
    }
    let text = format!("{name}: the value holds a character that cannot stand in an HTTP header");
    mistake(
        reader,
        text,
        "copy it again, without spaces and line breaks",
    );
    None
}

fn header_word(text: &str) -> Result<String, BadValue> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err(BadValue::new(format!("\"{text}\" is not a word")).hint("write it without spaces"))
}

fn endpoint(reader: &mut Reader) -> Option<S3Endpoint> {
    let endpoint = reader.parse("WALE_S3_ENDPOINT", parse_endpoint)?;
    let addressing = match reader.parse("AWS_S3_FORCE_PATH_STYLE", value::switch) {
        Some(false) if endpoint.addressing == Addressing::Path => Addressing::Subdomain,
        Some(true) => Addressing::Path,
        _ => endpoint.addressing,
    };
    check_host(reader, &endpoint, addressing);
    Some(S3Endpoint {
        addressing,
        ..endpoint
    })
}

/// Refuses an address that the bucket's name would stand before: `bucket.127.0.0.1` is no host.
fn check_host(reader: &mut Reader, endpoint: &S3Endpoint, addressing: Addressing) {
    let authority = &endpoint.authority;
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => authority,
    };
    let is_address = host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok();
    if addressing == Addressing::Subdomain && is_address {
        let protocol = if endpoint.secure { "https" } else { "http" };
        mistake(
            reader,
            format!(
                "WALE_S3_ENDPOINT: a subdomain needs a host with a name, and \"{host}\" is an address"
            ),
            &format!("write {protocol}+path://{authority}{}", endpoint.path),
        );
    }
}

/// Refuses a path that is the bucket: every name would have it twice.
fn check_path(reader: &mut Reader, endpoint: &S3Endpoint, bucket: &str) {
    let last = endpoint.path.rsplit('/').next().unwrap_or_default();
    if !last.is_empty() && last == bucket && endpoint.addressing == Addressing::Path {
        mistake(
            reader,
            format!("WALE_S3_ENDPOINT: its path ends with the bucket \"{bucket}\""),
            "leave the bucket out of the endpoint; it stands in WALE_S3_PREFIX",
        );
    }
}

/// A proxy: `[scheme://][user:password@]host[:port]`, as curl takes it, written out. It may hold a password and is
/// never quoted.
fn proxy(reader: &mut Reader, name: &str) -> Option<Secret> {
    let text = secret(reader, name)?;
    if text.expose().is_empty() {
        return None;
    }
    let url = proxy_url(text.expose());
    if url.is_none() {
        mistake(
            reader,
            format!("{name}: the value is not the URL of a proxy"),
            "write http://host:port, or socks5h://host:port; user, colon, password and @ stand before the host",
        );
    }
    url.map(Secret::new)
}

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

/// WAL-E's `http[s]+{path,virtualhost,subdomain}://host[:port]`, or a plain URL; a path that follows is the gateway's
/// own. WAL-E refused a slash at the end; one is harmless.
fn parse_endpoint(text: &str) -> Result<S3Endpoint, BadValue> {
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

fn region(reader: &mut Reader, has_endpoint: bool) -> String {
    let parse = |text: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !text.is_empty() && text.bytes().all(fits) {
            Ok(text.to_owned())
        } else {
            Err(BadValue::new(format!("\"{text}\" is not a region"))
                .hint("write its name, as in eu-central-1"))
        }
    };
    let is_set = reader.set("AWS_REGION").is_some();
    let region = reader.parse("AWS_REGION", parse);
    if !is_set && !has_endpoint {
        mistake(
            reader,
            "AWS_REGION: the region of the bucket is not set",
            "set AWS_REGION, as in AWS_REGION=eu-central-1, or WALE_S3_ENDPOINT for a server that is not Amazon's",
        );
    }
    region.unwrap_or_else(|| REGION_OF_OTHERS.to_owned())
}

fn encryption(reader: &mut Reader) -> ServerEncryption {
    let Shape::Choice(words) = setting("WALE_S3_SSE").shape else {
        panic!("WALE_S3_SSE is declared as a choice");
    };
    let kind = reader.parse("WALE_S3_SSE", |text| value::choice(text, words));
    let kms_key = reader.parse("WALE_S3_SSE_KMS_KEY_ID", header_word);
    let customer_key = secret(reader, "WALE_S3_SSE_C_KEY");
    if customer_key.is_some() && (kind.is_some() || kms_key.is_some()) {
        mistake(
            reader,
            "WALE_S3_SSE_C_KEY: a key of your own and keys of the store are both set",
            "unset WALE_S3_SSE and WALE_S3_SSE_KMS_KEY_ID, or the key of your own",
        );
    }
    if kms_key.is_some() && kind == Some("AES256") {
        mistake(
            reader,
            "WALE_S3_SSE_KMS_KEY_ID: the key is not used with AES256",
            "set WALE_S3_SSE=aws:kms, or unset the key",
        );
    }
    match (customer_key, kind, kms_key) {
        (Some(key), ..) => match reader.secret_file("WALE_S3_SSE_C_KEY") {
            Some(file) => ServerEncryption::CustomerKeyFile { key, file },
            None => ServerEncryption::CustomerKey(key),
        },
        (None, Some("AES256"), _) => ServerEncryption::S3,
        (None, Some(_), key) => ServerEncryption::Kms(key),
        (None, None, Some(key)) => ServerEncryption::Kms(Some(key)),
        (None, None, None) => ServerEncryption::BucketDefault,
    }
}

fn checksum(reader: &mut Reader) -> UploadChecksum {
    match reader.word("WALE_S3_CHECKSUM") {
        "sha256" => UploadChecksum::Sha256,
        "md5" => UploadChecksum::Md5,
        "none" => UploadChecksum::None,
        _ => UploadChecksum::Crc32c,
    }
}

/// The first source that is set, in Amazon's order; the instance's role only when it is asked for, as by WAL-E.
fn credentials(reader: &mut Reader) -> CredentialSource {
    let sts_endpoint = reader.parse("AWS_ENDPOINT_URL_STS", service_url);
    let keys = keys(reader);
    let role_arn = reader.parse("AWS_ROLE_ARN", header_word);
    let session_name = reader.text("AWS_ROLE_SESSION_NAME");
    let token_file = reader.optional_path("AWS_WEB_IDENTITY_TOKEN_FILE");
    if reader.switch("AWS_INSTANCE_PROFILE") {
        let endpoint = reader.parse("AWS_EC2_METADATA_SERVICE_ENDPOINT", service_url);
        return CredentialSource::Instance(endpoint.unwrap_or_default());
    }
    match (keys, role_arn, token_file) {
        (Some(keys), Some(role_arn), None) => CredentialSource::Role(RoleSource {
            keys: in_files(reader, keys),
            role_arn,
            session_name,
            sts_endpoint,
        }),
        (Some(keys), ..) => kept(reader, keys),
        (None, Some(role_arn), Some(token_file)) => {
            CredentialSource::WebIdentity(WebIdentitySource {
                token_file,
                role_arn,
                session_name,
                sts_endpoint,
            })
        }
        (None, None, Some(_)) => {
            let text = "AWS_WEB_IDENTITY_TOKEN_FILE: the role is not set";
            mistake(reader, text, "set AWS_ROLE_ARN");
            nothing()
        }
        (None, ..) => profile(reader, sts_endpoint)
            .or_else(|| container(reader))
            .unwrap_or_else(|| {
                mistake(
                    reader,
                    "no credentials for S3 are set",
                    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or AWS_INSTANCE_PROFILE=on",
                );
                nothing()
            }),
    }
}

/// The keys as they are, or from the files that hold them: what is rotated there is used without a restart.
fn kept(reader: &mut Reader, keys: Credentials) -> CredentialSource {
    let source = in_files(reader, keys);
    if source.secret_access_key.is_none() && source.session_token.is_none() {
        return CredentialSource::Static(source.keys);
    }
    CredentialSource::Files(source)
}

fn in_files(reader: &mut Reader, keys: Credentials) -> FileSource {
    FileSource {
        keys,
        secret_access_key: reader.secret_file("AWS_SECRET_ACCESS_KEY"),
        session_token: reader.secret_file("AWS_SESSION_TOKEN"),
    }
}

/// Stands where a mistake was noted.
fn nothing() -> CredentialSource {
    CredentialSource::Static(Credentials {
        access_key_id: String::new(),
        secret_access_key: Secret::new(""),
        session_token: None,
    })
}

fn keys(reader: &mut Reader) -> Option<Credentials> {
    let id = reader.parse("AWS_ACCESS_KEY_ID", header_word);
    let key = header_secret(reader, "AWS_SECRET_ACCESS_KEY");
    let token = header_secret(reader, "AWS_SESSION_TOKEN");
    let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    let [id_set, key_set] = names.map(|name| reader.is_set(name));
    let one_of_two = match (id_set, key_set) {
        (true, false) => Some((names[1], names[0])),
        (false, true) => Some((names[0], names[1])),
        _ => None,
    };
    if let Some((missing, given)) = one_of_two {
        let text = format!("{missing}: it is not set, and {given} is");
        mistake(reader, text, "set both, or neither");
    }
    (id_set || key_set).then(|| Credentials {
        access_key_id: id.unwrap_or_default(),
        secret_access_key: key.unwrap_or_else(|| Secret::new("")),
        session_token: token,
    })
}

/// A profile, if one is named, or if Amazon's files are where they usually are.
fn profile(reader: &mut Reader, sts_endpoint: Option<String>) -> Option<CredentialSource> {
    let name = reader.optional_text("AWS_PROFILE");
    let credentials_file = reader.optional_path("AWS_SHARED_CREDENTIALS_FILE");
    let config_file = reader.optional_path("AWS_CONFIG_FILE");
    let folder = reader
        .home()
        .map_or_else(|| PathBuf::from("/root/.aws"), |home| home.join(".aws"));
    let usual = folder.join("credentials");
    let is_wanted =
        name.is_some() || credentials_file.is_some() || config_file.is_some() || usual.exists();
    is_wanted.then(|| {
        CredentialSource::Profile(ProfileSource {
            name: name.unwrap_or_else(|| "default".to_owned()),
            credentials_file: credentials_file.unwrap_or(usual),
            config_file: config_file.unwrap_or_else(|| folder.join("config")),
            sts_endpoint,
        })
    })
}

/// Where ECS serves the keys of tasks.
const TASK_SERVICE: &str = "http://169.254.170.2";

fn container(reader: &mut Reader) -> Option<CredentialSource> {
    let relative = reader.parse("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", |text| {
        if text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(format!("{TASK_SERVICE}{text}"));
        }
        Err(BadValue::new("it does not begin with a slash").hint("leave it as ECS has set it"))
    });
    let full = reader.parse("AWS_CONTAINER_CREDENTIALS_FULL_URI", nearby_url);
    let token_file = reader.optional_path("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    let url = relative.or(full)?;
    let token = match token_file {
        Some(path) => Some(ContainerToken::File(path)),
        None => secret(reader, "AWS_CONTAINER_AUTHORIZATION_TOKEN").map(ContainerToken::Text),
    };
    Some(CredentialSource::Container(ContainerSource { url, token }))
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

fn service_url(text: &str) -> Result<String, BadValue> {
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
fn host(authority: &str) -> Option<&str> {
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

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// A service on the host or its link, or one that speaks TLS: keys are not asked for in clear across a network.
fn nearby_url(text: &str) -> Result<String, BadValue> {
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
            assert_eq!(parse_endpoint(text), Ok(expected), "{text}");
        }
        for (text, authority, path) in [
            (
                "https://H.example/storage/v1/s3",
                "h.example",
                "/storage/v1/s3",
            ),
            ("https+subdomain://h:9000/S3/", "h:9000", "/S3"),
        ] {
            let endpoint = parse_endpoint(text).expect("a path is taken");
            assert_eq!(
                (endpoint.authority.as_str(), endpoint.path.as_str()),
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
            assert!(parse_endpoint(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_subdomain_of_an_address_is_a_mistake_of_the_setting() {
        for (endpoint, path_style, advice) in [
            (
                "http+subdomain://127.0.0.1:9200",
                None,
                Some("write http+path://127.0.0.1:9200"),
            ),
            (
                "https+subdomain://[::1]:9000/s3",
                None,
                Some("write https+path://[::1]:9000/s3"),
            ),
            (
                "http://10.0.0.1",
                Some("off"),
                Some("write http+path://10.0.0.1"),
            ),
            ("http+subdomain://127.0.0.1:9200", Some("on"), None),
            ("http+subdomain://minio:9000", None, None),
            ("http+path://127.0.0.1:9200", None, None),
            ("http+virtualhost://127.0.0.1:9200", None, None),
        ] {
            let style = path_style.map(|style| ("AWS_S3_FORCE_PATH_STYLE", style));
            let set: Vec<_> = style
                .into_iter()
                .chain([("WALE_S3_ENDPOINT", endpoint)])
                .collect();
            let text = mistakes(&set);
            match advice {
                Some(advice) => assert!(text.contains(advice), "{endpoint}: {text}"),
                None => assert!(!text.contains("subdomain"), "{endpoint}: {text}"),
            }
        }
    }

    fn mistakes(environment: &[(&str, &str)]) -> String {
        let keys = [
            ("WALE_S3_PREFIX", "s3://data/p"),
            ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMIexample"),
        ];
        let loaded = crate::config::Loaded::for_test(&[&keys, environment].concat(), "");
        match loaded.require(&[Group::Archive, Group::S3]) {
            Ok(_) => String::new(),
            Err(error) => format!("{error}\n{:?}\n{:?}", error.detail, error.hint),
        }
    }

    #[test]
    fn fault_98_an_endpoint_is_one_mistake_with_a_readable_hint() {
        let text = mistakes(&[("WALE_S3_ENDPOINT", "minio:9000")]);
        assert!(text.contains("host:port"), "{text}");
        assert!(!text.contains("AWS_REGION"), "{text}");
        for endpoint in ["http://h/data", "http://h/gateway/data/"] {
            let text = mistakes(&[("WALE_S3_ENDPOINT", endpoint)]);
            assert!(text.contains("ends with the bucket"), "{text}");
        }
        let text = mistakes(&[("WALE_S3_ENDPOINT", "http://h/gateway")]);
        assert_eq!(text, "");
    }

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
            let endpoint = ("WALE_S3_ENDPOINT", "http://h");
            let told = mistakes(&[endpoint, ("HTTPS_PROXY", text)]);
            assert!(told.contains("HTTPS_PROXY: the value is not"), "{told}");
            assert!(!told.contains("ary"), "{told}");
        }
        assert_eq!(
            mistakes(&[("WALE_S3_ENDPOINT", "http://h"), ("HTTPS_PROXY", "")]),
            ""
        );
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
                parse_endpoint(text).map(drop).unwrap_err(),
                service_url(text).map(drop).unwrap_err(),
                nearby_url(text).map(drop).unwrap_err(),
            ] {
                assert!(!format!("{refused:?}").contains("canary"), "{refused:?}");
            }
        }
    }

    #[test]
    fn a_key_of_ones_own_does_not_go_over_a_network_in_clear() {
        for (endpoint, is_refused) in [
            ("http://store.example.org:9000", true),
            ("http://10.0.0.1", true),
            ("http+subdomain://localhost.example.org", true),
            ("https://store.example.org", false),
            ("http://127.0.0.1:9000", false),
            ("http://[::1]:9000", false),
            ("http://localhost", false),
        ] {
            let environment = [
                ("WALE_S3_PREFIX", "s3://b/p"),
                ("WALE_S3_ENDPOINT", endpoint),
                ("AWS_ACCESS_KEY_ID", "a"),
                ("AWS_SECRET_ACCESS_KEY", "s"),
                (
                    "WALE_S3_SSE_C_KEY",
                    "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
                ),
            ];
            let loaded = crate::config::Loaded::for_test(&environment, "");
            let result = loaded.require(&[Group::Archive]);
            assert_eq!(result.is_err(), is_refused, "{endpoint}");
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
