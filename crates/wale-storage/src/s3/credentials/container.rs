//! The role of a task (ECS) or a pod (EKS), from the service that its orchestrator names.

use http::Method;

use super::document;
use super::source::{ContainerSource, ContainerToken, GrantedKeys};
use crate::http::failure::Failure;
use crate::http::named_file::read_secret_text;
use crate::http::transport::Transport;

pub(super) async fn grant(
    source: &ContainerSource,
    transport: &Transport,
) -> Result<GrantedKeys, Failure> {
    let token = match &source.token {
        None => None,
        Some(ContainerToken::Text(token)) => Some(token.expose().trim().to_owned()),
        Some(ContainerToken::File(path)) => Some(read_secret_text(path).await?.trim().to_owned()),
    };
    let header = token.as_deref().map(|token| ("authorization", token));
    let asked = document::ask(transport, Method::GET, source.url.clone(), header).await;
    asked
        .and_then(|text| document::parse(&text))
        .map_err(|failure| {
            failure.of_source(&format!(
                "the container's credential service at {}",
                source.url
            ))
        })
}
