//! Listings: of objects, in the order of their names, and of unfinished uploads.

use std::collections::VecDeque;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use http::Method;

use super::S3Store;
use super::client::{Call, SharedClient};
use super::failure::{Asked, Failure};
use super::probe::PROBE_PREFIX;
use super::slots::PARTS_MAX;
use super::xml::{self, ListPage, PartPage, Unfinished, UploadPage};
use super::{Client, moment};
use crate::retry::Attempts;
use crate::store::moment_before;
use crate::{ObjectMeta, Ours, RetryPolicy, StoreError};

/// A page has at most 1,000 entries; names of 1 KiB, each byte escaped in five, and 300 bytes besides make 5.4 MiB.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// Pages of one listing. 100,000: a hundred million objects, 1.6 PB of WAL in segments of 16 MiB; a server that gives
/// fifty a second is told after half an hour.
const PAGES_MAX: u32 = 100_000;

/// Bytes of one listing: [`PAGES_MAX`] pages of entries of some 300 bytes are 30 GB.
const LISTING_BYTES_MAX: u64 = 64 << 30;

/// Pages in a row on which nothing stands. 1,000: servers that skip deleted names page by page give some, which stand
/// for a million of those.
const EMPTY_PAGES_MAX: u32 = 1000;

/// How long a listing is by now. Whoever answers could go on for ever.
#[derive(Debug, Default)]
struct Extent {
    pages: u32,
    bytes: u64,
    empty: u32,
}

impl Extent {
    /// Notes a page.
    fn note(&mut self, bytes: usize, entries: usize) -> Result<(), Failure> {
        self.pages += 1;
        self.bytes += bytes as u64;
        self.empty = if entries == 0 { self.empty + 1 } else { 0 };
        if self.pages > PAGES_MAX || self.bytes > LISTING_BYTES_MAX || self.empty > EMPTY_PAGES_MAX
        {
            return Err(Failure::Nonsense(format!(
                "a listing does not end: it has {} pages and {} bytes by now, the last {} pages without an entry",
                self.pages, self.bytes, self.empty
            )));
        }
        Ok(())
    }
}

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
struct Page<T> {
    told: T,
    /// The server's clock.
    now: DateTime<Utc>,
    /// Its length.
    bytes: usize,
}

/// Asks for a page of the bucket.
async fn page<T: xml::Told>(client: &Client, query: &[(&str, &str)]) -> Result<Page<T>, Failure> {
    let mut answer = client.call(&Call::bucket(Method::GET).query(query)).await?;
    let now = moment(answer.header("date")).unwrap_or_else(Utc::now);
    let body = answer.read(PAGE_BYTES_MAX).await?;
    Ok(Page {
        told: xml::read(&body)?,
        now,
        bytes: body.len(),
    })
}

impl S3Store {
    /// Discards the unfinished uploads of names of ours below the prefix that nobody has touched for so long. Gives their
    /// number.
    pub(super) async fn discard_stale_uploads(
        &self,
        older_than: Duration,
        ours: Ours,
    ) -> Result<u64, StoreError> {
        let client = &*self.inner.client;
        let (mut key_marker, mut id_marker) = (String::new(), String::new());
        let mut discarded = 0;
        let mut extent = Extent::default();
        loop {
            let query = [
                ("uploads", ""),
                ("prefix", client.prefix()),
                ("key-marker", key_marker.as_str()),
                ("upload-id-marker", id_marker.as_str()),
            ];
            let given = if key_marker.is_empty() { 2 } else { 4 };
            let asked = page::<UploadPage>(client, &query[..given]).await;
            let Page {
                told: page,
                now,
                bytes,
            } = match asked {
                Ok(page) => page,
                Err(Failure::Refused(refusal)) if refusal.is_unsupported() => {
                    tracing::debug!(%refusal, "the store does not list unfinished uploads");
                    return Ok(discarded);
                }
                // Where there is none, some say that it does not exist.
                Err(Failure::Refused(refusal)) if refusal.is(&["NoSuchUpload"]) => {
                    return Ok(discarded);
                }
                Err(failure) => return Err(client.error(failure, Asked::Bucket)),
            };
            let noted = extent.note(bytes, page.uploads.len());
            noted.map_err(|failure| client.error(failure, Asked::Bucket))?;
            let Some(before) = moment_before(now, older_than) else {
                return Ok(discarded);
            };
            let former = (key_marker.clone(), id_marker.clone());
            for upload in &page.uploads {
                discarded += u64::from(self.discard_if_stale(upload, before, ours).await?);
            }
            match (page.next_key_marker, page.next_upload_id_marker) {
                (Some(key), id) if page.is_truncated && !key.is_empty() => {
                    (key_marker, id_marker) = (key, id.unwrap_or_default());
                    // Uploads come in the order of their keys, those of one key by age.
                    if key_marker < former.0 || (&key_marker, &id_marker) == (&former.0, &former.1)
                    {
                        let reason = "a listing of unfinished uploads does not go on".to_owned();
                        return Err(client.error(Failure::Nonsense(reason), Asked::Bucket));
                    }
                }
                _ => return Ok(discarded),
            }
        }
    }

    /// Deletes the objects of trials that were killed. Gives their number.
    pub(super) async fn discard_stale_trials(
        &self,
        older_than: Duration,
    ) -> Result<u64, StoreError> {
        let inner = &*self.inner;
        let Some(before) = moment_before(Utc::now(), older_than) else {
            return Ok(0);
        };
        let mut listed = list(&inner.client, PROBE_PREFIX, &inner.retry).await?;
        let mut discarded = 0;
        while let Some(trial) = listed.try_next().await? {
            if trial.modified <= before {
                self.delete_one(&trial.key).await?;
                discarded += 1;
            }
        }
        Ok(discarded)
    }

    async fn discard_if_stale(
        &self,
        upload: &Unfinished,
        before: DateTime<Utc>,
        ours: Ours,
    ) -> Result<bool, StoreError> {
        if upload.initiated > before {
            return Ok(false);
        }
        let Some(key) = self.inner.client.key_of(&upload.key) else {
            return Ok(false);
        };
        // Below a prefix that is shared, such as the bucket's root, other programs have uploads of their own.
        if !key.as_str().starts_with(PROBE_PREFIX) && !ours(key.as_str()) {
            return Ok(false);
        }
        if self.last_touched(&key, upload).await? > before {
            return Ok(false);
        }
        self.abort(&key, &upload.upload_id).await?;
        tracing::debug!(%key, initiated = %upload.initiated, "an unfinished upload was discarded");
        Ok(true)
    }

    /// When the last part came.
    async fn last_touched(
        &self,
        key: &crate::ObjectKey,
        upload: &Unfinished,
    ) -> Result<DateTime<Utc>, StoreError> {
        let client = &*self.inner.client;
        let mut touched = upload.initiated;
        let (mut marker, mut last_number) = (String::new(), 0);
        loop {
            let query = [
                ("uploadId", upload.upload_id.as_str()),
                ("part-number-marker", marker.as_str()),
            ];
            let given = if marker.is_empty() { 1 } else { 2 };
            let call = Call::object(Method::GET, key)
                .query(&query[..given])
                .headers(&client.customer_key());
            let page: PartPage = match super::upload::long_answer(client, &call, PAGE_BYTES_MAX)
                .await
            {
                Ok(page) => page,
                // Finished or discarded meanwhile: there is nothing left to discard.
                Err(Failure::Refused(refusal)) if refusal.status == http::StatusCode::NOT_FOUND => {
                    return Ok(Utc::now());
                }
                Err(failure) => return Err(client.error(failure, Asked::Object(key))),
            };
            let last = page.parts.iter().map(|part| part.last_modified).max();
            touched = touched.max(last.unwrap_or(touched));
            if !page.is_truncated {
                return Ok(touched);
            }
            let next = page.next_part_number_marker.unwrap_or_default();
            match next.parse::<u32>() {
                Ok(number) if number > last_number && number <= PARTS_MAX => {
                    (marker, last_number) = (next, number);
                }
                // Parts that nobody shows may have come a moment ago: what is not understood stays.
                _ => return Ok(Utc::now()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_has_bounds_in_pages_bytes_and_empty_pages() {
        /// Pages of this kind that are taken.
        fn taken(bytes: usize, entries: usize) -> u32 {
            let mut extent = Extent::default();
            (0..u32::MAX)
                .find(|_| extent.note(bytes, entries).is_err())
                .expect("there is an end")
        }
        assert_eq!(taken(300, 1), PAGES_MAX);
        assert_eq!(taken(300, 0), EMPTY_PAGES_MAX);
        assert_eq!(taken(PAGE_BYTES_MAX, 1000), 8192);
    }
}
