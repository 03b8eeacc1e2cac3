//! Objects on their way out: how Azure is asked for one, and for the rest of one.

use std::ops::Range;

use futures_util::FutureExt;
use http::Method;

use super::client::{BlobCall, SharedContainer};
use crate::http::failure::Asked;
use crate::http::reading::{self, AskAgain, range_header, wanted_header};
use crate::{Object, ObjectKey, RetryPolicy, StoreError};

/// Opens an object, or these bytes of one.
pub(super) async fn open(
    client: &SharedContainer,
    key: &ObjectKey,
    range: Option<Range<u64>>,
    retry: &RetryPolicy,
) -> Result<Object, StoreError> {
    let wanted = wanted_header(range.as_ref());
    let mut call = BlobCall::blob(Method::GET, key);
    if let Some(wanted) = &wanted {
        call = call.header("range", wanted);
    }
    let answer = client.call(&call).await;
    let answer = answer.map_err(|failure| client.error(failure, Asked::Object(key)))?;
    let rest = rest(client, key, range.as_ref().map(|range| range.end));
    let place = (client.location(), retry);
    let opened = reading::object((key, range), answer, place, rest);
    opened.map_err(|failure| client.error(failure, Asked::Object(key)))
}

/// The question for the rest of an object, up to `end` where there is one.
fn rest(client: &SharedContainer, key: &ObjectKey, end: Option<u64>) -> AskAgain {
    let (client, key) = (client.clone(), key.clone());
    Box::new(move |at, etag| {
        let (client, key) = (client.clone(), key.clone());
        async move {
            let range = range_header(at, end);
            let mut call = BlobCall::blob(Method::GET, &key).header("range", &range);
            if let Some(etag) = &etag {
                call = call.header("if-match", etag);
            }
            client.call(&call).await
        }
        .boxed()
    })
}
