//! Objects on their way out: how Azure is asked for one, and for the rest of one.

use futures_util::FutureExt;
use http::Method;

use super::client::{BlobCall, SharedContainer};
use crate::http::failure::Asked;
use crate::http::reading::{self, AskAgain};
use crate::{Object, ObjectKey, RetryPolicy, StoreError};

/// Opens an object.
pub(super) async fn open(
    client: &SharedContainer,
    key: &ObjectKey,
    retry: &RetryPolicy,
) -> Result<Object, StoreError> {
    let answer = client.call(&BlobCall::blob(Method::GET, key)).await;
    let answer = answer.map_err(|failure| client.error(failure, Asked::Object(key)))?;
    let opened = reading::object(key, answer, client.location(), retry, rest(client, key));
    opened.map_err(|failure| client.error(failure, Asked::Object(key)))
}

/// The question for the rest of an object.
fn rest(client: &SharedContainer, key: &ObjectKey) -> AskAgain {
    let (client, key) = (client.clone(), key.clone());
    Box::new(move |at, etag| {
        let (client, key) = (client.clone(), key.clone());
        async move {
            let range = format!("bytes={at}-");
            let mut call = BlobCall::blob(Method::GET, &key).header("range", &range);
            if let Some(etag) = &etag {
                call = call.header("if-match", etag);
            }
            client.call(&call).await
        }
        .boxed()
    })
}
