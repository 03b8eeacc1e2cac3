//! One request, one answer, limits on silence.
//!
//! * Redirects are not followed: a redirect of a store means another place of the bucket, and following one could leave TLS.
//! * Proxies come from the options, never from the environment.
//! * Trusted are the system's certificates, Mozilla's where the system has none, and those of the options.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, Method, StatusCode};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::{Instant, timeout, timeout_at};

use super::failure::{Failure, NoAnswer};
use super::named_file;
use super::options::{HttpTimeouts, Proxies};

/// Connections that stay open without work. 16: as many as there are transfers at a time in a busy sidecar.
const IDLE_CONNECTIONS: usize = 16;

/// After this much idleness a connection is closed. 15 s: of the stores Amazon closes them first, after 20.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes of a body that are handed over at a time: the step in which its movement is seen.
const STEP_BYTES: usize = 64 << 10;

/// An HTTP client.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    client: reqwest::Client,
    timeouts: HttpTimeouts,
}

/// A request that is ready to go.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    /// How long the server may think after it was handed the body.
    pub(crate) answer_limit: Duration,
}

/// A body in memory, that can be sent more than once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Payload {
    chunks: Vec<Bytes>,
    bytes: u64,
}

impl Payload {
    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.bytes += chunk.len() as u64;
        self.chunks.push(chunk);
    }

    pub(crate) fn len(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    fn into_body(self, movement: Arc<Movement>) -> reqwest::Body {
        let steps = self.chunks.into_iter().flat_map(|chunk| {
            (0..chunk.len())
                .step_by(STEP_BYTES)
                .map(move |at| chunk.slice(at..chunk.len().min(at + STEP_BYTES)))
        });
        let steps = stream::unfold(steps.peekable(), move |mut steps| {
            let step = steps.next();
            // A client that knows the length does not ask for more after the last byte.
            movement.seen(steps.peek().is_none());
            std::future::ready(step.map(|step| (Ok::<_, std::io::Error>(step), steps)))
        });
        reqwest::Body::wrap_stream(steps)
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        let mut payload = Self::default();
        payload.push(bytes);
        payload
    }
}

/// When a body last moved.
#[derive(Debug)]
struct Movement {
    state: Mutex<Moved>,
}

#[derive(Debug, Clone, Copy)]
struct Moved {
    last: Instant,
    has_ended: bool,
    /// Whether the connection stands, because something has moved.
    is_connected: bool,
}

impl Movement {
    fn new(has_ended: bool) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(Moved {
                last: Instant::now(),
                has_ended,
                is_connected: false,
            }),
        })
    }

    fn seen(&self, has_ended: bool) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Moved {
            last: Instant::now(),
            has_ended,
            is_connected: true,
        };
    }

    fn state(&self) -> Moved {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server's answer, its body unread.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    response: reqwest::Response,
    stall: Duration,
}

impl Answer {
    /// The next piece of the body.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        match timeout(self.stall, self.response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(failure(error)),
            Err(_) => Err(Failure::NoAnswer(NoAnswer::silence(self.stall))),
        }
    }

    /// The whole body, of at most `bytes_max`.
    pub(crate) async fn read(&mut self, bytes_max: usize) -> Result<Bytes, Failure> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > bytes_max {
                return Err(Failure::Nonsense(format!(
                    "more than {bytes_max} bytes where a short text was expected"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// A header as text.
    pub(crate) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Transport {
    /// Makes a client. The file of certificates is read now.
    pub(crate) fn new(
        ca_file: Option<&Path>,
        proxies: &Proxies,
        timeouts: HttpTimeouts,
    ) -> Result<Self, String> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(ca_file)?)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(timeouts.connect)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .referer(false)
            .user_agent(concat!("wale/", env!("CARGO_PKG_VERSION")))
            .http1_only()
            .no_proxy();
        for proxy in proxy_rules(proxies)? {
            builder = builder.proxy(proxy);
        }
        let client = builder
            .build()
            .map_err(|error| format!("the HTTP client cannot be made: {error}"))?;
        Ok(Self { client, timeouts })
    }

    /// The limits in force.
    pub(crate) fn timeouts(&self) -> &HttpTimeouts {
        &self.timeouts
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn send(&self, outgoing: Outgoing) -> Result<Answer, Failure> {
        let Outgoing {
            method,
            url,
            headers,
            payload,
            answer_limit,
        } = outgoing;
        let url = url
            .parse()
            .map_err(|error| Failure::Nonsense(format!("not a URL: {error}")))?;
        let length = payload.len();
        let movement = Movement::new(length == 0);
        let mut request = reqwest::Request::new(method.clone(), url);
        *request.headers_mut() = headers;
        if length > 0 {
            request
                .headers_mut()
                .insert(http::header::CONTENT_LENGTH, length.into());
            *request.body_mut() = Some(payload.into_body(Arc::clone(&movement)));
        } else if method == Method::PUT || method == Method::POST {
            // Several servers want to be told the length of nothing, too (RFC 9110, 8.6).
            request
                .headers_mut()
                .insert(http::header::CONTENT_LENGTH, 0.into());
            *request.body_mut() = Some(reqwest::Body::from(Bytes::new()));
        }
        let response = self
            .watch(&movement, answer_limit, self.client.execute(request))
            .await?;
        Ok(Answer {
            status: response.status(),
            headers: response.headers().clone(),
            response,
            stall: self.timeouts.stall,
        })
    }

    /// Waits as long as the body moves, and `answer_limit` after its end.
    async fn watch(
        &self,
        movement: &Movement,
        answer_limit: Duration,
        call: impl Future<Output = Result<reqwest::Response, reqwest::Error>>,
    ) -> Result<reqwest::Response, Failure> {
        let mut call = std::pin::pin!(call);
        loop {
            let moved = movement.state();
            let limit = if moved.has_ended {
                answer_limit
            } else {
                self.timeouts.stall
            };
            // A request without a body waits for the connection, too, and so does the first movement of a body: the
            // connection has its own limit and message.
            let connecting = if moved.is_connected {
                Duration::ZERO
            } else {
                self.timeouts.connect
            };
            let until = moved.last + limit + connecting;
            match timeout_at(until, &mut call).await {
                Ok(result) => return result.map_err(failure),
                Err(_) if movement.state().last > moved.last => {}
                Err(_) => return Err(Failure::NoAnswer(NoAnswer::silence(limit))),
            }
        }
    }
}

/// What an error of the client means. URLs are left out: they repeat what the message says anyway.
fn failure(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    if let Some(reason) = distrust(&error) {
        return Failure::Untrusted(reason);
    }
    if error.is_connect() && is_no_tls(&error) {
        let reason = "the server does not speak TLS, and the endpoint says https";
        return Failure::OtherProtocol(reason.to_owned());
    }
    let reason = if error.is_timeout() {
        "the connection could not be made in time"
    } else if error.is_connect() {
        "the connection could not be made"
    } else {
        "the connection broke"
    };
    let mut reason = reason.to_owned();
    if let Some(root) = root_cause(&error) {
        reason = format!("{reason}: {root}");
        // The words of the HTTP library for an answer that begins otherwise, as an alert of TLS does.
        if root.contains("invalid HTTP version") {
            reason.push_str(" (a server that speaks TLS wants an endpoint with https)");
        }
    }
    Failure::NoAnswer(NoAnswer { reason })
}

/// The text of the innermost cause.
fn root_cause(error: &reqwest::Error) -> Option<String> {
    let mut cause = std::error::Error::source(error)?;
    while let Some(next) = cause.source() {
        cause = next;
    }
    Some(cause.to_string())
}

/// Why the server's certificate is not trusted, if that is it.
fn distrust(error: &reqwest::Error) -> Option<String> {
    let tls = first_error_of_tls(error, |tls| {
        matches!(
            tls,
            rustls::Error::InvalidCertificate(_)
                | rustls::Error::NoCertificatesPresented
                | rustls::Error::UnsupportedNameType
        )
    })?;
    Some(format!("its certificate is refused, {tls}"))
}

/// Whether what came in answer to the first message of TLS is none of TLS.
fn is_no_tls(error: &reqwest::Error) -> bool {
    let is_garbage = |tls: &rustls::Error| {
        matches!(
            tls,
            rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)
        )
    };
    first_error_of_tls(error, is_garbage).is_some()
}

/// The first error of TLS among the causes of which this is true.
fn first_error_of_tls(
    error: &reqwest::Error,
    is_meant: impl Fn(&rustls::Error) -> bool,
) -> Option<&rustls::Error> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        match error_of_tls(error) {
            Some(tls) if is_meant(tls) => return Some(tls),
            _ => cause = error.source(),
        }
    }
    None
}

/// The error of TLS that this is or wraps. An I/O error hands out what it wraps by another way than its source, which
/// leaves that one out; and one may wrap another.
fn error_of_tls<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut inner = error;
    while let Some(wrapped) = inner
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref)
    {
        inner = wrapped;
    }
    inner.downcast_ref::<rustls::Error>()
}

/// Proxies by scheme, as curl has them: a request of each scheme goes through its own.
fn proxy_rules(proxies: &Proxies) -> Result<Vec<reqwest::Proxy>, String> {
    // The library takes a star for every name and for no address.
    let reaches_all = |except: &str| except.split(',').any(|host| host.trim() == "*");
    if proxies.except.as_deref().is_some_and(reaches_all) {
        return Ok(Vec::new());
    }
    let except = || {
        proxies
            .except
            .as_deref()
            .and_then(reqwest::NoProxy::from_string)
    };
    // The URL may hold a password, so the error says no more than that there is one.
    let mut rules = Vec::new();
    if let Some(url) = &proxies.http {
        let rule = reqwest::Proxy::http(url.expose())
            .map_err(|_| "the proxy for http:// is not a URL".to_owned())?;
        rules.push(rule.no_proxy(except()));
    }
    if let Some(url) = &proxies.https {
        let rule = reqwest::Proxy::https(url.expose())
            .map_err(|_| "the proxy for https:// is not a URL".to_owned())?;
        rules.push(rule.no_proxy(except()));
    }
    Ok(rules)
}

fn tls(ca_file: Option<&Path>) -> Result<rustls::ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(path) = ca_file {
        let shown = path.display();
        let pem = named_file::read(path)
            .map_err(|error| format!("the CA file {shown} cannot be read: {error}"))?;
        let certificates = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("the CA file {shown} cannot be read: {error}"))?;
        if roots.add_parsable_certificates(certificates).0 == 0 {
            return Err(format!("the CA file {shown} holds no certificate"));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::super::options::Secret;
    use super::*;

    #[test]
    fn fault_101_a_star_keeps_addresses_from_the_proxy_too() {
        for (except, rules) in [
            (None, 2),
            (Some("*"), 0),
            (Some("localhost, *"), 0),
            (Some("*.example.org,10.0.0.0/8"), 2),
        ] {
            let proxies = Proxies {
                http: Some(Secret::new("http://proxy:3128")),
                https: Some(Secret::new("socks5h://proxy:1080")),
                except: except.map(str::to_owned),
            };
            let found = proxy_rules(&proxies).expect("both are URLs");
            assert_eq!(found.len(), rules, "{except:?}");
        }
    }
}
