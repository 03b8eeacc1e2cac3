//! Listings of objects, in the order of their names.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http::Method;

use super::client::{About, SharedSwift, SwiftCall};
use super::documents::{Entry, read_json};
use crate::http::extent::{Extent, PAGE_BYTES_MAX};
use crate::http::failure::{Asked, Failure};
use crate::http::text::moment;
use crate::retry::Attempts;
use crate::{ObjectMeta, RetryPolicy, StoreError};

/// Names on a page. 1,000: what [`PAGE_BYTES_MAX`] has room for, whatever the names are; Swift would give ten thousand.
const NAMES: &str = "1000";

/// Names of the container that begin alike, page by page.
pub(super) struct Names {
    client: SharedSwift,
    retry: RetryPolicy,
    /// What they begin with, whole.
    prefix: String,
    page: VecDeque<Entry>,
    /// The last name that came; what is asked for next is behind it.
    marker: String,
    is_at_end: bool,
    extent: Extent,
    /// The server's clock, as of the last page.
    pub(super) now: DateTime<Utc>,
}

impl Names {
    /// The first page is asked for now, so that a failure is one of the call.
    pub(super) async fn open(
        client: &SharedSwift,
        retry: &RetryPolicy,
        prefix: String,
        after: String,
    ) -> Result<Self, StoreError> {
        let mut names = Self {
            client: client.clone(),
            retry: retry.clone(),
            prefix,
            page: VecDeque::new(),
            marker: after,
            is_at_end: false,
            extent: Extent::default(),
            now: Utc::now(),
        };
        let first = names.ask().await;
        let first = first.map_err(|failure| client.error(failure, Asked::Bucket))?;
        names.take(first)?;
        Ok(names)
    }

    /// The next name.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>, StoreError> {
        loop {
            if let Some(entry) = self.page.pop_front() {
                return Ok(Some(entry));
            }
            if self.is_at_end {
                return Ok(None);
            }
            let retry = self.retry.clone();
            let mut attempts = Attempts::from_failure(&retry);
            let page = loop {
                match self.ask().await {
                    Ok(page) => break page,
                    Err(failure) => {
                        let error = self.client.error(failure, Asked::Bucket);
                        attempts.pause(error).await?;
                    }
                }
            };
            self.take(page)?;
        }
    }

    async fn ask(&self) -> Result<ListedPage, Failure> {
        let mut query = vec![
            ("format", "json"),
            ("limit", NAMES),
            ("prefix", self.prefix.as_str()),
        ];
        if !self.marker.is_empty() {
            query.push(("marker", &self.marker));
        }
        let call = SwiftCall::new(Method::GET, About::Container).query(&query);
        let mut answer = match self.client.call(&call).await {
            // The operator's limit is lower than ours: the server's own counts then.
            Err(Failure::Refused(refusal)) if refusal.is_existence() => {
                query.retain(|(name, _)| *name != "limit");
                let call = SwiftCall::new(Method::GET, About::Container).query(&query);
                self.client.call(&call).await?
            }
            other => other?,
        };
        let now = moment(answer.header("date")).unwrap_or_else(Utc::now);
        // Servers that have nothing to list may say so by a status alone.
        let body = answer.read(PAGE_BYTES_MAX).await?;
        let entries = match body.len() {
            0 if answer.status == http::StatusCode::NO_CONTENT => Vec::new(),
            _ => read_json(&body)?,
        };
        Ok(ListedPage {
            entries,
            now,
            bytes: body.len(),
        })
    }

    fn take(&mut self, page: ListedPage) -> Result<(), StoreError> {
        let nonsense = |client: &SharedSwift, failure| Err(client.error(failure, Asked::Bucket));
        let ListedPage {
            entries,
            now,
            bytes,
        } = page;
        if let Err(failure) = self.extent.note(bytes, entries.len()) {
            return nonsense(&self.client, failure);
        }
        self.now = now;
        // A page may be short for reasons of the server's, which puts together what many disks have: only an empty one
        // is the end.
        self.is_at_end = entries.is_empty();
        for entry in entries {
            if entry.name <= self.marker || !entry.name.starts_with(&self.prefix) {
                let reason = format!(
                    "the listing is not in the order of names: {:?} after {:?}",
                    entry.name, self.marker
                );
                return nonsense(&self.client, Failure::Nonsense(reason));
            }
            self.marker.clone_from(&entry.name);
            self.page.push_back(entry);
        }
        Ok(())
    }
}

/// A page of the container.
struct ListedPage {
    entries: Vec<Entry>,
    now: DateTime<Utc>,
    /// Its length.
    bytes: usize,
}

/// Lists the objects whose keys start with `prefix` and come after `after`, if that is one.
pub(super) async fn list(
    client: &SharedSwift,
    retry: &RetryPolicy,
    prefix: &str,
    after: &str,
) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
    let marker = match after {
        "" => String::new(),
        after => client.name_of(after),
    };
    let names = Names::open(client, retry, client.name_of(prefix), marker).await?;
    if names.page.is_empty() {
        client.confirm_spelling().await?;
    }
    let entries = stream::unfold(Some(names), |names| async {
        let mut names = names?;
        match next_object(&mut names).await {
            Ok(Some(meta)) => Some((Ok(meta), Some(names))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(entries.boxed())
}

async fn next_object(names: &mut Names) -> Result<Option<ObjectMeta>, StoreError> {
    while let Some(entry) = names.next().await? {
        // Names that cannot be ours, as a console's folders `name/`, are somebody else's objects.
        let Some(key) = names.client.key_of(&entry.name) else {
            continue;
        };
        let modified = entry.modified();
        return Ok(Some(ObjectMeta {
            key,
            size: entry.bytes,
            modified: modified.map_err(|failure| names.client.error(failure, Asked::Bucket))?,
        }));
    }
    Ok(None)
}
