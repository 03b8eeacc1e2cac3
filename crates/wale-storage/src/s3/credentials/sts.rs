//! Roles, from the security token service (AWS STS API, version 2011-06-15).

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue, Method};
use serde::Deserialize;

use super::source::{Credentials, GrantedKeys, WebIdentitySource};
use crate::Secret;
use crate::http::failure::Failure;
use crate::http::named_file::read_secret_text;
use crate::http::text::{fits_header, query};
use crate::http::transport::{Outgoing, Payload, Transport};
use crate::s3::sign::{Signer, ToSign, sha256_hex};
use crate::s3::{refusal, xml};

/// An answer is some 2 KiB long, most of it the token.
const BYTES_MAX: usize = 64 << 10;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Response {
    #[serde(rename = "AssumeRoleWithWebIdentityResult", alias = "AssumeRoleResult")]
    result: Assumed,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Assumed {
    credentials: RoleKeys,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleKeys {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expiration: DateTime<Utc>,
}

/// Errors of this service are one level deeper than those of S3.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorResponse {
    error: RoleError,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleError {
    code: String,
    #[serde(default)]
    message: String,
}

impl xml::AnswerBody for Response {
    const NAME: &'static str = "AssumeRoleResponse";
    const ROOTS: &'static [&'static str] =
        &["AssumeRoleWithWebIdentityResponse", "AssumeRoleResponse"];
}

impl xml::AnswerBody for ErrorResponse {
    const NAME: &'static str = "ErrorResponse";
    const ROOTS: &'static [&'static str] = &["ErrorResponse"];
}

/// A role for a token of somebody else's. The request needs no signature.
pub(super) async fn with_web_identity(
    source: &WebIdentitySource,
    transport: &Transport,
    region: &str,
) -> Result<GrantedKeys, Failure> {
    let token = read_secret_text(&source.token_file).await?;
    let form = query(&[
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", &source.role_arn),
        ("RoleSessionName", &source.session_name),
        ("WebIdentityToken", token.trim()),
    ]);
    let endpoint = endpoint(source.sts_endpoint.as_deref(), region);
    ask(transport, &endpoint, form, None)
        .await
        .map_err(|failure| failure.of_source(&told(&source.role_arn, &endpoint)))
}

/// A role for other keys.
pub(super) async fn with_keys(
    keys: &Credentials,
    role_arn: &str,
    session_name: &str,
    external_id: Option<&str>,
    sts_endpoint: Option<&str>,
    (transport, region): (&Transport, &str),
) -> Result<GrantedKeys, Failure> {
    let mut pairs = vec![
        ("Action", "AssumeRole"),
        ("Version", "2011-06-15"),
        ("RoleArn", role_arn),
        ("RoleSessionName", session_name),
    ];
    pairs.extend(external_id.map(|id| ("ExternalId", id)));
    let endpoint = endpoint(sts_endpoint, region);
    ask(transport, &endpoint, query(&pairs), Some((keys, region)))
        .await
        .map_err(|failure| failure.of_source(&told(role_arn, &endpoint)))
}

fn told(role_arn: &str, endpoint: &str) -> String {
    format!("role {role_arn} from {endpoint}")
}

fn endpoint(given: Option<&str>, region: &str) -> String {
    match given {
        Some(given) => given.trim_end_matches('/').to_owned(),
        None if region.starts_with("cn-") => format!("https://sts.{region}.amazonaws.com.cn"),
        None => format!("https://sts.{region}.amazonaws.com"),
    }
}

async fn ask(
    transport: &Transport,
    endpoint: &str,
    form: String,
    signature: Option<(&Credentials, &str)>,
) -> Result<GrantedKeys, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    if let Some((credentials, region)) = signature {
        let signer = Signer {
            credentials,
            region,
            service: "sts",
            now: Utc::now(),
        };
        let to_sign = ToSign {
            method: &Method::POST,
            authority: endpoint.split_once("://").map_or("", |(_, host)| host),
            path: "/",
            query: "",
            payload: &sha256_hex(form.as_bytes()),
        };
        signer.sign(&to_sign, &mut headers);
    }
    let outgoing = Outgoing {
        method: Method::POST,
        url: format!("{endpoint}/"),
        headers,
        payload: Payload::from(bytes::Bytes::from(form)),
        answer_limit: transport.timeouts().answer,
    };
    let mut answer = transport.send(outgoing).await?;
    let body = answer.read(BYTES_MAX).await?;
    if answer.status.is_success() {
        return granted(&body);
    }
    Err(Failure::Refused(match xml::read(&body) {
        Ok(ErrorResponse { error }) => {
            refusal::with_code(answer.status, &error.code, &error.message)
        }
        Err(_) => refusal::read(answer.status, &answer.headers, b""),
    }))
}

fn granted(body: &[u8]) -> Result<GrantedKeys, Failure> {
    let wrong = || Failure::Nonsense("the answer holds no keys".to_owned());
    let Response { result } = xml::read(body).map_err(|_| wrong())?;
    let keys = result.credentials;
    let texts = [
        &keys.access_key_id,
        &keys.secret_access_key,
        &keys.session_token,
    ];
    if !texts.into_iter().all(|text| fits_header(text)) {
        return Err(wrong());
    }
    Ok(GrantedKeys {
        credentials: Credentials {
            access_key_id: keys.access_key_id,
            secret_access_key: Secret::new(keys.secret_access_key),
            session_token: Some(Secret::new(keys.session_token)),
        },
        expires: Some(keys.expiration),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_both_actions() {
        for action in ["AssumeRole", "AssumeRoleWithWebIdentity"] {
            let text = format!(
                "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>\
                 <AssumedRoleUser><Arn>arn</Arn></AssumedRoleUser><Credentials><AccessKeyId>A</AccessKeyId>\
                 <SecretAccessKey>canary</SecretAccessKey><SessionToken>T</SessionToken>\
                 <Expiration>2026-11-23T10:00:00Z</Expiration></Credentials></{action}Result></{action}Response>"
            );
            let granted = granted(text.as_bytes()).expect("keys");
            assert_eq!(granted.credentials.access_key_id, "A");
            assert_eq!(granted.credentials.session_token, Some(Secret::new("T")));
        }
        assert!(granted(b"<AssumeRoleResponse/>").is_err());
    }

    #[test]
    fn regions() {
        assert_eq!(
            endpoint(None, "eu-west-1"),
            "https://sts.eu-west-1.amazonaws.com"
        );
        assert_eq!(
            endpoint(None, "cn-north-1"),
            "https://sts.cn-north-1.amazonaws.com.cn"
        );
        assert_eq!(endpoint(Some("http://h:1/"), "r"), "http://h:1");
    }
}
