//! Tokens of Entra: from the metadata service of this host (its managed identity), or for an application that shows a
//! secret or a token of somebody else's (OAuth 2.0, the grant `client_credentials`).

use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;

use super::source::{AzureClient, AzureClientProof, AzureCredentials};
use crate::http::failure::{ANSWERS_WITH_AN_ERROR, Failure, Meaning, Refusal};
use crate::http::keeper::Granted;
use crate::http::named_file::{read_secret, read_secret_text};
use crate::http::text::{fits_header, one_line, query};
use crate::http::transport::{Outgoing, Payload, Transport};
use crate::{Secret, ServerReply};

/// An answer is some 2 KiB long, most of it the token.
const BYTES_MAX: usize = 64 << 10;

/// What the token is for. One name serves every cloud.
const RESOURCE: &str = "https://storage.azure.com/";

#[derive(Deserialize)]
struct Token {
    access_token: String,
    expires_in: Lifetime,
}

/// Seconds. The metadata service writes them as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Lifetime {
    Number(u64),
    Text(String),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    error: String,
    error_description: String,
}

/// A token for the identity of this host.
pub(super) async fn of_identity(
    service: &str,
    client_id: Option<&str>,
    transport: &Transport,
) -> Result<Granted<AzureCredentials>, Failure> {
    let mut pairs = vec![("api-version", "2018-02-01"), ("resource", RESOURCE)];
    pairs.extend(client_id.map(|id| ("client_id", id)));
    let service = service.trim_end_matches('/');
    let outgoing = Outgoing {
        method: Method::GET,
        url: format!("{service}/metadata/identity/oauth2/token?{}", query(&pairs)),
        headers: header("metadata", "true"),
        payload: Payload::default(),
        answer_limit: transport.timeouts().answer,
    };
    ask(transport, outgoing).await.map_err(|failure| {
        // It answers so while it is being updated, says its page.
        let failure = match failure {
            Failure::Refused(mut refusal)
                if matches!(refusal.status, StatusCode::NOT_FOUND | StatusCode::GONE) =>
            {
                refusal.meaning = Meaning::Passing(ANSWERS_WITH_AN_ERROR);
                Failure::Refused(refusal)
            }
            other => other,
        };
        failure.of_source(&format!(
            "the managed identity of this host, from {service} (no key, no shared access signature and no application \
             is set)"
        ))
    })
}

/// A token for an application.
pub(super) async fn of_client(
    client: &AzureClient,
    transport: &Transport,
) -> Result<Granted<AzureCredentials>, Failure> {
    let scope = format!("{RESOURCE}.default");
    let mut pairs = vec![
        ("grant_type", "client_credentials"),
        ("client_id", client.client_id.as_str()),
        ("scope", scope.as_str()),
    ];
    let secret;
    match &client.proof {
        AzureClientProof::Secret(given) => pairs.push(("client_secret", given.expose())),
        AzureClientProof::SecretFile(path) => {
            secret = read_secret(path).await?;
            pairs.push(("client_secret", secret.expose()));
        }
        AzureClientProof::TokenFile(path) => {
            secret = Secret::new(read_secret_text(path).await?.trim());
            pairs.push((
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ));
            pairs.push(("client_assertion", secret.expose()));
        }
    }
    let authority = client.authority.trim_end_matches('/');
    let form = Bytes::from(query(&pairs));
    let outgoing = Outgoing {
        method: Method::POST,
        url: format!("{authority}/{}/oauth2/v2.0/token", client.tenant),
        headers: header(CONTENT_TYPE.as_str(), "application/x-www-form-urlencoded"),
        payload: Payload::from(form),
        answer_limit: transport.timeouts().answer,
    };
    ask(transport, outgoing).await.map_err(|failure| {
        failure.of_source(&format!(
            "a token for application {} from {authority}",
            client.client_id
        ))
    })
}

/// One header, whose value is one of ours.
fn header(name: &str, value: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(name) = HeaderName::try_from(name) {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
}

async fn ask(
    transport: &Transport,
    outgoing: Outgoing,
) -> Result<Granted<AzureCredentials>, Failure> {
    let mut answer = transport.send(outgoing).await?;
    let status = answer.status;
    let body = answer.read(BYTES_MAX).await?;
    if status.is_success() {
        parse(&body)
    } else {
        Err(Failure::Refused(refusal(status, &body)))
    }
}

/// A token, whose text is not quoted.
fn parse(body: &[u8]) -> Result<Granted<AzureCredentials>, Failure> {
    let wrong = || Failure::Nonsense("the document holds no token".to_owned());
    let token: Token = serde_json::from_slice(body).map_err(|_| wrong())?;
    let seconds = match token.expires_in {
        Lifetime::Number(seconds) => Some(seconds),
        Lifetime::Text(text) => text.parse().ok(),
    };
    if !fits_header(&token.access_token) {
        return Err(wrong());
    }
    let lifetime =
        seconds.and_then(|seconds| chrono::Duration::from_std(Duration::from_secs(seconds)).ok());
    Ok(Granted {
        credentials: AzureCredentials::Bearer(Secret::new(token.access_token)),
        expires: lifetime.and_then(|lifetime| Utc::now().checked_add_signed(lifetime)),
    })
}

/// What is said instead of a token: of Microsoft's words, which name the application and never its secret.
fn refusal(status: StatusCode, body: &[u8]) -> Refusal {
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let first_line = problem.error_description.lines().next().unwrap_or_default();
    Refusal {
        status,
        reply: ServerReply {
            status: status.as_u16(),
            code: one_line(&problem.error),
            message: one_line(first_line),
            request_id: String::new(),
        },
        meaning: Meaning::of_status(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents() {
        for text in [
            r#"{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"canary"}"#,
            r#"{"access_token":"canary","client_id":"c","expires_in":"86399","expires_on":"1","resource":"r"}"#,
        ] {
            let granted = parse(text.as_bytes()).expect("a token");
            assert!(granted.expires.expect("it ends") > Utc::now());
            assert!(!format!("{granted:?}").contains("canary"));
            let expected = AzureCredentials::Bearer(Secret::new("canary"));
            assert!(granted.credentials == expected);
        }
        for text in [
            "",
            "{}",
            r#"{"access_token":"","expires_in":1}"#,
            r#"{"access_token":"can ary","expires_in":1}"#,
            r#"{"access_token":"canary"}"#,
        ] {
            let failure = parse(text.as_bytes()).expect_err(text);
            assert!(!format!("{failure:?}").contains("ary"), "{failure:?}");
        }
    }

    #[test]
    fn a_refused_application_is_told_in_microsofts_words() {
        let body = br#"{"error":"invalid_client",
            "error_description":"AADSTS7000215: Invalid client secret provided.\r\nTrace ID: x"}"#;
        let told = refusal(StatusCode::UNAUTHORIZED, body);
        assert_eq!(
            told.to_string(),
            "HTTP status 401 invalid_client: AADSTS7000215: Invalid client secret provided."
        );
        assert!(!told.is_transient());
        assert!(refusal(StatusCode::SERVICE_UNAVAILABLE, b"<html>").is_transient());
    }
}
