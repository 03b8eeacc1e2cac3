//! The file store.
use std::path::PathBuf;
use std::time::Duration;
use async_trait::async_trait;
use futures_util::stream::BoxStream;
use crate::{Body, Object, ObjectKey, ObjectMeta, PutOutcome, Store, StoreError};

/// Where a file store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStoreOptions {
    /// Absolute path of the root folder.
    pub root: PathBuf,
    /// Whether the root folder is made, with its parents, when it does not exist.
    pub create: bool,
}

/// Objects as files below a folder.
#[derive(Debug)]
pub struct FileStore {
    options: FileStoreOptions,
}

impl FileStore {
    /// Opens the store. A root that does not exist is no error here: every verb then says `Unavailable`.
    ///
    /// # Errors
    /// When the root is not absolute, or cannot be created.
    pub fn open(options: FileStoreOptions) -> Result<Self, StoreError> {
        Ok(Self { options })
    }
    /// Removes the temporary files that have not been written to for `older_than`; answers their number.
    ///
    /// # Errors
    /// Those of every verb.
    pub async fn sweep_temporary(&self, older_than: Duration) -> Result<u64, StoreError> {
        let _ = older_than;
        todo!()
    }
}

#[async_trait]
impl Store for FileStore {
    async fn put_if_absent(&self, _key: &ObjectKey, _body: Body) -> Result<PutOutcome, StoreError> {
        todo!()
    }
    async fn put(&self, _key: &ObjectKey, _body: Body) -> Result<ObjectMeta, StoreError> {
        todo!()
    }
    async fn get(&self, _key: &ObjectKey) -> Result<Object, StoreError> {
        todo!()
    }
    async fn head(&self, _key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        todo!()
    }
    async fn list(&self, _prefix: &str) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        todo!()
    }
    async fn delete(&self, _key: &ObjectKey) -> Result<(), StoreError> {
        todo!()
    }
    fn location(&self) -> String {
        self.options.root.display().to_string()
    }
    async fn check(&self) -> Result<(), StoreError> {
        todo!()
    }
}
