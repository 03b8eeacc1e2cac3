//! A listing that comes in pages, each with a token for the next, in the order of names.

use std::collections::VecDeque;

use async_trait::async_trait;
use chrono::{DateTime, SubsecRound as _, Utc};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::extent::Extent;
use super::failure::Failure;
use crate::retry::Attempts;
use crate::{ObjectKey, ObjectMeta, RetryPolicy, StoreError};

/// A page.
#[derive(Debug, Default)]
pub(crate) struct NamesPage {
    pub(crate) entries: Vec<ListedName>,
    /// How many the store has put there, with those that are left out.
    pub(crate) count: usize,
    /// Its length.
    pub(crate) bytes: usize,
    /// What the next one is asked for with; none when this is the last. A page may be short, or empty, and go on.
    pub(crate) next: Option<String>,
}

/// An object on it.
#[derive(Debug)]
pub(crate) struct ListedName {
    /// Its whole name, which may be somebody else's.
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) modified: DateTime<Utc>,
}

/// What a store lists.
#[async_trait]
pub(crate) trait Pages: Send + Sync + 'static {
    /// Asks for the first page, or for the one after this token.
    async fn page(&self, token: Option<&str>) -> Result<NamesPage, Failure>;

    /// The key of an object, if it is below the prefix and can be one of ours.
    fn key_of(&self, name: &str) -> Option<ObjectKey>;

    /// The failure as the room's error.
    fn error(&self, failure: Failure) -> StoreError;
}

/// A listing that is being read, of which it holds one page.
pub(crate) struct Listing<P> {
    pages: P,
    retry: RetryPolicy,
    page: VecDeque<ListedName>,
    next: Option<String>,
    last: Option<String>,
    extent: Extent,
}

impl<P: Pages> Listing<P> {
    /// The first page is asked for now, so that a failure is one of the call.
    pub(crate) async fn open(pages: P, retry: &RetryPolicy) -> Result<Self, StoreError> {
        let mut listing = Self {
            pages,
            retry: retry.clone(),
            page: VecDeque::new(),
            next: None,
            last: None,
            extent: Extent::default(),
        };
        let first = listing.pages.page(None).await;
        let taken = first.and_then(|page| listing.take(page, None));
        taken.map_err(|failure| listing.pages.error(failure))?;
        Ok(listing)
    }

    /// Whether there is nothing, as far as the first page says.
    pub(crate) fn is_empty(&self) -> bool {
        self.page.is_empty() && self.next.is_none()
    }

    /// The objects that can be ours. After an error it ends.
    pub(crate) fn into_stream(self) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        let entries = stream::unfold(Some(self), |listing| async {
            let mut listing = listing?;
            match listing.entry().await {
                Ok(Some(meta)) => Some((Ok(meta), Some(listing))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        entries.boxed()
    }

    async fn entry(&mut self) -> Result<Option<ObjectMeta>, StoreError> {
        loop {
            while let Some(listed) = self.page.pop_front() {
                // Names that cannot be ours, as a console's folders `name/`, are somebody else's objects.
                if let Some(key) = self.pages.key_of(&listed.name) {
                    return Ok(Some(ObjectMeta {
                        key,
                        size: listed.size,
                        // Whole seconds, because the answers to looks know no others.
                        modified: listed.modified.trunc_subsecs(0),
                    }));
                }
            }
            let Some(token) = self.next.take() else {
                return Ok(None);
            };
            let mut attempts = Attempts::from_failure(&self.retry);
            let page = loop {
                match self.pages.page(Some(&token)).await {
                    Ok(page) => break page,
                    Err(failure) => attempts.pause(self.pages.error(failure)).await?,
                }
            };
            let is_sound = self.take(page, Some(&token));
            is_sound.map_err(|failure| self.pages.error(failure))?;
        }
    }

    /// Takes the page that was asked for with `token`.
    fn take(&mut self, page: NamesPage, token: Option<&str>) -> Result<(), Failure> {
        self.extent.note(page.bytes, page.count)?;
        self.next = page.next.filter(|token| !token.is_empty());
        if self.next.is_some() && self.next.as_deref() == token {
            let problem = "a listing does not go on: its token stays";
            return Err(Failure::Nonsense(problem.to_owned()));
        }
        for listed in page.entries {
            if self.last.as_ref().is_some_and(|last| *last >= listed.name) {
                return Err(Failure::Nonsense(format!(
                    "the listing is not in the order of names: {:?} after {:?}",
                    listed.name, self.last
                )));
            }
            self.last = Some(listed.name.clone());
            self.page.push_back(listed);
        }
        Ok(())
    }
}
