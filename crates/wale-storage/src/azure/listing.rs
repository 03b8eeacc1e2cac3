//! Listings of the container: how a page is asked for, and what is on it.

use async_trait::async_trait;
use http::Method;

use super::client::{BlobCall, SharedContainer};
use super::xml::{self, BlobPage};
use crate::http::extent::PAGE_BYTES_MAX;
use crate::http::failure::{Asked, Failure};
use crate::http::listing::{ListedName, NamesPage, Pages};
use crate::http::text::moment;
use crate::{ObjectKey, StoreError};

/// The blobs whose names begin so.
pub(super) struct BlobsBelow {
    client: SharedContainer,
    start: String,
}

impl BlobsBelow {
    /// Those whose keys begin with `prefix`.
    pub(super) fn new(client: &SharedContainer, prefix: &str) -> Self {
        Self {
            client: client.clone(),
            start: format!("{}{prefix}", client.prefix()),
        }
    }
}

#[async_trait]
impl Pages for BlobsBelow {
    async fn page(&self, token: Option<&str>) -> Result<NamesPage, Failure> {
        // A page of 1,000 is well below the bound of a page (`http::extent`); 5,000, the most, need not be.
        let mut query = vec![
            ("restype", "container"),
            ("comp", "list"),
            ("maxresults", "1000"),
            ("prefix", self.start.as_str()),
        ];
        query.extend(token.map(|marker| ("marker", marker)));
        let call = BlobCall::container(Method::GET).query(&query);
        let body = self.client.call(&call).await?.read(PAGE_BYTES_MAX).await?;
        let told: BlobPage = xml::read(&body)?;
        let mut entries = Vec::new();
        for listed in &told.blobs.blob {
            // Names that cannot be ours, and folders, are somebody else's.
            let Some(name) = listed.name().filter(|_| !listed.is_folder()) else {
                continue;
            };
            let properties = &listed.properties;
            let modified = moment(Some(&properties.last_modified)).ok_or_else(|| {
                Failure::Nonsense("a blob without a time in a listing".to_owned())
            })?;
            entries.push(ListedName {
                name: name.to_owned(),
                size: properties.content_length,
                modified,
            });
        }
        Ok(NamesPage {
            entries,
            count: told.blobs.blob.len(),
            bytes: body.len(),
            next: told.next_marker,
        })
    }

    fn key_of(&self, name: &str) -> Option<ObjectKey> {
        self.client.key_of(name)
    }

    fn error(&self, failure: Failure) -> StoreError {
        self.client.error(failure, Asked::Bucket)
    }
}
