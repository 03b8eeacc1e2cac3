//! Listings of the bucket: how a page is asked for, and what is on it.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use http::Method;

use super::client::{Call, Client, SharedClient};
use super::xml::{self, ListPage};
use crate::http::extent::PAGE_BYTES_MAX;
use crate::http::failure::{Asked, Failure};
use crate::http::listing::{ListedName, NamesPage, Pages};
use crate::http::text::moment;
use crate::{ObjectKey, StoreError};

/// The objects whose names begin so.
pub(super) struct Below {
    client: SharedClient,
    start: String,
    /// The name behind which it begins.
    after: Option<String>,
}

impl Below {
    /// Those whose keys begin with `prefix`, behind the key `after`.
    pub(super) fn new(client: &SharedClient, prefix: &str, after: Option<&str>) -> Self {
        Self {
            client: client.clone(),
            start: format!("{}{prefix}", client.prefix()),
            after: after.map(|after| format!("{}{after}", client.prefix())),
        }
    }
}

#[async_trait]
impl Pages for Below {
    async fn page(&self, token: Option<&str>) -> Result<NamesPage, Failure> {
        let mut query = vec![
            ("list-type", "2"),
            ("max-keys", "1000"),
            ("prefix", self.start.as_str()),
        ];
        match (token, &self.after) {
            (Some(token), _) => query.push(("continuation-token", token)),
            (None, Some(after)) => query.push(("start-after", after)),
            (None, None) => {}
        }
        let Page { told, bytes, .. } = page::<ListPage>(&self.client, &query).await?;
        let next = told
            .next_continuation_token
            .filter(|token| told.is_truncated && !token.is_empty());
        if told.is_truncated && next.is_none() {
            let problem = "a listing that goes on does not say where";
            return Err(Failure::Nonsense(problem.to_owned()));
        }
        let entries = told.contents.into_iter().map(|listed| ListedName {
            name: listed.key,
            size: listed.size,
            modified: listed.last_modified,
        });
        Ok(NamesPage {
            count: entries.len(),
            entries: entries.collect(),
            bytes,
            next,
        })
    }

    fn key_of(&self, name: &str) -> Option<ObjectKey> {
        self.client.key_of(name)
    }

    fn error(&self, failure: Failure) -> StoreError {
        self.client.error(failure, Asked::Bucket)
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
