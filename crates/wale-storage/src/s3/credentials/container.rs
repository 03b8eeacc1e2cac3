//! The role of a task (ECS) or a pod (EKS), from the service that its orchestrator names.

use http::Method;

use super::super::failure::Failure;
use super::super::transport::Transport;
use super::{ContainerSource, ContainerToken, Granted, document, failure_of, read_file};

pub(super) async fn grant(
    source: &ContainerSource,
    transport: &Transport,
) -> Result<Granted, Failure> {
    let token = match &source.token {
        None => None,
        Some(ContainerToken::Text(token)) => Some(token.expose().trim().to_owned()),
        Some(ContainerToken::File(path)) => Some(read_file(path).await?.trim().to_owned()),
    };
    let header = token.as_deref().map(|token| ("authorization", token));
    let asked = document::ask(transport, Method::GET, source.url.clone(), header).await;
    asked
        .and_then(|text| document::parse(&text))
        .map_err(|failure| {
            failure_of(
                &format!("the container's credential service at {}", source.url),
                &failure,
            )
        })
}
