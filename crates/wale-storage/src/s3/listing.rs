//! Listings of objects, in the order of their names.

use std::collections::VecDeque;

use chrono::{DateTime, SubsecRound, Utc};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http::Method;

use super::client::{Call, Client, SharedClient};
use super::xml::{self, ListPage};
use crate::http::extent::{Extent, PAGE_BYTES_MAX};
use crate::http::failure::{Asked, Failure};
use crate::http::text::moment;
use crate::retry::Attempts;
use crate::{ObjectMeta, RetryPolicy, StoreError};

/// A listing that is being read, of which it holds one page.
struct Listing {
    client: SharedClient,
    retry: RetryPolicy,
    prefix: String,
    page: VecDeque<ObjectMeta>,
    next: Option<String>,
    last: Option<String>,
    extent: Extent,
}

/// Lists the objects whose keys start with `prefix`.
pub(super) async fn list(
    client: &SharedClient,
    prefix: &str,
    retry: &RetryPolicy,
) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
    let mut listing = Listing {
        client: client.clone(),
        retry: retry.clone(),
        prefix: format!("{}{prefix}", client.prefix()),
        page: VecDeque::new(),
        next: None,
        last: None,
        extent: Extent::default(),
    };
    // The first page is asked for now, so that a failure is one of the call.
    let first = listing.ask(None).await;
    let first = first.map_err(|failure| client.error(failure, Asked::Bucket))?;
    listing.take(first, None)?;
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

impl Listing {
    async fn entry(&mut self) -> Result<Option<ObjectMeta>, StoreError> {
        loop {
            if let Some(meta) = self.page.pop_front() {
                return Ok(Some(meta));
            }
            let Some(token) = self.next.take() else {
                return Ok(None);
            };
            let mut attempts = Attempts::from_failure(&self.retry);
            let page = loop {
                match self.ask(Some(&token)).await {
                    Ok(page) => break page,
                    Err(failure) => {
                        let error = self.client.error(failure, Asked::Bucket);
                        attempts.pause(error).await?;
                    }
                }
            };
            self.take(page, Some(&token))?;
        }
    }

    async fn ask(&self, token: Option<&str>) -> Result<Page<ListPage>, Failure> {
        let mut query = vec![
            ("list-type", "2"),
            ("max-keys", "1000"),
            ("prefix", self.prefix.as_str()),
        ];
        query.extend(token.map(|token| ("continuation-token", token)));
        page(&self.client, &query).await
    }

    /// Takes the page that was asked for with `token`.
    fn take(&mut self, page: Page<ListPage>, token: Option<&str>) -> Result<(), StoreError> {
        let Page {
            told: page, bytes, ..
        } = page;
        let noted = self.extent.note(bytes, page.contents.len());
        noted.map_err(|failure| self.client.error(failure, Asked::Bucket))?;
        self.next = page
            .next_continuation_token
            .filter(|token| page.is_truncated && !token.is_empty());
        if page.is_truncated && self.next.is_none() {
            let problem = Failure::Nonsense("a listing that goes on does not say where".to_owned());
            return Err(self.client.error(problem, Asked::Bucket));
        }
        if self.next.is_some() && self.next.as_deref() == token {
            let problem = Failure::Nonsense("a listing does not go on: its token stays".to_owned());
            return Err(self.client.error(problem, Asked::Bucket));
        }
        for listed in page.contents {
            if self.last.as_ref().is_some_and(|last| *last >= listed.key) {
                let reason = format!(
                    "the listing is not in the order of names: {:?} after {:?}",
                    listed.key, self.last
                );
                return Err(self.client.error(Failure::Nonsense(reason), Asked::Bucket));
            }
            // Names that cannot be ours, as a console's folders `name/`, are somebody else's objects.
            if let Some(key) = self.client.key_of(&listed.key) {
                self.page.push_back(ObjectMeta {
                    key,
                    size: listed.size,
                    modified: listed.last_modified.trunc_subsecs(0),
                });
            }
            self.last = Some(listed.key);
        }
        Ok(())
    }
}

/// A page of the bucket.
pub(super) struct Page<T> {
    pub(super) told: T,
    /// The server's clock.
    pub(super) now: DateTime<Utc>,
    /// Its length.
    pub(super) bytes: usize,
}

/// Asks for a page of the bucket.
pub(super) async fn page<T: xml::AnswerBody>(
    client: &Client,
    query: &[(&str, &str)],
) -> Result<Page<T>, Failure> {
    let mut answer = client.call(&Call::bucket(Method::GET).query(query)).await?;
    let now = moment(answer.header("date")).unwrap_or_else(Utc::now);
    let body = answer.read(PAGE_BYTES_MAX).await?;
    Ok(Page {
        told: xml::read(&body)?,
        now,
        bytes: body.len(),
    })
}
