//! Version 1: user and key in headers, token and account in headers (Swift, "Auth", tempauth).

use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use http::{HeaderMap, Method};

use super::catalog::WantedEndpoint;
use super::exchange::{Admitted, exchange, header_value};
use crate::Secret;
use crate::http::failure::Failure;
use crate::http::keeper::Granted;
use crate::http::text::fits_header;
use crate::http::transport::Transport;

/// Logs in.
pub(super) async fn grant(
    url: &str,
    user: &str,
    key: &Secret,
    wanted: &WantedEndpoint<'_>,
    transport: &Transport,
) -> Result<Granted<Admitted>, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert("x-auth-user", header_value(user)?);
    headers.insert("x-auth-key", header_value(key.expose())?);
    let answer = exchange(
        transport,
        Method::GET,
        url.to_owned(),
        headers,
        Bytes::new(),
    )
    .await?;
    let token = answer
        .header("x-auth-token")
        .or_else(|| answer.header("x-storage-token"))
        .filter(|token| fits_header(token))
        .ok_or_else(|| Failure::Nonsense("an answer without a token".to_owned()))?;
    let storage_url = wanted.or_told(answer.header("x-storage-url"))?;
    let expires = answer
        .header("x-auth-token-expires")
        .and_then(|text| text.parse().ok())
        .and_then(|seconds| chrono::Duration::from_std(Duration::from_secs(seconds)).ok())
        .and_then(|time| Utc::now().checked_add_signed(time));
    Ok(Granted {
        credentials: Admitted {
            token: Secret::new(token),
            storage_url,
        },
        expires,
    })
}
