//! Listings of blobs, in the order of their names.

use std::collections::VecDeque;

use chrono::SubsecRound;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http::Method;

use super::client::{BlobCall, SharedContainer};
use super::xml::{self, BlobPage};
use crate::http::extent::{Extent, PAGE_BYTES_MAX};
use crate::http::failure::{Asked, Failure};
use crate::http::text::moment;
use crate::retry::Attempts;
use crate::{ObjectMeta, RetryPolicy, StoreError};

/// A listing that is being read, of which it holds one page.
struct BlobListing {
    client: SharedContainer,
    retry: RetryPolicy,
    prefix: String,
    page: VecDeque<ObjectMeta>,
    next: Option<String>,
    last: Option<String>,
    extent: Extent,
}

/// Lists the objects whose keys start with `prefix`.
pub(super) async fn list(
    client: &SharedContainer,
    prefix: &str,
    retry: &RetryPolicy,
) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
    let mut listing = BlobListing {
        client: client.clone(),
        retry: retry.clone(),
        prefix: format!("{}{prefix}", client.prefix()),
        page: VecDeque::new(),
        next: None,
        last: None,
        extent: Extent::default(),
    };
    // The first page is asked for now, so that a failure is one of the call.
    let first = listing
        .ask(None)
        .await
        .and_then(|page| listing.take(page, None));
    first.map_err(|failure| client.error(failure, Asked::Bucket))?;
    let entries = stream::unfold(Some(listing), |listing| async {
        let mut listing = listing?;
        match listing.entry().await {
            Ok(Some(meta)) => Some((Ok(meta), Some(listing))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(entries.boxed())
}

impl BlobListing {
    async fn entry(&mut self) -> Result<Option<ObjectMeta>, StoreError> {
        loop {
            if let Some(meta) = self.page.pop_front() {
                return Ok(Some(meta));
            }
            let Some(marker) = self.next.take() else {
                return Ok(None);
            };
            let retry = self.retry.clone();
            let mut attempts = Attempts::from_failure(&retry);
            let page = loop {
                match self.ask(Some(&marker)).await {
                    Ok(page) => break page,
                    Err(failure) => {
                        let error = self.client.error(failure, Asked::Bucket);
                        attempts.pause(error).await?;
                    }
                }
            };
            let taken = self.take(page, Some(&marker));
            taken.map_err(|failure| self.client.error(failure, Asked::Bucket))?;
        }
    }

    /// A page, and its length in bytes.
    async fn ask(&self, marker: Option<&str>) -> Result<(BlobPage, usize), Failure> {
        // A page of 1,000 is well below the bound of a page (`http::extent`); 5,000, the most, need not be.
        let mut query = vec![
            ("restype", "container"),
            ("comp", "list"),
            ("maxresults", "1000"),
            ("prefix", self.prefix.as_str()),
        ];
        query.extend(marker.map(|marker| ("marker", marker)));
        let call = BlobCall::container(Method::GET).query(&query);
        let body = self.client.call(&call).await?.read(PAGE_BYTES_MAX).await?;
        Ok((xml::read(&body)?, body.len()))
    }

    /// Takes the page that was asked for with `marker`. A page may be short, or empty, and go on.
    fn take(&mut self, page: (BlobPage, usize), marker: Option<&str>) -> Result<(), Failure> {
        let (page, bytes) = page;
        self.extent.note(bytes, page.blobs.blob.len())?;
        self.next = page.next_marker.filter(|marker| !marker.is_empty());
        if self.next.is_some() && self.next.as_deref() == marker {
            let problem = "a listing does not go on: its marker stays";
            return Err(Failure::Nonsense(problem.to_owned()));
        }
        for listed in &page.blobs.blob {
            // Names that cannot be ours, and folders, are somebody else's.
            let Some(name) = listed.name().filter(|_| !listed.is_folder()) else {
                continue;
            };
            if let Some(last) = self.last.as_deref().filter(|last| *last >= name) {
                return Err(Failure::Nonsense(format!(
                    "the listing is not in the order of names: {name:?} after {last:?}"
                )));
            }
            if let Some(key) = self.client.key_of(name) {
                let properties = &listed.properties;
                let modified = moment(Some(&properties.last_modified)).ok_or_else(|| {
                    Failure::Nonsense("a blob without a time in a listing".to_owned())
                })?;
                self.page.push_back(ObjectMeta {
                    key,
                    size: properties.content_length,
                    modified: modified.trunc_subsecs(0),
                });
            }
            self.last = Some(name.to_owned());
        }
        Ok(())
    }
}
