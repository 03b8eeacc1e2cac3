//! Where requests go: the host and the path, escaped once and for all, because a signature covers the escaped text.

use super::options::AzureOptions;
use crate::http::text::{escape, escape_path};

/// A container as its server is addressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContainerAddress {
    /// `http` or `https`.
    scheme: &'static str,
    /// Host and port.
    authority: String,
    /// The escaped path of the container, without a slash at its end.
    container: String,
}

impl ContainerAddress {
    pub(super) fn new(options: &AzureOptions) -> Self {
        let container = escape(&options.container);
        match &options.endpoint {
            Some(endpoint) => Self {
                scheme: if endpoint.secure { "https" } else { "http" },
                authority: endpoint.authority.clone(),
                container: format!("{}/{container}", escape_path(&endpoint.path)),
            },
            None => Self {
                scheme: "https",
                authority: format!("{}.blob.{}", options.account, options.cloud),
                container: format!("/{container}"),
            },
        }
    }

    /// The escaped path of a blob.
    pub(super) fn blob_path(&self, name: &str) -> String {
        format!("{}/{}", self.container, escape_path(name))
    }

    /// The escaped path of the container itself.
    pub(super) fn container_path(&self) -> &str {
        &self.container
    }

    /// The URL of an escaped path and query.
    pub(super) fn url(&self, path: &str, query: &str) -> String {
        let Self {
            scheme, authority, ..
        } = self;
        if query.is_empty() {
            format!("{scheme}://{authority}{path}")
        } else {
            format!("{scheme}://{authority}{path}?{query}")
        }
    }
}
