//! The role of an instance, from its metadata service. Version 2 only: version 1 gives keys to anybody who can make
//! the host send a request.

use http::Method;

use super::document;
use super::source::GrantedKeys;
use crate::http::failure::Failure;
use crate::http::text::fits_header;
use crate::http::transport::Transport;

const ROLE_PATH: &str = "latest/meta-data/iam/security-credentials";

/// How long the service is to know our session, seconds. Each renewal makes a new one.
const SESSION_SECONDS: &str = "300";

pub(super) async fn grant(endpoint: &str, transport: &Transport) -> Result<GrantedKeys, Failure> {
    ask(endpoint.trim_end_matches('/'), transport)
        .await
        .map_err(|failure| {
            failure.of_source(&format!("the instance's metadata service at {endpoint}"))
        })
}

async fn ask(endpoint: &str, transport: &Transport) -> Result<GrantedKeys, Failure> {
    let session = document::ask(
        transport,
        Method::PUT,
        format!("{endpoint}/latest/api/token"),
        Some(("x-aws-ec2-metadata-token-ttl-seconds", SESSION_SECONDS)),
    )
    .await?;
    let session = word(&session)?;
    let header = Some(("x-aws-ec2-metadata-token", session.as_str()));
    let url = format!("{endpoint}/{ROLE_PATH}/");
    let role = document::ask(transport, Method::GET, url, header).await?;
    let role = word(&role)?;
    let url = format!("{endpoint}/{ROLE_PATH}/{role}");
    document::parse(&document::ask(transport, Method::GET, url, header).await?)
}

/// The first line of a short text.
fn word(text: &[u8]) -> Result<String, Failure> {
    let line = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.lines().next())
        .map(str::trim)
        .filter(|line| fits_header(line));
    line.map(str::to_owned)
        .ok_or_else(|| Failure::Nonsense("an empty answer".to_owned()))
}
