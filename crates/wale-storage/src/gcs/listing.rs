//! Listings of the bucket: how a page is asked for, and what is on it.

use async_trait::async_trait;
use http::Method;

use super::bucket::{Request, SharedBucket, Target};
use super::resource::{self, ObjectPage, PAGE_FIELDS};
use crate::http::extent::PAGE_BYTES_MAX;
use crate::http::failure::{Asked, Failure};
use crate::http::listing::{ListedName, NamesPage, Pages};
use crate::{ObjectKey, StoreError};

/// The objects whose names begin so.
pub(super) struct ListedBelow {
    bucket: SharedBucket,
    prefix: String,
    /// The name with which it begins.
    from: Option<String>,
}

impl ListedBelow {
    /// Those whose keys begin with `prefix`, from the key `from` on.
    pub(super) fn new(bucket: &SharedBucket, prefix: &str, from: Option<&str>) -> Self {
        Self {
            bucket: bucket.clone(),
            prefix: format!("{}{prefix}", bucket.prefix()),
            from: from.map(|from| format!("{}{from}", bucket.prefix())),
        }
    }
}

#[async_trait]
impl Pages for ListedBelow {
    async fn page(&self, token: Option<&str>) -> Result<NamesPage, Failure> {
        let mut request = Request::new(Method::GET, Target::Objects).query(&[
            ("maxResults", "1000"),
            ("prefix", &self.prefix),
            ("fields", PAGE_FIELDS),
        ]);
        if let Some(start) = &self.from {
            request = request.query(&[("startOffset", start)]);
        }
        if let Some(token) = token {
            request = request.query(&[("pageToken", token)]);
        }
        let mut answer = self.bucket.call(&request).await?;
        let body = answer.read(PAGE_BYTES_MAX).await?;
        let told: ObjectPage = resource::read(&body)?;
        let entries = told.items.into_iter().map(|listed| ListedName {
            name: listed.name,
            size: listed.size,
            modified: listed.updated,
        });
        Ok(NamesPage {
            count: entries.len(),
            entries: entries.collect(),
            bytes: body.len(),
            next: told.next_page_token,
        })
    }

    fn key_of(&self, name: &str) -> Option<ObjectKey> {
        self.bucket.key_of(name)
    }

    fn error(&self, failure: Failure) -> StoreError {
        self.bucket.error(failure, Asked::Bucket)
    }
}
