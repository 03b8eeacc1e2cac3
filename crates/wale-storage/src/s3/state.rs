//! The store's value: what its verbs share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::HeaderMap;
use tokio::sync::OnceCell;

use super::client::{self, Client};
use super::headers;
use super::options::{PART_BYTES_MIN, S3Options, UploadChecksum};
use crate::http::slots::Slots;
use crate::http::writes::Uploads;
use crate::{Misconfiguration, StoreError};

/// Objects in a bucket, below a prefix. Clones share connections, keys and memory.
#[derive(Debug, Clone)]
pub struct S3Store {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) client: Arc<Client>,
    pub(super) checksum: UploadChecksum,
    pub(super) object_headers: HeaderMap,
    pub(super) uploads: Uploads,
    pub(super) is_amazon: bool,
    pub(super) body_check: OnceCell<BodyCheck>,
    pub(super) deletes_singly: AtomicBool,
}

impl S3Store {
    /// Sets the store up. Reads the file of certificates, if there is one, and asks nobody.
    ///
    /// # Errors
    ///
    /// [`StoreError::Misconfigured`] when an option cannot be used.
    pub fn open(options: &S3Options) -> Result<Self, StoreError> {
        let unusable = |reason: String| StoreError::Misconfigured {
            location: client::location(&options.bucket, &options.prefix),
            problem: Misconfiguration::BadOptions,
            reason,
            source: None,
        };
        let inner = Inner {
            client: Arc::new(Client::new(options).map_err(unusable)?),
            checksum: options.checksum,
            object_headers: headers::object_headers(options).map_err(unusable)?,
            uploads: Uploads::new(
                Slots::new(options.upload_memory_bytes, PART_BYTES_MIN),
                &options.retry,
            ),
            is_amazon: options.endpoint.is_none(),
            body_check: OnceCell::new(),
            deletes_singly: AtomicBool::new(false),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}

/// The side that makes sure that a stored body is the one that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyCheck {
    /// The server, by the checksum that comes with it.
    Server,
    /// We, by the digest that the server answers with.
    Answer,
    /// Nobody, until the object is read back.
    Nobody,
}
