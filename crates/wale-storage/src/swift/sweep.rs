//! Remains of work that died half-way and that nobody notes any more: segments without an object, discarded when they are
//! old.
//!
//! A segment is in use as long as the object of its name lists it, whatever else is known of that object: a list that
//! cannot be had, or read, keeps it.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use http::Method;

use super::documents::{Entry, ListedSegment, read_json};
use super::listing::Names;
use super::names::is_same;
use super::segments::{self, SegmentName};
use super::state::SwiftStore;
use crate::http::failure::{Asked, Failure};
use crate::http::probe::TRIAL_PREFIX;
use crate::http::transport::Answer;
use crate::retry::Attempts;
use crate::store::moment_before;
use crate::{ObjectKey, Ours, StoreError};

/// Uploads that are looked up together. 32: with a thousand segments each, whose names have 1 KiB, they take 34 MB; those
/// of a usual archive, two hundred with names of 150 bytes, 1.2 MB.
const UPLOADS_AT_A_TIME: usize = 32;

/// A list of a thousand segments whose names have 1 KiB, each byte escaped in six, and 200 bytes besides: 6.3 MiB.
const LIST_BYTES_MAX: usize = 8 << 20;

/// The segments of one upload, as they are listed.
struct Group {
    of: SegmentName,
    names: Vec<String>,
    hashes: Vec<String>,
    touched: DateTime<Utc>,
}

/// What the object of the name says of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It is made of them.
    ByItsObject,
    /// It is made of others, or of none.
    ByNone,
    /// There is no such object.
    WithoutObject,
}

impl Group {
    /// Whether the object that is listed so is made of these.
    fn makes(&self, listed: &Entry) -> bool {
        let digest = segments::digest(self.hashes.iter().map(String::as_str));
        let told = listed.slo_etag.as_deref();
        told.is_some_and(|told| is_same(told, &digest))
    }
}

impl SwiftStore {
    /// Discards the segments below the prefix that no object of ours lists and that nobody has touched for so long. Gives
    /// the number of uploads.
    pub(super) async fn discard_orphans(
        &self,
        older_than: Duration,
        ours: Ours,
    ) -> Result<u64, StoreError> {
        let inner = &*self.inner;
        let client = &inner.client;
        let all = segments::all(client);
        let mut names = Names::open(client, &inner.uploads.retry, all, String::new()).await?;
        let Some(before) = moment_before(names.now, older_than) else {
            return Ok(0);
        };
        let (mut groups, mut discarded): (Vec<Group>, u64) = (Vec::new(), 0);
        while let Some(entry) = names.next().await? {
            // Below a prefix that is shared, such as the container's root, others have objects of their own.
            let Some(of) = segments::take_apart(client, &entry.name) else {
                continue;
            };
            let touched = entry
                .modified()
                .map_err(|failure| client.error(failure, Asked::Bucket))?;
            match groups.last_mut() {
                Some(group) if group.of == of => {
                    group.touched = group.touched.max(touched);
                    group.names.push(entry.name);
                    group.hashes.push(entry.hash);
                }
                _ => {
                    if groups.len() == UPLOADS_AT_A_TIME {
                        let found = std::mem::take(&mut groups);
                        discarded += self.discard_unused(found, before, ours).await?;
                    }
                    groups.push(Group {
                        of,
                        names: vec![entry.name],
                        hashes: vec![entry.hash],
                        touched,
                    });
                }
            }
        }
        Ok(discarded + self.discard_unused(groups, before, ours).await?)
    }

    async fn discard_unused(
        &self,
        groups: Vec<Group>,
        before: DateTime<Utc>,
        ours: Ours,
    ) -> Result<u64, StoreError> {
        let is_old = |group: &Group| {
            let key = group.of.key.as_str();
            group.touched <= before && (key.starts_with(TRIAL_PREFIX) || ours(key))
        };
        let groups: Vec<Group> = groups.into_iter().filter(is_old).collect();
        let listed = self.listed(&groups).await?;
        let mut discarded = 0;
        for group in groups {
            let entry = listed.get(&group.of.key);
            if entry.is_some_and(|entry| group.makes(entry)) {
                continue;
            }
            match self.use_of(&group).await? {
                Use::ByItsObject => continue,
                // The listing and the object say different things: what is not understood stays.
                Use::WithoutObject if entry.is_some() => continue,
                Use::WithoutObject | Use::ByNone => {}
            }
            let failed = self.delete_names(&group.names).await;
            if let Some((_, failure)) = failed.into_iter().next() {
                return Err(self
                    .inner
                    .client
                    .error(failure, Asked::Object(&group.of.key)));
            }
            tracing::debug!(key = %group.of.key, segments = group.names.len(), "an unfinished upload was discarded");
            discarded += 1;
        }
        Ok(discarded)
    }

    /// What the listing has of the objects of these. That it lacks one says nothing.
    async fn listed(&self, groups: &[Group]) -> Result<HashMap<ObjectKey, Entry>, StoreError> {
        let inner = &*self.inner;
        let client = &inner.client;
        let keys = || groups.iter().map(|group| &group.of.key);
        let (Some(first), Some(last)) = (keys().min(), keys().max()) else {
            return Ok(HashMap::new());
        };
        let wanted: std::collections::HashSet<&ObjectKey> = keys().collect();
        let last = client.name_of(last.as_str());
        // Names are asked for behind one: the one before the first.
        let mut before = client.name_of(first.as_str());
        before.pop();
        let mut names =
            Names::open(client, &inner.uploads.retry, client.name_of(""), before).await?;
        let mut listed = HashMap::new();
        while let Some(entry) = names.next().await? {
            if entry.name > last {
                break;
            }
            if let Some(key) = client.key_of(&entry.name)
                && wanted.contains(&key)
            {
                listed.insert(key, entry);
            }
        }
        Ok(listed)
    }

    /// What the object of the name says of these segments in its own list.
    async fn use_of(&self, group: &Group) -> Result<Use, StoreError> {
        let client = &self.inner.client;
        let key = &group.of.key;
        let call = client
            .object(Method::GET, key)
            .query(&[("multipart-manifest", "get")])
            .newest();
        let mut attempts = Attempts::from_failure(&self.inner.uploads.retry);
        loop {
            let failure = match client.call(&call).await {
                Ok(answer) => match self.read_use(answer, group).await {
                    Ok(found) => return Ok(found),
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            let error = match failure.refusal() {
                Some(refusal) if refusal.may_be_absence() => {
                    match client.confirm_absence(key, &failure).await {
                        Ok(()) => return Ok(Use::WithoutObject),
                        Err(error) => error,
                    }
                }
                _ => client.error(failure, Asked::Object(key)),
            };
            attempts.pause(error).await?;
        }
    }

    async fn read_use(&self, mut answer: Answer, group: &Group) -> Result<Use, Failure> {
        if answer.header("etag").is_none() || answer.header("x-trans-id").is_none() {
            let reason = "an object without an ETag or the number of the request";
            return Err(Failure::Nonsense(reason.to_owned()));
        }
        if answer.header("x-static-large-object").is_none() {
            return Ok(Use::ByNone);
        }
        let list: Vec<ListedSegment> = read_json(&answer.read(LIST_BYTES_MAX).await?)?;
        let client = &self.inner.client;
        let upload = segments::of_upload(client, &group.of.key, &group.of.mark);
        let start = format!("/{}/{upload}", client.container());
        let is_used = list.iter().any(|line| line.name.starts_with(&start));
        Ok(if is_used {
            Use::ByItsObject
        } else {
            Use::ByNone
        })
    }
}
