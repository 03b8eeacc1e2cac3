//! Deleting: one object, or a thousand in a request.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;

use http::Method;

use super::client::{About, SwiftCall};
use super::documents::Deletion;
use super::listing::Names;
use super::refusal;
use super::segments;
use super::state::SwiftStore;
use crate::http::deletions::each;
use crate::http::failure::{Asked, Failure};
use crate::http::text::escape_path;
use crate::{ObjectKey, StoreError};

/// Names in one request. Swift takes 10,000; a thousand take it some ten seconds, and it sends a sign of life every ten.
const NAMES_MAX: usize = 1000;

/// Requests at a time to a store that deletes one object in each.
const SINGLE_AT_A_TIME: usize = 8;

/// The answer names at most the objects of the request that are left, with some words each: 1,000 of 3 KiB.
const RESULT_BYTES_MAX: usize = 4 << 20;

impl SwiftStore {
    /// Deletes one object, with its segments if it has any.
    pub(super) async fn delete_one(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let client = &self.inner.client;
        let call = client
            .object(Method::DELETE, key)
            .query(&[("multipart-manifest", "delete")])
            .header("accept", "application/json");
        let failure = match client
            .document(&call, RESULT_BYTES_MAX, Deletion::read)
            .await
        {
            // The second: without a document the object is gone, as any other.
            Ok(None) => return Ok(()),
            Ok(Some(told)) if told.is_success() => return Ok(()),
            Ok(Some(told)) if told.is_not_large() => {
                let name = client.name_of(key.as_str());
                match self.delete_name(&name).await {
                    Ok(()) => return Ok(()),
                    Err(failure) => failure,
                }
            }
            Ok(Some(told)) => told.failure(),
            Err(failure) => failure,
        };
        match failure.refusal() {
            Some(refused) if refused.may_be_absence() => {
                client.confirm_absence(key, &failure).await
            }
            _ => Err(client.error(failure, Asked::Object(key))),
        }
    }

    /// Deletes many, and reports which it could not and why.
    pub(super) async fn delete_all(&self, keys: &[ObjectKey]) -> Vec<(ObjectKey, StoreError)> {
        let mut keys: Vec<&ObjectKey> = keys.iter().collect();
        keys.sort_unstable();
        let mut failed = Vec::new();
        for keys in keys.chunks(NAMES_MAX) {
            let large = match self.large_among(keys).await {
                Ok(large) => large,
                // Each of them is asked then.
                Err(error) => {
                    tracing::debug!(%error, "segments could not be listed");
                    keys.iter().copied().cloned().collect()
                }
            };
            let (large, small): (Vec<&ObjectKey>, Vec<&ObjectKey>) =
                keys.iter().partition(|key| large.contains(**key));
            let delete = |key: ObjectKey| {
                let store = self.clone();
                async move { store.delete_one(&key).await }
            };
            let large = large.into_iter().cloned().collect();
            failed.extend(each(large, SINGLE_AT_A_TIME, delete).await);
            let client = &self.inner.client;
            let names: Vec<String> = small
                .iter()
                .map(|key| client.name_of(key.as_str()))
                .collect();
            for (n, failure) in self.delete_names(&names).await {
                let error = client.error(failure, Asked::Object(small[n]));
                failed.push((small[n].clone(), error));
            }
        }
        failed
    }

    /// The keys of these, which are in order, that have segments, as far as they are listed by now. Of what is not listed
    /// yet the sweep finds the segments.
    async fn large_among(&self, keys: &[&ObjectKey]) -> Result<BTreeSet<ObjectKey>, StoreError> {
        let inner = &*self.inner;
        let bounds = keys
            .iter()
            .map(|key| segments::of_object(&inner.client, key));
        let (Some(first), Some(last)) = (bounds.clone().min(), bounds.max()) else {
            return Ok(BTreeSet::new());
        };
        let mut names = Names::open(
            &inner.client,
            &inner.uploads.retry,
            segments::all(&inner.client),
            first,
        )
        .await?;
        let mut large = BTreeSet::new();
        while let Some(entry) = names.next().await? {
            if entry.name > last && !entry.name.starts_with(&last) {
                break;
            }
            if let Some(segment) = segments::take_apart(&inner.client, &entry.name) {
                large.insert(segment.key);
            }
        }
        Ok(large)
    }

    /// Deletes objects without regard to segments. Gives the places of those that are left, and why.
    pub(super) async fn delete_names(&self, names: &[String]) -> Vec<(usize, Failure)> {
        let mut failed = Vec::new();
        for (n, names) in names.chunks(NAMES_MAX).enumerate() {
            let first = n * NAMES_MAX;
            let singly = self.inner.deletes_singly.load(Ordering::Relaxed) || names.len() == 1;
            let together = if singly {
                Ok(None)
            } else {
                self.delete_names_together(names).await
            };
            let results = match together {
                Ok(Some(some)) => some,
                Ok(None) => {
                    if !singly {
                        tracing::debug!("the store deletes one object at a time");
                        self.inner.deletes_singly.store(true, Ordering::Relaxed);
                    }
                    self.delete_names_singly(names).await
                }
                Err(failure) => (0..names.len()).map(|n| (n, failure.clone())).collect(),
            };
            failed.extend(results.into_iter().map(|(n, failure)| (first + n, failure)));
        }
        failed
    }

    async fn delete_names_singly(&self, names: &[String]) -> Vec<(usize, Failure)> {
        let delete = |(_, name): (usize, String)| {
            let store = self.clone();
            async move { store.delete_name(&name).await }
        };
        let names = names.iter().cloned().enumerate().collect();
        let failed = each(names, SINGLE_AT_A_TIME, delete).await;
        let places = failed.into_iter().map(|((n, _), failure)| (n, failure));
        places.collect()
    }

    /// Deletes an object without regard to segments. That there is none, as Swift says itself, is no failure.
    async fn delete_name(&self, name: &str) -> Result<(), Failure> {
        let call = SwiftCall::new(Method::DELETE, About::Named(name.to_owned()));
        match self.inner.client.call(&call).await {
            Ok(_) => Ok(()),
            Err(Failure::Refused(refused)) if refused.is_absence() => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// None when the server does not do such requests. One that does not know them may take them for something else and
    /// answer with success: only its own count is believed.
    async fn delete_names_together(
        &self,
        names: &[String],
    ) -> Result<Option<Vec<(usize, Failure)>>, Failure> {
        let client = &self.inner.client;
        let lines: Vec<String> = names
            .iter()
            .map(|name| escape_path(&format!("{}/{name}", client.container())))
            .collect();
        let call = SwiftCall::new(Method::POST, About::Account)
            .query(&[("bulk-delete", "")])
            .header("accept", "application/json")
            .header("content-type", "text/plain")
            .payload(bytes::Bytes::from(lines.join("\n")));
        let told = match client
            .document(&call, RESULT_BYTES_MAX, Deletion::read)
            .await
        {
            Ok(Some(told)) => told,
            Ok(None) => return Ok(None),
            // Some are not allowed anything but the container, where each object is deleted by itself.
            Err(Failure::Refused(refused))
                if refused.is_unsupported()
                    || matches!(refused.status.as_u16(), 400 | 403 | 404) =>
            {
                return Ok(None);
            }
            Err(failure) => return Err(failure),
        };
        let places: HashMap<&str, usize> = lines
            .iter()
            .enumerate()
            .map(|(n, line)| (line.as_str(), n))
            .collect();
        let failed: Option<Vec<_>> = told
            .errors
            .iter()
            .map(|(name, why)| {
                let place = places.get(name.trim_start_matches('/'))?;
                Some((*place, Failure::Refused(refusal::of_text(why))))
            })
            .collect();
        let counted = told.deleted + told.not_found + told.errors.len() as u64;
        match failed {
            Some(failed) if counted == names.len() as u64 => Ok(Some(failed)),
            // An error without a known name may be about any of the objects, so none of them counts as deleted.
            _ if told.errors.is_empty() && told.is_success() => Err(Failure::Nonsense(format!(
                "of {} objects that were to be deleted it counts {counted}",
                names.len()
            ))),
            _ => Err(told.failure()),
        }
    }
}
