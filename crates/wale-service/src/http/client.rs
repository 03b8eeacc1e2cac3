//! The client of a connection.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::connections::Slot;
use super::io::Flushed;
use super::turns::{Turn, Turns};

/// The client of one connection, as the answer to a request needs it.
pub(super) struct Client {
    pub(super) spoken: Spoken,
    pub(super) slot: Arc<Slot>,
    pub(super) flushed: Flushed,
    pub(super) peer: IpAddr,
}

impl Client {
    /// A turn for this client, in time. Its connection ends if the turn is taken away.
    pub(super) async fn turn_of(&self, turns: &Turns, limit: Duration) -> Option<Turn> {
        turns.take(self.peer, self.slot.cut().clone(), limit).await
    }
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    /// What the settings want.
    AsSet,
    /// Plain HTTP where TLS is wanted: it is told so, and nothing else.
    PlainHttp,
}
