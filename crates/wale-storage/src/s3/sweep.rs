//! Remains of work that died half-way and that nobody notes any more: unfinished uploads, discarded when they are old.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::Method;

use super::client::Call;
use super::listing::{Page, page};
use super::options::PARTS_MAX;
use super::state::S3Store;
use super::xml::{PartPage, Unfinished, UploadPage};
use crate::http::extent::{Extent, PAGE_BYTES_MAX};
use crate::http::failure::{Asked, Failure};
use crate::http::probe::TRIAL_PREFIX;
use crate::store::moment_before;
use crate::{ObjectKey, Ours, StoreError};

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
        if !key.as_str().starts_with(TRIAL_PREFIX) && !ours(key.as_str()) {
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
        key: &ObjectKey,
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
            let page: PartPage = match client.long_answer(&call, PAGE_BYTES_MAX).await {
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
