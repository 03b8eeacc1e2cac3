//! Texts of the settings of Azure to values: pure functions, as in the `value` of all settings.

use wale_storage::{AzureEndpoint, S3Endpoint, Secret};

use super::super::s3::value as web;
use super::super::value::BadValue;

/// A cloud of Microsoft's, by its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cloud {
    Public,
    UsGovernment,
    China,
    German,
}

impl Cloud {
    pub(crate) const ALL: [Self; 4] = [Self::Public, Self::UsGovernment, Self::China, Self::German];

    /// Microsoft's word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Public => "AzurePublicCloud",
            Self::UsGovernment => "AzureUSGovernmentCloud",
            Self::China => "AzureChinaCloud",
            Self::German => "AzureGermanCloud",
        }
    }

    /// The domain below which storage accounts are.
    pub(super) fn domain(self) -> &'static str {
        match self {
            Self::Public => "core.windows.net",
            Self::UsGovernment => "core.usgovcloudapi.net",
            Self::China => "core.chinacloudapi.cn",
            Self::German => "core.cloudapi.de",
        }
    }

    /// Where tokens are given.
    pub(super) fn authority(self) -> &'static str {
        match self {
            Self::Public => "https://login.microsoftonline.com",
            Self::UsGovernment => "https://login.microsoftonline.us",
            Self::China => "https://login.chinacloudapi.cn",
            Self::German => "https://login.microsoftonline.de",
        }
    }
}

/// The name of a storage account.
pub(crate) fn account(text: &str) -> Result<String, BadValue> {
    // A hyphen is in the names of secondary endpoints (`account-secondary`).
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !text.is_empty() && text.bytes().all(fits) {
        return Ok(text.to_owned());
    }
    Err(
        BadValue::new(format!("\"{text}\" is not the name of a storage account"))
            .hint("write its name alone: small letters and digits, no URL"),
    )
}

/// The key of a storage account. It is not quoted.
pub(crate) fn access_key(text: &str) -> Result<Secret, BadValue> {
    let text = text.trim();
    let is_base64 = text.len().is_multiple_of(4)
        && text
            .trim_end_matches('=')
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte));
    if !text.is_empty() && is_base64 {
        return Ok(Secret::new(text));
    }
    Err(
        BadValue::new("the value is not the key of a storage account, which is base64").hint(
            "copy it again from the account's access keys: the key, not the connection string",
        ),
    )
}

/// A shared access signature. It is not quoted.
pub(crate) fn shared_access(text: &str) -> Result<Secret, BadValue> {
    let text = text.trim();
    let query = text.trim_start_matches('?');
    let is_query = query.bytes().all(|byte| byte.is_ascii_graphic())
        && query.split('&').any(|pair| pair.starts_with("sig="));
    if is_query {
        return Ok(Secret::new(text));
    }
    Err(BadValue::new("the value is not a shared access signature")
        .hint("copy the query again, from sv= to sig=…, without the URL before it"))
}

/// A domain, as `core.windows.net`.
pub(crate) fn domain(text: &str) -> Result<String, BadValue> {
    let domain = text.trim_start_matches('.');
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    if !domain.is_empty() && domain.bytes().all(fits) {
        return Ok(domain.to_ascii_lowercase());
    }
    Err(BadValue::new(format!("\"{text}\" is not a domain")).hint("write it as core.windows.net"))
}

/// A name in Entra: an identifier, or a domain of a tenant.
pub(crate) fn identifier(text: &str) -> Result<String, BadValue> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if !text.is_empty() && text.bytes().all(fits) {
        return Ok(text.to_owned());
    }
    Err(BadValue::new(format!("\"{text}\" is not an identifier"))
        .hint("write it as 00000000-0000-0000-0000-000000000000"))
}

/// A server that is not at the account's usual address.
pub(crate) fn endpoint(text: &str) -> Result<AzureEndpoint, BadValue> {
    const FORM: &str = "write http[s]://host:port, and after it the account where the server wants it there, as an \
                        emulator does; never the container";
    let has_style = text
        .split_once("://")
        .is_some_and(|(scheme, _)| scheme.contains('+'));
    if has_style {
        return Err(BadValue::new(format!("\"{text}\" is neither http nor https")).hint(FORM));
    }
    let S3Endpoint {
        secure,
        authority,
        path,
        ..
    } = web::endpoint(text).map_err(|bad| bad.hint(FORM))?;
    Ok(AzureEndpoint {
        secure,
        authority,
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (text, secure, authority, path) in [
            (
                "http://127.0.0.1:10000/devstoreaccount1",
                false,
                "127.0.0.1:10000",
                "/devstoreaccount1",
            ),
            (
                "https://Acc.privatelink.blob.core.windows.net/",
                true,
                "acc.privatelink.blob.core.windows.net",
                "",
            ),
        ] {
            let expected = AzureEndpoint {
                secure,
                authority: authority.into(),
                path: path.into(),
            };
            assert_eq!(endpoint(text), Ok(expected), "{text}");
        }
        for text in ["", "h", "http+path://h", "http://u:canary@h", "ftp://h"] {
            let refused = endpoint(text).expect_err(text);
            assert!(
                refused
                    .hint
                    .as_deref()
                    .is_some_and(|hint| hint.contains("never the container"))
            );
            assert!(!format!("{refused:?}").contains("canary"));
        }
    }

    #[test]
    fn what_is_wrong_with_a_secret_is_told_without_it() {
        assert!(access_key("Zm9v\n").is_ok());
        assert!(shared_access("?sv=1&sig=a%2Bb").is_ok());
        for text in [
            "",
            "can ary",
            "DefaultEndpointsProtocol=https;AccountKey=canary",
        ] {
            let refused = access_key(text).expect_err("no key");
            assert!(!format!("{refused:?}").contains("ary"));
        }
        for text in ["", "canary", "https://a/c?sig=can ary"] {
            let refused = shared_access(text).expect_err("no signature");
            assert!(!format!("{refused:?}").contains("ary"));
        }
    }

    #[test]
    fn names() {
        assert_eq!(account("wale0"), Ok("wale0".to_owned()));
        for text in ["", "Wale", "https://wale", "a.b"] {
            assert!(account(text).is_err(), "{text}");
        }
        assert_eq!(
            domain(".core.Windows.net"),
            Ok("core.windows.net".to_owned())
        );
        assert!(domain("https://core").is_err());
        assert!(identifier("tenant.onmicrosoft.com").is_ok());
        assert!(identifier("a/b").is_err());
    }
}
