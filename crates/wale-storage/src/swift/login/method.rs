//! Who logs in, by which protocol, and where the account is reached.

use std::path::PathBuf;

use crate::Secret;
use crate::http::failure::Failure;
use crate::http::named_file;

/// A login.
#[derive(Debug, Clone)]
pub struct SwiftLogin {
    /// The login service. A version at its end may be there or not.
    pub url: String,
    /// The protocol, and who logs in.
    pub method: SwiftMethod,
    /// The region of the account; without it the first that the catalog has.
    pub region: Option<String>,
    /// The network from which the account is reached.
    pub interface: SwiftInterface,
}

/// The protocol, and who logs in.
#[derive(Debug, Clone)]
pub enum SwiftMethod {
    /// Version 1.
    V1 {
        /// The user, as `account:user`.
        user: String,
        /// The key.
        key: LoginSecret,
    },
    /// Keystone's version 2.
    V2 {
        /// The user's name.
        user: String,
        /// The password.
        password: LoginSecret,
        /// The tenant.
        tenant: KeystoneName,
    },
    /// Keystone's version 3 with a password.
    V3Password {
        /// The user.
        user: KeystoneName,
        /// The domain in which the user's name is unique; an identifier needs none.
        user_domain: KeystoneName,
        /// The password.
        password: LoginSecret,
        /// The project.
        project: KeystoneName,
        /// The domain in which the project's name is unique; an identifier needs none.
        project_domain: KeystoneName,
    },
    /// Keystone's version 3 with an application credential, which knows its project.
    V3Application {
        /// Which one.
        credential: ApplicationCredential,
        /// Its secret.
        secret: LoginSecret,
    },
}

/// How Keystone is told what is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeystoneName {
    /// By an identifier.
    Id(String),
    /// By a name.
    Name(String),
}

/// An application credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplicationCredential {
    /// By its identifier.
    Id(String),
    /// By its name, which is unique among those of its user.
    OfUser {
        /// Its name.
        name: String,
        /// Whose it is.
        user: KeystoneName,
        /// The domain in which the user's name is unique.
        user_domain: KeystoneName,
    },
}

/// A secret as it is, or in a file that is read for each login.
#[derive(Debug, Clone)]
pub enum LoginSecret {
    /// The secret.
    Text(Secret),
    /// The file. White space at its end does not count.
    File(PathBuf),
}

/// The network from which the account is reached: most clouds list one URL for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwiftInterface {
    /// From everywhere.
    Public,
    /// From within the cloud.
    Internal,
    /// For operators of the cloud.
    Admin,
}

impl SwiftInterface {
    /// Version 3's word.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Admin => "admin",
        }
    }
}

impl LoginSecret {
    pub(super) async fn read(&self) -> Result<Secret, Failure> {
        match self {
            Self::Text(secret) => Ok(secret.clone()),
            Self::File(path) => {
                let text = named_file::read_secret_text(path).await?;
                Ok(Secret::new(text.trim_end()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_logins_are_not_shown() {
        let login = SwiftLogin {
            url: "http://h".into(),
            method: SwiftMethod::V1 {
                user: "u".into(),
                key: LoginSecret::Text(Secret::new("canary")),
            },
            region: None,
            interface: SwiftInterface::Public,
        };
        let shown = format!("{login:?}");
        assert!(!shown.contains("canary"), "{shown}");
    }
}
