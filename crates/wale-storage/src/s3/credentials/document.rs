//! The JSON in which services on an instance or beside a container give keys.

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue, Method};
use serde::Deserialize;

use super::source::{Credentials, GrantedKeys};
use crate::Secret;
use crate::http::failure::{Failure, Refusal};
use crate::http::text::fits_header;
use crate::http::transport::{Outgoing, Payload, Transport};

/// A document is some 1 to 2 KiB long, most of it the token.
const BYTES_MAX: usize = 64 << 10;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<DateTime<Utc>>,
}

/// Keys from a document, whose text is not quoted.
pub(super) fn parse(text: &[u8]) -> Result<GrantedKeys, Failure> {
    let wrong = || Failure::Nonsense("the document holds no keys".to_owned());
    let document: Document = serde_json::from_slice(text).map_err(|_| wrong())?;
    let texts = [&document.access_key_id, &document.secret_access_key];
    let is_sound = texts
        .into_iter()
        .chain(&document.token)
        .all(|text| fits_header(text));
    if !is_sound {
        return Err(wrong());
    }
    Ok(GrantedKeys {
        credentials: Credentials {
            access_key_id: document.access_key_id,
            secret_access_key: Secret::new(document.secret_access_key),
            session_token: document.token.map(Secret::new),
        },
        expires: document.expiration,
    })
}

/// Asks a service for a short text.
pub(super) async fn ask(
    transport: &Transport,
    method: Method,
    url: String,
    header: Option<(&'static str, &str)>,
) -> Result<bytes::Bytes, Failure> {
    let mut headers = HeaderMap::new();
    if let Some((name, text)) = header {
        let mut value = HeaderValue::from_str(text)
            .map_err(|_| Failure::NoCredentials("the token cannot stand in a header".to_owned()))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    let outgoing = Outgoing {
        method,
        url,
        headers,
        payload: Payload::default(),
        answer_limit: transport.timeouts().answer,
    };
    let mut answer = transport.send(outgoing).await?;
    let body = answer.read(BYTES_MAX).await?;
    if answer.status.is_success() {
        return Ok(body);
    }
    // What else stands in the body is not ours to repeat.
    Err(Failure::Refused(Refusal::of_status(answer.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents() {
        let text = br#"{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"A","SecretAccessKey":"canary","Token":"T",
            "Expiration":"2026-11-23T10:00:00Z"}"#;
        let granted = parse(text).expect("keys");
        assert_eq!(granted.credentials.access_key_id, "A");
        assert_eq!(granted.credentials.secret_access_key, Secret::new("canary"));
        assert_eq!(granted.credentials.session_token, Some(Secret::new("T")));
        assert!(granted.expires.is_some());
        assert!(!format!("{granted:?}").contains("canary"));
        for text in [
            "",
            "{}",
            r#"{"Code":"Failed","Message":"canary"}"#,
            r#"{"AccessKeyId":"A","SecretAccessKey":""}"#,
            r#"{"AccessKeyId":"A","SecretAccessKey":"canary\n"}"#,
        ] {
            let failure = parse(text.as_bytes()).expect_err(text);
            assert!(!format!("{failure:?}").contains("canary"));
        }
    }
}
