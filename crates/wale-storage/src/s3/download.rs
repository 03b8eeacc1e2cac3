//! Objects on their way out: how S3 is asked for one, and for the rest of one.

use futures_util::FutureExt;
use http::Method;

use super::client::{Call, SharedClient};
use crate::http::failure::{Asked, Failure};
use crate::http::reading::{self, AskAgain};
use crate::{Object, ObjectKey, RetryPolicy, StoreError};

/// Opens an object.
pub(super) async fn open(
    client: &SharedClient,
    key: &ObjectKey,
    retry: &RetryPolicy,
) -> Result<Object, StoreError> {
    let call = Call::object(Method::GET, key).headers(&client.customer_key());
    let answer = match client.call(&call).await {
        Ok(answer) => answer,
        Err(Failure::Refused(refusal)) if refusal.may_be_absence() && !refusal.is_absence() => {
            client.confirm_absence(key).await?;
            return Err(StoreError::NotFound { key: key.clone() });
        }
        Err(failure) => return Err(client.error(failure, Asked::Object(key))),
    };
    let opened = reading::object(key, answer, client.location(), retry, rest(client, key));
    opened.map_err(|failure| client.error(failure, Asked::Object(key)))
}

/// The question for the rest of an object.
fn rest(client: &SharedClient, key: &ObjectKey) -> AskAgain {
    let (client, key) = (client.clone(), key.clone());
    Box::new(move |at, etag| {
        let (client, key) = (client.clone(), key.clone());
        async move {
            let mut call = Call::object(Method::GET, &key)
                .headers(&client.customer_key())
                .header("range", &format!("bytes={at}-"));
            if let Some(etag) = &etag {
                call = call.header("if-match", etag);
            }
            client.call(&call).await
        }
        .boxed()
    })
}
