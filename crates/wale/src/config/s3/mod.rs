//! The settings of S3, read only when the archive is there.
//!
//! Names are WAL-E's, Amazon's own, or ours where neither has one; WAL-G's are aliases. Files of credentials are not
//! read here: their content may change while wale runs.

pub(super) mod value;

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use wale_storage::{
    Addressing, ContainerSource, ContainerToken, CredentialSource, Credentials, FileSource,
    ProfileSource, Proxies, RoleSource, S3Endpoint, Secret, ServerEncryption, UploadChecksum,
    WebIdentitySource,
};

use super::declared::{
    AWS_ACCESS_KEY_ID, AWS_CONFIG_FILE, AWS_CONTAINER_AUTHORIZATION_TOKEN,
    AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE, AWS_CONTAINER_CREDENTIALS_FULL_URI,
    AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, AWS_CREDENTIAL_EXPIRATION,
    AWS_EC2_METADATA_SERVICE_ENDPOINT, AWS_ENDPOINT_URL_STS, AWS_INSTANCE_PROFILE, AWS_PROFILE,
    AWS_REGION, AWS_ROLE_ARN, AWS_ROLE_SESSION_NAME, AWS_S3_FORCE_PATH_STYLE,
    AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_SHARED_CREDENTIALS_FILE,
    AWS_WEB_IDENTITY_TOKEN_FILE, WALE_S3_CA_FILE, WALE_S3_CHECKSUM, WALE_S3_ENDPOINT, WALE_S3_SSE,
    WALE_S3_SSE_C_KEY, WALE_S3_SSE_KMS_KEY_ID, WALE_S3_STORAGE_CLASS,
};
use super::group::Group;
use super::mistake::Mistake;
use super::proxies;
use super::reader::Reader;
use super::setting::Setting;
use value::{Sse, host, is_loopback};

/// Everything about S3 but the bucket.
#[derive(Debug, Clone)]
pub(crate) struct S3Settings {
    pub(crate) endpoint: Option<S3Endpoint>,
    pub(crate) region: String,
    pub(crate) credentials: CredentialSource,
    pub(crate) keys_expire: Option<DateTime<Utc>>,
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
    let has_endpoint = reader.set(&WALE_S3_ENDPOINT).is_some();
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
        keys_expire: keys_expire(reader),
        storage_class: reader.get(&WALE_S3_STORAGE_CLASS),
        encryption,
        checksum: reader.get(&WALE_S3_CHECKSUM),
        ca_file: reader.get(&WALE_S3_CA_FILE),
        proxies: proxies::read(reader),
    }
}

fn mistake(reader: &mut Reader, text: impl Into<String>, hint: &str) {
    let mistake = Mistake::new(Group::S3, text).hint(hint);
    reader.mistakes.push(mistake);
}

/// A secret that goes into a header.
fn header_secret(reader: &mut Reader, setting: &Setting<Option<Secret>>) -> Option<Secret> {
    let secret = reader.get(setting)?;
    if secret.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(secret);
    }
    let text = format!(
        "{}: the value holds a character that cannot stand in an HTTP header",
        setting.name()
    );
    mistake(
        reader,
        text,
        "copy it again, without spaces and line breaks",
    );
    None
}

fn endpoint(reader: &mut Reader) -> Option<S3Endpoint> {
    let endpoint = reader.get(&WALE_S3_ENDPOINT)?;
    let addressing = match reader.get(&AWS_S3_FORCE_PATH_STYLE) {
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

fn region(reader: &mut Reader, has_endpoint: bool) -> String {
    let is_set = reader.set(&AWS_REGION).is_some();
    let region = reader.get(&AWS_REGION);
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
    let kind = reader.get(&WALE_S3_SSE);
    let kms_key = reader.get(&WALE_S3_SSE_KMS_KEY_ID);
    let customer_key = reader.get(&WALE_S3_SSE_C_KEY);
    if customer_key.is_some() && (kind.is_some() || kms_key.is_some()) {
        mistake(
            reader,
            "WALE_S3_SSE_C_KEY: a key of your own and keys of the store are both set",
            "unset WALE_S3_SSE and WALE_S3_SSE_KMS_KEY_ID, or the key of your own",
        );
    }
    if kms_key.is_some() && kind == Some(Sse::S3) {
        mistake(
            reader,
            "WALE_S3_SSE_KMS_KEY_ID: the key is not used with AES256",
            "set WALE_S3_SSE=aws:kms, or unset the key",
        );
    }
    match (customer_key, kind, kms_key) {
        (Some(key), ..) => match reader.secret_file(&WALE_S3_SSE_C_KEY) {
            Some(file) => ServerEncryption::CustomerKeyFile { key, file },
            None => ServerEncryption::CustomerKey(key),
        },
        (None, Some(Sse::S3), _) => ServerEncryption::S3,
        (None, Some(Sse::Kms), key) => ServerEncryption::Kms(key),
        (None, None, Some(key)) => ServerEncryption::Kms(Some(key)),
        (None, None, None) => ServerEncryption::BucketDefault,
    }
}

/// The first source that is set, in Amazon's order; the instance's role only when it is asked for, as by WAL-E.
fn credentials(reader: &mut Reader) -> CredentialSource {
    let sts_endpoint = reader.get(&AWS_ENDPOINT_URL_STS);
    let keys = keys(reader);
    let role_arn = reader.get(&AWS_ROLE_ARN);
    let session_name = reader.get(&AWS_ROLE_SESSION_NAME);
    let token_file = reader.get(&AWS_WEB_IDENTITY_TOKEN_FILE);
    if reader.get(&AWS_INSTANCE_PROFILE) {
        return CredentialSource::Instance(reader.get(&AWS_EC2_METADATA_SERVICE_ENDPOINT));
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

/// When the keys end. It only warns: what is no time stops nothing.
fn keys_expire(reader: &mut Reader) -> Option<DateTime<Utc>> {
    let text = reader.get(&AWS_CREDENTIAL_EXPIRATION)?;
    let parsed = DateTime::parse_from_rfc3339(text.trim());
    parsed.ok().map(|end| end.to_utc())
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
        secret_access_key: reader.secret_file(&AWS_SECRET_ACCESS_KEY),
        session_token: reader.secret_file(&AWS_SESSION_TOKEN),
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
    let id = reader.get(&AWS_ACCESS_KEY_ID);
    let key = header_secret(reader, &AWS_SECRET_ACCESS_KEY);
    let token = header_secret(reader, &AWS_SESSION_TOKEN);
    let (id_name, key_name) = (AWS_ACCESS_KEY_ID.name(), AWS_SECRET_ACCESS_KEY.name());
    let id_set = reader.is_set(&AWS_ACCESS_KEY_ID);
    let key_set = reader.is_set(&AWS_SECRET_ACCESS_KEY);
    let one_of_two = match (id_set, key_set) {
        (true, false) => Some((key_name, id_name)),
        (false, true) => Some((id_name, key_name)),
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
    let name = reader.get(&AWS_PROFILE);
    let credentials_file = reader.get(&AWS_SHARED_CREDENTIALS_FILE);
    let config_file = reader.get(&AWS_CONFIG_FILE);
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

fn container(reader: &mut Reader) -> Option<CredentialSource> {
    let relative = reader.get(&AWS_CONTAINER_CREDENTIALS_RELATIVE_URI);
    let full = reader.get(&AWS_CONTAINER_CREDENTIALS_FULL_URI);
    let token_file = reader.get(&AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE);
    let url = relative.or(full)?;
    let token = match token_file {
        Some(path) => Some(ContainerToken::File(path)),
        None => reader
            .get(&AWS_CONTAINER_AUTHORIZATION_TOKEN)
            .map(ContainerToken::Text),
    };
    Some(CredentialSource::Container(ContainerSource { url, token }))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
