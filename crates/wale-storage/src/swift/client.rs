//! Requests of one container, with a token, and what their answers mean.

use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode};
use tokio::sync::OnceCell;

use super::documents::{Entry, read_json};
use super::login::{Admitted, Logins};
use super::names;
use super::options::SwiftOptions;
use super::refusal;
use crate::http::call::HttpCall;
use crate::http::failure::{ANSWERS_WITH_AN_ERROR, Asked, Failure, Meaning, Refusal};
use crate::http::seen::LastSeen;
use crate::http::text::{escape, escape_path, query};
use crate::http::transport::{Answer, Outgoing, Transport};
use crate::{CredentialEnd, HttpTimeouts, Misconfiguration, ObjectKey, StoreError};

/// An answer that holds one entry of a listing is some hundred bytes long.
const SHORT_BYTES_MAX: usize = 64 << 10;

/// A container and who asks it.
#[derive(Debug)]
pub(super) struct SwiftClient {
    transport: Transport,
    logins: Logins,
    container: String,
    prefix: String,
    location: String,
    spelling_is_certain: bool,
    names_agree: OnceCell<()>,
    container_seen: LastSeen,
}

/// A client that uploads, listings and open objects share.
pub(super) type SharedSwift = Arc<SwiftClient>;

/// What a request is about.
#[derive(Debug, Clone)]
pub(crate) enum About {
    /// The object of the container with this whole name.
    Named(String),
    /// The container.
    Container,
    /// The account, for what concerns many objects.
    Account,
}

/// A request without its token.
pub(super) type SwiftCall<'a> = HttpCall<'a, About>;

impl SwiftCall<'_> {
    /// That the newest of the copies on all disks counts, where an object may have been replaced.
    pub(super) fn newest(self) -> Self {
        self.header("x-newest", "true")
    }
}

impl SwiftClient {
    /// When the right to ask ends.
    pub(super) fn credential_ends(&self) -> Vec<CredentialEnd> {
        self.logins.ends()
    }

    /// Reads the file of certificates; asks nobody.
    pub(super) fn new(options: &SwiftOptions) -> Result<Self, String> {
        let transport = Transport::new(
            options.ca_file.as_deref(),
            &options.proxies,
            options.timeouts.clone(),
        )?;
        Ok(Self {
            logins: Logins::new(options, transport.clone()),
            transport,
            container: options.container.clone(),
            prefix: options.prefix.clone(),
            location: location(&options.container, &options.prefix),
            spelling_is_certain: options.spelling_is_certain,
            names_agree: OnceCell::new(),
            container_seen: LastSeen::default(),
        })
    }

    /// Where the store is, for messages.
    pub(super) fn location(&self) -> &str {
        &self.location
    }

    /// The container's name.
    pub(super) fn container(&self) -> &str {
        &self.container
    }

    /// What every object's name begins with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The limits in force.
    pub(super) fn timeouts(&self) -> &HttpTimeouts {
        self.transport.timeouts()
    }

    /// The whole name of an object, or of what begins so.
    pub(super) fn name_of(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// An object.
    pub(super) fn object(&self, method: Method, key: &ObjectKey) -> SwiftCall<'static> {
        SwiftCall::new(method, About::Named(self.name_of(key.as_str())))
    }

    /// The key of an object of the container, if it is below the prefix and can be one of ours.
    pub(super) fn key_of(&self, name: &str) -> Option<ObjectKey> {
        if names::is_segment(name) {
            return None;
        }
        ObjectKey::new(name.strip_prefix(&self.prefix)?).ok()
    }

    /// The failure as the room's error.
    pub(super) fn error(&self, failure: Failure, asked: Asked<'_>) -> StoreError {
        let failure = match (failure, asked) {
            (Failure::Refused(mut refusal), Asked::Bucket) if refusal.is_absence() => {
                refusal.meaning = Meaning::Misconfigured(
                    Misconfiguration::NoSuchBucket,
                    format!("container {} does not exist", self.container),
                );
                Failure::Refused(refusal)
            }
            // Anybody may say that something is not there.
            (Failure::Refused(mut refusal), Asked::Bucket) if refusal.may_be_absence() => {
                refusal.meaning = Meaning::Passing(ANSWERS_WITH_AN_ERROR);
                Failure::Refused(refusal)
            }
            (other, _) => other,
        };
        failure.into_store_error(&self.location, asked)
    }

    /// Makes a request. A token that is refused is renewed once.
    pub(super) async fn call(&self, call: &SwiftCall<'_>) -> Result<Answer, Failure> {
        let session = self.logins.get().await?;
        match self.attempt(call, &session).await {
            Ok(answer) => Ok(answer),
            Err(failure) => match self.renewed(&session, &failure).await? {
                Some(renewed) => self.attempt(call, &renewed).await,
                None => Err(failure),
            },
        }
    }

    /// Another session, when this one was refused and there is another.
    async fn renewed(
        &self,
        refused: &Arc<Admitted>,
        failure: &Failure,
    ) -> Result<Option<Arc<Admitted>>, Failure> {
        if !failure.refusal().is_some_and(refusal::is_of_token) {
            return Ok(None);
        }
        let renewed = self.logins.other_than(refused).await?;
        if renewed.is_some() {
            tracing::info!(location = %self.location, "the token was renewed");
        }
        Ok(renewed)
    }

    /// Makes a request whose answer is a document of at most that length. Swift begins some answers before it knows how
    /// they end: what `read` finds refused in a document is a refusal, too.
    pub(super) async fn document<T>(
        &self,
        call: &SwiftCall<'_>,
        bytes_max: usize,
        read: impl Fn(StatusCode, &[u8]) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let ask = async |session: &Admitted| {
            let mut answer = self.attempt(call, session).await?;
            let body = answer.read(bytes_max).await?;
            read(answer.status, &body)
        };
        let session = self.logins.get().await?;
        match ask(&session).await {
            Ok(told) => Ok(told),
            Err(failure) => match self.renewed(&session, &failure).await? {
                Some(renewed) => ask(&renewed).await,
                None => Err(failure),
            },
        }
    }

    async fn attempt(&self, call: &SwiftCall<'_>, session: &Admitted) -> Result<Answer, Failure> {
        let mut answer = self.transport.send(self.outgoing(call, session)?).await?;
        if answer.status.is_success() {
            if !matches!(call.target, About::Account) {
                self.container_seen.note();
            }
            return Ok(answer);
        }
        // An error whose body cannot be read is still the error that its status says.
        let body = answer.read(refusal::BYTES_MAX).await.unwrap_or_default();
        Err(Failure::Refused(refusal::read(
            answer.status,
            &answer.headers,
            &body,
        )))
    }

    fn outgoing(&self, call: &SwiftCall<'_>, session: &Admitted) -> Result<Outgoing, Failure> {
        let Admitted { token, storage_url } = session;
        let container = escape(&self.container);
        let path = match &call.target {
            About::Named(name) => format!("/{container}/{}", escape_path(name)),
            About::Container => format!("/{container}"),
            About::Account => String::new(),
        };
        let query = query(&call.query);
        let mark = if query.is_empty() { "" } else { "?" };
        let mut headers = call.headers.clone();
        let mut value = HeaderValue::from_str(token.expose())
            .map_err(|_| Failure::NoCredentials("the token is no word".to_owned()))?;
        value.set_sensitive(true);
        headers.insert("x-auth-token", value);
        let url = format!("{storage_url}{path}{mark}{query}");
        Ok(call.outgoing(url, headers, self.transport.timeouts()))
    }

    /// Makes sure that the container exists, after an object of it was not found: the answer does not say which of the
    /// two is missing.
    pub(super) async fn confirm_container(&self) -> Result<(), StoreError> {
        if self.container_seen.is_recent() {
            return Ok(());
        }
        self.ask_container().await
    }

    /// Makes sure that an object does not exist of which this failure says so. Swift's own word is believed, once the
    /// container has answered; of anybody else's the listing must not have the object.
    pub(super) async fn confirm_absence(
        &self,
        key: &ObjectKey,
        failure: &Failure,
    ) -> Result<(), StoreError> {
        if failure.refusal().is_some_and(Refusal::is_absence) {
            self.confirm_spelling().await?;
            return self.confirm_container().await;
        }
        let name = self.name_of(key.as_str());
        // The first name that begins so is the name itself, if it is there.
        let first = self.first_below(&name).await?;
        if first.iter().all(|listed| listed.name != name) {
            return Ok(());
        }
        let reason = format!("object {key} is listed, and does not exist when it is asked for");
        Err(self.error(Failure::Nonsense(reason), Asked::Object(key)))
    }

    /// Lists at most one object.
    pub(super) async fn ask_container(&self) -> Result<(), StoreError> {
        self.first_below(&self.prefix).await.map(drop)
    }

    /// Makes sure that an archive which seems to be empty is not there under the other spelling of its names: WAL-E's
    /// begin with a slash, and WAL-G's do not. Asked once, and only where nothing was found.
    pub(super) async fn confirm_spelling(&self) -> Result<(), StoreError> {
        let other = match self.prefix.strip_prefix('/') {
            Some(rest) => rest.to_owned(),
            None => format!("/{}", self.prefix),
        };
        // The whole container holds everything, of others too.
        if self.spelling_is_certain || self.prefix.is_empty() || other.is_empty() {
            return Ok(());
        }
        let asked = self.names_agree.get_or_try_init(|| async {
            let is_empty = self.first_below(&self.prefix).await?.is_empty();
            if !is_empty || self.first_below(&other).await?.is_empty() {
                return Ok(());
            }
            let ours = &self.prefix;
            Err(StoreError::Misconfigured {
                location: self.location.clone(),
                problem: Misconfiguration::OtherNames,
                reason: format!(
                    "no name in the container begins with \"{ours}\", and some begin with \"{other}\": WAL-E's names \
                     begin with a slash, WAL-G's do not"
                ),
                source: None,
            })
        });
        asked.await.copied()
    }

    async fn first_below(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        let call = SwiftCall::new(Method::GET, About::Container).query(&[
            ("format", "json"),
            ("limit", "1"),
            ("prefix", prefix),
        ]);
        let read = |_, body: &[u8]| read_json(body);
        let page = self.document(&call, SHORT_BYTES_MAX, read).await;
        page.map_err(|failure| self.error(failure, Asked::Bucket))
    }
}

/// A container and prefix as they are written.
pub(super) fn location(container: &str, prefix: &str) -> String {
    format!("swift://{container}/{}", prefix.trim_matches('/'))
        .trim_end_matches('/')
        .to_owned()
}
