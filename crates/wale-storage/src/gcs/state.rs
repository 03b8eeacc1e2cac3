//! The store's value: what its verbs share.

use std::sync::Arc;

use super::bucket::{self, Bucket};
use super::options::{self, GcsEncryption, GcsOptions};
use crate::http::writes::Uploads;
use crate::{Misconfiguration, StoreError};

/// Objects in a bucket of Google Cloud Storage, below a prefix. Clones share connections, tokens and memory.
#[derive(Debug, Clone)]
pub struct GcsStore {
    pub(super) inner: Arc<GcsInner>,
}

#[derive(Debug)]
pub(super) struct GcsInner {
    pub(super) bucket: Arc<Bucket>,
    pub(super) storage_class: Option<String>,
    /// The name of a key of the key management service.
    pub(super) kms_key: Option<String>,
    pub(super) uploads: Uploads,
    pub(super) is_google: bool,
}

impl GcsStore {
    /// Sets the store up. Reads the file of certificates, if there is one, and asks nobody.
    ///
    /// # Errors
    ///
    /// [`StoreError::Misconfigured`] when an option cannot be used.
    pub fn open(options: &GcsOptions) -> Result<Self, StoreError> {
        let unusable = |reason: String| StoreError::Misconfigured {
            location: bucket::location(&options.bucket, &options.prefix),
            problem: Misconfiguration::BadOptions,
            reason,
            source: None,
        };
        let kms_key = match &options.encryption {
            GcsEncryption::Kms(key) => Some(key.clone()),
            GcsEncryption::BucketDefault | GcsEncryption::CustomerKey(_) => None,
        };
        let inner = GcsInner {
            bucket: Arc::new(Bucket::new(options).map_err(unusable)?),
            storage_class: options.storage_class.clone(),
            kms_key,
            uploads: Uploads::new(options::slots(options.upload_memory_bytes), &options.retry),
            is_google: options.endpoint.is_none(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}
