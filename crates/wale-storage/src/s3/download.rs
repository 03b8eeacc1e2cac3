//! Objects on their way out: how S3 is asked for one, and for the rest of one.

use std::ops::Range;

use futures_util::FutureExt;
use http::Method;

use super::client::{Call, SharedClient};
use crate::http::failure::{Asked, Failure};
use crate::http::reading::{self, AskAgain, range_header, wanted_header};
use crate::{Object, ObjectKey, RetryPolicy, StoreError};

/// Opens an object, or these bytes of one.
pub(super) async fn open(
    client: &SharedClient,
    key: &ObjectKey,
    range: Option<Range<u64>>,
    retry: &RetryPolicy,
) -> Result<Object, StoreError> {
    let wanted = wanted_header(range.as_ref());
    let mut call = Call::object(Method::GET, key).headers(&client.customer_key());
    if let Some(wanted) = &wanted {
        call = call.header("range", wanted);
    }
    let answer = match client.call(&call).await {
        Ok(answer) => answer,
        Err(Failure::Refused(refusal)) if refusal.may_be_absence() && !refusal.is_absence() => {
            client.confirm_absence(key).await?;
            return Err(StoreError::NotFound { key: key.clone() });
        }
        Err(failure) => return Err(client.error(failure, Asked::Object(key))),
    };
    let rest = rest(client, key, range.as_ref().map(|range| range.end));
    let place = (client.location(), retry);
    let opened = reading::object((key, range), answer, place, rest);
    opened.map_err(|failure| client.error(failure, Asked::Object(key)))
}

/// The question for the rest of an object, up to `end` where there is one.
fn rest(client: &SharedClient, key: &ObjectKey, end: Option<u64>) -> AskAgain {
    let (client, key) = (client.clone(), key.clone());
    Box::new(move |at, etag| {
        let (client, key) = (client.clone(), key.clone());
        async move {
            let mut call = Call::object(Method::GET, &key)
                .headers(&client.customer_key())
                .header("range", &range_header(at, end));
            if let Some(etag) = &etag {
                call = call.header("if-match", etag);
            }
            client.call(&call).await
        }
        .boxed()
    })
}
