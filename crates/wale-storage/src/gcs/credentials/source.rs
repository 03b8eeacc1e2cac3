//! What services give, and how they are reached.

use crate::Secret;
use crate::http::keeper::Granted;
use crate::http::transport::Transport;

/// What lets us in: a text that goes along with every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gcs) struct AccessToken(Secret);

impl AccessToken {
    pub(super) fn new(text: &str) -> Self {
        Self(Secret::new(text))
    }

    pub(in crate::gcs) fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// A token, and when it ends.
pub(super) type GrantedToken = Granted<AccessToken>;

/// How services that give tokens are reached.
#[derive(Debug)]
pub(super) struct Services {
    /// Google's, and others' in the network; the store's own way.
    pub(super) far: Transport,
    /// Those on the host or its link, which no proxy reaches.
    pub(super) near: Transport,
}
