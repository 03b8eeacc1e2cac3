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
use super::xml::{self, ListPage, PartPage, Unfinished, UploadPage};
use super::{Client, moment};
use crate::retry::Attempts;
use crate::{ObjectMeta, Ours, RetryPolicy, StoreError};

/// A page has at most 1,000 entries; names of 1 KiB, each byte escaped in five, and 300 bytes besides make 5.4 MiB.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// A listing that is being read, of which it holds one page.
struct Listing {
    client: SharedClient,
    retry: RetryPolicy,
    prefix: String,
    page: VecDeque<ObjectMeta>,
    next: Option<String>,
    last: Option<String>,
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
    };
    // The first page is asked for now, so that a failure is one of the call.
    let first = listing.ask(None).await;
    let first = first.map_err(|failure| client.error(failure, Asked::Bucket))?;
    listing.take(first)?;
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
            self.take(page)?;
        }
    }

    async fn ask(&self, token: Option<&str>) -> Result<ListPage, Failure> {
        let mut query = vec![
            ("list-type", "2"),
            ("max-keys", "1000"),
            ("prefix", self.prefix.as_str()),
        ];
        query.extend(token.map(|token| ("continuation-token", token)));
        page(&self.client, &query).await.map(|(page, _)| page)
    }

    fn take(&mut self, page: ListPage) -> Result<(), StoreError> {
        self.next = page
            .next_continuation_token
            .filter(|token| page.is_truncated && !token.is_empty());
        if page.is_truncated && self.next.is_none() {
            let problem = Failure::Nonsense("a listing that goes on does not say where".to_owned());
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

/// A page of the bucket, and the server's clock.
async fn page<T: xml::Told>(
    client: &Client,
    query: &[(&str, &str)],
) -> Result<(T, DateTime<Utc>), Failure> {
    let mut answer = client.call(&Call::bucket(Method::GET).query(query)).await?;
    let now = moment(answer.header("date")).unwrap_or_else(Utc::now);
    Ok((xml::read(&answer.read(PAGE_BYTES_MAX).await?)?, now))
}

impl S3Store {
    /// Discards the unfinished uploads below the prefix that nobody has touched for so long. Gives their number.
    pub(super) async fn discard_stale_uploads(
        &self,
        older_than: Duration,
        ours: Ours,
    ) -> Result<u64, StoreError> {
        let client = &*self.inner.client;
        let (mut key_marker, mut id_marker) = (String::new(), String::new());
        let mut discarded = 0;
        loop {
            let query = [
                ("uploads", ""),
                ("prefix", client.prefix()),
                ("key-marker", key_marker.as_str()),
                ("upload-id-marker", id_marker.as_str()),
            ];
            let given = if key_marker.is_empty() { 2 } else { 4 };
            let (page, now): (UploadPage, _) = match page(client, &query[..given]).await {
                Ok(page) => page,
                Err(Failure::Refused(refusal)) if refusal.is_unsupported() => {
                    tracing::debug!(%refusal, "the store does not list unfinished uploads");
                    return Ok(discarded);
                }
                Err(failure) => return Err(client.error(failure, Asked::Bucket)),
            };
            let before = now - older_than;
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
        let mut listed = list(&inner.client, PROBE_PREFIX, &inner.retry).await?;
        let before = Utc::now() - older_than;
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
                .headers(client.customer_key());
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
                Ok(number) if number > last_number => (marker, last_number) = (next, number),
                // Parts that nobody shows may have come a moment ago: what is not understood stays.
                _ => return Ok(Utc::now()),
            }
        }
    }
}
