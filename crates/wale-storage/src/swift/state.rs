//! The store's value: what its verbs share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::client::{self, SharedSwift, SwiftClient};
use super::options::{SEGMENT_BYTES_MIN, SwiftOptions};
use crate::http::slots::Slots;
use crate::http::writes::Uploads;
use crate::{Misconfiguration, StoreError};

/// Objects in a container, below a prefix. Clones share connections, the token and memory.
#[derive(Debug, Clone)]
pub struct SwiftStore {
    pub(super) inner: Arc<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) client: SharedSwift,
    pub(super) uploads: Uploads,
    pub(super) deletes_singly: AtomicBool,
}

impl SwiftStore {
    /// Sets the store up. Reads the file of certificates, if there is one, and asks nobody.
    ///
    /// # Errors
    ///
    /// [`StoreError::Misconfigured`] when an option cannot be used.
    pub fn open(options: &SwiftOptions) -> Result<Self, StoreError> {
        let client = SwiftClient::new(options).map_err(|reason| StoreError::Misconfigured {
            location: client::location(&options.container, &options.prefix),
            problem: Misconfiguration::BadOptions,
            reason,
            source: None,
        })?;
        let inner = State {
            client: Arc::new(client),
            uploads: Uploads::new(
                Slots::new(options.upload_memory_bytes, SEGMENT_BYTES_MIN),
                &options.retry,
            ),
            deletes_singly: AtomicBool::new(false),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}
