//! Where keys come from, as the options say it.

use std::path::PathBuf;

use crate::Secret;
use crate::http::keeper::Granted;

/// Keys, and when they end.
pub(super) type GrantedKeys = Granted<Credentials>;

/// A pair of keys, with the token of a temporary one.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Names the keys; sent in clear with every request.
    pub access_key_id: String,
    /// Signs.
    pub secret_access_key: Secret,
    /// Sent along with temporary keys.
    pub session_token: Option<Secret>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(secret)")
    }
}

/// Where keys come from.
#[derive(Debug, Clone)]
pub enum CredentialSource {
    /// These.
    Static(Credentials),
    /// These, whose secret parts lie in files.
    Files(FileSource),
    /// A role, for keys.
    Role(RoleSource),
    /// A profile of Amazon's shared files.
    Profile(ProfileSource),
    /// The role of the instance, from its metadata service (version 2), whose URL this is.
    Instance(String),
    /// The role of a task or pod.
    Container(ContainerSource),
    /// A role, for a token that somebody else has signed.
    WebIdentity(WebIdentitySource),
}

/// A pair of keys whose secret parts lie in files of their own, which are rotated. What has no file is as it is in `keys`.
#[derive(Debug, Clone)]
pub struct FileSource {
    /// The pair as it was at the start.
    pub keys: Credentials,
    /// The file of the secret key.
    pub secret_access_key: Option<PathBuf>,
    /// The file of the token.
    pub session_token: Option<PathBuf>,
}

/// A role, for keys.
#[derive(Debug, Clone)]
pub struct RoleSource {
    /// Keys that may assume it, read anew for each session where they lie in files.
    pub keys: FileSource,
    /// The role.
    pub role_arn: String,
    /// The name of the session, which Amazon's log shows.
    pub session_name: String,
    /// The security token service; `None` is the region's.
    pub sts_endpoint: Option<String>,
}

/// A profile of Amazon's shared files.
#[derive(Debug, Clone)]
pub struct ProfileSource {
    /// Its name.
    pub name: String,
    /// The file of keys.
    pub credentials_file: PathBuf,
    /// The file of everything else, roles among it.
    pub config_file: PathBuf,
    /// The security token service; `None` is the region's.
    pub sts_endpoint: Option<String>,
}

/// The role of a task or pod, from a service in its neighbourhood.
#[derive(Debug, Clone)]
pub struct ContainerSource {
    /// The service.
    pub url: String,
    /// What lets us in.
    pub token: Option<ContainerToken>,
}

/// What a container shows to the service that gives it keys.
#[derive(Debug, Clone)]
pub enum ContainerToken {
    /// This.
    Text(Secret),
    /// The content of this file, which is rotated.
    File(PathBuf),
}

/// A role, for a token that somebody else has signed.
#[derive(Debug, Clone)]
pub struct WebIdentitySource {
    /// The file with the token, which is rotated.
    pub token_file: PathBuf,
    /// The role.
    pub role_arn: String,
    /// The name of the session, which Amazon's log shows.
    pub session_name: String,
    /// The security token service; `None` is the region's.
    pub sts_endpoint: Option<String>,
}
