//! A listing of the bucket, page by page.

use std::collections::VecDeque;

use chrono::SubsecRound as _;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http::Method;

use super::bucket::{Request, SharedBucket, Target};
use super::resource::{self, ObjectPage, PAGE_FIELDS};
use crate::http::extent::{Extent, PAGE_BYTES_MAX};
use crate::http::failure::{Asked, Failure};
use crate::retry::Attempts;
use crate::{ObjectMeta, RetryPolicy, StoreError};

/// A listing that is being read, of which it holds one page.
struct Pages {
    bucket: SharedBucket,
    retry: RetryPolicy,
    prefix: String,
    /// The name with which it begins.
    start: Option<String>,
    page: VecDeque<ObjectMeta>,
    next: Option<String>,
    last: Option<String>,
    extent: Extent,
}

/// Lists the objects whose keys start with `prefix`, from the key `from` on.
pub(super) async fn list(
    bucket: &SharedBucket,
    prefix: &str,
    from: Option<&str>,
    retry: &RetryPolicy,
) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
    let mut pages = Pages {
        bucket: bucket.clone(),
        retry: retry.clone(),
        prefix: format!("{}{prefix}", bucket.prefix()),
        start: from.map(|from| format!("{}{from}", bucket.prefix())),
        page: VecDeque::new(),
        next: None,
        last: None,
        extent: Extent::default(),
    };
    // The first page is asked for now, so that a failure is one of the call.
    let first = pages.ask(None).await;
    let (first, bytes) = first.map_err(|failure| bucket.error(failure, Asked::Bucket))?;
    let is_empty = first.items.is_empty() && first.next_page_token.is_none();
    if is_empty && from.is_none() && (prefix.is_empty() || prefix.ends_with('/')) {
        // A folder without anything: is it the archive that is not there, or is it spelled in another way?
        bucket.confirm_spelling().await?;
    }
    pages.take(first, bytes, None)?;
    let entries = stream::unfold(Some(pages), |pages| async {
        let mut pages = pages?;
        match pages.entry().await {
            Ok(Some(meta)) => Some((Ok(meta), Some(pages))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(entries.boxed())
}

impl Pages {
    async fn entry(&mut self) -> Result<Option<ObjectMeta>, StoreError> {
        loop {
            if let Some(meta) = self.page.pop_front() {
                return Ok(Some(meta));
            }
            let Some(token) = self.next.take() else {
                return Ok(None);
            };
            let mut attempts = Attempts::from_failure(&self.retry);
            let (page, bytes) = loop {
                match self.ask(Some(&token)).await {
                    Ok(page) => break page,
                    Err(failure) => {
                        let error = self.bucket.error(failure, Asked::Bucket);
                        attempts.pause(error).await?;
                    }
                }
            };
            self.take(page, bytes, Some(&token))?;
        }
    }

    /// A page, and its length in bytes.
    async fn ask(&self, token: Option<&str>) -> Result<(ObjectPage, usize), Failure> {
        let mut request = Request::new(Method::GET, Target::Objects).query(&[
            ("maxResults", "1000"),
            ("prefix", &self.prefix),
            ("fields", PAGE_FIELDS),
        ]);
        if let Some(start) = &self.start {
            request = request.query(&[("startOffset", start)]);
        }
        if let Some(token) = token {
            request = request.query(&[("pageToken", token)]);
        }
        let mut answer = self.bucket.call(&request).await?;
        let body = answer.read(PAGE_BYTES_MAX).await?;
        Ok((resource::read(&body)?, body.len()))
    }

    /// Takes the page that was asked for with `token`.
    fn take(
        &mut self,
        page: ObjectPage,
        bytes: usize,
        token: Option<&str>,
    ) -> Result<(), StoreError> {
        let noted = self.extent.note(bytes, page.items.len());
        noted.map_err(|failure| self.bucket.error(failure, Asked::Bucket))?;
        self.next = page.next_page_token.filter(|token| !token.is_empty());
        if self.next.is_some() && self.next.as_deref() == token {
            let problem = Failure::Nonsense("a listing does not go on: its token stays".to_owned());
            return Err(self.bucket.error(problem, Asked::Bucket));
        }
        for listed in page.items {
            if self.last.as_ref().is_some_and(|last| *last >= listed.name) {
                let reason = format!(
                    "the listing is not in the order of names: {:?} after {:?}",
                    listed.name, self.last
                );
                return Err(self.bucket.error(Failure::Nonsense(reason), Asked::Bucket));
            }
            // Names that cannot be ours, as a console's folders `name/`, are somebody else's objects.
            if let Some(key) = self.bucket.key_of(&listed.name) {
                self.page.push_back(ObjectMeta {
                    key,
                    size: listed.size,
                    modified: listed.updated.trunc_subsecs(0),
                });
            }
            self.last = Some(listed.name);
        }
        Ok(())
    }
}
