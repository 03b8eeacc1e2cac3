//! Requests to services that give tokens, and their answers (RFC 6749, 5).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method};
use serde::Deserialize;
use url::{Host, Url};

use super::source::{AccessToken, GrantedToken, Services};
use crate::ServerReply;
use crate::http::failure::{Failure, Refusal};
use crate::http::text::{fits_header, one_line, query};
use crate::http::transport::{Answer, Outgoing, Payload, Transport};

/// An answer is some 2 KiB long, most of it the token.
const BYTES_MAX: usize = 64 << 10;

/// What a token is for: reading and writing objects.
pub(super) const STORAGE_SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
/// What a token is for that another is asked for with.
pub(super) const PLATFORM_SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    /// Seconds.
    expires_in: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenError {
    error: serde_json::Value,
    error_description: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImpersonationAnswer {
    access_token: String,
    expire_time: DateTime<Utc>,
}

/// Asks with a form, as OAuth has it. `client` are an identifier and its secret.
pub(super) async fn with_form(
    services: &Services,
    url: &str,
    form: &[(&str, &str)],
    client: Option<(&str, &str)>,
) -> Result<GrantedToken, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    if let Some((name, secret)) = client {
        let pair = BASE64_STANDARD.encode(format!("{name}:{secret}"));
        headers.insert(AUTHORIZATION, secret_header(&format!("Basic {pair}"))?);
    }
    let body = Payload::from(Bytes::from(query(form)));
    let mut answer = ask(services, Method::POST, url, headers, body).await?;
    token(&answer.read(BYTES_MAX).await?)
}

/// Asks for the token of an account that this one may stand in for (IAM Credentials API, `generateAccessToken`).
pub(super) async fn impersonated(
    services: &Services,
    url: &str,
    delegates: &[String],
    own: &AccessToken,
) -> Result<GrantedToken, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let bearer = format!("Bearer {}", own.expose());
    headers.insert(AUTHORIZATION, secret_header(&bearer)?);
    let body = serde_json::json!({"scope": [STORAGE_SCOPE], "delegates": delegates});
    let body = Payload::from(Bytes::from(body.to_string()));
    let mut answer = ask(services, Method::POST, url, headers, body).await?;
    let answer = answer.read(BYTES_MAX).await?;
    let wrong = || Failure::Nonsense("the answer holds no token".to_owned());
    let answer: ImpersonationAnswer = serde_json::from_slice(&answer).map_err(|_| wrong())?;
    if !fits_header(&answer.access_token) {
        return Err(wrong());
    }
    Ok(GrantedToken {
        credentials: AccessToken::new(&answer.access_token),
        expires: Some(answer.expire_time),
    })
}

/// Asks for a text that is shown to another service.
pub(super) async fn text(
    services: &Services,
    url: &str,
    headers: impl Iterator<Item = (&str, &str)>,
) -> Result<String, Failure> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::try_from(name)
            .map_err(|_| Failure::NoCredentials("a header has no name".to_owned()))?;
        map.insert(name, secret_header(value)?);
    }
    let mut answer = ask(services, Method::GET, url, map, Payload::default()).await?;
    let body = answer.read(BYTES_MAX).await?;
    String::from_utf8(body.to_vec())
        .map_err(|_| Failure::Nonsense("the answer is no text".to_owned()))
}

/// A token from an answer, whose text is not quoted.
pub(super) fn token(body: &[u8]) -> Result<GrantedToken, Failure> {
    let wrong = || Failure::Nonsense("the answer holds no token".to_owned());
    let answer: TokenAnswer = serde_json::from_slice(body).map_err(|_| wrong())?;
    // Google's tokens of the metadata server may end with dots, which are part of them.
    if !fits_header(&answer.access_token) {
        return Err(wrong());
    }
    let left = answer.expires_in.and_then(chrono::Duration::try_seconds);
    Ok(GrantedToken {
        credentials: AccessToken::new(&answer.access_token),
        expires: left.and_then(|left| Utc::now().checked_add_signed(left)),
    })
}

/// Sends a request whose answer is a success.
pub(super) async fn send(transport: &Transport, outgoing: Outgoing) -> Result<Answer, Failure> {
    let mut answer = transport.send(outgoing).await?;
    if answer.status.is_success() {
        return Ok(answer);
    }
    let body = answer.read(BYTES_MAX).await.unwrap_or_default();
    let TokenError {
        error,
        error_description,
    } = serde_json::from_slice(&body).unwrap_or_default();
    // OAuth's code is a text; the IAM service has an object with a message.
    let code = error.as_str().map(one_line).unwrap_or_default();
    let message = match error.get("message").and_then(serde_json::Value::as_str) {
        Some(message) => one_line(message),
        None => one_line(&error_description),
    };
    let mut refusal = Refusal::of_status(answer.status);
    refusal.reply = ServerReply {
        code,
        message,
        ..refusal.reply
    };
    Err(Failure::Refused(refusal))
}

async fn ask(
    services: &Services,
    method: Method,
    url: &str,
    headers: HeaderMap,
    payload: Payload,
) -> Result<Answer, Failure> {
    let transport = match reach(url) {
        Some(Reach::Far) => &services.far,
        Some(Reach::Near) => &services.near,
        None => {
            let text = "its URL is neither https nor on this host or its link: secrets are not sent in clear across a \
                        network";
            return Err(Failure::NoCredentials(text.to_owned()));
        }
    };
    let outgoing = Outgoing {
        method,
        url: url.to_owned(),
        headers,
        answer_limit: transport.timeouts().answer,
        payload,
    };
    send(transport, outgoing).await
}

/// Where a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Across a network, by TLS.
    Far,
    /// On this host or its link.
    Near,
}

/// Where the service with this URL is; none where a secret must not be sent.
fn reach(url: &str) -> Option<Reach> {
    let url = Url::parse(url).ok()?;
    if !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    let is_near = match url.host()? {
        Host::Domain(name) => ["localhost", "metadata.google.internal"].contains(&name),
        Host::Ipv4(address) => address.is_loopback() || address.is_link_local(),
        Host::Ipv6(address) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
    };
    match (url.scheme(), is_near) {
        ("http", true) => Some(Reach::Near),
        ("https", _) => Some(Reach::Far),
        _ => None,
    }
}

fn secret_header(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Failure::NoCredentials("a secret cannot stand in a header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_their_ends() {
        let granted =
            token(br#"{"access_token":"ya29.canary..","expires_in":3599,"token_type":"Bearer"}"#);
        let granted = granted.expect("a token");
        assert_eq!(granted.credentials.expose(), "ya29.canary..");
        assert!(!format!("{granted:?}").contains("canary"));
        assert!(granted.expires.expect("an end") > Utc::now());
        for text in [
            "",
            "{}",
            r#"{"error":"canary"}"#,
            r#"{"access_token":""}"#,
            r#"{"access_token":"canary\n"}"#,
        ] {
            let failure = token(text.as_bytes()).expect_err(text);
            assert!(!format!("{failure:?}").contains("canary"));
        }
    }

    #[test]
    fn secrets_are_not_sent_in_clear_across_a_network() {
        for (url, expected) in [
            ("https://sts.googleapis.com/v1/token", Some(Reach::Far)),
            ("https://127.0.0.1/x", Some(Reach::Far)),
            (
                "http://169.254.169.254/metadata/identity",
                Some(Reach::Near),
            ),
            ("http://metadata.google.internal/x", Some(Reach::Near)),
            ("http://localhost:1/x", Some(Reach::Near)),
            ("http://[::1]:1/x", Some(Reach::Near)),
            ("http://sts.googleapis.com/v1/token", None),
            ("http://10.0.0.1/x", None),
            ("http://localhost.example.org/x", None),
            ("http://localhost:1@example.org/x", None),
            ("https://u:canary@sts.googleapis.com", None),
            ("file:///etc/passwd", None),
            ("nonsense", None),
        ] {
            assert_eq!(reach(url), expected, "{url}");
        }
    }
}
