//! How a token is had: one request to a login service, which also says where the account is.
//!
//! ```text
//!   version 1    GET  url                    headers in, headers out (tempauth, swauth, Ceph)
//!   version 2    POST url/v2.0/tokens        Keystone: a token and a catalog of services, in JSON
//!   version 3    POST url/v3/auth/tokens     the same, with domains, or with an application credential
//! ```

mod catalog;
mod exchange;
mod logins;
mod method;
mod v1;
mod v2;
mod v3;

pub(super) use self::exchange::Admitted;
pub(super) use self::logins::Logins;
pub use self::method::{
    ApplicationCredential, KeystoneName, LoginSecret, SwiftInterface, SwiftLogin, SwiftMethod,
};
