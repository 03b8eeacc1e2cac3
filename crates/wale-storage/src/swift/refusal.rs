//! Errors as Swift reports them: a status, a page of some words, and the number of the request.

use http::{HeaderMap, StatusCode};

use crate::http::failure::{Meaning, Refusal};
use crate::http::text::{one_line, words_of_page};
use crate::{Misconfiguration, ServerReply};

/// An error's body longer than this is not Swift's: theirs are some hundred bytes.
pub(super) const BYTES_MAX: usize = 64 << 10;

/// In which header every answer of Swift's has its number. Gateways before it that answer for themselves have none.
const NUMBER_HEADER: &str = "x-trans-id";

/// An answer that is an error.
pub(super) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let number = header(NUMBER_HEADER);
    let reply = ServerReply {
        status: status.as_u16(),
        code: String::new(),
        message: words_of_page(body),
        request_id: one_line(number.unwrap_or_default()),
    };
    let meaning = meaning(status, &reply, number.is_some(), header("location"));
    Refusal {
        status,
        reply,
        meaning,
    }
}

/// The error of one object of many, as an answer in JSON has it: `404 Not Found`.
pub(super) fn of_text(text: &str) -> Refusal {
    let status = text
        .split(' ')
        .next()
        .and_then(|word| word.parse().ok())
        .and_then(|number| StatusCode::from_u16(number).ok())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let reply = ServerReply {
        status: status.as_u16(),
        message: one_line(text),
        ..ServerReply::default()
    };
    let meaning = meaning(status, &reply, true, None);
    Refusal {
        status,
        reply,
        meaning,
    }
}

/// Whether another token may be accepted.
pub(super) fn is_of_token(refusal: &Refusal) -> bool {
    refusal.status == StatusCode::UNAUTHORIZED
}

/// What an error means.
fn meaning(
    status: StatusCode,
    reply: &ServerReply,
    is_swifts: bool,
    location: Option<&str>,
) -> Meaning {
    /// Requests of an account are limited (Swift, `ratelimit`).
    const TOO_OFTEN: u16 = 498;
    let message = reply.message.to_ascii_lowercase();
    match status {
        // Only after another token was asked for.
        StatusCode::UNAUTHORIZED => {
            Meaning::Passing("it refuses the token that the login has given")
        }
        StatusCode::NOT_FOUND if is_swifts => Meaning::Absent,
        StatusCode::UNPROCESSABLE_ENTITY => Meaning::Garbled,
        StatusCode::CONFLICT => Meaning::Passing("another write of the same name is later"),
        StatusCode::PAYLOAD_TOO_LARGE if message.contains("quota") => Meaning::Full,
        status if status.as_u16() == TOO_OFTEN => {
            Meaning::Passing("it asks to be asked less often")
        }
        StatusCode::TOO_MANY_REQUESTS => Meaning::Passing("it asks to be asked less often"),
        StatusCode::BAD_REQUEST if message.contains("https") || message.contains("ssl-enabled") => {
            Meaning::Misconfigured(
                Misconfiguration::OtherProtocol,
                "the server speaks TLS, and was asked without it".to_owned(),
            )
        }
        // A condition that was not met is no redirect.
        status if status.is_redirection() && status != StatusCode::NOT_MODIFIED => {
            let place =
                location.map_or_else(String::new, |place| format!(", to {}", one_line(place)));
            Meaning::Misconfigured(
                Misconfiguration::BadOptions,
                format!("it sends elsewhere{place}"),
            )
        }
        status => Meaning::of_status(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::failure::{Asked, Failure};
    use crate::{ObjectKey, StoreError};

    #[test]
    fn row_32_each_status_is_its_own_situation() {
        type Check = fn(&StoreError) -> bool;
        let key = ObjectKey::new("a").expect("valid");
        let mut swifts = HeaderMap::new();
        swifts.insert("x-trans-id", "tx1".parse().expect("a value"));
        let others = HeaderMap::new();
        let unavailable: Check = StoreError::is_transient;
        let denied: Check = |e| matches!(e, StoreError::PermissionDenied { .. });
        let cases: [(u16, &HeaderMap, &str, Check); 13] = [
            (404, &swifts, "", |e| e.is_not_found()),
            (404, &others, "<h1>no such page</h1>", unavailable),
            (403, &swifts, "", denied),
            (403, &others, "", denied),
            (401, &swifts, "", unavailable),
            (409, &swifts, "", unavailable),
            (422, &swifts, "", unavailable),
            (498, &swifts, "", unavailable),
            (503, &swifts, "", unavailable),
            (413, &swifts, "Upload exceeds quota.", |e| {
                matches!(e, StoreError::Full { .. })
            }),
            (413, &swifts, "Your request is too large.", |e| {
                matches!(e, StoreError::Io { .. })
            }),
            (507, &others, "", |e| matches!(e, StoreError::Full { .. })),
            (302, &others, "", |e| {
                matches!(e, StoreError::Misconfigured { .. })
            }),
        ];
        for (status, headers, body, expected) in cases {
            let status = StatusCode::from_u16(status).expect("a status");
            let refusal = read(status, headers, body.as_bytes());
            let error =
                Failure::Refused(refusal).into_store_error("swift://c", Asked::Object(&key));
            assert!(expected(&error), "{status} became {error:?}");
        }
        let refusal = of_text("403 Forbidden");
        assert_eq!(refusal.meaning, Meaning::Denied);
        assert_eq!(refusal.to_string(), "HTTP status 403: 403 Forbidden");
        assert!(of_text("gone with the wind").is_transient());
    }

    #[test]
    fn the_number_and_the_words_are_told() {
        let mut headers = HeaderMap::new();
        headers.insert("x-trans-id", "tx26b5dc18".parse().expect("a value"));
        let page = b"<html><h1>Forbidden</h1><p>Access was denied to this resource.</p></html>";
        let refusal = read(StatusCode::FORBIDDEN, &headers, page);
        assert_eq!(
            refusal.to_string(),
            "HTTP status 403: Forbidden Access was denied to this resource., request tx26b5dc18"
        );
    }
}
