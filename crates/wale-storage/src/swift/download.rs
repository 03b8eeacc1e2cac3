//! Objects on their way out: how Swift is asked for one, for what is known of one, and for the rest of one.

use std::ops::Range;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use http::{Method, StatusCode};

use super::client::SharedSwift;
use crate::http::failure::{Asked, Failure};
use crate::http::marks::content_type;
use crate::http::reading::{self, AskAgain, range_header, wanted_header};
use crate::http::transport::Answer;
use crate::{Object, ObjectKey, ObjectMeta, RetryPolicy, StoreError};

/// Opens an object, or these bytes of one. Of documents, which alone are ever replaced, the newest copy counts; of others any.
pub(super) async fn open(
    client: &SharedSwift,
    key: &ObjectKey,
    range: Option<Range<u64>>,
    retry: &RetryPolicy,
) -> Result<Object, StoreError> {
    let wanted = wanted_header(range.as_ref());
    let mut call = client.object(Method::GET, key);
    if content_type(key) == "application/json" {
        call = call.newest();
    }
    if let Some(wanted) = &wanted {
        call = call.header("range", wanted);
    }
    let answer = match client.call(&call).await {
        Ok(answer) => answer,
        Err(failure) => return Err(not_opened(client, key, failure).await),
    };
    let told = meta(key, &answer);
    let rest = rest(client, key, range.as_ref().map(|range| range.end));
    let place = (client.location(), retry);
    let opened = reading::object((key, range), answer, place, rest);
    match (told, opened) {
        // The length of an answer is that of its bytes.
        (Ok(told), Ok(Object { meta, body })) => {
            let size = meta.size;
            let meta = ObjectMeta { size, ..told };
            Ok(Object { meta, body })
        }
        (Err(failure), _) | (_, Err(failure)) => Err(client.error(failure, Asked::Object(key))),
    }
}

async fn not_opened(client: &SharedSwift, key: &ObjectKey, failure: Failure) -> StoreError {
    match &failure {
        Failure::Refused(refusal) if refusal.may_be_absence() => {
            match client.confirm_absence(key, &failure).await {
                Ok(()) => StoreError::NotFound { key: key.clone() },
                Err(error) => error,
            }
        }
        // Swift's answer when it has the list of segments and not the segments.
        Failure::Refused(refusal) if refusal.status == StatusCode::CONFLICT => {
            StoreError::Damaged {
                key: key.clone(),
                reason: "the store does not find all segments of this large object".to_owned(),
            }
        }
        _ => client.error(failure, Asked::Object(key)),
    }
}

/// The question for the rest of an object, up to `end` where there is one.
fn rest(client: &SharedSwift, key: &ObjectKey, end: Option<u64>) -> AskAgain {
    let (client, key) = (client.clone(), key.clone());
    Box::new(move |at, etag| {
        let (client, key) = (client.clone(), key.clone());
        async move {
            let mut call = client
                .object(Method::GET, &key)
                .header("range", &range_header(at, end));
            if let Some(etag) = &etag {
                call = call.header("if-match", etag);
            }
            client.call(&call).await
        }
        .boxed()
    })
}

/// What the headers of an answer say of an object.
pub(super) fn meta(key: &ObjectKey, answer: &Answer) -> Result<ObjectMeta, Failure> {
    let meta = reading::meta(key, answer)?;
    // `Last-Modified` is the next whole second, and a listing has the moment itself.
    let modified = answer.header("x-timestamp").and_then(stored_at);
    Ok(ObjectMeta {
        modified: modified.unwrap_or(meta.modified),
        ..meta
    })
}

/// Swift's time of a write: seconds since 1970 with five digits behind the point, hundredths of a millisecond.
fn stored_at(text: &str) -> Option<DateTime<Utc>> {
    let (seconds, digits) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = digits.chars().chain("000000".chars()).take(6).collect();
    let micros: i64 = digits.parse().ok()?;
    let seconds: i64 = seconds.parse().ok()?;
    DateTime::from_timestamp_micros(seconds.checked_mul(1_000_000)?.checked_add(micros)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_two_forms_agree() {
        for (text, expected) in [
            ("1795938361.53059", "2026-11-29T07:46:01.530590+00:00"),
            ("1795938347.05471", "2026-11-29T07:45:47.054710+00:00"),
            ("1795938347", "2026-11-29T07:45:47+00:00"),
        ] {
            let found = stored_at(text).expect("a time");
            assert_eq!(found.to_rfc3339(), expected);
        }
        for text in ["", "x", "1.x", "99999999999999999999.0"] {
            assert_eq!(stored_at(text), None, "{text}");
        }
    }
}
