//! Keys, where they come from, and when they are asked for again. Nothing here is ever printed.

mod container;
mod document;
mod instance;
mod keys;
mod profile;
mod source;
mod sts;

pub(super) use self::keys::Keys;
pub use self::source::{
    ContainerSource, ContainerToken, CredentialSource, Credentials, FileSource, ProfileSource,
    RoleSource, WebIdentitySource,
};
