//! Where the right to ask comes from, as the options say it, and what of it goes along with a request. Nothing here is ever
//! printed.

use std::path::PathBuf;

use crate::Secret;

/// Where the right to ask comes from.
#[derive(Debug, Clone)]
pub enum AzureCredentialSource {
    /// The account's key, base64, with which every request is signed.
    AccountKey(Secret),
    /// The same, in a file that is read anew.
    AccountKeyFile(PathBuf),
    /// A shared access signature: a query, with or without the question mark before it.
    SharedAccess(Secret),
    /// The same, in a file that is read anew.
    SharedAccessFile(PathBuf),
    /// The identity that this host has in Entra, from its metadata service.
    ManagedIdentity {
        /// The service's URL.
        service: String,
        /// Which identity, where the host has several.
        client_id: Option<String>,
    },
    /// An application of Entra.
    Client(AzureClient),
}

/// An application of Entra, for which tokens are asked.
#[derive(Debug, Clone)]
pub struct AzureClient {
    /// Where tokens are given, as `https://login.microsoftonline.com`.
    pub authority: String,
    /// The tenant, in which the application is.
    pub tenant: String,
    /// The application.
    pub client_id: String,
    /// What shows that we are it.
    pub proof: AzureClientProof,
}

/// What shows that we are an application.
#[derive(Debug, Clone)]
pub enum AzureClientProof {
    /// A secret.
    Secret(Secret),
    /// A secret in a file that is read anew.
    SecretFile(PathBuf),
    /// A token of somebody whom Entra trusts, as Kubernetes mounts it, in a file that is read anew.
    TokenFile(PathBuf),
}

/// What goes along with a request.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum AzureCredentials {
    /// The account's key.
    Key(Vec<u8>),
    /// A query that is added, escaped.
    SharedAccess(Secret),
    /// A token.
    Bearer(Secret),
}

impl std::fmt::Debug for AzureCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AzureCredentials(secret)")
    }
}
