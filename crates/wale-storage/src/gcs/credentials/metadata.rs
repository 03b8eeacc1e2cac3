//! The account of a machine or a pod, from the metadata server of Compute Engine or Kubernetes Engine.

use http::{HeaderMap, HeaderValue, Method};

use super::exchange::{send, token};
use super::source::GrantedToken;
use crate::http::failure::Failure;
use crate::http::transport::{Outgoing, Payload, Transport};

/// Without it the server answers nothing, and with it in an answer it is that server.
const FLAVOR: &str = "metadata-flavor";
const GOOGLE: &str = "Google";

/// An answer is some 2 KiB long, most of it the token.
const BYTES_MAX: usize = 64 << 10;

pub(super) async fn grant(host: &str, transport: &Transport) -> Result<GrantedToken, Failure> {
    let source = format!("the metadata server at {host}");
    ask(host, transport)
        .await
        .map_err(|failure| failure.of_source(&source))
}

async fn ask(host: &str, transport: &Transport) -> Result<GrantedToken, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(FLAVOR, HeaderValue::from_static(GOOGLE));
    let outgoing = Outgoing {
        method: Method::GET,
        url: format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token"),
        headers,
        answer_limit: transport.timeouts().answer,
        payload: Payload::default(),
    };
    let mut answer = send(transport, outgoing).await?;
    if answer.header(FLAVOR) != Some(GOOGLE) {
        return Err(Failure::NoCredentials(
            "what answers is no metadata server of Google's".to_owned(),
        ));
    }
    token(&answer.read(BYTES_MAX).await?)
}
