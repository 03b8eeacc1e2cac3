//! One request to a login service, and what it grants.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};

use crate::Secret;
use crate::http::failure::Failure;
use crate::http::transport::{Answer, Outgoing, Payload, Transport};
use crate::swift::refusal;

/// A token, and the account that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::swift) struct Admitted {
    pub(in crate::swift) token: Secret,
    /// Without a slash at its end.
    pub(in crate::swift) storage_url: String,
}

/// A login service's answer, when it is a success.
pub(super) async fn exchange(
    transport: &Transport,
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Answer, Failure> {
    let outgoing = Outgoing {
        method,
        url,
        headers,
        payload: match body.len() {
            0 => Payload::default(),
            _ => Payload::from(body),
        },
        answer_limit: transport.timeouts().answer,
    };
    let mut answer = transport.send(outgoing).await?;
    if answer.status.is_success() {
        return Ok(answer);
    }
    let body = answer.read(refusal::BYTES_MAX).await.unwrap_or_default();
    Err(Failure::Refused(refusal::read(
        answer.status,
        &answer.headers,
        &body,
    )))
}

/// A text of the user's in a header: any but control characters, as other programs send it.
pub(super) fn header_value(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| {
        Failure::NoCredentials(
            "the user or the key holds a character that cannot stand in an HTTP header".to_owned(),
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The login service without a version, which its protocol adds.
pub(super) fn service(url: &str) -> &str {
    let mut rest = url.trim_end_matches('/');
    for end in ["/auth/tokens", "/tokens", "/v2.0", "/v3"] {
        rest = rest.strip_suffix(end).unwrap_or(rest).trim_end_matches('/');
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_at_the_end_is_there_or_not() {
        for url in [
            "https://h:5000",
            "https://h:5000/",
            "https://h:5000/v3",
            "https://h:5000/v2.0/",
            "https://h:5000/v3/auth/tokens",
            "https://h:5000/v2.0/tokens",
        ] {
            assert_eq!(service(url), "https://h:5000", "{url}");
        }
        assert_eq!(service("http://h/identity/v3/"), "http://h/identity");
    }

    #[test]
    fn what_is_granted_is_not_shown() {
        let admitted = Admitted {
            token: Secret::new("canary"),
            storage_url: "http://h".into(),
        };
        let shown = format!("{admitted:?} {:?}", header_value("canary"));
        assert!(!shown.contains("canary"), "{shown}");
    }
}
